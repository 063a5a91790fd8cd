"""What every executor must do, as a test class that each one's tests inherit.

    class TestMine(ExecutorConformance):
        @pytest.fixture
        def executor(self): return MyExecutor()
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gridcompute import api
from gridcompute.collection import Collection
from gridcompute.errors import KernelError
from gridcompute.executor import Executor, InlineExecutor
from gridcompute.kernels import kernel, task
from gridcompute.shardfile import read_header
from gridcompute.store import open_store


@kernel("()->()")
def _doubled(x: float) -> float:
    return x * 2.0


@kernel("(x)->(),()", names=("low", "high"))
def _range(series: Any) -> Any:
    return series.min(), series.max()


@task("()->()", dtypes="f8")
def _failing(values: Any) -> Any:
    if (values == 7).any():
        raise ValueError("seven")
    return values * 1.0


def digests(url: str) -> Mapping[str, str]:
    """Digest of each committed shard of a store by its path."""
    store = open_store(url)
    paths = [path for path, _ in store.list_sizes("shards") if path.endswith(".arrow")]
    return {path: read_header(store.get(path), path=path).digest for path in paths}


class ExecutorConformance:
    """Inherit, and give an `executor` fixture. One executor carries out several runs, one after the other."""

    @pytest.fixture
    def executor(self) -> Executor:
        """The executor under test."""
        raise TypeError("an executor's test class gives an `executor` fixture")

    @pytest.fixture
    def outputs(self) -> list[Collection]:
        """A graph with several stages: kernels, reductions, rows of unknown number, a sort."""
        rng = np.random.default_rng(1)
        field = api.from_arrays({"a": rng.random((3, 4, 5))}, dims=("t", "y", "x"))["a"]
        table = api.from_arrays({"k": rng.integers(0, 5, 30), "v": rng.random(30)}, dims="row")
        kept = table.filter(table["k"] < 3)
        doubled = kept["v"].map(_doubled)
        return [field.map(_range), field.map(_doubled).mean("t"), field.var(), kept.sort("v"), doubled.sum(),
                field - field.mean("t")]

    def _run(self, outputs: list[Collection], executor: Executor, store: Path) -> Any:
        return api.run(*outputs, executor=executor, store=str(store), quiet=True)

    def test_bytes_are_those_of_a_plain_inline_run(self, executor: Executor, outputs: list[Collection],
                                                   tmp_path: Path) -> None:
        """Equal shards under equal names."""
        self._run(outputs, InlineExecutor(), tmp_path / "plain")
        self._run(outputs, executor, tmp_path / "other")
        found = digests(str(tmp_path / "other"))
        assert found
        assert found == digests(str(tmp_path / "plain"))

    def test_a_second_run_computes_nothing(self, executor: Executor, outputs: list[Collection], tmp_path: Path) -> None:
        """What is committed is reused."""
        self._run(outputs, executor, tmp_path / "store")
        again = self._run(outputs, executor, tmp_path / "store")
        assert again.summary()["computed"] == 0

    def test_lost_shards_are_made_again(self, executor: Executor, outputs: list[Collection], tmp_path: Path) -> None:
        """Only what is needed for them, to the same bytes."""
        self._run(outputs, executor, tmp_path / "store")
        before = digests(str(tmp_path / "store"))
        for path in sorted(before)[::3]:
            (tmp_path / "store" / path).unlink()
        self._run(outputs, executor, tmp_path / "store")
        after = digests(str(tmp_path / "store"))
        assert {path: after[path] for path in after if path in before} == after
        for i, output in enumerate(outputs):
            assert output.columns
            again = self._run([output], executor, tmp_path / "store")
            assert again.summary()["computed"] == 0, i

    def test_a_failing_kernel_ends_the_run_by_name(self, executor: Executor, tmp_path: Path) -> None:
        """As a KernelError that names the op; what was committed before stays, and the executor goes on working."""
        values = api.from_arrays({"v": np.arange(20.0)}, dims="row")["v"]
        with pytest.raises(KernelError, match="_failing"):
            self._run([values.map(_failing)], executor, tmp_path / "store")
        fine = self._run([values.isel(row=slice(0, 5)).map(_failing)], executor, tmp_path / "store")
        np.testing.assert_array_equal(fine[0].to_numpy(), np.arange(5.0))

    def test_an_executor_says_what_it_is(self, executor: Executor) -> None:
        """A name for journals, and how much it does at once."""
        assert executor.name
        assert executor.workers >= 1
