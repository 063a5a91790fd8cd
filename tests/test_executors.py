"""Every executor carries out the same orders to the same bytes: `ExecutorConformance` for inline and for Ray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import gridcompute as grid
from gridcompute.executor import Executor, InlineExecutor
from gridcompute.testing.executors import ExecutorConformance

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("module_folder")]


class TestInline(ExecutorConformance):
    @pytest.fixture
    def executor(self) -> Executor:
        return InlineExecutor(workers=2)


class TestInlineShuffled(ExecutorConformance):
    @pytest.fixture
    def executor(self) -> Executor:
        return InlineExecutor(shuffle=3, workers=2)


@pytest.fixture(name="on_ray", scope="module")
def _on_ray() -> Iterator[Executor]:
    from gridcompute.ray_executor import RayExecutor

    made = RayExecutor(workers=2)
    yield made
    made.close()


class TestRay(ExecutorConformance):
    @pytest.fixture
    def executor(self, on_ray: Executor) -> Executor:
        return on_ray


def test_on_ray_reductions_of_few_chunks_get_the_cores_of_several_workers(on_ray: Executor, tmp_path: Path) -> None:
    field = grid.from_arrays({"v": np.arange(24.0)}, dims="time")
    for outputs, cores in (([field.mean("time")], 2), ([field + 1], 1)):
        grid.run(*outputs, executor=on_ray, store=str(tmp_path / f"of {cores}"))
        assert [options["num_cpus"] for _, _, options, _ in on_ray._payloads.values()] == [cores]
