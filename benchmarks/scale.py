"""What grows with the work and what doesn't: building, planning and running, by number of cells and of tasks.

The graph is a map, a stencil over it and a sum of that (a tree of merges). Planning it may not depend on the number
of cells, the driver's memory only on what is at work, and a chunk costs the same among a thousand as among a million.
"""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import gridcompute as grid
from benchmarks import scale_dags
from benchmarks.overhead_plans import INDEX, WINDOW
from benchmarks.overhead_processes import child
from benchmarks.overhead_tasks import end_ray
from benchmarks.peering import PeerProcess, Peers
from benchmarks.rows import OURS, Reference, Row, Session, check, interleaved, timed
from benchmarks.running import index, new_store, own_folders, run_indices
from gridcompute.planning import Plan
from gridcompute.planview import Limits
from gridcompute.retry import Policy
from gridcompute.running import graph_of
from gridcompute.state import RunState

MIB = 2**20
PLAN_MS = Reference(50.0, "a trillion cells are planned in less than 50 ms")
PLAN_MIB = Reference(10.0, "and in 10 MB")
DRIVER_MIB = Reference(20.0, "the driver of 10^9 cells takes at most 20 MB more than that of 10^6")
TASK_BYTES = Reference(100.0, "at most 100 bytes a task")
DASK_CHUNKS, DASK_CELLS = 40_000, 10**9
"""More chunks, or cells to compute, aren't asked of dask: they would take minutes."""
RAY_DATA_CELLS = 10**7
RAY_TASKS = 10_000


def graph(n: int) -> Any:
    """A map, a stencil and a tree reduction over n cells."""
    return grid.space(n=n).map(INDEX).stencil(WINDOW, {"n": 1}).sum("n")


def _planned(n: int) -> Any:
    planned = grid.plan(graph(n))
    check(any(op.whole.cells == n for stage in planned.plan.stages for op in stage.roots), f"planning {n} cells")
    return planned


def _plan_ms(n: int) -> float:
    return timed(lambda: _planned(n))[0] * 1e3


def _explain_ms(n: int) -> float:
    planned = _planned(n)
    seconds, text = timed(planned.explain)
    check(f"(n: {n})" in text, f"explaining {n} cells")
    return seconds * 1e3


def _plan_mib(n: int) -> float:
    tracemalloc.start()
    try:
        _planned(n).explain()
        return tracemalloc.get_traced_memory()[1] / MIB
    finally:
        tracemalloc.stop()


