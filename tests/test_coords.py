"""Coordinates and calendars, compared with cftime and xarray on drawn dates and on real files."""

from __future__ import annotations

import pickle
from pathlib import Path

import cftime
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from gridcompute.calendar import ALIASES, TimeUnit, counted
from gridcompute.coords import SEASONS, Coordinate, aligned, components, concatenated, difference, select
from gridcompute.errors import AlignmentError, ParameterError

CALENDARS = ["standard", "proleptic_gregorian", "julian", "noleap", "all_leap", "360_day"]
UNITS = ["days", "hours", "minutes", "seconds"]


def time(values, unit="days since 2000-01-01", calendar="standard"):
    return Coordinate("time", "time", np.asarray(values, np.int64), unit, calendar)


@pytest.mark.filterwarnings("ignore::cftime.CFWarning")  # of years before the first
@given(
    st.sampled_from(CALENDARS),
    st.sampled_from(UNITS),
    st.lists(st.integers(-700_000, 700_000), min_size=1, max_size=20),
    st.tuples(st.integers(1, 3000), st.integers(1, 12), st.integers(1, 28), st.integers(0, 23)),
)
def test_components_are_cftimes(calendar, unit, counts, reference):
    year, month, day, hour = reference
    if calendar == "standard" and year == 1582:
        year = 1583
    if unit == "days" and year < 1950:
        counts = [abs(count) for count in counts]  # stay in years that every calendar of cftime has
    units = f"{unit} since {year:04d}-{month}-{day} {hour}:00:00"
    dates = cftime.num2date(np.array(counts), units, calendar=calendar)
    if any(date.year < 1 for date in dates):
        return
    c = time(counts, units, calendar)
    for part, own in [
        ("year", "year"),
        ("month", "month"),
        ("day", "day"),
        ("hour", "hour"),
        ("minute", "minute"),
        ("second", "second"),
        ("dayofyear", "dayofyr"),
    ]:
        assert components(c, part).tolist() == [getattr(date, own) for date in dates], part
    labels = c.labels()
    if labels.dtype == object:
        assert labels.tolist() == dates.tolist()


@pytest.mark.parametrize("calendar", CALENDARS)
def test_seasons_are_xarrays(calendar):
    values = np.arange(0, 800, 9)
    seen = xr.decode_cf(
        xr.Dataset(
            coords={"time": ("time", values, {"units": "days since 2001-01-01", "calendar": calendar})}
        )
    )
    codes = components(time(values, "days since 2001-01-01", calendar), "season")
    assert [SEASONS[code] for code in codes] == seen.time.dt.season.values.tolist()
    assert codes.dtype == np.int64


@pytest.mark.parametrize(("unit", "calendar", "micros"), [
    ("days since 1970-01-02", "standard", 86_400_000_000),
    ("hours since 1970-1-1 00:00:0.0", "gregorian", 0),
    ("seconds since 1970-01-01T01:00:00Z", "noleap", 3_600_000_000),
    ("seconds since 1970-01-01 01:00 +01:00", "proleptic_gregorian", 0),
    ("seconds since 1970-01-01 00:00:00 -0130", "standard", 5_400_000_000),
    ("months since 1970-02-01", "360_day", 30 * 86_400_000_000),
    ("days since 1970-02-30", "360_day", 59 * 86_400_000_000),
])  # fmt: skip
def test_units_are_read(unit, calendar, micros):
    assert TimeUnit.parse(unit, calendar).origin == micros


@pytest.mark.parametrize(("unit", "calendar"), [
    ("months since 1958-1-1", "standard"), ("days since 2001-02-30", "standard"), ("days since", "standard"),
    ("K", "standard"), ("days since 2001-02-29", "noleap"), ("days since 2001-01-01", "lunar"),
    ("days since 1582-10-10", "standard"), ("days since 2001-13-01", "standard"), ("", ""),
])  # fmt: skip
def test_what_is_no_time_unit(unit, calendar):
    assert TimeUnit.parse(unit, calendar) is None


@given(
    st.lists(st.integers(-(10**7), 10**7), min_size=1, max_size=10), st.sampled_from([1, 2, 24, 1440, 86400])
)
def test_float_times_are_counted_exactly(counts, parts):
    unit = TimeUnit.parse("days since 2000-01-01", "standard")
    values, finer = counted(np.array(counts, float) / parts, unit)
    exact = np.array(counts, object) * 86_400_000_000
    assert [
        (micros - unit.origin) * parts for micros in finer.micros(values).tolist()
    ] == exact.tolist() or parts > 1440
    assert (values / float(unit.size / finer.size) == np.array(counts) / parts).all()


