"""What the state machine needs to know of a plan, and what it may use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


class StageView(Protocol):
    """What the machine needs to know of a stage."""

    @property
    def chunks(self) -> int: ...  # noqa: D102
    @property
    def held(self) -> bool: ...  # noqa: D102
    @property
    def task_bytes(self) -> int: ...  # noqa: D102
    @property
    def block_bytes(self) -> int: ...  # noqa: D102


class PlanView(Protocol):
    """What the machine needs to know of a plan; `gridcompute.planning.Plan` is one."""

    @property
    def stages(self) -> Sequence[StageView]: ...  # noqa: D102
    @property
    def goals(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def producers(self) -> Sequence[frozenset[int]]: ...  # noqa: D102

    def inputs(self, stage: int, chunk: int) -> Iterator[tuple[int, int]]: ...  # noqa: D102
    def consumers(self, stage: int, chunk: int) -> Iterator[tuple[int, int]]: ...  # noqa: D102
    def barrier(self, stage: int, producer: int) -> bool: ...  # noqa: D102
    def most_parts(self, stage: int, chunk: int) -> int: ...  # noqa: D102


UNBOUNDED = 2**62


@dataclass(frozen=True)
class Limits:
    """What the machine may use.

    Attributes:
        workers: tasks that can run at once.
        queue: tasks submitted ahead per worker, so that none waits for the driver.
        live_bytes: most estimated bytes of tasks in work and of held chunks; one task may always run.
        deadline: seconds after which a task is taken for hung. They count from when a worker was seen at it, else from
            when one must have become free for it, and then `durations.START_SECONDS` more.
        parts: by stage, pieces that its chunks are computed in from the start (see `gridcompute.sizes`).
    """

    workers: int = 1
    queue: int = 2
    live_bytes: int = UNBOUNDED
    deadline: float = 3600.0
    parts: Mapping[int, int] = field(default_factory=dict)

    @property
    def share(self) -> int:
        """A worker's part of the live bytes; 0 where they aren't bounded."""
        return 0 if self.live_bytes == UNBOUNDED else self.live_bytes // max(1, self.workers)
