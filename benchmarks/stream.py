"""Reductions over a compressed Zarr stack: one alone and five joined, against decoding alone by the same reader.

Seconds per GB are the slope between a small and a large stack, so that what a run costs at its start doesn't count.
The five are mean, variance, monthly mean, maximum and a least-squares line, all over time. xarray with dask's threaded
scheduler computes the same from the same stack, with as many threads.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.array
import numpy as np
import xarray as xr
import zarr

import gridcompute as grid
from benchmarks.peering import Peers
from benchmarks.rows import OURS, Reference, Row, Session, check
from benchmarks.running import new_store, own_folders
from gridcompute.actions.loads import Load
from gridcompute.executor import InlineExecutor
from gridcompute.planning import Plan
from gridcompute.running import graph_of
from gridcompute.worker import ahead

DECODE, XARRAY = "decode alone", "xarray + dask"
LAT, LON, STEP = 180, 360, 120
TARGETS = {"one": Reference(1.6, "one reduction takes at most 1.6 times decoding"),
           "five": Reference(2.2, "five take at most 2.2 times decoding")}  # fmt: skip


def _months(field: Any) -> Any:
    return np.arange(field.space["time"]) % 12


OUTPUTS: dict[str, Callable[[Any], list[Any]]] = {
    "one": lambda field: [field.mean("time")],
    "five": lambda field: [field.mean("time"), field.var("time"), field.groupby(_months(field), dim="time").mean(),
                           field.max("time"), field.reduce("linregress", "time")],
}
SECTIONS = OUTPUTS


def rows(session: Session, peers: Peers) -> Iterator[Row]:
    """Seconds per GB, and how many times decoding that is."""
    steps = session.pick((120, 480), (960, 3840), (3840, 15360))
    gigabytes = (steps[1] - steps[0]) * LAT * LON * 4 / 1e9
    with own_folders(Path(session.folder)), contextlib.chdir(session.folder):
        stacks = [_stack(f"stack{n}.zarr", n) for n in steps]
        for threads in session.pick((1,), (1, 2), (1, 2)):
            for name in [name for name in SECTIONS if not session.only or name in session.only]:
                session.begin(f"{name}, {threads} threads")
                systems = {OURS: partial(_ours, name, threads), DECODE: partial(_decode, threads),
                           XARRAY: partial(_xarray, name, threads)}  # fmt: skip
                yield from _rows(name, threads, systems, stacks, gigabytes, session.pick(1, 3, 5))


def _rows(name: str, threads: int, systems: Mapping[str, Callable[[str], float]], stacks: Sequence[str],
          gigabytes: float, repeat: int) -> Iterator[Row]:
    _ours(name, threads, stacks[0])  # compiles
    raw: dict[str, list[float]] = {system: [] for system in systems}
    for _ in range(repeat):
        for system, measure in systems.items():
            small, large = map(measure, stacks)
            raw[system].append((large - small) / gigabytes)
    label = f"{name}/{threads} thread{'s' if threads > 1 else ''}"
    yield Row(f"seconds/{label}", "s/GB", raw)
    ratios = [ours / decode for ours, decode in zip(raw[OURS], raw[DECODE], strict=True) if decode > 0]
    yield Row(f"times decoding/{label}", "x decode", {OURS: ratios}, target=TARGETS[name])


def _stack(path: str, n: int) -> str:
    """A field with a season, a gradient and noise of two decimals, compressed as Zarr does by itself."""
    made = zarr.create_array(path, shape=(n, LAT, LON), chunks=(STEP, 60, 120), dtype="f4",
                             dimension_names=("time", "lat", "lon"))  # fmt: skip
    draw = np.random.default_rng(0)
    still = 20 * np.sin(np.arange(LAT) / 30)[:, None] + 5 * np.cos(np.arange(LON) / 50)
    for at in range(0, n, STEP):
        season = 15 * np.sin(np.arange(at, at + STEP) * np.pi / 6)[:, None, None]
        made[at : at + STEP] = np.round(still + season + draw.normal(size=(STEP, LAT, LON)), 2).astype("f4")
    return path


def _field(path: str) -> Any:
    opened = grid.open_zarr(path)
    return opened[next(iter(opened.columns))]


def _ours(name: str, threads: int, path: str) -> float:
    field = _field(path)
    with new_store() as store:
        began = time.perf_counter()
        run = grid.run(*OUTPUTS[name](field), executor=InlineExecutor(threads=threads), store=store, quiet=True)
        seconds = time.perf_counter() - began
        part = zarr.open_array(path)[:, 0, 0]
        check(bool(np.isclose(run[0].to_numpy()[0, 0], part.mean(dtype="f8"))), f"the mean over {path}")
    return seconds


def _decode(threads: int, path: str) -> float:
    """The boxes of the mean's plan, read one after the other as a worker does, and forgotten."""
    plan = Plan(graph_of(OUTPUTS["one"](_field(path))))
    stage, (load,) = plan.stages[0], [op for op in plan.lowered.ops.values() if isinstance(op.action, Load)]
    source, names = load.action.source, tuple(field.name for field in load.fields)
    boxes = [box for chunk in range(stage.chunks) for box in stage.roots[0].reads(0, stage.layouts[0].region(chunk))]
    began = time.perf_counter()
    cells = sum(block.region.cells for block in ahead(lambda box: source.read(box, names), boxes, threads))
    seconds = time.perf_counter() - began
    check(cells == load.whole.cells, f"decoding {path} once")
    return seconds


def _xarray(name: str, threads: int, path: str) -> float:
    field = xr.DataArray(dask.array.from_zarr(path), dims=("time", "lat", "lon"))
    months = xr.DataArray(np.arange(field.sizes["time"]) % 12, dims="time", name="month")
    wanted = [field.mean("time", dtype="f8")]
    if name == "five":
        timed = field.assign_coords(time=np.arange(field.sizes["time"], dtype="f8"))
        wanted += [field.var("time"), field.groupby(months).mean(), field.max("time"),
                   timed.polyfit("time", 1).polyfit_coefficients]  # fmt: skip
    began = time.perf_counter()
    dask.compute(*wanted, scheduler="threads", num_workers=threads)
    return time.perf_counter() - began
