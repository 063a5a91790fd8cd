"""Going on with runs: workloads and scripts, after failures and kill -9, elsewhere, with changed code; reasons."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gridcompute as grid
from gridcompute import origins, record
from gridcompute.errors import KernelError, MemoryBoundError, ParameterError, RecordError
from gridcompute.keys import explain_difference
from gridcompute.reasons import graph_changes, op_changes
from gridcompute.resuming import resume_record, run_script, run_workload

SCRIPT = """
import sys
import time
from pathlib import Path

import numpy as np
import gridcompute as grid

SCALE = {scale}


def scaled(x):
    return x * SCALE


@grid.task("()->()", dtypes=("float64",), names=("slow",), parallel=12)
def slow(values):
    time.sleep({sleep})
    with Path("log.txt").open("a") as file:
        file.write("chunk\\n")
    if Path("fail").exists() and values[0] > 5:
        raise ValueError("as asked")
    return scaled(values)


if __name__ == "__main__":
    first = grid.run(grid.from_arrays({{"a": np.arange(4.0)}}, dims="x").sum(), executor="inline")
    data = grid.from_arrays({{"a": np.arange(12.0)}}, dims="x")
    out = data.map(slow)
    run = grid.run(out, executor="inline")
    print(run["slow"].to_numpy().sum(), *sys.argv[1:])
"""


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def write(scale: float = 2.0, sleep: float = 0.0) -> Path:
    path = Path("job.py").absolute()
    path.write_text(SCRIPT.format(scale=scale, sleep=sleep))
    return path


def chunks_done() -> int:
    return len(Path("log.txt").read_text().splitlines()) if Path("log.txt").exists() else 0


def second() -> record.RunRecord:
    """The record of the script's second run."""
    return next(r for r in record.records() if r.how.get("call") == 1)


def test_a_failed_script_goes_on_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = write()
    Path("fail").touch()
    with pytest.raises(KernelError, match="as asked"):
        run_script(script, ["--flag"], {"executor": "inline"})
    before, done = second(), chunks_done()
    assert before.standing == "failed"
    assert before.how == {"script": str(script), "arguments": ["--flag"], "call": 1}
    assert os.path.isabs(before.settings["store"])
    Path("fail").unlink()
    monkeypatch.chdir(tmp_path)
    run = grid.resume(before.run)
    assert (run.name, run.state) == (before.run, "done")
    assert run["slow"].to_numpy().tolist() == [2.0 * i for i in range(12)]
    assert "132.0 --flag" in capsys.readouterr().out
    assert os.getcwd() == str(tmp_path)
    monkeypatch.chdir("work")
    assert run.status.reused > 0
    assert chunks_done() == done + run.status.computed  # what was committed wasn't done again
    after = second()
    assert after.standing == "done"
    assert after.resumed > after.created == before.created
    assert len(record.records()) == 3  # the script's first run was made again, the second one went on


def test_a_killed_driver_goes_on() -> None:
    script = write(sleep=0.3)
    started = subprocess.Popen([sys.executable, str(script)])
    ends = time.monotonic() + 60
    while chunks_done() < 3 and time.monotonic() < ends:
        time.sleep(0.05)
    with pytest.raises(RecordError, match="still running"):
        grid.resume(second().run)
    started.kill()
    while second().alive and time.monotonic() < ends:
        time.sleep(0.02)
    assert second().standing == "interrupted"  # though nobody has waited for the process yet
    started.wait()
    before = chunks_done()
    assert 3 <= before < 12
    run = grid.resume(second().run)
    assert run.state == "done"
    assert run.status.reused >= before - 1  # the one in work when it was killed
    assert run.status.reused + run.status.computed == 12
    assert run["slow"].to_numpy().sum() == 132.0


def test_changed_code_is_refused_with_its_reason_unless_it_is_welcome() -> None:
    write(scale=2.0)
    run_script("job.py", [])
    write(scale=3.0)
    with pytest.raises(RecordError, match=r"op slow.*global SCALE changed") as error:
        grid.resume(second().run)
    assert "--changed" in error.value.hint
    assert second().standing == "done"
    run = grid.resume(second().run, changed=True)
    assert run["slow"].to_numpy().sum() == 198.0
    assert grid.resume(second().run).status.computed == 0


def test_a_script_that_no_longer_makes_the_run() -> None:
    script = write()
    run_script(script, [])
    script.write_text("print('nothing')")
    with pytest.raises(RecordError, match="doesn't make the run"):
        grid.resume(second().run)
    script.unlink()
    with pytest.raises(ParameterError, match="no script"):
        grid.resume(second().run)


