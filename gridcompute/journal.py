"""A run's events on disk: JSON lines that only grow, each with a checksum.

The journal is history: what is done, the shards say. Deleting it loses the record of what happened, and nothing else.
A line is one JSON object with `kind`, `time` and the event's fields, and ends with `crc`, the CRC-32 of the object
without it, so any tool that reads JSON lines reads a journal.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import stat
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from gridcompute.errors import ParameterError, RecordError, StoreError
from gridcompute.secrecy import redacted_values

_TAIL = re.compile(rb',"crc":"([0-9a-f]{8})"\}')
_TAIL_LENGTH = len(b',"crc":"00000000"}')
SYNC_SECONDS = 0.2


class History(list[dict[str, Any]]):
    """The events that could be read, oldest first.

    Attributes:
        torn: bytes of an unfinished last line, which were left out.
        skipped: how many other lines were damaged.
    """

    def __init__(self) -> None:
        super().__init__()
        self.torn = 0
        self.skipped = 0


class Journal:
    """A journal being written, by one process at a time.

    Every append reaches the operating system before it returns, so a killed process loses nothing; the disk is
    synced at most every 0.2 s and at the end, so a power cut loses that much. Threads may share it.

    Attributes:
        path: the file, mode 0600.
        torn: bytes of an unfinished last line that were cut off when it was opened.
    """

    def __init__(self, path: Path, fd: int, torn: int, clock: Callable[[], float]) -> None:
        self.path = path
        self.torn = torn
        self._fd = fd
        self._clock = clock
        self._synced = clock()
        self._dirty = False
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, clock: Callable[[], float] = time.time) -> Journal:
        """Open or create a journal to append to; a torn last line is cut off first.

        Args:
            path: the file; its folder is made.
            clock: seconds since 1970, for the events' times and for when to sync.

        Raises:
            RecordError: another process is writing it.
            StoreError: it can't be written.
        """
        where = Path(path)
        try:
            where.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = _regular(where, flags)
        except OSError as error:
            raise StoreError(f"the journal {where} can't be written: {error.strerror}",
                             hint="check the folder's permissions and the disk's room") from error
        try:
            _lock(fd, where)
            os.fchmod(fd, 0o600)
            return cls(where, fd, _cut_torn(fd), clock)
        except BaseException:
            os.close(fd)
            raise

    def append(self, kind: str, **fields: Any) -> None:
        """Write one event.

        Raises:
            ParameterError: a field that JSON can't hold, or named `kind`, `time` or `crc`.
            StoreError: it can't be written (no room); what was there stays whole.
        """
        if not fields.keys().isdisjoint(("kind", "time", "crc")):
            raise ParameterError("an event's fields can't be named kind, time or crc")
        with self._lock:
            now = self._clock()
            line = _line({"kind": kind, "time": now, **redacted_values(fields)})
            self._write(line)
            self._dirty = True
            if not 0 <= now - self._synced < SYNC_SECONDS:  # also when the clock was set back
                self._sync(now)

    def flush(self) -> None:
        """Sync what was appended to the disk now."""
        with self._lock:
            self._sync(self._clock())

    def close(self) -> None:
        """Sync and close; closing twice is fine."""
        with self._lock:
            if self._fd >= 0:
                try:
                    self._sync(self._clock())
                finally:
                    os.close(self._fd)
                    self._fd = -1

    def _write(self, line: bytes) -> None:
        if self._fd < 0:
            raise ParameterError(f"the journal {self.path} is closed")
        size, rest = os.fstat(self._fd).st_size, memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            os.ftruncate(self._fd, size)  # half a line would spoil the next one
            raise StoreError(f"the journal {self.path} can't be written: {error.strerror}",
                             hint="make room on the disk; the run can be resumed") from error

    def _sync(self, now: float) -> None:
        if self._dirty and self._fd >= 0:
            os.fsync(self._fd)
            self._dirty = False
        self._synced = now

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def read(path: str | os.PathLike[str]) -> History:
    """The events of a journal, of one being written too; none if there is no such file.

    An unfinished last line and damaged lines are left out and counted.

    Raises:
        StoreError: it is there, but can't be read.
    """
    history = History()
    try:
        with open(path, "rb", opener=_regular) as file:
            for line in file:
                if not line.endswith(b"\n"):
                    history.torn = len(line)
                    break
                event = _event(line[:-1])
                if event is None:
                    history.skipped += 1
                else:
                    history.append(event)
    except FileNotFoundError:
        return history
    except OSError as error:
        raise StoreError(f"the journal {os.fspath(path)} can't be read: {error.strerror}",
                         hint="check its permissions; deleting it loses history only") from error
    return history


def _regular(path: str | Path, flags: int) -> int:
    """Open a file, and nothing that is waited for, such as a pipe."""
    fd = os.open(path, flags | os.O_NONBLOCK, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it isn't a file")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _line(event: dict[str, Any]) -> bytes:
    try:
        body = json.dumps(event, separators=(",", ":"), allow_nan=False, default=_plain).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ParameterError(f"the event {event.get('kind')!r} can't be written as JSON: {error}") from error
    return b'%s,"crc":"%08x"}\n' % (body[:-1], zlib.crc32(body))


def _plain(value: Any) -> Any:
    """NumPy's scalars as Python's."""
    item = getattr(value, "item", None)
    if item is None or getattr(value, "shape", ()) != ():
        raise TypeError(f"{type(value).__name__} isn't JSON")
    return item()


def _event(line: bytes) -> dict[str, Any] | None:
    match = _TAIL.fullmatch(line, max(0, len(line) - _TAIL_LENGTH))
    if match is None:
        return None
    body = line[: match.start()] + b"}"
    if zlib.crc32(body) != int(match[1], 16):
        return None
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("kind"), str) else None


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RecordError(f"another process is writing the journal {path}: its run is still going on",
                          hint="wait for it, or cancel it first") from error
    except OSError as error:
        # Some network file systems have no locks: two drivers would then mix their lines, each of them whole.
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
            raise


def _cut_torn(fd: int) -> int:
    """Cut a last line without its end off; returns the bytes cut."""
    size = end = os.fstat(fd).st_size
    while end > 0:
        start = max(0, end - 65536)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(fd, end)
        os.fsync(fd)
    return size - end
