"""Bad input and hostile situations: each is refused by one clear error, and nothing outside is touched."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import gridcompute as grid
from gridcompute import journal
from gridcompute.errors import (
    GridError,
    KernelError,
    MemoryBoundError,
    OutputError,
    OutputExistsError,
    ParameterError,
    RecordError,
    StoreError,
    UnkeyableError,
    UsageError,
)
from gridcompute.record import load, records

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("own_folder")]


def run(*outputs: Any, **options: Any) -> Any:
    return grid.run(*outputs, **{"executor": "inline", "quiet": True, **options})


def numbers(count: int = 5) -> grid.Collection:
    return grid.from_arrays({"a": np.arange(float(count))})


@pytest.mark.parametrize(
    "data",
    [
        None, 3, "x", [1, 2], {"a": 3}, {"a": None}, {3: [1]}, {None: [1]}, {"\ud800": [1]}, {"a": ["\ud800"]},
        {"a": np.zeros(3, np.longdouble)}, {"a": np.zeros(3, "c16")}, {"a": np.zeros(3, [("x", "f4")])},
        {"a": [[[1, 2]], [[3, 4]]]}, {"a": [np.zeros((2, 2))]}, {"a": [1, "x"]}, {"a": [2**70]}, {"a": [None, "x", 1]},
        pa.table([[1], [2]], names=["a", "a"]), {"a": np.array([1, "x", None], object)},
    ],
    ids=repr,
)  # fmt: skip
def test_values_without_a_place_in_a_column_are_refused(data: Any) -> None:
    with pytest.raises(UsageError):
        grid.from_arrays(data)


def test_names_that_stand_twice_in_a_frame_are_refused() -> None:
    pandas = pytest.importorskip("pandas")
    with pytest.raises(ParameterError, match="two columns 'a'"):
        grid.from_arrays(pandas.DataFrame([[1, 2]], columns=["a", "a"]))


@pytest.mark.parametrize("dims", [3, (1, 2), [["x"], "y"], ("x", "x"), ("x", None), "x", {"b": ("x", "y")}], ids=repr)
def test_dims_that_are_no_names_are_refused(dims: Any) -> None:
    with pytest.raises(UsageError):
        grid.from_arrays({"a": np.zeros((2, 3))}, dims)


@pytest.mark.parametrize("coords", [3, None, [3], {"x": 3}, {"x": np.zeros((2, 2))}, {"x": [{}, {}]}, {"z": [1]}],
                         ids=repr)
def test_coords_that_are_no_labels_are_refused(coords: Any) -> None:
    with pytest.raises(UsageError):
        grid.from_arrays({"a": np.zeros((2, 3))}, ("x", "y"), coords=coords)


def test_none_among_numbers_is_a_gap() -> None:
    values = run(grid.from_arrays({"a": [1, None, 3]}))[0].to_numpy()
    assert values.tolist() == [1, None, 3]


def test_an_output_may_not_lie_where_an_input_is_read() -> None:
    run(numbers().write("a.zarr"))
    numbers_there = grid.open_zarr("a.zarr") + 1
    Path("link.zarr").symlink_to("a.zarr")
    for place in ("a.zarr", "./a.zarr/", "a.zarr/b.zarr", "link.zarr", ".", str(Path.cwd().parent)):
        with pytest.raises(ParameterError, match=r"where the input|over the work store"):
            run(numbers_there.write(place, format="zarr", overwrite=True))
    assert run(grid.open_zarr("a.zarr"))[0].to_numpy().tolist() == [0, 1, 2, 3, 4]
    run(numbers_there.write("b.zarr"))
    run(numbers().write("t.parquet"))
    with pytest.raises(ParameterError, match="where the input"):
        run((grid.open_table("t.parquet/*.parquet")["a"] + 1).write("t.parquet", overwrite=True))


def test_outputs_may_not_lie_in_each_other_or_in_the_work_store() -> None:
    with pytest.raises(ParameterError, match="two outputs"):
        run(numbers().write("a.zarr"), (numbers() + 1).write("./a.zarr/"))
    with pytest.raises(ParameterError, match="lies in the output"):
        run(numbers().write("a.zarr"), (numbers() + 1).write("a.zarr/b.zarr"))
    for place in (".gridcompute/shards/a.zarr", ".gridcompute/runs", ".gridcompute"):
        with pytest.raises(ParameterError, match="over the work store"):
            run(numbers().write(place, format="zarr"))
    assert not Path("a.zarr").exists()
    run(numbers().write("a.zarr"), numbers().write("a.zarr"))  # the same twice is one


def test_overwriting_takes_only_datasets() -> None:
    Path("a.zarr").mkdir()
    Path("a.zarr/precious.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="precious"):
        run(numbers().write("a.zarr", overwrite=True))
    assert Path("a.zarr/precious.txt").read_text() == "mine"
    run(numbers().write("b.zarr"))
    run((numbers() + 1).write("b.zarr", overwrite=True))
    assert run(grid.open_zarr("b.zarr"))[0].to_numpy()[0] == 1


def kept_record() -> Path:
    made = run(numbers())
    return Path(made.record.folder) / "run.json"


@pytest.mark.parametrize(
    "change",
    [
        {"run": "../../../x"}, {"run": 5}, {"created": "x"}, {"created": None}, {"created": float("inf")},
        {"state": "zzz"}, {"state": []}, {"pid": "x"}, {"pid": -1}, {"pid_since": None}, {"folder": 5},
        {"outputs": "x"}, {"outputs": [1]}, {"settings": 5}, {"settings": {"store": 5}}, {"how": []}, {"cwd": 3},
        {"summary": 3}, {"summary": {"seconds": "x"}}, {"summary": {"seconds": float("nan")}}, {"graph": {}},
        {"versions": 3}, {"resumed": "x"}, {"key": 5}, {"graph": [1]},
        {"graph": [{"parts": 5}]}, {"how": {"script": 5}}, {"how": {"script": "a.py", "arguments": 7}},
        {"how": {"workload": "climate.trend", "parameters": [1, 2]}}, {"how": {"script": "a.py", "call": "x"}},
        {"zzz": 1}, {"format": 99},
    ],
    ids=repr,
)  # fmt: skip
def test_records_that_were_tampered_with_are_refused_by_every_command(
    change: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from gridcompute.cli import main

    path = kept_record()
    name = path.parent.name
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    for command in ("status", "report", "resume", "cancel"):
        assert main([command, name]) == 2
    assert main(["list"]) == 0
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"a":1}', "\0"], ids=lambda text: text[:8])
def test_records_that_are_garbage_are_refused(text: str) -> None:
    path = kept_record()
    path.write_text(text)
    with pytest.raises(RecordError, match=r"run\.json"):
        load(path.parent.name)


def test_a_pipe_in_the_place_of_a_journal_is_not_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    from gridcompute.cli import main

    made = run(numbers())
    made.record.journal.unlink()
    os.mkfifo(made.record.journal)
    for mode in (journal.read, journal.Journal.open):
        with pytest.raises(StoreError, match="it isn't a file"):
            mode(made.record.journal)
    assert main(["report", made.name]) == 1
    assert "journal.jsonl can't be read: it isn't a file" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "plan", "chaos"])
def test_a_script_that_is_not_python_is_named_with_its_line(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    from gridcompute.cli import main

    Path("job.py").write_text("x = 1\nno python here\n")
    assert main([command, "./job.py"]) == 2
    told = capsys.readouterr().err
    assert "job.py, line 2, isn't Python: invalid syntax" in told
    assert "Traceback" not in told


def test_a_record_does_not_say_where_it_is_saved(own_folder: Path) -> None:
    path = kept_record()
    path.write_text(json.dumps({**json.loads(path.read_text()), "folder": str(own_folder / "elsewhere")}))
    load(path.parent.name).ended("failed", {}).save()
    assert not (own_folder / "elsewhere").exists()
    assert json.loads(path.read_text())["state"] == "failed"


def test_a_pipe_or_folder_in_the_index_is_passed_over(own_folder: Path) -> None:
    name = kept_record().parent.name
    os.mkfifo(own_folder / "state/runs/pipe.json")
    (own_folder / "state/runs/folder.json").mkdir()
    (own_folder / "state/runs/elsewhere.json").write_text('{"folder": "/etc"}')
    assert [record.run for record in records()] == [name]


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "", "*", "x" * 5000, "\0", ".", "/"])
def test_names_of_runs_lead_nowhere_else(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    from gridcompute.cli import main

    kept = kept_record()  # whose name begins with ""
    with pytest.raises(RecordError):
        load(name)
    for words in (["status"], ["report", "--json"], ["resume"], ["cancel"], ["clean", "--yes"]):
        assert main([*words, name]) == 2
        said = capsys.readouterr()
        assert len(said.err) < 300
        assert json.loads(said.out)["exit_code"] == 2 if "--json" in words else not said.out
    assert kept.exists()


def test_a_broken_record_is_named_by_its_folder_too(capsys: pytest.CaptureFixture[str]) -> None:
    from gridcompute.cli import main

    path = kept_record()
    path.write_text("{")
    for command in ("status", "report", "resume", "cancel"):
        assert main([command, str(path.parent)]) == 2
        assert "run.json can't be read" in capsys.readouterr().err


def test_a_run_that_is_not_in_the_index_says_why_it_cannot_go_on(
    own_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gridcompute.cli import main

    path = kept_record()
    path.write_text(json.dumps({**json.loads(path.read_text()), "how": {"workload": "no.such"}}))
    (own_folder / "state/runs" / f"{path.parent.name}.json").unlink()
    assert main(["resume", str(path.parent)]) == 2
    assert "no workload 'no.such'" in capsys.readouterr().err


def test_a_state_folder_that_cannot_be_written_fails_the_run(
    own_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gridcompute.cli import main

    (own_folder / "file").write_text("mine")
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(own_folder / "file"))
    monkeypatch.setenv("GRIDCOMPUTE_EXECUTOR", "inline")
    Path("job.py").write_text("import gridcompute as grid\ngrid.run(grid.from_arrays({'a': [1.0]}, dims='x').sum())\n")
    assert main(["run", "--json", "job.py"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["state"] == "failed"
    assert said.err.count("error: ") == 1
    assert "GRIDCOMPUTE_STATE" in said.err
    assert main(["doctor", "--no-ray"]) == 1
    assert "can't be written" in capsys.readouterr().out


@pytest.mark.parametrize("text", [b"\0" * 999, b"garbage\n" * 9, b'{"kind":"phase"}\n', b"{}", b"\xff\xfe"], ids=repr)
def test_garbage_in_a_journal_is_left_out_and_counted(text: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    from gridcompute.cli import main

    folder = kept_record().parent
    with (folder / "journal.jsonl").open("ab") as file:
        file.write(text)
    for command in ("status", "report"):
        assert main([command, folder.name]) == 0
    said = capsys.readouterr()
    assert "the journal has" in said.out
    assert not said.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["run", "a" * 5000 + ".py"], 2, "no script"), (["plan", "\0.py"], 2, "no script '\\x00.py'"),
        (["plan", "./"], 2, "no script './'"), (["doctor", "--no-ray", "--store", "\0"], 2, "store is '\\x00'"),
        (["clean", "--store", ""], 2, "store is ''"), (["run", "--workers", "9" * 20, "job.py"], 2, "workers is 9999"),
        (["run", "--executor", "", "job.py"], 2, "executor is ''"), (["plan", "broken.py"], 2, "line 1, isn't Python"),
        (["run", "broken.py"], 2, "line 1, isn't Python"), (["list", "x"], 2, "unexpected extra"),
        (["plan", "climate.trend", "--executor", "Ray"], 2, "executor is 'Ray'"),
        (["plan", "climate.trend", "--memory", "0"], 2, "a size of '0'"),
        (["clean", "--older-than", "nan"], 2, "--older-than"), (["status", "a", "b"], 2, "unexpected extra"),
        ([""], 2, "No such command"), (["run", ""], 2, "no workload ''"), (["run", "--"], 2, "Missing command"),
    ],
    ids=lambda one: " ".join(one)[:30].replace("\0", "NUL") if isinstance(one, list) else "",
)  # fmt: skip
def test_calls_that_make_no_sense_end_with_one_error_and_one_document(
    words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from gridcompute.cli import main

    Path("job.py").write_text("import gridcompute as grid\ngrid.run(grid.from_arrays({'a': [1.0]}, dims='x').sum())\n")
    Path("broken.py").write_text("def\n")
    for extra in ([], ["--json"]):
        given = [*words[:1], *extra, *words[1:]] if words[0] else words
        assert main(given) == code
        told = capsys.readouterr()
        assert told.err.count("error: ") == 1
        assert said in told.err
        assert "report it" not in told.err
        assert "Unrun" not in told.err
        if "--json" in given:
            assert isinstance(json.loads(told.out), dict)


def test_what_no_one_foresaw_is_one_line_and_one_document(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gridcompute.cli import main

    def fail() -> None:
        raise ZeroDivisionError("really")

    monkeypatch.setattr("gridcompute.record.records", fail)
    assert main(["list", "--json"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("error: ZeroDivisionError: really\n-> GRIDCOMPUTE_DEBUG=1")
    assert json.loads(said.out)["exit_code"] == 1


def test_a_hundred_columns_have_a_run() -> None:
    made = run(grid.from_arrays({f"column{i}": np.arange(3) for i in range(100)}))
    assert load(made.name).state == "done"
    assert len(made.name) < 101


def draws(x: float) -> float:
    return x + np.random.random()  # noqa: NPY002


def draws_in_python(x: Any) -> Any:
    return x + random.random()


def sets_a_global(x: float) -> float:
    global LEFT_BEHIND
    LEFT_BEHIND = x
    return x


async def waits(x: float) -> float:
    return x


def yields(x: float) -> Iterator[float]:
    yield x


def plain(x: float) -> float:
    return x


def scaled(x: float, by: float) -> float:
    return x * by


def named(value: Any) -> str:
    """Without the address that a function's own words have: a test's name is the same in each process."""
    return str(getattr(value, "__name__", repr(value)))


@pytest.mark.parametrize("func", [draws, sets_a_global, waits, yields, None, 3, "x", len, np.sin, float], ids=named)
def test_functions_that_make_no_kernel_are_refused(func: Any) -> None:
    with pytest.raises(UsageError):
        numbers().map(grid.kernel("()->()")(func))


@pytest.mark.parametrize("func", [draws, draws_in_python], ids=named)
def test_tasks_draw_only_by_rng(func: Any) -> None:
    with pytest.raises(UnkeyableError, match="rng"):
        run(numbers().map(grid.task("()->()", dtypes=["f8"])(func)))


@pytest.mark.parametrize(
    "options",
    [
        {"sizes": 3}, {"sizes": "k"}, {"sizes": {"k": True}}, {"sizes": {"k": -1}}, {"names": 3}, {"names": (None,)},
        {"names": ()}, {"flags": 3}, {"flags": "x"}, {"dtypes": "O"}, {"dtypes": 5}, {"dtypes": "U3"},
        {"dtypes": np.longdouble}, {"parallel": 0}, {"parallel": "x"},
    ],
    ids=repr,
)  # fmt: skip
def test_options_of_kernels_are_checked_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        grid.kernel("()->(k)", **{"sizes": {"k": 2}, **options})(plain)


@pytest.mark.parametrize("value", [2**70, -(2**63) - 1, None, b"x", [1], {"a": 1}, np.array([None]), len], ids=repr)
def test_parameters_that_no_kernel_takes_are_refused(value: Any) -> None:
    with pytest.raises(ParameterError, match="parameter by"):
        numbers().map(grid.kernel("()->()")(scaled), by=value)


@pytest.mark.parametrize(
    "func",
    [
        lambda x: x * 1j, lambda x: np.array([None] * len(x)), lambda x: np.array(["1"] * len(x)), lambda x: None,
        lambda x: x[:-1], lambda x: (x, x), lambda x: sys.exit(3), lambda x: 1 / 0, lambda x: x.fill(7),
        lambda x: np.array(["2020"] * len(x), "M8[s]"),
    ],
)  # fmt: skip
def test_what_a_task_may_not_return_or_do_fails_by_its_name(func: Any) -> None:
    with pytest.raises(KernelError, match="kernel lambda"):
        run(numbers().map(grid.task("()->()", dtypes=["f8"])(func)))


OPENERS = (grid.open_sequences, grid.open_table, grid.open_dataset, grid.open_zarr)


@pytest.mark.parametrize("opener", OPENERS, ids=lambda one: one.__name__)
@pytest.mark.parametrize(
    "paths", [None, 3, b"x.csv", "", "x\0.csv", "file://elsewhere/x.csv", "s3://", "foo://x/y.csv", 1.5], ids=repr
)
def test_what_is_no_path_is_refused_by_every_reader(opener: Any, paths: Any) -> None:
    with pytest.raises(GridError):
        opener(paths)


@pytest.mark.parametrize("opener", OPENERS, ids=lambda one: one.__name__)
def test_pipes_are_refused_instead_of_waited_for(opener: Any) -> None:
    os.mkfifo("pipe.parquet")
    with pytest.raises(GridError, match=r"is a pipe|isn't a Zarr store"):
        opener("pipe.parquet")


def test_passwords_in_urls_are_not_shown() -> None:
    with pytest.raises(GridError) as caught:
        grid.open_sequences("https://user:secret@127.0.0.1:9/reads.fq")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "where",
    [None, 3, b"x.zarr", "", "/", "s3://", "s3:///x.zarr", "foo://x/y.zarr", "x\0.zarr", "a\nb.zarr",
     "x" * 300 + ".zarr", "file://elsewhere/x.zarr", "x.csv", "x"],
    ids=repr,
)  # fmt: skip
def test_what_is_no_place_for_an_output_is_refused_when_it_is_named(where: Any) -> None:
    before = os.listdir()
    with pytest.raises(GridError):
        numbers().write(where)
    with pytest.raises(GridError):
        numbers().write("x.zarr", storage_options=3)
    assert os.listdir() == before


@pytest.mark.parametrize("where", ["file.zarr", "file.zarr/x.zarr", "dangling.zarr", "/dev/full/x.zarr", "/proc/x.zarr",
                                   "/proc/self/x.parquet"])
def test_places_that_cannot_be_written_are_refused(where: str) -> None:
    Path("file.zarr").write_text("mine")
    Path("dangling.zarr").symlink_to("/nonexistent/x")
    with pytest.raises(OutputError):
        run(numbers().write(where))
    assert Path("file.zarr").read_text() == "mine"


FASTQ = b"@a\nACGT\n+\nIIII\n"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("r.fq", b"@a\nACGT\n+\nIII\n"), ("r.fq", b"@a\nACGT\n+\n"), ("r.fq", b"hello\n"), ("r.fq", bytes(range(256))),
        ("r.fq.gz", gzip.compress(FASTQ * 9999)[:-200]), ("r.fq.gz", gzip.compress(FASTQ)[:-8]),
        ("r.fq.gz", gzip.compress(FASTQ) + b"garbage"), ("r.fa", b"ACGT\n"), ("t.csv", b"a,b\n1,2\n3\n"),
        ("t.csv", b""), ("t.csv", b"a,a\n1,2\n"), ("t.csv", "a\n1\n".encode("utf-16")), ("t.csv", b"a\n\xe4\n"),
        ("t.csv", b'a,b\n"x,2\n3,4\n'), ("t.parquet", b""), ("t.parquet", b"PAR1garbagePAR1"), ("t.arrow", b"ARROW1"),
        ("d.nc", b""), ("d.nc", b"CDF\x01"), ("d.nc", b"\x89HDF\r\n\x1a\n"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)  # fmt: skip
def test_broken_files_are_named(name: str, data: bytes) -> None:
    Path(name).write_bytes(data)
    opener = {".fq": grid.open_sequences, ".fa": grid.open_sequences, ".nc": grid.open_dataset}.get(name[1:4])
    with pytest.raises(GridError, match=name):
        run((opener or grid.open_table)(name))


def index(cell: Any) -> float:
    return cell[0] * 1.0


def summed(window: Any) -> float:
    return window.sum()


def test_a_large_space_is_planned_at_once() -> None:
    cells = grid.space(n=10**12).map(grid.kernel("->()")(index))
    for asked in (cells.sum(), (cells * 2 + 1).isel(n=slice(0, 10**12, 7)).mean(), cells.write("a.zarr")):
        assert len(grid.plan(asked).explain()) < 2000


@pytest.mark.parametrize("lengths", [{"n": 10**12, "m": 10**12}, {"n": 10**18}], ids=repr)
def test_a_space_beyond_counting_is_refused_before_it_is_listed(lengths: dict[str, int]) -> None:
    cells = grid.space(**lengths).map(grid.kernel("->()")(index))
    for asked in (cells, cells.sum(), cells.write("a.zarr")):
        with pytest.raises(MemoryBoundError, match="keep count of"):
            run(asked)


def test_metadata_with_huge_shapes_is_refused() -> None:
    run(numbers().write("a.zarr"))
    path = Path("a.zarr/a/zarr.json")
    made = json.loads(path.read_text())
    Path("a.zarr/zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    for shape, chunk in ((10**18, 5), (10**30, 5), (-5, 5), (5, 0), ("x", 5)):
        grid_of = {"name": "regular", "configuration": {"chunk_shape": [chunk]}}
        path.write_text(json.dumps({**made, "shape": [shape], "chunk_grid": grid_of}))
        with pytest.raises(GridError):
            run(grid.open_zarr("a.zarr").sum())


@pytest.mark.parametrize("depth", [6, 60])
def test_diamonds_are_planned_without_going_every_way(depth: int) -> None:
    made = numbers()
    for _ in range(depth):
        made = made + made
    assert grid.plan(made).tasks


@pytest.mark.parametrize(("name", "value"), [("TERM", ""), ("TERM", "garbage"), ("COLUMNS", "20"), ("COLUMNS", "abc")])
def test_terminals_may_be_anything(name: str, value: str, own_folder: Path) -> None:
    for text in ("--help", "run --help", "list"):
        done = command(text, env={**os.environ, name: value})
        assert (done.returncode, done.stderr) == (0, b"")


def command(text: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    code = f"{sys.executable} -c 'import sys, gridcompute.cli as c; sys.exit(c.main())' {text}"
    return subprocess.run(["bash", "-c", code], capture_output=True, timeout=60, check=False, **options)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("list >&-", 0), ("list 2>&-", 0), ("status nope >&- 2>&-", 2), ("list >/dev/full", 1),
        ("list --json >/dev/full", 1), ("status nope 2>/dev/full", 2), ("workloads | true; exit $PIPESTATUS", 1),
        ("--help | true; exit $PIPESTATUS", 1),
    ],
)  # fmt: skip
def test_streams_that_are_closed_or_full_give_no_traceback(text: str, code: int) -> None:
    done = command(text)
    assert b"Traceback" not in done.stderr + done.stdout
    assert done.returncode == code


def test_a_question_that_nobody_answers_removes_nothing(own_folder: Path) -> None:
    shutil.rmtree(kept_record().parent)
    done = command("clean < /dev/null", cwd=own_folder)
    assert done.returncode == 2
    assert b"error: nobody can be asked here" in done.stderr
    assert b"--yes" in done.stderr
    assert list(own_folder.glob(".gridcompute/shards/**/*.arrow"))
    assert command("clean --yes < /dev/null", cwd=own_folder).returncode == 0
    assert not list(own_folder.glob(".gridcompute/shards/**/*.arrow"))


def test_a_folder_that_was_removed_is_named(own_folder: Path) -> None:
    (own_folder / "gone").mkdir()
    done = command("list", cwd=own_folder / "gone", preexec_fn=lambda: os.rmdir(own_folder / "gone"))
    assert done.returncode == 2
    assert b"folder was removed" in done.stderr


@pytest.mark.parametrize(
    ("index", "says"),
    [
        (np.ma.MaskedArray([1, -1, 2], [0, 0, 0]), "position -1 at row 1 lies outside"),
        (np.ma.MaskedArray([1, 2, 5], [0, 0, 0]), "position 5 at row 2 lies outside"),
        (np.ma.MaskedArray([1, 9, 2], [0, 1, 0]), "the position at row 1 is null"),
        (np.where(np.arange(4000) == 3900, 7, 1), "position 7 at row 3900 lies outside"),
        (np.array([1, 2**63 + 1], "u8"), "position 9223372036854775809 at row 1"),
    ],
    ids=["negative", "beyond", "null", "late", "huge"],
)
def test_computed_positions_that_are_wrong_are_named_by_their_row(index: Any, says: str) -> None:
    where = grid.from_arrays({"index": index}, dims="j")
    with pytest.raises(KernelError, match=says):
        run(numbers().take(where, numbers().dims[0]))


def test_half_floats_are_sorted_and_grouped() -> None:
    values = np.array([2, np.nan, -0.0, np.inf, 2, 0.5], "f2")
    table = grid.from_arrays({"x": values, "i": np.arange(6)}, dims="row")
    assert run(table.sort("x"))["i"].to_numpy().tolist() == [2, 5, 0, 4, 3, 1]
    assert run(table.groupby("x").sum())["i"].to_numpy().tolist() == [2, 5, 4, 3]


def test_a_float_that_a_column_cannot_hold_is_not_filled_in() -> None:
    column = grid.from_arrays({"x": np.array([np.nan, 1], "f4")}, dims="row")["x"]
    with pytest.raises(ParameterError, match="doesn't hold 1e"):
        column.fillna(1e300)
    assert run(column.fillna(float("inf")))[0].to_numpy().tolist() == [float("inf"), 1]
    assert run(column.fillna(0.1))[0].to_numpy()[0] == np.float32(0.1)
    assert np.isnan(run(column.fillna(float("nan")))[0].to_numpy()[0])


def test_shards_that_were_swapped_are_not_believed(own_folder: Path) -> None:
    cells = grid.from_arrays({"a": np.arange(40.0)}).map(grid.kernel("()->()")(plain))
    run(cells)
    shards = sorted(own_folder.glob(".gridcompute/shards/**/*.arrow"))
    first, second = (next(one for one in shards if one.name.startswith(f"{at}-")) for at in (0, 1))
    kept = first.read_bytes()
    for shard, data in ((first, second.read_bytes()), (second, kept)):
        shard.chmod(0o600)
        shard.write_bytes(data)
    made = run((cells + 0).sort("plain"), cells)  # a sort reads what is committed
    assert made[0].to_numpy().tolist() == list(range(40))
    assert made[1].to_numpy().tolist() == list(range(40))
