"""Faults on a real local Ray, one session for all: lost, hanging and cancelled tasks, held blocks, a closed door."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from interrupted import contents, finish, journals, kept, load_job, start, values, write_job

import gridcompute as grid
from gridcompute.errors import (
    DeadlineError,
    InterruptedRunError,
    KernelError,
    MemoryBoundError,
    StoreError,
    WorkerLostError,
)
from gridcompute.journal import read
from gridcompute.ray_session import token_file

pytestmark = [pytest.mark.ray, pytest.mark.faults]

CUBE = np.arange(4 * 3 * 4, dtype=float).reshape(4, 3, 4)


def cube() -> Any:
    return grid.from_arrays({"t": CUBE}, dims=("time", "lat", "lon"))["t"]


def failures(tmp_path: Path, kind: str) -> list[dict[str, Any]]:
    return [e for e in read(journals(tmp_path)[-1]) if e["kind"] == "failed" and e["failure"] == kind]


def test_a_worker_that_is_killed_once(tmp_path: Path, options: dict[str, Any]) -> None:
    marker = str(tmp_path / "killed")

    @grid.task("(time)->()", dtypes=["f8"])
    def fragile(series: Any, marker: str) -> Any:
        import os

        if (series[:, 0] == 5.0).any() and not os.path.exists(marker):
            open(marker, "w").close()
            os.kill(os.getpid(), 9)
        return series.sum(axis=1)

    run = grid.run(cube().map(fragile, marker=marker), **options)
    np.testing.assert_array_equal(run["fragile"].to_numpy(), CUBE.sum(0))
    assert run.summary()["retries"] >= 1
    first = failures(tmp_path, "lost_worker")[0]
    assert "stage fragile" in first["message"]
    assert first["chunk"] == 5
    assert kept(journals(tmp_path)[0]) == {(1, 0, chunk) for chunk in range(12)}


def test_what_stands_behind_a_long_chunk_is_done_by_others(tmp_path: Path, options: dict[str, Any]) -> None:
    """The long chunk ends when all others are committed, also those behind it in its own task."""

    @grid.task("()->()", dtypes=["f8"])
    def waits(values: Any, place: str) -> Any:
        import time
        from pathlib import Path

        until = time.monotonic() + 120
        while 60.0 in values and len(list(Path(place).rglob("*.arrow"))) < 199:
            if time.monotonic() > until:
                raise TimeoutError("nobody does what stands behind this chunk")
            time.sleep(0.02)
        return values * 1.0

    numbers = grid.from_arrays({"v": np.arange(200.0)}, dims="row")["v"]
    run = grid.run(numbers.map(waits, place=str(options["store"])), **options)
    np.testing.assert_array_equal(run["waits"].to_numpy(), np.arange(200.0))
    assert run.status.computed == 200
    # A first task's time for loading doesn't count, so on a busy machine it may do some that others were given.
    assert run.status.doubled <= 20


def test_new_workers_load_what_one_has_compiled(tmp_path: Path, options: dict[str, Any]) -> None:
    """The kernel's loop is compiled by a worker that comes first, and then never again."""

    @grid.kernel("(time)->()")
    def unusual(series: Any) -> Any:
        return series.sum() * 3.25 + series[0]

    def workers(run: Any) -> set[int]:
        return {int(e["worker"].rpartition(":")[2]) for e in read(run.record.journal) if e.get("worker")}

    first = grid.run(cube().map(unusual), **options)
    # The kernel itself was compiled when the driver asked for its dtype. On a busy machine both workers were seen to
    # compile the loop at the same moment, which is harmless.
    assert first.status.compiled in (1, 2)
    before = workers(first)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    again = grid.run(cube().map(unusual), **{**options, "store": tmp_path / "other"})
    np.testing.assert_array_equal(again["unusual"].to_numpy(), CUBE.sum(0) * 3.25 + CUBE[0])
    assert not before & workers(again)
    assert again.status.compiled == 0
    assert again.status.compile_seconds > 0


def ring(step: int, cell: int, out: Any) -> int:
    out[0], out[1] = (cell + 1) % 64, (cell + step) % 64
    return 2


