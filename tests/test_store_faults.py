"""Whole runs whose store fails on the wire: Ceph's S3 behind a proxy that injects time-outs, refusals and resets."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_s3 import S3, s3, s3_endpoint
from servers import ceph, ceph_s3

import gridcompute as grid
from gridcompute import planning
from gridcompute.errors import StoreError
from gridcompute.store import open_store
from gridcompute.testing.proxy import ALWAYS, TRANSIENT, FaultProxy, HttpFault, HttpFaultKind, seeded_http_faults

pytestmark = [pytest.mark.ray, pytest.mark.faults]

__all__ = ["ceph", "ceph_s3", "s3", "s3_endpoint"]

VALUES = np.random.default_rng(2).random((12, 6, 8))
READ_SECONDS = 1.0
"""Of a store that gives no answer; the default of 30 s would make these tests long."""


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(planning, "HELD_BYTES", -1)  # every stage commits, so shards are read too


@pytest.fixture
def proxy(ceph_s3: S3) -> Iterator[FaultProxy]:
    with FaultProxy(ceph_s3.endpoint) as found:
        yield found


@pytest.fixture
def behind(ceph_s3: S3, proxy: FaultProxy) -> S3:
    """The bucket as it is seen through the proxy."""
    options = {**ceph_s3.options, "endpoint_url": proxy.endpoint, "config_kwargs": {"read_timeout": READ_SECONDS}}
    return replace(ceph_s3, endpoint=proxy.endpoint, options=options)


def spread() -> Any:
    @grid.kernel("(time)->()")
    def mean(series: Any) -> Any:
        return series.mean()

    means = grid.from_arrays({"t": VALUES}, dims=("time", "lat", "lon"))["t"].map(mean)
    return means - means.mean()


def carried_out(place: S3, **options: Any) -> Any:
    return grid.run(spread(), store=place.url, store_options=place.options, quiet=True, keep_intermediates=True,
                    **{"executor": "inline", **options})


def expected() -> bytes:
    return bytes(grid.run(spread(), executor="inline", store="memory://undisturbed", quiet=True)[0].to_numpy())


def committed(place: S3) -> dict[str, bytes]:
    store = open_store(place.url, **place.options)
    return {name: store.get(name) for name in store.list("shards")}


@pytest.mark.parametrize("kind", TRANSIENT)
@pytest.mark.parametrize("method", ["PUT", pytest.param("GET", marks=pytest.mark.chaos)])
def test_what_passes_is_outlasted(kind: HttpFaultKind, method: str, ceph_s3: S3, behind: S3, proxy: FaultProxy) -> None:
    """Three in a row are more than a store asks by itself, so the run's own retries are at work too."""
    expected_bytes = expected()
    proxy.set(HttpFault(kind, first=2, times=3, methods=(method,)), HttpFault(kind, first=9, methods=(method,)))
    began = time.monotonic()
    run = carried_out(behind)
    assert time.monotonic() - began < 120
    assert bytes(run[0].to_numpy()) == expected_bytes
    assert len(proxy.injected) >= 4
    shards = committed(ceph_s3)
    assert len(shards) == run.status.computed, "one name for each chunk, whoever wrote it and however often"
    proxy.set()
    again = carried_out(behind)
    assert (again.status.computed, committed(ceph_s3)) == (0, shards)


@pytest.mark.parametrize(("kind", "told", "hint"), [
    ("403", r"was refused", "check the credentials"),
    ("404", r"the bucket or folder isn't there", "create it first"),
    ("500", r"failed in stage .*: OSError", "resume the run"),
    pytest.param("503", r"failed in stage .*: OSError", "resume the run", marks=pytest.mark.chaos),
    pytest.param("timeout", r"failed in stage .*ReadTimeoutError", "resume the run", marks=pytest.mark.chaos),
    pytest.param("reset before", r"failed in stage .*Could not connect", "resume the run", marks=pytest.mark.chaos),
    pytest.param("reset after", r"failed in stage .*Could not connect", "resume the run", marks=pytest.mark.chaos),
])  # fmt: skip
def test_what_does_not_pass_stops_the_run_with_one_clear_error(
    kind: HttpFaultKind, told: str, hint: str, ceph_s3: S3, behind: S3, proxy: FaultProxy
) -> None:
    """It names store, operation and next step; all that was committed before counts afterwards."""
    proxy.set(HttpFault(kind, first=6, times=ALWAYS, methods=("PUT",), path="/shards/"))
    began = time.monotonic()
    with pytest.raises(StoreError, match=rf"writing 'shards/[^']*' in the store {behind.url} {told}|{told}") as caught:
        carried_out(behind)
    assert time.monotonic() - began < 200
    assert str(caught.value).count(behind.url) == 1
    assert "writing 'shards/" in caught.value.message
    assert hint in caught.value.hint
    assert ceph_s3.options["secret"] not in str(caught.value)
    shards = committed(ceph_s3)
    assert len(shards) >= 6
    proxy.set()
    run = carried_out(behind)
    assert run.status.reused >= 6
    assert bytes(run[0].to_numpy()) == expected()
    assert {name: committed(ceph_s3)[name] for name in shards} == shards


@pytest.mark.parametrize("kind", ["403", "404", "500"])
def test_a_store_that_cannot_be_used_is_refused_before_work_starts(kind: HttpFaultKind, behind: S3,
                                                                   proxy: FaultProxy) -> None:
    proxy.set(HttpFault(kind, times=ALWAYS))
    with pytest.raises(StoreError, match=behind.url) as caught:
        carried_out(behind)
    assert caught.value.hint
    assert len(proxy.requests) < 4


