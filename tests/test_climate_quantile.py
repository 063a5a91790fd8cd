"""climate.quantile against NumPy: by refinement, along whole axes, as a sketch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from gridcompute_workloads.climate import refining
from gridcompute_workloads.climate.inputs import default_archive
from gridcompute_workloads.climate.quantile import quantiles_over, strategy

import gridcompute as grid
from gridcompute.errors import DimensionError, ParameterError
from gridcompute.resuming import Carried, run_workload

pytestmark = pytest.mark.usefixtures("own_folder")

LEVELS = [0.0, 0.37, 1.0]


def carry(**given: Any) -> Carried:
    return run_workload("climate.quantile", given, {"executor": "inline", "quiet": True})


def hard_cases(dtype: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((50, 3, 4)) * 100).astype(dtype)
    x[rng.random(x.shape) < 0.1] = np.nan
    x[:, 0, 0] = np.nan
    x[:, 0, 1] = 7
    x[1:, 0, 2] = np.nan
    x[2:, 0, 3] = np.nan
    x[:, 1, 0] = np.round(x[:, 1, 0] / 100)  # ties, zeros of both signs
    x[:, 1, 1] *= np.finfo(dtype).tiny  # subnormal
    x[3:5, 1, 2] = [np.finfo(dtype).max, -np.finfo(dtype).max]
    x[:5, 1, 3], x[5:9, 1, 3] = np.inf, -np.inf
    return x


def refined(x: np.ndarray, levels: list[float], dims: list[str]) -> np.ndarray:
    data = grid.from_arrays({"x": x}, ("time", "lat", "lon"))
    passes = refining.Passes.of(data, len(levels), dims)
    run = grid.run(refining.refined(data, levels, dims, passes), executor="inline", quiet=True)
    assert run[0].fields[0].dims[-1] == "quantile"
    return np.asarray(run[0].to_numpy())


def expected(x: np.ndarray, levels: list[float], axes: tuple[int, ...]) -> np.ndarray:
    finite = np.where(np.isinf(x), np.copysign(1e308, x.astype("f8")), x)  # NumPy gives NaN beside an infinity
    with np.errstate(all="ignore"), pytest.warns(RuntimeWarning):
        found = np.moveaxis(np.nanquantile(finite, levels, axis=axes), 0, -1)
    return np.where(np.abs(found) == 1e308, np.copysign(np.inf, found), found)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_refinement_equals_numpy_to_the_last_bit(dtype, monkeypatch):
    x = hard_cases(dtype)
    if dtype == "f4":  # little memory
        monkeypatch.setattr(refining, "STATE_BYTES", 12 * len(LEVELS) * (2 * (32 + 3) + 8))
        data = grid.from_arrays({"x": x}, ("time", "lat", "lon"))
        assert refining.Passes.of(data, len(LEVELS), ["time"]).count == 7
    levels = LEVELS if dtype == "f4" else LEVELS[1:2]
    wanted = expected(x, levels, (0,))
    np.testing.assert_array_equal(refined(x, levels, ["time"]), wanted)
    assert dtype == "f8" or wanted[1, 3, [0, 2]].tolist() == [-np.inf, np.inf]


def test_passes_follow_from_cells_and_levels():
    def passes(shape, dtype="f4", levels=3, dims=("time",)):
        data = grid.from_arrays({"x": np.broadcast_to(np.zeros((), dtype), shape)}, ("time", "lat", "lon"))
        return refining.Passes.of(data, levels, dims)

    def shape_of(one):
        return one.count, one.bits

    assert shape_of(passes((100, 9, 9))) == (6, 6)
    assert shape_of(passes((100, 9, 9), "f8")) == (11, 6)
    assert shape_of(passes((2, 721, 1440))) == (7, 5)
    assert passes((2, 721, 1440)).state_bytes <= refining.STATE_BYTES
    assert shape_of(passes((2, 721, 1440), levels=1)) == (6, 6)
    assert passes((100, 9, 9)).counter == "u2"
    assert passes((100, 300, 300), dims=("lat", "lon")).counter == "u4"


def archive(chunks: tuple[int, int, int]) -> np.ndarray:
    rng = np.random.default_rng(1)
    x = (280 + 10 * rng.standard_normal((48, 40, 30))).astype("f4")
    x[:, :5, :7] = np.nan
    x[rng.random(x.shape) < 0.05] = np.nan
    data = xr.Dataset({"t": (("time", "lat", "lon"), x, {"units": "K"})},
                      {"lat": np.linspace(-80, 80, 40), "time": xr.date_range("2000-01-01", periods=48)})  # fmt: skip
    data.to_zarr("in.zarr", mode="w", zarr_format=2, encoding={"t": {"chunks": chunks}})
    return x


def test_pancakes_are_refined_and_pencils_read_whole():
    x = archive((6, 40, 30))
    data = grid.open_dataset("in.zarr")["t"]
    passes = strategy(data, 2, ["time"])
    assert passes is not None
    assert passes.count == 6
    assert strategy(data, 2, ["lat", "lon"]) is None
    carried = carry(input="in.zarr", quantiles="0.25,0.9", output="p.zarr")
    assert any("6 passes over the data, of 6 bits" in line for line in carried.lines)
    found = xr.open_zarr("p.zarr")
    assert found["t"].dims == ("lat", "lon", "quantile")
    assert found["t"].attrs == {"long_name": "quantiles of t over time", "units": "K"}
    assert found["quantile"].values.tolist() == [0.25, 0.9]
    np.testing.assert_array_equal(found["t"].values, expected(x, [0.25, 0.9], (0,)))
    assert carried.files[0].read_bytes()[:4] == b"\x89PNG"
    archive((48, 4, 30))
    assert strategy(grid.open_dataset("in.zarr")["t"], 2, ["time"]) is None
    whole = carry(input="in.zarr", quantiles="0.25,0.9", output="w.zarr")
    assert any("along whole axes" in line for line in whole.lines)
    xr.testing.assert_equal(xr.open_zarr("w.zarr").load(), found.load())


def test_of_space_for_each_step():
    x = archive((6, 40, 30))
    carried = carry(input="in.zarr", quantiles="0.5", dim="lat,lon", output="s.zarr")
    found = xr.open_zarr("s.zarr")["t"]
    np.testing.assert_array_equal(found.values, np.nanquantile(x.astype("f8"), [0.5], axis=(1, 2)).T)
    assert [path.name for path in carried.files] == ["s.png"]


def test_a_sketch_is_exact_for_short_series():
    x = archive((6, 40, 30))
    carried = carry(input="in.zarr", quantiles="0.1,0.5", method="sketch", capacity=128, output="k.zarr",
                    picture="none")  # fmt: skip
    assert any("a sketch in one pass" in line for line in carried.lines)
    np.testing.assert_array_equal(xr.open_zarr("k.zarr")["t"].values, expected(x, [0.1, 0.5], (0,)))


def test_the_default_archive():
    carried = carry(output="d.zarr", picture="none")
    values = xr.open_dataset(default_archive())["air_temperature"].values
    found = xr.open_zarr("d.zarr")["air_temperature"].values
    wanted = np.nanquantile(values.astype("f8"), [0.1, 0.5, 0.9], axis=0)
    np.testing.assert_array_equal(found, np.moveaxis(wanted, 0, -1))
    assert sum(line.startswith("quantile 0.") for line in carried.lines) == 3


def test_whole_numbers():
    x = np.arange(60, dtype="i2").reshape(10, 6)
    run = grid.run(quantiles_over(grid.from_arrays({"n": x}, ("time", "x")), [0.3], "time"), executor="inline")
    np.testing.assert_array_equal(run[0].to_numpy(), np.quantile(x, [0.3], axis=0).T)


def test_refusals():
    archive((6, 40, 30))
    build = grid.workload("climate.quantile")
    for given, said in (({"quantiles": "a"}, "quantiles are 'a'"), ({"quantiles": "1.5"}, "can't be taken"),
                        ({"quantiles": "0.5,0.5"}, "can't be taken"), ({"method": "guess"}, "no method 'guess'"),
                        ({"method": "sketch", "capacity": 3}, "capacity")):  # fmt: skip
        with pytest.raises(ParameterError, match=said):
            build(input="in.zarr", **given)
    with pytest.raises(DimensionError, match="no dimension 'level'"):
        build(input="in.zarr", dim="lat,level")


PLAIN = """
import sys, numpy as np
sys.path.insert(0, {tests!r})
import test_climate_quantile as t
for dtype in ("f4", "f8"):
    print(t.refined(t.hard_cases(dtype)[:9, 0:2], [0.3, 1.0], ["time"]).tobytes().hex())
"""


def test_equal_without_the_compiler(tmp_path: Path):
    texts = []
    for flag in ("0", "1"):
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", PLAIN.format(tests=os.path.dirname(__file__))],
                              env={**os.environ, "NUMBA_DISABLE_JIT": flag, "GRIDCOMPUTE_STORE": str(tmp_path / flag)},
                              capture_output=True, text=True, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
        texts.append(done.stdout)
    assert texts[0] == texts[1] != ""