def test_sessions_running_processes_and_lost_folders_are_refused(own_place: Path) -> None:
    run = grid.run(grid.from_arrays({"a": np.arange(4.0)}, dims="x").sum(), executor="inline", how={})
    with pytest.raises(RecordError, match="session") as error:
        grid.resume(run.name)
    assert "run the cell again" in error.value.hint
    pid, since = record.driver_process()
    alive = replace(run.record, state="running", pid=pid, pid_since=since)
    with pytest.raises(RecordError, match="still running"):
        resume_record(alive)
    # Another process of that number isn't the driver.
    assert not replace(alive, pid_since=since - 100).alive
    with pytest.raises(RecordError, match="is gone"):
        resume_record(replace(run.record, how={"script": "x.py", "arguments": []}, cwd=str(own_place / "lost")))
    with pytest.raises(RecordError, match="no run 'nothing'"):
        grid.resume("nothing")


def test_a_workload_goes_on_with_its_parameters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Path("a.fa").write_text(">a\n" + "ACGTTGCATTGACGATTACA" * 4 + "\n")
    monkeypatch.setattr("gridcompute.registry.entry_points", lambda group: [_entry("toy.job", "other_jobs:scaled")])
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "other_jobs.py").write_text(
        "import numpy as np, gridcompute as grid\n"
        "def scaled(by: float = 2.0, output: str = 'o.zarr') -> grid.Job:\n"
        "    data = grid.from_arrays({'a': np.arange(6.0)}, dims='x')\n"
        "    return grid.Job([(data * by).write(output)], lambda run: ['finished'])\n"
    )
    made = run_workload("toy.job", {"by": 3.0}, {"executor": "inline"})
    again, carried = resume_record(record.load("last"))
    assert again.name == made.runs[0].name
    assert carried.lines == ["finished"]
    assert again.status.computed == 0
    assert record.load("last").how == {"workload": "toy.job", "parameters": {"by": 3.0}, "call": 0}


def _entry(name: str, value: str) -> Any:
    from importlib.metadata import EntryPoint

    return EntryPoint(name, value, "gridcompute.workloads")


