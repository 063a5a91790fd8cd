"""Run a kernel over a region's cells, and go on behind those in which it fails (`on_error="skip"`).

A cell kernel's compiled loop is entered again behind the cell that failed; a batch kernel or a task, which raises for a
chunk, is given halves of it until the single cells are found. Both take time in proportion to the cells that fail. All
other cells have the bits that they have without them.
"""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Protocol

import numpy as np

from gridcompute import chunkcall, compiled, loops
from gridcompute.cellinputs import Cells, arrange
from gridcompute.columns import Array, Column, Fixed, Ragged
from gridcompute.errors import KernelError, ParameterError, UsageError
from gridcompute.kernels import Kernel, runs
from gridcompute.skips import MOST, MOST_TEXT, Told

PACKAGE = os.path.dirname(__file__)

CHOICES = ("stop", "skip")
"""What may be said of cells in which a kernel fails."""


IDLE = -1
"""In place of a cell's position: none is in work, as the kernel is being compiled."""


@dataclass
class Failed:
    """Cells of a region in which a kernel failed, by position; the first ones with class and text of the error.

    `last` is the last error of a kernel that raised, in this process.
    """

    positions: list[int] = field(default_factory=list)
    told: list[tuple[int, str, str]] = field(default_factory=list)
    last: KernelError | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "last": None}

    def raised(self, position: int, error: KernelError) -> None:
        """One more, behind the others: the kernel raised."""
        self.last = error
        self.add(position, "user", error.cause or error.message)

    def add(self, position: int, kind: str, text: str) -> None:
        """One more, behind the others."""
        self.positions.append(position)
        if len(self.told) < MOST:
            self.told.append((position, kind, text[:MOST_TEXT].encode(errors="backslashreplace").decode()))

    def extend(self, other: Failed) -> None:
        """Those of a later part."""
        self.positions += other.positions
        self.told += other.told[: max(0, MOST - len(self.told))]

    def cells(self, index: Callable[[int], tuple[int, ...]]) -> tuple[Told, ...]:
        """The first ones by index."""
        return tuple((index(position), kind, text) for position, kind, text in self.told)


def traced(error: KernelError) -> str:
    """What Python says of an error in a kernel, from the kernel's own first line on."""
    cause = error.__cause__ or error
    frame = cause.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename.startswith((PACKAGE, loops.LOOP)):
        frame = frame.tb_next
    return "".join(traceback.format_exception(type(cause), cause, frame)).rstrip()


Part = tuple[list[Array], Failed]
"""What cells lo to hi give: of a map each output's elements in their order, before those of runs of own lengths these;
of an explode the counts, then the rows."""


class Carrier(Protocol):
    """Carries out a part of the work somewhere; see `gridcompute.apart`."""

    def __call__(self, work: Work) -> Part:
        """All cells of the work."""
        ...


