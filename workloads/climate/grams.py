"""Eigenvectors of matrices of inner products, and their rotation: plain NumPy on arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

LEAST = 1e-12
"""Eigenvalues below so many times the first are rounding: such a mode is all NaN."""

TILE = 2**22
"""Values that are multiplied at once."""


@dataclass(frozen=True)
class Eofs:
    """Leading modes of a field.

    Attributes:
        eigenvalues: variance of each mode, (mode,).
        fractions: of the whole variance, (mode,).
        errors: of the eigenvalues, (mode,).
        pcs: time series, (time, mode), their variances the eigenvalues.
        eofs: maps of unit length, (mode, ...); NaN where a point has a gap.
    """

    eigenvalues: Array
    fractions: Array
    errors: Array
    pcs: Array
    eofs: Array


def leading(matrix: Array, modes: int) -> tuple[Array, Array]:
    """The largest eigenvalues and their eigenvectors, (n, mode); NaN rows are left out, and stay NaN.

    Raises:
        ValueError: nothing is left, or nothing varies.
    """
    there = ~np.isnan(np.diagonal(matrix))
    if not there.any() or not np.trace(kept := matrix[np.ix_(there, there)]) > 0:
        raise ValueError("no point has values at all times that vary: nothing is left to analyse")
    values, vectors = np.linalg.eigh(kept)
    count = min(modes, len(values))
    found, maps = np.full(modes, np.nan), np.full((len(there), modes), np.nan)
    found[:count] = values[::-1][:count]
    maps[there, :count] = vectors[:, ::-1][:, :count]
    lost = ~(found > LEAST * found[0])
    found[lost], maps[:, lost] = np.nan, np.nan
    return found, maps


def signed(series: Array) -> Array:
    """The sign of the largest value of each column (the first of equals): what makes it positive."""
    most = np.argmax(np.abs(np.nan_to_num(series)), axis=0)
    signs = np.sign(series[most, np.arange(series.shape[1])])
    return np.where(signs == 0, 1.0, signs)


def eofs_of(values: Array, weights: Array | None = None, modes: int = 10, *, single: bool = False) -> Eofs:
    """Empirical orthogonal functions of an array in memory, by the matrix of inner products of its fields.

    Args:
        values: (time, ...); a point with NaN at any time is left out.
        weights: by which the fields are multiplied, (...).
        modes: how many.
        single: multiply in float32 and add in float64: twice as fast. Eigenvalues then have errors of about 1e-7 of the
            first, those below 1e-6 of it are lost; else errors are about 1e-15 of the first.

    Raises:
        ValueError: no point is left.
    """
    times, plain = len(values), values.reshape(len(values), -1)
    scale = None if weights is None else np.broadcast_to(weights, values.shape[1:]).reshape(-1)
    step, dtype = max(1, TILE // times), np.float32 if single else np.float64
    total, tiles, there = np.zeros((times, times)), [], []
    for start in range(0, plain.shape[1], step):
        tile = plain[:, start: start + step].astype(np.float64 if values.dtype == np.float64 else dtype)
        if scale is not None:
            tile = tile * scale[start: start + step].astype(tile.dtype)
        mean = tile.mean(axis=0, dtype=np.float64)
        known = ~np.isnan(mean)
        if not known.all():
            tile, mean = tile[:, known], mean[known]
        tile = np.subtract(tile, mean, dtype=tile.dtype, casting="same_kind").astype(dtype, copy=False)
        total += tile @ tile.T
        tiles.append(tile)
        there.append(known)
    sizes, vectors = leading(total, modes)
    vectors *= signed(vectors)
    maps = np.full((modes, plain.shape[1]), np.nan)
    projection = (vectors / np.sqrt(sizes)).T.astype(dtype)
    maps[:, np.concatenate(there)] = np.concatenate([projection @ tile for tile in tiles], axis=1)
    variances = sizes / (times - 1)
    return Eofs(variances, sizes / np.trace(total), variances * np.sqrt(2.0 / times), vectors * np.sqrt(sizes),
                maps.reshape(modes, *values.shape[1:]))


def varimax(loadings: Array, tolerance: float = 1e-12, most: int = 1000) -> Array:
    """The rotation of Kaiser (1958) that makes the variance of squared loadings greatest, rows normalised.

    Args:
        loadings: (point, mode), without NaN.
        tolerance: relative growth of the criterion at which it ends.
        most: rounds.

    Returns:
        An orthogonal matrix (mode, rotated); rotated modes are in order of their variance, and the largest loading of
        each is positive.
    """
    length = np.sqrt((loadings ** 2).sum(axis=1))
    rows = loadings / np.where(length > 0, length, 1.0)[:, None]
    turn, before = np.eye(loadings.shape[1]), 0.0
    for _ in range(most):
        turned = rows @ turn
        left, sizes, right = np.linalg.svd(rows.T @ (turned ** 3 - turned * (turned ** 2).mean(axis=0)))
        turn = left @ right
        if sizes.sum() <= before * (1 + tolerance):
            break
        before = sizes.sum()
    found = loadings @ turn
    order = np.argsort(-(found ** 2).sum(axis=0), kind="stable")
    return np.asarray((turn * signed(found))[:, order])
