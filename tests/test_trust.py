"""Silent corruption, found by computing chunks again: a node that flips bits, and what a run makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gridcompute as grid
from gridcompute.columns import Block, Field, Fixed, Ragged
from gridcompute.config import Settings
from gridcompute.errors import DivergenceError, ParameterError
from gridcompute.events import Failure, TaskFailed
from gridcompute.executor import InlineExecutor
from gridcompute.journal import read
from gridcompute.record import load
from gridcompute.running import rule_asked
from gridcompute.spaces import Region
from gridcompute.store import open_store
from gridcompute.summary import report, report_screen
from gridcompute.testing.liars import LyingExecutor
from gridcompute.votes import close

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("own_folder")]

SEEDS = range(3)


@grid.kernel("(time)->(),()", names=("low", "high"))
def ends(series):  # type: ignore[no-untyped-def]
    return series.min(), series.max()


@grid.kernel("()->()")
def doubled(x):  # type: ignore[no-untyped-def]
    return 2 * x


def outputs(folder: Path) -> list[Any]:
    """Kernels, reductions over held and committed edges, a sort, rows of unknown number, and both kinds of sinks."""
    rng = np.random.default_rng(3)
    cube = grid.from_arrays({"t": rng.random((4, 5, 2))}, dims=("time", "lat", "lon"))["t"]
    rows = grid.from_arrays({"k": rng.integers(0, 9, 40), "v": rng.random(40)}, dims="row")
    few = rows.filter(rows["k"] < 4)
    return [cube.map(ends), cube - cube.mean("time"), rows.sort("k"), few["v"].map(doubled).sum(),
            cube.map(doubled).write(str(folder / "out.zarr")), few.write(str(folder / "out.parquet"))]


def run(folder: Path, executor: Any, **options: Any) -> Any:
    folder.mkdir(exist_ok=True)
    return grid.run(*outputs(folder), executor=executor, store=str(folder / "work"), quiet=True, **options)


def files(folder: Path) -> dict[str, bytes]:
    """All but those that name the recipe, in which the output's place counts."""
    return {str(path.relative_to(folder)): path.read_bytes() for name in ("out.zarr", "out.parquet")
            for path in sorted((folder / name).rglob("*")) if path.is_file() and not path.name.startswith(".")
            and path.name != "_manifest.json" and path.parent.name != "out.zarr"}


def results(folder: Path, made: Any) -> list[Any]:
    """Values and files of a run, to compare with another's."""
    values = [made[i].to_xarray() if i < 2 else made[i].to_arrow() for i in (0, 1, 2)]
    return [values[0].to_dict(), values[1].to_dict(), values[2].to_pydict(), float(made[3].to_numpy()), files(folder)]


