"""Memory that decoded values lie in, used again: fresh memory costs a page fault for every 4 KiB that is written.

A buffer belongs to the arrays that look into it. Nobody hands it back: it is free once the last of them is gone, a view
in another thread or in a block that is held included. So no one ever sees a value change that was handed out.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

MOST_BYTES = 64 * 2**20
"""Bytes that a pool keeps anyhow while no one uses them."""

_SLACK = 2  # a buffer isn't given for less than this part of itself


class _Lease:
    """What an array's `base` chain ends in: gives its memory back when the last array over it has gone."""

    def __init__(self, pool: Buffers, memory: Array) -> None:
        self._pool, self._memory = pool, memory
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        self._pool._returned(self._memory)


class Buffers:
    """Free memory of a process, for all of its threads.

    What is free and what is in use come to no more than what was in use at once since the pool last settled: a pass
    over large chunks gets each buffer back for its next chunk, and takes no more memory than without a pool.

    Args:
        most_bytes: kept free beside what is in use, however little was in use at once.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._free: list[Array] = []
        self._used = self._peak = 0
        # Reentrant: a garbage collection within `array` may end a lease on this very thread.
        self._lock = threading.RLock()

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An array of a shape and type, its values arbitrary; its memory is used again after its last view."""
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if size == 0:
            return np.empty(shape, dtype)
        with self._lock:
            fit = [i for i, memory in enumerate(self._free) if size <= memory.nbytes <= _SLACK * size]
            memory = self._free.pop(min(fit, key=lambda i: self._free[i].nbytes)) if fit else None
            self._used += size if memory is None else memory.nbytes
            self._peak = max(self._peak, self._used)
            self._trim()
        try:
            lease = _Lease(self, np.empty(size, np.uint8) if memory is None else memory)
        except MemoryError:
            with self._lock:
                self._used -= size
            raise
        return np.asarray(lease)[:size].view(dtype).reshape(shape)

    def _returned(self, memory: Array) -> None:
        with self._lock:
            self._used -= memory.nbytes
            self._free.append(memory)
            self._trim()

    def _trim(self) -> None:
        while self._free and self.nbytes > max(self._most, self._peak - self._used):
            self._free.pop(0)  # the one that was free longest

    def settle(self) -> None:
        """Something else begins: only what is in use by now counts as what was in use at once."""
        with self._lock:
            self._peak = self._used
            self._trim()

    def clear(self) -> None:
        """Let go of what is free."""
        with self._lock:
            self._free.clear()

    @property
    def nbytes(self) -> int:
        """Bytes that are free."""
        return sum(memory.nbytes for memory in self._free)


BUFFERS = Buffers()
"""Of this process. A worker's forked child has a copy of its own."""
