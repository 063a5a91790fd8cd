"""Rows of the benchmark `climate` for stored chunks: days of whole fields to series of some cells, with one codec."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr

import gridcompute as grid
from benchmarks.climate_ours import opened
from benchmarks.climate_stack import SMALL, TYPESIZE, Stack
from benchmarks.memory import Watch
from benchmarks.overhead_tasks import end_ray
from benchmarks.peering import Peers
from benchmarks.rows import OURS, Reference, Row, Session, check
from benchmarks.running import new_store
from gridcompute.errors import GridError
from gridcompute.ray_session import connect

WORKERS = 2
BOUND = 10**9
"""Bytes that a worker may have; Cubed is told the same."""

TIMES = {"dask": 1.5, "cubed": 3.0}
"""How many times faster ours should be."""


def chunks_of(stack: Stack) -> tuple[int, int, int]:
    """Extents of the new chunks: 240 x 91 x 180 of a quarter degree."""
    return (240, 10, 18) if stack.grid == SMALL else (240, 91, 180)


def rechunking(session: Session, peers: Peers, small: Stack, large: Stack) -> Iterator[Row]:
    """Seconds of ours, dask and Cubed for the small stack; ours for the large one within a bound of memory."""
    session.begin("rechunk")
    end_ray()
    connect(workers=WORKERS)
    systems: dict[str, Callable[[], float]] = {OURS: partial(_ours, small)}
    for name, peer in peers.of("dask", "cubed").items():
        more = {"allowed_mem": f"{BOUND // 10**6}MB"} if name == "cubed" else {}
        systems[name] = partial(_theirs, peer, small, more)
    raw: dict[str, list[float]] = {name: [] for name in systems}
    systems[OURS]()  # starts the workers, and compiles what there is to compile
    for number in range(session.pick(1, 3, 5)):
        for name, measure in systems.items():
            if name == OURS or number < session.pick(1, 2, 3):
                raw[name].append(measure())
    size = " x ".join(map(str, chunks_of(small)))
    yield Row(f"rechunk/{small.gigabytes:.2g} GB", "s", raw,
              note=f"From chunks of 24 whole steps to {size}, zstd level 3 with shuffle both times (Coiled's "
              f"rechunking, made small); {WORKERS} workers or threads; Cubed with allowed_mem of {BOUND / 1e9:g} GB "
              "and nothing compressed that lies between.")
    for name, seconds in raw.items():
        if name != OURS:
            ratio = statistics.median(seconds) / statistics.median(raw[OURS])
            yield Row(f"times faster/rechunk, {name}", "x", {OURS: [ratio]}, more=True,
                      target=Reference(TIMES[name], f"at least {TIMES[name]:g} times faster than {name}"))
    peers.rest("dask", "cubed")
    session.begin("rechunk, large")
    yield from _bounded(small, large)


def _bounded(small: Stack, stack: Stack) -> Iterator[Row]:
    """The large stack, which doesn't fit into the bound, after the small one has started the workers."""
    label = f"rechunk/{stack.gigabytes:.2g} GB within {BOUND / 1e9:g} GB"
    end_ray()
    connect(workers=WORKERS)
    _ours(small)
    try:
        with Watch() as watch:
            began = time.perf_counter()
            run = _written(stack, memory=BOUND)
            seconds = time.perf_counter() - began
    except GridError as error:
        yield Row(label, "s", {}, note=f"Not measured: {error}.")
        return
    _check("ours.zarr", stack, "ours")
    yield Row(label, "s", {OURS: [seconds]}, note="With that bound for each worker.")
    yield Row(f"memory/{label}", "MiB", {OURS: [watch.peak / 2**20]},
              target=Reference(run.status.bound_bytes / 2**20, "the plan's bound"),
              note="The most that a worker had (PSS, twenty times a second).")


def _written(stack: Stack, **options: Any) -> Any:
    named = dict(zip(("time", "lat", "lon"), chunks_of(stack), strict=True))
    with new_store() as store:
        output = opened(stack).write("ours.zarr", chunks=named)
        return grid.run(output, executor="ray", workers=WORKERS, store=store, quiet=True, **options)


def _ours(stack: Stack) -> float:
    began = time.perf_counter()
    _written(stack)
    seconds = time.perf_counter() - began
    _check("ours.zarr", stack, "ours")
    return seconds


def _theirs(peer: Any, stack: Stack, more: dict[str, str]) -> float:
    path, output = (str(Path(one).absolute()) for one in (stack.path, "theirs.zarr"))
    seconds, _ = peer.ask("climate-rechunk", path=path, output=output, chunks=list(chunks_of(stack)), threads=WORKERS,
                          **more)
    _check(output, stack, peer.name)
    return float(seconds)


def _check(output: str, stack: Stack, whose: str, chunks: tuple[int, ...] = ()) -> None:
    """Compare a row of cells with the source, the chunks' extents and their codec with what was asked; remove it."""
    made, source = (zarr.open_group(path, mode="r")["t"] for path in (output, stack.path))
    (length, *_), extents = source.shape, chunks or chunks_of(stack)
    header = (Path(output) / "t" / "c" / "0" / "0" / "0").read_bytes()[:16]
    row = slice(stack.grid.row, stack.grid.row + 1)
    right = (made.chunks == extents and header[TYPESIZE] == 4 and made.shape == source.shape
             and all(np.array_equal(made[at : at + 1, row], source[at : at + 1, row])
                     for at in range(0, length, 37)))  # fmt: skip
    shutil.rmtree(output)
    check(right, f"rechunking {stack.path} by {whose}")
