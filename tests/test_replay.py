"""One cell of a run again: its input as the run has it, the same error or the same value, and nothing is committed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gridcompute as grid
from gridcompute import cli
from gridcompute.errors import DimensionError, KernelError, OutputError, ParameterError, RecordError
from gridcompute.executor import InlineExecutor
from gridcompute.replaying import Replayed, parse_cell, shown

CUBE = np.arange(3 * 4 * 10.0).reshape(3, 4, 10)

JOB = '''
import sys
import numba
import numpy as np
import gridcompute as grid


@numba.njit(error_model="numpy")
def checked(value):
    if value == 23.0:
        raise ValueError("not that one")
    return value


@grid.kernel("(time)->(),()", names=("total", "top"))
def series(values, factor=2.0):
    first = checked(values[0])
    return values.sum() * factor, first


if __name__ == "__main__":
    cube = np.arange(3 * 4 * 10.0).reshape(3, 4, 10)
    x = grid.from_arrays({"t": cube}, dims=("time", "lat", "lon"), coords={"lat": np.linspace(50, 53, 4)})["t"]
    out = (x - 0.0).map(series)
    grid.run(out, executor="inline", quiet=True, store="work", on_error="skip" if "skip" in sys.argv else None)
'''


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    Path("job.py").write_text(JOB)


def files() -> dict[str, bytes]:
    """All that lies in the work store and the index of runs."""
    return {str(path): path.read_bytes() for folder in ("work", "state") for path in Path(folder).rglob("*")
            if path.is_file()}


def command(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "gridcompute", *arguments], input=typed, capture_output=True,
                          text=True, check=False, timeout=240)


def test_a_failed_cell_is_replayed_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "job.py"]) == 1
    told = capsys.readouterr().err
    hint = told.split("-> ")[1].split(" runs it alone")[0].split()
    assert hint[:2] == ["gridcompute", "replay"]
    before = files()
    assert cli.main(hint[1:]) == 1
    told = capsys.readouterr().out
    assert "series at lat=2 (52.0), lon=3 of t in arrays in memory" in told
    assert "  input t: float64 (3,) [23.0, 63.0, 103.0]" in told
    assert "  parameter factor: float64 2.0" in told
    assert "ValueError: not that one" in told
    assert cli.main(["replay", "last", "lat=2,lon=4", "--save", "in.npz", "--json"]) == 0
    given = json.loads(capsys.readouterr().out)
    assert given["outputs"] == {"total": 384.0, "top": 24.0}
    with np.load("in.npz") as saved:
        assert saved["t"].tolist() == given["inputs"]["t"] == [24.0, 64.0, 104.0]
    assert files() == before


def test_without_a_cell_those_that_failed_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "job.py", "skip"]) == 3
    assert cli.main(["run", "job.py"]) == 1
    capsys.readouterr()
    assert cli.main(["replay", "last"]) == 0
    assert "series  lat=2,lon=3  user  kernel series failed at lat=2 (52.0), lon=3 of t" in capsys.readouterr().out
    (skipped,) = [r for r in map(str, (Path("work") / "runs").iterdir()) if json.loads(
        (Path(r) / "run.json").read_text())["state"] == "done"]
    assert cli.main(["replay", skipped, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cells"] == [
        {"op": "series", "cell": "lat=2,lon=3", "kind": "user", "error": "ValueError: not that one"}]
    assert cli.main(["replay", skipped, "lat=2,lon=3"]) == 1
    assert "ValueError: not that one" in capsys.readouterr().out


SHORT = '''
import pyarrow as pa
import pyarrow.parquet as pq
import gridcompute as grid


@grid.kernel("(n)->()")
def spread(values):
    if len(values) < 10:
        raise ValueError(f"only {len(values)} values")
    return values.max() - values.min()


if __name__ == "__main__":
    curves = [[1.0] * 12, [1.0, 2.0], None, [3.0] * 11]
    pq.write_table(pa.table({"mag": pa.array(curves, pa.list_(pa.float64()))}), "curves.parquet")
    x = grid.open_table("curves.parquet").dropna()
    grid.run(x["mag"].map(spread), executor="inline", quiet=True, store="work")
'''


def test_a_listed_row_is_replayed_as_it_is_listed_though_its_kernel_refuses_short_cells(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("short.py").write_text(SHORT)
    assert cli.main(["run", "short.py"]) == 1
    capsys.readouterr()
    assert cli.main(["replay", "last"]) == 0
    (row,) = capsys.readouterr().out.splitlines()[1:]
    assert row.split()[:3] == ["spread", "block=1,row=0", "user"]
    done = command("replay", "last", "block=1,row=0", "--pdb", typed="p values.tolist()\nq\n")
    assert done.returncode == 1, done.stderr
    assert "(Pdb) [1.0, 2.0]" in done.stdout


def test_a_debugger_stops_in_the_plain_kernel() -> None:
    assert command("run", "job.py").returncode == 1
    done = command("replay", "last", "2,3", "--pdb", typed="p float(value)\nup\np values.tolist()\nq\n")
    assert done.returncode == 1, done.stderr
    assert "(Pdb) 23.0" in done.stdout
    assert "[23.0, 63.0, 103.0]" in done.stdout
    assert "job.py" in done.stdout
    done = command("replay", "last", "2,4", "--step", typed="p float(factor)\nn\np float(first)\nc\n")
    assert done.returncode == 0, done.stderr
    assert "(Pdb) 2.0" in done.stdout
    assert "(Pdb) 24.0" in done.stdout
    assert "gives top: float64 24.0" in done.stdout
    for typed in ("q\n", ""):
        done = command("replay", "last", "2,4", "--step", typed=typed)
        assert done.returncode == 1, done.stdout
        assert "gives" not in done.stdout
        assert "the debugger was left" in done.stdout
    done = command("replay", "last", "2,3", "--no-jit")
    assert "checked(values[0])" in done.stdout  # frames that compiled code doesn't have


def test_an_input_is_read_where_it_is_committed_and_computed_where_it_is_not() -> None:
    @grid.kernel("()->()")
    def noted(value):  # type: ignore[no-untyped-def]
        return value + 1.0

    x = grid.from_arrays({"v": np.arange(40.0).reshape(8, 5)}, dims=("y", "x"))["v"]
    made = x.map(noted)
    out = made - made.mean("y")
    run = grid.run(out.map(half), executor="inline", quiet=True, store="work")
    expected = float(run[0].to_numpy()[3, 2])
    for _ in range(2):
        before = files()
        found = grid.replay(run, "3,2", op="half")
        assert found.outputs["half"] == expected
        assert found.inputs[next(iter(found.inputs))] == 2 * expected
        assert files() == before
        for shard in Path("work").rglob("*.arrow"):
            shard.unlink()


@pytest.mark.parametrize(("value", "told"), [(7.0, "its process was killed by SIGSEGV"),
                                             (8.0, "its process ended with exit code 4"), (6.0, "")])
def test_a_deadly_cell_ends_a_process_of_its_own(value: float, told: str) -> None:
    @grid.task("()->()", dtypes=["f8"])
    def deadly(values: Any, at: float) -> Any:
        import ctypes
        import os

        if at == 7.0 and (values == at).any():
            ctypes.string_at(0)
        if at == 8.0 and (values == at).any():
            os._exit(4)
        return values + 0.5

    x = grid.from_arrays({"v": np.arange(10.0)}, dims="row")["v"]
    run = grid.run(x.isel(row=slice(0, 5)).map(deadly, at=value), executor="inline", quiet=True, store="work")
    assert grid.replay(run, "4").outputs["deadly"] == 4.5
    # A run that would kill this process is only begun.
    live = grid.start(x.map(deadly, at=value), executor=NothingDone(), quiet=True, store="work")
    found = grid.replay(live, {"row": int(value)})
    live.cancel()
    assert found.error == told
    assert found.failed == bool(told)


class NothingDone(InlineExecutor):
    """Takes tasks, and never does them."""

    def poll(self, timeout: float) -> list[Any]:
        return []


def test_kinds_of_ops_and_where_their_input_comes_from() -> None:
    @grid.kernel("(lat,lon)->()")
    def window(values):  # type: ignore[no-untyped-def]
        return values.sum()

    @grid.kernel("()->(k)")
    def several(value):  # type: ignore[no-untyped-def]
        return np.arange(int(value) % 4) + value

    @grid.kernel("()->()")
    def drawn(value, cell, rng):  # type: ignore[no-untyped-def]
        return value + cell[0] + grid.random.uniform(rng)

    x = grid.from_arrays({"t": CUBE[0]}, dims=("lat", "lon"))["t"]
    rows = grid.from_arrays({"v": np.arange(20.0), "w": np.arange(20)}, dims="row")
    given = {"executor": "inline", "quiet": True, "store": "work"}
    run = grid.run(x.stencil(window, {"lat": 1, "lon": 1}), **given)
    assert grid.replay(run, "1,2").outputs["window"] == CUBE[0][0:3, 1:4].sum() == run[0].to_numpy()[1, 2]
    run = grid.run(rows["v"].explode(several), **given)
    assert grid.replay(run, (7,)).outputs["several"].tolist() == [7.0, 8.0, 9.0]
    run = grid.run(rows["v"].map(drawn, seed=5), **given)
    for jit in (True, False):
        assert grid.replay(run, "9", jit=jit).outputs["drawn"] == run[0].to_numpy()[9]
        assert grid.replay(run, "9", jit=jit, apart=False).outputs["drawn"] == run[0].to_numpy()[9]
    run = grid.run(rows.filter(rows["v"] > 3)["v"].map(half), **given)
    assert grid.replay(run, "block=9,row=0").inputs["v"] == 9.0
    with pytest.raises(ParameterError, match="there is no row 1 in that block: it has 1"):
        grid.replay(run, "block=9,row=1")
    # Where numbers are drawn the rows must be counted first: a later phase of the run.
    # They have been deleted since: those of a filter, or of a file, are made again.
    run = grid.run(rows.filter(rows["v"] > 3)["v"].map(drawn), **given)
    assert grid.replay(run, "row=5").outputs["drawn"] == run[0].to_numpy()[5]
    Path("rows.csv").write_text("v\n" + "\n".join(str(n + 0.5) for n in range(30)) + "\n")
    run = grid.run(grid.open_table("rows.csv")["v"].map(drawn), **given)
    assert run.status.deleted
    assert grid.replay(run, "row=21").inputs["v"] == 21.5


@grid.kernel("()->()")
def half(value):  # type: ignore[no-untyped-def]
    return value / 2


def test_text_is_shown_as_text() -> None:
    @grid.kernel("(n)->()")
    def length(text):  # type: ignore[no-untyped-def]
        return len(text)

    texts = grid.from_arrays({"s": ["a", "bücher", "c" * 100]}, dims="row")["s"]
    run = grid.run(texts.map(length), executor="inline", quiet=True, store="work")
    assert grid.replay(run, "1").lines()[1:] == ["  input s: text of 7 bytes 'bücher'", "  gives length: int64 7"]
    assert grid.replay(run, "2").lines()[1] == f"  input s: text of 100 bytes '{'c' * 80}'..."


def test_several_ops_are_told_apart_by_name() -> None:
    x = grid.from_arrays({"v": np.arange(10.0)}, dims="row")["v"]
    run = grid.run(x.map(half).map(half).map(half, name="last"), executor="inline", quiet=True, store="work")
    with pytest.raises(ParameterError, match="several ops have such a cell: half, half#2, last") as caught:
        grid.replay(run, "8")
    assert "--op NAME" in caught.value.hint
    given = {name: grid.replay(run, "8", op=name).inputs["v" if name == "half" else "half"][()]
             for name in ("half", "half#2", "last")}
    assert given == {"half": 8.0, "half#2": 4.0, "last": 2.0}
    with pytest.raises(ParameterError, match="no op 'third'"):
        grid.replay(run, "8", op="third")
    with pytest.raises(ParameterError, match="row has 10 cells"):
        grid.replay(run, "10", op="last")


def test_what_cannot_be_replayed_says_so() -> None:
    with pytest.raises(RecordError, match="no run 'nothing'"):
        grid.replay("nothing", "1")
    x = grid.from_arrays({"v": np.arange(10.0)}, dims="row")["v"]
    run = grid.run(x.mean(), executor="inline", quiet=True, store="work")
    with pytest.raises(ParameterError, match="no kernel can be replayed"):
        grid.replay(run, "1")
    assert cli.main(["run", "job.py"]) == 1
    Path("job.py").write_text(JOB.replace("* factor", "* factor * 2"))
    with pytest.raises(RecordError, match="can't be replayed, its graph has changed: op series: code of job"):
        grid.replay("last", "2,4")
    assert grid.replay("last", "2,4", changed=True).outputs["total"] == 768.0


def test_cells_are_checked() -> None:
    dims, lengths = ("lat", "lon"), (4, 10)
    for cell in ("lat=3,lon=9", "3,9", " 3, 9 ", {"lon": 9, "lat": 3}, (3, 9), [3, 9]):
        assert parse_cell(cell, dims, lengths) == ((3, 9), -1)  # type: ignore[arg-type]
    assert parse_cell("2,5", ("row",), (None,)) == ((5,), 2)
    assert parse_cell("", (), ()) == ((), -1)
    for cell in ("lat=4,lon=0", "lat=-1,lon=0", "lat=1", "1", "1,2,3", "lat=1,lon=1,x=2", "a,b", "lat=a,lon=1", 7,
                 "lat=1,lon=2,lat=3"):
        with pytest.raises((ParameterError, DimensionError)):
            parse_cell(cell, dims, lengths)  # type: ignore[arg-type]


def test_an_input_that_cannot_be_kept_is_named(tmp_path: Path) -> None:
    found = Replayed("f", "n=1", {"x": np.arange(3.0)}, {})
    with pytest.raises(OutputError, match=r"can't be kept in .*x\.npz: No such file"):
        found.save(tmp_path / "nowhere" / "x.npz")


def test_arrays_are_shown_in_short() -> None:
    assert shown(np.float64(3.0)) == "float64 3.0"
    assert shown(np.arange(20)) == "int64 (20,), 0 to 19 [0, 1, 2, 3, 4, 5, ...]"
    assert shown(np.array([np.nan] * 7)) == "float64 (7,) [nan, nan, nan, nan, nan, nan, ...]"


def test_the_session_knows_its_runs() -> None:
    @grid.kernel("()->()")
    def picky(value):  # type: ignore[no-untyped-def]
        if value == 7.0:
            raise ValueError("seven")
        return value

    x = grid.from_arrays({"v": np.arange(10.0)}, dims="row")["v"]
    with pytest.raises(KernelError):
        grid.run(x.map(picky), executor="inline", quiet=True, store="work", name="mine")
    run = grid.run(x.map(picky), executor="inline", quiet=True, store="work", on_error="skip", name="mine")
    (row,) = run.skipped.to_pylist()
    again = grid.replay(run.name, row["cell"])
    assert again.error.splitlines()[-1] == row["error"] == "ValueError: seven"
