"""What the bars say: that it starts, how fast it goes, and what is left."""

from __future__ import annotations

import io
from typing import Any

import pytest

from gridcompute import progress
from gridcompute.status import Status


class Bars:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}

    def add_task(self, name: str, **values: Any) -> str:
        return name

    def update(self, name: str, *, note: str, **values: Any) -> None:
        self.notes[name] = note


def test_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    kept = Bars()
    bars = progress._Bars(kept)
    status = Status(phase=1, done={"1 a": 8, "2 b": 0, "3 c": 0}, total={"1 a": 8, "2 b": 10, "3 c": 1})
    bars.show(status)
    assert kept.notes == {"1 a": "done", "2 b": "starting", "3 c": "waiting"}
    now, status.done["2 b"], status.tasks = 160.0, 2, 2  # the minute of starting says nothing about the rate
    bars.show(status)
    assert kept.notes == {"1 a": "done", "2 b": "running", "3 c": "waiting"}
    now, status.done["2 b"], status.tasks = 170.0, 6, 6
    bars.show(status)
    assert kept.notes == {"1 a": "done", "2 b": "0.4/s, 0:10 left", "3 c": "waiting"}


def test_no_stage_is_done_before_those_that_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    kept = Bars()
    bars = progress._Bars(kept)
    for moment, slow, quick in ((1.0, 0, 0), (2.0, 1, 1), (12.0, 2, 8)):
        now = moment
        bars.show(Status(phase=1, done={"1 a": slow, "2 b": quick}, total={"1 a": 10, "2 b": 10}, tasks=slow))
    assert kept.notes == {"1 a": "0.1/s, 1:20 left", "2 b": "0.7/s, 1:20 left"}


def test_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.watcher() as show:
        show(Status(done={"1 a": 0}, total={"1 a": 1}))
    assert capsys.readouterr().err == ""


def test_long_names_leave_room_for_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    drawn = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", drawn)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    name = "1 temperature_counts+both_temperatures+percentile_days+precipitation"
    with progress.watcher() as show:
        show(Status(done={name: 3}, total={name: 24}))
    assert "3/24 chunks" in drawn.getvalue()
    assert "starting" in drawn.getvalue()
    assert name[:15] in drawn.getvalue()


def test_a_log_has_a_line_a_minute(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.watcher() as show:
        for moment, done in ((50.0, 0), (70.0, 0), (80.0, 1000), (129.0, 1999), (140.0, 2200), (210.0, 4000)):
            now = moment
            show(Status(phase=1, done={"1 a": done, "2 b": 0}, total={"1 a": 4000, "2 b": 0}))
    assert capsys.readouterr().err.splitlines() == ["begun", "1 a: 2,200 of 4,000 chunks, about 1:30 left"]
    with progress.watcher(quiet=True) as show:
        now = 999.0
        show(Status(phase=1, done={"1 a": 0}, total={"1 a": 2}))
    assert capsys.readouterr().err == ""
