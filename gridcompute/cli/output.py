"""Where text goes: results to standard output, everything else to standard error; with --json one document."""

from __future__ import annotations

import contextlib
import json
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import typer

from gridcompute.errors import GridError
from gridcompute.secrecy import redacted, redacted_values


def say(lines: str | Iterable[str]) -> None:
    """Lines of a result."""
    for line in [lines] if isinstance(lines, str) else lines:
        typer.echo(redacted(line))


def complain(line: str) -> None:
    """A line for people that is no result; nothing where their terminal has gone."""
    with contextlib.suppress(OSError):
        typer.echo(redacted(line), err=True)


def document(values: Any) -> None:
    """One JSON document."""
    typer.echo(json.dumps(redacted_values(values), indent=1, default=lambda value: redacted(str(value))))


def say_error(error: GridError, as_json: bool) -> None:
    """An error and its next step; no traceback."""
    complain(f"error: {error.message}")
    if error.hint:
        complain(f"-> {error.hint}")
    if as_json and not getattr(error, "told", False):
        document(
            {"error": error.message, "hint": error.hint, "kind": type(error).__name__, "exit_code": error.exit_code}
        )


def say_broken(path: str, error: Exception) -> None:
    """A script's own error: its author wants to see where."""
    first, script = error.__traceback__, str(Path(path).absolute())
    while first is not None and first.tb_frame.f_code.co_filename != script:  # what is above isn't the author's
        first = first.tb_next
    traceback.print_exception(type(error), error, first or error.__traceback__)
    complain(f"error: the script {path} failed: {type(error).__name__}: {error}")


def script_of(error: Exception) -> str:
    """The script in which an error came up, where it was run by one of our commands; else empty."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__") == "__main__" and frame.f_code.co_name == "<module>":
            return frame.f_code.co_filename
    return ""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows under heads, in columns as wide as they need."""
    every = [list(heads), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in every) for i in range(len(heads))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in every]
