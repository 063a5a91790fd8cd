"""Conservative weights of cells of any convex shape: clipped against each other on the sphere.

Edges of curvilinear and unstructured cells are great circles; those of rectilinear cells are meridians and parallels.
A cell is clipped against one half of the sphere after the other (Sutherland and Hodgman 1974). The area of what is left
is that of a polygon of great circles, and of what lies between these and the parallels among its edges.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gridcompute.errors import ParameterError

from ..grids import Grid  # noqa: TID252 - the package has another name where it is installed
from .nearest import vectors
from .weights import Weights, from_links

Array = np.ndarray[Any, Any]

ROOM = 24
"""Corners that clipping may add to a cell."""

NOTHING = 1e-13
"""Part of a cell's area that is rounding."""


def clipped_weights(source: Grid, target: Grid) -> Weights:
    """First-order conservative weights of which one grid, or both, isn't rectilinear.

    Raises:
        ParameterError: a grid whose cells' corners aren't known.
    """
    for grid, what in ((source, "input"), (target, "target")):
        if grid.kind != "rectilinear" and grid.lat_corners is None:
            raise ParameterError(
                f"the {what}'s grid is {grid.kind} and has no corners: areas aren't known",
                hint="add bounds of its coordinates (CF: the attribute bounds), or take --method bilinear or nearest",
            )
    if target.kind == "rectilinear":
        cells, sources, areas = _boxes(source, target)
    elif source.kind == "rectilinear":
        sources, cells, areas = _boxes(target, source)
    else:
        cells, sources, areas = _shared(_corners(target), _corners(source))
    whole = _areas(target)
    share = np.bincount(cells, areas, target.size) / whole
    real = areas > NOTHING * whole[cells]
    shape = target.shape if len(target.shape) == 2 else (1, target.size)
    return from_links(shape, cells[real], sources[real], areas[real], np.minimum(share, 1.0))


def _corners(grid: Grid) -> Array:
    """Corners of a grid's cells as unit vectors, counterclockwise: (cells, k, 3)."""
    assert grid.lat_corners is not None
    assert grid.lon_corners is not None
    k = grid.lat_corners.shape[-1]
    points = vectors(grid.lat_corners.reshape(-1, k), grid.lon_corners.reshape(-1, k))
    turned = np.array([fan_area(one, k) < 0 for one in points])
    points[turned] = points[turned, ::-1]
    return np.ascontiguousarray(points)


def _areas(grid: Grid) -> Array:
    if grid.kind != "rectilinear":
        return np.array([fan_area(one, one.shape[0]) for one in _corners(grid)])
    lat, lon = grid.edges
    areas = np.abs(np.diff(np.sin(np.deg2rad(lat))))[:, None] * np.deg2rad(np.abs(np.diff(lon)))
    return np.asarray(areas.ravel())


def _edges(grid: Grid) -> tuple[Array, Array]:
    lat, lon = grid.edges
    if np.abs(np.diff(lon)).max() > 180 - 1e-9:
        raise ParameterError("columns of a grid are wider than 180 degrees: their cells can't be clipped")
    return np.deg2rad(lat), np.deg2rad(lon)


def _boxes(cells: Grid, boxes: Grid) -> Any:
    """Boxes, cells, and the areas that they share."""
    polygons, middle, half, low, high = _reaches(_corners(cells))
    return boxes_in_cells(polygons, middle, half, low, high, *_edges(boxes))


def _reaches(polygons: Array) -> tuple[Array, ...]:
    """Cells, the middles and half widths of their longitudes, and latitudes that they don't go beyond."""
    middle = np.arctan2(polygons[..., 1].sum(1), polygons[..., 0].sum(1))
    side = np.arctan2(polygons[..., 1], polygons[..., 0]) - middle[:, None]
    half = np.abs(side - 2 * np.pi * np.round(side / (2 * np.pi))).max(1)
    lat = np.arcsin(np.clip(polygons[..., 2], -1, 1))
    longest = np.linalg.norm(polygons - np.roll(polygons, 1, axis=1), axis=-1).max(1)
    low, high = lat.min(1) - longest, lat.max(1) + longest  # great circles go farther than their ends
    polar = np.maximum(-low, high) > np.pi / 2
    return polygons, middle, np.where(polar, np.pi, half), low, high


