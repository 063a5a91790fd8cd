"""Cell by cell: a kernel over one or several columns, and elementwise arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gridcompute.axes import SPREAD, Axis, Layout
from gridcompute.cellinputs import Cells
from gridcompute.columns import Array, Block, Column, Field, Fixed, Ragged, field_region, rows_of
from gridcompute.compiled import run_cells
from gridcompute.digests import IN_WORDS, digest, in_words
from gridcompute.kernels import Kernel
from gridcompute.op import Action, Op, Read
from gridcompute.progressword import kernel_runs
from gridcompute.skipping import Carrier, Failed, here, naming_the_cell, run_skipping, work_of
from gridcompute.skips import Skips
from gridcompute.spaces import Region, Space
from gridcompute.tabular import array_of

Place = tuple[int, str]
"""An input's number and the name of one of its columns."""


def spread(column: Column, field: Field, loop: tuple[str, ...], shape: tuple[int, ...],
           core: tuple[str, ...], *, once: bool = False) -> Column:
    """A column as a kernel wants it: contiguous, loop dimensions first (missing ones repeated), core ones last.

    With `once` a column without loop dimensions is in memory once, for all cells.
    """
    if isinstance(column, Ragged):
        return column
    order = [field.dims.index(name) for name in loop if name in field.dims] + [field.dims.index(n) for n in core]
    index = tuple(slice(None) if name in field.dims else None for name in loop) + (slice(None),) * len(core)

    def arranged(array: Array) -> Array:
        lined = array.transpose(order)[index]
        if once and not set(loop) & set(field.dims):
            return np.broadcast_to(np.asarray(lined, order="C"), shape + lined.shape[len(loop):])
        return np.asarray(np.broadcast_to(lined, shape + lined.shape[len(loop):]), order="C")  # 0-d stays 0-d

    return Fixed(arranged(column.values), None if column.valid is None else arranged(column.valid))


