"""Maps as PNG files, one or several, of trends or of any field, and stripes of a series."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gridcompute.plots import BLUE, INK, ORANGE, Array, Axis, dressed, figure_file

DIVERGING = "RdBu_r"
"""Blue to red through white: told apart with every common kind of colour blindness."""
SEQUENTIAL = "viridis"

FLATTEST, STEEPEST = 0.2, 1.4
"""Height by width of maps that are drawn as the ground is; others are stretched until titles and ticks have room."""


def per_decade(values: Array, unit: str) -> tuple[Array, str]:
    """Slopes per year as slopes per decade, which read better; other units stay.

    >>> per_decade(np.array([0.02]), "K year-1")[1]
    'K per decade'
    """
    if unit.endswith(" year-1"):
        return values * 10, f"{unit.removesuffix(' year-1')} per decade"
    return values, unit


def draw_trend(
    path: Path, slope: Array, significant: Array, axes: Sequence[Axis], *, name: str, unit: str, alpha: float,
    test: str = "Mann-Kendall",
) -> Path:
    """A map (two dimensions) or a line (one, or none) of slopes, marked where they are significant.

    Args:
        path: PNG to write.
        slope: values; NaN is drawn grey.
        significant: same shape.
        axes: one a dimension, in order.
        name: of the variable.
        unit: of the slopes; per year is drawn per decade.
        alpha: significance level, for the caption.
        test: what gave it, for the caption.
    """
    values, unit = per_decade(slope, unit)
    title = f"Trend of {name.replace('_', ' ')}"
    note = f"dots: p < {alpha:g} ({test})"
    if values.ndim == 2:
        return draw_map(path, values, axes, title=title, unit=unit, note=note, dots=significant)
    axis = axes[0] if axes else Axis("", np.zeros(1))
    values, significant = np.atleast_1d(values), np.atleast_1d(significant)
    with figure_file(path, 7, 4) as (_, (panel,)):
        panel.axhline(0, color="#999999", lw=0.8)
        panel.plot(axis.values, values, color=BLUE, lw=1.2, marker="o" if len(values) < 50 else None, ms=3)
        panel.plot(
            axis.values[significant], values[significant], "o", color=ORANGE, ms=4, label=note.replace("dots: ", "")
        )
        if significant.any():
            panel.legend(frameon=False, fontsize=9)
        dressed(panel, axis, "x")
        panel.set_ylabel(f"slope ({unit})", color=INK)
        panel.set_title(title, loc="left", color=INK)
        panel.spines[["top", "right"]].set_visible(False)
    return path


def draw_map(path: Path, values: Array, axes: Sequence[Axis], *, title: str, unit: str, note: str = "",
             dots: Array | None = None, centred: bool | None = None) -> Path:
    """A map of a field.

    Args:
        path: PNG to write.
        values: (y, x); NaN is drawn grey.
        axes: of y and x; longitude and latitude are turned upright.
        title: above the map.
        unit: beside the colour bar.
        note: above the map, on the right.
        dots: (y, x), where to draw dots.
        centred: whether the colours diverge about 0; None: where the values have both signs.
    """
    y, x = axes
    marked = np.zeros(values.shape, bool) if dots is None else dots
    if x.kind == "latitude" and y.kind == "longitude":
        x, y, values, marked = y, x, values.T, marked.T
    with figure_file(path, 8.0, _height(y, x, 8.0)) as (figure, (panel,)):
        colours = _colours(values[np.isfinite(values)], centred)
        mesh = _mesh(panel, values, y, x, colours)
        _dots(panel, x, y, marked & np.isfinite(values), mesh.cmap(mesh.norm(np.nan_to_num(values))))
        _bar(figure, mesh, values, panel, unit)
        panel.set_title(title, loc="left", color=INK, fontsize=12)
        panel.set_title(note, loc="right", color="#555555", fontsize=9)
    return path


def draw_maps(path: Path, panels: Mapping[str, Array], axes: Sequence[Axis], *, title: str, unit: str,
              centred: bool | None = None) -> Path:
    """Maps of several fields over the same axes, in the same colours.

    Args:
        path: PNG to write.
        panels: fields by the name above each, (y, x) as for `draw_map`.
        axes: of y and x.
        title: above all.
        unit: beside the colour bar.
        centred: as for `draw_map`.
    """
    y, x = axes
    if x.kind == "latitude" and y.kind == "longitude":
        x, y, panels = y, x, {name: values.T for name, values in panels.items()}
    columns = next((n for n in (4, 3, 2) if len(panels) % n == 0), min(4, len(panels)))
    names = [str(i) if i < len(panels) else "." for i in range(-(-len(panels) // columns) * columns)]
    rows = [names[i: i + columns] for i in range(0, len(names), columns)]
    every = np.concatenate([values[np.isfinite(values)] for values in panels.values()])
    width = min(12.0, 4.0 * columns)
    height = len(rows) * _height(y, x, width / columns, least=1.4) + 0.5
    with figure_file(path, width, min(height, 14.0), mosaic=rows) as (figure, drawn):
        for (name, values), panel in zip(panels.items(), drawn.values(), strict=True):
            mesh = _mesh(panel, values, y, x, _colours(every, centred), ticks=4)
            panel.set_title(name, loc="left", color=INK, fontsize=10)
        _bar(figure, mesh, every, list(drawn.values()), unit)
        figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=12)
    return path


def draw_stripes(path: Path, values: Array, axis: Axis, *, title: str, unit: str, centred: bool | None = True) -> Path:
    """A series as coloured stripes, with the line below.

    Args:
        path: PNG to write.
        values: along the axis; NaN is drawn grey.
        axis: of the stripes.
        title: above.
        unit: of the values.
        centred: as for `draw_map`.
    """
    with figure_file(path, 8.0, 3.6, mosaic=[["stripes"], ["line"], ["line"]]) as (figure, drawn):
        colours = _colours(values[np.isfinite(values)], centred)
        mesh = _mesh(drawn["stripes"], values[None], Axis("", np.zeros(1)), axis, colours)
        drawn["stripes"].set(yticks=[], ylabel="", xlabel="")
        drawn["stripes"].tick_params(labelbottom=False)
        drawn["stripes"].set_title(title, loc="left", color=INK, fontsize=12)
        drawn["line"].plot(axis.values, values, color=BLUE, lw=1.0)
        drawn["line"].set_xlim(axis.edges[0], axis.edges[-1])
        dressed(drawn["line"], axis, "x")
        drawn["line"].set_ylabel(unit, color=INK)
        drawn["line"].spines[["top", "right"]].set_visible(False)
        _bar(figure, mesh, values, [drawn["stripes"], drawn["line"]], "")
    return path


def _height(y: Axis, x: Axis, width: float, least: float = 2.6) -> float:
    """Of a map so wide, with its title: as high as the ground is, other fields three quarters of it."""
    spread = min(STEEPEST, max(FLATTEST, _spread(y, x) or 0.75))
    return min(10.0, max(least, (width - 1.6 * width / 8.0) * spread + 0.9 * width / 8.0))


def _aspect(y: Axis, x: Axis) -> float:
    """How much longer a degree of latitude is than one of longitude, in the middle; 0 where it isn't a map of both."""
    if (y.kind, x.kind) != ("latitude", "longitude"):
        return 0.0
    return 1 / math.cos(math.radians(min(75.0, abs(float(np.mean(y.values))))))


