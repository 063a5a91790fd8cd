"""The command line: every command, every exit code, clear errors, one JSON document, fast help."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gridcompute as grid
from gridcompute import cli, doctor, record, registry, summary
from gridcompute.errors import ParameterError
from gridcompute.journal import Journal
from gridcompute.maps import draw_trend, per_decade
from gridcompute.origins import Origin
from gridcompute.plots import Axis, draw_histograms, picture_path

pytestmark = pytest.mark.ray

TOY = '''
from pathlib import Path

import numpy as np

import gridcompute as grid


@grid.task("()->()", dtypes=("float64",), names=("value",), parallel=4)
def picky(values):
    if Path("fail").exists():
        raise ValueError("as asked")
    return values * 2


def double(output: str = "o.zarr", rows: int = 8, share: float = 0.5, deep: bool = False, where: Path = Path("x"),
           input: str | None = None, overwrite: bool = False) -> grid.Job:
    """Twice the numbers.

    More about it.

    Args:
        output: Zarr store
            to write.
        rows: how many (1 or more).
        share: unused.
        overwrite: replace it.

    Examples:
        gridcompute run toy.double --rows 3
    """
    data = grid.from_arrays({"a": np.arange(float(rows))}, dims="x").map(picky)
    written = data.write(output, overwrite=overwrite)
    return grid.Job([written], lambda run: ["finished", Path("picture.png")], ["before"])


def wrong(values: list) -> grid.Job:
    """Has a type that no option can have."""


def nothing():
    """Gives no job."""
'''

ENTRIES = {"toy.double": "toy_jobs:double", "toy.wrong": "toy_jobs:wrong", "toy.nothing": "toy_jobs:nothing",
           "toy.gone": "no_such_module:function"}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A third party's package, registered by entry points."""
    place = tmp_path_factory.mktemp("package")
    (place / "toy_jobs.py").write_text(TOY)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(place))
        patch.setattr(registry, "entry_points", lambda group: [EntryPoint(n, v, group) for n, v in ENTRIES.items()])
        yield place


