"""A disk that is really full: a small file system of its own, mounted by the test (which only root may)."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gridcompute as grid
from gridcompute.errors import StoreError
from gridcompute.progressword import Board
from gridcompute.record import load

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.usefixtures("own_folder")]

DISK_BYTES = 8 * 2**20
VALUES = np.random.default_rng(4).random((40, 64, 256))  # 5 MB, and as much again as shards


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    asked = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "gridcompute-test", str(folder)]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def doubled() -> Any:
    @grid.kernel("()->()")
    def doubled(value: Any) -> Any:
        return value * 2.0

    return grid.from_arrays({"t": VALUES}, dims=("time", "lat", "lon"))["t"].map(doubled)


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
        while filler.write(b"x" * 4096):
            pass


def temporary(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.is_file()]


@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_a_run_stops_with_a_clear_error_and_goes_on_when_there_is_room(executor: str, disk: Path) -> None:
    expected = grid.run(doubled(), executor="inline", store="memory://roomy", quiet=True)["doubled"].to_numpy()
    filler = disk / "filler"
    filler.write_bytes(b"x" * (DISK_BYTES - 4 * 2**20))
    options: dict[str, Any] = {"executor": executor, "store": disk / "work", "workers": 2, "quiet": True}
    with pytest.raises(StoreError, match=r"(the disk is full|No space left)") as caught:
        grid.run(doubled(), **options)
    assert "make room" in caught.value.hint
    assert temporary(disk) == []
    shards = list(disk.glob("work/shards/**/*.arrow"))
    assert shards
    assert load("last").standing in ("failed", "interrupted")
    filler.unlink()
    run = grid.run(doubled(), **options)
    assert run.status.reused == len(shards)
    assert run["doubled"].to_numpy().tobytes() == expected.tobytes()


def test_a_disk_without_any_room_leaves_no_half_record(disk: Path) -> None:
    fill(disk)
    with pytest.raises(StoreError, match="the run's record can't be written to"):
        grid.run(doubled(), executor="inline", store=disk / "work", quiet=True)
    assert temporary(disk) == []
    (disk / "filler").unlink()
    assert grid.run(doubled(), executor="inline", store=disk / "work", quiet=True).status.computed > 1


def test_no_progress_word_is_published_where_its_page_has_no_room(disk: Path) -> None:
    """Writing to it would end the process by a signal."""
    board = Board(disk)
    assert board.take(1) is not None
    fill(disk)
    words = [board.take(task) for task in range(2, 200)]
    assert words[-1] is None
    board.close()
    assert [path.name for path in disk.iterdir()] == ["filler"]
