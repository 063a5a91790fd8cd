# Everything a clone needs, from nothing but Python 3.11 with its venv module, and make.
# Paths are relative and tools are started as `python -m`, so that the clone may lie in a path with a space.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Two installers in one environment at once would break it.
.NOTPARALLEL:

PYTHON ?= $(shell command -v python3.11 || command -v python3)
UV := $(shell command -v uv)
BIN := .venv/bin/python
PEERS := .venv-peers/bin/python
# For `make bench`: which benchmark, and its options.
NAME ?= overhead
ARGS ?= --quick

PINS := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --fork-strategy fewest \
	--custom-compile-command "make pins"

# Debian's packages of the servers that tests start: Ceph's S3, Redis, network namespaces (340 MB); samtools checks BAM files,
# cdo the statistics of climate fields.
SERVERS := radosgw ceph-mon ceph-osd ceph-common redis-server iproute2 util-linux samtools cdo
# Of what the benchmark genomics compares with, and the genomes that it maps reads to.
TOOLS := minimap2 bwa samtools libedlib-dev libwfa2-dev gcc libc6-dev sibelia-examples kmer-examples

.PHONY: help install servers demo test chaos local-cluster lint docs wheels bench peers pins clean

help:
	@echo "make install   environment in .venv with the pinned dependencies"
	@echo "make servers   Ceph's S3, Redis, iproute2, samtools and cdo from Debian's packages, for tests (asks for root)"
	@echo "make demo      run three real jobs on a local Ray; results in demo/"
	@echo "make test      run the tests with the coverage gate, two at once"
	@echo "make chaos     the whole fault matrix: servers, nodes, links and disks that fail (25 minutes)"
	@echo "make local-cluster  several Ray nodes on this machine, to try things out (ARGS='--nodes 3 --s3')"
	@echo "make lint      ruff and mypy"
	@echo "make docs      build the documentation in site/, dead links are errors"
	@echo "make wheels    check that every pin has a wheel for each supported Python (asks the package index)"
	@echo "make bench     python -m benchmarks (NAME=overhead ARGS=--quick)"
	@echo "make peers     what benchmarks compare against: an environment in .venv-peers, and Debian's packages (asks for root)"
	@echo "make pins      resolve requirements/*.txt again (needs uv; UPGRADE=1 moves to new versions)"
	@echo "make clean     remove what the targets above produced, except the environments"

install: .venv/installed

# $(call environment,DIR,REQUIREMENTS): make DIR if need be and install the pins, by uv where there is one. The pins are
# complete, so nothing is resolved again: older pips look for `coverage[toml]` beside the pinned `coverage` and find a newer one.
ifneq ($(UV),)
define environment
test -x $(1)/bin/python || uv venv --quiet --python "$(PYTHON)" $(1)
uv pip install --quiet --python $(1)/bin/python --require-hashes --no-deps -r $(2)
endef
EDITABLE := uv pip install --quiet --python $(BIN)
else
define environment
test -x $(1)/bin/python || "$(PYTHON)" -m venv $(1)
$(call pip,$(1)) --require-hashes --no-deps -r $(2)
endef
# An environment that uv made has no pip.
pip = { $(1)/bin/python -m pip --version || $(1)/bin/python -m ensurepip; } >/dev/null 2>&1; \
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check
EDITABLE = $(call pip,.venv)
endif

.venv/pinned: requirements/dev.txt
	@"$(PYTHON)" -c 'import sys; sys.exit("gridcompute needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"\
	 if sys.version_info < (3, 11) else 0)'
	@echo "installing the pinned dependencies with $(if $(UV),uv,pip; this takes a minute or two)"
	@$(call environment,.venv,requirements/dev.txt)
	@# Without .pyc files a Ray node is too slow to start and aborts. A few packages ship templates that
	@# are no valid Python, which makes the exit code useless.
	@$(BIN) -m compileall -q -q -j 0 .venv/lib || true
	@touch $@

# The editable install records the clone's place and the entry points, both of which may change.
.venv/installed: .venv/pinned pyproject.toml
	@$(EDITABLE) --no-deps --no-build-isolation -e .
	@touch $@

# $(call packages,NAMES): install those of Debian's packages that are missing.
define packages
missing=(); for name in $(1); do \
  [ "$$(dpkg-query -Wf '$${db:Status-Status}' $$name 2>/dev/null)" = installed ] || missing+=($$name); done; \
[ $${#missing[@]} -gt 0 ] || exit 0; \
root=(); [ "$$(id -u)" -eq 0 ] || root=(sudo); \
"$${root[@]}" apt-get update -qq && \
"$${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${missing[@]}"
endef

servers:
	@$(call packages,$(SERVERS))

demo: install
	$(BIN) -m gridcompute run climate.trend --output demo/trend.zarr
	$(BIN) -m gridcompute run genomics.map --output demo/mapped.bam
	$(BIN) -m gridcompute run genomics.distance --output demo/distance.parquet

# Two at once: what starts Ray or a server mostly waits for it (tests/at_once.py). Hundreds of processes import the package.
TWO := -m pytest -n 2 --durations=20

test: install
	@$(BIN) -m compileall -q gridcompute workloads
	$(BIN) $(TWO) --cov

chaos: install
	@$(BIN) -m compileall -q gridcompute workloads
	$(BIN) $(TWO) -m "chaos or faults"

local-cluster: ARGS := --nodes 3
local-cluster: install
	$(BIN) cluster/local/start.py $(ARGS)

lint: install
	$(BIN) -m ruff check .
	$(BIN) -m mypy

docs: install
	$(BIN) -m mkdocs build --strict  # not --quiet: it hides the warnings from --strict too
	$(BIN) tools/check_links.py

wheels: install
	$(BIN) tools/check_wheels.py requirements/dev.txt 3.11 3.12 3.13

bench: install
	$(BIN) -m benchmarks $(NAME) $(ARGS)

# Benchmarks leave out what isn't there, and say so.
peers: .venv-peers/pinned
	@( $(call packages,$(TOOLS)) ) || echo "not all of $(TOOLS) could be installed: benchmarks go without what is missing"

.venv-peers/pinned: requirements/peers.txt
	@echo "installing the systems to compare with in .venv-peers"
	@$(call environment,.venv-peers,requirements/peers.txt)
	@$(PEERS) -m compileall -q -q -j 0 .venv-peers/lib || true
	@touch $@

# dev.txt leads; the others follow its versions where they share a package.
pins:
	@command -v uv >/dev/null || { echo "make pins needs uv on the PATH"; exit 1; }
	$(PINS) $(if $(UPGRADE),--upgrade) pyproject.toml requirements/dev.in -o requirements/dev.txt
	$(PINS) $(if $(UPGRADE),--upgrade) pyproject.toml -c requirements/dev.txt -o requirements/runtime.txt
	$(PINS) $(if $(UPGRADE),--upgrade) requirements/peers.in -c requirements/dev.txt -o requirements/peers.txt

clean:
	rm -rf demo site build dist *.egg-info .gridcompute .coverage .coverage.* htmlcov
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find gridcompute workloads tests benchmarks tools cluster docs -name __pycache__ -prune -exec rm -rf {} +
