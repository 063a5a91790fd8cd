from __future__ import annotations

import os
import subprocess
import sys
import threading

import cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import few

from gridcompute import compiled, loops, random
from gridcompute.codecache import compile_seconds
from gridcompute.columns import Field, Fixed, Ragged
from gridcompute.compiled import explode_cells, output_dtypes, run_cells
from gridcompute.errors import DimensionError, KernelError, SignatureError, UsageError
from gridcompute.kernels import kernel, task
from gridcompute.sources.buffers import Buffers

pytestmark = pytest.mark.usefixtures("compiler_traced")


@pytest.fixture(autouse=True, scope="module")
def _private_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRIDCOMPUTE_CACHE", str(tmp_path_factory.mktemp("code")))
        yield


@kernel("()->()")
def doubled(x):
    return 2 * x


@kernel("(t),()->(),(t),(two)", sizes={"two": 2})
def several(series, weight, power=2.0):
    total = 0.0
    for value in series:
        total += value**power
    return total * weight, series * weight, np.array([series[0], weight])


@kernel("(n)->(),(n)")
def strings(text, shift=np.uint8(1)):
    return len(text), (text + shift).astype(np.uint8)


@kernel("->(),()")
def located(cell, rng):
    return cell[0] * 100 + cell[1], random.uniform(rng) + random.uniform(rng)


@kernel("(n)->(k),(k)")
def above(values, limit=0):
    count = 0
    for value in values:
        count += value > limit
    kept = np.empty(count, values.dtype)
    where = np.empty(count, np.int64)
    count = 0
    for i in range(len(values)):
        if values[i] > limit:
            kept[count] = values[i]
            where[count] = i
            count += 1
    return kept, where


SHAPES = st.tuples(st.integers(0, 3), st.integers(0, 4))
DTYPES = st.sampled_from(["f8", ">f8", "f4", "i8"])


@given(SHAPES, st.integers(1, 3), DTYPES, st.integers(0, 2**32))
def test_cells_equal_a_plain_loop(shape, length, dtype, seed):
    rng = np.random.default_rng(seed)
    series = (rng.random((*shape, length)) * 9).astype(dtype)
    weight = (rng.random(shape) * 9).astype("f8")
    outputs = run_cells(
        several, [Fixed(series), Fixed(weight)], {"power": 3.0}, shape=shape, outputs=["f8", "f8", "f8"]
    )
    native = series.astype(series.dtype.newbyteorder("="))
    for index in np.ndindex(*shape):
        total = 0.0
        for value in native[index]:
            total += np.float64(value) ** 3.0
        np.testing.assert_allclose(outputs[0].values[index], total * weight[index], rtol=1e-6)
        np.testing.assert_allclose(outputs[1].values[index], native[index] * weight[index], rtol=1e-6)
        np.testing.assert_allclose(outputs[2].values[index], [native[index][0], weight[index]])
    assert [one.values.shape for one in outputs] == [shape, (*shape, length), (*shape, 2)]


@given(st.lists(st.binary(max_size=5), max_size=6), st.integers(0, 3))
def test_variable_length_cells(texts, skip):
    column = Ragged.of([b"--"] * skip + texts).sliced(skip, skip + len(texts))
    lengths, shifted = run_cells(strings, [column], {"shift": np.uint8(2)}, shape=(len(texts),))
    np.testing.assert_array_equal(lengths.values, [len(text) for text in texts])
    assert [bytes(shifted.values[a:b]) for a, b in zip(shifted.offsets, shifted.offsets[1:], strict=False)] == [
        bytes((np.frombuffer(text, np.uint8) + np.uint8(2)).astype(np.uint8)) for text in texts
    ]
    assert shifted.offsets[0] == 0


@given(st.integers(0, 4), st.integers(0, 4), st.integers(1, 3), st.integers(1, 3))
def test_location_and_draws_do_not_depend_on_the_region(row, column, rows, columns):
    space = (8, 8)
    whole = run_cells(located, [], shape=space, seed=3, rng_name="mc")
    part = run_cells(located, [], shape=(rows, columns), origin=(row, column), space_shape=space, seed=3, rng_name="mc")
    inside = (slice(row, row + rows), slice(column, column + columns))
    for one, other in zip(whole, part, strict=True):
        np.testing.assert_array_equal(one.values[inside], other.values)
    assert part[0].values[0, 0] == row * 100 + column
    other = run_cells(located, [], shape=space, seed=4, rng_name="mc")
    assert (other[1].values != whole[1].values).all()


