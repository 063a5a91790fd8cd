"""What happens in a run, and what the run decides: plain values that cross processes and can be journalled."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from gridcompute.skips import Skips

FailureKind = Literal[
    "user", "transient", "lost_worker", "out_of_memory", "corrupt_shard", "hang", "divergence", "fatal"
]
"""Classes of failure; `gridcompute.retry` says what is done about each.

user: the kernel raised. transient: a store or the network hiccuped. lost_worker: the process or its node went away.
out_of_memory: it was killed for memory. corrupt_shard: an input's bytes are wrong or gone. hang: past the deadline.
divergence: the same chunk gave two results. fatal: nothing that another attempt could change.
"""


@dataclass(frozen=True)
class Kept:
    """One root's chunk, committed or held.

    Attributes:
        stage, root, chunk: which.
        place: name of the shard in the work store; empty where the block is held.
        digest: of its logical content.
        rows: cells along its first dimension.
        nbytes: stored bytes.
        won: whether this attempt committed it (another may have been first).
        value: the held block, or a reference to it.
        blocks: of an ingested file: (place, rows, digest, bytes) of each block.
        skips: cells that were skipped for it.
        vote: digest of what this attempt computed, where something else was there already.
    """

    stage: int
    root: int
    chunk: int
    place: str
    digest: str
    rows: int
    nbytes: int
    won: bool = True
    value: Any = field(default=None, compare=False, repr=False)
    blocks: tuple[tuple[str, int, str, int], ...] = ()
    skips: tuple[Skips, ...] = field(default=(), compare=False)
    vote: str = ""


@dataclass(frozen=True)
class Failure:
    """Why a task failed.

    Attributes:
        kind: its class.
        message: what the user reads.
        chunk: the chunk in work, -1 where unknown.
        cell: index of the cell in work, where known.
        error: the exception itself, where it could be carried here.
        lost: (stage, chunk) of an input that must be made again.
        peak_bytes: most private bytes that the process had, of one that ran out of memory and could say so; else 0.
        own_bytes: of these, what the task took.
    """

    kind: FailureKind
    message: str
    chunk: int = -1
    cell: tuple[int, ...] | None = None
    error: BaseException | None = field(default=None, compare=False, repr=False)
    lost: tuple[int, int] | None = None
    peak_bytes: int = 0
    own_bytes: int = 0


@dataclass(frozen=True)
class Turn:
    """How a task takes part where chunks are computed more than once on purpose.

    Attributes:
        voted: digests are wanted; where another result is there already, that isn't an error but a vote.
        check: the digests are all that is wanted: nothing is kept.
        number: votes that each of its chunks has by now.
        copy: the same chunks are in work elsewhere.
        avoid: workers and nodes that had a chunk of it before: others are better.
        barred: workers and nodes that get nothing any more.
        tolerance: relative difference of floating point values up to which results count as equal.
    """

    voted: bool = False
    check: bool = False
    number: int = 0
    copy: bool = False
    avoid: tuple[str, ...] = ()
    barred: tuple[str, ...] = ()
    tolerance: float = 0.0


@dataclass(frozen=True)
class Vote:
    """What one worker got for a chunk.

    Attributes:
        worker, node: who; empty where somebody before this run had left it there.
        digest: of the chunk's roots.
        numerics: the worker's class: within one, bits must be equal (law 1).
    """

    worker: str
    node: str
    digest: str
    numerics: str = ""


@dataclass(frozen=True)
class Task:
    """A run of chunks of one stage, dispatched together.

    Attributes:
        number: unique in the run.
        stage: the stage's number.
        chunks: in the order in which they are done.
        attempt: 1 for the first.
        seconds: after which no further chunk is begun; what is left goes to whoever is free.
        parts: pieces that each chunk is computed in, one after the other (see `gridcompute.parts`).
        alone: its one chunk was lost before without a word: kernels that skip run in a process of their own.
        turn: how it takes part in ballots and second copies.
    """

    number: int
    stage: int
    chunks: tuple[int, ...]
    attempt: int = 1
    seconds: float = math.inf
    parts: int = 1
    alone: bool = False
    turn: Turn = Turn()


@dataclass(frozen=True)
class TaskDone:
    """Event: the chunks of a task are kept, but for those `left` that its time didn't reach.

    `compile_seconds` of its `seconds` went into compiling functions, so many as `compiled` says, or loading their code.
    `peak_bytes` is the most private memory that the process had meanwhile, of which the task took `own_bytes`.
    `node` and `numerics` say where it ran and in which class of floating point.
    """

    task: int
    kept: tuple[Kept, ...]
    seconds: float = 0.0
    worker: str = ""
    compile_seconds: float = 0.0
    peak_bytes: int = 0
    left: tuple[int, ...] = ()
    compiled: int = 0
    own_bytes: int = 0
    node: str = ""
    numerics: str = ""


@dataclass(frozen=True)
class TaskFailed:
    """Event: a task ended early; what it had kept by then counts."""

    task: int
    failure: Failure
    kept: tuple[Kept, ...] = ()
    seconds: float = 0.0
    worker: str = ""
    node: str = ""
    numerics: str = ""


@dataclass(frozen=True)
class TaskLate:
    """Event: a task is past its time, with `chunk` in work: those behind it won't be begun, so others may have them."""

    task: int
    chunk: int


@dataclass(frozen=True)
class TaskSlow:
    """Event: a task takes so long that a second copy pays; `kept` is what it has committed by now."""

    task: int
    kept: tuple[Kept, ...] = ()
    worker: str = ""
    node: str = ""
    numerics: str = ""


@dataclass(frozen=True)
class Tick:
    """Event: time has passed."""


@dataclass(frozen=True)
class CancelAsked:
    """Event: the user wants the run to stop."""


Answer = TaskDone | TaskFailed | TaskSlow
"""What tells of chunks that a task kept."""

Event = TaskDone | TaskFailed | TaskLate | TaskSlow | Tick | CancelAsked


@dataclass(frozen=True)
class Submit:
    """Command: start a task."""

    task: Task


@dataclass(frozen=True)
class Kill:
    """Command: end a task that runs."""

    task: int


@dataclass(frozen=True)
class Drop:
    """Command: a chunk, held or committed, is needed no more."""

    stage: int
    chunk: int


@dataclass(frozen=True)
class Void:
    """Command: what is kept of a chunk, or may have been committed of it, counts no more."""

    stage: int
    chunk: int


@dataclass(frozen=True)
class Ruled:
    """Command: take note that a chunk gave different results.

    Attributes:
        stage, chunk: which.
        votes: all of them.
        winner: the digest that had enough votes; empty where none can have them any more.
        need, most: equal votes that it takes, and votes in all.
        barred: workers and nodes that are quarantined for it.
    """

    stage: int
    chunk: int
    votes: tuple[Vote, ...]
    winner: str
    need: int
    most: int
    barred: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finish:
    """Command: the run is over."""

    outcome: Literal["done", "failed", "cancelled"]
    failure: Failure | None = None


Command = Submit | Kill | Drop | Void | Ruled | Finish
