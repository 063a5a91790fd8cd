"""Which cells of the step before a cell reads: a rule, tabulated once for each of the steps that it repeats after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numba
import numpy as np
from numba.core.errors import NumbaError, UnsupportedBytecodeError

from gridcompute.codecache import cached_njit
from gridcompute.columns import Array
from gridcompute.digests import digest
from gridcompute.errors import KernelError, ParameterError
from gridcompute.keys import function_key

types: Any = numba.types

_FILL = (types.int64,) * 4 + (types.int64[::1],) * 3
_WIDEST = (types.int64,) * 3 + (types.int64[::1],)
_STEP = (types.int64,)


@dataclass(frozen=True, eq=False)
class Edges:
    """Which cells of the previous step a cell reads, by rule.

    `fn` and `active` are compiled by numba; where that isn't possible, they are called as they are.

    Attributes:
        fn: `fn(step, cell, out) -> count` writes the indices into `out`; a plain or compiled function. It is asked
            for the steps 0 to `lead` + `period` - 1 only.
        period: the rule repeats after so many steps.
        max_inputs: most indices that `fn` writes.
        active: `active(step) -> cells` gives a row's width; cells beyond it keep their values.
        lead: so many steps come before those that repeat.

    Raises:
        ParameterError: a number that is out of range.
    """

    fn: Callable[[int, int, Array], int]
    period: int = 1
    max_inputs: int = 8
    active: Callable[[int], int] | None = None
    lead: int = 0

    def __post_init__(self) -> None:
        for name, least in (("period", 1), ("max_inputs", 0), ("lead", 0)):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
                raise ParameterError(f"edges: {name} is {value!r}", hint=f"a whole number, {least} or more")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("fill", "width_rule")}

    @property
    def key(self) -> str:
        """What enters the recipe."""
        lead = (self.lead,) if self.lead else ()
        return digest(("edges", function_key(self.fn), self.period, self.max_inputs,
                None if self.active is None else function_key(self.active), *lead))

    @property
    def phases(self) -> int:
        """Steps that the rule is asked for."""
        return self.lead + self.period

    def phase(self, step: int) -> int:
        """The step that stands for a step."""
        return step if step < self.lead else self.lead + (step - self.lead) % self.period

    @cached_property
    def fill(self) -> Any:
        """The loop that makes tables, compiled where `fn` can be."""
        return _compiled(_filler(self.fn), _FILL)

    @cached_property
    def width_rule(self) -> Any:
        """`active`, compiled where it can be; None where there is none."""
        return None if self.active is None else _compiled(self.active, _STEP)

    def width(self, step: int, length: int) -> int:
        """Cells of a step's row, of `length` that there are."""
        return length if self.active is None else max(0, min(length, int(self.width_rule(step))))

    def widest(self, length: int, steps: int) -> list[int]:
        """By phase, the widest row of so many steps."""
        if self.active is None:
            return [length] * self.phases
        found = np.zeros(self.phases, np.int64)
        _compiled(_widest(self.active), _WIDEST)(steps, self.lead, self.period, found)
        return [min(length, int(one)) for one in found]

    def table(self, phase: int, width: int, length: int) -> tuple[Array, Array]:
        """Offsets and indices (CSR) of one step's row: `width` cells that read from `length`.

        Raises:
            KernelError: more than `max_inputs` indices, or one outside.
        """
        offsets, index = np.zeros(width + 1, np.int64), np.empty(width + self.max_inputs, np.int64)
        out, cell = np.empty(self.max_inputs, np.int64), 0
        while cell < width:
            cell, wrong = self.fill(phase, cell, width, length, out, offsets, index)
            if wrong:
                self._refuse(phase, cell, int(wrong), length, out, int(offsets[cell + 1] - offsets[cell]))
            if cell < width:
                index = np.concatenate([index, np.empty(len(index) + self.max_inputs, np.int64)])
        return offsets, index[: offsets[width]]

    def _refuse(self, phase: int, cell: int, wrong: int, length: int, out: Array, count: int) -> None:
        if wrong == _CROWDED:
            raise KernelError(f"edges: step {phase} gives cell {cell} {count} inputs, not 0 to max_inputs="
                              f"{self.max_inputs}", cell=(cell,), hint="raise max_inputs=, or correct the rule")
        outside = next(int(one) for one in out[:count] if not 0 <= one < length)
        raise KernelError(f"edges: step {phase} gives cell {cell} the input {outside}, outside 0 to {length - 1}",
                          cell=(cell,), hint="correct the rule")


_CROWDED, _OUTSIDE = 1, 2


def _filler(rule: Callable[[int, int, Array], int]) -> Callable[..., tuple[int, int]]:
    """A table's loop around one rule, which goes on from a cell until the indices have no more room.

    It gives the cell that it came to (the width: it is done), and what is wrong with that cell.
    """

    def fill(phase: int, first: int, width: int, length: int, out: Array, offsets: Array,
             index: Array) -> tuple[int, int]:
        for cell in range(first, width):
            at = offsets[cell]
            count = rule(phase, cell, out)
            offsets[cell + 1] = at + count
            if count < 0 or count > out.size:
                return cell, _CROWDED
            if at + count > index.size:
                return cell, 0
            for k in range(count):
                if out[k] < 0 or out[k] >= length:
                    return cell, _OUTSIDE
                index[at + k] = out[k]
        return width, 0

    return fill


def _widest(active: Callable[[int], int]) -> Callable[[int, int, int, Array], None]:
    def find(steps: int, lead: int, period: int, found: Array) -> None:
        for step in range(steps):
            phase = step if step < lead else lead + (step - lead) % period
            found[phase] = max(found[phase], active(step))

    return find


def _compiled(func: Callable[..., Any], signature: tuple[Any, ...]) -> Any:
    """A function compiled for these types, or as it is where numba can't."""
    made = cached_njit(func)
    try:
        if hasattr(made, "compile"):
            made.compile(signature)
    except (NumbaError, UnsupportedBytecodeError, NotImplementedError):
        return func
    return made