def _shared(targets: Array, sources: Array) -> Any:
    """Pairs of cells of great circles, and the areas that they share."""
    (near, reach), (centres, radii) = _caps(sources), _caps(targets)
    heights = np.arcsin(near[:, 2])
    order = np.argsort(heights, kind="stable")
    lat, far = np.arcsin(centres[:, 2]), 2 * (radii + reach.max())  # an arc is less than twice its chord
    first, last = (np.searchsorted(heights[order], lat + sign * far) for sign in (-1, 1))
    return cells_in_cells(targets, sources, order, first, last, centres, near, np.concatenate([reach, radii]))


def _caps(polygons: Array) -> tuple[Array, Array]:
    """Centres of cells, and the chords within which their corners lie."""
    centres = polygons.sum(1)
    centres /= np.linalg.norm(centres, axis=1)[:, None]
    return centres, np.linalg.norm(polygons - centres[:, None], axis=-1).max(1) * 1.1


@njit(nogil=True)
def fan_area(points: Any, count: Any) -> Any:
    """Area of a polygon of great circles on the unit sphere: positive where its corners go counterclockwise."""
    area = 0.0
    a = points[0]
    for k in range(1, count - 1):
        b, c = points[k], points[k + 1]
        # Of differences: small triangles keep their digits (Van Oosterom and Strackee 1983).
        ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
        vx, vy, vz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
        volume = a[0] * (uy * vz - uz * vy) + a[1] * (uz * vx - ux * vz) + a[2] * (ux * vy - uy * vx)
        ab = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
        bc = b[0] * c[0] + b[1] * c[1] + b[2] * c[2]
        ca = c[0] * a[0] + c[1] * a[1] + c[2] * a[2]
        area += 2.0 * np.arctan2(volume, 1.0 + ab + bc + ca)
    return area


@njit(nogil=True)
def put(points: Any, kinds: Any, n: Any, x: Any, y: Any, z: Any, kind: Any) -> Any:
    """Add a corner and the kind of the edge that begins there; what finds no room is left out."""
    if n < points.shape[0]:
        points[n, 0], points[n, 1], points[n, 2], kinds[n] = x, y, z, kind
        n += 1
    return n


@njit(nogil=True)
def laid(polygon: Any, count: Any, points: Any, kinds: Any) -> None:
    """Copy corners, their edges being great circles."""
    for k in range(count):
        for axis in range(3):
            points[k, axis] = polygon[k, axis]
        kinds[k] = 0


@njit(nogil=True)
def cut_by_plane(points: Any, kinds: Any, count: Any, normal: Any, out: Any, out_kinds: Any) -> Any:
    """The part of a polygon of great circles on the positive side of a plane through the centre; gives its corners."""
    n = 0
    for k in range(count):
        p, q = points[k], points[(k + 1) % count]
        here = p[0] * normal[0] + p[1] * normal[1] + p[2] * normal[2]
        there = q[0] * normal[0] + q[1] * normal[1] + q[2] * normal[2]
        if here >= 0.0:
            n = put(out, out_kinds, n, p[0], p[1], p[2], kinds[k])
        if (here >= 0.0) != (there >= 0.0):
            s = here / (here - there)
            x, y, z = p[0] + s * (q[0] - p[0]), p[1] + s * (q[1] - p[1]), p[2] + s * (q[2] - p[2])
            length = np.sqrt(x * x + y * y + z * z)
            if length > 0.0:
                n = put(out, out_kinds, n, x / length, y / length, z / length, 0)
    return n


