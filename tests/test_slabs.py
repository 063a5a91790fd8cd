"""Slabs: stored chunks that span all kept cells are decoded once, by any number of threads, and folded in order."""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from places import few
from striking import everywhere

import gridcompute as grid
from gridcompute import axes, segments, slabs, tiles
from gridcompute.actions.folds import Fold, Folding
from gridcompute.bounds import fitting, needs
from gridcompute.executor import InlineExecutor
from gridcompute.planning import Plan
from gridcompute.running import graph_of
from gridcompute.shardfile import read_header
from gridcompute.slabs import in_turn
from gridcompute.sources import chunks
from gridcompute.sources.buffers import Buffers
from gridcompute.sources.chunks import StoredChunks
from gridcompute.sources.zarrs import ZarrSource
from gridcompute.spaces import Region
from gridcompute.store import open_store
from gridcompute.tiles import Cuts

Opened = Callable[[Any], contextlib.AbstractContextManager[Callable[[Any], Any]]]


@contextlib.contextmanager
def plainly(tile: Any) -> Iterator[Callable[[Any], Any]]:
    yield lambda piece: piece


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("bands", [1, 2, 7])
def test_pieces_of_the_same_states_come_in_order_and_never_at_once(bands: int, threads: int) -> None:
    """By two kinds of states: those of a place in every tile of a band, and those of a tile."""
    given = [[(band, number) for number in range(9 + band)] for band in range(bands)]
    done: dict[Any, list[Any]] = defaultdict(list)
    inside: dict[Any, threading.Lock] = defaultdict(threading.Lock)

    def pieces_of(tile: tuple[int, int]) -> list[tuple[Any, list[Any]]]:
        return [((*tile, place), states_of((*tile, place))) for place in range(4)]

    def states_of(piece: tuple[int, ...]) -> list[Any]:
        return [("place", piece[0], piece[2]), ("tile", *piece[:2])]

    def take(piece: tuple[int, int, int], fetched: Any) -> None:
        assert piece == fetched
        for states in states_of(piece):
            assert inside[states].acquire(blocking=False)
            done[states].append(piece)
        for states in states_of(piece):
            inside[states].release()

    in_turn(given, pieces_of, plainly, take, threads)
    assert sum(map(len, done.values())) == 2 * 4 * sum(map(len, given))
    assert all(pieces == sorted(pieces) for pieces in done.values())


def test_tiles_of_one_band_are_fetched_at_once() -> None:
    met = threading.Barrier(2)

    @contextlib.contextmanager
    def opened(tile: int) -> Iterator[Callable[[Any], Any]]:
        met.wait(60)  # only two that are here together go on
        yield lambda piece: piece

    taken: list[int] = []
    in_turn([list(range(6))], lambda tile: [(tile, ["states"])], opened, lambda piece, _: taken.append(piece), 2)
    assert taken == list(range(6))


def test_a_piece_of_the_next_tile_is_folded_while_another_of_this_one_is() -> None:
    met = threading.Barrier(2)

    def take(piece: tuple[int, int], _: Any) -> None:
        if piece in {(0, 1), (1, 0)}:
            met.wait(60)

    in_turn([[0, 1]], lambda tile: [((tile, place), [place]) for place in range(3)], plainly, take, 2)


