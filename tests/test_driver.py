"""The driver with stores that fail: retried by policy, the same bytes, one clear error where waiting doesn't help."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import few

import gridcompute as grid
from gridcompute import progressword
from gridcompute.driver import Driver
from gridcompute.errors import DivergenceError, KernelError, StoreError
from gridcompute.executor import InlineExecutor
from gridcompute.journal import Journal, read
from gridcompute.retry import Policy
from gridcompute.running import graph_of
from gridcompute.store import MemoryStore, Store
from gridcompute.stored import StoredSource
from gridcompute.stores.local import _mine
from gridcompute.testing.faults import Fault, FaultyStore, seeded_faults

pytestmark = pytest.mark.faults


class Clock:
    """Time that passes when somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class PatientExecutor(InlineExecutor):
    """Where there is nothing to do, time passes instead of a busy wait."""

    clock: Clock

    def poll(self, timeout: float) -> list[Any]:
        if self._orders:
            return super().poll(timeout)
        self.clock.now += max(timeout, 1e-3)
        return []


@grid.kernel("(time)->()")
def spread(series):  # type: ignore[no-untyped-def]
    return series.max() - series.min()


def outputs() -> tuple[Any, ...]:
    cube = grid.from_arrays({"t": np.random.default_rng(0).random((4, 3, 4))}, dims=("time", "lat", "lon"))["t"]
    rows = grid.from_arrays({"k": np.arange(9) % 4, "v": np.arange(9.0)}, dims="row")
    return cube.map(spread), cube.mean("time"), rows.sort("k")


def drive(folder: Path, name: str, script: tuple[Fault, ...] = (), worker: tuple[Fault, ...] = (),
          policy: Policy | None = None) -> tuple[Driver, Clock, dict[str, bytes]]:
    """A run on a memory store whose calls fail by a script, in the driver's hands and in the worker's."""
    inner, clock = MemoryStore(f"memory://{name}"), Clock()
    for path in list(inner.list()):
        inner.delete(path)
    executor = PatientExecutor(workers=2, store=FaultyStore(inner, worker))
    executor.clock = clock
    with Journal.open(folder / f"{name}.jsonl") as journal:
        driver = Driver(graph_of(outputs()), FaultyStore(inner, script), executor, journal, clock=clock, policy=policy)
        driver.sleep = clock.sleep
        driver.run()
    return driver, clock, {path: inner.get(path) for path in inner.list()}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("driver")


@pytest.fixture(scope="module")
def plain(home: Path) -> dict[str, bytes]:
    return drive(home, "plain")[2]


PATIENT = Policy(attempts={"transient": 200})  # a task of ten reads, of which each third one fails


@settings(max_examples=few(10))
@given(seed=st.integers(0, 2**32), rate=st.sampled_from((0.05, 0.3)))
def test_stores_that_fail_now_and_then(home: Path, plain: dict[str, bytes], seed: int, rate: float) -> None:
    operations = ("get", "put_new", "exists", "list")
    faults = [seeded_faults(seed + i, rate, calls=300, operations=operations) for i in range(2)]
    driver, _, kept = drive(home, "faulty", *faults, policy=PATIENT)
    # A deletion that fails leaves a file that nothing needs.
    assert {name: data for name, data in kept.items() if name in plain} == plain
    assert all(name.endswith(".arrow") for name in kept.keys() - plain.keys())
    assert isinstance(driver.results["0"], StoredSource)


@pytest.mark.parametrize("kind", ["timeout", "unavailable", "lost"])
def test_each_passing_fault_in_a_worker_is_retried_with_backoff(home: Path, plain: dict[str, bytes], kind: Any) -> None:
    driver, clock, kept = drive(home, "once", worker=(Fault(0, kind), Fault(2, kind)))
    assert kept == plain
    assert driver.status.retries == 2
    assert clock.now >= 0.1
    assert {e["failure"] for e in read(home / "once.jsonl") if e["kind"] == "failed"} == {"transient"}


def test_backoff_in_the_driver(home: Path, plain: dict[str, bytes]) -> None:
    _, clock, kept = drive(home, "listing", script=tuple(Fault(i, "timeout", "list") for i in range(4)))
    assert kept == plain
    assert len(clock.slept) == 4
    assert clock.slept[3] > clock.slept[0]


def test_a_store_that_stays_away(home: Path) -> None:
    always = tuple(Fault(i, "timeout", "list") for i in range(200))
    with pytest.raises(StoreError, match="failed after 6 attempts: TimeoutError"):
        drive(home, "away", script=always)
    always = tuple(Fault(i, "unavailable") for i in range(2000))
    with pytest.raises(grid.GridError, match="503 SlowDown"):
        drive(home, "away-too", worker=always)


def test_no_room_is_said_once(home: Path) -> None:
    with pytest.raises(StoreError, match="the disk is full"):
        drive(home, "full", worker=tuple(Fault(i, "full") for i in range(2000)))
    assert sum(e["kind"] == "failed" for e in read(home / "full.jsonl")) == 1


def test_a_flipped_bit_while_reading_is_made_again(home: Path, plain: dict[str, bytes]) -> None:
    driver, _, kept = drive(home, "bent", worker=(Fault(1, "corrupt", "get"),))
    assert {name: data for name, data in plain.items() if name in kept} == plain
    assert len([name for name in kept if name.endswith(".tombstone")]) == 1
    assert driver.status.retries == 1


