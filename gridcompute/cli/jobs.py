"""Commands that build graphs: run, plan, resume. Each workload is a command below the first two."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gridcompute.cli.command import Command, Several
from gridcompute.cli.options import COMMON, RunName, behind, common_parameters, split
from gridcompute.cli.output import complain, document, say, say_broken
from gridcompute.errors import GridError, InterruptedRunError, LeaseError, OutputExistsError, ParameterError

if TYPE_CHECKING:
    from gridcompute.explain import Planned
    from gridcompute.record import RunRecord
    from gridcompute.registry import Workload

RUN_HELP = """Run a workload or a script, with progress, and go on from what was committed before.

\b
Examples:
  gridcompute run climate.trend
  gridcompute run climate.trend --help
  gridcompute run climate.climatology climate.zonal climate.trend --input era5.zarr --output era5
  gridcompute run genomics.distance --reads sample.fastq.gz --reference genome.fa
  gridcompute run --workers 4 ./my_job.py its own arguments
"""

PLAN_HELP = """Show what a run would do: stages, chunks, bytes, memory, what is committed and why the rest isn't.

\b
Examples:
  gridcompute plan climate.trend
  gridcompute plan climate.trend --input era5.nc --variable t2m --json
  gridcompute plan ./my_job.py its own arguments

A script is run up to its first grid.run or grid.start, whose plan is shown instead.
"""


def is_script(name: str) -> bool:
    """Whether what stands for a workload is a script's path."""
    return name.endswith(".py") or "/" in name or os.sep in name


class Jobs(Several):
    """A command with one command a workload below it, looked up by name; several names are several in one run."""

    verb = "run"

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the workloads that can be loaded."""
        from gridcompute.registry import registered

        names = []
        for workload in registered():
            with contextlib.suppress(GridError):
                names += [workload.name] if workload.parameters is not None else []
        return names

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a workload, or of a script."""
        if is_script(cmd_name):
            settings = {"ignore_unknown_options": True, "help_option_names": []}
            return made_command(_script(self.verb, cmd_name), cmd_name, "A script.", settings)
        return workload_command(self.verb, cmd_name)


class Plans(Jobs):
    """As `Jobs`, for plan."""

    verb = "plan"


def made_command(function: Callable[..., int], name: str, text: str, settings: Mapping[str, Any] | None = None) -> Any:
    """A function as a command."""
    one = typer.Typer(add_completion=False, rich_markup_mode=None)
    one.command(
        name, cls=Command, help=text, context_settings={"help_option_names": ["-h", "--help"], **(settings or {})}
    )(function)
    return typer.main.get_command(one)


def workload_command(verb: str, name: str) -> Any:
    """A command with an option for each of a workload's parameters.

    Raises:
        ParameterError: no such workload, or it can't be loaded.
    """
    from gridcompute.registry import find

    workload = find(name)
    common = [p for p in common_parameters() if p.name not in {q.name for q in workload.parameters}]

    def call(ctx: typer.Context, **values: Any) -> int:
        options, quiet, as_json = split({n: values.pop(n) for n in [p.name for p in common]}, ctx.obj)
        given = {p.name: values[p.name] for p in workload.parameters if said(ctx, p.name)}
        if verb == "plan":
            return plan_workload(name, given, options, as_json)
        return run_workload(name, given, options, quiet, as_json)

    return workload_made(verb, workload, call, common)


def workload_made(verb: str, workload: Workload, call: Callable[..., int], common: Sequence[inspect.Parameter]) -> Any:
    """A function as the command of a workload: it takes the context, the workload's parameters and these."""
    from gridcompute.parameters import described

    own = []
    for parameter in workload.parameters:
        shown = parameter.default not in ("", None)
        option = typer.Option(help=parameter.help, show_default=shown and not parameter.required)
        kind: Any = parameter.type | None if parameter.optional else parameter.type
        own.append(
            inspect.Parameter(
                parameter.name,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=Annotated[kind, option],
                default=parameter.default,
            )
        )
    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    call.__signature__ = inspect.Signature([context, *own, *common], return_annotation=int)  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in [context, *own, *common]}
    told, _, examples = described(workload.function)
    if examples:
        usage = examples.replace("gridcompute run ", f"gridcompute {verb} ")
        told += "\n\n\b\nExamples:\n" + "\n".join(f"  {line}" for line in usage.splitlines())
    made = made_command(call, workload.name, told)
    made.parameters = frozenset(parameter.name for parameter in workload.parameters)
    return made


