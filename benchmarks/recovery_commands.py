"""Whole commands of ours: `climate.trend` while its workers are killed, and resume of what is there."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.peering import ROOT, PeerError
from benchmarks.rows import OURS, Reference, Row, Session, check
from benchmarks.running import own_folders

__all__ = ["own_folders", "resume", "trend"]

KILL_SECONDS = 5.0
"""Between two kills of a worker."""

SHARDS = 10_000

SCRIPT = """
import gridcompute as grid

@grid.kernel("->()", names=("i",), parallel={shards})
def index(cell):
    return cell[0]

grid.run(grid.space(n={shards}).map(index), quiet=True)
"""


def command(folder: Path, *arguments: str) -> tuple[float, dict[str, Any]]:
    """Seconds of a whole `gridcompute` command, and the document that it printed.

    Raises:
        PeerError: it failed.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    began = time.perf_counter()
    first, *rest = arguments  # what stands behind a script is the script's
    done = subprocess.run([sys.executable, "-m", "gridcompute", first, "--json", *rest], cwd=folder, text=True,
                          env=environment, capture_output=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise PeerError(f"gridcompute {' '.join(arguments)[:80]} failed: {done.stderr.strip()[-1500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return seconds, found


def resume(session: Session) -> Iterator[Row]:
    """Commands that find all shards, or nearly all."""
    folder = Path(session.folder) / "resume"
    folder.mkdir()
    (folder / "job.py").write_text(SCRIPT.format(shards=SHARDS))
    _, first = command(folder, "run", "--executor", "inline", "./job.py")
    check(first["computed"] == SHARDS, "the first run")
    shards = sorted(Path(os.environ["GRIDCOMPUTE_STORE"]).glob("shards/**/*.arrow"))
    check(len(shards) == SHARDS, "the number of shards")
    found: dict[str, list[float]] = {"rerun": [], "resumed": [], "rest": []}
    for _ in range(session.pick(1, 5, 9)):
        seconds, told = command(folder, "run", "./job.py")
        check((told["computed"], told["reused"], told["start_seconds"]) == (0, SHARDS, 0.0), "a finished job")
        found["rerun"].append(seconds)
        seconds, told = command(folder, "resume", first["run"])
        check((told["computed"], told["start_seconds"]) == (0, 0.0), "a finished run")
        found["resumed"].append(seconds)
        for shard in shards[::500]:
            shard.unlink()
        seconds, told = command(folder, "resume", first["run"], "--executor", "ray", "--workers", "2")
        check(told["computed"] == len(shards[::500]), "a run that was broken off")
        found["rest"].append(seconds - told["start_seconds"])
    what = f"The whole process, with {SHARDS:,} shards committed"
    under = Reference(2.0, "under 2 s")
    yield Row("resume/run-again", "s", {OURS: found["rerun"]}, target=under,
              note=f"`gridcompute run` of a finished job. {what}; Ray isn't started.")
    yield Row("resume/finished", "s", {OURS: found["resumed"]}, target=under, note="`gridcompute resume` of the same.")
    beside = Reference(2.0, "under 2 s beside Ray's own start")
    yield Row("resume/broken-off", "s", {OURS: found["rest"]}, target=beside,
              note="`gridcompute resume` with 20 of the shards missing, on Ray: less the start of Ray, but with that "
              "of its workers, their tasks and Ray's end.")


def archive(path: Path, times: int) -> None:
    """The package's archive side by side so many times, with noise of their own."""
    import numpy as np
    import xarray as xr
    from gridcompute_workloads.climate.inputs import default_archive

    with xr.open_dataset(default_archive()) as one:
        name = next(n for n, v in one.data_vars.items() if v.ndim == 3)
        field = one[name].transpose("time", ...).load()
    noise = np.random.default_rng(0)
    values = np.concatenate([field.values + noise.normal(0, 0.5, field.shape) for _ in range(times)], axis=2)
    made = xr.DataArray(values.astype("f4"), dims=("time", "y", "x"), name="t", attrs={"units": "K"})
    made.to_dataset().to_netcdf(path)


def tasks_of(process: int) -> list[int]:
    """Processes that a command's Ray has at a task of ours at this moment."""
    import psutil

    found = []
    for one in psutil.process_iter():
        # Ray puts a task's name there.
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if (one.cmdline() or [""])[0].startswith("ray::stage") and (
                    os.getsid(one.pid) == process or any(parent.pid == process for parent in one.parents())):
                found.append(one.pid)
    return sorted(found)


def under_fire(folder: Path, *arguments: str) -> tuple[float, dict[str, Any], int]:
    """`command` while one of its workers is killed every five seconds; also how many were."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    began, killed, over = time.perf_counter(), 0, threading.Event()
    process = subprocess.Popen([sys.executable, "-m", "gridcompute", *arguments, "--json"], cwd=folder, text=True,
                               env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)

    def shoot() -> None:
        nonlocal killed
        while not over.wait(KILL_SECONDS):
            if pids := tasks_of(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pids[killed % len(pids)], signal.SIGKILL)
                    killed += 1

    thread = threading.Thread(target=shoot)
    thread.start()
    try:
        out, err = process.communicate(timeout=1800)
    finally:
        over.set()
        thread.join()
    seconds = time.perf_counter() - began
    if process.returncode:
        raise PeerError(f"gridcompute {' '.join(arguments)[:80]} failed after {killed} kills: {err.strip()[-1500:]}")
    return seconds, json.loads(out), killed


def trend(session: Session) -> Iterator[Row]:
    """`climate.trend` on an input of at least 60 s on one worker."""
    folder = Path(session.folder) / "trend"
    folder.mkdir()
    command(folder, "run", "climate.trend", "--picture", "none", "--executor", "inline")  # compiles
    seconds, _ = command(folder, "run", "climate.trend", "--picture", "none", "--executor", "inline", "--store", "o",
                         "--output", "o.zarr")
    times = 4
    while True:
        archive(folder / "big.nc", times)
        job = ("run", "climate.trend", "--input", "big.nc", "--picture", "none")
        seconds, told = command(folder, *job, "--workers", "1", "--store", f"one-{times}", "--output", f"{times}.zarr")
        clean = seconds - told["start_seconds"]
        if clean >= session.pick(2.0, 60.0, 60.0):
            break
        times = int(times * max(1.5, 1.15 * session.pick(2.0, 60.0, 60.0) / clean))
    seconds, told, killed = under_fire(folder, *job, "--workers", "2", "--store", "two", "--output", "fire.zarr")
    check(killed > 0 or session.mode == "quick", "killing workers")
    same = subprocess.run(["diff", "-rq", "-x", "zarr.json", "-x", ".*", f"{times}.zarr", "fire.zarr"], cwd=folder,
                          capture_output=True, text=True, check=False)
    check(same.returncode == 0, f"climate.trend under fire ({same.stdout[:300]})")
    yield Row("trend/clean", "s", {OURS: [clean]}, note=f"`gridcompute run climate.trend` on one worker, Ray's start "
              f"left out; the archive {times} times side by side.")
    yield Row("trend/under-fire", "times", {OURS: [(seconds - told["start_seconds"]) / clean]},
              target=Reference(2.5, "at most 2.5 times the clean time on one worker"),
              note=f"The same on two workers, one of which is killed every 5 s ({killed} kills, {told['retries']} "
              "chunks tried again), over the clean time on one. The output's chunks are compared byte by byte.")
