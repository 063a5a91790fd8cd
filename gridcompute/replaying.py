"""One cell of a run again, here: its input as the run would read it, then the kernel. Nothing is committed.

The run's graph is made again as `resume` does it. What an input is made of is read where it is committed, and computed
where it isn't.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gridcompute.actions.maps import Map
from gridcompute.actions.rows import Explode
from gridcompute.actions.stencils import Stencil
from gridcompute.columns import Array, Block, Fixed, Ragged
from gridcompute.compiled import empty_outputs
from gridcompute.errors import DimensionError, OutputError, ParameterError, RecordError
from gridcompute.ledger import Ledger
from gridcompute.located import cell_of, loop_of, read_for
from gridcompute.loops import config
from gridcompute.op import Graph, Op
from gridcompute.origins import Origin, ReachedRun, current
from gridcompute.outputs import outputs_of
from gridcompute.planning import Plan
from gridcompute.reading import Reader, ReadOnly, Remade, readers
from gridcompute.reasons import graph_changes
from gridcompute.record import RunRecord, load
from gridcompute.resuming import how_made, make_again
from gridcompute.running import Run
from gridcompute.single import Outcome, carry_out
from gridcompute.skipping import Work, work_of
from gridcompute.skips import in_words
from gridcompute.spaces import Region
from gridcompute.status import counted
from gridcompute.store import open_store

Cell = str | Mapping[str, int] | Sequence[int]
"""A cell: "lat=3,lon=17" or "3,17", the same by name or in order; with `block` where rows aren't counted."""

SHOWN = 6
"""Values of an array that are printed."""

MOST_TEXT = 80
"""Characters of a text that are printed."""


