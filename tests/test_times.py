"""Columns of times: whole numbers with CF attributes inside, NumPy's and Arrow's own times at the ends."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import gridcompute as grid
from gridcompute.columns import Field
from gridcompute.errors import AlignmentError, ParameterError
from gridcompute.times import TimeType, date_attrs, length_attrs

TABLE = pa.table({
    "k": pa.array([3, 1, 2, 2]),
    "s": pa.array([1, None, -5, 2**40], pa.timestamp("us")),
    "ns": pa.array([1, 2**60 + 1, -5, 0], pa.timestamp("ns")),
    "z": pa.array([1, 2, 3, None], pa.timestamp("ms", "Europe/Berlin")),
    "d": pa.array([1, 2, None, -9], pa.date32()),
    "u": pa.array([1, 2, None, 3], pa.duration("ms")),
    "t": pa.array([1, 2, 3, None], pa.time64("us")),
    "m": pa.array([1000, 2, 3, None], pa.time32("ms")),
    "l": pa.array([[1], [2, 3], None, []], pa.list_(pa.timestamp("ms"))),
})  # fmt: skip


def ran(*what):
    return grid.run(*what, executor="inline")


def arrow(collection):
    return ran(collection)[0].to_arrow()


def same(found: pa.Table, wanted: pa.Table) -> None:
    for name in wanted.column_names:
        kind = wanted[name].type
        large = pa.large_list(kind.value_type) if pa.types.is_list(kind) else kind
        assert str(found[name].type).replace("element", "item") == str(large), name
        assert found[name].to_pylist() == wanted[name].to_pylist(), name


@pytest.mark.parametrize("write", [
    lambda: pq.write_table(TABLE, "in.parquet"),
    lambda: pa.feather.write_feather(TABLE, "in.arrow"),
], ids=["parquet", "arrow"])  # fmt: skip
def test_times_of_a_table_stay_times(own_folder, write):
    write()
    rows = grid.open_table(next(p.name for p in own_folder.iterdir() if p.name.startswith("in.")))
    run = ran(
        rows.sort("k"), rows.filter(rows["k"] > 1), rows.take([2, 0], "row"), grid.concat([rows, rows], "row"),
        rows.shuffle("k"), rows.filter(rows["k"] > 1).write("out.parquet"), rows.write("out.arrow"),
    )  # fmt: skip
    same(run[0].to_arrow(), TABLE.take([1, 2, 3, 0]))
    same(run[1].to_arrow(), TABLE.take([0, 2, 3]))
    same(run[2].to_arrow(), TABLE.take([2, 0]))
    same(run[3].to_arrow(), pa.concat_tables([TABLE, TABLE]))
    same(run[4].to_arrow().sort_by("ns"), TABLE.sort_by("ns"))
    same(grid.open_result("out.parquet").to_table(), TABLE.take([0, 2, 3]))
    same(grid.open_result("out.arrow").to_table(), TABLE)
    written = pq.read_schema(next((own_folder / "out.parquet").glob("*.parquet")))
    assert not written.field("s").metadata or b"units" not in written.field("s").metadata
    frame = run[1].to_pandas()
    assert frame["s"].dtype == "datetime64[us]"
    assert str(frame["z"].dtype) == "datetime64[ms, Europe/Berlin]"


def test_times_of_csv_stay_times(own_folder):
    Path("a.csv").write_text("day,at\n2001-05-01,2001-05-01 12:30:00\n,2001-05-02 00:00:00\n")
    rows = grid.open_table("a.csv")
    table = arrow(rows.filter(rows["at"] >= "2001-05-01"))
    assert table.schema.field("day").type == pa.date32()
    assert table.schema.field("at").type == pa.timestamp("s")
    assert table["day"].to_pylist() == [dt.date(2001, 5, 1), None]
    assert table["at"].to_pylist() == [dt.datetime(2001, 5, 1, 12, 30), dt.datetime(2001, 5, 2)]


def test_numpy_and_xarray_have_their_own_times(own_folder):
    pq.write_table(TABLE, "in.parquet")
    rows = grid.open_table("in.parquet")
    run = ran(rows[["s", "u", "k", "d"]], rows["s"])
    dataset = run[0].to_xarray()
    assert dataset.s.dtype == "datetime64[us]"
    assert dataset.u.dtype == "timedelta64[ms]"
    assert dataset.d.dtype.kind == "M"
    np.testing.assert_array_equal(dataset.s.values, np.array([1, "NaT", -5, 2**40], "datetime64[us]"))
    np.testing.assert_array_equal(dataset.s[3:].values, np.array([2**40], "datetime64[us]"))
    assert "units" not in dataset.s.attrs
    np.testing.assert_array_equal(run[1].to_numpy(), dataset.s.values)


def test_zarr_holds_times_as_xarray_writes_them(own_folder):
    pq.write_table(TABLE, "in.parquet")
    rows = grid.open_table("in.parquet")[["k", "s", "d", "u"]]
    ran(rows.write("out.zarr"))
    dataset = grid.open_result("out.zarr").load()
    np.testing.assert_array_equal(dataset.s.values, np.array([1, "NaT", -5, 2**40], "datetime64[us]"))
    np.testing.assert_array_equal(dataset.d.values, np.array([1, 2, "NaT", -9], "datetime64[D]"))
    np.testing.assert_array_equal(dataset.u.values, np.array([1, 2, "NaT", 3], "timedelta64[ms]"))
    back = grid.open_zarr("out.zarr")
    same(arrow(back), TABLE.select(["k", "s", "d", "u"]))


def test_kernels_see_the_numbers(own_folder):
    @grid.kernel("()->()")
    def plain(t):
        return t + 1

    rows = grid.from_arrays({"t": np.array([5, 7], "datetime64[s]")})
    table = arrow(rows.map(plain))
    assert table["plain"].type == pa.int64()
    assert table["plain"].to_pylist() == [6, 8]


@pytest.mark.parametrize("dtype", ["datetime64[D]", "datetime64[h]", "datetime64[25s]", "datetime64[ns]",
                                   "timedelta64[m]", "timedelta64[us]", "timedelta64[D]"])  # fmt: skip
def test_arrays_in_memory_come_back_as_the_times_they_were(own_folder, dtype):
    values = np.array([3, "NaT", 70, -2], dtype)
    run = ran(grid.from_arrays({"t": values}).take([1, 0, 3], "row"))
    np.testing.assert_array_equal(run["t"].to_numpy(), values[[1, 0, 3]])
    assert run["t"].to_numpy().dtype.kind == values.dtype.kind
    assert run["t"].to_arrow()["t"].null_count == 1


@given(
    st.lists(st.integers(-(10**4), 10**4), min_size=1, max_size=6),
    st.sampled_from(["days", "hours", "minutes", "seconds", "milliseconds", "microseconds"]),
    st.sampled_from(["1970-01-01", "2000-02-29 06:30:00", "1850-01-01", "1999-12-31 23:59:59.25"]),
)
def test_units_are_decoded_as_xarray_does(counts, units, reference):
    attrs = {"units": f"{units} since {reference}", "calendar": "proleptic_gregorian"}
    field = Field("t", ("row",), np.dtype(np.int64), attrs=tuple((k, f'"{v}"') for k, v in sorted(attrs.items())))
    kind = TimeType.of(field)
    assert kind is not None
    decoded = xr.conventions.decode_cf_variable("t", xr.Variable("row", np.array(counts), attrs)).values
    np.testing.assert_array_equal(kind.to_numpy(np.array(counts)).astype("datetime64[us]"),
                                  decoded.astype("datetime64[us]"))


def test_what_has_no_such_type_stays_numbers():
    def kind(attrs, dtype=np.int64):
        return TimeType.of(Field("t", ("row",), np.dtype(dtype), attrs=attrs))

    noleap = (("calendar", '"noleap"'), ("units", '"days since 2000-01-01"'))
    assert kind(noleap) is None
    assert kind(date_attrs("s"), np.float64) is None
    assert kind(()) is None
    assert kind((("units", '"seconds"'),)) is None, "a unit alone doesn't make a duration"
    assert kind(length_attrs("s")).dtype == "timedelta64[s]"
    assert kind(date_attrs("s", "local")).timezone == ""
    assert kind(date_attrs("s", "+05:30")).timezone == "+05:30"
    assert kind((*date_attrs("s"), ("dtype", "3"))).kind == "timestamp"
    with pytest.raises(ParameterError, match="beyond"):
        kind(date_attrs("D")).counts(np.array([2**60]))


def times():
    return grid.from_arrays({
        "s": pa.array([10, None, 86_400 * 20], pa.timestamp("s")), "ms": pa.array([1, 2, 3], pa.timestamp("ms")),
        "u": pa.array([1, 2, 4], pa.duration("s")), "d": pa.array([1, None, 3], pa.date32()), "k": np.arange(3),
        "z": pa.array([1, 2, 3], pa.timestamp("s", "Asia/Tokyo")),
    })  # fmt: skip


def test_arithmetic_keeps_the_unit(own_folder):
    rows, day = times(), 86_400
    s, u = rows["s"], rows["u"]
    known = {
        "difference": (s - dt.datetime(1970, 1, 1), pa.duration("s"), [10, None, day * 20]),
        "reverse": (np.datetime64("1970-01-02") - s, pa.duration("s"), [day - 10, None, -day * 19]),
        "columns": (s - s, pa.duration("s"), [0, None, 0]),
        "moved": (s + u, pa.timestamp("s"), [11, None, day * 20 + 4]),
        "back": (s - dt.timedelta(seconds=3), pa.timestamp("s"), [7, None, day * 20 - 3]),
        "number": (1 + s, pa.timestamp("s"), [11, None, day * 20 + 1]),
        "twice": (u * 2, pa.duration("s"), [2, 4, 8]),
        "total": (u + u, pa.duration("s"), [2, 4, 8]),
        "rest": (s % day, pa.int64(), [10, None, 0]),
        "ratio": (u // u, pa.int64(), [1, 1, 1]),
        "later": (s > "1970-01-02", pa.bool_(), [False, None, True]),
        "equal": (s == pd.Timestamp("1970-01-01 00:00:10"), pa.bool_(), [True, None, False]),
        "date": (rows["d"] <= dt.date(1970, 1, 2), pa.bool_(), [True, None, False]),
        "noon": (rows["d"] < dt.datetime(1970, 1, 2, 12), pa.bool_(), [True, None, False]),
        "long": (u >= np.timedelta64(2000, "ms"), pa.bool_(), [False, True, True]),
        "zone": (rows["z"] == dt.datetime(1970, 1, 1, 9, 0, 1, tzinfo=dt.timezone(dt.timedelta(hours=9))), pa.bool_(),
                 [True, False, False]),
    }  # fmt: skip
    run = ran(*(c.rename(**{next(iter(c.columns)): name}) for name, (c, _, _) in known.items()))
    for i, (name, (_, kind, wanted)) in enumerate(known.items()):
        column = run[i].to_arrow()[name]
        assert column.type == kind, name
        assert column.combine_chunks().to_pylist() == pa.array(wanted).cast(kind).to_pylist(), name


@pytest.mark.parametrize(("make", "says"), [
    (lambda r: r["s"] + r["s"], "can't be added"),
    (lambda r: r["s"] - r["ms"], "seconds since .* and milliseconds since"),
    (lambda r: r["s"] < r["ms"], "seconds since .* and milliseconds since"),
    (lambda r: r["s"] < r["u"], "seconds since .* and seconds"),
    (lambda r: r["u"] - r["s"], "from a duration"),
    (lambda r: r["d"] + dt.timedelta(hours=1), "whole days"),
    (lambda r: r["k"] > np.datetime64("2020-01-01"), "no times"),
    (lambda r: r["u"] > "2020-01-01", "holds durations"),
    (lambda r: r["s"] > "2020-02-30", "isn't a date"),
    (lambda r: r["s"] > np.datetime64("NaT"), "isnull"),
    (lambda r: r["u"] > np.timedelta64(1, "M"), "no fixed length"),
    (lambda r: r["s"].sum(), "can't be added up"),
])  # fmt: skip
def test_times_that_do_not_go_together_are_refused(make, says):
    with pytest.raises(ParameterError, match=says):
        make(times())


def test_reductions_keep_the_unit(own_folder):
    rows = times()
    day = 86_400
    run = ran(rows["s"].min(), rows["s"].max(), rows["u"].sum(), rows["s"].count(), rows["s"].mean(), rows["d"].max(),
              rows["u"].groupby([0, 0, 1], dim="row").max())
    found = [run[i].to_arrow().column(0) for i in range(7)]
    assert [c.type for c in found] == [pa.timestamp("s"), pa.timestamp("s"), pa.duration("s"), pa.int64(),
                                       pa.float64(), pa.date32(), pa.duration("s")]  # fmt: skip
    assert found[0].to_pylist() == [dt.datetime(1970, 1, 1, 0, 0, 10)]
    assert found[1].to_pylist() == [dt.datetime(1970, 1, 21)]
    assert found[2].to_pylist() == [dt.timedelta(seconds=7)]
    assert found[3].to_pylist() == [2]
    assert found[4].to_pylist() == [5 + day * 10.0]
    assert found[5].to_pylist() == [dt.date(1970, 1, 4)]
    assert found[6].to_pylist() == [dt.timedelta(seconds=2), dt.timedelta(seconds=4)]


def test_parts_that_count_times_differently_are_refused(own_folder):
    rows = times()
    with pytest.raises(AlignmentError, match="'s' of part 1"):
        grid.concat([rows[["s"]], rows[["ms"]].rename(ms="s")], "row")
    for name, unit in (("a.parquet", "ms"), ("b.parquet", "us")):
        pq.write_table(pa.table({"t": pa.array([1], pa.timestamp(unit))}), name)
    with pytest.raises(AlignmentError, match="'t' counts times"):
        grid.open_table(["a.parquet", "b.parquet"])


def test_the_unit_is_part_of_what_an_output_is(own_folder):
    for unit in ("s", "ms"):
        run = ran(grid.from_arrays({"t": np.array([1, 2], f"datetime64[{unit}]")}).take([1], "row"))
        assert run["t"].to_numpy().dtype == f"datetime64[{unit}]", "shards of the same numbers"
    for unit, wanted in (("s", dt.datetime(1970, 1, 1, 0, 0, 1)), ("ms", dt.datetime(1970, 1, 1, 0, 0, 0, 1000))):
        rows = grid.from_arrays({"t": np.array([1, 2], f"datetime64[{unit}]")})
        ran(rows.write("out.parquet", overwrite=True))
        assert grid.open_result("out.parquet").to_table()["t"].to_pylist()[0] == wanted
