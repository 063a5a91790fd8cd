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
        doubled: chunks that were computed twice, as a task went on with what others had been given, or was the slower
            of two that had it.
        copies, won: second copies that were made of tasks that took long, and those that were first.
        confirmed: chunks that several workers got the same for.
        same_process: of these, chunks for which one process voted twice.
        divergences: chunks of which results differed, in words.
        outvoted: workers that lost a vote.
        quarantined: workers and nodes that got no further task for it.
        tasks: tasks finished.
        retries: attempts that were repeated.
        failures: messages of failures that were survived.
        rows, nbytes: cells along first dimensions and stored bytes of what this run kept.
        task_seconds: time in tasks, all workers.
        compile_seconds: of that, compiling functions or loading their code.
        compiled: functions compiled, other than loaded.
        started, ended: seconds since 1970.
        peak_bytes: largest resident memory that a worker reported.
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


Watch = Callable[[Status], None]
