"""climate.tem: against plain NumPy, and flows whose fluxes are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gridcompute as grid
from gridcompute.errors import GridError

xr = pytest.importorskip("xarray")
from gridcompute_workloads.climate.eddies import (  # noqa: E402
    GRAVITY,
    HEIGHT,
    KAPPA,
    TURN,
    daily,
    eddy_fluxes,
    eddy_forcing,
    plane_of,
    transformed_mean,
)
from gridcompute_workloads.climate.grids import RADIUS  # noqa: E402
from gridcompute_workloads.climate.tem import synthetic_flow  # noqa: E402


@pytest.fixture(scope="module")
def flow() -> dict[str, Any]:
    """The made-up flow's arrays and coordinates."""
    data = synthetic_flow(seed=3, times=8, levels=7, rows=12, columns=16)
    run = grid.run(data, executor="inline", quiet=True)
    found = {name: run[name].to_numpy().astype(np.float64) for name in ("u", "v", "omega", "t")}
    return found | {"p": data.coord("level").values * 100.0, "lat": data.coord("lat").values, "data": data}


def plain(u: Any, v: Any, w: Any, t: Any, p: Any, lat: Any) -> dict[str, Any]:
    """The equations as they stand in the book, by NumPy; w in m s-1."""
    z, y = -HEIGHT * np.log(p / 1e5), np.deg2rad(lat)
    cos, f, rho = np.cos(y), 2 * TURN * np.sin(y), (p / (GRAVITY * HEIGHT))[:, None]
    theta = t * ((1e5 / p) ** KAPPA)[:, None, None]
    bar = {name: x.mean(-1) for name, x in (("u", u), ("v", v), ("w", w), ("th", theta))}

    def flux(a: Any, b: Any) -> Any:
        return ((a - a.mean(-1, keepdims=True)) * (b - b.mean(-1, keepdims=True))).mean(-1)

    def dz(x: Any) -> Any:
        return np.gradient(x, z, axis=-2, edge_order=2)

    def dy(x: Any) -> Any:
        return np.gradient(x, y, axis=-1, edge_order=2)

    eddy = flux(v, theta) / dz(bar["th"])
    f_north = rho * RADIUS * cos * (eddy * dz(bar["u"]) - flux(u, v))
    spin = dy(bar["u"]) / RADIUS - bar["u"] * np.tan(y) / RADIUS  # d(u cos)/dlat / (a cos)
    f_up = rho * RADIUS * cos * (eddy * (f - spin) - flux(u, w))
    spread = dy(f_north * cos) / (RADIUS * cos) + dz(f_up)
    return {"v_star": bar["v"] - dz(rho * eddy) / rho, "w_star": bar["w"] + dy(eddy * cos) / (RADIUS * cos),
            "f_north": f_north, "f_up": f_up, "divergence": spread, "force": spread / (rho * RADIUS * cos)}  # fmt: skip


def test_equals_plain_numpy(flow: dict[str, Any]) -> None:
    data, p, lat = flow["data"], flow["p"], flow["lat"]
    fluxes = eddy_fluxes(*(data[name] for name in ("u", "v", "omega", "t")))
    run = grid.run(fluxes, transformed_mean(fluxes, "level", p, omega=True), executor="inline", quiet=True)
    w = -flow["omega"] * HEIGHT / p[:, None, None]
    wanted = plain(flow["u"], flow["v"], w, flow["t"], p, lat)
    for name, values in wanted.items():
        found = run[name].to_numpy()
        np.testing.assert_allclose(found, values, rtol=1e-9, atol=1e-9 * np.abs(values).max(), err_msg=name)
    assert np.abs(wanted["force"]).max() > 1e-6  # there is something to be wrong about
    np.testing.assert_allclose(run["u"].to_numpy(), flow["u"].mean(-1), rtol=1e-12)


def test_means_of_days(flow: dict[str, Any]) -> None:
    data = flow["data"]
    fluxes = eddy_fluxes(*(data[name] for name in ("u", "v", "omega", "t")))
    run = grid.run(daily(fluxes), executor="inline", quiet=True)
    found = run["uv"].to_xarray()["uv"]
    assert found.dims[0] == "day"
    assert found.day.dt.strftime("%Y-%m-%d").values.tolist() == ["2001-01-01", "2001-01-02"]
    every = ((flow["u"] - flow["u"].mean(-1, keepdims=True)) * (flow["v"] - flow["v"].mean(-1, keepdims=True))).mean(-1)
    np.testing.assert_allclose(found.values, every.reshape(2, 4, *every.shape[1:]).mean(1), rtol=1e-9, atol=1e-12)


def rows(**columns: Any) -> Any:
    """Fluxes of rows along longitude."""
    lon = np.arange(next(iter(columns.values())).shape[-1]) * 10.0
    data = grid.from_arrays(columns, dims=("row", "lon"), coords={"lon": lon})
    run = grid.run(eddy_fluxes(*(data[name] for name in ("u", "v", "w", "t"))), executor="inline", quiet=True)
    return {name: run[name].to_numpy() for name in ("u", "v", "w", "t", "uv", "uw", "vt")}


