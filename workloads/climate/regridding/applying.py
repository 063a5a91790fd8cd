"""Kernels that apply weights to fields, at the speed of memory.

Rows of a product first add up source rows into one line of float64, with unit stride, then take that line's columns.
A missing value makes the sum NaN: only such target cells are summed up again, from valid values alone, if they may.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

import gridcompute as grid

ROUNDING = 1e-12
"""By which a share may lie below what is needed."""


@njit(nogil=True)
def add_rows(field: Any, weights: Any, first: Any, last: Any, line: Any) -> None:
    """Weighted sum of some source rows, up to four at a time."""
    n = line.shape[0]
    source, weight = weights.row_source, weights.row_weight
    for i in range(n):
        line[i] = 0.0
    at = first
    while at + 4 <= last:
        a, b, c, d = field[source[at]], field[source[at + 1]], field[source[at + 2]], field[source[at + 3]]
        p, q, r, s = weight[at], weight[at + 1], weight[at + 2], weight[at + 3]
        for i in range(n):
            line[i] += p * np.float64(a[i]) + q * np.float64(b[i]) + r * np.float64(c[i]) + s * np.float64(d[i])
        at += 4
    while at + 2 <= last:
        a, b = field[source[at]], field[source[at + 1]]
        p, q = weight[at], weight[at + 1]
        for i in range(n):
            line[i] += p * np.float64(a[i]) + q * np.float64(b[i])
        at += 2
    if at < last:
        a, p = field[source[at]], weight[at]
        for i in range(n):
            line[i] += p * np.float64(a[i])


@njit(nogil=True)
def add_columns(line: Any, weights: Any, sums: Any) -> None:
    """Weighted sums of the columns of a line."""
    n = sums.shape[0]
    for i in range(n):
        sums[i] = 0.0
    for k in range(weights.column_source.shape[0]):
        source, weight = weights.column_source[k], weights.column_weight[k]
        for i in range(n):
            sums[i] += weight[i] * line[source[i]]


@njit(nogil=True)
def valid_product(field: Any, weights: Any, j: Any, i: Any, least: Any) -> Any:
    """A target cell from the valid ones of its sources; NaN where they make up less than `least` of it."""
    total, sum_ = 0.0, 0.0
    for at in range(weights.rows[j], weights.rows[j + 1]):
        for k in range(weights.column_source.shape[0]):
            value = np.float64(field[weights.row_source[at], weights.column_source[k, i]])
            weight = weights.row_weight[at] * weights.column_weight[k, i]
            if weight != 0.0 and value == value:
                total += weight
                sum_ += weight * value
    share = total * weights.row_share[j] * weights.column_share[i]
    return sum_ / total if total > 0.0 and share >= least - ROUNDING else np.nan


@njit(nogil=True)
def apply_rows(field: Any, weights: Any, least: Any, out: Any) -> None:
    """Target rows that are products."""
    line, sums = np.empty(field.shape[1], np.float64), np.empty(out.shape[1], np.float64)
    for j in range(out.shape[0]):
        first, last = weights.rows[j], weights.rows[j + 1]
        target = out[j]
        if first == last:
            for i in range(out.shape[1]):
                target[i] = np.nan
            continue
        add_rows(field, weights, first, last, line)
        add_columns(line, weights, sums)
        share = weights.row_share[j]
        for i in range(out.shape[1]):
            covered = share * weights.column_share[i]
            enough = covered > 0.0 and covered >= least - ROUNDING
            value = sums[i] if enough else np.nan
            target[i] = value
            if value != value and enough and least < 1.0:
                target[i] = valid_product(field, weights, j, i, least)


@njit(nogil=True)
def apply_cells(flat: Any, weights: Any, least: Any, out: Any) -> None:
    """Target cells that are listed."""
    for c in range(weights.cells.shape[0]):
        needed = least if weights.least[c] < 0.0 else weights.least[c]
        covered = weights.share[c]
        at, last = weights.start[c], weights.start[c + 1]
        value = np.nan
        if covered > 0.0 and covered >= needed - ROUNDING:
            value = listed_sum(flat, weights.source, weights.weight, at, last)
            if value != value and needed < 1.0:
                value = valid_sum(flat, weights.source, weights.weight, at, last, covered, needed)
        out[weights.cells[c]] = value


@njit(nogil=True)
def listed_sum(flat: Any, source: Any, weight: Any, at: Any, last: Any) -> Any:
    """Weighted sum, in four lanes."""
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    while at + 4 <= last:
        a += weight[at] * np.float64(flat[source[at]])
        b += weight[at + 1] * np.float64(flat[source[at + 1]])
        c += weight[at + 2] * np.float64(flat[source[at + 2]])
        d += weight[at + 3] * np.float64(flat[source[at + 3]])
        at += 4
    while at < last:
        a += weight[at] * np.float64(flat[source[at]])
        at += 1
    return (a + b) + (c + d)


@njit(nogil=True)
def valid_sum(flat: Any, source: Any, weight: Any, at: Any, last: Any, covered: Any, least: Any) -> Any:
    """The same from valid values alone; NaN where they make up less than `least`."""
    total, sum_ = 0.0, 0.0
    for k in range(at, last):
        value = np.float64(flat[source[k]])
        if weight[k] != 0.0 and value == value:
            total += weight[k]
            sum_ += weight[k] * value
    return sum_ / total if total > 0.0 and total * covered >= least - ROUNDING else np.nan


@grid.kernel("(lat,lon)->(y,x)", sizes={"y": 1, "x": 1})
def regrid_field(field, weights, least):  # type: ignore[no-untyped-def]  # numba infers the types
    """A field of rows and columns on another grid."""
    out = np.empty((weights.shape[0], weights.shape[1]), field.dtype)
    apply_rows(field, weights, least, out)
    apply_cells(field.reshape(field.size), weights, least, out.reshape(out.size))
    return out


@grid.kernel("(cell)->(y,x)", sizes={"y": 1, "x": 1})
def regrid_list(field, weights, least):  # type: ignore[no-untyped-def]
    """A field of cells in a list on another grid."""
    out = np.full((weights.shape[0], weights.shape[1]), np.nan).astype(field.dtype)
    apply_cells(field, weights, least, out.reshape(out.size))
    return out
