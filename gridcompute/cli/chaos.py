"""`gridcompute chaos`: a workload or a script beside its clean twin, under faults."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from gridcompute.cli.jobs import (
    Jobs,
    first_planned,
    is_script,
    made_command,
    output_aside,
    said,
    workload_made,
)
from gridcompute.cli.options import COMMON
from gridcompute.cli.output import document, say
from gridcompute.errors import ParameterError

HELP = """Run a job beside its clean twin while things go wrong on purpose, and compare every byte.

Both lie in a temporary folder; nothing of yours is touched. A rate is the share of chunks that meet such a fault; the
same seed gives the same faults to the same chunks, whatever the timing. Exit code 0: equal, 1: not, with where the
files are.

\b
Examples:
  gridcompute chaos climate.trend --kill-worker 0.1 --corrupt 0.01 --slow 0.1 --store-errors 0.05 --seed 7
  gridcompute chaos climate.trend --kill-node 0.02 --nodes 3 --kill-driver 2
  gridcompute chaos --seed 7 --kill-worker 0.2 genomics.distance --count 500
  gridcompute chaos --executor simulated --kill-node 0.1 --hang 0.05 ./my_job.py its own arguments

Of a script the outputs of its first grid.run are taken. Where a workload has a parameter of an option's name, as
genomics.distance has --seed, the option stands before the workload's name.
"""


def _rate(text: str) -> Any:
    return Annotated[float | None, typer.Option(min=0, max=1, metavar="RATE", help=text, show_default=False)]


def _other(kind: Any, metavar: str, text: str, least: float | None = None) -> Any:
    return Annotated[kind | None, typer.Option(min=least, metavar=metavar, help=text, show_default=False)]


OPTIONS: dict[str, Any] = {
    "kill_worker": _rate("Chunks whose worker dies by SIGKILL: before, during or after its commit."),
    "kill_node": _rate("Chunks whose node goes away; on a Ray cluster of its own."),
    "corrupt": _rate("Chunks damaged after their commit: a bit, a cut, or gone."),
    "slow": _rate("Chunks that take up to half a second longer."),
    "store_errors": _rate("Chunks whose store fails once: time-out, 503, lost answer, half a write."),
    "hang": _rate("Chunks that never end, until the deadline."),
    "memory_errors": _rate("Chunks that find no memory."),
    "resets": _rate("Chunks during which a connection is reset."),
    "kill_driver": _other(int, "N", "Deaths of the driver; the job is gone on with after each.", 0),
    "seed": _other(int, "N", "Of the schedule; 0 by default."),
    "executor": _other(str, "NAME", "ray; inline: in this process, where deaths are pretended; or simulated: several "
                       "workers in virtual time."),
    "nodes": _other(int, "N", "Nodes of an own Ray cluster on this machine; 3 with --kill-node.", 1),
    "deadline": _other(float, "SECONDS", "That a task may take; 60 by default.", 0.1),
    **{name: COMMON[name] for name in ("workers", "address", "memory")},
    "keep": Annotated[bool, typer.Option("--keep", help="Keep the files of both.")],
    "json": COMMON["json"],
}  # fmt: skip
"""Options by name; those that aren't given are None or False."""