@dataclass(frozen=True, eq=False)
class Work:
    """A kernel and the cells of a region, of which any part can be done alone; goes to other processes by value.

    Attributes:
        kernel: what is run.
        cells: its inputs, laid out.
        dtypes: of the outputs.
        rows: whether it gives rows.
        limit: most rows of a cell, None for any.
        seed: as in `run_cells`.
        rng_name: as in `run_cells`.
    """

    kernel: Kernel
    cells: Cells
    dtypes: tuple[np.dtype[Any], ...]
    rows: bool = False
    limit: int | None = None
    seed: int = 0
    rng_name: str = ""

    def part(self, lo: int, hi: int, mark: Array | None = None) -> Part:
        """Cells lo to hi, but for those that fail.

        Args:
            lo: position in the region, last dimension fastest.
            hi: the position behind the last.
            mark: int64; the first element holds the position of the cell being run; of a kernel of chunks, of the first
                of those being run.

        Raises:
            MemoryError: a cell took too much; `mark` tells which.
            UsageError: numba can't compile the kernel.
        """
        mark = np.zeros(1, np.int64) if mark is None else mark
        if self.kernel.mode != "cell":
            return self._halved(lo, hi, mark)
        return self._exploded(lo, hi, mark) if self.rows else self._mapped(lo, hi, mark)

    def traced(self, lo: int, hi: int, mark: Array | None = None) -> Part:
        """As `part`, with the traceback of the last cell in which the kernel raised in place of its error."""
        values, failed = self.part(lo, hi, mark)
        if failed.last is not None:
            position, kind, _ = failed.told[-1]
            failed.told[-1] = position, kind, traced(failed.last)
        return values, failed

    def _mapped(self, lo: int, hi: int, mark: Array) -> Part:
        columns = compiled.empty_outputs(self.kernel, self.cells, self.dtypes)  # untouched pages cost nothing
        kinds, targets = compiled.targets(self.kernel, self.cells, columns)
        failed = self._going_on(lo, hi, mark, kinds, lambda first, at: tuple(targets))
        return [self._elements(column, lo, hi) for column in columns], failed

    def _elements(self, column: Column, lo: int, hi: int) -> Array:
        if isinstance(column, Ragged):
            return column.values[column.offsets[lo] : column.offsets[hi]]
        return column.values.reshape(self.cells.count, *column.values.shape[len(self.cells.shape) :])[lo:hi]

    def _exploded(self, lo: int, hi: int, mark: Array) -> Part:
        """As `explode_cells`: counted first where no limit is known, then filled, without the cells that failed."""
        kinds, limit = (("rows", 0),) * len(self.dtypes), np.int64(-1 if self.limit is None else self.limit)
        counts = np.zeros(self.cells.count, np.int64)
        if self.limit is None:
            failed = self._going_on(lo, hi, mark, kinds, lambda first, at: (counts, limit, at), counts, only_count=True)
            rows = [np.empty(int(counts[lo:hi].sum()), dtype) for dtype in self.dtypes]
            at, first = 0, lo
            for stop in (*failed.positions, hi):  # in the second pass it must do what it did in the first
                if stop > first:
                    self._enter(first, stop, mark, kinds, (*rows, counts, limit, np.int64(at)))
                at, first = at + int(counts[first:stop].sum()), stop + 1
            return [counts[lo:hi], *rows], failed
        rows = [np.empty((hi - lo) * self.limit, dtype) for dtype in self.dtypes]
        failed = self._going_on(lo, hi, mark, kinds, lambda first, at: (*rows, counts, limit, at), counts)
        total = int(counts[lo:hi].sum())
        return [counts[lo:hi], *(one[:total].copy() for one in rows)], failed

    def _going_on(self, lo: int, hi: int, mark: Array, kinds: tuple[tuple[str, int], ...],
                  trailing: Callable[[int, np.int64], tuple[Any, ...]], counts: Array | None = None,
                  only_count: bool = False) -> Failed:
        """Enter the loop at the first cell, and again behind each that fails."""
        failed, first, at = Failed(), lo, 0
        while first < hi:
            try:
                self._enter(first, hi, mark, kinds, trailing(first, np.int64(at)), only_count)
                break
            except KernelError as error:
                position = int(mark[0])
                failed.raised(position, error)
                if counts is not None:
                    counts[position] = 0
                    at += int(counts[first:position].sum())
                first = position + 1
        return failed

    def _enter(self, first: int, stop: int, mark: Array, kinds: tuple[tuple[str, int], ...], trailing: tuple[Any, ...],
               only_count: bool = False) -> None:
        shape = compiled.loop_shape(self.kernel, self.cells, kinds, only_count, resumes=True)
        leading = compiled.leading_of(self.kernel, self.cells, self.seed, self.rng_name, 0)
        mark[0] = IDLE
        loop = loops.make_loop(self.kernel, shape)
        compiled.call(self.kernel, self.cells, loop, mark, (np.int64(stop), np.int64(first), *leading, *trailing),
                      self.limit)

    def _halved(self, lo: int, hi: int, mark: Array) -> Part:
        """A chunk's kernel over cells lo to hi, or over halves of them where it fails, down to single cells."""
        done: list[list[Array]] = []
        failed, waiting = Failed(), [(lo, hi)]
        while waiting:
            lo, hi = waiting.pop()
            try:
                done.append(self.chunk(lo, hi, mark))
            except KernelError as error:
                if hi - lo == 1:
                    failed.raised(lo, error)
                    done.append(self.nothing(lo, hi))
                else:
                    middle = (lo + hi) // 2
                    waiting += [(middle, hi), (lo, middle)]
        return [np.concatenate(parts) for parts in zip(*done, strict=True)], failed

    def chunk(self, lo: int, hi: int, mark: Array) -> list[Array]:
        """What a kernel of chunks gives for cells lo to hi (KernelError where it fails); `mark` as in `part`."""
        cells = self.cells if (lo, hi) == (0, self.cells.count) else Stretch.of(self.cells, lo, hi)
        mark[0] = IDLE
        given: dict[str, Any] = {"seed": self.seed, "rng_name": self.rng_name, "step": 0,
                                 "begins": partial(mark.__setitem__, 0, lo)}
        if self.rows:
            counts, rows = chunkcall.explode_chunk(self.kernel, cells, self.dtypes, self.limit, **given)
            return [counts, *rows]
        columns = compiled.empty_outputs(self.kernel, cells, self.dtypes)
        return self._flat(chunkcall.run_chunk(self.kernel, cells, columns, **given), cells)

    def _flat(self, columns: list[Column], cells: Cells) -> list[Array]:
        """The columns' elements; before those of runs of own lengths, these."""
        flat: list[Array] = []
        for column, core in zip(columns, self.kernel.signature.outputs, strict=True):
            if isinstance(column, Fixed):
                flat.append(column.values.reshape(cells.count, *column.values.shape[len(cells.shape) :]))
            elif core[0] in runs(self.kernel):
                flat += [np.diff(column.offsets), column.values[column.offsets[0] : column.offsets[-1]]]
            else:
                flat.append(column.values)
        return flat

    def nothing(self, lo: int, hi: int) -> list[Array]:
        """What cells that failed give: zeros, or no rows."""
        if self.rows:
            return [np.zeros(hi - lo, np.int64), *(np.empty(0, dtype) for dtype in self.dtypes)]
        cells = Stretch.of(self.cells, lo, hi)
        columns = compiled.empty_outputs(self.kernel, cells, self.dtypes)
        return [np.zeros_like(one) for one in self._flat(columns, cells)]


