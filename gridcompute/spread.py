"""An `iterate` over several nodes: each carries a band of the state, and they exchange its edges every few steps.

One process leads: it says which steps are next, some rounds ahead, and passes on references to what bands give each
other; the data goes from node to node. A member of each node goes on by a round at a time. How many steps a round has
follows from what a round costs and what computing the halo again costs, both measured; it changes no bit.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from gridcompute.access import Halo
from gridcompute.actions.maps import Map
from gridcompute.bands import Band, Part, Tables, band_around, cut, inputs_of, parts_of, tables_of
from gridcompute.columns import Array, Fixed
from gridcompute.edges import Edges
from gridcompute.errors import KernelError
from gridcompute.gang import Gang
from gridcompute.stretches import STRETCH_SECONDS

AHEAD = 4
"""Rounds that are ordered before the first of them is done."""

LONGEST = 64
"""Steps of a round at most."""

ROUND_SECONDS = 0.25
"""A round isn't made longer than about this by taking more steps."""

TRIALS = 6
"""Rounds without a step, by which the cost of a round is measured."""

GRACE_SECONDS = 0.5
"""After a kernel has raised, the others get so long to say whether theirs raised before; twice that at most."""


@dataclass(frozen=True, eq=False)
class Iteration:
    """What each member knows of an `iterate`.

    Attributes:
        cells: the kernel with its parameters.
        neighbours: what each cell reads.
        fill: value outside, for boundary "fill".
        names: of the space's dimensions.
        shape: of the space.
        dtypes: of the columns.
        steps: that there are in all.
    """

    cells: Map
    neighbours: Halo | Edges
    fill: float
    names: tuple[str, ...]
    shape: tuple[int, ...]
    dtypes: tuple[np.dtype[Any], ...]
    steps: int

    @cached_property
    def tables(self) -> Tables:
        """Of edges; made once a process."""
        return tables_of(self.neighbours, self.shape[0], self.steps) if isinstance(self.neighbours, Edges) else ()

    def gang(self, members: int, band: Band | None = None) -> Gang:
        """A gang that carries the whole, or a band."""
        like = [Fixed(np.broadcast_to(np.zeros((), dtype), self.shape)) for dtype in self.dtypes]
        return Gang(self.cells, self.neighbours, self.fill, self.names, like, members, self.steps, band=band,
                    tables=() if band is None else self.tables)

    def band(self, lo: int, hi: int, reach: int) -> Band:
        """The band of some units."""
        inputs = inputs_of(self.neighbours, self.names[0], self.shape[0], self.tables)
        return band_around(inputs, self.shape[0], lo, hi, reach)

    def bands(self, weights: Sequence[int]) -> list[Band]:
        """Bands in proportion to the weights, for the longest rounds that may be."""
        found = [self.band(lo, hi, LONGEST) for lo, hi in cut(self.shape[0], weights)]
        reach = min(band.reach for band in found)
        return [band.narrowed(reach) for band in found]


