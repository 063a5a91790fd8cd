"""Compiled loops of a reduction: one pass over a chunk that folds each output cell's values in order.

A reduction's four functions work on one cell's state; the loops around them are written here, as text,
because the number of state arrays differs between reductions and numba unrolls no mixed tuple in a hot loop.
The text is made of integers alone, never of a user's names.

Layouts. A chunk is seen as four nested extents (R0, A, R1, B): reduced, kept, reduced, kept. The position of
a value in the fold is r0 * R1 + r1, its cell a * B + b. Any strides are read in place where the chunk fits
that form, else it is copied once. Loops run over a tile of cells first and over positions second, so states
stay in the cache; a cell sees its values in order of position whatever the layout, hence the same bits.

Counts. Most cells miss nothing, and then their number of values is the number of positions. So a loop that counts looks
whether any value of a row is missing first: if none is, it takes them all in without a branch and counts nothing; else
it counts those that are missing. A grouped mean then streams a sum alone. Where none of several rows misses anything in
a tile, such a loop takes them at once: a cell's state is read and written once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numba.core import config

from gridcompute import unchecked
from gridcompute.codecache import cached_njit
from gridcompute.columns import Array

LANES = 64
"""Lanes of a narrow fold: 64 independent sums run at memory speed on every CPU we know."""

_TILE_BYTES = 16384  # of states: half of a common L1 cache
_ROWS = 64  # positions and cells of a transposed block
_TOGETHER = 4  # rows taken at once; eight gain little more and take longer to compile
_GEOMETRY = ("O", "R0", "A", "R1", "B", "vk", "v0", "va", "v1", "vb", "vo", "mk", "m0", "ma", "m1", "mb", "mo", "n",
             "lanes", "position", "origin", "tile", "grouped", "K")  # fmt: skip


@dataclass(frozen=True)
class Functions:
    """One cell's functions and the sizes of what they work on.

    Attributes:
        init: `init(*state, *params)` fills a fresh state.
        step: `step(*state, x[, position], *params)` takes one value in; the state is without the count.
        merge: `merge(*state, *later, *params)` takes in a state of values that come after.
        final: `final(*state, *outs, *valids, *params)` fills the outputs.
        sizes: elements per cell of each state field.
        out_sizes: elements per cell of each output.
        params: number of parameter arrays.
        positional: whether step takes the value's position.
        drop_nan: whether NaN counts as null.
        counted: number of the state field that is the number of values taken in, kept by the fold; -1 for none.
        final_style: 2 where final fills outs and valids; 1: outs alone; 0: it returns the outputs.
    """

    init: Callable[..., Any]
    step: Callable[..., Any]
    merge: Callable[..., Any]
    final: Callable[..., Any]
    sizes: tuple[int, ...]
    out_sizes: tuple[int, ...]
    params: int
    positional: bool
    drop_nan: bool
    counted: int = -1
    final_style: int = 2

    @property
    def streamed(self) -> list[int]:
        """Sizes of the state fields that `step` gets."""
        return [size for i, size in enumerate(self.sizes) if i != self.counted]


class Loops:
    """The compiled loops around a reduction's functions.

    Args:
        functions: what one cell does; numba compiles them together with the loop that calls them.
    """

    def __init__(self, functions: Functions) -> None:
        plain = bool(getattr(config, "DISABLE_JIT", 0))
        self._functions = functions
        self._built: dict[str, Callable[..., Any]] = {}
        self._scope: dict[str, Any] = {
            "__name__": __name__,
            "np": np,
            "peek": unchecked.peek_plain if plain else unchecked.peek,
            "window": unchecked.window_plain if plain else unchecked.window,
            "init": functions.init,
            "step": functions.step,
            "merge": functions.merge,
            "final": functions.final,
        }

    def __getitem__(self, name: str) -> Callable[..., Any]:
        """The loop "start", "fold", "fold_masked", "join" or "finish"; built when first asked for."""
        if name not in self._built:
            scope = dict(self._scope)
            exec(compile(_source(self._functions, name), f"<gridcompute {name}>", "exec"), scope)
            # States, values and masks are arrays of their own; five states are more than LLVM would check for that.
            self._built[name] = cached_njit(scope[name], apart=True)
        return self._built[name]


def _names(letter: str, count: int) -> list[str]:
    return [f"{letter}{i}" for i in range(count)]


def _windows(letter: str, sizes: Sequence[int], at: str) -> list[str]:
    return [f"window({letter}{i}, ({at}) * {size}, {size})" for i, size in enumerate(sizes)]


def _source(f: Functions, name: str) -> str:
    if name.startswith("fold"):
        return _fold_source(f, name)
    params = _names("p", f.params)
    states = _names("s", len(f.sizes))
    cell = _windows("s", f.sizes, "i")
    if name == "start":
        head, call = states, f"init({', '.join(cell + params)})"
    elif name == "join":
        head = states + _names("t", len(f.sizes))
        call = f"merge({', '.join(cell + _windows('t', f.sizes, 'i') + params)})"
    else:
        outs = _names("o", len(f.out_sizes)) + _names("k", len(f.out_sizes))
        head = states + outs
        filled = _windows("o", f.out_sizes, "i") if f.final_style else []
        filled += _windows("k", f.out_sizes, "i") if f.final_style == 2 else []
        call = f"final({', '.join(cell + filled + params)})"
        if f.final_style == 0:
            call = ", ".join(f"o{i}[i]" for i in range(len(f.out_sizes))) + " = " + call
    return f"def {name}({', '.join(head)}, n, {', '.join(params)}):\n    for i in range(n):\n        {call}\n"


def _step_source(f: Functions, at: str, position: str) -> str:
    where = [f"origin + {position}"] if f.positional else []
    return f"step({', '.join([*_windows('s', f.streamed, at), 'x', *where, *_names('q', f.params)])})"


def _there_source(f: Functions, masked: bool, mask: str) -> str:
    return " and ".join((["x == x"] if f.drop_nan else []) + ([f"peek(mask, {mask})"] if masked else []))


def _take_source(f: Functions, masked: bool, each: str, value: str, mask: str, at: str, position: str, pad: int,
                 looked: bool = False) -> str:
    """Text that takes in a row of values where they count; `each` is the head of the loop over it.

    `looked`: `bad` already says whether any value of several rows, this one among them, is missing.
    """
    call, there = _step_source(f, at, position), _there_source(f, masked, mask)
    lines = [each, f"    x = peek({value})"]
    if there and f.counted >= 0:
        lines = [*([] if looked else ["bad = 0", *lines, f"    bad |= 0 if {there} else 1"]), "if bad == 0:",
                 *("    " + line for line in [*lines, f"    {call}"]),
                 "else:", "    holes[0] = 1",
                 *("    " + line for line in [*lines, f"    window(missing, {at}, 1)[0] += 0 if {there} else 1"]),
                 *("    " + line for line in [*lines, f"    if {there}:", f"        {call}"])]  # fmt: skip
    else:
        lines += [f"    if {there}:", f"        {call}"] if there else [f"    {call}"]
    return "\n".join(" " * pad + line for line in lines)


def _together_source(f: Functions, masked: bool, pad: int) -> str:
    """Text that takes in the next rows of a tile at once where they go to the same states and miss nothing."""
    if f.counted < 0:
        return ""
    rows = range(_TOGETHER)
    alike = " and ".join(f"codes[row - position + {k}] == group" for k in rows[1:])
    loads = [f"x = peek(flat, value + {k} * v1 + b)" for k in rows]
    fits = f"vb == 1 and lanes == 1 and row >= single and r1 + {_TOGETHER - 1} <= R1"
    lines = [f"if {fits} and (grouped == 0 or {alike}):", "    bad = 0"]
    if there := [_there_source(f, masked, f"valid + {k} * m1 + b * mb") for k in rows if f.drop_nan or masked]:
        lines += ["    for b in range(m):"]
        lines += [f"        {text}" for k in rows for text in (loads[k], f"bad |= 0 if {there[k]} else 1")]
    lines += ["    if bad == 0:", "        for b in range(m):"]
    lines += [f"            {text}" for k in rows for text in (loads[k], _step_source(f, "at + b", f"row + {k}"))]
    lines += [f"        r1 += {_TOGETHER - 1}", "        continue", f"    single = row + {_TOGETHER}"]
    return "\n".join(" " * pad + line for line in lines)


def _look_source(f: Functions, masked: bool, pad: int) -> str:
    """Text that looks into a transposed block: one long loop instead of a short one for each of its rows."""
    there = _there_source(f, masked, "")
    if masked or not there or f.counted < 0:
        return ""
    lines = ["bad = 0", f"for t in range(min({_ROWS}, R1 - r1) * m):", "    x = peek(buffer, t)",
             f"    bad |= 0 if {there} else 1"]
    return "\n".join(" " * pad + line for line in lines)


def _fold_source(f: Functions, name: str) -> str:
    """Text of the fold; `fold_masked` reads a validity array too."""
    masked = name == "fold_masked"
    body = partial(_take_source, f, masked)
    counts = ["missing", "holes"] if f.counted >= 0 else []
    head = ", ".join([*_names("s", len(f.streamed)), *counts, "flat", "mask", "codes", "g", *_names("p", f.params)])
    unpack = "\n".join(f"    {field} = g[{i}]" for i, field in enumerate(_GEOMETRY))
    # Borrowed, as the states are: reference counts are atomic, and would cost more than many a step.
    unpack += "".join(f"\n    q{i} = window(p{i}, 0, len(p{i}))" for i in range(f.params))
    # Rows that lie end to end line up with the lanes' states: one long loop instead of a short one per row.
    straight = "lanes > 1 and grouped == 0 and O == 1 and R0 == 1 and A == 1 and v1 == B and (vb == 1 or B == 1)"
    straight += " and m1 == B and (mb == 1 or B == 1)" if masked else ""
    straight += " and B == 1" if f.positional else ""
    return f"""def {name}({head}):
{unpack}
    if {straight}:
        total = R1 * B
        j = (position & (lanes - 1)) * B
        i = 0
        while i < total:
            m = min(lanes * B - j, total - i)
{body("for t in range(m):", "flat, vo + i + t", "mo + i + t", "j + t", "position + i + t", 12)}
            i += m
            j = 0
        return
    buffer, bad = np.empty({_ROWS} * tile if vb != 1 else 0, flat.dtype), 0
    for oa in range(O * A):
        o = oa // A
        a = oa - o * A
        b0 = 0
        while b0 < B:
            m = min(tile, B - b0)
            single = 0
            for r0 in range(R0):
                r1 = 0
                while r1 < R1:
                    row = r0 * R1 + r1
                    value = vo + o * vk + r0 * v0 + a * va + r1 * v1 + b0 * vb
                    valid = mo + o * mk + r0 * m0 + a * ma + r1 * m1 + b0 * mb
                    packed = r1 % {_ROWS}
                    if vb != 1 and packed == 0:
                        for t in range(min({_ROWS}, R1 - r1)):
                            for b in range(m):
                                buffer[t * m + b] = peek(flat, value + t * v1 + b * vb)
{_look_source(f, masked, 24)}
                    r1 += 1
                    group = 0
                    if grouped:
                        group = codes[row]
                        if group < 0:
                            continue
                    row += position
                    at = (row & (lanes - 1)) * n + group * K + oa * B + b0
{_together_source(f, masked, 20)}
                    if vb == 1:
{body("for b in range(m):", "flat, value + b", "valid + b * mb", "at + b", "row", 24)}
                    else:
{body("for b in range(m):", "buffer, packed * m + b", "valid + b * mb", "at + b", "row", 24, not masked)}
            b0 += m
