"""Skipped cells: the others keep their bits, the table lists exactly those, and a later run counts them too."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import few

import gridcompute as grid
from gridcompute import apart, chunkcall, cli, compiled, loops, skipping, skips
from gridcompute.apart import Isolation
from gridcompute.columns import Fixed, Ragged
from gridcompute.errors import KernelError, ParameterError, UsageError, WorkerLostError
from gridcompute.skipnotes import notes, read_note
from gridcompute.skipping import here, run_skipping, work_of
from gridcompute.skips import MOST, Skips, Tally, merged, of_text, to_text
from gridcompute.store import open_store

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("own_folder")]

CELLS = 24
numbers = itertools.count()


def one(value, bad, cell, rng):  # type: ignore[no-untyped-def]
    if bad[cell[0]]:
        raise ValueError("bad")
    return value * 1.25 + grid.random.uniform(rng)


def many(values, bad, cell):  # type: ignore[no-untyped-def]
    for i in range(len(values)):
        if bad[cell[i, 0]]:
            raise ValueError("bad")
    return values * 1.25


def rows(value, bad, cell):  # type: ignore[no-untyped-def]
    if bad[cell[0]]:
        raise ValueError("bad")
    return np.arange(int(value) % 4) + value


def window(values, bad, cell):  # type: ignore[no-untyped-def]
    if bad[cell[0]]:
        raise ValueError("bad")
    return values.sum()


def whole(value, bad, cell):  # type: ignore[no-untyped-def]
    if bad[cell[0]]:
        raise ValueError("bad")
    return np.int32(value) + np.int32(1)


def column() -> Any:
    return grid.from_arrays({"v": np.arange(float(CELLS))}, dims="row")["v"]


def mapped(kernel: Any) -> Callable[[Any], Any]:
    return lambda bad: column().map(kernel, bad=bad, on_error="skip")


def kinds(parallel: int) -> dict[str, Callable[[Any], Any]]:
    """What a kernel may be run by, over chunks of which there are at least so many."""
    cut: dict[str, Any] = {"parallel": parallel}
    return {
        "cell": mapped(grid.kernel("()->()", **cut)(one)),
        "integers": mapped(grid.kernel("()->()", **cut)(whole)),
        "batch": mapped(grid.kernel("()->()", batch=True, **cut)(many)),
        "task": mapped(grid.task("()->()", dtypes=["f8"], **cut)(many)),
        "stencil": lambda bad: column().stencil(grid.kernel("(row)->()", **cut)(window), {"row": 1}, bad=bad,
                                                on_error="skip"),
        "explode": lambda bad: column().explode(grid.kernel("()->(k)", **cut)(rows), bad=bad, on_error="skip"),
        "explode max": lambda bad: column().explode(grid.kernel("()->(k)", **cut)(rows), bad=bad, on_error="skip",
                                                    max=4),
    }  # fmt: skip


def run(out: Any, **options: Any) -> Any:
    store = f"memory://skipping-{next(numbers)}"
    return grid.run(out, **{"executor": "inline", "quiet": True, "store": store, **options})


def listed(done: Any) -> list[tuple[str, str]]:
    return [(row["cell"], row["error"]) for row in done.skipped.to_pylist()]


def mask(bad: set[int]) -> Any:
    found = np.zeros(CELLS, bool)
    found[list(bad)] = True
    return found


@settings(max_examples=few(10))
@given(bad=st.sets(st.integers(0, CELLS - 1)), parallel=st.sampled_from([1, 2, 5, CELLS]),
       threads=st.sampled_from([1, 2]), kind=st.sampled_from(sorted(kinds(1))))  # fmt: skip
def test_all_other_cells_have_the_bits_they_have_without(bad: set[int], parallel: int, threads: int, kind: str) -> None:
    make = kinds(parallel)[kind]
    clean, found = run(make(mask(set()))), run(make(mask(bad)), threads=threads)
    assert clean.skipped.num_rows == 0
    assert listed(found) == [(f"row={cell}", "ValueError: bad") for cell in sorted(bad)]
    assert found.status.skipped == len(bad)
    assert found.summary()["skipped"] == len(bad)
    before, after = clean[0].block(), found[0].block()
    name = clean[0].names[0]
    if kind.startswith("explode"):
        lengths = np.arange(CELLS) % 4
        keep = np.repeat(~mask(bad), lengths)
        assert after[name].values.tobytes() == before[name].values[keep].tobytes()
    else:
        valid = np.ones(CELLS, bool) if after[name].valid is None else after[name].valid
        np.testing.assert_array_equal(valid, ~mask(bad))
        assert after[name].values[valid].tobytes() == before[name].values[valid].tobytes()


def test_a_loop_is_entered_once_for_each_cell_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the time is in proportion to the cells, however many fail."""
    entered = []
    call = compiled.call
    monkeypatch.setattr(compiled, "call", lambda *a, **k: (entered.append(a[4][:2]), call(*a, **k))[1])
    bad = np.arange(100_000) % 100 == 7
    kernel = grid.kernel("()->()")(whole)
    work = work_of(kernel, [Fixed(np.arange(100_000.0))], {"bad": bad}, outputs=[np.dtype("i4")], shape=(100_000,),
                   origin=(0,), space_shape=(100_000,))  # fmt: skip
    (column,), failed = run_skipping(work, here)
    assert failed.positions == list(range(7, 100_000, 100))
    assert len(entered) == 1001
    assert [int(first) for _, first in entered[:3]] == [0, 8, 108]
    assert len(failed.told) == MOST
    assert isinstance(column, Fixed)
    assert column.values[~bad].tobytes() == (np.arange(100_000, dtype="i4") + 1)[~bad].tobytes()


