"""A job whose chunks wait at a gate, so that a test can break things while tasks are in work, wherever they run.

Files in the job's folder: `at-PID` says that a worker has come to the gate; `go` opens it; `hold-PID` keeps it shut
for one worker.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import gridcompute as grid
from gridcompute.journal import read
from gridcompute.record import RunRecord, load
from gridcompute.testing.cluster import LocalCluster

VALUES = np.random.default_rng(5).random((6, 5, 8))
FREE = 6
"""Chunks that pass without a gate."""


@grid.task("(time),()->()", dtypes=["f8"])
def gated(series: Any, first: Any, place: str) -> Any:
    import os
    import time
    from pathlib import Path

    folder, own = Path(place), str(os.getpid())
    if (first >= 6).all():
        (folder / f"at-{own}").touch()
        until = time.monotonic() + 150
        while not (folder / "go").exists() or (folder / f"hold-{own}").exists():
            if time.monotonic() > until:
                raise TimeoutError("nobody opens the gate")
            time.sleep(0.02)
    return series.sum(axis=1) * 3.0


def graph(folder: Path) -> Any:
    dims = ("time", "lat", "lon")
    number = np.arange(40.0).reshape(5, 8)
    series = grid.from_arrays({"t": VALUES}, dims=dims)["t"]
    return grid.map(gated, series, grid.from_arrays({"n": number}, dims=dims[1:])["n"], place=str(folder))


def expected(folder: Path) -> bytes:
    """What an undisturbed run in this process gives."""
    (folder / "go").touch()
    found = bytes(grid.run(graph(folder), executor="inline", store="memory://alone", quiet=True)[0].to_numpy())
    (folder / "go").unlink()
    for mark in folder.glob("at-*"):
        mark.unlink()
    return found


def driver(folder: Path, cluster: LocalCluster, *, deadline: float = 3600.0,
           environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """The job in a process of its own, which can reach the cluster's nodes."""
    command = cluster.command([sys.executable, __file__, str(folder), cluster.address, str(deadline)])
    return subprocess.Popen(command, env={**os.environ, **(environment or cluster.environment)}, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ended(process: subprocess.Popen[str], seconds: float = 180.0) -> dict[str, Any]:
    """What the driver's process said at its end."""
    out, err = process.communicate(timeout=seconds)
    lines = [line for line in out.splitlines() if line.startswith("{")]
    assert lines, (process.returncode, out[-2000:], err[-4000:])
    return dict(json.loads(lines[-1]), stderr=err, code=process.returncode)


def come(folder: Path) -> set[int]:
    """Workers that stand at the gate, or stood there."""
    return {int(path.name.removeprefix("at-")) for path in folder.glob("at-*")}


def wait_until(what: Callable[[], object], told: str, seconds: float = 150.0,
               process: subprocess.Popen[str] | None = None) -> None:
    until = time.monotonic() + seconds
    while not what():
        ended_early = process is not None and process.poll() is not None
        assert not ended_early, ("the driver has ended", process and process.communicate())
        assert time.monotonic() < until, f"not within {seconds:g} s: {told}"
        time.sleep(0.05)


def all_at_the_gate(folder: Path, cluster: LocalCluster, process: subprocess.Popen[str] | None = None) -> None:
    """Every node has a worker that stands there."""
    nodes = range(len(cluster.nodes))
    wait_until(lambda: all(come(folder) & set(cluster.workers(number)) for number in nodes),
               "a worker of each node at the gate", process=process)


def events(kind: str, record: RunRecord | None = None) -> list[dict[str, Any]]:
    return [event for event in read((record or load("last")).journal) if event["kind"] == kind]


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("work/shards/**/*.arrow")}


def none_twice() -> None:
    """In the last run's journal no chunk is kept twice, and none is missing."""
    kept = [chunk for event in events("kept") for chunk in event["chunks"]]
    assert len(kept) == len(set(kept)), "done twice in one run"
    summary = load("last").summary
    assert len(kept) + summary["reused"] == 40, (sorted(kept), summary)


if __name__ == "__main__":
    from unittest import mock

    from gridcompute import axes
    from gridcompute.errors import GridError

    place, address, deadline = sys.argv[1:]
    sys.modules["on_nodes"] = sys.modules["__main__"]
    said: dict[str, Any]
    try:
        with mock.patch.object(axes, "LIGHT_FLOOR", 1):
            run = grid.run(graph(Path(place)), address=address, store=f"{place}/work", quiet=True,
                           deadline=float(deadline))
        said = {"values": bytes(run[0].to_numpy()).hex(), "retries": run.status.retries,
                "computed": run.status.computed, "reused": run.status.reused}
    except GridError as error:
        said = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
    print(json.dumps(said), flush=True)
