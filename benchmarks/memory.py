"""Memory of workers: what the plan says that one needs, and what each of them has (PSS, twenty times a second).

Every workload runs on a local Ray of its own, as a command does: first on one worker, whose kernels are compiled, then
on two, which find their code compiled.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import gridcompute as grid
from benchmarks.overhead_tasks import end_ray
from benchmarks.peering import Peers
from benchmarks.rows import OURS, Reference, Row, Session, check
from benchmarks.running import new_store, own_folders
from benchmarks.stream_memory import _pss
from benchmarks.stream_stack import MONTHS, stack
from gridcompute.footprint import USUAL_BYTES, WORKER_BYTES
from gridcompute.ray_session import connect

SECTIONS = ("one", "two")
"""Numbers of workers."""

WITHIN = Reference(2.0, "the plan's estimate is within 2 times of the peak")
INTERVAL = 0.05


@grid.kernel("->()", names=("v",))
def place(cell: Any) -> Any:
    """A number that depends on the cell."""
    return cell[0] * 0.5 + cell[1]


@grid.kernel("(time)->()")
def spread(series: Any) -> Any:
    """The range of a series."""
    return series.max() - series.min()


@grid.kernel("(time)->(time)")
def summed(series: Any) -> Any:
    """Running sums."""
    return series.cumsum()


@grid.kernel("(y,x)->()")
def blur(window: Any) -> Any:
    """The mean of a window."""
    return window.mean()


@grid.kernel("(n),()->()")
def gather(inputs: Any, own: Any) -> Any:
    """What flows in, and a cell's own."""
    return inputs.sum() * 0.5 + own


class Inputs:
    """What the workloads read, for a size of 1 (quick) to 4 (full)."""

    def __init__(self, scale: int) -> None:
        self.scale = scale
        self.path = stack("stack.zarr", 480 * scale)

    @property
    def field(self) -> Any:
        """The stored stack: time, lat, lon."""
        opened = grid.open_zarr(self.path)
        return opened[next(iter(opened.columns))]

    @property
    def rows(self) -> Any:
        """Rows with a key out of a thousand and a value."""
        n, draw = 10**6 * self.scale, np.random.default_rng(3)
        return grid.from_arrays({"key": draw.integers(0, 1000, n), "value": draw.random(n)}, dims="row")

    @property
    def plane(self) -> Any:
        """A computed plane."""
        return grid.space(y=1500 * self.scale, x=3000).map(place)


def climate(inputs: Inputs) -> list[Any]:
    """The workload climate.trend over its default archive."""
    from gridcompute_workloads.climate.trend import trend

    return list(trend(output="trend.zarr", picture="none", overwrite=True).outputs)


def genomics(inputs: Inputs) -> list[Any]:
    """The workload genomics.distance over some simulated reads."""
    from gridcompute_workloads.genomics import distance

    return list(distance(count=100 * inputs.scale, output="distances.parquet", picture="none", overwrite=True).outputs)


def five(inputs: Inputs) -> list[Any]:
    """Five reductions at once."""
    field = inputs.field
    months = np.arange(field.space["time"]) % MONTHS
    return [field.mean("time"), field.var("time"), field.groupby(months, dim="time").mean(), field.max("time"),
            field.reduce("linregress", "time")]


def anomaly(inputs: Inputs) -> list[Any]:
    """Each value less its month's mean, written."""
    field = inputs.field
    months = np.arange(field.space["time"]) % MONTHS
    means = field.groupby(months, dim="time").mean()
    month = grid.from_arrays({"month": months}, dims="time")["month"]
    return [(field - means.take(month, means.space.names[0])).write("anomaly.zarr", overwrite=True)]


def propagate(inputs: Inputs) -> list[Any]:
    """Along a river of random confluences."""
    n = 500_000 * inputs.scale
    rng = np.random.default_rng(1)
    targets = np.minimum(np.arange(n) + rng.integers(1, 50, n), n - 1)
    targets[-1] = -1
    own = grid.from_arrays({"own": rng.random(n)}, dims="cell")
    return [own.propagate(gather, grid.Dag.of_targets(targets))]


