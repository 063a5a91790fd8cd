"""Horizontal grids: where cells lie, their edges and areas, whether longitudes go round; grids by name.

>>> named_grid("r4x2").lat, named_grid("r4x2").lon
(array([-45.,  45.]), array([  0.,  90., 180., 270.]))
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from gridcompute.collection import Collection
from gridcompute.errors import ParameterError

from .inputs import coordinate_along

Array = np.ndarray[Any, Any]

RADIUS = 6_371_000.0
"""Of the Earth in metres, as cdo has it."""

ROUND = 1e-6
"""Degrees within which longitudes close the circle, steps are even, and an edge is a pole."""

POLAR = 88.0
"""An outer edge beyond this latitude is taken for the pole, as cdo does: rows of a Gaussian grid end before it."""

UNEVEN = 1e-3
"""Part of a step by which longitudes may differ from even ones: they may be float32."""

MOST_CELLS = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the cells of fields lie, in degrees.

    Attributes:
        kind: "rectilinear": rows by columns; "curvilinear": two-dimensional coordinates; "unstructured": a list.
        lat: float64, (ny,), (ny, nx) or (cells,), by kind.
        lon: float64, (nx,), (ny, nx) or (cells,).
        lat_corners: edges (ny + 1,), corners (ny, nx, k) or (cells, k) in order around the cell; None: not known.
        lon_corners: (nx + 1,), (ny, nx, k) or (cells, k).

    Raises:
        ParameterError: coordinates that no grid has: of wrong shape, not finite, not monotonic, beyond the poles.
    """

    kind: Literal["rectilinear", "curvilinear", "unstructured"]
    lat: Array
    lon: Array
    lat_corners: Array | None = None
    lon_corners: Array | None = None

    def __post_init__(self) -> None:
        for name in ("lat", "lon", "lat_corners", "lon_corners"):
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, _checked(name, values))
        _check_shapes(self)
        if self.kind == "rectilinear":
            check_monotonic("latitudes", self.lat)
            object.__setattr__(self, "lon", unwrapped(self.lon))
            check_monotonic("longitudes", self.lon)
            if abs(self.lon[-1] - self.lon[0]) >= 360:
                raise ParameterError(f"the longitudes {self.lon[0]:g} to {self.lon[-1]:g} go more than once round",
                                     hint="leave out the last column: isel(lon=slice(0, -1))")

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of a field's dimensions."""
        return (len(self.lat), len(self.lon)) if self.kind == "rectilinear" else self.lat.shape

    @property
    def size(self) -> int:
        """Number of cells."""
        return int(np.prod(self.shape))

    @cached_property
    def centres(self) -> tuple[Array, Array]:
        """Latitude and longitude of each cell, (cells,)."""
        if self.kind != "rectilinear":
            return self.lat.ravel(), self.lon.ravel()
        lat, lon = np.meshgrid(self.lat, self.lon, indexing="ij")
        return lat.ravel(), lon.ravel()

    @cached_property
    def edges(self) -> tuple[Array, Array]:
        """Edges of a rectilinear grid's rows (ny + 1,) and columns (nx + 1,); halfway where they aren't known."""
        lat = latitude_edges(self.lat) if self.lat_corners is None else self.lat_corners
        lon = longitude_edges(self.lon) if self.lon_corners is None else self.lon_corners
        return np.clip(lat, -90.0, 90.0), lon

    @cached_property
    def periodic(self) -> bool:
        """Whether a rectilinear grid's columns go round."""
        return self.kind == "rectilinear" and goes_round(self.lon)


def _checked(name: str, values: Array) -> Array:
    values = np.ascontiguousarray(values, np.float64)
    if not values.size:
        raise ParameterError(f"the grid's {name} is empty")
    if not np.isfinite(values).all():
        raise ParameterError(f"the grid's {name} holds values that aren't finite")
    most = {"lat": 90.0, "lat_corners": 180.0}.get(name, 1080.0)  # edges beyond a pole are made to end there
    if np.abs(values).max() > most + ROUND:
        raise ParameterError(f"the grid's {name} holds {values.flat[np.abs(values).argmax()]:g}: not in degrees?")
    return np.clip(values, -90.0, 90.0) if name.startswith("lat") else values


