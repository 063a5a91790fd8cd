"""Schedules of faults: pure, carried out where they belong, survived to the same bytes; a comparison that can fail."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import chaos_jobs
import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gridcompute as grid
from gridcompute import planning
from gridcompute.cli import main
from gridcompute.errors import CorruptShardError, KernelError, ParameterError
from gridcompute.executor import Executor, InlineExecutor
from gridcompute.journal import read
from gridcompute.record import known
from gridcompute.store import LocalStore
from gridcompute.testing import chaos
from gridcompute.testing.chaos import Report, run_chaos
from gridcompute.testing.compared import audit, results
from gridcompute.testing.executors import ExecutorConformance
from gridcompute.testing.injecting import ChaosExecutor, Marks, damage
from gridcompute.testing.schedule import MOST, RATES, Fault, Schedule
from gridcompute.testing.virtual import VirtualExecutor

pytestmark = [pytest.mark.timeout(900), pytest.mark.faults]

SHORT = 12
LONG = 160
LIMIT = 120.0
"""Seconds after which a schedule's job counts as hanging, on a machine that does seven other things."""


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of this module's own, where temporary ones lie too; in memory where it can be, as commits are synced."""
    memory = Path("/dev/shm")
    inside = memory if os.access(memory, os.W_OK) else tmp_path_factory.mktemp("chaos")
    folder = Path(tempfile.mkdtemp(prefix="gridcompute-test-", dir=inside))
    (folder / "state").mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRIDCOMPUTE_STATE", str(folder / "state"))
        patch.setattr("tempfile.tempdir", str(folder))
        patch.chdir(folder)
        yield folder
    shutil.rmtree(folder)


@pytest.fixture(name="told", scope="module")
def _told(request: pytest.FixtureRequest) -> Iterator[dict[int, Report]]:
    """Reports by seed; at the end it is said how many there were."""
    reports: dict[int, Report] = {}
    yield reports
    if reports:
        faults = sum(len(one.injected) for one in reports.values())
        deaths = sum(one.deaths for one in reports.values())
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print(f"\n{len(reports)} schedules survived, {faults} faults and {deaths} deaths of the driver; seeds: "
                  f"{', '.join(map(str, reports))}")


# --- schedules ---


@given(st.integers(0, 2**40), st.integers(0, 500), st.sampled_from(sorted(RATES)))
def test_a_schedule_is_pure(seed: int, chunk: int, name: str) -> None:
    every = Schedule(seed=seed, **dict.fromkeys(RATES, 0.4))
    met = every.faults("1 trend, 9", chunk)
    assert met == replace(every).faults("1 trend, 9", chunk)
    assert len(met) <= MOST
    assert len({fault.kind for fault in met}) == len(met)
    assert all(fault.again for fault in met[:-1])
    # A kind alone meets the same chunks, whatever else there is.
    alone = Schedule(seed=seed, **{name: 0.4}).faults("1 trend, 9", chunk)
    assert all(fault in alone for fault in met if fault.kind == RATES[name])


def test_rates_are_shares_and_seeds_differ() -> None:
    schedule = Schedule(seed=3, kill_worker=0.1)
    hit = [chunk for chunk in range(4000) if schedule.faults("0 a, 4000", chunk)]
    assert 320 < len(hit) < 480
    other = [chunk for chunk in range(4000) if Schedule(seed=4, kill_worker=0.1).faults("0 a, 4000", chunk)]
    assert len({*hit} & {*other}) < 100
    hows = {fault.how for chunk in hit for fault in schedule.faults("0 a, 4000", chunk)}
    assert hows == {"begin", "commit", "answer"}
    assert not any(Schedule(seed=3).faults("0 a, 4000", chunk) for chunk in range(100))
    deaths = Schedule(kill_driver=3).deaths(100)
    assert len(deaths) == 3
    assert all(1 <= after <= 25 for after in deaths)


def test_what_is_no_schedule() -> None:
    for wrong in ({"kill_worker": 1.5}, {"slow": -0.1}, {"kill_driver": -1}, {"slow_seconds": 1e9}):
        with pytest.raises(ParameterError):
            Schedule(**wrong)
    values = grid.from_arrays({"v": np.arange(4.0)}, dims="row")["v"]
    with pytest.raises(ParameterError, match="executor is 'dask'"):
        run_chaos([values], Schedule(), executor="dask")
    with pytest.raises(ParameterError, match="own Ray cluster"):
        run_chaos([values], Schedule(), executor="inline", nodes=2)
    with pytest.raises(ParameterError, match="an address is given, but executor is 'inline'"):
        run_chaos([values], Schedule(), executor="inline", address="127.0.0.1:1")
    with pytest.raises(ParameterError, match="kill_workers"):
        chaos.chaos(values, kill_workers=0.1)


