"""Commands about what is here: doctor, workloads."""

# ruff: noqa: D301 - the backspace keeps the lines of the examples as they are

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from gridcompute.cli.command import Command
from gridcompute.cli.options import Address, AsJson, Certs, Store
from gridcompute.cli.output import document, say, table
from gridcompute.errors import GridError


def doctor(
    store: Store = None,
    address: Address = None,
    certs: Certs = None,
    ray: Annotated[
        bool, typer.Option("--ray/--no-ray", help="Also start a local Ray, which takes some seconds.")
    ] = True,
    as_json: AsJson = False,
) -> int:
    """Check this machine: Python, packages, cores, memory, disk, caches, store, Ray. Exit code 1 if one fails.

    \b
    Examples:
      gridcompute doctor
      gridcompute doctor --no-ray --store s3://bucket/work --json
      gridcompute doctor --no-ray --address 10.0.0.1:6379 --certs ~/cluster
    """
    from gridcompute.config import Settings
    from gridcompute.doctor import checks

    found = []
    for check in checks(Settings.of(store=store, address=address, certs=certs), ray=ray):
        found.append(check)
        if not as_json:
            sign = {"ok": "ok  ", "warning": "WARN", "failed": "FAIL"}[check.verdict]
            say(f"{sign}  {check.name:<15}  {check.found}")
            if check.advice:
                say(f"      -> {check.advice}")
    failed = any(check.verdict == "failed" for check in found)
    if as_json:
        document({"ok": not failed, "checks": [asdict(check) for check in found]})
    return 1 if failed else 0


def workloads(as_json: AsJson = False) -> int:
    """List the workloads of all installed packages.

    \b
    Examples:
      gridcompute workloads
      gridcompute workloads --json
    """
    from gridcompute.registry import registered

    told = [_told(workload) for workload in registered()]
    if as_json:
        document({"workloads": told})
    elif not told:
        say("no workload is installed")
    else:
        say(table(("workload", "from", ""), [(t["name"], t["package"], t["error"] or t["summary"]) for t in told]))
        say("gridcompute run WORKLOAD --help shows the parameters")
    return 0


def _told(workload: Any) -> dict[str, Any]:
    values = {
        "name": workload.name,
        "package": workload.package,
        "function": workload.entry.value,
        "summary": "",
        "parameters": [],
        "error": "",
    }
    try:
        values["summary"] = workload.summary
        values["parameters"] = [
            {
                "name": p.name,
                "type": p.type.__name__,
                "required": p.required,
                "default": None if p.required else p.default,
                "help": p.help,
            }
            for p in workload.parameters
        ]
    except GridError as error:
        values["error"] = error.message
    return values


def add(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("doctor", cls=Command)(doctor)
    app.command("workloads", cls=Command)(workloads)
