"""What is said of a run: one screen when it ends, and a report of one from its record and journal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gridcompute import journal
from gridcompute.progress import clock
from gridcompute.record import RunRecord
from gridcompute.status import counted, size

MOST_FAILURES = 10
"""Different messages of failures that a report shows; also skipped cells."""

MOST_CHARACTERS = 200
"""Of an error in one line."""


def exit_code(state: str, figures: Mapping[str, Any]) -> int:
    """0 all done, 3 done with skipped cells, 130 interrupted, 1 failed."""
    if state == "done":
        return 3 if figures.get("skipped") else 0
    return 130 if state in ("interrupted", "running") else 1


def facts(record: RunRecord, *, files: Iterable[Path] = (), lines: Iterable[str] = ()) -> dict[str, Any]:
    """A run as plain JSON values.

    Args:
        record: of the run.
        files: pictures and the like that a workload wrote, where the record doesn't have them.
        lines: what a workload said, likewise.
    """
    figures = record.summary
    return {
        "run": record.run,
        "state": record.standing,
        "how": record.how,
        "outputs": record.outputs,
        "files": [str(path) for path in files] or _texts(figures.get("files")),
        "lines": list(lines) or _texts(figures.get("lines")),
        "created": record.created,
        "seconds": figures.get("seconds", 0.0),
        "executor": figures.get("executor", record.settings.get("executor", "")),
        "workers": figures.get("workers", 0),
        "start_seconds": figures.get("executor_seconds", 0.0),
        "compile_seconds": figures.get("compile_seconds", 0.0),
        "compiled": figures.get("compiled", 0),
        "task_seconds": figures.get("task_seconds", 0.0),
        "computed": figures.get("computed", 0),
        "reused": figures.get("reused", 0),
        "tasks": figures.get("tasks", 0),
        "rows": figures.get("rows", 0),
        "bytes": figures.get("nbytes", 0),
        "retries": figures.get("retries", 0),
        "doubled": figures.get("doubled", 0),
        "copies": figures.get("copies", 0),
        "copies_won": figures.get("won", 0),
        "confirmed": figures.get("confirmed", 0),
        "same_process": figures.get("same_process", 0),
        **{name: _texts(figures.get(name)) for name in ("divergences", "outvoted", "quarantined")},
        "failures": len(figures.get("failures", ())),
        "skipped": figures.get("skipped", 0),
        "peak_bytes": figures.get("peak_bytes", 0),
        "bound_bytes": figures.get("bound_bytes", 0),
        "task_bytes": figures.get("task_bytes", {}),
        "parts": figures.get("parts", {}),
        "most_kept_bytes": figures.get("most_kept_bytes", 0),
        "deleted": figures.get("deleted", 0),
        "deleted_bytes": figures.get("deleted_bytes", 0),
        "error": figures.get("error", ""),
        "folder": record.folder,
        "store": record.settings.get("store", ""),
        "exit_code": exit_code(record.standing, figures),
    }


def screen(told: Mapping[str, Any]) -> list[str]:
    """`facts` as lines for a terminal."""
    rows: list[tuple[str, str]] = [("", line) for line in told["lines"]]
    written = "written" if told["state"] == "done" else "output"  # of which nobody knows how much is there
    rows += [(written, name) for name in (*told["outputs"], *told["files"])]
    chunks = f"{told['computed']:,} computed, {told['reused']:,} found committed"
    rows.append(("chunks", f"{chunks}; {counted(told['tasks'], 'task')}, {size(told['bytes'])} stored"))
    if told["deleted"]:
        most = f", at most {size(told['most_kept_bytes'])} of them at once" if told["most_kept_bytes"] else ""
        rows.append(("", f"{counted(told['deleted'], 'intermediate shard')} ({size(told['deleted_bytes'])}) deleted, "
                         f"as nothing needs them any more{most}"))
    if told["doubled"]:
        rows.append(("", f"{counted(told['doubled'], 'chunk')} computed twice, as tasks were late"))
    rows += _compared(told)
    if told["skipped"]:
        rows.append(("skipped", f"{counted(told['skipped'], 'cell')}, see gridcompute report {told['run']}"))
    where = {"ray": "Ray", "inline": "this process"}.get(told["executor"], told["executor"])
    rows.append(
        ("time", f"{told['seconds']:.1f} s on {told['workers'] or '?'} core{'s' * (told['workers'] != 1)} ({where})")
    )
    if told["start_seconds"] >= 0.05:
        rows.append(("", f"of these {told['start_seconds']:.1f} s to start Ray"))
    if told["task_seconds"]:
        code = f"compiling ({counted(told['compiled'], 'function')}) or loading code"
        rows.append(("", f"{told['compile_seconds']:.1f} s of {code} among {told['task_seconds']:.1f} s in tasks"))
    if told["retries"] or told["failures"]:
        again = f"{told['retries']:,}" if told["retries"] else "none"
        rows.append(("failures", f"{told['failures']:,}, of which {again} tried again"))
    if told["peak_bytes"]:
        planned = f" (planned: {size(told['bound_bytes'])})" if told["bound_bytes"] else ""
        rows.append(("memory", f"at most {size(told['peak_bytes'])} in a worker{planned}"))
    rows += [("", f"{name}: each chunk in {parts} parts") for name, parts in told["parts"].items()]
    if told["state"] in ("interrupted", "failed"):
        rows.append(("resume", f"gridcompute resume {told['run']}"))
    width = max(len(label) for label, _ in rows)
    lines, last = [f"{told['run']}: {told['state']}"], ""
    for label, text in rows:
        lines.append(f"  {label if label != last else '':<{width}}  {text}")
        last = label or last
    return lines


def _texts(value: Any) -> list[str]:
    """A list of texts out of a record, which may hold anything."""
    return [str(one) for one in value] if isinstance(value, list) else []


def _compared(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was computed more than once on purpose, and what came of it."""
    rows: list[tuple[str, str]] = []
    if told["copies"]:
        made = f"{told['copies']:,} second cop{'ies' if told['copies'] != 1 else 'y'} of slow tasks"
        rows.append(("", f"{made}, of which {told['copies_won']:,} came first"))
    if told["confirmed"]:
        same = told["same_process"]
        where = "" if not same else " in the same process" if same == told["confirmed"] else (
            f", {same:,} of them in the same process")
        rows.append(("checked", f"{counted(told['confirmed'], 'chunk')} computed again and found equal{where}"))
    rows += [("outvoted", text) for text in told["divergences"][:MOST_FAILURES]]
    if told["quarantined"]:
        rows.append(("quarantined", ", ".join(told["quarantined"])))
    return rows


