"""climate.eof against eofs' own reference, NumPy's singular values, cdo, and itself in other orders and chunks."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from gridcompute_workloads.climate.eof import eofs, reconstructed
from gridcompute_workloads.climate.grams import eofs_of, leading, varimax
from gridcompute_workloads.climate.weights import weights_of

import gridcompute as grid
from gridcompute import ops_grams, rechunking
from gridcompute.actions import grams
from gridcompute.collection import Collection
from gridcompute.errors import DimensionError, GridError, MemoryBoundError, MissingInputError, ParameterError
from gridcompute.executor import InlineExecutor
from gridcompute.resuming import run_workload

pytestmark = pytest.mark.usefixtures("own_folder")

DIMS = ("time", "latitude", "longitude")
WEIGHTINGS = ("equal", "latitude", "area", "area_multi", "area_multi_mix")


def field(values: np.ndarray, latitude: Any = None) -> Collection:
    coords = {} if latitude is None else {"latitude": latitude}
    return grid.from_arrays({"sst": values}, dims=DIMS, coords=coords)["sst"]


def values_of(found: dict[str, Collection], **options: Any) -> dict[str, np.ndarray]:
    """Results as arrays, maps with the mode first."""
    run = grid.run(*found.values(), executor=InlineExecutor(**options), store="store", quiet=True)
    arrays = {name: run[i].to_numpy() for i, name in enumerate(found)}
    return {name: np.moveaxis(one, -1, 0) if one.ndim == 3 else one for name, one in arrays.items()}


def waves(times: int = 40, shape: tuple[int, int] = (6, 9), seed: int = 3) -> np.ndarray:
    """A field of a few waves that differ in strength, and noise."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[0: shape[0], 0: shape[1]]
    maps = np.stack([np.sin((k + 1) * x / 3.0 + k * y / 2.0) for k in range(4)])
    series = draw.normal(size=(times, 4)) * np.array([8.0, 4.0, 2.0, 1.0])
    return np.einsum("tk,kyx->tyx", series, maps) + 0.1 * draw.normal(size=(times, *shape)) + 280.0


