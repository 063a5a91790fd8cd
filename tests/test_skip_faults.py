"""Cells that kill or hang their worker, on a real local Ray: skipped where kernels skip, and all else is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from interrupted import journals
from test_faults import CUBE, cube

import gridcompute as grid
from gridcompute.journal import read

pytestmark = [pytest.mark.ray, pytest.mark.faults]



def failures(tmp_path: Path) -> list[str]:
    return [e["failure"] for e in read(journals(tmp_path)[0]) if e["kind"] == "failed"]


def apart() -> list[str]:
    """Processes that watch a kernel and are left."""
    words = [" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline", "ppid"])
             if p.info["ppid"] == 1]  # what outlives its parent
    return [text for text in words if "gridcompute.apart" in text]


def check(found: Any, expected: Any, gaps: list[tuple[int, int]]) -> None:
    values = expected.copy()
    for gap in gaps:
        values[gap] = np.nan
    assert found[0].to_numpy().tobytes() == values.tobytes()


def test_compiled_cells_that_segfault_or_hang_are_skipped_and_counted_again(tmp_path: Path,
                                                                            options: dict[str, Any]) -> None:
    @grid.kernel("(time)->()", parallel=1)
    def series(values, kind):  # type: ignore[no-untyped-def]
        total = values.sum()
        if kind == 0 and (values[0] == 6.0 or values[0] == 11.0):
            total += values[np.int64(10) ** 13]
        if values[0] == 8.0:
            raise ValueError("eight")
        while kind == 1 and values[0] == 6.0 and total > -1.0:
            total = total * 0.5 + 1.0
        return total

    for kind, failure, text in ((0, "lost_worker", "its process was killed by SIGSEGV"),
                                (1, "hang", "it ran longer than 1.5 s")):
        options["store"] = tmp_path / str(kind) / "work"
        out = cube().map(series, kind=kind, on_error="skip")
        run = grid.run(out, deadline=6, **options)
        gaps = [(1, 2), (2, 0)] + ([(2, 3)] if kind == 0 else [])
        check(run, CUBE.sum(0), gaps)
        told = [(row["cell"], row["kind"], row["error"]) for row in run.skipped.to_pylist()]
        dead = [("lat=1,lon=2", failure, text)] + ([("lat=2,lon=3", failure, text)] if kind == 0 else [])
        assert told == sorted([("lat=2,lon=0", "user", "ValueError: eight"), *dead])
        assert set(failures(tmp_path / str(kind))) == {failure}
        again = grid.run(out, **{**options, "executor": "inline"})
        assert again.summary()["computed"] == 0
        assert again.skipped == run.skipped
    assert not apart()


def test_a_task_that_is_killed_is_cut_to_its_cell(tmp_path: Path, options: dict[str, Any]) -> None:
    @grid.task("(time)->()", dtypes=["f8"], parallel=1)
    def deadly(series: Any) -> Any:
        import os

        if (series[:, 0] == 6.0).any():
            os.kill(os.getpid(), 9)
        if (series[:, 0] == 9.0).any():
            raise ValueError("nine")
        return series.sum(axis=1)

    run = grid.run(cube().map(deadly), on_error="skip", **options)
    check(run, CUBE.sum(0), [(1, 2), (2, 1)])
    assert run.skipped.to_pylist() == [
        {"op": "deadly", "cell": "lat=1,lon=2", "kind": "lost_worker", "error": "its process was killed by SIGKILL"},
        {"op": "deadly", "cell": "lat=2,lon=1", "kind": "user", "error": "ValueError: nine"}]
    assert run.status.skipped == 2


def test_where_the_driver_sees_no_progress_it_is_the_same(tmp_path: Path, options: dict[str, Any],
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """As on another machine than the driver's: the worker itself is the witness."""
    from gridcompute import progressword

    monkeypatch.setattr(progressword.Board, "take", lambda self, task: None)

    @grid.kernel("(time)->()")
    def series(values):  # type: ignore[no-untyped-def]
        total = values.sum()
        if values[0] == 6.0:
            total += values[np.int64(10) ** 13]
        return total

    run = grid.run(cube().map(series, on_error="skip").mean("lat"), **options)
    assert run.skipped["cell"].to_pylist() == ["lat=1,lon=2"]
    values = CUBE.sum(0)
    values[1, 2] = np.nan
    np.testing.assert_allclose(run[0].to_numpy(), np.nanmean(values, 0))
