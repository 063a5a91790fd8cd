"""BAM: records that are sorted by coordinate, in one file with its index beside it.

Workers compress their chunk's records into parts in `<url>.partial-<recipe>`, each with an index of its own. In the end
the header, the parts and the block that ends a BAM file are put one after the other into one file, which appears last:
after `<url>.bai` and a small hidden note, which says which recipe the file is of.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from gridcompute import bai, bgzf
from gridcompute.auxiliary import plain
from gridcompute.bamcounts import Counts
from gridcompute.columns import Block, Field, Ragged
from gridcompute.coords import Coordinate
from gridcompute.errors import DimensionError, OutputExistsError, ParameterError, StoreError
from gridcompute.sinks.base import (
    CLAIM,
    EXISTS_HINT,
    Target,
    Written,
    claim,
    commit,
    data_names,
    give_up,
    holds,
    remove_empty_folders,
    require_room,
)
from gridcompute.sources.files import plain_path
from gridcompute.spaces import Region, Space
from gridcompute.store import Store, open_store, split_url
from gridcompute.stores.joining import join

FORMAT = 1
RECORD = "record"
"""Column with the records; `key`, by which rows were sorted, may be there too and isn't written."""

_PART = re.compile(r"part-\d{5,}\.bgzf")
_NAME = re.compile(r"[0-9A-Za-z!#$%&+./:;?@^_|~-][0-9A-Za-z!#$%&*+./:;=?@^_|~-]*")


def parsed_header(text: str) -> tuple[str, tuple[tuple[str, int], ...]]:
    """A SAM header that says SO:coordinate, and its contigs with their lengths.

    Raises:
        ParameterError: lines that aren't a header's, another order, a contig without a length or with one of more than
            2**29 positions, or two of one name.
    """
    lines = [line for line in text.split("\n") if line]
    if any(not re.match(r"@[A-Z][A-Z]\t", line) for line in lines):
        raise ParameterError("header= isn't a SAM header", hint="its lines begin like @SQ, followed by a tab")
    heads = [line for line in lines if line.startswith("@HD")]
    if not heads:
        lines.insert(0, "@HD\tVN:1.6\tSO:coordinate")
    elif heads != lines[:1] or "SO:coordinate" not in heads[0].split("\t"):
        raise ParameterError("the header's first line doesn't say SO:coordinate",
                             hint="leave @HD out: it is written as the rows are sorted")
    contigs = []
    for line in lines:
        if line.startswith("@SQ"):
            tags = dict(part.split(":", 1) for part in line.split("\t")[1:] if ":" in part)
            name, length = tags.get("SN", ""), tags.get("LN", "")
            if not _NAME.fullmatch(name) or not length.isdecimal() or not 0 < int(length) < 2**31:
                raise ParameterError(f"the header's line {line[:80]!r} names no contig with its length")
            if int(length) > bai.LONGEST:
                raise ParameterError(f"contig {name} has {int(length):,} positions, but BAI holds {bai.LONGEST:,}",
                                     hint="split the contig")
            contigs.append((name, int(length)))
    names = [name for name, _ in contigs]
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in set(names[:i]))
        raise ParameterError(f"the header names the contig {twice} twice")
    return "".join(f"{line}\n" for line in lines), tuple(contigs)