def test_main_script_is_known_only_for_plain_scripts() -> None:
    assert origins.main_script() == {}  # the tests were started by python -m pytest or its command
    Path("m.py").write_text("from gridcompute.origins import main_script; print(main_script())")
    done = subprocess.run([sys.executable, "m.py", "x"], capture_output=True, text=True, check=True)
    assert f"'script': '{Path('m.py').absolute()}', 'arguments': ['x']" in done.stdout
    done = subprocess.run(
        [sys.executable, "-c", "from gridcompute.origins import main_script; print(main_script())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "{}"


# --- reasons ---


def canonical(**ops: tuple[str, list[int], dict[str, str]]) -> list[dict[str, Any]]:
    return [
        {"op": name, "action": "map", "recipe": recipe, "inputs": inputs, "parts": parts}
        for name, (recipe, inputs, parts) in ops.items()
    ]


def test_changes_name_the_op_that_changed_and_not_those_after_it() -> None:
    before = canonical(
        load=("r0", [], {"load": "1"}),
        f=("r1", [0], {"code of f": "1", "global S": "1"}),
        g=("r2", [1], {"code of g": "1"}),
    )
    after = canonical(
        load=("r0", [], {"load": "1"}),
        f=("r1b", [0], {"code of f": "1", "global S": "2"}),
        g=("r2b", [1], {"code of g": "1"}),
    )
    assert op_changes(before, after) == {"f": ["global S changed"]}
    assert graph_changes(before, after) == ["op f: global S changed"]
    assert op_changes(before, before) == {}
    assert op_changes(before, before[:2]) == {"g": ["is gone"]}
    assert op_changes(before[:2], before) == {"g": ["is new"]}
    sliced = canonical(load=("r0", [], {"load": "1"}), f=("r1c", [0], {"code of f": "1", "global S": "1"}))
    assert op_changes(before[:2], sliced) == {"f": ["reads other cells or columns"]}
    assert explain_difference({"a": "1"}, {"b": "1"}) == ["a is no longer used", "b is new"]


@grid.kernel("()->()")
def doubled(x):
    return x * FACTOR


FACTOR = 2.0


def test_plans_say_what_is_committed_and_why_the_rest_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    data = grid.from_arrays({"a": np.arange(300.0)}, dims="x")
    first = grid.plan(data.map(doubled))
    assert "committed;" not in first.explain()
    assert not Path(".gridcompute").exists()  # planning leaves nothing behind
    grid.run(data.map(doubled), executor="inline", how={})
    with origins.within(origins.Origin()):
        chunks = first.plan.stages[0].chunks
        hit = grid.plan(data.map(doubled))
        assert f"{chunks} of {chunks} chunks committed" in hit.explain()
        assert hit.to_dict()["stages"][0]["committed"] == chunks
        monkeypatch.setitem(globals(), "FACTOR", 3.0)
        other = grid.kernel("()->()", names="doubled")(doubled.func)
        missed = grid.plan(data.map(other, name="doubled")).explain()
        assert f"0 of {chunks} chunks committed; recipe changed since" in missed
        assert "global FACTOR changed (doubled)" in missed
    shards = sorted(Path(".gridcompute/shards").rglob("*.arrow"))
    shards[0].unlink()
    with origins.within(origins.Origin()):
        monkeypatch.setitem(globals(), "FACTOR", 2.0)
        assert (
            f"{chunks - 1} of {chunks} chunks committed; the recipe is that of"
            in grid.plan(data.map(doubled)).explain()
        )


def test_plans_do_not_blame_a_change_for_another_store_or_what_comes_after() -> None:
    data = grid.from_arrays({"a": np.arange(300.0)}, dims="x").map(doubled)
    run = grid.run(data, executor="inline", how={})
    with origins.within(origins.Origin()):
        other = grid.plan(data, store="elsewhere").explain()
        assert f"{run.name} has another work store" in other
        assert "changed" not in other
    grid.run(data.write("one.zarr"), executor="inline", how={})
    with origins.within(origins.Origin()):
        first = grid.plan(data.write("one.zarr", compressor="lz4")).to_dict()["stages"][0]
        assert "what it reads has changed" not in first["reason"]


def test_figures_of_an_attempt_that_was_killed_are_not_those_of_the_one_before() -> None:
    run = grid.run(grid.from_arrays({"a": np.arange(4.0)}, dims="x").sum(), executor="inline", how={})
    assert run.record.summary
    graph, origin = run._graph, origins.Origin(expected=run.record)
    assert not origin.record(graph, run._settings, "sum").summary


def test_two_runs_of_one_record_are_refused_by_its_journal() -> None:
    run = grid.run(grid.from_arrays({"a": np.arange(4.0)}, dims="x").sum(), executor="inline", how={})
    from gridcompute.journal import Journal

    with Journal.open(run.record.journal), pytest.raises(RecordError, match="another process"):
        Journal.open(run.record.journal)


def test_what_changed_is_said_in_the_users_words(monkeypatch: pytest.MonkeyPatch) -> None:
    @grid.kernel("()->()")
    def above(x, limit):
        return x > limit

    def outputs(limit: float, offset: float, **options: Any) -> tuple[Any, ...]:
        rows = grid.from_arrays({"a": np.arange(300.0)}, dims="x")["a"]
        return rows.map(above, limit=limit).write("one.zarr", **options), (rows - offset).map(doubled)

    grid.run(*outputs(3.0, 1.0), executor="inline", how={})
    with origins.within(origins.Origin()):
        told = grid.plan(*outputs(4.0, 2.0, overwrite=True, level=5)).explain()
    assert "parameter limit changed from 3.0 to 4.0 (above)" in told
    assert "expression changed from a - 1.0 to a - 2.0 (subtract)" in told
    assert "output's format changed (write one.zarr)" in told


def test_an_updated_library_is_named_with_both_versions() -> None:
    import scipy

    before = canonical(f=("r1", [], {"version of scipy": "1", "version of nothing": "1"}))
    after = canonical(f=("r2", [], {"version of scipy": "2", "version of nothing": "2"}))
    assert op_changes(before, after, {"scipy": "0.1"}) == {
        "f": ["nothing was updated", f"scipy was updated from 0.1 to {scipy.__version__}"]
    }


def test_a_run_names_the_versions_of_what_its_kernels_call() -> None:
    import scipy
    from scipy.special import expit  # a function of an installed distribution

    @grid.task("()->()", dtypes=["f8"])
    def squashed(x: Any) -> Any:
        return expit(x)

    run = grid.run(grid.from_arrays({"a": np.arange(4.0)}, dims="x")["a"].map(squashed), executor="inline")
    assert run.record.versions["scipy"] == scipy.__version__


def test_a_run_that_died_at_once_does_not_hide_the_one_before() -> None:
    data = grid.from_arrays({"a": np.arange(300.0)}, dims="x").map(doubled)
    run = grid.run(data, executor="inline", how={})
    with pytest.raises(MemoryBoundError):
        grid.run(data, executor="inline", how={}, memory="1MB")
    with origins.within(origins.Origin()):
        before = grid.plan(grid.from_arrays({"a": np.arange(301.0)}, dims="x").map(doubled)).explain()
    assert f"the recipe is that of {run.name}" in before


def test_one_chunk_is_no_plural() -> None:
    total = grid.from_arrays({"a": np.arange(4.0)}, dims="x").sum()
    with origins.within(origins.Origin()):
        grid.run(total, executor="inline", how={})
        told = grid.plan(total).explain()
    assert "1 of 1 chunk committed" in told
    assert "1 chunks" not in told
