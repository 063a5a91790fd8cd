"""States of bands in one array: the same bits as states of their own, closed or finished in place."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gridcompute as grid
from gridcompute import fold_bands
from gridcompute import reductions as r
from gridcompute.columns import Block, Fixed
from gridcompute.fold_bands import Bands, stretch_of
from gridcompute.planning import Plan
from gridcompute.running import graph_of
from gridcompute.spaces import Region

pytestmark = pytest.mark.usefixtures("compiler_traced")

CASES = [(r.mean(), "f4"), (r.mean_and_count(), "f4"), (r.min(), "f2"), (r.argmax(), "f4"), (r.topk(3), "f4"),
         (r.std(), "f4")]


def bits(array):
    return np.ascontiguousarray(array).view(f"V{array.dtype.itemsize}")


def flat(columns):
    """Of groups and cells one dimension, as `Fold.results` gives them."""
    return [Fixed(*(None if one is None else one.reshape(-1, *one.shape[2:]) for one in (c.values, c.valid)))
            for c in columns]


def check(red, dtype, cells, groups, cuts, seed, threads):
    """Both ways, over bands that begin at `cuts`, each folded in two steps."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((12, cells)).round(1).astype(dtype)
    x[rng.random(x.shape) < 0.3] = np.nan
    codes = rng.integers(-1, groups, 12) if groups > 1 else None
    fold = red.compiled(dtype)
    edges = [0, *sorted(cuts), cells]

    def folded(states, values):
        for lo, hi in ((0, 5), (5, 12)):
            fold.fold(states, values[lo:hi], codes=None if codes is None else codes[lo:hi])
        return states

    def made():
        bands = Bands(fold, cells, groups, 100)
        return bands, {(lo, hi): folded(bands.states((lo, hi)), x[:, lo:hi]) for lo, hi in itertools.pairwise(edges)}

    own = folded(fold.empty(cells, groups, origin=100, lanes=1), x)
    bands, found = made()
    for a, b in zip(bands.closed(found, threads), fold.close(own), strict=True):
        assert (a.values.dtype, a.values.shape, a.valid) == (b.dtype, b.shape, None)
        np.testing.assert_array_equal(bits(a.values), bits(b))
    bands, found = made()
    for a, b in zip(flat(bands.results(found, threads)), fold.results(own), strict=True):
        assert (a.values.dtype, a.values.shape) == (b.values.dtype, b.values.shape)
        np.testing.assert_array_equal(bits(a.values), bits(b.values))
        there = np.ones(b.values.shape, bool) if b.valid is None else b.valid
        np.testing.assert_array_equal(np.ones(b.values.shape, bool) if a.valid is None else a.valid, there)
        assert a.valid is None or not a.valid.all()


@pytest.mark.parametrize("case", range(len(CASES)))
@given(groups=st.sampled_from([1, 2, 5]), cuts=st.sets(st.integers(1, 79), max_size=6), seed=st.integers(0, 99),
       threads=st.integers(1, 3), block=st.sampled_from([7, 65536]))
def test_bands_equal_states_of_their_own(case, groups, cuts, seed, threads, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold_bands, "BLOCK", block)
        check(*CASES[case], 80, groups, cuts, seed, threads)


def test_results_take_the_states_place():
    """Where they have as many bytes: a mean's are where its sums were, and nothing else is made for them."""
    fold = r.mean().compiled("f4")
    bands = Bands(fold, 80, 3, 0)
    states = bands.states((0, 80))
    fold.fold(states, np.ones((6, 80), "f4"), codes=np.arange(6) % 3)
    (result,) = bands.results({(0, 80): states}, 1)
    assert np.shares_memory(result.values, states.arrays[0])
    assert result.values.shape == (3, 80)
    assert (result.values == 1).all()
    assert result.valid is None


