"""Memory on a real local Ray: a limit that holds, a chunk that only fits in parts, a kill by the system."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hungry import Hungry
from interrupted import journals
from test_parts import few_chunks

import gridcompute as grid
from gridcompute import bounds
from gridcompute.errors import OutOfMemoryError
from gridcompute.journal import read
from gridcompute.shardfile import read_header
from gridcompute.store import open_store

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.usefixtures("own_folder")]

MIB = 2**20


def digests(store: Path) -> dict[str, str]:
    opened = open_store(str(store))
    return {path: read_header(opened.get(path), path=path).digest for path, _ in opened.list_sizes("shards")
            if path.endswith(".arrow")}  # fmt: skip


def pids(run: Any) -> set[int]:
    return {int(e["worker"].rpartition(":")[2]) for e in read(run.record.journal) if e.get("worker")}


def test_a_cell_that_takes_too_much_is_named_and_its_worker_lives_on(tmp_path: Path, options: dict[str, Any]) -> None:
    @grid.kernel("()->()")
    def huge(x: Any) -> Any:
        return np.ones(int(x) * 1_000_000).sum()

    values = np.ones((4, 4))
    lazy = grid.from_arrays({"v": values}, dims=("y", "x"))["v"]
    before = pids(grid.run(lazy.map(huge), memory="1GB", **options))
    values[2, 1] = 500
    lazy = grid.from_arrays({"v": values}, dims=("y", "x"))["v"]
    with pytest.raises(OutOfMemoryError, match=r"stage huge, chunk \d+ \(y 2 to 3, x .*\), in huge at y=2, x=1 of v in "
                       r"arrays in memory \(it had \d+ MiB, a worker may take 1,024 MiB\): MemoryError") as caught:
        grid.run(lazy.map(huge), memory="1GB", **options)
    assert "memory=" in caught.value.hint
    after = pids(grid.run(lazy.map(huge), memory="8GB", **options))
    assert after <= before


def test_a_chunk_that_only_fits_in_parts(tmp_path: Path, options: dict[str, Any],
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading two million numbers takes 960 MB at once, which no plan knows; a worker may take 800."""
    few_chunks(monkeypatch, 2)
    lazy = grid.from_source(Hungry(4 * 10**6))["v"] * 2.0 + 1.0
    roomy = grid.run(lazy, memory="4GB", **options)
    assert roomy.summary()["retries"] == 0
    assert max(roomy.status.task_bytes.values()) > 900 * 10**6
    assert roomy.status.peak_bytes < 1600 * 10**6
    tight = grid.run(lazy, memory="800MB", **{**options, "store": tmp_path / "tight"})
    assert digests(tmp_path / "tight") == digests(tmp_path / "work")
    np.testing.assert_array_equal(tight["v"].to_numpy(), np.arange(4 * 10**6) * 2.0 + 1.0)
    assert list(tight.status.parts.values()) == [2]
    assert tight.status.peak_bytes < 900 * 10**6
    assert tight.summary()["retries"] >= 2
    assert "in 2 parts, as it ran out of memory before" in str(bounds.planned_parts(grid.plan(lazy).plan, 800 * MIB)[0])
    again = grid.run(lazy, memory="800MB", **{**options, "store": tmp_path / "again"})
    assert digests(tmp_path / "again") == digests(tmp_path / "work")
    assert again.summary()["retries"] == 0
    assert list(again.status.parts.values()) == [2]


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of 128 MiB that processes can be moved to: less is filled before a late task gets a copy."""
    for root, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        folder = Path(root) / f"gridcompute-test-{uuid.uuid4().hex[:8]}"
        try:
            folder.mkdir()
            (folder / limit).write_text(str(2**27))
        except OSError:
            if folder.is_dir():
                folder.rmdir()
            continue
        yield folder
        root_procs = Path(root) / "cgroup.procs"
        for pid in (folder / "cgroup.procs").read_text().split():
            root_procs.write_text(pid)
        folder.rmdir()
        return
    pytest.skip("no control group with a memory limit can be made here (not root, or they aren't delegated)")


def test_what_the_system_ends_for_memory_is_not_taken_for_a_lost_worker(tmp_path: Path, options: dict[str, Any],
                                                                        group: Path) -> None:
    marker = str(tmp_path / "killed")

    @grid.task("(time)->()", dtypes=["f8"])
    def greedy(series: Any, marker: str, group: str) -> Any:
        import os

        import numpy as np

        if (series[:, 0] == 5.0).any() and not os.path.exists(marker):
            open(marker, "w").close()
            with open(os.path.join(group, "cgroup.procs"), "w") as file:
                file.write(str(os.getpid()))
            return np.ones(2**31 // 8)[: len(series)]
        return series.sum(axis=1)

    cube = np.arange(4 * 3 * 4, dtype=float).reshape(4, 3, 4)
    lazy = grid.from_arrays({"t": cube}, dims=("time", "lat", "lon"))["t"]
    run = grid.run(lazy.map(greedy, marker=marker, group=str(group)), memory="16GB", **options)
    np.testing.assert_array_equal(run["greedy"].to_numpy(), cube.sum(0))
    assert os.path.exists(marker)
    failed = [e for e in read(journals(tmp_path)[-1]) if e["kind"] == "failed"]
    assert [e["failure"] for e in failed] == ["out_of_memory"]
    assert "a worker ran out of memory in stage greedy" in failed[0]["message"]
    assert failed[0]["chunk"] == 5


def test_a_worker_that_outgrew_what_plans_give_it_makes_room_for_a_new_one(options: dict[str, Any]) -> None:
    """It ends with its answer: nothing is lost, nothing is tried again, and what comes next finds a new process."""

    @grid.task("()->()", dtypes="float64")
    def hoards(values: Any) -> Any:
        import builtins

        import numpy as np

        if not hasattr(builtins, "hoard"):
            builtins.hoard = np.ones(600 * 2**17)  # 600 MiB that nothing gives back
        return values + 1.0

    @grid.kernel("()->()")
    def plain(value: Any) -> Any:
        return value * 2.0

    x = grid.from_arrays({"x": np.arange(4.0)}, dims=("cell",))["x"]
    first = grid.run(x.map(hoards), memory="4GB", **options)
    assert np.array_equal(first[0].to_numpy(), np.arange(4.0) + 1)
    second = grid.run(x.map(plain), **options)
    assert np.array_equal(second[0].to_numpy(), np.arange(4.0) * 2)
    assert [run.status.retries for run in (first, second)] == [0, 0]
    assert [*first.status.failures, *second.status.failures] == []
    assert not pids(first) & pids(second)
    third = grid.run(x.map(plain) + 1.0, **options)
    assert pids(third) & pids(second), "the others stay"
