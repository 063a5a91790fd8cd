"""BAI, the index of a coordinate-sorted BAM file: of each part while it is written, put together at the end.

A part's index is an int64 table of five columns, whose rows begin with their kind. Virtual offsets in it count from the
part's beginning. SAM specification, section 5.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence

import numpy as np

from gridcompute import bamcounts
from gridcompute.bgzf import shifted, virtual_offsets
from gridcompute.columns import Array
from gridcompute.errors import CorruptInputError, ParameterError

LONGEST = 2**29
"""Positions of a contig that BAI's bins can hold."""

WINDOW_BITS = 14
STATISTICS_BIN = 37450
CHUNK, WINDOW, SPAN, MAPPED, ENDS, NOWHERE, COUNT = range(7)
"""Kinds of rows: (contig, bin, from, to); (contig, window, from, 0); (contig, 0, from, to); (contig, 0, mapped,
unmapped); (contig and position of the first record, and of the last); (reads without a place, 0, 0, 0); (what of
`bamcounts`, key, count, 0)."""

_FIXED = 36
_ALONG = np.array([1, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0], np.int64)


def part_index(offsets: Array, data: Array, begins: Array, lengths: Sequence[int]) -> Array:
    """The index of records that were compressed together, and what is counted of them.

    Args:
        offsets: int64, where each record begins in `data`, which begins with the first; then the length in all.
        data: uint8, the records.
        begins: of the blocks, as `bgzf.compress` gives them.
        lengths: of the contigs that the header names.

    Raises:
        ParameterError: bytes that aren't records, a contig that the header doesn't name, or records out of order.
    """
    if len(offsets) < 2:
        return np.empty((0, 5), np.int64)
    contig, position, end, flags = _places(offsets, data)
    mapped = flags & 4 == 0
    if contig.max() >= len(lengths) or contig.min() < -1:
        raise ParameterError(f"a record lies in contig {contig.max()}, but the header names {len(lengths)}",
                             hint="header= takes the @SQ lines of the reference that reads were aligned to")
    ends = np.array([[ENDS, contig[0], position[0], contig[-1], position[-1]]], np.int64)
    order = _order(contig, position)
    if (np.diff(order) < 0).any():
        at = int(np.argmax(np.diff(order) < 0)) + 1
        raise ParameterError(f"record {at} of a part comes before the one ahead of it, so the rows aren't sorted",
                             hint='write what .sort("key") gives')
    places = virtual_offsets(begins, offsets)
    if places[-1] & 0xFFFF:
        places[-1] = begins[-1] << 16  # the next part's beginning, not a place behind the last block's end
    counts = bamcounts.counted(flags, contig, position, end - position, data[offsets[:-1] + 13],
                               _numbers(data, offsets[:-1] + 32, "<i4").astype(np.int64), lengths)
    zeros = np.zeros((len(counts), 1), np.int64)
    count = int(np.count_nonzero(contig >= 0))  # the rest has no place
    contig, position, end, mapped = contig[:count], position[:count], end[:count], mapped[:count]
    pieces = [ends, np.hstack([zeros + COUNT, counts, zeros]),
              np.array([[NOWHERE, len(offsets) - 1 - count, 0, 0, 0]], np.int64)]
    if count:
        pieces += [_chunks(contig, position, end, places), _windows(contig, position, end, places),
                   *_statistics(contig, mapped, places)]
    return np.concatenate(pieces)