def test_ragged_outputs_and_core_dimensions() -> None:
    @grid.kernel("(n)->(n),(two)", sizes={"two": 2}, names=("same", "ends"))
    def both(values):  # type: ignore[no-untyped-def]
        if values.sum() > 10:
            raise ValueError("too much")
        return values * 2, np.array([values[0], values[-1]])

    lists = Ragged.of([np.array([1.0, 2.0]), np.array([20.0]), np.array([3.0])], np.float64)
    work = work_of(both, [lists], {}, outputs=[np.dtype("f8")] * 2, shape=(3,), origin=(0,), space_shape=(3,))
    (same, ends), failed = run_skipping(work, here)
    assert failed.told == [(1, "user", "ValueError: too much")]
    assert isinstance(same, Ragged)
    assert same.valid is not None
    assert same.valid.tolist() == [True, False, True]
    assert same.values[[0, 1, 3]].tolist() == [2.0, 4.0, 6.0]
    assert isinstance(ends, Fixed)
    assert ends.valid is not None
    assert ends.valid.tolist() == [[True, True], [False, False], [True, True]]
    assert np.isnan(ends.values[1]).all()


def test_an_output_of_a_wrong_length_is_a_failing_cell() -> None:
    @grid.kernel("()->(k)", sizes={"k": 2})
    def uneven(value):  # type: ignore[no-untyped-def]
        return np.zeros(3 if value == 5.0 else 2)

    found = run(column().map(uneven, on_error="skip"))
    assert listed(found) == [("row=5", "gave 3 elements along 'k' in output 'uneven', not 2")]


def test_a_second_run_counts_what_the_first_one_skipped(tmp_path: Path) -> None:
    make = kinds(4)["cell"]
    for target in (make, lambda bad: make(bad).write("o.zarr"), lambda bad: make(bad).mean()):
        first = run(target(mask({3, 20})), store=str(tmp_path / "work"))
        again = run(target(mask({3, 20})), store=str(tmp_path / "work"))
        assert again.summary()["computed"] == 0
        assert listed(again) == listed(first) == [("row=3", "ValueError: bad"), ("row=20", "ValueError: bad")]
        assert again.status.skipped == 2


def test_notes_stay_when_shards_go(tmp_path: Path) -> None:
    out = kinds(4)["cell"](mask({3, 20}))
    first = run(out, store=str(tmp_path / "work"))
    store = open_store(str(tmp_path / "work"))
    (recipe,) = {path.parent.name for path in (tmp_path / "work" / "shards").rglob("*.arrow")}
    found = notes(store, recipe)
    assert len(found) == 2
    for shard in (tmp_path / "work" / "shards").rglob("*.arrow"):
        shard.unlink()
    told = Tally()
    told.add(one for path in found.values() for one in read_note(store, path, None))
    assert told.table() == first.skipped
    store.put(next(iter(found.values())), b"[{}]")
    assert read_note(store, next(iter(found.values())), None) == ()


