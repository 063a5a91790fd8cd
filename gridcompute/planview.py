"""What the state machine needs to know of a plan, and what it may use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Limits:
    """What the machine may use.

    Attributes:
        workers: tasks that can run at once.
        queue: tasks submitted ahead per worker, so that none waits for the driver.
        live_bytes: most estimated bytes of tasks in work and of held chunks; one task may always run.
        deadline: seconds after which a task is taken for hung. They count from when a worker was seen at it, else from
            when one must have become free for it, and then `durations.START_SECONDS` more.
    """

    workers: int = 1
    queue: int = 2
    live_bytes: int = 2**62
    deadline: float = 3600.0
