"""`iterate` in compiled loops: the plain path's bits for any number of members, errors, waits, states on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gridcompute as grid
from gridcompute import checkpoints, gang, shares, stepping, stretches, worker
from gridcompute.atomics import CAME, LATE, wait_equal, wait_least
from gridcompute.columns import Fixed
from gridcompute.errors import KernelError, ParameterError, RunError
from gridcompute.gang import Gang, fits
from gridcompute.spaces import Region
from gridcompute.store import open_store
from gridcompute.stretches import Stretches

pytestmark = pytest.mark.usefixtures("compiler_traced")

PROPERTY = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
WIDTHS = np.random.default_rng(11).integers(0, 40, 64)
PICKS = np.random.default_rng(12).integers(0, 2**31, (64, 40, 6))


@grid.kernel("(n)->()")
def sums(inputs, scale, cell, step):  # type: ignore[no-untyped-def]
    total = 0.5 * cell[0] + step
    for i in range(inputs.size):
        total += inputs[i] * scale * (i + 1)
    return total % 1000.0


@grid.kernel("(n),(n)->(),()")
def draws(a, b, rng):  # type: ignore[no-untyped-def]
    return a.sum() * 0.5 + grid.random.uniform(rng), b.size + b.sum() % 97


@grid.kernel("(x)->()")
def line(window):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(window.size):
        total += window[i] * (i + 1)
    return total % 17.0


@grid.kernel("(y,x)->()")
def plane(window, cell, step):  # type: ignore[no-untyped-def]
    total = 0.25 * cell[1] + step
    for i in range(window.shape[0]):
        for j in range(window.shape[1]):
            total += window[i, j] * (3 * i + j)
    return total % 13.0


@grid.kernel("(n)->()")
def fails(inputs, cell, step):  # type: ignore[no-untyped-def]
    if step == 700 and cell[0] == 5:
        raise ValueError("five")
    return inputs.sum() % 7.0


def rule(length: int) -> Any:
    """Indices by table, of random number, order and distance."""

    def pick(step: int, cell: int, out: Any) -> int:
        count = PICKS[step, cell, 0] % 6
        for k in range(count):
            out[k] = PICKS[step, cell, 1 + k] % length if PICKS[step, cell, 5] % 3 else (cell + k) % length
        return int(count)

    return pick


def around(step: int, cell: int, out: Any) -> int:
    out[0], out[1], out[2] = (cell - 1) % 8, cell, (cell + 1) % 8
    return 3


def shared_rule(length: int, group: int) -> Any:
    """Groups of neighbouring cells read the same cells, which lie apart or side by side."""

    def rule(step: int, cell: int, out: Any) -> int:
        first = (cell // group + step) % 3
        for k in range(4):
            out[k] = (first + k * (1 + cell // group % 2)) % length
        return 4 - (cell // group) % 3

    return rule


def alone_rule(step: int, cell: int, out: Any) -> int:
    out[0] = cell
    return 1


def active(step: int) -> int:
    return int(WIDTHS[step % 64])


def plain(op: Any, columns: list[Fixed]) -> list[Fixed]:
    """The reference: step by step, through `run_cells`."""
    tables: dict[int, Any] = {}
    for step in range(op.action.steps):
        columns = op.action.stepped(op, Region(tuple((0, n) for n in columns[0].values.shape)), columns, step, tables)
    return columns


def same(op: Any, values: list[Any]) -> None:
    """Any number of members and any depth of the ring give the reference's bits; so does a rest begun in the middle."""
    action, columns = op.action, [Fixed(one) for one in values]
    expected = plain(op, columns)
    assert fits(action.cells, action.neighbours, columns)
    for members, depth in ((1, None), (2, 2), (2, None), (3, 3), (5, 4)):
        made = Gang(action.cells, action.neighbours, action.fill, op.space.names, columns, members, action.steps,
                    depth=depth)  # fmt: skip
        made.put(0, columns)
        cut = action.steps // 3
        made.run(0, cut)
        made.run(cut, action.steps)
        for found, right in zip(made.get(action.steps), expected, strict=True):
            np.testing.assert_array_equal(found.values.view(np.uint8), right.values.view(np.uint8))