def _check_shapes(grid: Grid) -> None:
    lat, lon = grid.lat, grid.lon
    most = {"rectilinear": 1, "curvilinear": 2, "unstructured": 1}[grid.kind]
    if lat.ndim != most or lon.ndim != most or (grid.kind != "rectilinear" and lat.shape != lon.shape):
        raise ParameterError(f"a {grid.kind} grid can't have latitudes {lat.shape} and longitudes {lon.shape}")
    if grid.size > MOST_CELLS:
        raise ParameterError(f"a grid of {grid.size} cells is too large: at most {MOST_CELLS}")
    if grid.lat_corners is None or grid.lon_corners is None:
        return
    found = grid.lat_corners.shape, grid.lon_corners.shape
    if grid.kind == "rectilinear":
        fits = found == ((len(lat) + 1,), (len(lon) + 1,))
    else:
        fits = found[0] == found[1] and found[0][:-1] == lat.shape and found[0][-1] >= 3
    if not fits:
        raise ParameterError(f"corners of shape {found[0]} and {found[1]} don't fit a {grid.kind} grid of {grid.shape}")


def check_monotonic(what: str, values: Array) -> None:
    """Refuse coordinates between which no edges lie."""
    steps = np.diff(values)
    if len(values) > 1 and not ((steps > 0).all() or (steps < 0).all()):
        raise ParameterError(f"the {what} neither increase nor decrease throughout", hint="sort the input along them")


def check_even(lon: Array) -> None:
    """Refuse columns of different widths."""
    steps = np.diff(lon)
    if len(steps) and np.abs(steps - steps.mean()).max() > UNEVEN * abs(steps.mean()):
        raise ParameterError("the longitudes are uneven", hint="put the field on another grid first: climate.regrid")


def unwrapped(lon: Array) -> Array:
    """Longitudes without a jump of 360 degrees between neighbours; in order as they are, they stay."""
    steps = np.diff(lon)
    if len(lon) < 2 or (steps > 0).all() or (steps < 0).all():
        return lon
    jumps = np.where(steps > 180, -360.0, np.where(steps < -180, 360.0, 0.0))
    return np.asarray(lon + np.concatenate([[0.0], np.cumsum(jumps)]))


def goes_round(lon: Array) -> bool:
    """Whether longitudes go once round the globe: the step from the last to the first is like the others."""
    if len(lon) < 2:
        return False
    steps = np.abs(np.diff(unwrapped(np.asarray(lon, np.float64))))
    return bool(abs(360.0 - steps.sum() - steps.mean()) < max(ROUND, 1e-4 * steps.mean()))


def latitude_edges(lat: Array) -> Array:
    """Edges of rows, (ny + 1,): halfway; the outer ones as far out as the inner, at most the pole (see `POLAR`)."""
    edges = _halfway(np.asarray(lat, np.float64), 180.0)
    for end in (0, -1):
        if abs(edges[end]) > POLAR:
            edges[end] = np.copysign(90.0, edges[end])
    return edges


def longitude_edges(lon: Array) -> Array:
    """Edges of columns, (nx + 1,): halfway; a round of columns ends where it begins."""
    lon = unwrapped(np.asarray(lon, np.float64))
    edges = _halfway(lon, 360.0)
    if goes_round(lon):
        edges[-1] = edges[0] + np.copysign(360.0, lon[-1] - lon[0])
    return edges


def _halfway(values: Array, alone: float) -> Array:
    if len(values) == 1:
        return np.array([values[0] - alone / 2, values[0] + alone / 2])
    inner = (values[:-1] + values[1:]) / 2
    return np.concatenate([[2 * values[0] - inner[0]], inner, [2 * values[-1] - inner[-1]]])


