"""Decoding a stack and nothing else: what the operations of the benchmark `climate` are measured against.

Every stored chunk is read once by the reader that runs have, in the same workers or threads, and forgotten; however the
plan of an operation cuts the stack, all of them have work. `blosc alone` reads the files and decompresses them into one
buffer: no reader can be faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cloudpickle

from benchmarks.climate_ours import opened
from benchmarks.climate_stack import STEP, Stack
from benchmarks.rows import check
from benchmarks.stream import Setup
from gridcompute.ray_session import connect
from gridcompute.shipping import by_value
from gridcompute.spaces import Region

DECODE, BLOSC = "decode alone", "blosc alone"


def decode(setup: Setup, stack: Stack) -> float:
    """Seconds of decoding by the reader of runs."""
    field, grid = opened(stack), stack.grid
    regions = [Region.of((at, min(at + STEP, stack.steps)), (0, grid.lats), (0, grid.lons))
               for at in range(0, stack.steps, STEP)]
    return _timed(setup, stack, _read, [(field.op.action.source, "t", region) for region in regions])


def decompress(setup: Setup, stack: Stack) -> float:
    """Seconds of reading and decompressing the files of chunks."""
    chunks = Path(stack.path).absolute() / "t" / "c"
    calls = [(str(chunks / str(at) / "0" / "0"),) for at in range(-(-stack.steps // STEP))]
    return _timed(setup, stack, _decompressed, calls)


def _read(source: Any, name: str, region: Region) -> int:
    block = source.read(region, [name])
    return int(block.region.cells)


def _awake(seconds: float) -> int:
    """Imports what decoding needs, and keeps its worker for so long that the next call goes to another one."""
    import gridcompute.sources.zarrs  # noqa: F401

    time.sleep(seconds)
    return 0


_buffers: dict[str, Any] = {}


def _decompressed(path: str) -> int:
    import threading

    import numpy as np
    import zarr.codecs  # noqa: F401  # it tells Blosc to leave threads alone
    from numcodecs import blosc

    data = Path(path).read_bytes()
    size = int.from_bytes(data[4:8], "little")
    own = f"{threading.get_ident()} {size}"
    if own not in _buffers:
        _buffers[own] = np.empty(size, np.uint8)
    blosc.decompress(data, _buffers[own])
    return size // 4


def _timed(setup: Setup, stack: Stack, work: Callable[..., int], calls: Sequence[tuple[Any, ...]]) -> float:
    """Seconds of all calls, as many at once as there are workers or threads.

    Raises:
        WrongResultError: other cells than the stack's were decoded.
    """
    if setup.workers:
        _on_ray(setup, _awake, [(0.2,)] * setup.workers)  # a run of one wide task may have ended a worker that was idle
    began = time.perf_counter()
    if setup.workers:
        cells = _on_ray(setup, work, calls)
    else:
        with ThreadPoolExecutor(setup.threads) as threads:
            cells = sum(threads.map(lambda one: work(*one), calls))
    seconds = time.perf_counter() - began
    check(cells == stack.steps * stack.grid.lats * stack.grid.lons, f"decoding {stack.path} once")
    return seconds


def _on_ray(setup: Setup, work: Callable[..., int], calls: Sequence[tuple[Any, ...]]) -> int:
    """Cells of all calls, as Ray tasks; each worker finds its next one waiting."""
    ray = connect(workers=setup.cores)
    task = ray.remote(lambda shipped, *one: cloudpickle.loads(shipped)(*one)).options(num_cpus=setup.threads,
                                                                                      max_retries=0)
    shipped, waiting, cells, left = ray.put(by_value(work)), list[Any](), 0, list(calls)
    while left or waiting:
        while left and len(waiting) < 2 * setup.workers:
            waiting.append(task.remote(shipped, *left.pop(0)))
        (done,), waiting = ray.wait(waiting)
        cells += ray.get(done)
    return cells
