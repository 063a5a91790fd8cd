"""A reduction compiled for one dtype: a segment's states, folded chunk by chunk, closed, merged, finished."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gridcompute.columns import Array, Fixed
from gridcompute.errors import DimensionError, ParameterError
from gridcompute.fold_loops import LANES, Functions, Layout, Loops

BLOCK = 65536
"""Cells that are finished at a time: what is computed on the way stays in the cache."""

MOST_MISSING = 2**31 - 1
"""Positions up to which what is missing is counted in int32."""


@dataclass(frozen=True)
class OutputField:
    """An output resolved for an input dtype: name, dtype, new dimensions, whether cells may be null."""

    name: str
    dtype: np.dtype[Any]
    dims: tuple[tuple[str, int], ...]
    nullable: bool

    @property
    def size(self) -> int:
        """Elements per output cell."""
        return math.prod(extent for _, extent in self.dims)


@dataclass(frozen=True)
class Scheme:
    """A reduction's arrays for one dtype of input.

    Attributes:
        name: the reduction's name, for messages.
        dtype: dtype of the column, in native byte order.
        work: dtype in which its values are read (float32 for float16).
        fields: (name, dtype, elements per cell) of each state array.
        outputs: the output columns.
        filled: numbers of those that the functions give: all but counts.
        params: numbers for the functions.
        counted: number of the field that counts the values, -1 for none.
        length: positions that the functions know; 0 for any number.
        commutative: whether a narrow fold may use lanes.
    """

    name: str
    dtype: np.dtype[Any]
    work: np.dtype[Any]
    fields: tuple[tuple[str, np.dtype[Any], int], ...]
    outputs: tuple[OutputField, ...]
    filled: tuple[int, ...]
    params: tuple[tuple[float, ...], ...]
    commutative: bool
    counted: int = -1
    length: int = 0


@dataclass(eq=False)
class States:
    """States of all output cells while a segment is folded.

    Attributes:
        arrays: one flat array per state field, but for a count: lanes x (groups * cells) x size.
        seen: where there is a count, the positions of each lane and group: lanes x groups.
        missing: those of them that a cell missed: lanes x (groups * cells); untouched until there is one.
        holes: one element, not 0 once anything was missed.
        cells: kept cells of the column; `groups` groups of them, cell k of group g at g * cells + k.
        groups: number of groups (1 without codes).
        lanes: 1 or 64.
        position: values per cell folded so far, nulls and dropped rows included.
        origin: position of the segment's first value, for reductions that report positions.
        stride: cells from one group to the next: `cells`, or more where these are a part of others (`Fold.window`).
    """

    arrays: list[Array]
    seen: Array
    missing: Array
    holes: Array
    cells: int
    groups: int
    lanes: int
    position: int = 0
    origin: int = 0
    stride: int = 0

    def __post_init__(self) -> None:
        self.stride = self.stride or self.cells

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(int(array.nbytes) for array in [*self.arrays, *([self.missing] if self.holes.any() else [])])


class Fold:
    """A reduction compiled for one dtype; made by `Reduction.compiled`.

    Args:
        scheme: dtypes, fields and outputs.
        functions: what one cell does.
    """

    def __init__(self, scheme: Scheme, functions: Functions) -> None:
        self.scheme = scheme
        self._params = [_frozen(np.array(values)) for values in scheme.params]
        self._loops = Loops(functions)
        self._streamed = [field for i, field in enumerate(scheme.fields) if i != scheme.counted]
        self._cell_bytes = sum(kind.itemsize * size for _, kind, size in self._streamed)

    @cached_property
    def _fresh(self) -> list[Array]:
        """One cell's fresh state, without a count."""
        one = [np.zeros(size, kind) for _, kind, size in self.scheme.fields]
        with np.errstate(all="ignore"):
            self._loops["start"](*one, 1, *self._params)
        return [array for i, array in enumerate(one) if i != self.scheme.counted]

    def lanes(self, cells: int, groups: int = 1) -> int:
        """Lanes of a fold with this many kept cells and groups: a rule of the graph alone."""
        return LANES if self.scheme.commutative and cells * groups < LANES else 1

    def empty(self, cells: int, groups: int = 1, *, origin: int = 0, lanes: int = 0, blank: bool = False) -> States:
        """Fresh states for `cells` kept cells in `groups` groups, at a segment's start.

        Args:
            cells: that are kept.
            groups: of each.
            origin: position of the segment's first value.
            lanes: of the fold that these cells are a part of; 0 for those of these cells alone.
            blank: they are only room for the states of windows, which make theirs fresh.
        """
        lanes = lanes or self.lanes(cells, groups)
        n = lanes * groups * cells
        arrays = []
        for one in self._fresh:
            plain = not one.tobytes().strip(b"\0")  # zeros cost no memory until they are written to
            made = np.zeros if plain else np.empty
            arrays.append(made(n * len(one), one.dtype) if plain or blank else np.tile(one, n))
        counts = int(self.scheme.counted >= 0)
        seen, missing = np.zeros(counts * lanes * groups, np.int64), np.zeros(counts * n, np.int32)
        return States(arrays, seen, missing, np.zeros(1, np.int64), cells, groups, lanes, origin=origin)

    def window(self, states: States, start: int, stop: int) -> States:
        """Fresh states of some cells, in the memory of blank ones of more cells and one lane."""
        cells, stride, groups = stop - start, states.cells, states.groups
        end = start + (groups - 1) * stride + cells
        arrays = [array[start * len(one):end * len(one)] for array, one in zip(states.arrays, self._fresh, strict=True)]
        for array, one in zip(states.arrays, self._fresh, strict=True):
            if one.tobytes().strip(b"\0"):
                array.reshape(groups, stride, len(one))[:, start:stop] = one
        return States(arrays, np.zeros_like(states.seen), states.missing[start:end], np.zeros(1, np.int64), cells,
                      groups, 1, origin=states.origin, stride=stride)

    def fold(
        self,
        states: States,
        values: Array,
        axes: int | Sequence[int] = 0,
        *,
        valid: Array | None = None,
        codes: Array | None = None,
    ) -> None:
        """Fold the next chunk of a segment into `states`.

        Args:
            states: changed in place; its position advances by the number of reduced positions.
            values: the chunk, any strides; kept cells are counted in C order of the kept axes.
            axes: the reduced axes; positions run in their C order.
            valid: boolean array of the same shape, false where null.
            codes: integer per reduced position (C order): the group it goes to, -1 for none.

        Raises:
            ParameterError: shapes, dtype or codes don't fit.
        """
        where = axes_of(axes, values.ndim)
        rows = math.prod(values.shape[axis] for axis in where)
        self._check(states, values, rows, valid, codes)
        values = values.astype(self.scheme.work, copy=False)
        grouped = codes is not None
        picked = np.zeros(0, np.int64) if codes is None else np.ascontiguousarray(codes, np.int64).reshape(-1)
        layout = Layout.of(values, where, valid)
        if values.size:
            geometry = layout.geometry(
                states.cells * states.groups,
                states.lanes,
                states.position,
                states.origin,
                grouped,
                self._cell_bytes,
                states.stride,
            )
            loop = self._loops["fold" if valid is None else "fold_masked"]
            counts = self._count(states, rows, codes) if self.scheme.counted >= 0 else []
            with np.errstate(all="ignore"):
                loop(*states.arrays, *counts, layout.flat, layout.mask, _frozen(picked), geometry, *self._params)
        states.position += rows

    def _count(self, states: States, rows: int, codes: Array | None) -> list[Array]:
        """Count some positions as seen; what counts the missing ones, wide enough for them."""
        lanes, groups = states.lanes, states.groups
        at = (states.position + np.arange(rows if codes is not None else rows % lanes)) % lanes * groups
        if codes is None:
            states.seen += rows // lanes
        else:
            at = (at + codes.reshape(-1))[codes.reshape(-1) >= 0]
        states.seen += np.bincount(at, minlength=lanes * groups)
        if states.position + rows > MOST_MISSING and states.missing.dtype == np.int32:
            states.missing = states.missing.astype(np.int64)
        return [states.missing, states.holes]

    def _counted(self, states: States, lane: int, lo: int, hi: int) -> Array:
        """The number of values of some cells of a lane, in int64."""
        cells, found = max(states.cells, 1), np.empty(hi - lo, np.int64)
        for group in range(lo // cells, -(-hi // cells)):
            at = slice(max(group * cells - lo, 0), (group + 1) * cells - lo)
            found[at] = states.seen[lane * states.groups + group]
        if states.holes[0]:
            found -= states.missing.reshape(states.lanes, -1)[lane, lo:hi]
        return found

    def _closed(self, states: States, lane: int, lo: int, hi: int) -> list[Array]:
        """All fields of some cells of a lane, flat; views but for a count."""
        parts = [array.reshape(states.lanes, -1)[lane, lo * size : hi * size]
                 for array, (_, _, size) in zip(states.arrays, self._streamed, strict=True)]
        if self.scheme.counted >= 0:
            parts.insert(self.scheme.counted, self._counted(states, lane, lo, hi))
        return parts

    def close(self, states: States) -> list[Array]:
        """The segment's states, lanes merged in order: one (groups * cells, size) array per field."""
        n = states.cells * states.groups
        first = self._closed(states, 0, 0, n)
        if states.lanes > 1:
            first = [part.copy() for part in first]
        for lane in range(1, states.lanes):
            self._join(first, self._closed(states, lane, 0, n), n)
        return [flat.reshape(n, size) for flat, (_, _, size) in zip(first, self.scheme.fields, strict=True)]

    def merge(self, first: Sequence[Array], later: Sequence[Array]) -> list[Array]:
        """The states of two closed runs, `first` before `later`; neither is changed."""
        joined = [np.array(array, order="C") for array in first]
        shapes = [array.shape for array in joined]
        if shapes != [np.shape(array) for array in later]:
            raise ParameterError(
                f"states of reduction {self.scheme.name!r} differ in shape: {shapes} and "
                f"{[np.shape(array) for array in later]}",
                hint="merge states of the same cells",
            )
        after = [np.array(array, order="C").reshape(-1) for array in later]
        self._join([array.reshape(-1) for array in joined], after, shapes[0][0])
        return joined

    def finish(self, states: Sequence[Array], *, last: bool = False) -> list[Fixed]:
        """The output columns of closed states: (n,) arrays, or (n, *new dimensions).

        Args:
            states: of some cells.
            last: nobody needs them any more, so a reduction's function may change them, and they aren't copied.
        """
        sizes = [size for _, _, size in self.scheme.fields]

        def part(lo: int, hi: int) -> list[Array]:
            cut = [array[lo:hi] for array in states]
            cut = [np.require(a, requirements=["C", "W"]) if last else np.array(a, order="C") for a in cut]
            return [array.reshape((hi - lo) * size) for array, size in zip(cut, sizes, strict=True)]

        return self._columns(len(states[0]), part)

    def results(self, states: States) -> list[Fixed]:
        """The output columns of states that nobody needs any more: as `finish` of `close`, with less memory."""
        if states.lanes > 1:
            return self.finish(self.close(states), last=True)
        return self._columns(states.cells * states.groups, lambda lo, hi: self._closed(states, 0, lo, hi))

    def _columns(self, n: int, part: Callable[[int, int], list[Array]]) -> list[Fixed]:
        """The output columns of n cells, whose closed states `part` gives, flat, to be changed."""
        known = self.scheme.outputs
        columns = [Fixed(np.zeros((n, *(extent for _, extent in out.dims)), out.dtype),
                         np.ones((n, *(extent for _, extent in out.dims)), bool) if out.nullable else None)
                   for out in known]
        for lo in range(0, n, BLOCK):
            hi = min(lo + BLOCK, n)
            parts, filled = part(lo, hi), [columns[i] for i in self.scheme.filled]
            for i in set(range(len(columns))) - set(self.scheme.filled):
                columns[i].values[lo:hi] = parts[self.scheme.counted]
            targets = [column.values[lo:hi].reshape(-1) for column in filled]
            # Numba computes in float32 where NumPy stores float16.
            outs = [target.astype(np.float32) if target.dtype == np.float16 else target for target in targets]
            valids = [np.ones(len(out), bool) if column.valid is None else column.valid[lo:hi].reshape(-1)
                      for out, column in zip(outs, filled, strict=True)]
            self.finish_cells(parts, outs, valids, hi - lo)
            for target, values in zip(targets, outs, strict=True):
                if values is not target:
                    target[...] = values
        return columns

    def finish_cells(self, parts: list[Array], outs: list[Array], valids: list[Array], n: int) -> None:
        """The outputs of n cells but for counts, into zeros, and whether they are valid, into what is true; all flat.

        Args:
            parts: their closed states; may change.
            outs: for each of these outputs, float32 where it is float16.
            valids: for each of them, as many.
            n: their number.
        """
        with np.errstate(all="ignore"):
            self._loops["finish"](*parts, *outs, *valids, n, *self._params)
            for values, there in zip(outs, valids, strict=True):
                if not there.all():
                    values[~there] = np.nan if values.dtype.kind in "fc" else 0

    def _join(self, first: list[Array], later: list[Array], n: int) -> None:
        with np.errstate(all="ignore"):
            self._loops["join"](*first, *later, n, *self._params)

    def _check(
        self, states: States, values: Array, rows: int, valid: Array | None, codes: Array | None
    ) -> None:
        name = self.scheme.name
        if values.dtype.newbyteorder("=") != self.scheme.dtype:
            raise ParameterError(
                f"reduction {name!r} is compiled for {self.scheme.dtype}, not {values.dtype}",
                hint="call compiled() with the column's dtype",
            )
        if self.scheme.length and states.origin + states.position + rows > self.scheme.length:
            raise ParameterError(f"reduction {name!r} knows {self.scheme.length} positions, but there are more values")
        if rows * states.cells != values.size:
            raise ParameterError(
                f"reduction {name!r} keeps {states.cells} cells, which a chunk of shape "
                f"{values.shape} with {rows} reduced positions doesn't have"
            )
        if valid is not None and (valid.shape != values.shape or valid.dtype != np.bool_):
            raise ParameterError(
                f"reduction {name!r} needs a boolean validity of shape {values.shape}, got "
                f"{valid.dtype} of shape {valid.shape}"
            )
        if codes is None:
            if states.groups != 1:
                raise ParameterError(f"reduction {name!r} has {states.groups} groups but got no codes")
            return
        if codes.size != rows or codes.dtype.kind not in "iu":
            raise ParameterError(
                f"reduction {name!r} needs {rows} integer codes, one per reduced position, "
                f"got {codes.size} of dtype {codes.dtype}"
            )
        # The loops don't check bounds: a code out of range would write outside the states.
        if codes.size and (int(codes.max()) >= states.groups or int(codes.min()) < -1):
            raise ParameterError(
                f"codes of reduction {name!r} reach from {codes.min()} to {codes.max()}",
                hint=f"codes are 0 to {states.groups - 1}, or -1 to drop a position",
            )


def axes_of(axes: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """Axes as sorted numbers from 0; None is all of them.

    Raises:
        DimensionError: an axis out of range, or named twice.
    """
    if axes is None:
        return tuple(range(ndim))
    given = [axes] if isinstance(axes, int) else list(axes)
    found = sorted({axis + ndim if axis < 0 else axis for axis in given})
    if len(found) != len(given) or (found and (found[0] < 0 or found[-1] >= ndim)):
        raise DimensionError(f"axes {tuple(given)} don't name distinct axes of an array with {ndim}")
    return tuple(found)


def _frozen(array: Array) -> Array:
    """A read-only view: numba compiles a function again for each mix of writable and read-only arguments."""
    view = array.view()
    view.flags.writeable = False
    return view
