"""Chunks that may be submitted, least number first: kept as runs, so that a million of them take no more than one."""

from __future__ import annotations

import heapq


class Ready:
    """Chunk numbers; one that was pushed twice is there twice.

    >>> some = Ready()
    >>> for chunk in (5, 6, 7, 2):
    ...     some.push(chunk)
    >>> len(some), some.first, some.pop(), some.pop(), some.runs
    (4, 2, 2, 5, 1)
    """

    def __init__(self) -> None:
        self._runs: list[list[int]] = []
        """A heap of [first, last + 1]."""
        self._last: list[int] = [0, 0]
        self._count = 0

    def push(self, chunk: int) -> None:
        """Add a chunk."""
        self._count += 1
        if self._last[0] < self._last[1] == chunk:
            self._last[1] += 1
        else:
            self._last = [chunk, chunk + 1]
            heapq.heappush(self._runs, self._last)

    def pop(self) -> int:
        """Take out the first chunk."""
        run = self._runs[0]
        chunk = run[0]
        run[0] += 1
        if run[0] == run[1]:
            heapq.heappop(self._runs)
        else:
            heapq.heapreplace(self._runs, run)
        self._count -= 1
        return chunk

    @property
    def first(self) -> int:
        """The least number; there must be one."""
        return self._runs[0][0]

    @property
    def runs(self) -> int:
        """How many runs it takes."""
        return len(self._runs)

    def __len__(self) -> int:
        return self._count
