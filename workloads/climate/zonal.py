"""Zonal and meridional statistics of an archive, and means over boxes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

import gridcompute as grid
from gridcompute.collection import Collection
from gridcompute.plots import picture_path
from gridcompute.registry import Job
from gridcompute.running import Run

from .areas import NAMED, Box, area_means, boxes_of, edges, latitude_weights, row_edges
from .climatology import beside
from .inputs import attrs_of, chosen, coordinate_along, default_archive, methods_of, with_attrs, zarr_named
from .pictures import draw

__all__ = ["NAMED", "Box", "area_means", "meridional_means", "zonal", "zonal_statistics"]

METHODS = {"mean": "mean", "std": "standard_deviation", "min": "minimum", "max": "maximum", "count": "sum"}
"""CF's names of what is done along longitude."""


def zonal_statistics(field: Collection, *, longitude: str = "") -> Collection:
    """Mean, standard deviation, least and greatest value of each circle of latitude.

    Args:
        field: one column over longitude and any other dimensions.
        longitude: the dimension, where it isn't plain.

    Returns:
        Columns `mean`, `std`, `min`, `max` and `count` over the other dimensions. NaN counts in none.

    Raises:
        DimensionError: no coordinate of longitude.
    """
    dim = coordinate_along(field, "longitude", longitude).dim
    (name,) = field.columns
    return field.mean(dim).rename(**{name: "mean"}).assign(
        std=field.std(dim), min=field.min(dim), max=field.max(dim), count=field.count(dim))


def meridional_means(field: Collection, weights: str = "area", *, latitude: str = "") -> Collection:
    """The mean of each meridian, every cell by its area; as `area_means`, over the other dimensions."""
    lat = coordinate_along(field, "latitude", latitude)
    return field.reduce("mean", lat.dim, weights={lat.dim: latitude_weights(lat, weights)})


def zonal(
    input: str = "",
    variable: str = "",
    box: str = "globe",
    weights: str = "area",
    meridional: bool = False,
    output: str = "zonal.zarr",
    picture: str = "",
    overwrite: bool = False,
) -> Job:
    """Mean, standard deviation, least and greatest value of each circle of latitude, and means over boxes.

    Writes the first as a Zarr store that xarray opens, the means over boxes beside it (zonal-boxes.zarr), and draws the
    zonal means as time against latitude. The archive is read once. Missing values, such as land in a field of the sea,
    count in neither mean nor weight.

    Args:
        input: netCDF file, Zarr store, anything else that xarray reads, a URL or a pattern; by default the 240 years
            of North American air temperature of the package iris-sample-data.
        variable: the variable; needed where the input has several that fit.
        box: boxes to take means over: globe, tropics, nino1+2, nino3, nino3.4, nino4, or west,east,south,north in
            degrees (eastward, also across 0 or 180); several with semicolons between them; "none" for none.
        weights: of the cells in boxes and meridional means: area (exact), or cos of the latitude.
        meridional: also write means of each meridian beside the output (zonal-meridional.zarr).
        output: Zarr store to write.
        picture: PNG to draw; by default beside the output, "none" for no picture.
        overwrite: replace outputs that other data or parameters have left there.

    Examples:
        gridcompute run climate.zonal
        gridcompute run climate.zonal --input sst.mnmean.nc --variable sst --box "nino3.4; 280,360,0,60"
    """
    drawn = picture_path(picture, zarr_named(output))
    boxes = [] if box == "none" else boxes_of(box)
    data = grid.open_dataset(input or default_archive())
    across = coordinate_along(data, "latitude").dim
    field = chosen(data, variable, across)
    name = next(iter(field.columns))
    units = str(attrs_of(field).get("units", "1"))
    along = coordinate_along(field, "longitude").dim
    told = {"mean": "mean", "std": "standard deviation", "min": "least", "max": "greatest", "count": "number"}
    attrs = {one: {"long_name": f"{words} of {name} along {along}", "units": "1" if one == "count" else units,
                   "cell_methods": methods_of(field, f"{along}: {METHODS[one]}")}
             for one, words in told.items()}  # fmt: skip
    outputs = [with_attrs(zonal_statistics(field), attrs).write(output, overwrite=overwrite)]
    kept = {key: str(value) for key, value in attrs_of(field).items()}
    if boxes:
        described = {name: {**kept, "cell_methods": methods_of(field, "area: mean")}}
        means = with_attrs(area_means(field, boxes, weights), described)
        outputs.append(means.write(beside(output, "boxes"), overwrite=overwrite))
    if meridional:
        described = {name: {**kept, "cell_methods": methods_of(field, f"{across}: mean")}}
        means = with_attrs(meridional_means(field, weights), described)
        outputs.append(means.write(beside(output, "meridional"), overwrite=overwrite))

    def finish(run: Run) -> Iterator[str | Path]:
        yield from summary(output, drawn, name, units, boxes)

    source = f"{name} of {input}" if input else f"{name} of A1B_north_america.nc from iris-sample-data (240 years)"
    return Job(outputs, finish, [f"input {source}", *cut_off(field, boxes)])


def cut_off(field: Collection, boxes: list[Box]) -> list[str]:
    """A line for each box of which the field has only a part, more than a row or a column less."""
    lat, lon = (np.asarray(coordinate_along(field, kind).values, np.float64) for kind in ("latitude", "longitude"))
    rows, columns = row_edges(lat), edges(lon)
    height, width = (float(np.abs(np.diff(side)).max()) for side in (rows, columns))
    around = float(np.ptp(columns)) > 360 - width
    has = (f"the input has latitudes {lat.min():g} to {lat.max():g} and longitudes {columns[[0, -1]].min():g} to "
           f"{columns[[0, -1]].max():g}")  # fmt: skip
    lines = []
    for box in boxes:
        wide = box.east - box.west if abs(box.east - box.west) >= 360 else (box.east - box.west) % 360
        inside = around or (box.west - columns.min() + width) % 360 + wide <= float(np.ptp(columns)) + 2 * width
        if not inside or box.south < rows.min() - height or box.north > rows.max() + height:
            lines.append(f"{box.name} is a mean of the part of it that there is: {has}")
    return lines


def summary(output: str, picture: Path | None, name: str, units: str, boxes: list[Box]) -> Iterator[str | Path]:
    """Draw what was written; gives the lines and paths for the summary."""
    if boxes:
        means = grid.open_result(beside(output, "boxes"))[name]
        for i, one in enumerate(boxes):
            values = np.asarray(means.isel(box=i).values, np.float64)
            known = values[np.isfinite(values)]
            yield f"{one.name}: mean {known.mean():.4g} {units}" if known.size else f"{one.name}: no values"
    if picture is not None:
        field = grid.open_result(output)["mean"]
        yield draw(picture, field, title=f"Zonal mean of {name.replace('_', ' ')}", unit=units, centred=False)
