"""Rows in groups by their own columns, against pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import few

import gridcompute as grid
from gridcompute import axes, lower
from gridcompute.actions import shuffles
from gridcompute.errors import AlignmentError, DimensionError, MissingInputError, ParameterError


def frame_of(collection, **options) -> pd.DataFrame:
    return grid.run(collection, executor="inline", quiet=True, **options)[0].to_pandas()


REDUCTIONS = ("sum", "mean", "var", "min", "max", "count", "first", "last")
KEYS = {
    "i": (pa.int64(), st.none() | st.integers(-2, 2)),
    "f": (pa.float64(), st.none() | st.sampled_from([-1.0, -0.0, 0.0, 2.5, float("nan"), float("inf")])),
    "s": (pa.string(), st.none() | st.sampled_from(["", "a", "ab", "é"])),
    "b": (pa.bool_(), st.none() | st.booleans()),
}


@given(st.data())
@settings(max_examples=few(12), deadline=None)
def test_equal_to_pandas(tmp_path_factory, data):
    rows = data.draw(st.integers(1, 40))
    by = data.draw(st.lists(st.sampled_from(sorted(KEYS)), min_size=1, max_size=2, unique=True))
    columns = {
        name: pa.array(data.draw(st.lists(values, min_size=rows, max_size=rows)), kind)
        for name, (kind, values) in KEYS.items() if name in by
    }  # fmt: skip
    some = st.none() | st.integers(-5, 5)
    columns["x"] = pa.array(data.draw(st.lists(some, min_size=rows, max_size=rows)), pa.int32())
    halves = [None if n is None else n / 2 for n in data.draw(st.lists(some, min_size=rows, max_size=rows))]
    columns["y"] = pa.array(halves, pa.float32())
    how = data.draw(st.sampled_from(REDUCTIONS))
    table, parts = pa.table(columns), data.draw(st.integers(1, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRIDCOMPUTE_STATE", str(tmp_path_factory.mktemp("state")))
        patch.chdir(tmp_path_factory.getbasetemp())
        patch.setattr(axes, "CHUNK_BYTES", max(1, table.nbytes // data.draw(st.integers(1, 4))))  # chunks of the input
        patch.setattr(lower, "BUCKET_BYTES", max(1, table.nbytes // parts))  # buckets of the sort
        collection = grid.from_arrays(table)
        options = {"ddof": 1} if how == "var" else {}
        found = frame_of(getattr(collection.groupby(by if len(by) > 1 else by[0]), how)(**options))
    plain = table.to_pandas(types_mapper=pd.ArrowDtype)
    if "f" in by:
        plain["f"] = plain["f"].astype("float64")
    plain["x"], plain["y"] = plain["x"].astype("Int64"), plain["y"].astype("float64")
    wanted = getattr(plain.groupby(by), how)().reset_index()
    assert list(found.columns) == list(wanted.columns)
    for key in by:
        assert found[key].tolist() == wanted[key].tolist()
    for name in ("x", "y"):
        np.testing.assert_allclose(found[name].astype("float64"), wanted[name].astype("float64"), rtol=1e-12)


def test_many_rows_in_many_buckets(own_folder, monkeypatch):
    monkeypatch.setattr(lower, "BUCKET_BYTES", 20_000)
    monkeypatch.setattr(axes, "CHUNK_BYTES", 40_000)
    monkeypatch.setattr(shuffles, "SAMPLES", 16)
    rng = np.random.default_rng(1)
    table = {"k": rng.integers(0, 300, 20_000), "x": rng.normal(size=20_000)}
    grouped = grid.from_arrays(table).groupby("k").mean()
    stages = {stage["name"]: stage["chunks"] for stage in grid.plan(grouped).to_dict()["stages"]}
    assert [name for name, chunks in stages.items() if chunks == 1] == ["groupby mean: splitters"]
    found = frame_of(grouped)
    wanted = pd.DataFrame(table).groupby("k").mean().reset_index()
    assert found["k"].tolist() == wanted["k"].tolist()
    np.testing.assert_allclose(found["x"], wanted["x"], rtol=1e-12)


def test_one_or_two_workers_give_the_same(own_folder):
    table = {"k": np.arange(100) % 7, "x": np.linspace(0, 1, 100)}
    made = [frame_of(grid.from_arrays(table).groupby("k").var(), workers=n, store=f"work{n}") for n in (1, 2)]
    pd.testing.assert_frame_equal(*made)


def test_a_computed_column_gives_groups(own_folder):
    rows = grid.from_arrays({"k": np.arange(10), "s": [f"n{i % 2}" for i in range(10)]})
    found = frame_of(rows[["k"]].groupby(rows["k"] % 3).sum())
    assert found.to_dict("list") == {"group": [0, 1, 2], "k": [18, 12, 15]}
    named = rows.rename(s="group")
    assert frame_of(named.groupby(named["group"]).max()).to_dict("list") == {"group": ["n0", "n1"], "k": [8, 9]}
    assert frame_of(rows.groupby(rows["s"]).max()).to_dict("list") == {"s": ["n0", "n1"], "k": [8, 9]}
    counted = frame_of(rows.filter(rows["k"] > 2).groupby("k").count())
    assert counted.to_dict("list") == {"k": list(range(3, 10)), "s": [1] * 7}


def test_groups_are_rows_like_any(own_folder):
    rows = grid.from_arrays({
        "k": np.ma.array([2, 1, 2, 9], mask=[0, 0, 0, 1]), "t": np.array([5, 6, 7, 8], "datetime64[s]"),
        "v": np.ma.array([1, 2, 3, 4], mask=[0, 1, 0, 0]),
    })  # fmt: skip
    last = rows.groupby("k").max()
    assert [f.nullable for f in last.fields] == [False, True, True]
    found = grid.run(last, last.filter(last["k"] > 1).write("out.parquet"), executor="inline")[0].to_arrow()
    assert found.schema.field("t").type == pa.timestamp("s")
    assert found["v"].to_pylist() == [None, 3]
    assert grid.open_result("out.parquet").to_table()["k"].to_pylist() == [2]
    assert len(frame_of(rows[["k", "v"]].filter(rows["k"] > 99).groupby("k").sum())) == 0


def test_what_can_not_be_grouped_is_refused():
    rows = grid.from_arrays({"k": np.arange(3), "s": ["a", "b", "c"], "l": [[1], [2], []],
                             "t": np.zeros(3, "datetime64[s]")})  # fmt: skip
    cube = grid.from_arrays({"v": np.zeros((2, 3)), "w": np.zeros((2, 3))}, dims=("y", "x"))
    for make, error, says in [
        (lambda: rows.groupby("q").sum(), DimensionError, "no column or coordinate has this name\n.*k, s, l, t; "),
        (lambda: rows.groupby("t.year").sum(), DimensionError, "'t' is a column\n.*a kernel computes from 't'"),
        (lambda: cube.mean(dim="y"), ParameterError, r"keyword argument 'dim'\n.*: mean\('time'\)"),
        (lambda: rows.groupby(["k", "q"]).sum(), MissingInputError, "'q'"),
        (lambda: rows.groupby("l").count(), ParameterError, "'l' holds a list"),
        (lambda: rows.groupby("k").sum(), ParameterError, "'s' holds a string"),
        (lambda: rows[["k", "t"]].groupby("k").sum(), ParameterError, "'t' holds dates"),
        (lambda: rows[["k"]].groupby("k").sum(), ParameterError, "no column but"),
        (lambda: rows[["k", "t"]].groupby("k").argmax(), ParameterError, "argmax doesn't give one value"),
        (lambda: rows[["k", "t"]].groupby("k").reduce("topk", k=2), ParameterError, "topk doesn't give one value"),
        (lambda: rows.rename(s="group").groupby(rows["k"] % 2), ParameterError, "two columns 'group'"),
        (lambda: rows.filter(rows["k"] > 0).groupby(rows["k"]).count(), AlignmentError, "can't go together"),
        (lambda: cube.groupby("v").sum(), DimensionError, "groupby a column works on rows"),
    ]:
        with pytest.raises(error, match=says):
            make()
