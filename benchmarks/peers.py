"""What the peers do, in a process of its own: `python -m benchmarks.peers NAME` answers one JSON line with another.

Nothing of gridcompute is imported here, so that it also runs where only the peers are installed. Imports of the
peers stand in the functions, since each process has only one of them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benchmarks import (
    climate_chunked,
    climate_packages,
    climate_suite_peers,
    climate_xarray,
    genomics_peers,
    scale_dags_oracle,
    stream_peers,
    taskbench_peers,
)

Answer = tuple[float, Any]

DISTRIBUTIONS = ("cubed", "dask", "distributed", "eofs", "flox", "joblib", "numba", "parsl", "pymannkendall", "pyopal",
                 "pywfa", "ray", "xarray", "xclim", "zarr")


def same(i: int) -> int:
    """The trivial task."""
    return i


def _timed(work: Callable[[], Any]) -> Answer:
    began = time.perf_counter()
    value = work()
    return time.perf_counter() - began, value


@lru_cache
def _fill() -> Any:
    """The empty kernel's loop, as one writes it in numba."""
    import numba

    @numba.njit(nogil=True)  # type: ignore[untyped-decorator, unused-ignore]
    def fill(out: Any, start: int) -> None:
        for i in range(out.size):
            out[i] = start + i

    return fill


def numba_loop(n: int) -> Answer:
    """A compiled loop that writes each cell's index into a new array."""
    import numpy as np

    fill = _fill()

    def work() -> Any:
        out = np.empty(n, np.int64)
        fill(out, 0)
        return out

    seconds, out = _timed(work)
    return seconds, [int(out[0]), int(out[-1]), int(out.sum())]


def _dask() -> tuple[Any, Any]:
    """The modules dask and dask.array, which aren't typed throughout."""
    return import_module("dask"), import_module("dask.array")


def dask_tasks(n: int, scheduler: str) -> Answer:
    """A bag of delayed calls, gathered; "threads" has two of them."""
    dask, _ = _dask()

    def work() -> Any:
        calls = [dask.delayed(same, pure=False)(i) for i in range(n)]
        return dask.compute(*calls, scheduler=scheduler, num_workers=2)

    seconds, values = _timed(work)
    return seconds, sum(values)


def _numbers(block: Any, block_info: Any = None) -> Any:
    import numpy as np

    out = np.empty(block.shape, np.int64)
    _fill()(out, block_info[0]["array-location"][0][0])
    return out


def _stored(work: Callable[[str], Any], n: int) -> Answer:
    """Time something that writes the array `x` of a Zarr store, then read that back."""
    import zarr

    folder = tempfile.mkdtemp(prefix="cells-", dir=".")
    try:
        seconds, _ = _timed(lambda: work(folder + "/x.zarr"))
        found: Any = zarr.open(folder + "/x.zarr", mode="r")
        values = (found if hasattr(found, "shape") else found["x"])[:]
        return seconds, [int(values[0]), int(values[-1]), int(values.sum())] if len(values) == n else []
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def dask_cells(n: int, chunk: int) -> Answer:
    """The loop by map_blocks on two threads, stored as Zarr."""
    dask, da = _dask()

    def work(path: str) -> None:
        with dask.config.set(scheduler="threads", num_workers=2):
            da.zeros(n, chunks=chunk, dtype="i8").map_blocks(_numbers, dtype="i8").to_zarr(path)

    return _stored(work, n)


def xarray_cells(n: int, chunk: int) -> Answer:
    """A vectorised numba function by apply_ufunc over dask on two threads, stored as Zarr."""
    import xarray as xr

    dask, da = _dask()

    def work(path: str) -> None:
        with dask.config.set(scheduler="threads", num_workers=2):
            index = xr.DataArray(da.arange(n, chunks=chunk, dtype="i8"), dims="n", name="x")
            out = xr.apply_ufunc(_identity(), index, dask="parallelized", output_dtypes=["i8"])
            out.rename("x").to_dataset().to_zarr(path, consolidated=False)

    return _stored(work, n)


@lru_cache
def _identity() -> Any:
    numba: Any = import_module("numba")
    return numba.vectorize(["int64(int64)"])(same)


def dask_plan(kind: str, n: int, chunk: int) -> Answer:
    """Building and optimising the graph of a map, a stencil or a sum, down to its tasks.

    Gives the number of tasks.
    """
    dask, da = _dask()

    def work() -> Any:
        cells = da.zeros(n, chunks=chunk, dtype="i8")
        if kind == "map":
            out = cells.map_blocks(same, dtype="i8")
        elif kind == "stencil":
            out = da.overlap.map_overlap(same, cells, depth=1, boundary="nearest", dtype="i8")
        else:
            out = cells.map_blocks(same, dtype="i8").sum()
        return len(dict(dask.optimize(out)[0].__dask_graph__()))

    return _timed(work)


def _scaled(da: Any, n: int, chunk: int) -> Any:
    """A map, a stencil and a sum."""
    mapped = da.arange(n, chunks=chunk, dtype="i8").map_blocks(same, dtype="i8")
    return da.overlap.map_overlap(same, mapped, depth=1, boundary="nearest", dtype="i8").sum()


def dask_scale_plan(n: int, chunk: int) -> Answer:
    """Building and optimising that graph, down to its tasks; gives their number."""
    dask, da = _dask()
    return _timed(lambda: len(dict(dask.optimize(_scaled(da, n, chunk))[0].__dask_graph__())))


