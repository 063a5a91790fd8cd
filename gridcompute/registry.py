"""Workloads: typed Python functions that build a graph from parameters, registered by entry points.

A package adds its own under the group `gridcompute.workloads`; nothing else is needed:

    [project.entry-points."gridcompute.workloads"]
    "ocean.heat" = "my_package.ocean:heat"

    def heat(input: str, depth: float = 700.0, output: str = "heat.zarr") -> Job:
        \"\"\"Heat content of the upper ocean.

Args:
            input: any dataset that xarray reads.
            depth: in metres.
            output: Zarr store to write.
        \"\"\"
        ...
        return Job([collection.write(output)], finish=lambda run: [draw(run)])

`gridcompute run ocean.heat --depth 300` then works, with `--help` made of the signature and the docstring.
"""

from __future__ import annotations

import difflib
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from gridcompute.collection import Collection
from gridcompute.destined import Destined
from gridcompute.errors import GridError, ParameterError, RunError
from gridcompute.running import Run

GROUP = "gridcompute.workloads"
TYPES = (str, int, float, bool, Path)
"""Types that a workload's parameter may have; each also as `T | None`."""

_ARGS = re.compile(r"^(Args|Arguments|Parameters|Returns|Raises|Examples?|Yields|Notes?):\s*$")
_ITEM = re.compile(r"^(\*{0,2}\w+)(?:\s*\([^)]*\))?:\s*(.*)$")

Finish = Callable[[Run], Iterable[str | Path]]


def _nothing(run: Run) -> Iterable[str | Path]:
    return ()


@dataclass(frozen=True)
class Job:
    """What a workload builds.

    Attributes:
        outputs: what is computed, in one run.
        finish: called with the finished run: draws pictures and the like; gives lines for the summary, and the paths
            of the files that it wrote. It may be called again when the run is resumed.
        lines: what should be said before the run, such as which data are used by default.
    """

    outputs: Sequence[Collection | Destined]
    finish: Finish = _nothing
    lines: Sequence[str] = ()


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


@dataclass(frozen=True)
class Workload:
    """A registered workload; call it with its parameters to get its Job.

    Attributes:
        name: as on the command line.
        entry: where it comes from.
    """

    name: str
    entry: EntryPoint

    @cached_property
    def function(self) -> Callable[..., Job]:
        """The function.

        Raises:
            ParameterError: it can't be imported, or isn't one.
        """
        try:
            found = self.entry.load()
        except Exception as error:  # whatever a third party's module raises when it is imported
            raise ParameterError(
                f"the workload {self.name} can't be loaded from {self.entry.value}: {type(error).__name__}: {error}",
                hint=f"reinstall {self.package or 'its package'}",
            ) from error
        if not callable(found):
            raise ParameterError(f"the workload {self.name} ({self.entry.value}) isn't a function")
        return typing.cast("Callable[..., Job]", found)

    @property
    def package(self) -> str:
        """The distribution that registered it."""
        return self.entry.dist.name if self.entry.dist is not None else ""

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """Its parameters; see `parameters`."""
        return parameters(self.function)

    @property
    def summary(self) -> str:
        """The docstring's first line."""
        return described(self.function)[0].splitlines()[0] if described(self.function)[0] else ""

    def __call__(self, **given: Any) -> Job:
        """Build the job.

        Raises:
            ParameterError: a parameter that it doesn't have, of another type, or missing.
            RunError: its function fails.
        """
        known = {p.name: p for p in self.parameters}
        for name in given:
            if name not in known:
                raise ParameterError(f"{self.name} has no parameter {name!r}", hint=_meant(name, known, "parameters"))
        missing = [p for p in self.parameters if p.required and p.name not in given]
        if missing:
            raise ParameterError(f"{self.name} needs {missing[0].option}", hint=missing[0].help or "give it")
        values = {name: known[name].cast(value) for name, value in given.items()}
        try:
            job = self.function(**values)
        except GridError:
            raise
        except Exception as error:  # whatever a third party's function raises
            raise RunError(
                f"the workload {self.name} can't build its job: {type(error).__name__}: {error}",
                hint="check its parameters; GRIDCOMPUTE_DEBUG=1 shows where",
            ) from error
        if not isinstance(job, Job):
            raise ParameterError(
                f"the workload {self.name} gave a {type(job).__name__}, not a Job",
                hint="return grid.Job([collection, ...])",
            )
        return job


def registered() -> list[Workload]:
    """All workloads of the installed packages, by name; nothing is imported.

    Raises:
        ParameterError: two packages registered the same name.
    """
    found: dict[str, Workload] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name):
        other = found.get(entry.name)
        if other is not None and other.entry.value != entry.value:
            raise ParameterError(
                f"two packages register the workload {entry.name}: {other.entry.value} and {entry.value}",
                hint="uninstall one of them",
            )
        found[entry.name] = Workload(entry.name, entry)
    return list(found.values())


def find(name: str) -> Workload:
    """The workload of a name.

    Raises:
        ParameterError: there is none; names what may be meant.
    """
    known = {w.name: w for w in registered()}
    if name in known:
        return known[name]
    raise ParameterError(f"no workload {name!r}", hint=_meant(name, known, "workloads"))


def workload(name: str) -> Workload:
    """A registered workload by name: `job = grid.workload("climate.trend")(output="trend.zarr")`, then
    `grid.run(*job.outputs)`.

    Raises:
        ParameterError: there is none of this name.
    """
    return find(name)


def _meant(name: str, known: Iterable[str], what: str) -> str:
    near = difflib.get_close_matches(name, list(known), 1, 0.5)
    listed = f"the {what}: {', '.join(known) or 'none'}"
    return f"did you mean {near[0]}? ({listed})" if near else listed


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
