"""A KeyboardInterrupt between any two instructions of some code: a signal that comes at the worst time."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

Within = Callable[[CodeType], bool]


def struck(work: Callable[[], object], at: int, within: Within) -> bool:
    """Do some work, and raise before the instruction number `at` of this thread that is within some code.

    Returns:
        Whether the work came so far; where nothing was raised it ended, else in a KeyboardInterrupt.

    Raises:
        Exception: something else came of it.
    """
    left, before, raised = at, sys.gettrace(), False

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal left, raised
        if not within(frame.f_code):
            return None
        frame.f_trace_opcodes = True
        left -= event == "opcode"
        if left < 0:
            raised = True
            raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        assert raised
        return True
    finally:
        sys.settrace(before)
    assert not raised, "the interrupt was swallowed"
    return False


def everywhere(work: Callable[[int], object], within: Within) -> Iterator[int]:
    """Interrupt `work(n)` at its nth instruction, for each n that there is: yields n after each."""
    for at in itertools.count():
        if not struck(lambda at=at: work(at), at, within):  # type: ignore[misc]
            return
        yield at
