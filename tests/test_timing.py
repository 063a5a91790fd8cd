"""A plan's time goes by earlier runs of the same job, and is left unsaid where there were none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gridcompute as grid
from gridcompute.journal import Journal
from gridcompute.planning import Plan
from gridcompute.record import load, records
from gridcompute.running import graph_of
from gridcompute.timing import chunk_seconds, rates, remaining_seconds

pytestmark = pytest.mark.usefixtures("own_folder")


@grid.kernel("()->()")
def doubled(x):
    return 2 * x


def job() -> grid.Collection:
    return grid.from_arrays({"x": np.arange(512.0)}, dims="i").map(doubled)


def test_no_time_before_a_first_run() -> None:
    planned = grid.plan(job())
    assert planned.seconds is None
    assert "earlier runs" not in planned.explain()


def test_time_after_a_run() -> None:
    grid.run(job(), executor="inline")
    planned = grid.plan(job())
    assert planned.seconds == 0.0  # all is committed
    grid.run(job(), executor="inline", store="elsewhere")
    known = rates(reversed(records()))
    assert known["doubled"] > 0
    plan = Plan(graph_of([job()]))
    assert remaining_seconds(plan, [None], 2, known) == pytest.approx(known["doubled"] * plan.stages[0].chunks / 2)
    assert remaining_seconds(plan, [plan.stages[0].chunks], 2, {}) == 0.0
    assert remaining_seconds(plan, [0], 2, {}) is None


def test_a_damaged_journal_says_nothing(tmp_path: Path) -> None:
    run = grid.run(job(), executor="inline")
    record = load(run.name)
    record.journal.write_bytes(b'{"kind":"kept","chunks":[1],"seconds":1}\nrubbish\n')
    assert chunk_seconds(record) == {}
    with Journal.open(record.journal) as journal:
        journal.append("kept", stage=0, chunks="all", seconds=1.0)
        journal.append("phase", stages=[1, 2])
    assert chunk_seconds(record) == {}
