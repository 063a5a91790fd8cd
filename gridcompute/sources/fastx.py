"""Sequences: FASTA and FASTQ, plain or gzip, through dnaio."""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gridcompute.columns import Block, Column, Field, Ragged
from gridcompute.errors import AlignmentError, CorruptInputError
from gridcompute.secrecy import clean, learn
from gridcompute.sources.base import chosen
from gridcompute.sources.blocks import recut
from gridcompute.sources.files import broken, expand, identity, open_file

Array = np.ndarray[Any, Any]
_PIECE = 4096  # records taken from dnaio at a time
_FASTA_NAMES = (".fa", ".fasta", ".fna", ".ffn", ".faa", ".frn")


@dataclass(frozen=True)
class SequenceSource:
    """Reads or sequences of files; see `open_sequences`."""

    parts: tuple[str, ...]
    form: str
    dim: str = "read"
    names: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def fields(self) -> tuple[Field, ...]:
        """See `IngestSource`."""
        every = ("name", "sequence", "quality") if self.form == "fastq" else ("name", "sequence")
        fields = tuple(Field(name, (self.dim,), np.dtype(np.uint8), "string") for name in every)
        return chosen(fields, self.names, f"{self.form.upper()} files") if self.names else fields

    @property
    def key(self) -> object:
        """See `IngestSource`."""
        return ("sequences", self.form, self.dim, tuple(f.name for f in self.fields))

    def objects(self, part: str) -> tuple[str, ...]:
        """See `IngestSource`."""
        return (identity(part, self.options),)

    def blocks(self, part: str) -> Iterator[Block]:
        """See `IngestSource`.

        Raises:
            CorruptInputError: naming the file and the record (counted from 1).
        """
        columns = [f.name for f in self.fields]
        # Cut by all columns, so that choosing some of them doesn't move the cuts.
        for block in recut(_pieces(part, self.form, self.options)):
            yield Block(block.region, {name: block[name] for name in columns}, block.rows)

    def select(self, names: Sequence[str]) -> SequenceSource:
        """The source with only these columns."""
        chosen(self.fields, names, f"{self.form.upper()} files")
        return SequenceSource(self.parts, self.form, self.dim, tuple(names), self.options)


def open_sequences(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    dim: str = "read",
    storage_options: Mapping[str, Any] | None = None,
) -> SequenceSource:
    """FASTA or FASTQ files, plain or gzip: columns name (the header line), sequence and, of FASTQ, quality.

    Args:
        paths: a path, URL or pattern, or a list of these; all of one format.
        dim: name of the dimension.
        storage_options: fsspec's, for URLs.

    Raises:
        MissingInputError: a file that isn't there.
        CorruptInputError: a file that begins neither as FASTA nor as FASTQ.
        AlignmentError: files of both formats.
    """
    options = dict(storage_options or {})
    learn(options)
    parts = expand(paths, **options)
    forms = {part: _form(part, options) for part in parts}
    known = sorted({form for form in forms.values() if form})
    if len(known) == 2:
        fasta, fastq = (next(part for part in parts if forms[part] == form) for form in known)
        raise AlignmentError(f"{fasta} is FASTA, but {fastq} is FASTQ", hint="open them one format at a time")
    guess = "fasta" if parts[0].lower().removesuffix(".gz").endswith(_FASTA_NAMES) else "fastq"
    return SequenceSource(parts, known[0] if known else guess, dim, options=options)


@contextlib.contextmanager
def _opened(path: str, options: Mapping[str, Any]) -> Iterator[Any]:
    raw = open_file(path, options)
    buffered = io.BufferedReader(raw) if isinstance(raw, io.RawIOBase) else raw
    with buffered:
        try:
            magic = buffered.read(2)
        except OSError as error:
            raise broken(path, "can't be read", error) from clean(error)
        buffered.seek(0)
        yield gzip.GzipFile(fileobj=buffered, mode="rb") if magic == b"\x1f\x8b" else buffered


