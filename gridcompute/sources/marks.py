"""Marks: where the canonical blocks of a file begin that can be read from the middle, and places within them.

They stand for the blocks themselves: the rows stay in the file, and a task reads and parses its own part of it. A
block's marks are one shard: columns `row` (of the block), `start` and `mate` (positions in the file and in that of the
mates), from the block's first row to its end, and `version` (of the files, in its first cell).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from gridcompute.columns import Block, Field, Fixed, Ragged
from gridcompute.sources.blocks import BLOCK_ROWS, Cut
from gridcompute.sources.reads import Reads
from gridcompute.spaces import Region

MARK_BYTES = 128 * 2**10
"""Of the file between two marks, at least; so many more than it needs a task may have to parse."""

_INT = np.dtype(np.int64)


def mark_fields(dim: str) -> tuple[Field, ...]:
    """The columns of marks."""
    numbers = (Field(name, (dim,), _INT) for name in ("row", "start", "mate"))
    return (*numbers, Field("version", (dim,), np.dtype(np.uint8), "string"))


def marked(pieces: Iterable[tuple[Reads, ...]], version: str, group: int) -> Iterator[Block]:
    """The marks of a file's blocks.

    Args:
        pieces: the reads in order, those of two files side by side.
        version: of the files.
        group: rows that stay together: 2 where they are mates.
    """
    cut, number = Cut(BLOCK_ROWS // group), 0
    at, row, marks = (0, 0), 0, list[tuple[int, int, int]]()
    for streams in pieces:
        single = len(streams) == 1
        step = group if single else 1  # reads of a file in a group of rows
        sizes = sum(reads.sizes.reshape(-1, step).sum(axis=1) for reads in streams)
        first = streams[0].ends[step - 1 :: step]
        second = np.zeros_like(first) if single else streams[1].ends
        for start, stop, full in cut.parts(np.asarray(sizes)):
            marks = marks or [(0, *at)]
            while (place := int(np.searchsorted(first[:stop], marks[-1][1] + MARK_BYTES))) < stop:
                marks.append((row + group * (place + 1 - start), int(first[place]), int(second[place])))
            row += group * (stop - start)
            if stop:
                at = int(first[stop - 1]), int(second[stop - 1])
            if full:
                yield _block(number, [*marks, (row, *at)], version)
                number, row, marks = number + 1, 0, []
    if marks:
        yield _block(number, [*marks, (row, *at)], version)


def _block(number: int, marks: list[tuple[int, int, int]], version: str) -> Block:
    marks = list(dict.fromkeys(marks))  # the end may have a mark already
    table = np.array(marks, np.int64)
    columns = {name: Fixed(np.ascontiguousarray(table[:, i])) for i, name in enumerate(("row", "start", "mate"))}
    text = Ragged.of([version.encode(), *[b""] * (len(marks) - 1)])
    return Block(Region.of((number, number + 1)), {**columns, "version": text}, len(marks))


def version_of(marks: Block) -> str:
    """Of the files that marks were made of."""
    text: Any = marks["version"]
    return bytes(text.values[text.offsets[0] : text.offsets[1]]).decode(errors="replace")


def span(marks: Block, start: int, stop: int) -> tuple[int, int, tuple[tuple[int, int], tuple[int, int]]]:
    """What must be read for some rows of a block.

    Returns:
        The first and last-plus-one row that is read, and where they lie in the file and in that of the mates.
    """
    row, begin, mate = (getattr(marks[name], "values") for name in ("row", "start", "mate"))  # noqa: B009
    first = int(np.searchsorted(row, start, side="right")) - 1
    last = int(np.searchsorted(row, stop))
    return int(row[first]), int(row[last]), ((int(begin[first]), int(begin[last])), (int(mate[first]), int(mate[last])))


def rows_of(marks: Block) -> int:
    """Rows of the block that some marks stand for."""
    row: Any = marks["row"]
    return int(row.values[-1])
