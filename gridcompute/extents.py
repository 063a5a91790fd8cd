"""How long the dims of a block's columns are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from gridcompute.columns import Block, Column, Field, Fixed, Ragged
from gridcompute.errors import ParameterError
from gridcompute.spaces import Space


def extents_of(block: Block, fields: Sequence[Field], space: Space) -> dict[str, int]:
    """Length of each dim in this block: the region's, or the arrays' own along a dim of unknown length.

    Raises:
        ParameterError: a column over a dim that the space doesn't have.
    """
    where = dict(zip(space.names, block.region.shape, strict=True))
    extents: dict[str, int] = {}
    for field in fields:
        column = block[field.name]
        for axis, name in enumerate(field.dims):
            if name not in where:
                raise ParameterError(f"column {field.name!r} spans {name!r}, which isn't in {space}")
            if space[name] is not None:
                extents[name] = where[name]
            elif isinstance(column, Fixed) and axis < column.values.ndim:
                extents.setdefault(name, column.values.shape[axis])
            elif isinstance(column, Ragged) and len(field.dims) == 1:
                extents.setdefault(name, column.cells)
    return {name: extents.get(name, block.rows) for field in fields for name in field.dims}


def check_shape(field: Field, column: Column, extents: Mapping[str, int]) -> None:
    """Refuse a column that has other lengths.

    Raises:
        ParameterError: it has.
    """
    shape = tuple(extents[d] for d in field.dims)
    found = column.values.shape if isinstance(column, Fixed) else (column.cells,)
    if found != (shape if isinstance(column, Fixed) else (math.prod(shape),)):
        raise ParameterError(f"column {field.name!r} has shape {found}, but in this chunk its dims "
                             f"{field.dims} have lengths {shape}")
