"""Programs that are measured as whole processes: `python -m benchmarks.child CASE ARGUMENTS`; the last line is JSON.

    run EXECUTOR STORE    the first run of a process: a kernel over a small grid, its result checked
    first KIND STORE      seconds of the first task in a new Ray worker: of a compiled "kernel", or of a NumPy "task"
    driver CHUNKS STORE   resident memory of a driver, in bytes: imported, planned, run
    plan CELLS            the same of planning a space
    cells CELLS STORE     the same of running a map, a stencil and a sum on Ray
    dag TASKS             building and ordering a graph of tasks
    anomaly STACK OUTPUT EXECUTOR THREADS STORE    most memory of writing a stack less its monthly means
    climate NAME STACK STEPS SIZE BOUND STORE    the same of an operation of the benchmark climate, in two threads
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

BEGAN = time.perf_counter()


def run(executor: str, store: str) -> dict[str, Any]:
    """Seconds of the parts of a first run."""
    import gridcompute as grid
    from benchmarks.running import index

    imported = time.perf_counter()
    if executor == "ray":
        from gridcompute.ray_session import connect

        connect(workers=2)
    connected = time.perf_counter()
    out = grid.space(n=1000).map(grid.kernel("->()", names=("i",))(index))
    done = grid.run(out, executor=executor, workers=2 if executor == "ray" else 1, store=store, quiet=True)
    ran = time.perf_counter()
    return {"import": imported - BEGAN, "session": connected - imported, "run": ran - connected,
            "compile": done.status.compile_seconds, "right": bool((done["i"].to_numpy() == range(1000)).all())}


def first(kind: str, store: str) -> dict[str, Any]:
    """Wall and processor seconds of a new worker's first task, from when it has its order to its answer."""
    import numpy as np

    import gridcompute as grid
    from gridcompute import ray_executor
    from gridcompute.ray_session import connect

    told = os.path.join(store, "first.json")

    def timed(*arguments: Any) -> Any:
        import json
        import time

        from gridcompute.ray_executor import run_order

        began, busy = time.perf_counter(), time.process_time()
        answer = run_order(*arguments)
        line = json.dumps({"wall": time.perf_counter() - began, "cpu": time.process_time() - busy})
        try:
            with open(told, "x") as file:
                file.write(line)
        except FileExistsError:
            pass  # not the first
        return answer

    def summed(series: Any) -> Any:
        return series.sum() + 1.5

    def task(series: Any) -> Any:
        return series.sum(axis=-1) + 1.5

    os.makedirs(store, exist_ok=True)
    ray_executor.run_order = timed
    connect(workers=1)
    made = grid.kernel("(t)->()")(summed) if kind == "kernel" else grid.task("(t)->()", dtypes=["f8"])(task)
    values = np.arange(64.0).reshape(16, 4)
    out = grid.from_arrays({"v": values}, dims=("n", "t"))["v"].map(made, names=("s",))
    done = grid.run(out, executor="ray", workers=1, store=os.path.join(store, "work"), quiet=True)
    right = bool((done["s"].to_numpy() == values.sum(1) + 1.5).all())
    with open(told) as file:
        found: dict[str, Any] = json.load(file)
    return {**found, "compiled": done.status.compiled, "right": right}


def resident() -> int:
    """Bytes of this process that are in memory now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def driver(chunks: str, store: str) -> dict[str, Any]:
    """Memory before, after planning and after running so many trivial chunks."""
    import gridcompute as grid
    from benchmarks.running import indices

    # The disk's syncs have nothing to do with memory, and take most of the time.
    os.fsync = lambda fd: None
    n = int(chunks)
    grid.run(indices(16, 16), executor="inline", store=store, quiet=True)  # loads and compiles what any run needs
    before = resident()
    out = indices(n, n)
    planned_chunks = grid.plan(out).plan.stages[0].chunks
    planned = resident()
    done = grid.run(out, executor="inline", store=store, quiet=True)
    ran = resident()
    # A cell's name in the store doesn't hold the number of cells, so the first 16 are there already.
    right = planned_chunks == n == done.status.computed + done.status.reused
    return {"before": before, "planned": planned, "ran": ran, "right": right}


def plan(cells: str) -> dict[str, Any]:
    """Memory before and after planning a map, a stencil and a sum over so many cells."""
    import gridcompute as grid
    from benchmarks.running import indices

    grid.plan(indices(16))
    before = resident()
    out = indices(int(cells))
    plans = [grid.plan(out), grid.plan(out.sum("n"))]
    planned = resident()
    right = plans[0].plan.stages[0].roots[0].whole.cells == int(cells)
    return {"before": before, "planned": planned, "ran": planned, "right": right}


def cells(number: str, store: str) -> dict[str, Any]:
    """Memory before planning and after running a map, a stencil and a sum over so many cells on two workers."""
    import gridcompute as grid
    from benchmarks.scale import graph

    before, n = resident(), int(number)
    done = grid.run(graph(n), executor="ray", workers=2, store=store, quiet=True)
    ran = resident()
    # The window adds what lies before and after a cell; beyond the ends these are the cells at the ends.
    return {"before": before, "planned": before, "ran": ran, "right": int(done[0].to_numpy()) == n * (n - 1)}


def dag(tasks: str) -> dict[str, Any]:
    """See `benchmarks.scale_dags.build`."""
    from benchmarks.scale_dags import build

    return build(int(tasks))


def anomaly(path: str, output: str, executor: str, threads: str, store: str) -> dict[str, Any]:
    """Most resident memory of this process, with all imported and at the end."""
    import numpy as np

    import gridcompute as grid
    from benchmarks.stream_stack import MONTHS, most_resident

    opened = grid.open_zarr(path)
    field = opened[next(iter(opened.columns))]
    floor = most_resident()
    months = np.arange(field.space["time"]) % MONTHS
    means = field.groupby(months, dim="time").mean()
    month = grid.from_arrays({"month": months}, dims="time")["month"]
    out = (field - means.take(month, means.space.names[0])).write(output)
    at = {"workers": 2} if executor == "ray" else {"threads": int(threads)}
    done = grid.run(out, executor=executor, store=store, quiet=True, **at)
    return {"floor": floor, "peak": most_resident(), "right": done.status.computed > 0}


def climate(name: str, path: str, steps: str, size: str, bound: str, store: str) -> dict[str, Any]:
    """Most resident memory of this process, with all imported and at the end; nothing but 0 where the plan refuses."""
    from benchmarks.climate_ours import OPERATIONS, check_run, opened, ran
    from benchmarks.climate_stack import QUARTER, SMALL, Stack
    from benchmarks.stream_stack import most_resident
    from gridcompute.errors import MemoryBoundError
    from gridcompute.executor import InlineExecutor

    stack = Stack(path, int(steps), SMALL if size == "small" else QUARTER)
    field = opened(stack)
    floor = most_resident()
    outputs = OPERATIONS[name](field, stack)
    memory = {"memory": int(bound)} if int(bound) else {}
    try:
        run = ran(outputs, executor=InlineExecutor(threads=2), store=store, **memory)
    except MemoryBoundError:
        return {"floor": floor, "peak": 0, "right": True}
    peak = most_resident()
    check_run(outputs, run, stack, name)
    return {"floor": floor, "peak": peak, "right": True}


CASES: dict[str, Callable[..., dict[str, Any]]] = {"run": run, "first": first, "driver": driver, "plan": plan,
                                                 "cells": cells, "dag": dag, "anomaly": anomaly,
                                                 "climate": climate}

if __name__ == "__main__":
    print(json.dumps(CASES[sys.argv[1]](*sys.argv[2:])))
