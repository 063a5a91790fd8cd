"""The benchmarks' machinery, and each of their measurements at a tiny size. Nothing here asserts a speed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks import (  # noqa: E402
    balance,
    machine,
    memory,
    overhead,
    overhead_plans,
    overhead_processes,
    overhead_tasks,
    peering,
    recovery,
    recovery_commands,
    recovery_jobs,
    report,
    scale,
    stream,
    stream_memory,
    stream_peers,
    stream_stack,
)
from benchmarks.__main__ import BENCHMARKS, main  # noqa: E402
from benchmarks.peering import PeerError, Peers  # noqa: E402
from benchmarks.rows import (  # noqa: E402
    OURS,
    Reference,
    Row,
    Session,
    Stat,
    WrongResultError,
    check,
    interleaved,
)
from benchmarks.stream import Setup  # noqa: E402
from gridcompute.footprint import USUAL_BYTES, WORKER_BYTES  # noqa: E402

pytestmark = pytest.mark.ray


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("STATE", "STORE"):
        monkeypatch.setenv(f"GRIDCOMPUTE_{name}", str(tmp_path / name.lower()))


def _rows() -> list[Row]:
    return [
        Row("a/time", "ms", {OURS: [2.0, 4.0, 3.0], "peer": [6.0, 4.0, 6.0]}, target=Reference(3.5, "the plan"),
            published=Reference(1.0, "their page", "peer"), note="A note with a | in it."),
        Row("a/rate", "cells per second", {OURS: [2e6], "peer": [4e6]}, more=True, target=Reference(3e6, "the plan")),
        Row("a/alone", "s", {OURS: [0.5]}),
    ]  # fmt: skip


def _results(name: str = "overhead") -> dict[str, Any]:
    session = Session(mode="quick", load={"a": 0.5}, absent=["joblib", "joblib"])
    made = report.document(name, session, _rows(), machine.describe(), 1.5, {"peer dask": "1"})
    return dict(json.loads(json.dumps(made)))


# --- rows ---


def test_ratios_are_paired_and_above_one_where_ours_is_better() -> None:
    time, rate, alone = _rows()
    assert time.stats == {OURS: Stat(3.0, 2.0, 4.0, 3), "peer": Stat(6.0, 4.0, 6.0, 3)}
    assert time.ratio("peer") == 2.0
    assert rate.ratio("peer") == 0.5
    assert (time.met, rate.met, alone.met) == (True, False, None)
    assert alone.ratio("nobody") is None


def test_systems_are_measured_in_turn() -> None:
    order: list[str] = []

    def measure(name: str) -> float:
        order.append(name)
        return float(len(order))

    raw = interleaved({"a": lambda: measure("a"), "b": lambda: measure("b")}, 3)
    assert "".join(order) == "abababab"
    assert raw == {"a": [3.0, 5.0, 7.0], "b": [4.0, 6.0, 8.0]}
    assert interleaved({"a": lambda: measure("a")}, 1, warm=False) == {"a": [9.0]}


def test_a_wrong_result_is_no_measurement() -> None:
    check(True, "this")
    with pytest.raises(WrongResultError, match="the sum gave a wrong result"):
        check(False, "the sum")


# --- results ---


def test_the_document_has_what_the_readme_promises() -> None:
    results = _results()
    assert {"rows", "raw", "versions", "machine", "load", "date", "mode"} <= set(results)
    assert {"cpu", "cores", "memory"} <= set(results["machine"])
    assert results["absent_peers"] == ["joblib"]
    assert results["raw"]["a/time"] == {OURS: [2.0, 4.0, 3.0], "peer": [6.0, 4.0, 6.0]}
    for row in results["rows"]:
        assert {"name", "unit", "better", "ours", "peers", "published", "target", "met", "note"} == set(row)
        assert set(row["ours"]) == {"median", "min", "max", "n"}
        assert all(set(peer) == {"median", "min", "max", "n", "ratio"} for peer in row["peers"].values())


def test_tables_hold_every_row() -> None:
    results = _results()
    for table in (report.text(results), report.markdown(results)):
        assert all(row["name"] in table for row in results["rows"])
        assert "peer 6 (2x)" in table
        assert "Not installed: joblib." in table
        assert "load" in table
    lines = [line for line in report.markdown(results).splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {len(report.HEADS) + 1}


@pytest.mark.parametrize(("value", "text"), [(0.012345, "0.0123"), (12.3456, "12.3"), (1234.0, "1,230"),
                                             (123456.0, "123,000"), (2.5e8, "250 M"), (0.0, "0")])  # fmt: skip
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert report.number(value) == text


def test_a_page_gets_its_table_between_the_marks(tmp_path: Path) -> None:
    page, results = tmp_path / "page.md", _results()
    report.put_in(page, results)
    page.write_text("before\n" + page.read_text() + "after\n")
    once = page.read_text()
    report.put_in(page, results)
    assert page.read_text() == once
    assert once.startswith("before\n")
    assert once.endswith("after\n")
    page.write_text("no marks")
    with pytest.raises(report.ReportError, match="has no place"):
        report.put_in(page, results)
    assert page.read_text() == "no marks"


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"rows": []}', "\x00"])
def test_other_files_are_no_results(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(report.ReportError, match=r"x\.json"):
        report.load(path)


def test_results_of_a_newer_version_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({**_results(), "format": report.FORMAT + 1}))
    with pytest.raises(report.ReportError, match="format"):
        report.load(tmp_path / "x.json")


def test_the_page_shows_the_results_that_are_kept() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    for name in BENCHMARKS:
        kept = sorted((ROOT / "benchmarks" / "results").glob(f"{name}-*.json"))
        quiet = name == "nodes"  # which needs a quiet machine: none yet
        assert kept or quiet, f"no results of {name}"
        assert not kept or report.markdown(report.load(kept[-1])) in page


# --- the command line ---


@pytest.mark.parametrize(("arguments", "said"), [
    (["nothing"], "no benchmark 'nothing'; there is: overhead"),
    (["overhead", "--peers", "dask,spark"], "no peer 'spark'; there is: bwa, cdo, cubed, "),
    (["overhead", "--only", "plan,sorting"], "no section 'sorting'; there are: plan, "),
    (["overhead", "--from", "nowhere.json"], "nowhere.json can't be read"),
])  # fmt: skip
def test_wrong_usage_is_explained(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


def test_a_peer_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(peering, "interpreter", lambda name: None)
    assert main(["overhead", "--peers", "distributed"]) == 2
    assert "`make peers`" in capsys.readouterr().err
    session = Session()
    assert Peers(session).of("dask", "joblib") == {}
    assert session.absent == ["dask", "joblib"]


def test_sizes_exclude_each_other() -> None:
    with pytest.raises(SystemExit) as stop:
        main(["overhead", "--quick", "--full"])
    assert stop.value.code == 2


def test_results_can_be_shown_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text(json.dumps(_results()))
    assert main(["overhead", "--from", "x.json", "--markdown", "page.md"]) == 0
    assert "a/alone" in capsys.readouterr().out
    assert "a/alone" in (tmp_path / "page.md").read_text()


def test_a_section_is_measured_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["overhead", "--quick", "--only", "plan", "--peers", "none", "--json", "x.json"]) == 0
    results = report.load("x.json")
    names = [row["name"] for row in results["rows"]]
    assert names[0] == "plan/map/1e3"
    assert len(names) == 9
    assert all(row["target"]["value"] == 50 and row["met"] is not None for row in results["rows"])
    assert list(results["load"]["sections"]) == ["plan"]
    assert "plan/map/1e3" in capsys.readouterr().out


# --- the measurements ---


def test_streams_at_a_tiny_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sizes = {(120, 480): (120, 240), stream.QUICK: (Setup(0, 2), Setup(2, 1))}
    monkeypatch.setattr(Session, "pick", lambda self, size, *_: sizes.get(size, 1))
    session, names = Session(folder=str(tmp_path), only=("one", "five"), peers=()), ("one", "five")
    found = [row.name for row in stream.rows(session, Peers(session))]
    kinds = ("seconds", "times decoding", "processor", "processor times decoding")
    assert found == [*(f"{kind}/{name}/2 threads" for name in names for kind in kinds), "start/ray",
                     *(f"{kind}/{name}/ray, 2 workers of 1 thread" for name in names for kind in kinds[:2])]


def test_peers_stream_the_same(tmp_path: Path) -> None:
    path = stream_stack.stack(str(tmp_path / "stack.zarr"), 240)
    assert stream._decode(Setup(0, 2), path)[0] > 0
    _, answer = stream_peers.xarray_stream(path, "five", 2)
    assert set(answer["cells"]) == set(stream.RESULTS["five"])
    assert stream_stack.right(path, answer["cells"])
    wrong = {**answer["cells"], "slope": [1e-3, 2e-3]}
    assert not stream_stack.right(path, wrong)


@pytest.mark.skipif(shutil.which("cdo") is None, reason="cdo isn't installed")
def test_cdo_streams_the_same(tmp_path: Path) -> None:
    path = stream_stack.stack(str(tmp_path / "stack.zarr"), 240)
    copies = {path: stream_stack.netcdf(path)}
    assert stream._cdo(copies, "five", 1, path)[0] > 0
    assert stream._cdo(copies, "one", 1, path)[0] > 0


def test_the_anomaly_s_memory_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    path = stream_stack.stack(str(tmp_path / "stack.zarr"), 240)
    session = Session(mode="quick", folder=str(tmp_path))
    monkeypatch.setattr(stream_memory, "interpreter", lambda peer: sys.executable)
    monkeypatch.setattr(Peers, "wanted", lambda self, peer: peer == "xarray")
    found = {row.name: row for row in stream_memory.memory(session, Peers(session), path)}
    assert list(found) == ["memory/bare process", "memory/anomaly", "memory/anomaly, share"]
    for system in (OURS, "xarray + dask"):
        assert 0 < found["memory/bare process"].raw[system][0] < found["memory/anomaly"].raw[system][0]


def test_memory_of_workers_against_the_plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "WORKLOADS", {"mean": lambda inputs: [inputs.field.mean("time")]})
    monkeypatch.setattr(memory, "stack", lambda path, n: stream_stack.stack(path, 120))
    session = Session(mode="quick", folder=str(tmp_path), only=("one",))
    found = {row.name: row for row in memory.rows(session, Peers(session))}
    assert list(found) == ["peak/mean/1", "estimate/mean/1", "reported/mean/1"]
    peak, reported = found["peak/mean/1"].raw[OURS][0], found["reported/mean/1"].raw[OURS][0]
    assert 0 < reported < peak + 50  # what is shared is no part of it; a short peak may lie between two looks
    assert found["peak/mean/1"].met
    usual = found["peak/mean/1"].target.value - (WORKER_BYTES - USUAL_BYTES) / 2**20
    assert found["estimate/mean/1"].raw[OURS] == [max(usual / peak, peak / usual)]


def test_balance_at_a_tiny_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = (balance.Size(2, 50, seeds=2), balance.Size(5, 50, 10.0, seeds=1))
    monkeypatch.setattr(Session, "pick", lambda *_: sizes)
    found = {row.name: row for row in balance.rows(Session(only=("pareto", "uniform")), Peers(Session()))}
    assert set(found) == {*(f"{what}/{n}" for what in ("makespan/pareto", "list/pareto", "makespan/uniform",
                                                       "decisions", "chunks") for n in ("2", "5/x10"))}
    assert all(value > 0 for row in found.values() for values in row.raw.values() for value in values)
    assert 0.9 < min(found["makespan/uniform/2"].raw["list scheduling"]) <= 1
    monkeypatch.setattr(Session, "pick", lambda *_: (balance.Size(100, 2000, seeds=1),))
    found = {row.name: row for row in balance.rows(Session(only=("stragglers", "failures")), Peers(Session()))}
    assert set(found) == {f"{what}/{kind}/100" for what in ("stragglers", "failures") for kind in ("uniform", "pareto")}


def test_scale_at_a_tiny_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sizes = {(3, 12): (3, 12), (3, 7): (3,), (6, 8): (3, 4), (100, 1000): (20,), (10_000,): (1000,),
             (200, 2000): (20, 40),
             100_000: 50_000}  # fmt: skip
    monkeypatch.setattr(Session, "pick", lambda self, quick, *_: sizes.get(quick, 1))
    monkeypatch.setattr(scale, "_run", lambda n, executor, run=scale._run: run(n, "inline"))  # no Ray for this
    monkeypatch.setattr(scale, "child", lambda case, *rest: {"before": 1, "ran": 2 + int(rest[0])})
    session = Session(folder=str(tmp_path), only=tuple(name for name in scale.SECTIONS if name != "dag"))
    found = {row.name: row for row in scale.rows(session, Peers(Session(peers=())))}
    assert {"plan/1e3", "plan/1e12", "explain/1e12", "plan-memory/1e12", "take/50000", "take/50000/memory", "tasks/20",
            "tasks/state/1000", "tasks/memory", "driver/1e3", "driver/1e4 less 1e3", "run/1e3"} <= set(found)
    assert found["tasks/memory"].raw[OURS] == [1.0]
    assert all(value > 0 for row in found.values() for values in row.raw.values() for value in values)


def test_peers_scale_the_same(tmp_path: Path) -> None:
    with Peers(Session(folder=str(tmp_path))) as peers:
        dask = peers.of("dask")["dask"]
        assert scale._dask_plan(dask, 1000, 10, 1.0, "scale-plan") > 0
        assert scale._dask_plan(dask, 1000, 10, 1.0, "scale-plan-bytes") > 1000
        assert scale._peer_run(dask, "scale-run", 1000) > 0
        assert scale._peer_tasks(dask, 10, scheduler="threads") > 0


def test_every_section_is_there() -> None:
    assert list(overhead.SECTIONS) == ["plan", "resume", "memory", "startup", "dispatch", "cells"]


def test_our_measurements_at_tiny_sizes() -> None:
    for alone in (True, False):
        assert overhead_tasks._ours(5, alone, executor="inline") > 0
    assert overhead_tasks._ours(5, True, executor="inline", store="memory") > 0
    assert overhead_tasks._commits(3) > 0
    assert overhead_tasks._disk(3) > 0
    assert overhead_tasks._loop(100) > 0
    assert overhead_tasks._run(1000, executor="inline") > 0
    assert list(Path.cwd().glob("store-*")) == []


def test_going_on_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "pick", lambda self, *sizes: 20 if sizes[0] == 1000 else 2)
    rows = list(overhead_plans.resuming(Session(), Peers(Session())))
    assert [row.name for row in rows] == ["resume/run", "resume/listing"]
    assert all(len(values) == 2 for row in rows for values in row.raw.values())


def test_peers_answer_in_processes_of_their_own(tmp_path: Path) -> None:
    session = Session(folder=str(tmp_path))
    with Peers(session) as peers:
        found = peers.of("dask", "numba")
        assert overhead_tasks._tasks(found["dask"], 4, scheduler="sync") > 0
        assert overhead_tasks._cells(found["dask"], "cells", 100, chunk=30) > 0
        assert overhead_plans._peer_plan(found["dask"], "stencil", 100, 30) > 0
        assert overhead_tasks._cells(found["numba"], "loop", 100) > 0
        assert {"peer dask", "peer numba"} <= set(peers.versions)
        with pytest.raises(PeerError, match="the peer dask failed in the case 'nothing'"):
            found["dask"].ask("nothing")


def test_first_tasks_are_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Session, "pick", lambda self, *sizes: 1)
    rows = list(overhead_processes._first_tasks(Session(folder=str(tmp_path)), tmp_path / "cache"))
    assert [row.name for row in rows] == ["startup/first-task", "startup/first-task-more/wall",
                                          "startup/first-task-more/cpu"]
    assert all(value > 0 for value in rows[0].raw["ours"] + rows[0].raw["empty worker"])


def test_whole_processes_are_measured(tmp_path: Path) -> None:
    found = overhead_processes.child("driver", "20", str(tmp_path / "s"), cache=tmp_path / "cache")
    assert 0 < found["before"] <= found["ran"] * 2
    seconds, line = overhead_processes.process("-c", "print(1); print(2)")
    assert seconds > 0
    assert line == "2"
    with pytest.raises(PeerError, match="no such thing"):
        overhead_processes.process("-c", "raise SystemExit('no such thing')")


def test_recovery_counts_what_was_done_again_and_what_is_lost(tmp_path: Path) -> None:
    """From the lines and files that a job of any system leaves."""
    job = recovery.Job("parsl", tmp_path, tasks=5, iterations=3)
    for pid, tasks in ((11, (0, 1, 2)), (12, (2, 1, 2))):
        (tmp_path / "log" / str(pid)).write_text("".join(f"{task}\n" for task in tasks))
    assert (job.again, job.lost) == (3, 5)
    for task in range(5):
        (tmp_path / "out" / str(task)).write_text(str(recovery_jobs.value(task, 3)))
    assert job.lost == 0
    (tmp_path / "out" / "3").write_text("7")
    (tmp_path / "out" / "4").unlink()
    assert job.lost == 2


def test_recovery_kills_a_driver_and_starts_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a system that does one task after the other, and begins anew."""
    script = (
        "import sys, time\n"
        "from benchmarks.recovery_jobs import saved\n"
        "for task in range(int(sys.argv[3])):\n"
        "    saved(sys.argv[2], int(sys.argv[4]), task)\n"
        "    time.sleep(0.02)\n"
    )
    (tmp_path / "plain.py").write_text(script)
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nshift 2\nexec {sys.executable} {tmp_path}/plain.py \"$@\"\n")
    python.chmod(0o700)
    monkeypatch.setattr(recovery, "interpreter", lambda system: str(python))
    job = recovery.Job("plain", tmp_path / "job", tasks=20, iterations=10)
    recovery._driver_lost(job)
    assert job.ended, job.said
    assert 8 <= job.again < 20
    assert job.lost == 0
    killed = recovery.Job("plain", tmp_path / "killed", tasks=20, iterations=10, deadline=60.0)
    recovery._worker_lost(killed)  # the worker is the driver here
    assert not killed.ended
    assert 0 < killed.lost <= 12


def test_recovery_finds_the_workers_that_are_at_a_task() -> None:
    """By the name that Ray gives a process, among those that a command has started."""
    script = "(exec -a 'ray::stage 0' sleep 60) & (exec -a 'ray::IDLE' sleep 60) & echo ready; wait"
    with subprocess.Popen(["bash", "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == "ready\n"
        try:
            found: list[int] = []
            for _ in range(600):  # until bash has become it
                if found := recovery_commands.tasks_of(command.pid):
                    break
                time.sleep(0.1)
            assert len(found) == 1
            assert found != [command.pid]
        finally:
            os.killpg(command.pid, signal.SIGKILL)