@given(st.lists(st.lists(st.integers(-3, 3), max_size=5), max_size=6), st.sampled_from([None, 5]))
def test_rows_are_all_kept_in_order(cells, limit):
    column = Ragged.of([np.array(one, np.int64) for one in cells], np.int64)
    counts, (kept, where) = explode_cells(above, [column], shape=(len(cells),), max=limit)
    wanted = [[(value, i) for i, value in enumerate(one) if value > 0] for one in cells]
    assert counts.tolist() == [len(one) for one in wanted]
    assert list(zip(kept.tolist(), where.tolist(), strict=True)) == [pair for one in wanted for pair in one]


def test_a_cell_with_too_many_rows_is_named():
    column = Ragged.of([np.array([1]), np.array([1, 2, 3])], np.int64)
    with pytest.raises(KernelError, match=r"at cell \(11,\) gave 3 rows, more than max=2"):
        explode_cells(above, [column], shape=(2,), origin=(10,), max=2)


def test_rows_of_unequal_length_are_refused():
    bad = kernel("()->(k),(k)")(lambda n: (np.zeros(n), np.zeros(n + 1)))
    with pytest.raises(KernelError, match=r"cell \(0,\) gave 2 rows in output 'lambda_1'"):
        explode_cells(bad, [Fixed(np.array([1]))], shape=(1,))
    with pytest.raises(SignatureError, match="gives no rows"):
        explode_cells(several, [], shape=(1,))
    with pytest.raises(SignatureError, match="use explode"):
        run_cells(bad, [Fixed(np.array([1]))], shape=(1,))


def test_progress_holds_the_cell_that_failed():
    @kernel("()->()")
    def f(x):
        if x < 0:
            raise ValueError("negative")
        return x

    values = np.arange(12.0)
    values[7] = -1
    mark = np.zeros(1, np.int64)
    with pytest.raises(KernelError) as caught:
        run_cells(f, [Fixed(values.reshape(3, 4))], shape=(3, 4), origin=(10, 20), space_shape=(99, 99), progress=mark)
    assert mark[0] == 7
    assert caught.value.cell == (11, 23)


def test_progress_is_seen_while_the_loop_runs():
    @kernel("(stop)->()")
    def wait(stop):
        total = 0.0
        for i in range(20_000):
            total += np.sqrt(total + i)
        return total

    mark, seen, done = np.full(1, -1, np.int64), set(), threading.Event()

    def work():
        run_cells(wait, [Fixed(np.zeros((2000, 1)))], shape=(2000,), progress=mark)
        done.set()

    run_cells(wait, [Fixed(np.zeros((1, 1)))], shape=(1,))
    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        seen.add(int(mark[0]))
    thread.join()
    assert len(seen) > 2
    assert mark[0] == 1999


@pytest.mark.parametrize(("found", "says"), [(3, "gave 3 elements along 'k'"), (1, "gave 1 elements along 'k'")])
def test_an_array_of_a_wrong_length_is_refused(found, says):
    bad = kernel("()->(k)", sizes={"k": 2})(lambda n: np.zeros(n))
    with pytest.raises(KernelError, match=says) as caught:
        run_cells(bad, [Fixed(np.array([2, found]))], shape=(2,))
    assert caught.value.cell == (1,)


def test_read_only_and_odd_inputs_share_one_compilation():
    before = compile_seconds()
    total = kernel("(t)->()")(lambda series: series.sum())
    values = np.arange(12.0).reshape(3, 4)
    run_cells(total, [Fixed(values)], shape=(3,))
    once = compile_seconds()
    assert once > before
    frozen = values.copy()
    frozen.flags.writeable = False
    unaligned = np.frombuffer(b"x" + values.tobytes(), "f8", offset=1).reshape(3, 4)
    for odd in (frozen, unaligned, values.astype(">f8"), np.asfortranarray(values), np.ones((3, 8))[:, ::2] * values):
        np.testing.assert_array_equal(run_cells(total, [Fixed(odd)], shape=(3,))[0].values, values.sum(1))
    assert compile_seconds() == once


def test_inputs_are_not_for_writing():
    @kernel("(t)->()")
    def sort(series):
        series.sort()
        return series[0]

    with pytest.raises(UsageError, match="can't be compiled"):
        run_cells(sort, [Fixed(np.arange(6.0).reshape(2, 3))], shape=(2,))


