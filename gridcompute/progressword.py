"""Where a task is, in memory that outlives its process: a crash, a hang or a kill names its cell (law 5).

The driver keeps a small file beside the run's journal, one slot a task; a worker on the same machine maps it and the
compiled loop stores the index of each cell before running it. On another machine the file isn't there, and a failure
names the task's chunks only.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import mmap
import os
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

SLOTS = 4096
SLOT = 512
"""Bytes a slot: 20 int64 (task, chunk, cell, dimensions, 8 extents, 8 origins), then the op's name in UTF-8."""

_TASK, _CHUNK, _CELL, _DIMS, _SHAPE, _ORIGIN, _NAME = 0, 1, 2, 3, 4, 12, 160
_NO_OP, _NO_CELL = -1, -2
_MOST_DIMS = 8
_NAMES = "progress-" + "[0-9a-f]" * 12


@dataclass(frozen=True)
class Word:
    """A task's slot, as its order carries it."""

    path: str
    slot: int
    task: int


@dataclass(frozen=True)
class Mark:
    """What a task published last.

    Attributes:
        chunk: in work.
        op: name of the op whose kernel was running; empty between kernels.
        cell: index of the cell in the op's loop dimensions; None where only the op is known.
    """

    chunk: int
    op: str = ""
    cell: tuple[int, ...] | None = None


class Board:
    """The driver's side: slots of the tasks that run.

    Args:
        folder: a private local folder, in one with those of other runs; what dead drivers left in them is removed.

    Attributes:
        died: whether there was a dead driver; the next one's own workers that die, or are killed, are noted here, too.
    """

    def __init__(self, folder: Path) -> None:
        found = [*folder.glob(_NAMES), *folder.parent.glob(f"*/{_NAMES}")]
        self.died = sum(map(_removed, found)) > 0
        self._path = folder / f"progress-{uuid.uuid4().hex[:12]}"
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with contextlib.suppress(OSError):  # a file system without locks; a lock ends with its process
                fcntl.flock(self._fd, fcntl.LOCK_SH)
            os.ftruncate(self._fd, SLOTS * SLOT)  # sparse: untouched slots take no room
            self._map = mmap.mmap(self._fd, SLOTS * SLOT)
        except BaseException:
            os.close(self._fd)
            raise
        self._roomy = 0  # slots whose room on the disk is taken
        self._free = list(range(SLOTS - 1, -1, -1))
        self._taken: dict[int, int] = {}

    @property
    def busy(self) -> bool:
        """Whether a task is at work, or waits for it."""
        return bool(self._taken)

    def take(self, task: int) -> Word | None:
        """A slot for a task; None where all are taken, or the disk has no room for one more."""
        if not self._free or not self._room(self._free[-1]):
            return None
        slot = self._taken[task] = self._free.pop()
        view = _view(self._map, slot)[0]
        view[_CHUNK], view[_DIMS], view[_TASK] = -1, _NO_OP, task
        return Word(str(self._path), slot, task)

    def _room(self, slot: int) -> bool:
        """Take room on the disk first: writing to a hole of a mapped file on a full disk ends the process (SIGBUS)."""
        if slot >= self._roomy:
            try:
                os.posix_fallocate(self._fd, self._roomy * SLOT, (slot + 1 - self._roomy) * SLOT)
            except OSError:
                return False
            self._roomy = slot + 1
        return True

    def read(self, task: int) -> Mark | None:
        """What a task published last; None if nothing."""
        if task not in self._taken:
            return None
        numbers, name = (part.copy() for part in _view(self._map, self._taken[task]))
        if numbers[_TASK] != task or numbers[_CHUNK] < 0:
            return None
        chunk, dims = int(numbers[_CHUNK]), int(numbers[_DIMS])
        if dims == _NO_OP:
            return Mark(chunk)
        op = name.tobytes().split(b"\0")[0].decode(errors="replace")
        shape = [int(n) for n in numbers[_SHAPE : _SHAPE + max(0, dims)]]
        if dims < 0 or not 0 <= numbers[_CELL] < math.prod(shape):
            return Mark(chunk, op)
        index = np.unravel_index(int(numbers[_CELL]), shape)
        return Mark(chunk, op, tuple(int(i) + int(o) for i, o in zip(index, numbers[_ORIGIN:], strict=False)))

    def free(self, task: int, *, reuse: bool = True) -> None:
        """Give a slot back; not that of a task that was killed, as its process may still write."""
        slot = self._taken.pop(task, None)
        self.died |= not reuse
        if slot is not None and reuse:
            self._free.append(slot)

    def close(self) -> None:
        """Remove the file."""
        self._map.close()
        os.close(self._fd)
        self._path.unlink(missing_ok=True)


def _removed(old: Path) -> bool:
    """Remove a board unless its driver lives, or another machine's may."""
    try:
        fd = os.open(old, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        old.unlink()
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


def _view(memory: mmap.mmap, slot: int) -> tuple[Array, Array]:
    return (np.frombuffer(memory, np.int64, _NAME // 8, slot * SLOT),
            np.frombuffer(memory, np.uint8, SLOT - _NAME, slot * SLOT + _NAME))


_maps: dict[str, mmap.mmap] = {}
_here = threading.local()


@contextlib.contextmanager
def publishing(word: Word | None) -> Iterator[None]:
    """In a worker: what this thread computes is published in the task's slot, where the file is there."""
    _here.slot = None if word is None else _mapped(word)
    try:
        yield
    finally:
        _here.slot = None


def _mapped(word: Word) -> tuple[Array, Array] | None:
    if word.path not in _maps:
        _maps.clear()
        try:
            fd = os.open(word.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:  # another machine, or the run has ended
            return None
        try:
            if os.fstat(fd).st_uid != os.getuid() or os.fstat(fd).st_size != SLOTS * SLOT:
                return None
            _maps[word.path] = mmap.mmap(fd, SLOTS * SLOT)
        finally:
            os.close(fd)
    view = _view(_maps[word.path], word.slot)
    return view if view[0][_TASK] == word.task else None


def chunk_begins(chunk: int) -> None:
    """The thread's task goes on to a chunk."""
    slot = getattr(_here, "slot", None)
    if slot is not None:
        slot[0][_DIMS], slot[0][_CHUNK] = _NO_OP, chunk


@contextlib.contextmanager
def kernel_runs(op: str, shape: Sequence[int], origin: Sequence[int], *,
                by_cell: bool = True) -> Iterator[Array | None]:
    """A kernel runs over a region.

    Args:
        op: its name.
        shape: extents of the region over the loop dimensions.
        origin: index of its first cell.
        by_cell: whether the kernel's loop stores the cells' indices.

    Yields:
        Where the loop stores them (int64, one element), or None where nobody would read it.
    """
    slot = getattr(_here, "slot", None)
    if slot is None:
        yield None
        return
    numbers, name = slot
    known = by_cell and len(shape) <= _MOST_DIMS
    numbers[_DIMS] = _NO_OP
    text = op.encode()[: len(name) - 1]
    name[: len(text)] = np.frombuffer(text, np.uint8)
    name[len(text)] = 0
    numbers[_CELL] = 0
    if known:
        numbers[_SHAPE : _SHAPE + len(shape)] = shape
        numbers[_ORIGIN : _ORIGIN + len(shape)] = list(origin) or [0] * len(shape)
    numbers[_DIMS] = len(shape) if known else _NO_CELL
    yield numbers[_CELL : _CELL + 1]
    # Not where the kernel raised: its error names the cell, and reading stays possible.
    numbers[_DIMS] = _NO_OP
