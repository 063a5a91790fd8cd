"""Trends of correlated and of seasonal series against pymannkendall, least squares against SciPy, and the workload."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from cdo import agrees, archive, cdo, cdo_files
from gridcompute_workloads.climate.inputs import attrs_of, default_archive
from gridcompute_workloads.climate.trend import METHODS, picture_of, trend_test

import gridcompute as grid
from gridcompute import _pairs, _sen, stats
from gridcompute.errors import ParameterError
from gridcompute.reductions import linregress
from gridcompute.resuming import Carried, run_workload

mk = pytest.importorskip("pymannkendall")

pytestmark = pytest.mark.timeout(1200)  # compiling on a busy machine

CORRECTED: dict[str, tuple[Any, Any]] = {
    "hamed-rao": (stats.hamed_rao, mk.hamed_rao_modification_test),
    "yue-wang": (stats.yue_wang, mk.yue_wang_modification_test),
    "prewhitened": (stats.trend_free_prewhitened, mk.trend_free_pre_whitening_modification_test),
    "seasonal": (stats.seasonal_kendall, mk.seasonal_test),
}


def correlated(n: int, seed: int, drift: float = 0.01, step: float = 0.0) -> np.ndarray[Any, Any]:
    """A drifting series of lag-1 correlation 0.5, rounded to multiples of a step."""
    kicks = np.random.default_rng(seed).standard_normal(n)
    out = np.empty(n)
    out[0] = kicks[0]
    for i in range(1, n):
        out[i] = 0.5 * out[i - 1] + kicks[i]
    out += drift * np.arange(n)
    return np.round(out / step) * step if step else out


def near(a: float, b: float) -> bool:
    return a == b or abs(a - b) <= 1e-9 * max(1.0, abs(b))


@pytest.mark.parametrize("method", CORRECTED)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_corrected_tests_are_pymannkendalls(method: str) -> None:
    ours, theirs = CORRECTED[method]
    exact = method != "yue-wang"  # whose autocorrelations pymannkendall adds in another order
    for seed in range(24):
        n = 12 + 9 * seed if method != "seasonal" else 36 + 9 * seed
        x = correlated(n, seed, drift=0.02 * (seed % 3 - 1), step=0.1 if seed % 2 else 0.0)
        if seed % 4 == 3 and n > 60:
            x[np.random.default_rng(seed).random(len(x)) < 0.2] = np.nan
        got, want = ours(x), theirs(x)
        assert got.s == want.s
        assert (got.z == want.z) if exact else near(got.z, want.z)
        assert near(got.tau, want.Tau)
        assert abs(got.p - want.p) <= 1e-9
        assert near(got.slope, want.slope)
        assert near(got.intercept, want.intercept)


def test_corrected_tests_of_little() -> None:
    for ours, _ in CORRECTED.values():
        for x in (np.empty(0), np.array([1.0]), np.full(30, np.nan)):
            assert np.isnan(ours(x)).all()
        flat = ours(np.full(30, 2.5))
        assert (flat.s, flat.z, flat.p, flat.slope, flat.intercept) == (0.0, 0.0, 1.0, 0.0, 2.5)


def test_negative_variance_gives_no_z() -> None:
    x = np.tile([0.0, 1.0], 10) + 0.001 * np.arange(20.0)
    got = stats.yue_wang(x)
    assert got.var_s <= 0 or np.isfinite(got.z)
    hamed = stats.hamed_rao(x)
    assert (hamed.var_s > 0) == np.isfinite(hamed.z)


@pytest.mark.parametrize("step", [0.0, 1 / 64, 1.0, 100.0])
def test_slopes_by_sorting_have_the_bits_of_those_by_pairs(step: float) -> None:
    for n in (9, 40, 333, 900):
        for seed in range(3):
            x = correlated(n, seed, drift=0.01 * seed, step=step)
            x[::7] = np.nan if seed == 1 else x[::7]
            positions, values = _sen.valid_values(x)
            want = _sen.buffered_slope(positions, values)
            assert _pairs.sorted_slope(positions, values) == want


def test_slopes_by_sorting_of_values_far_apart() -> None:
    x = correlated(1000, 3)
    for odd in (np.inf, -np.inf, 1e308, 1e300, 1e-300):
        y = x.copy()
        y[[5, 500]] = odd, -odd
        positions, values = _sen.valid_values(y)
        assert _pairs.sorted_slope(positions, values) == _sen.buffered_slope(positions, values)
    assert stats.sen_slope(np.arange(5000.0) * 3) == 3.0
    assert stats.sen_slope(np.zeros(3000)) == 0.0


def test_least_squares_is_scipys() -> None:
    columns = np.stack([correlated(60, seed, drift=0.05 * seed) for seed in range(4)], 1)
    columns[::5, 1] = np.nan
    columns[2:, 3] = np.nan
    got = [part.values for part in linregress(significance=True).eager(columns + 300, 0)]
    names = [out.name for out in linregress(significance=True).outputs]
    assert names == ["slope", "intercept", "r", "stderr", "p", "n"]
    for i in range(3):
        there = ~np.isnan(columns[:, i])
        want = scipy.stats.linregress(np.arange(60.0)[there], columns[there, i] + 300)
        found = dict(zip(names, (float(part[i]) for part in got), strict=True))
        assert found["slope"] == pytest.approx(want.slope, rel=1e-10)
        assert found["intercept"] == pytest.approx(want.intercept, rel=1e-12)
        assert found["r"] == pytest.approx(want.rvalue, rel=1e-10)
        assert found["stderr"] == pytest.approx(want.stderr, rel=1e-10)
        assert found["p"] == pytest.approx(want.pvalue, rel=1e-8)
    two = {name: float(part[3]) for name, part in zip(names, got, strict=True)}
    assert np.isfinite(two["slope"])
    assert np.isnan(two["stderr"])
    assert np.isnan(two["p"])


def test_least_squares_in_pieces_and_of_a_line() -> None:
    line = np.arange(40.0)[:, None] * np.array([2.0, 0.0, -3.0]) + 1e6
    slope, level, r, _, p, _ = (part.values for part in linregress(significance=True).eager(line, 0))
    np.testing.assert_allclose(slope, [2, 0, -3], atol=1e-12)
    np.testing.assert_allclose(level, 1e6)
    np.testing.assert_allclose(r[[0, 2]], [1, -1], rtol=1e-12)
    assert p[0] < 1e-12
    assert p[1] == 1.0
    assert np.isnan(r[1])
    values = correlated(300, 1)
    data = grid.from_arrays({"x": values[:, None] * np.ones(2)}, ("time", "y"))
    run = grid.run(data["x"].reduce("linregress", "time", significance=True), executor="inline", quiet=True)
    want = scipy.stats.linregress(np.arange(300.0), values)
    assert run["x_slope"].to_numpy()[1] == pytest.approx(want.slope, rel=1e-11)
    assert run["x_p"].to_numpy()[1] == pytest.approx(want.pvalue, rel=1e-8)


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_least_squares_is_cdos(dtype: str, own_folder: Path) -> None:
    archive("d.nc", "noleap", "2000-01-01", "2001-12-31", dtype)
    field = grid.open_dataset("d.nc")["t"]
    line = trend_test(field, method="ols")
    steps = grid.from_arrays({"step": np.arange(730.0)}, dims=("time",))["step"]
    rest = field - (line["intercept"] + line["slope"] * steps)
    run = grid.run(line, rest, executor="inline", quiet=True, store="work")
    level, slope = cdo_files("trend", "d.nc", count=2)  # the line's value at the first step, and its rise in a step
    rel = 1e-12 if dtype == "f8" else 1e-6
    detrended = cdo("detrend", "d.nc")
    # A pixel with one value has no line. Where it is the first step's, cdo makes an intercept of it: 0 times no slope.
    assert np.isfinite(level[0, 0, 1])
    level[0, 0, 1] = detrended[0, 0, 1] = np.nan
    agrees(run.part(0, 1)["slope"].to_numpy(), slope, rel)
    agrees(run.part(0, 1)["intercept"].to_numpy(), level, rel)
    agrees(run[1].to_numpy(), detrended, rel, atol=rel * 300)  # of values about 300 near 0


# --- the workload ---


def carry(**given: Any) -> Carried:
    return run_workload("climate.trend", given, {"executor": "inline", "quiet": True})


@pytest.fixture(scope="module")
def monthly(module_folder: Path) -> xr.Dataset:
    months = np.arange("1990-01", "2002-01", dtype="M8[M]").astype("M8[ns]")
    cycle = 10 * np.sin(np.arange(144) * np.pi / 6)
    values = np.stack([correlated(144, seed, drift=0.01 * seed) + cycle for seed in range(4)], 1).reshape(144, 2, 2)
    values[5, 0, 1] = np.nan
    data = xr.Dataset(
        {"t": (("time", "lat", "lon"), values, {"units": "K"})},
        {"time": months, "lat": [10.0, 20.0], "lon": [0.0, 5.0]},
    )
    data.to_netcdf("monthly.nc")
    return data


@pytest.mark.parametrize("method", ["seasonal", "ols"])  # the others differ in a name
def test_the_workloads_methods(monthly: xr.Dataset, method: str) -> None:
    carried = carry(input="monthly.nc", method=method, output=f"{method}.zarr")
    assert carried.files[0].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    found = xr.open_zarr(f"{method}.zarr").load()
    days = float((monthly.time[-1] - monthly.time[0]) / np.timedelta64(1, "D"))
    per_year = 365.2425 * 143 / days
    for i, j in ((0, 0), (0, 1), (1, 1)):
        x, got = monthly["t"].values[:, i, j], found.isel(lat=i, lon=j)
        if method == "ols":
            there = ~np.isnan(x)
            want = scipy.stats.linregress(np.arange(144.0)[there], x[there])
            assert float(got["slope"]) == pytest.approx(want.slope * per_year, rel=1e-10)
            assert float(got["stderr"]) == pytest.approx(want.stderr * per_year, rel=1e-10)
            assert float(got["r"]) == pytest.approx(want.rvalue, rel=1e-10)
            assert float(got["p"]) == pytest.approx(want.pvalue, rel=1e-8)
            continue
        want = (CORRECTED[method][1] if method in CORRECTED else mk.original_test)(x)
        steps = per_year / 12 if method == "seasonal" else per_year
        assert float(got["s"]) == want.s
        assert near(float(got["z"]), want.z)
        assert float(got["slope"]) == pytest.approx(want.slope * steps, rel=1e-9)
        assert bool(got["significant"]) == (want.p < 0.05)
    assert found["slope"].attrs["units"] == "K year-1"


@pytest.mark.filterwarnings("ignore")  # of sinks that are never run
@pytest.mark.parametrize(("method", "said"), [("ols", "least squares"), ("mann-kendall", "Mann-Kendall"),
                                               ("yue-wang", "Mann-Kendall, yue-wang")])  # fmt: skip
def test_the_picture_names_the_test(method: str, said: str, monkeypatch: pytest.MonkeyPatch, own_folder: Path) -> None:
    flat = {"slope": ("x", [1.0, 2]), "significant": ("x", [True, False])}
    xr.Dataset(flat).to_zarr("t.zarr", zarr_format=3)
    drawn: list[str] = []
    seen = lambda *args, test, **more: drawn.append(test)  # noqa: E731
    monkeypatch.setattr("gridcompute_workloads.climate.trend.draw_trend", seen)
    list(picture_of("t.zarr", Path("t.png"), "t", "K year-1", 0.05, method))
    assert drawn == [said]


def test_every_method_builds(monthly: xr.Dataset) -> None:
    build = grid.workload("climate.trend")
    names = {method: set(build(input="monthly.nc", method=method, output="x.zarr").outputs[0].columns)
             for method in METHODS}  # fmt: skip
    assert names.pop("ols") == {"slope", "intercept", "r", "stderr", "p", "significant"}
    assert {frozenset(one) for one in names.values()} == {
        frozenset(("slope", "intercept", "tau", "p", "z", "s", "significant"))}  # fmt: skip


@pytest.mark.parametrize("method", ["seasonal", "ols"])
def test_from_python_results_have_their_units(monthly: xr.Dataset, method: str) -> None:
    def units(**given: Any) -> dict[str, str]:
        found = trend_test(grid.open_dataset("monthly.nc")["t"], method=method, **given)
        return {name: attrs_of(found[name])["units"] for name in found.columns}

    rates = {"slope", "stderr"} & set(units())
    for given, rate in (({}, "K per step of time"), ({"per_year": 12.0}, "K year-1")):
        assert units(**given) == {name: rate if name in rates else "K" if name == "intercept" else "1"
                                  for name in units()}  # fmt: skip


def test_least_squares_joins_other_passes() -> None:
    data = grid.open_dataset(default_archive())["air_temperature"]
    text = str(grid.plan(trend_test(data, method="ols"), data.mean("time"), data.max("time")).explain())
    assert sum("of air_temperature" in line for line in text.splitlines()) == 1


def test_what_the_methods_refuse(monthly: xr.Dataset) -> None:
    build = grid.workload("climate.trend")
    with pytest.raises(ParameterError, match="no method 'ls'") as error:
        build(input="monthly.nc", method="ls")
    assert "hamed-rao" in str(error.value)
    with pytest.raises(ParameterError, match="period is 1"):
        build(input="monthly.nc", method="seasonal", period=1)
    with pytest.raises(ParameterError, match="period is 100"):
        build(input="monthly.nc", method="seasonal", period=100)


def test_whole_numbers_with_gaps_are_nan_there(monthly: xr.Dataset) -> None:
    whole = (monthly["t"].fillna(0) * 100).round().astype("i2").rename("whole")
    whole.values[5, 0, 1] = -999
    attrs = {"_FillValue": np.int16(-999), "units": "cK"}
    xr.Dataset({"whole": (whole.dims, whole.values, attrs)}, monthly.coords).to_netcdf("whole.nc")
    carry(input="whole.nc", method="ols", output="whole.zarr", picture="none")
    found = xr.open_zarr("whole.zarr").load()
    x = np.delete(whole.values[:, 0, 1], 5).astype(float)
    want = scipy.stats.linregress(np.delete(np.arange(144.0), 5), x)
    assert float(found["intercept"][0, 1]) == pytest.approx(want.intercept, rel=1e-9)
    assert found["intercept"].attrs["units"] == "cK"
    grid.plan(*grid.workload("climate.trend")(input="whole.nc", output="y.zarr").outputs)  # kernels see NaN
