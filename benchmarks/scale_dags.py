"""Explicit graphs of tasks, from a thousand to ten millions: building and ordering them, and nanoseconds a task.

The graph is that of `scale_dags_oracle`: about two inputs a task. Ours goes along it by `propagate`, as a user writes.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np

import gridcompute as grid
from benchmarks import scale_dags_oracle as oracle
from benchmarks.overhead_processes import child
from benchmarks.peering import PeerProcess, Peers
from benchmarks.rows import OURS, Reference, Row, Session, check, interleaved
from benchmarks.running import new_store
from gridcompute.members import loop_seconds

PYTHON = "plain Python"
BYTES = Reference(100.0, "at most 100 bytes a task")
SECONDS = Reference(10.0, "10^7 tasks built and ordered in seconds")
NANOSECONDS = Reference(99.0, "tens of nanoseconds a task")
PYTHON_TASKS, DASK_TASKS = 100_000, 2000
"""Tasks of the graphs that these are given."""

START, FACTOR, HALF = (np.uint64(n) for n in (oracle.START, oracle.FACTOR, 32))


@grid.kernel("(n)->()", dtypes=["u8"])
def chained(hashes: Any, cell: Any) -> Any:
    """A task: its own number chained with its inputs' hashes."""
    chain = START * np.uint64(cell[0] + 1)
    for one in hashes:
        chain = (chain + one) * FACTOR
        chain ^= chain >> HALF
    return chain


def rows(session: Session, peers: Peers) -> Iterator[Row]:
    """Building, then running, then other systems."""
    sizes = session.pick((10**3, 10**5, 10**6), tuple(10**k for k in range(3, 8)), tuple(10**k for k in range(3, 8)))
    repeat = session.pick(1, 3, 7)
    for tasks in sizes:
        yield from _built(tasks, repeat)
    for tasks in sizes:
        yield from _ran(tasks, repeat)
    yield from _others(session, peers, repeat)


def _size(tasks: int) -> str:
    return f"1e{len(str(tasks)) - 1}"


def build(tasks: int) -> dict[str, Any]:
    """In a process of its own: seconds to build and order, bytes held, and the growth of the process at its peak."""
    warm = grid.Dag.of_edges(*oracle.edges(100), 100)
    check(warm.levels > 1, "a small graph")  # compiled now
    sources, targets = oracle.edges(tasks)
    ctypes.CDLL(None).malloc_trim(0)  # what was freed would be used again unseen
    Path("/proc/self/clear_refs").write_text("5")  # from now on the peak is counted anew
    before = _resident("VmRSS")
    began = time.perf_counter()
    dag = grid.Dag.of_edges(sources, targets, tasks)
    built = time.perf_counter()
    order = dag.order
    ordered = time.perf_counter()
    peak = _resident("VmHWM") - before
    some = np.unique(np.linspace(0, tasks - 1, 1000).astype(np.int64))
    right = all(dag.inputs_of(int(one)) == oracle.inputs(int(one)) for one in some)
    place = np.empty(tasks, np.int64)
    place[order] = np.arange(tasks)
    right &= len(targets) == dag.edges and bool((place[sources] < place[targets]).all())
    return {"build": built - began, "order": ordered - built, "held": dag.nbytes, "peak": peak, "right": right}