def test_float_times_that_cannot_be_counted():
    unit = TimeUnit.parse("days since 2000-01-01", "standard")
    assert counted(np.array([1.0, np.nan]), unit) is None
    assert counted(np.array([1e300]), unit) is None
    plain = Coordinate.of_cf("time", "time", np.array([1.0, np.nan]), {"units": "days since 2000-01-01"})
    assert not plain.is_time
    assert dict(plain.attrs) == {"units": '"days since 2000-01-01"'}


@pytest.mark.filterwarnings("ignore::xarray.SerializationWarning")
def test_real_files_give_xarrays_labels(data_dir: Path):
    seen = 0
    for path in sorted((data_dir / "climate").glob("*.nc")):
        raw = xr.open_dataset(path, decode_times=False)
        try:
            decoded = xr.open_dataset(path)
        except ValueError:
            continue  # months since, which xarray can't decode either
        for name, variable in raw.coords.items():
            if variable.ndim != 1:
                continue
            c = Coordinate.from_xarray(name, variable)
            back = c.to_xarray()
            expected = decoded[name]
            if expected.dtype.kind in "mM" or expected.dtype == object:
                if c.is_time:
                    seen += 1
                    wanted, got = expected.values, c.labels()
                    if wanted.dtype.kind == "M":
                        wanted = wanted.astype("datetime64[us]")
                    assert got.tolist() == wanted.tolist(), (path, name)
                    assert back.values.astype(wanted.dtype).tolist() == wanted.tolist()
                    assert components(c, "dayofyear").tolist() == expected.dt.dayofyear.values.tolist()
            else:
                np.testing.assert_array_equal(back.values, expected.values)
        decoded.close()
        raw.close()
    assert seen > 10


def test_from_decoded_xarray():
    days = np.array(["2001-01-01", "2001-01-02T12:00"], "datetime64[ns]")
    c = Coordinate.from_xarray("time", xr.Variable("time", days))
    assert c.is_time
    assert c.labels().tolist() == days.astype("datetime64[us]").tolist()
    dates = xr.date_range("2001-02-01", periods=3, calendar="360_day", use_cftime=True)
    c = Coordinate.from_xarray("time", xr.Variable("time", dates))
    assert c.time_unit.calendar == "360_day"
    assert c.labels().tolist() == dates.values.tolist()
    names = Coordinate.from_xarray("x", xr.Variable("x", np.array(["a", "bcd"], object)))
    assert names.values.tolist() == ["a", "bcd"]
    assert Coordinate.from_xarray("x", xr.Variable("x", np.array([1, None], object))) is None
    assert Coordinate.from_xarray("x", xr.Variable((), 1)) is None


def test_equality_is_of_content():
    a = Coordinate("x", "x", np.array([1.0, np.nan]))
    b = Coordinate("x", "x", np.array([1.0, -np.nan]))
    assert a == b
    assert hash(a) == hash(b)
    assert a == pickle.loads(pickle.dumps(a))
    assert a != Coordinate("x", "x", np.array([1.0, 2.0]))
    assert a != Coordinate("y", "x", a.values)
    assert a != Coordinate("x", "x", a.values.astype(np.float32))
    assert Coordinate("x", "x", np.array(["a"], "U1")) == Coordinate("x", "x", np.array(["a"], "U9"))
    assert a != 3


@given(
    st.lists(st.integers(-50, 50), unique=True, min_size=1),
    st.integers(-60, 60),
    st.integers(-60, 60),
    st.booleans(),
)
def test_select_is_pandas(labels, low, high, falling):
    values = np.array(sorted(labels, reverse=falling))
    c = Coordinate("x", "x", values)
    index = xr.DataArray(np.arange(len(values)), dims="x", coords={"x": values})
    if falling:
        low, high = max(low, high), min(low, high)
    got = select(c, slice(low, high))
    assert list(got) == index.sel(x=slice(low, high)).values.tolist()
    assert list(select(c, slice(None, high))) == index.sel(x=slice(None, high)).values.tolist()
    if low in labels:
        assert select(c, low) == int(index.sel(x=low))
    else:
        with pytest.raises(ParameterError, match="nowhere"):
            select(c, low)


def test_select_of_other_types():
    assert select(Coordinate("x", "x", np.array([0.1, 0.2], np.float32)), 0.1) == 0
    assert select(Coordinate("x", "x", np.array(["a", "b"])), "b") == 1
    assert select(Coordinate("x", "x", np.array(["a", "b", "c"])), slice("b", None)) == range(1, 3)
    with pytest.raises(ParameterError, match="2 times"):
        select(Coordinate("x", "x", np.array([3, 3])), 3)
    with pytest.raises(ParameterError, match="order"):
        select(Coordinate("x", "x", np.array([3, 1, 2])), slice(1, 2))
    with pytest.raises(ParameterError, match="not 'a'"):
        select(Coordinate("x", "x", np.array([3, 1])), "a")
    with pytest.raises(ParameterError, match="step"):
        select(Coordinate("x", "x", np.array([1, 2])), slice(1, 2, -1))
    with pytest.raises(ParameterError, match="nearest label is 3"):
        select(Coordinate("x", "x", np.array([1, 3])), 4)


