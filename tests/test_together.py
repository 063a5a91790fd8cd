"""Several workloads in one run: from Python and from the command line, planned, run, resumed, read once."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from cdo import archive

import gridcompute as grid
from gridcompute import cli, registry
from gridcompute.cli.command import leading
from gridcompute.errors import ParameterError
from gridcompute.registry import Job, Together, Workload, find
from gridcompute.resuming import run_workload
from gridcompute.sources.xarrays import DatasetSource

pytestmark = pytest.mark.usefixtures("own_folder")

QUIET: dict[str, Any] = {"executor": "inline", "quiet": True, "store": "work"}
BOTH = "climate.climatology climate.zonal"


@pytest.fixture
def daily(own_folder: Path) -> str:
    archive("d.nc", "noleap", "2000-01-01", "2000-03-31")
    return "d.nc"


def test_each_gets_what_it_has_and_finishes_with_its_own_outputs(daily: str) -> None:
    given = {"input": daily, "output": "out", "box": "globe", "frequency": "month"}
    carried = run_workload(BOTH, given, QUIET)
    assert len(carried.runs) == 1
    names = ["climatology", "zonal", "zonal-boxes"]
    assert [Path(path).name for path in carried.runs[0].record.outputs] == [f"{name}.zarr" for name in names]
    assert [path.name for path in carried.files] == ["climatology.png", "zonal.png"]
    assert carried.lines[0] == "input t of d.nc"
    assert carried.lines.count("input t of d.nc") == 1
    assert carried.runs[0].record.how["workload"] == BOTH
    alone = run_workload("climate.zonal", {"input": daily, "picture": "none"}, QUIET)
    assert alone.files == []
    xr.testing.assert_equal(xr.open_zarr("out/zonal.zarr").load(), xr.open_zarr("zonal.zarr").load())


def test_two_that_fold_over_the_same_dimension_read_once(daily: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    read = DatasetSource.read

    def counted(self: DatasetSource, region: Any, names: Any) -> Any:
        reads.append(str(region))
        return read(self, region, names)

    monkeypatch.setattr(DatasetSource, "read", counted)
    first, second = (grid.Job([grid.open_dataset(daily)["t"].reduce(how, "time")], lambda run: [f"{run[0].names}"])
                     for how in ("mean", "max"))  # fmt: skip
    job = grid.together(first, second)
    run = grid.run(*job.outputs, **QUIET)
    assert list(job.finish(run)) == ["['t']", "['t']"]
    assert len(reads) == len(set(reads))
    with pytest.raises(ParameterError, match="takes jobs, not Collection"):
        grid.together(first, grid.open_dataset(daily))  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="takes jobs"):
        grid.together()


def test_from_the_command_line(daily: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*BOTH.split(), "--input", daily, "--output", "o"]
    assert cli.main(["plan", *command, "--store", "work", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["workload"] == BOTH
    options = ["--executor", "inline", "--store", "work"]
    assert cli.main(["run", *command, *options]) == 0
    said = capsys.readouterr().out
    assert said.count("climatology.zarr") == said.count("zonal-boxes.zarr") == 1
    assert "0 found committed" in said
    assert cli.main(["resume", "last", *options]) == 0
    assert "3 found committed" in capsys.readouterr().out
    assert cli.main(["run", *BOTH.split(), "--help"]) == 0
    helped = " ".join(capsys.readouterr().out.split())
    assert "climate.zonal: Mean, standard deviation, least and greatest value of each circle" in helped
    assert "--box" in helped
    assert "folder of the outputs" in helped


def test_what_is_refused(daily: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "climate.zonal", "climate.zonl"]) != 0
    assert "did you mean climate.zonal?" in capsys.readouterr().err
    with pytest.raises(ParameterError, match="stands twice"):
        find("climate.zonal climate.zonal")
    with pytest.raises(ParameterError, match="no parameter 'depth'"):
        find(BOTH)(depth=3)
    with pytest.raises(ParameterError, match=r"would all draw a\.png"):
        find(BOTH)(input=daily, picture="a.png")
    other = Workload("other", EntryPoint("other", "tests:none", registry.GROUP))
    vars(other)["function"] = lambda box=3: Job([])
    vars(other)["parameters"] = tuple(registry.Parameter(one.name, int, 3) for one in find("climate.zonal").parameters
                                      if one.name == "box")  # fmt: skip
    both = Together("two", other.entry, (find("climate.zonal"), other))
    with pytest.raises(ParameterError, match="--box of other isn't that"):
        both.parameters  # noqa: B018


def test_leading_words() -> None:
    assert leading(["a", "b", "--x", "c"]) == ["a", "b"]
    assert leading(["a"]) == ["a"]
    assert leading(["./job.py", "a", "b"]) == ["./job.py"]
    assert leading(["--x"]) == []