"""


@dataclass(frozen=True, eq=False)
class Layout:
    """A chunk as five nested extents over flat memory: kept, reduced, kept, reduced, kept.

    Attributes:
        extents: O, R0, A, R1, B.
        flat: the values' memory, one-dimensional and read-only; `strides` (elements) and `start` index it.
        mask: the same of the validity array (`mask_strides`, `mask_start`); empty where there is none.
    """

    extents: tuple[int, ...]
    flat: Array
    strides: tuple[int, ...]
    start: int
    mask: Array
    mask_strides: tuple[int, ...]
    mask_start: int

    @classmethod
    def of(cls, values: Array, axes: Sequence[int], valid: Array | None = None) -> Layout:
        """See an array as nested extents, copying only where its axes alternate too often.

        Args:
            values: any shape and strides, native byte order.
            axes: the reduced axes, not negative.
            valid: booleans of the same shape, or None.
        """
        reduced = [axis in axes for axis in range(values.ndim)]
        slots = _slots(values, valid, reduced)
        if slots is None:
            # Too many alternations, or strides that don't divide: bring reduced axes to the front.
            order = [i for i, r in enumerate(reduced) if r] + [i for i, r in enumerate(reduced) if not r]
            values = np.array(values.transpose(order), order="C")
            valid = None if valid is None else np.array(valid.transpose(order), order="C")
            slots = _slots(values, valid, sorted(reduced, reverse=True))
        assert slots is not None
        extents, strides, mask_strides = (tuple(slot[i] for slot in slots) for i in range(3))
        flat, start = _flatten(values)
        mask, mask_start = (np.zeros(0, bool), 0) if valid is None else _flatten(valid)
        mask.flags.writeable = False
        return cls(extents, flat, strides, start, mask, mask_strides, mask_start)

    def geometry(
        self, n: int, lanes: int, position: int, origin: int, grouped: bool, state_bytes: int, stride: int
    ) -> Array:
        """The fold loop's integers, in its order; `stride` cells lie from one group to the next."""
        tile = max(16, _TILE_BYTES // max(1, state_bytes))
        if self.strides[-1] != 1:
            tile = min(tile, _ROWS)  # cells that aren't contiguous are copied in blocks of positions x cells
        return np.array(
            [
                *self.extents,
                *self.strides,
                self.start,
                *self.mask_strides,
                self.mask_start,
                n,
                lanes,
                position,
                origin,
                tile,
                grouped,
                stride,
            ],
            np.int64,
        )


def _slots(values: Array, valid: Array | None, reduced: Sequence[bool]) -> list[tuple[int, int, int]] | None:
    """(extent, stride, mask stride) of O, R0, A, R1, B; None where the axes don't fit."""
    size = values.itemsize
    if any(stride % size for stride in values.strides) or not values.flags.aligned:
        return None
    masks = (0,) * values.ndim if valid is None else valid.strides
    runs: list[tuple[bool, int, int, int]] = []
    for kind, extent, stride, mask in zip(reduced, values.shape, values.strides, masks, strict=True):
        stride //= size
        if extent == 1:
            continue
        if runs and runs[-1][0] == kind and runs[-1][2] == extent * stride and runs[-1][3] == extent * mask:
            runs[-1] = (kind, runs[-1][1] * extent, stride, mask)
        else:
            runs.append((kind, extent, stride, mask))
    slots: list[tuple[int, int, int]] = [(1, 0, 0)] * 5
    # A lone run belongs in the inner pair (R1, B), so fill from the back.
    slot = 4
    for kind, *run in reversed(runs):
        if kind == (slot % 2 == 0):  # even slots are kept extents
            slot -= 1
        if slot < 0:
            return None
        slots[slot] = (run[0], run[1], run[2])
        slot -= 1
    if slots[4][0] == 1:
        # One kept run: it may as well be the inner one. A single cell counts as contiguous.
        slots[4], slots[2] = (slots[2] if slots[2][0] > 1 else (1, 1, 1)), (1, 0, 0)
    return slots


def _flatten(array: Array) -> tuple[Array, int]:
    """The array's whole memory extent as a read-only vector, and where its first element lies in it."""
    if array.size == 0:
        flat, start = np.zeros(0, array.dtype), 0
    else:
        steps = [
            (extent - 1) * stride // array.itemsize
            for extent, stride in zip(array.shape, array.strides, strict=True)
        ]
        start = -sum(step for step in steps if step < 0)
        corner = array[tuple(slice(-1, None) if step < 0 else slice(0, 1) for step in steps)]
        length = 1 + sum(abs(step) for step in steps)
        flat = np.lib.stride_tricks.as_strided(corner, (length,), (array.itemsize,), writeable=False)
    flat.flags.writeable = False
    return flat, start
