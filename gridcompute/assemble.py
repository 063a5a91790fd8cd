"""A region put together from the chunks that cover it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from gridcompute.actions.shapes import joined_blocks, picked
from gridcompute.axes import Layout
from gridcompute.columns import Block, Column, Field, Fixed, Ragged, field_region
from gridcompute.spaces import Region, Space

Fetch = Callable[[int], Block]
"""The block of a chunk, by its number."""


def assemble(fields: tuple[Field, ...], layout: Layout, region: Region, fetch: Fetch) -> Block:
    """The columns over a region of a cut space.

    Args:
        fields: columns wanted.
        layout: how the space is cut.
        region: any region of it.
        fetch: gives a whole chunk; called once for each that meets the region.
    """
    chunks = list(layout.covering(region))
    if layout.blocked or any(f.ragged for f in fields):
        return _rows(fields, layout, region, chunks, fetch)
    if len(chunks) == 1 and layout.region(chunks[0]) == region:
        block = fetch(chunks[0])
        return Block(region, {f.name: block[f.name] for f in fields}, block.rows)
    return _pasted(fields, layout, region, chunks, fetch)


def _rows(fields: tuple[Field, ...], layout: Layout, region: Region, chunks: list[int], fetch: Fetch) -> Block:
    """Along the first dimension only: ragged cells, or blocks whose cells aren't counted."""
    if not layout.axes:
        block = fetch(chunks[0])
        return Block(region, {f.name: block[f.name] for f in fields}, block.rows)
    dim, axis = layout.axes[0]
    pieces = []
    for chunk in chunks:
        block = fetch(chunk)
        if not axis.blocks:
            at = layout.region(chunk)
            inner = at.intersect(region)
            rows = inner.within(at)[0]
            block = Block(inner, {f.name: picked(block[f.name], f, dim, rows) for f in fields}, rows.stop - rows.start)
        pieces.append(block)
    if not pieces:
        return Block(region, {f.name: empty(f, layout, region) for f in fields}, 0)
    return joined_blocks(pieces, fields, dim, region)


def empty(field: Field, layout: Layout, region: Region) -> Column:
    """A column without cells."""
    if field.ragged:
        return Ragged(np.zeros(1, np.int64), np.empty(0, field.dtype))
    shape = field_region(layout.space, region, field.dims).shape
    return Fixed(np.empty((0, *shape[1:]) if 0 not in shape else shape, field.dtype))


def _pasted(fields: tuple[Field, ...], layout: Layout, region: Region, chunks: list[int], fetch: Fetch) -> Block:
    room = Room(fields, layout.space, region)
    for chunk in chunks:
        room.put(fetch(chunk), layout.region(chunk))
    return room.block()


class Room:
    """Columns over a region while their pieces come, from any thread.

    Args:
        fields: the columns, none of them ragged.
        space: that they are of.
        region: of it.
    """

    def __init__(self, fields: Sequence[Field], space: Space, region: Region) -> None:
        self._space, self._region, self._lock = space, region, threading.Lock()
        self._whole = {f: field_region(space, region, f.dims) for f in fields}
        self._values = {f.name: np.empty(whole.shape, f.dtype) for f, whole in self._whole.items()}
        self._valid = {f.name: np.ones(whole.shape, bool) for f, whole in self._whole.items() if f.nullable}

    def put(self, block: Block, at: Region) -> None:
        """Take in what a block, over `at`, has of the region; pieces don't overlap."""
        inner = at.intersect(self._region)
        for f, whole in self._whole.items():
            column = block[f.name]
            assert isinstance(column, Fixed)
            part = field_region(self._space, inner, f.dims)
            source, place = part.within(field_region(self._space, at, f.dims)), part.within(whole)
            self._values[f.name][place] = column.values[source]
            if column.valid is not None:
                with self._lock:
                    valid = self._valid.setdefault(f.name, np.ones(whole.shape, bool))
                valid[place] = column.valid[source]

    def block(self) -> Block:
        """All of it."""
        columns = {name: Fixed(values, _mask(self._valid.get(name))) for name, values in self._values.items()}
        return Block(self._region, columns, self._region.shape[0] if self._region.bounds else 1)


def _mask(
    valid: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] | None,
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]] | None:
    return None if valid is None or valid.all() else valid
