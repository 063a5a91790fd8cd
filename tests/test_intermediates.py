"""Intermediate shards go as soon as nothing needs them; resume, other runs and results don't miss them."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import gridcompute as grid
from gridcompute import axes, pacing, planning
from gridcompute.cleaning import clean, leavings
from gridcompute.driver import Driver
from gridcompute.errors import StoreError
from gridcompute.events import Failure, TaskDone, TaskFailed
from gridcompute.executor import InlineExecutor
from gridcompute.intermediates import Intermediates, claim_path
from gridcompute.journal import Journal
from gridcompute.orders import Order
from gridcompute.planning import Plan
from gridcompute.running import graph_of
from gridcompute.spaces import Region
from gridcompute.store import MemoryStore
from gridcompute.summary import facts, screen
from gridcompute.testing.liars import LyingExecutor

pytestmark = pytest.mark.faults


@grid.kernel("(n)->()")
def around(values):
    return values.sum()


@grid.kernel("()->()")
def lifted(value, cell):  # where a cell lies among the filtered rows is known once they are counted
    return value * 2.0 + cell[0]


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Every stage commits and small data is cut, so that shards can be counted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))
    with mock.patch.object(planning, "HELD_BYTES", -1), mock.patch.object(axes, "LIGHT_FLOOR", 1):
        yield


class Watched:
    """A store in memory that counts what is asked of it, and the most bytes of shards that it has held."""

    def __init__(self, url: str) -> None:
        self.inner = MemoryStore(url)
        for path in list(self.inner.list()):
            self.inner.delete(path)
        self.listed: Counter[str] = Counter()
        self.read: set[str] = set()
        self.most = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def put_new(self, path: str, data: bytes | memoryview) -> bool:
        won = self.inner.put_new(path, data)
        self.most = max(self.most, self.held())
        return won

    def held(self) -> int:
        return sum(size for _, size in self.inner.list_sizes("shards"))

    def get(self, path: str) -> bytes:
        self.read.add(path)
        return self.inner.get(path)

    def get_range(self, path: str, start: int, stop: int) -> bytes:
        self.read.add(path)
        return self.inner.get_range(path, start, stop)

    def list(self, prefix: str = "") -> Any:
        return (name for name, _ in self.list_sizes(prefix))

    def list_sizes(self, prefix: str = "") -> Any:
        self.listed[prefix] += 1
        return self.inner.list_sizes(prefix)


@pytest.fixture
def at_once() -> Any:
    """Deletions don't wait for their thread, so that what lies in the store at a time doesn't depend on it."""
    with mock.patch.object(Intermediates, "_delete_soon", lambda self, places: self._delete_all(list(places))):
        yield


def drive(folder: Path, store: Any, *outputs: Any, executor: InlineExecutor | None = None,
          keep: bool = False) -> Driver:
    with Journal.open(folder / f"{len(list(folder.glob('*.jsonl')))}.jsonl") as journal:
        driver = Driver(graph_of(outputs), store, executor or InlineExecutor(store=store), journal,
                        keep_intermediates=keep)
        driver.run()
    return driver


def chain(n: int = 256, times: int = 3) -> Any:
    """Stages in a row, the last of which is the result; each chunk reads its neighbours."""
    made = grid.from_arrays({"v": np.arange(float(n))}, dims="n")["v"]
    for _ in range(times):
        made = made.stencil(around, {"n": 1})
    return made


def result(driver: Driver) -> Any:
    source = driver.results["0"]
    name = source.fields[0].name
    return source.read(Region.of(*((0, n) for n in source.space.shape)), [name]).columns[name].values


def arrows(store: Any) -> list[str]:
    return [name for name in store.inner.list("shards") if name.endswith(".arrow")]


def test_the_store_holds_no_more_than_the_frontier(
    tmp_path: Path, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "MOST", 1)  # a chunk a task: how many quick ones are made ahead depends on the machine
    kept, store = Watched("memory://whole"), Watched("memory://frontier")
    whole = drive(tmp_path, kept, chain(), keep=True)
    assert len(Plan(graph_of([chain()])).stages) == 3
    each = kept.held() / 3
    driver = drive(tmp_path, store, chain())
    np.testing.assert_array_equal(result(driver), result(whole))
    # The result, and of each stage before it a few chunks that wait for their neighbours.
    assert store.held() == pytest.approx(each, rel=0.02)
    assert store.most < 1.2 * each
    assert driver.status.deleted == len(arrows(kept)) * 2 // 3
    assert driver.status.kept_bytes == 0
    assert 0 < driver.status.most_kept_bytes < 0.2 * each
    assert (whole.status.deleted, len(arrows(kept))) == (0, 3 * len(arrows(store)))


def test_a_finished_run_reads_no_shard_and_lists_once(tmp_path: Path) -> None:
    store = Watched("memory://finished")
    first = drive(tmp_path, store, chain())
    shards = len(arrows(store))
    store.read.clear()
    store.listed.clear()
    again = drive(tmp_path, store, chain(), executor=Refusing(store=store))
    assert (again.status.computed, again.status.reused) == (0, shards)
    assert not store.read
    assert len(store.listed) == 3
    assert set(store.listed.values()) == {1}
    np.testing.assert_array_equal(result(again), result(first))


class Refusing(InlineExecutor):
    """Isn't started."""

    def begin(self, payloads: Any) -> None:
        raise AssertionError("started, though all is done")