# --- references ---


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_equals_the_reference_of_eofs(weighting: str, data_dir: Path) -> None:
    def reference(name: str) -> np.ndarray:
        return np.asarray(np.load(data_dir / "climate" / "eofs_ref" / f"{name}.npy"))

    sst, latitude = reference("sst"), reference("latitude")
    weights: Any = "none" if weighting == "equal" else reference(f"weights.{weighting}")
    if weighting in ("latitude", "area"):  # ours of the same meaning are the same
        name = {"latitude": "sqrt-cos", "area": "area"}[weighting]
        np.testing.assert_allclose(weights_of(field(sst, latitude), name), weights, rtol=1e-13)
        weights = name
    series = field(sst, latitude)
    lazy = eofs(series, 14, weights)
    found = values_of({**lazy, "field": reconstructed(lazy, series, weights)})
    close = {"rtol": 0, "atol": 1e-10}
    signs = np.sign((found["pc"] * reference(f"pcs.{weighting}")).sum(axis=0))
    np.testing.assert_allclose(found["eigenvalue"], reference(f"eigenvalues.{weighting}"), rtol=1e-10)
    np.testing.assert_allclose(100 * found["fraction"], reference(f"variance.{weighting}"), **close)
    np.testing.assert_allclose(found["error"], reference(f"errors.{weighting}"), **close)
    north = found["fraction"] * np.sqrt(2 / 15)
    np.testing.assert_allclose(north, reference(f"scaled_errors.{weighting}"), **close)
    np.testing.assert_allclose(found["pc"] * signs, reference(f"pcs.{weighting}"), **close)
    there = ~np.isnan(reference(f"eofs.{weighting}"))
    for ours, theirs in (("eof", "eofs"), ("correlation", "eofscor"), ("covariance", "eofscov")):
        assert (np.isnan(found[ours]) == ~there).all()
        turned = found[ours] * signs[:, None, None]
        np.testing.assert_allclose(turned[there], reference(f"{theirs}.{weighting}")[there], **close)
    # The reference's reconstruction is of its modes 1, 2 and 5; all modes give the fields themselves.
    some = np.einsum("tm,myx->tyx", found["pc"][:, [0, 1, 4]], found["eof"][[0, 1, 4]])
    some /= weights_of(series, weights)
    known = ~np.isnan(reference(f"rcon.{weighting}"))
    np.testing.assert_allclose(some[known], reference(f"rcon.{weighting}")[known], **close)
    np.testing.assert_allclose(found["field"], sst - sst.mean(axis=0), **close)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_equals_cdo(dtype: str) -> None:
    if shutil.which("cdo") is None:
        pytest.skip("cdo isn't installed")
    values = waves()
    values = (values - values.mean(axis=0)).astype(dtype)  # cdo takes no mean off
    latitude = np.linspace(-50, 50, 6)
    coords = {"time": ("time", np.arange(40.0), {"units": "days since 2000-01-01", "calendar": "standard"}),
              "latitude": ("latitude", latitude, {"units": "degrees_north"}),
              "longitude": ("longitude", np.arange(9) * 40.0, {"units": "degrees_east"})}
    xr.Dataset({"sst": (DIMS, values)}, coords).to_netcdf("in.nc")
    width = [] if dtype == "f4" else ["-b", "F64"]
    command = ["cdo", "-s", *width, "eof,4", "in.nc", "values.nc", "maps.nc"]
    env = {"CDO_WEIGHT_MODE": "off", "CDO_SVD_MODE": "jacobi", "PATH": "/usr/bin:/bin", "MAX_JACOBI_ITER": "1000",
           "FNORM_PRECISION": "1e-14"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    theirs, maps = (xr.open_dataset(name, decode_times=False)["sst"].values for name in ("values.nc", "maps.nc"))
    found = values_of(eofs(field(values, latitude), 4, "none"))
    # cdo divides by the number of times, not by one less.
    rough = 1e-6 if dtype == "f4" else 1e-12
    np.testing.assert_allclose(found["eigenvalue"] * 39 / 40, theirs.ravel()[:4], rtol=rough)
    for ours, other in zip(found["eof"], maps, strict=False):
        length = np.sqrt((other.astype("f8") ** 2).sum())
        assert abs((ours * other).sum() / length) == pytest.approx(1.0, abs=rough)


# --- the same by any way ---


def test_by_points_and_by_times_are_the_same() -> None:
    values = waves(times=30, shape=(3, 5))
    values[7, 1, 2] = np.nan
    array = np.linspace(0.5, 1.5, 15).reshape(3, 5)
    plain = eofs_of(values, array, 5)
    found = values_of(eofs(field(values), 5, array))  # 15 points, 30 times
    np.testing.assert_allclose(found["eigenvalue"], plain.eigenvalues, rtol=1e-11)
    np.testing.assert_allclose(found["fraction"], plain.fractions, rtol=1e-11)
    np.testing.assert_allclose(found["pc"], plain.pcs, atol=1e-9)
    np.testing.assert_allclose(found["eof"], plain.eofs, atol=1e-9)
    assert np.isnan(found["eof"][:, 1, 2]).all()
    assert not np.isnan(np.delete(found["eof"].reshape(5, -1), 7, axis=1)).any()


def test_by_points_of_a_single_dimension() -> None:
    values = np.random.default_rng(3).normal(size=(12, 4))
    plain = eofs_of(values, modes=2)
    found = values_of(eofs(grid.from_arrays({"sst": values}, dims=("time", "x"))["sst"], 2, "none"))
    np.testing.assert_allclose(found["eigenvalue"], plain.eigenvalues, rtol=1e-11)
    np.testing.assert_allclose(found["eof"].T, plain.eofs, atol=1e-9)


def test_equals_singular_values_and_scalings() -> None:
    values = waves()
    flat = (values - values.mean(axis=0)).reshape(40, -1)
    sizes = np.linalg.svd(flat, compute_uv=False)[:4]
    found = values_of(eofs(field(values), 4, "none", eof_scaling=2, pc_scaling=1))
    np.testing.assert_allclose(found["eigenvalue"], sizes ** 2 / 39, rtol=1e-12)
    np.testing.assert_allclose(found["pc"].var(axis=0, ddof=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose((found["eof"] ** 2).sum(axis=(1, 2)), found["eigenvalue"], rtol=1e-12)
    assert (found["pc"][np.argmax(np.abs(found["pc"]), axis=0), np.arange(4)] > 0).all()


def test_the_same_bits_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops_grams, "CHUNK_BYTES", 40 * 8 * 6)
    monkeypatch.setattr(grams, "STATE_SHARE", 0)
    monkeypatch.setattr(grams, "LEAST_WORK", 0)
    data = xr.Dataset({"sst": (DIMS, waves())})
    data.to_zarr("in.zarr", zarr_format=3, consolidated=False, encoding={"sst": {"chunks": (8, 6, 9)}})
    matrix = grid.gram(grid.open_dataset("in.zarr")["sst"], "time")
    stages = grid.plan(matrix).to_dict()["stages"]
    assert stages[0]["chunks"] > 4  # blocks
    one, other = (grid.run(matrix, executor=InlineExecutor(**how), store=f"store{i}", quiet=True)[0].to_numpy()
                  for i, how in enumerate(({}, {"shuffle": 5, "workers": 2, "threads": 2})))
    assert one.tobytes() == other.tobytes()
    flat = waves().reshape(40, -1)
    flat = flat - flat.mean(axis=0)
    np.testing.assert_allclose(one, flat @ flat.T, rtol=1e-10, atol=1e-8)


def test_rows_of_points_have_the_bits_of_single_points() -> None:
    values = waves(times=30, shape=(2, 150))  # longer rows than are summed together
    values[4, 1, 7] = np.nan
    weights = np.linspace(0.0, 1.5, 300).reshape(2, 150)  # the first one is left out of covariances
    rows = values_of(eofs(field(values), 3, weights))
    series = grid.from_arrays({"sst": values.reshape(30, -1)}, dims=("time", "point"))["sst"]
    points = grid.run(*eofs(series, 3, weights.ravel()).values(), executor="inline", store="points", quiet=True)
    for name in ("eof", "correlation", "covariance"):
        one = points[name].to_numpy()
        assert rows[name].reshape(3, -1).T.tobytes() == one.tobytes()
        assert np.isnan(one[157]).all()
    assert np.isnan(points["covariance"].to_numpy()[0]).all()


def test_a_block_has_work_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops_grams, "CHUNK_BYTES", 40 * 8 * 9)
    monkeypatch.setattr(rechunking, "SMALL_BYTES", 0)
    monkeypatch.setattr(grams, "STATE_SHARE", 0)
    series, found = field(waves()), {}
    every = 40 * 40 * 54  # products
    for work, least, most in ((every, 1, 1), (every // 3, 2, 3), (0, 6, 54)):
        monkeypatch.setattr(grams, "LEAST_WORK", work)
        matrix = grid.gram(series, "time")
        assert least <= grid.plan(matrix).to_dict()["stages"][0]["chunks"] <= most
        found[work] = grid.run(matrix, executor="inline", store=f"with{work}", quiet=True)[0].to_numpy()
    for one in found.values():
        np.testing.assert_allclose(one, found[0], rtol=1e-11, atol=1e-9)


def test_single_precision_says_what_it_gives() -> None:
    values = waves(60, (10, 20)).astype("f4")
    single, double = (eofs_of(values, None, 4, single=one) for one in (True, False))
    np.testing.assert_allclose(single.eigenvalues, double.eigenvalues, atol=1e-6 * double.eigenvalues[0])


# --- rotation ---


def test_varimax_is_a_rotation_that_no_other_beats() -> None:
    draw = np.random.default_rng(1)
    loadings = draw.normal(size=(200, 3)) * (draw.random((200, 3)) < 0.4) + 0.05 * draw.normal(size=(200, 3))
    mixed = loadings @ np.linalg.qr(draw.normal(size=(3, 3)))[0]
    turn = varimax(mixed)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)

    def criterion(rows: np.ndarray) -> float:
        rows = rows / np.sqrt((rows ** 2).sum(axis=1))[:, None]
        return float((rows ** 2).var(axis=0).sum())

    best = criterion(mixed @ turn)
    for i, j in ((0, 1), (0, 2), (1, 2)):  # a turn of any two of them makes it worse
        for angle in (-0.3, -0.01, 0.01, 0.3):
            small = np.eye(3)
            small[i, i] = small[j, j] = np.cos(angle)
            small[i, j], small[j, i] = -np.sin(angle), np.sin(angle)
            assert criterion(mixed @ turn @ small) < best
    variances = ((mixed @ turn) ** 2).sum(axis=0)
    assert (np.diff(variances) <= 0).all()


def test_rotated_modes_explain_as_much_together() -> None:
    values = waves()
    plain = values_of(eofs(field(values), 3, "none"))
    found = values_of(eofs(field(values), 3, "none", rotate="varimax", eof_scaling=2))
    assert found["fraction"].sum() == pytest.approx(plain["fraction"].sum(), rel=1e-12)
    np.testing.assert_allclose((found["eof"] ** 2).sum(axis=(1, 2)), found["eigenvalue"], rtol=1e-10)
    np.testing.assert_allclose(found["pc"].var(axis=0, ddof=1), found["eigenvalue"], rtol=1e-10)
    # The rotated modes make the same fields: loadings times time series of variance 1.
    unit = found["pc"] / np.sqrt(found["eigenvalue"])
    fields = np.einsum("tm,myx->tyx", unit, found["eof"])
    np.testing.assert_allclose(fields, np.einsum("tm,myx->tyx", plain["pc"], plain["eof"]), atol=1e-9)


# --- what can't be ---


def test_a_field_without_values_is_refused() -> None:
    values = waves()
    values[3] = np.nan
    with pytest.raises(GridError, match="nothing is left to analyse"):
        values_of(eofs(field(values), 2, "none"))
    with pytest.raises(ValueError, match="nothing is left"):
        leading(np.full((3, 3), np.nan), 2)


@pytest.mark.parametrize("times", [20, 60])  # fewer and more than points
def test_a_file_without_a_whole_series_leaves_nothing_behind(times: int) -> None:
    values = waves(times)
    values[3] = np.nan
    coords = {"time": np.arange(times), "latitude": ("latitude", np.linspace(-50, 50, 6), {"units": "degrees_north"})}
    xr.Dataset({"sst": (DIMS, values)}, coords).to_netcdf("in.nc")
    given = {"input": "in.nc", "modes": 2, "output": "e.zarr", "reconstruct": "fields.zarr"}
    with pytest.raises(GridError, match=r"sst: no point has values at all times") as error:
        run_workload("climate.eof", given, {"executor": "inline", "quiet": True})
    assert "fill the gaps" in error.value.hint
    assert {path.name for path in Path().iterdir()} - {"state"} == {"in.nc", ".gridcompute"}  # no store, no lease


def test_modes_beyond_what_varies_are_named() -> None:
    values = np.sin(np.arange(20.0))[:, None, None] * np.arange(1.0, 7)[:, None] * np.ones(9)
    xr.Dataset({"sst": (DIMS, values)}, {"time": np.arange(20)}).to_netcdf("in.nc")
    given = {"input": "in.nc", "modes": 2, "weights": "none", "output": "e.zarr"}
    carried = run_workload("climate.eof", given, {"executor": "inline", "quiet": True})
    assert any("1 mode explains 100.0 %: 100.0; beyond these nothing varies" in line for line in carried.lines)


def test_requests_that_make_no_sense() -> None:
    series = field(waves(), np.linspace(-50, 50, 6))
    with pytest.raises(ParameterError) as error:
        eofs(series.isel(time=slice(0, 1)), 1, "none")
    assert "two times or more" in error.value.hint
    for options in ({"modes": 40}, {"modes": 0}, {"rotate": "quartimax"}, {"rotate": "varimax", "modes": 1},
                    {"eof_scaling": 3}, {"weights": -np.ones((6, 9))}, {"weights": np.ones((6, 8))}):
        with pytest.raises(ParameterError):
            eofs(series, **options)
    for degrees, weights in (([-50.0, -30, np.nan, 10, 30, 50], "cos"), (np.linspace(-500, 500, 6), "sqrt-cos"),
                             ([-50.0, -30, 10, -10, 30, 50], "area")):
        with pytest.raises(ParameterError, match="latitudes"):
            eofs(field(waves(), np.array(degrees)), weights=weights)
    with pytest.raises(MissingInputError):
        eofs(series, weights="cosine")
    with pytest.raises(DimensionError):
        eofs(field(waves()), weights="cos")
    with pytest.raises(DimensionError):
        grid.gram(series, "depth")
    long = grid.from_arrays({"x": np.zeros((20_000, 30_000 // 1000))}, dims=("time", "x"))["x"]
    with pytest.raises(MemoryBoundError, match="20,000 positions"):
        grid.gram(long, "time")


# --- the workload ---


def test_workload_writes_maps_and_pictures() -> None:
    options = {"executor": "inline", "quiet": True}
    given = {"modes": 3, "output": "e.zarr", "reconstruct": "fields.zarr"}
    carried = run_workload("climate.eof", given, options)
    assert carried.runs[0].state == "done"
    assert [path.name for path in carried.files] == ["e.png", "e-2.png", "e-3.png", "e-pc.png"]
    found, fields = xr.open_zarr("e.zarr").load(), xr.open_zarr("fields.zarr").load()
    assert set(found) == {"eof", "pc", "eigenvalue", "fraction", "error", "correlation", "covariance"}
    assert list(found["mode"].values) == [1, 2, 3]
    assert 0.8 < float(found["fraction"].sum()) < 1
    assert any("3 modes explain " in line for line in carried.lines)
    want = found["eof"].isel(latitude=5, longitude=7) @ found["pc"]
    got = fields["air_temperature"].isel(latitude=5, longitude=7)
    weight = np.sqrt(np.cos(np.deg2rad(float(found["latitude"][5]))))
    np.testing.assert_allclose(got.values, want.values / weight, rtol=1e-9, atol=1e-9)
