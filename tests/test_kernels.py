from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from typing import NamedTuple

import cloudpickle
import numpy as np
import pytest
from numba import njit

import gridcompute.compiled  # noqa: F401 - kernels run with it
from gridcompute.columns import Ragged
from gridcompute.errors import (
    DimensionError,
    GridError,
    KernelError,
    ParameterError,
    SignatureError,
    UnkeyableError,
    UsageError,
)
from gridcompute.kernels import Kernel, explodes, kernel, task


@pytest.fixture(autouse=True)
def _private_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GRIDCOMPUTE_CACHE", str(tmp_path_factory.getbasetemp() / "code-kernel"))


class Table(NamedTuple):
    weights: np.ndarray
    shift: float


def plain(series, threshold=0.5):
    return series.sum() > threshold


def test_what_a_kernel_says_of_itself():
    @kernel(
        "(time)->(),(month)", sizes={"month": 12}, names=("a", "b"), dtypes=("f4", float), parallel=4, flags={"reassoc"}
    )
    def f(series, scale, offset=1.0, cell=None, rng=None, valid=None):
        return 0.0, series

    assert isinstance(f, Kernel)
    assert (f.name, str(f.signature), f.sizes, f.names) == ("f", "(time)->(),(month)", {"month": 12}, ("a", "b"))
    assert f.dtypes == (np.dtype("f4"), np.dtype("f8"))
    assert (f.mode, f.parallel, f.flags, f.tools) == ("cell", 4, frozenset({"reassoc"}), ())
    assert f.parameters == ("scale", "offset")
    assert f.specials == ("cell", "rng", "valid")
    assert f.defaults == {"offset": 1.0}
    assert repr(f) == "<kernel f (time)->(),(month)>"
    assert f.bind({"scale": 2}) == {"scale": 2, "offset": 1.0}


def test_names_by_default():
    assert kernel("(t)->()")(plain).names == ("plain",)
    assert kernel("(t)->(),()")(plain).names == ("plain_0", "plain_1")
    assert kernel("(t)->()", names="one")(plain).names == ("one",)
    assert kernel("()->()")(lambda x: x).names == ("lambda",)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"signature": len}, SignatureError, "takes a signature"),
        ({"signature": "(t),(t),(t)->()"}, SignatureError, "has 3 inputs, but the function takes 2"),
        ({"signature": "(t)->(month),()"}, SignatureError, "'month' has no length"),
        ({"signature": "(t)->()", "sizes": {"t": 3}}, SignatureError, "an input has it"),
        ({"signature": "(t)->()", "sizes": {"k": 3}}, SignatureError, "no output has it"),
        ({"signature": "(t)->(k)", "sizes": {"k": -1}}, ParameterError, "not a length"),
        ({"signature": "(t)->(k)", "sizes": {"k": 1.5}}, ParameterError, "not a length"),
        ({"signature": "(t)->()", "names": ("a", "b")}, SignatureError, "1 output, but names"),
        ({"signature": "(t)->(),()", "names": ("a", "a")}, SignatureError, "different name"),
        ({"signature": "(t)->()", "dtypes": ("f4", "f4")}, SignatureError, "2 dtypes"),
        ({"signature": "(t)->()", "dtypes": ("what",)}, ParameterError, "dtype per output"),
        ({"signature": "(t)->()", "dtypes": (object,)}, ParameterError, "dtype object"),
        ({"signature": "(t)->()", "flags": {"nnan"}}, ParameterError, "unknown flag 'nnan'"),
        ({"signature": "(t)->()", "parallel": 0}, ParameterError, "parallel is 0"),
        ({"signature": "(t)->"}, SignatureError, "position"),
    ],
)
def test_wrong_declarations(options, error, says):
    with pytest.raises(error, match=says.replace("(", r"\(")):
        kernel(**options)(plain)


