"""Pictures of results: maps of trends and histograms, as PNG files, in colours that colour-blind eyes tell apart."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gridcompute.errors import ParameterError, StoreError

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray[Any, Any]

DIVERGING = "RdBu_r"
"""Blue to red through white: told apart with every common kind of colour blindness."""
SEQUENTIAL = "viridis"
INK = "#222222"
BLUE, ORANGE = "#0072b2", "#d55e00"
"""Two of Okabe and Ito's colours (2008), made for colour-blind eyes."""


@dataclass(frozen=True, eq=False)
class Axis:
    """A dimension of a picture.

    Attributes:
        name: of the dimension.
        values: its coordinate, or positions.
        unit: of the values.
        kind: "longitude", "latitude" or "".
    """

    name: str
    values: Array
    unit: str = ""
    kind: str = ""

    @classmethod
    def of(cls, name: str, coordinate: xr.DataArray) -> Axis:
        """An axis from an xarray coordinate; positions where its labels aren't numbers."""
        values = np.asarray(coordinate.values)
        if values.dtype.kind not in "iuf":
            values = np.arange(len(values))
        unit = str(coordinate.attrs.get("units", ""))
        said = f"{coordinate.attrs.get('standard_name', '')} {name}".lower()
        kind = ""
        if unit.startswith("degree"):
            short = name.lower()
            kind = (
                "longitude"
                if "longitude" in said or short in ("lon", "x") or unit.endswith(("east", "E"))
                else "latitude"
                if "latitude" in said or short in ("lat", "y") or unit.endswith(("north", "N"))
                else ""
            )
        return cls(name, values.astype(np.float64), unit, kind)

    @property
    def edges(self) -> Array:
        """Boundaries between cells: halfway, the outer ones as far as the inner."""
        centres = self.values
        if len(centres) < 2:
            return np.array([centres[0] - 0.5, centres[0] + 0.5])
        half = np.diff(centres) / 2
        return np.concatenate([[centres[0] - half[0]], centres[:-1] + half, [centres[-1] + half[-1]]])

    @property
    def label(self) -> str:
        """Text at the axis."""
        return self.name if self.kind or not self.unit else f"{self.name} ({self.unit})"


def picture_path(picture: str, output: str) -> Path | None:
    """Where a picture goes: as asked, "none" for nowhere, by default beside the output (of a URL, in this folder).

    Raises:
        ParameterError: another format than PNG.
        StoreError: the place can't be written.
    """
    if picture == "none":
        return None
    beside = not picture and "://" not in output
    if not picture:
        plain = output.rstrip("/")
        base = plain.rsplit("/", 1)[-1] if "://" in plain else plain
        picture = f"{base.rsplit('.', 1)[0] if '.' in Path(base).name else base}.png"
    path = Path(picture).expanduser().absolute()
    if path.suffix.lower() != ".png":
        raise ParameterError(f"the picture {picture!r} isn't a .png", hint='name it like trend.png, or "none"')
    place = path.parent
    while not place.exists():
        place = place.parent
    if path.is_dir() or not place.is_dir() or not os.access(place, os.W_OK):
        if beside and not path.is_dir():
            raise StoreError(f"{output} can't be written to {place}", hint="choose another place with --output")
        raise StoreError(
            f"the picture {path} can't be written to {place}", hint='choose another place with --picture, or "none"'
        )
    return path


@contextlib.contextmanager
def figure_file(path: Path, width: float, height: float, columns: int = 1,
                mosaic: Any = None) -> Iterator[tuple[Any, Any]]:
    """A figure with its panels, written as PNG when the block ends; the file appears at once.

    Args:
        path: PNG to write.
        width: in inches.
        height: in inches.
        columns: panels side by side.
        mosaic: lists of names of panels, a row each, as Matplotlib's `subplot_mosaic` takes them; panels are a mapping
            then.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")
    yield figure, figure.subplot_mosaic(mosaic) if mosaic else figure.subplots(1, columns, squeeze=False)[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            figure.savefig(file, format="png")
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _degrees(kind: str) -> Any:
    from matplotlib.ticker import FuncFormatter

    def text(value: float, place: int) -> str:
        if kind == "longitude":
            value = (value + 180) % 360 - 180
            letter = "" if value in (0, -180) else "E" if value > 0 else "W"
        else:
            letter = "" if value == 0 else "N" if value > 0 else "S"
        return f"{abs(value):g}°{letter}"

    return FuncFormatter(text)


def _dressed(axes: Any, axis: Axis, which: str) -> None:
    """Name and ticks of one axis."""
    from matplotlib.ticker import MaxNLocator

    getattr(axes, f"set_{which}label")("" if axis.kind else axis.label, color=INK)
    if axis.kind:
        side = getattr(axes, f"{which}axis")
        side.set_major_formatter(_degrees(axis.kind))
        side.set_major_locator(MaxNLocator(nbins=7, steps=[1, 1.5, 2, 3, 4.5, 6, 10]))
    axes.tick_params(colors=INK, labelsize=9)


def per_decade(values: Array, unit: str) -> tuple[Array, str]:
    """Slopes per year as slopes per decade, which read better; other units stay.

    >>> per_decade(np.array([0.02]), "K year-1")[1]
    'K per decade'
    """
    if unit.endswith(" year-1"):
        return values * 10, f"{unit.removesuffix(' year-1')} per decade"
    return values, unit


def draw_trend(
    path: Path, slope: Array, significant: Array, axes: Sequence[Axis], *, name: str, unit: str, alpha: float
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
    """
    values, unit = per_decade(slope, unit)
    title = f"Trend of {name.replace('_', ' ')}"
    note = f"dots: p < {alpha:g} (Mann-Kendall)"
    if values.ndim == 2:
        return _map(path, values, significant, axes, title, unit, note)
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
        _dressed(panel, axis, "x")
        panel.set_ylabel(f"slope ({unit})", color=INK)
        panel.set_title(title, loc="left", color=INK)
        panel.spines[["top", "right"]].set_visible(False)
    return path


