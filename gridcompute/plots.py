"""Pictures of results, as PNG files, in colours that colour-blind eyes tell apart: axes, files, histograms."""

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

INK = "#222222"
BLUE, ORANGE = "#0072b2", "#d55e00"
"""Two of Okabe and Ito's colours (2008), made for colour-blind eyes."""


PRESSURE = ("pa", "hpa", "kpa", "mbar", "mb", "millibar", "millibars", "bar", "dbar")
"""Units of levels that grow downwards, in lower case."""


@dataclass(frozen=True, eq=False)
class Axis:
    """A dimension of a picture.

    Attributes:
        name: of the dimension.
        values: its coordinate, or positions.
        unit: of the values.
        kind: "longitude", "latitude", "time" or "".
        downward: whether values grow downwards, as pressures and depths do.
    """

    name: str
    values: Array
    unit: str = ""
    kind: str = ""
    downward: bool = False

    @classmethod
    def of(cls, name: str, coordinate: xr.DataArray) -> Axis:
        """An axis from an xarray coordinate: dates as years with decimals, longitudes without a jump; positions for
        other labels than numbers, and for gaps and numbers that aren't in order, which no picture can be drawn over.
        """
        values = np.asarray(coordinate.values)
        if coordinate.size and (values.dtype.kind == "M" or hasattr(values.flat[0], "calendar")):
            date = coordinate.dt
            years = date.year + (date.dayofyear - 1 + date.hour / 24) / date.days_in_year
            found = np.asarray(years.values, np.float64)
            return cls(name, found, kind="time") if _in_order(found) else cls(name, np.arange(float(len(found))))
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
        values = values.astype(np.float64)
        if kind == "longitude" and not _in_order(values):
            values = np.unwrap(values, period=360)
        if not _in_order(values):
            return cls(name, np.arange(float(len(values))))
        downward = unit.lower() in PRESSURE or coordinate.attrs.get("positive") == "down"
        return cls(name, values, unit, kind, downward)

    @property
    def edges(self) -> Array:
        """Boundaries between cells: halfway, the outer ones as far as the inner, of latitudes at most at the poles."""
        centres = self.values
        if len(centres) < 2:
            return np.array([centres[0] - 0.5, centres[0] + 0.5])
        half = np.diff(centres) / 2
        found = np.concatenate([[centres[0] - half[0]], centres[:-1] + half, [centres[-1] + half[-1]]])
        return np.clip(found, -90.0, 90.0) if self.kind == "latitude" and np.abs(centres).max() < 90.0 + 1e-6 else found

    @property
    def label(self) -> str:
        """Text at the axis."""
        return self.name if self.kind or not self.unit else f"{self.name} ({self.unit})"


def _in_order(values: Array) -> bool:
    """Whether numbers increase or decrease throughout; gaps don't."""
    steps = np.diff(values)
    return bool(np.isfinite(values).all() and ((steps > 0).all() or (steps < 0).all()))


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise StoreError(f"the picture {path} can't be written: {error.strerror}",
                         hint='choose another place with --picture, or "none"') from error
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


DEGREES = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 45, 60, 90)
"""Between ticks of longitudes and latitudes, as on printed maps."""


def dressed(axes: Any, axis: Axis, which: str, ticks: int = 7) -> None:
    """Give one axis its name and ticks."""
    from matplotlib.ticker import MaxNLocator, MultipleLocator

    getattr(axes, f"set_{which}label")("" if axis.kind else axis.label, color=INK)
    if axis.kind in ("longitude", "latitude"):
        side = getattr(axes, f"{which}axis")
        side.set_major_formatter(_degrees(axis.kind))
        least = float(np.ptp(axis.edges)) / ticks
        step = next((one for one in DEGREES if one >= least), DEGREES[-1])
        side.set_major_locator(MultipleLocator(step) if least > DEGREES[0] / 2 else MaxNLocator(nbins=ticks))
    if which == "y" and axis.downward:
        axes.yaxis.set_inverted(True)
    axes.tick_params(colors=INK, labelsize=9)


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