@dataclass(frozen=True, eq=False)
class Replayed:
    """A kernel that was run for one cell.

    Attributes:
        op: name of its op.
        cell: in words, with labels and what it was read from.
        inputs: the cell's values by column.
        outputs: what the kernel gave, by column; empty where it failed.
        params: of the kernel.
        error: the traceback, or what ended the process; empty where it gave values.
        texts: names of the inputs that are text, as bytes.
    """

    op: str
    cell: str
    inputs: dict[str, Array]
    outputs: dict[str, Array]
    params: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    texts: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether the kernel gave no values."""
        return bool(self.error)

    def lines(self) -> list[str]:
        """Inputs, then the output or why there is none, for a terminal."""
        found = [f"{self.op} at {self.cell}"]
        found += [f"  input {name}: {_text(values) if name in self.texts else shown(values)}"
                  for name, values in self.inputs.items()]
        found += [f"  parameter {name}: {shown(np.asarray(value))}" for name, value in self.params.items()]
        found += [f"  gives {name}: {shown(values)}" for name, values in self.outputs.items()]
        return [*found, *(f"  fails: {self.error}".splitlines() if self.error else [])]

    def save(self, path: str | Path) -> None:
        """Keep the inputs as a NumPy archive, an array a column.

        Raises:
            OutputError: it can't be written.
        """
        arrays: dict[str, Any] = dict(self.inputs)
        try:
            np.savez(path, **arrays)
        except OSError as error:
            raise OutputError(f"the input can't be kept in {path}: {error.strerror or error}",
                              hint="name a file in a folder that is there and can be written") from error


def shown(values: Array) -> str:
    """An array in short: dtype, shape, range and first values."""
    values = np.asarray(values)
    if not values.ndim:
        return f"{values.dtype} {values[()]}"
    first = ", ".join(str(one) for one in values.reshape(-1)[:SHOWN])
    more = ", ..." if values.size > SHOWN else ""
    span = f", {np.nanmin(values)} to {np.nanmax(values)}" if _has_range(values) else ""
    return f"{values.dtype} {values.shape}{span} [{first}{more}]"


def _text(values: Array) -> str:
    text = values.tobytes().decode(errors="replace")
    return f"text of {counted(len(values), 'byte')} {text[:MOST_TEXT]!r}{'...' if len(text) > MOST_TEXT else ''}"


def _has_range(values: Array) -> bool:
    return values.dtype.kind in "iuf" and values.size > SHOWN and not bool(np.isnan(values.astype(float)).all())


def replay(run: str | Run, cell: Cell, *, op: str = "", jit: bool | None = None, pdb: bool = False, step: bool = False,
           apart: bool = True, changed: bool = False) -> Replayed:
    """Run a kernel again for one cell of a run, with the input that it has there. Nothing is committed.

    Args:
        run: a run, its name, the beginning of its name, or "last".
        cell: "lat=3,lon=17", or "3,17" in the order of the kernel's dimensions; also as a mapping or a sequence.
        op: name of the op, where several ops with kernels have these dimensions.
        jit: whether the kernel is compiled; by default it is, except in a debugger.
        pdb: stop in a debugger where the kernel raises.
        step: stop in a debugger before the kernel's first line.
        apart: run in a process of its own, so that whatever ends that is told; never in a debugger.
        changed: go on also where the run's graph isn't what it was.

    Raises:
        RecordError: no such run, or it can't be made again.
        ParameterError: no such op, several that fit, or no such cell.
    """
    graph, url, options = _graph_of(run, changed=changed)
    targets = list(_targets(graph, ReadOnly(open_store(url, **options))))
    target, at, block = _chosen(targets, cell, op)
    work, position, inputs = target.work(at, block)
    debugged = pdb or step
    plain = debugged if jit is None else not jit
    outcome: Outcome = carry_out(work, position, plain=plain, pdb=pdb, step=step, apart=apart and not debugged)
    where = cell_of(target.op, at, target.block_region(block)) + read_for(target.op, at, target.block_region(block))
    made = [f.name for f in target.op.fields if f.name not in getattr(target.op.action, "keep", ())]
    outputs = dict(zip(made, outcome.values, strict=True)) if outcome.values else {}
    texts = tuple(name for name, (i, column) in zip(inputs, target.cells.columns, strict=True)
                  if target.op.inputs[i].field(column).kind == "string")
    return Replayed(str(target.op), where, inputs, outputs, dict(target.cells.params), outcome.error, texts)


def _graph_of(run: str | Run, *, changed: bool) -> tuple[Graph, str, Mapping[str, Any]]:
    """A run's graph, and its work store's URL and options."""
    known = [one for one in current().runs if isinstance(one, Run) and one.name == run]
    if isinstance(run, Run) or known:
        found = run if isinstance(run, Run) else known[-1]
        return found._graph, found._settings.store, found._settings.store_options
    record = load(str(run))
    made = _made_again(record)
    lines = graph_changes(record.graph, made.graph.canonical(), record.versions) if made.graph.key != record.key else []
    # Where numba compiles nothing, what was asked of it for a function that a kernel calls isn't there to be seen.
    plain = config.DISABLE_JIT and all(line.split(": ")[-1].startswith("flags of ") for line in lines)
    if lines and not (changed or plain):
        raise RecordError(f"the run {record.run} can't be replayed, its graph has changed: {'; '.join(lines)}",
                          hint="--changed (changed=True) replays the cell of the graph as it is now")
    return made.graph, made.settings.store, made.settings.store_options


def _made_again(record: RunRecord) -> ReachedRun:
    origin = Origin(how_made(record), reports=True, stops=int(record.how.get("call", 0)))
    try:
        make_again(record, origin, {})
    except ReachedRun as reached:
        return reached
    raise RecordError(f"{origin.how.get('script', origin.how.get('workload'))} doesn't make the run {record.run} any "
                      "more", hint="run it anew; what was committed counts")


@dataclass(frozen=True, eq=False)
class Target:
    """An op whose kernel can be replayed.

    Attributes:
        name: under which it is asked for.
        op: as the worker would have it.
        reader: reads its inputs.
    """

    name: str
    op: Op
    reader: Reader

    @property
    def cells(self) -> Map:
        """Its kernel."""
        found = getattr(self.op.action, "cells", self.op.action)
        assert isinstance(found, Map)
        return found

    @property
    def dims(self) -> tuple[str, ...]:
        """The dimensions that its kernel runs over."""
        return loop_of(self.op)

    @property
    def lengths(self) -> tuple[int | None, ...]:
        """Their lengths; None where the cells aren't counted."""
        space = self.op.inputs[0].space if isinstance(self.op.action, Explode) else self.op.space
        return tuple(space[name] for name in self.dims)

    def block_region(self, block: int) -> Region | None:
        """For messages: the region of a block of uncounted rows."""
        return Region(((block, block + 1), *self.op.whole.bounds[1:])) if block >= 0 else None

    def work(self, cell: tuple[int, ...], block: int) -> tuple[Work, int, dict[str, Array]]:
        """The kernel's work over a region that has the cell, the cell's position there, and its inputs by column."""
        op, cells = self.op, self.cells
        memo: dict[tuple[str, Region], Block] = {}
        at = {name: (i, i + 1) if length is not None else (block, block + 1)
              for name, i, length in zip(self.dims, cell, self.lengths, strict=True)}

        def read(i: int, part: Region) -> Block:
            return self.reader.read_input(op, i, part, memo)

        if isinstance(op.action, Stencil):
            work = self._window(op.action, Region(tuple(at[name] for name in op.space.names)), read)
        elif isinstance(op.action, Explode):
            parts = [Region(tuple(at.get(name, full) for name, full in
                                  zip(source.space.names, source.whole.bounds, strict=True))) for source in op.inputs]
            given = op.action.cells_over(op, parts[0], [read(i, part) for i, part in enumerate(parts)])
            work = work_of(cells.kernel, given[0], dict(cells.params), outputs=cells.dtypes, rows=True,
                           limit=op.action.most, **given[1])
        else:
            region = Region(tuple(at.get(name, full) for name, full in
                                  zip(op.space.names, op.whole.bounds, strict=True)))
            given = cells.cells_over(op, region, read)
            work = work_of(cells.kernel, given[0], dict(cells.params), outputs=cells.dtypes, **given[1])
        position = _position(work, tuple(0 if n is not None else i for i, n in zip(cell, self.lengths, strict=True)))
        names = [name for _, name in cells.columns]
        several = [f"{name}_{i}" if names.count(name) > 1 else name for i, name in enumerate(names)]
        return work, position, {name: _cell_of(column, position)
                                for name, column in zip(several, work.cells.columns, strict=True)}

    def _window(self, action: Stencil, region: Region, read: Any) -> Work:
        found: list[Work] = []

        def run(inputs: Any, part: Region, lengths: Any, word: Any) -> Any:
            cells = action.cells
            found.append(work_of(cells.kernel, inputs, dict(cells.params), outputs=cells.dtypes, shape=part.shape,
                                 origin=part.start, space_shape=lengths, seed=cells.seed, rng_name=cells.name))
            return empty_outputs(cells.kernel, found[0].cells, cells.dtypes)

        action.windows_over(self.op, region, read, run)
        return found[0]