def _places(offsets: Array, data: Array) -> tuple[Array, Array, Array, Array]:
    """Contig, position, end along the reference, and flags, of each record."""
    starts, sizes = offsets[:-1], np.diff(offsets)
    if (sizes < _FIXED).any() or (_numbers(data, starts, "<i4") + 4 != sizes).any():
        raise ParameterError("a cell of the column 'record' isn't a BAM record", hint="write what an encoder gives")
    contig, position = (_numbers(data, starts + at, "<i4").astype(np.int64) for at in (4, 8))
    names, steps, flags = data[starts + 12].astype(np.int64), *(
        _numbers(data, starts + at, "<u2").astype(np.int64) for at in (16, 18))
    if (_FIXED + names + 4 * steps > sizes).any():
        raise ParameterError("a BAM record ends before its CIGAR", hint="write what an encoder gives")
    many = np.repeat(starts + _FIXED + names - 4 * (np.cumsum(steps) - steps), steps) + 4 * np.arange(steps.sum())
    operations = _numbers(data, many, "<u4").astype(np.int64)
    along = np.concatenate([[0], np.cumsum((operations >> 4) * _ALONG[operations & 15])])
    bounds = np.concatenate([[0], np.cumsum(steps)])
    span = np.where(flags & 4 == 0, along[bounds[1:]] - along[bounds[:-1]], 1)
    return contig, position, position + np.maximum(span, 1), flags


def _numbers(data: Array, places: Array, dtype: str) -> Array:
    """Whole numbers that begin at any places."""
    kind = np.dtype(dtype)
    every: Array = np.ndarray((max(0, len(data) - kind.itemsize + 1),), kind, data, strides=(1,))
    found: Array = every[places]
    return found


def _order(contig: Array, position: Array) -> Array:
    """Numbers in the order of coordinates: reads without a contig last, those without a position first in theirs."""
    return np.where(contig < 0, np.int64(2**62), contig << 32 | (position + 1))