@dataclass(frozen=True)
class BamSink:
    """A BAM file at a URL, with its index.

    Attributes:
        url: of the file.
        header: of SAM: its @SQ lines are the contigs, in the order of the records' numbers. @HD is added.
        level: of compression, 0 to 3.
        storage_options: of the store.
    """

    url: str
    header: str = ""
    level: int = bgzf.LEVEL
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", plain_path(self.url))
        if not isinstance(self.header, str) or not self.header.isascii():
            raise ParameterError("header= isn't ASCII text", hint="header='@SQ\\tSN:chr1\\tLN:1000\\n'")
        if self.level not in range(4):
            raise ParameterError(f"there is no level {self.level!r}", hint="0 is fastest, 3 is smallest")
        if not split_url(self.url)[1]:
            raise ParameterError(f"{self.url} names no file", hint="write it like out/reads.bam")
        object.__setattr__(self, "header", parsed_header(self.header)[0])

    @property
    def key(self) -> object:
        """See `Sink`."""
        return ("bam", FORMAT, self.header, self.level)

    @property
    def contigs(self) -> tuple[tuple[str, int], ...]:
        """Contigs with their lengths."""
        return parsed_header(self.header)[1]

    def store(self, suffix: str | None = None) -> Store:
        """The store that the file lies in; or with a suffix one whose name is the file's with that."""
        local = "://" not in self.url
        url = split_url(self.url)[0] if suffix is None else self.url + suffix
        return open_store(url, **{**({"private": False} if local else {}), **self.storage_options})

    @property
    def files(self) -> tuple[str, str, str]:
        """Names of the file, its index and the note, in `store()`."""
        name = split_url(self.url)[1]
        return name, f"{name}.bai", f".{name}.gridcompute.json"

    @property
    def finished(self) -> str | None:
        """Recipe of the file that is there; None where there is none, empty where it is another's."""
        store, (name, index, note) = self.store(), self.files
        if not store.exists(name):
            return None
        try:
            found = json.loads(store.get(note))
            whole = all(_ends_at(store, one, int(found[size])) for one, size in ((name, "size"), (index, "index")))
            return str(found["recipe"]) if whole else ""
        except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
            return ""

    def present(self) -> list[tuple[Store, str]]:
        """What lies at the output's place, the file first."""
        store = self.store()
        return [(store, name) for name in self.files if store.exists(name)] if store.exists(self.files[0]) else []

    def output(
        self, space: Space, fields: Sequence[Field], coords: Sequence[Coordinate], extents: Sequence[int],
        recipe: str, attrs: tuple[tuple[str, str], ...] = (),
    ) -> BamOutput:  # fmt: skip
        """See `Sink`.

        Raises:
            ParameterError: other columns than lists of uint8 called "record", with or without "key".
            DimensionError: more or less than one dimension.
        """
        if len(space.dims) != 1:
            raise DimensionError(f"{self.url}: BAM has one dimension, not {space}")
        by_name = {f.name: f for f in fields}
        record = by_name.pop(RECORD, None)
        by_name.pop("key", None)
        if record is None or record.kind != "list" or record.dtype != np.uint8:
            raise ParameterError(f"{self.url}: BAM is written of a column {RECORD!r} with a list of uint8 a row",
                                 hint="encode the alignments first")
        if by_name:
            raise ParameterError(f"{self.url}: BAM has no place for the column {next(iter(by_name))!r}",
                                 hint='choose [["key", "record"]] before .write(...)')
        return BamOutput(self, Target(space, tuple(fields), plain(coords), tuple(max(1, e) for e in extents), recipe,
                                      attrs))

    def prepare(
        self, space: Space, fields: Sequence[Field], coords: Sequence[Coordinate], extents: Sequence[int],
        recipe: str, *, resume: bool = False, attrs: tuple[tuple[str, str], ...] = (),
    ) -> BamOutput:  # fmt: skip
        """See `Sink`."""
        output = self.output(space, fields, coords, extents, recipe, attrs)
        if (found := self.finished) is None:
            if next(iter(self.store("").list()), None) is not None:
                raise OutputExistsError(f"{self.url} is a folder", hint="remove it, or write elsewhere")
            if "://" not in self.url and os.path.lexists(self.url) and (
                    os.path.islink(self.url) or not os.path.isfile(self.url)):
                raise OutputExistsError(f"{self.url} is a link or a folder", hint="remove it, or write elsewhere")
            store, (_, index, note) = self.store(), self.files
            if store.exists(index) and not store.exists(note):
                raise OutputExistsError(f"{self.url}.bai exists already", hint="remove it, or write elsewhere")
            if not resume:
                require_room(output.store, output.target)
            claim(output.store, recipe, None, resume=True)  # the folder's name has the recipe in it
        elif found != recipe:
            raise OutputExistsError(f"{self.url} exists already", hint=EXISTS_HINT)
        else:
            output.tidy()  # what a process that was killed once the file was there has left
        return output