def history(record: RunRecord) -> dict[str, Any]:
    """What the journal tells: stages with their chunks, attempts, and failures by message.

    Chunks are those of the last attempt, in the phase that it reached last.
    """
    stages: list[dict[str, Any]] = []
    failures: dict[tuple[str, str], dict[str, Any]] = {}
    attempts, began, last, events = 0, record.created, record.created, journal.read(record.journal)
    skipped = 0
    for event in events:
        kind, last = event["kind"], event["time"]
        if kind == "begun":
            attempts, began, stages = attempts + 1, event["time"], []
        elif kind == "phase":
            stages = [_stage(event, number, name) for number, name in event.get("stages", {}).items()]
        elif kind == "kept" and (stage := _of(stages, event)):
            skipped = event.get("skipped", skipped)
            stage["kept"] = sorted({*stage["kept"], *event.get("chunks", ())})
            stage["seconds"] += float(event.get("seconds", 0.0))
            stage["tasks"] += not event.get("early", False)  # what a task that goes on has committed
            stage["bytes"] = max(stage["bytes"], int(event.get("bytes", 0)))
            stage["parts"] = max(stage["parts"], int(event.get("parts", 1)))
        elif kind == "failed":
            key = (str(event.get("failure")), str(event.get("message", "")))
            entry = failures.setdefault(key, {"kind": key[0], "message": key[1], "times": 0, "op": "", "cells": [],
                                              "places": []})
            entry["times"] += 1
            if isinstance(cell := event.get("cell"), list) and len(entry["cells"]) < MOST_FAILURES:
                entry["cells"].append(cell)
                entry["op"] = str(event.get("op", ""))
                entry["places"].append(str(event.get("at") or ",".join(str(one) for one in cell)))
    for stage in stages:
        stage["computed"] = len(stage.pop("kept"))
    return {
        "attempts": attempts,
        "began": began,
        "last": last,
        "stages": stages,
        "events": len(events),
        "torn": events.torn,
        "damaged": events.skipped,
        "skipped": skipped,
        "failed": sorted(failures.values(), key=lambda f: -f["times"]),
    }


def _stage(event: Mapping[str, Any], number: str, name: str) -> dict[str, Any]:
    return {
        "number": int(number) + 1,
        "name": name,
        "chunks": event.get("chunks", {}).get(number, 0),
        "reused": event.get("found", {}).get(number, 0),
        "kept": [],
        "seconds": 0.0,
        "tasks": 0,
        "planned_bytes": event.get("bytes", {}).get(number, 0),
        "bytes": 0,
        "parts": 1,
    }


def skipped_cells(record: RunRecord) -> list[dict[str, str]]:
    """Cells that a run skipped, as far as its record lists them: op, cell, kind, error."""
    told = record.summary.get("skipped_cells", ())
    names = ("op", "cell", "kind", "error")
    return [{name: str(one.get(name, "")) for name in names} for one in told if isinstance(one, dict)]


