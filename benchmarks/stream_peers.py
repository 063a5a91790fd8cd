"""The peers' side of the benchmark `stream`: xarray with dask's threads, and cdo. Nothing of gridcompute is imported.

`python -m benchmarks.stream_peers STACK OUTPUT THREADS` writes the anomaly of a stack, and prints its peak memory.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from benchmarks.stream_stack import MONTHS, at_cells, most_resident

CDO = {"one": ("timmean",), "five": ("timmean", "timvar", "ymonmean", "timmax", "trend")}
CDO_NAMES = {"timmean": "mean", "timvar": "var", "ymonmean": "months", "timmax": "max", "trend": "slope"}


def _field(path: str) -> Any:
    array, xr = import_module("dask.array"), import_module("xarray")
    return xr.DataArray(array.from_zarr(path), dims=("time", "lat", "lon"), name="v")


def _months(field: Any) -> Any:
    import numpy as np

    return field.assign_coords(month=("time", np.arange(field.sizes["time"]) % MONTHS))


def xarray_stream(path: str, name: str, threads: int) -> tuple[float, Any]:
    """One reduction or five in one call; gives the seconds of the processor and the compared cells."""
    import numpy as np

    dask, field = import_module("dask"), _field(path)
    wanted = {"mean": field.mean("time", dtype="f8")}
    if name == "five":
        timed = field.assign_coords(time=np.arange(field.sizes["time"], dtype="f8"))
        line = timed.polyfit("time", 1).polyfit_coefficients
        months = _months(field).groupby("month").mean().transpose("month", "lat", "lon")
        wanted |= {"var": field.var("time", dtype="f8"), "max": field.max("time"), "months": months, "line": line}
    began, cpu = time.perf_counter(), time.process_time()
    values = dask.compute(*wanted.values(), scheduler="threads", num_workers=threads)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    found = {key: at_cells(one) for key, one in zip(wanted, values, strict=True)}
    if "line" in found:
        found["slope"], found["intercept"] = found.pop("line")
    return seconds, {"cpu": cpu, "cells": {key: one.tolist() for key, one in found.items()}}


def cdo_stream(path: str, name: str, threads: int, read: Callable[[str], Any]) -> tuple[float, Any]:
    """Operators of cdo, one after the other over a netCDF file: it has no way to share a pass.

    Args:
        path: of the netCDF file.
        name: "one" or "five".
        threads: for `-P`.
        read: gives the field of a netCDF file.
    """
    operators = CDO[name]
    files = {one: [f"{path}.{one}{i}" for i in range(1 + (one == "trend"))] for one in operators}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    for one in operators:
        subprocess.run(["cdo", "-s", "-O", "-P", str(threads), one, path, *files[one]], check=True, capture_output=True)
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    cells = {CDO_NAMES[one]: at_cells(read(files[one][-1])) for one in operators}
    for made in files.values():
        for file in made:
            os.remove(file)
    return seconds, {"cpu": cpu, "cells": {key: one if key == "months" else one[0] for key, one in cells.items()}}


def anomaly(path: str, output: str, threads: int) -> None:
    """The field less its monthly means, written as Zarr."""
    dask = import_module("dask")
    groups = _months(_field(path)).groupby("month")
    made = (groups - groups.mean()).drop_vars("month").to_dataset(name="v")
    with dask.config.set(scheduler="threads", num_workers=threads):
        made.to_zarr(output, consolidated=False)


def main(path: str, output: str, threads: str) -> None:
    """Bytes of memory at the start, imports done, and at most."""
    for name in ("dask.array", "xarray", "zarr", *(["flox"] if "--flox" in sys.argv else [])):
        import_module(name)
    floor = most_resident()
    anomaly(path, output, int(threads))
    print(json.dumps({"floor": floor, "peak": most_resident()}))


if __name__ == "__main__":
    main(*sys.argv[1:4])
