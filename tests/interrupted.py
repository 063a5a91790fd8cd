"""A job for tests of faults: run here, or in a process of its own that kills itself at an event of its journal."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

JOB = '''
from unittest import mock

import numpy as np
import gridcompute as grid
from gridcompute import axes, planning

@grid.kernel("(time)->(),()", names=("mean", "high"))
def summary(series):
    return series.mean(), series.max()

@grid.kernel("()->()")
def lifted(value, cell):  # where a cell lies among the filtered rows is known once they are counted
    return value * 2.0 + cell[0]

def outputs(folder):
    values = np.random.default_rng(1).random((12, 3, 2))
    cube = grid.from_arrays({"t": values}, dims=("time", "lat", "lon"))["t"]
    table = grid.from_arrays({"k": np.arange(14) * 7 % 11, "v": np.arange(14.0)}, dims="row")
    rows = table.filter(table["k"] < 4)
    return cube.map(summary).write(f"{folder}/out.zarr"), rows.sort("k"), rows["v"].map(lifted).sum()

def run(folder, **options):
    # Every stage commits and small data is cut, so that chunks can be counted.
    with mock.patch.object(planning, "HELD_BYTES", -1), mock.patch.object(axes, "LIGHT_FLOOR", 1):
        return grid.run(*outputs(folder), store=f"{folder}/work", quiet=True, **options)
'''

MAIN = '''
import json, os, sys
sys.path.insert(0, {folder!r})
{before}
import job
if __name__ == "__main__":
    run = job.run({folder!r}, executor={executor!r}, workers=2)
    print(json.dumps({{k: run.summary()[k] for k in ("reused", "computed", "state")}}))
'''

KILL = '''
from gridcompute.journal import Journal
kind, _, count = os.environ["GRIDCOMPUTE_TEST_KILL"].partition(":")
left, append = [int(count or 1)], Journal.append
def deadly(self, name, **fields):
    append(self, name, **fields)
    left[0] -= name == kind
    if name == kind and left[0] == 0:
        os.kill(os.getpid(), int(os.environ.get("GRIDCOMPUTE_TEST_SIGNAL", "9")))
Journal.append = deadly
'''


def write_job(folder: Path, text: str = JOB) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.py").write_text(text)
    return folder


def load_job(folder: Path) -> ModuleType:
    """The job as a module of this process, read anew."""
    spec = importlib.util.spec_from_file_location("job", folder / "job.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["job"] = module
    spec.loader.exec_module(module)
    return module


def start(folder: Path, executor: str = "inline", kill: str = "", signal: int = 9, main: str = MAIN,
          **env: str) -> subprocess.Popen[str]:
    (folder / "main.py").write_text(main.format(folder=str(folder), executor=executor, before=KILL if kill else ""))
    extra = {"GRIDCOMPUTE_TEST_KILL": kill, "GRIDCOMPUTE_TEST_SIGNAL": str(signal), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen([sys.executable, str(folder / "main.py")], cwd=folder, env={**os.environ, **extra, **env},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def journals(folder: Path) -> list[Path]:
    return sorted(folder.glob("work/runs/*/journal.jsonl"), key=lambda path: path.stat().st_mtime_ns)


def kept(journal: Path, *, twice: bool = False) -> set[tuple[int, int, int]]:
    """(phase, stage, chunk) of each chunk that a run has kept; each may be there once only, unless `twice`."""
    found: set[tuple[int, int, int]] = set()
    phase = 0
    for line in journal.read_text().splitlines():
        event = json.loads(line)
        if event["kind"] == "phase":
            phase = event["number"]
        elif event["kind"] == "kept":
            new = {(phase, event["stage"], chunk) for chunk in event["chunks"]}
            assert twice or not new & found, "done twice in one run"
            found |= new
    return found


def contents(folder: Path) -> dict[str, str]:
    """Digest of each shard and of each chunk of the output, by name.

    Records and the output's metadata hold the recipe, which names the place, so they differ between folders.
    """
    files = [*folder.glob("work/shards/**/*.arrow"), *folder.glob("out.zarr/**/c/**/*")]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files if path.is_file() and not path.name.startswith(".")}


def values(run: Any) -> list[Any]:
    """What the job's three outputs hold, as plain values."""
    return [run[0].to_xarray()["mean"].values.tolist(), run[1].to_arrow().to_pydict(), float(run[2].to_numpy())]