def failed_cells(record: RunRecord) -> list[dict[str, str]]:
    """Cells that a run skipped, as far as its record lists them, and those that it stopped at or lost a worker in."""
    found = skipped_cells(record)
    for failure in history(record)["failed"]:
        for at in failure["places"]:
            found.append({"op": failure["op"], "cell": at, "kind": failure["kind"], "error": failure["message"]})
    return found


def recipes(record: RunRecord) -> set[str] | None:
    """Recipes of the shards that a run's phases named; None where its journal doesn't say (lost, or it never began)."""
    found: set[str] = set()
    phases = [event for event in journal.read(record.journal) if event["kind"] == "phase"]
    for event in phases:
        for names in event.get("recipes", {}).values():
            found.update(str(name) for name in names)
    return found if phases and all("recipes" in event for event in phases) else None


def _of(stages: Sequence[dict[str, Any]], event: Mapping[str, Any]) -> dict[str, Any] | None:
    return next((stage for stage in stages if stage["number"] == event.get("stage", -1) + 1), None)


def report(record: RunRecord) -> dict[str, Any]:
    """`facts` with the journal's `history`; the figures of a run that was killed come from its journal."""
    told, found = facts(record), history(record)
    told["skipped_cells"], skipped = skipped_cells(record), found.pop("skipped")
    if not record.summary:
        told["skipped"] = skipped
        told["seconds"] = found["last"] - found["began"]
        told["computed"] = sum(stage["computed"] for stage in found["stages"])
        told["reused"] = sum(stage["reused"] for stage in found["stages"])
        told["tasks"] = sum(stage["tasks"] for stage in found["stages"])
        told["task_seconds"] = sum(stage["seconds"] for stage in found["stages"])
        told["failures"] = sum(failure["times"] for failure in found["failed"])
    return {**told, **found}


def report_screen(told: Mapping[str, Any]) -> list[str]:
    """`report` as lines for a terminal."""
    lines = screen(told)
    if told["attempts"] > 1:
        lines.append(f"  begun {told['attempts']} times")
    for stage in told["stages"]:
        found = f" ({stage['reused']:,} found)" if stage["reused"] else ""
        chunks = f"{stage['computed']:,} of {counted(stage['chunks'], 'chunk')} computed{found}"
        tasks = counted(stage["tasks"], "task")
        lines.append(f"  stage {stage['number']} {stage['name']}: {chunks}, {tasks}, {stage['seconds']:.2f} s")
        if stage["bytes"]:
            parts = f", each chunk in {stage['parts']} parts" if stage["parts"] > 1 else ""
            planned = f" (planned: {size(stage['planned_bytes'])})"
            lines.append(f"    a task took at most {size(stage['bytes'])}{planned}{parts}")
    for failure in told["failed"][:MOST_FAILURES]:
        times, said = counted(failure["times"], "time"), failure["message"].splitlines()[0]
        lines.append(f"  failed {times} ({failure['kind']}): {said}")
    for one in told["skipped_cells"][:MOST_FAILURES]:
        said = " ".join(one["error"][:MOST_CHARACTERS].split())
        lines.append(f"  skipped {one['op']} at {one['cell']} ({one['kind']}): {said}")
    if told["skipped"] > MOST_FAILURES:
        lines.append(f"  and more: gridcompute replay {told['run']} lists {len(told['skipped_cells'])}")
    if told["torn"] or told["damaged"]:
        damaged = counted(told["damaged"], "damaged line")
        lines.append(f"  the journal has {damaged}" + (" and an unfinished last one" if told["torn"] else ""))
    if told["error"] and told["state"] != "interrupted":
        lines.append(f"  error: {told['error']}")
    return lines


def age(created: float, now: float | None = None) -> str:
    """How long ago, as people say it.

    >>> age(0.0, 7200.0)
    '2 hours ago'
    """
    seconds = max(0.0, (time.time() if now is None else now) - created)
    for name, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {name}{'s' * (count > 1)} ago"
    return "just now"


def progress_lines(told: Mapping[str, Any]) -> list[str]:
    """Where a run stands, from `report`."""
    lines = [f"{told['run']}: {told['state']}, begun {age(told['began'])}"]
    for stage in told["stages"]:
        done = stage["computed"] + stage["reused"]
        rate = stage["computed"] / max(1e-9, told["last"] - told["began"])
        left = (
            f", about {clock((stage['chunks'] - done) / rate)} left"
            if told["state"] == "running" and 0 < done < stage["chunks"] and rate
            else ""
        )
        lines.append(f"  {stage['number']} {stage['name']}: {done:,} of {counted(stage['chunks'], 'chunk')}{left}")
    return lines
