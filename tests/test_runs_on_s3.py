"""Whole runs with the work store and the output on S3: a mock server on loopback."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from fixtures_s3 import S3, s3, s3_endpoint

import gridcompute as grid
from gridcompute.store import RemoteStore, open_store

pytestmark = pytest.mark.usefixtures("own_folder")

__all__ = ["s3", "s3_endpoint"]


@grid.kernel("(time)->(),()", names=("total", "most"))
def totals(series):
    return series.sum(), series.max()


def field() -> np.ndarray:
    return np.arange(12 * 9 * 7, dtype=np.float64).reshape(12, 9, 7)


def computed(values: np.ndarray) -> grid.Collection:
    return grid.from_arrays({"t": values}, dims=("time", "lat", "lon"))["t"].map(totals)


def test_output_and_work_store(s3: S3) -> None:
    values = field()
    url = s3.url.replace("/work", "/out.zarr")
    run = grid.run(computed(values).write(url, storage_options=s3.options), executor="inline", store=s3.url,
                   store_options=s3.options)
    found = xr.open_zarr(url, storage_options=s3.options, chunks=None)
    np.testing.assert_array_equal(found["total"], values.sum(0))
    np.testing.assert_array_equal(found["most"], values.max(0))
    assert run.status.computed > 1


def test_goes_on_from_what_is_committed(s3: S3) -> None:
    values = field()
    options = {"executor": "inline", "store": s3.url, "store_options": s3.options}
    first = grid.run(computed(values), **options)
    store = open_store(s3.url, **s3.options)
    shards = list(store.list("shards"))
    before = {name: store.get(name) for name in shards}
    assert len(shards) == first.status.computed
    for name in shards[::3]:
        store.delete(name)
    again = grid.run(computed(values), **options)
    assert (again.status.computed, again.status.reused) == (len(shards[::3]), len(shards) - len(shards[::3]))
    assert {name: store.get(name) for name in store.list("shards")} == before
    np.testing.assert_array_equal(again["total"].to_numpy(), values.sum(0))


def test_secrets_stay_out_of_what_is_written(s3: S3, tmp_path: Path) -> None:
    options = {**s3.options, "secret": "quite-a-secret"}
    grid.run(computed(field()), executor="inline", store=s3.url, store_options=options)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "run.json" for path in files)
    assert not [path for path in files if b"quite-a-secret" in path.read_bytes()]


def test_a_finished_run_lists_once_an_op_and_reads_nothing(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"executor": "inline", "store": s3.url, "store_options": s3.options}
    grid.run(computed(field()), **options)
    asked: Counter[str] = Counter()

    def counted(name: str) -> Any:
        before = getattr(RemoteStore, name)

        def call(self: RemoteStore, path: str = "", *args: Any) -> Any:
            asked[name] += not path.startswith(".gridcompute-probe")
            return before(self, path, *args)

        return call

    for name in ("get", "get_range", "exists", "list_sizes", "put_new", "delete"):
        monkeypatch.setattr(RemoteStore, name, counted(name))
    again = grid.run(computed(field()), **options)
    assert again.status.computed == 0
    assert asked.pop("put_new") == 1  # the claim of the result
    assert {name: n for name, n in asked.items() if n} == {"list_sizes": 1}
