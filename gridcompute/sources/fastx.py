"""Sequences: FASTA, FASTQ, unaligned BAM and Parquet; mates from one file or two."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gridcompute.columns import Block, Column, Field, Ragged
from gridcompute.errors import AlignmentError, CorruptInputError, ParameterError
from gridcompute.secrecy import clean, learn
from gridcompute.sources.bam import MAGIC as BAM_MAGIC
from gridcompute.sources.bam import bam_reads, ends_well
from gridcompute.sources.base import chosen
from gridcompute.sources.blocks import recut
from gridcompute.sources.files import broken, expand, identity, is_remote
from gridcompute.sources.inflating import UNREADABLE, inflated
from gridcompute.sources.marks import mark_fields, marked, span, version_of
from gridcompute.sources.mates import in_step, interleaved
from gridcompute.sources.parsing import read_between, reads_of
from gridcompute.sources.reads import COLUMNS, Reads, columns_of
from gridcompute.sources.seqtables import MAGIC as PARQUET_MAGIC
from gridcompute.sources.seqtables import table_columns, table_reads

Array = np.ndarray[Any, Any]
_FASTA_NAMES = (".fa", ".fasta", ".fna", ".ffn", ".faa", ".frn")


@dataclass(frozen=True)
class SequenceSource:
    """Reads or sequences of files; see `open_sequences`.

    Attributes:
        parts: the files; where mates lie in files of their own, those of the first ones.
        form: "fasta", "fastq", "bam" or "parquet".
        names: the columns that were chosen; empty for all.
        mates: the files of the second mates, one a part.
        paired: whether rows 2i and 2i + 1 are mates.
        located: whether rows can be read from the middle of the files, so that they aren't copied.
        columns: of tables, those that they have (see `table_columns`), with their names there.
    """

    parts: tuple[str, ...]
    form: str
    dim: str = "read"
    names: tuple[str, ...] = ()
    mates: tuple[str, ...] = ()
    paired: bool = False
    located: bool = False
    columns: tuple[tuple[str, str], ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def every(self) -> tuple[str, ...]:
        """Names of the columns that there are."""
        if self.form == "parquet":
            return tuple(name for name, _ in self.columns if name in COLUMNS)
        return COLUMNS[:2] if self.form == "fasta" else COLUMNS

    @property
    def fields(self) -> tuple[Field, ...]:
        """See `IngestSource`."""
        fields = tuple(Field(name, (self.dim,), np.dtype(np.uint8), "string") for name in self.every)
        return chosen(fields, self.names, f"{self.form.upper()} files") if self.names else fields

    @property
    def key(self) -> object:
        """See `IngestSource`."""
        marks = [word for word, there in (("mates", self.paired), ("marks", self.located)) if there]
        return ("sequences", self.form, self.dim, tuple(f.name for f in self.fields), *self.columns, *marks)

    @property
    def together(self) -> tuple[tuple[str, int], ...]:
        """How many rows belong together, so that no chunk tears them apart."""
        return ((self.dim, 2),) if self.paired else ()

    def files(self, part: str) -> tuple[str, ...]:
        """The file of a part, and that of the mates where there is one."""
        return (part, self.mates[self.parts.index(part)]) if self.mates else (part,)

    def objects(self, part: str) -> tuple[str, ...]:
        """See `IngestSource`."""
        return tuple(identity(path, self.options) for path in self.files(part))

    def _streams(self, part: str) -> Iterator[tuple[Reads, ...]]:
        """The reads of a part, mates checked."""
        if self.form == "parquet":
            named = dict(self.columns)
            rows = table_reads(part, self.options, tuple(named), named)
            if "sequence2" in named:
                return rows
            alone = (reads for (reads,) in rows)
            return ((reads,) for reads in (interleaved(alone, part) if self.paired else alone))
        paths, group = self.files(part), 2 if self.paired and not self.mates else 1
        streams = [bam_reads(path, self.options, group) if self.form == "bam" else
                   reads_of(path, self.form, self.options, group) for path in paths]
        if self.mates:
            return in_step(streams[0], streams[1], (paths[0], paths[1]))
        return ((reads,) for reads in (interleaved(streams[0], part) if self.paired else streams[0]))

    def blocks(self, part: str) -> Iterator[Block]:
        """See `IngestSource`.

        Raises:
            CorruptInputError: naming the file and the record (counted from 1).
        """
        columns = [f.name for f in self.fields]
        # Cut by all columns, so that choosing some of them doesn't move the cuts.
        pieces = (columns_of(streams, self.every) for streams in self._streams(part))
        for block in recut(pieces, group=2 if self.paired else 1):
            yield Block(block.region, {name: block[name] for name in columns}, block.rows)

    @property
    def mark_fields(self) -> tuple[Field, ...]:
        """See `MarkedFiles`."""
        return mark_fields(self.dim)

    def marks(self, part: str) -> Iterator[Block]:
        """See `MarkedFiles`. Raises as `blocks` does."""
        return marked(self._streams(part), self._version(part), 2 if self.paired else 1)

    def _version(self, part: str) -> str:
        return " ".join(identity(path, self.options, verify=False) for path in self.files(part))

    def read_rows(self, part: str, marks: Block, start: int, stop: int, names: Sequence[str]) -> dict[str, Column]:
        """See `MarkedFiles`."""
        paths = self.files(part)
        if self._version(part) != version_of(marks):
            raise _changed(paths)
        first, last, places = span(marks, start, stop)
        count = len(paths)
        streams = [read_between(path, lo, hi) for path, (lo, hi) in zip(paths, places, strict=False)]
        if any(len(reads) * count != last - first for reads in streams):
            raise _changed(paths)
        # The first and the last of a pair may be asked for alone.
        lo, hi = (start - first) // count, -(-(stop - first) // count)
        columns = columns_of([reads.part(lo, hi) for reads in streams], names)
        skip = start - first - lo * count
        return {name: column.sliced(skip, skip + stop - start) if isinstance(column, Ragged) else column
                for name, column in columns.items()}

    def select(self, names: Sequence[str]) -> SequenceSource:
        """The source with only these columns."""
        chosen(self.fields, names, f"{self.form.upper()} files")
        return replace(self, names=tuple(names))


def _changed(paths: Sequence[str]) -> CorruptInputError:
    return CorruptInputError(f"{' and '.join(paths)}: changed since the reads were counted",
                             hint="run again once nothing writes to it any more")


Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def open_sequences(
    paths: Paths,
    *,
    mates: Paths | None = None,
    interleaved: bool = False,
    columns: Mapping[str, str] | None = None,
    dim: str = "read",
    storage_options: Mapping[str, Any] | None = None,
) -> SequenceSource:
    """FASTA or FASTQ (plain or gzip), BAM or Parquet: columns name, sequence and, but for FASTA, quality.

    A name is the whole header line. Qualities are text as in FASTQ; of BAM without them, empty. Of BAM all primary
    records are taken, those of the reverse strand turned back as they were sequenced.

    Args:
        paths: a path, URL or pattern, or a list of these; all of one format.
        mates: files of the second mates, as many and in the same order: rows 2i and 2i + 1 are mates then.
        interleaved: whether mates follow each other in the files, as in a BAM that is ordered by name. Parquet with
            the columns sequence2 and, if there is quality, quality2 has mates without being told.
        columns: names in Parquet files that differ: `{"name": "read_id"}`.
        dim: name of the dimension.
        storage_options: fsspec's, for URLs.

    Raises:
        MissingInputError: a file that isn't there, or a column.
        CorruptInputError: a file that begins as none of these.
        AlignmentError: files of several formats; another number of files of mates.
        ParameterError: mates in files of their own that are interleaved, too; columns that can't be.
    """
    options = dict(storage_options or {})
    learn(options)
    parts = expand(paths, **options)
    others = () if mates is None else expand(mates, **options)
    if mates is not None:
        _require_pairs(parts, others, interleaved)
    forms = {part: _form(part, options) for part in (*parts, *others)}
    known = sorted({form for form, _ in forms.values() if form})
    if len(known) > 1:
        first, second = (next(part for part in forms if forms[part][0] == form) for form in known[:2])
        raise AlignmentError(f"{first} is {_NAMES[known[0]]}, but {second} is {_NAMES[known[1]]}",
                             hint="open them one format at a time")
    guess = "fasta" if parts[0].lower().removesuffix(".gz").endswith(_FASTA_NAMES) else "fastq"
    form = known[0] if known else guess
    if form == "bam":
        _warn_of_ends(parts, options)
    if columns and form != "parquet":
        raise ParameterError(f"columns= is for Parquet, and {parts[0]} is {_NAMES[form]}", hint="leave it out")
    own = _columns(parts, options, columns or {}) if form == "parquet" else ()
    paired = bool(others or interleaved or "sequence2" in dict(own))
    if others and form in ("bam", "parquet"):
        raise ParameterError(f"mates= is for FASTA and FASTQ, and {parts[0]} is {_NAMES[form]}",
                             hint="a BAM file has both mates: interleaved=True; so has a table, as sequence2")
    located = form == "fastq" and not any(packed or is_remote(part) for part, (_, packed) in forms.items())
    return SequenceSource(parts, form, dim, (), others, paired, located, own, options)


def _columns(parts: tuple[str, ...], options: Mapping[str, Any],
             named: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The columns of reads that tables have, with their names there; of all the same."""
    found = [table_columns(part, options, named) for part in parts]
    for part, there in zip(parts, found, strict=True):
        if there != found[0]:
            raise AlignmentError(f"{part} has the columns {', '.join(there)}, {parts[0]} {', '.join(found[0])}",
                                 hint="open tables of the same columns together")
    return tuple((name, named.get(name, name)) for name in found[0])


