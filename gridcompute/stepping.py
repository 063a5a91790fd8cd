"""Steps in compiled loops: as many members as pay, for as long as Python needn't be asked."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridcompute.access import Halo
from gridcompute.actions.maps import Map
from gridcompute.columns import Block, Fixed
from gridcompute.edges import Edges
from gridcompute.gang import Gang
from gridcompute.progressword import kernel_runs
from gridcompute.spread import Iteration, Nodes, Offer, Spread
from gridcompute.stretches import Stretches

if TYPE_CHECKING:
    from gridcompute.checkpoints import Checkpoints


TASK_SECONDS = 20e-9
"""Assumed of a cell where less is measured: what is measured of one is rough."""


SURE_SECONDS = 3.0
"""After so long on several nodes it is known whether it is faster there."""


class PausedError(Exception):
    """An `iterate` or a `propagate` has kept its state after its time: another task goes on from there."""


@dataclass(frozen=True)
class Crew:
    """What carries an `iterate` or a `propagate`.

    Attributes:
        members: threads that there may be.
        checkpoints: where states are kept; None for nowhere.
        until: time (`time.monotonic`) after which no further steps are begun once the state is kept.
        offer: asks for processes on several nodes; None where there is one node.
        worth: seconds that there must be left for these to be asked for.
    """

    members: int = 1
    checkpoints: Checkpoints | None = None
    until: float = math.inf
    offer: Offer | None = None
    worth: float = 0.0

    def keep(self, row: int, every: int, state: Callable[[], Block]) -> None:
        """Keep a state after so many steps, if it is time for that.

        Args:
            row: steps so far.
            every: keep it after each so many; 0 for when it is due.
            state: gives it.

        Raises:
            PausedError: it was kept, and the time is over.
        """
        if self.checkpoints is not None and (row % every == 0 if every else self.checkpoints.due()):
            self.checkpoints.keep(row, state)
            if time.monotonic() > self.until:
                raise PausedError


ALONE = Crew()


class CompiledSteps:
    """A state that goes on step by step in compiled loops; see `gridcompute.gang.fits`.

    It begins on one node. Where there are several and what is left is worth it, members are asked for there, and it is
    handed over to them when they have come; it stays where it is, or comes back, if that isn't faster.

    Args:
        cells: the kernel with its parameters.
        neighbours: what each cell reads.
        fill: value outside, for boundary "fill".
        names: of the space's dimensions.
        columns: the state.
        crew: threads that there may be, and nodes.
        row: steps that led to the state.
        steps: that there are in all.
    """

    def __init__(self, cells: Map, neighbours: Halo | Edges, fill: float, names: tuple[str, ...],
                 columns: Sequence[Fixed], crew: Crew, row: int, steps: int) -> None:
        self.row, self._name, self._crew = row, cells.name, crew
        self._what = Iteration(cells, neighbours, fill, names, columns[0].values.shape,
                               tuple(column.values.dtype for column in columns), steps)
        self._gangs: dict[int, Gang] = {}
        units = len(columns[0].values)
        self._at: Gang | Spread = self._gang(1)
        self._at.put(row, columns)
        with kernel_runs(cells.name, self._at.space, ()):
            unit = self._at.probe(row) if row < steps else 0.0
        self._stretches = Stretches(min(crew.members, units), max(unit * units, self._at.inner * units * TASK_SECONDS))
        self._offer = crew.offer if units > 1 else None
        self._nodes: Nodes | None = None
        self._alone = math.inf

    def _gang(self, members: int) -> Gang:
        """The gang of so many; it is made when it is first asked for."""
        if members not in self._gangs:
            self._gangs[members] = self._what.gang(members)
        return self._gangs[members]

    def go(self, last: int) -> None:
        """Go on for a while, at most to the row `last`.

        Raises:
            KernelError: the kernel raised, in a step and a cell that it names.
            WorkerLostError: a member on some node is gone.
        """
        if isinstance(self._at, Spread):
            with kernel_runs(self._name, self._what.shape, (), by_cell=False):
                self._at.go(last)
            self.row = self._at.row
            if self._at.seconds > SURE_SECONDS and self._at.seconds / self._at.steps > self._alone:
                self._back()
            return
        members, steps = self._stretches.choose(last - self.row)
        gang = self._gang(members)
        if members > 1:
            self._stretches.apart = not gang.waits
        if gang is not self._at:
            gang.put(self.row, self.columns())
            self._at = gang
        with kernel_runs(self._name, gang.space, (), by_cell=members == 1) as word:
            seconds = gang.run(self.row, self.row + steps, word)
        self._stretches.took(members, steps, seconds)
        self.row += steps
        if self._offer is not None:
            self._spread(self._offer, seconds / steps, members)

    def _spread(self, offer: Offer, step_seconds: float, members: int) -> None:
        """Ask for members on other nodes, where that is worth it; hand the state over when they have come."""
        if self._nodes is None:
            if step_seconds * (self._what.steps - self.row) >= self._crew.worth:
                self._nodes = offer(self._what)
            return
        threads = self._nodes.ready()
        if threads is None:
            return
        self._offer = None
        if len(threads) > 1 and self.row < self._what.steps:
            wide = Spread(self._what, self._nodes, threads, self.columns(), self.row, step_seconds * members)
            if wide.step_seconds < step_seconds:
                self._at, self._alone, self._gangs = wide, step_seconds, {}
                return
        self.close()

    def _back(self) -> None:
        """Go on in one process: it was slower on several nodes."""
        columns = self.columns()
        self.close()
        self._at = self._gang(1)
        self._at.put(self.row, columns)

    def columns(self) -> list[Fixed]:
        """The state."""
        return self._at.columns() if isinstance(self._at, Spread) else self._at.get(self.row)

    def close(self) -> None:
        """End what was started on other nodes."""
        if self._nodes is not None:
            self._nodes.close()
            self._nodes = None
