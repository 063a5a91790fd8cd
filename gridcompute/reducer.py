"""A reduction as a value: what one output cell keeps, and how values, states and results follow from it.

A reduction folds the values of a column over some axes, in a fixed order, into one state per output cell; the
states of segments merge in a fixed tree; `final` turns a state into output columns. The bits depend on that
order alone, never on how a segment was cut into chunks or how memory lies.

>>> import numpy as np
>>> def init(s): s[0] = 0
>>> def step(s, x): s[0] += x * x
>>> def merge(s, t): s[0] += t[0]
>>> def final(s): return s[0] ** 0.5
>>> norm = reduction(state={"s": ("f8", 1)}, init=init, step=step, merge=merge, final=final, name="norm")
>>> float(norm.eager(np.array([3.0, 4.0]))[0].values)
5.0
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from gridcompute.columns import Array, Fixed
from gridcompute.errors import ParameterError
from gridcompute.fold import Fold, OutputField, Scheme, axes_of
from gridcompute.fold_loops import LANES, Functions
from gridcompute.keys import digest, function_key, unwrap

SCHEME = 2
"""Version of the fold's order, lanes and merges: part of every reduction's key."""


@dataclass(frozen=True)
class StateField:
    """One array of a state: `size` elements per output cell.

    `dtype` is a NumPy name, or "input" (the column's own), "sum" (float64 for floats, int64 for integers and
    bool, uint64 for unsigned, complex128 for complex), "mean" (float64, complex128 for complex) or "float" (the
    column's own if it is a float, else float64). One field may be a "count" (int64): the number of values taken in,
    which the fold itself keeps, and `step` doesn't get.
    """

    name: str
    dtype: str
    size: int = 1


@dataclass(frozen=True)
class Output:
    """One output column: a name, a dtype as in `StateField`, and the new dimensions it has, if any.

    `may_miss` says that a cell may have no value: it is NaN in a float or complex column, null in any other.
    A "count" (int64) is the state's: the fold gives it, and `final` doesn't get it.
    """

    name: str
    dtype: str
    dims: tuple[tuple[str, int], ...] = ()
    may_miss: bool = False

    @property
    def size(self) -> int:
        """Elements per output cell."""
        return math.prod(extent for _, extent in self.dims)


@dataclass(frozen=True, eq=False)
class Reduction:
    """What one output cell keeps and how it changes.

    The functions are compiled by numba; state, outs and params are one-dimensional arrays, one per field.

    Attributes:
        name: the reduction's name, also in messages.
        state: the state's fields.
        init: `init(*state, *params)` fills a fresh state, neutral to `merge` on either side.
        step: `step(*state, x, *params)` takes in one value (x, position where `positional`); without a count. x has the
            column's dtype; `np.float64(x)` widens it, compiled or not (numba's `float` leaves float32 as it
            is).
        merge: `merge(*state, *later, *params)` takes in the state of values that come later.
        final: `final(*state, *outs, *valids, *params)` fills the outputs; `valids` start out true. It may
            instead take no valids, or neither outs nor valids and return a scalar or a tuple of scalars.
        outputs: the output columns.
        params: numbers that the functions need (bin edges, levels): arrays without a compilation of their
            own.
        skipna: whether NaN is left out as a null is. Nulls always are.
        commutative: whether a narrow fold may use lanes: the result doesn't depend on order, rounding aside.
        positional: whether `step` takes the value's position too.
        kinds: NumPy's kind letters of the dtypes that can be reduced.
        coords: coordinates of new dimensions, by name.
        length: positions that a positional reduction knows, for instance by their x; 0 for any number.
    """

    name: str
    state: tuple[StateField, ...]
    init: Callable[..., Any]
    step: Callable[..., Any]
    merge: Callable[..., Any]
    final: Callable[..., Any]
    outputs: tuple[Output, ...]
    params: tuple[tuple[float, ...], ...] = ()
    skipna: bool = True
    commutative: bool = False
    positional: bool = False
    kinds: str = "biuf"
    coords: tuple[tuple[str, tuple[float, ...]], ...] = ()
    length: int = 0

    def __post_init__(self) -> None:
        if not self.state:
            raise ParameterError(
                f"reduction {self.name!r} has no state", hint="give at least one state field"
            )
        for part in self.state:
            if part.size < 1:
                where = f"state field {part.name!r} of reduction {self.name!r}"
                raise ParameterError(
                    f"{where} has size {part.size}", hint="a state field needs at least one element per cell"
                )
        if [part.size for part in self.state if part.dtype == "count"] not in ([], [1]):
            raise ParameterError(f"reduction {self.name!r} has several counts",
                                 hint="one field of size 1 may be a count")
        states, params = len(self.state), len(self.params)
        wanted = {"init": states, "step": states - (self.counted >= 0) + 1 + self.positional, "merge": 2 * states}
        for role, count in wanted.items():
            have = _arity(getattr(self, role))
            if have != count + params:
                where = f"{role} of reduction {self.name!r}"
                raise ParameterError(
                    f"{where} takes {have} arguments, not {count + params}",
                    hint=f"it gets {_shape_of_call(role, count, params, self.positional)}",
                )
        if len(self.filled) < len(self.outputs) and self.counted < 0:
            raise ParameterError(f"reduction {self.name!r} gives a count, but keeps none",
                                 hint="one state field of size 1 may be a count")
        self._final_style()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reduction) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @cached_property
    def key(self) -> str:
        """Hexadecimal digest of everything that determines the values.

        Raises:
            UnkeyableError: a function reads a value that can't enter a key.
        """
        functions = [function_key(f) for f in (self.init, self.step, self.merge, self.final)]
        return digest(
            (
                SCHEME,
                LANES,
                self.name,
                self.state,
                self.outputs,
                self.params,
                self.skipna,
                self.commutative,
                self.positional,
                self.kinds,
                self.coords,
                self.length,
                functions,
            )
        )

    @property
    def counted(self) -> int:
        """Number of the state field that is the count; -1 if there is none."""
        return next((i for i, part in enumerate(self.state) if part.dtype == "count"), -1)

    @property
    def filled(self) -> list[int]:
        """Numbers of the outputs that `final` fills: all but counts."""
        return [i for i, out in enumerate(self.outputs) if out.dtype != "count"]

    def _final_style(self) -> int:
        """0: returns values; 1: fills outs; 2: fills outs and valids."""
        extra = _arity(self.final) - len(self.state) - len(self.params)
        count = len(self.filled)
        if extra not in (0, count, 2 * count) or (extra == 0 and any(out.dims for out in self.outputs)):
            raise ParameterError(
                f"final of reduction {self.name!r} takes {_arity(self.final)} arguments: that fits no form",
                hint=f"it gets {len(self.state)} state arrays, then nothing, {count} outs, or {count} outs "
                f"and as many valids, then {len(self.params)} params; outputs with new dimensions need outs",
            )
        return extra // count

    def work_dtype(self, dtype: Any) -> np.dtype[Any]:
        """The dtype in which a column of `dtype` is folded: its own, but float32 for float16.

        Raises:
            ParameterError: the reduction doesn't take this dtype.
        """
        dtype = np.dtype(dtype).newbyteorder("=")
        if dtype.kind not in self.kinds or dtype.itemsize > (16 if dtype.kind == "c" else 8):
            raise ParameterError(
                f"reduction {self.name!r} can't take values of dtype {dtype}",
                hint="convert the column first, for instance to float64",
            )
        return np.dtype(np.float32) if dtype == np.float16 else dtype

    def state_fields(self, dtype: Any) -> list[tuple[str, np.dtype[Any], int]]:
        """(name, dtype, size) of each state array for a column of `dtype`."""
        work = self.work_dtype(dtype)
        return [(part.name, _resolve(part.dtype, work), part.size) for part in self.state]

    def state_bytes(self, dtype: Any) -> int:
        """Bytes of one output cell's state while it is folded; a count then is the 4 bytes of what was missing."""
        bytes_of = [kind.itemsize * size for _, kind, size in self.state_fields(dtype)]
        return sum(bytes_of) - (4 if self.counted >= 0 else 0)

    def output_fields(self, dtype: Any) -> list[OutputField]:
        """The output columns for a column of `dtype`."""
        self.work_dtype(dtype)
        fields = []
        for out in self.outputs:
            kind = _resolve(out.dtype, np.dtype(dtype).newbyteorder("="))
            fields.append(OutputField(out.name, kind, out.dims, out.may_miss and kind.kind not in "fc"))
        return fields

    def compiled(self, dtype: Any) -> Fold:
        """The operations on a column of `dtype`."""
        return _compiled(self, np.dtype(dtype).str)

    def eager(
        self,
        values: Array,
        axes: int | Sequence[int] | None = None,
        *,
        valid: Array | None = None,
        codes: Array | None = None,
        groups: int = 1,
    ) -> list[Fixed]:
        """Reduce one array in memory.

        Outputs have the shape (groups,) where codes are given, then the kept axes, then new dimensions.
        """
        values = np.asarray(values)
        where = axes_of(axes, values.ndim)
        kept = [n for axis, n in enumerate(values.shape) if axis not in where]
        fold = self.compiled(values.dtype)
        states = fold.empty(math.prod(kept), groups)
        fold.fold(states, values, where, valid=valid, codes=codes)
        shape = ([] if codes is None else [groups]) + kept
        columns = []
        for column, out in zip(fold.finish(fold.close(states)), self.outputs, strict=True):
            full = shape + [extent for _, extent in out.dims]
            present = None if column.valid is None else column.valid.reshape(full)
            columns.append(Fixed(column.values.reshape(full), present))
        return columns