def _warn_of_ends(parts: Iterable[str], options: Mapping[str, Any]) -> None:
    for part in parts:
        if not ends_well(part, options):
            warnings.warn(f"{part} doesn't end with the block that ends a BAM file: reads may be missing", stacklevel=4)


def _require_pairs(parts: tuple[str, ...], mates: tuple[str, ...], interleaved: bool) -> None:
    if interleaved:
        raise ParameterError("mates lie in files of their own, or are interleaved in one, not both",
                             hint="leave out mates= or interleaved=True")
    if len(parts) != len(mates):
        raise AlignmentError(f"{len(parts)} files of reads, but {len(mates)} of their mates",
                             hint="give as many of each, in the same order")
    if twice := next((part for i, part in enumerate(parts) if part in parts[:i]), ""):
        raise ParameterError(f"{twice} is given twice, with mates", hint="give each file once")
    if same := next((part for part in parts if part in mates), ""):
        raise ParameterError(f"{same} is among the reads and among their mates",
                             hint="if it has both, leave out mates= and say interleaved=True")


_NAMES = {"fasta": "FASTA", "fastq": "FASTQ", "bam": "BAM", "parquet": "Parquet"}


def _form(path: str, options: Mapping[str, Any]) -> tuple[str, bool]:
    """The format by the first characters, empty for an empty file; and whether it is gzip."""
    with inflated(path, options, ahead=False) as (file, packed):
        try:
            head = file.read(4096)
        except UNREADABLE as error:
            raise broken(path, "can't be decompressed", error) from clean(error)
    if packed and head[:4] == BAM_MAGIC:
        return "bam", True
    if head[:4] == PARQUET_MAGIC:
        return "parquet", packed
    if head[:4] == b"CRAM":
        raise CorruptInputError(f"{path} is CRAM, which isn't read here", hint="make it BAM: samtools view -b")
    first = head.lstrip()[:1]
    if first not in (b"", b">", b"@"):
        raise CorruptInputError(
            f"{path} is neither FASTA nor FASTQ: it begins with {first!r}, not '>' or '@'",
            hint="check that this is the right file",
        )
    return {b"": "", b">": "fasta", b"@": "fastq"}[first], packed


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
        for reads in reads_of(part, source.form, source.options):
            piece = columns_of([reads], COLUMNS[:2])
            title, sequence = piece["name"], piece["sequence"]
            assert isinstance(title, Ragged)
            assert isinstance(sequence, Ragged)
            names += [title.values[a:b].tobytes().decode() for a, b in itertools.pairwise(title.offsets)]
            lengths += np.diff(sequence.offsets).tolist()
            parts.append(sequence.values)
    return tuple(names), np.cumsum(lengths, dtype=np.int64), np.concatenate(parts)