def dask_scale_bytes(n: int, chunk: int) -> Answer:
    """Bytes that it allocates for that at most, in place of the seconds."""
    dask, da = _dask()
    tracemalloc.start()
    try:
        tasks = len(dict(dask.optimize(_scaled(da, n, chunk))[0].__dask_graph__()))
        return float(tracemalloc.get_traced_memory()[1]), tasks
    finally:
        tracemalloc.stop()


def dask_scale_run(n: int) -> Answer:
    """A map and a sum on two threads, in chunks as dask likes them."""
    dask, da = _dask()

    def work() -> Any:
        with dask.config.set(scheduler="threads", num_workers=2):
            return int(da.zeros(n, dtype="i8").map_blocks(_numbers, dtype="i8").sum().compute())

    return _timed(work)


def ray_plain_tasks(n: int) -> Answer:
    """Plain tasks on two cores, gathered."""
    ray = taskbench_peers.ray_session()
    call = ray.remote(same).options(num_cpus=1, max_retries=0)
    seconds, values = _timed(lambda: ray.get([call.remote(i) for i in range(n)]))
    return seconds, sum(values)


def ray_data(n: int) -> Answer:
    """Ray Data's range, mapped by batches and summed, on two cores."""
    taskbench_peers.ray_session()
    data: Any = import_module("ray.data")
    data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return _timed(lambda: int(data.range(n).map_batches(same).sum("id")))


def dask_dag(tasks: int) -> Answer:
    """An irregular graph in dask's own form, by its threaded scheduler; gives the hashes as text."""
    import numba
    import numpy as np

    get = import_module("dask.threaded").get
    compiled = numba.njit(nogil=True)(scale_dags_oracle.task)

    def node(task: int, *hashes: int) -> int:
        return int(compiled(task, np.array(hashes, np.uint64)))

    node(0, 1), node(1)  # compiled before the clock counts
    graph = {f"task-{c}": (node, c, *(f"task-{i}" for i in scale_dags_oracle.inputs(c))) for c in range(tasks)}
    seconds, found = _timed(lambda: get(graph, list(graph), num_workers=2))
    return seconds, [str(one) for one in found]


@lru_cache
def _cluster() -> Any:
    distributed: Any = import_module("distributed")
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50)
    return distributed.Client(cluster)


def distributed_tasks(n: int) -> Answer:
    """Futures on two worker processes, gathered."""
    client = _cluster()

    def work() -> Any:
        return client.gather(client.map(same, range(n), pure=False))

    seconds, values = _timed(work)
    return seconds, sum(values)


def joblib_tasks(n: int) -> Answer:
    """Calls on two worker processes (loky), one call a dispatch."""
    joblib: Any = import_module("joblib")

    def work() -> Any:
        return joblib.Parallel(n_jobs=2, batch_size=1)(joblib.delayed(same)(i) for i in range(n))

    seconds, values = _timed(work)
    return seconds, sum(values)


def distributed_taskbench(**graph: Any) -> Answer:
    """Task Bench on two worker processes."""
    return taskbench_peers.distributed(_cluster(), **graph)


SUITES = {"smoothed": climate_suite_peers.smoothed, "bilinear": climate_suite_peers.bilinear,
          "eddies": climate_suite_peers.eddies}

CASES: dict[str, dict[str, Callable[..., Answer]]] = {
    "dask": {"tasks": dask_tasks, "cells": dask_cells, "plan": dask_plan, "taskbench": taskbench_peers.dask,
             "scale-plan": dask_scale_plan, "scale-plan-bytes": dask_scale_bytes, "scale-run": dask_scale_run,
             "dag": dask_dag, "climate-rechunk": climate_chunked.dask_rechunk},
    "cubed": {"climate-rechunk": climate_chunked.cubed_rechunk, "climate-quadratic": climate_chunked.cubed_quadratic},
    "eofs": {"functions": climate_packages.functions},
    "pymannkendall": {"trends": climate_packages.mann_kendall},
    "xclim": {"warm days": climate_packages.warm_days},
    "distributed": {"tasks": distributed_tasks, "taskbench": distributed_taskbench},
    "parsl": {"taskbench": taskbench_peers.parsl},
    "ray": {"taskbench": taskbench_peers.ray_tasks, "tasks": ray_plain_tasks, "data": ray_data},
    "ray_dask": {"taskbench": taskbench_peers.ray_dask},
    "joblib": {"tasks": joblib_tasks},
    "pyopal": {"search": genomics_peers.pyopal_search},
    "pywfa": {"pairs": genomics_peers.pywfa_pairs},
    "numba": {"loop": numba_loop},
    "xarray": {"cells": xarray_cells, "stream": stream_peers.xarray_stream, "climate": climate_xarray.stream,
               "climate-quadratic": climate_chunked.xarray_quadratic, **SUITES},
    "flox": {"stream": stream_peers.xarray_stream, "climate": climate_xarray.stream, **SUITES},
}
"""By peer and case; Ray's plain tasks run in our own session instead, so that both have the same one."""


def versions(name: str) -> dict[str, str]:
    """Versions of the packages of a peer."""
    found = {}
    for package in DISTRIBUTIONS:
        with contextlib.suppress(PackageNotFoundError):
            if package == name or package in sys.modules:
                found[package] = version(package)
    return found


def serve(name: str) -> None:
    """Answer until the input ends. What a peer prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        question = json.loads(line)
        try:
            seconds, value = CASES[name][question.pop("case")](**question)
            answer = {"seconds": seconds, "value": value, "versions": versions(name)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
    if name == "distributed" and _cluster.cache_info().currsize:
        client = _cluster()
        client.shutdown()
    taskbench_peers.end()


if __name__ == "__main__":
    serve(sys.argv[1])