@dataclass(frozen=True, eq=False)
class Stretch(Cells):
    """Some of a region's cells, as the kernels of chunks take them: in one dimension, but with their own indices.

    Attributes:
        all: the region's.
        first: position of the first cell there.
    """

    all: Cells | None = None
    first: int = 0

    @classmethod
    def of(cls, cells: Cells, lo: int, hi: int) -> Stretch:
        """Cells lo to hi."""
        given = {f.name: getattr(cells, f.name) for f in fields(Cells)}
        columns = tuple(c.sliced(lo, hi) if isinstance(c, Ragged) else Fixed(c.values[lo:hi]) for c in cells.columns)
        masks = tuple(None if mask is None else mask[lo:hi] for mask in cells.masks)
        ragged = {name: offsets[lo : hi + 1] for name, offsets in cells.ragged.items()}
        cut = {"shape": (hi - lo,), "columns": columns, "masks": masks, "ragged": ragged}
        return cls(**{**given, **cut}, all=cells, first=lo)

    def index(self, position: int) -> tuple[int, ...]:
        """See `Cells`."""
        assert self.all is not None
        return self.all.index(self.first + position)

    def indices(self) -> Array:
        """See `Cells`."""
        assert self.all is not None
        return np.ascontiguousarray(self.all.indices()[self.first : self.first + self.count])

    def linear(self) -> int:
        """See `Cells`; no kernel that draws numbers for a chunk at once is run in parts."""
        return 0


@contextlib.contextmanager
def naming_the_cell(work: Callable[[], Work]) -> Iterator[None]:
    """Where a kernel of chunks fails, the first of its cells that fails alone is named, if there is one."""
    try:
        yield
    except KernelError as error:
        found = error if error.cell is not None else _first_alone(error, work())
        raise found from found.__cause__


