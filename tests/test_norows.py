"""Tables without rows: written, opened again, and run to empty results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gridcompute as grid
from gridcompute.errors import CorruptInputError, GridError, MissingInputError

pytestmark = pytest.mark.usefixtures("own_folder")


@grid.kernel("()->()")
def double(x):
    return 2 * x


def ran(*what):
    return grid.run(*what, executor="inline")


@pytest.mark.parametrize("form", ["parquet", "arrow", "csv"])
@pytest.mark.parametrize("pattern", [False, True])
def test_a_table_without_rows_is_read_back(form, pattern):
    if form == "csv":
        Path("e").mkdir()
        Path("e/part-00000.csv").write_text("s,x\n")
        types = {"types": {"x": "float64"}}
    else:
        table = grid.from_arrays({"s": ["a", "b"], "x": [1.0, 2.0]})
        ran(table.filter(table["x"] > 5).write(f"e.{form}"))
        Path(f"e.{form}").rename("e")
        types = {}
    rows = grid.open_table(f"e/*.{form}" if pattern else f"e/part-00000.{form}", **types)
    assert str(rows.space) == "(row: ?)"
    again = rows.filter(rows["s"] == "a").write("again.parquet")
    run = ran(rows, rows["x"].map(double), again, rows["x"].reduce("sum"), rows[["x"]].sort("x"))
    assert run[0].to_arrow().schema.names == ["s", "x"]
    assert [run[i].to_arrow().num_rows for i in (0, 1, 4)] == [0, 0, 0]
    assert pq.read_table("again.parquet").num_rows == 0
    assert run[3].to_numpy() == 0
    with pytest.raises(MissingInputError):
        rows["nothing"]


def test_files_without_rows_among_others_count_nothing():
    for name, values in (("a", []), ("b", [1.5]), ("c", [])):
        pq.write_table(pa.table({"x": pa.array(values, pa.float64())}), f"{name}.parquet")
    assert ran(grid.open_table("*.parquet"))[0].to_numpy().tolist() == [1.5]


def test_a_file_that_has_got_rows_since_is_not_taken_for_empty():
    pq.write_table(pa.table({"x": pa.array([], pa.float64())}), "a.parquet")
    rows = grid.open_table("a.parquet")
    pq.write_table(pa.table({"x": np.arange(3.0)}), "a.parquet")
    with pytest.raises(GridError, match=r"a\.parquet.*changed since") as caught:
        ran(rows)
    assert isinstance(caught.value.__cause__ or caught.value, GridError | CorruptInputError)
