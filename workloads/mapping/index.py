"""A reference's index: its letters as codes, and where each of its minimizers is. Kept as an Arrow file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numba import njit

from gridcompute.errors import CorruptInputError, MissingInputError, ParameterError

from .seeds import HASH_BITS, PAD, REFERENCE_CODES, SEPARATOR, WINDOW, K, minimizers, seed_scratch

GAP = 512
"""Places before, between and behind contigs. No alignment goes across so many: see `lanes`."""

PLACE_BITS = 32
"""Of an entry, for the place; below it one bit for the strand, above it the hash."""

FORMAT, VERSION = "gridcompute mapping index", "1"
SEAL = b"gridcompute seal"
"""What comes before a file's checksum, 32 hexadecimal digits."""

BLOCK = 1 << 16

Array = np.ndarray[Any, Any]


class Index(NamedTuple):
    """What reads are mapped with; arrays only, to be shared read-only.

    Attributes:
        codes: uint8, shape (n,): 0 to 3 for A, C, G, T, 4 for any other letter, 6 outside the contigs.
        starts: int64, shape (contigs,): first place of each contig in `codes`.
        lengths: int64, shape (contigs,): bases of each.
        buckets: int32, shape (2^b + 1,): entries[buckets[i]:buckets[i + 1]] have a hash whose upper b bits are i.
        entries: int64, shape (minimizers,), ascending: hash, place of the first base in `codes` (32 bits), and whether
            it is the reverse complement that was hashed (1 bit).
    """

    codes: Any
    starts: Any
    lengths: Any
    buckets: Any
    entries: Any


class Indexed(NamedTuple):
    """An index, and what isn't needed where reads are mapped.

    Attributes:
        arrays: the index itself.
        names: of the contigs.
        digest: of names and letters, 32 hexadecimal digits.
    """

    arrays: Index
    names: tuple[str, ...]
    digest: str


