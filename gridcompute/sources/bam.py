"""Reads of BAM files (SAM specification, 4.2), unaligned or not, in the order and the direction of the sequencer."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gridcompute.errors import CorruptInputError
from gridcompute.secrecy import clean
from gridcompute.sources.files import broken, open_file
from gridcompute.sources.inflating import UNREADABLE, inflated
from gridcompute.sources.reads import PIECE, Reads, compiled

Array = np.ndarray[Any, Any]

MAGIC = b"BAM\1"

END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
"""The empty block that a complete BAM file ends with."""

_LETTERS = np.frombuffer(b"=ACMGRSVTWYHKDBN", np.uint8)
_OPPOSITE = np.frombuffer(b"=TGKCYSBAWRDMHVN", np.uint8)


def ends_well(path: str, options: Mapping[str, Any]) -> bool:
    """Whether a BAM file ends with the block that says that nothing was cut off."""
    with open_file(path, options) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(END)))
        return bool(file.read(len(END)) == END)


def bam_reads(path: str, options: Mapping[str, Any], group: int = 1) -> Iterator[Reads]:
    """The primary records of a BAM file, reverse ones turned back; without qualities where the file has none.

    Args:
        path: of the file.
        options: fsspec's.
        group: 2 where first mates (flag 0x40) and second ones (0x80) take turns.

    Raises:
        CorruptInputError: it isn't BAM or is broken, naming the file and the record (counted from 1).
    """
    with inflated(path, options) as (raw, _):
        file = io.BufferedReader(raw, PIECE) if isinstance(raw, io.RawIOBase) else raw
        seen = given = 0
        try:
            _pass_header(file, path)
            memory, left, ended = np.empty(PIECE, np.uint8), 0, False
            while not ended:
                have = left + file.readinto(memory.data[left:])
                ended = have == left
                places = np.empty((have // 36 + 1, 2), np.int64)
                passed, kept, used = compiled(_records)(memory[:have], places)
                places[:kept, 1] += seen
                if kept:
                    yield _decoded(memory, places[:kept], path, given, group)
                seen, given = seen + passed, given + kept
                if used < 0:
                    raise broken(path, f"record {seen + 1}", "its lengths don't fit together")
                left = have - used
                memory[:left] = memory[used:have].copy()
                if left == len(memory):  # a record longer than the buffer
                    memory = np.concatenate([memory, np.empty(len(memory), np.uint8)])
            if left:
                raise broken(path, f"record {seen + 1}", "the file ends within it")
        except UNREADABLE as error:
            raise broken(path, f"record {seen + 1}", error) from clean(error)


def _pass_header(file: Any, path: str) -> None:
    """Read over all that comes before the records."""
    if file.read(4) != MAGIC:
        raise CorruptInputError(f"{path} isn't a BAM file", hint="check that this is the right file")
    _pass(file, _number(file, path), path)
    for _ in range(_number(file, path)):
        _pass(file, _number(file, path) + 4, path)


def _number(file: Any, path: str) -> int:
    data = file.read(4)
    value = int.from_bytes(data, "little", signed=True)
    if len(data) < 4 or value < 0:
        raise broken(path, "its header", "the file ends within it" if len(data) < 4 else f"a length is {value}")
    return value


def _pass(file: Any, count: int, path: str) -> None:
    while count:
        data = file.read(min(count, PIECE))
        if not data:
            raise broken(path, "its header", "the file ends within it")
        count -= len(data)


def _decoded(data: Array, places: Array, path: str, given: int, group: int) -> Reads:
    """Records as reads; `places` is filled as `_records` says."""
    if group == 2:
        side = np.where((np.arange(len(places)) + given) % 2, 0x80, 0x40)
        flags = data[places[:, 0] + 18]
        if (wrong := np.flatnonzero((flags & 0xC0) != side)).size:
            at = int(wrong[0])
            raise CorruptInputError(
                f"{path}: record {places[at, 1]}: mates are out of step: it isn't a "
                f"{'first' if side[at] == 0x40 else 'second'} mate (flags {int(flags[at]):#04x})",
                hint="put mates side by side with samtools collate, or leave out interleaved=True")
    bounds = np.empty((len(places), 3, 2), np.int64)
    out = np.empty(2 * len(data), np.uint8)
    end = compiled(_decode)(data, places, _LETTERS, _OPPOSITE, bounds, out)
    return Reads(out[:end], bounds, np.empty(0, np.int64))


def _whole(data: Array, at: int, count: int) -> Any:
    """A number without a sign of so many bytes."""
    value = np.int64(0)
    for k in range(count):
        value |= np.int64(data[at + k]) << np.int64(8 * k)
    return value


def _records(data: Array, places: Array) -> tuple[int, int, int]:
    """Where records lie.

    Args:
        data: begins with a record.
        places: filled, per primary record: where it lies, and its number among all (from 1).

    Returns:
        Records passed; how many of them are primary ones; bytes that these take, -1 where the next is broken.
    """
    at = seen = kept = 0
    while len(data) - at >= 4:
        size = _whole(data, at, 4)
        if size < 33 or size >= 2**31:
            return seen, kept, -1
        if len(data) - at - 4 < size:
            break
        name, cigar, length = _whole(data, at + 12, 1), _whole(data, at + 16, 2), _whole(data, at + 20, 4)
        if name < 1 or length >= 2**31 or 32 + name + 4 * cigar + (length + 1) // 2 + length > size:
            return seen, kept, -1
        if data[at + 35 + name] != 0:
            return seen, kept, -1
        seen += 1
        if not _whole(data, at + 18, 2) & 0x900:  # neither secondary nor supplementary
            places[kept, 0], places[kept, 1] = at, seen
            kept += 1
        at += 4 + size
    return seen, kept, at


def _decode(data: Array, places: Array, letters: Array, opposite: Array, bounds: Array, out: Array) -> int:
    """Names, bases and qualities of records, in their order in `out`; returns where they end."""
    to = 0
    for read in range(len(places)):
        at = places[read, 0]
        name, cigar, length = _whole(data, at + 12, 1), _whole(data, at + 16, 2), _whole(data, at + 20, 4)
        back = (data[at + 18] & 16) != 0
        begin = at + 36
        bounds[read, 0, 0], bounds[read, 0, 1] = to, to + name - 1
        for k in range(name - 1):
            out[to + k] = data[begin + k]
        to += name - 1
        begin += name + 4 * cigar
        bounds[read, 1, 0], bounds[read, 1, 1] = to, to + length
        for k in range(length):
            code = (data[begin + k // 2] >> (0 if k % 2 else 4)) & 15
            if back:
                out[to + length - 1 - k] = opposite[code]
            else:
                out[to + k] = letters[code]
        to += length
        begin += (length + 1) // 2
        scored = length if length > 0 and data[begin] != 255 else 0
        bounds[read, 2, 0], bounds[read, 2, 1] = to, to + scored
        for k in range(scored):
            out[to + (scored - 1 - k if back else k)] = data[begin + k] + 33
        to += scored
    return to
