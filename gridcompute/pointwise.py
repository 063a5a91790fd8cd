"""What lies behind an op position by position: what must be computed before it, and which dimensions it needs whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from gridcompute.access import Halo, Whole
from gridcompute.actions.loads import Load
from gridcompute.op import Op
from gridcompute.spaces import Region


@dataclass(frozen=True)
class Behind:
    """The ops behind some others.

    Attributes:
        leaves: inputs from outside, kept ops, and what isn't computed position by position.
        whole: dimensions that something between reads or gives only whole.
    """

    leaves: tuple[Op, ...]
    whole: frozenset[str]

    @classmethod
    def of(cls, ops: Iterable[Op], kept: Callable[[Op], bool]) -> Behind:
        """Go from ops to what is behind them, themselves included."""
        leaves, whole, seen, stack = list[Op](), set[str](), set[int](), list(ops)[::-1]
        while stack:
            op = stack.pop()
            if id(op) in seen:
                continue
            seen.add(id(op))
            if kept(op) or not _by_position(op):
                leaves.append(op)
                continue
            whole |= op.action.whole.union(*map(_named, op.accesses))
            stack += reversed(op.inputs)
        return cls(tuple(leaves), frozenset(whole))

    @property
    def read(self) -> bool:
        """Whether nothing but reading is left to do for the leaves."""
        return all(isinstance(leaf.action, Load) or not leaf.inputs for leaf in self.leaves)


def direct(leaf: Op, kept: Callable[[Op], bool]) -> bool:
    """Whether an op reads stored chunks that are decoded one by one."""
    return not kept(leaf) and isinstance(leaf.action, Load) and bool(getattr(leaf.action.source, "piecewise", False))


def regions(ops: Iterable[tuple[Op, Region]], leaves: Iterable[Op]) -> Mapping[Op, tuple[Region, ...]]:
    """Which regions of some leaves regions of ops read."""
    found: dict[Op, dict[Region, None]] = {leaf: {} for leaf in leaves}
    seen, stack = set[tuple[int, Region]](), list(ops)[::-1]
    while stack:
        op, region = stack.pop()
        if (id(op), region) in seen:
            continue
        seen.add((id(op), region))
        if op in found:
            found[op][region] = None
            continue
        stack += [(source, part) for i, source in enumerate(op.inputs) for part in op.reads(i, region)]
    return {leaf: tuple(parts) for leaf, parts in found.items()}


def _by_position(op: Op) -> bool:
    """Whether an op can be computed over any piece of its space in which the dimensions that it needs whole are."""
    action = op.action
    if not op.inputs or action.aligned or action.spans or action.makes_rows or action.skips or action.durable:
        return False
    spaces = [op.space, *(source.space for source in op.inputs)]
    if not all(space.known for space in spaces) or any(set(space.names) - set(op.space.names) for space in spaces):
        return False
    return all(isinstance(access, Whole | Halo) for access in op.accesses) and not any(
        f.ragged for source in (op, *op.inputs) for f in source.fields)


def _named(access: object) -> frozenset[str]:
    """Dimensions of which an access reads more than the positions that are asked for."""
    return frozenset(dim[0] for dim in access.dims) if isinstance(access, Whole | Halo) else frozenset()