def test_all_results_that_are_damaged_are_void_at_once(tmp_path: Path) -> None:
    values = grid.from_arrays({"v": np.arange(4096.0)}, dims="row")["v"] * 2.0
    run = grid.run(values, executor="inline", store=str(tmp_path), quiet=True)
    places = sorted(tmp_path.glob("shards/**/*.arrow"))
    assert len(places) > 20
    for place in places[::2]:
        place.write_bytes(place.read_bytes()[:-100])
    with pytest.raises(CorruptShardError):
        results(run, [values])
    assert len(audit(LocalStore(str(tmp_path)), tmp_path).void) == len(places[::2])
    again = grid.run(values, executor="inline", store=str(tmp_path), quiet=True)
    assert again.summary()["computed"] == len(places[::2])
    assert len(results(again, [values])) == len(places)


# --- each kind of fault ---


def rows(count: int = 20) -> Any:
    table = grid.from_arrays({"k": np.arange(count) * 7 % 11, "v": np.arange(float(count))}, dims="row")
    return table.filter(table["k"] < 6).sort("k"), (table["v"] * 2.0).write("never.parquet"), table["v"].mean()


@pytest.mark.parametrize("executor", ["inline", "simulated"])
@pytest.mark.parametrize("name", sorted(RATES))
def test_each_kind_is_injected_and_survived(name: str, executor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "HELD_BYTES", -1)
    report = run_chaos(rows(), Schedule(seed=5, slow_seconds=0.01, **{name: 0.5}), executor=executor, limit=LIMIT)
    sound(report)
    assert {one.kind for one in report.injected} == {RATES[name]}
    assert report.cost.failures >= (0 if name in ("slow", "corrupt") else 1)


def sound(report: Report) -> None:
    """Nothing lost, nothing doubled, no byte different, nothing left."""
    assert report.equal, report.text()
    assert not report.left, report.left
    harmed = sum(one.kind == "corrupt" or one.how == "partial" for one in report.injected)
    assert len(report.void) <= 2 * harmed, report.void  # a record, and what it names


@pytest.mark.parametrize("deaths", [0, 2])
def test_the_same_faults_whatever_the_timing_and_the_workers(deaths: int) -> None:
    schedule = Schedule(seed=11, kill_worker=0.2, corrupt=0.1, store_errors=0.2, resets=0.1, memory_errors=0.1,
                        slow=0.1, slow_seconds=0.0, kill_driver=deaths)  # fmt: skip
    met = [run_chaos(rows(16), schedule, executor=executor, workers=workers, limit=LIMIT).injected
           for executor, workers in (("inline", 1), ("inline", 3), ("simulated", 2), ("simulated", 7))]
    assert len(met[0]) > 10
    if not deaths:
        assert all(other == met[0] for other in met)
        return
    # What a driver that died had deleted by then isn't always the same, nor what is computed a second time therefore.
    first = [{one for one in faults if one.attempt == 1} for faults in met]
    assert first[0]
    assert all(other == first[0] for other in first)
    at = [{(one.stage, one.chunk, one.attempt): one.kind for one in faults} for faults in met]
    assert all(other.get(key, kind) == kind for other in at for key, kind in at[0].items())


class Listening(VirtualExecutor):
    """Notes how many answers come to tasks that were answered before."""

    late = 0

    def __init__(self) -> None:
        super().__init__(workers=3, seed=2)
        self.answered: set[int] = set()

    def begin(self, payloads: Any) -> None:
        super().begin(payloads)
        self.answered = set()

    def poll(self, timeout: float) -> Any:
        events = super().poll(timeout)
        numbers = [event.task for event in events]
        self.late += sum(number in self.answered for number in numbers)
        self.answered |= {*numbers}
        return events


def test_what_a_lost_worker_delivers_late_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "marks").mkdir()
    schedule = Schedule(seed=1, kill_worker=0.3, slow=0.3, slow_seconds=30.0)
    listening = Listening()
    executor = ChaosExecutor(listening, schedule, Marks(str(tmp_path / "marks")))
    run = grid.run(*rows(40), executor=executor, store=tmp_path / "work", quiet=True)
    assert listening.late > 0
    shutil.rmtree(tmp_path / "never.parquet")
    plain = grid.run(*rows(40), executor="inline", store=tmp_path / "plain", quiet=True)
    assert run[0].to_arrow().equals(plain[0].to_arrow())
    kept = Counter((event["stage"], chunk) for event in read(run.record.journal) if event["kind"] == "kept"
                   for chunk in event["chunks"])
    assert max(kept.values()) == 1


class TestVirtual(ExecutorConformance):
    @pytest.fixture
    def executor(self) -> Executor:
        return VirtualExecutor(workers=3, seed=4)


class TestChaosWithoutFaults(ExecutorConformance):
    @pytest.fixture
    def executor(self, tmp_path: Path) -> Executor:
        return ChaosExecutor(InlineExecutor(workers=2), Schedule(), Marks(str(tmp_path)))


