"""A kernel's inputs over one region, checked and laid out as its loop wants them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gridcompute.codecache import shared_tuple
from gridcompute.columns import Column, Fixed, Ragged
from gridcompute.errors import DimensionError, SignatureError, UsageError
from gridcompute.kernels import Kernel
from gridcompute.loops import read_only

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Cells:
    """What a loop runs over.

    Attributes:
        shape: extents over the loop dimensions.
        origin: index of the first cell.
        space_shape: extents of the whole space.
        columns: per input read-only arrays with the cells as the first axis; nulls are NaN or zero.
        masks: per input its mask (of the values' shape; per cell where ragged) if the kernel takes `valid`,
            else None.
        lengths: length of each core dimension that is the same in all cells.
        ragged: offsets of each core dimension that isn't.
        params: the kernel's parameters, in its order.
    """

    shape: tuple[int, ...]
    origin: tuple[int, ...]
    space_shape: tuple[int, ...]
    columns: tuple[Column, ...]
    masks: tuple[Array | None, ...]
    lengths: dict[str, int]
    ragged: dict[str, Array]
    params: dict[str, Any]

    @property
    def count(self) -> int:
        """Number of cells."""
        return math.prod(self.shape)

    def index(self, position: int) -> tuple[int, ...]:
        """Index in the space of the cell at a position in the region, last dimension fastest."""
        if not self.shape:
            return ()
        inside = np.unravel_index(position, self.shape)
        return tuple(int(first + one) for first, one in zip(self.origin, inside, strict=True))

    def indices(self) -> Array:
        """Indices of all cells: int64, (cells, dimensions)."""
        if not self.shape:
            return np.zeros((self.count, 0), np.int64)
        inside = np.indices(self.shape, np.int64).reshape(len(self.shape), -1).T
        return np.ascontiguousarray(inside + np.array(self.origin, np.int64))

    def linear(self) -> int:
        """Linear index in the space of the first cell."""
        index = 0  # the first length doesn't count, and may be unknown (0)
        for at, length in zip(self.origin, self.space_shape, strict=True):
            index = index * length + at
        return index


def arrange(
    kernel: Kernel,
    inputs: Sequence[Column],
    params: Mapping[str, Any] | None,
    shape: Sequence[int],
    origin: Sequence[int] | None,
    space_shape: Sequence[int] | None,
) -> Cells:
    """Check a kernel's inputs and parameters and lay them out.

    Raises:
        SignatureError, DimensionError, ParameterError: they don't fit the kernel.
        UsageError: an input has nulls that the kernel can't see.
    """
    shape = tuple(int(one) for one in shape)
    origin = (0,) * len(shape) if origin is None else tuple(int(one) for one in origin)
    whole = tuple(a + b for a, b in zip(origin, shape, strict=True)) if space_shape is None else tuple(space_shape)
    if not len(shape) == len(origin) == len(whole):
        raise DimensionError(f"kernel {kernel.name}: shape {shape}, origin {origin} and space {whole} differ in length")
    cores = kernel.signature.inputs
    if len(inputs) != len(cores):
        raise SignatureError(f"kernel {kernel.name} {kernel.signature} takes {len(cores)} inputs, not {len(inputs)}")
    lengths = dict(kernel.sizes)
    ragged: dict[str, Array] = {}
    for i, (column, core) in enumerate(zip(inputs, cores, strict=True)):
        where = f"kernel {kernel.name} {kernel.signature}: input {i}"
        if isinstance(column, Ragged):
            _check_ragged(where, column, core, math.prod(shape), ragged)
        else:
            _check_fixed(where, column, core, shape, lengths)
    both = set(ragged) & set(lengths)
    if both:
        raise DimensionError(
            f"kernel {kernel.name}: {min(both)!r} has one length in one input and differs from cell to cell in another"
        )
    laid = [laid_out(kernel, i, column, math.prod(shape), len(shape)) for i, column in enumerate(inputs)]
    # The copy's offsets count, where nulls made one.
    ragged = {
        core[0]: column.offsets for core, (column, _) in zip(cores, laid, strict=True) if isinstance(column, Ragged)
    }
    bound = {name: loop_parameter(value) for name, value in kernel.bind(params or {}).items()}
    return Cells(
        shape,
        origin,
        whole,
        tuple(column for column, _ in laid),
        tuple(mask for _, mask in laid),
        lengths,
        ragged,
        bound if kernel.mode != "python" else kernel.bind(params or {}),
    )


def _check_ragged(where: str, column: Ragged, core: tuple[str, ...], count: int, ragged: dict[str, Array]) -> None:
    if len(core) != 1:
        raise DimensionError(
            f"{where} has cells of different lengths, but the core ({','.join(core)})",
            hint="such an input has exactly one core dimension, as in '(n)->()'",
        )
    if column.cells != count:
        raise DimensionError(f"{where} has {column.cells} cells, the region {count}")
    if column.offsets[0] < 0 or column.offsets[-1] > len(column.values) or np.any(np.diff(column.offsets) < 0):
        raise DimensionError(f"{where} has offsets that don't lie in its {len(column.values)} values")
    known = ragged.setdefault(core[0], column.offsets)
    if known is not column.offsets and not np.array_equal(np.diff(known), np.diff(column.offsets)):
        raise DimensionError(
            f"{where} differs in its lengths along {core[0]!r} from another input",
            hint="give the dimensions different names, as in '(n),(m)->()'",
        )


def _check_fixed(
    where: str, column: Fixed, core: tuple[str, ...], shape: tuple[int, ...], lengths: dict[str, int]
) -> None:
    found = column.values.shape
    if len(found) != len(shape) + len(core) or found[: len(shape)] != shape:
        raise DimensionError(
            f"{where} has the shape {found}, not {shape} and then {len(core)} core dimensions",
            hint=f"core dimensions come last: ({','.join(core)})",
        )
    if column.valid is not None and column.valid.shape != found:
        raise DimensionError(f"{where} has a mask of shape {column.valid.shape} over values of shape {found}")
    for name, length in zip(core, found[len(shape) :], strict=True):
        if lengths.setdefault(name, length) != length:
            raise DimensionError(f"{where} has length {length} along {name!r}, not {lengths[name]}")


def laid_out(kernel: Kernel, position: int, column: Column, count: int, dims: int) -> tuple[Column, Array | None]:
    """A column as loops take it, and its mask where the kernel takes `valid`.

    Args:
        kernel: whose input it is.
        position: of the input in the signature.
        column: over `dims` loop dimensions, then core ones.
        count: cells.
        dims: number of loop dimensions, which become one.

    Raises:
        UsageError: it has nulls that the kernel can't see.
    """
    takes_mask = "valid" in kernel.specials
    valid = column.valid
    has_nulls = valid is not None and not bool(valid.all())
    if isinstance(column, Ragged):
        if has_nulls and not takes_mask:
            raise _needs_valid(kernel, position, "variable-length")
        if has_nulls and valid is not None and np.any(np.diff(column.offsets)[~valid]):
            column = _emptied(column, valid)
        mask = read_only(np.ones(count, bool) if valid is None else valid) if takes_mask else None
        return Ragged(read_only(column.offsets.astype(np.int64, copy=False)), read_only(column.values), valid), mask
    values = column.values
    if values.dtype == np.float16:  # compilers have no arithmetic for it
        values = values.astype(np.float32)
    if has_nulls and valid is not None:
        floating = values.dtype.kind in "fc"
        if not floating and not takes_mask:
            raise _needs_valid(kernel, position, str(values.dtype))
        values = np.where(valid, values, values.dtype.type(math.nan) if floating else np.zeros((), values.dtype))
    inner = values.shape[dims:]
    alike = dims > 0 and count > 0 and kernel.mode != "batch" and not any(values.strides[:dims])
    mask = None
    if takes_mask:
        mask = read_only((np.ones(values.shape, bool) if valid is None else valid).reshape(count, *inner))
    if alike:  # once in memory; see `is_shared`
        return Fixed(np.broadcast_to(read_only(values[(0,) * dims]), (count, *inner)), valid), mask
    return Fixed(read_only(values.reshape(count, *inner)), valid), mask


def is_shared(column: Column) -> bool:
    """Whether a column that is laid out is in memory once, for all cells."""
    return isinstance(column, Fixed) and column.values.strides[0] == 0


def _emptied(column: Ragged, valid: Array) -> Ragged:
    """Null cells without elements: what lies under a null is arbitrary, and mustn't show in a result."""
    lengths = np.where(valid, np.diff(column.offsets), 0)
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))
    keep = np.repeat(valid, np.diff(column.offsets))
    return Ragged(offsets, column.values[column.offsets[0] : column.offsets[-1]][keep], valid)


def _needs_valid(kernel: Kernel, position: int, what: str) -> UsageError:
    return UsageError(
        f"kernel {kernel.name}: input {position} ({what}) has nulls; a kernel without `valid` can't see them",
        hint=f"add the argument valid at the end of {kernel.name}, or drop the nulls first",
    )


def loop_parameter(value: Any) -> Any:
    """A parameter as loops take it: arrays read-only, Python's numbers as NumPy's, for equal arithmetic."""
    if isinstance(value, np.ndarray):
        return read_only(value)
    if isinstance(value, tuple):
        parts = [loop_parameter(one) for one in value]
        return shared_tuple(type(value)(*parts)) if hasattr(value, "_fields") else tuple(parts)
    if type(value) is int:
        return np.int64(value) if -(2**63) <= value < 2**63 else np.uint64(value)
    return {bool: np.bool_, float: np.float64, complex: np.complex128}.get(type(value), lambda same: same)(value)