def test_division_by_zero_is_ieee():
    divide = kernel("(),()->(),()")(lambda a, b: (a / b, (a - 1.0) / b))
    inf, nan = run_cells(divide, [Fixed(np.array(1.0)), Fixed(np.array(0.0))], shape=())
    assert np.isinf(inf.values)
    assert np.isnan(nan.values)


def test_strict_unless_flags_say_otherwise():
    # Reassociated, (x + 1e16) - 1e16 would be x.
    strict = kernel("()->()")(lambda x: (x + 1e16) - 1e16)
    loose = kernel("()->()", flags={"reassoc"})(lambda x: (x + 1e16) - 1e16)
    values = Fixed(np.array([1.0]))
    assert run_cells(strict, [values], shape=(1,))[0].values[0] == 0
    assert run_cells(loose, [values], shape=(1,))[0].values[0] in (0, 1)
    assert strict.key != loose.key


# -- nulls


@pytest.mark.parametrize(
    "column",
    [
        Fixed(np.array([1, 2]), np.array([True, False])),
        Fixed(np.array([True, True]), np.array([True, False])),
        Ragged(np.array([0, 1, 2]), np.zeros(2, np.uint8), np.array([True, False])),
    ],
)
def test_nulls_need_a_kernel_that_sees_them(column):
    core = "(n)" if isinstance(column, Ragged) else "()"
    size = kernel(f"{core}->()")(lambda x: 1)
    with pytest.raises(UsageError, match="has nulls"):
        run_cells(size, [column], shape=(2,))
    seen = kernel(f"{core}->()")(lambda x, valid: valid)
    np.testing.assert_array_equal(run_cells(seen, [column], shape=(2,))[0].values, [True, False])


def test_float_nulls_are_nan():
    valid = np.array([[True, False], [True, True]])
    total = kernel("(t)->()")(lambda x: x.sum())
    found = run_cells(total, [Fixed(np.ones((2, 2), "f4"), valid)], shape=(2,))[0].values
    np.testing.assert_array_equal(found, np.array([np.nan, 2], "f4"))


@given(st.lists(st.booleans(), min_size=1, max_size=5), st.integers(-5, 5))
def test_what_lies_under_a_null_does_not_show(valid, under):
    mask = np.array(valid)
    both = kernel("(),(n)->(),()")(_both)
    values = Fixed(np.where(mask, 7, under), mask)
    lengths = np.where(mask, 2, abs(under))
    texts = Ragged(np.concatenate(([0], np.cumsum(lengths))), np.ones(lengths.sum(), np.uint8), mask)
    first, second = run_cells(both, [values, texts], shape=(len(valid),))
    np.testing.assert_array_equal(first.values, np.where(mask, 7, 0))
    np.testing.assert_array_equal(second.values, np.where(mask, 3, 0))


def _both(x, text, valid):
    return x, len(text) + valid[1]


# -- inputs that don't fit


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([Fixed(np.ones((3, 4))), Fixed(np.ones(2))], "has the shape"),
        ([Fixed(np.ones(2)), Fixed(np.ones(2))], "has the shape"),
        ([Fixed(np.ones((2, 4))), Ragged.of([b"", b""])], "different lengths"),
        ([Ragged.of([b""]), Fixed(np.ones(2))], "has 1 cells, the region 2"),
        ([Ragged(np.array([0, 9, 1]), np.ones(2)), Fixed(np.ones(2))], "don't lie"),
        ([Ragged(np.array([0, 1, 9]), np.ones(2)), Fixed(np.ones(2))], "don't lie"),
        ([Fixed(np.ones((2, 4)), np.ones(2, bool)), Fixed(np.ones(2))], "mask of shape"),
    ],
)
def test_inputs_that_do_not_fit(inputs, says):
    with pytest.raises(DimensionError, match=says):
        run_cells(several, inputs, shape=(2,))


def test_lengths_of_one_name_agree():
    dot = kernel("(n),(n)->()")(lambda a, b: a[0] * b[0])
    with pytest.raises(DimensionError, match="length 4 along 'n', not 3"):
        run_cells(dot, [Fixed(np.ones((1, 3))), Fixed(np.ones((1, 4)))], shape=(1,))
    with pytest.raises(DimensionError, match="differs in its lengths"):
        run_cells(dot, [Ragged.of([b"ab"]), Ragged.of([b"a"])], shape=(1,))
    with pytest.raises(DimensionError, match="differs from cell to cell"):
        run_cells(dot, [Ragged.of([b"ab"]), Fixed(np.ones((1, 2)))], shape=(1,))


# -- dtypes