@PROPERTY
@given(length=st.integers(1, 40), steps=st.integers(0, 30), period=st.integers(1, 5), lead=st.integers(0, 4),
       narrow=st.booleans(), kind=st.sampled_from(["f8", "f4"]))  # fmt: skip
def test_edges_of_any_pattern(length: int, steps: int, period: int, lead: int, narrow: bool, kind: str) -> None:
    values = np.random.default_rng(length).random(length).astype(kind)
    lazy = grid.from_arrays({"v": values}, dims="x")
    edges = grid.Edges(rule(length), period=period, lead=lead, max_inputs=6, active=active if narrow else None)
    same(lazy.iterate(sums, steps, edges=edges, scale=0.75).op, [values])


@PROPERTY
@given(length=st.integers(1, 24), group=st.integers(1, 24), narrow=st.booleans(), kind=st.sampled_from(["f8", "f4"]))
def test_cells_that_read_the_same(length: int, group: int, narrow: bool, kind: str) -> None:
    values = np.random.default_rng(length).random(length).astype(kind)
    edges = grid.Edges(shared_rule(length, group), period=3, max_inputs=4, active=active if narrow else None)
    same(grid.from_arrays({"v": values}, dims="x").iterate(sums, 9, edges=edges, scale=0.75).op, [values])


def test_tables_are_made_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).random(40)
    edges = grid.Edges(rule(40), period=4, lead=2, max_inputs=6, active=active)
    out = grid.from_arrays({"v": values}, dims="x").iterate(sums, 20, edges=edges, scale=0.75)
    for piece in (1, 3, 7):
        monkeypatch.setattr(shares, "PIECE", piece)
        same(out.op, [values])


def test_several_columns_and_random_numbers() -> None:
    values = [np.arange(23) * 0.5, np.arange(23, dtype=np.int32)]
    lazy = grid.from_arrays({"a": values[0], "b": values[1]}, dims="x")
    same(lazy.iterate(draws, 25, edges=grid.Edges(rule(23), period=3, max_inputs=6), seed=4).op, values)


@PROPERTY
@given(length=st.integers(1, 30), steps=st.integers(0, 12), sides=st.tuples(st.integers(0, 4), st.integers(0, 4)),
       ends=st.sampled_from(["clip", "periodic", "fill"]))  # fmt: skip
def test_windows_on_a_line(length: int, steps: int, sides: tuple[int, int], ends: str) -> None:
    values = np.random.default_rng(length).random(length)
    lazy = grid.from_arrays({"v": values}, dims="x")
    same(lazy.iterate(line, steps, halo={"x": sides}, boundary=ends, fill=2.5).op, [values])


@PROPERTY
@given(shape=st.tuples(st.integers(1, 7), st.integers(1, 6)), tall=st.integers(0, 3), wide=st.integers(0, 3),
       first=st.sampled_from(["clip", "periodic", "fill"]), second=st.sampled_from(["clip", "periodic", "fill"]),
       turned=st.booleans())  # fmt: skip
def test_windows_in_a_plane(shape: tuple[int, int], tall: int, wide: int, first: str, second: str,
                            turned: bool) -> None:  # fmt: skip
    values = np.random.default_rng(tall).random(shape).astype("f4")
    lazy = grid.from_arrays({"v": values}, dims=("x", "y") if turned else ("y", "x"))
    out = lazy.iterate(plane, 5, halo={"y": (tall, 1), "x": (0, wide)}, boundary={"y": first, "x": second}, fill=1.5)
    same(out.op, [values])


def test_windows_over_some_of_the_dimensions() -> None:
    values = np.random.default_rng(1).random((5, 6, 4))
    lazy = grid.from_arrays({"v": values}, dims=("x", "t", "y"))
    same(lazy.iterate(plane, 4, halo={"y": 1, "x": (0, 2)}, boundary="periodic").op, [values])
    lazy = grid.from_arrays({"v": values}, dims=("t", "y", "x"))
    same(lazy.iterate(plane, 4, halo={"y": 1, "x": (0, 2)}).op, [values])


def ring_of(kernel: Any, steps: int, **options: Any) -> Any:
    lazy = grid.from_arrays({"v": np.arange(8.0)}, dims="x")["v"]
    return lazy.iterate(kernel, steps, edges=grid.Edges(around, max_inputs=3), **options)


