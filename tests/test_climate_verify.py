"""Scores of a forecast against plain NumPy, with gaps and WeatherBench's definitions; other labels are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from cdo import agrees
from gridcompute_workloads.climate.areas import latitude_weights
from gridcompute_workloads.climate.normals import Cycle, normals
from gridcompute_workloads.climate.scores import (
    _as_it_is,
    _later,
    _more_pairs,
    _pair,
    error_maps,
    overall,
    pair_of_anomalies,
    scores,
    weighted_correlation,
    weighted_scores,
)

import gridcompute as grid
from gridcompute.coords import Coordinate
from gridcompute.errors import AlignmentError, DimensionError, MissingInputError, ParameterError
from gridcompute.resuming import run_workload

pytestmark = pytest.mark.usefixtures("own_folder")

QUIET: dict[str, Any] = {"executor": "inline", "quiet": True, "store": "work"}
LAT = np.array([-80.0, -40, 0, 40, 80])


def written(path: str, seed: int, shift: float = 0.0, years: int = 2, **coords: Any) -> np.ndarray[Any, Any]:
    """A seeded monthly field with gaps in float32, as a file."""
    rng = np.random.default_rng(seed)
    season = 8 * np.cos(np.arange(12 * years) * np.pi / 6)
    values = 280 + shift + season[:, None, None] + rng.standard_normal((12 * years, 5, 6))
    values[rng.random(values.shape) < 0.05] = np.nan
    values[3, 2], values[5] = np.nan, np.nan
    times = xr.date_range("2000-01-15", periods=12 * years, freq="30D", use_cftime=True, calendar="360_day")
    labels = {"time": times, "lat": LAT, "lon": np.arange(6) * 60.0, **coords}
    values = values.astype("f4")
    xr.Dataset({"t": (("time", "lat", "lon"), values, {"units": "K"})}, labels).to_netcdf(path)
    return values.astype("f8")


def expected(f: Any, o: Any, c: Any) -> dict[str, Any]:
    """Scores of each step, as WeatherBench 2 defines them, leaving out what is missing."""
    w = np.broadcast_to(latitude_weights(Coordinate("lat", "lat", LAT))[:, None], f.shape[1:])
    e = f - o
    w = np.where(np.isnan(e), 0.0, w)
    total = w.sum((1, 2))

    def mean(x: Any) -> Any:
        return (w * np.nan_to_num(x)).sum((1, 2)) / total

    with np.errstate(invalid="ignore", divide="ignore"):
        return {"bias": mean(e), "mae": mean(abs(e)), "rmse": np.sqrt(mean(e**2)),
                "acc": mean((f - c) * (o - c)) / np.sqrt(mean((f - c) ** 2) * mean((o - c) ** 2))}  # fmt: skip


def test_scores_of_steps_in_all_and_of_pixels() -> None:
    f, o = written("f.nc", 1, 0.5), written("o.nc", 2)
    forecast, reference = (grid.open_dataset(f"{name}.nc")["t"] for name in "fo")
    normal = normals(reference, Cycle("month"))["mean"]
    series = scores(forecast, reference, normal)
    run = grid.run(series, overall(series), error_maps(forecast, reference), normal, **QUIET)
    climate = np.tile(run[3].to_numpy(), (2, 1, 1))
    told = expected(f, o, climate)
    for name, values in told.items():  # errors are in float32, as the fields are
        agrees(run.part(0, 1)[name].to_numpy(), values, 1e-6, atol=1e-7)
    every = run.part(1, 2)
    assert float(every["rmse"].to_numpy()) == pytest.approx(np.sqrt(np.nanmean(told["rmse"] ** 2)), rel=1e-6)
    assert float(every["rmse_of_steps"].to_numpy()) == pytest.approx(np.nanmean(told["rmse"]), rel=1e-6)
    assert float(every["acc"].to_numpy()) == pytest.approx(np.nanmean(told["acc"]), rel=1e-6)
    assert float(every["bias"].to_numpy()) == pytest.approx(np.nanmean(told["bias"]), rel=1e-6)
    maps, error = run.part(2, 3), f - o
    agrees(maps["bias"].to_numpy(), np.nanmean(error, 0), 1e-6, atol=1e-6)
    agrees(maps["rmse"].to_numpy(), np.sqrt(np.nanmean(error**2, 0)), 1e-6)
    agrees(maps["mae"].to_numpy(), np.nanmean(abs(error), 0), 1e-6)
    np.testing.assert_array_equal(maps["count"].to_numpy(), (~np.isnan(error)).sum(0))


def test_a_field_scored_against_itself_and_one_climatology_for_all() -> None:
    values = written("f.nc", 3)
    field = grid.open_dataset("f.nc")["t"]
    run = grid.run(scores(field, field, field.mean("time"), weights="cos"), **QUIET)
    known = ~np.isnan(values).all((1, 2))
    np.testing.assert_array_equal(run["rmse"].to_numpy()[known], 0.0)
    np.testing.assert_allclose(run["acc"].to_numpy()[known], 1.0, rtol=1e-14)
    assert np.isnan(run["acc"].to_numpy()[~known]).all()


def test_what_does_not_go_together_is_refused_by_name() -> None:
    written("f.nc", 1)
    written("o.nc", 2, lat=LAT + 1)
    written("p.nc", 2, time=xr.date_range("2001-01-15", periods=24, freq="30D", use_cftime=True, calendar="360_day"))
    forecast = grid.open_dataset("f.nc")["t"]
    with pytest.raises(AlignmentError, match="'lat' differ"):
        scores(forecast, grid.open_dataset("o.nc")["t"])
    with pytest.raises(AlignmentError, match="'time' differ"):
        error_maps(forecast, grid.open_dataset("p.nc")["t"])
    xr.open_dataset("f.nc").rename(lat="latitude").to_netcdf("l.nc")
    with pytest.raises(DimensionError, match="reference has the dimension 'latitude'"):
        scores(forecast, grid.open_dataset("l.nc")["t"])
    written("u.nc", 1, lon=np.arange(6.0) ** 2)
    uneven = grid.open_dataset("u.nc")["t"]
    with pytest.raises(ParameterError, match="uneven"):
        scores(uneven, uneven)
    half = normals(forecast.isel(time=slice(0, 5)), Cycle("month"))["mean"]
    with pytest.raises(ParameterError, match="climatology has no month 6"):
        scores(forecast, forecast, half)
    leveled = grid.map(plus, half, grid.from_arrays({"l": np.arange(2.0)}, dims=("level",)))
    with pytest.raises(DimensionError, match="climatology has the dimension 'level'"):
        scores(forecast, forecast, leveled)
    build = grid.workload("climate.verify")
    with pytest.raises(MissingInputError, match="only the forecast"):
        build(input="f.nc")
    with pytest.raises(MissingInputError, match="no variable 'x'"):
        xr.open_dataset("o.nc").assign(u=("time", np.zeros(24))).to_netcdf("two.nc")
        build(input="f.nc", reference="two.nc", reference_variable="x")
    with pytest.raises(ParameterError, match="by 'week'"):
        build(input="f.nc", reference="f.nc", frequency="week")
    with pytest.raises(AlignmentError, match="forecast has 24 cells along 'time', the reference 3"):
        scores(forecast, forecast.isel(time=slice(0, 3)))
    with pytest.raises(DimensionError, match="climatology has the dimension 'time'"):
        build(input="f.nc", reference="f.nc", climatology="f.nc")


@pytest.mark.parametrize(("units", "said"), [("K", []), ("kelvin", []), ("m", ["the forecast is in K, the reference "
                                                                           "in m: nothing is converted"])])
@pytest.mark.filterwarnings("ignore")  # of outputs that are never run
def test_units_that_differ_are_said_and_two_scales_of_temperature_refused(units: str, said: list[str]) -> None:
    for name, unit in (("k.nc", "K"), ("c.nc", "degC"), ("o.nc", units)):
        written(name, 1)
        with xr.open_dataset(name) as data:
            changed = data.load()
        changed["t"].attrs["units"] = unit
        changed.to_netcdf(name)
    build = grid.workload("climate.verify")
    with pytest.raises(ParameterError, match="the forecast is in K, the reference in degC"):
        build(input="k.nc", reference="c.nc")
    assert build(input="k.nc", reference="o.nc").lines[1:] == said
    dates = xr.open_dataset("k.nc")["time"].expand_dims(lat=2).rename("t").drop_vars("time")
    dates.to_netcdf("d.nc")
    with pytest.raises(ParameterError, match="'t' of the reference holds dates"):
        build(input="k.nc", reference="d.nc")


@grid.kernel("(),()->()")
def plus(a, b):  # type: ignore[no-untyped-def]
    return a + b


def test_kernels_and_folds_without_a_compiler() -> None:
    rng = np.random.default_rng(5)
    rows = [rng.random(4) for _ in range(5)]
    for kernel, given in ((weighted_scores, rows), (weighted_correlation, rows[:4])):
        ours, plain = kernel(*given[:-1], weights=given[-1]), kernel.func(*given)
        np.testing.assert_allclose(ours, plain, rtol=1e-15)
    assert np.isnan(weighted_scores.func(*[np.zeros(2)] * 5)).all()
    assert np.isnan(weighted_correlation.func(*[np.zeros(2)] * 4))
    assert pair_of_anomalies.func(3.0, 2.0, 1.0) == complex(2, 1)
    assert np.isnan(pair_of_anomalies.func(3.0, np.nan, 1.0))
    state = [np.zeros(1) for _ in range(3)]
    _pair(*state, complex(2, 3))
    _more_pairs(*state, *[one.copy() for one in state])
    assert [one[0] for one in state] == [8, 18, 12]
    counts = [np.ones(1) for _ in range(4)]
    _later(*counts, *[one.copy() for one in counts])
    assert _as_it_is(*counts) == (2, 2, 2, 2)


def test_the_workload_writes_scores_and_maps_and_draws_the_bias() -> None:
    f, o = written("f.nc", 1, 0.5), written("o.nc", 2)
    run_workload("climate.climatology", {"input": "o.nc", "output": "c.zarr", "picture": "none"}, QUIET)
    given = {"input": "f.nc", "reference": "o.nc", "climatology": "c.zarr", "output": "v.zarr"}
    carried = run_workload("climate.verify", given, QUIET)
    assert [path.name for path in carried.files] == ["v.png"]
    found, maps = xr.open_zarr("v.zarr").load(), xr.open_zarr("v-maps.zarr")
    told = expected(f, o, np.tile(xr.open_zarr("c.zarr")["mean"].values, (2, 1, 1)))
    agrees(found["acc"].values, told["acc"], 1e-6)
    assert any(f"RMSE {float(found['rmse_overall']):.4g} K, anomaly correlation" in line for line in carried.lines)
    assert found["bias"].attrs == {"long_name": "mean error of t", "units": "K"}
    assert maps["bias"].dims == ("lat", "lon")
    given = {"input": "f.nc", "reference": "o.nc", "frequency": "none", "output": "n.zarr", "picture": "none"}
    carried = run_workload("climate.verify", given, QUIET)
    assert "acc" not in xr.open_zarr("n.zarr")
    assert not Path("n.png").exists()