def test_a_gang_that_is_killed_goes_on_from_its_last_state(tmp_path: Path, options: dict[str, Any]) -> None:
    @grid.kernel("(n)->()")
    def slow(inputs: Any, step: Any) -> Any:
        total = inputs.sum() + step
        for _ in range(800):
            total = (total * 1.37 + 1.0) % 1000.0
        return total

    lazy = grid.from_arrays({"v": np.arange(64.0)}, dims="x")["v"]
    killed_in_the_middle(lazy.iterate(slow, 3000, edges=grid.Edges(ring, period=5, max_inputs=2), checkpoint=500),
                         tmp_path, options)  # fmt: skip


def test_a_graph_of_cells_goes_on_from_its_last_state(tmp_path: Path, options: dict[str, Any]) -> None:
    @grid.kernel("(n),()->()")
    def slow(inputs: Any, own: Any) -> Any:
        total = inputs.sum() + own
        for _ in range(50_000):
            total = (total * 1.37 + 1.0) % 1000.0
        return total

    rng = np.random.default_rng(3)
    dag = grid.Dag.of_edges([int(rng.integers(0, cell)) for cell in range(1, 3000)], range(1, 3000), 3000)
    killed_in_the_middle(grid.from_arrays({"own": np.arange(3000.0)}, dims="x").propagate(slow, dag, checkpoint=500),
                         tmp_path, options)  # fmt: skip


