"""How many chunks a task takes: enough that dispatching it costs little, few enough that all workers end together."""

from __future__ import annotations

import math
from dataclasses import dataclass

TASK_SECONDS = 0.25
"""Least duration toward which tasks are sized."""

DISPATCH_SECONDS = 0.001
"""The driver's time for one task, submitting it and taking in its answer."""

AHEAD = 2.0
"""Rounds of all workers that the driver could dispatch while a task of the target's duration runs."""

MOST = 4096
"""Chunks of a task at most: what a task that fails early gives back."""

MOST_BYTES = 16 * 2**20
"""Of a task's results that are held until it ends. What is committed doesn't add up: chunks are done one by one."""

BURST = 128
"""Tasks submitted between two looks at the answers."""

LEAST_SECONDS = 0.1
"""Time that any task may take."""

PATIENCE = 1.25
"""How much longer than usual a task may take until others get what is left of it."""

LAST = 2.0
"""Tasks of the last round, over those that would take the driver least time: some wait behind others."""

SLOWER = 3.0
"""How much longer than usual a chunk takes at least until a second copy of it pays."""

LEAST_SLOW = 0.5
"""Seconds that any task may take until then: the driver doesn't look more often."""

ENOUGH = 3
"""Tasks that must have told what is usual."""

STEADY = 0.05
"""Weight of the last task in how widely chunks are taken to vary."""

RECENT = 0.3
"""Weight of the last task in what a chunk is taken to last: input is often sorted by cost."""


@dataclass
class Pace:
    """What the chunks of one stage have taken so far.

    Attributes:
        seconds: of a usual chunk; None while none was measured. A geometric mean: a few chunks that take a thousand
            times longer don't make all tasks small, since a task ends early at one (see `limit`).
        spread: mean square of the logarithm of a task's seconds a chunk over what was usual then.
        tasks: that were measured.
    """

    seconds: float | None = None
    spread: float = 0.0
    tasks: int = 0

    def took(self, seconds: float, chunks: int) -> None:
        """Take in a task's time, without what it compiled."""
        each = max(seconds / max(chunks, 1), 1e-9)  # a chunk that goes on in another task takes at least that
        before = each if self.seconds is None else self.seconds
        self.seconds = float(before * (each / before) ** RECENT)
        self.tasks += 1
        self.spread += max(STEADY, 1 / self.tasks) * (math.log(each / before) ** 2 - self.spread)

    def target(self, workers: int) -> float:
        """Seconds toward which tasks are sized, and which none may take by more than a chunk."""
        return max(TASK_SECONDS, AHEAD * DISPATCH_SECONDS * workers)

    def size(self, ready: int, workers: int) -> int:
        """Chunks of the next task: the target's worth, and near the end a share of what is left.

        That is guided self-scheduling (Polychronopoulos and Kuck 1987), but no task is shorter than one round of the
        driver over all workers, which would wait longer for it than for each other; and when less than a round is
        left, dispatching what is left takes about as long as a task does: tasks of n of r chunks, of s seconds each,
        take the driver d r / n seconds, and the last of them n s more, which is least at n = sqrt(r d / s).

        Args:
            ready: chunks that could be in it.
            workers: that work at once.
        """
        if self.seconds is None:
            return 1
        meanwhile = DISPATCH_SECONDS / self.seconds  # chunks that a worker does while the driver dispatches a task
        least = min(meanwhile * workers, LAST * math.sqrt(meanwhile * ready))
        return max(1, min(int(self.target(workers) / self.seconds), max(ready // (2 * workers), int(least)), MOST))

    def limit(self, chunks: int, workers: int) -> float:
        """Seconds after which a task of so many chunks begins no further one."""
        target = self.target(workers)
        return target if self.seconds is None else min(target, max(LEAST_SECONDS, PATIENCE * chunks * self.seconds))

    def slow(self, chunks: int) -> float:
        """Seconds after which a second copy of a task of so many chunks would probably be done sooner than itself.

        That is several times what it usually takes; where chunks differ much among themselves, two standard deviations
        (of logarithms) above: then it isn't the worker that is slow.
        """
        if self.seconds is None or self.tasks < ENOUGH:
            return math.inf
        return max(LEAST_SLOW, chunks * self.seconds * max(SLOWER, math.exp(2.0 * math.sqrt(self.spread))))