def test_half_written_shards_are_void(home: Path, plain: dict[str, bytes]) -> None:
    """On a store that isn't atomic half a shard is left behind: the retry finds it broken and commits the next one."""
    _, _, kept = drive(home, "half", worker=(Fault(0, "partial"),))
    assert len([name for name in kept if name.endswith(".tombstone")]) == 1
    assert len(kept) == len(plain) + 2


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))

    def refused(*arguments: Any, **options: Any) -> int:
        raise PermissionError(13, "Permission denied")

    value = grid.from_arrays({"v": np.arange(4.0)}, dims="row").sum()
    grid.run(value, store=tmp_path / "work", executor="inline", quiet=True)
    other = grid.from_arrays({"v": np.arange(5.0)}, dims="row").sum()
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *a, **k: refused() if "shards" in str(path) or ".tmp-" in str(path)
                        else real(path, *a, **k))
    with pytest.raises(StoreError, match="isn't permitted") as caught:
        grid.run(other, store=tmp_path / "work", executor="inline", quiet=True)
    assert "permissions" in caught.value.hint


def test_divergence_is_reported_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))
    drawn = iter(range(100))

    @grid.task("()->()", dtypes=["f8"])
    def unsteady(value: Any) -> Any:
        import time

        return value + time.perf_counter_ns() % 1_000_003

    from gridcompute import commits
    from gridcompute.shard import commit

    def slow(*arguments: Any, **options: Any) -> Any:
        """Another process commits the same chunk first, with its own values."""
        if next(drawn) == 0:
            other = grid.from_arrays({"v": np.arange(3.0)}, dims="row")["v"].map(unsteady)
            grid.run(other, store=tmp_path / "work", executor="inline", quiet=True)
        return commit(*arguments, **options)

    monkeypatch.setattr(commits, "commit", slow)
    with pytest.raises(DivergenceError, match="two different results for one chunk"):
        grid.run(grid.from_arrays({"v": np.arange(3.0)}, dims="row")["v"].map(unsteady), store=tmp_path / "work",
                 executor="inline", quiet=True)


class AtWorkExecutor(InlineExecutor):
    """Its second task is in the midst of writing when the first fails; its process ends with the executor."""

    def __init__(self, half: Path) -> None:
        super().__init__(workers=2)
        self._half, self._fd = half, -1

    def submit(self, order: Any) -> None:
        super().submit(order)
        if len(self._orders) == 2:
            self._fd = os.open(self._half, os.O_CREAT | os.O_WRONLY)
            fcntl.flock(self._fd, fcntl.LOCK_SH)

    def close(self) -> None:
        super().close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def test_a_failed_run_leaves_nothing_half_written_by_tasks_at_work(tmp_path: Path) -> None:
    @grid.kernel("()->()")
    def checked(value: Any) -> Any:
        if value > 1:
            raise ValueError("too large")
        return value

    work = tmp_path / "work"
    half = work / f"{_mine()}1-0123"
    data = grid.from_arrays({"t": np.full((4096, 4096), 2.0)}, dims=("lat", "lon"))["t"].map(checked)
    with pytest.raises(KernelError, match="too large"):
        grid.run(data, store=work, executor=AtWorkExecutor(half), quiet=True)
    assert not half.exists()
    assert work.exists()


def test_the_word_that_names_a_cell(tmp_path: Path) -> None:
    (tmp_path / "progress-0123456789ab").write_bytes(b"left by a killed driver")
    (tmp_path / "other").mkdir()
    living = progressword.Board(tmp_path / "other")
    assert not living.died
    board = progressword.Board(tmp_path)
    assert board.died
    assert len(list(tmp_path.glob("progress-*"))) == 1
    assert not progressword.Board(tmp_path / "other").died
    living.close()
    assert next(tmp_path.glob("progress-*")).stat().st_mode & 0o777 == 0o600
    word = board.take(7)
    assert word is not None
    assert board.read(7) is None
    with progressword.publishing(word):
        progressword.chunk_begins(3)
        assert board.read(7) == progressword.Mark(3)
        with progressword.kernel_runs("größe", (2, 5), (10, 20)) as cells:
            assert cells is not None
            cells[0] = 7
            assert board.read(7) == progressword.Mark(3, "größe", (11, 22))
            cells[0] = 99
            assert board.read(7) == progressword.Mark(3, "größe")
        with progressword.kernel_runs("x" * 1000, (1,), (0,), by_cell=False):
            assert board.read(7) == progressword.Mark(3, "x" * 351)
        with progressword.kernel_runs("deep", (1,) * 9, (0,) * 9):
            assert board.read(7) == progressword.Mark(3, "deep")
        assert board.read(7) == progressword.Mark(3)
    with progressword.kernel_runs("nobody", (1,), (0,)) as cells:
        assert cells is None
    board.free(7)
    again = board.take(8)
    assert again is not None
    assert again.slot == word.slot
    with progressword.publishing(word):  # a late worker of task 7
        progressword.chunk_begins(5)
    assert board.read(8) is None
    board.free(8, reuse=False)
    other = board.take(9)
    assert other is not None
    assert other.slot != word.slot
    board.close()
    assert not list(tmp_path.glob("progress-*"))
    with progressword.publishing(replace_path(other, str(tmp_path / "progress-gone"))):
        progressword.chunk_begins(1)


def replace_path(word: progressword.Word, path: str) -> progressword.Word:
    return progressword.Word(path, word.slot, word.task)


def test_protocol() -> None:
    assert isinstance(FaultyStore(MemoryStore("memory://protocol")), Store)
