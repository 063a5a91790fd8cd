"""The one seam between a run and whatever carries its tasks: submit an order, get events back."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Protocol

from gridcompute.events import Event
from gridcompute.footprint import settled
from gridcompute.orders import Order, Payload
from gridcompute.store import Store
from gridcompute.worker import StageWorker


class Executor(Protocol):
    """Carries out orders. Every submitted order gives one TaskDone or TaskFailed, unless it was killed.

    Attributes:
        workers: tasks that run at once.
        threads: that each worker reads and decodes with.
        queue: tasks submitted ahead per worker, so that none waits for the driver.
        name: for journals and summaries.
        start_seconds: what starting it took.
        widens: whether one task may have the cores of several workers.
    """

    @property
    def workers(self) -> int: ...  # noqa: D102
    @property
    def threads(self) -> int: ...  # noqa: D102
    @property
    def queue(self) -> int: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def start_seconds(self) -> float: ...  # noqa: D102
    @property
    def widens(self) -> bool: ...  # noqa: D102

    def begin(self, payloads: Sequence[Payload]) -> None:
        """A phase starts: orders will name these stages."""
        ...

    def submit(self, order: Order) -> None:
        """Start a task, now or when a worker is free."""
        ...

    def poll(self, timeout: float) -> list[Event]:
        """Events since the last call; waits up to `timeout` seconds for the first."""
        ...

    def kill(self, task: int) -> None:
        """End a task; it gives no event any more."""
        ...

    def close(self) -> None:
        """End all tasks, and let go of workers and what they hold; after it no task is at work."""
        ...


class InlineExecutor:
    """Tasks one after the other in this process, on polling: for tests, debugging and small jobs.

    Args:
        shuffle: seed of a random order of the submitted tasks; None keeps the order of submission.
        workers: how many tasks the run may submit at once (still done one by one).
        threads: that reading and decoding may use.
        store: used instead of opening the payload's URL.
    """

    name = "inline"
    queue = 2
    start_seconds = 0.0
    widens = False

    def __init__(self, *, shuffle: int | None = None, workers: int = 1, threads: int = 1,
                 store: Store | None = None) -> None:
        self.workers, self.threads = workers, threads
        self._random = None if shuffle is None else random.Random(shuffle)
        self._store = store
        self._stages: dict[int, StageWorker] = {}
        self._orders: list[Order] = []
        self._begun = False

    def begin(self, payloads: Sequence[Payload]) -> None:
        """See `Executor`."""
        if not self._begun:  # what is in this process when a run begins is its caller's, not the tasks'
            settled(again=True)
        self._begun = True
        self._stages = {p.stage.number: StageWorker(p, self._store) for p in payloads}
        self._orders = []

    def submit(self, order: Order) -> None:
        """See `Executor`."""
        self._orders.append(order)

    def poll(self, timeout: float) -> list[Event]:
        """See `Executor`: does one task."""
        if not self._orders:
            time.sleep(timeout)
            return []
        place = 0 if self._random is None else self._random.randrange(len(self._orders))
        order = self._orders.pop(place)
        return [self._stages[order.task.stage].run(order, "inline")]

    def kill(self, task: int) -> None:
        """See `Executor`."""
        self._orders = [order for order in self._orders if order.task.number != task]

    def close(self) -> None:
        """See `Executor`."""
        self._stages, self._orders = {}, []
