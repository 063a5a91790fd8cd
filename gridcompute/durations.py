"""Since when each task runs, as far as that is known: what deadlines and second thoughts are counted from."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

START_SECONDS = 60.0
"""Time that a worker process may take to start before its task's deadline counts."""


class Durations:
    """Tasks of one phase that run.

    >>> tasks = Durations()
    >>> tasks.submitted(1); tasks.submitted(2); tasks.assume(workers=1, now=5.0)
    >>> list(tasks.over(6.0, 0.5)), tasks.unseen
    ([], [1, 2])
    >>> tasks.began(1, 5.0)
    >>> list(tasks.over(6.0, 0.5)), tasks.unseen
    ([1], [2])
    """

    def __init__(self) -> None:
        self._since: dict[int, float] = {}
        self._seen: dict[int, bool] = {}
        self._unsure: deque[int] = deque()

    def submitted(self, task: int) -> None:
        """A task waits for a worker."""
        self._seen[task] = False
        self._unsure.append(task)

    def assume(self, workers: int, now: float) -> None:
        """Of the tasks that wait, the earliest must have found a worker while fewer run than there are workers."""
        while self._unsure and len(self._since) < workers:
            number = self._unsure.popleft()
            if number in self._seen:
                self._since.setdefault(number, now)

    def began(self, task: int, now: float) -> None:
        """A worker was seen at a task: its time counts from now."""
        self._since[task] = now
        self._seen[task] = True

    def ended(self, task: int) -> None:
        """A task runs no more."""
        self._since.pop(task, None)
        self._seen.pop(task, None)

    @property
    def unseen(self) -> list[int]:
        """Tasks that no worker was seen at."""
        return [task for task, seen in self._seen.items() if not seen]

    def over(self, now: float, seconds: float) -> Iterator[int]:
        """Tasks that have run for more than so many seconds."""
        return (task for task, since in self._since.items()
                if now - since > seconds + (0.0 if self._seen[task] else START_SECONDS))

    def begun(self) -> Iterator[tuple[int, float]]:
        """Tasks that run, and since when."""
        return iter(self._since.items())