@dataclass(frozen=True, eq=False)
class Map(Action):
    """A kernel over cells.

    Attributes:
        kernel: what is computed for one cell.
        columns: where each of the signature's inputs comes from.
        core: core dimensions of each input that are dimensions of its space (a ragged cell's own extent isn't one).
        loop: dimensions that the kernel is run over.
        params: further arguments by name.
        dtypes: of the outputs.
        seed: of `rng`.
        name: the op's declared name, part of `rng`'s key.
        inner: lengths of the loop dimensions but the first: a cell's linear index, which keys `rng`, follows from them.
        on_error: "skip" gives a null where the kernel fails; "stop", or "" where nobody has said it, stops the run.
    """

    heavy: ClassVar[bool] = True

    kernel: Kernel
    columns: tuple[Place, ...]
    core: tuple[tuple[str, ...], ...]
    loop: tuple[str, ...]
    params: tuple[tuple[str, Any], ...] = ()
    dtypes: tuple[np.dtype[Any], ...] = ()
    seed: int = 0
    name: str = ""
    inner: tuple[int | None, ...] = ()
    on_error: str = ""

    @property
    def skips(self) -> bool:
        """See `Action`."""
        return self.on_error == "skip"

    def read_of(self, op: Op, i: int) -> set[str]:
        """See `Action`."""
        return {name for place, name in self.columns if place == i}

    @property
    def label(self) -> str:
        """See `Action`."""
        return "map"

    @property
    def key(self) -> object:
        """See `Action`: seed, name and lengths only where the kernel draws numbers."""
        drawn = (self.seed, self.name, self.inner) if "rng" in self.kernel.specials else ()
        said = (self.on_error,) if self.skips else ()
        return (self.kernel.key, self.columns, self.core, self.loop, dict(self.params), list(self.dtypes), drawn, *said)

    @property
    def parts(self) -> Mapping[str, str]:
        """See `Action`."""
        extra = {f"parameter {name}": in_words(value) for name, value in self.params}
        if "rng" in self.kernel.specials:
            extra |= {"seed": in_words(self.seed), "inner lengths": digest(self.inner)}
        extra |= {"on_error": in_words(self.on_error)} if self.skips else {}
        return {**self.kernel.parts, **extra, "columns": digest((self.columns, self.core, list(self.dtypes)))}

    @property
    def positional(self) -> bool:
        """See `Action`."""
        return "rng" in self.kernel.specials or "cell" in self.kernel.specials

    @property
    def draws(self) -> bool:
        """See `Action`."""
        return "rng" in self.kernel.specials

    @property
    def aligned(self) -> bool:
        """See `Action`: what sees a chunk's columns at once may depend on where the chunk ends."""
        return self.kernel.mode != "cell"

    @property
    def whole(self) -> frozenset[str]:
        """See `Action`: output core dimensions come out complete."""
        return frozenset(name for dims in self.kernel.signature.outputs for name in dims)

    @property
    def parallel(self) -> int:
        """See `Action`."""
        return self.kernel.parallel or SPREAD

    def axes(self, op: Op, inputs: tuple[Layout, ...]) -> dict[str, Axis]:
        """See `Action`: output core dimensions are new, or those of the inputs in one piece."""
        axes = super().axes(op, inputs)
        return {name: axis.regular if name in self.whole else axis for name, axis in axes.items()}

    def compute(self, op: Op, region: Region, read: Read, carrier: Carrier | None = None) -> Block:
        """See `Action`; output core dimensions are computed whole, then cut to the region."""
        asked, region = region, Region(tuple(full if name in self.whole else at for name, at, full in
                                             zip(op.space.names, region.bounds, op.whole.bounds, strict=True)))
        inputs, given = self.cells_over(op, region, read)
        shape: tuple[int, ...] = given["shape"]
        skips: tuple[Skips, ...] = ()
        params = dict(self.params)
        laid = partial(work_of, self.kernel, inputs, params, outputs=self.dtypes, **given)
        with kernel_runs(str(op), shape, given["origin"], by_cell=self.kernel.mode == "cell") as word:
            if self.skips:
                work = laid()
                results, failed = run_skipping(work, carrier or partial(here, mark=word))
                skips = skipped(op, op.space, region, self.loop, work.cells, failed)
            else:
                with naming_the_cell(laid):
                    results = run_cells(self.kernel, inputs, params, outputs=self.dtypes, progress=word, **given)
        named = {f.name: result for f, result in zip(op.fields, results, strict=True)}
        if asked != region:
            named = {f.name: _within(named[f.name], f, op.space, asked, region) for f in op.fields}
        return Block(asked, named, shape[0] if shape else asked.shape[0] if asked.bounds else 1, skips)

    def cells_over(self, op: Op, region: Region, read: Read) -> tuple[list[Column], dict[str, Any]]:
        """The kernel's inputs over a region in which output core dimensions are whole.

        Returns:
            One column an input, and shape, origin, space_shape, seed and rng_name as `run_cells` takes them.
        """
        blocks = [read(i, op.reads(i, region)[0]) for i in range(len(op.inputs))]
        shape = list(field_region(op.space, region, self.loop).shape)
        for axis, name in enumerate(self.loop):
            if op.space[name] is None:
                shape[axis] = next(b.rows for b, source in zip(blocks, op.inputs, strict=True) if name in source.space)
        inputs, laid = list[Column](), dict[tuple[object, ...], Column]()
        for (i, name), core in zip(self.columns, self.core, strict=True):
            column, field = blocks[i][name], op.inputs[i].field(name)
            one = id(column), field.dims, core  # a column may be several inputs
            if one not in laid:
                laid[one] = spread(column, field, self.loop, tuple(shape), core, once=True)
            inputs.append(laid[one])
        # Along a dimension whose cells aren't counted, the region's start is a block's number and no cell's.
        origin = tuple(0 if op.space[name] is None else at for name, at in
                       zip(self.loop, field_region(op.space, region, self.loop).start, strict=True))
        lengths = tuple(n if n is not None else 0 for n in op.space.only(*self.loop).shape)
        return inputs, {"shape": tuple(shape), "origin": origin, "space_shape": lengths, "seed": self.seed,
                        "rng_name": self.name}


def skipped(op: Op, space: Space, region: Region, loop: tuple[str, ...], cells: Cells,
            failed: Failed) -> tuple[Skips, ...]:
    """The cells that a kernel skipped, where there are any.

    Args:
        op: whose kernel it was.
        space: that the kernel ran over.
        region: of it, block numbers along a dimension that isn't counted.
        loop: names of the cells' dimensions.
        cells: of the region.
        failed: which of them, by position.
    """
    if not failed.positions:
        return ()
    block = region.start[0] if loop and space[loop[0]] is None else -1
    told = failed.cells(cells.index)
    return (Skips(str(op), op.recipe, str(region), loop, len(failed.positions), told, block),)


def _within(column: Column, field: Field, space: Space, part: Region, whole: Region) -> Column:
    """A column over `whole`, cut to a part of it along the dimensions in which the two differ."""
    if isinstance(column, Ragged):
        return column
    pairs = zip(space.names, part.bounds, whole.bounds, strict=True)
    cuts = {name: slice(lo - base, hi - base) for name, (lo, hi), (base, top) in pairs if (lo, hi) != (base, top)}
    where = tuple(cuts.get(name, slice(None)) for name in field.dims)
    return Fixed(column.values[where], None if column.valid is None else column.valid[where])


