"""Dispatch of tasks, and cells of an empty kernel: ours and other systems' in turn."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import gridcompute as grid
from benchmarks.peering import PeerProcess, Peers
from benchmarks.rows import OURS, Reference, Row, Session, check, interleaved, timed
from benchmarks.running import index, indices, new_store, one_chunk_a_task, run_indices
from gridcompute.columns import Block, Field, Fixed
from gridcompute.compiled import run_cells
from gridcompute.ray_session import connect
from gridcompute.shard import commit
from gridcompute.spaces import Region, Space
from gridcompute.store import open_store

WORKERS = 2
DISPATCH = Reference(1.0, "about a millisecond a dispatch, which the size of tasks assumes")
DASK_THREADED = Reference(0.2, "threaded scheduler, per task, https://docs.dask.org/en/stable/shared.html", "dask")


def end_ray() -> None:
    """Stop the Ray that this process started, if it did."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()


# --- tasks ---


def _tasks(peer: PeerProcess, n: int, **options: Any) -> float:
    seconds, value = peer.ask("tasks", n=n, **options)
    check(value == n * (n - 1) // 2, f"{peer.name}: {n} tasks")
    return seconds / n * 1e3


def _plain_ray(n: int) -> float:
    """Ray's own tasks, in the session that our runs use."""
    ray = connect(workers=WORKERS)

    def same(i: int) -> int:  # within a function, so that it travels by value: workers can't import this package
        return i

    task = ray.remote(same).options(num_cpus=1, max_retries=0)
    seconds, values = timed(lambda: ray.get([task.remote(i) for i in range(n)]))
    check(sum(values) == n * (n - 1) // 2, f"{n} plain Ray tasks")
    return seconds / n * 1e3


def _ours(n: int, alone: bool, **options: Any) -> float:
    if not alone:
        return run_indices(n, n, **options) / n * 1e3
    with one_chunk_a_task():
        return run_indices(n, n, **options) / n * 1e3


def _commits(n: int) -> float:
    """Milliseconds to make one small shard durable, and nothing else."""
    fields = (Field("i", ("n",), np.dtype(np.int64)),)
    space = Space.of({"n": n})
    blocks = [Block(Region.of((i, i + 1)), {"i": Fixed(np.array([i]))}, 1) for i in range(n)]
    with new_store() as url:
        store = open_store(url)
        seconds, done = timed(lambda: [commit(store, "beef0123", "0", block, fields, space) for block in blocks])
        check(all(one.won for one in done) and len(list(store.list())) == n, f"{n} commits")
    return seconds / n * 1e3


def _disk(n: int) -> float:
    """Milliseconds that the disk takes for one shard: a small file written, synced, linked, its folder synced."""
    def work() -> None:
        for i in range(n):
            with open(folder / "new", "wb") as file:
                file.write(bytes(1700))
                file.flush()
                os.fsync(file.fileno())
            os.link(folder / "new", folder / str(i))
            os.unlink(folder / "new")
            os.fsync(handle)

    with new_store() as url:
        folder = Path(url)
        folder.mkdir()
        handle = os.open(folder, os.O_RDONLY)
        try:
            seconds, _ = timed(work)
            check(len(list(folder.iterdir())) == n, f"{n} files")
        finally:
            os.close(handle)
    return seconds / n * 1e3


def dispatch(session: Session, peers: Peers) -> Iterator[Row]:
    """Milliseconds a task, of many that do nothing."""
    n, repeat = session.pick(100, 500, 5000), session.pick(3, 5, 7)
    unit = "ms per task"
    dask = peers.of("dask")
    # Three of ours in one round, so that their differences mean something.
    systems = {
        "durable": partial(_ours, n, True, executor="inline"),
        "memory": partial(_ours, n, True, executor="inline", store="memory"),
        "sized": partial(_ours, n, False, executor="inline"),
        "commit": partial(_commits, n),
        "disk": partial(_disk, n),
        **{name: partial(_tasks, peer, n, scheduler="sync") for name, peer in dask.items()},
    }
    raw = interleaved(systems, repeat)
    theirs = {name: raw[name] for name in dask}
    yield Row("dispatch/inline", unit, {OURS: raw["durable"], **theirs},
              note=f"{n} chunks, one a task, each committed as a shard with two fsyncs. dask: the synchronous "
              "scheduler, which stores nothing.")
    yield Row("dispatch/inline-memory", unit, {OURS: raw["memory"], **theirs},
              note="The same with a store in memory: without disk and fsync.")
    yield Row("dispatch/inline-sized", "ms per chunk", {OURS: raw["sized"]},
              note="The same chunks in tasks of the size that the run chooses.")
    yield Row("dispatch/commit", "ms per shard", {OURS: raw["commit"], "disk": raw["disk"]},
              note="Encoding and committing such a shard, alone: the part that makes the above durable. disk: only "
              "the file, its two fsyncs and its link, which is the physical reference.")
    yield from _on_ray(session, peers, n, repeat)


def _on_ray(session: Session, peers: Peers, n: int, repeat: int) -> Iterator[Row]:
    others = peers.of("dask", "distributed", "joblib")
    systems = {
        OURS: partial(_ours, n, True, executor="ray", workers=WORKERS),
        "sized": partial(_ours, n, False, executor="ray", workers=WORKERS),
    }
    if peers.wanted("ray"):
        systems["ray"] = partial(_plain_ray, n)
    for name, peer in others.items():
        options = {"scheduler": "threads"} if name == "dask" else {}
        systems[name] = partial(_tasks, peer, n, **options)
    raw = interleaved(systems, repeat)
    sized = raw.pop("sized")
    peers.rest("distributed", "joblib")
    yield Row("dispatch/ray", "ms per task", raw, target=DISPATCH, published=DASK_THREADED,
              note=f"{n} chunks, one a task, end to end on {WORKERS} workers, each committed. ray: plain tasks in the "
              "same session; dask: threads; distributed and joblib: two processes. None of the peers stores anything.")
    yield Row("dispatch/ray-sized", "ms per chunk", {OURS: sized},
              note="The same chunks in tasks of the size that the run chooses.")


# --- cells ---


def _loop(n: int) -> float:
    """Cells per second of the compiled loop, into a new array."""
    kernel = grid.kernel("->()", names=("i",))(index)
    run_cells(kernel, [], outputs=[np.dtype(np.int64)], shape=(1,))  # compiled before the clock starts
    seconds, (column,) = timed(lambda: run_cells(kernel, [], outputs=[np.dtype(np.int64)], shape=(n,)))
    assert isinstance(column, Fixed)
    check(np.array_equal(column.values, np.arange(n)), f"the loop over {n} cells")
    return n / seconds


def _cells(peer: PeerProcess, case: str, n: int, **options: Any) -> float:
    seconds, value = peer.ask(case, n=n, **options)
    check(value == [0, n - 1, n * (n - 1) // 2], f"{peer.name}: {n} cells")
    return n / seconds


def _run(n: int, **options: Any) -> float:
    return n / run_indices(n, None, **options)


def cells(session: Session, peers: Peers) -> Iterator[Row]:
    """Cells per second of a kernel that does nothing."""
    n, repeat = session.pick(10**7, 10**8, 10**8), session.pick(3, 5, 7)
    unit = "cells per second"
    numba = {name: partial(_cells, peer, "loop", n) for name, peer in peers.of("numba").items()}
    yield Row("cells/loop", unit, interleaved({OURS: partial(_loop, n), **numba}, repeat), more=True,
              note=f"{n:,} cells; an int64 each into a new array; one thread. numba: the bare loop written by hand, "
              "the physical reference.")
    plan = grid.plan(indices(n)).plan
    chunk = plan.stages[0].layouts[0]["n"].extent
    systems = {
        "inline": partial(_run, n, executor="inline"),
        OURS: partial(_run, n, executor="ray", workers=WORKERS),
        **{name: partial(_cells, peer, "cells", n, chunk=chunk) for name, peer in peers.of("dask", "xarray").items()},
    }
    raw = interleaved(systems, repeat)
    inline = raw.pop("inline")
    yield Row("cells/inline", unit, {OURS: inline}, more=True,
              note=f"A whole run in one process: {plan.stages[0].chunks} chunks computed, compressed, digested and "
              "committed.")
    yield Row("cells/ray", unit, raw, more=True,
              note=f"A whole run on Ray, {WORKERS} workers. dask: map_blocks of a numba loop, xarray: apply_ufunc of a "
              "vectorised one; both on two threads with the same chunks and to_zarr, which neither syncs nor digests.")
