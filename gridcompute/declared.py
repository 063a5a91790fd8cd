"""What a kernel is declared with and given, checked one thing at a time."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gridcompute.errors import ParameterError, UsageError


def check_function(func: Any) -> None:
    """Refuse what isn't a plain Python function (UsageError)."""
    if not inspect.isfunction(func):
        raise UsageError(
            f"a kernel is made of a function, not of {type(func).__name__} {func!r}",
            hint="define a function with def, or bind parameters by keyword when it is mapped",
        )
    if inspect.iscoroutinefunction(func) or inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func):
        raise UsageError(f"a kernel returns its values, but {func.__name__} awaits or yields", hint="use return")


def dtypes_of(kernel: str, dtypes: Iterable[Any]) -> tuple[np.dtype[Any], ...]:
    """One dtype per output, as they are declared.

    Raises:
        ParameterError: not a dtype, or one that has no place in a column.
    """
    if isinstance(dtypes, (str, type, np.dtype)):
        dtypes = (dtypes,)
    try:
        found = tuple(np.dtype(one) for one in dtypes)
    except TypeError as error:
        raise ParameterError(f"kernel {kernel}: {error}", hint="dtypes takes one NumPy dtype per output") from None
    for dtype in found:
        if dtype.hasobject or dtype.kind not in "biufcSmM" or dtype.char in "gG":
            raise ParameterError(f"kernel {kernel}: an output can't have the dtype {dtype}")
    return found


def mapping_of(kernel: str, what: str, value: Any) -> Mapping[Any, Any]:
    """A mapping, an empty one for None; ParameterError for anything else."""
    if value is not None and not isinstance(value, Mapping):
        raise ParameterError(f"kernel {kernel}: {what} is {value!r:.60}", hint=f"give a mapping: {what}={{...}}")
    return value or {}


def texts_of(kernel: str, what: str, value: Any) -> tuple[str, ...]:
    """One text or several as a tuple; ParameterError for anything else."""
    found = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else (None,)
    if not all(isinstance(one, str) for one in found):
        raise ParameterError(f"kernel {kernel}: {what} is {value!r:.60}", hint="give texts")
    return found


def check_parameter(kernel: str, name: str, value: Any) -> None:
    """Refuse a value that a kernel can't take as a parameter (ParameterError)."""
    if isinstance(value, tuple):
        for i, part in enumerate(value):
            check_parameter(kernel, f"{name}[{i}]", part)
        return
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject or type(value) not in (np.ndarray, np.memmap):
            raise ParameterError(
                f"kernel {kernel}: parameter {name} is a {type(value).__name__} of dtype {value.dtype}",
                hint="pass a plain array of numbers",
            )
        return
    if not isinstance(value, (bool, int, float, complex, str, np.generic)):
        raise ParameterError(
            f"kernel {kernel}: parameter {name} is a {type(value).__name__}",
            hint="pass a scalar, a NumPy array, or a named tuple of them",
        )
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ParameterError(f"kernel {kernel}: parameter {name} is {value:.6g}, which no 64 bits hold",
                             hint="pass it as a float, or in parts")
