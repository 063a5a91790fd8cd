"""Cells that a run skipped, as plain values: they lie beside their shard, cross processes, and become a table.

An op with `on_error="skip"` gives a null where its kernel fails. `Skips` says which cells of a region these are, the
first `MOST` of them with their errors; it is the same however the region was cut into tasks or parts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from gridcompute.errors import KernelError

if TYPE_CHECKING:
    import pyarrow as pa

MOST = 1000
"""Skipped cells of a chunk that are told one by one; beyond these they are only counted."""

MOST_TOLD = 100_000
"""Skipped cells that a driver remembers one by one."""

MOST_TEXT = 300
"""Characters of an error that are kept."""

Told = tuple[tuple[int, ...], str, str]
"""A cell's index per dimension, the class of its failure (see `gridcompute.events.FailureKind`), and its error."""


@dataclass(frozen=True)
class Skips:
    """Skipped cells of one op in one region.

    Attributes:
        op: its name.
        recipe: its recipe.
        region: the region's text.
        dims: dimensions of the cells' indices; the kernel ran over these.
        count: all skipped cells of the region.
        cells: the first of them, in their order.
        block: number of the block that the cells are in, where the first dimension isn't counted; else -1.
    """

    op: str
    recipe: str
    region: str
    dims: tuple[str, ...]
    count: int
    cells: tuple[Told, ...]
    block: int = -1

    def words(self, cell: tuple[int, ...]) -> str:
        """A cell as `replay` takes it.

        >>> Skips("f", "", "", ("lat", "lon"), 1, ()).words((3, 17))
        'lat=3,lon=17'
        """
        return in_words(self.dims, cell, self.block)


def in_words(dims: Iterable[str], cell: Iterable[int], block: int = -1) -> str:
    """A cell as `replay` takes it, with the number of its block where there is one."""
    place = [f"block={block}"] if block >= 0 else []
    return ",".join([*place, *(f"{name}={at}" for name, at in zip(dims, cell, strict=True))])


def place_of(error: BaseException | None) -> dict[str, str]:
    """The op and the cell, as `replay` takes it, of a kernel that raised; empty where they aren't known."""
    if not isinstance(error, KernelError) or error.cell is None or not error.dims:
        return {}
    return {"op": error.op, "at": in_words(error.dims, error.cell, error.block)}


def to_text(skips: Iterable[Skips]) -> str:
    """As JSON, to lie with a shard."""
    return json.dumps([asdict(one) for one in skips])


def of_text(text: str) -> tuple[Skips, ...]:
    """What `to_text` gave.

    Raises:
        ValueError: any other text.
    """
    try:
        return tuple(_parsed(one) for one in json.loads(text))
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"no skipped cells: {error}") from None


def _parsed(one: Any) -> Skips:
    texts = [one["op"], one["recipe"], one["region"], *one["dims"]]
    cells = tuple((tuple(index), kind, said) for index, kind, said in one["cells"])
    numbers = [one["count"], one["block"], *(at for index, *_ in cells for at in index)]
    texts += [text for _, *told in cells for text in told]
    if not all(isinstance(text, str) for text in texts) or not all(type(n) is int for n in numbers):
        raise TypeError("a field has another type than it should")
    if any(len(index) != len(one["dims"]) for index, *_ in cells) or not 0 < one["count"] >= len(cells):
        raise TypeError("the numbers don't fit")
    return Skips(one["op"], one["recipe"], one["region"], tuple(one["dims"]), one["count"], cells, one["block"])


def merged(skips: Iterable[Skips]) -> tuple[Skips, ...]:
    """One for each op and block, in order: what a chunk's shard tells, however many parts the chunk was done in."""
    found: dict[tuple[str, int], list[Skips]] = {}
    for one in skips:
        found.setdefault((one.recipe, one.block), []).append(one)
    return tuple(_together(found[key]) for key in sorted(found))


def _together(several: list[Skips]) -> Skips:
    if len(several) == 1:
        return several[0]
    cells = sorted({told[0]: told for one in several for told in one.cells}.values())[:MOST]
    regions = sorted(one.region for one in several)
    return replace(several[0], region=f"{regions[0]}+{len(regions) - 1}", cells=tuple(cells),
                   count=sum(one.count for one in several))


class Tally:
    """All skipped cells of a run, each counted once whatever the attempts, roots and phases that told of it."""

    def __init__(self) -> None:
        self._known: set[tuple[str, str]] = set()
        self._order: dict[str, int] = {}
        self._told: dict[tuple[str, int, tuple[int, ...]], tuple[str, str, str, str]] = {}
        self.count = 0

    def add(self, skips: Iterable[Skips]) -> None:
        """Take note of some regions; one that was told before counts no more."""
        for one in skips:
            if (one.recipe, one.region) in self._known:
                continue
            self._known.add((one.recipe, one.region))
            self._order.setdefault(one.recipe, len(self._order))
            self.count += one.count - len(one.cells)
            for cell, kind, said in one.cells:
                key = (one.recipe, one.block, cell)  # regions may overlap
                self.count += key not in self._told
                if len(self._told) < MOST_TOLD:
                    self._told[key] = one.op, one.words(cell), kind, said

    def told(self) -> Iterator[dict[str, str]]:
        """The cells that are remembered, op by op and in their order: op, cell, kind, error."""
        for key in sorted(self._told, key=lambda key: (self._order[key[0]], *key[1:])):
            yield dict(zip(("op", "cell", "kind", "error"), self._told[key], strict=True))

    def table(self) -> pa.Table:
        """The same as an Arrow table of text."""
        return table_of(self.told())


def table_of(rows: Iterable[Mapping[str, str]]) -> pa.Table:
    """Skipped cells as an Arrow table: op, cell, kind, error."""
    import pyarrow as pa

    schema = pa.schema([(name, pa.string()) for name in ("op", "cell", "kind", "error")])
    return pa.Table.from_pylist(list(rows), schema=schema)
