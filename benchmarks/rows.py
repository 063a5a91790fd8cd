"""What a benchmark gives: rows of repeated measurements, ours and those of peers, taken in turn."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

OURS = "ours"
MODES = ("quick", "default", "full")
Mode = Literal["quick", "default", "full"]


class WrongResultError(Exception):
    """What was timed gave another value than it should; its time means nothing."""


@dataclass(frozen=True)
class Stat:
    """Median, least, greatest and number of some measurements."""

    median: float
    min: float
    max: float
    n: int

    @classmethod
    def of(cls, values: list[float]) -> Stat:
        """Of at least one value.

        >>> Stat.of([3.0, 1.0, 2.0])
        Stat(median=2.0, min=1.0, max=3.0, n=3)
        """
        return cls(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True)
class Reference:
    """A number that somebody wrote down: a published value, or a target.

    Attributes:
        value: in the row's unit.
        source: where it is from.
        system: whose it is, for a published value.
    """

    value: float
    source: str
    system: str = ""


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        name: section, slash, what is measured.
        unit: of all values.
        raw: every repetition by system; `ours` is gridcompute.
        more: whether a greater value is better (a rate), else a smaller one (a time).
        target: what ours should reach.
        published: what somebody else published.
        note: what one must know to read the row.
    """

    name: str
    unit: str
    raw: Mapping[str, list[float]]
    more: bool = False
    target: Reference | None = None
    published: Reference | None = None
    note: str = ""

    @property
    def stats(self) -> dict[str, Stat]:
        """By system, those that were measured."""
        return {system: Stat.of(values) for system, values in self.raw.items() if values}

    def ratio(self, peer: str) -> float | None:
        """How many times better ours is than a peer: median over pairs of repetitions; below 1 the peer is better."""
        pairs = zip(self.raw.get(OURS, ()), self.raw.get(peer, ()), strict=False)
        found = [(ours / theirs if self.more else theirs / ours) for ours, theirs in pairs if ours > 0 and theirs > 0]
        return statistics.median(found) if found else None

    @property
    def met(self) -> bool | None:
        """Whether our median reaches the target; None without one."""
        ours = self.stats.get(OURS)
        if self.target is None or ours is None:
            return None
        return ours.median >= self.target.value if self.more else ours.median <= self.target.value

    def to_json(self) -> dict[str, Any]:
        """The row as plain values, without the raw repetitions."""
        stats = {system: vars(stat) for system, stat in self.stats.items()}
        peers = {system: {**stat, "ratio": self.ratio(system)} for system, stat in stats.items() if system != OURS}
        return {
            "name": self.name, "unit": self.unit, "better": "more" if self.more else "less",
            "ours": stats.get(OURS), "peers": peers, "published": self.published and vars(self.published),
            "target": self.target and vars(self.target),
            "met": self.met, "note": self.note,
        }  # fmt: skip


@dataclass
class Session:
    """One run of a benchmark: how much of it, against whom, and what was seen on the way.

    Attributes:
        mode: quick, default or full.
        peers: names of the peers wanted; None for all that are there.
        folder: for everything that is written; removed at the end.
        only: sections to run; empty for all.
        load: one-minute load when each section began.
        absent: peers that aren't installed.
    """

    mode: Mode = "default"
    peers: tuple[str, ...] | None = None
    folder: str = ""
    only: tuple[str, ...] = ()
    load: dict[str, float] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)

    def pick(self, quick: Any, default: Any, full: Any) -> Any:
        """One of three, by the mode."""
        return {"quick": quick, "default": default, "full": full}[self.mode]

    def begin(self, section: str) -> None:
        """Say that a section begins, and note the load."""
        self.load[section] = round(os.getloadavg()[0], 2)
        print(f"{section} (load {self.load[section]:.2f}) ...", file=sys.stderr, flush=True)


Measure = Callable[[], float]


def interleaved(systems: Mapping[str, Measure], repeat: int, *, warm: bool = True) -> dict[str, list[float]]:
    """Measure systems in turn, A B A B, so that a change of the machine's load meets all of them.

    Args:
        systems: each gives one value a call, and raises `WrongResultError` where its result is wrong.
        repeat: values a system.
        warm: call each once beforehand and forget the value.
    """
    if warm:
        for measure in systems.values():
            measure()
    raw: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(repeat):
        for name, measure in systems.items():
            raw[name].append(measure())
    return raw


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that a call takes, and what it gives."""
    began = time.perf_counter()
    value = work()
    return time.perf_counter() - began, value


def check(right: bool, what: str) -> None:
    """Refuse a measurement whose result is wrong.

    Raises:
        WrongResultError: naming what was measured.
    """
    if not right:
        raise WrongResultError(f"{what} gave a wrong result; its time doesn't count")
