"""The command line: `gridcompute run climate.trend` and what belongs to it.

Exit codes: 0 all done, 1 failed, 2 usage, 3 done with skipped cells, 130 interrupted (and resumable).
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer

from gridcompute.cli import chaos, cluster, jobs, machine, replay, runs
from gridcompute.cli.command import Group
from gridcompute.cli.output import complain, document, say_broken, say_error, script_of
from gridcompute.errors import GridError, ParameterError

HELP = """Batch computing for scientific grids: a small kernel per cell, from a laptop to a Ray cluster, resumable.

\b
Examples:
  gridcompute run climate.trend
  gridcompute run climate.trend --help
  gridcompute run ./my_job.py --any arguments
  gridcompute list
  gridcompute resume last

\b
Exit codes:
  0 all done, 1 failed, 2 usage, 3 done with skipped cells, 130 interrupted and resumable
"""

ORDER = ("run", "plan", "resume", "replay", "status", "list", "report", "cancel", "clean", "chaos", "doctor",
         "workloads", "cluster")


class Commands(Group):
    """The commands in the order in which one meets them."""

    def list_commands(self, ctx: Any) -> list[str]:
        """See `Group`."""
        return sorted(self.commands, key=ORDER.index)


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help=HELP,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"gridcompute {version('gridcompute')}")
        raise typer.Exit


@app.callback()
def _top(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    pass


jobs.add(app)
runs.add(app)
replay.add(app)
chaos.add(app)
machine.add(app)
cluster.add(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command line.

    Args:
        arguments: without the program's name; by default those of the process.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - to the end
    try:
        _require_folder()
        code = typer.main.get_command(app).main(args=given, prog_name="gridcompute", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except GridError as error:
        _debug()
        say_error(error, "--json" in given)
        return error.exit_code
    except typer.TyperException as error:
        return _misused(error, "--json" in given)
    except (typer.Abort, KeyboardInterrupt):
        complain("stopped")
        return 130
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO):
            return _unexpected(error, "--json" in given)
        _let_go()
        return 1
    except Exception as error:
        return _unexpected(error, "--json" in given)


def _let_go() -> None:
    """The reader of a pipe, or the terminal, went away: keep Python's own flush at the end from complaining."""
    with contextlib.suppress(OSError, ValueError):  # a stream without a descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _debug() -> bool:
    """Show where an error came from, if that was asked for."""
    asked = os.environ.get("GRIDCOMPUTE_DEBUG", "0") not in ("", "0")
    if asked:
        complain(traceback.format_exc())
    return asked


def _require_folder() -> None:
    """Refuse to work in a folder that was removed: nothing could be found or written."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ParameterError("the current folder was removed", hint="cd to another one") from None


def _unexpected(error: Exception, as_json: bool) -> int:
    """What no one foresaw, in one line; 1. A script that breaks while it is run again is its author's affair."""
    if script := script_of(error):
        say_broken(script, error)
        if as_json:
            document({"error": str(error), "hint": "", "kind": type(error).__name__, "exit_code": 1})
        return 1
    full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    hint = "" if _debug() else "GRIDCOMPUTE_DEBUG=1 shows where; please report it"
    told = GridError(f"{type(error).__name__}: {error}", hint="make room where the output goes" if full else hint)
    say_error(told, as_json and not full)
    if full:
        _let_go()
    return 1


def _misused(error: Any, as_json: bool) -> int:
    """A call that makes no sense: what is wrong, and the help of the very command; 2."""
    text, place = error.format_message(), getattr(getattr(error, "ctx", None), "command_path", "gridcompute")
    if text.startswith("Usage: ") and not as_json:  # a group that was called alone: this is its help
        complain(text)
    else:
        text = f"{place}: nothing to do" if text.startswith("Usage: ") else text
        say_error(ParameterError(text, hint=f"{place} --help"), as_json)
    return 2