def test_waves_have_the_fluxes_that_are_known() -> None:
    x = np.deg2rad(np.arange(36) * 10.0)[None]
    found = rows(u=10 + 3 * np.cos(2 * x), v=4 * np.cos(2 * x + 1.0), w=1 + 0.5 * np.sin(2 * x), t=250 + np.cos(3 * x))
    assert found["uv"].item() == pytest.approx(0.5 * 3 * 4 * np.cos(1.0))
    assert found["uw"].item() == pytest.approx(0.0, abs=1e-12)
    assert found["vt"].item() == pytest.approx(0.0, abs=1e-12)
    assert [found[name].item() for name in "uvwt"] == pytest.approx([10.0, 0.0, 1.0, 250.0], abs=1e-12)


def test_gaps_count_in_no_mean() -> None:
    draw = np.random.default_rng(0)
    parts = {name: draw.normal(size=(3, 36)) for name in ("u", "v", "w", "t")}
    whole = rows(**parts)
    parts = {name: values.copy() for name, values in parts.items()}
    parts["u"][1, :5], parts["t"][1, 30:], parts["w"][2] = np.nan, np.nan, np.nan
    found = rows(**parts)
    for name, values in found.items():
        assert values[0] == whole[name][0]
        assert np.isnan(values[2])
    kept = {name: values[1, 5:30] for name, values in parts.items()}
    assert found["v"][1] == pytest.approx(kept["v"].mean())
    assert found["uv"][1] == pytest.approx(np.mean((kept["u"] - kept["u"].mean()) * (kept["v"] - kept["v"].mean())))


def test_a_steady_zonal_wind_forces_nothing_and_poles_stay_apart() -> None:
    p, lat = np.geomspace(1e5, 1e3, 5), np.linspace(-90, 90, 9)
    shape = (1, 5, 9)
    warm = np.broadcast_to(np.linspace(280, 240, 5)[:, None], (5, 9))[None]
    zero = np.zeros(shape)
    plane = plane_of(p, lat, omega=False)
    found = eddy_forcing(np.full(shape, 20.0), zero, zero, warm, zero, zero, zero, plane=plane)
    for values in found:
        assert np.nanmax(np.abs(values)) == 0.0
    force = found[-1][0]
    assert np.isnan(force[:, [0, -1]]).all()
    assert np.isfinite(force[:, 1:-1]).all()


def test_workload(own_folder: Path) -> None:
    job = grid.workload("climate.tem")(every="day")
    run = grid.run(*job.outputs, executor="inline", quiet=True)
    said = [str(one) for one in job.finish(run)]
    assert any(one.startswith("force of the eddies") for one in said)
    assert Path("tem.png").is_file()
    with xr.open_zarr("tem.zarr") as data:
        assert data.force.dims == ("day", "level", "lat")
        assert data.force.attrs["units"] == "m s-2"
        assert data.uw.attrs["units"] == "m Pa s-2"
        assert np.isfinite(data.force.values).all()


@pytest.mark.parametrize(("options", "says"), [
    ({"every": "month"}, "no means of every 'month'"), ({"u": "wind"}, "no variable 'wind'"),
    ({"level": "time"}, "pressure in Pa"), ({"seed": -1}, "seed is -1"),
])  # fmt: skip
def test_bad_parameters_are_refused(options: dict[str, Any], says: str, own_folder: Path) -> None:
    with pytest.raises(GridError, match=says) as caught:
        grid.workload("climate.tem")(**options)
    assert caught.value


@pytest.mark.parametrize(("name", "unit"), [("omega", "hPa s-1"), ("omega", "Pa/day"), ("t", "degC")])
def test_other_units_are_refused(name: str, unit: str, own_folder: Path) -> None:
    dims, numbers = ("time", "level", "lat", "lon"), np.ones((1, 4, 5, 6))
    units = {"u": "m/s", "v": "m s**-1", "omega": "Pa s**-1", "t": "K"} | {name: unit}
    data = xr.Dataset({one: (dims, numbers, {"units": said}) for one, said in units.items()},
                      {"time": np.array(["2001-01-01"], "M8[ns]"),
                       "level": ("level", [1e3, 500.0, 100, 10], {"units": "hPa"}),
                       "lat": np.linspace(-60, 60, 5), "lon": np.arange(6) * 60.0})
    data.to_netcdf("flow.nc")
    with pytest.raises(GridError, match=f"'{name}' has the units '{unit}'"):
        grid.workload("climate.tem")(input="flow.nc")


def test_levels_that_are_none_are_refused() -> None:
    lat = np.linspace(-80, 80, 9)
    for p in ([1e5, 9e4], [1e5, 9e4, 9.5e4], [1e5, 0.0, -1.0]):
        with pytest.raises(GridError, match=r"levels|pressure"):
            plane_of(np.array(p), lat, omega=True)
