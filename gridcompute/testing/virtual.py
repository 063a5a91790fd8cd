"""An executor in virtual time that does real orders: several workers on several nodes, all in this process.

Answers come late and in another order than the orders went; a worker that was given up may still deliver; what nodes
held goes with them; what hangs is found by the deadline. Nothing of it takes real time, and a seed repeats it.
"""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gridcompute.events import Event, Failure, TaskDone, TaskFailed
from gridcompute.executor import InlineExecutor
from gridcompute.orders import LostInputError, Order, Payload
from gridcompute.testing.injecting import NODE_LOST, Injection
from gridcompute.worker import StageWorker

RESTART_SECONDS = 2.0
"""Virtual time until there is another worker, or node, in the place of one that was lost."""

LATE_SECONDS = 5.0
"""Virtual time after which a worker that was only cut off delivers what nobody waits for any more."""


@dataclass(frozen=True)
class Held:
    """A held block, and where: on a node, in one of its lives."""

    node: int
    life: int
    stage: int
    chunk: int
    value: Any = field(repr=False)


class HastyExecutor(InlineExecutor):
    """`InlineExecutor` whose delays pass at once: nobody waits out a retry's, but a task that hangs or is slow does."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._ahead = 0.0

    def clock(self) -> float:
        """Seconds, with those that were passed over."""
        return time.monotonic() + self._ahead

    def sleep(self, seconds: float) -> None:
        """Pass over so many."""
        self._ahead += seconds

    def poll(self, timeout: float) -> list[Event]:
        """See `Executor`."""
        if self._orders:
            return super().poll(timeout)
        self._ahead += timeout
        return []


class VirtualExecutor:
    """See `gridcompute.executor.Executor`.

    Args:
        workers: how many, by turns on each node.
        nodes: how many.
        seed: of how long tasks take, which is all that decides about the order of events.
        seconds: a task takes in the mean.
    """

    name = "simulated"
    threads, queue, start_seconds, widens = 1, 2, 0.0, False

    def __init__(self, *, workers: int = 4, nodes: int = 2, seed: int = 0, seconds: float = 0.1) -> None:
        self.workers, self.now = workers, 0.0
        self._random, self._seconds = random.Random(seed), seconds
        self._lives = [0] * nodes
        self._count = itertools.count()
        self._stages: dict[int, StageWorker] = {}
        self._reset()

    def _reset(self) -> None:
        self._idle = list(range(self.workers))
        self._waiting: list[Order] = []
        self._running: dict[int, tuple[int, Event]] = {}
        self._coming: list[tuple[float, int, str, Any]] = []

    def clock(self) -> float:
        """Virtual seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass."""
        self.now += seconds

    def begin(self, payloads: Sequence[Payload]) -> None:
        """See `Executor`."""
        self._stages = {p.stage.number: StageWorker(p) for p in payloads}
        self._reset()

    def submit(self, order: Order) -> None:
        """See `Executor`."""
        self._waiting.append(order)

    def poll(self, timeout: float) -> list[Event]:
        """See `Executor`."""
        while self._idle and self._waiting:
            self._start(self._idle.pop(self._random.randrange(len(self._idle))), self._waiting.pop(0))
        until = self.now + timeout
        if not self._coming or self._coming[0][0] > until:
            self.now = until
            return []
        self.now = max(self.now, self._coming[0][0])
        events: list[Event] = []
        while self._coming and self._coming[0][0] <= self.now:
            _, _, what, value = heapq.heappop(self._coming)
            if what == "idle":
                self._idle.append(value)
            elif what == "late":
                events.append(self._carried(0, value))
            elif value in self._running:
                worker, event = self._running.pop(value)
                self._idle.append(worker)
                events.append(event)
        return events

    def kill(self, task: int) -> None:
        """See `Executor`."""
        self._waiting = [order for order in self._waiting if order.task.number != task]
        if task in self._running:
            self._back(self._running.pop(task)[0])

    def close(self) -> None:
        """See `Executor`."""
        self._stages = {}
        self._reset()

    def _due(self, seconds: float, what: str, value: Any) -> None:
        heapq.heappush(self._coming, (self.now + seconds, next(self._count), what, value))

    def _back(self, worker: int) -> None:
        self._due(RESTART_SECONDS, "idle", worker)

    def _node(self, worker: int) -> int:
        return worker % len(self._lives)

    def _start(self, worker: int, order: Order) -> None:
        """Do an order at once; its answer comes when its time is over."""
        number, pauses = order.task.number, []
        if isinstance(order.fault, Injection):
            pauses = [] if order.fault.pauses is None else order.fault.pauses
            order = replace(order, fault=replace(order.fault, pauses=pauses))
        event = self._carried(worker, order)
        seconds = self._random.expovariate(1.0 / self._seconds) + sum(pauses)
        failed = event.failure if isinstance(event, TaskFailed) else None
        self._running[number] = worker, event
        if failed is not None and failed.kind == "hang":
            return  # nobody hears of it again
        self._due(seconds, "answer", number)
        if failed is not None and failed.message == NODE_LOST:
            self._lose(self._node(worker))
        elif failed is not None and failed.kind == "lost_worker" and self._random.random() < 0.5:
            self._due(seconds + LATE_SECONDS, "late", replace(order, fault=None))

    def _lose(self, node: int) -> None:
        """A node goes away with its workers' tasks, done or not, and with all that it holds."""
        self._lives[node] += 1
        for number, (worker, _) in self._running.items():
            if self._node(worker) == node:
                self._running[number] = worker, TaskFailed(number, Failure("lost_worker", NODE_LOST))
                self._due(RESTART_SECONDS, "answer", number)

    def _carried(self, worker: int, order: Order) -> TaskDone | TaskFailed:
        places, node = {}, self._node(worker)
        for place, value in order.places.items():
            if isinstance(value, Held):
                if value.life != self._lives[value.node]:
                    lost = LostInputError("a held block is gone with its node", value.stage, value.chunk)
                    failure = Failure("corrupt_shard", str(lost), order.task.chunks[0], lost=(value.stage, value.chunk))
                    return TaskFailed(order.task.number, failure, worker=f"worker {worker}")
                value = value.value
            places[place] = value
        event = self._stages[order.task.stage].run(replace(order, places=places), f"worker {worker}")
        life = self._lives[node]
        return replace(event, kept=tuple(k if k.value is None else replace(
            k, value=Held(node, life, k.stage, k.chunk, k.value)) for k in event.kept))