def reduction(
    *,
    state: Mapping[str, str | tuple[str, int]],
    init: Callable[..., Any],
    step: Callable[..., Any],
    merge: Callable[..., Any],
    final: Callable[..., Any],
    dtype: str = "f8",
    name: str = "reduction",
    outputs: Sequence[Output] | None = None,
    skipna: bool = True,
    commutative: bool = False,
    kinds: str = "biuf",
) -> Reduction:
    """Make a reduction from four functions of one cell.

    Args:
        state: per field its dtype ("f8", "input", "sum", "mean", ...), or dtype and number of elements.
        init: `init(*state)` fills the arrays; a fresh state must be neutral to `merge`.
        step: `step(*state, x)` takes in one value.
        merge: `merge(*state, *later)` takes in the state of values that come later.
        final: `final(*state)` returns the result (a tuple for several outputs), or fills trailing arrays; see
            `Reduction`.
        dtype: dtype of the only output, where `outputs` isn't given.
        name: name of the reduction and of its only output.
        outputs: the output columns.
        skipna: leave NaN out, as nulls are.
        commutative: allow lanes, which make narrow folds faster; the order of values then isn't kept.
        kinds: NumPy's kind letters of the dtypes it takes.

    Raises:
        ParameterError: a function's number of arguments doesn't fit the state, or a dtype isn't known.
    """
    fields = []
    for part, spec in state.items():
        kind, size = (spec, 1) if isinstance(spec, str) else spec
        fields.append(StateField(part, kind, int(size)))
    columns = tuple(outputs) if outputs is not None else (Output(name, dtype),)
    for kind in [part.dtype for part in fields] + [out.dtype for out in columns]:
        _resolve(kind, np.dtype("f8"))
    return Reduction(
        name,
        tuple(fields),
        init,
        step,
        merge,
        final,
        columns,
        skipna=skipna,
        commutative=commutative,
        kinds=kinds,
    )


