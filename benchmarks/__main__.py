"""The command line: `python -m benchmarks NAME [--quick | --full] [--peers a,b] [--json FILE] [--markdown FILE]`."""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine, report
from benchmarks.peering import PeerError, Peers, known_peers
from benchmarks.rows import Session, WrongResultError

BENCHMARKS = {
    "overhead": "what the framework itself costs: dispatch, cells, start-up, resume, memory, planning",
    "scale": "what grows with cells and tasks: planning, running, the driver's memory",
    "balance": "how evenly tasks of uneven cost are shared out, on simulated workers",
    "stream": "reductions over a compressed stack, one and five at once, against decoding alone",
    "memory": "what workers have in memory, against what the plan says",
    "nodes": "an iterate carried by two nodes of a Ray cluster, against one",
    "recovery": "a lost worker and a dead driver, on ours and on peers; resume of what is committed",
    "genomics": "alignments and mapping of reads, against the C and C++ tools that are used for it",
    "climate": "statistics of an ERA5-like stack, against decoding alone, xarray with dask, cdo and other packages",
    "taskbench": "how small tasks may be until half of the time is overhead: METG(50%) of eleven patterns",
}


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__,
                                   epilog="; ".join(f"{name}: {what}" for name, what in BENCHMARKS.items()))
    made.add_argument("name", metavar="NAME", help=f"one of: {', '.join(BENCHMARKS)}")
    size = made.add_mutually_exclusive_group()
    size.add_argument("--quick", dest="mode", action="store_const", const="quick", help="within a minute")
    size.add_argument("--full", dest="mode", action="store_const", const="full", help="larger, and more repetitions")
    made.add_argument("--peers", metavar="A,B", help=f"compare with these only: {', '.join(known_peers())}, or none")
    made.add_argument("--only", metavar="A,B", default="", help="only these sections")
    made.add_argument("--json", metavar="FILE", help="write the results, with all repetitions")
    made.add_argument("--markdown", metavar="FILE", help="put the table between its markers in this page")
    made.add_argument("--from", dest="source", metavar="FILE", help="measure nothing, show these results")
    made.set_defaults(mode="default")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a benchmark; 0 all measured, 1 a measurement failed, 2 wrong usage."""
    options = parser().parse_args(arguments)
    if options.name not in BENCHMARKS:
        return _wrong(f"no benchmark {options.name!r}; there is: {', '.join(BENCHMARKS)}")
    try:
        results = report.load(options.source) if options.source else measure(options)
        if options.json:
            Path(options.json).write_text(json.dumps(results, indent=1) + "\n")
        if options.markdown:
            report.put_in(Path(options.markdown), results)
    except (PeerError, report.ReportError) as error:
        return _wrong(str(error))
    except WrongResultError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report.text(results))
    return 0


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Run a benchmark in a folder of its own, which is removed at the end."""
    module = importlib.import_module(f"benchmarks.{options.name}")
    names = None if options.peers is None else tuple(n for n in options.peers.split(",") if n and n != "none")
    only = tuple(name for name in options.only.split(",") if name)
    unknown = [name for name in only if name not in module.SECTIONS]
    if unknown:
        raise PeerError(f"{options.name} has no section {unknown[0]!r}; there are: {', '.join(module.SECTIONS)}")
    folder = tempfile.mkdtemp(prefix="gridcompute-benchmark-")
    session = Session(mode=options.mode, peers=names, folder=folder, only=only)
    before, began = machine.describe(), time.perf_counter()
    try:
        with Peers(session) as peers:
            rows = list(module.rows(session, peers))
            return report.document(options.name, session, rows, before, time.perf_counter() - began, peers.versions)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wrong(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
