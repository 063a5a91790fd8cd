"""ETCCDI's indices: climdex.pcic's reference series, the bootstrap against a plain one, calendars, and refusals."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from gridcompute_workloads.climate.daily import example
from gridcompute_workloads.climate.etccdi.bootstrap import HALF, WINDOW, Base, definition_8, exceedance, ranks_of
from gridcompute_workloads.climate.etccdi.days import days_of_series
from gridcompute_workloads.climate.etccdi.table import GROUPS, INDICES
from gridcompute_workloads.climate.indices import _per_decade, extreme_indices

import gridcompute as grid
from gridcompute.coords import Coordinate, packed
from gridcompute.errors import AlignmentError, DimensionError, MissingInputError, ParameterError
from gridcompute.resuming import Carried, run_workload
from tests.rdata import read_rda

Array = np.ndarray[Any, Any]

pytestmark = [pytest.mark.usefixtures("own_folder"), pytest.mark.timeout(1200)]  # compiling on a busy machine

MONTHLY = ("txx", "tnx", "txn", "tnn", "tn10p", "tx10p", "tn90p", "tx90p", "dtr", "rx1day", "rx5day")


def computed(data: Any) -> dict[str, Array]:
    run = grid.run(data, executor="inline", quiet=True)
    return {name: run[name].to_numpy() for name in data.columns}


def series(values: dict[str, Any], units: dict[str, str], unit: str = "days since 1959-01-01",
           calendar: str = "standard", steps: Any = None, latitude: float | None = None) -> grid.Collection:
    """Columns over time, or over time and one latitude."""
    from gridcompute_workloads.climate.inputs import with_attrs

    length = len(next(iter(values.values())))
    coords = [Coordinate("time", "time", np.arange(length) if steps is None else steps, unit, calendar)]
    dims: tuple[str, ...] = ("time",)
    if latitude is not None:
        coords.append(Coordinate("lat", "lat", np.array([latitude]), attrs=packed({"units": "degrees_north"})))
        values = {name: one[:, None] for name, one in values.items()}
        dims = ("time", "lat")
    data = grid.from_arrays(values, dims, coords=coords)
    return with_attrs(data, {name: {"units": units[name]} for name in values})


# --- the reference station ---


def station(folder: Path) -> dict[str, Array]:
    """Daily values of station 1018935 of 1959 to 2004, NaN where missing."""
    first, last = np.datetime64("1959-01-01"), np.datetime64("2004-12-31")
    found = {}
    for name, kind in (("tx", "MAX_TEMP"), ("tn", "MIN_TEMP"), ("pr", "ONE_DAY_PRECIPITATION")):
        values = np.full(int((last - first).astype(int)) + 1, np.nan)
        with (folder / f"1018935_{kind}.csv").open() as file:
            for row in csv.DictReader(file):
                day = np.datetime64(f"{row['year']}-01-01") + int(row["jday"]) - 1
                if row[kind] not in ("", "NA"):
                    values[(day - first).astype(int)] = float(row[kind])
        found[name] = values
    return found


def test_all_28_series_of_climdex(data_dir: Path) -> None:
    folder = data_dir / "climate"
    reference = read_rda(folder / "exemplar_data.rda")
    assert len(reference) == 28
    daily = station(folder)
    units = {"tx": "degC", "tn": "degC", "pr": "mm"}
    data = series(daily, units)
    temperatures = {"tx": data["tx"], "tn": data["tn"]}
    found = computed(extreme_indices(**temperatures, pr=data["pr"], base=(1981, 1990), hemisphere="north"))
    south = computed(extreme_indices(**temperatures, only=["gsl"], base=(1981, 1990), hemisphere="south"))
    found["gsl.sh"] = south["gsl"]
    assert set(found) == {name.split(".", 2)[2] for name in reference}
    for name, (want, labels) in reference.items():
        got = found[name.split(".", 2)[2]]
        assert (len(got), labels[0][:4], labels[-1][:4]) == (len(want), "1959", "2004")
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-9, err_msg=name)


# --- the bootstrap, against one that makes every threshold ---


def window_of(table: Array, day: int, wraps: bool) -> list[list[float]]:
    """Values around a day by year; where it doesn't wrap the base's ends cut it."""
    slots, years = table.shape
    found = []
    for year in range(years):
        own = []
        for offset in range(-HALF, HALF + 1):
            place = day + offset
            cut = not wraps and ((place < 0 and year == years - 1) or (place >= slots and year == 0))
            own.append(np.nan if cut else table[place % slots, year])
        found.append(own)
    return found


def quantile_8(values: list[float], q: float, least: float) -> float:
    there = sorted(value for value in values if not np.isnan(value))
    return definition_8(np.array(there), q) if there and len(there) >= least else np.nan


def plain(table: Array, q: float, wraps: bool, leap: Array, leap_slot: int) -> tuple[Array, Array, Array]:
    slots, years = table.shape
    thresholds, shares, extra = np.empty(slots), np.zeros((years, slots)), np.zeros(years)
    least = 0.1 * WINDOW * years
    for day in range(slots):
        window = window_of(table, day, wraps)
        whole = window_of(table, day, True)
        thresholds[day] = quantile_8(list(chain(*window)), q, least)
        for i in range(years):
            count, count_leap = 0, 0
            for j in range(years):
                if j == i:
                    continue
                replaced = [np.nan if np.isnan(own) and cut else new for own, new, cut in
                            zip(window[i], whole[j], np.isnan(window[i]) & ~np.isnan(whole[i]), strict=True)]
                made = [*chain(*(window[y] for y in range(years) if y != i)), *replaced]
                threshold = quantile_8(made, q, least)
                count += bool(table[day, i] > threshold if q > 0.5 else table[day, i] < threshold)
                count_leap += bool(leap[i] > threshold if q > 0.5 else leap[i] < threshold)
            shares[i, day] = count / (years - 1)
            if day == leap_slot:
                extra[i] = count_leap / (years - 1)
    return thresholds, shares, extra


@pytest.mark.parametrize("wraps", [True, False])
@pytest.mark.parametrize("step", [0.0, 0.5])
def test_the_bootstrap_is_the_plain_one(wraps: bool, step: float) -> None:
    random = np.random.default_rng(3)
    for years, slots, gaps in ((2, 9, 0.0), (5, 12, 0.0), (9, 14, 0.3), (4, 8, 0.93)):
        table = random.normal(size=(slots, years))
        table = np.round(table / step) * step if step else table
        table[random.random(table.shape) < gaps] = np.nan
        leap = random.normal(size=years)
        for q in (0.1, 0.9):
            sign = 1.0 if q > 0.5 else -1.0
            thresholds, shares, extra = np.empty(slots), np.empty((years, slots)), np.empty(years)
            base, ranks = Base(sign * table, sign * leap, 3), ranks_of(q, years, q > 0.5)
            exceedance(base, ranks, wraps, thresholds, shares, extra)
            want = plain(table, q, wraps, leap, 3)
            np.testing.assert_allclose(sign * thresholds, want[0], rtol=1e-13)
            np.testing.assert_array_equal(shares, want[1])
            np.testing.assert_array_equal(extra, want[2])


PLAIN = """
import numpy as np
from gridcompute_workloads.climate.etccdi.bootstrap import Base, exceedance, ranks_of
random = np.random.default_rng(8)
table = np.round(random.normal(size=(10, 6)), 1)
table[2, 3] = np.nan
thresholds, shares, extra, said = np.empty(10), np.empty((6, 10)), np.empty(6), ""
for wraps in (True, False):
    exceedance(Base(table, np.full(6, 1.0), 4), ranks_of(0.9, 6, True), wraps, thresholds, shares, extra)
    said += thresholds.tobytes().hex() + shares.tobytes().hex() + extra.tobytes().hex()
