"""The benchmark `climate`: its data, what it compares with, and each of its measurements at a tiny size."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks import (  # noqa: E402
    climate,
    climate_bits,
    climate_cdo,
    climate_chunked,
    climate_memory,
    climate_ours,
    climate_rechunk,
    climate_statistics,
    climate_stream,
    climate_suite_peers,
    climate_suites,
    climate_xarray,
)
from benchmarks.climate_ours import AbsentWorkloadError, check_run, opened, ran, results, workload  # noqa: E402
from benchmarks.climate_stack import (  # noqa: E402
    SMALL,
    TYPESIZE,
    Stack,
    _check_shuffle,
    beginning,
    compared,
    expected,
    made,
    netcdf,
    right,
)
from benchmarks.peering import Peers  # noqa: E402
from benchmarks.report import markdown  # noqa: E402
from benchmarks.rows import OURS, Session, WrongResultError  # noqa: E402
from benchmarks.stream import Setup  # noqa: E402

STEPS = 120


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """Four years of 30 days, 2.5 degrees."""
    return made(str(tmp_path_factory.mktemp("stack") / "t.zarr"), STEPS, SMALL)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("STATE", "STORE"):
        monkeypatch.setenv(f"GRIDCOMPUTE_{name}", str(tmp_path / name.lower()))


def _values(stack: Stack) -> Any:
    return np.asarray(zarr.open_group(stack.path, mode="r")["t"][:], "f8")


# --- data ---


def test_the_stack_is_what_it_says(stack: Stack) -> None:
    values = _values(stack)
    assert values.shape == (STEPS, 73, 144)
    assert np.array_equal(values * 64, np.round(values * 64))
    assert 200 < values.min() < values.max() < 330
    days = stack.days
    assert stack.time[:31].tolist() == [*range(30), 365]
    left = values - np.stack([values[days == day].mean(0) for day in range(30)])[days]
    assert 0.5 < np.corrcoef(left[:-1, 20, 20], left[1:, 20, 20])[0, 1] < 0.95  # it remembers the day before
    again = made(str(Path(stack.path).with_name("again.zarr")), STEPS, SMALL)
    assert np.array_equal(_values(again), values)


def test_its_codec_shuffles_floats(stack: Stack, tmp_path: Path) -> None:
    copy = Stack(str(tmp_path / "copy.zarr"), STEPS, SMALL)
    shutil.copytree(stack.path, copy.path)
    _check_shuffle(copy)
    chunk = Path(copy.path) / "t" / "c" / "0" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    assert content[TYPESIZE] == 4
    content[TYPESIZE] = 1
    chunk.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="an element has 1 bytes"):
        _check_shuffle(copy)


def test_the_small_stack_is_the_large_one_s_beginning(stack: Stack, tmp_path: Path) -> None:
    small = beginning(stack, str(tmp_path / "small.zarr"), 48)
    assert np.array_equal(_values(small), _values(stack)[:48])
    assert small.gigabytes == pytest.approx(stack.gigabytes * 48 / STEPS)
    assert zarr.open_group(small.path, mode="r")["time"][:].tolist() == stack.time[:48].tolist()
    assert len(list((Path(small.path) / "t" / "c").iterdir())) == 2


def test_wrong_results_are_seen(stack: Stack) -> None:
    known = expected(stack)
    assert right(stack, known)
    for name, values in known.items():
        off = values.copy()
        off.flat[-1] *= 1.01
        assert not right(stack, {name: off}), name
        assert not right(stack, {name: values[..., :-1]}), name


# --- ours and peers give the same ---


@pytest.mark.parametrize("name", ["climatology", "months", "trend", "std", "zonal"])
def test_ours_is_right_and_checked(stack: Stack, name: str) -> None:
    outputs = climate_ours.OPERATIONS[name](opened(stack), stack)
    run = ran(outputs, executor="inline")
    check_run(outputs, run, stack, name)
    values = dict(results(outputs, run))
    assert set(values) == {name}
    other = Stack(stack.path, stack.steps, SMALL, 24)  # other days of the year
    if name in ("climatology", "months"):
        with pytest.raises(WrongResultError, match=name):
            check_run(outputs, run, other, name)


def test_a_function_that_isn_t_there_is_told(stack: Stack, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(workload("trend", "pixel_trend"))
    with pytest.raises(AbsentWorkloadError, match=r"climate\.trend\.nothing isn't there"):
        workload("trend", "nothing")
    operations = {"std": climate_ours.OPERATIONS["std"], "lost": lambda field, stack: workload("nowhere", "lost")}
    for module in (climate_stream, climate_bits):
        monkeypatch.setattr(module, "OPERATIONS", operations)
    monkeypatch.setattr(Session, "pick", lambda self, quick, *_: (Setup(0, 2),) if isinstance(quick, tuple) else 1)
    session = Session(peers=())
    small = beginning(stack, "small.zarr", 48)
    rows = list(climate_stream.streaming(session, Peers(session), small, stack, small))
    kinds = ("seconds", "times decoding", "total")
    assert [row.name for row in rows] == ["compile/2 threads", "decode/2 threads",
                                          *(f"{kind}/std, 2 threads" for kind in kinds), "seconds/lost, 2 threads"]
    assert rows[-1].raw == {}
    assert rows[-1].note == "Not measured: gridcompute_workloads.climate.nowhere isn't there."
    assert "seconds/lost, 2 threads is left out: gridcompute_workloads.climate.nowhere" in capsys.readouterr().err
    assert set(rows[1].raw) == {OURS, "blosc alone"}
    assert set(rows[2].raw) == {OURS, "decode alone"}


def test_xarray_gives_the_same(stack: Stack) -> None:
    for name in ("five", "climatology", "std", "gradient"):
        seconds, found = climate_xarray.stream(name, stack.path, stack.steps, True, 2)
        assert seconds > 0
        assert right(stack, found), name
    assert set(climate_xarray.stream("five", stack.path, stack.steps, True, 2)[1]) == {
        "climatology", "anomaly", "months", "trend", "intercept", "zonal"}  # fmt: skip


@pytest.mark.skipif(shutil.which("cdo") is None, reason="cdo isn't installed")
def test_cdo_gives_the_same(stack: Stack) -> None:
    netcdf(stack)
    for name in ("five", "std", "regrid"):
        seconds, found = climate_cdo.stream(name, stack, 1)
        assert seconds > 0
        assert right(stack, found), name
    assert {Path(stack.netcdf)} == set(Path(stack.path).parent.glob("*.nc*"))


# --- rows ---


def test_equal_bits_are_counted(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(climate_bits, "SETUPS", (Setup(0, 1), Setup(0, 2)))
    monkeypatch.setattr(climate_bits, "connect", lambda workers: None)
    monkeypatch.setattr(climate_bits, "OPERATIONS", {"std": climate_ours.OPERATIONS["std"]})
    (row,) = climate_bits.same_bits(Session(), stack)
    assert (row.name, row.raw, row.met) == ("bits/std", {OURS: [1.0]}, True)
    assert row.note.endswith("from: 1 thread = 2 threads.")
    numbers = iter("ab")
    monkeypatch.setattr(climate_bits, "digest", lambda outputs, run: next(numbers))
    (row,) = climate_bits.same_bits(Session(), stack)
    assert (row.raw, row.met) == ({OURS: [2.0]}, False)
    assert row.note.endswith("from: 1 thread; other bits from: 2 threads.")


def test_a_package_s_results_must_be_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def rated(theirs: float) -> list[Any]:
        return list(climate_statistics._rated(
            "sum", (100.0, 10.0), lambda: (2.0, 3.0), {"peer": lambda: (4.0, theirs)}, (2, 1), 10,
            lambda a, b: bool(a == b), "A note."))  # fmt: skip

    rates, times = rated(3.0)
    assert rates.raw == {OURS: [50.0, 50.0], "peer": [2.5]}
    assert (times.raw, times.met) == ({OURS: [20.0]}, True)
    with pytest.raises(WrongResultError, match="sum by peer and ours"):
        rated(3.1)


def test_trends_are_measured_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(mode="quick", peers=())
    (row,) = climate_statistics.trends(session, Peers(session))
    assert row.name == "statistics/Mann-Kendall and Sen"
    assert row.raw[OURS][0] > 0


def test_functions_are_measured_alone() -> None:
    session = Session(mode="quick", peers=())
    (row,) = climate_statistics.functions(session, Peers(session))
    assert row.name == "statistics/EOF"
    assert row.raw[OURS][0] > 0


def test_other_chunks_are_compared(stack: Stack, tmp_path: Path) -> None:
    chunks = list(climate_rechunk.chunks_of(stack))
    for wanted, message in ((chunks, ""), ([240, 20, 18], "by dask")):
        output = str(tmp_path / "other.zarr")
        climate_chunked.dask_rechunk(stack.path, output, [min(STEPS, wanted[0]), *wanted[1:]], 2)
        extents = zarr.open_group(output, mode="r")["t"].chunks
        assert extents == (STEPS, *wanted[1:])
        if message:
            with pytest.raises(WrongResultError, match=message):
                climate_rechunk._check(output, stack, "dask")
        else:
            climate_rechunk._check(output, stack, "dask", (STEPS, *chunks[1:]))
        assert not Path(output).exists()


def test_means_of_what_is_drawn_are_recognised() -> None:
    shape = (20, 1, 98, 192)
    _, moments = climate_chunked.xarray_quadratic(list(shape), [10, 1, 98, 192], 2)
    assert climate_suites._as_drawn(np.array(moments), shape)
    assert not climate_suites._as_drawn(np.array(moments), (10, 1, 98, 192))
    assert not climate_suites._as_drawn(np.array(moments) + np.array([0.003, 0]), shape)


def test_xarray_s_suite_is_right(tmp_path: Path) -> None:
    years = made("years.zarr", 730, SMALL, 365)
    values, row = _values(years)[:, SMALL.row], SMALL.row
    daily = values.reshape(2, 365, -1).mean(0)
    weights = 1 - np.abs(np.arange(-30, 31)) / 30
    plain = sum(weight * np.roll(daily, -off, axis=0) for off, weight in zip(range(-30, 31), weights, strict=True))
    _, found = climate_suite_peers.smoothed(years.path, 61, row, 2)
    assert np.allclose(found, plain / weights.sum(), atol=1e-3)
    _, found = climate_suite_peers.bilinear(years.path, [46.25], [1.25, 2.5], 0, 2)
    above, here = _values(years)[:, row - 1, :3], values[:, :3]  # 47.5 and 45 degrees north
    middle = (above + here) / 2
    assert np.allclose(found, np.stack([middle[:, :2].mean(1), middle[:, 1]], 1), atol=1e-3)


def test_sections_and_their_data(tmp_path: Path) -> None:
    assert set(climate.SECTIONS) == {"stream", "statistics", "rechunk", "memory", "bits", "suites"}
    assert all(f"    {name} " in (climate.__doc__ or "") for name in climate.SECTIONS)
    data = climate.Data(Session(mode="quick"))
    assert (data.large.steps, data.small.steps, data.large.grid) == (960, 240, SMALL)
    assert compared("zonal", np.zeros((5, 73)), SMALL).shape == (5,)


def test_a_row_without_measurements_can_be_shown() -> None:
    from benchmarks import machine, report

    row = climate_ours.told("seconds", "x", "s", AbsentWorkloadError("it isn't there"))
    made_of = report.document("climate", Session(), [row], machine.describe(), 1.0, {})
    assert "- `seconds/x`: Not measured: it isn't there." in markdown(made_of)


def test_peaks_of_processes_are_measured(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(climate_memory, "interpreter", lambda peer: sys.executable)
    monkeypatch.setattr(Peers, "wanted", lambda self, peer: peer == "xarray")
    bare, row = climate_memory._processes(Peers(Session()), "climatology", stack)
    assert (bare.name, row.name) == ("memory/climatology, bare process", "memory/climatology")
    assert set(bare.raw) == {OURS, "xarray + dask"}
    assert set(row.raw) == {OURS, "ours, told to take 1 GB", "xarray + dask"}
    for system in bare.raw:
        assert 0 < bare.raw[system][0] < row.raw[system][0]
    assert row.target is not None
    assert row.target.value == row.raw["xarray + dask"][0] / 8
