"""Run records: private, without secrets, found by name; hostile, broken and newer ones refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gridcompute as grid
from gridcompute.config import Settings
from gridcompute.errors import RecordError, StoreError
from gridcompute.record import forget, known, load, new_record, records
from gridcompute.running import graph_of


def made(name: str = "sum", **options: Any) -> Any:
    graph = graph_of([grid.from_arrays({"v": np.arange(4.0)}, dims="row").sum()])
    record = new_record(graph, Settings.of(**options), {}, name)
    record.save()
    return record


def test_saved_and_found(own_folder: Path) -> None:
    record = made()
    assert load(record.run) == load(record.run[:8]) == load("last") == load(record.folder) == record
    assert known() == [record.run]
    assert records() == [record]
    for path in (Path(record.folder) / "run.json", own_folder / "state" / "runs" / f"{record.run}.json"):
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o077 == 0
    assert record.versions["numpy"] == np.__version__
    forget(record)
    forget(record)
    assert known() == []


def test_no_secrets(own_folder: Path) -> None:
    record = made(store_options={"secret": "hunter2", "key": "AKIA"})
    for path in [*own_folder.rglob("*.json")]:
        assert "hunter2" not in path.read_text()
        assert "AKIA" not in path.read_text()
    assert "hunter2" not in repr(record)


def test_standing(own_folder: Path) -> None:
    record = made()
    assert (record.alive, record.standing) == (True, "running")
    gone = made("gone")
    object.__setattr__(gone, "pid", 2**22 + 1)
    assert (gone.alive, gone.standing) == (False, "interrupted")
    ended = record.ended("done", {"computed": 3})
    ended.save()
    assert (ended.standing, load(record.run).summary) == ("done", {"computed": 3})


def test_names(own_folder: Path) -> None:
    first, second = made("Trend of t2m!"), made("trend-of-t2m")
    assert first.run.startswith("trend-of-t2m-")
    assert first.run != second.run
    with pytest.raises(RecordError, match="several runs begin with 'trend'"):
        load("trend")
    with pytest.raises(RecordError, match="no run 'nothing'"):
        load("nothing")
    for hostile in ("../../etc/passwd", "", "a/b", "\0"):
        with pytest.raises(RecordError):
            load(hostile) if hostile else load("x" * 300)


def test_a_folder_that_is_gone(own_folder: Path) -> None:
    record = made()
    (Path(record.folder) / "run.json").unlink()
    with pytest.raises(RecordError, match="no record"):
        load(record.run)
    assert records() == []


def test_newer_and_broken(own_folder: Path) -> None:
    record = made()
    path = Path(record.folder) / "run.json"
    good = json.loads(path.read_text())
    for change, message in (({"format": 99}, "format 99"), ({"run": "../x"}, "broken"), ({"run": 5}, "broken"),
                            ({"graph": {}}, "broken"), ({"more": 1}, "broken")):  # fmt: skip
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(RecordError, match=message):
            load(record.run)
    for text in ("", "[]", "{", "null", "\udcff".encode("utf-8", "surrogateescape").decode("latin-1")):
        path.write_text(text)
        with pytest.raises(RecordError):
            load(record.run)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60))
def test_any_bytes(own_folder: Path, data: bytes) -> None:
    folder = own_folder / "any"
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_bytes(data)
    with pytest.raises(RecordError):
        load(str(folder))


def test_unwritable(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own_folder / "file").write_text("")
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(own_folder / "file" / "state"))
    with pytest.raises(StoreError, match="record can't be written"):
        made()


def test_run_ends_in_its_record(own_folder: Path) -> None:
    total = grid.from_arrays({"v": np.arange(4.0)}, dims="row").sum()
    run = grid.run(total, executor="inline", quiet=True, name="four")
    record = load("four")
    assert record.state == "done"
    assert record.pid == os.getpid()
    assert record.summary["computed"] == run.summary()["computed"] > 0
    assert record.journal.is_file()
