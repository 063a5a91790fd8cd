"""One file out of many: parts that lie in a store, one after the other under a new name."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence

from gridcompute.errors import StoreError
from gridcompute.store import LocalStore, RemoteStore, Store

_PIECE = 64 * 2**20
_NO_RANGES = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})


def join(store: Store, path: str, head: bytes, parts: Sequence[tuple[Store, str]], tail: bytes) -> bool:
    """Write a name that isn't there: `head`, then all bytes of the parts in their order, then `tail`.

    On a local disk the kernel copies, and the name appears when all is on the disk. On an object store the parts go
    through this process, a piece at a time, into one object.

    Returns:
        Whether this call wrote it; False where something is there.

    Raises:
        FileNotFoundError: a part isn't there.
        StoreError: no room, or nothing can be written there.
    """
    if isinstance(store, LocalStore):
        return _join_locally(store, path, head, parts, tail)
    if store.exists(path):
        return False
    if isinstance(store, RemoteStore):
        with store.writing(path) as file:
            for piece in _pieces(head, parts, tail):
                file.write(piece)
        return True
    return store.put_new(path, b"".join(_pieces(head, parts, tail)))


def _pieces(head: bytes, parts: Sequence[tuple[Store, str]], tail: bytes) -> Iterator[bytes]:
    yield head
    for store, path in parts:
        start = 0
        while piece := store.get_range(path, start, start + _PIECE):
            yield piece
            start += len(piece)
    yield tail


def _join_locally(store: LocalStore, path: str, head: bytes, parts: Sequence[tuple[Store, str]], tail: bytes) -> bool:
    try:
        with store.writing(path) as out:
            _write(out, head)
            for source, part in parts:
                if isinstance(source, LocalStore):
                    with source.reading(part) as fd:
                        _copy(fd, out)
                else:
                    for piece in _pieces(b"", [(source, part)], b""):
                        _write(out, piece)
            _write(out, tail)
    except FileExistsError:
        return False
    return True


def _copy(source: int, out: int) -> None:
    """All bytes of one file behind another's; by the kernel, where it can."""
    size, done = os.fstat(source).st_size, 0
    while done < size:
        try:
            copied = os.copy_file_range(source, out, size - done)
        except OSError as error:
            if error.errno not in _NO_RANGES:
                raise
            copied = _write(out, os.pread(source, _PIECE, done))
            os.lseek(source, done + copied, os.SEEK_SET)
        if not copied:
            raise StoreError("a part became shorter while it was copied", hint="run it again")
        done += copied


def _write(out: int, data: bytes) -> int:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(out, rest):]
    return len(data)
