"""How evenly tasks are shared out: the real state machine and its sizing of tasks on 2 to 10,000 simulated workers.

Virtual time, no Ray: what is measured is the policy. Costs are drawn anew in each repetition; a dispatch takes the
driver 1 ms, half to submit a task and half to take in its answer. Greedy list scheduling in the same order, which
pays no dispatch and knows when each worker is free, stands as the peer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from benchmarks.peering import Peers
from benchmarks.rows import OURS, Reference, Row, Session, check
from gridcompute.events import FailureKind, Task
from gridcompute.testing.simulated import Cluster, FlatPlan, Simulated, list_schedule, simulate

LIST = "list scheduling"
BOUND = Reference(1.0, "no later than total / workers + longest chunk (Graham 1966), dispatch included")
TENTH = Reference(1.1, "within 10 % of greedy list scheduling in the same order")
SLOW = 10.0
"""How much longer a straggler takes."""

Costs = Callable[[random.Random, int], list[float]]


def _pareto(draw: random.Random, n: int) -> list[float]:
    return [0.02 * draw.paretovariate(1.5) for _ in range(n)]


COSTS: dict[str, Costs] = {
    "uniform": lambda draw, n: [0.05] * n,
    "pareto": _pareto,
    "sorted": lambda draw, n: sorted(_pareto(draw, n)),
    "falling": lambda draw, n: sorted(_pareto(draw, n), reverse=True),
    "bimodal": lambda draw, n: [5.0 if draw.random() < 0.01 else 0.01 for _ in range(n)],
}
SECTIONS = (*COSTS, "stragglers", "copies", "failures")

HEAVY: dict[str, Costs] = {
    "even": lambda draw, n: [10.0] * n,
    "uniform": lambda draw, n: [10.0 * draw.uniform(0.5, 1.5) for _ in range(n)],
    "pareto": lambda draw, n: [4.0 * draw.paretovariate(1.5) for _ in range(n)],
}
"""Seconds of chunks that take long, a few for each worker: where a worker that is slow is waited for."""

NO_COPIES = "without copies"


@dataclass(frozen=True)
class Size:
    """A cluster and its work.

    Attributes:
        workers: that are simulated.
        chunks: of the one stage.
        scale: factor of all costs. With 1 there is a minute's work for each worker at most; where a thousand workers
            or more work for minutes, chunks take longer.
        seeds: repetitions.
    """

    workers: int
    chunks: int
    scale: float = 1.0
    seeds: int = 3

    @property
    def name(self) -> str:
        """As rows have it."""
        return f"{self.workers}" + (f"/x{self.scale:g}" if self.scale != 1.0 else "")

    def costs(self, kind: str, seed: int) -> list[float]:
        """Seconds of each chunk."""
        return [self.scale * seconds for seconds in COSTS[kind](random.Random(seed), self.chunks)]


QUICK = (Size(2, 1000, seeds=2), Size(100, 20_000, seeds=2))
DEFAULT = (Size(2, 2000), Size(16, 16_000), Size(100, 100_000), Size(1000, 300_000), Size(1000, 300_000, 10.0, seeds=1),
           Size(10_000, 400_000, 100.0, seeds=1))
FULL = (*DEFAULT[:4], Size(1000, 300_000, 10.0), Size(10_000, 1_000_000, 100.0))


@dataclass
class _Paces:
    """Real seconds that the state machine took, by size."""

    decisions: dict[str, list[float]] = field(default_factory=dict)
    chunks: dict[str, list[float]] = field(default_factory=dict)

    def note(self, size: Size, end: Simulated) -> None:
        self.decisions.setdefault(size.name, []).append(end.decisions / max(end.seconds, 1e-9))
        self.chunks.setdefault(size.name, []).append(size.chunks / max(end.seconds, 1e-9))


def rows(session: Session, peers: Peers) -> Iterator[Row]:
    """Makespans against the bound, and the decisions that the driver's machine takes in a second."""
    del peers
    wanted, paces = session.only or SECTIONS, _Paces()
    for size in session.pick(QUICK, DEFAULT, FULL):
        session.begin(f"{size.name} workers")
        for kind in (name for name in COSTS if name in wanted):
            yield from _makespan(size, kind, paces)
        if size.workers >= 100 and "stragglers" in wanted:
            yield from (_stragglers(size, kind) for kind in ("uniform", "pareto"))
        if size.scale == 1.0 and "copies" in wanted:
            yield from (_copies(size.workers, kind, slow) for kind in HEAVY for slow in (True, False))
        if size.workers >= 100 and "failures" in wanted:
            yield from (_failures(size, kind) for kind in ("uniform", "pareto"))
    for name, found in paces.decisions.items():
        yield Row(f"decisions/{name}", "1/s", {OURS: found}, more=True,
                  note="Commands and events of the state machine in a second of processor time.")
        yield Row(f"chunks/{name}", "1/s", {OURS: paces.chunks[name]}, more=True, note="Chunks in the same time.")


