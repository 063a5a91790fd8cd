"""Reads in a buffer as a file has them, found by compiled code: no Python object per record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from gridcompute.codecache import cached_njit
from gridcompute.columns import Column, Ragged
from gridcompute.sources.buffers import BUFFERS

Array = np.ndarray[Any, Any]

COLUMNS = ("name", "sequence", "quality")

PIECE = 2**20
"""Bytes of a file that are looked at together: they stay in a core's own cache."""


@dataclass(frozen=True, eq=False)
class Reads:
    """Some reads, in buffers that may be used again once the next ones are asked for.

    Attributes:
        data: uint8, where the columns' letters lie.
        bounds: int64, reads x columns x 2: where each cell of `COLUMNS` (or of the first two) begins and ends.
        ends: int64, per read: position in the file after it; empty where nobody needs to know.
    """

    data: Array
    bounds: Array
    ends: Array

    def __len__(self) -> int:
        return len(self.bounds)

    def part(self, start: int, stop: int) -> Reads:
        """Some of them, in the same buffers."""
        return Reads(self.data, self.bounds[start:stop], self.ends[start:stop])

    def copied(self) -> Reads:
        """The same in memory of their own."""
        return Reads(self.data.copy(), self.bounds.copy(), self.ends.copy())

    @classmethod
    def of(cls, columns: Mapping[str, Ragged]) -> Reads:
        """Reads of columns, by name."""
        data = np.concatenate([column.values for column in columns.values()])
        bounds = np.empty((next(iter(columns.values())).cells, len(columns), 2), np.int64)
        base = 0
        for i, column in enumerate(columns.values()):
            bounds[:, i, 0], bounds[:, i, 1] = column.offsets[:-1] + base, column.offsets[1:] + base
            base += len(column.values)
        return cls(data, bounds, np.empty(0, np.int64))

    @classmethod
    def joined(cls, first: Reads, second: Reads) -> Reads:
        """Two runs, the one after the other."""
        return cls(np.concatenate([first.data, second.data]),
                   np.concatenate([first.bounds, second.bounds + len(first.data)]),
                   np.concatenate([first.ends, second.ends]))

    @property
    def sizes(self) -> Array:
        """Bytes per read as the canonical cut counts them: its letters, and 8 a column."""
        lengths = self.bounds[:, :, 1] - self.bounds[:, :, 0]
        sizes: Array = lengths.sum(axis=1) + 8 * self.bounds.shape[1]
        return sizes

    def text(self, read: int, column: int = 0) -> str:
        """One cell, for messages."""
        lo, hi = self.bounds[read, column]
        return bytes(self.data[lo:hi]).decode(errors="replace")


def columns_of(streams: Sequence[Reads], names: Sequence[str]) -> dict[str, Column]:
    """Columns in memory of their own; of several streams of as many reads, one read of each in turn."""
    columns: dict[str, Column] = {}
    for name in names:
        i = COLUMNS.index(name)
        lengths = np.stack([reads.bounds[:, i, 1] - reads.bounds[:, i, 0] for reads in streams], axis=1)
        offsets = np.zeros(lengths.size + 1, np.int64)
        np.cumsum(lengths.ravel(), out=offsets[1:])
        values = BUFFERS.array((int(offsets[-1]),), np.dtype(np.uint8))
        for k, reads in enumerate(streams):
            compiled(_copy)(reads.data, reads.bounds, i, offsets[k : -1 : len(streams)], values)
        columns[name] = Ragged(offsets, values)
    return columns


@lru_cache
def compiled(function: Callable[..., Any]) -> Any:
    """A function of this package's sources, compiled once a node; its arrays share no memory."""
    return cached_njit(function, apart=True)


def _copy(data: Array, bounds: Array, column: int, at: Array, out: Array) -> None:
    """Put the cells of one column where they belong."""
    for read in range(len(bounds)):
        # Without a sign the index needs no look whether it counts from the end, and the loop becomes a vector's.
        lo, hi, to = np.uint64(bounds[read, column, 0]), np.uint64(bounds[read, column, 1]), np.uint64(at[read])
        for k in range(hi - lo):
            out[to + k] = data[lo + k]


