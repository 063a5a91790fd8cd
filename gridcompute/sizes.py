"""How much of a stage is computed at once: what its tasks take, and in how many parts a chunk goes that took too much.

A chunk whose task ran out of memory is done alone first, on one thread, then in 2, 4, 8 ... parts. The size that worked
holds for the rest of its stage. None of this is part of a result: any number of parts gives the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping

from gridcompute.events import Failure, Task
from gridcompute.planview import PlanView

AGAIN = 3
"""Tries of a size that can't be made smaller, where it may not have been the task itself that took the memory."""


class Sizes:
    """Of one phase.

    Args:
        plan: its stages.
        parts: by stage, what is known from before or follows from the plan.
        share: bytes that a worker may take beyond its base, 0 where that isn't bounded.
    """

    def __init__(self, plan: PlanView, parts: Mapping[int, int], share: int = 0) -> None:
        self._plan, self._parts, self._share = plan, dict(parts), share
        self._most: dict[int, int] = {}
        self._feared: dict[int, int] = {}
        self._loads: dict[int, int] = {}
        self._tries: dict[tuple[int, int], int] = {}

    def parts(self, stage: int) -> int:
        """Pieces that a chunk of the stage is computed in."""
        return self._parts.get(stage, 1)

    def begun(self, task: Task) -> int:
        """Bytes that a task that begins is taken to need."""
        self._loads[task.number] = load = self.load(task.stage)
        return load

    def ended(self, task: Task) -> int:
        """The same, of one that has ended."""
        return self._loads.pop(task.number, 0)

    def load(self, stage: int) -> int:
        """Bytes that a task of the stage needs: as estimated, or more where more was measured."""
        return max(self._plan.stages[stage].task_bytes, self._most.get(stage, 0), self._feared.get(stage, 0))

    def measured(self, task: Task, own_bytes: int) -> None:
        """What a task took that has ended well."""
        if task.parts == self.parts(task.stage):
            self._most[task.stage] = max(self._most.get(task.stage, 0), own_bytes)
            self._feared.pop(task.stage, None)

    def exceeded(self, task: Task, chunk: int, failure: Failure) -> bool:
        """A task ran out of memory: whether its chunk is worth trying again, and in how many parts from now on."""
        stage = task.stage
        # One that was killed, or that had taken little of its share, may have been it or not: all together were too
        # much, so fewer at once.
        itself = failure.peak_bytes > 0 and 2 * failure.own_bytes >= self._share
        self._feared[stage] = failure.own_bytes if itself else 2 * max(self.load(stage), self._share)
        if task.attempt == 1 or len(task.chunks) > 1 or task.parts < self.parts(stage):
            return True
        if task.parts < self._plan.most_parts(stage, chunk):
            self._parts[stage] = 2 * task.parts
            self._most.pop(stage, None)
            return True
        self._tries[stage, chunk] = self._tries.get((stage, chunk), 0) + 1
        return not itself and self._tries[stage, chunk] < AGAIN
