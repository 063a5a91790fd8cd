"""A gang: the threads that carry an `iterate` together, each its own block of the space's first dimension.

Rows of the state lie in a ring in memory that all members see. A member says of each cell that others read when it is
there, waits for the cells of others that it reads, and takes a slot of the ring again only when the readers of what was
in it are done. Nobody waits for anything else, and no Python runs between steps. What comes out doesn't depend on
the number of members: each cell is computed by the same code from the same inputs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numba
import numpy as np

from gridcompute import loops, random
from gridcompute.access import Halo
from gridcompute.actions.maps import Map
from gridcompute.atomics import LATE
from gridcompute.bands import Band, Tables, deal, edge_tables, window_tables
from gridcompute.cellinputs import loop_parameter
from gridcompute.columns import Array, Fixed
from gridcompute.edges import Edges
from gridcompute.errors import RunError
from gridcompute.members import spent, together
from gridcompute.shares import (
    LINE,
    Reads,
    axis_map,
    edge_reads,
    even,
    laid_out,
    places_of,
    readers,
    slabs,
    window_reads,
)
from gridcompute.steploops import PAD, StepShape, make_step_loop

config: Any = numba.core.config

DEPTH = 64
RING_BYTES = 256 * 2**10
"""A gang's ring has up to `DEPTH` rows while they fit in this, and at least two."""

MOST_ENTRIES = 2**24
"""Cells times phases of edges that are tabulated."""

PROBES = 3
LONG_PROBE_SECONDS = 1e-3

BASE = 1
"""Of the rows' numbers in flags: 0 is a flag that was never set."""

PATIENCE_SECONDS = 3600.0
"""A member that waits longer for another ends the gang; the run's deadline usually comes first."""


def fits(cells: Map, neighbours: Halo | Edges, columns: Sequence[Fixed]) -> bool:
    """Whether compiled loops can carry it; it follows from the graph and the columns' shape alone."""
    kernel = cells.kernel
    if config.DISABLE_JIT or kernel.mode != "cell" or "valid" in kernel.specials:
        return False
    if not all(column.values.size and _converts(to, column.values.dtype)
               for to, column in zip(cells.dtypes, columns, strict=True)):  # fmt: skip
        return False
    if isinstance(neighbours, Halo):
        return True
    compiled = neighbours.active is None or hasattr(neighbours.width_rule, "compile")
    return compiled and neighbours.phases * len(columns[0].values) <= MOST_ENTRIES


def _converts(given: np.dtype[Any], kept: np.dtype[Any]) -> bool:
    """Whether compiled code has the column's type, and converts the kernel's to it as NumPy does."""
    if kept.kind not in "biufc" or kept == np.float16 or not kept.isnative:
        return False
    kinds = given.kind + kept.kind
    return given == kept or kinds in ("ff", "cc") or set(kinds) <= set("iu")


def aligned(size: int, dtype: Any) -> Array:
    """Zeros that begin at a cache line."""
    dtype = np.dtype(dtype)
    room = np.zeros(size * dtype.itemsize + LINE, np.uint8)
    skip = -room.ctypes.data % LINE
    return room[skip: skip + size * dtype.itemsize].view(dtype)