@pytest.mark.parametrize(
    ("func", "says"),
    [
        (lambda x, valid, rng: x, "in the order rng, valid"),
        (lambda x, cell, p: x, "must be the last"),
        (lambda cell: cell, "argument 1 is 'cell'"),
        (lambda *x: x, "variadic positional"),
        (lambda x, *, p: x, "keyword-only"),
        (lambda x, **p: x, "variadic keyword"),
        (lambda x, seed: x, "can't be called 'seed'"),
        (lambda x, name: x, "can't be called 'name'"),
    ],
)
def test_wrong_arguments(func, says):
    with pytest.raises(SignatureError, match=says):
        kernel("()->()")(func)


def test_only_functions_become_kernels():
    one = kernel("(t)->()")(plain)
    for value in (one, 3, len, np.sqrt, "x"):
        with pytest.raises(UsageError):
            kernel("()->()")(value)
    assert kernel("(t)->()")(njit(plain)).func is plain
    with pytest.raises(ParameterError, match="flags="):
        kernel("(t)->()")(njit(fastmath=True)(plain))


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({}, "needs the parameter 'p'"),
        ({"p": 1, "r": 2}, "no parameter 'r'"),
        ({"p": [1, 2]}, "p is a list"),
        ({"p": (1, {})}, r"p\[1\] is a dict"),
        ({"p": np.array([None])}, "of dtype object"),
        ({"p": np.ma.masked_array([1])}, "MaskedArray"),
        ({"p": None}, "p is a NoneType"),
    ],
)
def test_wrong_parameters(params, says):
    made = kernel("()->()")(lambda x, p, q=1: x)
    with pytest.raises(ParameterError, match=says):
        made.bind(params)


def test_keys_cover_what_determines_values():
    def base(x):
        return x

    made = [
        kernel("()->()")(base),
        kernel("(n)->()")(base),
        kernel("()->(k)", sizes={"k": 1})(base),
        kernel("()->(k)", sizes={"k": 2})(base),
        kernel("()->()", dtypes=("f4",))(base),
        kernel("()->()", batch=True)(base),
        kernel("()->()", flags={"contract"})(base),
        kernel("()->()")(lambda x: x + 1),
        task("()->()", dtypes=["f8"])(base),
        task("()->()", dtypes=["f8"], tools={"samtools": "1.16"})(base),
        task("()->()", dtypes=["f8"], tools={"samtools": "1.17"})(base),
    ]
    assert len({one.key for one in made}) == len(made)
    again = kernel("()->()", names="other", parallel=3)(base)
    assert again.key == made[0].key
    assert again != made[0] == kernel("( ) -> ( )")(base)
    assert len({made[0], kernel("()->()")(base)}) == 1


def test_a_kernel_that_calls_a_kernel_has_its_key_inside():
    inner = [kernel("()->()")(make) for make in (lambda x: x + 1, lambda x: x + 2)]
    outer = []
    for one in inner:

        def call(x):
            return one(x)  # noqa: B023

        outer.append(kernel("()->()")(call).key)
    assert outer[0] != outer[1]


def test_unkeyable_values_are_refused_by_name():
    handle = object()

    @kernel("()->()")
    def f(x):
        return handle

    with pytest.raises(UnkeyableError, match="closure handle"):
        _ = f.key


def test_explodes():
    assert explodes(kernel("(n)->(k)")(lambda x: x))
    assert explodes(kernel("()->(k),(k)")(lambda x: x))
    assert not explodes(kernel("(n)->(n)")(lambda x: x))
    assert not explodes(kernel("()->(k)", sizes={"k": 2})(lambda x: x))


# -- called on arrays


def test_call_broadcasts_loop_dimensions():
    @kernel("(t),()->()")
    def dot(series, weight):
        return series.sum() * weight

    series, weight = np.arange(24.0).reshape(2, 3, 4), np.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(dot(series, weight), series.sum(-1) * weight)
    assert dot(np.arange(4.0), 2.0) == 12.0
    assert dot(np.arange(4.0), weight).shape == (3,)
    with pytest.raises(DimensionError, match="don't broadcast"):
        dot(series, np.ones(4))
    with pytest.raises(SignatureError, match="takes 2 inputs, not 1"):
        dot(series)
    with pytest.raises(DimensionError, match="has 0 dimensions"):
        dot(3.0, 1.0)


