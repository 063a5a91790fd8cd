"""Python's operators as elementwise arithmetic on lazy values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from gridcompute.errors import ParameterError

Number = float | int | bool


class Arithmetic:
    """Operators in terms of one method, `_with(ufunc, *operands)`, that names a NumPy function."""

    __array_priority__ = 1000  # NumPy's operators give way to ours

    def _with(self, ufunc: str, *operands: Any, reverse: bool = False) -> Self:
        raise TypeError(f"{type(self).__name__} has no {ufunc}")

    def __add__(self, other: Self | Number) -> Self:
        return self._with("add", other)

    def __radd__(self, other: Number) -> Self:
        return self._with("add", other, reverse=True)

    def __sub__(self, other: Self | Number) -> Self:
        return self._with("subtract", other)

    def __rsub__(self, other: Number) -> Self:
        return self._with("subtract", other, reverse=True)

    def __mul__(self, other: Self | Number) -> Self:
        return self._with("multiply", other)

    def __rmul__(self, other: Number) -> Self:
        return self._with("multiply", other, reverse=True)

    def __truediv__(self, other: Self | Number) -> Self:
        return self._with("true_divide", other)

    def __rtruediv__(self, other: Number) -> Self:
        return self._with("true_divide", other, reverse=True)

    def __floordiv__(self, other: Self | Number) -> Self:
        return self._with("floor_divide", other)

    def __rfloordiv__(self, other: Number) -> Self:
        return self._with("floor_divide", other, reverse=True)

    def __mod__(self, other: Self | Number) -> Self:
        return self._with("remainder", other)

    def __rmod__(self, other: Number) -> Self:
        return self._with("remainder", other, reverse=True)

    def __pow__(self, other: Self | Number) -> Self:
        return self._with("power", other)

    def __rpow__(self, other: Number) -> Self:
        return self._with("power", other, reverse=True)

    def __neg__(self) -> Self:
        return self._with("negative")

    def __abs__(self) -> Self:
        return self._with("absolute")

    def __invert__(self) -> Self:
        return self._with("logical_not")

    def __and__(self, other: Self | Number) -> Self:
        return self._with("logical_and", other)

    def __rand__(self, other: Number) -> Self:
        return self._with("logical_and", other, reverse=True)

    def __or__(self, other: Self | Number) -> Self:
        return self._with("logical_or", other)

    def __ror__(self, other: Number) -> Self:
        return self._with("logical_or", other, reverse=True)

    def __lt__(self, other: Self | Number) -> Self:
        return self._with("less", other)

    def __le__(self, other: Self | Number) -> Self:
        return self._with("less_equal", other)

    def __gt__(self, other: Self | Number) -> Self:
        return self._with("greater", other)

    def __ge__(self, other: Self | Number) -> Self:
        return self._with("greater_equal", other)

    def __eq__(self, other: object) -> Any:
        return self._with("equal", other)

    def __ne__(self, other: object) -> Any:
        return self._with("not_equal", other)

    def isin(self, values: Iterable[Any]) -> Self:
        """Whether a cell equals any of the values, as `==` does: null where the cell is.

        Args:
            values: numbers, text or dates, as many as you like.

        Raises:
            ParameterError: a value that the column doesn't compare with.
        """
        if isinstance(values, str | Arithmetic) or not hasattr(type(values), "__iter__"):
            raise ParameterError(f"isin takes several values, not {values!r}", hint="write a list: isin(['a', 'b'])")
        return self._with("isin", list(values))

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise ParameterError("a collection has no truth value before it is computed",
                             hint="use grid.run, or & | ~ for conditions")