def test_dtypes_are_inferred_from_fields_and_columns():
    series, weight = Field("x", ("lat", "time"), np.dtype(">f4")), (np.float64, False)
    assert output_dtypes(several, [series, weight]) == [np.dtype("f8")] * 3
    assert output_dtypes(strings, [Field("s", ("read",), np.dtype("u1"), "string")]) == [np.dtype("i8"), np.dtype("u1")]
    assert output_dtypes(located, [], ndim=2) == [np.dtype("i8"), np.dtype("f8")]
    assert output_dtypes(above, [Ragged.of([b"a"])], {"limit": 3}) == [np.dtype("u1"), np.dtype("i8")]
    declared = kernel("()->()", dtypes=["f4"])(lambda x: x)
    assert output_dtypes(declared, [weight]) == [np.dtype("f4")]
    assert run_cells(declared, [Fixed(np.array([1.5]))], shape=(1,))[0].values.dtype == np.float32


@pytest.mark.parametrize(
    ("signature", "func", "says"),
    [
        ("()->()", lambda x: (x, x), "returns 2 values"),
        ("()->(),()", lambda x: x, "returns 1 value$"),
        ("()->()", lambda x: None, "returns nothing"),
        ("()->()", lambda x: np.zeros(3), "should have 0 dimensions"),
        ("(n)->(n)", lambda x: x.sum(), "should have 1 dimensions"),
        ("()->()", lambda x: "text", "no array can hold"),
    ],
)
def test_results_that_do_not_match_the_signature(signature, func, says):
    made = kernel(signature)(func)
    with pytest.raises(SignatureError, match=says):
        output_dtypes(made, [(np.float64, False)])


def test_what_numba_cannot_compile_is_a_clear_error():
    @kernel("()->()")
    def f(x):
        return x.whatever

    with pytest.raises(UsageError, match="kernel f can't be compiled: Unknown attribute 'whatever'"):
        output_dtypes(f, [(np.float64, False)])


# -- whole chunks


def test_batch_kernels():
    with_cell = kernel("(t),(n)->(),(t)", batch=True)(_batch)
    values = np.arange(12.0).reshape(2, 2, 3)
    first, second = run_cells(
        with_cell, [Fixed(values), Ragged.of([b"a", b"", b"bcd", b"e"])], {"scale": 2.0}, shape=(2, 2), origin=(5, 6)
    )
    np.testing.assert_array_equal(first.values, values.sum(-1) + np.array([[6 + 1, 7 + 0], [6 + 3, 7 + 1]]))
    np.testing.assert_array_equal(second.values, values * 2)


def _batch(series, text, scale, cell):
    offsets, _ = text
    return series.sum(axis=1) + cell[:, 1] + (offsets[1:] - offsets[:-1]), series * scale


def _own_lengths(text, number):
    at, _ = text
    offsets = np.zeros(len(at), np.int64)
    for i in range(len(at) - 1):
        offsets[i + 1] = offsets[i] + number[i]
    return at[1:] - at[:-1], (offsets, np.arange(offsets[-1]) * 0.5), (offsets, np.arange(offsets[-1]))


@pytest.mark.parametrize("dtypes", [None, ("i8", "f8", "i4")])
def test_batch_kernels_give_runs_of_their_own_lengths(dtypes):
    runs = kernel("(n),()->(),(k),(k)", batch=True, names=("length", "half", "whole"), dtypes=dtypes)(_own_lengths)
    given = [Ragged.of([b"a", b"", b"bcd"]), Fixed(np.array([2, 0, 1]))]
    length, half, whole = run_cells(runs, given, shape=(3,))
    assert length.values.tolist() == [1, 0, 3]
    assert (half.offsets.tolist(), half.values.tolist()) == ([0, 2, 2, 3], [0, 0.5, 1])
    assert (whole.offsets.tolist(), whole.values.dtype) == ([0, 2, 2, 3], np.dtype(dtypes[2] if dtypes else "i8"))
    none = run_cells(runs, [Ragged.of([]), Fixed(np.zeros(0, np.int64))], shape=(0,))
    assert [one.offsets.tolist() for one in none[1:]] == [[0], [0]]
    again = runs([b"a", b"", b"bcd"], np.array([2, 0, 1]))
    assert again[1].values.tolist() == half.values.tolist()


def test_tasks_give_runs_of_their_own_lengths():
    f = task("()->(k),()", dtypes=["i8", "i8"])(lambda n: ([list(range(one)) for one in n], n))
    runs, _ = run_cells(f, [Fixed(np.array([2, 0, 1]))], shape=(3,))
    assert (runs.offsets.tolist(), runs.values.tolist()) == ([0, 2, 2, 3], [0, 1, 0])