"""


def test_the_bootstrap_has_the_same_bits_without_compilation() -> None:
    done = subprocess.run([sys.executable, "-c", f"{PLAIN}print(said)"], env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
                          capture_output=True, text=True, check=True)  # fmt: skip
    names: dict[str, Any] = {}
    exec(PLAIN, names)
    assert done.stdout.strip() == names["said"]


# --- rules, calendars, units ---


def weather(days: int, seed: int = 1) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    mean = 12 - 10 * np.cos(2 * np.pi * np.arange(days) / 365.25) + random.normal(0, 4, days)
    rain = np.where(random.random(days) < 0.4, random.gamma(1.0, 6.0, days), 0.0)
    return {"tx": np.round(mean + 4, 1), "tn": np.round(mean - 4, 1), "pr": np.round(rain, 1)}


UNITS = {"tx": "degC", "tn": "degC", "pr": "mm/day"}


def given(data: grid.Collection, **more: Any) -> Any:
    return extreme_indices(data["tx"], data["tn"], data["pr"], base=(2000, 2003), hemisphere="north", **more)


@pytest.mark.parametrize(("calendar", "length"), [("noleap", 365), ("360_day", 360), ("standard", 366)])
def test_counts_and_extremes_in_every_calendar(calendar: str, length: int) -> None:
    days = 1461 if calendar == "standard" else 4 * length
    daily = weather(days)
    found = computed(given(series(daily, UNITS, "days since 2000-01-01", calendar)))
    year = xr.date_range("2000-01-01", periods=days, calendar=calendar, use_cftime=True)
    first = np.array([date.year == 2000 for date in year])
    assert first.sum() == length
    january = np.array([(date.year, date.month) == (2000, 1) for date in year])
    tx, tn, pr = (daily[name][first] for name in ("tx", "tn", "pr"))
    want = {"su": (tx > 25).sum(), "id": (tx < 0).sum(), "fd": (tn < 0).sum(), "tr": (tn > 20).sum(),
            "r10mm": (pr >= 10).sum(), "r20mm": (pr >= 20).sum(), "prcptot": pr[pr >= 1].sum(),
            "sdii": pr[pr >= 1].mean(), "txx": daily["tx"][january].max(), "tnn": daily["tn"][january].min(),
            "rx1day": daily["pr"][january].max()}  # fmt: skip
    for name, value in want.items():
        assert found[name][0] == pytest.approx(value, rel=1e-12), name
    assert found["txx"].shape == (48,)
    assert found["su"].shape == (4,)
    assert not any(np.isnan(values).any() for values in found.values())
    annual = computed(given(series(daily, UNITS, "days since 2000-01-01", calendar), monthly=False, only=MONTHLY))
    np.testing.assert_array_equal(annual["txx"], found["txx"].reshape(4, 12).max(1))
    np.testing.assert_array_equal(annual["rx5day"], found["rx5day"].reshape(4, 12).max(1))


def test_missing_days_and_missing_dates_are_the_same() -> None:
    daily = weather(1461)
    gone = np.zeros(1461, bool)
    gone[[5, 6, 7, 40, 41, 42, 43, 800]] = True
    holes = {name: np.where(gone, np.nan, values) for name, values in daily.items()}
    found = computed(given(series(holes, UNITS, "days since 2000-01-01")))
    steps = np.flatnonzero(~gone)
    shorter = {name: values[~gone] for name, values in daily.items()}
    again = computed(given(series(shorter, UNITS, "days since 2000-01-01", steps=steps)))
    for name, values in found.items():
        np.testing.assert_array_equal(values, again[name], err_msg=name)
        if name in MONTHLY:  # four days of February 2000, three of January
            np.testing.assert_array_equal(np.isnan(values), np.arange(48) == 1, err_msg=name)
        else:
            np.testing.assert_array_equal(np.isnan(values), np.arange(4) == 0, err_msg=name)


def test_units_and_float32() -> None:
    daily = weather(1461)
    daily["tn"][:50] = 0.0
    plainly = series(dict(daily), UNITS, "days since 2000-01-01")
    # 273.15 in float32 is less than 273.15: a day of 0 degC must not become a frost day.
    cold = series({"tn": (daily["tn"] + 273.15).astype(np.float32)}, {"tn": "K"}, "days since 2000-01-01")
    wet = series({"pr": daily["pr"] / 86400}, {"pr": "kg m-2 s-1"}, "days since 2000-01-01")
    names = ["fd", "tnn", "prcptot"]
    want = computed(given(plainly, only=names))
    got = computed(extreme_indices(tn=cold["tn"], pr=wet["pr"], base=(2000, 2003), only=names))
    np.testing.assert_array_equal(got["fd"], want["fd"])
    np.testing.assert_allclose(got["tnn"], want["tnn"], atol=2e-5)
    np.testing.assert_allclose(got["prcptot"], want["prcptot"], rtol=1e-9)


def test_seasons_follow_the_latitude_and_spells_the_year() -> None:
    daily = weather(1461)
    halves = [computed(extreme_indices(data["tx"], data["tn"], base=(2000, 2003), only=["gsl"]))["gsl"][0]
              for data in (series(daily, UNITS, "days since 2000-01-01", latitude=at) for at in (50.0, -50.0))]
    said = [computed(extreme_indices(data["tx"], data["tn"], base=(2000, 2003), only=["gsl"], hemisphere=half))["gsl"]
            for data in [series(daily, UNITS, "days since 2000-01-01")] for half in ("north", "south")]
    np.testing.assert_array_equal(halves[0], said[0])
    np.testing.assert_array_equal(halves[1], said[1])
    assert 150 < said[0][0] < 366
    assert np.isnan(said[1][3])  # its last season isn't over
    dry = {"pr": np.where(np.arange(1461) < 500, 0.0, 5.0)}
    spells = computed(extreme_indices(pr=series(dry, UNITS, "days since 2000-01-01")["pr"], base=(2000, 2003),
                                      only=["cdd", "cwd"]))  # fmt: skip
    np.testing.assert_array_equal(spells["cdd"], [np.nan, 500, 0, 0])  # it ends in the second year
    np.testing.assert_array_equal(spells["cwd"], [0, 0, np.nan, 961])  # the third year lies within it


def test_nothing_there_gives_nothing() -> None:
    nothing = {name: np.full(1461, np.nan) for name in UNITS}
    for name, values in computed(given(series(nothing, UNITS, "days since 2000-01-01"))).items():
        assert np.isnan(values).all(), name


def test_the_table_has_the_27() -> None:
    assert len(INDICES) == 27
    assert sorted(name for group in GROUPS for name in group.names) == sorted(INDICES)
    for group in GROUPS:
        assert {INDICES[name].needs for name in group.names} == {group.needs}


# --- what is refused ---


def test_what_is_refused_before_any_work() -> None:
    daily = series(weather(1461), UNITS, "days since 2000-01-01")
    with pytest.raises(ParameterError, match="no index 'hot'"):
        given(daily, only=["hot"])
    with pytest.raises(MissingInputError, match="cdd needs daily precipitation"):
        extreme_indices(tx=daily["tx"], only=["cdd"])
    with pytest.raises(MissingInputError, match="no daily series"):
        extreme_indices()
    with pytest.raises(ParameterError, match="1961-1990 has less than two years"):
        extreme_indices(tx=daily["tx"])
    for amount in (-1.0, np.nan, np.inf):
        with pytest.raises(ParameterError, match="amount is"):
            extreme_indices(tx=daily["tx"], base=(2000, 2003), amount=amount)
    with pytest.raises(ParameterError, match="base period is 2003 to 2000"):
        extreme_indices(tx=daily["tx"], base=(2003, 2000))
    with pytest.raises(DimensionError, match="hemisphere"):
        extreme_indices(daily["tx"], daily["tn"], base=(2000, 2003), only=["gsl"])
    with pytest.raises(ParameterError, match="hemisphere is 'east'"):
        extreme_indices(daily["tx"], base=(2000, 2003), hemisphere="east")
    assert "gsl" not in extreme_indices(daily["tx"], daily["tn"], base=(2000, 2003)).columns
    with pytest.raises(ParameterError, match="units 'degF'"):
        extreme_indices(series({"tx": np.zeros(1461)}, {"tx": "degF"}, "days since 2000-01-01"), base=(2000, 2003))
    with pytest.raises(ParameterError, match="no units"):
        extreme_indices(series({"tx": np.zeros(1461)}, {"tx": ""}, "days since 2000-01-01"), base=(2000, 2003))
    other = series(weather(1461), UNITS, "days since 2001-01-01")
    with pytest.raises(ParameterError, match="other years"):
        extreme_indices(daily["tx"], pr=other["pr"], base=(2000, 2003))
    late = series(weather(1460), UNITS, "days since 2000-01-02")
    with pytest.raises(AlignmentError, match="time"):
        extreme_indices(daily["tx"], late["tn"], base=(2000, 2003), hemisphere="north")


@pytest.mark.parametrize(("steps", "unit", "said"), [
    (np.arange(0, 400, 30), "days since 2000-01-01", "steps of 30 days"),
    (np.arange(400), "hours since 2000-01-01", "two dates on one day"),
    (np.array([0, 1, 1, 2]), "days since 2000-01-01", "two dates on one day"),
    (np.array([0, 2, 1, 3]), "days since 2000-01-01", "don't increase"),
    (np.array([0]), "days since 2000-01-01", "single date"),
])
def test_times_that_are_no_days(steps: Array, unit: str, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        days_of_series(Coordinate("time", "time", steps, unit, "standard"), (2000, 2001), True)


# --- the workload ---


def carry(**options: Any) -> Carried:
    return run_workload("climate.indices", options, {"executor": "inline", "quiet": True})


def test_the_workload_on_its_example() -> None:
    carried = carry(output="all.zarr")
    assert [path.name for path in carried.files] == ["all.png", "all_series.png"]
    found = xr.open_zarr("all.zarr").load()
    assert set(found.data_vars) == set(INDICES)
    assert found["su"].dims == ("latitude", "longitude", "year")
    assert found["txx"].dims == ("latitude", "longitude", "month")
    assert found["tx90p"].attrs == {"long_name": INDICES["tx90p"].about, "units": "%", "cell_methods": "time: mean"}
    assert str(found["year"].values[-1])[:10] == "2000-01-01"
    assert str(found["month"].values[13])[:10] == "1962-02-01"
    np.testing.assert_array_equal(found["su"].sel(year="1961"), (example_values("tasmax", 365) > 25).sum(0)[..., None])
    base = found["tx90p"].sel(month=slice("1961", "1990")).mean()
    assert 9 < float(base) < 11  # a tenth of the days, by what the thresholds are
    assert float(found["tx90p"].sel(month=slice("1995", "2000")).mean()) > 11


def test_trends_of_shares_are_least_squares() -> None:
    years = np.arange(1961.0, 2001)
    values = np.random.default_rng(1).normal(size=(40, 2, 3)) + 0.2 * (years - 1961)[:, None, None]
    values[3:9, 0, 0] = np.nan
    values[:, 0, 1] = np.nan
    values[1:, 0, 2] = np.nan
    found = _per_decade(values, years)
    assert np.isnan(found[0, 1:]).all()
    for place in ((0, 0), (1, 0), (1, 2)):
        there = ~np.isnan(values[(slice(None), *place)])
        slope = np.polyfit(years[there], values[(there, *place)], 1)[0]
        assert found[place] == pytest.approx(10 * slope, rel=1e-9)


def example_values(name: str, days: int) -> Array:
    return grid.run(example()[name].isel(time=slice(0, days)), executor="inline", quiet=True)[name].to_numpy()


def test_the_workload_on_files_of_their_own() -> None:
    daily = weather(1461)
    times = np.arange("2000-01-01", "2004-01-01", dtype="M8[D]").astype("M8[ns]")
    for name, file in (("tx", "tasmax"), ("tn", "tasmin"), ("pr", "pr")):
        variable = (("time",), daily[name], {"units": UNITS[name]})
        xr.Dataset({file: variable}, {"time": times}).to_netcdf(f"{file}.nc")
    carried = carry(input="tasmax.nc", indices="TX90p, su", base="2000-2003", output="two.zarr", show="su")
    assert set(xr.open_zarr("two.zarr").data_vars) == {"tx90p", "su"}
    assert [path.name for path in carried.files] == ["two.png"]  # a series has no map
    carried = carry(input="tasmax.nc", tn_input="tasmin.nc", pr_input="pr.nc", base="2000-2003", output="all.zarr")
    assert any("left out: gsl" in line for line in carried.lines)
    assert len(xr.open_zarr("all.zarr").data_vars) == 26
    build = grid.workload("climate.indices")
    with pytest.raises(MissingInputError, match="no daily minimum"):
        build(input="tasmax.nc", tn_input="pr.nc")
    with pytest.raises(ParameterError, match="base period 'never' isn't readable"):
        build(input="tasmax.nc", base="never")
    with pytest.raises(ParameterError, match="'cdd', isn't computed"):
        build(input="tasmax.nc", base="2000-2003", show="cdd")
    with pytest.raises(MissingInputError, match="no coordinate of dates"):
        xr.Dataset({"tx": (("time",), daily["tx"], {"units": "degC"})}).to_netcdf("dateless.nc")
        build(input="dateless.nc")