def _resident(what: str) -> int:
    """Bytes of this process in memory, now or at the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(what)).split()[1])


def _built(tasks: int, repeat: int) -> Iterator[Row]:
    found = [child("dag", str(tasks)) for _ in range(repeat)]
    size = _size(tasks)
    yield Row(f"dag/build/{size}", "s", {OURS: [one["build"] + one["order"] for one in found]},
              target=SECONDS if tasks == 10**7 else None,
              note=f"From edges in random order (int32) to the order of the tasks; building is "
              f"{sorted(one['build'] for one in found)[repeat // 2]:.3g} s of it.")
    yield Row(f"dag/held/{size}", "bytes per task", {OURS: [one["held"] / tasks for one in found]}, target=BYTES,
              note="The graph with its order.")
    if tasks >= 10**6:
        yield Row(f"dag/peak/{size}", "bytes per task", {OURS: [one["peak"] / tasks for one in found]}, target=BYTES,
                  note="What the process had in memory at its peak while it built and ordered, beside the edges.")


class _Ours:
    """Runs of one graph, each in a new store, checked; the graph is ordered before."""

    def __init__(self, tasks: int) -> None:
        self.tasks, self.inside = tasks, 0.0
        dag = grid.Dag.of_edges(*oracle.edges(tasks), tasks)
        self.out = grid.space(task=tasks).propagate(chained, dag)

    def run(self, threads: int) -> float:
        """Seconds of a run; those in the compiled loop are then in `inside`."""
        with new_store("memory") as url:
            before, began = loop_seconds(), time.perf_counter()
            done = grid.run(self.out, executor="inline", threads=threads, store=url, quiet=True)
            seconds, self.inside = time.perf_counter() - began, loop_seconds() - before
            check(np.array_equal(done[0].to_numpy(), oracle.expected(self.tasks)), f"{self.tasks} tasks")
        return seconds


def _ran(tasks: int, repeat: int) -> Iterator[Row]:
    cores, ours = len(os.sched_getaffinity(0)), _Ours(tasks)
    wall: dict[int, list[float]] = {}
    inside: dict[int, list[float]] = {}
    for number in range(1 + repeat):  # the first one compiles
        for threads in dict.fromkeys((1, cores)):
            seconds = ours.run(threads)
            if number:
                wall.setdefault(threads, []).append(seconds / tasks * 1e9)
                inside.setdefault(threads, []).append(ours.inside / tasks * 1e9)
    for threads in wall:
        told = f"{threads} thread{'s' * (threads > 1)}"
        yield Row(f"dag/task/{_size(tasks)}/{told}", "ns per task", {OURS: inside[threads]}, target=NANOSECONDS,
                  note=f"Within the compiled loop{', by as many as pay' if threads > 1 else ''}.")
        yield Row(f"dag/run/{_size(tasks)}/{told}", "ns per task", {OURS: wall[threads]},
                  note="The whole of grid.run, inline, to the committed result; the store is memory.")


def python_run(tasks: int) -> tuple[float, float]:
    """Seconds to order, and to run, a graph as dicts and lists by the standard library."""
    graph = {task: oracle.inputs(task) for task in range(tasks)}
    began = time.perf_counter()
    order = list(TopologicalSorter(graph).static_order())
    ordered, found = time.perf_counter(), dict[int, int]()
    for task in order:
        found[task] = oracle.chained(task, [found[i] for i in graph[task]])
    ran = time.perf_counter()
    check([found[task] for task in range(tasks)] == oracle.expected(tasks).tolist(), "plain Python")
    return ordered - began, ran - ordered


def _dask(peer: PeerProcess, tasks: int) -> float:
    seconds, found = peer.ask("dag", tasks=tasks)
    check([int(one) for one in found] == oracle.expected(tasks).tolist(), "dask")
    return seconds


def _others(session: Session, peers: Peers, repeat: int) -> Iterator[Row]:
    """Ours beside a loop in plain Python, and beside dask, at sizes that these can take."""
    tasks = session.pick(PYTHON_TASKS // 10, PYTHON_TASKS, PYTHON_TASKS)
    ours = _Ours(tasks)
    ours.run(1)
    inside: list[float] = []

    def whole() -> float:
        seconds = ours.run(1)
        inside.append(ours.inside)
        return seconds

    loops: list[float] = []

    def python() -> float:
        ordering, loop = python_run(tasks)
        loops.append(loop)
        return ordering + loop

    raw = interleaved({OURS: whole, PYTHON: python}, repeat, warm=False)
    each = {OURS: inside, PYTHON: loops}
    yield Row(f"dag/python/{_size(tasks)}/loop", "ns per task",
              {name: [one / tasks * 1e9 for one in found] for name, found in each.items()}, target=NANOSECONDS,
              note="Both one thread, without the ordering: the compiled loop, and a loop over lists and a dict.")
    yield Row(f"dag/python/{_size(tasks)}/whole", "ns per task",
              {name: [one / tasks * 1e9 for one in found] for name, found in raw.items()},
              note="The whole of grid.run; graphlib's order and the loop.")
    for name, peer in peers.of("dask").items():
        small = _Ours(DASK_TASKS)
        small.run(1)
        systems: dict[str, Callable[[], float]] = {OURS: partial(small.run, 1), name: partial(_dask, peer, DASK_TASKS)}
        raw = interleaved(systems, repeat)
        yield Row(f"dag/dask/{DASK_TASKS}", "us per task",
                  {system: [one / DASK_TASKS * 1e6 for one in found] for system, found in raw.items()},
                  note="The whole of grid.run; dask: threaded, two threads, of a graph that is made before the clock "
                  "starts, a call of the same compiled function a task.")
        peers.rest(name)
