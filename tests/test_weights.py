"""Weighted sums and means against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import gridcompute as grid
from gridcompute.errors import AlignmentError, DimensionError, ParameterError

RNG = np.random.default_rng(0)
LAT = np.linspace(-80, 80, 9)
AREA = np.cos(np.radians(LAT))


def field(nan=0.2):
    values = RNG.standard_normal((6, 9, 8)).astype("f4")
    values[RNG.random(values.shape) < nan] = np.nan
    values[2] = np.nan
    values[3, 4] = np.nan
    return values


def collection(values, **coords):
    return grid.from_arrays({"t": values}, ("time", "lat", "lon"), coords={"lat": LAT, **coords})


def expected(values, weights, axes):
    """Mean and sum with weights of the same number of axes."""
    weights = np.broadcast_to(weights, values.shape) * ~np.isnan(values)
    total = (np.nan_to_num(values.astype("f8")) * weights).sum(axes)
    with np.errstate(invalid="ignore"):
        return total / weights.sum(axes), total


def test_against_numpy(tmp_path):
    x = field()
    t, monthly = collection(x), np.arange(1.0, 7)
    both = AREA[:, None] * np.arange(1.0, 9)
    area = grid.from_arrays({"area": both}, ("lat", "lon"), coords={"lat": LAT})
    cases = [
        (t.mean(["lat", "lon"], weights={"lat": AREA}), expected(x, AREA[:, None], (1, 2))[0]),
        (t.mean("lat", weights=AREA), expected(x, AREA[:, None], 1)[0]),
        (t.sum(["lat", "lon"], weights={"lat": AREA}), expected(x, AREA[:, None], (1, 2))[1]),
        (t.reduce("mean", ["lat", "lon"], weights=area), expected(x, both, (1, 2))[0]),
        (t.mean(weights=area), expected(x, both, (0, 1, 2))[0]),
        (t.mean(["time", "lat"], weights={"lat": AREA, "time": monthly}),
         expected(x, monthly[:, None, None] * AREA[:, None], (0, 1))[0]),
        (t.sum("lat", weights=area), expected(x, both, 1)[1]),
        (t.mean("lat", weights=AREA, skipna=False),
         (x * AREA[:, None]).sum(1) / AREA.sum()),
    ]  # fmt: skip
    run = grid.run(*(one for one, _ in cases), store=str(tmp_path), executor="inline")
    for i, (one, wanted) in enumerate(cases):
        assert list(one.columns) == ["t"]
        np.testing.assert_allclose(run[i].to_numpy(), wanted, rtol=1e-12 if i < 7 else 1e-5)
    assert np.isnan(run[0].to_numpy()[2])
    assert [c.name for c in cases[4][0].coords] == []
    assert [c.name for c in cases[6][0].coords] == []


def test_nulls_and_integers(tmp_path):
    values = np.ma.masked_array(np.arange(12).reshape(3, 4), mask=np.arange(12).reshape(3, 4) % 5 == 0)
    x = grid.from_arrays({"n": values}, ("row", "column"))
    run = grid.run(x.mean("row", weights=[1, 2, 3]), x.mean(["row", "column"], weights={"column": [4, 0, 0, 1]}),
                   store=str(tmp_path), executor="inline")  # fmt: skip
    np.testing.assert_allclose(run[0].to_numpy(), np.ma.average(values, axis=0, weights=[1, 2, 3]))
    np.testing.assert_allclose(run[1].to_numpy(), np.ma.average(values, weights=np.tile([4, 0, 0, 1], (3, 1))))


def test_refusals():
    t = collection(field())
    with pytest.raises(DimensionError, match="weights lie along lat, which aren't reduced"):
        t.mean("lon", weights={"lat": AREA})
    with pytest.raises(ParameterError, match="aren't a finite number for each of its 9 positions"):
        t.mean("lat", weights=AREA[1:])
    with pytest.raises(ParameterError, match="aren't a finite number"):
        t.mean("lat", weights={"lat": np.where(AREA > 0.5, AREA, np.nan)})
    with pytest.raises(ParameterError, match="one reduced dimension, not lat, lon"):
        t.mean(["lat", "lon"], weights=AREA)
    with pytest.raises(ParameterError, match="no weighted reduction 'var'"):
        t.var("lat", weights=AREA)
    with pytest.raises(ParameterError, match="no weighted reduction 'mean' with q"):
        t.mean("lat", weights=AREA, q=3)
    with pytest.raises(DimensionError, match="no dimension 'level'"):
        t.mean("lat", weights=grid.from_arrays({"w": np.ones((2, 9))}, ("level", "lat")))
    with pytest.raises(AlignmentError, match="lat"):
        t.mean("lat", weights=grid.from_arrays({"w": AREA}, ("lat",), coords={"lat": LAT[::-1]}))
    with pytest.raises(ParameterError, match="one column, not 2"):
        t.mean("lat", weights=grid.from_arrays({"w": AREA, "v": AREA}, ("lat",)))
    with pytest.raises(ParameterError, match="weights"):
        t.groupby(np.arange(6) % 2, "time").mean(weights=AREA)
    with pytest.raises(ParameterError, match="knows 5 positions, but time has 6"):
        t.reduce("linregress", "time", x=range(5))


def test_nulls_are_left_out_whichever_way_it_goes_and_nan_if_asked(tmp_path):
    gaps = np.array([[False, True, False], [False, False, False]])
    count = np.ma.MaskedArray([[1, 2, 3], [4, 5, 6]], gaps)
    real = np.ma.MaskedArray([[1.0, 2.0, 3.0], [4.0, 5.0, np.nan]], gaps)
    weight = np.array([1.0, 2.0])
    data = {name: grid.from_arrays({"v": v}, ("lat", "lon")) for name, v in (("count", count), ("real", real))}
    cases = [data[name].mean(dims, weights={"lat": weight}, skipna=False)
             for name in data for dims in ("lat", ("lat", "lon"))]
    run = grid.run(*cases, store=str(tmp_path), executor="inline", quiet=True)
    np.testing.assert_allclose(run[0].to_numpy(), [3, 5, 5])
    np.testing.assert_allclose(run[1].to_numpy(), 34 / 8)
    np.testing.assert_allclose(run[2].to_numpy(), [3, 5, np.nan])
    np.testing.assert_allclose(run[3].to_numpy(), np.nan)
    holes = grid.from_arrays({"w": np.ma.MaskedArray([1, 2], [True, False])}, ("lat",))
    found = grid.run(data["count"].mean("lat", weights=holes), store=str(tmp_path), executor="inline", quiet=True)[0]
    np.testing.assert_allclose(found.to_numpy(), [np.nan, 5, np.nan], err_msg="a weight that isn't known")
