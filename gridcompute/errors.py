"""One tree of errors; each says what is wrong, where, and what to do next.

    GridError
    +-- UsageError              the caller's mistake, found before any work starts   (exit code 2)
    |   +-- SignatureError      a kernel's signature and its function or inputs don't match
    |   +-- DimensionError      a dimension is missing, unknown, or of the wrong length
    |   +-- AlignmentError      inputs whose dimensions or coordinates differ
    |   +-- ParameterError      an argument with a wrong type or value
    |   +-- EmptyGridError      a space without a single cell
    |   +-- UnkeyableError      a kernel reaches a value that can't enter its key
    |   `-- RecordError         a run that can't be found, read, or rebuilt as it was
    +-- InputError              data from outside can't be used                      (exit code 1)
    |   +-- MissingInputError   a file, URL or variable isn't there
    |   `-- CorruptInputError   a file is there, but broken or of another format
    +-- OutputError             a result can't be put where it was asked for         (exit code 1)
    |   +-- OutputExistsError   something else is there already
    |   +-- LeaseError          another recipe holds the output
    |   `-- StoreError          a store is unreachable, read-only, full, or unsafe to commit to
    +-- MemoryBoundError        the plan can't fit in a worker's memory              (exit code 1)
    `-- RunError                work that started and failed                         (exit code 1)
        +-- KernelError         a user's kernel raised: names the op and the cell
        +-- CorruptShardError   a shard's bytes don't match its digest
        +-- DivergenceError     the same chunk gave two different results
        +-- WorkerLostError     a worker or its node went away
        +-- DeadlineError       a task ran longer than it may
        +-- OutOfMemoryError    a task needs more memory than a worker may take
        +-- ClusterError        Ray can't be started or reached
        `-- InterruptedRunError the run was cancelled; what was committed stays      (exit code 130)
"""

from __future__ import annotations

from gridcompute.secrecy import redacted


class GridError(Exception):
    """Base of all errors that gridcompute raises on purpose.

    Args:
        message: what is wrong, naming the thing and the place.
        hint: the next step, shown on a line of its own.

    Secrets are taken out of both.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message = redacted(message)
        self.hint = redacted(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}\n  -> {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only state would be lost by Exception's default; errors cross processes.
        return _rebuild, (type(self), dict(self.__dict__))


def _rebuild(kind: type[GridError], state: dict[str, object]) -> GridError:
    error = kind.__new__(kind)
    error.__dict__.update(state)
    error.args = (state["message"],)
    return error


class UsageError(GridError, ValueError):
    """The caller's mistake, found before any work starts."""

    exit_code = 2


class SignatureError(UsageError):
    """A kernel's signature and its function or inputs don't match."""


class DimensionError(UsageError):
    """A dimension is missing, unknown, or of the wrong length."""


class AlignmentError(UsageError):
    """Inputs whose dimensions or coordinates differ."""


class ParameterError(UsageError):
    """An argument with a wrong type or value."""


class EmptyGridError(UsageError):
    """A space without a single cell."""


class UnkeyableError(UsageError):
    """A kernel reaches a value that can't enter its key."""


class RecordError(UsageError):
    """A run that can't be found, read, or rebuilt as it was."""


class InputError(GridError):
    """Data from outside can't be used."""


class MissingInputError(InputError):
    """A file, URL or variable isn't there."""


class CorruptInputError(InputError):
    """A file is there, but broken or of another format."""


class OutputError(GridError):
    """A result can't be put where it was asked for."""


class OutputExistsError(OutputError):
    """Something else is there already."""


class LeaseError(OutputError):
    """Another recipe holds the output."""


class StoreError(OutputError):
    """A store is unreachable, read-only, full, or unsafe to commit to."""


class MemoryBoundError(GridError):
    """The plan can't fit in a worker's memory."""


class RunError(GridError):
    """Work that started and failed."""


class KernelError(RunError):
    """A user's kernel raised.

    Attributes:
        op: name of the op.
        cell: index of the cell per dimension, or None where it isn't known; along a dimension whose cells aren't
            counted yet, within its block.
        dims: the dimensions of `cell`; empty where the kernel was called on arrays, outside a run.
        cause: the original error's type and text.
        step: of an `iterate`; None elsewhere.
        block: number of the cell's block, along a dimension whose cells aren't counted; else -1.
    """

    step: int | None = None
    block: int = -1

    def __init__(self, message: str, *, op: str = "", cell: tuple[int, ...] | None = None,
                 dims: tuple[str, ...] = (), cause: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.op = op
        self.cell = cell
        self.dims = dims
        self.cause = cause


class CorruptShardError(RunError):
    """A shard's bytes don't match its digest.

    Attributes:
        path: the shard's path in its store.
    """

    def __init__(self, message: str, *, path: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.path = path


class DivergenceError(RunError):
    """The same chunk gave two different results.

    Attributes:
        path: of the shard that is there already, where it was a commit that found it.
        there, own: digests of that, and of what was to be committed.
    """

    def __init__(self, message: str, *, path: str = "", there: str = "", own: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.path, self.there, self.own = path, there, own


class WorkerLostError(RunError):
    """A worker or its node went away."""


class DeadlineError(RunError):
    """A task ran longer than it may."""


class OutOfMemoryError(RunError):
    """A task needs more memory than a worker may take, or than there is."""


class ClusterError(RunError):
    """Ray can't be started or reached."""


class InterruptedRunError(RunError):
    """The run was cancelled; what was committed stays."""

    exit_code = 130
