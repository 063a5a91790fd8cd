"""Tables that have columns but not a single row, as a run whose filter kept nothing writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gridcompute.columns import Block, Field
from gridcompute.sources.files import broken


@dataclass(frozen=True, eq=False)
class NoRows:
    """Files without rows, read as those whose rows aren't counted before the run: everything over them is empty.

    Attributes:
        sources: one a file, of no rows.
        versions: the files' identities when they were opened.
    """

    sources: tuple[Any, ...]
    versions: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, sources: Sequence[Any]) -> NoRows:
        """The files as they are now."""
        return cls(tuple(sources), tuple(source.objects(source.space.whole()) for source in sources))

    @property
    def parts(self) -> tuple[str, ...]:
        """See `IngestSource`."""
        return tuple(str(source) for source in self.sources)

    @property
    def dim(self) -> str:
        """See `IngestSource`."""
        return str(self.sources[0].dim)

    @property
    def fields(self) -> tuple[Field, ...]:
        """See `IngestSource`."""
        first: tuple[Field, ...] = self.sources[0].fields
        return first

    @property
    def key(self) -> object:
        """See `IngestSource`."""
        return ("no rows", self.sources[0].decoding)

    def objects(self, part: str) -> tuple[str, ...]:
        """See `IngestSource`."""
        source = self.sources[self.parts.index(part)]
        return tuple(source.objects(source.space.whole()))

    def blocks(self, part: str) -> Iterator[Block]:
        """See `IngestSource`: none.

        Raises:
            CorruptInputError: the file has changed since it was opened, so that it may have rows.
        """
        if self.objects(part) != self.versions[self.parts.index(part)]:
            raise broken(part, "had no rows", "the file has changed since it was opened")
        return iter(())

    def select(self, names: Sequence[str]) -> NoRows:
        """The source with only these columns."""
        return replace(self, sources=tuple(source.select(names) for source in self.sources))