def said(ctx: typer.Context, name: str) -> bool:
    """Whether a parameter stood on the command line: only then it enters the record."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _script(verb: str, path: str) -> Callable[..., int]:
    def call(ctx: typer.Context, arguments: Annotated[list[str] | None, typer.Argument()] = None) -> int:
        options, quiet, as_json = split({}, ctx.obj)
        if note := behind(verb, path, arguments or []):
            complain(note)
        if verb == "plan":
            return plan_script(path, arguments or [], options, as_json)
        return run_script(path, arguments or [], options, quiet, as_json)

    call.__annotations__ = {
        "ctx": typer.Context,
        "arguments": Annotated[list[str] | None, typer.Argument()],
        "return": int,
    }
    return call


@contextlib.contextmanager
def output_aside(as_json: bool) -> Iterator[None]:
    """Keep standard output for the one JSON document."""
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        yield


def _end(
    records: list[RunRecord],
    quiet: bool,
    as_json: bool,
    *,
    files: Sequence[Path] = (),
    lines: Sequence[str] = (),
    error: GridError | None = None,
) -> int:
    """The summary screen of each run, or the document of all; the exit code."""
    from gridcompute.summary import facts, screen

    told = [
        facts(one, files=files if one is records[-1] else (), lines=lines if one is records[-1] else ())
        for one in records
    ]
    if as_json and (told or error is None):
        document({**told[-1], "runs": told} if told else {"runs": []})
        if error is not None:
            error.told = True  # type: ignore[attr-defined]
    elif not quiet:
        for one in told:
            say(screen(one)) if error is None or one["tasks"] or one["reused"] else None
    return max((one["exit_code"] for one in told), default=0)


def _stopped(records: list[RunRecord], quiet: bool, as_json: bool) -> int:
    """What had been done until Ctrl-C or another signal, and once how to go on; 130."""
    _end(records, quiet, as_json)
    if not (records and records[-1].standing == "interrupted"):
        complain("stopped")
    elif quiet or as_json:
        complain(f"interrupted; gridcompute resume {records[-1].run} goes on with it")
    return 130


def run_workload(name: str, given: Mapping[str, Any], options: Mapping[str, Any], quiet: bool, as_json: bool) -> int:
    """`gridcompute run WORKLOAD`."""
    from gridcompute.origins import Origin
    from gridcompute.resuming import plain, run_workload

    origin = Origin({"workload": name, "parameters": plain(given)}, reports=True)
    if not (quiet or as_json) and sys.stderr.isatty():
        complain(f"preparing {name}; what a first run compiles is kept for all that follow")
    try:
        with output_aside(as_json):
            carried = run_workload(name, given, options, origin=origin)
    except (KeyboardInterrupt, InterruptedRunError):
        return _stopped([run.record for run in origin.runs], quiet, as_json)
    except GridError as error:
        if isinstance(error, OutputExistsError | LeaseError):
            error.hint = _without_python(name, error.hint)
        _end([run.record for run in origin.runs], quiet, as_json, error=error)
        raise
    return _end([run.record for run in carried.runs], quiet, as_json, files=carried.files, lines=carried.lines)


def _without_python(name: str, hint: str) -> str:
    """A hint for the command line: the option where the workload has it, else nothing, instead of the argument."""
    from gridcompute.registry import find

    told = hint.replace("replace it by write(..., overwrite=True)", "replace it with --overwrite")
    if any(parameter.name == "overwrite" for parameter in find(name).parameters):
        return told
    return told.replace(", or replace it with --overwrite", "").replace(", write elsewhere", ", or write elsewhere")


def run_script(path: str, arguments: list[str], options: Mapping[str, Any], quiet: bool, as_json: bool) -> int:
    """`gridcompute run ./my_job.py`: its own exit code, if it has one that isn't 0, else that of its runs."""
    from gridcompute.origins import Origin
    from gridcompute.resuming import run_script

    origin = Origin(_called(path, arguments), reports=True)
    try:
        with output_aside(as_json):
            carried = run_script(path, arguments, options, origin=origin)
    except (KeyboardInterrupt, InterruptedRunError):
        return _stopped([run.record for run in origin.runs], quiet, as_json)
    except GridError as error:
        _end([run.record for run in origin.runs], quiet, as_json, error=error)
        raise
    except Exception as error:
        say_broken(path, error)
        _end([run.record for run in origin.runs], quiet, as_json)
        return 1
    return _end([run.record for run in carried.runs], quiet, as_json) if not carried.code else carried.code