def _form(path: str, options: Mapping[str, Any]) -> str:
    """The format by the first character; empty for an empty file."""
    with _opened(path, options) as file:
        try:
            head = file.read(4096).lstrip()[:1]
        except (EOFError, OSError, zlib.error) as error:
            raise broken(path, "can't be decompressed", error) from clean(error)
    if head not in (b"", b">", b"@"):
        raise CorruptInputError(
            f"{path} is neither FASTA nor FASTQ: it begins with {head!r}, not '>' or '@'",
            hint="check that this is the right file",
        )
    return {b"": "", b">": "fasta", b"@": "fastq"}[head]


def _pieces(path: str, form: str, options: Mapping[str, Any]) -> Iterator[dict[str, Column]]:
    import dnaio

    done = 0
    with _opened(path, options) as file, contextlib.ExitStack() as stack:
        reader = dnaio.FastqReader if form == "fastq" else dnaio.FastaReader
        records: Iterator[Any] | None = None
        while True:
            taken: list[Any] = []
            try:
                if records is None:  # it reads already when made
                    records = iter(stack.enter_context(reader(file, _close_file=True)))
                for record in itertools.islice(records, _PIECE):
                    taken.append(record)  # noqa: PERF402 - what was read before an error counts
            except (
                dnaio.FileFormatError,
                EOFError,
                OSError,
                zlib.error,
                UnicodeDecodeError,
                ValueError,
            ) as error:
                raise broken(path, f"record {done + len(taken) + 1}", error) from clean(error)
            if not taken:
                return
            piece: dict[str, Column] = {
                "name": _text([record.name for record in taken]),
                "sequence": _text([r.sequence for r in taken]),
            }
            if form == "fastq":
                piece["quality"] = _text([record.qualities for record in taken])
            yield piece
            done += len(taken)


def _text(cells: list[str]) -> Ragged:
    offsets = np.zeros(len(cells) + 1, np.int64)
    data = "".join(cells).encode()
    if ascii_only := len(data) == sum(map(len, cells)):
        np.cumsum(np.fromiter(map(len, cells), np.int64, len(cells)), out=offsets[1:])
    if not ascii_only:
        np.cumsum([len(cell.encode()) for cell in cells], out=offsets[1:])
    return Ragged(offsets, np.frombuffer(data, np.uint8))


def read_reference(
    path: str, *, storage_options: Mapping[str, Any] | None = None
) -> tuple[tuple[str, ...], Array, Array]:
    """A reference genome: names, int64 offsets (one more than names), upper-cased uint8 letters end to end.

    Raises:
        MissingInputError: the file isn't there.
        CorruptInputError: it isn't FASTA, or has no sequence.
    """
    source = open_sequences(path, storage_options=storage_options)
    if source.form != "fasta":
        raise CorruptInputError(f"{path} isn't FASTA, so it can't be a reference", hint="give a FASTA file")
    names, offsets, letters = read_sequences(path, storage_options=storage_options)
    if not names:
        raise CorruptInputError(f"{path} has no sequence", hint="give a FASTA file with at least one")
    lower = (letters >= ord("a")) & (letters <= ord("z"))
    return names, offsets, np.where(lower, letters - 32, letters)


def read_sequences(
    path: str, *, storage_options: Mapping[str, Any] | None = None
) -> tuple[tuple[str, ...], Array, Array]:
    """All of a FASTA or FASTQ file at once: names, int64 offsets (one more than names), uint8 letters end to end.

    Raises:
        MissingInputError: the file isn't there.
        CorruptInputError: it is neither, or broken.
    """
    source = open_sequences(path, storage_options=storage_options)
    names, lengths, parts = [], [0], [np.zeros(0, np.uint8)]
    for part in source.parts:
        for piece in _pieces(part, source.form, source.options):
            title, sequence = piece["name"], piece["sequence"]
            assert isinstance(title, Ragged)
            assert isinstance(sequence, Ragged)
            names += [title.values[a:b].tobytes().decode() for a, b in itertools.pairwise(title.offsets)]
            lengths += np.diff(sequence.offsets).tolist()
            parts.append(sequence.values)
    return tuple(names), np.cumsum(lengths, dtype=np.int64), np.concatenate(parts)