def _shape_of_call(role: str, count: int, params: int, positional: bool) -> str:
    if role == "step":
        parts = f"{count - 1 - positional} state arrays, one value" + (", its position" if positional else "")
    elif role == "merge":
        parts = f"{count // 2} state arrays, {count // 2} later state arrays"
    else:
        parts = f"{count} state arrays"
    return parts + (f", {params} parameter arrays" if params else "")


def _resolve(kind: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """A dtype of `StateField` for an input dtype."""
    if kind == "input" or (kind == "float" and dtype.kind == "f"):
        return dtype
    kind = {"float": "f8", "count": "i8"}.get(kind, kind)
    if kind == "mean" or (kind == "sum" and dtype.kind in "fc"):
        return np.dtype(np.complex128 if dtype.kind == "c" else np.float64)
    if kind == "sum":
        return np.dtype(np.uint64 if dtype.kind == "u" else np.int64)
    try:
        found = np.dtype(kind)
    except TypeError:
        found = np.dtype(object)
    if found.kind not in "biufc":
        raise ParameterError(
            f"{kind!r} is no dtype of a reduction's state or output",
            hint="use a NumPy number such as 'f8' or 'i8', or 'input', 'sum', 'mean', 'float', 'count'",
        )
    return found


def _arity(function: Callable[..., Any]) -> int:
    return len(inspect.signature(unwrap(function)).parameters)


def _functions(red: Reduction, dtype: np.dtype[Any]) -> Functions:
    return Functions(
        init=unwrap(red.init),
        step=unwrap(red.step),
        merge=unwrap(red.merge),
        final=unwrap(red.final),
        sizes=tuple(part.size for part in red.state),
        out_sizes=tuple(red.outputs[i].size for i in red.filled),
        params=len(red.params),
        positional=red.positional,
        drop_nan=red.skipna and dtype.kind in "fc",
        counted=red.counted,
        final_style=red._final_style(),
    )


@lru_cache(maxsize=256)
def _compiled(red: Reduction, dtype: str) -> Fold:
    kind = np.dtype(dtype).newbyteorder("=")
    work = red.work_dtype(kind)
    scheme = Scheme(
        red.name,
        kind,
        work,
        tuple(red.state_fields(kind)),
        tuple(red.output_fields(kind)),
        tuple(red.filled),
        red.params,
        red.commutative,
        red.counted,
        red.length,
    )

    return Fold(scheme, _functions(red, work))