class Member:
    """One process's band; what it is asked for is done in order.

    What a round answers is the error that ended it or None, then what each of the others is given: None after an error,
    its own or another's, and nothing more is done.

    Args:
        iteration: what is carried.
        threads: of its gang.
    """

    def __init__(self, iteration: Iteration, threads: int) -> None:
        self.iteration, self.threads, self.row = iteration, threads, 0
        self._gang = iteration.gang(1, iteration.band(0, 1, 1))  # compiles the loop
        self._part: Part | None = None
        self._takes = self._gives = list[Array]()
        self._failed = False

    def begin(self, part: Part, row: int, columns: Sequence[Array]) -> tuple[Any, ...]:
        """Carry a band from a state of its own units, one array a column."""
        self._part = part
        return self._answer(lambda: self._rearranged(part, row, [Fixed(column) for column in columns]))

    def again(self, part: Part) -> tuple[Any, ...]:
        """Go on with the same units for rounds of another length."""
        self._part = part
        return self._answer(lambda: self._rearranged(part, self.row, self._gang.get(self.row)))

    def _rearranged(self, part: Part, row: int, columns: Sequence[Fixed]) -> None:
        self._gang, self.row = self.iteration.gang(self.threads, part.band), row
        self._gang.put(row, columns)
        self._takes = [self._gang.places(units) for _, units in part.takes]
        self._gives = [self._gang.places(units) for _, units in part.gives]

    def go(self, last: int, *slabs: Any) -> tuple[Any, ...]:
        """A round: go on to a row, from what each of the bands that own some of the halo gave."""
        if any(slab is None for slab in slabs):
            self._failed = True
        return self._answer(lambda: self._round(last, slabs))

    def _round(self, last: int, slabs: Sequence[Any]) -> None:
        for places, slab in zip(self._takes, slabs, strict=True):
            self._gang.show(self.row, places, slab)
        if last > self.row:
            self._gang.run(self.row, last)
        self.row = last

    def _answer(self, work: Callable[[], None]) -> tuple[Any, ...]:
        assert self._part is not None
        failure = None
        if not self._failed:
            try:
                work()
                return (None, *(self._gang.seen(self.row, places) for places in self._gives))
            except Exception as error:
                self._failed, failure = True, error
        return (failure, *[None] * len(self._part.gives))

    def state(self) -> list[Array]:
        """Its own units, one array a column."""
        return [column.values for column in self._gang.get(self.row)]


class Nodes(Protocol):
    """Processes on several nodes, with a `Member` each, that have been asked for."""

    def ready(self) -> tuple[int, ...] | None:
        """Threads of each member, once all are there that will be; None while some are awaited."""
        ...

    def ask(self, node: int, method: str, *arguments: Any, answers: int = 1) -> Sequence[Any]:
        """Have a node's member do something after what it was asked for before; gives references to its answers.

        An argument may be such a reference, and stands for what it refers to.
        """
        ...

    def come(self, answers: Sequence[Any], seconds: float) -> Mapping[int, Any]:
        """Those answers that have come, by place: when all have, or when the time is over.

        Raises:
            WorkerLostError: a member is gone.
        """
        ...

    def close(self) -> None:
        """End all members."""
        ...


Offer = Callable[[Iteration], Nodes]
"""Asks for processes on several nodes; they come when they can."""


