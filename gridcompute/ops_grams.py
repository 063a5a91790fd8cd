"""Constructor of matrices of inner products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gridcompute.actions.grams import BLOCK, Gram, boxes_of, product
from gridcompute.actions.loads import Load
from gridcompute.axes import CHUNK_BYTES, Axis
from gridcompute.columns import Field
from gridcompute.errors import DimensionError, MemoryBoundError
from gridcompute.op import Op
from gridcompute.ops import Ref, field_of
from gridcompute.rechunking import rows_of
from gridcompute.spaces import Space
from gridcompute.status import size

MOST_BYTES = 2**30
"""Of a matrix: a task has two of them, and its eigenvectors take minutes."""


def gram(ref: Ref, dims: Sequence[str], name: str, *, centred: bool) -> Op:
    """Matrices of inner products, to be summed over `BLOCK`.

    Args:
        ref: a column of numbers.
        dims: whose positions are the matrix's rows; all others are summed over.
        name: of the result; the rows' dimension is that of `dims`, or "point" where there are several, the columns' has
            "_other" behind it.
        centred: whether the mean along `dims` is taken off first; series with gaps are then left out, else rows.

    Raises:
        DimensionError: a dimension that isn't there, or none left.
        MemoryBoundError: the matrix would be too large.
    """
    op, f = ref[0], field_of(ref)
    space, over = op.space.only(*f.dims), tuple(dim for dim in f.dims if dim not in dims)
    for dim in dims:
        if dim not in f.dims:
            raise DimensionError(f"column {f.name!r} has no dimension {dim!r}", hint=f"it has {', '.join(f.dims)}")
    if not over or not space.known:
        raise DimensionError(f"{f.name!r} over {space} leaves no known dimensions to sum over")
    count = product(tuple(dims), space)
    if 8 * count * count > MOST_BYTES:
        raise MemoryBoundError(
            f"{count:,} positions along {', '.join(dims)} make a matrix of {size(8 * count * count)}, more than "
            f"{size(MOST_BYTES)}", hint="take fewer of them: a mean over several time steps, or a coarser grid")
    stored: dict[str, int] = {}
    for step in op.walk():
        if isinstance(step.action, Load):
            fine = {**dict(step.action.source.stored), **dict(getattr(step.action.source, "least", ()))}
            stored |= {dim: max(stored.get(dim, 1), extent) for dim, extent in fine.items()}
    every = {dim: Axis((space[dim] or 0,), multiple=stored.get(dim, 1)) for dim in (*dims, *over)}
    least = tuple((space[dim] or 1) if dim in dims else 1 for dim in every)
    extents = rows_of(every, least, [(tuple(every), 8.0)], CHUNK_BYTES)[len(dims):]
    access = boxes_of({dim: every[dim] for dim in over}, extents, count, 8.0)
    row = dims[0] if len(dims) == 1 else "point"
    names = (row, f"{row}_other")
    action = Gram(ref[1], tuple(dims), names, centred, int(16 * access.share * count * count))
    out = Space.of({BLOCK: access.count, names[0]: count, names[1]: count})
    field = Field(name, out.names, np.dtype(np.float64))
    return Op(action, (op,), (access,), out, (field,), name)