# --- a comparison that can fail ---


@grid.task("()->()", dtypes="f8")
def moody(values: Any, place: str) -> Any:
    """Other values once the clean twin is done."""
    return values + any("marks" in name for name in os.listdir(place))


def test_other_bytes_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    place = tmp_path / "seen"
    monkeypatch.setattr("tempfile.mkdtemp", lambda **options: str(place.mkdir() or place))
    values = grid.from_arrays({"v": np.arange(6.0)}, dims="row")["v"]
    report = run_chaos([values.map(moody, place=str(place))], Schedule(seed=1), executor="inline")
    assert not report.equal
    assert len(report.different) >= 6
    assert not report.failed
    assert "not equal" in report.text()
    assert report.folder == str(place)
    assert (place / "clean" / "work").is_dir()


def test_a_job_that_fails_under_faults_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many faults as the policy allows attempts: the schedule keeps below, so here it is made to go beyond."""
    monkeypatch.setattr(Schedule, "faults", lambda *_: (Fault("kill-worker", "begin"),) * 9)
    values = grid.from_arrays({"v": np.arange(3.0)}, dims="row")["v"]
    report = run_chaos([values.sum()], Schedule(kill_worker=1.0), executor="inline")
    assert not report.equal
    assert "WorkerLostError" in report.failed
    assert len(report.injected) == 4


def test_a_job_that_hangs_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "slowly"
    monkeypatch.setattr("tempfile.mkdtemp", lambda **options: str(place.mkdir() or place))

    @grid.task("()->()", dtypes="f8")
    def slowly(values: Any, place: str) -> Any:
        import os
        import time

        time.sleep(0.2 * any("marks" in name for name in os.listdir(place)))
        return values

    values = grid.from_arrays({"v": np.arange(200.0)}, dims="row")["v"]
    report = run_chaos([values.map(slowly, place=str(place))], Schedule(), executor="inline", limit=5.0)
    assert "DeadlineError: the job still ran after" in report.failed


def test_a_clean_twin_that_fails_is_the_jobs_own_error(place: Path) -> None:
    @grid.task("()->()", dtypes="f8")
    def broken(values: Any) -> Any:
        raise ValueError("as ever")

    before = set(place.iterdir())
    with pytest.raises(KernelError, match="as ever"):
        chaos.chaos(grid.from_arrays({"v": np.arange(3.0)}, dims="row")["v"].map(broken), executor="inline")
    assert not {path.name for path in {*place.iterdir()} - before if path.name.startswith("gridcompute-chaos")}


def test_what_an_audit_sees(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "work"))
    name = "shards/be/beef0123/0-8-9a.g{}.arrow"
    store.put_new(name.format(0), b"x")
    store.put_new(name.format(1), b"x")
    (tmp_path / "work" / ".tmp-left").touch()
    seen = audit(store, tmp_path)
    assert seen.doubled == (name.format(1),)
    assert seen.left == ("work/.tmp-left",)
    store.put_new(name.format(0) + ".tombstone", b"{}")
    assert audit(store, tmp_path).doubled == ()
    for how, size in (("flip", 1), ("cut", 0), ("remove", None)):
        damage(store, name.format(1), how)
        assert (len(store.get(name.format(1))) if store.exists(name.format(1)) else None) == size


# --- what the dead leave behind ---


DIES = """
import os, signal, sys
from gridcompute.progressword import Board
from gridcompute.store import open_store
from pathlib import Path
os.makedirs(sys.argv[1] + "/runs/dead")
board = Board(Path(sys.argv[1], "runs", "dead"))
os.link = lambda *args, **options: os.kill(os.getpid(), signal.SIGKILL)
open_store(sys.argv[1]).put_new("shards/be/beef/half", b"x" * 1000)
"""


def test_a_run_removes_what_the_dead_left(tmp_path: Path) -> None:
    work = tmp_path / "work"
    child = subprocess.run([sys.executable, "-c", DIES, str(work)], check=False, timeout=120)
    assert child.returncode == -signal.SIGKILL
    assert len(list(work.rglob("progress-*"))) == len(list(work.rglob(".tmp-*"))) == 1
    living = LocalStore(str(work))
    (folder := work / "shards/be/beef2").mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    with living._temporary(descriptor, b"of a writer at work"):
        values = grid.from_arrays({"v": np.arange(9.0)}, dims="row")["v"]
        grid.run(values.mean(), executor="inline", store=work, quiet=True)
        assert not list(work.rglob("progress-*"))
        assert [path.parent for path in work.rglob(".tmp-*")] == [folder]
    os.close(descriptor)


# --- the command ---


def test_the_command(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chaos_jobs.pixels(tmp_path)
    runs = known()
    given = ["chaos", "climate.trend", "--input", str(tmp_path / "small.nc"), "--output", str(tmp_path / "mine.zarr"),
             "--executor", "simulated", "--kill-worker", "0.2", "--corrupt", "0.1", "--seed", "7", "--kill-driver", "1"]
    assert main(given) == 0
    said = capfd.readouterr().out
    assert "kill-worker (" in said
    assert "kill-driver 1" in said
    assert not (tmp_path / "mine.zarr").exists()
    assert known() == runs
    repeat = next(line.split(maxsplit=1)[1] for line in said.splitlines() if line.startswith("repeat"))
    assert main([*repeat.split()[1:], "--json"]) == 0
    again = json.loads(capfd.readouterr().out)
    assert again["equal"]
    assert again["command"] == repeat
    shown = [line.strip() for line in said.splitlines() if "attempt" in line]
    assert len(again["injected"]) == len(shown)
    assert all(f"chunk {one['chunk']}, attempt {one['attempt']}" in line
               for one, line in zip(again["injected"], shown, strict=True))
    assert not list(tmp_path.glob("gridcompute-chaos-*"))


def test_the_command_takes_scripts_and_options_before_a_workload(capfd: pytest.CaptureFixture[str], tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.py").write_text(
        "import sys\nimport numpy as np\nimport gridcompute as grid\n"
        "v = grid.from_arrays({'v': np.arange(float(sys.argv[1]))}, dims='row')['v']\n"
        "grid.run((v * 2.0).write('never.parquet'), v.sum())\nprint('never')\n")
    assert main(["chaos", "--executor", "inline", "--kill-worker", "1", "--seed", "3", "./job.py", "30"]) == 0
    said = capfd.readouterr().out
    assert "never\n" not in said
    assert "repeat     gridcompute chaos --kill-worker 1.0 --seed 3 --executor inline ./job.py 30" in said
    assert not (tmp_path / "never.parquet").exists()
    (tmp_path / "empty.py").write_text("print('no run')\n")
    assert main(["chaos", "./empty.py"]) == 2
    capfd.readouterr()
    # --seed after the name is the workload's own.
    chaos_jobs.contigs(tmp_path)
    given = ["chaos", "--seed", "5", "--executor", "inline", "--slow", "0.01", "genomics.distance", "--reference",
             "small.fa", "--count", "6", "--seed", "2", "--json"]
    assert main(given) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["schedule"]["seed"] == 5
    assert told["command"].endswith("genomics.distance --reference small.fa --count 6 --seed 2")
    assert main(["chaos", "climate.trend", "--kill-worker", "2"]) == 2
    assert main(["chaos", "climate.trend", "--executor", "dask"]) == 2


def test_a_difference_is_exit_code_1(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
                                     tmp_path: Path) -> None:
    chaos_jobs.pixels(tmp_path)
    monkeypatch.setattr(chaos, "different", lambda *_: ("output 0: zarr.json",))
    given = ["chaos", "climate.trend", "--input", str(tmp_path / "small.nc"), "--executor", "inline"]
    assert main(given) == 1
    said = capfd.readouterr().out
    assert "different  output 0: zarr.json" in said
    kept = Path(next(line.split(maxsplit=1)[1] for line in said.splitlines() if line.startswith("kept")))
    assert (kept / "job" / "work").is_dir()
    assert (kept / "clean" / "work").is_dir()


# --- the schedules ---


def carried_out(number: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Report:
    """One seeded schedule on the inline or the simulated executor."""
    if number % 8 < 4:  # every stage commits
        monkeypatch.setattr(planning, "HELD_BYTES", -1)
    kind = ("climate", "graph", "genomics", "graph", "graph")[number % 5]
    job = chaos_jobs.graph(number) if kind == "graph" else getattr(chaos_jobs, kind)(folder)
    schedule = chaos_jobs.schedule(number)
    began, before = time.monotonic(), set(folder.iterdir())
    report = run_chaos(job, schedule, executor=("inline", "simulated")[number // 2 % 2], limit=LIMIT)
    print(f"seed {number}: {kind}, {report.executor}, {len(report.injected)} faults, {report.deaths} deaths of the "
          f"driver, {report.compared} digests, {time.monotonic() - began:.1f} s")
    sound(report)
    assert set(folder.iterdir()) == before
    assert not [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE]
    return report


@pytest.mark.parametrize("number", range(SHORT))
def test_schedules(number: int, place: Path, told: dict[int, Report], monkeypatch: pytest.MonkeyPatch) -> None:
    told[number] = carried_out(number, place, monkeypatch)


@pytest.mark.chaos
@pytest.mark.parametrize("number", range(SHORT, LONG))
def test_further_schedules(number: int, place: Path, told: dict[int, Report], monkeypatch: pytest.MonkeyPatch) -> None:
    told[number] = carried_out(number, place, monkeypatch)