def test_a_later_run_counts_what_was_skipped_for_shards_that_are_gone(tmp_path: Path) -> None:
    """As intermediate results are once nobody needs them any more."""
    first = kinds(4)["cell"](mask({3, 20}))
    outputs = [first + 1.0, first.map(grid.kernel("()->()")(double_of_one))]
    done = grid.run(*outputs, executor="inline", quiet=True, store="work")
    shards = list((tmp_path / "work" / "shards").rglob("*.arrow"))
    noted = {path.parent for path in (tmp_path / "work" / "shards").rglob("*.skipped.json")}
    assert len(noted) == 1  # the kernel's own op is a stage of its own
    for shard in shards:
        if shard.parent in noted:
            shard.unlink()
    again = grid.run(*outputs, executor="inline", quiet=True, store="work")
    assert again.summary()["computed"] == 0
    assert again.skipped == done.skipped
    assert again.status.skipped == 2


def double_of_one(value):  # type: ignore[no-untyped-def]
    return value * 2.0


def test_the_table_is_bounded_and_the_count_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    @grid.kernel("()->()")
    def never(value):  # type: ignore[no-untyped-def]
        if value > -1.0:
            raise ValueError("never")
        return value

    monkeypatch.setattr(skips, "MOST", 2)
    monkeypatch.setattr(skipping, "MOST", 2)
    found = run(grid.from_arrays({"v": np.zeros(1280)}, dims="row")["v"].map(never, on_error="skip"))
    assert found.summary()["computed"] == 256  # chunks of five cells
    assert found.status.skipped == 1280
    assert found.skipped["cell"].to_pylist()[:4] == ["row=0", "row=1", "row=5", "row=6"]
    assert found.skipped.num_rows == 512
    assert len(found.summary()["skipped_cells"]) == 100


def test_sinks_hold_gaps(tmp_path: Path) -> None:
    import xarray as xr

    table = grid.from_arrays({"v": np.arange(float(CELLS))}, dims="row")
    kernels = grid.kernel("()->()")(one), grid.kernel("()->()")(whole)
    both = table["v"].map(kernels[0], bad=mask({3}), on_error="skip", names=["f"]).assign(
        i=table["v"].map(kernels[1], bad=mask({3}), on_error="skip"))
    assert run(both.write("o.parquet")).status.skipped == 2
    read = pq.read_table("o.parquet")
    assert [read["f"][3].as_py(), read["i"][3].as_py(), read["i"][4].as_py()] == [None, None, 5]
    run(both.write("o.zarr"))
    with xr.open_zarr("o.zarr") as data:
        assert np.isnan(data["f"].values[3])
        assert np.isnan(data["i"].values[3])
        assert data["i"].values[4] == 5


def test_runs_of_own_lengths_with_gaps() -> None:
    """A kernel of chunks that gives lists: those of cells that fail are null, the others what they are without."""
    def counted(n):
        if (n == 3).any():
            raise ValueError("three")
        offsets = np.zeros(len(n) + 1, np.int64)
        offsets[1:] = np.cumsum(n)
        return n * 2, (offsets, np.arange(offsets[-1]) - np.repeat(offsets[:-1], n))

    kernel = grid.kernel("()->(),(k)", batch=True, names=("twice", "upto"))(counted)
    table = grid.from_arrays({"n": np.array([2, 3, 0, 1, 3, 4])}, dims="row")
    done = grid.run(table.map(kernel, on_error="skip"), executor="inline", quiet=True)
    assert done["upto"].to_arrow()["upto"].to_pylist() == [[0, 1], None, [], [0], None, [0, 1, 2, 3]]
    assert done["twice"].to_arrow()["twice"].to_pylist() == [4, None, 0, 2, None, 8]
    with pytest.raises(grid.GridError, match="three"):
        grid.run(table.map(kernel), executor="inline", quiet=True)


