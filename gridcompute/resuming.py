"""Running what can be made again: workloads, scripts, and `grid.resume`, which goes on with an earlier run."""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gridcompute import api
from gridcompute.config import ENVIRONMENT, environment
from gridcompute.errors import GridError, ParameterError, RecordError
from gridcompute.origins import Origin, within
from gridcompute.record import KEPT, RunRecord, load
from gridcompute.registry import Job, find
from gridcompute.running import Run
from gridcompute.secrecy import MARK


@dataclass
class Carried:
    """A workload or script that was run.

    Attributes:
        runs: its runs, in order.
        files: what the workload's `finish` wrote.
        lines: what it said.
        code: exit code that a script asked for.
    """

    runs: list[Run] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    code: int = 0


def run_workload(
    name: str, given: Mapping[str, Any], options: Mapping[str, Any], *, origin: Origin | None = None
) -> Carried:
    """Build a workload's job, run it, and finish it.

    Args:
        name: of the workload.
        given: its parameters.
        options: of the run.
        origin: of a resumed run.

    Raises:
        GridError: why it can't be run, or why it failed.
    """
    made = origin or Origin({"workload": name, "parameters": plain(given)})
    with within(made):
        job: Job = find(name)(**given)
        run = api.run(*job.outputs, name=name, **options)
        carried = Carried(made.runs, lines=list(job.lines))
        for item in job.finish(run):
            if isinstance(item, Path):
                carried.files.append(Path(os.path.abspath(item)))
            else:
                carried.lines.append(str(item))
        run.record = run.record.finished(map(str, carried.files), carried.lines)
        with contextlib.suppress(GridError):  # of a run that is done nothing else needs its record
            run.record.save()
    return carried


def run_script(
    path: str | os.PathLike[str],
    arguments: Sequence[str],
    options: Mapping[str, Any] | None = None,
    *,
    origin: Origin | None = None,
) -> Carried:
    """Run a script as `python path arguments` would; its runs know how they came about.

    Args:
        path: of the script.
        arguments: of the script.
        options: settings for its runs where the script itself says nothing: they go by the environment.
        origin: of a resumed run.

    Raises:
        ParameterError: there is no such file, or it isn't Python.
        GridError: whatever the script doesn't catch.
    """
    script = Path(path).absolute()
    if not os.path.isfile(script):  # unlike Path's, also of names that no file can have
        raise ParameterError(
            f"no script {os.fspath(path)!r:.200}", hint="check the path; a workload's name has no slash and no .py"
        )
    made = origin or Origin({"script": str(script), "arguments": list(arguments)})
    carried = Carried(made.runs)
    with within(made), _started_as(script, arguments), _defaults(options or {}):
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SyntaxError as error:
            if error.filename not in (str(script), script.name):
                raise  # of something that it imports or makes
            raise ParameterError(f"{script}, line {error.lineno}, isn't Python: {error.msg}",
                                 hint="mend the script") from error
        except SystemExit as end:
            carried.code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)  # noqa: T201 - as Python itself does
    return carried


def resume(run: str, *, changed: bool = False, **options: Any) -> Run:
    """Go on with a run from what it had committed; in its folder, with its settings.

    Args:
        run: its name, the beginning of its name, or "last".
        changed: go on also where the graph isn't the same any more; what changed is computed anew.
        options: of the run, instead of those in its record.

    Returns:
        The finished run.

    Raises:
        RecordError: there is no such run, it is still running, its graph has changed, or it was made in a session,
            where running the cell again does the same.
        GridError: as `grid.run`.
    """
    return resume_record(load(run), changed=changed, **options)[0]


def resume_record(
    record: RunRecord, *, changed: bool = False, reports: bool = False, **options: Any
) -> tuple[Run, Carried]:
    """`resume` of a loaded record: the run, and all that its workload or script made; `reports` as in `Origin`."""
    if record.alive:
        raise RecordError(
            f"the run {record.run} is still running (process {record.pid})",
            hint=f"gridcompute status {record.run} shows it; gridcompute cancel {record.run} stops it",
        )
    how = how_made(record)
    carried = make_again(record, Origin(how, expected=record, changed=changed, reports=reports), options)
    made = [one for one in carried.runs if one.name == record.run]
    if not made:
        raise RecordError(
            f"{how.get('script', how.get('workload'))} doesn't make the run {record.run} any more",
            hint="run it anew; what was committed counts",
        )
    return made[0], carried


def how_made(record: RunRecord) -> dict[str, Any]:
    """How a run's graph is made, without the number of the call.

    Raises:
        RecordError: it was made in a session.
    """
    how = {key: value for key, value in record.how.items() if key != "call"}
    if MARK in repr(how):
        raise RecordError(
            f"the run {record.run} was started with a secret in its parameters, which isn't kept",
            hint="start it again as it was started: what was committed counts",
        )
    if not how:
        raise RecordError(
            f"the run {record.run} was made in a session, so it can't be made again from here",
            hint="run the cell again: what was committed counts",
        )
    return how


def make_again(record: RunRecord, origin: Origin, options: Mapping[str, Any]) -> Carried:
    """Call a run's workload or script again: in its folder, with its settings, but for the options given now."""
    how = origin.how
    # A script says itself what it doesn't leave to the environment.
    kept = KEPT if "workload" in how else tuple(name for name in KEPT if name in ENVIRONMENT)
    settings = {name: record.settings[name] for name in kept if record.settings.get(name)}
    for name, rival in (("verify", "quorum"), ("quorum", "verify")):
        if options.get(name) is not None:
            settings.pop(rival, None)
    settings.update({name: value for name, value in options.items() if value is not None})
    with _folder(record):
        if "workload" in how:
            return run_workload(str(how["workload"]), dict(how.get("parameters", {})), settings, origin=origin)
        return run_script(str(how["script"]), [str(a) for a in how.get("arguments", [])], settings, origin=origin)


def plain(given: Mapping[str, Any]) -> dict[str, Any]:
    """A workload's parameters as JSON values."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}


@contextlib.contextmanager
def _folder(record: RunRecord) -> Iterator[None]:
    """Relative paths of a run mean what they meant when it was started."""
    if not os.path.isdir(record.cwd):
        raise RecordError(
            f"the folder {record.cwd}, in which {record.run} was started, is gone",
            hint="make it again, or run the job anew; what was committed counts",
        )
    with contextlib.chdir(record.cwd):
        yield


@contextlib.contextmanager
def _started_as(script: Path, arguments: Sequence[str]) -> Iterator[None]:
    """`sys.argv` and `sys.path` as Python would set them."""
    argv, path = sys.argv, list(sys.path)
    sys.argv, sys.path[:] = [str(script), *arguments], [str(script.parent), *path]
    try:
        yield
    finally:
        sys.argv, sys.path[:] = argv, path


@contextlib.contextmanager
def _defaults(options: Mapping[str, Any]) -> Iterator[None]:
    """Settings as environment variables, which a script's own arguments override."""
    unknown = [name for name, value in options.items() if name not in ENVIRONMENT and value not in (None, False)]
    if unknown:
        raise ParameterError(f"a script's runs take no {unknown[0]} from here", hint="say it in the script's grid.run")
    names = {
        f"GRIDCOMPUTE_{name.upper()}": str(options[name])
        for name in options
        if name in ENVIRONMENT and options[name] not in (None, "", 0, False)
    }
    with environment(names):
        yield