@pytest.mark.parametrize(
    ("func", "says"),
    [
        (lambda n: (n, (np.array([0, 1]), np.ones(1))), "aren't 4 rising places"),
        (lambda n: (n, (np.array([0, 2, 1, 3]), np.ones(3))), "aren't 4 rising places"),
        (lambda n: (n, (np.array([0, 1, 2, 4]), np.ones(3))), "aren't 4 rising places"),
        (lambda n: (n, (np.array([0.0, 1, 2, 3]), np.ones(3))), "no whole numbers"),
    ],
)
def test_runs_with_wrong_offsets(func, says):
    with pytest.raises(KernelError, match=says):
        run_cells(task("()->(),(k)", dtypes=["i8", "f8"])(func), [Fixed(np.ones(3))], shape=(3,))


def test_runs_of_two_lengths_along_one_dimension():
    f = task("()->(k),(k),()", dtypes=["i8", "i8", "i8"])(lambda n: ([[1]], [[1, 2]], n))
    with pytest.raises(KernelError, match="other lengths along 'k'"):
        run_cells(f, [Fixed(np.ones(1))], shape=(1,))


def test_a_run_that_is_not_a_pair():
    with pytest.raises(SignatureError, match=r"return \(offsets, values\)"):
        output_dtypes(kernel("()->(),(k)", batch=True)(lambda x: (x, x)), [(np.float64, False)])


def test_tasks():
    @task("(n),()->(),(n)", dtypes=["i8", "u1"], tools={"python": "3"})
    def f(texts, numbers, add, cell):
        listed = texts.to_pylist()
        sums = [len(text) + number + add for text, number in zip(listed, numbers, strict=True)]
        return sums, [text.upper() for text in listed]

    column = Ragged.of([b"-", b"abc", b"x"]).sliced(1, 3)
    lengths, upper = run_cells(f, [column, Fixed(np.array([10, 20]))], {"add": 100}, shape=(2,))
    assert lengths.values.tolist() == [113, 121]
    assert (upper.offsets.tolist(), upper.values.tobytes()) == ([0, 3, 4], b"ABCX")
    lists = task("(n)->()", dtypes=["f8"])(lambda x: [sum(one or [-1.0]) for one in x.to_pylist()])
    nulls = Ragged.of([np.array([1.0, 2.0]), np.array([5.0])], float)
    assert run_cells(lists, [nulls], shape=(2,))[0].values.tolist() == [3.0, 5.0]


def test_tasks_and_batches_that_explode():
    rows = task("()->(k)", dtypes=["i8"])(lambda n: (n, np.concatenate([np.arange(one) for one in n])))
    counts, (values,) = explode_cells(rows, [Fixed(np.array([2, 0, 1]))], shape=(3,))
    assert (counts.tolist(), values.tolist()) == ([2, 0, 1], [0, 1, 0])
    with pytest.raises(KernelError, match=r"cell \(0,\) gave 2 rows"):
        explode_cells(rows, [Fixed(np.array([2, 0, 1]))], shape=(3,), max=1)
    compiled = kernel("()->(k)", batch=True)(lambda n: (n, np.ones(n.sum())))
    counts, (values,) = explode_cells(compiled, [Fixed(np.array([2, 0, 1]))], shape=(3,))
    assert (counts.tolist(), values.tolist()) == ([2, 0, 1], [1, 1, 1])


