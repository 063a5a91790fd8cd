"""Series statistics against pymannkendall, SciPy and NumPy, and compiled against not compiled."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import warnings

import numpy as np
import pymannkendall
import pytest
import scipy.stats
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numba import njit

from gridcompute import _kendall, _medians, _sen, stats

ANY_SERIES = hnp.arrays(
    np.float64,
    st.integers(0, 60),
    elements=st.one_of(
        st.floats(-1e6, 1e6),
        st.integers(-3, 3).map(float),
        st.just(math.nan),
    ),
)
WILD_SERIES = hnp.arrays(np.float64, st.integers(0, 40), elements=st.floats(width=64))


def all_slopes(x):
    x = np.asarray(x, np.float64)
    i, j = np.triu_indices(len(x), 1)
    with np.errstate(all="ignore"):
        return (x[j] - x[i]) / (j - i)


def median_of_slopes(x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.nanmedian(all_slopes(x)) if len(x) > 1 else np.nan


def reference(x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pymannkendall.original_test(x)


def same(a, b):
    return np.array_equal(a, b, equal_nan=True)


def assert_like_pymannkendall(x):
    expected = reference(x)
    got = stats.trend(x)
    assert (got.s, got.var_s, got.z, got.tau) == (expected.s, expected.var_s, expected.z, expected.Tau)
    assert abs(got.p - expected.p) <= 1e-12
    assert same(got.slope, expected.slope)
    assert same(got.intercept, expected.intercept)


@settings(max_examples=150, deadline=None)
@given(ANY_SERIES)
@example(np.zeros(5))
@example(np.arange(4.0))
@example(np.array([1.0, math.nan, math.nan, 2.0]))
def test_trend_equals_pymannkendall(x):
    valid = int(np.sum(~np.isnan(x)))
    if valid < 2:
        assert all(math.isnan(v) for v in stats.trend(x))
        return
    assert_like_pymannkendall(x)


@settings(max_examples=150, deadline=None)
@given(WILD_SERIES)
@example(np.array([1.7e308, -1.7e308, 1.7e308, 0.0]))
@example(np.array([math.inf, math.inf]))
@example(np.array([-math.inf, math.inf, 1.0]))
@example(np.array([0.0, -0.0, 0.0]))
@example(np.array([5e-324, 0.0, 1e-323]))
def test_slope_of_infinite_and_extreme_values(x):
    assert same(stats.sen_slope(x), median_of_slopes(x))
    if np.sum(~np.isnan(x)) > 1:
        assert stats.mann_kendall(x).s == reference(x).s


@pytest.mark.parametrize("n", [2, 3, 23, 24, 65, 240, 400])
@pytest.mark.parametrize("kind", ["noise", "trend", "whole", "gaps", "tiny", "skewed", "step", "line"])
def test_climate_lengths(n, kind):
    rng = np.random.default_rng(n)
    for _ in range(6):
        x = rng.standard_normal(n)
        if kind == "trend":
            x += np.arange(n) * 0.02
        elif kind == "whole":
            x = np.round(x)
        elif kind == "gaps":
            x[rng.random(n) < 0.3] = np.nan
            x[:2] = 0.5
        elif kind == "tiny":
            x = np.cumsum(x) * 1e-300
        elif kind == "skewed":
            x = np.exp(6 * x)
        elif kind == "step":
            x = x * 1e-9 + (np.arange(n) > n // 2)
        elif kind == "line":
            x = np.arange(n) * 0.1
        assert_like_pymannkendall(x)


@pytest.mark.parametrize("dtype", ["f4", "i2", "i8", "u1", "f8"])
def test_any_numeric_type_computes_in_float64(dtype):
    x = (np.random.default_rng(1).random(50) * 100).astype(dtype)
    assert stats.mann_kendall(x) == stats.mann_kendall(x.astype(np.float64))
    assert stats.nanquantile(x, 0.3) == np.quantile(x.astype(np.float64), 0.3)


def test_strided_and_read_only_series():
    x = np.random.default_rng(1).random(50)
    assert stats.sen_slope(x[::2]) == stats.sen_slope(x[::2].copy())
    frozen = x.copy()
    frozen.flags.writeable = False
    assert stats.sen_slope(frozen) == stats.sen_slope(x)
    assert np.array_equal(frozen, x)
    single = x.astype(np.float32)
    assert stats.sen_slope(single) == stats.sen_slope(single.astype(np.float64))


def test_too_few_values_give_nan():
    for x in (np.empty(0), np.array([3.0]), np.array([math.nan] * 4), np.array([math.nan, 1.0])):
        assert all(math.isnan(v) for v in stats.mann_kendall(x))
        assert all(math.isnan(v) for v in stats.linear_trend(x))
        for f in (stats.kendall_tau, stats.sen_slope, stats.sen_intercept):
            assert math.isnan(f(x))
    assert stats.mann_kendall(np.array([1.0, 2.0])) == (1.0, 1.0, 0.0, 1.0, 1.0)


@settings(max_examples=100, deadline=None)
@given(ANY_SERIES)
def test_parts_equal_the_whole(x):
    whole = stats.trend(x)
    test = stats.mann_kendall(x)
    assert same(whole[:5], [test.tau, test.p, test.z, test.s, test.var_s])
    assert same(whole[0], stats.kendall_tau(x))
    assert same(whole[5:], [stats.sen_slope(x), stats.sen_intercept(x)])


@pytest.mark.parametrize("step", [0.0, 1 / 8, 1.0, 30.0])
def test_a_trend_is_the_same_by_counting_and_by_sorting(step):
    rng = np.random.default_rng(5)
    for n in (2, 3, 17, 64, 65, 255, 256, 257):
        for odd in (math.nan, math.inf, 1e200, 0.0):
            x = rng.standard_normal(n) * 9 + 0.05 * np.arange(n)
            x = np.round(x / step) * step if step else x
            x[:: max(2, n // 5)] = odd
            positions, values = _sen.valid_values(x)
            slope = _sen.buffered_slope(positions, values) if len(values) > 1 else math.nan
            assert same(slope, median_of_slopes(x[~np.isnan(x)]) if odd == odd else slope)
            sorted_way = _kendall.line_of(_kendall.test_of(values), positions, values.copy(), slope)
            assert same(stats.trend(x), sorted_way)
            if len(values) > 1 and abs(odd) <= 9:
                found, rising, falling = _sen.signed_slope(positions, values)
                assert (rising - falling, found) == (_kendall.score_by_pairs(values)[0], slope)


@settings(max_examples=150, deadline=None)
@given(hnp.arrays(np.float64, st.integers(1, 90), elements=st.floats(-9, 9) | st.integers(-1, 1).map(float)),
       st.sampled_from([0.0, 1e12, math.inf]))
def test_a_median_near_the_mean_is_numpys(x, odd):
    x[-1] += odd
    assert _medians.median_near_mean(x.copy()) == np.median(x)


def test_scipy_agrees():
    rng = np.random.default_rng(7)
    for n in (5, 30, 120):
        x = rng.standard_normal(n)
        assert stats.sen_slope(x) == pytest.approx(scipy.stats.theilslopes(x).slope, rel=1e-12)
        tau = scipy.stats.kendalltau(np.arange(n), x).statistic
        assert stats.kendall_tau(x) == pytest.approx(tau, abs=1e-12)
        line = scipy.stats.linregress(np.arange(n), x)
        assert stats.linear_trend(x) == pytest.approx((line.slope, line.intercept), rel=1e-9)


@settings(max_examples=150, deadline=None)
@given(WILD_SERIES, st.integers(1, 300))
def test_streamed_slope_equals_buffered(x, capacity):
    positions, values = _sen.valid_values(x)
    if len(values) < 2:
        return
    assert same(_sen.streamed_slope(positions, values, capacity), _sen.buffered_slope(positions, values))


@pytest.mark.parametrize("kind", ["noise", "whole", "seasonal", "rare", "infinite"])
def test_long_series(kind):
    rng = np.random.default_rng(3)
    n = 1500
    x = {
        "noise": rng.standard_normal(n),
        "whole": np.round(rng.standard_normal(n) * 2),
        "seasonal": np.sin(np.arange(n) * np.pi / 6) + np.arange(n) * 1e-4,
        "rare": (rng.random(n) < 0.1).astype(float),
        "infinite": np.where(rng.random(n) < 0.01, np.inf, rng.standard_normal(n)),
    }[kind]
    assert stats.sen_slope(x) == median_of_slopes(x)
    if kind != "infinite":
        got = stats.mann_kendall(x)
        assert got.tau == pytest.approx(got.s / (n * (n - 1) / 2))
        assert (got.s, got.z) == reference(x)[5:2:-2]


def test_ten_thousand_values_stay_within_bounded_memory():
    # All 50 million slopes would be 400 MB; the walk over them must find the slope of a nearly exact line.
    n = 10_000
    x = np.arange(n) * 0.25
    x[::100] += 1000.0
    assert stats.sen_slope(x) == 0.25


@settings(max_examples=150, deadline=None)
@given(hnp.arrays(np.float64, st.integers(0, 80), elements=st.floats(-9, 9) | st.integers(-2, 2).map(float)))
def test_score_by_merging_equals_by_pairs(x):
    assert _kendall.score_by_merging(x)[:2] == _kendall.score_by_pairs(x)


@settings(max_examples=150, deadline=None)
@given(ANY_SERIES, st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0])))
def test_moments_and_quantiles_equal_numpy(x, q):
    if np.all(np.isnan(x)):
        assert all(math.isnan(v) for v in (stats.nanmean(x), stats.nanvar(x), stats.nanquantile(x, q)))
        return
    assert stats.nanquantile(x, q) == np.nanquantile(x, q)
    scale = 1 + np.nanmax(np.abs(x))
    assert stats.nanmean(x) == pytest.approx(np.nanmean(x), abs=1e-13 * scale)
    assert stats.nanvar(x) == pytest.approx(np.nanvar(x), abs=1e-12 * scale**2)
    if np.sum(~np.isnan(x)) > 1:
        assert stats.nanvar(x, 1) == pytest.approx(np.nanvar(x, ddof=1), abs=1e-12 * scale**2)


def test_quantile_refuses_what_is_not_a_share():
    for q in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="q must lie"):
            stats.nanquantile(np.arange(3.0), q)
    assert stats.nanquantile(np.array([1.0, math.inf]), 1.0) == math.inf
    assert stats.nanquantile(np.array([1.0, math.inf]), 0.0) == 1.0


def test_linear_trend_keeps_positions_of_valid_values():
    x = 3.0 + 0.5 * np.arange(40)
    x[[3, 4, 20]] = np.nan
    assert stats.linear_trend(x) == pytest.approx((0.5, 3.0))
    assert stats.sen_slope(x) == 0.5


def test_callable_from_a_kernel():
    @njit(nogil=True)
    def cell(series):
        tau, p, _, _, _, slope, _ = stats.trend(series)
        return tau, p, slope

    x = np.random.default_rng(0).standard_normal(40)
    whole = stats.trend(x)
    assert cell(x) == (whole.tau, whole.p, whole.slope)


BATCH = """
import sys
import numpy as np
from gridcompute import _kendall, _sen, keys, stats
rng = np.random.default_rng(11)
out = []
for k in range(40):
    x = rng.standard_normal(1 + k)
    if k % 4 == 1:
        x = np.round(x)
    if k % 4 == 2:
        x[rng.random(1 + k) < 0.3] = np.nan
    if k % 8 == 3:
        x[rng.random(1 + k) < 0.2] = np.inf
        x[rng.random(1 + k) < 0.1] = -np.inf
    finite = np.where(np.isinf(x), 1.0, x)
    out += [*stats.trend(x), *stats.linear_trend(finite), stats.nanmean(finite), stats.nanvar(finite)]
    out += [stats.kendall_tau(x), stats.nanquantile(x, 0.3), _sen.streamed_slope(*_sen.valid_values(x), 50)]
    out += [*_kendall.score_by_merging(finite[~np.isnan(finite)])]