def read_counts(url: str, storage_options: Mapping[str, Any] | None = None) -> Counts:
    """What was counted of the reads of a finished BAM file.

    Raises:
        StoreError: its note isn't there, or isn't one of ours.
    """
    sink = BamSink(url, storage_options=storage_options or {})
    try:
        return Counts.from_json(json.loads(sink.store().get(sink.files[2]))["counts"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(f"{sink.url} has no counts beside it", hint="write it again with overwrite=True") from error


@dataclass(frozen=True, eq=False)
class BamOutput:
    """A prepared BAM file; see `Output`."""

    sink: BamSink
    target: Target

    @property
    def url(self) -> str:
        """See `Output`."""
        return self.sink.url

    @property
    def store(self) -> Store:
        """Where the parts are."""
        return self.sink.store(f".partial-{self.target.recipe[:8]}")

    def __getstate__(self) -> dict[str, Any]:
        return {"sink": self.sink, "target": self.target}

    @property
    def _lengths(self) -> list[int]:
        return [length for _, length in self.sink.contigs]

    @cached_property
    def _head(self) -> bytes:
        """The header's blocks."""
        text, contigs = self.sink.header.encode(), self.sink.contigs
        named = b"".join(struct.pack("<i", len(name) + 1) + name.encode() + b"\0" + struct.pack("<i", length)
                         for name, length in contigs)
        head = b"BAM\1" + struct.pack("<i", len(text)) + text + struct.pack("<i", len(contigs)) + named
        return bgzf.compress(head)[0]

    def write_chunk(
        self, block: Block, region: Region, position: Sequence[int], *, replace: bool = False, dry: bool = False
    ) -> list[Written]:
        """See `Output`: the records' blocks, and their index.

        Raises:
            ParameterError: bytes that aren't records, a contig that the header doesn't name, rows out of order.
        """
        self.target.require_chunk(region, position)
        column = block[RECORD]
        assert isinstance(column, Ragged)
        if column.valid is not None and not column.valid.all():
            raise ParameterError(f"{self.url}: a row of the column {RECORD!r} is null", hint="filter those rows out")
        data = np.ascontiguousarray(column.values[column.offsets[0]:column.offsets[-1]])
        blocks, begins = bgzf.compress(data, self.sink.level)
        index = bai.part_index(column.offsets - column.offsets[0], data, begins, self._lengths)
        name = f"part-{self.target.number(position):05d}"
        return [commit(self.store, f"{name}.{ending}", data, replace=replace, dry=dry, rows=rows)
                for ending, data, rows in (("bgzf", blocks, column.cells), ("index", bai.encoded(index), 0))]

    def finalize(self, written: Iterable[Written]) -> None:
        """See `Output`.

        Raises:
            StoreError: parts are missing.
            ParameterError: a part begins before the one ahead of it ends: the rows aren't sorted.
            OutputExistsError: something else stands at the URL by now.
        """
        store, final, recipe = self.store, self.sink.store(), self.target.recipe
        if self.sink.finished != recipe:
            parts = sorted((one for one in set(written) if _PART.fullmatch(one.path)), key=_number)
            count = self.target.counts[0]
            if count is not None and len(parts) != count:
                raise StoreError(f"{self.url} has {len(parts)} of {count} parts, so it isn't finished",
                                 hint="resume the run")
            name, index, note = self.sink.files
            ends = np.cumsum([len(self._head), *(part.size for part in parts)]).tolist()
            indices = [bai.decoded(store.get(part.path.replace(".bgzf", ".index")), part.path) for part in parts]
            table = bai.joined(list(zip(indices, ends, strict=False)), len(self.sink.contigs), self.url)
            size = ends[-1] + len(bgzf.END)
            final.put(index, table)
            said = {"recipe": recipe, "size": size, "index": len(table),
                    "counts": bai.counts_of(indices, self._lengths).to_json()}
            final.put(note, json.dumps(said).encode())
            if not join(final, name, self._head, [(store, part.path) for part in parts], bgzf.END) \
                    and self.sink.finished != recipe:
                raise OutputExistsError(f"{self.url} has become another file meanwhile", hint="write elsewhere")
        self.tidy()

    def tidy(self) -> None:
        """Remove the parts."""
        store = self.store
        for path in [*data_names(store), CLAIM]:
            store.delete(path)
        remove_empty_folders(store)

    @property
    def complete(self) -> bool:
        """See `Output`: the note says this recipe, and the sizes of the file and its index."""
        return self.sink.finished == self.target.recipe

    def give_up(self) -> bool:
        """See `Output`."""
        return give_up(self.store)

    def verify(self, written: Written) -> bool:
        """See `Output`."""
        return holds(self.store, written)

    def discard(self) -> None:
        """See `Output`: the file first."""
        final = self.sink.store()
        if self.complete:
            for name in self.sink.files:
                final.delete(name)
        self.tidy()


def _number(part: Written) -> int:
    return int(part.path[5:-5])


def _ends_at(store: Store, name: str, size: int) -> bool:
    """Whether a file has so many bytes, 8 at least; without a listing of all that lies beside it."""
    return len(store.get_range(name, max(0, size - 8), size + 1)) == 8
