"""Where a cell lies, in the user's words: dimensions and labels, what it was read from, and how to run it alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gridcompute.access import Halo
from gridcompute.actions.loads import Load
from gridcompute.actions.rows import Explode
from gridcompute.errors import KernelError
from gridcompute.loops import ALONE
from gridcompute.op import Op
from gridcompute.sources.files import shown
from gridcompute.sources.joined import Joined
from gridcompute.spaces import Region, Space

MOST_INPUTS = 3
"""Files that a message names."""


def loop_of(op: Op) -> tuple[str, ...]:
    """Dimensions that an op's kernel runs over; none where it has no kernel."""
    loop: tuple[str, ...] = getattr(getattr(op.action, "cells", op.action), "loop", ())
    return loop


def located(error: KernelError, op: Op, region: Region) -> KernelError:
    """A kernel's error with the cell by dimension, its labels, what was read for it, and how to run it alone.

    Args:
        error: as the loop over the region gave it; one that names its place already is left as it is.
        op: whose kernel it was.
        region: of the op's output, that was computed.
    """
    dims = loop_of(op)
    if not dims and error.cell == ():  # the one cell that all was read for
        read = read_for(op, (), region)
        error.message = error.message.replace(" at cell ()", f" on all{read}" if read else "", 1)
        error.args = (error.message,)
    if error.dims or not dims or (error.cell is not None and len(error.cell) != len(dims)):
        return error
    error.op, error.dims = str(op), dims
    if _space(op)[dims[0]] is None:
        error.block = _part(op, region).start[0]
    if error.cell is None:
        words, where = "on a chunk", f"on {chunk_of(_space(op), _part(op, region))}"
    else:
        words, where = f"at cell {error.cell}", f"at {cell_of(op, error.cell, region)}"
    error.message = error.message.replace(words, where + read_for(op, error.cell, region), 1)
    if error.hint == ALONE:
        error.hint = _alone(op, error.cell, region) or ALONE
    error.args = (error.message,)
    return error


def chunk_of(space: Space, region: Region) -> str:
    """A region in words: "lat 0 to 8, lon 16 to 24"."""
    return ", ".join(f"{name} {lo} to {hi}" for name, (lo, hi) in zip(space.names, region.bounds, strict=True))


def cell_of(op: Op, cell: tuple[int, ...], region: Region | None = None) -> str:
    """A cell in words: "lat=2 (52.5), lon=19 (-120.0)"; along a dimension that isn't counted, "row 7 of block 3"."""
    labels, space = _labels(op, cell, region), _space(op)
    words = []
    for name, at in zip(loop_of(op), cell, strict=True):
        if space[name] is None:
            block = "its block" if region is None else f"block {region.start[0]}"
            words.append(f"{name} {at} of {block}")
        else:
            words.append(f"{name}={at}" + (f" ({labels[name]})" if name in labels else ""))
    return ", ".join(words)


def read_for(op: Op, cell: tuple[int, ...] | None, region: Region | None = None) -> str:
    """What a cell (or a chunk) was read from: " of air_temperature in era5.nc"; empty for a bare space."""
    columns: dict[str, list[str]] = {}
    for load, part in _loads(op, cell, region):
        if load.fields:
            columns.setdefault(_place(load, part), []).extend(f.name for f in load.fields)
    told = [f"{', '.join(dict.fromkeys(names))} in {place}" for place, names in columns.items()]
    more = f" and {len(told) - MOST_INPUTS} more" if len(told) > MOST_INPUTS else ""
    return f" of {' and '.join(told[:MOST_INPUTS])}{more}" if told else ""


def _space(op: Op) -> Space:
    return op.inputs[0].space if isinstance(op.action, Explode) else op.space


def _part(op: Op, region: Region) -> Region:
    return op.reads(0, region)[0] if isinstance(op.action, Explode) else region


def _loads(op: Op, cell: tuple[int, ...] | None, region: Region | None) -> Iterator[tuple[Op, Region]]:
    """The ops that load what a cell needs, and the region of each that it needs."""
    region = op.whole if region is None else region
    exact = dict(zip(loop_of(op), cell or (), strict=False))
    if isinstance(op.action, Explode):
        stack = [(source, _narrowed(source.space, part, exact))
                 for i, source in enumerate(op.inputs) for part in op.reads(i, region)]
    else:
        stack = [(op, _narrowed(op.space, region, exact))]
    seen: set[tuple[int, Region]] = set()
    while stack:
        step, part = stack.pop()
        if (id(step), part) in seen:
            continue
        seen.add((id(step), part))
        if isinstance(step.action, Load):
            yield step, part
        stack.extend((source, one) for i, source in reversed(list(enumerate(step.inputs)))
                     for one in _read(step, i, part))


def _read(op: Op, i: int, region: Region) -> tuple[Region, ...]:
    """What a region reads of an input; of a neighbourhood the cells' own positions, which have the labels."""
    if isinstance(op.accesses[i], Halo) or op.action.spans:
        at, source = dict(zip(op.space.names, region.bounds, strict=True)), op.inputs[i]
        return (Region(tuple(at.get(name, full) for name, full in
                             zip(source.space.names, source.whole.bounds, strict=True))),)
    return op.reads(i, region)


def _narrowed(space: Space, region: Region, exact: Mapping[str, int]) -> Region:
    return Region(tuple((exact[name], exact[name] + 1) if name in exact and length is not None else bounds
                        for (name, length), bounds in zip(space.dims, region.bounds, strict=True)))


def _labels(op: Op, cell: tuple[int, ...], region: Region | None) -> dict[str, str]:
    """Labels of the positions that the cell was loaded from, by dimension, where the dimension has its own."""
    found: dict[str, str] = {}
    for load, part in _loads(op, cell, region):
        at = dict(zip(load.space.names, part.bounds, strict=True))
        for c in load.action.source.coords:  # type: ignore[attr-defined]
            lo, hi = at.get(c.dim, (0, 0))
            if c.name == c.dim and hi - lo == 1:
                found.setdefault(c.dim, str(c.taken(slice(lo, hi)).labels()[0]).removesuffix("T00:00:00.000000"))
    return found


def _place(load: Op, part: Region) -> str:
    source: Any = load.action.source  # type: ignore[attr-defined]
    if isinstance(source, Joined):
        files = [one for one, *_ in source.inside(part)]
        source = files[0] if len(files) == 1 else source
    kind: Any = type(source)
    if kind.__str__ is object.__str__:  # rows that an earlier phase has counted
        return str(load).removeprefix("ingest ")
    return shown(str(source))


def _alone(op: Op, cell: tuple[int, ...] | None, region: Region) -> str:
    """The call that runs the cell alone; empty where its position isn't known, or there is no such call."""
    if not _space(op).known or op.action.spans:  # which computes all cells or none
        return ""
    if cell is None:
        bounds = zip(_space(op).names, _part(op, region).bounds, strict=True)
        chosen = {name: f"slice({lo}, {hi})" for name, (lo, hi) in bounds}
    else:
        chosen = {name: str(at) for name, at in zip(loop_of(op), cell, strict=True)}
    if all(name.isidentifier() for name in chosen):
        given = ", ".join(f"{name}={at}" for name, at in chosen.items())
    else:
        given = "**{" + ", ".join(f"{name!r}: {at}" for name, at in chosen.items()) + "}"
    if isinstance(op.action, Explode):
        return f"x.isel({given}) is its input, where x is what {op} reads; {ALONE}"
    return (f'grid.run(x.isel({given}), executor="inline") runs it alone, where x is what {op} gives; '
            "under NUMBA_DISABLE_JIT=1 in a debugger")
