"""Reductions over a compressed Zarr stack: one alone and five joined, against decoding alone by the same reader.

Seconds per GB are the slope between a small and a large stack, so that what a run costs at its start doesn't count.
The five are mean, variance, monthly mean, maximum and a least-squares line, all over time, inline and on Ray workers of
one and two threads. `decode alone` reads the same tiles on the same workers and threads. xarray with dask's threaded
scheduler (and flox) and cdo (on a netCDF copy) compute the same with as many threads. `memory` is in `stream_memory`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np

import gridcompute as grid
from benchmarks.overhead_tasks import end_ray
from benchmarks.peering import PeerProcess, Peers
from benchmarks.rows import OURS, Reference, Row, Session, check
from benchmarks.running import new_store, own_folders
from benchmarks.stream_memory import memory
from benchmarks.stream_peers import cdo_stream
from benchmarks.stream_stack import LAT, LON, MONTHS, at_cells, netcdf, right, stack
from gridcompute import slabs, tiles
from gridcompute.actions.loads import Load
from gridcompute.executor import Executor, InlineExecutor
from gridcompute.planning import Plan
from gridcompute.ray_executor import RayExecutor
from gridcompute.ray_session import connect
from gridcompute.running import graph_of
from gridcompute.shipping import by_value
from gridcompute.spaces import Region

DECODE = "decode alone"
SECTIONS = ("one", "five", "memory")
TARGETS = {"one": Reference(1.6, "one reduction takes at most 1.6 times decoding"),
           "five": Reference(2.2, "five take at most 2.2 times decoding")}  # fmt: skip
RESULTS: dict[str, dict[str, int | str]] = {
    "one": {"mean": 0},
    "five": {"mean": 0, "var": 1, "months": 2, "max": 3, "slope": "{}_slope", "intercept": "{}_intercept"},
}
"""What is compared, with its place or name (after the stack's) among a run's results."""

Bands = list[list[Region]]
Took = tuple[float, float]
"""Seconds on the clock, and of the processor (0 where they can't be told)."""


@dataclass(frozen=True)
class Setup:
    """Where tasks run: in this process (no workers), or on Ray workers of some threads."""

    workers: int
    threads: int

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        return f"ray, {self.workers} worker{'s' * (self.workers > 1)} of {threads}" if self.workers else threads

    @property
    def cores(self) -> int:
        """Threads in all."""
        return max(1, self.workers) * self.threads

    def executor(self) -> Executor:
        """One that has them."""
        return RayExecutor(workers=self.cores, threads=self.threads) if self.workers else \
            InlineExecutor(threads=self.threads)


SETUPS = (Setup(0, 1), Setup(0, 2), Setup(1, 1), Setup(2, 1), Setup(1, 2), Setup(2, 2))
QUICK = (Setup(0, 1), Setup(2, 1))


def outputs(name: str, field: Any) -> list[Any]:
    """What is computed of a stack."""
    months = np.arange(field.space["time"]) % MONTHS
    five = [field.mean("time"), field.var("time"), field.groupby(months, dim="time").mean(), field.max("time"),
            field.reduce("linregress", "time")]
    return five if name == "five" else five[:1]


def rows(session: Session, peers: Peers) -> Iterator[Row]:
    """Seconds per GB, how many times decoding that is, and peak memory."""
    # From 1 GB on, so that the slope hasn't the step from one segment to several, with their states and merges.
    steps = session.pick((120, 480), (3840, 7680), (3840, 15360))
    wanted = [name for name in SECTIONS if not session.only or name in session.only]
    cores = len(os.sched_getaffinity(0))
    setups = [one for one in session.pick(QUICK, SETUPS, SETUPS) if one.cores <= max(2, cores)]
    with own_folders(Path(session.folder)), contextlib.chdir(session.folder):
        stacks = [stack(f"stack{n}.zarr", n) for n in steps]
        try:
            started, timed = False, [name for name in wanted if name in TARGETS]
            known = _peers(peers, stacks) if timed else {}
            for setup in setups if timed else ():
                if setup.workers and not started:
                    started = True
                    yield _start(max(one.cores for one in setups))
                for name in timed:
                    session.begin(f"{name}, {setup}")
                    others = {} if setup.workers else known
                    yield from _rows(session, name, setup, others, stacks, (steps[1] - steps[0]) * LAT * LON * 4 / 1e9)
        finally:
            end_ray()
        if "memory" in wanted:
            session.begin("memory")
            yield from memory(session, peers, stacks[1])


def _start(cores: int) -> Row:
    end_ray()
    began = time.perf_counter()
    connect(workers=cores)
    return Row("start/ray", "s", {OURS: [time.perf_counter() - began]},
               note=f"Starting a local Ray of {cores} cores; it isn't in the rows below.")


def _rows(session: Session, name: str, setup: Setup, others: Mapping[str, Callable[[str, int, str], Took]],
          stacks: Sequence[str], gigabytes: float) -> Iterator[Row]:
    systems: dict[str, Callable[[str], Took]] = {OURS: partial(_ours, name, setup), DECODE: partial(_decode, setup)}
    systems |= {peer: partial(measure, name, setup.threads) for peer, measure in others.items()}
    for measure in (systems[OURS], systems[DECODE]):
        measure(stacks[0])  # compiles, and starts the workers
    raw: dict[str, list[Took]] = {system: [] for system in systems}
    for number in range(session.pick(1, 3, 5)):
        for system, measure in systems.items():
            if system in (OURS, DECODE) or number < session.pick(1, 1, 3):
                small, large = map(measure, stacks)
                raw[system].append(((large[0] - small[0]) / gigabytes, (large[1] - small[1]) / gigabytes))
    label = f"{name}/{setup}"
    yield Row(f"seconds/{label}", "s/GB", {system: [took[0] for took in all_] for system, all_ in raw.items()})
    pairs = list(zip(raw[OURS], raw[DECODE], strict=True))
    yield Row(f"times decoding/{label}", "x decode", {OURS: [a[0] / b[0] for a, b in pairs if b[0] > 0]},
              target=TARGETS[name])
    if not setup.workers:
        yield Row(f"processor/{label}", "s/GB", {system: [took[1] for took in all_] for system, all_ in raw.items()},
                  note="Seconds of the processor, all threads together: less disturbed by what else runs.")
        yield Row(f"processor times decoding/{label}", "x decode", {OURS: [a[1] / b[1] for a, b in pairs if b[1] > 0]})


def _ours(name: str, setup: Setup, path: str) -> Took:
    field = _field(path)
    with new_store() as store:
        began, cpu = time.perf_counter(), time.process_time()
        run = grid.run(*outputs(name, field), executor=setup.executor(), store=store, quiet=True)
        took = time.perf_counter() - began, time.process_time() - cpu
        column = Path(path).stem
        found = {what: at_cells(run[place.format(column) if isinstance(place, str) else place].to_numpy())
                 for what, place in RESULTS[name].items()}
    check(right(path, found), f"{name} over {path} ({setup})")
    return took


def _field(path: str) -> Any:
    opened = grid.open_zarr(path)
    return opened[next(iter(opened.columns))]


@lru_cache
def _segments(path: str) -> tuple[Any, tuple[str, ...], list[Bands], int]:
    """The source behind the mean, its columns, the tiles of each segment, and the cells of all."""
    plan = Plan(graph_of(outputs("one", _field(path))))
    stage, (load,) = plan.stages[0], [op for op in plan.lowered.ops.values() if isinstance(op.action, Load)]
    (root,), layout = stage.roots, stage.layouts[0]
    boxes = [root.reads(0, layout.region(chunk)) for chunk in range(stage.chunks)]
    segments = [tiles.cuts([root], lambda op: False, boxes[0][0]).bands(own) for own in boxes]
    return load.action.source, tuple(field.name for field in load.fields), segments, load.whole.cells


def _read(source: Any, names: Sequence[str], bands: Bands, threads: int) -> int:
    """Decode a segment's tiles as a worker does, and forget them; gives the number of cells."""
    cells: list[int] = []
    opened = contextlib.nullcontext(lambda tile: source.read(tile, names).region.cells)
    slabs.in_turn(bands, lambda tile: [(tile, ())], lambda tile: opened, lambda _, count: cells.append(count), threads)
    return sum(cells)


def _decode(setup: Setup, path: str) -> Took:
    source, names, segments, whole = _segments(path)
    began, cpu = time.perf_counter(), time.process_time()
    if setup.workers:
        cells = _on_ray(setup, [(source, names, bands, setup.threads) for bands in segments])
    else:
        cells = sum(_read(source, names, bands, setup.threads) for bands in segments)
    took = time.perf_counter() - began, time.process_time() - cpu
    check(cells == whole, f"decoding {path} once")
    return took


def _on_ray(setup: Setup, calls: Sequence[tuple[Any, ...]]) -> int:
    """Cells that some calls of `_read` decode, as Ray tasks, at most as many at once as there are workers."""
    ray = connect(workers=setup.cores)
    task = ray.remote(lambda work, *arguments: cloudpickle.loads(work)(*arguments))
    task = task.options(num_cpus=setup.threads, max_retries=0)
    work, waiting, cells, left = ray.put(by_value(_read)), list[Any](), 0, list(calls)
    while left or waiting:
        while left and len(waiting) < setup.workers:
            waiting.append(task.remote(work, *left.pop(0)))
        (done,), waiting = ray.wait(waiting)
        cells += ray.get(done)
    return cells


def _peers(peers: Peers, stacks: Sequence[str]) -> dict[str, Callable[[str, int, str], Took]]:
    """Measurements of the peers that take part: `(name, threads, stack)`."""
    found: dict[str, Callable[[str, int, str], Took]] = {}
    with_flox = peers.of("flox")
    for label, peer in (with_flox or peers.of("xarray")).items():
        found[f"xarray + dask{' + flox' * (label == 'flox')}"] = partial(_xarray, peer)
    if peers.wanted("cdo"):
        found["cdo"] = partial(_cdo, {path: netcdf(path) for path in stacks})
    else:
        print("cdo is left out: it isn't wanted, or there is no command `cdo` (apt install cdo)", file=sys.stderr)
    return found


def _xarray(peer: PeerProcess, name: str, threads: int, path: str) -> Took:
    seconds, value = peer.ask("stream", path=str(Path(path).absolute()), name=name, threads=threads)
    check(right(path, value["cells"]), f"xarray's {name} over {path}")
    return seconds, value["cpu"]


def _cdo(copies: Mapping[str, str], name: str, threads: int, path: str) -> Took:
    import netCDF4

    def read(file: str) -> Any:
        with netCDF4.Dataset(file) as opened:
            return np.asarray(opened["v"][:])

    seconds, value = cdo_stream(copies[path], name, threads, read)
    check(right(path, value["cells"]), f"cdo's {name} over {path}")
    return seconds, value["cpu"]
