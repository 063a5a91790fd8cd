"""CIGARs: an alignment's path as runs of operations, each a uint32 as BAM has them: length << 4 | operation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numba import njit

MATCH, INSERTION, DELETION, EQUAL, UNEQUAL = 0, 1, 2, 7, 8
"""Operations, as in BAM: letters against each other, a letter of the query alone, of the target alone, equal letters,
others."""

LETTERS = "MIDNSHP=X"
"""Of the operations, in text."""


@njit(nogil=True)
def push(cigar: Any, count: int, operation: int, length: int) -> int:
    """Add an operation behind `count` runs, or lengthen the last one; how many there are then.

    Raises:
        ValueError: the buffer is full.
    """
    if length == 0:
        return count
    if count and np.int64(cigar[count - 1]) & 15 == operation:
        cigar[count - 1] = np.int64(cigar[count - 1]) + (np.int64(length) << 4)
        return count
    if count == len(cigar):
        raise ValueError("a CIGAR is longer than its buffer: as many entries as both sequences have letters always do")
    cigar[count] = np.int64(length) << 4 | operation
    return count + 1


@njit(nogil=True)
def turned(cigar: Any, count: int) -> None:
    """The first `count` runs in the other order."""
    for i in range(count // 2):
        cigar[i], cigar[count - 1 - i] = cigar[count - 1 - i], cigar[i]


def cigar_text(cigar: Iterable[int]) -> str:
    """A CIGAR as text, such as 20=1X3D5=; of no operation "*", as in SAM."""
    runs = [int(run) for run in cigar]
    return "".join(f"{run >> 4}{LETTERS[run & 15]}" for run in runs) or "*"


@njit(nogil=True)
def cigar_letters(offsets: Any, cigars: Any) -> Any:
    """Text of many CIGARs, for use in kernels: offsets and ASCII letters (uint8), of no operation nothing."""
    names = np.array([77, 73, 68, 78, 83, 72, 80, 61, 88], np.uint8)
    starts = np.zeros(len(offsets), np.int64)
    for i in range(len(offsets) - 1):
        size = 0
        for at in range(offsets[i], offsets[i + 1]):
            length, size = np.int64(cigars[at]) >> 4, size + 2
            while length > 9:
                length, size = length // 10, size + 1
        starts[i + 1] = starts[i] + size
    letters, end = np.empty(starts[-1], np.uint8), starts[-1]
    for at in range(offsets[-1] - 1, offsets[0] - 1, -1):
        end -= 1
        letters[end] = names[np.int64(cigars[at]) & 15]
        length = np.int64(cigars[at]) >> 4
        while length:
            end -= 1
            letters[end] = 48 + length % 10
            length //= 10
    return starts, letters
