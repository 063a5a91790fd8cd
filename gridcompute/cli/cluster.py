"""Commands about clusters: `gridcompute cluster certs`."""

# ruff: noqa: D301 - the backspace keeps the lines of the examples as they are

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from gridcompute.certificates import ALWAYS, DAYS
from gridcompute.cli.command import Command, Group
from gridcompute.cli.options import AsJson
from gridcompute.cli.output import document, say

HELP = """What a Ray cluster of several machines needs.

\b
Examples:
  gridcompute cluster certs ~/cluster --host 10.0.0.1 --host 10.0.0.2
"""


def certs(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where they are put; made if it isn't there.")],
    host: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="Address or name of a node, once for each.", show_default=False),
    ] = None,
    days: Annotated[int, typer.Option(min=1, metavar="N", help="How long they are valid.")] = DAYS,
    replace: Annotated[bool, typer.Option("--replace", help="Write over those that are there.")] = False,
    as_json: AsJson = False,
) -> int:
    """Make a token and TLS certificates for a Ray cluster, which then lets nobody in who lacks them.

    An authority, one certificate with its key for all nodes, and a token; readable by you alone.

    \b
    Examples:
      gridcompute cluster certs ~/cluster --host 10.0.0.1 --host 10.0.0.2
      gridcompute run --address 10.0.0.1:6379 --certs ~/cluster job.py
    """
    from gridcompute import certificates

    made = certificates.made(folder, host or (), days=days, replace=replace)
    variables = made.environment()
    if as_json:
        document({"folder": str(made.folder), "valid_until": made.ends.isoformat(), "hosts": [*(host or ()), *ALWAYS],
                  "environment": variables})
        return 0
    say([f"made {', '.join(certificates.FILES)} in {made.folder}, valid until {made.ends:%Y-%m-%d}",
         "",
         "1. Copy the folder to the same place on each node, without ca.key: whoever has that makes more certificates.",
         "2. On each node:",
         *(f"     export {name}={shlex.quote(value)}" for name, value in variables.items()),
         "     ray start --head --node-ip-address HEAD --port 6379      # the first node, HEAD: its address",
         "     ray start --address HEAD:6379 --node-ip-address NODE     # each other, NODE: its own",
         "3. Run on it, from one of its nodes:",
         f"     gridcompute run --address HEAD:6379 --certs {shlex.quote(str(made.folder))} JOB"])
    return 0


def add(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode=None, help=HELP)
    group.command("certs", cls=Command)(certs)
    app.add_typer(group, name="cluster")
