"""Reductions against NumPy; equal bits however a segment is cut and however memory lies."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from dataclasses import replace

import cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridcompute import reductions as r
from gridcompute.errors import DimensionError, ParameterError
from gridcompute.fold_loops import LANES
from gridcompute.reducer import Output, Reduction, reduction

BUILTINS = {
    "sum": r.sum(),
    "count": r.count(),
    "mean": r.mean(),
    "mean_and_count": r.mean_and_count(),
    "var": r.var(),
    "mean_and_var": r.mean_and_var(),
    "std": r.std(ddof=1),
    "min": r.min(),
    "max": r.max(),
    "argmin": r.argmin(),
    "argmax": r.argmax(),
    "linregress": r.linregress(),
    "any": r.any(),
    "all": r.all(),
    "first": r.first(),
    "last": r.last(),
    "histogram": r.histogram((5, -2.0, 2.0)),
    "topk": r.topk(3),
    "quantile": r.quantile([0.1, 0.5], capacity=128),
}
STRICT = {"sum": r.sum(skipna=False), "min": r.min(skipna=False), "argmax": r.argmax(skipna=False)}


def numbers(shape, seed=0, dtype="f4", nan=0.1):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape)
    if np.dtype(dtype).kind != "f":
        return (values * 3 if np.dtype(dtype).kind == "i" else np.abs(values * 3)).astype(dtype)
    values[rng.random(shape) < nan] = np.nan
    return values.astype(dtype)


def one(red, values, axes=None, **options):
    return red.eager(values, axes, **options)[0]


def filled(column):
    """Values with nulls as a fixed number, so that they compare."""
    return column.values if column.valid is None else np.where(column.valid, column.values, -99)


def same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.values.dtype == y.values.dtype
        np.testing.assert_array_equal(
            filled(x).view(f"V{x.values.itemsize}"), filled(y).view(f"V{y.values.itemsize}")
        )
        assert (x.valid is None) == (y.valid is None)


# --- against NumPy


def test_a_count_is_given_only_where_one_is_kept():
    with pytest.raises(ParameterError, match="gives a count, but keeps none"):
        replace(r.sum(), outputs=(*r.sum().outputs, Output("n", "count")))


@pytest.mark.parametrize("missing", [[], [(0, 3, 5)], [(0, 3, 5), (1, 3, 140), (2, 19, 149)]])
def test_rows_that_are_transposed_are_those_that_lie_so(missing):
    """Whether some of a block of values are missing, or of one beside it."""
    x = numbers((3, 20, 150))
    x[np.isnan(x)] = 1.0
    for place in missing:
        x[place] = np.nan
    straight = np.ascontiguousarray(x.transpose(2, 0, 1))
    for one, other in zip(r.mean_and_count().eager(x, 2), r.mean_and_count().eager(straight, 0), strict=True):
        np.testing.assert_array_equal(one.values, other.values)


@pytest.mark.parametrize("dtype", ["f4", "i2"])
@pytest.mark.parametrize("axis", [0, 1])
def test_agrees_with_numpy(dtype, axis):
    x = numbers((97, 83), dtype=dtype)
    wide = x.astype("f8")
    exact = {"min": np.nanmin, "max": np.nanmax}
    for name, function in exact.items():
        found = one(BUILTINS[name], x, axis)
        assert found.values.dtype == x.dtype
        np.testing.assert_array_equal(found.values, function(x, axis=axis))
    np.testing.assert_array_equal(one(r.count(), x, axis).values, (~np.isnan(wide)).sum(axis))
    close = {"mean": np.nanmean, "var": np.nanvar}
    for name, function in close.items():
        np.testing.assert_allclose(one(BUILTINS[name], x, axis).values, function(wide, axis=axis), rtol=1e-12)
    for together, alone in ((r.mean_and_count(), (r.mean(), r.count())), (r.mean_and_var(), (r.mean(), r.var()))):
        for found, how in zip(together.eager(x, axis), alone, strict=True):
            np.testing.assert_allclose(found.values, one(how, x, axis).values, rtol=1e-13)
    np.testing.assert_allclose(
        one(r.std(ddof=1), x, axis).values, np.nanstd(wide, axis=axis, ddof=1), rtol=1e-12
    )
    if dtype[0] == "f":
        np.testing.assert_allclose(one(r.sum(), x, axis).values, np.nansum(wide, axis=axis), atol=1e-12)
    else:
        found = one(r.sum(), x, axis).values
        np.testing.assert_array_equal(found, x.sum(axis))
        assert found.dtype == x.sum(axis).dtype
    np.testing.assert_array_equal(one(r.argmin(), x, axis).values, np.nanargmin(x, axis=axis))
    np.testing.assert_array_equal(one(r.argmax(), x, axis).values, np.nanargmax(x, axis=axis))
    kept = np.moveaxis(x, axis, -1)
    clean = [row[~np.isnan(row.astype("f8"))] for row in kept]
    np.testing.assert_array_equal(one(r.first(), x, axis).values, [row[0] for row in clean])
    np.testing.assert_array_equal(one(r.last(), x, axis).values, [row[-1] for row in clean])
    np.testing.assert_array_equal(one(r.any(), x, axis).values, [row.any() for row in clean])
    np.testing.assert_array_equal(one(r.all(), x, axis).values, [row.all() for row in clean])
    np.testing.assert_array_equal(one(r.topk(4), x, axis).values, [np.sort(row)[::-1][:4] for row in clean])
    np.testing.assert_array_equal(
        one(r.topk(4, largest=False), x, axis).values, [np.sort(row)[:4] for row in clean]
    )
    q = [0.0, 0.05, 0.5, 1 / 3, 0.9, 1.0]
    np.testing.assert_array_equal(
        one(r.quantile(q), x, axis).values, [np.quantile(row.astype("f8"), q) for row in clean]
    )


def test_integer_sums_wrap_as_numpy_s():
    x = np.array([2**63 - 1, 5, 7], "i8")
    assert one(r.sum(), x).values == x.sum()
    u = np.array([2**64 - 1, 5], "u8")
    assert one(r.sum(), u).values == u.sum()
    assert one(r.sum(), np.ones(300, bool)).values == 300
    assert one(r.sum(), np.full(300, 200, "u1")).values == 60000


def test_sum_is_close_to_the_exact_one_and_float32_adds_in_float64():
    x = np.random.default_rng(3).lognormal(0, 6, 20001)
    exact, size = math.fsum(x), math.fsum(np.abs(x))
    assert abs(float(one(r.sum(), x).values) - exact) <= len(x) / LANES * 2**-53 * size
    ones = np.full(3 * 2**20, 16777217 / 2**24, "f4")
    assert one(r.sum(), ones).values == math.fsum(ones.astype("f8"))


def test_half_and_complex():
    h = np.array([1.5, np.nan, 60000, 60000], "f2")
    assert one(r.sum(), h).values == 120001.5
    assert one(r.max(), h).values.dtype == np.float16
    z = np.array([1 + 2j, np.nan, 3 - 1j], "c8")
    assert one(r.sum(), z).values == 4 + 1j
    assert one(r.mean(), z).values == 2 + 0.5j
    with pytest.raises(ParameterError, match="'min' can't take values of dtype complex64"):
        one(r.min(), z)
    with pytest.raises(ParameterError, match="can't take"):
        one(r.sum(), np.array(["a"]))


def test_variance_keeps_its_digits_far_from_zero():
    x = 1e9 + np.random.default_rng(1).standard_normal(5000)
    np.testing.assert_allclose(float(one(r.var(), x).values), np.var(x - 1e9), rtol=1e-6)


@given(
    st.lists(
        st.floats(-4, 4) | st.sampled_from([-2.0, -1.2, 0.4, 2.0, math.nan, math.inf, -0.0]), max_size=60
    )
)
@settings(max_examples=60, deadline=None)
def test_histogram_has_numpy_s_bins(values):
    x = np.array(values, "f8")
    finite = x[np.isfinite(x)]
    expected, edges = np.histogram(finite, 5, (-2.0, 2.0))
    np.testing.assert_array_equal(one(BUILTINS["histogram"], x).values, expected)
    uneven = [-2.0, -1.2, 0.4, 0.5, 2.0]
    np.testing.assert_array_equal(one(r.histogram(uneven), x).values, np.histogram(finite, uneven)[0])
    assert dict(BUILTINS["histogram"].coords)["bin"] == tuple(edges[:-1])


# --- cells without a value, NaN, nulls


def test_empty_cells():
    x = np.full((5, 2), np.nan, "f4")
    x[2, 1] = 7
    for name in ("mean", "var", "min", "max", "first", "last"):
        column = one(BUILTINS[name], x, 0)
        assert column.valid is None
        assert np.isnan(column.values[0])
        assert not np.isnan(column.values[1])
    assert one(r.sum(), x, 0).values.tolist() == [0, 7]
    assert one(r.count(), x, 0).values.tolist() == [0, 1]
    assert one(r.any(), x, 0).values.tolist() == [False, True]
    assert one(r.all(), x, 0).values.tolist() == [True, True]
    assert one(r.argmin(), x, 0).valid.tolist() == [False, True]
    assert np.isnan(one(r.quantile(0.5), x, 0).values).tolist() == [True, False]
    assert np.isnan(one(r.var(ddof=1), x, 0).values).all()
    integers, valid = np.arange(10, dtype="i2").reshape(5, 2), ~np.isnan(x)
    for name in ("min", "max", "first", "last"):
        column = one(BUILTINS[name], integers, 0, valid=valid)
        assert column.values.tolist() == [0, 5]
        assert column.valid.tolist() == [False, True]
    top = one(r.topk(2), integers, 0, valid=valid)
    assert top.values.tolist() == [[0, 0], [5, 0]]
    assert top.valid.tolist() == [[False, False], [True, False]]
    assert one(r.min(), np.empty((0, 3), "i2"), 0).valid.tolist() == [False] * 3
    assert one(r.sum(), np.empty((4, 0)), 0).values.shape == (0,)


def test_nan_counts_where_it_is_not_skipped():
    x = np.array([3.0, np.nan, 1.0, np.nan, 5.0], "f4")
    for red in (r.sum, r.mean, r.var, r.min, r.max):
        assert np.isnan(one(red(skipna=False), x).values)
    assert np.isnan(one(r.quantile([0.0, 0.5], skipna=False), x).values).all()
    assert one(r.count(skipna=False), x).values == 5
    assert one(r.argmin(skipna=False), x).values == np.argmin(x) == 1
    assert one(r.argmax(skipna=False), np.tile(x, 50)).values == 1
    assert np.isnan(one(r.last(skipna=False), x[:4]).values)
    assert one(r.any(skipna=False), np.array([np.nan, 0.0], "f4")).values


@pytest.mark.parametrize("name", BUILTINS)
def test_a_null_is_as_if_it_were_not_there(name):
    x = numbers((150, 3), nan=0)
    valid = np.random.default_rng(5).random(x.shape) < 0.7
    holes = np.where(valid, x, np.nan).astype("f4")
    same(BUILTINS[name].eager(x, 0, valid=valid), BUILTINS[name].eager(holes, 0))
    same(BUILTINS[name].eager(x, 0, valid=np.asfortranarray(valid)), BUILTINS[name].eager(holes, 0))


# --- equal bits


@pytest.mark.parametrize("name", [*BUILTINS, "strict sum", "strict min", "strict argmax"])
@pytest.mark.parametrize("cells", [1, 5, 70])
def test_any_split_into_chunks_gives_equal_bits(name, cells):
    red = STRICT[name[7:]] if name.startswith("strict") else BUILTINS[name]
    x = numbers((333, cells), seed=cells, nan=0.005 if name.startswith("strict") else 0.1)
    whole = red.eager(x, 0)
    rng = np.random.default_rng(cells)
    fold = red.compiled(x.dtype)
    for _ in range(4):
        cuts = [0, *np.sort(rng.integers(0, 334, 6)).tolist(), 333]
        states = fold.empty(cells)
        for lo, hi in itertools.pairwise(cuts):
            chunk = x[lo:hi]
            fold.fold(states, np.asfortranarray(chunk) if rng.random() < 0.5 else chunk)
        same(
            [
                type(c)(c.values.reshape(w.values.shape), c.valid)
                for c, w in zip(fold.finish(fold.close(states)), whole, strict=True)
            ],
            whole,
        )


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_any_memory_layout_gives_equal_bits(data):
    shape = data.draw(
        st.lists(st.sampled_from([1, 2, 3, 5, 70]), min_size=1, max_size=4).filter(
            lambda s: math.prod(s) < 20000
        )
    )
    x = numbers(shape, seed=1)
    axes = data.draw(st.sets(st.integers(0, len(shape) - 1)))
    order = data.draw(st.permutations(range(len(shape))))
    name = data.draw(st.sampled_from(["sum", "mean", "topk", "argmax", "last"]))
    masked = data.draw(st.booleans())
    valid = np.random.default_rng(2).random(shape) < 0.8 if masked else None
    # The same numbers with axes permuted in memory, reversed, and inside a larger array.
    inverse = np.argsort(order)
    frame = np.zeros([2 * n + 3 for n in np.array(shape)[list(order)]], "f4")
    view = frame[tuple(slice(1, 1 + 2 * n, 2) for n in np.array(shape)[list(order)])].transpose(inverse)
    if data.draw(st.booleans()):
        view = view[::-1]
    view[...] = x
    view.flags.writeable = data.draw(st.booleans())
    plain = np.moveaxis(x, sorted(axes), range(len(axes))).copy()
    rows = math.prod(plain.shape[: len(axes)])
    flat = plain.reshape(rows, -1)
    mask = (
        None if valid is None else np.moveaxis(valid, sorted(axes), range(len(axes))).reshape(rows, -1).copy()
    )
    same(
        [
            type(c)(c.values.reshape(-1), None if c.valid is None else c.valid.reshape(-1))
            for c in BUILTINS[name].eager(view, sorted(axes), valid=valid)
        ],
        [
            type(c)(c.values.reshape(-1), None if c.valid is None else c.valid.reshape(-1))
            for c in BUILTINS[name].eager(flat, 0, valid=mask)
        ],
    )


def test_lanes_are_a_rule_of_the_graph():
    fold = r.sum().compiled("f4")
    assert [fold.lanes(1), fold.lanes(63), fold.lanes(64), fold.lanes(8, 8), fold.lanes(7, 9)] == [
        64,
        64,
        1,
        1,
        64,
    ]
    assert r.first().compiled("f4").lanes(1) == 1
    x = np.random.default_rng(0).standard_normal(1000)
    lanes = np.zeros(LANES)
    for i, value in enumerate(x):
        lanes[i % LANES] += value
    total = lanes[0]
    for lane in lanes[1:]:
        total += lane
    assert one(r.sum(), x).values == total


# --- groups


@pytest.mark.parametrize("name", BUILTINS)
def test_groups_equal_separate_folds(name):
    # 3 groups of 30 cells: no lanes, as in a fold of each group alone made wide.
    x, codes = numbers((200, 70)), np.random.default_rng(4).integers(-1, 3, 200)
    found = BUILTINS[name].eager(x, 0, codes=codes, groups=3)
    for g in range(3):
        alone = BUILTINS[name].eager(x[codes == g], 0)
        if name == "linregress":  # the others keep their positions
            alone = BUILTINS[name].eager(np.where((codes == g)[:, None], x, np.float32(np.nan)), 0)
        if name.startswith("arg"):
            positions = np.flatnonzero(codes == g)
            alone = [type(c)(positions[c.values], c.valid) for c in alone]
        same([type(c)(c.values[g], None if c.valid is None else c.valid[g]) for c in found], alone)


def test_few_groups_use_lanes_and_come_near():
    x, codes = numbers(5000), np.random.default_rng(4).integers(-1, 3, 5000).astype("i2")
    for values in (x, x[::-1].copy()[::-1]):
        found = one(r.mean(), values, 0, codes=codes, groups=4).values
        np.testing.assert_allclose(
            found[:3], [np.nanmean(x[codes == g].astype("f8")) for g in range(3)], rtol=1e-12
        )
        assert np.isnan(found[3])


def test_codes_over_two_reduced_axes():
    x = np.arange(24).reshape(2, 3, 4)
    codes = np.array([[0, 1, 0, 1], [1, 1, -1, 0]])
    found = one(r.sum(), x, (0, 2), codes=codes, groups=2).values
    for g in range(2):
        np.testing.assert_array_equal(found[g], (x * (codes == g)[:, None, :]).sum((0, 2)))


# --- merging


@pytest.mark.parametrize("name", BUILTINS)
def test_segments_merge_to_the_whole(name):
    x = np.random.default_rng(8).integers(-9, 9, (120, 70)).astype("i2")
    red = BUILTINS[name]
    fold = red.compiled(x.dtype)
    parts = []
    for lo, hi in ((0, 40), (40, 41), (41, 41), (41, 120)):
        states = fold.empty(70, origin=lo)
        fold.fold(states, x[lo:hi])
        parts.append(fold.close(states))
    left = fold.merge(fold.merge(fold.merge(parts[0], parts[1]), parts[2]), parts[3])
    right = fold.merge(parts[0], fold.merge(parts[1], fold.merge(parts[2], parts[3])))
    whole, a, b = red.eager(x, 0), fold.finish(left), fold.finish(right)
    if name in ("var", "std", "linregress"):
        for found in (a, b):
            for one_of, of_whole in zip(found, whole, strict=True):
                np.testing.assert_allclose(one_of.values, of_whole.values, rtol=1e-10, atol=1e-12)
    else:
        same(a, whole)
        same(b, whole)
    same(fold.finish(left), a)  # finish leaves states as they are


def test_ties_go_to_the_earliest():
    x = np.array([0.0, -0.0, 0.0, -0.0], "f4")
    assert np.signbit(one(r.topk(3), x).values).tolist() == [False, True, False]
    assert one(r.argmin(), np.zeros(500, "f4")).values == 0


# --- quantiles beyond the capacity


@pytest.mark.parametrize("kind", ["shuffled", "rising", "falling", "periodic", "two values", "merged"])
def test_quantile_keeps_its_bound(kind):
    n, capacity, q = 40_000, 256, np.array([0.0, 0.01, 0.25, 0.5, 0.9, 1.0])
    x = np.random.default_rng(0).permutation(n).astype("f8")
    x = {"rising": np.sort(x), "falling": -np.sort(-x), "periodic": x % 97, "two values": x % 2}.get(kind, x)
    fold = r.quantile(q.tolist(), capacity=capacity).compiled("f8")
    parts = []
    for part in np.array_split(x, 13 if kind == "merged" else 1):
        states = fold.empty(1)
        fold.fold(states, part)
        parts.append(fold.close(states))
    total = parts[0]
    for part in parts[1:]:
        total = fold.merge(total, part)
    state = dict(zip([name for name, _, _ in fold.scheme.fields], total, strict=True))
    used = int(state["used"][0, 0])
    weights = 2 ** state["level"][0, :used].astype("i8")
    assert int(state["n"][0, 0]) == n == int(weights.sum())
    levels, error = int(state["level"][0, :used].max()) + 1, int(state["error"][0, 0])
    assert error <= n * 2 * levels * (levels - 1) / (capacity - 2 * levels)
    found = fold.finish(total)[0].values[0]
    assert found[0] == x.min()
    assert found[-1] == x.max()
    ordered = np.sort(x)
    below, upto = np.searchsorted(ordered, found, "left"), np.searchsorted(ordered, found, "right")
    off = np.maximum(np.maximum(below - q * (n - 1), q * (n - 1) - upto), 0)
    assert off.max() <= error + int(weights.max())
    assert off.max() <= 0.02 * n


# --- user-made, keys, pickles, refusals


def make_rms(power=2):
    def init(s, n):
        s[0] = 0
        n[0] = 0

    def step(s, n, x):
        s[0] += np.float64(x) ** power
        n[0] += 1

    def merge(s, n, t, m):
        s[0] += t[0]
        n[0] += m[0]

    def final(s, n):
        return np.sqrt(s[0] / n[0]), n[0]

    return reduction(
        state={"s": ("f8", 1), "n": "i8"},
        init=init,
        step=step,
        merge=merge,
        final=final,
        name="rms",
        outputs=[Output("rms", "f8"), Output("count", "i8")],
    )


def test_user_made():
    x = numbers((50, 70), nan=0)
    rms, count = make_rms().eager(x, 0)
    np.testing.assert_allclose(rms.values, np.sqrt((x.astype("f8") ** 2).mean(0)), rtol=1e-13)
    assert (count.values == 50).all()
    copy = cloudpickle.loads(cloudpickle.dumps(make_rms()))
    assert isinstance(copy, Reduction)
    assert copy == make_rms()
    same(copy.eager(x, 0), [rms, count])


def test_keys():
    assert len({red.key for red in [*BUILTINS.values(), *STRICT.values()]}) == len(BUILTINS) + len(STRICT)
    assert r.var(ddof=1).key != r.var(ddof=0).key
    assert r.topk(3) == r.topk(3) != r.topk(3, largest=False)
    assert make_rms().key == make_rms().key != make_rms(4).key
    assert r.histogram((5, -2.0, 2.0)).key == BUILTINS["histogram"].key != r.histogram((5, -2.0, 2.5)).key


def test_refusals():
    def wrong(s):
        pass

    def right(s, x):
        s[0] = x

    with pytest.raises(
        ParameterError, match=r"step of reduction 'mine' takes 1 arguments, not 2\n.*one value"
    ):
        reduction(state={"s": "f8"}, init=wrong, step=wrong, merge=right, final=wrong, name="mine")
    with pytest.raises(ParameterError, match="is no dtype"):
        reduction(state={"s": "text"}, init=wrong, step=right, merge=right, final=wrong)
    for bad in ((0, 0.0, 1.0), [1.0], [1.0, 1.0], [0.0, math.nan], (3, 0.0, math.inf)):
        with pytest.raises(ParameterError, match="bins of a histogram"):
            r.histogram(bad)
    for call in (
        lambda: r.topk(0),
        lambda: r.quantile(1.5),
        lambda: r.quantile(0.5, capacity=10),
        lambda: r.var(ddof=-1),
    ):
        with pytest.raises(ParameterError):
            call()
    fold = r.sum().compiled("f8")
    states = fold.empty(2, 3)
    x = np.zeros((4, 2))
    for codes in ([0, 1, 2, 3], [0, 0, 0, -2], [0.0] * 4, [0, 1]):
        with pytest.raises(ParameterError, match="codes"):
            fold.fold(states, x, codes=np.array(codes))
    with pytest.raises(ParameterError, match="no codes"):
        fold.fold(states, x)
    with pytest.raises(ParameterError, match="compiled for float64"):
        fold.fold(fold.empty(2), x.astype("f4"))
    with pytest.raises(ParameterError, match="keeps 3 cells"):
        fold.fold(fold.empty(3), x)
    with pytest.raises(ParameterError, match="validity"):
        fold.fold(fold.empty(2), x, valid=np.ones(4, bool))
    with pytest.raises(DimensionError):
        r.sum().eager(x, 2)
    assert states.position == 0


PLAIN = """
import sys, numpy as np
sys.path.insert(0, {tests!r})
import test_reducer as t
for name, red in [*t.BUILTINS.items(), *t.STRICT.items(), ("rms", t.make_rms())]:
    for dtype in ("f4", "i2"):
        for cells in (1, 70):
            x = t.numbers((140 if cells == 1 else 9, cells), dtype=dtype)
            valid = np.random.default_rng(1).random(x.shape) < 0.9
            for options in ({{}}, {{"valid": valid}}):
                for column in red.eager(x.T.copy().T if dtype == "i2" else x, 0, **options):
                    print(name, dtype, cells, t.filled(column).tobytes().hex()[:400])