class Gang:
    """The members over one state.

    Args:
        cells: the kernel with its parameters.
        neighbours: what each cell reads.
        fill: value outside, for boundary "fill".
        names: of the space's dimensions.
        columns: of the types and the extents of the state's, all over the whole space, without nulls; see `fits`.
        members: threads, this one included; no more than there are units.
        steps: that will be done, at most.
        depth: rows of the ring; None for what suits.
        band: the units, where they aren't all: the members' state is then that of the band with its halo, and `run`
            goes on by no more than its `reach`.
        tables: of a band's edges.

    Attributes:
        waits: whether any member reads what another makes.
    """

    def __init__(self, cells: Map, neighbours: Halo | Edges, fill: float, names: tuple[str, ...],
                 columns: Sequence[Fixed], members: int, steps: int, *, depth: int | None = None,
                 band: Band | None = None, tables: Tables = ()) -> None:
        self.cells, self.neighbours, self.fill = cells, neighbours, fill
        length, *inner = columns[0].values.shape
        self.space = (band.length if band else length, *inner)
        self.inner = math.prod(inner)
        self.dtypes = [column.values.dtype for column in columns]
        self.deal = deal(band, members) if band else None
        self._make_ring(self.deal.cuts if self.deal else even(length, max(1, min(members, length))), depth)
        owns = self.deal.owns if self.deal else [share.hi - share.lo for share in self.shares]
        self._owns = [slice(share.places.start, share.places.start + own)
                      for share, own in zip(self.shares, owns, strict=True)]
        self.done, self.ready = (aligned(self.members * PAD, np.int64) for _ in range(2))
        self.control, self.times = aligned(PAD, np.int64), aligned(2 * self.members, np.int64)
        self._marks = [(aligned(1, np.int64), aligned(1, np.int64)) for _ in range(self.members)]
        active = None if isinstance(neighbours, Halo) else neighbours.width_rule
        self._loop = make_step_loop(cells.kernel, self._shape(names), active)
        self._tables = self._rest(names, steps, tables)
        for member in range(self.members):
            loops.compile_for(cells.kernel, self._loop, self._arguments(member, 0, 0))

    def _make_ring(self, cuts: Sequence[int], depth: int | None) -> None:
        """Rows of the state: an array a column and one of flags, or all in one where flags and values fit together."""
        self.members = len(cuts) - 1
        together = self.members > 1 and self.inner == 1 and all(dtype.itemsize == 8 for dtype in self.dtypes)
        if together:
            self.shares, self.width, pitch = slabs(cuts, len(self.dtypes))
            row = 8 * self.width
        else:
            self.shares, self.width = laid_out(cuts, self.inner * min(dtype.itemsize for dtype in self.dtypes))
            row = self.width * self.inner * sum(dtype.itemsize for dtype in self.dtypes)
        self.depth = depth or (2 if self.members == 1 else max(2, min(DEPTH, RING_BYTES // row)))
        words = self.depth * self.width
        if together:
            whole = aligned(words + pitch * len(self.dtypes), np.int64)
            self.flags, *values = (whole[i * pitch: i * pitch + words] for i in range(1 + len(self.dtypes)))
            self.rings = [one.view(dtype) for one, dtype in zip(values, self.dtypes, strict=True)]
        else:
            self.rings = [aligned(words * self.inner, dtype) for dtype in self.dtypes]
            self.flags = aligned(words, np.int64)

    def put(self, row: int, columns: Sequence[Fixed]) -> None:
        """Begin with a state: what step `row` is to read; of a band its own units, `show` gives those of its halo."""
        for ring, column in zip(self.rings, columns, strict=True):
            flat, slot, at = column.values.reshape(-1, self.inner), self._slot(ring, row), 0
            for own in self._owns:
                slot[own] = flat[at: (at := at + own.stop - own.start)]
        for share in self.shares:
            self.flags.reshape(self.depth, self.width)[row % self.depth, share.places] = BASE + row
        self.done[:] = BASE + row

    def get(self, row: int) -> list[Fixed]:
        """The state that step `row` is to read, copied; of a band its own units."""
        slots = [self._slot(ring, row) for ring in self.rings]
        return [Fixed(np.concatenate([slot[own] for own in self._owns]).reshape(-1, *self.space[1:]))
                for slot in slots]

    def places(self, units: Array) -> Array:
        """Where some of a band's units lie in a row."""
        assert self.deal is not None
        found: Array = places_of(self.shares)[self.deal.numbers(units)]
        return found

    def show(self, row: int, places: Array, columns: Sequence[Array]) -> None:
        """Give the state of units that others carry, one array a column."""
        for ring, values in zip(self.rings, columns, strict=True):
            self._slot(ring, row)[places] = values
        self.flags.reshape(self.depth, self.width)[row % self.depth, places] = BASE + row

    def seen(self, row: int, places: Array) -> list[Array]:
        """The state of units that others read, one array a column, copied."""
        return [self._slot(ring, row)[places] for ring in self.rings]

    def _slot(self, ring: Array, row: int) -> Array:
        slot: Array = ring.reshape(self.depth, self.width, self.inner)[row % self.depth]
        return slot

    def _window(self, names: tuple[str, ...]) -> tuple[int, ...] | None:
        halo = self.neighbours
        return tuple(names.index(name) for name, *_ in halo.dims) if isinstance(halo, Halo) else None

    def _shape(self, names: tuple[str, ...]) -> StepShape:
        casts = tuple(given != kept for given, kept in zip(self.cells.dtypes, self.dtypes, strict=True))
        active = isinstance(self.neighbours, Edges) and self.neighbours.active is not None
        return StepShape(casts, len(self.cells.params), self.cells.kernel.specials, len(self.space),
                         self._window(names), active, self.deal is not None)

    def _rest(self, names: tuple[str, ...], steps: int, tables: Tables) -> list[list[Any]]:
        """Per member the loop's arguments after the member's own state."""
        cells, kernel = self.cells, self.cells.kernel
        params = [loop_parameter(value) for value in kernel.bind(dict(cells.params)).values()]
        if isinstance(self.neighbours, Edges):
            reads, middle = self._edge_tables(self.neighbours, steps, tables)
            extent: tuple[int, ...] = (max(1, self.neighbours.max_inputs),)
        else:
            reads, middle = self._window_tables(self.neighbours, names)
            extent = tuple(lo + hi + 1 for _, lo, hi, _ in self.neighbours.dims)
        self.waits = any(len(one.await_at) for one in reads)
        rest: list[list[Any]] = []
        for (by, shown), one, own in zip(readers(reads, self.shares), reads, middle, strict=True):
            known = [by, shown, one.await_rows, one.await_at, tuple(np.int64(n) for n in self.space)]
            known += self._numbered(len(rest))
            known += [random.state(random.seed_key(cells.seed, cells.name))] if "rng" in kernel.specials else []
            rest.append([*known, *own, *self._columns(extent), *params])
        return rest

    def _numbered(self, member: int) -> list[Array]:
        """Of a band the units of a member's numbers, and how many of them are computed with so many steps left."""
        if self.deal is None:
            return []
        return [self.deal.units, np.ascontiguousarray(self.deal.counts[member])]

    def _edge_tables(self, edges: Edges, steps: int, tables: Tables) -> tuple[list[Reads], list[list[Any]]]:
        """Per member what it reads, and the loop's arguments for it."""
        if self.deal is None:
            length = self.space[0]
            reads = edge_reads(edges, length, edges.widest(length, steps), self.shares)
        else:
            reads = edge_tables(tables, self.deal, self.shares, leading=edges.active is None)
        rules = [np.int64(edges.lead), np.int64(edges.period)]
        return reads, [[*rules, *one.tables] for one in reads]

    def _window_tables(self, halo: Halo, names: tuple[str, ...]) -> tuple[list[Reads], list[list[Any]]]:
        """As `_edge_tables`."""
        sides, first = halo.sides, names[0]
        maps = {name: axis_map(length, *sides[name]) for name, length in zip(names, self.space, strict=True)
                if name in sides}
        before, after, boundary = sides.get(first, (0, 0, "clip"))
        if self.deal is None:
            units = maps.get(first, np.arange(self.space[0]))
            reads = window_reads(units, before, after, self.shares)
            # Of the first dimension the loop wants places.
            near = [np.where(units < 0, -1, places_of(self.shares)[units])] * self.members
        else:
            reads, near = window_tables(before, after, boundary, self.deal, self.shares)
        fills = [np.full(1, self.fill).astype(dtype) for dtype in self.dtypes]
        return reads, [[*(one if name == first else maps[name] for name, *_ in halo.dims), *fills] for one in near]

    def _columns(self, extent: tuple[int, ...]) -> list[Any]:
        """The rings, each with a member's own room for a cell's inputs, and for a result that is converted."""
        found: list[Any] = []
        for ring, given, kept in zip(self.rings, self.cells.dtypes, self.dtypes, strict=True):
            room = np.zeros(extent, kept)
            found += [ring, room] + ([loops.read_only(room)] if isinstance(self.neighbours, Halo) else [])
            found += [np.zeros(1, given)] if given != kept else []
        return found

    def _arguments(self, member: int, first: int, last: int, mark: Array | None = None,
                   units: int | None = None) -> tuple[Any, ...]:
        share, (cell, place) = self.shares[member], self._marks[member]
        hi = share.hi if units is None else share.lo + units
        numbers = (member, self.members, first, last, share.lo, hi, share.hi - share.lo, share.shift, self.width,
                   self.depth, BASE, int(PATIENCE_SECONDS * 1e9))
        return (cell if mark is None else mark, place, self.control, self.times, *map(np.int64, numbers), self.flags,
                self.done, self.ready, *self._tables[member])

    def run(self, first: int, last: int, mark: Array | None = None) -> float:
        """Go on by the steps `first` to `last`.

        Args:
            first: the row that `put` gave, or that an earlier call came to.
            last: the row to come to.
            mark: where a lone member stores the cell that it is at.

        Returns:
            Seconds from when all members were there to when all were done.

        Raises:
            KernelError: the kernel raised; names the step and the cell, of several the first.
            RunError: a member waited too long.
        """
        assert self.deal is None or last - first <= self.deal.band.reach, "a band has no halo for more steps"
        orders = [self._arguments(m, first, last, mark if self.members == 1 else None) for m in range(self.members)]
        self._carry(orders, mark)
        return spent(self.times)

    def _carry(self, orders: Sequence[tuple[Any, ...]], mark: Array | None = None) -> None:
        codes, errors = together([partial(self._loop, *order) for order in orders], self.control, "gang")
        self._check(codes, errors, mark)

    def _check(self, codes: list[int], errors: list[tuple[int, BaseException]], mark: Array | None) -> None:
        """Raise what went wrong: of several kernels that raised, that of the first step and cell."""
        found = []
        for member, error in errors:
            cell, place = self._marks[member]
            at = cell if mark is None or self.members > 1 else mark
            found.append((isinstance(error, Exception), int(place[0]), int(at[0]), error))
        for raised, step, flat, error in sorted(found, key=lambda one: one[:3]):
            if not raised or isinstance(error, MemoryError):
                raise error
            where = tuple(int(one) for one in np.unravel_index(flat, self.space))
            raise loops.in_step(loops.kernel_error(self.cells.kernel, where, error), step) from error
        if LATE in codes:
            member = codes.index(LATE)
            raise RunError(f"iterate {self.cells.name}: member {member} of {self.members} waited more than "
                           f"{PATIENCE_SECONDS:.0f} s in step {int(self._marks[member][1][0])} for a neighbour",
                           hint="is one of its cells very slow? run with one worker to see")

    def probe(self, first: int) -> float:
        """Seconds that the first unit takes in a step, about; the step can be done again."""
        least = [np.inf, np.inf]
        for _ in range(PROBES):
            for units in (0, 1):
                began = time.perf_counter()
                self._carry([self._arguments(0, first, first + 1, units=units)])
                least[units] = min(least[units], time.perf_counter() - began)
            if least[1] > LONG_PROBE_SECONDS:
                break
        return max(least[1] - least[0], 0.0)
