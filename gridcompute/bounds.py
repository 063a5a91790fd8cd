"""Whether a plan fits in a worker's memory, in how many parts its chunks must go for that, and what earlier runs found.

What ran out of memory once is kept by the stage's recipe, with the bound under which that was, in one small file of the
user's state folder: a later run takes the parts from the start. The file is a hint and no more: a wrong or missing one
costs time.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gridcompute.config import state_folder
from gridcompute.errors import MemoryBoundError
from gridcompute.footprint import WORKER_BYTES
from gridcompute.parts import MOST_PARTS
from gridcompute.planning import Plan, Stage
from gridcompute.status import size

FILE = "sizes.json"
FORMAT = 1
MOST_KEPT = 500
MOST_BYTES = 2**18
"""Of the file: a larger one isn't ours."""

ROOMIER = 2
"""Times the bound under which a size was found, from which on it is forgotten: memory is no longer short."""

LIGHT_PARTS = 8
"""Parts up to which each decodes little more than its own share of a stored chunk: another turn decodes all of it."""

HINT = "use fewer workers, give more by memory=, or make the cells smaller"


@dataclass(frozen=True)
class Parts:
    """Pieces that a stage's chunks are computed in, and why.

    Attributes:
        number: of pieces.
        why: in words.
        turns: passes over all pieces, for some of the results each.
    """

    number: int
    why: str
    turns: int = 1

    def __str__(self) -> str:
        turns = f", its results in {self.turns} turns" if self.turns > 1 else ""
        return f"in {self.number} parts{turns}, {self.why}"


def needs(stage: Stage, parts: int = 1, threads: int = 1, memory: int = 0) -> int:
    """Estimated bytes of a worker that computes a stage's chunks, its base included.

    Args:
        stage: of a plan.
        parts: in which each is computed, on one thread.
        threads: that compute one that isn't taken apart.
        memory: bytes that the worker may take, for which results may go in turns; 0 for no bound.
    """
    return WORKER_BYTES + stage.peak.of(parts, threads, room(memory))


def room(memory: int) -> int:
    """Of what a worker may take, bytes for a chunk; 0 where that isn't bounded."""
    return max(1, memory - WORKER_BYTES) if memory else 0


def fitting(stage: Stage, threads: int, memory: int) -> int:
    """How many threads a worker lets carry a chunk of a stage: as many as it has, or as stay within its bound."""
    if not memory or not stage.peak.thread:
        return threads
    return max(1, min(threads, 1 + (room(memory) - stage.peak.work) // stage.peak.thread))


def abreast(stage: Stage, workers: int) -> int:
    """Workers whose cores one task of a stage may have, as the others would have nothing to do."""
    if stage.spans:
        return workers
    return max(1, workers // max(stage.chunks, 1)) if stage.threaded else 1


def most_needed(plan: Plan, memory: int, threads: int, parts: Mapping[int, int], *, workers: int = 1) -> int:
    """Bytes that a worker needs at most, its base included, with as many threads as its tasks may have.

    Args:
        plan: a phase.
        memory: bytes that a worker may take, 0 for no bound.
        threads: of each worker.
        parts: by stage, of those that aren't computed in one.
        workers: whose cores one task may have.
    """
    def need(stage: Stage) -> int:
        most = fitting(stage, threads * abreast(stage, workers), memory)
        return needs(stage, parts.get(stage.number, 1), most, memory)

    return max(map(need, plan.stages), default=0)


def planned_parts(plan: Plan, memory: int) -> dict[int, Parts]:
    """Parts by stage, of those that aren't computed in one.

    Args:
        plan: a phase.
        memory: bytes that a worker may take, 0 for no bound.

    Raises:
        MemoryBoundError: a stage doesn't fit, in any number of parts.
    """
    found, known = {}, _read()
    for stage in plan.stages:
        most = plan.most_parts(stage.number, 0) if stage.chunks else 1
        parts = _needed(stage, memory, most)
        if parts > 1:
            turns = turns_of(stage, parts, memory)
            times = parts * turns
            found[stage.number] = Parts(parts, f"to stay within {size(memory)}: what the parts share is read up to "
                                        f"{times} times, {size(times * stage.read_bytes)} for {size(stage.read_bytes)}",
                                        turns)
        before = known.get(stage.recipe, {})
        if most >= (learnt := before.get("parts", 1)) > parts and not memory > ROOMIER * before["memory"] > 0:
            found[stage.number] = Parts(learnt, "as it ran out of memory before")
    return found


def _needed(stage: Stage, memory: int, most: int) -> int:
    """The number of parts in which a stage fits at the least cost."""
    if not memory or needs(stage) <= memory:
        return 1
    tried = sorted({min(1 << i, most) for i in range(1, most.bit_length() + 1)} - {1})
    fit = [parts for parts in tried if needs(stage, parts, memory=memory) <= memory]
    if not fit:
        whole, own, last = needs(stage), stage.task_bytes, max(tried, default=1)
        more = f"; in {last} parts it still needs {size(needs(stage, last, memory=memory))}" if last > 1 else \
            ", and that chunk can't be taken apart"
        raise MemoryBoundError(f"stage {stage.name} needs {size(whole)} per worker ({size(own)} for one chunk), "
                               f"but a worker may take {size(memory)}{more}", hint=HINT)
    return min(fit, key=lambda parts: (turns_of(stage, parts, memory) * max(parts, LIGHT_PARTS), parts))


def turns_of(stage: Stage, parts: int, memory: int) -> int:
    """Passes over all parts of a chunk, for some of the results each."""
    return sum(1 for _ in stage.peak.turns(stage.peak.results, parts, room(memory))) or 1


def remember(recipe: str, parts: int, memory: int) -> None:
    """Keep what was found about a stage; where that can't be written the next run finds it again."""
    known: dict[str, dict[str, Any]] = {**_read(), recipe: {"parts": parts, "memory": memory, "time": time.time()}}
    newest = sorted(known, key=lambda one: -known[one]["time"])[:MOST_KEPT]
    path = _path()
    temporary = path.with_name(f".{FILE}.{uuid.uuid4().hex[:8]}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "w") as file:
            json.dump({"format": FORMAT, "sizes": {one: known[one] for one in newest}}, file)
        os.replace(temporary, path)


def _path() -> Path:
    return state_folder() / FILE


def _read() -> dict[str, dict[str, Any]]:
    """What is kept, less whatever isn't as it should be."""
    try:
        with open(_path(), encoding="utf-8") as file:
            text = file.read(MOST_BYTES + 1)
        stored: Mapping[str, Any] = json.loads(text) if len(text) <= MOST_BYTES else {}
        kept = stored["sizes"].items() if stored["format"] == FORMAT else ()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {recipe: one for recipe, one in kept if isinstance(one, dict) and _whole(one.get("parts"), 1, MOST_PARTS)
            and _whole(one.get("memory"), 0, 2**62) and isinstance(one.get("time"), int | float)}


def _whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