@njit(nogil=True)
def cut_by_parallel(points: Any, kinds: Any, count: Any, height: Any, side: Any, out: Any, out_kinds: Any) -> Any:
    """The part of a polygon above a parallel (side 1), or below it (-1); edges along a parallel are of kind 1."""
    n = 0
    for k in range(count):
        p, q = points[k], points[(k + 1) % count]
        here, there = side * (p[2] - height) >= 0.0, side * (q[2] - height) >= 0.0
        if here:
            n = put(out, out_kinds, n, p[0], p[1], p[2], kinds[k])
        cosine = p[0] * q[0] + p[1] * q[1] + p[2] * q[2]
        x, y, z = q[0] - cosine * p[0], q[1] - cosine * p[1], q[2] - cosine * p[2]
        sine = np.sqrt(x * x + y * y + z * z)
        if kinds[k] == 1 or sine < 1e-15:
            continue
        x, y, z, length = x / sine, y / sine, z / sine, np.arctan2(sine, cosine)
        # Along the edge the height is radius cos(angle - top): it is met at most twice.
        radius, top = np.hypot(p[2], z), np.arctan2(z, p[2])
        if radius <= abs(height):
            continue
        half = np.arccos(height / radius)
        first, second = top - half, top + half
        one, two = 1e-15 < first < length, 1e-15 < second < length
        if here == there and not (one and two):
            continue
        if here != there and one == two:  # an end lies on the parallel: what is farther from the ends is met
            one = min(first, length - first) >= min(second, length - second)
            two = not one
        for turn in range(2):
            if (turn == 0 and one) or (turn == 1 and two):
                angle = min(max(first if turn == 0 else second, 0.0), length)
                c, s = np.cos(angle), np.sin(angle)
                here = not here
                kind = 0 if here else 1
                n = put(out, out_kinds, n, c * p[0] + s * x, c * p[1] + s * y, height, kind)
    return n


@njit(nogil=True)
def edged_area(points: Any, kinds: Any, count: Any) -> Any:
    """Area of a polygon some of whose edges are parallels."""
    if count < 2:
        return 0.0
    area = fan_area(points, count)
    for k in range(count):
        if kinds[k] == 1:
            p, q = points[k], points[(k + 1) % count]
            width = np.arctan2(p[0] * q[1] - p[1] * q[0], p[0] * q[0] + p[1] * q[1])
            area += 2.0 * np.arctan(np.tan(width / 2.0) * p[2]) - width * p[2]
    return area


@njit(nogil=True)
def box_overlap(polygon: Any, south: Any, north: Any, west: Any, east: Any, work: Any, kinds: Any) -> Any:
    """Area that a convex cell shares with the box between two parallels and two meridians."""
    count = polygon.shape[0]
    laid(polygon, count, work[0], kinds[0])
    normal, now = np.zeros(3), 0
    normal[0], normal[1] = -np.sin(west), np.cos(west)
    count = cut_by_plane(work[0], kinds[0], count, normal, work[1], kinds[1])
    normal[0], normal[1] = np.sin(east), -np.cos(east)
    count = cut_by_plane(work[1], kinds[1], count, normal, work[0], kinds[0])
    if count < 3:
        return 0.0
    if south > -0.5 * np.pi + 1e-12:
        count = cut_by_parallel(work[0], kinds[0], count, np.sin(south), 1.0, work[1], kinds[1])
        now = 1
    if north < 0.5 * np.pi - 1e-12:
        count = cut_by_parallel(work[now], kinds[now], count, np.sin(north), -1.0, work[1 - now], kinds[1 - now])
        now = 1 - now
    return edged_area(work[now], kinds[now], count)


