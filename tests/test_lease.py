from __future__ import annotations

import uuid
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fixtures_s3 import S3, s3, s3_endpoint  # noqa: F401

import gridcompute as grid
from gridcompute.deliveries import Deliveries
from gridcompute.errors import LeaseError, StoreError
from gridcompute.lease import Lease
from gridcompute.planning import Plan
from gridcompute.running import graph_of
from gridcompute.store import open_store


@pytest.fixture(params=["memory", "local", "s3"])
def place(request, tmp_path):
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/out/trend.zarr", {}
    if request.param == "local":
        return str(tmp_path / "out" / "trend of t.zarr"), {}
    made = request.getfixturevalue("s3")
    return made.url + "/trend.zarr", made.options


def test_one_recipe_holds_an_output(place):
    output, options = place
    assert Lease.held(output, options=options) is None
    first = Lease.acquire(output, "a" * 32, run="quiet-owl", now=5.0, options=options)
    again = Lease.acquire(output, "a" * 32, run="other", now=9.0, options=options)
    assert again == first
    assert again.run == "quiet-owl"
    with pytest.raises(LeaseError, match="quiet-owl") as caught:
        Lease.acquire(output, "b" * 32, options=options)
    assert output in caught.value.message
    assert "overwrite=True" in caught.value.hint
    again.release()
    first.release()
    second = Lease.acquire(output, "b" * 32, options=options)
    first.release()  # another recipe's by now
    assert Lease.held(output, options=options) == second


def test_race_of_recipes(tmp_path):
    def take(n):
        try:
            return Lease.acquire(tmp_path / "o", str(n) * 32)
        except LeaseError:
            return None

    with ThreadPoolExecutor(9) as pool:
        held = [lease for lease in pool.map(take, range(9)) if lease]
    assert len(held) == 1


def test_readers_do_not_stumble(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    import xarray as xr

    zarr, parquet = tmp_path / "o.zarr", tmp_path / "tables"
    for output in (zarr, parquet, parquet / "part.parquet"):
        Lease.acquire(output, "a" * 32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = xr.Dataset({"a": ("x", np.arange(3))})
        data.to_zarr(zarr, consolidated=False, zarr_format=2)
        assert xr.open_zarr(zarr, consolidated=False).equals(data)
    table = pa.table({"a": [1, 2]})
    pq.write_table(table, parquet / "part.parquet")
    assert pq.read_table(parquet) == table


def test_top_of_a_store():
    name = uuid.uuid4().hex
    Lease.acquire(f"memory://{name}", "a" * 32)
    assert list(open_store(f"memory://{name}").list()) == [".gridcompute-lease.json"]


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"recipe": 1, "run": "", "since": 0}'])
def test_unreadable_lease(tmp_path, raw):
    (tmp_path / ".o.gridcompute-lease.json").write_bytes(raw)
    with pytest.raises(LeaseError, match="can't be read"):
        Lease.acquire(tmp_path / "o", "a" * 32)


def test_unwritable(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(StoreError):
        Lease.acquire(tmp_path / "f" / "o", "a" * 32)


def test_outputs_that_hold_nothing_are_given_back_unless_a_task_may_write(tmp_path):
    url = tmp_path / "o.zarr"
    out = grid.from_arrays({"a": np.zeros(3)}, dims=("x",)).write(str(url))
    plan = Plan(graph_of([out]))
    held = Deliveries("run", frozenset(), again=lambda step: step(), reach=lambda: None)
    held.prepare(plan)
    held.leave([plan.stages[-1]])  # which writes it
    assert Lease.held(str(url)) is not None
    assert url.is_dir()
    held.leave()
    assert Lease.held(str(url)) is None
    assert not url.exists()
