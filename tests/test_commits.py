"""Commits under way together: the same shards as one after the other, and failures that are told and bounded."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gridcompute as grid
from gridcompute import commits
from gridcompute.commits import AT_ONCE, SMALL_BYTES, Commits
from gridcompute.errors import KernelError
from gridcompute.events import Kept, Task, TaskDone, TaskFailed
from gridcompute.ledger import Ledger
from gridcompute.orders import Payload
from gridcompute.planning import Plan
from gridcompute.running import graph_of
from gridcompute.store import Store, open_store
from gridcompute.testing.faults import Fault, FaultyStore
from gridcompute.worker import StageWorker


def note(chunk: int) -> Kept:
    return Kept(0, 0, chunk, "", "", 1, 1)


SIZES = st.sampled_from([1, SMALL_BYTES, SMALL_BYTES + 1])


@given(sizes=st.lists(SIZES, max_size=30), broken=st.sets(st.integers(0, 29)))
def test_each_is_done_once_until_one_fails_and_the_first_failure_is_told(sizes: list[int], broken: set[int]) -> None:
    both = []
    for together in (True, False):
        done: list[int] = []

        def work(chunk: int, done: list[int] = done) -> Kept:
            done.append(chunk)
            if chunk in broken:
                raise OSError(chunk)
            return note(chunk)

        some, raised, begun = Commits(together=together), [], 0
        for chunk, size in enumerate(sizes):
            try:
                some.begin(chunk, size, lambda chunk=chunk: work(chunk))  # type: ignore[misc]
            except OSError:
                raised.append(chunk)
            if some.failed is not None:  # this one needn't be begun: it could wait for the same store in vain
                break
            begun += 1
        kept = {item.chunk for item in some.end()}
        assert sorted(done) == list(range(begun))
        assert kept == set(range(begun)) - broken
        failed = raised + ([] if some.failed is None else [some.failed[0]])
        assert bool(failed) == bool(broken & set(range(begun)))
        if some.failed is not None:
            assert some.failed[0] == min(broken & {c for c, size in enumerate(sizes) if size <= SMALL_BYTES})
        both.append(kept)
    if not broken:
        assert both[0] == both[1]


def test_small_ones_wait_together_and_only_so_many() -> None:
    inside, most, gate = 0, 0, threading.Event()
    lock = threading.Lock()

    def slow() -> Kept:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
            if inside == AT_ONCE:
                gate.set()
        assert gate.wait(30), "fewer were under way than may be"
        with lock:
            inside -= 1
        return note(0)

    some = Commits(together=True)
    for _ in range(3 * AT_ONCE):
        some.begin(0, 1, slow)
    assert len(some.end()) == 3 * AT_ONCE
    assert most == AT_ONCE


def task_of(tmp_path: Path, store: Store, out: Any) -> tuple[StageWorker, Ledger, int]:
    plan = Plan(graph_of([out]))
    (stage,) = plan.stages
    return StageWorker(Payload.of(plan, stage, store, {}), store), Ledger(plan, store, {}), stage.chunks


def cells(n: int, function: Callable[..., Any]) -> Any:
    return grid.space(n=n).map(grid.kernel("->()", names=("v",), parallel=n)(function))


def place(cell: Any) -> Any:
    return cell[0] * 2


def five_fails(cell: Any) -> Any:
    if cell[0] == 5:
        raise ValueError("five")
    return cell[0]


@pytest.mark.parametrize("broken", [0, 3, 11])
def test_a_commit_that_fails_blames_its_chunk_and_the_rest_counts(tmp_path: Path, broken: int) -> None:
    # Which of those under way is the broken call isn't known: it is the one that the failure names.
    inner = open_store(str(tmp_path / "store"))
    worker, ledger, chunks = task_of(tmp_path, FaultyStore(inner, (Fault(broken, "timeout"),)), cells(20, place))
    answer = worker.run(ledger.order(Task(1, 0, tuple(range(chunks)))))
    assert isinstance(answer, TaskFailed)
    assert answer.failure.kind == "transient"
    kept = {item.chunk for item in answer.kept}
    assert answer.failure.chunk not in kept
    assert len(kept) >= min(broken, chunks - 1 - AT_ONCE)
    ledger.add(answer.kept)
    left = tuple(chunk for chunk in range(chunks) if ledger.missing(0, chunk))
    rest = worker.run(ledger.order(Task(2, 0, left)))
    assert isinstance(rest, TaskDone)
    assert {item.chunk for item in rest.kept} | kept == set(range(chunks))
    assert all(item.won for item in (*answer.kept, *rest.kept)), "none was committed twice"


def test_a_kernel_that_raises_while_others_are_committed(tmp_path: Path) -> None:
    worker, ledger, chunks = task_of(tmp_path, open_store(str(tmp_path / "store")), cells(20, five_fails))
    answer = worker.run(ledger.order(Task(1, 0, tuple(range(chunks)))))
    assert isinstance(answer, TaskFailed)
    assert isinstance(answer.failure.error, KernelError)
    assert answer.failure.chunk == 5
    assert {item.chunk for item in answer.kept} == set(range(5))


@pytest.mark.parametrize("sink", ["out.zarr", "out.parquet"])
def test_the_same_bytes_as_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sink: str) -> None:
    found = []
    for name, most in (("together", SMALL_BYTES), ("alone", -1)):
        monkeypatch.setattr(commits, "SMALL_BYTES", most)
        folder = tmp_path / name
        values = grid.from_arrays({"v": np.arange(3e5).reshape(300, 1000)}, dims=("y", "x"))
        sums = values["v"].sum("x")
        grid.run(values.write(folder / sink), sums, store=folder / "store", executor="inline", quiet=True)
        files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*")
                 if path.is_file() and (("shards" in path.parts and path.suffix == ".arrow") or "c" in path.parts
                                        or path.suffix == ".parquet")}  # fmt: skip
        assert files
        found.append(files)
    assert found[0] == found[1]


def test_a_forked_process_commits_too(tmp_path: Path) -> None:
    """The pool's threads are the parent's: the child must make its own."""
    grid.run(cells(300, place), store=tmp_path / "parent", executor="inline", quiet=True)
    child = os.fork()
    if not child:  # nothing of the tests' may run on in it
        code = 1
        try:
            grid.run(cells(300, place), store=tmp_path / "child", executor="inline", quiet=True)
            code = 0
        finally:
            os._exit(code)
    until = time.monotonic() + 60
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < until:
        time.sleep(0.05)
    if ended == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended == (child, 0), "it waited for threads that it doesn't have"
