"""What the benchmark `climate` computes with gridcompute: operations by name, over one variable of a stack."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.climate_stack import Stack, compared, right
from benchmarks.rows import Row, check

FIVE = ("anomaly", "months", "trend", "zonal")
"""What is computed in one pass: the first gives two, daily climatology and standard deviation of the anomaly."""

Outputs = dict[str, Any]
"""Collections by what they are."""


class AbsentWorkloadError(Exception):
    """A function that this version of the workloads doesn't have."""


def workload(module: str, name: str) -> Any:
    """A function of the climate workloads.

    Raises:
        AbsentWorkloadError: it isn't there.
    """
    home = f"gridcompute_workloads.climate.{module}"
    try:
        found = import_module(home)
    except ModuleNotFoundError as error:
        if error.name and not home.startswith(error.name):
            raise
        raise AbsentWorkloadError(f"{home} isn't there") from None
    if not hasattr(found, name):
        raise AbsentWorkloadError(f"{home}.{name} isn't there")
    return getattr(found, name)


def told(section: str, name: str, unit: str, error: AbsentWorkloadError) -> Row:
    """A row that says what couldn't be measured."""
    print(f"{section}/{name} is left out: {error}", file=sys.stderr)
    return Row(f"{section}/{name}", unit, {}, note=f"Not measured: {error}.")


def opened(stack: Stack) -> Any:
    """The stack's variable."""
    import gridcompute as grid

    return grid.open_zarr(stack.path)["t"]


def _climatology(field: Any, stack: Stack) -> Outputs:
    return {"climatology": field.groupby(stack.days, dim="time").mean()}


def _months(field: Any, stack: Stack) -> Outputs:
    return {"months": field.groupby(stack.years, dim="time").mean()}


def _anomaly(field: Any, stack: Stack) -> Outputs:
    normals, spread = workload("normals", "normals"), workload("normals", "anomaly_spread")
    return {"climatology": normals(field)[["mean"]], "anomaly": spread(field)}


def _gradient(field: Any, stack: Stack) -> Outputs:
    return {"gradient": workload("gradient", "steepness")(field, order=2).mean("time")}


def _regrid(field: Any, stack: Stack) -> Outputs:
    target = workload("grids", "Grid")("rectilinear", stack.grid.coarse_lat, stack.grid.coarse_lon)
    return {"regrid": workload("regrid", "regridded")(field, target)}


def _five(field: Any, stack: Stack) -> Outputs:
    return {name: collection for one in FIVE for name, collection in OPERATIONS[one](field, stack).items()}


OPERATIONS: dict[str, Callable[[Any, Stack], Outputs]] = {
    "climatology": _climatology, "anomaly": _anomaly, "months": _months,
    "trend": lambda field, stack: {"trend": field.reduce("linregress", "time")},
    "std": lambda field, stack: {"std": field.std("time")},
    "zonal": lambda field, stack: {"zonal": field.mean("lon")},
    "gradient": _gradient, "regrid": _regrid, "five": _five,
}  # fmt: skip
"""What is computed in one run."""

SAID = {
    "climatology": "the mean of each calendar day", "anomaly": "that, and the standard deviation of what is left",
    "months": "the mean of each month", "trend": "a least-squares line through each cell's time series",
    "std": "the standard deviation over time", "zonal": "the mean over all longitudes",
    "gradient": "the mean over time of the gradient's size, from neighbours on the sphere",
    "regrid": "means over the cells of a grid four times coarser, weighted by area",
    "five": "climatology, anomaly, months, trend and zonal in one run, which reads the stack once",
}  # fmt: skip


def ran(outputs: Mapping[str, Any], **options: Any) -> Any:
    """A finished run of some outputs."""
    import gridcompute as grid

    return grid.run(*outputs.values(), quiet=True, **options)


def results(outputs: Mapping[str, Any], run: Any) -> Iterator[tuple[str, Any]]:
    """Whole results by what they are, as NumPy arrays; of a line, its slope."""
    for place, name in enumerate(outputs):
        result = run[place]
        line = next((one for one in result.names if one.endswith("slope")), "")
        yield name, (run[line] if line else result).to_numpy()


def check_run(outputs: Mapping[str, Any], run: Any, stack: Stack, what: str) -> None:
    """Compare results with what they should be.

    Raises:
        WrongResultError: they differ.
    """
    found = {name: compared(name, np.asarray(values), stack.grid) for name, values in results(outputs, run)}
    check(right(stack, found), f"{what} over {stack.path}")