def test_a_bucket_that_is_gone_is_not_taken_for_an_empty_one(behind: S3, proxy: FaultProxy) -> None:
    store = open_store(behind.url, **behind.options)
    proxy.set(HttpFault("404", times=ALWAYS))
    for step in (lambda: list(store.list()), lambda: store.get("shards/x"), lambda: store.put_new("shards/x", b"")):
        with pytest.raises(StoreError, match="the bucket or folder isn't there"):
            step()


@pytest.mark.chaos
@pytest.mark.parametrize("kind", ["reset before", "500"])
def test_whichever_request_fails_the_run_goes_on(kind: HttpFaultKind, s3: S3, tmp_path: Path) -> None:
    """One request of a run with an output there, each in its turn: not one is left that nobody tries again."""
    values = np.arange(8.0).reshape(2, 2, 2)
    at = 0
    with FaultProxy(s3.endpoint) as proxy:
        options = {**s3.options, "endpoint_url": proxy.endpoint}
        while True:
            twice = grid.from_arrays({"t": values}, dims=("time", "lat", "lon"))["t"] * 2.0
            out = (twice - twice.mean()).write(f"{s3.url}-{at}/out.zarr", storage_options=options)
            proxy.set(HttpFault(kind, first=at))
            run = grid.run(out, store=f"{s3.url}-{at}", store_options=options, executor="inline", quiet=True)
            assert run.state == "done"
            if len(proxy.injected) == at:  # there are no more
                break
            at += 1
        proxy.set()
        found = grid.open_result(f"{s3.url}-{at - 1}/out.zarr", **options)
    assert at > 20
    assert np.array_equal(next(iter(found.data_vars.values())), 2 * values - (2 * values).mean())


@pytest.mark.parametrize(("first", "doing"), [
    pytest.param(0, "can't be used", marks=pytest.mark.chaos), pytest.param(12, "listing", marks=pytest.mark.chaos),
    (30, "writing"), pytest.param(100, "reading", marks=pytest.mark.chaos),
])  # fmt: skip
def test_a_store_that_falls_silent_ends_the_run_after_as_many_time_outs_as_attempts(
    first: int, doing: str, s3: S3
) -> None:
    """With the default of 20 s that is 2 minutes; before, chunks took turns, and each read was tried four times."""
    seconds = 2.0
    with FaultProxy(s3.endpoint) as proxy:
        options = {**s3.options, "endpoint_url": proxy.endpoint, "config_kwargs": {"read_timeout": seconds}}
        proxy.set(HttpFault("timeout", first=first, times=ALWAYS))
        began = time.monotonic()
        with pytest.raises(StoreError, match=doing) as caught:
            carried_out(replace(s3, options=options))
    assert time.monotonic() - began < 6 * seconds + 33  # 6 s of delays, the rest for a slow machine
    assert s3.url in caught.value.message
    assert "no answer within 2 s" in caught.value.message
    assert "check the network" in caught.value.hint or "check the address and the network" in caught.value.hint


def test_a_store_that_answers_again_in_time_is_survived(s3: S3) -> None:
    """Silence that lasts for longer than a time-out, in all of its requests."""
    with FaultProxy(s3.endpoint) as proxy:
        options = {**s3.options, "endpoint_url": proxy.endpoint, "config_kwargs": {"read_timeout": READ_SECONDS}}
        silent = threading.Event()

        class Silence(HttpFault):
            def fits(self, method: str, path: str) -> bool:
                if method == "PUT" and "/shards/" in path and not silent.is_set():
                    silent.set()
                    threading.Timer(3.5 * READ_SECONDS, proxy.set).start()
                return silent.is_set()

        proxy.set(Silence("timeout", times=ALWAYS))
        run = carried_out(replace(s3, options=options))
        assert silent.is_set()
        assert run.status.retries > 0
        assert bytes(run[0].to_numpy()) == expected()


@pytest.mark.parametrize(("given", "times"), [({}, 1), ({"retries": {"total_max_attempts": 3}}, 3)])
def test_a_silent_store_is_asked_once_more_and_then_once_unless_the_user_says_otherwise(
    given: dict[str, Any], times: int, s3: S3
) -> None:
    with FaultProxy(s3.endpoint, [HttpFault("timeout", times=ALWAYS)]) as proxy:
        config = {"read_timeout": 0.3, **given}
        store = open_store(s3.url, **{**s3.options, "endpoint_url": proxy.endpoint, "config_kwargs": config})
        steps = (lambda: store.get("some"), lambda: store.put_new("some", b""), lambda: list(store.list()))
        for step, requests in zip(steps, (2, 1, 1), strict=True):
            proxy.requests.clear()
            with pytest.raises(Exception, match="Read timeout"):
                step()
            assert len(proxy.requests) == requests * times


@pytest.mark.chaos
def test_a_seeded_storm_on_ray(ceph_s3: S3, behind: S3, proxy: FaultProxy, tmp_path: Path,
                               monkeypatch: pytest.MonkeyPatch) -> None:
    """Real workers write and read through the proxy while one request in five fails in one of seven ways."""
    monkeypatch.setenv("GRIDCOMPUTE_CACHE", str(tmp_path / "cache"))
    proxy.set(*seeded_http_faults(seed=11, rate=0.2))
    run = carried_out(behind, executor="ray", workers=2)
    assert bytes(run[0].to_numpy()) == expected(), "read through the storm, too"
    assert len(proxy.injected) > 5
    assert len(committed(ceph_s3)) == run.status.computed