@pytest.fixture(autouse=True)
def own_place(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("GRIDCOMPUTE_EXECUTOR", "inline")
    monkeypatch.delenv("GRIDCOMPUTE_DEBUG", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Any:
    """Carry out a command line; gives its exit code, standard output and standard error."""

    def carry_out(*arguments: str) -> SimpleNamespace:
        capsys.readouterr()
        code = cli.main(list(arguments))
        said = capsys.readouterr()
        return SimpleNamespace(code=code, out=said.out, err=said.err, json=lambda: json.loads(said.out))

    return carry_out


# --- help ---


def test_a_workloads_own_parameters_come_first(call: Any) -> None:
    own, _, common = call("run", "toy.double", "--help").out.partition("Parameters:")[2].partition("Options:")
    assert "--rows" in own
    assert "--workers" not in own
    assert "--workers" in common
    assert "--rows" not in common


def test_help_of_everything(call: Any) -> None:
    top = call("--help")
    assert top.code == 0
    assert all(name in top.out for name in cli.ORDER)
    assert "130 interrupted and resumable" in top.out
    for name in cli.ORDER:
        told = call(name, "--help")
        assert told.code == 0, told.err
        assert "Examples:" in told.out
        assert f"  gridcompute {name}" in told.out
        assert "{" not in told.out
        assert "..." not in told.out.split("Options:")[-1]
    assert "..." not in top.out.split("Options:")[-1]
    assert "what it committed stays, and it can be resumed." in " ".join(top.out.split())
    assert "toy.double" in call("run", "--help").out
    assert "gridcompute" in call("--version").out


def test_help_of_a_workload_is_made_of_its_signature(call: Any) -> None:
    told = call("run", "toy.double", "--help")
    assert told.code == 0
    assert "Twice the numbers." in told.out
    assert "Zarr store to write." in told.out
    assert "[default: 8]" in told.out
    assert "--deep / --no-deep" in told.out
    assert "  gridcompute run toy.double --rows 3\n" in told.out
    assert "gridcompute plan toy.double --rows 3" in call("plan", "toy.double", "--help").out


def test_help_is_fast_because_it_imports_little() -> None:
    code = "import sys; from gridcompute.cli import main; main(['--help']); print('LOADED', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split("LOADED")[1].split())
    assert loaded.isdisjoint(
        {"ray", "xarray", "matplotlib", "numba", "pandas", "dask", "pyarrow", "gridcompute_workloads"}
    )


# --- run ---


def test_run_says_what_it_did(call: Any) -> None:
    told = call("run", "toy.double", "--rows", "5", "--where", "somewhere")
    assert told.code == 0, told.err
    assert grid.open_result("o.zarr")["value"].values.tolist() == [0, 2, 4, 6, 8]
    for text in (
        ": done",
        "before",
        "finished",
        "written",
        "o.zarr",
        "picture.png",
        "computed",
        "compiling",
        "(this process)",
    ):
        assert text in told.out
    kept = record.load("last")
    assert kept.how == {"workload": "toy.double", "parameters": {"rows": 5, "where": "somewhere"}, "call": 0}
    again = call("run", "toy.double", "--rows", "5", "--quiet")
    assert (again.code, again.out, again.err) == (0, "", "")


def test_run_as_json_is_one_document(call: Any) -> None:
    told = call("run", "toy.double", "--json")
    assert told.code == 0
    values = told.json()
    assert (values["state"], values["exit_code"], values["executor"]) == ("done", 0, "inline")
    assert values["lines"] == ["before", "finished"]
    assert values["files"] == [str(Path("picture.png").absolute())]
    assert values["computed"] > 0
    assert values["outputs"][0].endswith("o.zarr")
    assert len(values["runs"]) == 1


def test_options_stand_before_or_after_the_workload(call: Any) -> None:
    assert call("run", "--store", "s1", "toy.double", "--store", "s2").code == 0
    assert Path("s2/shards").is_dir()
    assert not Path("s1").exists()
    assert call("run", "--store", "s3", "--quiet", "toy.double", "--output", "p.zarr").out == ""
    assert Path("s3/shards").is_dir()


def test_verify_and_quorum(call: Any) -> None:
    for options in (["--verify", "1"], ["--quorum", "2/3"]):
        place = options[1][0]
        values = call("run", "toy.double", *options, "--store", place, "--output", f"{place}.zarr", "--json").json()
        assert values["confirmed"] == values["computed"] > 0
        assert values["same_process"] == values["confirmed"]
    told = call("run", "toy.double", "--quorum", "2/3", "--verify", "1", "--store", "c")
    assert told.code == 2
    assert "verify and quorum are both given" in told.err


def test_a_resumed_run_checks_as_before(call: Any) -> None:
    Path("fail").touch()
    assert call("run", "toy.double", "--quorum", "2/3").code == 1
    Path("fail").unlink()
    name = record.load("last").run
    assert call("resume", name).code == 0
    assert record.load("last").settings["quorum"] == "2/3"


@pytest.mark.parametrize(
    ("arguments", "said", "hint"),
    [
        (["run", "toy.dubble"], "no workload 'toy.dubble'", "did you mean toy.double?"),
        (["run", "toy.double", "--rows", "many"], "--rows", "gridcompute run toy.double --help"),
        (["run", "toy.double", "--row", "3"], "--row", "gridcompute run toy.double --help"),
        (["run", "toy.double", "--executor", "cloud"], "executor is 'cloud'", "one of ray, inline"),
        (["run", "toy.double", "--workers", "0"], "--workers", "gridcompute run toy.double --help"),
        (["run", "toy.double", "--memory", "lots"], "'lots' isn't a size in bytes", "4GB"),
        (["run", "toy.double", "--output", "o.doc"], "in which format", ".zarr"),
        (["run", "toy.wrong"], "parameter 'values' of wrong", "one of str"),
        (["run", "toy.nothing"], "gave a NoneType, not a Job", "grid.Job"),
        (["run", "toy.gone"], "can't be loaded", "reinstall"),
        (["run", "./missing.py"], "no script './missing.py'", "check the path"),
        (["plan", "./missing.py"], "no script './missing.py'", "check the path"),
        (["resume", "nothing"], "no run 'nothing'", "gridcompute list"),
        (["report", "nothing"], "no run 'nothing'", "gridcompute list"),
        (["jump"], "jump", "gridcompute --help"),
    ],
)
def test_usage_errors(call: Any, arguments: list[str], said: str, hint: str) -> None:
    told = call(*arguments)
    assert told.code == 2
    assert said in told.err
    assert hint in told.err
    assert told.err.startswith("error: ")
    assert "Traceback" not in told.err
    assert told.out == ""


def test_errors_of_inputs_and_outputs(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").write_text("")
    told = call("run", "toy.double", "--output", "file/o.zarr")
    assert told.code == 1
    assert "file" in told.err
    assert "Traceback" not in told.err
    told = call("run", "toy.double", "--store", "file")
    assert told.code == 1
    assert "file" in told.err
    assert call("run", "toy.double").code == 0
    told = call("run", "toy.double", "--rows", "3", "--json")
    assert told.code == 1
    assert "exists already" in told.err
    assert "--overwrite" in told.err
    assert "overwrite=True" not in told.err
    assert told.json()["state"] == "failed"
    assert call("run", "toy.double", "--rows", "3", "--overwrite").code == 0
    monkeypatch.setattr("gridcompute.stores.local.LocalStore.free_bytes", lambda self: 1)
    told = call("run", "toy.double", "--rows", "100", "--output", "big.zarr")
    assert told.code == 1
    assert "room" in told.err
    told = call("run", "toy.double", "--memory", "1MB")
    assert told.code == 1
    assert "MiB" in told.err


def test_a_cluster_that_does_not_answer_leaves_nothing_behind(call: Any) -> None:
    told = call("run", "toy.double", "--executor", "ray", "--address", "127.0.0.1:1")
    assert told.code == 1
    assert "127.0.0.1:1 can't be reached" in told.err
    assert os.listdir() == [".gridcompute"]


def test_a_command_that_lacks_its_job_shows_its_help(call: Any) -> None:
    told = call("run")
    assert told.code == 2
    assert told.err.startswith("Usage: gridcompute run")
    assert call("--json", "run").code == 2


def test_usage_errors_as_json(call: Any) -> None:
    told = call("run", "toy.double", "--json", "--jump").json()
    assert (told["kind"], told["exit_code"]) == ("ParameterError", 2)
    assert told["hint"] == "gridcompute run toy.double --help"
    values = call("report", "nothing", "--json").json()
    assert (values["kind"], values["exit_code"]) == ("RecordError", 2)
    assert "no run" in values["error"]


def test_debug_shows_the_traceback(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDCOMPUTE_DEBUG", "1")
    assert "Traceback" in call("report", "nothing").err


def test_a_failed_run_can_be_resumed(call: Any) -> None:
    Path("fail").touch()
    told = call("run", "toy.double")
    assert told.code == 1
    assert "as asked" in told.err
    assert "output" in told.out
    assert "written" not in told.out
    name = record.load("last").run
    assert call("status").code == 1
    assert "as asked" in call("report", "last").out
    reported = call("report", name[:12], "--json").json()
    assert (reported["state"], reported["attempts"]) == ("failed", 1)
    assert "as asked" in reported["failed"][0]["message"]
    assert reported["failures"] == sum(one["times"] for one in reported["failed"])
    assert call("list", "--json").json()["runs"][-1]["failures"] == reported["failures"]
    assert call("resume", name).code == 1
    Path("fail").unlink()
    told = call("resume", name, "--json")
    assert told.code == 0
    assert (told.json()["run"], told.json()["state"]) == (name, "done")
    assert call("report", name, "--json").json()["attempts"] == 3
    assert call("status", name).code == 0


def test_a_report_has_the_pictures_and_what_the_workload_said(call: Any) -> None:
    told = call("run", "toy.double", "--json").json()
    picture = str(Path("picture.png").absolute())
    reported = call("report", "last", "--json").json()
    assert (told["files"], told["lines"]) == ([picture], ["before", "finished"])
    assert (reported["files"], reported["lines"]) == ([picture], ["before", "finished"])
    out = call("report", "last").out
    assert picture in out
    assert "finished" in out


def test_scripts_get_their_arguments_and_their_own_exit_code(call: Any) -> None:
    Path("job.py").write_text(
        "import sys\nimport numpy as np\nimport gridcompute as grid\n"
        "run = grid.run(grid.from_arrays({'a': np.arange(4.0)}, dims='x').sum())\n"
        "print('sum', run[0].to_numpy(), sys.argv[1:])\n"
        "if '--exit' in sys.argv: sys.exit(7)\nif '--raise' in sys.argv: raise ValueError('mine')\n"
    )
    told = call("run", "./job.py", "--any", "-q", "thing", "--help")
    assert told.code == 0, told.err
    assert "sum 6.0 ['--any', '-q', 'thing', '--help']" in told.out
    assert ": done" in told.out
    told = call("run", "--json", "./job.py")
    assert told.json()["how"]["script"] == str(Path("job.py").absolute())
    assert "sum 6.0" in told.err
    assert call("run", "job.py", "--exit").code == 7
    told = call("run", "--quiet", "job.py", "--raise")
    assert told.code == 1
    assert "ValueError: mine" in told.err
    assert "job.py" in told.err


@pytest.mark.parametrize("command", [["resume", "last"], ["replay", "last", "0"],
                                     ["chaos", "--executor", "inline", "job.py"]])
def test_a_script_that_breaks_while_it_is_run_again_shows_its_author_where(command: list[str], call: Any) -> None:
    Path("job.py").write_text(JOB.format(first="a.zarr", second="b.zarr"))
    assert call("run", "./job.py").code == 0
    Path("job.py").write_text("import os\n\n\ndef broken():\n    raise ValueError('mine')\n\n\nbroken()\n")
    told = call(*command)
    assert told.code == 1
    assert 'job.py", line 5, in broken' in told.err
    assert told.err.rstrip().endswith("job.py failed: ValueError: mine")
    assert "report it" not in told.err
    assert call(*command[:1], "--json", *command[1:]).json()["error"] == "mine"


def test_runs_are_named_after_the_script_or_the_workload(call: Any) -> None:
    Path("my_job.py").write_text(JOB.format(first="a.zarr", second="b.zarr"))
    assert call("run", "my_job.py").code == 0
    assert [one.run.rsplit("-", 3)[0] for one in record.records()] == ["my-job", "my-job"]
    call("run", "toy.double")
    assert record.load("last").run.startswith("toy-double-")


JOB = """
import sys
import numpy as np
import gridcompute as grid

print("arguments", sys.argv[1:])
numbers = grid.from_arrays({{"a": np.arange(4.0)}}, dims="x")
first, second = (numbers * 2).write("{first}"), (numbers * 3).write("{second}")
if "none" in sys.argv:
    sys.exit(5)
if "broken" in sys.argv:
    raise ValueError("mine")
if "nothing" not in sys.argv:
    try:
        grid.run(first, memory="3GB")
    except Exception:
        print("caught")
    grid.run(second)
"""


def test_a_script_is_planned_up_to_its_first_run(call: Any, recwarn: pytest.WarningsRecorder) -> None:
    Path("my_job.py").write_text(JOB.format(first="a.zarr", second="b.zarr"))
    told = call("plan", "--workers", "3", "./my_job.py", "--any", "-q")
    assert told.code == 0, told.err
    assert told.out.startswith("arguments ['--any', '-q']\n1 stage")
    assert "a.zarr" in told.out
    assert "b.zarr" not in told.out
    assert "caught" not in told.out
    values = call("plan", "--json", "--workers", "3", "./my_job.py").json()
    assert values["script"] == str(Path("my_job.py").absolute())
    assert (values["workers"], values["memory_bound_per_worker"]) == (3, 3 * 2**30)
    assert not list(Path().glob("*.zarr"))
    assert not record.records()
    assert call("plan", "my_job.py", "none").code == 5
    told = call("plan", "my_job.py", "nothing")
    assert (told.code, "ended without a run" in told.err) == (2, True)
    told = call("plan", "my_job.py", "broken")
    assert (told.code, "the script my_job.py failed: ValueError: mine" in told.err) == (1, True)
    assert "my_job.py" in told.err.split("Traceback")[1]
    assert "runpy" not in told.err  # of the traceback only what is the script's
    assert not list(recwarn)
    told = call("plan", "my_job.py", "--address", "10.0.0.1:6379", "--certs=there")
    assert "note: --address, --certs went to the script" in told.err
    assert "gridcompute plan --address ... my_job.py" in told.err
    assert "note:" not in call("plan", "my_job.py", "--other", "address").err
    Path("own.py").write_text(Path("my_job.py").read_text() + "# takes --address\n")
    assert "note:" not in call("plan", "own.py", "--address", "10.0.0.1:6379").err
    assert call("run", "my_job.py").code == 0
    assert "1 of 1 chunk committed" in call("plan", "my_job.py").out


NOTHING = summary.facts(record.RunRecord("r", "", [], {}, {}, [], "", "", 0.0, state="failed"))


def test_the_time_of_compiling_is_told() -> None:
    told = {**NOTHING, "task_seconds": 3.0, "compile_seconds": 1.26, "compiled": 2}
    said = "1.3 s of compiling (2 functions) or loading code among 3.0 s in tasks"
    assert any(said in line for line in summary.screen(told))


def test_chunks_that_were_done_twice_are_counted() -> None:
    assert not any("twice" in line for line in summary.screen(NOTHING))
    found = summary.screen({**NOTHING, "doubled": 1})
    assert any("1 chunk computed twice" in line for line in found)


def test_second_copies_are_counted() -> None:
    assert not any("cop" in line for line in summary.screen(NOTHING))
    found = summary.screen({**NOTHING, "copies": 2, "copies_won": 1})
    assert any("2 second copies of slow tasks, of which 1 came first" in line for line in found)
    found = summary.screen({**NOTHING, "confirmed": 5, "same_process": 2})
    assert any("5 chunks computed again and found equal, 2 of them in the same process" in line for line in found)


def test_failures_are_counted_in_words() -> None:
    told = {**NOTHING, "failures": 1}
    assert "  failures  1, of which none tried again" in summary.screen(told)
    assert "  failures  3, of which 2 tried again" in summary.screen({**told, "failures": 3, "retries": 2})


def test_a_report_of_a_killed_run_says_what_it_had_found(tmp_path: Path) -> None:
    killed = record.RunRecord("r", "", [], {}, {}, [], str(tmp_path), "", 0.0)
    with Journal.open(killed.journal) as events:
        events.append("begun", run="r")
        events.append("phase", number=1, stages={"0": "f"}, chunks={"0": 5}, found={"0": 3})
    told = summary.report(killed)
    assert (told["computed"], told["reused"]) == (0, 3)


def test_skipped_cells_and_interruptions_have_their_exit_codes() -> None:
    assert summary.exit_code("done", {}) == 0
    assert summary.exit_code("done", {"skipped": 2}) == 3
    assert summary.exit_code("failed", {}) == 1
    assert summary.exit_code("interrupted", {}) == 130


SLOW = """
import os, time
from pathlib import Path
import numpy as np
import gridcompute as grid

begun = Path("begun").absolute()

@grid.task("()->()", dtypes=("float64",), parallel=40)
def slow(values, begun=str(begun)):
    time.sleep(0.2)
    Path(begun).touch()
    return values

try:
    grid.run(grid.from_arrays({"a": np.arange(40.0)}, dims="x").map(slow))
finally:
    print("cleaned up")
"""


@pytest.mark.parametrize(
    ("executor", "way"),
    [("inline", "script"), ("inline", "command"), ("inline", "quiet"), ("inline", "json"), ("inline", "twice"),
     ("ray", "script"), ("ray", "twice")],
)
def test_ctrl_c_is_answered_at_once_with_one_hint(executor: str, way: str) -> None:
    Path("slow.py").write_text(SLOW)
    words = {"script": [], "command": ["run"], "twice": ["run"], "quiet": ["run", "-q"], "json": ["run", "--json"]}[way]
    command = [sys.executable, *(["-m", "gridcompute", *words] if words else []), "slow.py"]
    environment = {**os.environ, "GRIDCOMPUTE_EXECUTOR": executor, "GRIDCOMPUTE_WORKERS": "1"}
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
                               start_new_session=True)
    ends = time.monotonic() + 90
    while not Path("begun").exists() and time.monotonic() < ends:
        time.sleep(0.05)
    os.killpg(started.pid, signal.SIGINT)  # as a terminal does it
    assert started.stderr is not None
    assert started.stderr.readline() == "stopping: running tasks may still finish (Ctrl-C again to stop at once)\n"
    if way == "twice":
        os.killpg(started.pid, signal.SIGINT)
    out, err = started.communicate(timeout=60)
    if (executor, way) == ("ray", "twice") and started.returncode == 1:
        return  # seldom the second one strikes within Ray's own code, which then ends the process in its way
    assert started.returncode == (-signal.SIGINT if way == "script" else 130), out + err
    assert (out + err).count(f"gridcompute resume {record.load('last').run}") == 1 + 2 * (way == "json")
    assert "error: " not in out + err
    assert "Traceback" not in out + err
    assert "cleaned up" in (err if way == "json" else out)
    if way == "json":
        assert json.loads(out)["state"] == "interrupted"
    assert record.load("last").standing == "interrupted"


def test_ctrl_c_is_a_keyboard_interrupt_and_a_session_is_told_to_run_it_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(status: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    numbers = grid.from_arrays({"a": np.arange(4.0)}, dims="x")
    for how, hint in (({}, "run it again to go on"), ({"script": "a.py"}, "gridcompute resume ")):
        monkeypatch.setattr("gridcompute.api.current", lambda how=how: Origin(how))
        with pytest.raises(KeyboardInterrupt) as raised:
            grid.run(numbers.sum(), watch=interrupt)
        told = capsys.readouterr().err
        assert raised.type is KeyboardInterrupt
        assert told.count(hint) == 1
        assert "stopping: " in told
        assert record.load("last").standing == "interrupted"


def test_cancel_stops_a_run_that_goes_on() -> None:
    Path("slow.py").write_text(SLOW)
    command = [sys.executable, "-m", "gridcompute", "run", "slow.py"]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    ends = time.monotonic() + 60
    while not Path("begun").exists() and time.monotonic() < ends:
        time.sleep(0.05)
    name = record.load("last").run
    status = subprocess.run([*command[:3], "status", name], capture_output=True, text=True, check=False)
    assert status.returncode == 0
    assert f"{name}: running" in status.stdout
    stopped = subprocess.run([*command[:3], "cancel", name], capture_output=True, text=True, check=False)
    assert stopped.returncode == 0, stopped.stderr
    assert "interrupted" in stopped.stdout
    out, err = started.communicate(timeout=60)
    assert started.returncode == 130
    assert f"gridcompute resume {name}" in out
    assert err.startswith("stopping: ")
    assert "Traceback" not in err
    assert record.load(name).standing == "interrupted"


def test_cancel_refuses_what_does_not_run(call: Any) -> None:
    call("run", "toy.double", "--quiet")
    told = call("cancel", "last")
    assert told.code == 2
    assert "isn't running here: it is done" in told.err
    pid, since = record.driver_process()
    mine = replace(record.load("last"), state="running", pid=pid, pid_since=since)
    mine.save()
    assert "this very process" in call("cancel", "last").err
    replace(mine, pid_since=since - 50).save()  # another process that has the number now
    assert "it is interrupted" in call("cancel", "last").err


def test_a_local_ray_gives_the_same(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRIDCOMPUTE_EXECUTOR")
    told = call("run", "toy.double", "--workers", "1", "--output", "r.zarr")
    import ray

    ray.shutdown()
    assert told.code == 0, told.err
    assert "to start Ray" in told.out
    assert grid.open_result("r.zarr")["value"].values.tolist() == [2.0 * i for i in range(8)]


# --- plan, list, clean, doctor, workloads ---


def test_plan_computes_nothing(call: Any) -> None:
    told = call("plan", "toy.double", "--rows", "6")
    assert told.code == 0
    assert "picky" in told.out
    assert "before" in told.out
    assert not Path("o.zarr").exists()
    assert not Path(".gridcompute").exists()
    values = call("plan", "toy.double", "--json").json()
    assert values["parameters"] == {}
    assert values["stages"][0]["chunks"] > 0
    assert call("plan", "toy.double", "--memory", "1MB").code == 1


def test_list(call: Any) -> None:
    assert "no runs yet" in call("list").out
    call("run", "toy.double", "--quiet")
    assert "o.zarr" in call("list").out
    assert [run["state"] for run in call("list", "--json").json()["runs"]] == ["done"]


def test_clean_keeps_what_remaining_runs_name_and_every_output(call: Any) -> None:
    call("run", "toy.double", "--quiet", "--rows", "8")
    call("run", "toy.double", "--quiet", "--rows", "9", "--output", "p.zarr")
    first, second = [run["run"] for run in call("list", "--json").json()["runs"]]
    shards = sorted(str(path) for path in Path(".gridcompute/shards").rglob("*.json"))
    assert "nothing to remove" in call("clean").out
    told = call("clean", first, "--yes", "--json").json()
    assert (told["runs"], told["removed"]) == ([first], True)
    assert told["bytes"] > 0
    left = sorted(str(path) for path in Path(".gridcompute/shards").rglob("*.json"))
    assert 0 < len(left) < len(shards)
    assert [run["run"] for run in call("list", "--json").json()["runs"]] == [second]
    assert "removed 1 run, " in call("clean", "--all", "--yes").out
    assert not list(Path(".gridcompute").rglob("*.json"))
    assert grid.open_result("o.zarr")["value"].size == 8
    assert grid.open_result("p.zarr")["value"].size == 9


def test_the_last_run_is_one_that_is_still_there(call: Any) -> None:
    call("run", "toy.double", "--quiet")
    call("run", "toy.double", "--quiet", "--rows", "3", "--output", "p.zarr")
    first, second = record.records()
    Path(second.folder, "run.json").unlink()
    assert call("status").out.startswith(first.run)


def test_clean_asks_and_is_careful(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    call("run", "toy.double", "--quiet")
    assert call("clean", "--all", "--json").json()["removed"] is False  # and nothing was asked
    assert call("clean", "--all", "--older-than", "1", "--yes").out.startswith("nothing to remove")
    monkeypatch.setattr("typer.confirm", lambda *args, **kwargs: False)
    assert "nothing was removed" in call("clean", "--all").out
    assert call("clean", "--older-than", "1", "--yes").out.startswith("nothing to remove")
    kept = record.load("last")
    kept.journal.unlink()
    call("run", "toy.double", "--quiet", "--rows", "3", "--output", "p.zarr")
    told = call("clean", "last", "--yes", "--json")
    assert told.json()["shards"] == 0  # nobody knows which are the other run's
    assert "doesn't say which" in told.err
    pid, since = record.driver_process()
    replace(kept, state="running", pid=pid, pid_since=since).save()
    assert call("clean", kept.run, "--yes").code == 2
    assert "is running" in call("clean", "--all", "--yes").err
    Path(kept.folder, "run.json").unlink()
    assert call("clean", "--json").json()["dangling"] == [kept.run]
    assert "1 lost run in the index" in call("clean", "--yes").out
    assert call("list", "--json").json()["runs"] == []


def test_doctor(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told = call("doctor", "--no-ray")
    assert told.code == 0, told.out
    assert all(name in told.out for name in ("python", "cores", "memory", "shared memory", "compiled code", "store"))
    values = call("doctor", "--no-ray", "--json").json()
    assert values["ok"] is True
    Path("file").write_text("")
    told = call("doctor", "--no-ray", "--store", "file/below")
    assert told.code == 1
    assert "FAIL" in told.out
    monkeypatch.setattr(doctor, "_RAY", "raise SystemExit('no ray here')")
    told = call("doctor")
    assert told.code == 1
    assert "no ray here" in told.out
    assert "--executor inline" in told.out
    monkeypatch.setattr(doctor, "_RAY", "import time; time.sleep(60)")
    monkeypatch.setattr(doctor, "RAY_SECONDS", 0.2)
    assert "no answer" in call("doctor").out


def test_workloads_lists_also_those_that_are_broken(call: Any) -> None:
    told = call("workloads")
    assert told.code == 0
    assert "Twice the numbers." in told.out
    assert "can't be loaded" in told.out
    values = {one["name"]: one for one in call("workloads", "--json").json()["workloads"]}
    assert [p["name"] for p in values["toy.double"]["parameters"]][:2] == ["output", "rows"]
    assert values["toy.gone"]["error"]


# --- the registry ---


def test_parameters_come_from_signature_and_docstring() -> None:
    found = {p.name: p for p in registry.find("toy.double").parameters}
    assert found["output"].help == "Zarr store to write."
    assert found["rows"].help == "how many (1 or more)."
    assert (found["rows"].type, found["rows"].default, found["rows"].required) == (int, 8, False)
    assert found["input"].optional
    assert found["share"].cast(1) == 1.0
    assert found["where"].cast("a") == Path("a")
    for value in (True, 1.5, "1", None):
        with pytest.raises(ParameterError):
            found["rows"].cast(value)
    assert found["input"].cast(None) is None


def test_one_name_registered_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [("a.b", "one:f"), ("a.b", "two:f")]
    monkeypatch.setattr(registry, "entry_points", lambda group: [EntryPoint(n, v, group) for n, v in pairs])
    with pytest.raises(ParameterError, match="two packages"):
        registry.registered()


def test_our_own_workloads_are_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    code = "from gridcompute.registry import registered; print(*[w.name for w in registered()])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"climate.trend", "genomics.distance"} <= set(done.stdout.split())


# --- pictures ---


def axis(kind: str, values: list[float]) -> Axis:
    return Axis(kind or "d", np.asarray(values), "degrees" if kind else "", kind)


@pytest.mark.parametrize("shape", [(), (1,), (60,), (1, 1), (3, 4), (200, 5)])
@pytest.mark.parametrize("filling", ["mixed", "positive", "negative", "constant", "nan"])
def test_trends_of_every_shape_are_drawn(tmp_path: Path, shape: tuple[int, ...], filling: str) -> None:
    values = np.random.default_rng(1).normal(size=shape)
    values = {
        "mixed": values,
        "positive": abs(values),
        "negative": -abs(values),
        "constant": values * 0 + 3,
        "nan": values * np.nan,
    }[filling]
    kinds = ["latitude", "longitude"] if len(shape) == 2 else [""]
    axes = [axis(kind, list(np.linspace(-60, 60, n))) for kind, n in zip(kinds, shape, strict=False)]
    path = draw_trend(
        tmp_path / "deep" / "t.png", values, np.asarray(values > 0), axes, name="a_b", unit="K year-1", alpha=0.05
    )
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert [p.name for p in path.parent.iterdir()] == ["t.png"]


def test_histograms_are_drawn(tmp_path: Path) -> None:
    groups = {"a": np.array([1, 2, 2]), "b": np.array([], np.int64)}
    for panels in (
        [("x", groups, True)],
        [("x", groups, True), ("y", {"a": np.array([0.5])}, False)],
        [("x", {"a": np.array([])}, False)],
    ):
        assert draw_histograms(tmp_path / "h.png", panels, "title").read_bytes()[:4] == b"\x89PNG"


def test_where_pictures_go() -> None:
    assert picture_path("", "a/trend.zarr") == Path("a/trend.png").absolute()
    assert picture_path("", "s3://bucket/x/trend.zarr/") == Path("trend.png").absolute()
    assert picture_path("none", "a.zarr") is None
    assert per_decade(np.array([1.0]), "m")[1] == "m"


def test_a_terminal_that_closes_interrupts_the_run(tmp_path: Path) -> None:
    Path("slow.py").write_text(SLOW.replace("sleep(0.2)", "sleep(1)"))  # it mustn't be done before the signals arrive
    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "gridcompute", "run", "slow.py"]
    # Where these tests run under nohup, what they start would ignore the signal too, as it should.
    started = subprocess.Popen(command, stdin=end, stdout=end, stderr=end, start_new_session=True,
                               preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))
    os.close(end)
    ends = time.monotonic() + 60
    while not Path("begun").exists() and time.monotonic() < ends:
        time.sleep(0.05)
    os.close(terminal)
    started.send_signal(signal.SIGHUP)
    started.send_signal(signal.SIGHUP)
    assert started.wait(timeout=60) in (1, 130)
    assert record.load("last").state == "interrupted"