@njit(nogil=True)
def _collect(codes: Any, starts: Any, lengths: Any) -> Any:
    """Entries of all minimizers, contig by contig."""
    entries = np.empty(len(codes) // 3 + 64, np.int64)
    scratch, places = seed_scratch(BLOCK + K + 2 * WINDOW), np.empty(BLOCK + K + 2 * WINDOW, np.int64)
    used = 0
    for contig in range(len(starts)):
        words = lengths[contig] - K + 1
        for first in range(0, words, BLOCK):
            last = min(first + BLOCK, words)
            # A word's windows reach WINDOW - 1 words to either side.
            start, stop = max(first - WINDOW + 1, 0), min(last + WINDOW - 1, words)
            origin = starts[contig] + start
            found = minimizers(codes, origin, starts[contig] + stop + K - 1, scratch, places)
            if used + found > len(entries):
                larger = np.empty(2 * len(entries) + found, np.int64)
                larger[:used] = entries[:used]
                entries = larger
            for i in range(found):
                place = places[i]
                if first <= start + place < last:
                    strand = np.int64(scratch[0, place] > scratch[1, place])
                    entries[used] = np.int64(scratch[2, place]) << PLACE_BITS + 1 | (origin + place) << 1 | strand
                    used += 1
    return entries[:used].copy()


@njit(nogil=True)
def _buckets(entries: Any, bits: Any) -> Any:
    """Where the entries of each bucket begin."""
    starts = np.zeros((1 << bits) + 1, np.int32)
    shift = HASH_BITS + PLACE_BITS + 1 - bits
    for entry in entries:
        starts[(entry >> shift) + 1] += 1
    for i in range(1 << bits):
        starts[i + 1] += starts[i]
    return starts


def build_index(names: Sequence[str], offsets: Array, letters: Array) -> Indexed:
    """Index a reference.

    Args:
        names: of the contigs.
        offsets: int64, shape (contigs + 1,): where the contigs' letters begin and end.
        letters: uint8, shape (n,); case doesn't matter, U is T, any other letter matches nothing.

    Returns:
        About 1 + 16 / (WINDOW + 1) bytes a base, and 4 to 8 bytes a minimizer.

    Raises:
        ParameterError: no base at all, too many for places of 31 bits, or names that don't go with the offsets.
    """
    lengths = np.diff(offsets).astype(np.int64)
    if len(names) != len(lengths):
        raise ParameterError(f"{len(names)} names for {len(lengths)} contigs", hint="give one name a contig")
    if int(lengths.sum()) == 0:
        raise ParameterError("the reference has no bases", hint="give a FASTA file with a sequence")
    places = int(lengths.sum()) + GAP * (len(lengths) + 1)
    if places >= 2**31:
        raise ParameterError(
            f"the reference has {int(lengths.sum()):,} bases in {len(lengths):,} contigs; an index holds 2^31",
            hint="map against parts of it",
        )
    starts = GAP + np.concatenate(([0], np.cumsum(lengths + GAP)[:-1])).astype(np.int64)
    codes = np.full(places, SEPARATOR, np.uint8)
    for start, length, offset in zip(starts.tolist(), lengths.tolist(), offsets.tolist(), strict=False):
        codes[start : start + length] = REFERENCE_CODES[letters[offset : offset + length]]
    entries = _collect(codes, starts, lengths)
    entries.sort()
    bits = min(max(len(entries).bit_length(), 4), 28)
    index = Index(codes, starts, lengths, _buckets(entries, bits), entries)
    return Indexed(index, tuple(names), _digest(names, index))


def _digest(names: Sequence[str], index: Index) -> str:
    """Of the reference that was indexed."""
    state = hashlib.blake2b(digest_size=16)
    for part in (repr(tuple(names)).encode(), index.lengths, index.codes):
        state.update(part)
    return state.hexdigest()


def save_index(indexed: Indexed, path: str | Path) -> None:
    """Write an index as an Arrow IPC file and a checksum behind it; `load_index` maps it into memory."""
    columns = {name: _single(array) for name, array in zip(Index._fields, indexed.arrays, strict=True)}
    columns["names"] = pa.array([list(indexed.names)], pa.large_list(pa.string()))
    table = pa.table(columns).replace_schema_metadata({
        "format": FORMAT, "version": VERSION, "k": str(K), "w": str(WINDOW), "digest": indexed.digest,
    })  # fmt: skip
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    seal(path)


def seal(path: str | Path) -> None:
    """Put the checksum of a file's bytes behind them: Arrow may end the process where it reads damaged ones."""
    with open(path, "r+b") as file:
        checksum = _checksum(file.read())
        file.write(SEAL + checksum)


def _checksum(data: Any) -> bytes:
    return hashlib.blake2b(data, digest_size=16).hexdigest().encode()


def _single(array: Array) -> pa.Array:
    """A row that is a list of all elements."""
    return pa.LargeListArray.from_arrays(pa.array([0, len(array)], pa.int64()), pa.array(array))


def load_index(path: str | Path) -> Indexed:
    """Map an index that `save_index` has written into memory; its arrays are read-only.

    Raises:
        MissingInputError: no such file.
        CorruptInputError: it isn't an index, is damaged, or has another version or other minimizers.
    """
    if not Path(path).is_file():
        raise MissingInputError(f"{path} isn't there", hint="build the index first")
    try:
        with pa.memory_map(str(path)) as file:
            data = file.read_buffer()  # stays mapped as long as an array needs it
    except (pa.ArrowException, OSError) as error:
        raise _unusable(path, "isn't an index") from error
    end = max(0, len(data) - len(SEAL) - 32)
    if data[end : end + len(SEAL)].to_pybytes() != SEAL:
        raise _unusable(path, "isn't an index, or is damaged")
    if _checksum(data[:end]) != data[end + len(SEAL) :].to_pybytes():
        raise _unusable(path, "is damaged: its checksum differs")
    try:
        table = pa.ipc.open_file(data[:end]).read_all()
        said = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unusable(path, "isn't an index, or is damaged") from error
    if said.get("format") != FORMAT:
        raise _unusable(path, "isn't an index")
    ours = {"version": VERSION, "k": str(K), "w": str(WINDOW)}
    if other := [f"{key} {said.get(key)} instead of {value}" for key, value in ours.items() if said.get(key) != value]:
        raise _unusable(path, f"is an index of another kind: {', '.join(other)}")
    try:
        index = Index(*(table.column(name).chunk(0).values.to_numpy(zero_copy_only=True) for name in Index._fields))
        names = tuple(table.column("names")[0].as_py())
    except (pa.ArrowException, KeyError, IndexError, AttributeError, TypeError, UnicodeDecodeError) as error:
        raise _unusable(path, "is damaged") from error
    return Indexed(index, names, said.get("digest", ""))


def _unusable(path: str | Path, what: str) -> CorruptInputError:
    return CorruptInputError(f"{path} {what}", hint="delete it and build it again")


assert GAP > 2 * PAD  # loads of whole words may go beyond the last contig