def _position(work: Work, place: tuple[int, ...]) -> int:
    shape = work.cells.shape
    if any(at >= extent for at, extent in zip(place, shape, strict=True)):
        raise ParameterError(f"there is no row {place[0]} in that block: it has {shape[0]}")
    return int(np.ravel_multi_index(place, shape)) if shape else 0


def _cell_of(column: Fixed | Ragged, position: int) -> Array:
    if isinstance(column, Ragged):
        return column.values[column.offsets[position] : column.offsets[position + 1]]
    return np.asarray(column.values[position])


def _targets(graph: Graph, store: ReadOnly) -> Iterator[Target]:
    """All ops with kernels that can be replayed, inputs first; those of one name are numbered."""
    seen: dict[str, int] = {}
    known: set[str] = set()
    for phase in _phases(graph, store):
        for reader in phase:
            for root in reader.payload.stage.roots:
                for op in root.walk():
                    if not isinstance(op.action, Map | Explode | Stencil) or op.recipe in known:
                        continue
                    known.add(op.recipe)
                    seen[str(op)] = count = seen.get(str(op), 0) + 1
                    yield Target(str(op) if count == 1 else f"{op}#{count}", op, reader)


def _phases(graph: Graph, store: ReadOnly) -> Iterator[list[Reader]]:
    """The phases that a run has come to, by what it has counted: readers of their stages."""
    counted: dict[str, Any] = {}
    while True:
        plan = Plan(graph, counted)
        found = list(readers(plan, store))
        yield found
        if plan.final:
            return
        ledger = Ledger(plan, store, outputs_of(plan))
        ledger.find()
        try:
            for op in plan.lowered.pending:
                stage, root = plan.home[id(op)]
                counted[op.recipe] = Remade.of(ledger.stored(op), found[stage], root)
        except KeyError:
            return  # the run hasn't come so far