@pytest.fixture(name="clean", scope="module")
def _clean(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("clean")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRIDCOMPUTE_STATE", str(folder / "state"))
        return results(folder, run(folder, InlineExecutor()))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("options", [{"verify": 1.0}, {"quorum": "2/3"}, {"quorum": (3, 5)}])
def test_a_node_that_flips_bits_changes_nothing(tmp_path: Path, clean: list[Any], options: Any, seed: int) -> None:
    nodes = "ABCDEF" if options.get("quorum") == (3, 5) else "ABC"
    liar = LyingExecutor(rate=0.5, seed=seed, nodes=nodes, workers=3, shuffle=seed)
    made = run(tmp_path / "lied", liar, **options)
    assert results(tmp_path / "lied", made) == clean
    told = made.summary()
    assert liar.lies >= 2
    assert told["quarantined"] == ["B"]
    assert told["outvoted"] == ["host-B:1 on node B"]
    assert told["same_process"] == 0
    # Once it is known, nothing goes there any more.
    assert all("B" not in order.task.turn.barred for order in liar.did["B"])
    assert any("B" in order.task.turn.barred for order in liar.did["A"])
    # And a run that goes on from there finds only what is right.
    again = run(tmp_path / "lied", InlineExecutor())
    assert again.summary()["computed"] == 0
    assert results(tmp_path / "lied", again) == clean


@pytest.mark.parametrize("seed", SEEDS)
def test_a_sample_finds_the_liar_and_all_it_did_is_done_again(tmp_path: Path, clean: list[Any], seed: int) -> None:
    liar = LyingExecutor(rate=1.0, seed=seed, workers=2)
    made = run(tmp_path / "lied", liar, verify=0.3)
    told = made.summary()
    if told["quarantined"]:  # a phase that ended before isn't looked at again; here the first one has few chunks
        assert told["quarantined"] == ["B"]
    assert told["divergences"]


def test_a_sample_of_one_phase_is_exact(tmp_path: Path) -> None:
    cube = grid.from_arrays({"t": np.random.default_rng(3).random((4, 70, 1))}, dims=("time", "lat", "lon"))["t"]
    found = 0
    for seed in range(5):
        liar = LyingExecutor(rate=1.0, seed=seed, workers=2)
        out = cube.map(doubled).map(ends)
        told = grid.run(out, out.mean("lat"), executor=liar, store=str(tmp_path / f"s{seed}"), quiet=True, verify=0.2)
        plain = grid.run(out, out.mean("lat"), executor="inline", store=str(tmp_path / "plain"), quiet=True)
        assert told.summary()["quarantined"] == ["B"]
        for i in (0, 1):
            assert told[i].to_xarray().identical(plain[i].to_xarray())
        found += liar.lies
    assert found > 5


def test_who_was_outvoted_is_named(tmp_path: Path) -> None:
    made = run(tmp_path / "lied", LyingExecutor(rate=1.0, seed=1, workers=2), verify=1.0)
    events = [event for event in read(load(made.name).journal) if event["kind"] == "divergence"]
    first = events[0]
    assert first["winner"]
    assert ["host-B:1", "B"] in [vote[:2] for vote in first["votes"]]
    assert "outvoted in stage" in first["message"]
    assert "host-B:1 on node B" in first["message"]
    assert any(event["barred"] == ["B"] for event in events)
    lines = "\n".join(report_screen(report(load(made.name))))
    assert "quarantined  B" in lines
    assert "outvoted     outvoted in stage" in lines
    assert "computed again and found equal" in lines
    json.dumps(report(load(made.name)))


def test_outvoted_shards_have_tombstones_and_a_next_generation(tmp_path: Path) -> None:
    cube = grid.from_arrays({"t": np.arange(120.0).reshape(2, 60)}, dims=("time", "lat"))["t"]
    made = grid.run(cube.map(ends), executor=LyingExecutor(rate=1.0, seed=2, workers=2), store=str(tmp_path / "w"),
                    quiet=True, quorum="2/3")
    names = list(open_store(str(tmp_path / "w")).list("shards"))
    assert any(name.endswith(".g0.arrow.tombstone") for name in names)
    assert any(name.endswith(".g1.arrow") for name in names)
    np.testing.assert_array_equal(made["low"].to_numpy(), np.arange(60.0))


@grid.task("()->()", dtypes="f8")
def unseeded(values):  # type: ignore[no-untyped-def]
    return np.random.default_rng().random(values.shape)


@pytest.mark.parametrize(("options", "votes"), [({"verify": 1.0}, 3), ({"quorum": "3/5"}, 4)])
@pytest.mark.parametrize("written", [False, True])
def test_a_kernel_without_a_seed_has_no_majority(tmp_path: Path, options: Any, votes: int, written: bool) -> None:
    rows = grid.from_arrays({"v": np.arange(30.0)}, dims="row")["v"].map(unseeded)
    out = rows.write(str(tmp_path / "out.zarr")) if written else rows
    with pytest.raises(DivergenceError) as caught:
        grid.run(out, executor=LyingExecutor(rate=0.0, workers=2), store=str(tmp_path / "w"), quiet=True, **options)
    error = caught.value
    assert "unseeded" in error.message
    assert "row 0 to " in error.message
    assert error.message.count(" got ") == votes
    assert "node A got" in error.message
    assert "every result differs" in error.hint


def test_in_one_process_it_is_said_so(tmp_path: Path) -> None:
    rows = grid.from_arrays({"v": np.arange(30.0)}, dims="row")["v"].map(doubled)
    made = grid.run(rows, executor="inline", store=str(tmp_path / "w"), quiet=True, verify=1.0)
    told = made.summary()
    assert told["confirmed"] == told["same_process"] == told["computed"] > 0
    lines = "\n".join(report_screen(report(load(made.name))))
    assert "computed again and found equal in the same process" in lines
    with pytest.raises(DivergenceError, match="inline got"):
        grid.run(rows.map(unseeded), executor="inline", store=str(tmp_path / "w"), quiet=True, verify=1.0)


def test_without_asking_nothing_is_computed_twice(tmp_path: Path) -> None:
    told = run(tmp_path / "plain", InlineExecutor(workers=2)).summary()
    assert (told["confirmed"], told["copies"], told["divergences"]) == (0, 0, [])


def test_only_so_many_are_checked(tmp_path: Path) -> None:
    rows = grid.from_arrays({"v": np.arange(4000.0)}, dims="row")["v"].map(doubled)
    told = [grid.run(rows, executor=LyingExecutor(rate=0.0, seed=seed), store=str(tmp_path / f"w{seed}"), quiet=True,
                     verify=0.2).summary() for seed in range(2)]
    assert told[0]["confirmed"] == told[1]["confirmed"]
    assert 0.05 * told[0]["computed"] < told[0]["confirmed"] < 0.4 * told[0]["computed"]


def test_an_iterate_is_not_computed_twice(tmp_path: Path) -> None:
    @grid.kernel("(x)->()")
    def mean(near):  # type: ignore[no-untyped-def]
        return (near[0] + near[1] + near[2]) / 3.0

    field = grid.from_arrays({"v": np.arange(40.0)}, dims="x")["v"]
    out = field.iterate(mean, steps=5, halo={"x": 1})
    told = grid.run(out, executor="inline", store=str(tmp_path / "w"), quiet=True, verify=1.0).summary()
    assert told["computed"] >= 1
    assert told["confirmed"] == 0


class Rounding(LyingExecutor):
    """A node that computes in another class of numerics: its last bits differ."""

    def poll(self, timeout: float) -> list[Any]:
        from dataclasses import replace

        return [replace(event, numerics=f"class of {event.node}") if getattr(event, "node", "") == "B" else event
                for event in super().poll(timeout)]


@pytest.mark.parametrize("tolerance", [0.0, 1e-10])
def test_classes_of_numerics(tmp_path: Path, tolerance: float) -> None:
    """Within the tolerance they agree; without one nobody is blamed for his class, but the majority counts."""
    rows = grid.from_arrays({"v": 1.0 + np.arange(300.0)}, dims="row")["v"].map(doubled)
    rounding = Rounding(rate=1.0, seed=4, workers=2)
    told = grid.run(rows, executor=rounding, store=str(tmp_path / "w"), quiet=True, verify=1.0,
                    **({"verify_tolerance": tolerance} if tolerance else {})).summary()
    assert rounding.lies
    assert told["quarantined"] == []
    assert bool(told["divergences"]) == (not tolerance)


def block(values: Any, valid: Any = None) -> Block:
    return Block(Region.of((0, len(values))), {"v": Fixed(np.asarray(values), valid)}, len(values))


@pytest.mark.parametrize(("one", "other", "near"), [
    ([1.0, 2.0], [1.0, 2.0 + 1e-13], True),
    ([1.0, 2.0], [1.0, 2.1], False),
    ([0.0, np.nan, np.inf], [0.0, np.nan, np.inf], True),
    ([np.inf], [-np.inf], False),
    ([np.inf], [1e308], False),
    ([np.nan], [0.0], False),
    ([1e-300], [2e-300], False),
])  # fmt: skip
def test_close(one: list[float], other: list[float], near: bool) -> None:
    fields = [Field("v", ("x",), np.dtype("f8"))]
    assert close(block(one), block(other), fields, 1e-12) is near
    assert close(block(other), block(one), fields, 1e-12) is near


def test_close_of_other_types() -> None:
    whole = [Field("v", ("x",), np.dtype("i8"))]
    assert not close(block(np.array([10**15])), block(np.array([10**15 + 1])), whole, 1e-3)
    gaps = [Field("v", ("x",), np.dtype("f8"), nullable=True)]
    assert not close(block([1.0, 2.0], np.array([True, False])), block([1.0, 2.0]), gaps, 1e-3)
    assert close(block([1.0, 2.0], np.array([True, False])), block([1.0, 9.0], np.array([True, False])), gaps, 1e-3)
    lists = [Field("v", ("x",), np.dtype("f8"), "list")]
    one, two = ({"v": Ragged(np.array([0, at, 3]), np.arange(3.0))} for at in (1, 2))
    at = Region.of((0, 2))
    assert not close(Block(at, one, 2), Block(at, two, 2), lists, 1e-3)
    assert close(Block(at, one, 2), Block(at, one, 2), lists, 1e-3)


@pytest.mark.parametrize(("options", "said"), [
    ({"verify": 1.5}, "verify is 1.5"), ({"verify": "much"}, "verify is 'much'"), ({"quorum": "2"}, "quorum is '2'"),
    ({"quorum": "2/4"}, "quorum is 2 of 4"), ({"quorum": (1, 1)}, "quorum is 1 of 1"),
    ({"quorum": "2/3", "verify": 0.1}, "both given"), ({"verify_tolerance": 1e-9}, "nothing is compared"),
    ({"verify": 1.0, "verify_tolerance": -1.0}, "verify_tolerance is -1"), ({"quorum": 7}, "quorum is 7"),
    ({"quorum": 0}, "quorum is 0"), ({"quorum": {2: 3, 3: 4}}, "quorum is"), ({"quorum": "1" * 5000}, "^.{,130}\n"),
    ({"memory": -1}, "memory is -1"), ({"memory": 1.5}, "memory is 1.5"), ({"memory": [1]}, r"memory is \[1\]"),
    ({"deadline": "x"}, "deadline is 'x'"), ({"store": 1}, "store is 1"), ({"certs": 5}, "certs is 5"),
    ({"address": 5}, "address is 5"), ({"executor": 3}, "executor is 3"), ({"store_options": 3}, "isn't a mapping"),
])  # fmt: skip
def test_settings_that_make_no_sense(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        Settings.of(**options)


@pytest.mark.parametrize(("name", "value"), [("watch", 5), ("executor", 3), ("how", 5), ("name", 5)])
def test_arguments_of_a_run_that_make_no_sense(name: str, value: Any) -> None:
    with pytest.raises(ParameterError, match=f"{name} is {value}"):
        grid.start(grid.from_arrays({"x": [1.0]}, "n"), **{name: value})


def test_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDCOMPUTE_VERIFY", "0.25")
    assert rule_asked(Settings.of()).verify == 0.25
    assert rule_asked(Settings.of(quorum=[2, 3])).quorum == (2, 3)
    assert rule_asked(Settings.of(quorum=[2, 3])).verify == 0.0
    monkeypatch.setenv("GRIDCOMPUTE_QUORUM", "3 of 5")
    monkeypatch.delenv("GRIDCOMPUTE_VERIFY")
    assert rule_asked(Settings.of()).quorum == (3, 5)
    assert rule_asked(Settings.of(verify=0.5)).quorum is None


class Rotten(InlineExecutor):
    """After the last task a bit of a written file flips."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file, self.flips = file, 0

    def poll(self, timeout: float) -> list[Any]:
        events = super().poll(timeout)
        if not self._orders and self.file.exists() and not self.flips:
            data = bytearray(self.file.read_bytes())
            data[len(data) // 2] ^= 1
            self.file.write_bytes(data)
            self.flips += 1
        return events


@pytest.mark.parametrize("options", [{"quorum": "2/3"}, {"verify": 1.0}])
def test_files_are_read_again_before_an_output_appears(tmp_path: Path, options: Any) -> None:
    rows = grid.from_arrays({"v": np.arange(64.0)}, dims="row")["v"].map(doubled)
    rotten = Rotten(tmp_path / "out.zarr" / "doubled" / "c" / "0")
    made = grid.run(rows.write(str(tmp_path / "out.zarr")), executor=rotten, store=str(tmp_path / "w"), quiet=True,
                    **options)
    assert rotten.flips == 1
    np.testing.assert_array_equal(made[0].to_numpy(), 2.0 * np.arange(64.0))
    assert "isn't what was written" in made.status.failures[0]


@pytest.mark.parametrize("written", [False, True])
def test_what_an_earlier_run_left_there_is_a_vote_too(tmp_path: Path, written: bool) -> None:
    """A shard of a worker that was lost, and that nobody reported, is wrong: a majority replaces it."""
    rows = grid.from_arrays({"v": np.arange(64.0)}, dims="row")["v"].map(doubled)

    def made(store: str, executor: Any, **options: Any) -> Any:
        out = rows.write(str(tmp_path / "out.zarr")) if written else rows
        return grid.run(out, executor=executor, store=str(tmp_path / store), quiet=True, **options)

    class Lost(LyingExecutor):
        """Does its work, and is lost before it tells, three times."""

        times = 3

        def poll(self, timeout: float) -> list[Any]:
            events = super().poll(timeout)
            if self.times and events and events[0].node == "B":
                self.times -= 1
                return [TaskFailed(events[0].task, Failure("lost_worker", "gone"))]
            return events

    lost = Lost(rate=1.0, seed=0, nodes=("B", "A", "C", "D"), workers=2)
    found = made("w", lost, verify=1.0)
    assert lost.lies
    np.testing.assert_array_equal(found[0].to_numpy(), 2.0 * np.arange(64.0))
    assert any("somebody before got" in text for text in found.summary()["divergences"]) or written
