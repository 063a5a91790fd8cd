"""Commands about runs that are there: list, status, report, cancel, clean."""

# ruff: noqa: D301 - the backspace keeps the lines of the examples as they are

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Annotated

import typer

from gridcompute.cli.command import Command
from gridcompute.cli.options import AsJson, RunName, Store
from gridcompute.cli.output import complain, document, say, table
from gridcompute.errors import ParameterError, RecordError

CANCEL_SECONDS = 30.0
"""A cancelled run gives its tasks 5 s, then ends its workers and writes its record."""


def list_runs(as_json: AsJson = False) -> int:
    """List all runs, the latest last.

    \b
    Examples:
      gridcompute list
      gridcompute list --json
    """
    from gridcompute.record import records
    from gridcompute.summary import age, facts

    told = [facts(record) for record in records()]
    if as_json:
        document({"runs": told})
    elif not told:
        say("no runs yet: gridcompute run climate.trend")
    else:
        rows = [
            (
                t["run"],
                t["state"],
                age(t["created"]),
                f"{t['seconds']:.1f} s" if t["seconds"] else "",
                ", ".join(t["outputs"]),
            )
            for t in told
        ]
        say(table(("run", "state", "begun", "time", "outputs"), rows))
    return 0


def status(run: RunName = "last", as_json: AsJson = False) -> int:
    """Show where a run stands. The exit code is that of the run: 0 done or running, 1 failed, 3, 130.

    \b
    Examples:
      gridcompute status last
      gridcompute status climate-trend-20260301 --json
    """
    from gridcompute.record import load
    from gridcompute.summary import progress_lines, report

    told = report(load(run))
    if as_json:
        document(told)
    else:
        say(progress_lines(told))
    return 0 if told["state"] == "running" else int(told["exit_code"])


def report(run: RunName = "last", as_json: AsJson = False) -> int:
    """Report on a run: figures, stages, failures, pictures, from its record and journal.

    \b
    Examples:
      gridcompute report last
      gridcompute report last --json > report.json
    """
    from gridcompute.record import load
    from gridcompute.summary import report, report_screen

    told = report(load(run))
    if as_json:
        document(told)
    else:
        say(report_screen(told))
    return 0


def cancel(run: RunName, as_json: AsJson = False) -> int:
    """Stop a run on this machine; what it committed stays, and it can be resumed.

    \b
    Examples:
      gridcompute cancel last
    """
    from gridcompute.record import load

    record = load(run)
    if not record.alive:
        raise RecordError(
            f"the run {record.run} isn't running here: it is {record.standing}", hint=f"gridcompute report {record.run}"
        )
    if record.pid == os.getpid():
        raise RecordError(f"the run {record.run} is of this very process", hint="run.cancel() stops it")
    os.kill(record.pid, signal.SIGINT)
    ends = time.monotonic() + CANCEL_SECONDS
    while record.alive and time.monotonic() < ends:
        time.sleep(0.1)
        record = load(record.run)
    if as_json:
        document({"run": record.run, "state": record.standing})
    elif record.alive:
        complain(f"{record.run} was asked to stop, and is still at it (process {record.pid})")
    else:
        say(f"{record.run}: {record.standing}; gridcompute resume {record.run} goes on with it")
    return 1 if record.alive else 0


def clean(
    runs: Annotated[list[str] | None, typer.Argument(metavar="RUN", help="Runs whose records go.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All runs of the store that have ended.")] = False,
    older_than: Annotated[
        float | None,
        typer.Option(min=0, metavar="DAYS", help="Ended runs begun more than so many days ago.", show_default=False),
    ] = None,
    store: Store = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    as_json: AsJson = False,
) -> int:
    """Remove records of runs, and intermediate results that no remaining run needs. Outputs are never touched.

    With --json it doesn't ask: it says what would go, and removes it with --yes.

    \b
    Examples:
      gridcompute clean                    # what no run names any more
      gridcompute clean --older-than 30
      gridcompute clean --all --yes
    """
    from gridcompute.cleaning import clean, leavings
    from gridcompute.config import Settings
    from gridcompute.status import counted, size

    found = leavings(Settings.of(store=store).store, names=runs or (), everything=everything, days=older_than)
    for note in found.notes:
        complain(note)
    text = ", ".join(
        [
            counted(len(found.runs), "run"),
            counted(len(found.shards), "shard"),
            *([counted(len(found.dangling), "lost run") + " in the index"] if found.dangling else []),
            f"{size(found.bytes)} in {found.store}",
        ]
    )
    told = {
        "store": found.store,
        "runs": [r.run for r in found.runs],
        "dangling": list(found.dangling),
        "shards": len(found.shards),
        "bytes": found.bytes,
        "notes": list(found.notes),
        "removed": False,
    }
    if found and (yes or (not as_json and _agreed(f"remove {text}?"))):
        clean(found)
        told["removed"] = True
    if as_json:
        document(told)
    elif not found:
        say(f"nothing to remove in {found.store}")
    else:
        say(f"removed {text}" if told["removed"] else "nothing was removed")
    return 0


def _agreed(question: str) -> bool:
    """Ask on standard error.

    Raises:
        ParameterError: nobody is there to answer.
    """
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        if sys.stdin is not None and sys.stdin.isatty():  # Ctrl-C
            raise
        complain("")
        raise ParameterError("nobody can be asked here, so nothing was removed", hint="say --yes") from None


def add(app: typer.Typer) -> None:
    """Add the commands."""
    for name, function in (
        ("list", list_runs),
        ("status", status),
        ("report", report),
        ("cancel", cancel),
        ("clean", clean),
    ):
        app.command(name, cls=Command)(function)
