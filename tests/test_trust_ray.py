"""On a real Ray: a process that gives wrong values is found out and ended; a straggler isn't waited for."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gridcompute as grid
from gridcompute import ray_executor
from gridcompute.columns import Block, Fixed
from gridcompute.content import seal
from gridcompute.errors import DivergenceError
from gridcompute.events import Kept, Task, TaskDone, Turn
from gridcompute.executor import Executor
from gridcompute.journal import read
from gridcompute.orders import Order
from gridcompute.ray_places import HOLD_SECONDS, TRIES, HandedBack, Placing, refuses
from gridcompute.record import load
from gridcompute.spaces import Region

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.usefixtures("module_folder")]

WAIT = 240.0
"""What a straggler sleeps; a run that waited for it would take longer."""


@pytest.fixture(name="on_ray", scope="module")
def _on_ray() -> Iterator[Executor]:
    made = ray_executor.RayExecutor(workers=2)
    yield made
    made.close()


def first_of_all(path: str) -> bool:
    """Whether this process was the first to come to a place; the same one is told so again."""
    try:
        with open(path, "x") as file:
            file.write(str(os.getpid()))
        return True
    except FileExistsError:
        while not (text := Path(path).read_text()):
            time.sleep(0.01)
        return text == str(os.getpid())


@pytest.fixture(name="lying")
def _lying(tmp_path: Path) -> Any:
    place = str(tmp_path / "liar")

    @grid.task("()->()", dtypes="f8")
    def lying(values):  # type: ignore[no-untyped-def]
        time.sleep(0.02)  # so that both workers get some
        try:
            with open(place, "x") as file:
                file.write(str(os.getpid()))
            mine = True
        except FileExistsError:
            with open(place) as file:
                mine = file.read() == str(os.getpid())
        return values + 1.0 if mine else values

    return lying


def rows(count: int = 24) -> Any:
    return grid.from_arrays({"v": np.arange(float(count))}, dims="row")["v"]


def test_a_process_that_lies_is_outvoted_and_ended(on_ray: Executor, lying: Any, tmp_path: Path) -> None:
    made = grid.run(rows().map(lying), executor=on_ray, store=str(tmp_path / "w"), quiet=True, verify=1.0)
    np.testing.assert_array_equal(made[0].to_numpy(), np.arange(24.0))
    told = made.summary()
    liar = f"{socket.gethostname()}:{(tmp_path / 'liar').read_text()}"
    assert told["quarantined"] == [liar]
    assert [who.split(" on node ")[0] for who in told["outvoted"]] == [liar]
    assert told["confirmed"] >= 24
    assert told["same_process"] == 0, "a check in the process that had the chunk before"
    events = read(load(made.name).journal)
    barred = next(i for i, event in enumerate(events) if event["kind"] == "divergence" and event["barred"])
    # What it had in work by then is written down, but is void.
    given = max(event["task"] for event in events[:barred] if "task" in event) + on_ray.workers * on_ray.queue
    later = [event for event in events[barred + 1 :] if event["kind"] in ("kept", "checked")]
    assert [event for event in later if event["worker"] == liar and event["task"] > given] == [], "it was given more"


def test_a_straggler_is_not_waited_for(on_ray: Executor, tmp_path: Path) -> None:
    place = str(tmp_path / "slow")

    @grid.task("()->()", dtypes="f8")
    def slow(values):  # type: ignore[no-untyped-def]
        if (values == 7.0).any():
            try:
                open(place, "x").close()
                time.sleep(WAIT)
            except FileExistsError:
                pass
        time.sleep(0.05)
        return values * 2.0

    began = time.monotonic()
    made = grid.run(rows(12).map(slow).write(str(tmp_path / "out.zarr")), executor=on_ray, store=str(tmp_path / "w"),
                    quiet=True)
    assert time.monotonic() - began < WAIT
    told = made.summary()
    assert (told["copies"], told["won"]) == (1, 1)
    np.testing.assert_array_equal(made[0].to_numpy(), 2.0 * np.arange(12.0))
    # Who was ended leaves nothing behind that a later run would trip over.
    again = grid.run(rows(12).map(slow).write(str(tmp_path / "out.zarr")), executor=on_ray, store=str(tmp_path / "w"),
                     quiet=True)
    assert again.summary()["computed"] == 0


def test_held_blocks_are_checked_by_others(on_ray: Executor, tmp_path: Path) -> None:
    field = grid.from_arrays({"v": np.arange(40.0).reshape(4, 10)}, dims=("t", "x"))["v"]
    out = field - field.mean("t")
    made = grid.run(out, executor=on_ray, store=str(tmp_path / "w"), quiet=True, quorum="2/3")
    plain = grid.run(out, executor="inline", store=str(tmp_path / "p"), quiet=True)
    assert made[0].to_xarray().identical(plain[0].to_xarray())
    assert (made.summary()["confirmed"], made.summary()["same_process"]) == (made.summary()["computed"], 0)


def test_a_kernel_without_a_seed_has_no_majority(on_ray: Executor, tmp_path: Path) -> None:
    @grid.task("()->()", dtypes="f8")
    def unseeded(values):  # type: ignore[no-untyped-def]
        return np.random.default_rng().random(values.shape)

    with pytest.raises(DivergenceError) as caught:
        grid.run(rows(3).map(unseeded), executor=on_ray, store=str(tmp_path / "w"), quiet=True, verify=1.0)
    assert "every result differs" in caught.value.hint
    workers = {part.split()[-4] for part in caught.value.message.split(" got ")[:3]}
    assert len(workers) == 3, caught.value.message


def test_who_refuses_what() -> None:
    turn = Turn(True, True, 1, avoid=("N", "host:1"), barred=("M", "host:2"))
    assert refuses(turn, "host:1", "X")
    assert refuses(turn, "host:2", "X")
    assert refuses(turn, "host:3", "M")
    assert not refuses(turn, "host:3", "N")  # another process of the same node, where no other node is free
    assert not refuses(Turn(), "host:1", "N")


class FakeRay:
    """A cluster of nodes that aren't there."""

    class util:
        class scheduling_strategies:
            @staticmethod
            def NodeAffinitySchedulingStrategy(node: str, soft: bool) -> tuple[str, bool]:
                return node, soft

    def __init__(self, *names: str) -> None:
        self.names = names

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": name, "Alive": True, "Resources": {"CPU": 2.0}} for name in self.names]