def whole_gang(out: Any, members: int) -> Gang:
    columns = [Fixed(np.arange(8.0))]
    made = Gang(out.op.action.cells, out.op.action.neighbours, 0.0, ("x",), columns, members, out.op.action.steps)
    made.put(0, columns)
    return made


@pytest.mark.parametrize("members", [1, 2, 4])
def test_a_kernel_that_raises_names_step_and_cell_and_ends_its_peers(members: int) -> None:
    made, began = whole_gang(ring_of(fails, 10**7), members), time.monotonic()
    with pytest.raises(KernelError, match=r"fails failed in step 700 at cell \(5,\): ValueError: five") as caught:
        made.run(0, 10**7)
    assert caught.value.cell == (5,)
    assert time.monotonic() - began < 60  # of them, peers take less than one second; a busy machine takes the rest
    assert not [t for t in threading.enumerate() if t.name.startswith("gang")]


@pytest.mark.parametrize("options", [{}, {"threads": 2}])
def test_a_run_names_step_cell_and_input(options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KernelError, match=r"fails failed in step 700 at x=5 of v in arrays in memory: ValueError"):
        grid.run(ring_of(fails, 1000), executor="inline", quiet=True, **options)


def test_the_plain_path_names_the_step_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gridcompute.actions.stencils.fits", lambda *_: False)
    with pytest.raises(KernelError, match=r"fails failed in step 700 at x=5 "):
        grid.run(ring_of(fails, 1000), executor="inline", quiet=True)


def test_waits_end_with_a_deadline_or_a_flag() -> None:
    flags, control = np.zeros(16, np.int64), np.zeros(8, np.int64)
    flags[8] = 3
    assert wait_equal(flags, 8, 3, control, 10**9) == wait_least(flags, 8, 2, control, 10**9) == CAME
    began = time.monotonic()
    assert wait_equal(flags, 0, 1, control, 10**7) == wait_least(flags, 0, 1, control, 10**7) == LATE
    assert time.monotonic() - began < 60
    control[0] = 1
    assert wait_equal(flags, 0, 1, control, 10**12) not in (CAME, LATE)


def test_a_member_that_is_never_answered_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gang, "PATIENCE_SECONDS", 0.05)
    made = whole_gang(ring_of(sums, 100, scale=0.5), 2)
    made.flags[:] = 0  # nobody will ever say that the first row is there
    with pytest.raises(RunError, match=r"member \d of 2 waited more than 0 s in step 0"):
        made.run(0, 100)


def test_one_member_does_work_that_is_over_before_others_have_started() -> None:
    small = Stretches(8, 1e-6)
    assert small.choose(1000) == (1, 100)
    small.took(1, 100, 1e-4)
    assert small.choose(900) == (1, 900)


def test_long_steps_are_shared_at_once() -> None:
    assert Stretches(8, 1.0).choose(1000) == (8, 4)


def test_members_that_never_wait_for_each_other_are_no_trial() -> None:
    some = Stretches(2, 1e-6)
    some.took(1, 100, 1e-4)
    some.apart = True
    assert some.choose(10**9) == (2, 10**6)
    lazy = grid.from_arrays({"v": np.arange(8.0)}, dims="x")["v"]
    made = [whole_gang(lazy.iterate(sums, 3, edges=grid.Edges(near, max_inputs=3), scale=1.0), 2)
            for near in (around, alone_rule)]  # fmt: skip
    assert [one.waits for one in made] == [True, False]


def choices(seconds: Callable[[int, int], float], turns: int) -> list[int]:
    """Who does the next stretch, where `seconds(turn, members)` is what a step takes."""
    chosen, used = Stretches(2, 1e-6), []
    for turn in range(turns):
        members, steps = chosen.choose(10**12)
        used.append(members)
        chosen.took(members, steps, steps * seconds(turn, members))
    return used


def test_several_members_go_on_where_they_are_faster() -> None:
    assert choices(lambda turn, members: 1e-6 / members, 20) == [1] + [2] * 19


