"""Columns with a place to be written to: the end of a graph."""

from __future__ import annotations

import contextlib
import sys
import warnings
import weakref
from collections.abc import Iterable, Iterator

from gridcompute.coords import Coordinate
from gridcompute.op import Op
from gridcompute.sinks.base import Sink


class UnrunOutputWarning(UserWarning):
    """An output was asked for, but never run."""


class _Used:
    """Whether somebody has planned or run an output; outlives it for the warning."""

    def __init__(self) -> None:
        self.yes = False


class Destined:
    """What `Collection.write` gives: pass it to `grid.run`. Warns if it is dropped without having been planned or run.

    Attributes:
        op: the op that writes.
        columns: names of what is written.
        coords: coordinates of its dimensions.
        sink: format and place.
        overwrite: whether what another recipe left there is replaced.
    """

    def __init__(self, op: Op, coords: Iterable[Coordinate], sink: Sink, overwrite: bool) -> None:
        self.op, self.coords = op, tuple(coords)
        self.columns = tuple(f.name for f in op.fields)
        self.sink, self.overwrite = sink, overwrite
        self.used = _Used()
        weakref.finalize(self, _warn_unused, self.used, sink.url, _caller()).atexit = True

    def __repr__(self) -> str:
        return f"<{', '.join(self.columns)} destined for {self.sink.url}>"


def _caller() -> tuple[str, int]:
    """File and line outside the package from where it was called: what a warning at the end points to."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == "gridcompute":
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def _warn_unused(used: _Used, url: str, place: tuple[str, int]) -> None:
    if not used.yes:
        warnings.warn_explicit(
            f"write({url!r}) was never run: nothing has been written; pass it to grid.run", UnrunOutputWarning, *place
        )


@contextlib.contextmanager
def unrun_unsaid() -> Iterator[None]:
    """Without warnings of outputs that nobody runs: those that were made before something was refused, or that a later
    run of a script would write.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnrunOutputWarning)
        yield
