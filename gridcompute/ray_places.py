"""Where a Ray task goes that must not run just anywhere: a check, a second copy, anything once somebody is quarantined.

Ray places by node, not by process. On one node a process that had a chunk before hands the task back, and it is
submitted again: that costs a millisecond or two. A pool of processes of its own for each vote (a runtime environment)
would cost three seconds each time that the pools take turns, as Ray ends the idle processes of one to start another.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass
from typing import Any

from gridcompute.events import Turn
from gridcompute.orders import Order

NODES_SECONDS = 5.0
"""How long the list of nodes is taken to be right."""

TRIES = 12
"""Times that a task is handed back until it gets a process of its own: two seconds."""

HOLD_SECONDS = 0.05
"""Time that a process keeps busy which hands back a task that others are asked for too."""

EXIT_SECONDS = 0.5
"""After so long a process ends that is quarantined: its last answer is out by then."""

LABEL = "ray.io/node-id"


@dataclass(frozen=True)
class HandedBack:
    """The answer of a process that isn't to do an order."""

    worker: str


def refuses(turn: Turn, worker: str, node: str) -> bool:
    """Whether a process isn't to do a task: it had a chunk of it before, or it, or its node, is quarantined."""
    return worker in turn.avoid or worker in turn.barred or node in turn.barred


def _processes(turn: Turn) -> int:
    """How many processes are to be avoided; nodes' names have no colon."""
    return sum(":" in who for who in turn.avoid)


class Placing:
    """Chooses nodes, and keeps orders that were handed back.

    Args:
        ray: the module, connected.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._nodes: list[str] = []
        self._asked = -NODES_SECONDS
        self._next = 0
        self._tries: dict[int, int] = {}
        self._back: list[tuple[float, int, Order]] = []

    @property
    def nodes(self) -> list[str]:
        """Nodes that are alive and have cores."""
        if time.monotonic() - self._asked > NODES_SECONDS:
            self._asked = time.monotonic()
            self._nodes = [node["NodeID"] for node in self._ray.nodes()
                           if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        return self._nodes

    def times(self, order: Order, workers: int) -> tuple[int, float]:
        """How often an order is to be submitted, and how long who refuses it is to keep busy.

        Ray prefers the process that was idle last, which is the one that just handed it back. So as many are asked at
        once as could refuse, and one more; the first answer counts.
        """
        if not self._tries.get(order.task.number, 0):
            return 1, 0.0
        return min(workers, 1 + _processes(order.task.turn)), HOLD_SECONDS

    def place(self, order: Order, workers: int) -> dict[str, Any]:
        """Options of Ray that give an order its place; none where any will do.

        Args:
            order: what is to be done.
            workers: that the run has.
        """
        turn = order.task.turn
        free = [node for node in self.nodes if node not in turn.avoid and node not in turn.barred]
        if turn.avoid and free and len(self.nodes) > 1:
            self._next += 1
            affinity = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
            return {"scheduling_strategy": affinity(free[self._next % len(free)], soft=True)}
        tries = self._tries.get(order.task.number, 0)
        # On one node: who is free may have had it; where nobody else is, another process is started.
        if turn.avoid and (tries >= TRIES or _processes(turn) >= workers):
            return {"runtime_env": {"env_vars": {"GRIDCOMPUTE_VOTE": str(turn.number)}}}
        barred = [node for node in turn.barred if ":" not in node]
        if barred:
            return {"label_selector": {LABEL: f"!in({','.join(barred)})"}}
        return {"scheduling_strategy": "SPREAD"} if turn.copy and len(self.nodes) > 1 else {}

    def handed_back(self, order: Order) -> None:
        """Note an order that a process didn't do: it is due again soon."""
        number = order.task.number
        tries = self._tries[number] = self._tries.get(number, 0) + 1
        heapq.heappush(self._back, (time.monotonic() + min(0.25, 0.005 * 2.0**tries), number, order))

    def due(self) -> list[Order]:
        """Orders that are to be submitted again now, unless they were forgotten."""
        found = []
        while self._back and self._back[0][0] <= time.monotonic():
            found.append(heapq.heappop(self._back)[2])
        return found

    def patience(self, timeout: float) -> float:
        """At most so many seconds until an order is due, or the time-out."""
        return min(timeout, max(0.0, self._back[0][0] - time.monotonic())) if self._back else timeout

    def forget(self, task: int) -> None:
        """A task is done, or was ended."""
        self._tries.pop(task, None)
        if any(number == task for _, number, _ in self._back):
            self._back = [one for one in self._back if one[1] != task]
            heapq.heapify(self._back)
