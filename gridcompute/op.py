"""What is computed: the one `Op` under every collection method, and the `Graph` of them. O(ops), never O(cells).

An op is an action over inputs through accesses. Its recipe is a digest of everything that determines its
values (law 2); lengths of dimensions enter only where an access or an action says that values depend on them,
so that an archive may grow without changing what was computed from its older part.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol

from gridcompute.access import Access
from gridcompute.axes import Axis, Layout
from gridcompute.columns import Block, Field
from gridcompute.coords import Coordinate
from gridcompute.keys import digest
from gridcompute.spaces import Region, Space
from gridcompute.walks import inputs_first

FORMAT = 1
"""Version of recipes and of the bytes they name; raised when the same graph would give other bytes."""

Read = Callable[[int, Region], Block]
"""`read(i, region)` gives input i's columns over a region of its space."""


@dataclass(frozen=True)
class Action:
    """What an op does with its inputs. Subclasses are frozen and picklable; all they hold enters `key`."""

    @property
    def label(self) -> str:
        """A short name for messages and plans."""
        return type(self).__name__.lower()

    @property
    def key(self) -> object:
        """What determines the values, for the recipe."""
        raise TypeError(f"{type(self).__name__} has no key")

    def compute(self, op: Op, region: Region, read: Read) -> Block:
        """The op's columns over a region."""
        raise TypeError(f"{type(self).__name__} is lowered before it runs")

    def axes(self, op: Op, inputs: tuple[Layout, ...]) -> dict[str, Axis]:
        """The output's dimensions, not yet cut: an input's axis where one has the dimension."""
        known: dict[str, Axis] = {}
        for layout in inputs:
            for name, axis in layout.axes:
                known.setdefault(name, axis)
        return {name: known[name] if name in known else Axis((length or 0,)) for name, length in op.space.dims}

    @property
    def parts(self) -> Mapping[str, str]:
        """Named digests of what enters the key, to say why a recipe changed."""
        return {"settings": digest(self.key)}

    @property
    def step(self) -> str:
        """Which part of what was asked for this is, where one op becomes several stages; empty for its result."""
        return ""

    @property
    def remark(self) -> str:
        """What a plan says of it beside its inputs."""
        return ""

    @property
    def held_bytes(self) -> int:
        """Bytes that a task holds besides columns."""
        return 0

    def read_of(self, op: Op, i: int) -> set[str]:
        """Names of the columns of input i that it may read."""
        return {f.name for f in op.inputs[i].fields}

    heavy: ClassVar[bool] = False
    """Worth keeping rather than computing again for a second consumer."""
    durable: ClassVar[bool] = False
    """Always committed, never held."""
    spans: ClassVar[bool] = False
    """One chunk's task uses all cores of a node that the run may have."""
    threaded: ClassVar[bool] = False
    """One chunk's task uses as many cores as it gets: where there are fewer chunks than workers, those of several."""
    makes_rows: ClassVar[bool] = False
    """The number of cells that a chunk gives depends on the data."""

    @property
    def skips(self) -> bool:
        """Cells in which its kernel fails become nulls, or give no rows; else the first one stops the run."""
        return False

    @property
    def positional(self) -> bool:
        """Values depend on positions along a dimension, so its length must be known first."""
        return False

    @property
    def draws(self) -> bool:
        """Values depend on a cell's number in the space, so the lengths of all dimensions but the first matter."""
        return False

    @property
    def aligned(self) -> bool:
        """Values depend on the chunk's extents, so it is only computed chunk by chunk."""
        return False

    @property
    def whole(self) -> frozenset[str]:
        """Output dimensions that can't be cut."""
        return frozenset()

    @property
    def parallel(self) -> int:
        """Chunks that even small data is cut into; 0 where it is all the same."""
        return 0


NOWHERE = Region()


