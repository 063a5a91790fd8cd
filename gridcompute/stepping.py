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
from gridcompute.stretches import Stretches

if TYPE_CHECKING:
    from gridcompute.checkpoints import Checkpoints


TASK_SECONDS = 20e-9
"""Assumed of a cell where less is measured: what is measured of one is rough."""


class PausedError(Exception):
    """An `iterate` or a `propagate` has kept its state after its time: another task goes on from there."""


@dataclass(frozen=True)
class Crew:
    """What carries an `iterate` or a `propagate`.

    Attributes:
        members: threads that there may be.
        checkpoints: where states are kept; None for nowhere.
        until: time (`time.monotonic`) after which no further steps are begun once the state is kept.
    """

    members: int = 1
    checkpoints: Checkpoints | None = None
    until: float = math.inf

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
            self.checkpoints.keep(row, state())
            if time.monotonic() > self.until:
                raise PausedError


ALONE = Crew()


class CompiledSteps:
    """A state that goes on step by step in compiled loops; see `gridcompute.gang.fits`.

    Args:
        cells: the kernel with its parameters.
        neighbours: what each cell reads.
        fill: value outside, for boundary "fill".
        names: of the space's dimensions.
        columns: the state.
        members: threads that there may be.
        row: steps that led to the state.
        steps: that there are in all.
    """

    def __init__(self, cells: Map, neighbours: Halo | Edges, fill: float, names: tuple[str, ...],
                 columns: Sequence[Fixed], members: int, row: int, steps: int) -> None:
        self.row, self._name = row, cells.name
        self._what, self._steps = (cells, neighbours, fill, names, columns), steps
        self._gangs: dict[int, Gang] = {}
        units = len(columns[0].values)
        self._at = self._gang(1)
        self._at.put(row, columns)
        with kernel_runs(cells.name, self._at.space, ()):
            unit = self._at.probe(row) if row < steps else 0.0
        self._stretches = Stretches(min(members, units), max(unit * units, self._at.inner * units * TASK_SECONDS))

    def _gang(self, members: int) -> Gang:
        """The gang of so many; it is made when it is first asked for."""
        if members not in self._gangs:
            self._gangs[members] = Gang(*self._what, members, self._steps)
        return self._gangs[members]

    def go(self, last: int) -> None:
        """Go on for a while, at most to the row `last`.

        Raises:
            KernelError: the kernel raised, in a step and a cell that it names.
        """
        members, steps = self._stretches.choose(last - self.row)
        gang = self._gang(members)
        if members > 1:
            self._stretches.apart = not gang.waits
        if gang is not self._at:
            gang.put(self.row, self.columns())
            self._at = gang
        with kernel_runs(self._name, gang.space, (), by_cell=members == 1) as word:
            self._stretches.took(members, steps, gang.run(self.row, self.row + steps, word))
        self.row += steps

    def columns(self) -> list[Fixed]:
        """The state."""
        return self._at.get(self.row)
