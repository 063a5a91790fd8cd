"""Rows that stay in files of which an earlier phase kept where blocks begin, as a source of known length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial

from gridcompute.actions.shapes import joined_blocks
from gridcompute.assemble import empty
from gridcompute.columns import Block
from gridcompute.sources.base import MarkedFiles, chosen
from gridcompute.sources.files import OpenFiles, verifying
from gridcompute.spaces import Region
from gridcompute.stored import StoredSource

_KEPT = OpenFiles(64)
"""Marks that were read: a task's chunks lie within a few blocks."""


@dataclass(frozen=True, eq=False)
class MarkedSource(StoredSource):
    """The rows that kept marks tell the places of.

    Attributes:
        marks: where these are kept.
        files: that the rows are read from.
        owners: of each of the marks' entries, the number of its file.
    """

    marks: StoredSource | None = None
    files: MarkedFiles | None = None
    owners: tuple[int, ...] = ()

    @classmethod
    def over(cls, marks: StoredSource, files: MarkedFiles, owners: tuple[int, ...]) -> MarkedSource:
        """The rows of files whose marks are kept."""
        known = {f.name: getattr(marks, f.name) for f in fields(StoredSource)}
        return cls(**{**known, "fields": files.fields}, marks=marks, files=files, owners=owners)

    def _part(self, chunk: int) -> str:
        assert self.files is not None
        owners = [owner for owner, entry in zip(self.owners, self.entries, strict=True) if entry.rows]
        return self.files.parts[owners[chunk]]

    def objects(self, region: Region) -> tuple[str, ...]:
        """See `Source`: the marks, which tell the version of a file; where that isn't trusted also what it holds."""
        assert self.files is not None
        objects = super().objects(region)
        if not verifying():
            return objects
        parts = dict.fromkeys(self._part(chunk) for chunk in self.counted.axes[0][1].covering(*region.bounds[0]))
        return objects + tuple(name for part in parts for name in self.files.objects(part))

    def read(self, region: Region, names: Sequence[str]) -> Block:
        """See `Source`: parsed from the files."""
        wanted = tuple(chosen(self.fields, names, "the files"))
        assert self.files is not None
        assert self.marks is not None
        every = [f.name for f in self.marks.fields]
        (lo, hi), (dim, axis) = region.bounds[0], self.counted.axes[0]
        pieces = []
        if lo == hi:
            return Block(region, {f.name: empty(f, self.counted, region) for f in wanted}, 0)
        for chunk in axis.covering(lo, hi):
            marks = _KEPT.get((self.store, self._full[chunk].place), "", partial(self.marks.kept, chunk, every))
            first, last = axis.bounds(chunk)
            start, stop = max(lo, first) - first, min(hi, last) - first
            columns = self.files.read_rows(self._part(chunk), marks, start, stop, names)
            pieces.append(Block(Region.of((first + start, first + stop)), columns, stop - start))
        return joined_blocks(pieces, wanted, dim, region)
