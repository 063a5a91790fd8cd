"""What is computed anew after an edit, and what is kept: in fresh processes, and in one that reloads its modules."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr

import gridcompute as grid

HELPER = '''
FACTOR = 2.0

def scaled(x):
    return x * FACTOR
'''

JOB = '''
import numpy as np
import gridcompute as grid
import edited_helper

OFFSET = 1.0
LIMITS = (0.0, 50.0)

@grid.kernel("(time)->()")
def edited(series, power=1.0):
    # a remark
    total = 0.0
    for value in series:
        total += edited_helper.scaled(value) ** power
    return min(max(total + OFFSET, LIMITS[0]), LIMITS[1])

@grid.kernel("(time)->()")
def other(series):
    return series.max()

@grid.kernel("(time)->()")
def drawn(series, rng):
    return series[0] + grid.random.uniform(rng)

def outputs(seed=0, power=1.0, q=0.5):
    cube = grid.from_arrays({"t": np.arange(12.0).reshape(2, 2, 3)}, dims=("time", "lat", "lon"))["t"]
    return (cube.map(edited, power=power), cube.map(other), cube.map(drawn, seed=seed), cube.reduce("quantile", q=q))
'''

MAIN = '''
import json, sys
sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
import gridcompute as grid, edited_job
from gridcompute import axes
axes.LIGHT_FLOOR = 1  # as in the tests' own process
options = {"store": sys.argv[1] + "/work", "executor": "inline", "quiet": True}
run = grid.run(*edited_job.outputs(**json.loads(sys.argv[2])), **options)
print(json.dumps([run.summary()["computed"], run.summary()["reused"], [np.tolist() for np in
      (run[i].to_numpy() for i in range(4))]]))
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    return tmp_path


def write(folder: Path, job: str = JOB, helper: str = HELPER) -> None:
    (folder / "edited_job.py").write_text(job)
    (folder / "edited_helper.py").write_text(helper)


def fresh(folder: Path, **parameters: Any) -> tuple[int, int, Any]:
    """A run in a process of its own: chunks computed, chunks reused, results."""
    told = subprocess.run([sys.executable, "-c", MAIN, str(folder), json.dumps(parameters)], capture_output=True,
                          text=True, env=dict(os.environ), timeout=120)
    assert told.returncode == 0, told.stderr
    computed, reused, values = json.loads(told.stdout.splitlines()[-1])
    return computed, reused, values


def reloaded(folder: Path, **parameters: Any) -> tuple[int, int, Any]:
    """A run in this process, with both modules read anew."""
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode, kept = True, sys.dont_write_bytecode
    try:
        importlib.invalidate_caches()
        for name in ("edited_helper", "edited_job"):
            module = importlib.reload(importlib.import_module(name))
        run = grid.run(*module.outputs(**parameters), store=folder / "work", executor="inline", quiet=True)
        summary = run.summary()
        return summary["computed"], summary["reused"], [run[i].to_numpy().tolist() for i in range(4)]
    finally:
        sys.path[:] = before
        sys.dont_write_bytecode = kept
        for name in ("edited_helper", "edited_job"):
            sys.modules.pop(name, None)


EDITS = {
    "source": (JOB.replace("total = 0.0", "total = 1.0"), HELPER, {}, 0),
    "global": (JOB.replace("OFFSET = 1.0", "OFFSET = 2.0"), HELPER, {}, 0),
    "tuple": (JOB.replace("(0.0, 50.0)", "(0.0, 20.0)"), HELPER, {}, 0),
    "helper": (JOB, HELPER.replace("x * FACTOR", "x * FACTOR + 1.0"), {}, 0),
    "helper's global": (JOB, HELPER.replace("2.0", "3.0"), {}, 0),
    "parameter": (JOB, HELPER, {"power": 2.0}, 0),
    "seed": (JOB, HELPER, {"seed": 1}, 2),
    "option": (JOB, HELPER, {"q": 0.25}, 3),
}
NO_EDITS = {
    "comment": JOB.replace("# a remark", "# another remark,\n    # over two lines"),
    "blank": JOB.replace("OFFSET = 1.0", "\n\n\nOFFSET = 1.0"),
    "unused": JOB + "\nUNUSED = 3\n",
}


@pytest.mark.parametrize("go", [reloaded, fresh])
def test_edits(folder: Path, go: Any) -> None:
    """One store through all edits: after each, only the op that it touches is computed; going back reuses all."""
    total, reused, first = go(folder)
    assert reused == 0
    names = EDITS if go is reloaded else ("source", "helper's global")
    for name in names:
        job, helper, parameters, touched = EDITS[name]
        write(folder, job, helper)
        computed, reused, values = go(folder, **parameters)
        assert 0 < computed < total, name
        assert computed + reused == total, name
        assert [a != b for a, b in zip(values, first, strict=True)] == [i == touched for i in range(4)], name
        assert go(folder, **parameters)[:2] == (0, total), name
    for name, job in NO_EDITS.items() if go is reloaded else [("comment", NO_EDITS["comment"])]:
        write(folder, job)
        assert go(folder) == (0, total, first), name


def test_the_two_ways_agree(folder: Path) -> None:
    total, _, values = reloaded(folder)
    assert fresh(folder) == (0, total, values)


def run_of(folder: Path, *outputs: Any, **options: Any) -> tuple[int, int, Any]:
    run = grid.run(*outputs, store=folder / "work", executor="inline", quiet=True, **options)
    return run.summary()["computed"], run.summary()["reused"], run


def test_appended_parquet(folder: Path) -> None:
    @grid.kernel("()->()")
    def tripled(value):  # type: ignore[no-untyped-def]
        return value * 3.0

    def part(number: int, start: float) -> None:
        pq.write_table(pa.table({"v": np.arange(start, start + 4)}), folder / f"part{number}.parquet")

    def go() -> tuple[int, int, Any]:
        names = sorted(str(p) for p in folder.glob("part*.parquet"))
        return run_of(folder, grid.open_table(names)["v"].map(tripled))

    part(0, 0.0)
    part(1, 4.0)
    first, _, _ = go()
    part(2, 8.0)
    computed, reused, run = go()
    assert reused == first
    assert 0 < computed <= first
    assert run["tripled"].to_numpy().tolist() == [3.0 * i for i in range(12)]
    part(0, 100.0)
    os.utime(folder / "part0.parquet", ns=(1, 1))
    computed, reused, run = go()
    assert computed
    assert reused
    assert run["tripled"].to_numpy()[:4].tolist() == [300.0, 303.0, 306.0, 309.0]


def test_appended_netcdf(folder: Path) -> None:
    @grid.kernel("()->()")
    def squared(value):  # type: ignore[no-untyped-def]
        return value * value

    def month(number: int) -> None:
        data = xr.Dataset({"t": (("time", "lat"), np.full((2, 3), float(number)))},
                          {"time": np.arange(2) + 2 * number, "lat": np.arange(3.0)})
        data.to_netcdf(folder / f"m{number}.nc")

    def go() -> tuple[int, int, Any]:
        names = sorted(str(p) for p in folder.glob("m*.nc"))
        return run_of(folder, grid.open_dataset(names, dim="time")["t"].map(squared))

    month(0)
    month(1)
    first, _, _ = go()
    month(2)
    computed, reused, run = go()
    assert reused == first
    assert computed == first // 2
    assert run["squared"].to_numpy()[:, 0].tolist() == [0, 0, 1, 1, 4, 4]


def test_appended_sequences(folder: Path) -> None:
    @grid.kernel("(n)->()")
    def gc(read):  # type: ignore[no-untyped-def]
        count = 0
        for base in read:
            count += base == 71 or base == 67
        return count

    def lane(number: int, *reads: str) -> None:
        text = "".join(f"@r{i}\n{read}\n+\n{'I' * len(read)}\n" for i, read in enumerate(reads))
        (folder / f"lane{number}.fastq").write_text(text)

    def go() -> tuple[int, int, Any]:
        names = sorted(str(p) for p in folder.glob("lane*.fastq"))
        return run_of(folder, grid.open_sequences(names)["sequence"].map(gc))

    lane(0, "ACGT", "GGG")
    lane(1, "TTT")
    first, _, run = go()
    assert run["gc"].to_numpy().tolist() == [2, 3, 0]
    lane(2, "CCCC")
    computed, reused, run = go()
    assert run["gc"].to_numpy().tolist() == [2, 3, 0, 4]
    assert reused == first
    assert 0 < computed < first


def test_workers_and_task_size_change_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gridcompute import pacing
    from gridcompute.executor import InlineExecutor

    cube = grid.from_arrays({"t": np.random.default_rng(3).random((5, 40))}, dims=("time", "lat"))["t"]
    outputs = (cube.mean("time"), cube.var("time"), cube.sum())
    _, _, first = run_of(folder, *outputs)
    monkeypatch.setattr(pacing, "TASK_SECONDS", 10.0)
    run = grid.run(*outputs, store=folder / "work", executor=InlineExecutor(workers=4, shuffle=1), quiet=True)
    assert run.summary()["computed"] == 0
    again = grid.run(*outputs, store=folder / "elsewhere", executor=InlineExecutor(workers=4, shuffle=1), quiet=True)
    assert again.summary()["reused"] == 0
    for i in range(3):
        np.testing.assert_array_equal(again[i].to_numpy(), first[i].to_numpy())
