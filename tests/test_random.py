from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from gridcompute import random

# Random123's kat_vectors for philox4x32-10: counter, key, result.
KNOWN = [
    ([0] * 4, [0] * 2, ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, ["408f276d", "41c83b0e", "a20bc7c6", "6d5451fd"]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        ["d16cfe09", "94fdcceb", "5001e420", "24126ea1"],
    ),
]

DRAW = """
import json, numpy as np
from gridcompute import random
rng = random.state(random.seed_key(7, "paths"))
found = []
for cell in (0, 1, 2**40):
    random.reset(rng, cell)
    for _ in range(40):
        found += [float(random.uniform(rng)).hex(), float(random.normal(rng)).hex(),
                  int(random.integers(rng, 6)), int(random.integers(rng, 2**62 + 1)),
                  float(random.exponential(rng)).hex()]
print(json.dumps(found))
"""


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
@pytest.mark.parametrize("compiled", [True, False])
def test_known_answers(counter, key, result, compiled):
    function = random.philox if compiled else getattr(random.philox, "py_func", random.philox)
    words = function(*[np.uint64(one) for one in counter + key])
    assert [f"{int(word):08x}" for word in words] == result


def test_plain_python_draws_the_same_bits_without_a_warning():
    found = {}
    for disabled in ("0", "1"):
        run = subprocess.run(
            [sys.executable, "-W", "error", "-c", DRAW],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "NUMBA_DISABLE_JIT": disabled},
        )
        found[disabled] = json.loads(run.stdout)
    assert found["0"] == found["1"]
    assert len(set(found["0"])) > 300


def test_a_kernel_draws_what_python_draws():
    @njit
    def draw(rng, cell):
        random.reset(rng, cell)
        return random.uniform(rng), random.normal(rng), random.integers(rng, 10), random.exponential(rng)

    a, b = random.state(5), random.state(5)
    random.reset(b, 3)
    assert draw(a, 3) == (random.uniform(b), random.normal(b), random.integers(b, 10), random.exponential(b))
    assert np.array_equal(a, b)


@given(st.integers(0, 2**62), st.integers(0, 5), st.integers(0, 9))
def test_a_cell_draws_the_same_whatever_was_drawn_before(cell, other, draws):
    rng = random.state(random.seed_key(1, "a"), other)
    for _ in range(draws):
        random.bits(rng)
    random.reset(rng, cell)
    fresh = random.state(random.seed_key(1, "a"), cell)
    assert [random.bits(rng) for _ in range(5)] == [random.bits(fresh) for _ in range(5)]


def test_seeds_and_names_give_streams_of_their_own():
    keys = {int(random.seed_key(seed, name)) for seed in (-1, 0, 1, 2**70) for name in ("", "a", "b", "1")}
    assert len(keys) == 16


def test_uniform_lies_in_its_interval_and_uses_53_bits():
    rng = random.state(random.seed_key(3, "u"))
    values = np.array([random.uniform(rng) for _ in range(20_000)])
    assert values.min() >= 0 < values.max() < 1
    assert abs(values.mean() - 0.5) < 5 * np.sqrt(1 / 12 / len(values))
    assert any(int(value * 2**53) % 2 for value in values)


def test_normal_and_exponential_have_their_moments():
    rng = random.state(random.seed_key(4, "n"))
    values = np.array([random.normal(rng) for _ in range(20_000)])
    assert abs(values.mean()) < 5 / np.sqrt(len(values))
    assert abs(values.var() - 1) < 5 * np.sqrt(2 / len(values))
    waits = np.array([random.exponential(rng) for _ in range(20_000)])
    assert waits.min() >= 0
    assert abs(waits.mean() - 1) < 5 / np.sqrt(len(waits))


def test_normal_is_the_inverse_distribution_function():
    norm = pytest.importorskip("scipy.stats").norm
    p = np.array([1e-16, 1e-12, 1e-5, 0.01, 0.0749, 0.0751, 0.3, 0.5, 0.7, 0.93, 1 - 1e-9])
    found = [random._normal_quantile(one) for one in p]
    np.testing.assert_allclose(found, norm.ppf(p), rtol=1e-14, atol=1e-16)


@given(st.integers(1, 2**63 - 1), st.integers(0, 100))
def test_integers_lie_below_n(n, cell):
    rng = random.state(random.seed_key(0, "i"), cell)
    assert 0 <= random.integers(rng, n) < n


def test_integers_are_unbiased_where_a_remainder_would_not_be():
    # 3 * 2**61: values below 2**62 would come 3 times as often as a plain remainder's others.
    rng = random.state(random.seed_key(0, "bias"))
    n = 3 * 2**61
    thirds = np.bincount([int(random.integers(rng, n) // 2**61) for _ in range(6000)], minlength=3)
    assert abs(thirds - 2000).max() < 5 * np.sqrt(2000 * 2 / 3)


@pytest.mark.parametrize("n", [0, -1])
def test_integers_refuses_an_empty_range(n):
    with pytest.raises(ValueError, match="1 or more"):
        random.integers(random.state(0), n)
