"""Planning of graphs of any size, and going on from committed shards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

import gridcompute as grid
from benchmarks.peering import PeerProcess, Peers
from benchmarks.rows import OURS, Reference, Row, Session, check, interleaved, timed
from benchmarks.running import index, indices, new_store
from gridcompute.shard import done
from gridcompute.store import open_store

PLAN_TARGET = Reference(50.0, "planning takes less than 50 ms whatever the number of cells")
PEER_NOTE = " dask: its graph with the same chunks, built and optimised, where that has at most 200,000 tasks."
DASK_TASKS = 200_000
"""Graphs of more tasks than this are not asked of dask: they would take minutes."""


def window(values: Any) -> Any:
    """The stencil's kernel."""
    return values[0] + values[-1]


# One object each, as in a script: their keys are taken once.
INDEX = grid.kernel("->()", names=("i",))(index)
WINDOW = grid.kernel("(n)->()", names=("w",))(window)


def _graph(kind: str, n: int) -> Any:
    mapped = grid.space(n=n).map(INDEX)
    if kind == "map":
        return mapped
    return mapped.stencil(WINDOW, {"n": 1}) if kind == "stencil" else mapped.sum("n")


def _plan(kind: str, n: int) -> float:
    seconds, planned = timed(lambda: grid.plan(_graph(kind, n)))
    stages = planned.plan.stages
    sizes = {"map": n, "stencil": n, "reduce": 1}
    check(stages[-1].roots[0].whole.cells == sizes[kind], f"planning a {kind} of {n} cells")
    return seconds * 1e3


def _peer_plan(peer: PeerProcess, kind: str, n: int, chunk: int) -> float:
    seconds, tasks = peer.ask("plan", kind=kind, n=n, chunk=chunk)
    check(tasks >= -(-n // chunk), f"{peer.name}: planning a {kind} of {n} cells")
    return seconds * 1e3


def planning(session: Session, peers: Peers) -> Iterator[Row]:
    """Milliseconds from the ops to a plan."""
    repeat = session.pick(3, 7, 15)
    for kind in ("map", "stencil", "reduce"):
        for power in session.pick((3, 6, 12), (3, 6, 9, 12), (3, 6, 9, 12)):
            n = 10**power
            layout = grid.plan(_graph("map", n)).plan.stages[0].layouts[0]
            systems: dict[str, Callable[[], float]] = {OURS: partial(_plan, kind, n)}
            if layout.chunks * {"map": 2, "stencil": 5, "reduce": 4}[kind] <= DASK_TASKS:
                for name, peer in peers.of("dask").items():
                    systems[name] = partial(_peer_plan, peer, kind, n, layout["n"].extent)
            yield Row(f"plan/{kind}/1e{power}", "ms", interleaved(systems, repeat), target=PLAN_TARGET,
                      note=f"{layout.chunks:,} chunks of cells." + (PEER_NOTE if power == 3 else ""))


def _resume(out: Any, url: str, n: int, expected: int) -> float:
    seconds, run = timed(lambda: grid.run(out, executor="inline", store=url, quiet=True))
    check(run.status.computed == 0 and run.status.reused == expected, f"going on from {n} shards")
    return seconds / n * 1e6


def _listing(url: str, recipe: str, n: int) -> float:
    store = open_store(url)
    seconds, found = timed(lambda: done(store, recipe))
    check(len(found) == n, f"listing {n} shards")
    return seconds / n * 1e6


def _scan(url: str, n: int) -> float:
    """The listing by the operating system alone, with sizes."""
    def walk() -> int:
        return sum(entry.stat().st_size > 0 for folder, _, files in os.walk(url) if files and "shards" in folder
                   for entry in os.scandir(folder))

    seconds, found = timed(walk)
    check(found == n, f"scanning {n} files")
    return seconds / n * 1e6


def resuming(session: Session, peers: Peers) -> Iterator[Row]:
    """Microseconds a shard until it is known that nothing is left to do."""
    n, repeat = session.pick(1000, 10_000, 10_000), session.pick(3, 5, 7)
    with new_store() as url:
        out = indices(n, n)
        run = grid.run(out, executor="inline", store=url, quiet=True)
        check(np.array_equal(run["i"].to_numpy(), np.arange(n)), f"a run of {n} chunks")
        recipe = grid.plan(out).plan.stages[0].recipe
        raw = interleaved({
            OURS: partial(_resume, out, url, n, n),
            "listing": partial(_listing, url, recipe, n), "scandir": partial(_scan, url, n),
        }, repeat)  # fmt: skip
    note = f"A whole run() of {n:,} committed shards in a local folder, until nothing is left to do"
    yield Row("resume/run", "us per shard", {OURS: raw[OURS]}, note=note + ".")
    yield Row("resume/listing", "us per shard", {OURS: raw["listing"], "scandir": raw["scandir"]},
              note="Listing the shards of one op alone, their names parsed. scandir: the operating system's part.")