class ChaosJobs(Jobs):
    """One command a workload below it, with that one's parameters besides the options."""

    verb = "chaos"

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a workload, or of a script."""
        if is_script(cmd_name):
            settings = {"ignore_unknown_options": True, "help_option_names": []}
            return made_command(_script(cmd_name), cmd_name, "A script.", settings)
        return _workload(cmd_name)


def _options(names: Sequence[str]) -> list[inspect.Parameter]:
    return [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=OPTIONS[name],
                              default=False if name in ("keep", "json") else None) for name in names]


def _workload(name: str) -> Any:
    from gridcompute.registry import find

    workload = find(name)
    own = {parameter.name for parameter in workload.parameters}
    common = _options([option for option in OPTIONS if option not in own])

    def call(ctx: typer.Context, **values: Any) -> int:
        options = _given({p.name: values.pop(p.name) for p in common}, ctx.obj)
        given = {p.name: values[p.name] for p in workload.parameters if said(ctx, p.name)}
        with output_aside(bool(options.get("json"))):
            job = workload(**given)
        words = [word for key, value in given.items() for word in _words(key, value)]
        return _chaos({"workload": name}, job.outputs, options, [name, *words])

    return workload_made("chaos", workload, call, common)


def _script(path: str) -> Any:
    def call(ctx: typer.Context, arguments: Annotated[list[str] | None, typer.Argument()] = None) -> int:
        options = _given({}, ctx.obj)
        with output_aside(bool(options.get("json"))):
            outputs = script_outputs(path, arguments or [])
        return _chaos({"script": path}, outputs, options, [path, *(arguments or [])])

    call.__annotations__ = {"ctx": typer.Context, "arguments": Annotated[list[str] | None, typer.Argument()],
                            "return": int}  # fmt: skip
    return call


def script_outputs(path: str, arguments: Sequence[str]) -> list[Any]:
    """What a script's first run computes; the script ends there.

    Raises:
        ParameterError: it ended without one.
    """
    from gridcompute.actions.writes import Write
    from gridcompute.collection import Collection
    from gridcompute.destined import Destined, unrun_unsaid

    with unrun_unsaid():
        found = first_planned(path, arguments)
    if isinstance(found, int):
        raise ParameterError(f"{path} ended without a run", hint="what is taken are the outputs of its first grid.run")
    graph = found.plan.graph
    coords = dict(graph.coords)
    return [Destined(op, coords.get(name, ()), op.action.sink, False) if isinstance(op.action, Write)
            else Collection.of(op, coords.get(name, ())) for name, op in graph.outputs]


def _given(values: Mapping[str, Any], outer: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options that were given; those before the workload's name count where none follow it."""
    merged = {**(outer or {}), **{name: value for name, value in values.items() if value not in (None, False)}}
    return {name: value for name, value in merged.items() if value not in (None, False)}


def _words(name: str, value: Any) -> list[str]:
    """An option as it stands on a command line."""
    option = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [option if value else "--no-" + option[2:]]
    return [option, str(value)]


def _chaos(what: Mapping[str, str], outputs: Sequence[Any], options: Mapping[str, Any], words: Sequence[str]) -> int:
    """Carry it out and say how it went; the exit code."""
    from gridcompute.testing.chaos import run_chaos
    from gridcompute.testing.schedule import RATES, Schedule

    rates = {name: options[name] for name in (*RATES, "kill_driver", "seed") if name in options}
    others = {name: value for name, value in options.items() if name not in rates and name != "json"}
    with output_aside(bool(options.get("json"))):
        report = run_chaos(outputs, Schedule(**rates), **others)
    before = [word for name, value in options.items() if name != "json" for word in _words(name, value)]
    command = shlex.join(["gridcompute", "chaos", *before, *words])
    if options.get("json"):
        document({**what, "command": command, **report.to_dict()})
    else:
        say([report.text(), f"repeat     {command}"])
    return 0 if report.equal else 1


def add(app: typer.Typer) -> None:
    """Add the command."""
    group = typer.Typer(cls=ChaosJobs, no_args_is_help=True, rich_markup_mode=None,
                        subcommand_metavar="WORKLOAD|SCRIPT [PARAMETERS]...")  # fmt: skip

    def remember(ctx: typer.Context, **values: Any) -> None:
        ctx.obj = values

    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    remember.__signature__ = inspect.Signature([context, *_options(list(OPTIONS))])  # type: ignore[attr-defined]
    remember.__annotations__ = {"ctx": typer.Context, **OPTIONS}
    group.callback(help=HELP)(remember)
    app.add_typer(group, name="chaos")