class Spread:
    """A state that goes on by bands on several nodes; as `gridcompute.stepping.CompiledSteps`.

    Args:
        iteration: what is carried.
        nodes: that are ready.
        threads: of each.
        columns: the state.
        row: steps that led to it.
        core_seconds: what a step of the whole takes one core.
        reach: steps of a round; None for what suits.

    Attributes:
        latency: seconds of a round without a step.
        step_seconds: what a step is expected to take.
        seconds: that steps have taken.
        steps: that were done.
    """

    def __init__(self, iteration: Iteration, nodes: Nodes, threads: Sequence[int], columns: Sequence[Fixed], row: int,
                 core_seconds: float, *, reach: int | None = None) -> None:
        self.row, self.seconds, self.steps = row, 0.0, 0
        self._nodes, self._rounds = nodes, deque[list[Any]]()
        self._bands = iteration.bands(threads)
        self._parts = self._rounds_of(1 if reach is None else reach)
        self._exchange("begin", [(part, row, [c.values[part.band.lo: part.band.hi] for c in columns])
                                 for part in self._parts])
        self._settle()
        self.latency = self.step_seconds = 0.0
        if reach is None:
            self.latency = self._measured()
            reach, self.step_seconds = chosen(self._bands, threads, core_seconds / iteration.shape[0], self.latency,
                                              iteration.steps - row)
            self._parts = self._rounds_of(reach)
            self._exchange("again", [(part,) for part in self._parts])

    @property
    def reach(self) -> int:
        """Steps of a round."""
        return self._parts[0].band.reach

    def _rounds_of(self, reach: int) -> list[Part]:
        return parts_of([band.narrowed(reach) for band in self._bands])

    def _measured(self) -> float:
        self._round(self.row)
        self._settle()
        began = time.perf_counter()
        for _ in range(TRIALS):
            self._round(self.row)
        self._settle()
        return (time.perf_counter() - began) / TRIALS

    def _exchange(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> None:
        """Ask all members for the same; what they give each other goes into their next round."""
        errors, given = [], {}
        for me, (part, own) in enumerate(zip(self._parts, arguments, strict=True)):
            error, *slabs = self._nodes.ask(me, method, *own, answers=1 + len(part.gives))
            errors.append(error)
            given.update({(me, reader): slab for (reader, _), slab in zip(part.gives, slabs, strict=True)})
        self._given = given
        self._rounds.append(errors)

    def _round(self, last: int) -> None:
        """Order a round, when those before it are nearly done."""
        while len(self._rounds) >= AHEAD:
            self._take()
        self._exchange("go", [(last, *(self._given[other, me] for other, _ in part.takes))
                              for me, part in enumerate(self._parts)])

    def _settle(self) -> None:
        while self._rounds:
            self._take()

    def _take(self) -> None:
        """Wait for the oldest round; of errors that of the first step and cell counts."""
        found = self._awaited(self._rounds.popleft(), lambda error: error is not None)
        failed = [error for error in found.values() if error is not None]
        if failed:
            raise min(failed, key=_order)

    def _awaited(self, answers: Sequence[Any], failed: Callable[[Any], bool] = lambda _: False) -> dict[int, Any]:
        """All answers by place; after one that says that something failed, those that come soon."""
        found, last = dict[int, Any](), False
        while len(found) < len(answers) and not last:
            last = any(map(failed, found.values()))
            missing = [place for place in range(len(answers)) if place not in found]
            come = self._nodes.come([answers[place] for place in missing], GRACE_SECONDS)
            found.update({missing[place]: answer for place, answer in come.items()})
        return found

    def go(self, last: int) -> None:
        """Go on for a while, at most to the row `last`.

        Raises:
            KernelError: the kernel raised, in a step and a cell that it names.
            WorkerLostError: a member is gone.
        """
        wanted = STRETCH_SECONDS / max(self.step_seconds, 1e-9)
        last = min(last, self.row + self.reach * max(1, round(wanted / self.reach)))
        began, first = time.perf_counter(), self.row
        for end in [*range(first + self.reach, last, self.reach), last]:
            self._round(end)
            self.row = end
        self._settle()
        seconds = time.perf_counter() - began
        self.seconds, self.steps = self.seconds + seconds, self.steps + last - first
        self.step_seconds = seconds / (last - first)

    def columns(self) -> list[Fixed]:
        """The state."""
        states = self._awaited([self._nodes.ask(me, "state")[0] for me in range(len(self._parts))])
        return [Fixed(np.concatenate([states[me][i] for me in sorted(states)])) for i in range(len(states[0]))]


def _order(error: Exception) -> tuple[int, int, tuple[int, ...]]:
    """Of several errors the least is told: first what isn't the kernel's, then by step and cell."""
    if isinstance(error, KernelError) and error.step is not None:
        return 1, error.step, error.cell or ()
    return 0, 0, ()


def chosen(bands: Sequence[Band], threads: Sequence[int], unit_seconds: float, latency: float,
           left: int) -> tuple[int, float]:
    """Steps of a round, and what a step is then expected to take: a round's cost shared by its steps, and the halo.

    Args:
        bands: for the longest rounds that may be.
        threads: of each, in order.
        unit_seconds: what a unit takes one core in a step.
        latency: seconds of a round without a step.
        left: steps that are left.

    >>> ring = [Band(90, 0, 30, np.arange(30, 90), np.arange(0, 61, 2))] * 3
    >>> chosen(ring, [1, 1, 1], 1e-3, 0.0, 100)
    (1, 0.03)
    >>> chosen(ring, [1, 1, 1], 1e-3, 0.010, 100)[0]
    3
    """
    best = (math.inf, 1)
    for reach in range(1, 1 + max(1, min(bands[0].reach, left))):
        work = max((band.hi - band.lo + float(band.layers[:reach].mean())) / cores
                   for band, cores in zip(bands, threads, strict=False)) * unit_seconds
        if reach == 1 or reach * work <= ROUND_SECONDS:
            best = min(best, (work + latency / reach, reach))
    return best[1], best[0]
