"""How long a plan will take, going by what its stages took before; nothing is said of what was never run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from gridcompute import journal
from gridcompute.planning import Plan
from gridcompute.record import RunRecord

RUNS = 8
"""Earlier runs that are asked."""


def chunk_seconds(record: RunRecord) -> dict[str, float]:
    """Seconds of work per chunk in an earlier run, by stage name."""
    names: dict[str, str] = {}
    chunks: dict[str, int] = {}
    seconds: dict[str, float] = {}
    for event in journal.read(record.journal):
        if event.get("kind") == "phase" and isinstance(event.get("stages"), Mapping):
            names = {str(number): str(name) for number, name in event["stages"].items()}
        elif event.get("kind") == "kept" and isinstance(event.get("chunks"), list):
            name = names.get(str(event.get("stage")), "")
            chunks[name] = chunks.get(name, 0) + len(event["chunks"])
            seconds[name] = seconds.get(name, 0.0) + float(event.get("seconds", 0.0))
    return {name: seconds[name] / count for name, count in chunks.items() if count}


def rates(earlier: Iterable[RunRecord]) -> dict[str, float]:
    """The same from several runs, the first one that did a stage counting."""
    known: dict[str, float] = {}
    for record in islice(earlier, RUNS):
        known = {**chunk_seconds(record), **known}
    return known


def remaining_seconds(
    plan: Plan, found: Sequence[int | None], workers: int, known: Mapping[str, float]
) -> float | None:
    """Seconds that the chunks left will take on so many workers; None where a stage was never run."""
    total = 0.0
    for stage, there in zip(plan.stages, found, strict=True):
        left = stage.chunks - (there or 0)
        if left and stage.name not in known:
            return None
        total += known.get(stage.name, 0.0) * left / max(1, min(workers, left))
    return total
