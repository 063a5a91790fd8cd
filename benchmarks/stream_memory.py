"""Peak memory of whole processes that write the anomaly of a stack: each value less its month's mean."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from benchmarks.overhead_processes import child
from benchmarks.peering import ROOT, PeerError, Peers, interpreter
from benchmarks.rows import OURS, Reference, Row, Session, check
from benchmarks.running import new_store
from benchmarks.stream_stack import CHUNK, MONTHS, at_cells, expected, series

SHARE = Reference(1 / 8, "at most an eighth of xarray + dask's peak")
THREADS = 2
OUTPUT = "anomaly.zarr"


def memory(session: Session, peers: Peers, path: str) -> Iterator[Row]:
    """MiB of the anomaly's processes, and ours as a share of xarray's."""
    path, repeat = str(Path(path).absolute()), session.pick(1, 3, 3)
    flox = peers.wanted("flox")
    python = interpreter("flox" if flox else "xarray") if flox or peers.wanted("xarray") else None
    peer = f"xarray + dask{' + flox' * flox}"
    ours, theirs, on_ray = list[dict[str, Any]](), list[dict[str, Any]](), list[dict[str, Any]]()
    for _ in range(repeat):
        ours.append(_ours(path, "inline"))
        if python:
            theirs.append(_theirs(path, python, flox))
    if session.mode != "quick":
        on_ray.append(_ours(path, "ray"))
    size = zarr.open_array(path).nbytes / 1e9
    yield Row("memory/bare process", "MiB", {OURS: _mib(ours, "floor"), peer: _mib(theirs, "floor")},
              note="Most resident memory of a process that has imported what it needs, before it does anything.")
    yield Row("memory/anomaly", "MiB", {OURS: _mib(ours, "peak"), peer: _mib(theirs, "peak")},
              note=f"Most resident memory (VmHWM) of a whole process that writes each value of {size:.2f} GB less its "
              f"month's mean as Zarr, {THREADS} threads; nothing is subtracted. Ours writes float64, xarray float32.")
    shares = [a["peak"] / b["peak"] for a, b in zip(ours, theirs, strict=False)]
    yield Row("memory/anomaly, share", "x of xarray + dask", {OURS: shares}, target=SHARE,
              note="The row above, ours over theirs.")
    if on_ray:
        yield Row("memory/anomaly on ray", "MiB", {OURS: _mib(on_ray, "pss")},
                  note="The same on a local Ray of two workers: the most that driver, workers and Ray's own processes "
                  "had in memory together, shared pages counted once (PSS, ten times a second).")


def _mib(found: Sequence[dict[str, Any]], key: str) -> list[float]:
    return [one[key] / 2**20 for one in found]


def _ours(path: str, executor: str) -> dict[str, Any]:
    with new_store() as store, _Watch() as watch:
        arguments = ("anomaly", path, OUTPUT, executor, str(THREADS), store)
        found = child(*arguments) if executor == "inline" else watch.run(
            [sys.executable, "-m", "benchmarks.child", *arguments])
    _check(path, "ours")
    return found


def _theirs(path: str, python: str, flox: bool) -> dict[str, Any]:
    with _Watch() as watch:
        found = watch.run([python, "-m", "benchmarks.stream_peers", path, OUTPUT, str(THREADS), *["--flox"] * flox])
    _check(path, "xarray's")
    return found


def _check(path: str, whose: str) -> None:
    """Compare the written anomaly at some cells, then remove it."""
    (name,) = [name for name, array in zarr.open_group(OUTPUT, mode="r").arrays() if array.ndim == 3]
    corner = zarr.open_group(OUTPUT, mode="r")[name][:, : CHUNK[1], : CHUNK[2]]
    months = expected(path)["months"][np.arange(len(series(path))) % MONTHS]
    right = np.allclose(at_cells(corner), series(path) - months, atol=1e-4)
    shutil.rmtree(OUTPUT)
    check(right, f"{whose} anomaly of {path}")


class _Watch:
    """Runs a process and looks at the memory of it and of all that it starts."""

    def __enter__(self) -> _Watch:
        self._ended, self.peak = threading.Event(), 0
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()

    def run(self, command: list[str]) -> dict[str, Any]:
        """What the process printed last, with the most bytes of proportional memory, `pss`.

        Raises:
            PeerError: it failed, with the end of what it said.
        """
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        looking = threading.Thread(target=self._look, args=(process.pid,))
        looking.start()
        said, complained = process.communicate()
        self._ended.set()
        looking.join()
        if process.returncode:
            raise PeerError(f"{' '.join(command)[:100]} failed: {complained.strip()[-500:]}")
        return {**json.loads(said.strip().rpartition("\n")[2]), "pss": self.peak}

    def _look(self, pid: int) -> None:
        import psutil

        while not self._ended.wait(0.1):
            try:
                family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
            except psutil.Error:
                continue
            self.peak = max(self.peak, sum(map(_pss, (one.pid for one in family))))


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # it has ended
    return 0
