"""Results as JSON, as a table in the terminal, and as a table in the documentation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.rows import Row, Session

FORMAT = 1
BEGIN, END = "<!-- results of {} begin -->", "<!-- results of {} end -->"
HEADS = ("what", "unit", "ours", "peers (ratio)", "published", "target", "met")


class ReportError(Exception):
    """A results file that isn't one, or a page without a place for its table."""


def document(name: str, session: Session, rows: Iterable[Row], before: dict[str, Any], seconds: float,
             peer_versions: dict[str, str]) -> dict[str, Any]:
    """Everything about one run of a benchmark, as plain values.

    Args:
        name: of the benchmark.
        session: as it ended.
        rows: what was measured.
        before: `machine.describe()` from before the first measurement.
        seconds: that it all took.
        peer_versions: of the peers that were measured.
    """
    rows = list(rows)
    return {
        "format": FORMAT, "benchmark": name, "mode": session.mode,
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "seconds": round(seconds, 1), "machine": before,
        "load": {"before": before["load"], "sections": session.load, "after": machine.describe()["load"]},
        "versions": machine.versions(), "peer_versions": peer_versions, "absent_peers": sorted(set(session.absent)),
        "rows": [row.to_json() for row in rows], "raw": {row.name: dict(row.raw) for row in rows},
    }  # fmt: skip


def load(path: str | Path) -> dict[str, Any]:
    """A results file.

    Raises:
        ReportError: it isn't there, isn't JSON, or is something else.
    """
    try:
        values = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ReportError(f"{path} can't be read as results: {error}") from None
    if not isinstance(values, dict) or not {"format", "benchmark", "rows", "raw", "machine", "load"} <= set(values):
        raise ReportError(f"{path} holds no results of a benchmark")
    if values["format"] != FORMAT:
        raise ReportError(f"{path} has format {values['format']}, this version writes {FORMAT}")
    return values


def number(value: float) -> str:
    """Three digits that count, and no more.

    >>> number(0.012345), number(12.3456), number(123456.0), number(2.5e8)
    ('0.0123', '12.3', '123,000', '250 M')
    """
    if abs(value) >= 1e6:
        return f"{number(value / 1e6)} M"
    if abs(value) >= 1000:
        return f"{round(value, 2 - len(str(int(abs(value)))) + 1):,.0f}"
    return f"{value:.3g}"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    peers = []
    for name, stat in row["peers"].items():
        ratio = "" if stat["ratio"] is None else f" ({number(float(format(stat['ratio'], '.2g')))}x)"
        peers.append(f"{name} {number(stat['median'])}{ratio}")
    published, target = row["published"], row["target"]
    if target is not None:
        goal = f"{'at least' if row['better'] == 'more' else 'at most'} {number(target['value'])}"
    return (
        row["name"], row["unit"], "" if row["ours"] is None else number(row["ours"]["median"]), ", ".join(peers),
        "" if published is None else f"{published['system']} {number(published['value'])}",
        "" if target is None else goal, {None: "", True: "yes", False: "no"}[row["met"]],
    )  # fmt: skip


def conditions(results: dict[str, Any]) -> str:
    """One paragraph: where and how it was measured."""
    on, loads = results["machine"], results["load"]
    sections = list(loads["sections"].values()) or loads["before"][:1]
    away = f" Not installed: {', '.join(results['absent_peers'])}." if results["absent_peers"] else ""
    named = {**results["versions"], **results["peer_versions"]}
    return (
        f"Measured on {results['date'][:10]} (mode {results['mode']}, {results['seconds']:.0f} s) on {on['cores']} "
        f"shared cores ({on['cpu']}, {on['memory'] / 2**30:.0f} GiB). One-minute load {loads['before'][0]:.2f} before, "
        f"{min(sections):.2f} to {max(sections):.2f} when a section began (the benchmark's own work included). "
        f"Versions: {', '.join(f'{name} {v}' for name, v in named.items())}.{away}"
    )


def text(results: dict[str, Any]) -> str:
    """A table for the terminal."""
    lines = [HEADS, *(_cells(row) for row in results["rows"])]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADS))]
    body = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([body[0], "-" * sum(widths), *body[1:], "", conditions(results)])


def markdown(results: dict[str, Any]) -> str:
    """A table for the documentation, with its notes and sources below."""
    lines = [_line(HEADS), _line(["---"] * len(HEADS)), *(_line(_cells(row)) for row in results["rows"])]
    notes = [f"- `{row['name']}`: {' '.join(_remarks(row))}" for row in results["rows"] if _remarks(row)]
    return "\n".join([conditions(results), "", *lines, "", *notes])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _remarks(row: dict[str, Any]) -> list[str]:
    found = [row["note"]] if row["note"] else []
    if row["published"] is not None:
        found.append(f"Published: {row['published']['source']}.")
    if row["target"] is not None:
        found.append(f"Target: {row['target']['source']}.")
    return found


def put_in(page: Path, results: dict[str, Any]) -> None:
    """Put the table between a page's markers; a page that isn't there is made.

    Raises:
        ReportError: the page is there, but has no place for this benchmark.
    """
    begin, end = (mark.format(results["benchmark"]) for mark in (BEGIN, END))
    block = f"{begin}\n\n{markdown(results)}\n\n{end}"
    if not page.exists():
        page.write_text(f"# Benchmarks\n\n{block}\n")
        return
    old = page.read_text()
    head, found, rest = old.partition(begin)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise ReportError(f"{page} has no place for the table: put the lines {begin} and {end} into it")
    page.write_text(head + block + tail)