def take(inputs: Inputs) -> list[Any]:
    """A computed selection of columns of the plane."""
    index = np.random.default_rng(2).integers(0, 3000, 2000)
    where = grid.from_arrays({"index": index}, dims="i")["index"] + 0
    return [inputs.plane.take(where, "x")]


def rechunked(inputs: Inputs) -> list[Any]:
    """Running sums, written with all of time in each chunk: the stack has 120 steps in one."""
    return [inputs.field.map(summed).write("across.zarr", overwrite=True)]


WORKLOADS: dict[str, Callable[[Inputs], list[Any]]] = {
    "climate.trend": climate, "genomics.distance": genomics,
    "mean": lambda inputs: [inputs.field.mean("time")], "five": five,
    "quantile": lambda inputs: [inputs.field.reduce("quantile", "time", q=0.9)],
    "series": lambda inputs: [inputs.field.map(spread)], "anomaly": anomaly, "rechunked": rechunked,
    "stencil": lambda inputs: [inputs.plane.stencil(blur, {"y": 2, "x": 2})],
    "iterate": lambda inputs: [inputs.plane.iterate(blur, 4, halo={"y": 1, "x": 1})], "propagate": propagate,
    "take": take, "sort": lambda inputs: [inputs.rows.sort("value")],
    "shuffle": lambda inputs: [inputs.rows.shuffle("key")],
    "groupby": lambda inputs: [inputs.rows.groupby("key").mean()],
}  # fmt: skip


def rows(session: Session, peers: Peers) -> Iterator[Row]:
    """The most memory of a worker beside the plan's bound, by workload."""
    with own_folders(Path(session.folder)), contextlib.chdir(session.folder):
        inputs = Inputs(session.pick(1, 2, 4))
        for workers, section in enumerate(SECTIONS, 1):
            if session.only and section not in session.only:
                continue
            session.begin(section)
            for name, make in WORKLOADS.items():
                end_ray()
                connect(workers=workers)
                try:
                    yield from _rows(name, make(inputs), workers)
                finally:
                    end_ray()


def _rows(name: str, outputs: Sequence[Any], workers: int) -> Iterator[Row]:
    with new_store() as store, Watch() as watch:
        run = grid.run(*outputs, executor="ray", workers=workers, store=store, quiet=True)
    check(run.state == "done" and run.status.retries == 0, name)
    label, peak, bound = f"{name}/{workers}", watch.peak / 2**20, run.status.bound_bytes / 2**20
    usual = bound - (WORKER_BYTES - USUAL_BYTES) / 2**20
    yield Row(f"peak/{label}", "MiB", {OURS: [peak]}, target=Reference(bound, "the plan's bound"))
    yield Row(f"estimate/{label}", "x off", {OURS: [max(usual / peak, peak / usual)]}, target=WITHIN,
              note="The plan's estimate over the peak, or the peak over the estimate.")
    yield Row(f"reported/{label}", "MiB", {OURS: [run.status.peak_bytes / 2**20]},
              note="Private memory as the worker itself reports it.")


class Watch:
    """Looks at the memory of all Ray workers of this process.

    Attributes:
        peak: the most bytes that one of them had.
    """

    def __enter__(self) -> Watch:
        self.peak, self._ended = 0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        import psutil

        own, pids, rounds = psutil.Process(os.getpid()), list[int](), 0
        while not self._ended.wait(INTERVAL):
            if rounds % 10 == 0:  # which processes there are changes seldom, and takes longer to find out
                with contextlib.suppress(psutil.Error):
                    pids = [one.pid for one in own.children(recursive=True) if _is_worker(one)]
            rounds += 1
            self.peak = max(self.peak, *map(_pss, pids), 0)


def _is_worker(process: Any) -> bool:
    import psutil

    try:
        return "ray::" in "".join(process.cmdline()[:1])
    except psutil.Error:
        return False
