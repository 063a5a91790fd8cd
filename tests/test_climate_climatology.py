"""Climatologies, anomalies and means of records against cdo and plain NumPy, in three calendars and on real fields."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from cdo import agrees, archive, cdo
from gridcompute_workloads.climate import climatology as made
from gridcompute_workloads.climate.climatology import (
    Cycle,
    annual_means,
    anomalies,
    anomaly_spread,
    monthly_means,
    normals,
    running_means,
    seasonal_means,
)
from gridcompute_workloads.climate.normals import Steps, pooled, spread_about

import gridcompute as grid
from gridcompute.collection import Collection
from gridcompute.errors import DimensionError, ParameterError
from gridcompute.resuming import run_workload

pytestmark = pytest.mark.usefixtures("own_folder")

QUIET: dict[str, Any] = {"executor": "inline", "quiet": True, "store": "work"}
DAYS = {"standard": 366, "noleap": 365, "360_day": 360}


def opened(path: str = "d.nc", name: str = "t") -> Collection:
    return grid.open_dataset(path)[name]


@pytest.mark.parametrize("calendar", DAYS)
def test_days_of_the_year_equal_cdo(calendar: str) -> None:
    archive("d.nc", calendar, "2000-01-01", "2004-12-30")
    field = opened()
    run = grid.run(normals(field), anomaly_spread(field), monthly_means(field), seasonal_means(field),
                   annual_means(opened()), **QUIET)  # fmt: skip
    run_again = grid.run(anomalies(field), running_means(field, 5), running_means(field, 4), **QUIET)
    assert run[0].to_xarray().sizes["dayofyear"] == DAYS[calendar]
    normal = run.part(0, 1)
    agrees(normal["mean"].to_numpy(), cdo("ydaymean", "d.nc"), 1e-12)
    # cdo takes a small difference of large sums here: 1e-9 of a deviation of 1.
    agrees(normal["std"].to_numpy(), cdo("ydaystd", "d.nc"), 1e-9, atol=1e-7)
    agrees(run_again[0].to_numpy(), cdo("ydaysub", "d.nc", "-ydaymean", "d.nc"), 1e-12, atol=1e-12 * 300)
    agrees(run[1].to_numpy(), cdo("timstd", "-ydaysub", "d.nc", "-ydaymean", "d.nc"), 1e-12)
    agrees(run[2].to_numpy(), cdo("monmean", "d.nc"), 1e-12)
    agrees(run[3].to_numpy(), cdo("seasmean", "d.nc"), 1e-12)
    agrees(run[4].to_numpy(), cdo("yearmean", "d.nc"), 1e-12)
    agrees(run_again[1].to_numpy(), cdo("runmean,5", "d.nc"), 1e-12)
    agrees(run_again[2].to_numpy(), cdo("runmean,4", "d.nc"), 1e-12)
    # A pixel of one value all the time has no deviation, and none is made up.
    assert float(run[1].to_numpy()[0, 2]) == 0.0
    assert (normal["count"].to_numpy()[:, 0, 0] == 0).all()


def test_float32_and_months_equal_cdo() -> None:
    archive("d.nc", "standard", "2000-01-01", "2003-12-31", "f4")
    field, cycle = opened(), Cycle("month")
    run = grid.run(normals(field, cycle), anomalies(field, cycle), normals(field, Cycle("season")), **QUIET)
    agrees(run.part(0, 1)["mean"].to_numpy(), cdo("ymonmean", "d.nc"), 1e-12)
    agrees(run[1].to_numpy(), cdo("ymonsub", "d.nc", "-ymonmean", "d.nc"), 1e-6, atol=300 * 1e-6)
    assert run[1].fields[0].dtype == np.float32
    agrees(np.roll(run.part(2, 3)["mean"].to_numpy(), 0, 0), cdo("yseasmean", "d.nc"), 1e-12)


def test_real_fields_equal_cdo(data_dir: Path) -> None:
    with xr.open_dataset(data_dir / "climate" / "sst.mnmean.nc") as data:
        data[["sst"]].astype("f8").to_netcdf("s.nc")
    path = "s.nc"  # in float64, as cdo adds up in the precision of the file
    field = opened(path, "sst")
    run = grid.run(normals(field, Cycle("month")), anomaly_spread(field, Cycle("month")), annual_means(field), **QUIET)
    source = ("-selname,sst", path)
    agrees(run.part(0, 1)["mean"].to_numpy(), cdo("ymonmean", *source), 1e-12, atol=1e-13)
    agrees(run[1].to_numpy(), cdo("timstd", "-ymonsub", *source, "-ymonmean", *source), 1e-12, atol=1e-13)
    agrees(run[2].to_numpy(), cdo("yearmean", *source), 1e-12, atol=1e-13)


def brute(values: np.ndarray[Any, Any], day: np.ndarray[Any, Any], length: int, weights: np.ndarray[Any, Any],
          base: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """Smoothed mean and deviation of each day that the record has, value by value."""
    half, means, stds = len(weights) // 2, [], []
    for d in np.unique(day):
        off = (day - d + length // 2) % length - length // 2
        w = np.where((np.abs(off) <= half) & base, weights[np.clip(off + half, 0, 2 * half)], 0.0)[:, None]
        w = np.where(np.isnan(values), 0.0, w)
        with np.errstate(invalid="ignore"):
            mean = np.nansum(w * np.nan_to_num(values), 0) / w.sum(0)
            stds.append(np.sqrt((w * np.nan_to_num(values - mean) ** 2).sum(0) / w.sum(0)))
        means.append(mean)
    return np.array(means), np.array(stds)


@pytest.mark.parametrize(("calendar", "weights"), [("standard", "linear"), ("360_day", "uniform")])
def test_windows_wrap_around_the_year_and_base_periods_count_alone(calendar: str, weights: str) -> None:
    archive("d.nc", calendar, "2000-01-01", "2003-12-30", shape=(2, 3))
    field, cycle = opened(), Cycle(window=31, weights=weights, base=(2001, 2002))
    run = grid.run(normals(field, cycle), anomaly_spread(field, cycle), anomalies(field, cycle, standardised=True),
                   **QUIET)  # fmt: skip
    data = xr.open_dataset("d.nc")["t"]
    values = data.values.reshape(data.sizes["time"], -1)
    steps = Steps(cycle, field.coord("time"))
    base = np.isin(data.time.dt.year.values, (2001, 2002))
    mean, std = brute(values, steps.numbers, int(steps.starts[-1]), cycle.kernel_weights, base)
    std[std < 1e-11] = 0.0  # rounding of the pixel of one value
    normal = run.part(0, 1)
    agrees(normal["mean"].to_numpy().reshape(mean.shape), mean, 1e-12)
    agrees(normal["std"].to_numpy().reshape(std.shape), std, 1e-11, atol=1e-12)
    anomaly, standard = (run[name].to_numpy().reshape(values.shape) for name in ("anomaly", "standardised_anomaly"))
    agrees(anomaly, values - mean[steps.codes], 1e-12, atol=1e-10)
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a pixel without values
        agrees(run[1].to_numpy().reshape(-1), np.nanstd(anomaly, axis=0), 1e-12, atol=1e-13)
        ratio = np.where(std[steps.codes] > 0, (values - mean[steps.codes]) / std[steps.codes], np.nan)
    agrees(standard, ratio, 1e-9, atol=1e-9)
    assert np.isnan(standard.reshape(-1, 2, 3)[:, 0, 2]).all()  # no deviation: no standardised anomaly


def test_kernels_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    count, mean, var = np.array([3, 0, 2, 5]), rng.random(4), rng.random(4)
    mean[1] = var[1] = np.nan
    at, weights = np.array([0, 1, 3, 5]), np.array([0.5, 1.0, 0.5])
    given = {"at": at, "weights": weights, "length": 6}
    compiled = pooled(count, mean, var, **given)
    for ours, plain in zip(compiled, pooled.func(count, mean, var, at, weights, 6), strict=True):
        np.testing.assert_array_equal(ours, plain)
    normal = np.array([0.5, 0.2, np.nan, 0.1])
    assert float(spread_about(count, mean, var, normal)) == spread_about.func(count, mean, var, normal)
    assert np.isnan(spread_about.func(count, mean, var, np.full(4, np.nan)))


def test_labels_of_means_are_first_days() -> None:
    archive("d.nc", "360_day", "2000-01-01", "2001-03-30", shape=(2, 3))
    run = grid.run(seasonal_means(opened()), monthly_means(opened()), annual_means(opened()), **QUIET)
    first = [[str(label)[:10] for label in run[i].to_xarray()["time"].values[:3]] for i in range(3)]
    assert first == [["1999-12-01", "2000-03-01", "2000-06-01"], ["2000-01-01", "2000-02-01", "2000-03-01"],
                     ["2000-01-01", "2001-01-01"]]  # fmt: skip


def test_what_cycles_refuse() -> None:
    archive("d.nc", "noleap", "2000-01-01", "2000-02-28", shape=(2, 3))
    for wrong, said in (({"frequency": "week"}, "week"), ({"window": 4}, "no middle"), ({"window": 361}, "no middle"),
                        ({"window": 3, "frequency": "month"}, "with days"), ({"weights": "round"}, "round")):
        with pytest.raises(ParameterError, match=said):
            Cycle(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="lies outside the record"):
        normals(opened(), Cycle(base=(1961, 1990)))
    with pytest.raises(ParameterError, match="running mean over 60"):
        running_means(opened(), 60)
    with xr.open_dataset("d.nc") as data:
        mixed = grid.open_dataset(data.load().isel(time=[0, 2, 1]))["t"]
    with pytest.raises(ParameterError, match="times neither increase"):
        running_means(mixed, 2)
    with pytest.raises(DimensionError, match="no time coordinate"):
        normals(grid.from_arrays({"t": np.zeros((3, 2))}, dims=("time", "x"))["t"])
    build = grid.workload("climate.climatology")
    for wrong, said in (({"base": "1990-1961"}, "base period"), ({"means": "week"}, "no 'week' means")):
        with pytest.raises(ParameterError, match=said):
            build(input="d.nc", **wrong)


@pytest.mark.parametrize(("names", "wrong", "said"), [
    ("climate.climatology", {"means": "60"}, "running mean over 60"),
    ("climate.climatology climate.zonal", {"box": "nowhere"}, "no box 'nowhere'"),
])  # fmt: skip
def test_a_refusal_says_nothing_of_outputs_that_were_made_before(names: str, wrong: dict[str, str], said: str) -> None:
    archive("d.nc", "noleap", "2000-01-01", "2000-02-28", shape=(2, 3))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with pytest.raises(ParameterError, match=said):
            grid.workload(names)(input="d.nc", **wrong)
        gc.collect()
    assert not [one for one in told if one.category is grid.UnrunOutputWarning]


def test_the_workload_writes_what_xarray_opens_and_draws() -> None:
    archive("d.nc", "noleap", "2000-01-01", "2002-12-31", "f4")
    given = {"input": "d.nc", "output": "c.zarr", "anomalies": True, "standardised": True, "means": "month, 7"}
    carried = run_workload("climate.climatology", given, QUIET)
    assert [path.name for path in carried.files] == ["c.png"]
    assert carried.files[0].read_bytes()[:4] == b"\x89PNG"
    assert any("12 months; standard deviation of the anomalies" in line for line in carried.lines)
    found, apart = xr.open_zarr("c.zarr"), xr.open_zarr("c-anomalies.zarr")
    assert found["mean"].dims == ("month", "lat", "lon")
    assert found["mean"].attrs["units"] == found["anomaly_std"].attrs["units"] == "K"
    assert "cell_methods" in found["std"].attrs
    assert apart["anomaly"].dtype == np.float32
    source = xr.open_dataset("d.nc")["t"]
    grouped = source.astype("f8").groupby("time.month")
    np.testing.assert_allclose(apart["anomaly"].values, (grouped - grouped.mean()).values, atol=1e-4)
    spread = apart["anomaly"].load().std("time").values
    np.testing.assert_allclose(spread, found["anomaly_std"].values, rtol=1e-4, atol=1e-6)
    assert apart["time"].equals(source["time"])
    assert xr.open_zarr("c-month.zarr").sizes["time"] == 36
    assert xr.open_zarr("c-7.zarr").sizes["time"] == source.sizes["time"] - 6


def test_annual_means_are_told_from_a_cycle() -> None:
    times = xr.date_range("2000-06-01", periods=3, freq="YS-JUN")
    xr.Dataset({"t": (("time", "lat", "lon"), np.ones((3, 2, 2)))},
               {"time": times, "lat": [0.0, 1.0], "lon": [0.0, 1.0]}).to_netcdf("y.nc")
    carried = run_workload("climate.climatology", {"input": "y.nc", "output": "y.zarr", "picture": "none"}, QUIET)
    assert any("only June of 12 months" in line for line in carried.lines)


def test_a_record_without_values_and_one_of_days() -> None:
    times = xr.date_range("2000-01-01", "2001-12-31", use_cftime=True, calendar="noleap")
    data = xr.Dataset({"t": (("time", "x"), np.full((730, 2), np.nan))}, {"time": times})
    data.to_netcdf("n.nc")
    carried = run_workload("climate.climatology", {"input": "n.nc", "frequency": "day", "output": "n.zarr"}, QUIET)
    assert any("no pixel has a value" in line for line in carried.lines)
    assert [path.name for path in carried.files] == ["n.png"]
    assert made.drawn_steps(365) == [45, 136, 228, 319]
    assert made.label_of(Cycle("season"), 3) == "SON"
    assert made.beside("s3://b/o.zarr/", "x") == "s3://b/o-x.zarr"
