"""Mates: the two reads of a fragment, one row after the other, whatever way files keep them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gridcompute.errors import CorruptInputError
from gridcompute.sources.reads import Reads, compiled

Array = np.ndarray[Any, Any]


def in_step(first: Iterator[Reads], second: Iterator[Reads], paths: tuple[str, str]) -> Iterator[tuple[Reads, Reads]]:
    """The reads of two files, as many of each at a time.

    Raises:
        CorruptInputError: the names of two that should be mates differ, or a file has more reads.
    """
    a = b = None
    done = 0
    while True:
        a, b = a or next(first, None), b or next(second, None)
        if not (a and b):
            break
        count = min(len(a), len(b))
        left, right = a.part(0, count), b.part(0, count)
        where = compiled(_alike)(left.data, left.bounds, right.data, right.bounds)
        if where < count:
            raise _apart(" and ".join(paths), f"record {done + where + 1}", left.text(where), right.text(where))
        yield left, right
        done += count
        a, b = a.part(count, len(a)), b.part(count, len(b))
    for more, path, other in ((a, *paths), (b, *paths[::-1])):
        if more:
            raise CorruptInputError(
                f"{' and '.join(paths)}: record {done + 1}: {path} goes on with {more.text(0)!r}, but {other} ends "
                f"after {done:,} reads", hint="fetch both files again, or check what wrote them")


def interleaved(pieces: Iterator[Reads], path: str) -> Iterator[Reads]:
    """The reads of a file in which mates follow each other, in pairs.

    Raises:
        CorruptInputError: the names of two that should be mates differ, or the last one has none.
    """
    done, held = 0, None
    for piece in pieces:
        reads = Reads.joined(held, piece) if held else piece
        even = len(reads) // 2 * 2
        where = 2 * int(compiled(_alike)(reads.data, reads.bounds[0:even:2], reads.data, reads.bounds[1:even:2]))
        if where < even:
            raise _apart(path, f"records {done + where + 1} and {done + where + 2}", reads.text(where),
                         reads.text(where + 1))
        held = reads.part(even, len(reads)).copied() if even < len(reads) else None
        if even:
            yield reads.part(0, even)
        done += even
    if held:
        raise CorruptInputError(f"{path}: record {done + 1}: {held.text(0)!r}, the last one, has no mate",
                                hint="fetch the file again; if its reads have no mates, leave out interleaved=True")


def _apart(where: str, record: str, one: str, other: str) -> CorruptInputError:
    return CorruptInputError(
        f"{where}: {record}: mates are out of step: {one[:200]!r} and {other[:200]!r}",
        hint="mates have the same name up to the first blank, but for /1 and /2: sort or fetch the files again")


def _stem(data: Array, lo: int, hi: int) -> int:
    """Where the part of a name ends that mates share."""
    end = lo
    while end < hi and data[end] != 32 and data[end] != 9:
        end += 1
    if end - lo >= 2 and data[end - 2] == 47 and (data[end - 1] == 49 or data[end - 1] == 50):
        end -= 2
    return end


def _alike(first: Array, ones: Array, second: Array, others: Array) -> int:
    """How many pairs of reads have the same name before two that haven't."""
    for read in range(len(ones)):
        lo, other = ones[read, 0, 0], others[read, 0, 0]
        end = _stem(first, lo, ones[read, 0, 1])
        if _stem(second, other, others[read, 0, 1]) - other != end - lo:
            return read
        for k in range(end - lo):
            if first[lo + k] != second[other + k]:
                return read
    return len(ones)
