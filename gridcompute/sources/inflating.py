"""Gzip files inflated ahead of whoever reads them, in a thread of their own."""

from __future__ import annotations

import contextlib
import io
import threading
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import isal.igzip
import isal.isal_zlib

from gridcompute.secrecy import clean
from gridcompute.sources.files import broken, open_file

_igzip: Any = isal.igzip
_isal_zlib: Any = isal.isal_zlib

INFLATED = 2**17
"""Bytes of a piece: an error costs what of it came before."""

AHEAD = 64
"""Pieces that wait to be read, at most."""

UNREADABLE: tuple[type[Exception], ...] = (EOFError, OSError, zlib.error, _isal_zlib.error)
"""What inflating and reading raise of a file that is broken."""

MAGIC = b"\x1f\x8b"


class Ahead(io.RawIOBase):
    """What a file holds, read by a thread before it is asked for; its error comes after all that it gave."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._ready: deque[bytes | Exception] = deque()
        self._changed = threading.Condition()
        self._left = memoryview(b"")
        self._stopped = False
        self._thread = threading.Thread(target=self._fill, name="inflates", daemon=True)
        self._thread.start()

    def _fill(self) -> None:
        piece: bytes | Exception = b"begin"
        while piece and not isinstance(piece, Exception):
            try:
                piece = self._file.read1(INFLATED)
            except Exception as error:
                piece = error
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or len(self._ready) < AHEAD)
                if self._stopped:
                    return
                self._ready.append(piece)
                self._changed.notify_all()

    def readable(self) -> bool:
        """See `io.RawIOBase`."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase`."""
        if not self._left:
            with self._changed:
                self._changed.wait_for(lambda: self._ready)
                piece = self._ready[0]
                if isinstance(piece, Exception):
                    raise piece
                if piece:  # the end stays, for those who ask again
                    self._ready.popleft()
                    self._changed.notify_all()
            self._left = memoryview(piece)
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count

    def close(self) -> None:
        """End the thread; the file stays open."""
        if not self.closed:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            self._thread.join()
        super().close()


@contextlib.contextmanager
def inflated(path: str, options: Mapping[str, Any], *, ahead: bool = True) -> Iterator[tuple[Any, bool]]:
    """A file opened for reading, gzip (of one member or many, BGZF) inflated; and whether it was gzip.

    Raises:
        MissingInputError: it isn't there.
        CorruptInputError: it can't be read.
    """
    raw = open_file(path, options)
    buffered = io.BufferedReader(raw) if isinstance(raw, io.RawIOBase) else raw
    with contextlib.ExitStack() as stack:
        stack.enter_context(buffered)
        try:
            magic = buffered.read(2)
        except OSError as error:
            raise broken(path, "can't be read", error) from clean(error)
        buffered.seek(0)
        file: Any = _igzip.IGzipFile(fileobj=buffered, mode="rb") if magic == MAGIC else buffered
        yield (stack.enter_context(Ahead(file)) if ahead and magic == MAGIC else file), magic == MAGIC