def bins_of(begin: Array, end: Array) -> Array:
    """The smallest bin that holds positions begin to end."""
    last, found = end - 1, np.zeros(len(begin), np.int64)
    for level in range(4, -1, -1):  # the smallest last
        shift = WINDOW_BITS + 3 * level
        same = begin >> shift == last >> shift
        found = np.where(same, ((1 << (15 - 3 * level)) - 1) // 7 + (begin >> shift), found)
    return found


def _chunks(contig: Array, begin: Array, end: Array, places: Array) -> Array:
    """Runs of records of one bin."""
    bins = bins_of(begin, end)
    first = np.flatnonzero(np.concatenate([[True], (np.diff(bins) != 0) | (np.diff(contig) != 0)]))
    stop = np.concatenate([first[1:], [len(bins)]])
    return np.stack([np.full(len(first), CHUNK), contig[first], bins[first], places[first], places[stop]], 1)


def _windows(contig: Array, begin: Array, end: Array, places: Array) -> Array:
    """The first record of each window of 16,384 positions that it meets."""
    low, high = np.maximum(begin, 0) >> WINDOW_BITS, (end - 1) >> WINDOW_BITS
    counts = high - low + 1
    record = np.repeat(np.arange(len(low)), counts)
    window = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + low[record]
    keys, first = np.unique(contig[record] << 32 | window, return_index=True)
    return np.stack([np.full(len(keys), WINDOW), keys >> 32, keys & 0xFFFFFFFF, places[record[first]],
                     np.zeros(len(keys), np.int64)], 1)


def _statistics(contig: Array, mapped: Array, places: Array) -> tuple[Array, Array]:
    """What a contig's pseudo-bin says: from where to where it goes, and reads mapped and not."""
    found, first, counts = np.unique(contig, return_index=True, return_counts=True)
    full = np.add.reduceat(mapped.astype(np.int64), first)
    zeros = np.zeros(len(found), np.int64)
    return (np.stack([zeros + SPAN, found, zeros, places[first], places[first + counts]], 1),
            np.stack([zeros + MAPPED, found, zeros, full, counts - full], 1))


def encoded(index: Array) -> bytes:
    """A part's index as bytes."""
    return np.ascontiguousarray(index, "<i8").tobytes()


def decoded(data: bytes, name: str) -> Array:
    """What `encoded` was given; raises CorruptInputError where the length can't be."""
    if len(data) % 40:
        raise CorruptInputError(f"the index of {name} is cut off", hint="run it again with overwrite=True")
    return np.frombuffer(data, "<i8").astype(np.int64).reshape(-1, 5)


def counts_of(parts: Sequence[Array], lengths: Sequence[int]) -> bamcounts.Counts:
    """What is counted of all parts."""
    return bamcounts.Counts.of((index[index[:, 0] == COUNT, 1:4] for index in parts), lengths)


def joined(parts: list[tuple[Array, int]], references: int, output: str) -> bytes:
    """The index of a file.

    Args:
        parts: index of each, in their order, and where its blocks begin in the file.
        references: number of contigs.
        output: what is indexed, for messages.

    Raises:
        ParameterError: a part begins before the one ahead of it ends.
    """
    last = -1
    for index, _ in parts:
        for _, *ends in index[index[:, 0] == ENDS].tolist():
            first, until = _order(np.array(ends[::2]), np.array(ends[1::2])).tolist()
            if first < last:
                raise ParameterError(f"{output}: the rows aren't sorted", hint='write what .sort("key") gives')
            last = until
    moved = [_moved(index, start) for index, start in parts]
    rows = np.concatenate([np.empty((0, 5), np.int64), *moved])
    text = [b"BAI\1", struct.pack("<i", references)]
    by_contig = {kind: _by_contig(rows[rows[:, 0] == kind], references) for kind in (CHUNK, WINDOW, SPAN, MAPPED)}
    kinds = [by_contig[kind] for kind in (CHUNK, WINDOW, SPAN, MAPPED)]
    text += [_contig(*of_one) for of_one in zip(*kinds, strict=True)]
    text.append(struct.pack("<Q", int(rows[rows[:, 0] == NOWHERE, 1].sum())))
    return b"".join(text)


def _moved(index: Array, start: int) -> Array:
    """A part's index when so many bytes lie before it."""
    moved = index.copy()
    for kind, columns in ((CHUNK, (3, 4)), (WINDOW, (3,)), (SPAN, (3, 4))):
        for column in columns:
            at = index[:, 0] == kind
            moved[at, column] = shifted(index[at, column], start)
    return moved


def _by_contig(rows: Array, references: int) -> list[Array]:
    """Rows of each contig, by bin or window, in the file's order; a hostile part may name any."""
    rows = rows[(rows[:, 1] >= 0) & (rows[:, 1] < references)]
    rows = rows[np.lexsort((rows[:, 2], rows[:, 1]))]
    cuts = np.searchsorted(rows[:, 1], np.arange(references + 1))
    return [rows[a:b] for a, b in itertools.pairwise(cuts.tolist())]


def _contig(chunks: Array, windows: Array, spans: Array, mapped: Array) -> bytes:
    if not len(chunks):
        return struct.pack("<ii", 0, 0)
    # One chunk goes on in the next where no block lies between them.
    apart = (np.diff(chunks[:, 2]) != 0) | (chunks[1:, 3] >> 16 > chunks[:-1, 4] >> 16)
    first = np.flatnonzero(np.concatenate([[True], apart]))
    bins = chunks[first, 2]
    pairs = np.stack([chunks[first, 3], chunks[np.concatenate([first[1:], [len(chunks)]]) - 1, 4]], 1).astype("<u8")
    numbers, begins, counts = np.unique(bins, return_index=True, return_counts=True)
    text = [struct.pack("<i", len(numbers) + 1)]
    for number, begin, count in zip(numbers.tolist(), begins.tolist(), counts.tolist(), strict=True):
        text += [struct.pack("<Ii", number, count), pairs[begin:begin + count].tobytes()]
    text += [struct.pack("<Ii", STATISTICS_BIN, 2),
             struct.pack("<4Q", *(int(n) for n in (spans[:, 3].min(), spans[:, 4].max(), *mapped[:, 3:].sum(0))))]
    linear = np.full(int(windows[-1, 2]) + 1, -1, np.int64)
    linear[windows[::-1, 2]] = windows[::-1, 3]  # of a window that several parts meet the first counts
    known = np.maximum.accumulate(np.where(linear >= 0, np.arange(len(linear)), -1))
    linear = np.where(known >= 0, linear[known], 0)
    return b"".join([*text, struct.pack("<i", len(linear)), linear.astype("<u8").tobytes()])
