"""Operators and methods of vectors in compiled kernels, as the classes of `lanes` have them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from numba.core import types
from numba.extending import overload, overload_method

from gridcompute.vectors import lowering
from gridcompute.vectors.lanes import half
from gridcompute.vectors.types import KindType, MaskType, VectorType, suits


def _bare(function: Any) -> Any:
    """Without annotations: numba wants those of the function and of what it gives to be the same."""
    function.__annotations__ = {}
    return function


def _operator(symbol: Any, suits: Callable[[Any, Any], bool], one: Any) -> None:
    @overload(symbol)
    @_bare
    def found(a: Any, b: Any) -> Any:
        return (lambda a, b: one(a, b)) if suits(a, b) else None


def _method(name: str, one: Any) -> None:
    @overload_method(VectorType, name)
    @_bare
    def found(a: Any, b: Any) -> Any:
        return (lambda a, b: one(a, b)) if a == b else None


def _same(kind: type) -> Callable[[Any, Any], bool]:
    return lambda a, b: isinstance(a, kind) and a == b


for _symbol, _one in lowering.OPERATORS.items():
    _in_place = getattr(operator, f"i{_symbol.__name__.strip('_')}")
    for _either in (_symbol, _in_place):
        _operator(_either, _same(VectorType), _one)
        if _symbol in (operator.and_, operator.or_, operator.xor):
            _operator(_either, _same(MaskType), _one)
for _symbol, _word in ((operator.eq, "=="), (operator.ne, "!="), (operator.lt, "<"), (operator.le, "<="),
                       (operator.gt, ">"), (operator.ge, ">=")):  # fmt: skip
    _operator(_symbol, _same(VectorType), lowering.compared(_word))
for _name, _one in lowering.METHODS.items():
    _method(_name, _one)
_low, _high = lowering.half_of(False), lowering.half_of(True)
_any, _all = lowering.reduced(False), lowering.reduced(True)


@overload(operator.invert)
@_bare
def _invert(a: Any) -> Any:
    return (lambda a: lowering.inverted(a)) if isinstance(a, VectorType | MaskType) else None


@overload_method(VectorType, "permute")
@_bare
def _permute_method(vector: Any, index: Any) -> Any:
    return (lambda vector, index: lowering.permute(vector, index)) if vector == index else None


@overload_method(VectorType, "store")
@_bare
def _store_method(vector: Any, array: Any, at: Any) -> Any:
    if suits(vector.kind, array) and isinstance(at, types.Integer) and array.mutable:
        return lambda vector, array, at: lowering.store(vector, array, at)
    return None


@overload_method(VectorType, "lane")
@_bare
def _lane_method(vector: Any, number: Any) -> Any:
    return (lambda vector, number: lowering.lane(vector, number)) if isinstance(number, types.Integer) else None


@overload_method(VectorType, "low")
@_bare
def _low_method(vector: Any) -> Any:
    return lambda vector: _low(vector)


@overload_method(VectorType, "high")
@_bare
def _high_method(vector: Any) -> Any:
    return lambda vector: _high(vector)


@overload_method(MaskType, "select")
@_bare
def _select_method(mask: Any, there: Any, elsewhere: Any) -> Any:
    if isinstance(there, VectorType) and there == elsewhere and there.kind.lanes == mask.lanes:
        return lambda mask, there, elsewhere: lowering.select(mask, there, elsewhere)
    return None


@overload_method(MaskType, "bits")
@_bare
def _bits_method(mask: Any) -> Any:
    return lambda mask: lowering.bits(mask)


@overload_method(MaskType, "any")
@_bare
def _any_method(mask: Any) -> Any:
    return lambda mask: _any(mask)


@overload_method(MaskType, "all")
@_bare
def _all_method(mask: Any) -> Any:
    return lambda mask: _all(mask)


@overload_method(KindType, "splat")
@_bare
def _splat_method(kind: Any, value: Any) -> Any:
    number = isinstance(value, types.Integer | types.Boolean)
    return (lambda kind, value: lowering.splat(kind, value)) if number else None


@overload_method(KindType, "ramp")
@_bare
def _ramp_method(kind: Any) -> Any:
    return lambda kind: lowering.ramp(kind)


@overload_method(KindType, "load")
@_bare
def _load_method(kind: Any, array: Any, at: Any) -> Any:
    if suits(kind.kind, array) and isinstance(at, types.Integer):
        return lambda kind, array, at: lowering.load(kind, array, at)
    return None


@overload_method(KindType, "of")
@_bare
def _of_method(kind: Any, vector: Any) -> Any:
    if isinstance(vector, VectorType) and vector.kind.lanes == kind.kind.lanes:
        return lambda kind, vector: lowering.of(kind, vector)
    return None


@overload_method(KindType, "join")
@_bare
def _join_method(kind: Any, low: Any, high: Any) -> Any:
    if isinstance(low, VectorType) and low == high and low.kind == half(kind.kind):
        return lambda kind, low, high: lowering.join(kind, low, high)
    return None