def _chosen(targets: Sequence[Target], cell: Cell, name: str) -> tuple[Target, tuple[int, ...], int]:
    """The op, and the cell's index and block."""
    named = [one for one in targets if name in ("", one.name)]
    if not named:
        has = ", ".join(one.name for one in targets) or "none that the run has come to"
        raise ParameterError(f"no op {name!r} whose kernel can be replayed" if name else "no kernel can be replayed",
                             hint=f"such ops: {has}; iterate, propagate and reductions can't be replayed by cell")
    found: list[tuple[Target, tuple[int, ...], int]] = []
    problem: Exception | None = None
    for one in named:
        try:
            found.append((one, *parse_cell(cell, one.dims, one.lengths)))
        except (ParameterError, DimensionError) as error:
            problem = error
    if len(found) == 1:
        return found[0]
    if problem is not None and not found:
        raise problem
    raise ParameterError(f"several ops have such a cell: {', '.join(one.name for one, *_ in found)}",
                         hint="say which by --op NAME (op=)")


def parse_cell(cell: Cell, dims: Sequence[str], lengths: Sequence[int | None]) -> tuple[tuple[int, ...], int]:
    """A cell's index, and its block where rows aren't counted (else -1).

    >>> parse_cell("lat=3,lon=17", ("lat", "lon"), (10, 20))
    ((3, 17), -1)
    >>> parse_cell("3,17", ("lat", "lon"), (10, 20))
    ((3, 17), -1)

    Raises:
        ParameterError: no such cell.
    """
    blocks = ("block",) if None in lengths else ()
    places = (*blocks, *dims)
    given = _named(cell, places)
    missing, unknown = [d for d in places if d not in given], [d for d in given if d not in places]
    if missing or unknown:
        what = f"no dimension {unknown[0]!r}" if unknown else f"the cell needs {missing[0]!r}"
        raise ParameterError(f"{what}: the kernel's cells lie along {', '.join(places) or 'no dimension'}",
                             hint=f"such as {in_words(dims, [0] * len(dims), 0 if blocks else -1) or '0'}")
    for name, length in zip(dims, lengths, strict=True):
        if given[name] < 0 or (length is not None and given[name] >= length):
            raise ParameterError(f"there is no {name}={given[name]}: {name} has {length or 'no'} cells, from 0")
    return tuple(given[name] for name in dims), given["block"] if blocks else -1


def _named(cell: Cell, places: tuple[str, ...]) -> dict[str, int]:
    try:
        if isinstance(cell, Mapping):
            return {str(name): int(at) for name, at in cell.items()}
        parts = cell.replace(" ", "").split(",") if isinstance(cell, str) else [str(int(one)) for one in cell]
        parts = [part for part in parts if part]
        if any("=" in part for part in parts):
            given = [part.partition("=") for part in parts]
            if len({name for name, *_ in given}) < len(given):
                raise ParameterError(f"{cell!r:.100} names a dimension twice", hint="write it as lat=3,lon=17 or 3,17")
            return {name: int(at) for name, _, at in given}
        if len(parts) != len(places):
            raise ParameterError(f"{cell!r} has {counted(len(parts), 'number')}, a cell {len(places)}: "
                                 f"{', '.join(places)}")
        return {name: int(at) for name, at in zip(places, parts, strict=True)}
    except (ValueError, TypeError) as error:
        if isinstance(error, ParameterError):
            raise
        raise ParameterError(f"{cell!r:.100} is no cell", hint="write it as lat=3,lon=17 or 3,17") from None