@pytest.mark.parametrize(
    ("func", "says"),
    [
        (lambda x: x[:1], "gave the shape"),
        (lambda x: (x, x), "returned 2 outputs"),
        (lambda x: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_tasks_that_go_wrong(func, says):
    with pytest.raises(KernelError, match=says):
        run_cells(task("()->()", dtypes=["f8"])(func), [Fixed(np.ones(3))], shape=(3,))


# -- without a compiler


PLAIN = """
import sys, pickle, numpy as np
kernels, calls = pickle.load(open(sys.argv[1], "rb"))
from gridcompute.compiled import run_cells, explode_cells
from gridcompute.columns import Fixed, Ragged
found = []
for name, inputs, options in calls:
    call = explode_cells if name == "above" else run_cells
    out = call(kernels[name], inputs, **options)
    out = [out[0], *out[1]] if name == "above" else [one.values for one in out]
    found.append([(one.dtype.str, one.shape, one.tobytes()) for one in out])
pickle.dump(found, open(sys.argv[2], "wb"))
"""


def test_the_plain_loop_gives_the_same_bits(tmp_path):
    rng = np.random.default_rng(1)
    cells = [rng.integers(-9, 9, n) for n in (3, 0, 5)]
    calls = [
        (
            "several",
            [Fixed(rng.random((3, 2, 5))), Fixed(rng.random((3, 2)))],
            {"shape": (3, 2), "params": {"power": 2.0}},
        ),
        (
            "several",
            [Fixed(rng.integers(-(2**62), 2**62, (2, 5))), Fixed(rng.integers(1, 2**62, 2))],
            {"shape": (2,), "params": {"power": 1.0}},
        ),
        ("strings", [Ragged.of([b"abc", b"", b"\xff"])], {"shape": (3,)}),
        ("located", [], {"shape": (3, 4), "origin": (1, 2), "space_shape": (9, 9), "seed": 5, "rng_name": "x"}),
        ("above", [Ragged.of(cells, np.int64)], {"shape": (3,), "params": {"limit": 2}}),
        ("above", [Ragged.of(cells, np.int64)], {"shape": (3,), "max": 9}),
    ]
    kernels = {"several": several, "strings": strings, "located": located, "above": above}
    (tmp_path / "calls").write_bytes(cloudpickle.dumps((kernels, calls)))
    found = []
    for disabled in "01":
        target = tmp_path / f"out{disabled}"
        env = {**os.environ, "NUMBA_DISABLE_JIT": disabled, "PYTHONPATH": os.path.dirname(__file__)}
        command = [sys.executable, "-W", "error", "-c", PLAIN, tmp_path / "calls", target]
        run = subprocess.run(command, text=True, capture_output=True, env=env)
        assert run.returncode == 0, run.stderr
        found.append(target.read_bytes())
    assert found[0] == found[1]


def test_a_kernel_whose_globals_changed_since_its_key_is_refused():
    space = {"SCALE": 2}
    exec("def f(x):\n    return x * SCALE", space)
    made = kernel("()->()")(space["f"])
    assert made.key
    space["SCALE"] = 3
    with pytest.raises(UsageError, match="has changed since its key"):
        run_cells(made, [Fixed(np.ones(1))], shape=(1,))


@settings(max_examples=few(5))
@given(st.integers(2, 4))
def test_threads_share_a_loop(threads):
    values = np.arange(3000.0).reshape(1000, 3)
    total = kernel("(t),()->()")(_weighted)
    results: list = [None] * threads

    def work(i):
        results[i] = run_cells(total, [Fixed(values), Fixed(np.full(1000, float(i)))], shape=(1000,))[0].values

    pool = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    for i, found in enumerate(results):
        np.testing.assert_array_equal(found, values.sum(1) * i)


def _weighted(series, weight):
    return series.sum() * weight


def _values():
    for dtype in ("i4", "i8", "f4", "f8", "?", "M8[s]", "m8[s]", "m8[ms]", [("a", "i4")]):
        base = np.zeros((2, 3), dtype)
        frozen = base.copy()
        frozen.flags.writeable = False
        yield from (base, frozen, base.T, base[::-1], base[:, ::2], base[0], base[:1, :1], base[0, 0])
    yield from (np.broadcast_to(np.zeros(3), (2, 3)), np.zeros(()), np.zeros(9, np.int8)[1:].view(np.int64))
    yield from (True, 1, 2**63, 1.0, 1j, (), (1,), (2**63,), (np.int64(1),), (np.int64(1), np.int32(2)), "text")


def test_marks_of_arguments_differ_wherever_their_types_do() -> None:
    values = list(_values())
    marked = [(loops._mark(one), loops.typeof(one)) for one in values]
    for mark, known in marked:
        assert {str(other) for same, other in marked if same == mark} == {str(known)}


def test_a_large_output_lies_where_one_was_that_is_gone(monkeypatch):
    """And never where one still is."""
    monkeypatch.setattr(compiled, "BUFFERS", Buffers())
    x = np.arange(compiled.LARGE_BYTES // 8, dtype="f8")

    def made(x):
        return run_cells(doubled, [Fixed(x)], shape=x.shape)[0].values

    first, second = made(x), made(x + 1)
    place = second.ctypes.data
    np.testing.assert_array_equal(first, 2 * x)
    del second
    third = made(x + 2)
    assert third.ctypes.data == place
    np.testing.assert_array_equal(first, 2 * x)
    np.testing.assert_array_equal(third, 2 * x + 4)
