"""Threads that carry one compiled loop together: begun at once, and ended together when one of them fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from gridcompute.atomics import CAME, LATE
from gridcompute.columns import Array

_spent = 0.0


def loop_seconds() -> float:
    """Seconds of this process in such loops: from when all members were there to when all were done."""
    return _spent


def spent(times: Array) -> float:
    """Count what a loop took, of (begin, end) of each member in nanoseconds; gives its seconds."""
    global _spent
    seconds = float(times[1::2].max() - times[::2].min()) / 1e9
    _spent += seconds
    return seconds


def together(calls: Sequence[Callable[[], int]], control: Array, name: str) -> \
        tuple[list[int], list[tuple[int, BaseException]]]:
    """Make calls at once, the first in this thread.

    Args:
        calls: each gives how it ended (see `gridcompute.atomics`).
        control: control[0] is set where one raised, or waited too long: all others are to end.
        name: of the threads.

    Returns:
        How each ended, and the errors of those that raised, with their numbers.
    """
    codes, errors = [CAME] * len(calls), list[tuple[int, BaseException]]()

    def carry(member: int) -> None:
        try:
            codes[member] = calls[member]()
            if codes[member] == LATE:
                control[0] = 1
        except BaseException as error:  # its peers are to end, whatever it was
            errors.append((member, error))
            control[0] = 1

    others = [threading.Thread(target=carry, args=(member,), name=f"{name} {member}", daemon=True)
              for member in range(1, len(calls))]
    try:
        for thread in others:
            thread.start()
        carry(0)
        for thread in others:
            thread.join()
    except BaseException:
        control[0] = 1
        raise
    return codes, errors