def _first_alone(error: KernelError, work: Work) -> KernelError:
    """The error of the first cell that fails alone, by halves; else the chunk's own."""
    mark, lo, hi = np.zeros(1, np.int64), 0, work.cells.count
    if work.kernel.mode == "cell" or not can_skip(work.kernel):
        return error
    with contextlib.suppress(MemoryError):
        while hi - lo > 1:
            middle = (lo + hi) // 2
            try:
                work.chunk(lo, middle, mark)
                lo = middle
            except KernelError:
                hi = middle
        try:
            work.chunk(lo, hi, mark)
        except KernelError as found:
            return found
    return error


def here(work: Work, mark: Array | None = None) -> Part:
    """Carry out in this process."""
    return work.part(0, work.cells.count, mark)


def work_of(kernel: Kernel, inputs: Sequence[Column], params: Mapping[str, Any], *, outputs: Sequence[np.dtype[Any]],
            shape: Sequence[int], origin: Sequence[int], space_shape: Sequence[int], seed: int = 0, rng_name: str = "",
            rows: bool = False, limit: int | None = None) -> Work:
    """The work of `run_cells` or, with `rows`, of `explode_cells`, whose arguments these are."""
    cells = arrange(kernel, inputs, params, shape, origin, space_shape)
    return Work(kernel, cells, tuple(outputs), rows, limit, seed, rng_name)


def run_skipping(work: Work, carrier: Carrier) -> tuple[list[Column], Failed]:
    """As `run_cells`, with a null in each cell that fails: NaN among floats and zeros else lie under it."""
    columns = compiled.empty_outputs(work.kernel, work.cells, work.dtypes)
    if not work.cells.count:
        return columns, Failed()
    values, failed = carrier(work)
    positions, flat = np.array(failed.positions, np.int64), iter(values)
    found = []
    for column, core in zip(columns, work.kernel.signature.outputs, strict=True):
        if core and core[0] in runs(work.kernel):
            column = Ragged(np.concatenate(([0], np.cumsum(next(flat)))), column.values)
        found.append(_with_gaps(column, next(flat), positions, work.cells.shape))
    return found, failed


def _with_gaps(column: Column, flat: Array, positions: Array, shape: tuple[int, ...]) -> Column:
    valid = None
    if isinstance(column, Ragged):
        if len(positions):
            valid = np.ones(column.cells, bool)
            valid[positions] = False
        return Ragged(column.offsets, flat, valid)
    if len(positions):
        flat[positions] = flat.dtype.type(np.nan) if flat.dtype.kind in "fc" else np.zeros((), flat.dtype)
        valid = np.ones(flat.shape, bool)
        valid[positions] = False
        valid = valid.reshape((*shape, *flat.shape[1:]))
    return Fixed(flat.reshape((*shape, *flat.shape[1:])), valid)


def explode_skipping(work: Work, carrier: Carrier) -> tuple[Array, list[Array], Failed]:
    """As `explode_cells`, without the rows of cells that fail."""
    if not work.cells.count:
        return np.zeros(0, np.int64), [np.empty(0, dtype) for dtype in work.dtypes], Failed()
    (counts, *rows), failed = carrier(work)
    return counts, rows, failed


def on_error_of(kernel: Kernel, said: str | None) -> str:
    """A checked choice; empty where nothing was said.

    Raises:
        ParameterError: no such choice.
        UsageError: a kernel that can't be run for some cells of a chunk only.
    """
    if said is not None and said not in CHOICES:
        raise ParameterError(f"on_error is {said!r}", hint="one of stop, skip")
    if said == "skip" and not can_skip(kernel):
        raise UsageError(f"kernel {kernel.name} draws numbers for a whole chunk, so it can't skip cells of it",
                         hint="make it a kernel of one cell, or leave on_error away")
    return said or ""


def can_skip(kernel: Kernel) -> bool:
    """Whether a kernel can be run for some cells only: not where what a cell draws depends on those before it."""
    return kernel.mode == "cell" or "rng" not in kernel.specials


def refuse_on_error(options: Mapping[str, Any], verb: str) -> None:
    """Refuse an option that a verb hasn't.

    Raises:
        ParameterError: on_error is among the options.
    """
    if "on_error" in options:
        raise ParameterError(f"{verb} takes no on_error: all that comes behind would hang on the cell that is left out",
                             hint="say it at the map before it, or let the kernel itself return NaN")
