"""Values on their way along a `Dag`: the threads that carry them, as many as pay, while Python needn't be asked.

All values lie in one array a column, and a byte a cell says that it is done. What comes out doesn't depend on the
number of threads or on who computes what: each cell is computed by the same code from the same inputs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numba
import numpy as np

from gridcompute import gang, loops, random
from gridcompute.actions.maps import Map
from gridcompute.atomics import LATE
from gridcompute.cellinputs import laid_out, loop_parameter
from gridcompute.columns import Array, Column, Fixed, Ragged
from gridcompute.dagloops import DagShape, make_dag_loop
from gridcompute.dags import Dag
from gridcompute.errors import RunError
from gridcompute.gang import aligned
from gridcompute.members import spent, together
from gridcompute.progressword import kernel_runs
from gridcompute.steploops import PAD
from gridcompute.stepping import TASK_SECONDS
from gridcompute.stretches import STRETCH_SECONDS, Stretches

config: Any = numba.core.config

TRIAL_SECONDS = 1e-3
"""What several threads do to see whether they are faster than one: ten times what it takes to start them."""


def fits(several: Sequence[Map]) -> bool:
    """Whether compiled loops can carry kernels; it follows from the graph alone."""
    return not config.DISABLE_JIT and all(
        one.kernel.mode == "cell" and "valid" not in one.kernel.specials and all(map(_compiled, one.dtypes))
        for one in several)


def _compiled(dtype: np.dtype[Any]) -> bool:
    """Whether compiled code keeps values of a type as NumPy does."""
    return dtype.kind in "biufc" and dtype != np.float16 and dtype.isnative


class Flow:
    """A graph's cells in compiled loops, from some position of its order on; see `fits`.

    Args:
        several: the kernels with their parameters, of one signature.
        dag: the graph.
        kind: which of the kernels each cell runs; None where there is one.
        own: the cells' own columns.
        values: results by output: those of the cells before `row` are there, the others are filled in.
        members: threads that there may be.
        row: position in the order to begin at.

    Attributes:
        row: position that was come to.
    """

    exact = True
    """It stops at any position."""

    def __init__(self, several: Sequence[Map], dag: Dag, kind: Array | None, own: Sequence[Column],
                 values: Sequence[Array], members: int, row: int) -> None:
        self.row, self.dag, self.values = row, dag, list(values)
        self._several, self._kind = several, kind
        kernel, skipped = several[0].kernel, len(self.values)
        self._own = [laid_out(kernel, skipped + i, column, dag.cells, 1)[0] for i, column in enumerate(own)]
        # No more threads than the widest level has cells: others could only wait.
        self._stretches = Stretches(max(1, min(members, int(dag.level_cells.max()))), TASK_SECONDS, TRIAL_SECONDS)
        self._flags = aligned(dag.cells, np.uint8)
        self._flags[dag.order[:row]] = 1
        self._control, self._claim = aligned(PAD, np.int64), aligned(PAD, np.int64)
        self._ready, self._times = aligned(members * PAD, np.int64), aligned(2 * members, np.int64)
        self._epoch = 0
        self._loops: dict[int, tuple[Any, list[list[Any]]]] = {}

    def go(self, last: int) -> None:
        """Go on for a while, at most to a position.

        Raises:
            KernelError: the kernel raised, in a cell that it names.
        """
        members, cells = self._stretches.choose(last - self.row)
        began, most = self.row, STRETCH_SECONDS
        if members > 1:  # no longer than one thread would take: a member that waits for a time slice holds up all
            most = min(most, cells * self._stretches.alone)
            self._made(members)  # compiled before the clock counts
        clock = time.perf_counter()
        seconds = self.run(members, min(last, self.row + cells), most)
        # What it takes to start others is theirs.
        self._stretches.took(members, self.row - began, seconds if members == 1 else time.perf_counter() - clock)

    def run(self, members: int, last: int, most_seconds: float) -> float:
        """Go on with so many members, at most to a position and for so long; each does what it has taken.

        Returns:
            Seconds from when all members were there to when all were done.

        Raises:
            KernelError: the kernel raised; names the cell, of several the first.
            RunError: a member waited too long.
        """
        loop, rest = self._made(members)
        self._epoch += 1
        self._claim[0] = self.row
        with kernel_runs(self._several[0].name, (self.dag.cells,), (0,), by_cell=members == 1) as word:
            # Several members each have a mark of their own: the errors of one would name the cell of another.
            marks = [aligned(1, np.int64) if word is None or members > 1 else word for _ in range(members)]
            orders = [self._order(member, marks[member], last, most_seconds, rest) for member in range(members)]
            codes, errors = together([partial(loop, *order) for order in orders], self._control, "flow")
            self._check(codes, errors, marks)
        self.row = min(last, int(self._claim[0]))
        return spent(self._times[: 2 * members])

    def _order(self, member: int, mark: Array, last: int, most_seconds: float, rest: Sequence[list[Any]]) -> Any:
        """A member's arguments of the loop."""
        nanoseconds = [int(one * 1e9) for one in (most_seconds, gang.PATIENCE_SECONDS)]
        return (mark, self._control, self._claim, self._ready, self._times,
                *map(np.int64, [member, len(rest), self._epoch, last, *nanoseconds]), *rest[member])

    def _made(self, members: int) -> tuple[Any, list[list[Any]]]:
        """The compiled loop for so many, and each member's arguments after those of a stretch."""
        if members not in self._loops:
            own = tuple("ragged" if isinstance(column, Ragged) else "fixed" for column in self._own)
            kernels = tuple((len(one.params), one.kernel.specials) for one in self._several)
            shape = DagShape(tuple(values.ndim - 1 for values in self.values), own, kernels, members > 1)
            loop = make_dag_loop([one.kernel for one in self._several], shape)
            rest = [self._rest() for _ in range(members)]
            loops.compile_for(self._several[0].kernel, loop, self._order(0, self._claim, 0, 0.0, rest))
            self._loops[members] = loop, rest
        return self._loops[members]

    def _rest(self) -> list[Any]:
        dag = self.dag
        found: list[Any] = [self._flags, dag.order, dag.offsets, dag.inputs]
        found += [] if self._kind is None else [self._kind]
        for values in self.values:
            found += [values, np.zeros((max(1, dag.widest), *values.shape[1:]), values.dtype)]
        for column in self._own:
            found += [column.offsets] if isinstance(column, Ragged) else []
            found.append(column.values)
        for one in self._several:
            found += [random.state(random.seed_key(one.seed, one.name))] if "rng" in one.kernel.specials else []
            found += [loop_parameter(value) for value in one.kernel.bind(dict(one.params)).values()]
        return found

    def _check(self, codes: list[int], errors: list[tuple[int, BaseException]], marks: Sequence[Array]) -> None:
        """Raise what went wrong: of several kernels that raised, that of the first cell."""
        found = sorted((isinstance(error, Exception), int(marks[member][0]), member) for member, error in errors)
        for raised, cell, member in found:
            error = dict(errors)[member]
            if not raised or isinstance(error, MemoryError):
                raise error
            kernel = self._several[0 if self._kind is None else int(self._kind[cell])].kernel
            raise loops.kernel_error(kernel, (cell,), error) from error
        if LATE in codes:
            member = codes.index(LATE)
            raise RunError(f"propagate {self._several[0].name}: member {member} of {len(codes)} waited more than "
                           f"{gang.PATIENCE_SECONDS:.0f} s at cell {int(marks[member][0])} for an input",
                           hint="is one of its inputs very slow? run with one worker to see")

    def columns(self) -> list[Fixed]:
        """The results."""
        return [Fixed(values) for values in self.values]
