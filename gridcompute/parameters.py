"""Parameters of workloads: read from a function's signature, with help from its docstring."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gridcompute.errors import ParameterError

TYPES = (str, int, float, bool, Path)
"""Types that a workload's parameter may have; each also as `T | None`."""

_ARGS = re.compile(r"^(Args|Arguments|Parameters|Returns|Raises|Examples?|Yields|Notes?):\s*$")
_ITEM = re.compile(r"^(\*{0,2}\w+)(?:\s*\([^)]*\))?:\s*(.*)$")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a workload.

    Attributes:
        name: in the signature; the command line's option is `--name`, with hyphens for underscores.
        type: str, int, float, bool or Path.
        default: its default; `inspect.Parameter.empty` where it must be given.
        help: from the docstring's Args.
        optional: whether None is a value of it.
    """

    name: str
    type: type
    default: Any
    help: str = ""
    optional: bool = False

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is inspect.Parameter.empty

    @property
    def option(self) -> str:
        """The command line's option."""
        return "--" + self.name.replace("_", "-")

    def cast(self, value: Any) -> Any:
        """A value as the function wants it; a record keeps paths as text.

        Raises:
            ParameterError: it is of another type.
        """
        if value is None and self.optional:
            return None
        kind = float if self.type is float and isinstance(value, int) and not isinstance(value, bool) else type(value)
        if kind is float and self.type is float:
            return float(value)
        if self.type is Path and isinstance(value, str | Path):
            return Path(value)
        if kind is not self.type:
            raise ParameterError(
                f"{self.name} is {value!r}, a {type(value).__name__}", hint=f"give a {self.type.__name__}"
            )
        return value


def parameters(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    """A function's parameters, with help from its docstring's Args.

    Raises:
        ParameterError: one without a type, of a type that a command line can't give, or a starred one.
    """
    name = getattr(function, "__name__", "function")
    try:
        hints = typing.get_type_hints(function)
    except Exception as error:
        raise ParameterError(f"the types of {name} can't be read: {error}") from error
    helps, found = described(function)[1], []
    for parameter in inspect.signature(function).parameters.values():
        where = f"parameter {parameter.name!r} of {name}"
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ParameterError(
                f"{where} is {parameter.kind.description}", hint="a workload has plain named parameters"
            )
        hint, optional = _plain(hints.get(parameter.name))
        if hint not in TYPES:
            raise ParameterError(
                f"{where} has the type {hint!r}", hint=f"one of {', '.join(t.__name__ for t in TYPES)}"
            )
        found.append(Parameter(parameter.name, hint, parameter.default, helps.get(parameter.name, ""), optional))
    return tuple(found)


def _plain(hint: Any) -> tuple[Any, bool]:
    """A type without None, and whether None was among it."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        rest = [one for one in typing.get_args(hint) if one is not type(None)]
        return (rest[0] if len(rest) == 1 else hint), len(rest) < len(typing.get_args(hint))
    return hint, False


def described(function: Callable[..., Any]) -> tuple[str, dict[str, str], str]:
    """A docstring's text before its sections, the help of each argument, and its examples."""
    text, helps, examples = [], {}, []
    section, name, indent = "", "", 0
    for line in (inspect.getdoc(function) or "").splitlines():
        match = _ARGS.match(line)
        if match:
            section, name = match[1], ""
        elif not section:
            text.append(line)
        elif section.startswith("Example"):
            examples.append(line)
        elif section in ("Args", "Arguments", "Parameters") and line.strip():
            depth = len(line) - len(line.lstrip())
            item = _ITEM.match(line.strip())
            if item and (not name or depth <= indent):
                name, indent = item[1].lstrip("*"), depth
                helps[name] = item[2]
            elif name:
                helps[name] = f"{helps[name]} {line.strip()}".strip()
    return "\n".join(text).strip(), helps, inspect.cleandoc("\n".join(examples))