def _dask_plan(peer: PeerProcess, n: int, chunk: int, scale: float, case: str) -> float:
    figure, tasks = peer.ask(case, n=n, chunk=chunk)
    check(tasks >= -(-n // chunk), f"{peer.name}: planning {n} cells")
    return figure * scale


def plans(session: Session, peers: Peers) -> Iterator[Row]:
    """Building and planning, by cells."""
    repeat = session.pick(3, 7, 15)
    for power in session.pick((3, 12), (3, 6, 9, 12), (3, 6, 9, 10, 11, 12)):
        n = 10**power
        stage = _planned(n).plan.stages[0]
        systems: dict[str, Callable[[], float]] = {OURS: partial(_plan_ms, n)}
        sizes: dict[str, Callable[[], float]] = {OURS: partial(_plan_mib, n)}
        if stage.chunks <= DASK_CHUNKS:
            extent = stage.layouts[0]["n"].extent
            for name, peer in peers.of("dask").items():
                systems[name] = partial(_dask_plan, peer, n, extent, 1e3, "scale-plan")
                sizes[name] = partial(_dask_plan, peer, n, extent, 1 / MIB, "scale-plan-bytes")
        note = f"{stage.chunks:,} chunks of cells."
        yield Row(f"plan/1e{power}", "ms", interleaved(systems, repeat), target=PLAN_MS, note=note)
        yield Row(f"explain/1e{power}", "ms", interleaved({OURS: partial(_explain_ms, n)}, repeat))
        yield Row(f"plan-memory/1e{power}", "MiB", interleaved(sizes, session.pick(1, 3, 5)), target=PLAN_MIB,
                  note="Most that was allocated while planning, and for ours while explaining too.")


def _run(n: int, executor: str) -> float:
    with new_store() as url:
        out = grid.space(n=n).map(INDEX).sum("n")
        seconds, run = timed(lambda: grid.run(out, executor=executor, workers=2, store=url, quiet=True))
        check(int(run[0].to_numpy()) == n * (n - 1) // 2, f"the sum of {n} cells")
    return seconds


def _peer_run(peer: PeerProcess, case: str, n: int) -> float:
    seconds, total = peer.ask(case, n=n)
    check(total == n * (n - 1) // 2, f"{peer.name}: the sum of {n} cells")
    return seconds


def runs(session: Session, peers: Peers) -> Iterator[Row]:
    """Whole runs of a map and a sum, by cells; on Ray, with two workers."""
    for power in session.pick((3, 7), (3, 5, 7, 9), (3, 4, 5, 6, 7, 8, 9, 10)):
        n = 10**power
        systems: dict[str, Callable[[], float]] = {OURS: partial(_run, n, "ray"), "inline": partial(_run, n, "inline")}
        if n <= DASK_CELLS:
            systems |= {name: partial(_peer_run, peer, "scale-run", n) for name, peer in peers.of("dask").items()}
        if n <= RAY_DATA_CELLS:
            systems |= {f"{name} data": partial(_peer_run, peer, "data", n) for name, peer in peers.of("ray").items()}
        yield Row(f"run/1e{power}", "s", interleaved(systems, session.pick(1, 3, 5)),
                  note="From the plan to the committed sum. inline: ours, in one process. dask: map_blocks and sum on "
                  "two threads. ray data: range, map_batches, sum on two cores.")
    peers.rest("ray")


def memory(session: Session, peers: Peers) -> Iterator[Row]:
    """The driver's memory, by cells, in processes of their own; the workers are Ray's."""
    powers, repeat = session.pick((6, 8), (6, 9), (6, 9)), session.pick(1, 3, 5)
    found: dict[int, list[float]] = {power: [] for power in powers}
    for _ in range(repeat):
        for power in powers:
            with new_store() as url:
                found[power].append(child("cells", str(10**power), url)["ran"] / MIB)
    for power, values in found.items():
        yield Row(f"driver/1e{power}", "MiB", {OURS: values}, note="Resident after a whole run of the graph on Ray.")
    least, most = powers
    growth = [b - a for a, b in zip(found[least], found[most], strict=True)]
    yield Row(f"driver/1e{most} less 1e{least}", "MiB", {OURS: growth}, target=DRIVER_MIB)


def _chunk_bytes(few: int, many: int) -> float:
    """Bytes that a driver has for each further chunk of a run."""
    ran = []
    for chunks in (few, many):
        with new_store() as url:
            found = child("driver", str(chunks), url)
            ran.append(found["ran"] - found["before"])
    return (ran[1] - ran[0]) / (many - few)


def _peer_tasks(peer: PeerProcess, n: int, **arguments: Any) -> float:
    seconds, total = peer.ask("tasks", n=n, **arguments)
    check(total == n * (n - 1) // 2, f"{peer.name}: {n} tasks")
    return seconds / n * 1e6


def _state(n: int) -> float:
    """Seconds until the driver's machine knows of n chunks which can run."""
    plan = Plan(graph_of([grid.space(n=n).map(grid.kernel("->()", names=("i",), parallel=n)(index))]))
    seconds, state = timed(lambda: RunState(plan, {}, Limits(workers=2), Policy()))
    check(state.left == [n], f"{n} chunks are left")
    return seconds / n * 1e6


def tasks(session: Session, peers: Peers) -> Iterator[Row]:
    """Runs of trivial chunks, by their number; what a driver keeps of each."""
    for n in session.pick((100, 1000), (1000, 10_000), (1000, 10_000, 100_000)):
        systems: dict[str, Callable[[], float]] = {
            OURS: lambda n=n: run_indices(n, n, executor="inline", store="memory") / n * 1e6}
        systems |= {name: partial(_peer_tasks, peer, n, scheduler="threads")
                    for name, peer in peers.of("dask").items()}
        if n <= RAY_TASKS:
            systems |= {name: partial(_peer_tasks, peer, n) for name, peer in peers.of("ray").items()}
        yield Row(f"tasks/{n}", "us per task", interleaved(systems, session.pick(1, 3, 5)),
                  note="Ours: chunks of a run in one process, each with its shard in a store in memory; "
                  "dask: delayed calls on two threads; ray: plain tasks on two cores. Neither keeps anything.")
    peers.rest("ray")
    for n in session.pick((10_000,), (10_000, 1_000_000), (10_000, 1_000_000, 10_000_000)):
        yield Row(f"tasks/state/{n}", "us per task", interleaved({OURS: partial(_state, n)}, session.pick(1, 3, 3)),
                  note="Until the driver knows what can run.")
    few, many = session.pick((200, 2000), (2000, 20_000), (10_000, 100_000))
    yield Row("tasks/memory", "bytes per task", {OURS: [_chunk_bytes(few, many) for _ in range(session.pick(1, 3, 3))]},
              target=TASK_BYTES, note=f"What a driver has in memory for each chunk after a run of {many:,} beyond what "
              f"it has for {few:,}.")


def take(session: Session, peers: Peers) -> Iterator[Row]:
    """Cells taken in any order: the graph that their positions make, built and ordered."""
    n = session.pick(100_000, 10_000_000, 10_000_000)
    positions = np.random.default_rng(0).permutation(n)
    raw: dict[str, list[float]] = {"seconds": [], "bytes": []}
    for _ in range(session.pick(1, 3, 5)):
        for kind in raw:
            if kind == "bytes":
                tracemalloc.start()
            began = time.perf_counter()
            plan = Plan(graph_of([grid.space(n=n).map(INDEX).take(positions, "n")]))
            state = RunState(plan, {}, Limits(workers=2), Policy())
            fed = [len(list(plan.consumers(0, chunk))) for chunk in range(plan.stages[0].chunks)]
            raw[kind].append(time.perf_counter() - began)
            check(min(fed) > 0.9 * plan.stages[1].chunks, "a chunk of a permutation is read by almost all others")
            if kind == "bytes":
                raw[kind][-1] = tracemalloc.get_traced_memory()[1] / n
                tracemalloc.stop()
            del plan, state
    yield Row(f"take/{n}", "s", {OURS: raw["seconds"]}, note="A permutation: built, planned, every chunk's inputs and "
              "consumers found.")
    yield Row(f"take/{n}/memory", "bytes per task", {OURS: raw["bytes"]}, target=TASK_BYTES,
              note="Most that was allocated on the way, the caller's own array not counted.")


SECTIONS: dict[str, Callable[[Session, Peers], Iterator[Row]]] = {
    "plan": plans, "take": take, "dag": scale_dags.rows, "tasks": tasks, "memory": memory, "run": runs}


def rows(session: Session, peers: Peers) -> Iterator[Row]:
    """Measure section by section."""
    with own_folders(Path(session.folder)), contextlib.chdir(session.folder):
        try:
            for name, section in SECTIONS.items():
                if not session.only or name in session.only:
                    session.begin(name)
                    yield from section(session, peers)
        finally:
            end_ray()
