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
import traceback
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from itertools import accumulate
from pathlib import Path
from typing import Any

from gridcompute.collection import Collection
from gridcompute.destined import Destined, unrun_unsaid
from gridcompute.errors import GridError, ParameterError, RunError
from gridcompute.parameters import Parameter, described, parameters
from gridcompute.running import Run

GROUP = "gridcompute.workloads"
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


def together(*jobs: Job) -> Job:
    """Several jobs as one: they are computed in one run, where those that read the same data go over it once.

    Each one's `finish` is called with its own part of the run.

    Raises:
        ParameterError: no job, or something else.
    """
    for job in jobs or (None,):
        if not isinstance(job, Job):
            raise ParameterError(f"together takes jobs, not {type(job).__name__}", hint="a workload gives one")
    ends = list(accumulate(len(job.outputs) for job in jobs))

    def finish(run: Run) -> Iterator[str | Path]:
        for job, end in zip(jobs, ends, strict=True):
            yield from job.finish(run.part(end - len(job.outputs), end))

    lines = list(dict.fromkeys(line for job in jobs for line in job.lines))
    return Job([output for job in jobs for output in job.outputs], finish, lines)


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
        except GridError as error:
            with unrun_unsaid():
                traceback.clear_frames(error.__traceback__)  # outputs made before it was refused go now, and unsaid
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


FOLDER = "output"
"""The parameter that names a folder where several workloads have it."""


@dataclass(frozen=True)
class Together(Workload):
    """Several workloads in one run; each gets those of the parameters that it has.

    Attributes:
        members: the workloads, in order.
    """

    members: tuple[Workload, ...] = ()

    @cached_property
    def function(self) -> Callable[..., Job]:
        """What carries the text of the help."""

        def function() -> Job:
            return self()

        listed = "\n".join(f"    {one.name}: {one.summary}" for one in self.members)
        function.__doc__ = (
            f"Several workloads in one run, which reads what they share once.\n\n\b\n{listed}\n\n"
            "Each gets those of the options that it has; its own --help describes them and their defaults. "
            "--output names a folder, in which each output has its default name."
        )
        return function

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """Those of all, each once.

        Raises:
            ParameterError: two workloads have one of the same name and different types.
        """
        found: dict[str, Parameter] = {}
        owners: dict[str, list[str]] = {}
        for one in self.members:
            for parameter in one.parameters:
                first = found.setdefault(parameter.name, parameter)
                if (first.type, first.optional) != (parameter.type, parameter.optional):
                    raise ParameterError(f"{parameter.option} of {one.name} isn't that of {owners[parameter.name][0]}",
                                         hint="run them one after the other")
                owners.setdefault(parameter.name, []).append(one.name)
        return tuple(
            replace(one, default=one.default if one.required or len(owners[name]) == 1 else _unsaid(one),
                    help=_told(one, owners[name], len(self.members)))
            for name, one in found.items()
        )  # fmt: skip

    def __call__(self, **given: Any) -> Job:
        """Build the job of all; see `Workload`.

        Raises:
            ParameterError: as for one; or a picture of one name for several.
        """
        known = {p.name: p for p in self.parameters}
        for name in given:
            if name not in known:
                raise ParameterError(f"{self.name} has no parameter {name!r}", hint=_meant(name, known, "parameters"))
        drawn = [one.name for one in self.members if "picture" in {p.name for p in one.parameters}]
        if len(drawn) > 1 and given.get("picture") not in (None, "", "none"):
            raise ParameterError(f"{', '.join(drawn)} would all draw {given['picture']}",
                                 hint='leave --picture away: each is drawn beside its output; or "none"')
        with unrun_unsaid():  # of those that were built before another is refused
            return together(*(one(**self._own(one, given)) for one in self.members))

    def _own(self, one: Workload, given: Mapping[str, Any]) -> dict[str, Any]:
        """What one of the workloads is given."""
        own = {p.name: given[p.name] for p in one.parameters if p.name in given}
        default = next((p.default for p in one.parameters if p.name == FOLDER), None)
        if own.get(FOLDER) and isinstance(default, str) and default:
            own[FOLDER] = f"{str(own[FOLDER]).rstrip('/')}/{default}"
        return own


def _unsaid(parameter: Parameter) -> Any:
    """A default of a parameter that several workloads have, each with its own."""
    return None if parameter.optional else "" if parameter.type in (str, Path) else parameter.default


def _told(parameter: Parameter, owners: Sequence[str], of: int) -> str:
    if parameter.name == FOLDER and len(owners) > 1:
        return "folder of the outputs, each of which has its default name."
    return parameter.help if len(owners) == of else f"{parameter.help} ({', '.join(owners)})"


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
    """The workload of a name; of several names, with blanks between them, all in one run.

    Raises:
        ParameterError: there is none, or one stands twice; names what may be meant.
    """
    known = {w.name: w for w in registered()}
    several = name.split()
    if len(several) > 1:
        members = tuple(find(one) for one in several)
        if twice := [one for one in several if several.count(one) > 1]:
            raise ParameterError(f"the workload {twice[0]} stands twice", hint="run it once for each set of parameters")
        return Together(name, members[0].entry, members)
    if name in known:
        return known[name]
    raise ParameterError(f"no workload {name!r}", hint=_meant(name, known, "workloads"))


def workload(name: str) -> Workload:
    """A registered workload by name: `job = grid.workload("climate.trend")(output="trend.zarr")`, then
    `grid.run(*job.outputs)`. Several names with blanks between them are several workloads in one run.

    Raises:
        ParameterError: there is none of this name.
    """
    return find(name)


def _meant(name: str, known: Iterable[str], what: str) -> str:
    near = difflib.get_close_matches(name, list(known), 1, 0.5)
    listed = f"the {what}: {', '.join(known) or 'none'}"
    return f"did you mean {near[0]}? ({listed})" if near else listed
