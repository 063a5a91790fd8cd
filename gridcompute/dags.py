"""Explicit directed acyclic graphs over the cells of one dimension: which cells' results each cell reads, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gridcompute.codecache import cached_njit
from gridcompute.columns import Array
from gridcompute.digests import digest
from gridcompute.errors import ParameterError
from gridcompute.status import counted

_OPEN = -1
"""The level of a cell on the path that is being followed."""

NEAR, NEAR_SHARE = 64, 0.25
"""Cells whose numbers are an order already are taken in it if at most such a share of them reads one of so many before:
what is done at the same time then lies side by side, and seldom waits for each other."""

MOST_NAMED = 12
"""Cells of a cycle that a message names."""


@dataclass(frozen=True, eq=False, repr=False)
class Dag:
    """Which cells each cell of a dimension reads: a directed acyclic graph as two arrays (CSR).

    Cell i reads the cells `inputs[offsets[i]:offsets[i + 1]]`, in this order; one may stand there twice. Arrays that
    may change are copied. That there is no cycle is found when the cells are ordered (see `order`).

    Attributes:
        offsets: int64, one more than there are cells; from 0, never falling.
        inputs: cells' numbers; int32 where the number of cells fits, else int64.

    Raises:
        ParameterError: arrays that aren't such; names the place.

    >>> river = Dag.of_targets([2, 2, 3, -1])
    >>> river
    <Dag of 4 cells, 3 edges>
    >>> river.inputs_of(2), river.order.tolist(), river.levels
    ([0, 1], [0, 1, 2, 3], 3)
    """

    offsets: Array
    inputs: Array

    def __post_init__(self) -> None:
        offsets, inputs = _whole_numbers("offsets", self.offsets), _whole_numbers("inputs", self.inputs)
        if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(inputs):
            ends = f"from {offsets[0]} to {offsets[-1]}" if len(offsets) else "nowhere"
            raise ParameterError(f"dag: offsets go {ends}, not from 0 to the {counted(len(inputs), 'input')}",
                                 hint="one more than there are cells: where each one's inputs begin, then their number")
        falling = np.flatnonzero(offsets[1:] < offsets[:-1])
        if len(falling):
            cell = int(falling[0])
            raise ParameterError(f"dag: offsets fall from {offsets[cell]} to {offsets[cell + 1]} at cell {cell}",
                                 hint="a cell's inputs end where those of the next begin")
        cells = len(offsets) - 1
        if (place := _outside(inputs, cells)) is not None:
            cell = int(np.searchsorted(offsets, place, "right")) - 1
            raise ParameterError(f"dag: cell {cell} reads {inputs[place]}, outside 0 to {cells - 1}")
        object.__setattr__(self, "offsets", _kept(offsets, np.dtype(np.int64)))
        object.__setattr__(self, "inputs", _kept(inputs, _index_dtype(cells)))

    @classmethod
    def of_edges(cls, sources: Any, targets: Any, cells: int) -> Dag:
        """The graph of edges in any order: `targets[k]` reads `sources[k]`, each its inputs in the order of the edges.

        Args:
            sources: whole numbers, one an edge.
            targets: as many.
            cells: how many cells there are.

        Raises:
            ParameterError: arrays that aren't such; names the edge.
        """
        if not isinstance(cells, int | np.integer) or isinstance(cells, bool) or cells < 0:
            raise ParameterError(f"dag: the number of cells is {cells!r}", hint="a whole number, 0 or more")
        ends = {"sources": _whole_numbers("sources", sources), "targets": _whole_numbers("targets", targets)}
        if len(ends["sources"]) != len(ends["targets"]):
            raise ParameterError(f"dag: {len(ends['sources'])} sources, but {len(ends['targets'])} targets",
                                 hint="one of each an edge")
        for name, array in ends.items():
            if (edge := _outside(array, int(cells))) is not None:
                raise ParameterError(f"dag: {name}[{edge}] is {array[edge]}, outside 0 to {cells - 1}")
            if array.dtype not in (np.int32, np.int64) or not array.dtype.isnative:
                ends[name] = array.astype(np.int64)
        offsets = np.zeros(int(cells) + 1, np.int64)
        inputs = np.empty(len(ends["sources"]), _index_dtype(int(cells)))
        cached_njit(_gather)(*(np.ascontiguousarray(one) for one in ends.values()), offsets, inputs)
        return cls(_ours(offsets), _ours(inputs))

    @classmethod
    def of_targets(cls, targets: Any) -> Dag:
        """A river network: cell i is read by the cell `targets[i]`, its next downstream; -1 by none.

        Raises:
            ParameterError: what isn't such an array; names the cell.
        """
        targets = _whole_numbers("targets", targets)
        if (cell := _outside(targets, len(targets), least=-1)) is not None:
            raise ParameterError(f"dag: cell {cell} is read by {targets[cell]}, outside 0 to {len(targets) - 1}",
                                 hint="-1 stands for none")
        sources = np.flatnonzero(targets != -1)
        return cls.of_edges(sources, targets[sources], len(targets))

    @classmethod
    def of_parents(cls, parents: Any) -> Dag:
        """A tree from its root on: cell i reads the cell `parents[i]`; -1 none.

        Raises:
            ParameterError: what isn't such an array; names the cell.
        """
        parents = _whole_numbers("parents", parents)
        has = parents != -1
        offsets = np.zeros(len(parents) + 1, np.int64)
        np.cumsum(has, out=offsets[1:])
        return cls(_ours(offsets), _ours(parents[has]))

    @property
    def cells(self) -> int:
        """Number of cells."""
        return len(self.offsets) - 1

    @property
    def edges(self) -> int:
        """Number of inputs of all cells."""
        return len(self.inputs)

    def inputs_of(self, cell: int) -> list[int]:
        """What a cell reads, in order."""
        found: list[int] = self.inputs[self.offsets[cell]: self.offsets[cell + 1]].tolist()
        return found

    @cached_property
    def key(self) -> str:
        """What enters the recipe."""
        return digest(("dag", self.offsets, self.inputs))

    @cached_property
    def widest(self) -> int:
        """Most inputs that a cell has."""
        return int(np.diff(self.offsets).max(initial=0))

    @property
    def order(self) -> Array:
        """All cells, each after its inputs; it follows from the graph alone.

        By number, where inputs have lower numbers than what reads them and mostly lie some way off. Else level by level
        (first those that read nothing, then those that read only such, and so on), within a level by number.

        Raises:
            ParameterError: the graph has a cycle; names its cells.
        """
        return self._ordered[0]

    @property
    def levels(self) -> int:
        """Number of levels: of cells on the longest path."""
        return len(self.level_cells)

    @property
    def level_cells(self) -> Array:
        """Number of cells of each level (int64)."""
        return self._ordered[1]

    @property
    def nbytes(self) -> int:
        """Bytes held, those of the order included."""
        return sum(int(one.nbytes) for one in (self.offsets, self.inputs, *self._ordered))

    @cached_property
    def _ordered(self) -> tuple[Array, Array]:
        kind = _index_dtype(self.cells)
        level, path = np.zeros(self.cells, kind), np.empty(self.cells, kind)
        at = np.empty(self.cells, np.int64)  # of this and `path` as much is touched as the longest path has cells
        if deep := int(cached_njit(_level)(self.offsets, self.inputs, level, path, at)):
            raise _cyclic(path[:deep].tolist(), int(self.inputs[at[deep - 1]]))
        del path, at
        near = int(cached_njit(_near)(self.offsets, self.inputs, NEAR))
        starts = np.zeros(int(level.max(initial=0)) + 1, np.int64)
        order = np.empty(self.cells, kind)
        cached_njit(_sort)(level, starts, order)
        if 0 <= near <= NEAR_SHARE * self.cells:
            order = np.arange(self.cells, dtype=kind)
        return _ours(order), _ours(np.diff(starts))

    def __setstate__(self, state: dict[str, Any]) -> None:
        for array in (state["offsets"], state["inputs"], *state.get("_ordered", ())):
            _ours(array)  # pickles forget it, and loops are compiled for such arrays
        self.__dict__.update(state)

    def __repr__(self) -> str:
        return f"<Dag of {counted(self.cells, 'cell')}, {counted(self.edges, 'edge')}>"


def _whole_numbers(what: str, values: Any) -> Array:
    """One dimension of whole numbers, as they are."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise ParameterError(f"dag: {what} have masked elements", hint="-1, or nothing, stands for no cell")
    array = np.asarray(values)
    if array.ndim == 1 and not array.size:
        return array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ParameterError(f"dag: {what} are {array.dtype} of shape {array.shape}",
                             hint="whole numbers in one dimension")
    return array


