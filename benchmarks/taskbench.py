"""Task Bench: how small tasks may be until half of the processor's time is overhead, METG(50%).

The sections are the patterns. A repetition measures, for each system in turn, its own peak (the kernel without
dependencies, on all cores) and then graphs of ever smaller tasks around the point where the efficiency falls
below one half; METG(50%) is read off between the two graphs on either side of it, in the logarithm of the granularity.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gridcompute as grid
from benchmarks import taskbench_oracle as oracle
from benchmarks.overhead_tasks import end_ray
from benchmarks.peering import PeerProcess, Peers
from benchmarks.rows import OURS, Reference, Row, Session, check
from benchmarks.running import new_store
from benchmarks.taskbench_kernel import FLOPS, LANES, kernels, kernels_sum
from benchmarks.taskbench_mpi import MpiProgram
from gridcompute.members import loop_seconds

KERNEL = "kernel alone"
SECTIONS = dict.fromkeys(oracle.PATTERNS)
PYTHON = ("dask", "ray", "distributed", "ray_dask", "parsl")
CALLS = {"dask": 800, "ray": 200, "distributed": 200, "ray_dask": 60, "parsl": 100}
"""Tasks of a graph for systems that take milliseconds for one."""

HALF = 0.5
PEAK_ITERATIONS = 4096
PEAK_SECONDS = 0.05
MOST_ITERATIONS = 2**26
TRIES = 24
MOST_SECONDS = 4.0
"""A graph that takes longer and still isn't half efficient was disturbed: the repetition doesn't count."""

PUBLISHED = Reference(390 / 1000, "SC'20, section 5: METG(50%) of MPI on one 32-core node, no dependencies", "MPI")
STENCIL = Reference(4.6, "SC'20, section 5: METG(50%) of MPI, stencil, one 32-core node", "MPI")
Measure = Callable[[str, int, int, int], float]
"""Seconds of a graph (pattern, width, steps, iterations), whose result was checked."""


@dataclass
class System:
    """A system that is measured.

    Attributes:
        measure: one graph.
        tasks: of a graph, about.
        cores: that it uses.
        most_seconds: that a graph may take.
        at: iterations where the efficiency was one half, by pattern and width: where the next repetition begins.
    """

    measure: Measure
    tasks: int
    cores: int
    most_seconds: float = MOST_SECONDS
    at: dict[tuple[str, int], int] = field(default_factory=dict)

    def steps(self, width: int) -> int:
        """Rows of a graph."""
        return max(8, self.tasks // width)

    def peak(self, seconds: float) -> float:
        """FLOP/s of the kernel without dependencies, on all cores at once, for about so long."""
        width = 4 * self.cores
        steps = max(2, round(seconds * self.cores / (width * PEAK_ITERATIONS * 1e-9)))
        return flops(width * steps, PEAK_ITERATIONS) / self.measure("trivial", width, steps, PEAK_ITERATIONS)

    def run(self, pattern: str, width: int, iterations: int, peak: float) -> tuple[float, float]:
        """Granularity in seconds and efficiency of a graph, of a peak in FLOP/s."""
        steps = self.steps(width)
        seconds, tasks = self.measure(pattern, width, steps, iterations), oracle.tasks(pattern, width, steps)
        return seconds * self.cores / tasks, flops(tasks, iterations) / seconds / peak

    def metg(self, pattern: str, width: int, peak: float) -> float | None:
        """METG(50%) in seconds; None where one half was never crossed."""
        iterations = self.at.get((pattern, width)) or self._guess(pattern, width, peak)
        above: tuple[float, float] | None = None
        below: tuple[float, float] | None = None
        for _ in range(TRIES):
            granularity, efficiency = self.run(pattern, width, iterations, peak)
            if efficiency >= HALF:
                above, self.at[pattern, width] = (granularity, efficiency), iterations
                if below or iterations == 1:
                    break
                iterations = max(1, min(iterations - 1, round(iterations / math.sqrt(2))))
            else:
                below = (granularity, efficiency)
                if above or iterations >= MOST_ITERATIONS or granularity * self.tasks / self.cores > self.most_seconds:
                    break
                iterations = max(iterations + 1, round(iterations * math.sqrt(2)))
        if above is None:
            return None
        return above[0] if below is None else between(below, above)

    def _guess(self, pattern: str, width: int, peak: float) -> int:
        """Iterations that take as long as all else."""
        granularity, _ = self.run(pattern, width, 0, peak)
        return max(1, min(MOST_ITERATIONS, round(granularity * peak / self.cores / FLOPS)))


def flops(tasks: int, iterations: int) -> float:
    """Operations of so many tasks."""
    return tasks * (iterations * float(FLOPS) + LANES)


def between(below: tuple[float, float], above: tuple[float, float]) -> float:
    """The granularity at one half, between two points (granularity, efficiency) on either side.

    >>> round(between((1.0, 0.25), (4.0, 0.75)), 6)
    2.0
    """
    part = (HALF - below[1]) / max(above[1] - below[1], 1e-12)
    return math.exp(math.log(below[0]) * (1 - part) + math.log(above[0]) * part)


# --- the systems ---


def _right(hashes: Any, pattern: str, width: int, steps: int, who: str) -> None:
    what = f"{who}: {pattern}, width {width}, {steps} steps"
    check(tuple(int(one) for one in hashes) == oracle.last_hashes(pattern, width, steps), what)


def ours(pattern: str, width: int, steps: int, iterations: int, *, cores: int, wall: bool = False,
         executor: str = "inline") -> float:
    """Seconds of a graph by `iterate`: inside, from when all members are there to when all are done; or of the run."""
    from benchmarks.taskbench_graphs import graph

    out = graph(pattern, width, steps, iterations)
    options: dict[str, Any] = {"threads": cores} if executor == "inline" else {"workers": cores}
    with new_store("memory" if executor == "inline" else "folder") as url:
        before, began = loop_seconds(), time.perf_counter()
        run = grid.run(out, executor=executor, store=url, quiet=True, **options)
        whole, inside = time.perf_counter() - began, loop_seconds() - before
        _right(run["hash"].to_numpy(), pattern, width, steps, "ours")
    return whole if wall else inside


def by_map(pattern: str, width: int, steps: int, iterations: int, *, cores: int, executor: str) -> float:
    """Seconds of a whole run of the graph without edges, as one `map`."""
    from benchmarks.taskbench_graphs import mapped

    with new_store("memory" if executor == "inline" else "folder") as url:
        began = time.perf_counter()
        run = grid.run(mapped(width, steps, iterations), executor=executor, store=url, quiet=True, workers=cores)
        seconds = time.perf_counter() - began
        _right(run["hash"].to_numpy()[-1], pattern, width, steps, "map")
    return seconds


def _kernel_alone(pattern: str, width: int, steps: int, iterations: int, *, cores: int) -> float:
    """Seconds of the tasks' work alone on all cores: what no system can fall below."""
    tasks, sums, begin = width * steps // cores, [0.0] * cores, threading.Barrier(cores)
    spent = [0.0] * cores

    def member(number: int) -> None:
        begin.wait()
        began = time.perf_counter()
        sums[number] = kernels(tasks, iterations)
        spent[number] = time.perf_counter() - began

    threads = [threading.Thread(target=member, args=(number,)) for number in range(cores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    right = all(math.isclose(one, kernels_sum(tasks, iterations), rel_tol=1e-9) for one in sums)
    check(right, f"the kernel alone, {iterations} iterations")
    return max(spent)


def _mpi(program: MpiProgram, pattern: str, width: int, steps: int, iterations: int) -> float:
    answer = program.ask(pattern, width, steps, iterations)
    _right(answer["hashes"], pattern, width, steps, "mpi")
    check(answer["wrong"] == 0, f"mpi: {answer['wrong']} inputs in {pattern} of width {width}")
    check(answer["tasks"] == oracle.tasks(pattern, width, steps), f"mpi: number of tasks in {pattern}, width {width}")
    return float(answer["seconds"])


def _peer(peer: PeerProcess, pattern: str, width: int, steps: int, iterations: int) -> float:
    seconds, hashes = peer.ask("taskbench", pattern=pattern, width=width, steps=steps, iterations=iterations)
    _right(hashes, pattern, width, steps, peer.name)
    return seconds


def rows(session: Session, peers: Peers) -> Iterator[Row]:
    """METG(50%) and the time of an empty task, pattern by pattern."""
    cores = len(os.sched_getaffinity(0))
    program = MpiProgram(session.folder, cores) if peers.wanted("mpi") else None
    # As many for both, so that a busy machine disturbs both alike; ours spend the first ones on choosing their threads.
    tasks, repeat = session.pick((200_000, 1), (400_000, 5), (800_000, 31))
    compiled = {OURS: System(partial(ours, cores=cores), tasks, cores)}
    if program is not None:
        compiled["mpi"] = System(partial(_mpi, program), tasks, cores)
    alone = {KERNEL: System(partial(_kernel_alone, cores=cores), tasks, cores)}
    widths = session.pick((4 * cores,), (cores, 4 * cores, 64), (cores, 4 * cores, 64))
    patterns = [name for name in SECTIONS if name in (session.only or SECTIONS)]
    if session.mode == "quick" and not session.only:
        patterns = ["trivial", "stencil_1d", "tree"]
    try:
        for pattern in patterns:
            session.begin(pattern)
            for width in widths:
                yield from _compiled_rows(pattern, width, compiled | (alone if pattern == "trivial" else {}), repeat)
    finally:
        if program is not None:
            program.close()
    yield from _python_rows(session, peers, patterns, cores)
    yield from _wall_rows(session, patterns, cores)
    end_ray()


def _compiled_rows(pattern: str, width: int, systems: Mapping[str, System], repeat: int) -> Iterator[Row]:
    found: dict[str, list[float]] = {name: [] for name in systems}
    empty: dict[str, list[float]] = {name: [] for name in systems}
    peaks: list[float] = []
    for system in systems.values():
        system.run(pattern, width, 1, 1.0)  # compiled before the clock counts
    for _ in range(repeat):
        # The kernel is the same everywhere, so is its peak; whoever reaches more of it was disturbed less.
        peaks.append(max(system.peak(PEAK_SECONDS) for _ in range(2) for system in systems.values()))
        for name, system in systems.items():
            empty[name].append(system.run(pattern, width, 0, peaks[-1])[0] * 1e9)
            metg = system.metg(pattern, width, peaks[-1])
            if metg is not None:
                found[name].append(metg * 1e6)
    share = 0.7 if pattern in ("trivial", "no_comm") else 0.6
    theirs = sorted(found.get("mpi", ()))
    goal = Reference(share * theirs[len(theirs) // 2], f"{share} times MPI's median") if theirs else None
    published = {"trivial": PUBLISHED, "stencil_1d": STENCIL}.get(pattern)
    told = ", ".join(f"{name} {system.steps(width)}" for name, system in systems.items())
    yield Row(f"{pattern}/{width}/metg", "us", found, target=goal if width < 64 else None, published=published,
              note=f"Inside; steps: {told}; median peak {sorted(peaks)[len(peaks) // 2] / 1e9:.0f} GFLOP/s.")
    yield Row(f"{pattern}/{width}/empty", "core-ns per task", empty, note="Tasks that only check, hash and stamp.")


def _python_rows(session: Session, peers: Peers, patterns: list[str], cores: int) -> Iterator[Row]:
    """Systems that call a Python function a task: graphs of some hundred tasks, seconds of the whole call."""
    chosen = [name for name in ("trivial", "stencil_1d", "fft") if name in patterns]
    both = (cores, 4 * cores)
    graphs = [(pattern, width) for pattern in chosen for width in session.pick(both[1:], both, both)]
    for name in session.pick(PYTHON[:1], PYTHON, PYTHON):
        for peer in peers.of(name).values():
            session.begin(name)
            for pattern, width in graphs:
                pair = {OURS: System(partial(ours, cores=cores), 50_000, cores),
                        name: System(partial(_peer, peer), CALLS[name], cores, 30.0)}
                found: dict[str, list[float]] = {one: [] for one in pair}
                for _ in range(session.pick(1, 2, 5)):
                    peak = pair[OURS].peak(PEAK_SECONDS)  # theirs is the same numba code
                    for one, system in pair.items():
                        metg = system.metg(pattern, width, peak)
                        found[one] += [] if metg is None else [metg * 1e6]
                times, theirs = 500 if width == cores else 1000, sorted(found[name])
                goal = Reference(theirs[len(theirs) // 2] / times, f"{times} times below {name}") if theirs else None
                yield Row(f"{pattern}/{width}/metg/{name}", "us", found, target=goal,
                          note="Ours inside; theirs from the first submission to the last result, the graph of "
                          f"{CALLS[name]} tasks being made before where the system takes it whole.")
            peers.rest(name)


def _wall_rows(session: Session, patterns: list[str], cores: int) -> Iterator[Row]:
    """Whole runs of ours, with planning, hand-off, gathering and the commit of the result."""
    tasks, width = session.pick(100_000, 400_000, 1_000_000), 4 * cores
    for executor in session.pick(("inline",), ("inline", "ray"), ("inline", "ray")):
        session.begin(f"wall, {executor}")
        systems = {"stencil_1d/iterate": partial(ours, cores=cores, wall=True, executor=executor),
                   "trivial/iterate": partial(ours, cores=cores, wall=True, executor=executor),
                   "trivial/map": partial(by_map, cores=cores, executor=executor)}
        for name, measure in systems.items():
            pattern, how = name.split("/")
            if pattern not in patterns or (how == "map" and executor == "inline"):  # which has one thread for a map
                continue
            inside, system = System(partial(ours, cores=cores), 50_000, cores), System(measure, tasks, cores, 10.0)
            found: list[float] = []
            system.measure(pattern, width, 10, 0)
            for _ in range(session.pick(1, 3, 7)):
                metg = system.metg(pattern, width, inside.peak(PEAK_SECONDS))
                found += [] if metg is None else [metg * 1e6]
            yield Row(f"{pattern}/{width}/metg/wall-{how}-{executor}", "us", {OURS: found},
                      note=f"{tasks:,} tasks by {how}; seconds of grid.run, from the plan to the committed result.")
