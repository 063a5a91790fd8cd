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


def size(count: float) -> str:
    """Bytes as people read them.

    >>> size(1536)
    '1.5 KiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return ""


@dataclass
class Status:
    """Where a run stands; what a progress bar and a summary show.

    Attributes:
        phase: number of the phase, from 1.
        done, total: chunks kept and needed in this phase, per stage name.
        reused: chunks found committed at the start.
        computed: chunks kept by this run.
        doubled: chunks that were computed twice, as a task went on with what others had been given, or was the slower
            of two that had it.
        copies, won: second copies that were made of tasks that took long, and those that were first.
        confirmed: chunks that several workers got the same for.
        same_process: of these, chunks for which one process voted twice.
        divergences: chunks of which results differed, in words.
        outvoted: workers that lost a vote.
        quarantined: workers and nodes that got no further task for it.
        tasks: tasks finished.
        skipped: cells that were skipped, those of reused chunks included.
        retries: attempts that were repeated.
        failures: messages of failures that were survived.
        rows, nbytes: cells along first dimensions and stored bytes of what this run kept.
        task_seconds: time in tasks, all workers.
        compile_seconds: of that, compiling functions or loading their code.
        compiled: functions compiled, other than loaded.
        started, ended: seconds since 1970.
        peak_bytes: most private memory that a worker had during a task, its base included.
        task_bytes: by stage, the most that one of its tasks took of that, the base not included.
        bound_bytes: what the plans so far say that a worker needs at most, its base included.
        parts: by stage, pieces that its chunks were computed in, where they were more than one.
        kept_bytes, most_kept_bytes: of intermediate results in the work store that are needed now; at most at once.
        deleted, deleted_bytes: shards of intermediate results that were deleted, as nothing needs them.
    """

    phase: int = 0
    done: dict[str, int] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)
    reused: int = 0
    computed: int = 0
    doubled: int = 0
    copies: int = 0
    won: int = 0
    confirmed: int = 0
    same_process: int = 0
    divergences: list[str] = field(default_factory=list)
    outvoted: list[str] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)
    tasks: int = 0
    skipped: int = 0
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
    task_bytes: dict[str, int] = field(default_factory=dict)
    bound_bytes: int = 0
    parts: dict[str, int] = field(default_factory=dict)
    kept_bytes: int = 0
    most_kept_bytes: int = 0
    deleted: int = 0
    deleted_bytes: int = 0

    def measured(self, stage: str, own_bytes: int, parts: int) -> None:
        """Take note of what a task of a stage took."""
        self.task_bytes[stage] = max(self.task_bytes.get(stage, 0), own_bytes)
        if parts > 1:
            self.parts[stage] = max(self.parts.get(stage, 1), parts)


Watch = Callable[[Status], None]
