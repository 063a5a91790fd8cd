"""What the driver sees of running tasks between their answers: which have begun, which hang, which are past their time.

A task past its time begins no further chunk (design record 0014). So what is behind the one in work can go to
others, once that one is known: from the task's progress word where it runs on this machine, else from what it has
committed, as it does its chunks in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gridcompute.events import Event, TaskLate, TaskSlow
from gridcompute.ledger import Ledger
from gridcompute.losses import overdue
from gridcompute.progressword import Board
from gridcompute.voting import VotingState

WATCHED = 16
"""Deadlines that a task may take which looks for cells that hang."""

LOOK_SECONDS = 0.5
"""Time between two looks at what tasks publish while answers come in."""

STORE_SECONDS = 0.05
"""Most time of a look for asking the store what tasks on other machines have committed: answers are waiting."""


def look(state: VotingState, board: Board, ledger: Ledger, clock: Callable[[], float]) -> Iterator[Event]:
    """What is to be told to the state machine.

    Args:
        state: is told at once which tasks have begun.
        board: of the tasks on this machine.
        ledger: of what is committed.
        clock: seconds, as the state machine knows them.

    Yields:
        A failure for each task past its deadline; the chunk in work of each that is past its time while others will
        soon have nothing to do; what was committed by each of which a second copy pays.
    """
    now = clock()
    for number in state.unseen:
        if board.read(number) is not None:
            state.began(number, now)
    # A worker that watches kernels in a process of their own ends them itself.
    long_over = {task.number for task in state.overdue(now - (WATCHED - 1) * state.limits.deadline)}
    yield from (overdue(task, state.limits.deadline) for task in state.overdue(now) if task.number in long_over
                or not (task.alone and ledger.plan.stages[task.stage].skips))
    unseen = set(state.unseen)
    for task in state.late(now):
        mark = board.read(task.number)
        if mark is not None:
            yield TaskLate(task.number, mark.chunk)
        elif clock() <= now + STORE_SECONDS and 0 < (reached := ledger.reached(task)) < len(task.chunks):
            if task.number in unseen:  # its time counts from here: when it began nobody knows
                state.began(task.number, clock())
            else:
                yield TaskLate(task.number, task.chunks[reached])
    for task in state.slow(now):
        yield TaskSlow(task.number, ledger.committed(task) if len(task.chunks) > 1 else ())
