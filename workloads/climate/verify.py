"""A forecast, a model or a reanalysis against a reference."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

import gridcompute as grid
from gridcompute.collection import Collection
from gridcompute.errors import MissingInputError, ParameterError
from gridcompute.plots import picture_path
from gridcompute.registry import Job
from gridcompute.running import Run

from .climatology import beside
from .daily import TEMPERATURES
from .inputs import attrs_of, chosen, coordinate_along, default_archive, with_attrs, zarr_named
from .normals import STEPS, Cycle, normals
from .pictures import draw
from .scores import error_maps, overall, require_variable, scores

__all__ = ["error_maps", "overall", "scores", "verify"]

OTHER = "E1_north_america.nc"
"""What stands for the forecast by default: another scenario of the same model."""


def verify(
    input: str = "",
    reference: str = "",
    variable: str = "",
    reference_variable: str = "",
    dim: str = "time",
    climatology: str = "",
    frequency: str = "month",
    weights: str = "area",
    output: str = "verify.zarr",
    picture: str = "",
    overwrite: bool = False,
) -> Job:
    """A forecast against a reference: bias, MAE, RMSE and anomaly correlation, by step, in all, and as maps.

    Writes scores of each step and of all (with _overall in their names), every cell by its area, as a Zarr store that
    xarray opens, and maps of bias, MAE and RMSE beside it (verify-maps.zarr), and draws the bias. Both inputs must have
    the same latitudes, longitudes and times. rmse_overall is the root of the mean of the squared errors of all steps;
    rmse_of_steps_overall the mean of the RMSE of each. Cells that one of both hasn't count in none.

    Args:
        input: the forecast: netCDF file, Zarr store, anything else that xarray reads, a URL or a pattern; by default
            one of two scenarios of North American air temperature in the package iris-sample-data.
        reference: what it is compared with, alike; by default the other one.
        variable: the variable; needed where the input has several that fit.
        reference_variable: the reference's variable; by default the same.
        dim: the time dimension.
        climatology: what anomalies are taken from: a dataset over dayofyear, month or season as climate.climatology
            writes it; by default the reference's own.
        frequency: of the reference's own climatology: day, month or season; "none" for no anomaly correlation.
        weights: of the cells: area (exact), or cos of the latitude.
        output: Zarr store to write.
        picture: PNG to draw; by default beside the output, "none" for no picture.
        overwrite: replace outputs that other data or parameters have left there.

    Examples:
        gridcompute run climate.verify
        gridcompute run climate.verify --input forecast.zarr --reference era5.zarr --variable z500 --frequency day
    """
    if frequency not in (*STEPS, "none"):
        raise ParameterError(f"a climatology can't be by {frequency!r}", hint=f"one of {', '.join(STEPS)}, none")
    drawn = picture_path(picture, zarr_named(output))
    field, other = opened(input, reference, variable, reference_variable, dim)
    name = next(iter(field.columns))
    units = str(attrs_of(field).get("units", "1"))
    normal = None if frequency == "none" and not climatology else normal_of(climatology, name, other, frequency, dim)
    series = scores(field, other, normal, weights=weights, dim=dim)
    totals = overall(series, coordinate_along(field, "time", dim).dim)
    every = series.assign(**{f"{one}_overall": totals[one] for one in totals.columns})
    outputs = [
        with_attrs(found, {one: _described(one, name, units) for one in found.columns}).write(url, overwrite=overwrite)
        for found, url in ((every, output), (error_maps(field, other, dim), beside(output, "maps")))
    ]

    def finish(run: Run) -> Iterator[str | Path]:
        yield from summary(output, drawn, name, units)

    said = (f"input {name} of {input}, against {reference}" if input else
            f"input {name} of {OTHER} against A1B_north_america.nc, both from iris-sample-data (240 years)")
    return Job(outputs, finish, [said, *compared(field, other, normal if climatology else None)])


def compared(field: Collection, reference: Collection, climatology: Collection | None) -> list[str]:
    """What to say where units differ.

    Raises:
        ParameterError: temperatures of two scales.
    """
    lines, own = [], str(attrs_of(field).get("units", ""))
    for what, other in (("the reference", reference), ("the climatology", climatology)):
        units = own if other is None else str(attrs_of(other).get("units", ""))
        here, there = (TEMPERATURES.get(one.lower().replace(" ", "")) for one in (own, units))
        if here is not None and there is not None:
            if here != there:
                raise ParameterError(f"the forecast is in {own}, {what} in {units}", hint="convert one of them first")
        elif own and units and units != own:
            lines.append(f"the forecast is in {own}, {what} in {units}: nothing is converted")
    return lines


def opened(input: str, reference: str, variable: str, reference_variable: str,
           dim: str) -> tuple[Collection, Collection]:  # fmt: skip
    """The forecast and its reference: both as named, or both by default.

    Raises:
        MissingInputError: only one of them was named, or one has no such variable.
    """
    if bool(input) != bool(reference):
        raise MissingInputError(f"only the {'forecast' if input else 'reference'} was named",
                                hint="give both --input and --reference")
    if not input:
        reference = default_archive()
        input = str(Path(reference).with_name(OTHER))
    field = chosen(grid.open_dataset(input), variable, dim, "--dim")
    name = reference_variable or next(iter(field.columns))
    return field, require_variable(grid.open_dataset(reference), name, "the reference")


def normal_of(climatology: str, name: str, reference: Collection, frequency: str, dim: str) -> Collection:
    """What anomalies are taken from: the climatology of a file, else the reference's own."""
    if not climatology:
        return normals(reference, Cycle(frequency, dim=dim))["mean"]
    data = grid.open_dataset(climatology)
    return require_variable(data, "mean" if "mean" in data.columns else name, "the climatology")


def _described(column: str, name: str, units: str) -> dict[str, str]:
    told = {"bias": "mean error", "mae": "mean absolute error", "rmse": "root mean square error",
            "rmse_of_steps": "mean of the root mean square errors of the steps", "acc": "anomaly correlation",
            "count": "number of errors"}  # fmt: skip
    kind = column.removesuffix("_overall")
    over = " over all steps" if column.endswith("_overall") else ""
    return {"long_name": f"{told[kind]} of {name}{over}", "units": "1" if kind in ("acc", "count") else units}


def summary(output: str, picture: Path | None, name: str, units: str) -> Iterator[str | Path]:
    """Draw what was written; gives the lines and paths for the summary."""
    result = grid.open_result(output)
    found = {one: np.asarray(result[f"{one}_overall"].values, np.float64).reshape(-1)[0]
             for one in ("bias", "mae", "rmse", "acc") if f"{one}_overall" in result}
    correlation = f", anomaly correlation {found['acc']:.4f}" if "acc" in found else ""
    yield f"bias {found['bias']:.4g}, MAE {found['mae']:.4g}, RMSE {found['rmse']:.4g} {units}{correlation}"
    if picture is not None:
        bias = grid.open_result(beside(output, "maps"))["bias"]
        yield draw(picture, bias, title=f"Bias of {name.replace('_', ' ')}", unit=units, centred=True)