UFUNCS = ("add", "subtract", "multiply", "true_divide", "floor_divide", "remainder", "power", "negative", "absolute",
          "equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "logical_and", "logical_or",
          "logical_not", "isnan")
"""NumPy functions that elementwise arithmetic may name; each gives the same bits wherever a cell lies in a chunk."""

SIGNS = {"add": "+", "subtract": "-", "multiply": "*", "true_divide": "/", "floor_divide": "//", "remainder": "%",
         "power": "**", "equal": "==", "not_equal": "!=", "less": "<", "less_equal": "<=", "greater": ">",
         "greater_equal": ">=", "logical_and": "&", "logical_or": "|"}
_SHOWN = 4


@dataclass(frozen=True, eq=False)
class Elementwise(Action):
    """A NumPy ufunc over columns and scalars, or `isin`; a null in gives a null out. Text compares by code points.

    Attributes:
        ufunc: one of `UFUNCS`; or "isin".
        operands: columns, or plain numbers; comparisons also take columns of text of the same cells, and plain text.
        among: what `isin` looks for in its one operand: text, or numbers that its dtype holds.
        words: the operands as the user wrote them, where these are dates; no part of the key.
    """

    ufunc: str
    operands: tuple[Place | float | int | bool | str, ...]
    among: tuple[float | int | bool | str, ...] = ()
    words: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """See `Action`."""
        return self.ufunc

    @property
    def key(self) -> object:
        """See `Action`."""
        return (self.ufunc, self.operands, *([self.among] if self.ufunc == "isin" else []))

    @property
    def parts(self) -> Mapping[str, str]:
        """See `Action`."""
        rest = {"values": digest(self.among)} if len(self.among) > _SHOWN else {}
        return {"expression": f"{IN_WORDS}{self}", **rest}

    def __str__(self) -> str:
        """As the user wrote it: "t2m - 273.15"."""
        operands = [one[1] if isinstance(one, tuple) else repr(one) for one in self.operands]
        operands = [word or operand for word, operand in zip(self.words or operands, operands, strict=True)]
        if self.ufunc == "isin":
            shown = [repr(one) for one in self.among[:_SHOWN]] + ["..."] * (len(self.among) > _SHOWN)
            return f"{operands[0]}.isin([{', '.join(shown)}])"
        sign = SIGNS.get(self.ufunc)
        return f" {sign} ".join(operands) if sign else f"{self.ufunc}({', '.join(operands)})"

    def compute(self, op: Op, region: Region, read: Read) -> Block:
        """See `Action`."""
        out = op.fields[0]
        places = {o[0] for o in self.operands if isinstance(o, tuple)}
        blocks = {i: read(i, op.reads(i, region)[0]) for i in places}
        rows = rows_of(op.space, ((block, op.inputs[i].space) for i, block in sorted(blocks.items())))
        arguments: list[Any] = []
        valid: Array | None = None
        for operand in self.operands:
            if not isinstance(operand, tuple):
                arguments.append(operand)
                continue
            i, name = operand
            column, source = blocks[i][name], op.inputs[i].field(name)
            order = [source.dims.index(dim) for dim in out.dims if dim in source.dims]
            index = tuple(slice(None) if dim in source.dims else None for dim in out.dims)
            text = isinstance(column, Ragged)
            arguments.append(array_of(column, source) if text else column.values.transpose(order)[index])
            if column.valid is not None:
                mask = column.valid.transpose(order)[index]
                valid = mask if valid is None else valid & mask
        with np.errstate(all="ignore"):
            values = self._values(arguments).astype(out.dtype, copy=False)
        shape = np.broadcast_shapes(values.shape, *([] if valid is None else [valid.shape]))
        full = None if valid is None else np.asarray(np.broadcast_to(valid, shape), order="C")
        return Block(region, {out.name: Fixed(np.asarray(np.broadcast_to(values, shape), order="C"), full)}, rows)

    def _values(self, arguments: list[Any]) -> Array:
        """What the function gives for the cells, whatever under nulls."""
        first = arguments[0]
        if any(isinstance(one, pa.Array) for one in arguments):
            texts = [pa.scalar(one, pa.large_string()) if isinstance(one, str) else one for one in arguments]
            among = pa.array(self.among, pa.large_string()) if self.ufunc == "isin" else None
            found = pc.is_in(first, value_set=among) if among is not None else getattr(pc, self.ufunc)(*texts)
            return np.asarray(pc.fill_null(found, False).to_numpy(zero_copy_only=False))
        if self.ufunc == "isin":
            return np.isin(first, np.array(self.among, first.dtype))
        return np.asarray(getattr(np, self.ufunc)(*arguments))