def _outside(array: Array, cells: int, least: int = 0) -> int | None:
    """Where the first number lies that is no cell's; None where there is none."""
    if not array.size or (array.min() >= least and array.max() < cells):
        return None
    return int(np.flatnonzero((array < least) | (array >= cells))[0])


def _index_dtype(cells: int) -> np.dtype[Any]:
    return np.dtype(np.int32 if cells < 2**31 else np.int64)


def _kept(array: Array, dtype: np.dtype[Any]) -> Array:
    """An array that nobody changes; a view that is read-only still changes with what it looks into."""
    changes = array.flags.writeable or not array.flags.owndata
    return _ours(np.array(array, dtype, copy=True if changes else None, order="C"))


def _ours(array: Array) -> Array:
    array.flags.writeable = False
    return array


def _cyclic(path: list[int], again: int) -> ParameterError:
    """The error for a path whose last cell reads one of its cells."""
    cycle = path[path.index(again):]
    least = cycle.index(min(cycle))
    cycle = cycle[least:] + cycle[:least]  # from the least on, wherever the path came in
    named = ", which reads ".join(map(str, cycle[1:MOST_NAMED]))
    more = f", and so on over {len(cycle)} cells" if len(cycle) > MOST_NAMED else ""
    what = f"cell {cycle[0]} reads {named}{more}, which reads {cycle[0]}" if len(cycle) > 1 else \
        f"cell {cycle[0]} reads itself"
    return ParameterError(f"dag: there is a cycle: {what}", hint="a cell's inputs must be done before it: take one of "
                          "these edges away; for values that go round, iterate steps over `grid.Edges`")