def _dispatched(size: Size, bound: float) -> Reference:
    """2 % for dispatching, and the one round over all workers that the driver needs to give each a first task."""
    first = size.workers * Cluster.dispatch
    return Reference(round(1.02 + first / bound, 4), f"the same, 2 % for dispatching, and the {first:g} s that the "
                     "driver takes to give each worker a task and to take in its answer")


def _makespan(size: Size, kind: str, paces: _Paces) -> Iterator[Row]:
    ours, lists, ratios, work, least = [], [], [], 0.0, 1e99
    for seed in range(size.seeds):
        costs = size.costs(kind, seed)
        work = sum(costs) / size.workers
        bound, best = work + max(costs), list_schedule(costs, size.workers)
        end = _run(costs, Cluster(size.workers))
        ours.append(end.makespan / bound)
        lists.append(best / bound)
        ratios.append(end.makespan / best)
        least = min(least, bound)
        paces.note(size, end)
    target = _dispatched(size, least) if kind in ("uniform", "bimodal") else BOUND
    note = f"{size.chunks:,} chunks, about {work:.0f} s of work for each worker."
    yield Row(f"makespan/{kind}/{size.name}", "x bound", {OURS: ours, LIST: lists}, target=target, note=note)
    if target is BOUND:
        yield Row(f"list/{kind}/{size.name}", "x list scheduling", {OURS: ratios}, target=TENTH, note="The same runs.")


def _straggles(worker: int) -> float:
    return SLOW if worker % 100 == 50 else 1.0


def _stragglers(size: Size, kind: str) -> Row:
    """One worker in a hundred is slow, which nobody knows."""
    ours, lists, least = [], [], 1e99
    speed = sum(1 / _straggles(worker) for worker in range(size.workers))
    for seed in range(size.seeds):
        costs = size.costs(kind, seed)
        bound = sum(costs) / speed + SLOW * max(costs)
        least = min(least, bound)
        ours.append(_run(costs, Cluster(size.workers, slow=_straggles)).makespan / bound)
        lists.append(list_schedule(costs, size.workers, _straggles) / bound)
    return Row(f"stragglers/{kind}/{size.name}", "x bound", {OURS: ours, LIST: lists},
               target=_dispatched(size, least), note=f"One worker in a hundred takes {SLOW:g} times as long, which "
               "the bound knows: total / speed of all + longest chunk on a slow worker.")


def _copies(workers: int, kind: str, straggles: bool) -> Row:
    """Second copies where one worker is slow, and what they cost where none is."""
    ours, without, made, won = [], [], 0, 0
    cluster = Cluster(workers, slow=lambda worker: SLOW if straggles and worker == workers - 1 else 1.0)
    for seed in range(5):
        costs = HEAVY[kind](random.Random(seed), 5 * workers)
        end, plain = _run(costs, cluster), _run(costs, cluster, copies=False)
        ours.append(end.makespan)
        without.append(plain.makespan)
        made, won = made + end.copies, won + end.won
        check(end.makespan <= plain.makespan * 1.001, "second copies make nothing later")
    what = f"One of {workers} workers takes {SLOW:g} times as long" if straggles else "No worker is slow"
    return Row(f"copies/{kind}/{'straggler' if straggles else 'none'}/{workers}", "s", {OURS: ours, NO_COPIES: without},
               note=f"{what}; {made} second copies were made, {won} came first.")


def _failures(size: Size, kind: str) -> Row:
    """One task in a hundred loses its worker, and another comes in its place."""
    ours, retries, least = [], 0, 1e99
    for seed in range(size.seeds):
        costs, draw = size.costs(kind, seed), random.Random(seed)

        def fails(task: Task, draw: random.Random = draw) -> FailureKind | None:
            del task
            return "lost_worker" if draw.random() < 0.01 else None

        end = _run(costs, Cluster(size.workers, fails=fails))
        bound = (sum(costs) + end.lost) / size.workers + max(costs)
        ours.append(end.makespan / bound)
        retries, least = retries + end.retries, min(least, bound)
    return Row(f"failures/{kind}/{size.name}", "x bound", {OURS: ours}, target=_dispatched(size, least),
               note=f"One task in a hundred loses its worker, which is replaced after {Cluster.restart:g} s; lost time "
               f"counts as work in the bound. {retries:,} chunks were tried again, and each was kept once.")


def _run(costs: list[float], cluster: Cluster, *, copies: bool = True) -> Simulated:
    end = simulate(FlatPlan(len(costs)), lambda _, chunk: costs[chunk], cluster, copies=copies)
    check(len(end.done) == len(costs) and set(end.done.values()) == {1}, "each chunk is done once")
    return end
