"""Rows of the benchmark `climate` for memory: peaks against xarray's, and against the plan's bound."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.climate_ours import OPERATIONS, AbsentWorkloadError, check_run, opened, ran, told
from benchmarks.climate_stack import SMALL, Stack, right
from benchmarks.memory import Watch
from benchmarks.overhead_processes import child
from benchmarks.overhead_tasks import end_ray
from benchmarks.peering import ROOT, PeerError, Peers, interpreter
from benchmarks.rows import OURS, Reference, Row, Session, check
from benchmarks.running import new_store
from gridcompute.errors import GridError, MemoryBoundError
from gridcompute.ray_session import connect

BOUND = 10**9
"""Bytes that a worker may have."""

SHARE = 1 / 8
WHOLE = ("climatology", "anomaly")
"""Operations whose whole process is compared with xarray's."""


def peaks(session: Session, peers: Peers, small: Stack, large: Stack) -> Iterator[Row]:
    """MiB of whole processes over the small stack; of workers over the large one, beside the plan's bound."""
    session.begin("memory, processes")
    for name in WHOLE:
        try:
            yield from _processes(peers, name, small)
        except AbsentWorkloadError as error:
            yield told("memory", name, "MiB", error)
    for name in OPERATIONS:
        session.begin(f"memory, {name} of {large.gigabytes:.2g} GB")
        end_ray()
        connect(workers=2)
        try:
            yield from _bounded(name, large)
        except AbsentWorkloadError as error:
            yield told("memory", f"{name}, 2 workers", "MiB", error)
        finally:
            end_ray()


def _processes(peers: Peers, name: str, stack: Stack) -> Iterator[Row]:
    OPERATIONS[name](opened(stack), stack)  # refused here, where a function isn't there
    _ours(name, stack, 0)  # compiles
    free, bound = _ours(name, stack, 0), _ours(name, stack, BOUND)
    raw, floors = {OURS: [free["peak"] / 2**20]}, {OURS: [free["floor"] / 2**20]}
    if bound["peak"]:
        raw[f"ours, told to take {BOUND / 1e9:g} GB"] = [bound["peak"] / 2**20]
    flox = peers.wanted("flox")
    python = interpreter("flox" if flox else "xarray") if flox or peers.wanted("xarray") else None
    peer = f"xarray + dask{' + flox' * flox}"
    if python:
        theirs = _xarray(python, name, stack, flox)
        raw[peer], floors[peer] = [theirs["peak"] / 2**20], [theirs["floor"] / 2**20]
    goal = Reference(raw[peer][0] * SHARE, "at most an eighth of xarray + dask's peak") if python else None
    yield Row(f"memory/{name}, bare process", "MiB", floors,
              note="Most resident memory of a process that has imported what it needs, before it does anything.")
    yield Row(f"memory/{name}", "MiB", raw, target=goal,
              note=f"Most resident memory (VmHWM) of a whole process with two threads that computes the operation over "
              f"{stack.gigabytes:.2g} GB; nothing is subtracted.")


def _ours(name: str, stack: Stack, bound: int) -> dict[str, Any]:
    size = "small" if stack.grid == SMALL else "quarter"
    with new_store() as store:
        return child("climate", name, str(Path(stack.path).absolute()), str(stack.steps), size, str(bound), store)


def _xarray(python: str, name: str, stack: Stack, flox: bool) -> dict[str, Any]:
    command = [python, "-m", "benchmarks.climate_xarray", name, stack.path, str(stack.steps), "2",
               *["--flox"] * flox, *["--small"] * (stack.grid == SMALL)]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise PeerError(f"{' '.join(command)[:100]} failed: {done.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().rpartition("\n")[2])
    check(right(stack, {what: np.array(values) for what, values in found["found"].items()}), f"xarray's {name}")
    return found


def _bounded(name: str, stack: Stack) -> Iterator[Row]:
    """The most that a worker has, with `BOUND` for each."""
    outputs = OPERATIONS[name](opened(stack), stack)
    label = f"memory/{name}, 2 workers with {BOUND / 1e9:g} GB each"
    try:
        with new_store() as store:
            with Watch() as watch:
                run = ran(outputs, executor="ray", workers=2, store=store, memory=BOUND)
            check_run(outputs, run, stack, f"{name} within {BOUND / 1e9:g} GB")
    except MemoryBoundError as error:
        yield Row(label, "MiB", {}, note=f"Refused by the plan: {error}.")
        return
    except GridError as error:
        yield Row(label, "MiB", {}, note=f"Failed: {error}.")
        return
    said = Reference(run.status.bound_bytes / 2**20, "the plan's bound")
    yield Row(label, "MiB", {OURS: [watch.peak / 2**20]}, target=said,
              note=f"The most that a worker had (PSS, twenty times a second), over {stack.gigabytes:.2g} GB.")
