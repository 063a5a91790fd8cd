"""The command that runs one cell of a run again: replay."""

# ruff: noqa: D301 - the backspace keeps the lines of the examples as they are

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gridcompute.cli.command import Command
from gridcompute.cli.options import AsJson, RunName
from gridcompute.cli.output import complain, document, say, table

if TYPE_CHECKING:
    from gridcompute.record import RunRecord


def replay(
    run: RunName = "last",
    cell: Annotated[
        str | None,
        typer.Argument(metavar="CELL", help="lat=3,lon=17 or 3,17; without it cells that failed are listed."),
    ] = None,
    op: Annotated[str, typer.Option(metavar="NAME", help="Of several ops with kernels, this one.")] = "",
    pdb: Annotated[bool, typer.Option("--pdb", help="Open a debugger where the kernel raises.")] = False,
    step: Annotated[bool, typer.Option("--step", help="Open a debugger before the kernel's first line.")] = False,
    jit: Annotated[
        bool | None,
        typer.Option("--jit/--no-jit", help="Compiled, or as plain Python (as in a debugger).", show_default=False),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="Keep the cell's input there.", show_default=False)
    ] = None,
    changed: Annotated[bool, typer.Option("--changed", help="Go on though code, parameters or data changed.")] = False,
    as_json: AsJson = False,
) -> int:
    """Run the kernel of one cell again, with the input that it has in a run. Nothing is committed.

    Exit codes: 0 it gives a value, 1 it fails.

    \b
    Examples:
      gridcompute replay last
      gridcompute replay last lat=3,lon=17
      gridcompute replay climate-trend-20260301 3,17 --pdb
    """
    if jit is False or (jit is None and (pdb or step)):
        os.environ["NUMBA_DISABLE_JIT"] = "1"  # before numba is imported: also what the kernel calls
    from gridcompute.record import load
    from gridcompute.replaying import replay

    if cell is None:
        return _listed(load(run), as_json)
    found = replay(run, cell, op=op, jit=jit, pdb=pdb, step=step, changed=changed)
    if save is not None:
        found.save(save)
        complain(f"the input is in {save}")
    if as_json:
        values: dict[str, Any] = {name: {key: array.tolist() for key, array in getattr(found, name).items()}
                                  for name in ("inputs", "outputs")}
        document({"op": found.op, "cell": found.cell, **values, "error": found.error, "exit_code": int(found.failed)})
    else:
        say(found.lines())
    return int(found.failed)


def _listed(record: RunRecord, as_json: bool) -> int:
    """The cells of a run that failed or were skipped, to choose from."""
    from gridcompute.summary import failed_cells

    cells = failed_cells(record)
    if as_json:
        document({"run": record.run, "cells": cells})
    elif not cells:
        say(f"no cell of {record.run} is known to have failed; gridcompute replay {record.run} CELL runs any")
    else:
        heads = ("op", "cell", "kind", "error")
        say(table(heads, [[one[name].splitlines()[0] if one[name] else "" for name in heads] for one in cells]))
    return 0


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("replay", cls=Command)(replay)