def _map(path: Path, values: Array, significant: Array, axes: Sequence[Axis], title: str, unit: str, note: str) -> Path:
    y, x = axes
    if x.kind == "latitude" and y.kind == "longitude":
        x, y, values, significant = y, x, values.T, significant.T
    known = values[np.isfinite(values)]
    aspect = 1 / math.cos(math.radians(min(75.0, abs(float(np.mean(y.values)))))) if y.kind == "latitude" else 0.0
    spread = (abs(float(np.ptp(y.edges))) * aspect / max(1e-9, abs(float(np.ptp(x.edges))))) if aspect else 0.75
    width = 8.0
    with figure_file(path, width, min(10.0, max(2.6, (width - 1.6) * spread + 0.9))) as (figure, (panel,)):
        panel.set_facecolor("#d9d9d9")
        colours = _colours(known)
        mesh = panel.pcolormesh(x.edges, y.edges, np.ma.masked_invalid(values), rasterized=True, **colours)
        _dots(panel, x, y, significant & np.isfinite(values), mesh.cmap(mesh.norm(np.nan_to_num(values))))
        if aspect:
            panel.set_aspect(aspect)
        _dressed(panel, x, "x")
        _dressed(panel, y, "y")
        ends = ("min" if known.size and known.min() < mesh.norm.vmin else "") + (
            "max" if known.size and known.max() > mesh.norm.vmax else ""
        )
        extend = {"": "neither", "minmax": "both"}.get(ends, ends)
        bar = figure.colorbar(mesh, ax=panel, extend=extend, shrink=0.9, pad=0.02)
        bar.set_label(unit, color=INK)
        bar.ax.tick_params(colors=INK, labelsize=9)
        panel.set_title(title, loc="left", color=INK, fontsize=12)
        panel.set_title(note, loc="right", color="#555555", fontsize=9)
    return path


def _colours(known: Array) -> Mapping[str, Any]:
    """Colour map and limits: diverging about 0 where both signs are common, else from one end to the other."""
    if not known.size:
        return {"cmap": DIVERGING, "vmin": -1.0, "vmax": 1.0}
    low, high = (float(v) for v in np.percentile(known, (1, 99)))
    if low >= 0 or high <= 0:
        if low == high:
            low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
        return {"cmap": SEQUENTIAL if low >= 0 else f"{SEQUENTIAL}_r", "vmin": low, "vmax": high}
    most = max(-low, high)
    return {"cmap": DIVERGING, "vmin": -most, "vmax": most}


def _dots(panel: Any, x: Axis, y: Axis, where: Array, colours: Array) -> None:
    """Dots at significant cells, dark on light colours and light on dark ones; thinned on a fine grid."""
    step = max(1, math.ceil(max(where.shape) / 60))
    rows, columns = np.nonzero(where[::step, ::step])
    light = colours[::step, ::step, :3][rows, columns] @ [0.2126, 0.7152, 0.0722]
    size = min(5.0, max(1.0, 4500 / max(1, (where.shape[0] // step) * (where.shape[1] // step))))
    ink = np.where(light[:, None] > 0.45, [[0.0, 0.0, 0.0, 0.5]], [[1.0, 1.0, 1.0, 0.55]])
    panel.scatter(x.values[::step][columns], y.values[::step][rows], s=size, c=ink, linewidths=0)


def draw_histograms(path: Path, panels: Sequence[tuple[str, Mapping[str, Array], bool]], title: str,
                    counted: str = "reads") -> Path:
    """Histograms side by side.

    Args:
        path: PNG to write.
        panels: each with the label of its axis, values by the name of their group (drawn on top of each other), and
            whether they are whole numbers (then a bar a number, while there are few).
        title: above all.
        counted: what there is one of a value.
    """
    with figure_file(path, 4.6 * len(panels), 3.9, len(panels)) as (figure, drawn):
        for panel, (label, groups, whole) in zip(drawn, panels, strict=True):
            every = np.concatenate([np.asarray(v, np.float64) for v in groups.values()])
            every = every[np.isfinite(every)]
            panel.hist(
                [np.asarray(v, np.float64) for v in groups.values()],
                bins=_bins(every, whole),
                stacked=True,
                color=[BLUE, ORANGE, "#009e73", "#999999"][: len(groups)],
                label=list(groups),
                edgecolor="white",
                linewidth=0.3,
            )
            if every.size:
                middle = float(np.median(every))
                panel.axvline(middle, color=INK, lw=1, ls="--")
                panel.annotate(
                    f"median {middle:.3g}",
                    (middle, 1),
                    xycoords=("data", "axes fraction"),
                    xytext=(4, -10),
                    textcoords="offset points",
                    fontsize=9,
                    color=INK,
                )
            panel.set_xlabel(label, color=INK)
            panel.set_ylabel(counted, color=INK)
            panel.tick_params(colors=INK, labelsize=9)
            panel.spines[["top", "right"]].set_visible(False)
        if len(panels[0][1]) > 1:
            drawn[0].legend(frameon=False, fontsize=9, loc="center right")
        figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=12)
    return path


def _bins(values: Array, whole: bool) -> Array:
    if not values.size:
        return np.array([0.0, 1.0])
    low, high = float(values.min()), float(values.max())
    if whole:
        step = max(1, math.ceil((high - low + 1) / 60))
        return np.arange(low - 0.5, high + step + 0.5, step)
    return np.linspace(low, high if high > low else low + 1, 41)
