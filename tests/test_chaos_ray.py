"""Seeded schedules on Ray clusters that are used again: real processes and nodes that are killed, drivers too."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chaos_jobs
import psutil
import pytest
from test_chaos import _told, place, sound

from gridcompute import axes
from gridcompute.testing.chaos import Report, run_chaos
from gridcompute.testing.cluster import LocalCluster
from gridcompute.testing.schedule import Schedule

__all__ = ["_told", "place"]

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

LIMIT = 240.0
SHORT = range(4)
LONG = range(4, 40)
KIND = ("climate", "graph", "genomics", "graph")


@pytest.fixture(scope="module")
def cluster(place: Path) -> Iterator[LocalCluster]:
    """Three nodes of one core; those that are killed are replaced."""
    with LocalCluster(nodes=3) as made:
        try:
            yield made
        finally:
            sys.modules["ray"].shutdown()


FLOOR = axes.LIGHT_FLOOR  # before the session's fixture changes it


def carried_out(number: int, folder: Path, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> Report:
    kind = KIND[number % 4]
    job: Any = chaos_jobs.graph(number) if kind == "graph" else getattr(chaos_jobs, kind)(folder)
    # A worker takes 2 s to be there again, a node 10 s, a driver 6 s, and a hang its deadline, in which a kernel must
    # have been compiled.
    schedule = chaos_jobs.schedule(number, kill_worker=0.05 * (number % 3), kill_node=0.02 * (number % 2),
                                   kill_driver=int(number % 5 == 4), hang=0.02 * (number % 8 == 1))
    if schedule.kill_driver:  # a driver that is a process of its own cuts data as a user's does, so this one must too
        monkeypatch.setattr(axes, "LIGHT_FLOOR", FLOOR)
    began, before = time.monotonic(), set(folder.iterdir())
    report = run_chaos(job, schedule, executor="ray", cluster=cluster, workers=3, deadline=30.0, limit=LIMIT)
    print(f"seed {number}: {kind}, Ray, {len(report.injected)} faults, {report.deaths} deaths of the driver, "
          f"{report.compared} digests, {time.monotonic() - began:.1f} s")
    sound(report)
    assert set(folder.iterdir()) == before
    assert settled(lambda: not zombies()), zombies()
    assert settled(lambda: sum(cluster.alive().values()) == 3), cluster.alive()  # a killed node is noticed in a while
    return report


def zombies() -> list[psutil.Process]:
    """Children that ended and that nobody has waited for."""
    return [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE]


def settled(what: Callable[[], bool]) -> bool:
    """Whether it comes about within a while."""
    until = time.monotonic() + 60
    while not what() and time.monotonic() < until:
        time.sleep(0.1)
    return what()


@pytest.mark.faults
@pytest.mark.parametrize("number", SHORT)
def test_schedules_on_ray(number: int, place: Path, cluster: LocalCluster, told: dict[int, Report],
                             monkeypatch: pytest.MonkeyPatch) -> None:
    told[number] = carried_out(number, place, cluster, monkeypatch)


@pytest.mark.faults
def test_workers_killed_while_reads_are_mapped(place: Path, cluster: LocalCluster) -> None:
    """One sorted BAM file is put together of what several workers left, some of them killed: a clean run's bytes."""
    report = run_chaos(chaos_jobs.mapping(place), Schedule(seed=3, kill_worker=0.1), executor="ray", cluster=cluster,
                       workers=3, deadline=240.0, limit=2 * LIMIT)
    sound(report)
    assert report.injected


@pytest.mark.chaos
@pytest.mark.parametrize("number", LONG)
def test_further_schedules_on_ray(number: int, place: Path, cluster: LocalCluster, told: dict[int, Report],
                             monkeypatch: pytest.MonkeyPatch) -> None:
    told[number] = carried_out(number, place, cluster, monkeypatch)


def test_a_cluster_leaves_nothing(place: Path) -> None:
    """No process, socket or folder of a cluster of two nodes, one of them killed, stays behind."""
    with LocalCluster(nodes=2) as made:
        made.kill_node(1)
        folder = made._folder
        pids = [one.pid for node in made.nodes for one in node.kept.processes()]
        assert pids
    assert settled(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    assert not folder.exists()