@pytest.mark.parametrize("batch", [False, True])
def test_a_kernel_that_takes_everything_is_one_cell(batch: bool) -> None:
    kernel = grid.kernel("(row)->(),(two)", sizes={"two": 2}, names=("a", "b"), batch=batch)(all_at_once)
    out = column().map(kernel, on_error="skip")
    found = run(out)
    assert found.skipped.to_pylist() == [{"op": "all_at_once", "cell": "", "kind": "user", "error": "ValueError: all"}]
    assert np.isnan(found["a"].to_numpy())
    assert np.isnan(found["b"].to_numpy()).tolist() == [True, True]
    assert grid.replay(found, "").error.endswith("ValueError: all")
    assert run(out["a"] + 1.0).status.skipped == 1


def all_at_once(values):  # type: ignore[no-untyped-def]
    if values.sum() > 1.0:
        raise ValueError("all")
    return values[..., 0], np.zeros(values.shape[:-1] + (2,))  # noqa: RUF005 - as numba takes it


def test_rows_that_are_not_counted_are_told_by_block() -> None:
    table = grid.from_arrays({"v": np.arange(10.0)}, dims="row")
    kernel = grid.kernel("()->()")(whole_at_seven)
    found = run(table.filter(table["v"] > 3)["v"].map(kernel, on_error="skip"))
    assert found[0].to_numpy().tolist() == [4, 5, 6, None, 8, 9]
    assert listed(found) == [("block=7,row=0", "ValueError: seven")]
    kept = table.filter(grid.kernel("()->()")(even), on_error="skip")["v"]
    assert run(kept)[0].to_numpy().tolist() == [0, 2, 4, 6, 8]


def whole_at_seven(value):  # type: ignore[no-untyped-def]
    if value == 7.0:
        raise ValueError("seven")
    return np.int64(value)


def even(value):  # type: ignore[no-untyped-def]
    if value == 7.0:
        raise ValueError("seven")
    return value % 2 == 0


