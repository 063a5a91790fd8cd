"""Pictures of fields and series: maps over latitude and longitude, lines over time, both against each other."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gridcompute.maps import draw_map, draw_maps, draw_stripes
from gridcompute.plots import INK, Axis, figure_file

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray[Any, Any]

MOST_PIXELS = 1_000_000
"""A picture of more pixels than these takes every second, third ... one."""

MARKED = 60
"""Lines of no more points have a dot at each."""

MARGIN = 0.05
"""Around the part of a field that has values, as a share of it."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#222222", "#999999")
"""Okabe and Ito's colours (2008), made for colour-blind eyes."""


def draw_field(path: Path, values: Array, y: Axis, x: Axis, *, title: str, unit: str, dots: Array | None = None,
               note: str = "", centred: bool | None = None) -> Path:
    """A map of a field, or of time against latitude.

    Args:
        path: PNG to write.
        values: (y, x); NaN is drawn grey.
        y: axis of the rows.
        x: axis of the columns.
        title: above the map.
        unit: beside the colour bar.
        dots: (y, x), where to draw dots.
        note: what the dots mean.
        centred: whether the colours diverge about 0, as for anomalies; None: where the values have both signs.
    """
    return draw_map(path, np.asarray(values, np.float64), (y, x), title=title, unit=unit, dots=dots, note=note,
                    centred=centred)


def draw_fields(path: Path, panels: Mapping[str, Array], y: Axis, x: Axis, *, title: str, unit: str,
                centred: bool | None = None) -> Path:
    """Maps of several fields beside each other in the same colours, such as of months; arguments as `draw_field`.

    Args:
        path: PNG to write.
        panels: (y, x) by the name above each.
        y: axis of the rows.
        x: axis of the columns.
        title: above all.
        unit: beside the colour bar.
        centred: as for `draw_field`.
    """
    fields = {name: np.asarray(values, np.float64) for name, values in panels.items()}
    return draw_maps(path, fields, (y, x), title=title, unit=unit, centred=centred)


def draw_series(path: Path, series: Mapping[str, Array], x: Axis, *, title: str, unit: str,
                stripes: bool = False) -> Path:
    """Lines over one axis.

    Args:
        path: PNG to write.
        series: values by label, each as long as the axis.
        x: axis.
        title: above the lines.
        unit: at the vertical axis.
        stripes: draw one series as coloured stripes too.
    """
    if stripes and len(series) == 1:
        return draw_stripes(path, np.asarray(next(iter(series.values())), np.float64), x, title=title, unit=unit)
    with figure_file(path, 8, 4) as (_, (panel,)):
        for i, (label, values) in enumerate(series.items()):
            panel.plot(x.values, values, lw=1.2, label=label, color=COLOURS[i % len(COLOURS)],
                       marker="o" if len(x.values) <= MARKED else None, ms=3)  # fmt: skip
        if len(series) > 1:
            panel.legend(frameon=False, fontsize=9)
        panel.grid(axis="y", color="#e5e5e5", lw=0.6)
        panel.set_axisbelow(True)
        panel.tick_params(colors=INK, labelsize=9)
        panel.set_xlabel("" if x.kind else x.label, color=INK)
        if (x.values == np.round(x.values)).all():  # years, months: nothing lies between them
            panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set_ylabel(unit, color=INK)
        panel.set_title(title, loc="left", color=INK, fontsize=12)
        panel.spines[["top", "right"]].set_visible(False)
    return path


def cropped(values: Array, y: Axis, x: Axis) -> tuple[Array, Axis, Axis]:
    """The part of a field that has values, with a margin, where it is less than half of the field; else all of it.

    Args:
        values: (y, x), NaN where there is none.
        y: axis of the rows.
        x: axis of the columns.
    """
    known = np.isfinite(values)
    places = [np.flatnonzero(known.any(axis=1 - side)) for side in (0, 1)]
    if not known.any():
        return values, y, x
    ends = [(int(at[0]), int(at[-1]) + 1) for at in places]
    if 2 * np.prod([stop - start for start, stop in ends]) >= values.size:
        return values, y, x
    rows, columns = (slice(max(0, start - more), stop + more) for start, stop in ends
                     for more in [max(1, round(MARGIN * (stop - start)))])  # fmt: skip
    return values[rows, columns], replace(y, values=y.values[rows]), replace(x, values=x.values[columns])


def axis_of(field: xr.DataArray, dim: str) -> Axis:
    """The axis of a dimension; positions where it has no coordinate."""
    if dim in field.coords:
        return Axis.of(dim, field.coords[dim])
    return Axis(dim, np.arange(field.sizes[dim], dtype=np.float64))


def thinned(field: xr.DataArray, *dims: Hashable) -> xr.DataArray:
    """Every second, third ... position along these dimensions where all would be too many to draw; nothing is read."""
    cells = int(np.prod([field.sizes[dim] for dim in dims]))
    step = max(1, int(np.ceil((cells / MOST_PIXELS) ** (1 / max(1, len(dims))))))
    return field[{dim: slice(None, None, step) for dim in dims}] if step > 1 else field


def draw(path: Path, field: xr.DataArray, *, title: str, unit: str = "", centred: bool | None = None,
         panels: Sequence[tuple[str, int]] = ()) -> Path:
    """A picture of what was computed, by its dimensions: a map, several, time against latitude, or a line.

    Args:
        path: PNG to write.
        field: of any number of dimensions; of further ones than can be drawn the first is taken, as the title says.
        title: above.
        unit: of the values.
        centred: as for `draw_field`.
        panels: of a field of three dimensions, names and positions along the first, each a map.
    """
    shown = 3 if panels else 2
    while field.ndim > shown:  # the first of further dimensions, such as levels
        dim = field.dims[int(bool(panels))]
        field = field.isel({dim: 0})
        title += f", {dim} {str(field[dim].values)[:10]}" if dim in field.coords else f", first {dim}"
    if field.ndim == 0:
        field = field.expand_dims("value")
    if field.ndim == 1:
        field = thinned(field, *field.dims)
        return draw_series(path, {"": field.values}, axis_of(field, str(field.dims[0])), title=title, unit=unit)
    field = thinned(field, *field.dims[-2:])
    y, x = (axis_of(field, str(dim)) for dim in field.dims[-2:])
    if len(panels) == 1 and field.ndim == 3:
        field, title = field[panels[0][1]], f"{title}, {panels[0][0]}"
    elif panels and field.ndim == 3:
        return draw_fields(path, {name: field[at].values for name, at in panels}, y, x, title=title, unit=unit,
                           centred=centred)
    values = field.values
    upright = y.downward or y.kind == "longitude"  # levels and maps stand as they are
    if y.kind == "time" or (x.kind == "latitude" and not upright):  # time goes from left to right
        y, x, values = x, y, values.T
    return draw_field(path, values, y, x, title=title, unit=unit, centred=centred)