def test_what_is_not_wanted_takes_no_memory():
    fold = r.mean_and_count().compiled("f8")
    values = np.arange(240.0).reshape(3, 80)
    both = []
    for wanted in ((), (True, False)):
        bands = Bands(fold, 80, 1, 0)
        states = bands.states((0, 80))
        fold.fold(states, values, [0])
        both.append(bands.results({(0, 80): states}, 1, wanted))
    np.testing.assert_array_equal(both[0][0].values, both[1][0].values)
    assert both[0][1].values.tolist() == [[3] * 80]
    assert both[0][1].values.strides[1] == both[1][1].values.strides[1] == 0  # counts that are alike take none either
    assert not both[1][1].values.flags.writeable


@pytest.mark.parametrize("hole", [False, True])
def test_counts_that_are_alike_take_no_memory(hole):
    """One a group says it all, until a cell of any band has missed a value: they are those of plain states anyway."""
    fold, codes = r.mean_and_count().compiled("f4"), np.array([0, 1, 1, 2, -1, 1])
    x = np.arange(480, dtype="f4").reshape(6, 80)
    x[1, 70] = np.nan if hole else 7
    own = fold.empty(80, 3, lanes=1)
    fold.fold(own, x, codes=codes)
    bands = Bands(fold, 80, 3, 0)
    found = {(lo, hi): bands.states((lo, hi)) for lo, hi in ((0, 30), (30, 80))}
    for (lo, hi), states in found.items():
        fold.fold(states, x[:, lo:hi], codes=codes)
    mean, count = bands.results(found, 2)
    for one, other in zip(flat([mean, count]), fold.results(own), strict=True):
        np.testing.assert_array_equal(bits(one.values), bits(other.values))
    assert (count.values.strides[1] == 0) is not hole


def test_states_go_with_the_results():
    """Foldings outlive their blocks while others of their task end: they may not hold states until then."""
    x = grid.from_arrays({"x": np.ones((4, 30, 70), "f4")}, ("t", "y", "x"))["x"]
    (fold,) = Plan(graph_of([x.std("t")])).stages[0].roots
    folding = fold.action.begin(fold, fold.space.whole())
    for lo in (0, 10, 20):
        box = Region.of((0, 4), (lo, lo + 10), (0, 70))
        folding.take(box, Block(box, {fold.action.reduce.column: Fixed(np.ones((4, 10, 70), "f4"))}, 4))
    held = [weakref.ref(array) for array in folding.whole._whole.arrays]
    block = folding.end(2)
    assert (next(iter(block.columns.values())).values == 0).all()
    assert sum(one() is not None for one in held) == 1  # the one that the results are in


def test_no_cells():
    fold = r.mean().compiled("f4")
    bands = Bands(fold, 0, 2, 0)
    found = {(0, 0): bands.states((0, 0))}
    assert [one.values.shape for one in bands.closed(found, 2)] == [(0, 1), (0, 1)]
    assert bands.results(found, 2)[0].values.shape == (2, 0)


@given(st.data())
def test_stretches(data):
    """A part of some cells is one stretch exactly if their numbers follow each other."""
    whole = [(lo, lo + data.draw(st.integers(1, 4))) for lo in data.draw(st.lists(st.integers(0, 9), max_size=4))]
    band = []
    for lo, hi in whole:
        first = data.draw(st.integers(lo, hi - 1))
        band.append((first, data.draw(st.integers(first + 1, hi))))
    numbers = np.arange(np.prod([hi - lo for lo, hi in whole], dtype=int)).reshape([hi - lo for lo, hi in whole])
    part = numbers[tuple(slice(lo - base, hi - base) for (lo, hi), (base, _) in zip(band, whole, strict=True))]
    flat = part.reshape(-1)
    expected = (flat[0], flat[-1] + 1) if flat[-1] + 1 - flat[0] == len(flat) else None
    assert stretch_of(tuple(band), tuple(whole)) == expected


def test_plain_python_agrees():
    """Without numba, two cases."""
    code = "import test_fold_bands as t\nfor case in t.CASES[:2]: t.check(*case, 20, 3, {4, 11}, 1, 2)\nprint('same')"
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                          env={**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": path})
    assert done.stdout == "same\n", done.stderr