def plan_script(path: str, arguments: list[str], options: Mapping[str, Any], as_json: bool) -> int:
    """`gridcompute plan ./my_job.py`: the plan of its first run, at which the script ends.

    Raises:
        ParameterError: it ended without one.
    """
    from gridcompute.destined import unrun_unsaid

    with unrun_unsaid():
        try:
            with output_aside(as_json):
                found = first_planned(path, arguments, options)
        except GridError:
            raise
        except Exception as error:
            say_broken(path, error)
            if as_json:
                document({"error": str(error), "hint": "", "kind": type(error).__name__, "exit_code": 1})
            return 1
    if not isinstance(found, int):
        return _planned(_called(path, arguments), found, as_json)
    if not found:
        raise ParameterError(f"{path} ended without a run", hint="what is planned is its first grid.run or grid.start")
    return found


def first_planned(path: str, arguments: Sequence[str], options: Mapping[str, Any] | None = None) -> Planned | int:
    """What a script's first run would compute, at which the script ends; its exit code, where it ended without one."""
    from gridcompute.origins import Origin, PlannedInstead
    from gridcompute.resuming import run_script

    try:
        origin = Origin(_called(path, arguments), reports=True, plans=True)
        return run_script(path, arguments, options, origin=origin).code
    except PlannedInstead as reached:
        return reached.planned


def _called(path: str, arguments: Sequence[str]) -> dict[str, Any]:
    return {"script": str(Path(path).absolute()), "arguments": list(arguments)}


def _planned(what: Mapping[str, Any], planned: Planned, as_json: bool, lines: Sequence[str] = ()) -> int:
    if as_json:
        document({**what, **planned.to_dict()})
    else:
        say([*lines, planned.explain()])
    return 0


def plan_workload(name: str, given: Mapping[str, Any], options: Mapping[str, Any], as_json: bool) -> int:
    """`gridcompute plan WORKLOAD`."""
    from gridcompute import api
    from gridcompute.origins import Origin, within
    from gridcompute.registry import find
    from gridcompute.resuming import plain

    wanted = {key: options[key] for key in ("memory", "workers", "store", "on_error") if key in options}
    with within(Origin({"workload": name, "parameters": plain(given)})), output_aside(as_json):
        job = find(name)(**given)
        planned = api.plan(*job.outputs, **wanted)
    return _planned({"workload": name, "parameters": plain(given)}, planned, as_json, job.lines)


def add(app: typer.Typer) -> None:
    """Add the commands."""
    for name, cls, text in (("run", Jobs, RUN_HELP), ("plan", Plans, PLAN_HELP)):
        group = typer.Typer(
            cls=cls,
            no_args_is_help=True,
            rich_markup_mode=None,
            subcommand_metavar="WORKLOAD...|SCRIPT [PARAMETERS]...",
        )
        group.callback(help=text)(_remembered())
        app.add_typer(group, name=name)
    app.command("resume", cls=Command)(_resume())


def _remembered() -> Callable[..., None]:
    """A group's function: options before the workload's name are kept for the command."""

    def remember(ctx: typer.Context, **values: Any) -> None:
        ctx.obj = values

    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    remember.__signature__ = inspect.Signature([context, *common_parameters()])  # type: ignore[attr-defined]
    remember.__annotations__ = {"ctx": typer.Context, **COMMON}
    return remember


def _resume() -> Callable[..., int]:
    def resume(run: str, changed: bool, **values: Any) -> int:
        from gridcompute.record import load
        from gridcompute.resuming import resume_record

        options, quiet, as_json = split(values, None)
        record = load(run)
        try:
            with output_aside(as_json):
                made, carried = resume_record(record, changed=changed, reports=True, **options)
        except (KeyboardInterrupt, InterruptedRunError):
            return _stopped([load(record.folder)], quiet, as_json)
        except GridError as error:
            now = load(record.folder)
            _end([now] if now.resumed > record.resumed else [], quiet, as_json, error=error)
            raise
        return _end([made.record], quiet, as_json, files=carried.files, lines=carried.lines)

    changed = Annotated[
        bool,
        typer.Option(
            "--changed", help="Go on though code, parameters or data have changed; what changed is computed anew."
        ),
    ]
    first = [
        inspect.Parameter("run", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=RunName),
        inspect.Parameter("changed", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=changed, default=False),
    ]
    resume.__signature__ = inspect.Signature([*first, *common_parameters()])  # type: ignore[attr-defined]
    resume.__annotations__ = {"run": RunName, "changed": changed, **COMMON}
    resume.__doc__ = """Go on with a run that was interrupted or failed, from what it had committed.

    \b
    Examples:
      gridcompute resume last
      gridcompute resume climate-trend-20260301 --workers 8
    """
    return resume
