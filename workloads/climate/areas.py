"""Areas of grid cells, boxes on the globe, and means over them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import gridcompute as grid
from gridcompute import reductions
from gridcompute.collection import Collection
from gridcompute.coords import Coordinate
from gridcompute.errors import ParameterError

from .grids import Grid, check_monotonic
from .inputs import as_measured, coordinate_along, methods_of
from .normals import FEW, along

Array = np.ndarray[Any, Any]

WEIGHTS = ("area", "cos")

NAMED = {
    "globe": (0.0, 360.0, -90.0, 90.0),
    "tropics": (0.0, 360.0, -20.0, 20.0),
    "nino1+2": (270.0, 280.0, -10.0, 0.0),
    "nino3": (210.0, 270.0, -5.0, 5.0),
    "nino3.4": (190.0, 240.0, -5.0, 5.0),
    "nino4": (160.0, 210.0, -5.0, 5.0),
}
"""Boxes that have a name: western and eastern longitude, southern and northern latitude."""


@dataclass(frozen=True)
class Box:
    """A part of the globe between two meridians and two parallels; cells count whose centres lie in it, or on its edge.

    Attributes:
        name: what it is called.
        west, east: longitudes; from west eastward to east, also across 0 or 180 degrees.
        south, north: latitudes.
    """

    name: str
    west: float
    east: float
    south: float
    north: float

    @classmethod
    def parse(cls, text: str) -> Box:
        """A box by its name, or as west,east,south,north.

        Raises:
            ParameterError: it is neither.
        """
        plain = text.strip()
        try:
            west, east, south, north = NAMED.get(plain.lower()) or map(float, plain.split(","))
        except ValueError:
            raise ParameterError(f"there is no box {text!r}",
                                 hint=f"write west,east,south,north, or one of {', '.join(NAMED)}") from None
        if not (np.isfinite([west, east]).all() and -90 <= south <= north <= 90):
            raise ParameterError(f"the box {text!r} has no place on the globe",
                                 hint="west,east,south,north in degrees, the south before the north")
        return cls(plain, west, east, south, north)

    def rows(self, latitudes: Array) -> Array:
        """Which latitudes lie in it."""
        return np.asarray((latitudes >= self.south - EDGE) & (latitudes <= self.north + EDGE))

    def columns(self, longitudes: Array) -> Array:
        """Which longitudes lie in it."""
        if abs(self.east - self.west) >= 360:
            return np.ones(len(longitudes), bool)
        off = (longitudes - self.west + EDGE) % 360
        return np.asarray(off <= (self.east - self.west) % 360 + 2 * EDGE)


EDGE = 1e-5
"""Degrees by which a centre may lie beyond an edge: coordinates in float32 aren't exact."""


