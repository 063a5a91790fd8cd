"""Reads of FASTQ and FASTA files: by compiled code as far as these are plain, else as dnaio has them."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gridcompute.columns import Ragged
from gridcompute.errors import MissingInputError
from gridcompute.secrecy import clean
from gridcompute.sources.files import broken
from gridcompute.sources.inflating import UNREADABLE, inflated
from gridcompute.sources.reads import COLUMNS, FastqScan, Reads, found

_PIECE = 4096  # records taken from dnaio at a time


def reads_of(path: str, form: str, options: Mapping[str, Any], group: int = 1) -> Iterator[Reads]:
    """The reads of a file, front to back.

    Args:
        path: of the file.
        form: "fastq" or "fasta".
        options: fsspec's.
        group: as many come together, as far as they can.

    Raises:
        CorruptInputError: naming the file and the record (counted from 1).
    """
    with inflated(path, options) as (file, _):
        if form == "fasta":
            yield from _plainly(path, form, file, 0)
            return
        scan = FastqScan(file.readinto, group)
        try:
            yield from scan
        except UNREADABLE as error:
            raise broken(path, f"record {scan.done + 1}", error) from clean(error)
        if scan.rest:  # whatever is wrong with it, the plain reader knows
            yield from _plainly(path, form, _Chained(scan.rest, file), scan.done)


class _Chained(io.RawIOBase):
    """Bytes that were read before, then the rest of a file."""

    def __init__(self, head: bytes, file: Any) -> None:
        self._head, self._file = io.BytesIO(head), file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._head.readinto(buffer) or self._file.readinto(buffer)


def _plainly(path: str, form: str, file: Any, done: int) -> Iterator[Reads]:
    """The reads of an open file in which so many came before, through dnaio."""
    import dnaio

    reader = dnaio.FastqReader if form == "fastq" else dnaio.FastaReader
    records: Iterator[Any] | None = None
    before = 4 * done
    refused: tuple[type[Exception], ...] = (dnaio.FileFormatError, ValueError, *UNREADABLE)
    with contextlib.ExitStack() as stack:
        while True:
            taken: list[Any] = []
            try:
                if records is None:  # it reads already when made
                    records = iter(stack.enter_context(reader(file, _close_file=True)))
                for record in itertools.islice(records, _PIECE):
                    taken.append(record)  # noqa: PERF402 - what was read before an error counts
            except refused as error:
                if isinstance(error, dnaio.FileFormatError) and error.line is not None:
                    error.line += before
                raise broken(path, f"record {done + len(taken) + 1}", error) from clean(error)
            if not taken:
                return
            cells = [[record.name for record in taken], [record.sequence for record in taken]]
            cells += [[record.qualities for record in taken]] if form == "fastq" else []
            yield Reads.of({name: _text(column) for name, column in zip(COLUMNS, cells, strict=False)})
            done += len(taken)


def _text(cells: list[str]) -> Ragged:
    offsets = np.zeros(len(cells) + 1, np.int64)
    data = "".join(cells).encode()
    if ascii_only := len(data) == sum(map(len, cells)):
        np.cumsum(np.fromiter(map(len, cells), np.int64, len(cells)), out=offsets[1:])
    if not ascii_only:
        np.cumsum([len(cell.encode()) for cell in cells], out=offsets[1:])
    return Ragged(offsets, np.frombuffer(data, np.uint8))


def read_between(path: str, start: int, stop: int) -> Reads:
    """The FASTQ records between two places of a local file; fewer where it isn't what it was.

    Raises:
        MissingInputError: it isn't there any more.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            end = os.fstat(file.fileno()).st_size
            begin = min(max(start, 0), end)
            size = max(0, min(stop, end) - begin)
            data = np.empty(size + 1, np.uint8)
            file.seek(begin)
            have = 0
            while have < size and (count := file.readinto(data.data[have:size])):
                have += count
    except OSError as error:
        raise MissingInputError(f"{path} can't be read: {error}", hint="check the path and the permissions") from error
    if have and data[have - 1] != 10:
        data[have], have = 10, have + 1
    bounds, ends, _ = found(data[:have])
    return Reads(data, bounds, ends)