# --- compiled ---


def _gather(sources: Array, targets: Array, offsets: Array, inputs: Array) -> None:
    """Fill in offsets (zeros before) and inputs from edges: a counting sort that keeps the edges' order."""
    for edge in range(targets.size):
        offsets[targets[edge]] += 1
    total = 0
    for cell in range(offsets.size):
        total += offsets[cell]
        offsets[cell] = total
    # Each cell's end moves back to its beginning while its inputs are filled in, the last first.
    for edge in range(targets.size - 1, -1, -1):
        offsets[targets[edge]] -= 1
        inputs[offsets[targets[edge]]] = sources[edge]


def _level(offsets: Array, inputs: Array, level: Array, path: Array, at: Array) -> int:
    """Fill in each cell's level, from 1 (zeros before), by a walk along inputs, depth first.

    Gives 0; or the length of the path whose last cell reads one of its cells, with the place of that input in `at`.
    """
    for first in range(level.size):
        deep = 0
        if level[first] == 0:
            path[0], at[0], level[first], deep = first, offsets[first], _OPEN, 1
        while deep > 0:
            cell = path[deep - 1]
            place, end = at[deep - 1], offsets[cell + 1]
            while place < end and level[inputs[place]] > 0:
                place += 1
            if place == end:
                highest = 0
                for k in range(offsets[cell], end):
                    highest = max(highest, level[inputs[k]])
                level[cell] = highest + 1
                deep -= 1
                continue
            at[deep - 1] = place
            source = inputs[place]
            if level[source] == _OPEN:
                return deep
            path[deep], at[deep], level[source] = source, offsets[source], _OPEN
            deep += 1
    return 0


def _near(offsets: Array, inputs: Array, reach: int) -> int:
    """Cells that read one of the `reach` before them; -1 where one reads a cell of a higher number than its own."""
    found = 0
    for cell in range(offsets.size - 1):
        highest = -1
        for k in range(offsets[cell], offsets[cell + 1]):
            highest = max(highest, inputs[k])
        if highest >= cell:
            return -1
        if highest >= 0 and cell - highest <= reach:
            found += 1
    return found


def _sort(level: Array, starts: Array, order: Array) -> None:
    """Fill in where each level begins, and the cells by level (from 1): a counting sort that keeps their order."""
    for cell in range(level.size):
        starts[level[cell] - 1] += 1
    for one in range(1, starts.size):
        starts[one] += starts[one - 1]
    for cell in range(level.size - 1, -1, -1):
        starts[level[cell] - 1] -= 1
        order[starts[level[cell] - 1]] = cell
