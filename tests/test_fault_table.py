"""The table of faults names tests that exist, and every fault that the failure policy knows has a row."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from gridcompute import ray_session

TESTS = Path(__file__).resolve().parent
PAGE = TESTS.parent / "docs" / "concepts" / "faults.md"
ROWS = [[cell.strip() for cell in line.strip("|\n ").split(" | ")]
        for line in PAGE.read_text(encoding="utf-8").splitlines() if re.match(r"\| (?!fault |---)", line)]
WANTED = (
    "lost worker", "lost node", "cut link", "hung task", "straggler", "out of memory", "disk full",
    "store: no answer", "store: 403", "store: 404", "store: 500", "store: 503", "store: slow", "store: partial",
    "store: connection reset", "corrupt", "poison cell", "user error", "divergence", "driver killed", "control store",
)  # fmt: skip


def named_in(name: str) -> set[str]:
    tree = ast.parse((TESTS / name).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_a_row_is_whole_and_its_tests_exist(row: list[str]) -> None:
    assert len(row) == 5
    assert all(row)
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", row[-1])
    assert named
    for file, test in named:
        assert test in named_in(file), f"{file} has no {test}"
        assert "pytest.mark.faults" in (TESTS / file).read_text(encoding="utf-8"), f"make chaos doesn't run {file}"


@pytest.mark.parametrize("fault", WANTED)
def test_a_fault_has_a_row(fault: str) -> None:
    assert any(fault in row[0] for row in ROWS)


def test_what_a_cluster_s_nodes_should_set_is_what_a_local_ray_has() -> None:
    told = dict(re.findall(r"(RAY_(?:grpc_client|health_check)_\w+)=(\d+)", PAGE.read_text(encoding="utf-8")))
    assert told == {name: value for name, value in ray_session.ENVIRONMENT.items()
                    if name.startswith(("RAY_grpc_client", "RAY_health_check"))}
