"""Where a graph begins: data from outside, read by region or taken in block by block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from gridcompute.axes import Axis, Layout
from gridcompute.columns import Block, Field
from gridcompute.digests import digest
from gridcompute.op import Action, Op, Read
from gridcompute.sources.base import IngestSource, MarkedFiles, Source
from gridcompute.sources.marks import rows_of
from gridcompute.spaces import Region


@dataclass(frozen=True, eq=False)
class Load(Action):
    """Columns that a source reads region by region; never stored again.

    Attributes:
        source: what reads them.
        twin: number among the different sources of a graph that have one key.
    """

    source: Source
    twin: int = 0

    @property
    def label(self) -> str:
        """See `Action`."""
        return "load"

    @property
    def key(self) -> object:
        """See `Action`."""
        return (self.source.key, "twin", self.twin) if self.twin else self.source.key

    @property
    def parts(self) -> Mapping[str, str]:
        """See `Action`: files' names and versions aren't among them."""
        return {"decoding of the input": digest(self.source.key)}

    def axes(self, op: Op, inputs: tuple[Layout, ...]) -> dict[str, Axis]:
        """See `Action`: with the extents of the stored chunks."""
        stored, parts = dict(self.source.stored), dict(getattr(self.source, "parts", ()))
        together = dict(getattr(self.source, "together", ()))
        return {name: Axis(parts.get(name, (length or 0,)), multiple=max(1, stored.get(name, 1)),
                           together=together.get(name, 1)) for name, length in op.space.dims}

    def compute(self, op: Op, region: Region, read: Read) -> Block:
        """See `Action`."""
        return self.source.read(region, tuple(f.name for f in op.fields))


PART = "part"
"""Dimension of an ingest stage: one position a file."""


@dataclass(frozen=True, eq=False)
class Ingest(Action):
    """Files that only reading tells the length of: each is read once, front to back, and committed block by block.

    Of files that can be read from the middle it commits where the blocks begin (see `gridcompute.sources.marks`).
    Planned as a stage of its own over the dimension "part"; a part's own shard lists its blocks, so a part is
    done exactly when all its blocks are.
    """

    durable: ClassVar[bool] = True
    makes_rows: ClassVar[bool] = True

    source: IngestSource
    twin: int = 0

    @property
    def label(self) -> str:
        """See `Action`."""
        return "ingest"

    @property
    def key(self) -> object:
        """See `Action`."""
        return (self.source.key, "twin", self.twin) if self.twin else self.source.key

    @property
    def parts(self) -> Mapping[str, str]:
        """See `Action`: files' names and versions aren't among them."""
        return {"decoding of the input": digest(self.source.key)}

    def axes(self, op: Op, inputs: tuple[Layout, ...]) -> dict[str, Axis]:
        """See `Action`: one chunk a file, under the name of the dimension that is being counted."""
        name = op.space.names[0]
        together = dict(getattr(self.source, "together", ())).get(name, 1)
        return {name: Axis((len(self.source.parts),), extent=1, blocks=True, together=together)}

    @property
    def marked(self) -> MarkedFiles | None:
        """The source, where marks are committed instead of rows."""
        return self.source if isinstance(self.source, MarkedFiles) and self.source.located else None

    def kept_fields(self, fields: tuple[Field, ...]) -> tuple[Field, ...]:
        """The columns that are committed for those of the op."""
        return self.marked.mark_fields if self.marked else fields

    def blocks(self, part: int) -> Iterator[Block]:
        """What is committed of the blocks of one file, in order."""
        name = self.source.parts[part]
        return self.marked.marks(name) if self.marked else self.source.blocks(name)

    def rows(self, block: Block) -> int:
        """Rows of a block of which that is committed."""
        return rows_of(block) if self.marked else block.rows