def test_call_with_parameters_and_tables():
    @kernel("()->()")
    def f(x, table, power=2):
        return (x + table.weights[1]) ** power + table.shift

    table = Table(np.array([1.0, 10.0]), 0.5)
    assert f(2.0, table=table) == 144.5
    assert f(2.0, table=table, power=3) == 1728.5
    np.testing.assert_array_equal(f(np.arange(2), table=table), [100.5, 121.5])


def test_call_on_cells_of_different_length():
    @kernel("(n),(m)->()")
    def f(a, b):
        return len(a) * 10 + len(b)

    np.testing.assert_array_equal(f([b"abc", b""], [np.arange(2), np.arange(1)]), [32, 1])
    np.testing.assert_array_equal(f(Ragged.of([b"abc", b""]), b"xy"), [32, 2])
    assert f(b"abc", b"") == 30


def test_call_with_nulls():
    with_valid = kernel("()->()")(lambda x, valid: x if valid else -1)
    without = kernel("()->()")(lambda x: x)
    data = np.ma.masked_array([1, 2, 3], [False, True, False])
    np.testing.assert_array_equal(with_valid(data), [1, -1, 3])
    with pytest.raises(UsageError, match="has nulls"):
        without(data)
    np.testing.assert_array_equal(without(data.astype(float)), [1, np.nan, 3])


def test_call_names_the_cell_that_failed():
    @kernel("()->()")
    def f(x):
        if x == 4:
            raise ValueError("four")
        return x

    with pytest.raises(KernelError, match=r"kernel f failed at cell \(1, 1\): ValueError: four") as caught:
        f(np.arange(6).reshape(2, 3))
    assert (caught.value.op, caught.value.cell, caught.value.cause) == ("f", (1, 1), "ValueError: four")


def test_call_of_an_exploding_kernel():
    made = kernel("()->(k)")(lambda n: np.arange(n))
    found = made(np.array([2, 0, 3]))
    np.testing.assert_array_equal(found.offsets, [0, 2, 2, 5])
    np.testing.assert_array_equal(found.values, [0, 1, 0, 1, 2])
    np.testing.assert_array_equal(made(3), [0, 1, 2])


# -- in other processes


def test_kernels_travel_with_their_key():
    factor = 3

    @kernel("()->()")
    def f(x):
        return x * factor

    sent = pickle.loads(cloudpickle.dumps(f))
    assert sent == f
    assert sent(2) == 6
    assert (sent.parts, sent.parameters) == (f.parts, f.parameters)


SCRIPT = """
import sys, cloudpickle
import gridcompute.compiled
from gridcompute.kernels import kernel
from numba import njit
SCALE = 10
def helper(x): return x * SCALE
@njit
def jitted(x): return x + 1
@kernel("()->()", names="y")
def f(x, offset=1.0):
    return jitted(helper(x)) + offset
def closed(n):
    @kernel("()->()")
    def g(x):
        return f(x) + n
    return g
g = closed(5)
open(sys.argv[1], "wb").write(cloudpickle.dumps((f, g)))
print(f.key, g.key, f(2.0), g(2.0))
"""


def test_kernels_of_a_script_run_elsewhere(tmp_path):
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    run = subprocess.run([sys.executable, tmp_path / "script.py", tmp_path / "sent"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    f_key, g_key, f_value, g_value = run.stdout.split()
    f, g = pickle.loads((tmp_path / "sent").read_bytes())
    assert (f.key, g.key) == (f_key, g_key)
    assert (f(2.0), g(2.0)) == (float(f_value), float(g_value)) == (22.0, 27.0)


def test_errors_of_kernels_are_of_the_tree():
    assert issubclass(KernelError, GridError)