def test_bands_are_done_at_once() -> None:
    met = threading.Barrier(2)
    in_turn([[0, 1, 2], [3, 4, 5]], lambda tile: [(tile, [tile // 3])], plainly, lambda *_: met.wait(60), 2)


@pytest.mark.faults
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("where", ["opened", "fetched", "taken"])
def test_an_error_ends_all_threads(where: str, threads: int) -> None:
    done = []

    def failing(at: str, tile: int) -> int:
        if (at, tile) == (where, 20):
            raise OSError("a torn chunk")
        return tile

    @contextlib.contextmanager
    def opened(tile: int) -> Iterator[Callable[[Any], Any]]:
        failing("opened", tile)
        yield lambda piece: failing("fetched", piece)

    with pytest.raises(OSError, match="torn"):
        in_turn([list(range(300))], lambda tile: [(tile, ["states"])], opened,
                lambda piece, _: done.append(failing("taken", piece)), threads)
    assert done == list(range(20))


@pytest.mark.faults
@pytest.mark.parametrize("threads", [2, 3])
def test_an_interrupt_strikes_anywhere(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that called, between any two instructions: those that work for it end all the same."""
    monkeypatch.setattr(slabs, "LOOK_SECONDS", 0.01)
    ended, struck_at = threading.Event(), list[int]()

    def work(_: int) -> None:
        in_turn([range(6), range(6, 9)], lambda tile: [(tile, [(place, tile < 6), tile]) for place in range(2)],
                plainly, lambda *_: None, threads)

    def all_of_them() -> None:
        struck_at.extend(everywhere(work, lambda code: code.co_filename == slabs.__file__))
        ended.set()

    threading.Thread(target=all_of_them, daemon=True).start()
    assert ended.wait(120), f"struck {len(struck_at)} times, the last time some wait for ever"
    assert len(struck_at) > 100
    assert not [one.name for one in threading.enumerate() if one.name.startswith("in-turn")]


@pytest.mark.faults
def test_an_interrupt_ends_it_early(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped, done = threading.Event(), list[int]()

    class Told(slabs.Turns):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if (name, value) == ("stopped", True):
                stopped.set()

    def take(tile: int, _: int) -> None:
        done.append(tile)
        if tile == 3:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            assert stopped.wait(60)

    monkeypatch.setattr(slabs, "Turns", Told)
    with pytest.raises(KeyboardInterrupt):
        in_turn([range(1000)], lambda tile: [(tile, ["states"])], plainly, take, 3)
    assert done == [0, 1, 2, 3]


# --- stacks ---


def stack(path: Path, values: Any, chunks: tuple[int, ...]) -> str:
    group = zarr.create_group(str(path), overwrite=True)
    array = group.create_array("v", shape=values.shape, chunks=chunks, dtype=values.dtype,
                               dimension_names=("time", "lat", "lon")[: values.ndim])
    array[...] = values
    return str(path)


def numbers(shape: tuple[int, ...], seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape) * 10.0 ** rng.integers(-3, 4, shape)
    values[rng.random(shape) < 0.1] = np.nan
    return values.astype("f4")


WHOLE = grid.kernel("(lat,lon)->(lat,lon)")(lambda field: field - field[0, 0])
LIGHT = grid.kernel("()->()")(lambda x: x * np.float32(2) + np.float32(1))

OPS: dict[str, Callable[[Any], Any]] = {  # of few reductions: each is compiled
    "mean": lambda f: f.mean("time"),
    "std": lambda f: f.std("time"),
    "line": lambda f: f.reduce("linregress", "time"),
    "argmax": lambda f: f.reduce("argmax", "time"),
    "months": lambda f: f.groupby(np.arange(f.space["time"]) % 5 - (np.arange(f.space["time"]) % 7 == 0),
                                  dim="time").mean(),
    "zonal": lambda f: f.mean("lon"),
    "zonal line": lambda f: f.reduce("linregress", "lon"),
    "meridional": lambda f: f.mean("lat"),
    "global": lambda f: f.mean(("lat", "lon")),
    "profile": lambda f: f.std(("time", "lat")),
    "all": lambda f: f.std(),
    "anomaly": lambda f: (f - 3.5).mean("time"),
    "square": lambda f: (f * f + f).mean("lon"),
    "light": lambda f: f.map(LIGHT).mean("time"),
    "whole": lambda f: f.map(WHOLE).std("time"),
    "part": lambda f: f.isel(lat=slice(0, 2)).mean("time"),
}


def digests(store: str) -> dict[str, str]:
    opened = open_store(store)
    return {name: read_header(opened.get(name), path=name).digest for name in opened.list("shards")}


def untaken(folds: Any, kept: Any, box: Region) -> Cuts:
    """The plain way: boxes as they are, read by zarr-python."""
    nothing = (0,) * len(box.bounds)
    return Cuts(nothing, nothing, frozenset(), frozenset(), ())


@pytest.fixture(name="small")
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sizes that make boxes, segments, tiles and pieces of a few values."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(axes, "CHUNK_BYTES", 400)
    monkeypatch.setattr(axes, "SLAB_BYTES", 1600)
    monkeypatch.setattr(axes, "DECODE_BYTES", 0)
    monkeypatch.setattr(axes, "LIGHT_FLOOR", 1)
    monkeypatch.setattr(segments, "STATE_FLOOR", 8)
    monkeypatch.setattr(segments, "STATE_SHARE", 1)
    monkeypatch.setattr(tiles, "TILE_BYTES", 300)
    monkeypatch.setattr(tiles, "PIECE_BYTES", 100)
    monkeypatch.setattr(tiles, "FIELD_BYTES", 150)
    return tmp_path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=few(8), deadline=None)
@given(st.data())
def test_any_stack_and_joined_reductions_have_the_bits_of_the_plain_way(small: Path, data: st.DataObject) -> None:
    shape = tuple(data.draw(st.integers(1, most), label="shape") for most in (40, 9, 9))
    chunks = tuple(data.draw(st.integers(1, n), label="chunks") for n in shape)
    path = stack(small / "v.zarr", numbers(shape), chunks)
    field = grid.open_zarr(path)["v"]
    names = data.draw(st.lists(st.sampled_from(sorted(OPS)), min_size=2, max_size=6, unique=True), label="ops")
    outputs = [OPS[name](field) for name in names]
    number = next(COUNT)

    def run(label: object, threads: int) -> dict[str, str]:
        store = f"memory://slabs-{small.name}-{number}-{label}"
        grid.run(*outputs, executor=InlineExecutor(threads=threads), store=store, quiet=True)
        return digests(store)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(slabs, "cuts", untaken)
        patched.setattr(ZarrSource, "piecewise", False)
        patched.setattr("gridcompute.sources.zarrs._chunks", lambda folder: None)
        expected = run("plain", 1)
    assert expected
    for threads in (1, 2, 3):
        assert run(threads, threads) == expected


COUNT = itertools.count()


def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[int, ...]]:
    """How often each stored chunk is decoded from now on."""
    found: Counter[tuple[int, ...]] = Counter()
    decode = StoredChunks._decode

    def noted(self: StoredChunks, place: Any, target: Any) -> None:
        if not self.folder.endswith(("/time", "/lat", "/lon")):
            found[place] += 1
        decode(self, place, target)

    monkeypatch.setattr(StoredChunks, "_decode", noted)
    return found


FIVE = ("months", "mean", "line", "std", "zonal", "global", "anomaly")


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("steps", "chunk"), [(48, 6), (50, 6), (4, 6), (96, 6)])
def test_what_keeps_time_goes_with_what_does_not(steps: int, chunk: int, threads: int, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(axes, "CHUNK_BYTES", 6 * 20 * 30 * 4 * 2 // 3)  # a stored chunk is above the target
    monkeypatch.setattr(axes, "SLAB_BYTES", 6 * 20 * 30 * 4 * 5 // 2)
    monkeypatch.setattr(axes, "DECODE_BYTES", 0)
    monkeypatch.setattr(segments, "STATE_FLOOR", 40)
    monkeypatch.setattr(segments, "STATE_SHARE", 2)
    monkeypatch.setattr(tiles, "PIECE_BYTES", 6 * 30 * 4 * 3)
    values = numbers((steps, 20, 30))
    field = grid.open_zarr(stack(tmp_path / "v.zarr", values, (min(chunk, steps), 20, 30)))["v"]
    outputs = [OPS[name](field) for name in FIVE[1:]]
    stages = Plan(graph_of(outputs)).stages
    assert sum(isinstance(stage.roots[0].action, Fold) for stage in stages) == 1
    assert len(stages[0].roots) == len(outputs)
    assert stages[0].chunks == max(1, -(-steps // 24))
    for op, whole in ((op, op.action.reduce.dims) for op in stages[0].roots if isinstance(op.action, Fold)):
        lanes = op.action.lanes(op, stages[0].layouts[stages[0].roots.index(op)].region(0))
        assert lanes == (64 if whole == ("lat", "lon") else 1), "few cells are kept of a box, however many of a chunk"
    decoded = counted(monkeypatch)
    run = grid.run(*outputs, executor=InlineExecutor(threads=threads), store=str(tmp_path / "work"), quiet=True)
    assert set(decoded.values()) == {1}
    assert len(decoded) == -(-steps // 6)
    with np.errstate(all="ignore"):
        expected = grid.reductions.mean().eager(values, 0)[0].values
    np.testing.assert_allclose(run[0].to_numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(run[4].to_numpy(), np.nanmean(values.astype("f8"), (1, 2)), rtol=1e-6)


def test_pieces_leave_whole_what_is_needed_whole(tmp_path: Path) -> None:
    field = grid.open_zarr(stack(tmp_path / "v.zarr", numbers((6, 800, 300)), (6, 800, 300)))["v"]
    window = grid.kernel("(lat,lon)->()")(lambda near: near[1, 1])

    def piece(*outputs: Any) -> tuple[int, ...]:
        stage = Plan(graph_of(list(outputs))).stages[0]
        box = stage.roots[0].reads(0, stage.layouts[0].region(0))[0]
        assert box.shape == (6, 800, 300)
        return tiles.cuts(stage.roots, lambda op: False, box).piece

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tiles, "PIECE_BYTES", 2 * 800 * 300 * 4)
        patched.setattr(tiles, "FIELD_BYTES", 3 * 800 * 300 * 4)
        assert piece(field.mean("time")) == (6, 266, 300)
        assert piece(field.mean("time"), field.mean("lon")) == (6, 266, 300)
        assert piece(field.mean("time"), field.mean(("lat", "lon"))) == (6, 266, 0)
        assert piece(field.std(), field.mean("lon"))[1:] == (0, 0), "a band of latitudes would come out of order"
        assert piece((field - 1).mean("time")) == (6, 266, 300)
        assert piece(field.map(WHOLE).mean("time")) == (3, 0, 0), "a few time steps"
        assert piece(field.stencil(window, {"lat": 1, "lon": 1}).mean("time")) == (3, 0, 0)


def test_a_selection_has_one_stored_chunk_in_memory_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = numbers((40, 60, 50))
    field = grid.open_zarr(stack(tmp_path / "v.zarr", values, (1, 60, 50)))["v"].isel(lat=slice(10, 12))
    pool = Buffers()
    monkeypatch.setattr(chunks, "BUFFERS", pool)
    monkeypatch.setattr(axes, "LIGHT_FLOOR", 2**20)  # else a box has a single map
    run = grid.run(field.mean("time"), executor=InlineExecutor(), store=str(tmp_path / "work"), quiet=True)
    chunks.forget()
    assert pool._peak <= (60 + 40 * 2) * 50 * 4, "what was selected, and a chunk that it is taken from"
    np.testing.assert_allclose(run[0].to_numpy(), np.nanmean(values[:, 10:12].astype("f8"), 0), rtol=1e-6)


def test_what_a_pass_was_decoded_in_is_free_when_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, kept = Buffers(most_bytes=0), list[int]()
    monkeypatch.setattr(chunks, "BUFFERS", pool)
    monkeypatch.setattr(slabs, "BUFFERS", pool)
    end = Folding.end
    monkeypatch.setattr(Folding, "end", lambda self, *rest: [kept.append(pool.nbytes), end(self, *rest)][1])
    field = grid.open_zarr(stack(tmp_path / "v.zarr", numbers((12, 40, 50)), (3, 40, 50)))["v"]
    grid.run(field.mean("time"), executor=InlineExecutor(threads=2), store=str(tmp_path / "work"), quiet=True)
    assert kept == [0]
    assert pool._peak == 0


def test_a_worker_lets_as_many_threads_go_over_a_chunk_as_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "PIECE_BYTES", 2**20)
    field = grid.open_zarr(stack(tmp_path / "v.zarr", numbers((24, 400, 300)), (12, 400, 300)))["v"]
    stage = Plan(graph_of([field.mean("time")])).stages[0]
    chunk = 12 * 400 * 300 * 4
    assert chunk < stage.peak.thread < 2 * chunk
    one = needs(stage)
    assert needs(stage, threads=3) == one + 2 * stage.peak.thread
    assert fitting(stage, 8, 0) == 8
    assert fitting(stage, 8, one + 2 * stage.peak.thread) == 3
    assert fitting(stage, 2, one + 9 * stage.peak.thread) == 2
    assert fitting(stage, 8, one) == fitting(stage, 8, one // 2) == 1