# A recipe doesn't depend on how the code is run either.
out += [int(keys.function_key(f)[:12], 16) for f in (stats.trend, stats.nanquantile, stats.linear_trend)]
"""


def test_same_bits_without_compilation():
    command = [sys.executable, "-W", "error", "-c", BATCH + "sys.stdout.write(np.array(out).tobytes().hex())"]
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    plain = np.frombuffer(bytes.fromhex(done.stdout), np.float64)
    names: dict[str, object] = {}
    exec(BATCH, names)
    compiled = np.array(names["out"])
    missing = np.isnan(compiled)
    assert np.array_equal(missing, np.isnan(plain))
    assert np.array_equal(compiled[~missing].view(np.uint64), plain[~missing].view(np.uint64))


def test_real_temperatures():
    netcdf4 = pytest.importorskip("netCDF4")
    sample = pytest.importorskip("iris_sample_data")
    path = os.path.join(os.path.dirname(sample.__file__), "sample_data", "A1B_north_america.nc")
    with netcdf4.Dataset(path) as data:
        temperature = np.asarray(data["air_temperature"][:])
    pixels = temperature.reshape(temperature.shape[0], -1).T
    assert pixels.shape[1] == 240
    for x in np.ascontiguousarray(pixels[:: len(pixels) // 50]):
        assert_like_pymannkendall(x)