def test_ops_that_said_nothing_skip_where_the_run_does(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = grid.kernel("()->()")(whole_at_seven)
    said, unsaid = column().map(kernel, on_error="stop"), column().map(kernel)
    assert said.op.recipe == unsaid.op.recipe != column().map(kernel, on_error="skip").op.recipe
    with pytest.raises(KernelError, match="seven"):
        run(unsaid)
    with pytest.raises(KernelError, match="seven"):
        run(said, on_error="skip")
    found = run(unsaid, on_error="skip", store="memory://skip-run")
    assert listed(found) == [("row=7", "ValueError: seven")]
    assert run(column().map(kernel, on_error="skip"), store="memory://skip-run").summary()["computed"] == 0
    assert found.record.settings["on_error"] == "skip"
    monkeypatch.setenv("GRIDCOMPUTE_ON_ERROR", "skip")
    assert run(unsaid).status.skipped == 1
    assert "on_error" not in column().map(kernel).op.action.parts
    assert "skips cells that fail" in grid.plan(unsaid).explain()
    assert "skips cells that fail" not in grid.plan(unsaid, on_error="stop").explain()
    with pytest.raises(KernelError, match="seven"):
        run(unsaid, on_error="stop")


def test_a_run_that_skips_passes_gaps_on_or_refuses() -> None:
    kernel, plain = grid.kernel("()->()")(whole_at_seven), grid.kernel("()->()")(even_of_whole)
    first = column().map(kernel)
    for out, gap in ((first + 1, None), (first.isel(row=slice(5, 9)), None), (first.fillna(-1), -1),
                     (grid.concat([first, first], "row"), None), (first.max(), None)):
        values = run(out, on_error="skip")[0].to_numpy()
        assert gap is None or values[7] == gap
    assert isinstance(run(first + 1, on_error="skip")[0].to_numpy(), np.ma.MaskedArray)
    with pytest.raises(UsageError, match=r"column 'whole_at_seven' \(int64\) of whole_at_seven may then have") as e:
        run(first.map(plain), on_error="skip")
    assert "on_error='stop' at whole_at_seven" in e.value.hint
    table = column().map(kernel).assign(v=column())
    kept = table.dropna("whole_at_seven")
    assert len(run(kept["whole_at_seven"].map(plain), on_error="skip")[0].to_numpy()) == CELLS - 1


def even_of_whole(value):  # type: ignore[no-untyped-def]
    return value % 2 == 0


def test_what_cannot_skip_says_so() -> None:
    x, kernel = column(), grid.kernel("(row)->()")(largest)
    for call in (lambda: x.iterate(kernel, 2, halo={"row": 1}, on_error="skip"), lambda: x.mean(on_error="skip"),
                 lambda: x.reduce("max", on_error="skip"),
                 lambda: x.propagate(grid.kernel("(n),()->()")(along), grid.Dag.of_edges([0], [1], CELLS),
                                     on_error="skip")):
        with pytest.raises(ParameterError, match="takes no on_error"):
            call()
    with pytest.raises(UsageError, match="draws numbers for a whole chunk"):
        x.map(grid.kernel("()->()", batch=True, dtypes=["f8"])(drawn), on_error="skip")
    with pytest.raises(ParameterError, match="on_error is 'ignore'"):
        x.map(grid.kernel("()->()")(even), on_error="ignore")
    with pytest.raises(ParameterError, match="on_error is 'ignore'"):
        run(x.map(grid.kernel("()->()")(even)), on_error="ignore")
    # Under a whole run's option such an op goes on stopping.
    assert run(x.map(grid.kernel("()->()", batch=True, dtypes=["f8"])(drawn)), on_error="skip").status.skipped == 0


def largest(values):  # type: ignore[no-untyped-def]
    return values.max()


def along(inputs, own):  # type: ignore[no-untyped-def]
    return inputs.sum() + own


def drawn(values, rng):  # type: ignore[no-untyped-def]
    return values + grid.random.uniform(rng)


# --- cells that end their process: in one of its own, watched ---


def deadly(value, how):  # type: ignore[no-untyped-def]
    import ctypes
    import os
    import time

    if value == 5.0 and how == "exit":
        os._exit(7)
    if value == 5.0 and how == "segfault":
        ctypes.string_at(0)
    if value == 5.0 and how == "hang":
        time.sleep(600)
    return value


DEATHS = {"exit": ("lost_worker", "its process ended with exit code 7"), "hang": ("hang", "it ran longer than 2 s"),
          "segfault": ("lost_worker", "its process was killed by SIGSEGV")}  # fmt: skip


@pytest.fixture
def isolation() -> Iterator[Isolation]:
    made = Isolation(2.0)
    yield made
    made.close()


@pytest.mark.parametrize("how", sorted(DEATHS))
def test_a_chunk_is_cut_until_the_deadly_cell_is_alone(how: str, isolation: Isolation) -> None:
    @grid.task("()->()", dtypes=["f8"])
    def chunk(values: Any, how: str) -> Any:
        return np.array([deadly(value, how) for value in values])

    work = work_of(chunk, [Fixed(np.arange(8.0))], {"how": how}, outputs=[np.dtype("f8")], shape=(8,), origin=(0,),
                   space_shape=(8,))
    (column,), failed = run_skipping(work, isolation)
    assert failed.told == [(5, *DEATHS[how])]
    assert isinstance(column, Fixed)
    np.testing.assert_array_equal(column.values, [0, 1, 2, 3, 4, np.nan, 6, 7])


@pytest.mark.parametrize("what", ["segfault", "hang", "memory"])
def test_a_compiled_loop_names_the_cell_that_ends_its_process(what: str, isolation: Isolation) -> None:
    values, number = np.arange(12.0).reshape(2, 3, 2), ["segfault", "hang", "memory"].index(what)
    work = work_of(grid.kernel("(time)->()")(trouble), [Fixed(values)], {"kind": number}, outputs=[np.dtype("f8")],
                   shape=(2, 3), origin=(4, 0), space_shape=(6, 3))
    (column,), failed = run_skipping(work, isolation)
    told = {**DEATHS, "memory": ("out_of_memory", "MemoryError: there isn't so much memory")}[what]
    assert failed.told == [(1, "user", "ValueError: two"), (4, *told)]
    assert isinstance(column, Fixed)
    np.testing.assert_array_equal(column.values.ravel()[[0, 2, 3, 5]], [1.0, 9.0, 13.0, 21.0])


def trouble(values, kind):  # type: ignore[no-untyped-def]
    total = values.sum()
    if values[0] == 2.0:
        raise ValueError("two")
    if values[0] == 8.0:
        if kind == 0:
            total += values[np.int64(10) ** 13]
        while kind == 1 and total > -1.0:
            total = total * 0.5 + 1.0
        if kind == 2:
            total += np.ones(np.int64(10) ** 13).sum()
    return total


def test_a_cell_that_takes_too_much_memory_is_skipped_at_its_second_failure() -> None:
    values = grid.from_arrays({"v": np.arange(12.0).reshape(6, 2)}, dims=("row", "time"))["v"]
    kernel = grid.kernel("(time)->()", parallel=2)(trouble)
    found = run(values.map(kernel, kind=2, on_error="skip"))
    assert found.skipped["cell"].to_pylist() == ["row=1", "row=4"]
    assert found.skipped["kind"].to_pylist() == ["user", "out_of_memory"]
    assert found.status.retries == 1
    np.testing.assert_array_equal(found[0].to_numpy(), [1, np.nan, 9, 13, np.nan, 21])


@pytest.mark.parametrize(("kind", "error"), [("lost_worker", WorkerLostError), ("out_of_memory", MemoryError)])
def test_a_process_that_ends_before_the_kernel_begins_is_no_cells_fault(kind: Any, error: type[Exception]) -> None:
    asked = []

    class Dies:
        def part(self, lo: int, hi: int) -> apart.Death:
            asked.append((lo, hi))
            return apart.Death(kind, "no room", None)

    work = work_of(grid.kernel("()->()")(window_of_one), [Fixed(np.arange(8.0))], {}, outputs=[np.dtype("f8")],
                   shape=(8,), origin=(0,), space_shape=(8,))  # fmt: skip
    with pytest.raises(error, match="before the kernel began: no room"):
        list(apart._parts(work, Dies()))  # type: ignore[arg-type]
    assert asked == [(0, 8), (0, 4), (0, 2), (0, 1)]


def test_what_is_wrong_with_the_work_itself_is_raised_here(isolation: Isolation) -> None:
    work = work_of(grid.kernel("()->()", dtypes=["f8"])(uncompilable), [Fixed(np.arange(8.0))], {},
                   outputs=[np.dtype("f8")], shape=(8,), origin=(0,), space_shape=(8,))  # fmt: skip
    with pytest.raises(UsageError, match="can't be compiled"):
        isolation(work)


def uncompilable(value):  # type: ignore[no-untyped-def]
    return sorted({value: open(value)})


def test_the_same_bits_in_a_process_of_its_own(isolation: Isolation) -> None:
    bad = mask({0, 7, CELLS - 1})
    for kernel, rows_ in ((grid.kernel("()->()")(one), False), (grid.kernel("()->()", batch=True)(many), False),
                          (grid.kernel("()->(k)")(rows), True)):
        work = work_of(kernel, [Fixed(np.arange(float(CELLS)))], {"bad": bad}, outputs=[np.dtype("f8")], shape=(CELLS,),
                       origin=(0,), space_shape=(CELLS,), seed=3, rng_name="x", rows=rows_)
        (values, failed), (others, again) = here(work), isolation(work)
        assert failed.positions == again.positions == [0, 7, CELLS - 1]
        assert [one.tobytes() for one in values] == [one.tobytes() for one in others] or not rows_
        keep = ~bad if not rows_ else slice(None)
        assert values[-1][keep].tobytes() == others[-1][keep].tobytes()


# --- skipped cells as values ---

TEXTS = st.text(max_size=8)
SKIPS = st.builds(
    lambda op, recipe, region, cells, more, block: Skips(op, recipe, region, ("a", "b"), len(cells) + more,
                                                         tuple(cells), block),
    TEXTS, TEXTS, TEXTS, st.lists(st.tuples(st.tuples(st.integers(0, 9), st.integers(0, 9)), TEXTS, TEXTS), min_size=1,
                                  max_size=4), st.integers(0, 5), st.integers(-1, 3))  # fmt: skip


@given(st.lists(SKIPS, max_size=3))
def test_skips_survive_their_text(several: list[Skips]) -> None:
    assert of_text(to_text(several)) == tuple(several)


WRONG = '[{"op": "f", "recipe": "r", "region": "0", "dims": ["a"], "block": -1, %s}]'


@pytest.mark.parametrize("text", ["", "{}x", "7", "[7]", "[{}]", '[{"op": 1}]', "[" * 100_000,
                                  WRONG % '"count": 1, "cells": [[[1, 2], "user", "x"]]', WRONG % '"cells": []',
                                  WRONG % '"count": "1", "cells": []', WRONG % '"count": 0, "cells": []'])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        of_text(text)


def test_a_cell_counts_once_whoever_tells_of_it() -> None:
    told = Tally()
    first = Skips("f", "r", "0-4", ("x",), 2, (((1,), "user", "a"), ((3,), "user", "b")))
    told.add([first, first])
    told.add([Skips("f", "r", "3-6", ("x",), 2, (((3,), "user", "b"), ((5,), "user", "c")))])
    assert told.count == 3
    assert told.table()["cell"].to_pylist() == ["x=1", "x=3", "x=5"]
    joined = merged([Skips("f", "r", "3-6", ("x",), 1, (((5,), "user", "c"),)), first])
    assert [(one.count, [cell for cell, *_ in one.cells]) for one in joined] == [(3, [(1,), (3,), (5,)])]


def test_the_command_line_counts_lists_and_exits_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    Path("job.py").write_text(
        "import numpy as np\nimport gridcompute as grid\n"
        "@grid.kernel('()->()')\ndef picky(value):\n    if value == 7.0:\n        raise ValueError('seven')\n"
        "    return value\n"
        "if __name__ == '__main__':\n"
        "    x = grid.from_arrays({'v': np.arange(10.0)}, dims='row')['v']\n"
        "    grid.run(x.map(picky), executor='inline', quiet=True)\n")
    assert cli.main(["run", "--on-error", "skip", "job.py"]) == 3
    assert "skipped  1 cell, see gridcompute report job-" in capsys.readouterr().out
    assert cli.main(["resume", "last"]) == 3
    assert "0 computed, 10 found" in capsys.readouterr().out
    assert cli.main(["report", "last"]) == 0
    assert "skipped picky at row=7 (user): ValueError: seven" in capsys.readouterr().out
    assert cli.main(["status", "last", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["skipped_cells"][0]["cell"] == "row=7"
    assert cli.main(["run", "job.py"]) == 1
    told = capsys.readouterr().err
    assert "-> gridcompute replay job-" in told
    assert " row=7 runs it alone, with --pdb in a debugger; on_error=\"skip\" leaves such cells out" in told
    assert cli.main(["run", "--on-error", "ignore", "job.py"]) == 2


def test_compiling_is_no_cells_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever watches the position sees none while a loop or a batch kernel is compiled, also a second loop."""
    mark, seen = np.zeros(1, np.int64), []
    for module in (loops, chunkcall):
        compile_for = module.compile_for
        monkeypatch.setattr(module, "compile_for",
                            lambda *given, to=compile_for: (seen.append(int(mark[0])), to(*given)))
    for kernel, rows_, calls in ((grid.kernel("()->()")(window_of_one), False, 1),
                                 (grid.kernel("()->()", batch=True)(double), False, 1),
                                 (grid.kernel("()->(k)")(few), True, 2)):
        work = work_of(kernel, [Fixed(np.arange(4.0))], {}, outputs=[np.dtype("f8")], shape=(4,), origin=(0,),
                       space_shape=(4,), rows=rows_)
        mark[0], seen[:] = 3, []
        work.part(0, 4, mark)
        assert seen == [skipping.IDLE] * calls
        assert mark[0] >= 0


def window_of_one(value):  # type: ignore[no-untyped-def]
    return value + 1.0


def double(values):  # type: ignore[no-untyped-def]
    return values * 2.0


def few(value):  # type: ignore[no-untyped-def]
    return np.arange(int(value)) * 1.0


def test_any_text_of_an_error_is_kept() -> None:
    @grid.task("()->()", dtypes=["f8"])
    def odd(values: Any) -> Any:
        if (values == 3.0).any():
            raise ValueError("\udc80" + "x" * 1000)
        return values

    (row,) = run(column().map(odd, on_error="skip")).skipped.to_pylist()
    assert row["error"].startswith("ValueError: \\udc80xxx")
    assert len(row["error"]) < 400


def test_no_numbers_without_skipping() -> None:
    """Nothing is noted, and nothing enters a shard, where no cell was skipped."""
    found = run(column().map(grid.kernel("()->()")(even_of_whole)), on_error="skip", store="work")
    assert found.status.skipped == 0
    assert not list(Path("work").rglob("*.skipped.json"))
