"""cdo's side of the benchmark `climate`: operators over the netCDF copy of a stack, a process each."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.climate_stack import Grid, Stack, compared

Step = tuple[str, ...]
"""An operator with its operands; `{in}` is the stack, `{coarse}` the coarser grid, other names are files it makes."""

CLIMATOLOGY: Step = ("ydaymean", "{in}", "climatology")
STEPS: dict[str, tuple[Step, ...]] = {
    "climatology": (CLIMATOLOGY,),
    "anomaly": (CLIMATOLOGY, ("timstd", "-ydaysub", "{in}", "climatology", "anomaly")),
    "months": (("monmean", "{in}", "months"),),
    "trend": (("trend", "{in}", "intercept", "trend"),),
    "std": (("timstd", "{in}", "std"),),
    "zonal": (("zonmean", "{in}", "zonal"),),
    "regrid": (("remapcon,{coarse}", "{in}", "regrid"),),
}
STEPS["five"] = tuple(step for name in ("anomaly", "months", "trend", "zonal") for step in STEPS[name])
"""By operation; cdo has no gradient, and no way to share a pass."""


def stream(name: str, stack: Stack, threads: int) -> tuple[float, dict[str, Any]]:
    """Seconds of all processes of an operation, and what is compared of the files that they made.

    Raises:
        subprocess.CalledProcessError: cdo failed.
    """
    files: dict[str, str] = {}
    began = time.perf_counter()
    for step in STEPS[name]:
        lats, lons = stack.grid.coarse
        operator = step[0].replace("{coarse}", f"r{lons}x{lats}")
        command = [operator, *(_operand(one, stack, files) for one in step[1:])]
        subprocess.run(["cdo", "-s", "-O", "-P", str(threads), *command], check=True, capture_output=True)
    seconds = time.perf_counter() - began
    found = {what: compared(what, _read(path, what, stack.grid), stack.grid) for what, path in files.items()}
    for path in files.values():
        Path(path).unlink()
    return seconds, found


def _operand(word: str, stack: Stack, files: dict[str, str]) -> str:
    if word == "{in}":
        return stack.netcdf
    return word if word.startswith("-") else files.setdefault(word, f"{stack.netcdf}.{word}.nc")


def _read(path: str, what: str, grid: Grid) -> Any:
    """The one field of a file, from north to south: cdo's own grids go the other way."""
    import netCDF4

    with netCDF4.Dataset(path) as opened:
        values = np.asarray(opened["t"][:])
        south_first = opened["lat"][0] < opened["lat"][-1]
    if what == "zonal":
        values = values[..., 0]
    elif values.shape[0] == 1 and what not in ("climatology", "months", "regrid"):
        values = values[0]
    return np.flip(values, axis=1) if south_first and what == "regrid" else values

