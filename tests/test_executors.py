"""Every executor carries out the same orders to the same bytes: `ExecutorConformance` for inline and for Ray."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

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
