"""Pictures of fields and series: maps over latitude and longitude, lines over time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gridcompute.plots import Axis, figure_file

Array = np.ndarray[Any, Any]


def draw_field(path: Path, values: Array, y: Axis, x: Axis, *, title: str, unit: str, dots: Array | None = None,
               note: str = "") -> Path:
    """A map of a field.

    Args:
        path: PNG to write.
        values: (y, x); NaN is drawn grey.
        y: axis of the rows.
        x: axis of the columns.
        title: above the map.
        unit: beside the colour bar.
        dots: (y, x), where to draw dots.
        note: what the dots mean.
    """
    from gridcompute.plots import _map

    marked = np.zeros(values.shape, bool) if dots is None else dots
    return _map(path, np.asarray(values, np.float64), marked, (y, x), title, unit, note)


def draw_series(path: Path, series: Mapping[str, Array], x: Axis, *, title: str, unit: str) -> Path:
    """Lines over one axis.

    Args:
        path: PNG to write.
        series: values by label, each as long as the axis.
        x: axis.
        title: above the lines.
        unit: at the vertical axis.
    """
    with figure_file(path, 8, 4) as (_, (panel,)):
        for label, values in series.items():
            panel.plot(x.values, values, lw=1.2, label=label)
        if len(series) > 1:
            panel.legend(frameon=False, fontsize=9)
        panel.set(xlabel=x.label, ylabel=unit, title=title)
    return path