def _spread(y: Axis, x: Axis) -> float:
    """Height by width of the ground that a map shows; 0 where it isn't one."""
    return abs(float(np.ptp(y.edges))) * _aspect(y, x) / max(1e-9, abs(float(np.ptp(x.edges))))


def _mesh(panel: Any, values: Array, y: Axis, x: Axis, colours: Mapping[str, Any], ticks: int = 7) -> Any:
    panel.set_facecolor("#d9d9d9")
    mesh = panel.pcolormesh(x.edges, y.edges, np.ma.masked_invalid(values), rasterized=True, **colours)
    if FLATTEST <= _spread(y, x) <= STEEPEST:
        panel.set_aspect(_aspect(y, x))
    dressed(panel, x, "x", ticks)
    dressed(panel, y, "y", min(ticks, 4) if 0 < _spread(y, x) < FLATTEST else ticks)
    return mesh


def _bar(figure: Any, mesh: Any, values: Array, panels: Any, unit: str) -> None:
    """A colour bar, with arrows where values lie beyond its ends."""
    known = values[np.isfinite(values)]
    ends = ("min" if known.size and known.min() < mesh.norm.vmin else "") + (
        "max" if known.size and known.max() > mesh.norm.vmax else ""
    )
    extend = {"": "neither", "minmax": "both"}.get(ends, ends)
    bar = figure.colorbar(mesh, ax=panels, extend=extend, shrink=0.9, pad=0.02)
    bar.set_label(unit, color=INK)
    bar.ax.tick_params(colors=INK, labelsize=9)


def _colours(known: Array, centred: bool | None = None) -> Mapping[str, Any]:
    """Colour map and limits: diverging about 0 where that is asked, or not said and both signs are common."""
    if not known.size:
        return {"cmap": DIVERGING, "vmin": -1.0, "vmax": 1.0}
    low, high = (float(v) for v in np.percentile(known, (1, 99)))
    if centred is False or (centred is None and (low >= 0 or high <= 0)):
        if low == high:
            low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
        return {"cmap": SEQUENTIAL if high > 0 else f"{SEQUENTIAL}_r", "vmin": low, "vmax": high}
    most = max(-low, high) or 1.0
    return {"cmap": DIVERGING, "vmin": -most, "vmax": most}


def _dots(panel: Any, x: Axis, y: Axis, where: Array, colours: Array) -> None:
    """Dots at significant cells, dark on light colours and light on dark ones; thinned on a fine grid."""
    step = max(1, math.ceil(max(where.shape) / 60))
    rows, columns = np.nonzero(where[::step, ::step])
    light = colours[::step, ::step, :3][rows, columns] @ [0.2126, 0.7152, 0.0722]
    size = min(5.0, max(1.0, 4500 / max(1, (where.shape[0] // step) * (where.shape[1] // step))))
    ink = np.where(light[:, None] > 0.45, [[0.0, 0.0, 0.0, 0.5]], [[1.0, 1.0, 1.0, 0.55]])
    panel.scatter(x.values[::step][columns], y.values[::step][rows], s=size, c=ink, linewidths=0)
