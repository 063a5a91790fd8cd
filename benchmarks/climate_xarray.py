"""The peers' side of the benchmark `climate`: xarray with dask's threads and flox. Nothing of gridcompute is imported.

`python -m benchmarks.climate_xarray NAME STACK STEPS THREADS` computes one operation, and prints its peak memory.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.climate_stack import EARTH, QUARTER, SMALL, Stack, compared
from benchmarks.stream_stack import most_resident

FIVE = ("anomaly", "months", "trend", "zonal")


def field_of(path: str) -> Any:
    """The stack's variable, in the stored chunks."""
    return import_module("xarray").open_zarr(path, consolidated=False, chunks={})["t"]


def _climatology(field: Any, stack: Stack) -> dict[str, Any]:
    return {"climatology": field.groupby("time.dayofyear").mean()}


def _anomaly(field: Any, stack: Stack) -> dict[str, Any]:
    days = field.groupby("time.dayofyear")
    daily = days.mean()
    return {"climatology": daily, "anomaly": (days - daily).std("time")}


def _months(field: Any, stack: Stack) -> dict[str, Any]:
    # By year: resample would also make the eleven months of a year that the stack doesn't have.
    return {"months": field.groupby("time.year").mean()}


def _trend(field: Any, stack: Stack) -> dict[str, Any]:
    # By its sums, the fastest way that we know: polyfit first brings all of a cell's steps into one chunk.
    step = import_module("xarray").DataArray(np.arange(stack.steps) - (stack.steps - 1) / 2, dims="time")
    slope = (field * step.astype("f4")).sum("time", dtype="f8") / float((step**2).sum())
    return {"trend": slope, "intercept": field.mean("time", dtype="f8") - slope * (stack.steps - 1) / 2}


def _gradient(field: Any, stack: Stack) -> dict[str, Any]:
    degree = np.pi / 180 * EARTH
    north = field.differentiate("lat") / degree
    east = field.differentiate("lon") / (degree * np.cos(np.radians(field.lat)).astype("f4"))
    return {"gradient": np.sqrt(north**2 + east**2).mean("time")}


def _five(field: Any, stack: Stack) -> dict[str, Any]:
    return {name: one for part in FIVE for name, one in OPERATIONS[part](field, stack).items()}


OPERATIONS: dict[str, Callable[[Any, Stack], dict[str, Any]]] = {
    "climatology": _climatology, "anomaly": _anomaly, "months": _months, "trend": _trend,
    "std": lambda field, stack: {"std": field.std("time")}, "zonal": lambda field, stack: {"zonal": field.mean("lon")},
    "gradient": _gradient, "five": _five,
}  # fmt: skip


def stream(name: str, path: str, steps: int, small: bool, threads: int) -> tuple[float, Any]:
    """Seconds from opening the store to the computed values, imports aside; gives what is compared of them."""
    dask = import_module("dask")
    stack = Stack(path, steps, SMALL if small else QUARTER)
    began = time.perf_counter()
    wanted = OPERATIONS[name](field_of(path), stack)
    values = dask.compute(*wanted.values(), scheduler="threads", num_workers=threads)
    seconds = time.perf_counter() - began
    found = {}
    for key, one in zip(wanted, values, strict=True):
        dims = [dim for dim in one.dims if dim not in ("lat", "lon")] + [d for d in ("lat", "lon") if d in one.dims]
        one = one.transpose(*dims).values
        found[key] = compared(key, one, stack.grid).tolist()
    del values
    gc.collect()
    return seconds, found


def main(name: str, path: str, steps: str, threads: str) -> None:
    """Bytes of memory at the start, imports done, and at most."""
    for module in ("dask.array", "xarray", "zarr", *(["flox"] if "--flox" in sys.argv else [])):
        import_module(module)
    floor, small = most_resident(), "--small" in sys.argv
    seconds, found = stream(name, path, int(steps), small, int(threads))
    print(json.dumps({"floor": floor, "peak": most_resident(), "seconds": seconds, "found": found}))


if __name__ == "__main__":
    main(*sys.argv[1:5])