x = t.numbers((9, 70), nan=0)  # rows of which none misses anything are taken at once
for red in (t.BUILTINS["std"], t.r.linregress(x=np.arange(9) ** 1.5, significance=True)):
    for column in red.eager(x, 0, codes=np.repeat([1, 0], [5, 4]), groups=2):
        print(red.name, column.values.tobytes().hex())
"""


def test_equal_without_the_compiler():
    texts = []
    for flag in ("0", "1"):
        code = PLAIN.format(tests=os.path.dirname(__file__))
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "NUMBA_DISABLE_JIT": flag},
            capture_output=True,
            text=True,
            check=True,
            timeout=250,
        )
        texts.append(done.stdout.splitlines())
    assert texts[0] == texts[1]
    assert len(texts[0]) > 130


# --- counts that the fold keeps


@pytest.mark.parametrize("shape", [(40, 7), (40, 70)])
@pytest.mark.parametrize("nan", [0, 0.1])
def test_counts_equal_those_that_a_step_keeps(shape, nan, monkeypatch):
    def init(s, n):
        s[0] = 0
        n[0] = 0

    def step(s, n, x):
        s[0] += x
        n[0] += 1

    def merge(s, n, t, m):
        s[0] += t[0]
        n[0] += m[0]

    def final(s, n):
        return s[0] / n[0]

    plain = reduction(state={"s": "f8", "n": "i8"}, init=init, step=step, merge=merge, final=final, commutative=True)
    x, codes = numbers(shape, nan=nan), np.random.default_rng(3).integers(-1, 4, shape[0])
    for limit in (2**31 - 1, 10):  # from the second fold on, what is missing is counted in 64 bits
        monkeypatch.setattr("gridcompute.fold.MOST_MISSING", limit)
        for groups, of in ((1, None), (4, codes)):
            closed = []
            for red in (r.mean(), plain):
                fold = red.compiled("f4")
                states = fold.empty(shape[1], groups)
                for lo, hi in ((0, 9), (9, 9), (9, 31), (31, 40)):
                    fold.fold(states, x[lo:hi], codes=None if of is None else of[lo:hi])
                closed.append(fold.close(states))
                wide = red.counted >= 0 and limit == 10
                assert states.missing.dtype == (np.int64 if wide else np.int32)
                assert bool(states.holes[0]) == (red.counted >= 0 and nan > 0)
                same(fold.results(states), fold.finish(closed[-1]))
            for mine, its in zip(*closed, strict=True):
                np.testing.assert_array_equal(mine, its)
                assert mine.dtype == its.dtype


def test_a_count_costs_nothing_until_something_is_missing():
    fold = r.mean().compiled("f4")
    states = fold.empty(1000, 30)
    x = np.ones((30, 1000), "f4")
    fold.fold(states, x, codes=np.arange(30))
    assert states.nbytes == 8 * 30_000
    assert r.mean().state_bytes("f4") == 12
    x[4, 5] = np.nan
    fold.fold(states, x, codes=np.arange(30))
    assert states.nbytes == 12 * 30_000
    n = fold.close(states)[1].reshape(30, 1000)
    assert n[4, 5] == 1
    assert n.sum() == 60_000 - 1


@pytest.mark.parametrize("red", [r.mean(), r.std(), r.linregress(significance=True)], ids=["mean", "std", "line"])
def test_rows_taken_at_once_have_the_bits_of_rows_taken_singly(red):
    x = numbers((43, 2, 500), nan=0)  # several tiles
    x[17, 1, 3] = np.nan
    x[30:33, 0, 450:] = np.nan
    valid = np.ones(x.shape, bool)
    valid[5, 0, 480] = valid[38, 1, :7] = False
    runs = np.repeat([0, 1, -1, 2, 0, 1], [9, 5, 4, 11, 3, 11])
    fold = red.compiled("f4")
    for values, mask in ((x, None), (x, valid), (x.transpose(1, 0, 2), None)):
        for groups, codes in ((1, None), (3, runs)):
            axis = values.shape.index(43)
            whole, singly = (fold.empty(1000, groups, origin=7) for _ in range(2))
            fold.fold(whole, values, axis, valid=mask, codes=codes)
            for i in range(43):
                part = (slice(None),) * axis + (slice(i, i + 1),)
                fold.fold(singly, values[part], axis, valid=None if mask is None else mask[part],
                          codes=None if codes is None else codes[i : i + 1])  # fmt: skip
            for one_of, of_whole in zip(fold.close(singly), fold.close(whole), strict=True):
                assert one_of.tobytes() == of_whole.tobytes()


def test_results_in_blocks_equal_finish(monkeypatch):
    monkeypatch.setattr("gridcompute.fold.BLOCK", 13)
    x = numbers((9, 70), dtype="f4")
    for name in ("mean", "argmax", "topk", "std"):
        fold = BUILTINS[name].compiled("f4")
        states = fold.empty(70)
        fold.fold(states, x)
        expected = BUILTINS[name].eager(x, 0)
        same(fold.finish(fold.close(states)), expected)
        same(fold.results(states), expected)


def test_variance_has_twelve_digits():
    x = 300 + np.random.default_rng(0).standard_normal((2000, 70))
    exact = [math.fsum((v - math.fsum(col) / 2000) ** 2 for v in col) / 2000 for col in x.T]
    np.testing.assert_allclose(one(r.var(), x, 0).values, exact, rtol=1e-12)
    fold = r.var().compiled("f8")
    parts = []
    for lo in range(0, 2000, 125):
        states = fold.empty(70)
        fold.fold(states, x[lo : lo + 125])
        parts.append(fold.close(states))
    total = parts[0]
    for part in parts[1:]:
        total = fold.merge(total, part)
    np.testing.assert_allclose(fold.finish(total)[0].values, exact, rtol=1e-12)
    x[0] = 1e6  # a first value far away from all others costs digits, but it is a part of the deviation too
    np.testing.assert_allclose(one(r.var(), x, 0).values, np.var(x, 0), rtol=1e-10)
    assert (one(r.var(), np.full((50, 70), 0.1), 0).values == 0).all()


def test_only_one_count():
    with pytest.raises(ParameterError, match="several counts"):
        reduction(state={"n": "count", "m": "count"}, init=lambda n, m: None, step=lambda x: None,
                  merge=lambda n, m, a, b: None, final=lambda n, m: 0)  # fmt: skip


# --- lines


def test_linregress_with_x_equals_scipy():
    stats = pytest.importorskip("scipy.stats")
    y = numbers((60, 70), dtype="f8", nan=0.2)
    y[2:, 3] = np.nan
    y[1:, 4] = np.nan
    y[1:, 5] = np.nan
    y[0, 5] = np.nan
    x = np.sort(np.random.default_rng(6).uniform(0, 1000, 60))
    y += 0.01 * x[:, None]
    y[:2, 3] = [1, 2]
    found = r.linregress(x=x, significance=True).eager(y, 0)
    slope, level, corr, error, p, n = (c.values for c in found)
    assert n.tolist() == (~np.isnan(y)).sum(0).tolist()
    for i in range(70):
        keep = ~np.isnan(y[:, i])
        if keep.sum() < 3:
            assert np.isnan(error[i])
            assert np.isnan(p[i])
            assert np.isnan(slope[i]) == (keep.sum() < 2)
            continue
        line = stats.linregress(x[keep], y[keep, i])
        want = [line.slope, line.intercept, line.rvalue, line.stderr, line.pvalue]
        np.testing.assert_allclose([slope[i], level[i], corr[i], error[i], p[i]], want, rtol=1e-9)
    same(r.linregress(x=x).eager(y, 0), found[:2])
    fold = r.linregress(x=x, significance=True).compiled("f8")
    parts = []
    for lo, hi in ((0, 21), (21, 60)):
        states = fold.empty(70, origin=lo)
        fold.fold(states, y[lo:hi])
        parts.append(fold.close(states))
    for mine, whole in zip(fold.finish(fold.merge(*parts)), found, strict=True):
        np.testing.assert_allclose(mine.values, whole.values, rtol=1e-9)


FAR = {
    "values far from 0": (60, 0, 300, 1e-3, None),
    "positions far from 0": (6, 10**6, 0, 1, None),
    "few values in a long series": (200_000, 10**6, 1e5, 1, 9),
    "a long series": (100_000, 0, 280, 5, None),
}


@pytest.mark.parametrize("what", FAR)
@pytest.mark.parametrize("parts", [1, 7])
def test_linregress_keeps_its_digits(what, parts):
    stats = pytest.importorskip("scipy.stats")
    size, origin, level, spread, few = FAR[what]
    y = np.full((size, 3), np.nan)
    rows = np.arange(size) if few is None else np.arange(size - few, size)
    y[rows] = level + spread * np.random.default_rng(2).standard_normal((len(rows), 3))
    fold, total = r.linregress(significance=True).compiled("f8"), None
    for lo, hi in itertools.pairwise(np.linspace(0, size, parts + 1).astype(int).tolist()):
        states = fold.empty(3, origin=origin + lo)
        fold.fold(states, y[lo:hi])
        total = fold.close(states) if total is None else fold.merge(total, fold.close(states))
    found = np.array([c.values for c in fold.finish(total)[:5]])
    for i in range(3):
        line = stats.linregress(origin + rows, y[rows, i])
        want = [line.slope, line.intercept, line.rvalue, line.stderr, line.pvalue]
        np.testing.assert_allclose(found[:, i], want, rtol=1e-9)


def test_linregress_default_x_and_refusals():
    y = numbers((30, 70), dtype="f8", nan=0)
    for mine, whole in zip(r.linregress(x=range(30)).eager(y, 0), r.linregress().eager(y, 0), strict=True):
        np.testing.assert_allclose(mine.values, whole.values, rtol=1e-12)
    np.testing.assert_array_equal(r.linregress(significance=True).eager(y, 0)[5].values, 30)
    line = r.linregress(significance=True).eager(np.arange(70.0))
    assert [float(c.values) for c in line] == [1, 0, 1, 0, 0, 70]
    flat = r.linregress(significance=True).eager(np.full(70, 0.1))
    np.testing.assert_array_equal([float(c.values) for c in flat], [0, 0.1, np.nan, 0, 1, 70])
    strict = r.linregress(skipna=False, significance=True).eager(np.array([np.nan, 1, 2, 3]))
    np.testing.assert_array_equal([float(c.values) for c in strict], [np.nan] * 5 + [4])
    for bad in ([], [[1.0]], [0.0, math.nan], ["a"]):
        with pytest.raises(ParameterError, match="isn't a number for each position"):
            r.linregress(x=bad)
    with pytest.raises(ParameterError, match="knows 29 positions"):
        r.linregress(x=range(29)).eager(y, 0)
