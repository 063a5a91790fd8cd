"""Nulls and NaN: found, dropped, filled; and what kernels then take."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import few

import gridcompute as grid
from gridcompute.errors import DimensionError, MissingInputError, ParameterError, UsageError


@grid.kernel("()->()")
def half(k):
    return k // 2


@grid.kernel("(n)->()")
def length(text):
    return len(text)


def arrow(*collections):
    run = grid.run(*collections, executor="inline")
    found = [run[i].to_arrow() for i in range(len(collections))]
    return found if len(found) > 1 else found[0]


def test_whole_numbers_of_csv_reach_a_kernel(own_folder):
    Path("a.csv").write_text("k,x\n4,1.5\n,2.5\n9,\n")
    rows = grid.open_table("a.csv")
    with pytest.raises(UsageError, match=r"'k' \(int64\) may have nulls.*") as refused:
        rows["k"].map(half)
    assert "dropna('k')" in refused.value.hint
    assert "fillna(0)" in refused.value.hint
    dropped, filled = rows.dropna("k"), rows["k"].fillna(0)
    assert not dropped.fields[0].nullable
    assert dropped.fields[1].nullable
    halves, zeros, both, after = arrow(
        dropped["k"].map(half), filled.map(half), rows.dropna(), rows.filter(rows["k"] > 4).dropna("k")["k"].map(half)
    )
    assert halves["half"].to_pylist() == [2, 4]
    assert zeros["half"].to_pylist() == [2, 0, 4]
    assert both.to_pylist() == [{"k": 4, "x": 1.5}]
    assert after["half"].to_pylist() == [4]


def test_text_with_nulls_is_refused_in_its_own_words(own_folder):
    rows = grid.from_arrays({"s": ["a", None, "ccc"], "l": pa.array([[1], None, []], pa.list_(pa.int32()))})
    with pytest.raises(UsageError, match=r"'s' \(string\) may have nulls") as refused:
        rows["s"].map(length)
    assert "fillna" not in refused.value.hint
    with pytest.raises(UsageError, match=r"'l' \(list of int32\) may have nulls"):
        rows["l"].map(length)
    found = arrow(rows.dropna("s")["s"].map(length))
    assert found["length"].to_pylist() == [1, 3]


@given(
    st.lists(st.tuples(st.none() | st.integers(-3, 3), st.none() | st.floats(-3, 3) | st.just(np.nan),
                       st.none() | st.text("ab", max_size=2), st.none() | st.booleans()), min_size=1, max_size=12),
    st.sampled_from([None, "i", "f", "s", ["i", "s"], ["b", "f"]]),
)  # fmt: skip
@settings(max_examples=few(10), deadline=None)
def test_equal_to_pandas(tmp_path_factory, cells, on):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRIDCOMPUTE_STATE", str(tmp_path_factory.mktemp("state")))
        patch.chdir(tmp_path_factory.getbasetemp())
        kinds = {"i": pa.int64(), "f": pa.float64(), "s": pa.string(), "b": pa.bool_()}
        columns = zip(zip(*cells, strict=True), kinds.values(), strict=True)
        table = pa.table([pa.array(list(column), kind) for column, kind in columns], list(kinds))
        rows, frame = grid.from_arrays(table), table.to_pandas(types_mapper=pd.ArrowDtype)
        frame["f"] = frame["f"].astype("float64")
        kept = frame.dropna(subset=[on] if isinstance(on, str) else on)
        run = grid.run(rows.dropna(on), *(rows[name].isnull() for name in kinds), *(rows[n].notnull() for n in kinds),
                       rows["i"].fillna(7), rows["f"].fillna(0.5), rows["b"].fillna(True), executor="inline")
        found = run[0].to_arrow()
        for name in kinds:
            got = found[name].to_pylist()
            assert [x if x == x else None for x in got] == [None if pd.isna(x) else x for x in kept[name].tolist()]
        for i, name in enumerate(kinds):
            assert run[1 + i].to_numpy().tolist() == frame[name].isna().tolist()
            assert run[5 + i].to_numpy().tolist() == frame[name].notna().tolist()
        for i, (name, value) in enumerate({"i": 7, "f": 0.5, "b": True}.items()):
            assert run[9 + i].to_numpy().tolist() == frame[name].fillna(value).tolist()


def test_grids_and_dates_are_filled_too(own_folder):
    masked = np.ma.array(np.arange(6).reshape(2, 3), mask=[[0, 1, 0], [1, 0, 0]])
    cube = grid.from_arrays({"v": masked}, dims=("y", "x"))
    days = grid.from_arrays({"d": np.array(["2001-05-01", "NaT"], "datetime64[s]")})["d"]
    run = grid.run(cube["v"].fillna(-1), cube["v"].isnull(), days.fillna(dt.date(1999, 1, 1)), executor="inline")
    assert run[0].to_numpy().tolist() == [[0, -1, 2], [-1, 4, 5]]
    assert run[1].to_numpy().tolist() == [[False, True, False], [True, False, False]]
    assert run[2].to_numpy().astype(str).tolist() == ["2001-05-01T00:00:00", "1999-01-01T00:00:00"]


def test_what_does_not_fit_is_refused():
    rows = grid.from_arrays({"i": np.arange(3), "s": ["a", None, "c"]})
    cube = grid.from_arrays({"v": np.zeros((2, 3))}, dims=("y", "x"))
    for value in (0.5, None, "x", 2**70):
        with pytest.raises(ParameterError, match="'i'"):
            rows["i"].fillna(value)
    with pytest.raises(ParameterError, match="string a cell") as refused:
        rows["s"].fillna(0)
    assert "dropna('s')" in refused.value.hint
    with pytest.raises(MissingInputError, match="'q'"):
        rows.dropna("q")
    with pytest.raises(DimensionError, match="one dimension"):
        cube.dropna()
    with pytest.raises(ParameterError, match="one column"):
        rows.isnull()
