"""What workers leave half written when they die, and its end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from gridcompute.errors import GridError
from gridcompute.sinks.base import Output
from gridcompute.store import Store, open_store


def sweep(store: Store, outputs: Iterable[Output]) -> None:
    """Remove the temporary files of dead writers from a work store and from outputs.

    What can't be removed stays, for a later run: the results are there.
    """
    for place in (store, *(open_store(output.url) for output in outputs if "://" not in output.url)):
        with contextlib.suppress(GridError, OSError):
            place.sweep()
