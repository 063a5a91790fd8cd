"""Comparing columns with text, dates and sets of values."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gridcompute as grid
from gridcompute.errors import ParameterError

WORDS = st.none() | st.text("aé\x00𝄞", max_size=3)


@pytest.fixture(autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path_factory.mktemp("compare")
    monkeypatch.chdir(path)
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(path / "state"))
    return path


def arrow(*collections):
    run = grid.run(*collections, executor="inline")
    return [run[i].to_arrow() for i in range(len(collections))]


def only(table: pa.Table) -> list:
    return table.column(0).to_pylist()


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=9), st.lists(WORDS.filter(bool), max_size=3), WORDS)
@settings(max_examples=15, deadline=None)
def test_text_compares_as_in_pandas(cells, among, word):
    one, two = (pd.array(list(column), dtype="string[python]") for column in zip(*cells, strict=True))
    table = grid.from_arrays({"s": pa.array([c[0] for c in cells], pa.string()),
                              "t": pa.array([c[1] for c in cells], pa.string())})  # fmt: skip
    word = (word or "").rstrip("\0")  # pandas compares with a NumPy string, which ends before NULs
    found = arrow(table["s"] == word, table["s"] != word, table["s"] < word, table["s"] == table["t"],
                  table["s"] >= table["t"], table["s"].isin(among), table.filter(table["s"].isin(among)),
                  table.filter(~(table["s"] == word)))  # fmt: skip
    wanted = [one == word, one != word, one < word, one == two, one >= two]
    for ours, pandas in zip(found, wanted, strict=False):
        assert only(ours) == [None if v is pd.NA else bool(v) for v in pandas]
    among_them = pd.Series(one).isin(among)
    assert only(found[5]) == [None if c[0] is None else bool(v) for c, v in zip(cells, among_them, strict=True)]
    assert only(found[6]) == [c[0] for c, kept in zip(cells, among_them, strict=True) if kept]
    assert only(found[7]) == [c[0] for c in cells if c[0] is not None and c[0] != word]


@given(
    st.sampled_from(["i1", "i8", "u8", "f4", "f8", "?"]),
    st.lists(st.integers(0, 1) | st.integers(0, 127), min_size=1, max_size=8),
    st.lists(st.integers(-(2**70), 2**70) | st.integers(0, 127) | st.floats(allow_nan=False) | st.booleans(),
             max_size=4),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_isin_is_any_of_the_equalities(dtype, cells, among):
    values = np.array(cells).astype(dtype)
    table = grid.from_arrays({"v": np.ma.array(values, mask=np.arange(len(values)) % 3 == 2)})
    with np.errstate(all="ignore"):
        # As NumPy compares: a number beside an f4 is one of its precision.
        wanted = [any(bool(v == one) for one in among) for v in (values if dtype == "f4" else values.tolist())]
    assert only(arrow(table["v"].isin(among))[0]) == [None if i % 3 == 2 else w for i, w in enumerate(wanted)]


def test_floats_are_looked_for_in_their_own_precision():
    values = np.array([[0.1, np.nan], [2.0, np.inf]], "f4")
    run = grid.run(grid.from_arrays({"v": values}, dims=("y", "x"))["v"].isin([0.1, np.inf, 2]), executor="inline")
    np.testing.assert_array_equal(run[0].to_numpy(), [[True, False], [True, True]])


def test_dates_are_looked_for_and_read_so_in_plans():
    seen = np.array(["2003-01-01", "NaT", "2005-05-01T12:00"], "datetime64[us]")
    table = grid.from_arrays({"seen": seen, "k": np.arange(3)})
    asked = table["seen"].isin(["2003-01-01", dt.datetime(2005, 5, 1, 12), np.datetime64("1999-01-01T00:00:00.5")])
    late = table["seen"] >= "2003-02-01"
    assert [only(one) for one in arrow(asked, late)] == [[True, None, True], [False, None, True]]
    assert str(late.op.action) == "seen >= 2003-02-01"
    assert "seen >= 2003-02-01" in grid.plan(table.filter(late)).explain()
    assert str((table["k"] > 1).op.action) == "k > 1"


def test_plans_say_what_text_is_compared():
    table = grid.from_arrays({"s": ["a", "b"]})
    assert str((table["s"] == "a").op.action) == "s == 'a'"
    assert str(table["s"].isin(list("abc")).op.action) == "s.isin(['a', 'b', 'c'])"
    many = [table["s"].isin([*"abcdefg", last]).op.action for last in "xy"]
    assert str(many[0]) == "s.isin(['a', 'b', 'c', 'd', ...])"
    assert many[0].parts != many[1].parts
    assert table["s"].isin([]).op.action.key != table["s"].isin(["a"]).op.action.key


@pytest.mark.parametrize(("ask", "message", "hint"), [
    (lambda t: t["s"] == 5, "column 's' holds text, which == doesn't compare with 5", "'bern'"),
    (lambda t: t["s"] != t["k"], "doesn't compare with column 'k'", "text"),
    (lambda t: t["s"] == "\ud800", "isn't text", ""),
    (lambda t: t["s"] + "a", "no arithmetic on it", "kernel"),
    (lambda t: t["s"].isin(["a", 5]), "holds text, isin looks for 5", "text"),
    (lambda t: t["s"].isin("bern"), "isin takes several values, not 'bern'", "isin(['a', 'b'])"),
    (lambda t: t["k"].isin(t["k"]), "isin takes several values", "list"),
    (lambda t: t["k"].isin(["a"]), "column 'k' holds no times to go with 'a'", "number"),
    (lambda t: t["k"].isin([float("nan")]), "NaN equals nothing", "isnull"),
    (lambda t: t["k"].isin([None]), "doesn't compare with None", "numbers"),
    (lambda t: t["l"].isin([1]), "holds a list a cell", "kernel"),
    (lambda t: t["k"] == [1, 2], "no arithmetic with a list", "isin"),
    (lambda t: t["k"] == ("a", 2), "no arithmetic with a tuple", "isin"),
    (lambda t: t["d"] >= 2005, "column 'd' counts seconds since 1970-01-01.*: 2005 is no time", '"2005-01-01"'),
    (lambda t: t["d"] == np.int64(0), "counts seconds since", '"2005-01-01"'),
    (lambda t: t["d"].isin([2005]), "2005 is no time", '"2005-01-01"'),
    (lambda t: t["d"] - "2001-01-01" > 3, "counts seconds: 3 is no time", "timedelta64"),
])  # fmt: skip
def test_what_does_not_compare_is_refused(ask, message, hint):
    table = grid.from_arrays({"s": ["a"], "k": [1], "l": pa.array([[1]]), "d": np.array([0], "datetime64[s]")})
    with pytest.raises(ParameterError, match=message) as refused:
        ask(table)
    assert hint in (refused.value.hint or "")