def placed(placing: Placing, turn: Turn, number: int = 1, workers: int = 2) -> dict[str, Any]:
    return placing.place(Order(Task(number, 0, (0,), turn=turn), ((),), ((),), {}), workers)


def test_where_a_check_goes() -> None:
    several = Placing(FakeRay("A", "B", "C"))
    turn = Turn(True, True, 1, avoid=("A", "h:1"))
    assert [placed(several, turn)["scheduling_strategy"] for _ in range(3)] == [("C", True), ("B", True), ("C", True)]
    assert placed(several, Turn()) == {}
    assert placed(several, Turn(True, barred=("B", "h:9"))) == {"label_selector": {"ray.io/node-id": "!in(B)"}}
    assert placed(several, Turn(copy=True)) == {"scheduling_strategy": "SPREAD"}
    alone = Placing(FakeRay("A"))
    assert placed(alone, turn) == {}
    assert placed(alone, turn, workers=1) == {"runtime_env": {"env_vars": {"GRIDCOMPUTE_VOTE": "1"}}}
    order = Order(Task(1, 0, (0,), turn=turn), ((),), ((),), {})
    assert alone.due() == []
    assert alone.times(order, 4) == (1, 0.0)
    alone.handed_back(order)
    time.sleep(alone.patience(9.0))
    assert alone.due() == [order]
    assert alone.times(order, 4) == (2, HOLD_SECONDS)
    assert placed(alone, turn) == {}
    for _ in range(TRIES):
        alone.handed_back(order)
    assert "runtime_env" in placed(alone, turn)
    alone.forget(1)
    assert alone.patience(7.0) == 7.0
    assert HandedBack("h:1") == HandedBack("h:1")


def test_a_block_that_changed_in_the_object_store_is_made_again() -> None:
    block = Block(Region.of((0, 3)), {"v": Fixed(np.arange(3.0), np.array([True, False, True]))}, 3)
    assert ray_executor._opened((block, seal(block))) is block
    other = Block(block.region, {"v": Fixed(np.array([0.0, 1.0, 2.5]), block.columns["v"].valid)}, 3)
    with pytest.raises(ValueError, match="aren't those"):
        ray_executor._opened((other, seal(block)))


class OneRay(FakeRay):
    """A node whose idle processes get tasks in always the same order, the one that was idle last first."""

    def __init__(self, *processes: str) -> None:
        super().__init__("A")
        self.processes, self.options_given = processes, list[Any]()
        self.waiting: dict[object, tuple[Order, bool]] = {}

    def options(self, **given: Any) -> OneRay:
        self.options_given.append(given)
        return self

    def remote(self, *given: Any) -> Any:  # type: ignore[override]
        ref, blocks = object(), object()
        self.waiting[ref] = given[2], given[3]
        return (ref, blocks) if given[3] else ref

    def wait(self, refs: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        assert set(refs) <= set(self.waiting)
        return list(refs), []

    def get(self, ref: Any) -> Any:
        at = list(self.waiting).index(ref)
        order, _ = self.waiting[ref]
        self.waiting[ref] = order, True
        name = f"h:{self.processes[at % len(self.processes)]}"
        if refuses(order.task.turn, name, "A"):
            return HandedBack(name)
        return TaskDone(order.task.number, (Kept(0, 0, 0, "", "d", 1, 8),), worker=name)


@pytest.mark.parametrize("held", [False, True])
def test_another_process_is_asked(held: bool) -> None:
    made = ray_executor.RayExecutor(workers=2)
    fake: Any = OneRay("1", "2")
    made._ray = made._run = fake
    made._placing, made._control = Placing(fake), SimpleNamespace(check=lambda: None)
    made._payloads = {0: ("key", "ref", {"num_returns": 2 if held else 1, "num_cpus": 1}, fake)}
    made.submit(Order(Task(5, 0, (0,), turn=Turn(True, True, 1, avoid=("A", "h:1"))), ((),), ((),), {}))
    events: list[Any] = []
    for _ in range(50):
        events += made.poll(0.05)
        if events:
            break
        fake.waiting.clear()
    assert [(event.task, event.worker) for event in events] == [(5, "h:2")]
    assert (made._pending, made._orders, made._blocks) == ({}, {}, {})
    assert made.poll(0.0) == []
    made.submit(Order(Task(6, 0, (0,), turn=Turn(True, True, 2, avoid=("A", "h:1", "h:2"))), ((),), ((),), {}))
    assert fake.options_given[-1]["runtime_env"] == {"env_vars": {"GRIDCOMPUTE_VOTE": "2"}}
    made._ray.cancel = lambda ref, force: None
    made.kill(6)
    assert (made._pending, made._orders, made._blocks) == ({}, {}, {})