def _records(data: Array, ends: Array, bounds: Array) -> int:
    """Bounds of FASTQ records of four lines each, as far as dnaio would take them.

    Args:
        data: begins with a record.
        ends: where lines end.
        bounds: filled; as of `Reads`.

    Returns:
        How many records there are before the first that isn't one.
    """
    begin = 0
    for read in range(len(bounds)):
        first, second, third, last = ends[4 * read], ends[4 * read + 1], ends[4 * read + 2], ends[4 * read + 3]
        if data[begin] != 64 or data[second + 1] != 43:  # "@" and "+"
            return read
        name, sequence, quality = begin + 1, first + 1, third + 1
        again = second + 2
        # A carriage return before a line's end belongs to that end.
        name_end = first - (data[first - 1] == 13)
        sequence_end = second - (data[second - 1] == 13)
        again_end = third - (data[third - 1] == 13)
        quality_end = last - (data[last - 1] == 13)
        if again_end > again:
            if again_end - again != name_end - name:
                return read
            for k in range(name_end - name):
                if data[name + k] != data[again + k]:
                    return read
        if quality_end - quality != sequence_end - sequence:
            return read
        bounds[read, 0, 0], bounds[read, 0, 1] = name, name_end
        bounds[read, 1, 0], bounds[read, 1, 1] = sequence, sequence_end
        bounds[read, 2, 0], bounds[read, 2, 1] = quality, quality_end
        begin = last + 1
    return len(bounds)


def found(data: Array, group: int = 1) -> tuple[Array, Array, bool]:
    """The FASTQ records that some bytes begin with.

    Args:
        data: uint8, beginning with a record.
        group: only multiples of so many records are taken.

    Returns:
        Bounds as of `Reads`, where each record ends, and whether something follows that is no record.
    """
    odd = len(data)
    if odd and data.view(np.int8).min() < 0:
        odd = int(np.argmax(data > 127))
    lines = np.flatnonzero(data == 10)
    bounds = np.empty((len(lines) // 4, 3, 2), np.int64)
    good = compiled(_records)(data, lines, bounds) if len(bounds) else 0
    last = lines[3 : 4 * len(bounds) : 4]
    good = min(good, int(np.searchsorted(last, odd)))
    stops = odd < len(data) or good < len(bounds)
    good -= good % group
    return bounds[:good], last[:good] + 1, stops


class FastqScan:
    """FASTQ records of an open file, as far as they are plain.

    Args:
        readinto: of the file.
        group: reads come in multiples of so many.

    Attributes:
        rest: bytes that were read and aren't among the reads that were given, once these have ended: of a record that
            is broken, or an incomplete group; empty at the end of a good file.
        done: reads that were given.
    """

    def __init__(self, readinto: Callable[[Any], int | None], group: int = 1) -> None:
        self._readinto, self._group = readinto, group
        self.rest, self.done = b"", 0

    def __iter__(self) -> Iterator[Reads]:
        memory, left, base, ended = np.empty(PIECE, np.uint8), 0, 0, False
        while not ended:
            failure: Exception | None = None
            have = left
            try:
                while have < len(memory) and (count := self._readinto(memory.data[have:])):
                    have += count
            except Exception as error:  # what was read before an error counts
                failure = error
            ended = have < len(memory)
            total = have
            if ended and failure is None and have and memory[have - 1] != 10:  # the last line's end may be missing
                memory[have], have = 10, have + 1
            bounds, ends, stops = found(memory[:have], self._group)
            if len(bounds):
                self.done += len(bounds)
                yield Reads(memory, bounds, np.minimum(ends + base, base + total))
            if failure is not None:
                raise failure
            used = int(ends[-1]) if len(ends) else 0
            if stops or ended:
                self.rest = memory[min(used, total):total].tobytes()
                return
            left = have - used
            if used:
                memory[:left] = memory[used:have].copy()
            else:  # a read longer than the buffer
                memory = np.concatenate([memory, np.empty(len(memory), np.uint8)])
            base += used
