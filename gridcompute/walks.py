"""Walks over graphs that may be deeper than Python's stack."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Node = TypeVar("Node")


def inputs_first(start: Node, before: Callable[[Node], Iterable[Node]], done: Callable[[Node], bool]) -> Iterator[Node]:
    """Nodes that aren't done, each after all that come before it, `start` last.

    Args:
        start: where the walk ends.
        before: the nodes that a node needs.
        done: whether a node needs no visit; it must say so of a node that was given.
    """
    stack = [start]
    while stack:
        if done(stack[-1]):
            stack.pop()
        elif waiting := [node for node in before(stack[-1]) if not done(node)]:
            stack.extend(reversed(waiting))
        else:
            yield stack.pop()