@dataclass(frozen=True, eq=False)
class Op:
    """One step of a graph.

    Attributes:
        action: what is done.
        inputs: the ops whose columns it reads.
        accesses: one an input: which of its regions.
        space: the index space of its output.
        fields: its output columns.
        name: for messages, plans and the seed of `rng`.
        whole: the region of all positions, set when the op is lowered into a plan.
    """

    action: Action
    inputs: tuple[Op, ...]
    accesses: tuple[Access, ...]
    space: Space
    fields: tuple[Field, ...]
    name: str = ""
    whole: Region = NOWHERE

    @cached_property
    def recipe(self) -> str:
        """Digest of all that determines the op's values, but for the versions of data from outside."""
        for op in inputs_first(self, lambda op: op.inputs, lambda op: "recipe" in vars(op)):
            vars(op)["recipe"] = op._digest()
        return self.recipe

    def _digest(self) -> str:
        columns = [(f.name, f.dims, f.dtype, f.kind, f.nullable) for f in self.fields]
        # An access with a key of its own leaves out lengths that may grow.
        accesses = [getattr(access, "key", access) for access in self.accesses]
        cells = getattr(self.action, "cells", self.action)
        numbered = self.space.shape[1:] if cells.draws else ()
        return digest((FORMAT, type(self.action).__name__, self.action.key, accesses,
                       [op.recipe for op in self.inputs], columns, numbered))

    @cached_property
    def origin(self) -> Op | None:
        """The op that decided how many cells lie along a dimension of unknown length."""
        if self.space.known:
            return None
        op: Op | None = self
        while op is not None:
            decided, op = op, next((source for source in op.inputs if not source.space.known), None)
            if decided.action.makes_rows:
                break
        return decided

    def field(self, name: str) -> Field:
        """The output column of that name."""
        return next(f for f in self.fields if f.name == name)

    @cached_property
    def cell_bytes(self) -> float:
        """Estimated bytes of one output cell, all columns."""
        total = 0.0
        for f in self.fields:
            share = 1.0
            for name, length in self.space.dims:
                if name not in f.dims and length:
                    share /= length
            total += share * (ESTIMATED_ITEMS if f.ragged else 1) * f.dtype.itemsize
        return total

    def rebuilt(self, inputs: tuple[Op, ...], layout: Layout) -> Op:
        """The same op over lowered inputs, with the lengths that are known by now."""
        return replace(self, inputs=inputs, space=layout.space, whole=layout.whole)

    def reads(self, i: int, region: Region) -> tuple[Region, ...]:
        """Regions of input i that a region of the output reads."""
        source = self.inputs[i]
        return self.accesses[i].inputs(region, self.space, source.whole, source.space.names)

    def feeds(self, i: int, region: Region) -> Region:
        """The region of the output that may read a region of input i."""
        return self.accesses[i].consumers(region, self.inputs[i].space.names, self.space, self.whole)

    def walk(self, leaf: Callable[[Op], bool] = lambda op: False) -> Iterator[Op]:
        """This op and all before it, not beyond leaves, each once, inputs first."""
        seen: set[Op] = set()
        for op in inputs_first(self, lambda op: () if leaf(op) else op.inputs, seen.__contains__):
            seen.add(op)
            yield op

    def __str__(self) -> str:
        return self.name or self.action.label


def detached(roots: Iterable[Op], leaf: Callable[[Op], bool]) -> tuple[Op, ...]:
    """Copies of ops that end at leaves, of which only shape and recipe are left: what a worker is sent."""
    made: dict[Op, Op] = {}
    for root in roots:
        for op in root.walk(leaf):
            if op not in made:
                bare = {"action": Action(), "inputs": (), "accesses": ()}
                made[op] = replace(op, **bare if leaf(op) else {"inputs": tuple(made[source] for source in op.inputs)})
                vars(made[op])["recipe"] = op.recipe
    return tuple(made[root] for root in roots)


ESTIMATED_ITEMS = 128
"""Assumed elements of a ragged cell where nothing has been read yet."""


class Observed(Protocol):
    """What a source says of the data behind a region (see `gridcompute.sources`)."""

    def objects(self, region: Region) -> tuple[str, ...]:
        """Identities of the outside objects that the region reads."""
        ...


@dataclass(frozen=True)
class Graph:
    """The ops that outputs need, each once however many outputs share it.

    Attributes:
        outputs: op by the name under which its result is asked for.
        coords: coordinates of each output.
    """

    outputs: tuple[tuple[str, Op], ...]
    coords: tuple[tuple[str, tuple[Coordinate, ...]], ...] = ()

    @cached_property
    def ops(self) -> tuple[Op, ...]:
        """All ops, inputs first."""
        seen: dict[int, Op] = {}
        for _, output in self.outputs:
            for op in output.walk():
                seen.setdefault(id(op), op)
        return tuple(seen.values())

    @cached_property
    def key(self) -> str:
        """Digest of the outputs' recipes."""
        return digest(sorted((name, op.recipe) for name, op in self.outputs))

    def canonical(self) -> list[dict[str, Any]]:
        """The graph as plain JSON values: what a run record keeps and a later run is compared with."""
        number = {id(op): i for i, op in enumerate(self.ops)}
        return [
            {
                "op": str(op), "action": op.action.label, "recipe": op.recipe, "space": str(op.space),
                "inputs": [number[id(source)] for source in op.inputs], "parts": dict(op.action.parts),
            }
            for op in self.ops
        ]

    def __str__(self) -> str:
        return json.dumps(self.canonical(), indent=1)
