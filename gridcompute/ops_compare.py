"""Building ops that compare, also text, beside the plain arithmetic of numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gridcompute.access import Point
from gridcompute.actions.maps import SIGNS, Elementwise, Place
from gridcompute.columns import Field
from gridcompute.errors import ParameterError
from gridcompute.op import Op
from gridcompute.ops import Ref, arithmetic, field_of, gathered, joint_space
from gridcompute.times import COMPARED, Moment, counted, require_moment


def elementwise(ufunc: str, operands: Sequence[Any], label: str) -> Op:
    """A NumPy function, or `isin`, over columns and plain values.

    Raises:
        ParameterError: a value that no column goes with, or not this one; see `ops.arithmetic`.
    """
    columns = [one for one in operands if _is_column(one)]
    if ufunc == "isin":
        return _is_in(columns[0], operands[1], label)
    for one in operands:
        if not (_is_column(one) or isinstance(one, bool | int | float | np.generic | Moment)):
            hint = "use isin" if isinstance(one, list | tuple | np.ndarray) else "use a number or a collection"
            raise ParameterError(f"no arithmetic with a {type(one).__name__}", hint=hint)
    if ufunc in COMPARED and any(field_of(ref).kind == "string" for ref in columns):
        return _compare_text(ufunc, operands, columns, label)
    return arithmetic(ufunc, operands, label)


def _is_column(one: Any) -> bool:
    return isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], Op)


def _compare_text(ufunc: str, operands: Sequence[Any], refs: Sequence[Ref], label: str) -> Op:
    fields = [field_of(ref) for ref in refs]
    first = next(f for f in fields if f.kind == "string")
    odd = [one for one in operands if not _is_column(one) and not isinstance(one, str)]
    others = [f for f in fields if f.kind != "string"]
    if odd or others:
        named = repr(odd[0]) if odd else f"column {others[0].name!r} ({others[0].dtype})"
        raise ParameterError(f"column {first.name!r} holds text, which {SIGNS[ufunc]} doesn't compare with {named}",
                             hint=f"compare it with text: column {SIGNS[ufunc]} 'bern'")
    if len({f.dims for f in fields}) > 1:
        raise ParameterError(f"the texts {fields[0].name!r} and {fields[1].name!r} aren't of the same cells",
                             hint="compare columns of one table")
    plain = [_plain_text(one) for one in operands if not _is_column(one)]
    return _condition(lambda places: Elementwise(ufunc, (*places, *plain)), refs, label)


def _is_in(ref: Ref, values: Sequence[Any], label: str) -> Op:
    field = field_of(ref)
    if field.kind == "list":
        raise ParameterError(f"column {field.name!r} holds a list a cell: isin doesn't look into it",
                             hint="map a kernel over it")
    if field.kind == "string":
        odd = next((one for one in values if not isinstance(one, str)), None)
        if odd is not None:
            raise ParameterError(f"column {field.name!r} holds text, isin looks for {odd!r} in it", hint="give text")
        among: list[float | int | bool | str] = [_plain_text(one) for one in values]
    else:
        among = [number for one in values for number in _held(_number(one, field), field.dtype)]
    return _condition(lambda places: Elementwise("isin", places, tuple(dict.fromkeys(among))), [ref], label)


def _condition(action: Callable[[tuple[Place, ...]], Elementwise], refs: Sequence[Ref], label: str) -> Op:
    ops, places = gathered(refs)
    space, done = joint_space(refs), action(places)
    field = Field(label, space.names, np.dtype(bool), nullable=any(field_of(ref).nullable for ref in refs))
    return Op(done, ops, (Point,) * len(ops), space, (field,), done.ufunc)


def _plain_text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ParameterError(f"{value!r} isn't text: UTF-8 has no bytes for it") from None
    return str(value)


def _number(value: Any, field: Field) -> float | int | bool:
    if isinstance(value, Moment):
        return counted(value, field)[0]
    number = value.item() if isinstance(value, np.generic) else value
    if not isinstance(number, bool | int | float):
        raise ParameterError(f"column {field.name!r} ({field.dtype}) doesn't compare with {value!r}",
                             hint="give numbers or dates")
    require_moment(number, field)
    if number != number:
        raise ParameterError("NaN equals nothing", hint="isnull() finds the gaps")
    return number


def _held(number: float | int | bool, dtype: np.dtype[Any]) -> list[float | int | bool]:
    """The number as one of a dtype; none where no cell of that dtype equals it, as NumPy compares them."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return [dtype.type(number).item()] if abs(number) < 2**1023 else [float(number)] if np.isinf(number) else []
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return [int(number)] if low <= number <= high and int(number) == number else []
