"""What a task takes of its process's memory, and a bound that it can't pass.

Private memory counts: what lies in Ray's object store, or in files that are mapped, is shared with others. The system
keeps the greatest size of a process (VmHWM) and starts again when asked to, so a task's own peak costs some 20 us.

The bound is the system's limit of private writable memory (RLIMIT_DATA), set while a task runs: what goes beyond gets a
MemoryError, which names its place, instead of the machine swapping or the system ending whatever process it likes.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import threading
import time
from collections.abc import Iterator

from gridcompute.sources.buffers import BUFFERS

WORKER_BYTES = 400 * 2**20
"""Proportional memory that a Ray worker is given beside what a chunk takes; measured 130 MiB when it is new, 200 to 300
when it has compiled kernels, more when it has done many jobs of one session."""

USUAL_BYTES = 220 * 2**20
"""Of that, what one usually has that does its first job: plans are estimated with it, and bounded by the other."""

SLACK_BYTES = 128 * 2**20
"""Given to a task beyond its bound: stacks of threads, and what a compiler takes; few of their pages are ever used."""

TRIM_BYTES = 32 * 2**20
TRIM_SECONDS = 10.0
"""When memory that a stage has left is given back before the next: so much, and so long after the last time."""

VMSTAT = "/proc/vmstat"
"""Where the system counts what it has ended for memory, limits of control groups included."""

_STARVED = ("not enough memory", "Cannot allocate memory", "can't start new thread", "std::bad_alloc")
"""What Zstandard, the C library, Python and C++ say of it."""

_WANTED = (b"VmHWM:", b"VmData:", b"RssAnon:", b"RssFile:", b"RssShmem:")


class _Process:
    """The files of this process; a child that was forked opens its own."""

    def __init__(self) -> None:
        self.files: tuple[int, int] | None = None
        self.floor: int | None = None
        self.trimmed = -TRIM_SECONDS
        self.lock, self.inside, self.before = threading.Lock(), 0, (-1, -1)

    def opened(self) -> tuple[int, int] | None:
        if self.files is None:
            try:
                self.files = (os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC),
                              os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC))
                os.pwrite(self.files[1], b"5", 0)
            except OSError:
                self.files = (-1, -1)
        return None if self.files[0] < 0 else self.files


_own = _Process()
os.register_at_fork(after_in_child=_own.__init__)  # type: ignore[misc]


def _sizes() -> dict[bytes, int]:
    """Bytes by name; empty where the system doesn't tell."""
    files = _own.opened()
    if files is None:
        return {}
    text = os.pread(files[0], 8192, 0)
    found = {name: text.find(name) for name in _WANTED}
    return {name[:-1]: int(text[at + len(name):].split(None, 1)[0]) * 1024 for name, at in found.items() if at >= 0}


class Footprint:
    """A task's memory, from when this is made."""

    def __init__(self) -> None:
        files = _own.opened()
        if files is not None:
            os.pwrite(files[1], b"5", 0)  # VmHWM begins again at what there is
        self._before = _sizes().get(b"RssAnon", _life())

    @property
    def peak(self) -> int:
        """Most private bytes that the process had since; of its whole life where the system doesn't tell."""
        found = _sizes()
        if not found:
            return _life()
        # Pages of files and of Ray's objects stay while they are mapped: there are no fewer now than at the peak.
        return max(found[b"VmHWM"] - found[b"RssFile"] - found[b"RssShmem"], found[b"RssAnon"])

    @property
    def own(self) -> int:
        """Of that, what came since: less than the task's need where it lay in memory that an earlier one had left."""
        return max(0, self.peak - self._before)


def _life() -> int:
    """Most resident bytes in the life of the process; 0 where that isn't known either."""
    try:
        import resource
        import sys
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def settled(again: bool = False) -> int:
    """Private bytes of this process before its first task; `again` measures them anew.

    Arrow's allocator reserves a gigabyte when it is first used, none of it touched: it must have been, before a limit.
    """
    if _own.floor is None or again:
        import pyarrow as pa

        pa.allocate_buffer(64)
        _own.floor = _sizes().get(b"RssAnon", 0)
    return _own.floor


@contextlib.contextmanager
def bounded(most: int) -> Iterator[None]:
    """Limit this process while a task runs; of several at once the first one's limit holds.

    Args:
        most: bytes that a worker may take in all; 0 for no limit. What the process took before its first task counts
            as an idle worker's at most, so a caller's own data stays out of it.
    """
    base = settled()
    found = _sizes()
    if most <= 0 or not found:
        yield
        return
    import resource

    kept = max(0, found[b"RssAnon"] - base)  # by tasks before, as it is still in caches and free lists
    limit = found[b"VmData"] - kept + most - min(base, WORKER_BYTES) + SLACK_BYTES
    with _own.lock:  # runs in several threads of a process: the first sets the limit, the last takes it off
        _own.inside += 1
        if _own.inside == 1:
            _own.before = resource.getrlimit(resource.RLIMIT_DATA)
            limit = min([limit, *(one for one in _own.before if one != resource.RLIM_INFINITY)])
            resource.setrlimit(resource.RLIMIT_DATA, (limit, _own.before[1]))
    try:
        yield
    finally:
        with _own.lock:
            _own.inside -= 1
            if _own.inside == 0:
                resource.setrlimit(resource.RLIMIT_DATA, _own.before)


def starved(error: BaseException | None) -> bool:
    """Whether an error says that there was no memory: readers and codecs make errors of their own of it."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return True
        if isinstance(error, OSError | RuntimeError) and any(words in str(error) for words in _STARVED):
            return True
        error = error.__cause__
    return False


def trimmed() -> None:
    """Between stages: give back what the one before has left, where that is much and was long ago."""
    much = _sizes().get(b"RssAnon", 0) - settled() > TRIM_BYTES
    if much and time.monotonic() > _own.trimmed + TRIM_SECONDS:
        released(collect=False)
        _own.trimmed = time.monotonic()


def released(*, collect: bool = True) -> None:
    """Give back what allocators keep for later; with a garbage collection before a task is tried again."""
    import ctypes

    import pyarrow as pa

    BUFFERS.clear()
    if collect:
        gc.collect()
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def outgrown(beside: int = 0) -> bool:
    """Whether this process has settled above what plans give a worker, and giving back what isn't needed doesn't help.

    Args:
        beside: private bytes that are on their way out, such as an answer.
    """
    most = WORKER_BYTES + beside
    if _sizes().get(b"RssAnon", 0) <= most:
        return False
    released()
    return _sizes().get(b"RssAnon", 0) > most


class Kills:
    """How often the system has ended a process here for memory: a worker that it ended looks as one that was lost."""

    def __init__(self) -> None:
        self._seen = _kills()

    def another(self) -> bool:
        """Whether it has once more since this was made or last said so."""
        more = _kills() > self._seen
        self._seen += more
        return more


def _kills() -> int:
    try:
        with open(VMSTAT) as file:
            return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)
    except (OSError, ValueError, IndexError):
        return 0