def test_several_members_that_are_slower_are_tried_again_and_cost_a_tenth() -> None:
    used = choices(lambda turn, members: 1e-6 if members == 1 else 5e-6, 60)
    assert used[:2] == [1, 2]
    assert 0 < used[2:].count(2) < 40
    later = choices(lambda turn, members: 1e-6 if members == 1 else 5e-6 if turn < 30 else 0.4e-6, 60)
    assert set(later[-10:]) == {2}


# --- states on the way ---


class Broken(Exception):
    """What ends a run in the middle."""


def interrupted(out: Any, store: str, monkeypatch: pytest.MonkeyPatch, row: int) -> None:
    go = stepping.CompiledSteps.go

    def stop(self: Any, last: int) -> None:
        go(self, last)
        if self.row >= row:
            raise Broken

    with monkeypatch.context() as patched:
        patched.setattr(stepping.CompiledSteps, "go", stop)
        with pytest.raises(RunError):
            grid.run(out, executor="inline", store=store, quiet=True)


def states(store: str) -> list[str]:
    return [path for path in open_store(store).list("shards") if "s" in path.split("-")[-1].split(".")[0]]


def test_a_run_that_broke_off_goes_on_from_the_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    out, begun = ring_of(sums, 1000, scale=0.5, checkpoint=100), []
    expected = plain(out.op, [Fixed(np.arange(8.0))])[0].values
    interrupted(out, "work", monkeypatch, 350)
    assert len(states("work")) == 1
    made = stepping.CompiledSteps.__init__

    def noted(self: Any, *arguments: Any) -> None:
        begun.append(arguments[6])
        made(self, *arguments)

    monkeypatch.setattr(stepping.CompiledSteps, "__init__", noted)
    run = grid.run(out, executor="inline", store="work", quiet=True)
    np.testing.assert_array_equal(run[0].to_numpy(), expected)
    assert begun == [300]
    assert states("work") == []


def test_a_broken_state_counts_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    out = ring_of(sums, 1000, scale=0.5, checkpoint=100)
    interrupted(out, "work", monkeypatch, 350)
    path = Path("work") / states("work")[0]
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-40])
    expected = plain(out.op, [Fixed(np.arange(8.0))])[0].values
    np.testing.assert_array_equal(grid.run(out, executor="inline", store="work", quiet=True)[0].to_numpy(), expected)


def test_states_are_kept_when_it_is_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoints, "EVERY_SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "SHARE", 0.0)
    monkeypatch.setattr(stretches, "STRETCH_SECONDS", 1e-3)
    interrupted(ring_of(sums, 10**6, scale=0.5), "work", monkeypatch, 1)
    assert not states("work")  # it ended before it was kept
    keep, kept = checkpoints.Checkpoints.keep, []

    def noted(self: Any, row: int, state: Any) -> None:
        kept.append(row)
        keep(self, row, state)

    monkeypatch.setattr(checkpoints.Checkpoints, "keep", noted)
    grid.run(ring_of(sums, 10**6, scale=0.5), executor="inline", store="work", quiet=True)
    assert kept
    assert not states("work")


def test_an_iterate_that_takes_long_takes_several_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(worker, "TURN_SECONDS", 0.0)
    out = ring_of(sums, 1000, scale=0.5, checkpoint=300)
    run = grid.run(out, executor="inline", store="work", quiet=True)
    np.testing.assert_array_equal(run[0].to_numpy(), plain(out.op, [Fixed(np.arange(8.0))])[0].values)
    assert (run.status.tasks, run.status.computed, run.status.retries) == (4, 1, 0)


def test_what_is_kept_does_not_enter_the_recipe() -> None:
    assert ring_of(sums, 9, scale=0.5).op.recipe == ring_of(sums, 9, scale=0.5, checkpoint=3).op.recipe
    with pytest.raises(ParameterError, match="checkpoint"):
        ring_of(sums, 9, scale=0.5, checkpoint=-1)


def test_a_lead_enters_the_recipe() -> None:
    lazy = grid.from_arrays({"v": np.arange(8.0)}, dims="x")["v"]
    first, same_one, other = (lazy.iterate(sums, 3, edges=grid.Edges(around, max_inputs=3, lead=lead), scale=1.0)
                              for lead in (0, 0, 2))  # fmt: skip
    assert first.op.recipe == same_one.op.recipe != other.op.recipe
    with pytest.raises(ParameterError, match="period"):
        grid.Edges(around, period=0)
