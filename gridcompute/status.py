"""Where a run stands: what a progress bar and a summary show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


def counted(number: int, what: str) -> str:
    """A number of things.

    >>> counted(1, "run"), counted(1200, "shard")
    ('1 run', '1,200 shards')
    """
    return f"{number:,} {what}{'s' * (number != 1)}"


@dataclass
class Status:
    """Where a run stands; what a progress bar and a summary show.

    Attributes:
        phase: number of the phase, from 1.
        done, total: chunks kept and needed in this phase, per stage name.
        reused: chunks found committed at the start.
        computed: chunks kept by this run.
        doubled: chunks that were computed twice, as a task went on with what others had been given.
        tasks: tasks finished.
        retries: attempts that were repeated.
        failures: messages of failures that were survived.
        rows, nbytes: cells along first dimensions and stored bytes of what this run kept.
        task_seconds: time in tasks, all workers.
        compile_seconds: of that, compiling functions or loading their code.
        compiled: functions compiled, other than loaded.
        started, ended: seconds since 1970.
        peak_bytes: largest resident memory that a worker reported.
        kept_bytes, most_kept_bytes: of intermediate results in the work store that are needed now; at most at once.
        deleted, deleted_bytes: shards of intermediate results that were deleted, as nothing needs them.
    """

    phase: int = 0
    done: dict[str, int] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)
    reused: int = 0
    computed: int = 0
    doubled: int = 0
    tasks: int = 0
    retries: int = 0
    failures: list[str] = field(default_factory=list)
    rows: int = 0
    nbytes: int = 0
    task_seconds: float = 0.0
    compile_seconds: float = 0.0
    compiled: int = 0
    started: float = 0.0
    ended: float = 0.0
    peak_bytes: int = 0
    kept_bytes: int = 0
    most_kept_bytes: int = 0
    deleted: int = 0
    deleted_bytes: int = 0


Watch = Callable[[Status], None]