class Breaking(InlineExecutor):
    """Ends the run with an error, as if the driver had died, after so many tasks."""

    left = 0

    def poll(self, timeout: float) -> list[Any]:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return super().poll(timeout)


@pytest.mark.parametrize("after", [1, 100, 400, 700])
def test_what_a_broken_off_run_left_is_used_and_then_deleted(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "MOST", 1)
    store = Watched("memory://broken-off")
    breaking = Breaking(store=store)
    breaking.left = after
    with pytest.raises(KeyboardInterrupt):
        drive(tmp_path, store, chain(), executor=breaking)
    before = {name: store.inner.get(name) for name in arrows(store)}
    driver = drive(tmp_path, store, chain())
    assert driver.status.reused <= len(before)
    clean = Watched("memory://clean")
    drive(tmp_path, clean, chain())
    assert {name: store.inner.get(name) for name in arrows(store)} == {
        name: clean.inner.get(name) for name in arrows(clean)}


class KilledError(BaseException):
    """The process ends here."""


class Killing(Watched):
    """Kills whoever deletes from it, after so many deletions."""

    def __init__(self, url: str, after: int) -> None:
        super().__init__(url)
        self.left = after

    def delete(self, path: str) -> None:
        if self.left == 0:
            raise KilledError
        self.left -= 1
        self.inner.delete(path)


def test_killed_before_any_deletion_nothing_is_left_for_good(tmp_path: Path, at_once: None) -> None:
    """Of chunks of several files, too, which a kill may leave with some of them."""
    def outputs() -> list[Any]:
        table = grid.from_arrays({"k": np.arange(10) * 7 % 11, "v": np.arange(10.0)}, dims="row")
        rows = table.filter(table["k"] < 4)
        return [rows.sort("k"), rows["v"].map(lifted).sum()]

    clean, left = Watched("memory://clean"), 0
    whole = drive(tmp_path, clean, *outputs()).status.deleted
    for after in range(whole):
        store = Killing(f"memory://killed-{after}", after)
        with pytest.raises(KilledError):
            drive(tmp_path, store, *outputs())
        left += len(arrows(store))
        store.left = -1
        again = drive(tmp_path, store, *outputs())
        assert {name: store.inner.get(name) for name in arrows(store)} == {
            name: clean.inner.get(name) for name in arrows(clean)}, after
        assert again.status.kept_bytes == 0
    assert left > whole * len(arrows(clean)) > 0


