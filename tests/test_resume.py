"""Killed, interrupted, damaged: run again, the same bytes come out, and nothing that was committed is done twice."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from interrupted import JOB, contents, finish, journals, kept, load_job, start, values, write_job

import gridcompute as grid
from gridcompute.errors import CorruptShardError, LeaseError, OutputExistsError
from gridcompute.journal import read

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The job run once without any fault."""
    folder = write_job(tmp_path_factory.mktemp("reference") / "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRIDCOMPUTE_STATE", str(folder / "state"))
        run = load_job(folder).run(folder, executor="inline")
        journal = journals(folder)[0]
        yield SimpleNamespace(folder=folder, contents=contents(folder), kept=kept(journal), values=values(run),
                              events=[e["kind"] for e in read(journal)])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: Any) -> Path:
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))
    return write_job(tmp_path)


@pytest.fixture
def whole(folder: Path, reference: Any) -> Path:
    """The job, done."""
    check(folder, reference, again(folder))
    return folder


def again(folder: Path) -> Any:
    return load_job(folder).run(folder, executor="inline")


def check(folder: Path, reference: Any, run: Any) -> None:
    assert values(run) == reference.values
    assert contents(folder) == reference.contents


def test_a_second_run_computes_nothing(whole: Path, reference: Any) -> None:
    run = again(whole)
    assert run.summary()["computed"] == 0
    assert 0 < run.summary()["reused"] < len(reference.kept)  # what nothing needs is deleted, and not missed
    check(whole, reference, run)


@pytest.mark.parametrize("at", ["begun", "phase:1", "kept:1", "kept:9", "phase-done:1", "phase:2", "kept:-9",
                                "kept:-3", "kept:-2", "kept:-1", "phase-done:2", "finalized", "done"])  # fmt: skip
def test_killed_at_an_event(at: str, folder: Path, reference: Any) -> None:
    kind, _, number = at.partition(":")
    assert reference.events.count(kind) >= abs(int(number or 1))
    if int(number or 1) < 0:
        at = f"{kind}:{reference.events.count(kind) + int(number)}"
    code, _, err = finish(start(folder, kill=at))
    assert code == -signal.SIGKILL, err
    first = kept(journals(folder)[0])
    run = again(folder)
    second = kept(journals(folder)[-1])
    assert not first & second
    assert first | second == reference.kept
    assert run.summary()["reused"] <= len(first)
    assert run.summary()["computed"] == len(second)
    check(folder, reference, run)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_interrupt(number: int, folder: Path, reference: Any) -> None:
    code, _, err = finish(start(folder, kill="kept:5", signal=number))
    assert err.startswith("stopping: ")
    assert err.count("gridcompute resume ") == 1
    if number == signal.SIGINT:
        assert code == -signal.SIGINT  # as Python itself ends, which shells rely on
        assert "Traceback" not in err
    else:
        assert code == 1
        assert "InterruptedRunError" in err
    assert [e["kind"] for e in read(journals(folder)[0])][-1] == "cancelled"
    record = json.loads((journals(folder)[0].parent / "run.json").read_text())
    assert record["state"] == "interrupted"
    first = kept(journals(folder)[0])
    run = again(folder)
    assert not first & kept(journals(folder)[-1])
    check(folder, reference, run)


@pytest.mark.parametrize("damage", ["torn", "deleted", "middle", "record"])
def test_journal_is_history(damage: str, whole: Path, reference: Any) -> None:
    journal = journals(whole)[0]
    data = journal.read_bytes()
    if damage == "torn":
        journal.write_bytes(data[:-20])
    elif damage == "deleted":
        journal.unlink()
    elif damage == "middle":
        journal.write_bytes(data[:300] + b"\0\xff{" + data[303:])
    else:
        (journal.parent / "run.json").unlink()
    run = again(whole)
    assert run.summary()["computed"] == 0
    check(whole, reference, run)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def shards(folder: Path) -> list[Path]:
    return sorted((p for p in folder.glob("work/shards/**/*.arrow")), key=lambda p: p.stat().st_mtime_ns)


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "empty"])
def test_damaged_shards_are_made_again(damage: str, folder: Path, reference: Any) -> None:
    """Each of the first phase's shards in turn is broken after a kill between the phases."""
    code, _, err = finish(start(folder, kill="phase:2"))
    assert code == -signal.SIGKILL, err
    broken = shards(folder)[:: max(1, len(shards(folder)) // 3)]
    for path in broken:
        if damage == "flip":
            flip(path)
        elif damage == "cut":
            path.write_bytes(path.read_bytes()[:-64])
        elif damage == "empty":
            path.write_bytes(b"")
        else:
            path.unlink()
    run = again(folder)
    assert values(run) == reference.values
    last = again(folder)
    assert last.summary()["computed"] == 0
    assert values(last) == reference.values


def test_every_damaged_result_shard_heals_at_the_next_run(whole: Path, reference: Any) -> None:
    """A broken result is found when it is read; declared void then, the next run makes it anew."""
    for path in shards(whole):
        flip(path)
    last: Any = None
    for _ in range(4 * len(shards(whole))):
        last = again(whole)
        try:
            assert values(last) == reference.values
            break
        except CorruptShardError as error:
            last_words = str(error)
            if "gone" in last_words:
                pytest.fail(last_words)
    assert values(last) == reference.values
    again_ = again(whole)
    assert again_.summary()["computed"] == 0


@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_damaged_output_chunk_is_written_again(
    damage: str, whole: Path, reference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk = next(p for p in sorted(whole.glob("out.zarr/mean/c/**/*")) if p.is_file())
    flip(chunk) if damage == "flip" else chunk.unlink()
    if damage == "flip":  # of the same size: its contents are only read where that is asked for
        assert again(whole).summary()["computed"] == 0
        monkeypatch.setenv("GRIDCOMPUTE_VERIFY_OUTPUTS", "1")
    run = again(whole)
    # What it reads had been deleted, so that is made again, too, and nothing else.
    assert run.summary()["computed"] == 7
    assert contents(whole).keys() == reference.contents.keys()
    assert values(run) == reference.values
    assert {k: v for k, v in contents(whole).items() if k.startswith("out.zarr")} == {
        k: v for k, v in reference.contents.items() if k.startswith("out.zarr")}


def test_damaged_record_is_written_again(whole: Path, reference: Any) -> None:
    record = next(iter(sorted(whole.glob("work/shards/**/*.record.json"))))
    flip(record)
    run = again(whole)
    assert run.summary()["computed"] >= 1
    assert values(run) == reference.values


def test_two_at_once(folder: Path, reference: Any) -> None:
    both = [start(folder), start(folder)]
    ends = [finish(process) for process in both]
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert contents(folder) == reference.contents
    # What one has deleted the other may make again.
    first, second = (kept(journal, twice=True) for journal in journals(folder))
    assert first | second == reference.kept
    assert not list(folder.glob(".*lease*"))


def test_another_recipe_is_refused_the_output(folder: Path, reference: Any) -> None:
    code, _, _ = finish(start(folder, kill=f"kept:{reference.events.count('kept') - 3}"))
    assert code == -signal.SIGKILL
    other = write_job(folder / "other", JOB.replace("series.max()", "series.min()"))
    with pytest.raises(LeaseError, match=r"out\.zarr"):
        load_job(other).run(folder, executor="inline")
    check(folder, reference, again(folder))
    with pytest.raises(OutputExistsError, match=r"out\.zarr"):
        load_job(other).run(folder, executor="inline")
    assert grid.open_result(str(folder / "out.zarr"))["mean"].values.tolist() == reference.values[0]