def boxes_of(text: str) -> list[Box]:
    """Boxes with semicolons or blanks between them; blanks after a comma don't count.

    Raises:
        ParameterError: one of them is none, or stands twice.
    """
    found = [Box.parse(part) for part in re.split(r";|(?<!,)\s+(?!,)", text.strip()) if part.strip()]
    names = [box.name for box in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ParameterError(f"the box {twice[0]} stands twice", hint="once is enough")
    return found


def edges(centres: Array) -> Array:
    """Boundaries between cells: halfway, the outer ones as far as the inner."""
    centres = np.asarray(centres, np.float64)
    if len(centres) < 2:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    half = np.diff(centres) / 2
    return np.concatenate([[centres[0] - half[0]], centres[:-1] + half, [centres[-1] + half[-1]]])


def row_edges(centres: Array) -> Array:
    """`edges` of latitudes; an outermost row ends at the pole, where less than its height would be left out."""
    found = edges(centres)
    for end, inner in ((0, 1), (-1, -2)):
        side, height = (1.0 if found[end] > found[inner] else -1.0), abs(found[end] - found[inner])
        if len(centres) > 1 and 90.0 - side * found[end] < height - EDGE:
            found[end] = side * 90.0
    return found


def latitude_weights(latitude: Coordinate, weights: str = "area") -> Array:
    """Weights of rows of cells, up to a factor.

    Args:
        latitude: of the rows' centres, in degrees.
        weights: "area": the difference of the sines of the rows' edges (see `row_edges`), exactly what the cells cover;
            "cos": the cosine of the centre.

    Raises:
        ParameterError: another name, or latitudes beyond the poles; for areas, latitudes that aren't in order.
    """
    values = np.asarray(latitude.values, np.float64)
    if weights not in WEIGHTS:
        raise ParameterError(f"there are no {weights!r} weights", hint=f"one of {', '.join(WEIGHTS)}")
    if not (np.abs(values) <= 90 + EDGE).all():
        raise ParameterError(f"coordinate {latitude.name!r} has latitudes from {values.min():g} to {values.max():g}",
                             hint="areas need degrees between -90 and 90")
    if weights == "cos":
        return np.maximum(np.cos(np.radians(values)), 0.0)
    check_monotonic("latitudes", values)
    return np.abs(np.diff(np.sin(np.radians(row_edges(values)))))


@grid.kernel("(segment,row),(segment,row)->(box)", names=("mean",), sizes={"box": 1}, parallel=FEW)
def box_means(sums, counts, shares):  # type: ignore[no-untyped-def]  # numba infers the types
    """Means over boxes: sums of pieces of rows, each with its share of the box."""
    found = np.empty(shares.shape[0])
    for box in range(shares.shape[0]):
        total, weight = 0.0, 0.0
        for segment in range(shares.shape[1]):
            for row in range(shares.shape[2]):
                if counts[segment, row] > 0:
                    total += shares[box, segment, row] * sums[segment, row]
                    weight += shares[box, segment, row] * counts[segment, row]
        found[box] = total / weight if weight > 0 else np.nan
    return found


def area_means(field: Collection, boxes: Sequence[Box] = (), weights: str = "area", *, latitude: str = "",
               longitude: str = "") -> Collection:
    """The mean over boxes of each step, every cell by its area; all boxes in one pass.

    Rows are added up between the boxes' meridians, the rest is done with what that leaves.

    Args:
        field: one column over latitude, longitude and any other dimensions.
        boxes: by default the globe.
        weights: as for `latitude_weights`.
        latitude: the dimension, where it isn't plain.
        longitude: the dimension, where it isn't plain.

    Returns:
        The column over the other dimensions, then `box`. Missing values count in neither mean nor weight.

    Raises:
        DimensionError: no coordinates of latitude and longitude.
        ParameterError: a box without cells, or coordinates that no grid has.
    """
    boxes = list(boxes) or [Box("globe", *NAMED["globe"])]
    lat, lon = coordinate_along(field, "latitude", latitude), coordinate_along(field, "longitude", longitude)
    (name,) = field.columns
    rows, columns = np.asarray(lat.values, np.float64), Grid("rectilinear", np.zeros(1), lon.values).lon
    for box in boxes:
        if not (box.rows(rows).any() and box.columns(columns).any()):
            raise ParameterError(f"no cell of {name} has its centre in the box {box.name}",
                                 hint=f"latitudes {rows.min():g} to {rows.max():g}, longitudes {columns.min():g} to "
                                      f"{columns.max():g}")
    widths = np.abs(np.diff(edges(columns)))
    widths = np.round(widths / widths.max(), 5)  # as equal as they were meant
    member = np.stack([box.columns(columns) for box in boxes])
    kinds, codes = np.unique(np.concatenate([member, widths[None]]), axis=1, return_inverse=True)
    used = kinds[:-1].any(axis=0)
    codes = np.where(used, np.cumsum(used) - 1, -1)[codes.reshape(-1)].astype(np.int64)
    kinds = kinds[:, used]
    segments = Coordinate("segment", "segment", np.arange(kinds.shape[1]))
    inside = np.stack([box.rows(rows) for box in boxes]) * latitude_weights(lat, weights)
    shares = kinds[:-1, :, None] * kinds[-1][None, :, None] * inside[:, None, :]
    pieces = [field.reduced(how, [lon.dim], (segments, codes)) for how in (reductions.sum(), reductions.count())]
    kernel = along(box_means, lat.dim, "row", box=len(boxes))
    found = pieces[0].map(kernel, pieces[1], names=[name], shares=shares)
    labels = Coordinate("box", "box", np.array([box.name for box in boxes]))
    return as_measured(Collection(found.columns, [*found.coords, labels]), field,
                       cell_methods=methods_of(field, "area: mean"))