@pytest.mark.parametrize("options", [{"verify": 1.0}, {"quorum": "2/3"}])
def test_chunks_that_were_voted_on_go_too(options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The public way: they are deleted while the run goes on, and what a broken off run left is enough to go on."""
    monkeypatch.setattr(pacing, "MOST", 1)

    def run(name: str, executor: Any = None, **more: Any) -> Any:
        return grid.run(chain(), executor=executor or LyingExecutor(rate=0.0), store=str(tmp_path / name), quiet=True,
                        **more)

    def shards(name: str) -> set[str]:
        return {path.name for path in (tmp_path / name / "shards").rglob("*.arrow")}

    plain, voted = run("plain"), run("voted", **options)
    np.testing.assert_array_equal(voted[0].to_numpy(), plain[0].to_numpy())
    assert shards("voted") == shards("plain")
    assert voted.status.deleted == plain.status.deleted == 2 * len(shards("plain"))
    assert voted.status.confirmed == voted.status.computed == 3 * len(shards("plain"))
    # Not only at the end: what was to be deleted was never there as a whole.
    assert 0 < voted.status.most_kept_bytes < voted.status.deleted_bytes
    assert voted.status.kept_bytes == 0
    breaking = Failing(after=voted.status.tasks // 2)
    with pytest.raises(grid.errors.RunError, match="broken off"):
        run("broken", breaking, **options)
    assert shards("broken") != shards("plain")
    again = run("broken", **options)
    assert again.status.reused > 0
    assert again.status.computed < 3 * len(shards("plain"))
    np.testing.assert_array_equal(again[0].to_numpy(), plain[0].to_numpy())
    assert shards("broken") == shards("plain")
    assert run("broken", **options).status.computed == 0


class Failing(LyingExecutor):
    """Honest, and fails for good after so many tasks."""

    def __init__(self, after: int) -> None:
        super().__init__(rate=0.0)
        self.left = after

    def poll(self, timeout: float) -> list[Any]:
        self.left -= 1
        events = super().poll(timeout)
        return events if self.left > 0 else [
            TaskFailed(event.task, Failure("fatal", "broken off")) for event in events if isinstance(event, TaskDone)]


def table(folder: Path) -> Any:
    """Rows that are counted before what needs their places is planned: two phases before the last."""
    if not (folder / "t.csv").exists():
        (folder / "t.csv").write_text("k,v\n" + "".join(f"{i % 7},{i}.5\n" for i in range(500)))
    rows = grid.open_table(str(folder / "t.csv"))
    return rows.filter(rows["k"] < 4)


def test_counts_outlive_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Watched("memory://counts")
    first = drive(tmp_path, store, table(tmp_path)["v"].map(lifted).sum())
    assert first.status.phase > 1
    assert len(arrows(store)) == 1  # the sum
    from gridcompute.sources import blocks

    monkeypatch.setattr(blocks, "recut", lambda *args, **options: pytest.fail("read again"))
    again = drive(tmp_path, store, table(tmp_path)["v"].map(lifted).sum(), executor=Refusing(store=store))
    assert again.status.computed == 0
    assert result(again) == result(first)


def test_another_run_makes_counted_rows_again(tmp_path: Path) -> None:
    store, fresh = Watched("memory://again"), Watched("memory://fresh")
    drive(tmp_path, store, table(tmp_path)["v"].map(lifted).sum())
    other = drive(tmp_path, store, table(tmp_path)["v"].map(lifted).max())
    assert other.status.computed > 1
    assert result(other) == result(drive(tmp_path, fresh, table(tmp_path)["v"].map(lifted).max()))
    for name in [n for n in store.inner.list("shards") if n.endswith(".record.json")]:
        store.inner.put(name, store.inner.get(name)[:-9])
    healed = drive(tmp_path, store, table(tmp_path)["v"].map(lifted).min())
    assert result(healed) == result(drive(tmp_path, fresh, table(tmp_path)["v"].map(lifted).min()))


def test_results_of_another_run_stay(tmp_path: Path) -> None:
    """What this run has on its way may be what another was made for, before it or meanwhile."""
    store = Watched("memory://claims")
    one = drive(tmp_path, store, chain(times=2))
    drive(tmp_path, store, chain(times=3))
    values = result(one)
    again = drive(tmp_path, store, chain(times=2), executor=Refusing(store=store))
    np.testing.assert_array_equal(result(again), values)
    assert store.exists(claim_path(one.results["0"].recipe))


def test_kept_intermediates_stay_for_other_runs(tmp_path: Path) -> None:
    store = Watched("memory://kept")
    drive(tmp_path, store, chain(), keep=True)
    shards = arrows(store)
    drive(tmp_path, store, chain())
    longer = drive(tmp_path, store, chain(times=4))
    assert set(shards) <= set(arrows(store))
    assert longer.status.computed * 3 == len(shards)


def test_settings_and_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDCOMPUTE_KEEP_INTERMEDIATES", "1")
    kept = grid.run(chain(), executor="inline", store=tmp_path / "work", quiet=True)
    assert kept.record.settings["keep_intermediates"] is True
    assert kept.status.deleted == 0
    monkeypatch.setenv("GRIDCOMPUTE_KEEP_INTERMEDIATES", "0")
    run = grid.run(chain(), executor="inline", store=tmp_path / "other", quiet=True)
    told = "\n".join(screen(facts(run.record)))
    assert f"{run.status.deleted:,} intermediate shards" in told
    assert run.status.deleted == len(list((tmp_path / "work/shards").rglob("*.arrow"))) * 2 // 3
    planned = grid.plan(chain(), store=tmp_path / "other").explain()
    assert "at most 4.0 KiB of that are intermediate results" in planned
    assert planned.count("not needed: what reads it is committed") == 2
    # Claims go with the shards that they are of.
    found = leavings(str(tmp_path / "work"), everything=True)
    clean(found)
    assert not [path for path in (tmp_path / "work").rglob("*") if path.is_file()]


def test_room_is_only_asked_for_what_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryStore, "free_bytes", lambda self: 1000)  # a quarter of a stage, and a bit
    with pytest.raises(StoreError, match="has room for"):
        drive(tmp_path, Watched("memory://no-room"), chain(), keep=True)
    assert drive(tmp_path, Watched("memory://room"), chain()).status.computed > 0


class Racing(InlineExecutor):
    """Another run deletes what this one has just listed or made, before it is read."""

    def __init__(self, store: Any) -> None:
        super().__init__(store=store)
        self.store, self.deleted = store, 0

    def submit(self, order: Order) -> None:
        super().submit(order)
        if order.places and self.deleted < 5:
            self.store.delete(next(iter(order.places.values())))
            self.deleted += 1


def test_an_input_that_another_run_deleted_is_made_again(tmp_path: Path) -> None:
    store, fresh = Watched("memory://racing"), Watched("memory://undisturbed")
    racing = Racing(store)
    driver = drive(tmp_path, store, chain(), executor=racing)
    assert racing.deleted == 5
    assert driver.status.retries >= 1
    plain = drive(tmp_path, fresh, chain())
    assert {name: store.inner.get(name) for name in arrows(store)} == {
        name: fresh.inner.get(name) for name in arrows(fresh)}
    np.testing.assert_array_equal(result(driver), result(plain))


def test_a_store_that_lets_nobody_delete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Watched("memory://locked")
    monkeypatch.setattr(MemoryStore, "delete", mock.Mock(side_effect=PermissionError(13, "Permission denied")))
    driver = drive(tmp_path, store, chain())
    assert driver.status.deleted == 0
    assert driver.status.computed == len(arrows(store))


def test_a_finished_job_starts_no_ray(tmp_path: Path) -> None:
    """Its process doesn't even import it, nor reads the data of a shard."""
    (tmp_path / "job.py").write_text(JOB)
    for again in "01":
        done = subprocess.run([sys.executable, "job.py", again], capture_output=True, text=True, check=False,
                              timeout=300)
        assert done.returncode == 0, done.stderr
        assert ("computed 0" in done.stdout) == (again == "1")


JOB = '''
import sys
import gridcompute as grid
from gridcompute.stores.local import LocalStore

def apart_from_shards(read):
    def checked(self, path, *args):
        assert not path.endswith(".arrow"), "read " + path
        return read(self, path, *args)
    return checked

@grid.kernel("->()")
def index(cell):
    return cell[0]

again = sys.argv[1] == "1"
if again:
    LocalStore.get = apart_from_shards(LocalStore.get)
    LocalStore.get_range = apart_from_shards(LocalStore.get_range)
run = grid.run(grid.space(n=1000).map(index, names=("i",)), executor="ray" if again else "inline", quiet=True)
assert "ray" not in sys.modules
print("computed", run.status.computed)
'''
