"""How the graphs of this process come about, so that a run can be made again: from a workload or from a script.

A run's record keeps `how`: {"workload", "parameters"} or {"script", "arguments"}, and under "call" which of the runs
that the workload or script makes it is. A notebook or a prompt has none: its cell is run again.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gridcompute.config import Settings
from gridcompute.errors import RecordError
from gridcompute.explain import Planned
from gridcompute.op import Graph
from gridcompute.reasons import graph_changes
from gridcompute.record import RunRecord, driver_process, new_record


@dataclass
class Origin:
    """What is running now.

    Attributes:
        how: of its runs, without "call"; {} for a session.
        expected: the record of a run that is being resumed: the call of that number must make the same graph.
        changed: whether another graph is welcome too.
        calls: runs made so far.
        runs: what `grid.run` and `grid.start` made, in order.
        reports: whether who made it says how its runs ended, as the command line does; else an interrupted run does.
        plans: whether `PlannedInstead` takes the place of a run.
        stops: number of the call that `ReachedRun` takes the place of; None where all are run.
    """

    how: Mapping[str, Any] = field(default_factory=dict)
    expected: RunRecord | None = None
    changed: bool = False
    calls: int = 0
    runs: list[Any] = field(default_factory=list)
    reports: bool = False
    plans: bool = False
    stops: int | None = None

    @property
    def upcoming(self) -> dict[str, Any]:
        """`how` of the next run."""
        return {**self.how, "call": self.calls} if self.how else {}

    def record(self, graph: Graph, settings: Settings, name: str) -> RunRecord:
        """The record of the next run: a new one, or the one that is resumed.

        Raises:
            RecordError: the graph isn't the one of the resumed run.
        """
        how = self.upcoming
        name = name or Path(str(self.how.get("script", ""))).stem or str(graph.outputs[0][1])
        self.calls += 1
        old = self.expected
        if old is None or old.how.get("call", 0) != how.get("call", 0):
            return new_record(graph, settings, how, name)
        fresh = new_record(graph, settings, how, name)
        if graph.key != old.key and not self.changed:
            lines = graph_changes(old.graph, fresh.graph, old.versions)
            raise RecordError(
                f"the run {old.run} can't go on as it was, its graph has changed: {'; '.join(lines)}",
                hint=f"gridcompute resume {old.run} --changed computes what changed and keeps the rest",
            )
        pid, since = driver_process()
        return replace(
            old,
            key=graph.key,
            graph=fresh.graph,
            settings=fresh.settings,
            outputs=fresh.outputs,
            state="running",
            pid=pid,
            pid_since=since,
            versions=fresh.versions,
            summary={},  # until this attempt ends, figures come from the journal
            resumed=time.time(),
        )


class PlannedInstead(BaseException):
    """What a run was to do; ends a script that is only planned, past what it catches.

    Attributes:
        planned: the plan.
    """

    def __init__(self, planned: Planned) -> None:
        super().__init__()
        self.planned = planned


class ReachedRun(BaseException):
    """The graph and settings of a run that is looked at instead; past what a script catches.

    Attributes:
        graph: what was to be run.
        settings: how.
    """

    def __init__(self, graph: Graph, settings: Settings) -> None:
        super().__init__()
        self.graph, self.settings = graph, settings


_stack: list[Origin] = []


def current() -> Origin:
    """The origin of runs made now."""
    if not _stack:
        _stack.append(Origin(main_script()))
    return _stack[-1]


@contextlib.contextmanager
def within(origin: Origin) -> Iterator[Origin]:
    """Give runs this origin."""
    origin.plans = origin.plans or current().plans
    _stack.append(origin)
    try:
        yield origin
    finally:
        _stack.remove(origin)


def main_script() -> dict[str, Any]:
    """How the script that Python was started with is run again; {} at a prompt, in a notebook, or under `python -m`."""
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    if not path or getattr(main, "__spec__", None) is not None or sys.flags.interactive:
        return {}
    script = os.path.abspath(path)
    if not script.endswith(".py") or "site-packages" in script or not os.path.isfile(script):
        return {}
    return {"script": script, "arguments": list(sys.argv[1:])}
