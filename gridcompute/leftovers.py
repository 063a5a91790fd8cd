"""What workers leave half written when they die, and its end."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from gridcompute.errors import GridError
from gridcompute.executor import Executor
from gridcompute.progressword import Board
from gridcompute.sinks.base import Output
from gridcompute.store import Store, open_store


def clear(executor: Executor, board: Board, store: Store, outputs: Mapping[str, Output]) -> None:
    """End tasks that are still at work as a run ends; remove what they and dead ones left half written.

    What can't be removed stays, for a later run: the results are there.
    """
    if not (board.busy or board.died):
        return
    executor.close()
    for place in (store, *(open_store(output.url) for output in outputs.values() if "://" not in output.url)):
        with contextlib.suppress(GridError, OSError):
            place.sweep()
