"""Weights of a regridding: what each target cell takes of which source cells, in the form in which kernels read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gridcompute.errors import ParameterError

from ..grids import Grid  # noqa: TID252 - the package has another name where it is installed

Array = np.ndarray[Any, Any]

FULL = 1e-9
"""A share so close to 1 is 1, one so close to 0 is none: rounding of edges."""


class Weights(NamedTuple):
    """What target cells take of source cells, two ways: rows of a product, and cells by themselves.

    Target rows of a product of latitudes and longitudes take `row_weight` times `column_weight`. Cells that no such row
    has are listed, with their sources one after the other (CSR). Weights of a target cell add up to 1.

    Attributes:
        rows: int64, (my + 1,): where a target row's sources begin in `row_source`; none in rows that are no product.
        row_source: int32: source rows.
        row_weight: float64: their weights.
        column_source: int32, (k, mx): source columns of a target column; those that it doesn't need have weight 0.
        column_weight: float64, (k, mx).
        row_share: float64, (my,): share of a target row that source rows cover.
        column_share: float64, (mx,).
        cells: int64: numbers of the target cells that are listed.
        start: int64, (listed + 1,): where a listed cell's sources begin in `source`.
        source: int32: numbers of source cells.
        weight: float64.
        share: float64: share of each listed cell that source cells cover.
        least: float64: least valid share that a listed cell needs, whatever the caller's; -1: the caller's.
        shape: int64: rows and columns of the target.
    """

    rows: Array
    row_source: Array
    row_weight: Array
    column_source: Array
    column_weight: Array
    row_share: Array
    column_share: Array
    cells: Array
    start: Array
    source: Array
    weight: Array
    share: Array
    least: Array
    shape: Array


class Line(NamedTuple):
    """What each position of a target axis takes of a source axis: CSR, weights adding up to 1, and the share."""

    start: Array
    source: Array
    weight: Array
    share: Array

    @classmethod
    def of(cls, taken: Sequence[tuple[Array, Array]], share: Array) -> Line:
        """From sources and weights of each position."""
        start = np.concatenate([[0], np.cumsum([len(source) for source, _ in taken])]).astype(np.int64)
        source = np.concatenate([source for source, _ in taken]) if taken else np.empty(0)
        weight = np.concatenate([weight for _, weight in taken]) if taken else np.empty(0)
        return cls(start, source.astype(np.int32), weight.astype(np.float64), rounded(share))

    def without(self, dropped: Array) -> Line:
        """The same, but nothing for some positions."""
        taken = [
            (self.source[a:b][: 0 if drop else None], self.weight[a:b][: 0 if drop else None])
            for a, b, drop in zip(self.start[:-1], self.start[1:], dropped, strict=True)
        ]
        return Line.of(taken, self.share)


def rounded(share: Array) -> Array:
    """Shares, those that differ from 0 and 1 by rounding made 0 and 1."""
    return np.where(share > 1 - FULL, 1.0, np.where(share < FULL, 0.0, share)).astype(np.float64)


def product_weights(north: Line, east: Line, listed: Weights | None = None) -> Weights:
    """Weights that are a product of those along latitude and along longitude; rows without any may be listed."""
    counts = np.diff(east.start)
    most = max(1, int(counts.max(initial=0)))
    at = east.start[:-1] + np.minimum(np.arange(most)[:, None], np.maximum(counts - 1, 0))
    there = np.arange(most)[:, None] < counts
    padded_source = np.append(east.source, 0)[np.where(counts > 0, at, len(east.source))]
    padded_weight = np.where(there, np.append(east.weight, 0.0)[np.where(there, at, len(east.source))], 0.0)
    shape = len(north.share), len(east.share)
    none = np.empty(0, np.int64)
    rest = listed or listed_weights(shape, none, np.zeros(1, np.int64), none, np.empty(0))
    return rest._replace(
        rows=north.start, row_source=north.source, row_weight=north.weight, row_share=north.share,
        column_source=np.ascontiguousarray(padded_source, np.int32),
        column_weight=np.ascontiguousarray(padded_weight), column_share=east.share,
    )  # fmt: skip


def listed_weights(shape: Sequence[int], cells: Array, start: Array, source: Array, weight: Array,
                   share: Array | None = None, least: float = -1.0) -> Weights:
    """Weights of listed target cells only; `start`, `source` and `weight` are CSR by the order of `cells`.

    Raises:
        ParameterError: arrays that don't fit each other.
    """
    if len(start) != len(cells) + 1 or start[0] != 0 or start[-1] != len(source) or len(source) != len(weight):
        raise ParameterError("weights whose cells, sources and weights differ in number")
    my, mx = shape
    none = np.empty(0, np.int32)
    return Weights(
        np.zeros(my + 1, np.int64), none, np.empty(0), np.zeros((1, mx), np.int32), np.zeros((1, mx)), np.zeros(my),
        np.zeros(mx), np.ascontiguousarray(cells, np.int64), np.ascontiguousarray(start, np.int64),
        np.ascontiguousarray(source, np.int32), np.ascontiguousarray(weight, np.float64),
        rounded(np.ones(len(cells)) if share is None else share), np.full(len(cells), least), np.array(shape, np.int64),
    )  # fmt: skip


def from_links(target: Grid | Sequence[int], rows: Array, columns: Array, weights: Array,
               share: Array | None = None) -> Weights:
    """Weights of links from source cells to target cells, in any order; each target cell's are made to add up to 1.

    Args:
        target: grid, or its rows and columns.
        rows: numbers of target cells.
        columns: numbers of source cells.
        weights: one a link.
        share: of each target cell, (cells,), that is covered; the links' sum where it isn't given.
    """
    shape = target.shape if isinstance(target, Grid) else tuple(target)
    size = int(np.prod(shape))
    order = np.lexsort((columns, rows))
    rows, columns, weights = rows[order], columns[order], weights[order]
    sums = np.bincount(rows, weights, size)
    covered = sums if share is None else share
    counts = np.bincount(rows, minlength=size)
    cells = np.flatnonzero((counts > 0) & (sums > 0))
    kept = np.zeros(size, bool)
    kept[cells] = True
    keep = kept[rows]
    start = np.concatenate([[0], np.cumsum(counts[cells])])
    return listed_weights(shape, cells, start, columns[keep], weights[keep] / sums[rows[keep]], covered[cells])


def as_links(weights: Weights, columns: int) -> tuple[Array, Array, Array, Array]:
    """All links of weights: target cells, source cells, weights, and each target cell's share, (cells,).

    Args:
        weights: of either kind, or both.
        columns: of the source; 1 where it is a list.
    """
    my, mx = (int(one) for one in weights.shape)
    share = weights.row_share[:, None] * weights.column_share[None, :]
    share[np.diff(weights.rows) == 0] = 0.0
    share = share.ravel()
    share[weights.cells] = weights.share
    counts = np.diff(weights.start)
    rows, sources, found = [np.repeat(weights.cells, counts)], [weights.source.astype(np.int64)], [weights.weight]
    padding = np.zeros(weights.column_weight.shape, bool)
    padding[1:] = (weights.column_weight[1:] == 0) & (weights.column_source[1:] == weights.column_source[:-1])
    k, i = np.nonzero(~padding & (weights.column_share > 0))
    for j in range(my):
        for at in range(int(weights.rows[j]), int(weights.rows[j + 1])):
            rows.append(j * mx + i)
            sources.append(int(weights.row_source[at]) * columns + weights.column_source[k, i].astype(np.int64))
            found.append(weights.row_weight[at] * weights.column_weight[k, i])
    return np.concatenate(rows), np.concatenate(sources), np.concatenate(found), share