def cell_areas(lat: Array, lon: Array, radius: float = RADIUS) -> Array:
    """Areas of the cells of latitudes by longitudes on a sphere: (ny, nx), in square metres.

    Args:
        lat: degrees north, monotonic; edges lie halfway, the outer ones at most at the pole.
        lon: degrees east, monotonic (a jump of 360 degrees may lie within).
        radius: of the sphere, in metres; 1 gives steradians.
    """
    north, east = Grid("rectilinear", lat, lon).edges
    heights, widths = np.abs(np.diff(np.sin(np.deg2rad(north)))), np.deg2rad(np.abs(np.diff(east)))
    areas: Array = radius**2 * heights[:, None] * widths[None, :]
    return areas


def gaussian_latitudes(count: int) -> Array:
    """Roots of the Legendre polynomial of degree `count` as latitudes in degrees, from the north."""
    nodes, _ = np.polynomial.legendre.leggauss(count)
    return np.asarray(np.rad2deg(np.arcsin(nodes[::-1])))


def named_grid(name: str) -> Grid:
    """A grid by the name that cdo has for it: r360x180, global_1, F80 or n80 (Gaussian, 80 rows to the pole).

    Raises:
        ParameterError: no such name; says which there are.
    """
    hint = "write r360x180 (columns x rows), global_0.5 (degrees) or F80 (Gaussian)"
    if found := re.fullmatch(r"r(\d{1,6})x(\d{1,6})", name):
        nx, ny = (int(one) for one in found.groups())
        if nx and ny and nx * ny <= MOST_CELLS:
            return Grid("rectilinear", (np.arange(ny) + 0.5) * 180 / ny - 90, np.arange(nx) * 360 / nx)
    elif found := re.fullmatch(r"global_(\d+(?:\.\d+)?)", name):
        step = float(found[1])
        if 0.01 <= step <= 90:
            return box_grid((-180.0, 180.0, -90.0, 90.0), step)
    elif found := re.fullmatch(r"[FNfn](\d{1,4})", name):
        half = int(found[1])
        if 1 <= half <= 2000:
            return Grid("rectilinear", gaussian_latitudes(2 * half), np.arange(4 * half) * 90.0 / half)
    raise ParameterError(f"there is no grid {name!r}", hint=hint)


def box_grid(box: tuple[float, float, float, float], step: float) -> Grid:
    """Cells of a size in a box of west, east, south, north, all in degrees.

    Raises:
        ParameterError: bounds or a step that no grid has.
    """
    west, east, south, north = box
    if not (np.isfinite(box).all() and -90 <= south < north <= 90 and west < east <= west + 360 and step > 0):
        raise ParameterError(
            f"no grid has the bounds {west:g},{east:g},{south:g},{north:g} and cells of {step:g} degrees",
            hint="give west,east,south,north in degrees, such as -20,40,35,70, and a size above 0",
        )
    nx, ny = round((east - west) / step), round((north - south) / step)
    if not 1 <= nx * ny <= MOST_CELLS or abs(nx * step - east + west) > 0.01 * step or (
        abs(ny * step - north + south) > 0.01 * step
    ):
        raise ParameterError(
            f"cells of {step:g} degrees don't fill {east - west:g} by {north - south:g} degrees",
            hint="choose bounds that are a whole number of cells apart",
        )
    lat, lon = south + np.arange(ny + 1) * step, west + np.arange(nx + 1) * step
    return Grid("rectilinear", lat[:-1] + step / 2, lon[:-1] + step / 2, np.append(lat[:-1], north), lon)


def grid_of(data: Collection) -> tuple[Grid, tuple[str, str]]:
    """The rectilinear grid of a collection, and its dimensions of latitude and longitude.

    Raises:
        DimensionError: it has no such coordinates.
        ParameterError: coordinates that no grid has.
    """
    lat, lon = coordinate_along(data, "latitude"), coordinate_along(data, "longitude")
    return Grid("rectilinear", lat.values, lon.values), (lat.dim, lon.dim)