@njit(nogil=True)
def polygon_overlap(polygon: Any, other: Any, work: Any, kinds: Any) -> Any:
    """Area that two convex cells of great circles share."""
    count, k = polygon.shape[0], other.shape[0]
    laid(polygon, count, work[0], kinds[0])
    normal, now = np.zeros(3), 0
    for e in range(k):
        a, b = other[e], other[(e + 1) % k]
        normal[0], normal[1] = a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2]
        normal[2] = a[0] * b[1] - a[1] * b[0]
        if normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2 < 1e-30:  # corners that coincide
            continue
        count = cut_by_plane(work[now], kinds[now], count, normal, work[1 - now], kinds[1 - now])
        now = 1 - now
        if count < 3:
            return 0.0
    return fan_area(work[now], count)


@njit(nogil=True)
def doubled(array: Any) -> Any:
    """A copy with room for as much again."""
    out = np.empty(2 * array.shape[0], array.dtype)
    for i in range(array.shape[0]):
        out[i] = array[i]
    return out


@njit(nogil=True)
def boxes_in_cells(polygons: Any, middles: Any, halves: Any, lows: Any, highs: Any, lat_edges: Any,
                   lon_edges: Any) -> Any:
    """Boxes of a rectilinear grid, cells, and the areas that they share: one of each a pair that shares any."""
    ny, nx, k = lat_edges.shape[0] - 1, lon_edges.shape[0] - 1, polygons.shape[1]
    boxes, cells, areas = np.empty(64, np.int64), np.empty(64, np.int64), np.empty(64, np.float64)
    work, kinds = np.empty((2, k + ROOM, 3)), np.zeros((2, k + ROOM), np.int64)
    columns, found = np.empty(nx, np.int64), 0
    for c in range(polygons.shape[0]):
        polygon, middle, half, low, high = polygons[c], middles[c], halves[c], lows[c], highs[c]
        count = 0
        for i in range(nx):
            side = 0.5 * (lon_edges[i] + lon_edges[i + 1]) - middle
            side = abs(side - 2.0 * np.pi * np.round(side / (2.0 * np.pi)))
            if side <= half + 0.5 * abs(lon_edges[i + 1] - lon_edges[i]) + 1e-9:
                columns[count] = i
                count += 1
        for j in range(ny):
            south, north = min(lat_edges[j], lat_edges[j + 1]), max(lat_edges[j], lat_edges[j + 1])
            if south > high or north < low:
                continue
            for at in range(count):
                i = columns[at]
                west, east = min(lon_edges[i], lon_edges[i + 1]), max(lon_edges[i], lon_edges[i + 1])
                area = box_overlap(polygon, south, north, west, east, work, kinds)
                if area > 0.0:
                    if found == boxes.shape[0]:
                        boxes, cells, areas = doubled(boxes), doubled(cells), doubled(areas)
                    boxes[found], cells[found], areas[found] = j * nx + i, c, area
                    found += 1
    return boxes[:found], cells[:found], areas[:found]


@njit(nogil=True)
def cells_in_cells(targets: Any, sources: Any, order: Any, firsts: Any, lasts: Any, centres: Any, near: Any,
                   reach: Any) -> Any:
    """Target cells, source cells and the areas that they share; those in order from first to last may be near."""
    rows, columns, areas = np.empty(64, np.int64), np.empty(64, np.int64), np.empty(64, np.float64)
    room = sources.shape[1] + ROOM
    work, kinds, found = np.empty((2, room, 3)), np.zeros((2, room), np.int64), 0
    for t in range(targets.shape[0]):
        for at in range(firsts[t], lasts[t]):
            s = order[at]
            x, y, z = near[s, 0] - centres[t, 0], near[s, 1] - centres[t, 1], near[s, 2] - centres[t, 2]
            if x * x + y * y + z * z > (reach[s] + reach[sources.shape[0] + t]) ** 2:
                continue
            area = polygon_overlap(sources[s], targets[t], work, kinds)
            if area > 0.0:
                if found == rows.shape[0]:
                    rows, columns, areas = doubled(rows), doubled(columns), doubled(areas)
                rows[found], columns[found], areas[found] = t, s, area
                found += 1
    return rows[:found], columns[:found], areas[:found]
