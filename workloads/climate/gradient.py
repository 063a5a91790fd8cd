"""Gradients of fields, vorticity and divergence of flows, on the sphere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gridcompute as grid
from gridcompute.collection import Collection
from gridcompute.errors import DimensionError, ParameterError
from gridcompute.kernels import Kernel
from gridcompute.plots import picture_path
from gridcompute.registry import Job
from gridcompute.running import Run
from gridcompute.signature import Signature

from .differences import field_gradient, field_steepness, flow_curl, stencil_of
from .grids import RADIUS, grid_of
from .inputs import attrs_of, chosen, coordinate_along, default_archive, with_attrs, zarr_named
from .regrid import picture_of

LONG = {"east": "derivative to the east", "north": "derivative to the north", "magnitude": "length of the gradient",
        "vorticity": "relative vorticity", "divergence": "divergence"}  # fmt: skip


def field_slopes(field: Collection, order: int = 4, radius: float = RADIUS) -> Collection:
    """Derivatives of each field to the east and to the north: columns east and north, per metre.

    Differences are centred, of second or fourth order also on uneven latitudes; see `climate.differences` for the poles
    and the ends of regions. A missing neighbour gives a missing value. Sums are float64, results have the field's type.

    Args:
        field: one column over latitude and longitude, and any other dimensions.
        order: 2 or 4.
        radius: of the sphere, in metres.

    Raises:
        DimensionError: no latitudes and longitudes.
        ParameterError: another order, too few rows or columns, uneven longitudes.
    """
    return _mapped(field_gradient, [field], order, radius)


def steepness(field: Collection, order: int = 4, radius: float = RADIUS) -> Collection:
    """Length of each field's gradient: the column magnitude, per metre; `.mean("time")` of it needs no more memory.

    Arguments and errors are those of `field_slopes`.
    """
    return _mapped(field_steepness, [field], order, radius)


def vorticity(u: Collection, v: Collection, order: int = 4, radius: float = RADIUS) -> Collection:
    """Relative vorticity of a flow, dv/dx - du/dy + u tan(latitude) / radius: the column vorticity.

    Args:
        u: one column, the flow to the east.
        v: one column, the flow to the north.
        order: 2 or 4.
        radius: of the sphere, in metres.

    Raises:
        DimensionError, ParameterError, AlignmentError: see `field_slopes`; or u and v differ in their dimensions.
    """
    return _mapped(flow_curl, [u, v], order, radius, "vorticity", sign=-1.0)


def divergence(u: Collection, v: Collection, order: int = 4, radius: float = RADIUS) -> Collection:
    """Horizontal divergence of a flow, du/dx + dv/dy - v tan(latitude) / radius: the column divergence.

    Arguments and errors are those of `vorticity`.
    """
    return _mapped(flow_curl, [v, u], order, radius, "divergence", sign=1.0)


def _mapped(kernel: Kernel, fields: list[Collection], order: int, radius: float, name: str = "",
            **params: Any) -> Collection:
    place, (lat, lon) = grid_of(fields[0])
    for one in fields[1:]:
        if grid_of(one)[1] != (lat, lon):
            raise DimensionError("the flow's components have different dimensions")
    names = {"lat": lat, "lon": lon}
    signature = Signature(*(tuple(tuple(names[d] for d in core) for core in side)
                            for side in (kernel.signature.inputs, kernel.signature.outputs)))  # fmt: skip
    first, *others = [one if one.fields[0].dtype.kind == "f" else one * 1.0 for one in fields]
    stencil = stencil_of(place, order, radius)
    made = replace(kernel, signature=signature, names=(name,) if name else kernel.names)
    return first.map(made, *others, stencil=stencil, **params)


def gradient(
    input: str = "",
    variable: str = "",
    u: str = "",
    v: str = "",
    order: int = 4,
    mean: str = "",
    output: str = "gradient.zarr",
    picture: str = "",
    overwrite: bool = False,
) -> Job:
    """Gradient of a variable, or vorticity and divergence of a flow, on the sphere.

    Of a variable it writes east and north (derivatives, per metre) and magnitude; of a flow (--u, --v) vorticity and
    divergence. Differences are centred, of order 2 or 4, on even or uneven latitudes from either end; whether
    longitudes go round is seen from their values. At a pole the rows around it give the value; at the ends of a region
    differences are one-sided. A missing neighbour gives a missing value.

    Args:
        input: netCDF file, Zarr store, anything else that xarray reads, a URL or a pattern; by default the 240 years
            of North American air temperature of the package iris-sample-data.
        variable: the variable; needed where the input has several that fit.
        u: variable of the flow to the east.
        v: variable of the flow to the north.
        order: of the differences, 2 or 4.
        mean: a dimension to take the mean of each result along, such as time.
        output: Zarr store to write.
        picture: PNG to draw; by default beside the output, "none" for no picture.
        overwrite: replace an output that other data or parameters have left there.

    Examples:
        gridcompute run climate.gradient --mean time
        gridcompute run climate.gradient --input era5.nc --u u --v v --order 2
    """
    if bool(u) != bool(v) or (u and variable):
        raise ParameterError("a flow has two components", hint="give both --u and --v, or one --variable")
    drawn = picture_path(picture, zarr_named(output))
    data = grid.open_dataset(input or default_archive())
    dim = coordinate_along(data, "latitude").dim
    fields = [chosen(data, u, dim), chosen(data, v, dim)] if u else [chosen(data, variable, dim)]
    source = " and ".join(next(iter(one.columns)) for one in fields)
    measured = str(attrs_of(fields[0]).get("units", "1"))
    unit = "s-1" if u and measured.replace("*", "").replace("^", "") in ("m s-1", "m/s") else f"{measured} m-1"
    parts = _of_flow(fields[0], fields[1], order) if u else _of_field(fields[0], order)
    if mean:
        parts = {name: part.mean(mean) for name, part in parts.items()}
    attrs = {"units": unit} | ({"cell_methods": f"{mean}: mean"} if mean else {})
    result = next(iter(parts.values())).assign(**parts)
    result = with_attrs(result, {name: {"long_name": f"{LONG[name]} of {source}"} | attrs for name in parts})
    shown = "vorticity" if u else "magnitude"

    def finish(run: Run) -> Iterator[str | Path]:
        yield from picture_of(output, drawn, shown, unit, f"{LONG[shown].capitalize()} of {source}",
                              "no cell has a value, or none with all its neighbours")

    lines = [f"input {source} of {input or 'A1B_north_america.nc from iris-sample-data (240 years)'}; order {order}"]
    return Job([result.write(output, overwrite=overwrite)], finish, lines)


def _of_flow(u: Collection, v: Collection, order: int) -> dict[str, Collection]:
    return {"vorticity": vorticity(u, v, order), "divergence": divergence(u, v, order)}


def _of_field(field: Collection, order: int) -> dict[str, Collection]:
    both = field_slopes(field, order)
    return {"east": both["east"], "north": both["north"], "magnitude": steepness(field, order)}
