"""Matrices of inner products, for users: what principal components are made of."""

from __future__ import annotations

from gridcompute.actions.grams import BLOCK
from gridcompute.collection import Collection
from gridcompute.errors import ParameterError
from gridcompute.ops_grams import gram as matrices


def gram(series: Collection, *dims: str, centred: bool = True) -> Collection:
    """The matrix of inner products between the positions of some dimensions, summed over all others, in float64.

    >>> import gridcompute as grid
    >>> fields = grid.from_arrays({"t": [[1.0, 2.0], [3.0, 4.0]]}, dims=("time", "x"))
    >>> gram(fields["t"], "time", centred=False)
    <Collection (time: 2, time_other: 2) gram: float64>

    Args:
        series: one column of numbers.
        dims: whose positions are rows and columns of the matrix: the output's dimensions are that one and the same with
            "_other" behind it, or "point" where there are several, the last one fastest.
        centred: take off each series' mean along `dims` first. A series with a gap is then left out as a whole; else a
            row with a gap is NaN.

    Raises:
        ParameterError: not one column of numbers.
        DimensionError: a dimension that isn't there, or none left to sum over.
        MemoryBoundError: the matrix would be too large.
    """
    if not dims or len(series.columns) != 1 or series.fields[0].ragged or series.fields[0].dtype.kind not in "biuf":
        raise ParameterError(f"gram takes one column of numbers and its dimensions, not {series} and {dims}",
                             hint='select a column: grid.gram(data["t"], "time")')
    ref = next(iter(series.columns.values()))
    coords = [c for c in series.coords if c.dim in dims and len(dims) == 1]
    found = Collection.of(matrices(ref, dims, "gram", centred=centred), coords)
    return found.isel(**{BLOCK: 0}) if found.space[BLOCK] == 1 else found.reduce("sum", BLOCK, skipna=False)
