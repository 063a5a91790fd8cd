"""A kernel for a single cell: in a process of its own that may die of it, or here, also in a debugger."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import pdb as debugger
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace

from gridcompute.apart import Apart, Death
from gridcompute.columns import Array
from gridcompute.kernels import runs
from gridcompute.loops import plainly
from gridcompute.skipping import Part, Work, traced


@dataclass(frozen=True)
class Outcome:
    """What came of it: each output's values, or why there are none (a traceback, or how the process ended)."""

    values: tuple[Array, ...] = ()
    error: str = ""


def carry_out(work: Work, position: int, *, plain: bool = False, pdb: bool = False, step: bool = False,
              apart: bool = True) -> Outcome:
    """The kernel for the cell at a position.

    Args:
        work: of a region.
        position: of the cell in it.
        plain: as plain Python, not compiled.
        pdb: a debugger opens where the kernel raises.
        step: a debugger opens at its first line.
        apart: in a process of its own.
    """
    if apart:
        with contextlib.closing(Apart(math.inf, plain=plain)) as other:
            other.give(work)
            found = other.part(position, position + 1, traced=True)
        return Outcome(error=found.text) if isinstance(found, Death) else _outcome(work, found)
    with _as_asked(work, plain=plain, step=step) as (asked, one):
        try:
            values, failed = asked.part(position, position + 1)
            if one is not None and one.left:  # `runcall` then returns None, which is no value
                return Outcome(error="the debugger was left before the kernel gave a value")
        except MemoryError as error:
            return Outcome(error="".join(traceback.format_exception(error)).rstrip())
        finally:
            if one is not None:
                one.set_quit()
    if failed.last is None:
        return _outcome(work, (values, failed))
    if pdb:
        debugger.post_mortem((failed.last.__cause__ or failed.last).__traceback__)
    return Outcome(error=traced(failed.last))


class _Stepped(debugger.Pdb):
    """A debugger that knows whether it was left, by `q` or the end of its input."""

    left = False

    def set_quit(self) -> None:
        """See `bdb.Bdb`."""
        self.left = True
        super().set_quit()


@contextlib.contextmanager
def _as_asked(work: Work, *, plain: bool, step: bool) -> Iterator[tuple[Work, _Stepped | None]]:
    """The work with its kernel compiled or plain, or called by a debugger."""
    if not plain:
        yield work, None
        return
    if not step:
        with plainly(work.kernel):
            yield work, None
        return
    one = _Stepped()
    called = functools.partial(one.runcall, work.kernel.func)
    kernel = copy.copy(work.kernel)
    kernel.arguments, kernel.key  # noqa: B018 - found by the function's own arguments
    object.__setattr__(kernel, "func", called)
    with plainly(work.kernel, called):
        yield replace(work, kernel=kernel), one


def _outcome(work: Work, part: Part) -> Outcome:
    values, failed = part
    if failed.told:
        return Outcome(error=failed.told[-1][2])
    if work.rows:
        return Outcome(tuple(values[1:]))
    flat, found, own = iter(values), [], runs(work.kernel)
    for core in work.kernel.signature.outputs:
        if core and core[0] in own:
            next(flat)  # the length
        one = next(flat)
        found.append(one if not one.ndim or (core and core[0] in {*own, *work.cells.ragged}) else one[0])
    return Outcome(tuple(found))
