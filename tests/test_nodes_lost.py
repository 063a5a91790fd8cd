"""Faults of real Ray nodes: workers, raylets, machines, links and Ray's control store are lost while tasks are in work.

Each run gives the bytes of one that nothing happened to, keeps no chunk twice, and ends in a bounded time.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from on_nodes import (
    all_at_the_gate,
    come,
    driver,
    ended,
    events,
    expected,
    graph,
    none_twice,
    shards,
    wait_until,
)
from servers import namespaces, redis_server

import gridcompute as grid
from gridcompute.testing.cluster import LocalCluster

__all__ = ["namespaces", "redis_server"]

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400), pytest.mark.faults]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))
    return tmp_path


@pytest.fixture
def cluster(folder: Path) -> Iterator[LocalCluster]:
    with LocalCluster(nodes=3) as found:
        yield found
        if "ray" in sys.modules:
            sys.modules["ray"].shutdown()


def opened(folder: Path) -> float:
    (folder / "go").touch()
    return time.monotonic()


@pytest.mark.parametrize("lost", ["worker", "node"])
def test_a_worker_or_a_node_is_killed(lost: str, folder: Path, cluster: LocalCluster) -> None:
    same = expected(folder)
    run = grid.start(graph(folder), address=cluster.address, store=folder / "work", quiet=True)
    all_at_the_gate(folder, cluster)
    victims = come(folder) & set(cluster.workers(2))
    if lost == "worker":
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
    else:
        cluster.kill_node(2)
    began = opened(folder)
    run.wait(150)
    assert time.monotonic() - began < 90
    assert bytes(run[0].to_numpy()) == same
    assert len(events("failed")) >= 1
    assert {event["failure"] for event in events("failed")} == {"lost_worker"}
    assert "a worker was lost in stage gated, chunk" in events("failed")[0]["message"]
    none_twice()
    assert not any(psutil.pid_exists(pid) for pid in victims)
    assert not list(folder.glob("work/runs/*/progress-*"))


@pytest.mark.chaos
def test_a_worker_that_outlives_its_raylet_comes_too_late(folder: Path, cluster: LocalCluster) -> None:
    """Its chunk is done by another node; what it writes afterwards changes nothing."""
    same = expected(folder)
    run = grid.start(graph(folder), address=cluster.address, store=folder / "work", quiet=True)
    all_at_the_gate(folder, cluster)
    late = come(folder) & set(cluster.workers(1))
    for pid in late:
        (folder / f"hold-{pid}").touch()
    outliving = [psutil.Process(pid) for pid in late]
    cluster.kill_raylet(1)
    began = opened(folder)
    run.wait(150)
    assert time.monotonic() - began < 90
    assert bytes(run[0].to_numpy()) == same
    # None where a second copy of its chunk ended before the node was noticed to be lost.
    assert {event["failure"] for event in events("failed")} <= {"lost_worker"}
    none_twice()
    before = shards(folder)
    for pid in late:
        (folder / f"hold-{pid}").unlink()
    psutil.wait_procs(outliving, timeout=90)
    assert not any(one.is_running() for one in outliving), "it ends with its task"
    assert shards(folder) == before


@pytest.mark.chaos
def test_the_driver_is_killed_and_the_job_goes_on(folder: Path, cluster: LocalCluster) -> None:
    same = expected(folder)
    process = driver(folder, cluster)
    all_at_the_gate(folder, cluster, process)
    wait_until(lambda: len(shards(folder)) >= 6, "what needs no gate to be committed", process=process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = shards(folder)
    began = opened(folder)
    again = ended(driver(folder, cluster))
    assert time.monotonic() - began < 120
    assert bytes.fromhex(again["values"]) == same
    assert again["reused"] >= len(before) == 6
    assert again["reused"] + again["computed"] == 40
    assert {name: data for name, data in shards(folder).items() if name in before} == before


@pytest.mark.chaos
def test_ray_s_control_store_is_lost(folder: Path, cluster: LocalCluster) -> None:
    """Without Redis the cluster is lost with it: the driver says so, and another cluster goes on."""
    same = expected(folder)
    process = driver(folder, cluster)
    all_at_the_gate(folder, cluster, process)
    cluster.kill_control_store()
    began = time.monotonic()
    told = ended(process)
    assert time.monotonic() - began < 100
    assert told["error"] == "ClusterError"
    assert f"the control store of the Ray cluster at {cluster.address} hasn't answered for" in told["message"]
    assert "resume the run" in told["hint"]
    before = shards(folder)
    assert len(before) >= 6
    opened(folder)
    with LocalCluster(nodes=1) as other:
        again = ended(driver(folder, other))
    assert bytes.fromhex(again["values"]) == same
    assert again["reused"] == len(before)


@pytest.mark.chaos
def test_the_head_is_lost_and_started_again_with_redis(redis_server: None, folder: Path) -> None:
    """The driver is on another node, as on a cluster of machines; the run goes on without it noticing much."""
    same = expected(folder)
    with LocalCluster(nodes=3, redis=True) as cluster:
        process = driver(folder, cluster, environment=cluster.environment_at(1))
        all_at_the_gate(folder, cluster, process)
        cluster.kill_head()
        cluster.restart_head()
        began = opened(folder)
        told = ended(process)
        assert time.monotonic() - began < 120
    assert bytes.fromhex(told["values"]) == same
    none_twice()


@pytest.mark.chaos
@pytest.mark.usefixtures("namespaces")
class TestLinks:
    """Nodes in network namespaces of their own."""

    def test_a_link_is_cut_for_good(self, folder: Path) -> None:
        """The worker behind it works on, and commits: the same bytes, kept once."""
        same = expected(folder)
        with LocalCluster(nodes=3, links=True) as cluster:
            process = driver(folder, cluster)
            all_at_the_gate(folder, cluster, process)
            cluster.cut(2)
            began = opened(folder)
            told = ended(process)
            assert time.monotonic() - began < 120
        assert bytes.fromhex(told["values"]) == same
        none_twice()

    def test_a_link_is_down_for_two_seconds(self, folder: Path) -> None:
        same = expected(folder)
        with LocalCluster(nodes=3, links=True) as cluster:
            process = driver(folder, cluster)
            all_at_the_gate(folder, cluster, process)
            cluster.cut(2)
            time.sleep(2)  # that long is what this is about
            cluster.mend(2)
            opened(folder)
            told = ended(process)
        assert bytes.fromhex(told["values"]) == same
        assert told["retries"] == 0
        none_twice()

    def test_the_deadline_catches_what_ray_leaves_hanging(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """With Ray's own settings for keepalive a task in flight over a cut link hangs for minutes."""
        monkeypatch.setenv("RAY_grpc_client_keepalive_time_ms", "300000")
        monkeypatch.setenv("RAY_grpc_client_keepalive_timeout_ms", "300000")
        same = expected(folder)
        with LocalCluster(nodes=2, links=True) as cluster:
            process = driver(folder, cluster, deadline=15.0)
            all_at_the_gate(folder, cluster, process)
            cluster.cut(1)
            for pid in come(folder) & set(cluster.workers(1)):
                (folder / f"hold-{pid}").touch()
            began = opened(folder)
            told = ended(process)
            assert time.monotonic() - began < 120
        assert bytes.fromhex(told["values"]) == same
        none_twice()
