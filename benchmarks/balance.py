"""How evenly tasks are shared out: the real state machine and its sizing of tasks on 2 to 10,000 simulated workers.

Virtual time, no Ray: what is measured is the policy. Costs are drawn anew in each repetition; a dispatch takes the
driver 1 ms, half to submit a task and half to take in its answer. Greedy list scheduling in the same order, which
pays no dispatch and knows every cost, stands as the peer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from benchmarks.peering import Peers
from benchmarks.rows import OURS, Reference, Row, Session, check
from gridcompute.testing.simulated import Cluster, FlatPlan, Simulated, list_schedule, simulate

LIST = "list scheduling"
BOUND = Reference(1.0, "no later than total / workers + longest chunk (Graham 1966), dispatch included")
DISPATCH = Reference(1.02, "the same, and 2 % for dispatching")
Costs = Callable[[random.Random, int], list[float]]


def _pareto(draw: random.Random, n: int) -> list[float]:
    return [0.02 * draw.paretovariate(1.5) for _ in range(n)]


SECTIONS: dict[str, Costs] = {
    "uniform": lambda draw, n: [0.05] * n,
    "pareto": _pareto,
    "sorted": lambda draw, n: sorted(_pareto(draw, n)),
    "falling": lambda draw, n: sorted(_pareto(draw, n), reverse=True),
    "bimodal": lambda draw, n: [5.0 if draw.random() < 0.01 else 0.01 for _ in range(n)],
}


def rows(session: Session, peers: Peers) -> Iterator[Row]:
    """Makespans against the bound, and the decisions that the driver's machine takes in a second."""
    wanted = [name for name in SECTIONS if not session.only or name in session.only]
    rates: dict[int, list[float]] = {}
    for workers in session.pick((2, 100), (2, 16, 100, 1000), (2, 16, 100, 1000, 10_000)):
        session.begin(f"{workers} workers")
        for name in wanted:
            ours, lists, work = [], [], 0.0
            n = session.pick(min(500 * workers, 20_000), min(1000 * workers, 300_000), min(1000 * workers, 1_000_000))
            for seed in range(session.pick(2, 3, 5)):
                costs = SECTIONS[name](random.Random(seed), n)
                bound, work = sum(costs) / workers + max(costs), sum(costs) / workers
                end = _run(costs, Cluster(workers))
                ours.append(end.makespan / bound)
                lists.append(list_schedule(costs, workers) / bound)
                rates.setdefault(workers, []).append(end.decisions / max(end.seconds, 1e-9))
            target = DISPATCH if name in ("uniform", "bimodal") else BOUND
            yield Row(f"makespan/{name}/{workers}", "x bound", {OURS: ours, LIST: lists}, target=target,
                      note=f"{n:,} chunks, about {work:.0f} s of work for each worker.")
    for workers, found in rates.items():
        yield Row(f"decisions/{workers}", "1/s", {OURS: found}, more=True,
                  note="Commands and events of the state machine in a second of processor time.")


def _run(costs: list[float], cluster: Cluster) -> Simulated:
    end = simulate(FlatPlan(len(costs)), lambda _, chunk: costs[chunk], cluster)
    check(len(end.done) == len(costs) and set(end.done.values()) == {1}, "each chunk is done once")
    return end