def killed_in_the_middle(out: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    """A run whose worker is killed when it has kept its first state gives what an undisturbed one gives."""
    run = grid.start(out, **options)
    until = time.monotonic() + 60
    while time.monotonic() < until and not list((tmp_path / "work").rglob("*s500.g0.arrow")):
        time.sleep(0.01)
    at_work = [p for p in psutil.Process().children(recursive=True) if "ray::stage 0" in " ".join(p.cmdline())]
    for process in at_work:
        process.kill()
    assert run.wait(120).status.retries == len(at_work) == 1
    assert "lost_worker" in str(failures(tmp_path, "lost_worker")[0])
    alone = grid.run(out, executor="inline", store="memory://gang-alone", quiet=True)
    assert run[0].to_numpy().tobytes() == alone[0].to_numpy().tobytes()
    assert not list((tmp_path / "work").rglob("*s*00.g0.arrow"))


def test_a_kernel_that_always_kills_its_worker(tmp_path: Path, options: dict[str, Any]) -> None:
    @grid.task("(time)->()", dtypes=["f8"])
    def deadly(series: Any) -> Any:
        import os

        if (series[:, 0] == 6.0).any():
            os.kill(os.getpid(), 9)
        return series.sum(axis=1)

    with pytest.raises(WorkerLostError, match=r"deadly, chunk 6 \(lat 1 to 2, lon 2 to 3\), in deadly") as caught:
        grid.run(cube().map(deadly), **options)
    assert "in a process of its own" in caught.value.hint
    assert sum(e["chunk"] == 6 for e in failures(tmp_path, "lost_worker")) == 4


def test_a_hang_names_its_cell_and_stops_at_the_second_time(tmp_path: Path, options: dict[str, Any]) -> None:
    @grid.kernel("(time)->()", parallel=2)
    def spin(series):  # type: ignore[no-untyped-def]
        x = series.sum()
        while series[0] == 6.0 and x > -1.0:
            x = x * 0.5 + 1.0
        return x

    began = time.monotonic()
    with pytest.raises(DeadlineError, match=r"in spin at lat=1, lon=2 of .*deadline of 3 s"):
        grid.run(cube().map(spin), deadline=3, **options)
    assert time.monotonic() - began < 60
    assert [e["cell"] for e in failures(tmp_path, "hang") if e["cell"]][-1] == [1, 2]
    assert not list(tmp_path.glob("work/runs/*/progress-*"))


def test_a_failed_cell_is_named_as_the_inline_executor_names_it(options: dict[str, Any]) -> None:
    @grid.kernel("(time)->()")
    def series(values):  # type: ignore[no-untyped-def]
        if values[0] == 6.0:
            raise ValueError("not that one")
        return values.sum()

    told = []
    for executor in ("ray", "inline"):
        with pytest.raises(KernelError) as caught:
            grid.run(cube().map(series), **{**options, "executor": executor})
        told.append((str(caught.value), caught.value.cell, caught.value.dims))
    assert told[0] == told[1]
    assert "at lat=1, lon=2 of t in arrays in memory: ValueError: not that one" in told[0][0]


def test_held_blocks_that_are_lost_are_made_again(tmp_path: Path, options: dict[str, Any]) -> None:
    """References that can't be read any more: a stage's blocks live in Ray's objects until their consumers are done."""
    import ray

    from gridcompute import ray_executor

    @grid.kernel("()->()")
    def heavy(value):  # type: ignore[no-untyped-def]
        return value * 3.0

    rows = grid.from_arrays({"v": np.arange(12.0)}, dims="row")["v"]
    source = rows.map(heavy)
    outputs = (source.sum(), source.max(), source.isel(row=slice(0, 6)).sum())
    executor = ray_executor.RayExecutor(workers=2)
    lost: list[int] = []
    event_of = executor._event

    def event(ref: Any) -> Any:
        found = event_of(ref)
        if len(lost) < 2 and any(isinstance(item.value, ray_executor.Held) for item in found.kept):
            lost.append(found.task)
            kept = tuple(replace(item, value=replace(item.value, ref=gone.remote())) for item in found.kept)
            return replace(found, kept=kept)
        return found

    @ray.remote(max_retries=0)
    def gone() -> None:
        raise OSError("the object's node is gone")

    executor._event = event  # type: ignore[method-assign]
    options.pop("executor")
    run = grid.run(*outputs, executor=executor, **options)
    assert [float(run[i].to_numpy()) for i in range(3)] == [198.0, 33.0, 45.0]
    assert lost, "nothing was held"
    assert failures(tmp_path, "corrupt_shard")


def test_cancel(tmp_path: Path, options: dict[str, Any]) -> None:
    @grid.task("(time)->()", dtypes=["f8"])
    def slow(series: Any) -> Any:
        import time

        time.sleep(0.5 if (series[:, 0] < 4.0).any() else 60)
        return series.sum(axis=1)

    seen = threading.Event()
    run = grid.start(cube().map(slow), watch=lambda status: seen.set() if status.computed >= 2 else None, **options)
    with pytest.raises(TimeoutError, match="still runs"):
        run.wait(0.1)
    assert seen.wait(60)
    assert run.state == "running"
    began = time.monotonic()
    run.cancel()
    with pytest.raises(InterruptedRunError, match="what was committed stays"):
        run.wait(90)
    assert time.monotonic() - began < 40  # 5 s for tasks to end, of which each takes 60; the rest is for a busy machine
    assert run.state == "interrupted"
    assert len(list(tmp_path.glob("work/shards/**/*.arrow"))) >= 2
    assert [e["kind"] for e in read(journals(tmp_path)[0])][-1] == "cancelled"


def test_an_edited_kernel_is_run_anew_on_the_same_workers(tmp_path: Path, options: dict[str, Any],
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = tmp_path / "edited_helper.py"
    for factor in (2.0, 3.0):
        path.write_text(f"FACTOR = {factor}\ndef scaled(x):\n    return x * FACTOR\n")
        importlib.invalidate_caches()
        module = importlib.import_module("edited_helper")
        module = importlib.reload(module)
        scaled = module.scaled

        @grid.kernel("()->()")
        def grown(value):  # type: ignore[no-untyped-def]
            return scaled(value)  # noqa: B023 - it is run before the next round

        run = grid.run(cube().map(grown), **options)
        assert run.summary()["reused"] == 0
        np.testing.assert_array_equal(run["grown"].to_numpy(), CUBE * factor)
    sys.modules.pop("edited_helper")


def test_closed_by_default(options: dict[str, Any]) -> None:
    import ray

    assert token_file().stat().st_mode & 0o777 == 0o600
    assert token_file().parent.stat().st_mode & 0o777 == 0o700
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert ray._private.worker.global_worker.node.webui_url in (None, "")
    address = ray.get_runtime_context().gcs_address
    ours = {p.pid: p for p in psutil.Process().children(recursive=True)}
    listening = {(c.laddr.ip, ours[c.pid].name()) for c in psutil.net_connections("tcp")
                 if c.pid in ours and c.status == psutil.CONN_LISTEN}
    assert listening
    assert {ip for ip, _ in listening} <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}, listening

    @ray.remote
    def nice() -> int:
        return os.nice(0)

    assert ray.get(nice.remote()) == os.nice(0)
    code = ("import os, sys; from gridcompute import ray_session; from gridcompute.ray_session import connect\n"
            "from gridcompute.errors import ClusterError\nray_session.CONNECT_SECONDS = 12\n"
            "try:\n    connect(workers=1, address=sys.argv[1])\nexcept ClusterError as error:\n    print(error)\n")
    env = {**os.environ, "RAY_AUTH_TOKEN": "0" * 64}
    env.pop("RAY_AUTH_TOKEN_PATH", None)
    began = time.monotonic()
    told = subprocess.run([sys.executable, "-c", code, address], env=env, capture_output=True, text=True, timeout=90)
    assert "can't be reached" in told.stdout, told
    assert "token" in told.stdout
    assert time.monotonic() - began < 80  # Ray alone would try for minutes


def test_killed_driver_on_ray(tmp_path: Path, options: dict[str, Any]) -> None:
    """The driver is killed with its own Ray: its processes go too, and another executor goes on from its shards."""
    folder = write_job(tmp_path)
    process = start(folder, executor="ray", kill="kept:6")
    while process.poll() is None and not journals(folder):
        time.sleep(0.05)
    children: dict[int, float] = {}
    while process.poll() is None:
        try:
            for child in psutil.Process(process.pid).children(recursive=True):
                children.setdefault(child.pid, child.create_time())
        except psutil.NoSuchProcess:
            break
        time.sleep(0.1)
    code, _, err = finish(process)
    assert code == -signal.SIGKILL, err
    assert len(children) > 3
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline and any(alive(pid, made) for pid, made in children.items()):
        time.sleep(0.3)
    assert [pid for pid, made in children.items() if alive(pid, made)] == []
    first = kept(journals(folder)[0])
    run = load_job(folder).run(folder, executor="inline")
    second = kept(journals(folder)[-1])
    assert run.summary()["reused"] >= len(first)
    assert not first & second
    whole = write_job(tmp_path / "whole")
    alone = load_job(whole).run(whole, executor="ray", workers=2)
    assert values(alone) == values(run)
    assert contents(whole) == contents(folder)
    assert first | second <= kept(journals(whole)[0])


def alive(pid: int, made: float) -> bool:
    try:
        process = psutil.Process(pid)
        return process.create_time() == made and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_no_cluster_at_an_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    code = ("import sys; from gridcompute.ray_session import connect\nfrom gridcompute.errors import ClusterError\n"
            "try:\n    connect(workers=1, address=sys.argv[1])\nexcept ClusterError as error:\n    print(error)\n")
    told = subprocess.run([sys.executable, "-c", code, f"127.0.0.1:{port}"], capture_output=True, text=True,
                          env={**os.environ, "GRIDCOMPUTE_STATE": str(tmp_path)}, timeout=90)
    assert f"127.0.0.1:{port} can't be reached" in told.stdout, told


def test_refusals_come_before_anything_is_written(tmp_path: Path, options: dict[str, Any],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    from gridcompute.stores.local import LocalStore

    options["executor"] = "inline"
    with pytest.raises(MemoryBoundError, match=r"needs [0-9.]+ MiB per worker .* may take 100.0 MiB"):
        grid.run(cube().mean("time"), memory="100MB", **options)
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "free_bytes", lambda self: 10)
        with pytest.raises(StoreError, match="has room for 0 MiB"):
            grid.run(cube().mean("time"), **options)
    assert not list(tmp_path.glob("work/shards/**/*.arrow"))
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        grid.run(cube().mean("time"), **{**options, "store": tmp_path / "file" / "work"})
    with pytest.raises(StoreError):
        grid.start(cube().mean("time"), **{**options, "store": tmp_path / "file" / "work"}).wait()