def test_select_of_times():
    c = time(np.arange(0, 800))
    assert select(c, "2000-03-01") == 60
    assert select(c, "2001") == range(366, 731)
    assert select(c, "2000-02") == range(31, 60)
    assert select(c, slice("2000-02", "2000-03-01")) == range(31, 61)
    assert select(c, np.datetime64("2000-01-03")) == 2
    assert select(c, cftime.datetime(2000, 1, 3, calendar="standard")) == 2
    hourly = time(np.arange(48), "hours since 2000-01-01")
    assert select(hourly, "2000-01-02") == range(24, 48)
    assert select(hourly, "2000-01-02T03:00") == 27
    with pytest.raises(ParameterError, match="nowhere"):
        select(c, "1999")
    with pytest.raises(ParameterError, match="isn't a date"):
        select(c, "soon")
    with pytest.raises(ParameterError, match="holds times"):
        select(c, 5)
    with pytest.raises(ParameterError, match="calendar"):
        select(c, cftime.datetime(2000, 1, 3, calendar="noleap"))
    assert select(time(range(360), "days since 2000-01-01", "360_day"), "2000-02-30") == 59


def test_alignment():
    days, hours = time([1, 2]), time([24, 48], "hours since 2000-01-01")
    assert aligned(days, hours)
    assert not aligned(days, time([1, 3]))
    assert "2000-01-03" in difference(days, time([1, 3]))
    assert "calendar" in difference(days, time([1, 2], calendar="noleap"))
    assert aligned(days, time([1, 2], calendar="proleptic_gregorian"))
    assert "2 labels here and 1 there" in difference(days, time([1]))
    x = Coordinate("x", "x", np.array([1.0, np.nan]))
    assert aligned(x, Coordinate("x", "x", np.array([1.0, np.nan])))
    assert "times" in difference(x, days)
    assert difference(x, Coordinate("x", "x", np.array(["a", "b"])))


def test_concatenation():
    both = concatenated([time([0, 1]), time([0, 12], "hours since 2001-01-01")])
    assert both.unit.startswith("hours since 2000-01-01")
    assert [str(label) for label in both.labels()[2:]] == [
        "2001-01-01T00:00:00.000000",
        "2001-01-01T12:00:00.000000",
    ]
    assert concatenated([time([0]), time([1])]).values.tolist() == [0, 1]
    with pytest.raises(AlignmentError):
        concatenated([time([0]), time([0], calendar="noleap")])
    with pytest.raises(AlignmentError):
        concatenated([Coordinate("x", "x", np.array([1])), Coordinate("x", "x", np.array(["a"]))])


@pytest.mark.parametrize("values", [np.zeros((2, 2)), np.array([None]), np.array([1j])])
def test_what_is_no_coordinate(values):
    with pytest.raises(ParameterError):
        Coordinate("x", "x", values)
    with pytest.raises(ParameterError, match="is no time"):
        Coordinate("x", "x", np.array([1.5]), "days since 2000-01-01", "standard")
    with pytest.raises(ParameterError, match="isn't a time"):
        components(Coordinate("x", "x", np.array([1])), "month")
    with pytest.raises(ParameterError, match="no part"):
        components(time([1]), "fortnight")


def test_every_alias_is_known():
    assert set(ALIASES.values()) == set(CALENDARS)


def test_taken_and_renamed():
    c = time([5, 6, 7])
    assert c.taken(slice(1, None)).values.tolist() == [6, 7]
    assert c.taken(range(0, 3, 2)).values.tolist() == [5, 7]
    assert (c.renamed("t").dim, c.renamed("t").name) == ("t", "t")
    assert Coordinate("x", "lat", np.array([1])).renamed("y").name == "lat"
    assert len(c) == 3


@pytest.mark.parametrize("gap", [-(2**63), 2**62])
def test_times_that_are_missing_or_beyond_int64_are_plain_numbers(gap):
    found = Coordinate.of_cf("time", "time", np.array([0, gap, 60]), {"units": "days since 2000-01-01"})
    assert not found.is_time
    with pytest.raises(ParameterError, match="isn't a time") as error:
        components(found, "month")
    assert "missing" in str(error.value)
    assert Coordinate.of_cf("time", "time", np.empty(0, np.int64), {"units": "days since 2000-01-01"}).is_time
