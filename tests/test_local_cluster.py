"""Ray nodes on this machine: started, killed, and gone without a trace, however the test's process ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import gridcompute as grid
from gridcompute.testing.cluster import LocalCluster

pytestmark = [pytest.mark.ray, pytest.mark.faults]

CUBE = np.arange(4 * 10 * 20, dtype=float).reshape(4, 10, 20)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCluster]:
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))
    with LocalCluster(nodes=2) as found:
        yield found
        sys.modules["ray"].shutdown()


def total() -> Any:
    @grid.kernel("(time)->()")
    def total(series: Any) -> Any:
        return series.sum()

    return grid.from_arrays({"t": CUBE}, dims=("time", "lat", "lon"))["t"].map(total)


def test_a_run_before_and_after_a_node_is_lost_and_one_is_added(cluster: LocalCluster, tmp_path: Path) -> None:
    first = grid.run(total(), address=cluster.address, store=tmp_path / "first", quiet=True)
    np.testing.assert_array_equal(first["total"].to_numpy(), CUBE.sum(0))
    assert all(len(cluster.workers(number)) >= 1 for number in (0, 1))

    cluster.kill_node(1)
    assert cluster.nodes[1].kept.processes() == []
    lost = cluster.nodes[1].name
    cluster.nodes[0].kept.wait_for(lambda: not cluster.alive()[lost], "the lost node to be noticed")
    added = cluster.add_node()
    assert {name for name, alive in cluster.alive().items() if alive} == {cluster.nodes[0].name, added.name}

    code = ("import sys, gridcompute as grid, numpy as np\n"
            "rows = grid.from_arrays({'v': np.arange(90.0)}, dims='row')['v']\n"
            "print(float(grid.run(rows.sum(), address=sys.argv[1], store=sys.argv[2], quiet=True)[0].to_numpy()))\n")
    other = subprocess.run([sys.executable, "-c", code, cluster.address, str(tmp_path / "second")],
                           env={**os.environ, **cluster.environment}, capture_output=True, text=True, timeout=200)
    assert other.stdout == "4005.0\n", other.stderr


def test_who_has_not_its_token_is_refused(cluster: LocalCluster, tmp_path: Path) -> None:
    token = Path(cluster.environment["RAY_AUTH_TOKEN_PATH"])
    assert token.stat().st_mode & 0o777 == 0o600
    assert token.parent.stat().st_mode & 0o777 == 0o700
    (tmp_path / "other").write_text("0" * 64)
    code = ("import sys, ray\ntry:\n    ray._raylet.GcsClient(address=sys.argv[1]).get_all_node_info(timeout=20)\n"
            "except Exception as error:\n    print(error)\n")
    other = subprocess.run([sys.executable, "-c", code, cluster.address], capture_output=True, text=True, timeout=200,
                           env={**os.environ, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "other")})
    assert "InvalidAuthToken" in other.stdout, (other.stdout, other.stderr)


def test_nothing_is_left_when_the_process_that_started_it_is_killed(tmp_path: Path) -> None:
    code = ("import time\nfrom gridcompute.testing.cluster import LocalCluster\n"
            "with LocalCluster(nodes=2) as cluster:\n"
            "    print(cluster._folder, *(one.pid for node in cluster.nodes for one in node.kept.processes()),"
            " flush=True)\n    time.sleep(300)\n")
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "GRIDCOMPUTE_STATE": str(tmp_path)})
    assert process.stdout is not None
    folder, *pids = process.stdout.readline().split()
    running = [psutil.Process(int(pid)) for pid in pids]
    assert len(running) > 5
    assert Path(folder).is_dir()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert psutil.wait_procs(running, timeout=60)[1] == []
    until = time.monotonic() + 30
    while Path(folder).exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(folder).exists()


def test_a_node_that_does_not_come_up_is_started_again(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    start, tried = cluster._start, []

    def slow(number: int, address: str) -> Any:
        tried.append(start(number, address))
        if len(tried) == 1:
            raise TimeoutError("its agents were slow to come up")
        return tried[-1]

    monkeypatch.setattr(cluster, "_start", slow)
    made = cluster.add_node()
    try:
        assert tried[0].kept.processes() == []
        assert made is tried[1]
        assert cluster.alive()[made.name]
    finally:
        cluster.kill_node(made.number)
