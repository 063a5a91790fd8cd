"""Vectors for kernels: each operation as NumPy does it, on whatever processor; in kernels, compiled and plain."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba as nb
import numpy as np
import pytest
import vector_ops
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numba.core.errors import TypingError

import gridcompute as grid
from gridcompute.vectors import KINDS, Kind, Mask, Vector, i8x32, i8x64, i16x32, u8x64
from gridcompute.vectors.permute import permuted

pytestmark = pytest.mark.usefixtures("compiler_traced")

COMPILED: dict[str, Any] = {}


@pytest.mark.parametrize("name", ["i8x64", "u8x32", "i16x32", "u16x16", "i32x8", "u32x16", "i64x8", "u64x4"])
@given(data=st.data())
@settings(max_examples=30)
def test_each_operation_is_numpy_s(name: str, data: st.DataObject) -> None:
    kind = KINDS[name]
    function = COMPILED.setdefault(name, nb.njit(vector_ops.everything(kind)))
    lanes = hnp.arrays(kind.dtype, kind.lanes)
    arrays = [data.draw(lanes) for _ in range(3)]
    vector_ops.same(function, function.py_func, kind, arrays, data.draw(st.integers(-(2**62), 2**62)))


@pytest.mark.parametrize(("cpu", "features"), [
    ("generic", ""), ("x86-64-v2", "+ssse3"), ("haswell", "+ssse3,+avx2"),
    ("skylake-avx512", "+ssse3,+avx2,+avx512f,+avx512bw,+avx512vl"),
])  # fmt: skip
def test_the_bits_are_the_same_on_other_processors(cpu: str, features: str) -> None:
    """Of the kinds whose lanes are permuted by other instructions there."""
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    missing = {one for one in features.replace("+", "").split(",") if one} - set(flags.split())
    if missing:
        pytest.skip(f"this processor has no {', '.join(sorted(missing))}")
    names = ["i8x64", "u8x32", "i16x32", "i32x8"]
    told = subprocess.run([sys.executable, vector_ops.__file__, *names], capture_output=True, text=True, check=False,
                          env={**os.environ, "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features})
    assert told.stdout.split() == ["equal:", *names], told.stderr


def test_which_instruction_permutes() -> None:
    from llvmlite import ir

    def chosen(kind: Kind, features: str) -> str:
        vector = ir.VectorType(ir.IntType(kind.dtype.itemsize * 8), kind.lanes)
        function = ir.Function(ir.Module(), ir.FunctionType(vector, [vector, vector]), "f")
        builder = ir.IRBuilder(function.append_basic_block())
        builder.ret(permuted(builder, kind, *function.args, features=features))
        return str(function.module)

    assert "avx512.permvar.qi.512" in chosen(i8x64, "+avx512vbmi,+avx2")
    assert "avx2.pshuf.b" in chosen(i8x64, "-avx512vbmi,+avx2,+ssse3")
    assert "ssse3.pshuf.b.128" in chosen(i8x32, "+ssse3")
    assert "avx512.permvar.hi.512" in chosen(i16x32, "+avx512bw")
    assert "call" not in chosen(i16x32, "+avx2")


@pytest.mark.parametrize("mode", ["compiled", "plain"])
def test_in_a_kernel(mode: str, tmp_path: Path) -> None:
    job = tmp_path / "job.py"
    job.write_text(KERNEL)
    plain = {"NUMBA_DISABLE_JIT": "1"} if mode == "plain" else {}
    own = {"GRIDCOMPUTE_STATE": str(tmp_path / "state"), "GRIDCOMPUTE_CACHE": str(tmp_path / "code")}
    subprocess.run([sys.executable, str(job)], check=True, cwd=tmp_path, env={**os.environ, **own, **plain})


KERNEL = """
import numpy as np
import gridcompute as grid
from gridcompute.vectors import i16x32

@grid.kernel("(n)->()", names=("best",))
def best(values):
    found = i16x32.splat(-32768)
    for at in range(0, len(values) - 31, 32):
        found = found.max(i16x32.load(values, at))
    most = found.lane(0)
    for lane in range(1, 32):
        most = max(most, found.lane(lane))
    return most

values = np.random.default_rng(0).integers(-3000, 3000, (50, 320)).astype("i2")
run = grid.run(grid.from_arrays({"x": values}, dims=("row", "n"))["x"].map(best), executor="inline", quiet=True)
assert (run["best"].to_numpy() == values.max(axis=1)).all()
"""


def test_an_edited_kind_makes_another_kernel() -> None:
    def of(kind: Kind) -> str:
        @grid.kernel("()->()")
        def one(x):  # type: ignore[no-untyped-def]
            return kind.splat(x).lane(0)

        return str(one.key)

    assert of(i8x64) == of(KINDS["i8x64"]) != of(i8x32)


def test_what_does_not_go_together() -> None:
    bytes_, words = np.zeros(64, "i1"), np.zeros(64, "i2")

    def add(a, b):  # type: ignore[no-untyped-def]
        return (i8x64.load(a, 0) + u8x64.load(b, 0)).lane(0)

    def load(a):  # type: ignore[no-untyped-def]
        return i8x64.load(a, 0).lane(0)

    with pytest.raises(TypeError, match="i8x64 goes with i8x64, not with u8x64"):
        add(bytes_, bytes_.view("u1"))
    with pytest.raises(TypingError):
        nb.njit(add)(bytes_, bytes_.view("u1"))
    for wrong in (words, bytes_[::2], bytes_.reshape(8, 8)):
        with pytest.raises(TypeError, match="i8x64 wants a contiguous array of one dimension and of int8"):
            load(wrong)
        with pytest.raises(TypingError):
            nb.njit(load)(wrong)
    with pytest.raises(IndexError, match="elements 1 to 65 of an array of 64"):
        i8x64.load(bytes_, 1)
    with pytest.raises(TypeError, match="u8x64 has 64 lanes, i16x32 has 32"):
        i16x32.of(u8x64.splat(1))
    with pytest.raises(TypeError, match="a mask of 32 lanes chooses among i8x64"):
        Mask(np.ones(32, bool)).select(i8x64.splat(1), i8x64.splat(2))
    with pytest.raises(TypeError, match="i8x64 is joined of two i8x32"):
        i8x64.join(i8x64.splat(1), i8x64.splat(2))


def test_read_only_arrays_are_not_stored_to() -> None:
    array = np.zeros(64, "i1")
    array.flags.writeable = False

    def store(a):  # type: ignore[no-untyped-def]
        i8x64.splat(3).store(a, 0)

    with pytest.raises(ValueError, match="read-only"):
        store(array)
    with pytest.raises(TypingError):
        nb.njit(store)(array)


@given(st.integers(-(2**70), 2**70))
def test_a_splat_has_the_lowest_bits(value: int) -> None:
    for kind in KINDS.values():
        found = kind.splat(value)
        assert isinstance(found, Vector)
        bits = 8 * kind.dtype.itemsize
        assert {int(one) % 2**bits for one in found.values.tolist()} == {value % 2**bits}
