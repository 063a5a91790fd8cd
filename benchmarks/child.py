"""Programs that are measured as whole processes: `python -m benchmarks.child CASE ARGUMENTS`; the last line is JSON.

    run EXECUTOR STORE    the first run of a process: a kernel over a small grid, its result checked
    driver CHUNKS STORE   resident memory of a driver, in bytes: imported, planned, run
    plan CELLS            the same of planning a space
    anomaly STACK OUTPUT EXECUTOR THREADS STORE    most memory of writing a stack less its monthly means
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


CASES: dict[str, Callable[..., dict[str, Any]]] = {"run": run, "driver": driver, "plan": plan,
                                               "anomaly": anomaly}  # fmt: skip

if __name__ == "__main__":
    print(json.dumps(CASES[sys.argv[1]](*sys.argv[2:])))
