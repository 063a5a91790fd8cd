"""What vectors are, in Python with NumPy: what kernels do without numba, and what compiled ones are tested against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gridcompute.columns import Array


@dataclass(frozen=True)
class Kind:
    """What lanes a vector has.

    Attributes:
        dtype: of a lane.
        lanes: how many; a power of two.
    """

    dtype: np.dtype[Any]
    lanes: int

    @property
    def name(self) -> str:
        """As it is imported, such as i8x64."""
        return f"{self.dtype.kind}{self.dtype.itemsize * 8}x{self.lanes}"

    def __repr__(self) -> str:
        return self.name

    def splat(self, value: int) -> Vector:
        """The value in each lane; of a wider integer the lowest bits."""
        return Vector(self, np.full(self.lanes, _low_bits(value, self.dtype)))

    def ramp(self) -> Vector:
        """0, 1, 2, ... by lane."""
        return Vector(self, np.arange(self.lanes).astype(self.dtype))

    def load(self, array: Array, at: int) -> Vector:
        """Elements at, at + 1, ... of a contiguous array of one dimension and of this dtype. Compiled code doesn't
        look whether they are there.

        Raises:
            IndexError: they aren't (in Python).
        """
        _require_within(self, array, at)
        return Vector(self, array[at : at + self.lanes].copy())

    def of(self, other: Vector) -> Vector:
        """The lanes of another kind, of which there are as many: extended by its sign, or cut to the lowest bits."""
        _require(other.kind.lanes == self.lanes, f"{other.kind} has {other.kind.lanes} lanes, {self} has {self.lanes}")
        return Vector(self, other.values.astype(self.dtype))

    def join(self, low: Vector, high: Vector) -> Vector:
        """The lanes of two halves."""
        _require(low.kind == high.kind == half(self), f"{self} is joined of two {half(self)}")
        return Vector(self, np.concatenate((low.values, high.values)))


@dataclass(frozen=True, eq=False)
class Vector:
    """Integers by lane. Arithmetic is modulo 2^bits.

    Attributes:
        kind: of the lanes.
        values: of the lanes.
    """

    kind: Kind
    values: Array

    def __add__(self, other: Vector) -> Vector:
        return self._with(other, np.add)

    def __sub__(self, other: Vector) -> Vector:
        return self._with(other, np.subtract)

    def __mul__(self, other: Vector) -> Vector:
        return self._with(other, np.multiply)

    def __and__(self, other: Vector) -> Vector:
        return self._with(other, np.bitwise_and)

    def __or__(self, other: Vector) -> Vector:
        return self._with(other, np.bitwise_or)

    def __xor__(self, other: Vector) -> Vector:
        return self._with(other, np.bitwise_xor)

    def __invert__(self) -> Vector:
        return Vector(self.kind, ~self.values)

    def __lshift__(self, by: Vector) -> Vector:
        """By the other's lanes, modulo the bits of one."""
        return Vector(self.kind, self.values << self._counts(by))

    def __rshift__(self, by: Vector) -> Vector:
        """As `<<`; signed lanes keep their sign."""
        return Vector(self.kind, self.values >> self._counts(by))

    def __eq__(self, other: object) -> Mask:  # type: ignore[override]
        return self._compared(other, np.equal)

    def __ne__(self, other: object) -> Mask:  # type: ignore[override]
        return self._compared(other, np.not_equal)

    def __lt__(self, other: Vector) -> Mask:
        return self._compared(other, np.less)

    def __le__(self, other: Vector) -> Mask:
        return self._compared(other, np.less_equal)

    def __gt__(self, other: Vector) -> Mask:
        return self._compared(other, np.greater)

    def __ge__(self, other: Vector) -> Mask:
        return self._compared(other, np.greater_equal)

    __hash__ = None  # type: ignore[assignment]

    def add_saturated(self, other: Vector) -> Vector:
        """The sum, or the least or greatest value where it goes beyond."""
        return self._saturated(other, int.__add__)

    def sub_saturated(self, other: Vector) -> Vector:
        """The difference, or the least or greatest value where it goes beyond."""
        return self._saturated(other, int.__sub__)

    def max(self, other: Vector) -> Vector:
        """The greater one by lane."""
        return self._with(other, np.maximum)

    def min(self, other: Vector) -> Vector:
        """The lesser one by lane."""
        return self._with(other, np.minimum)

    def permute(self, index: Vector) -> Vector:
        """Lane l of the result is lane index[l], modulo the number of lanes, of this: a table of so many entries."""
        self._require_same(index)
        return Vector(self.kind, self.values[index.values.astype(np.int64) % self.kind.lanes])

    def store(self, array: Array, at: int) -> None:
        """Write the lanes to elements at, at + 1, ... of an array; see `Kind.load`."""
        _require_within(self.kind, array, at)
        array[at : at + self.kind.lanes] = self.values

    def lane(self, number: int) -> int:
        """The value of one lane, counted from 0, modulo the number of lanes."""
        found: int = self.values[number % self.kind.lanes]
        return found

    def low(self) -> Vector:
        """The first half of the lanes."""
        return Vector(half(self.kind), self.values[: self.kind.lanes // 2])

    def high(self) -> Vector:
        """The second half of the lanes."""
        return Vector(half(self.kind), self.values[self.kind.lanes // 2 :])

    def _require_same(self, other: object) -> None:
        _require(isinstance(other, Vector) and other.kind == self.kind,
                 f"{self.kind} goes with {self.kind}, not with {getattr(other, 'kind', type(other).__name__)}")

    def _with(self, other: Vector, ufunc: Any) -> Vector:
        self._require_same(other)
        with np.errstate(over="ignore"):
            return Vector(self.kind, ufunc(self.values, other.values))

    def _compared(self, other: Any, ufunc: Any) -> Mask:
        self._require_same(other)
        return Mask(ufunc(self.values, other.values))

    def _counts(self, by: Vector) -> Array:
        self._require_same(by)
        counts: Array = by.values & by.values.dtype.type(self.kind.dtype.itemsize * 8 - 1)
        return counts

    def _saturated(self, other: Vector, step: Any) -> Vector:
        self._require_same(other)
        span = np.iinfo(self.kind.dtype)
        found = [min(max(step(a, b), span.min), span.max) for a, b in
                 zip(self.values.tolist(), other.values.tolist(), strict=True)]
        return Vector(self.kind, np.array(found, self.kind.dtype))


@dataclass(frozen=True, eq=False)
class Mask:
    """True or false by lane: what comparing vectors gives.

    Attributes:
        values: of the lanes.
    """

    values: Array

    def __and__(self, other: Mask) -> Mask:
        return Mask(self.values & other.values)

    def __or__(self, other: Mask) -> Mask:
        return Mask(self.values | other.values)

    def __xor__(self, other: Mask) -> Mask:
        return Mask(self.values ^ other.values)

    def __invert__(self) -> Mask:
        return Mask(~self.values)

    def select(self, there: Vector, elsewhere: Vector) -> Vector:
        """Lanes of `there` where this is true, of `elsewhere` where it isn't."""
        there._require_same(elsewhere)
        _require(there.kind.lanes == len(self.values), f"a mask of {len(self.values)} lanes chooses among {there.kind}")
        return Vector(there.kind, np.where(self.values, there.values, elsewhere.values))

    def bits(self) -> Any:
        """A uint64 whose bit l is lane l."""
        return np.uint64(int.from_bytes(np.packbits(self.values, bitorder="little").tobytes(), "little"))

    def any(self) -> bool:
        """Whether it is true in a lane."""
        return bool(self.values.any())

    def all(self) -> bool:
        """Whether it is true in all lanes."""
        return bool(self.values.all())


def half(kind: Kind) -> Kind:
    """The kind with half as many lanes."""
    return Kind(kind.dtype, kind.lanes // 2)


def _low_bits(value: int, dtype: np.dtype[Any]) -> Any:
    return np.array(int(value) & (2 ** (dtype.itemsize * 8) - 1), np.uint64).astype(dtype)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise TypeError(message)


def _require_within(kind: Kind, array: Array, at: int) -> None:
    _require(array.ndim == 1 and array.flags.c_contiguous and array.dtype == kind.dtype,
             f"{kind} wants a contiguous array of one dimension and of {kind.dtype}, not {array.dtype} {array.shape}")
    if not 0 <= at <= len(array) - kind.lanes:
        raise IndexError(f"elements {at} to {at + kind.lanes} of an array of {len(array)}")


def _kinds(bits: int) -> dict[str, Kind]:
    found = [Kind(np.dtype(f"{sign}{size}"), bits // (8 * size)) for sign in "iu" for size in (1, 2, 4, 8)]
    return {kind.name: kind for kind in found}


KINDS = {**_kinds(512), **_kinds(256)}
"""All of them by name."""

i8x64, i16x32, i32x16, i64x8, u8x64, u16x32, u32x16, u64x8 = _kinds(512).values()
i8x32, i16x16, i32x8, i64x4, u8x32, u16x16, u32x8, u64x4 = _kinds(256).values()
