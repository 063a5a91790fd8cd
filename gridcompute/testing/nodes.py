"""Nodes that aren't there: an `iterate` over bands, each carried in this process, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gridcompute.errors import WorkerLostError
from gridcompute.spread import Iteration, Member


class NodesHere:
    """As `gridcompute.spread.Nodes`; a reference is the answer itself.

    Args:
        iteration: what is carried.
        threads: of each node.
        lost: the node that is gone after so many calls of its own.
    """

    def __init__(self, iteration: Iteration, threads: Sequence[int], lost: tuple[int, int] | None = None) -> None:
        self.threads, self.open, self.calls = tuple(threads), True, [0] * len(threads)
        self._lost, self._members = lost, [Member(iteration, count) for count in threads]

    def ready(self) -> tuple[int, ...] | None:
        """See `Nodes`."""
        return self.threads

    def ask(self, node: int, method: str, *arguments: Any, answers: int = 1) -> Sequence[Any]:
        """See `Nodes`."""
        self.calls[node] += 1
        if self._lost is not None and self._lost[0] == node and self.calls[node] > self._lost[1]:
            return [WorkerLostError(f"the member on node {node} is gone")] * answers
        found = getattr(self._members[node], method)(*arguments)
        assert answers == (len(found) if isinstance(found, tuple) else 1)
        return found if isinstance(found, tuple) else [found]

    def come(self, answers: Sequence[Any], seconds: float) -> Mapping[int, Any]:
        """See `Nodes`."""
        for answer in answers:
            if isinstance(answer, WorkerLostError):
                raise answer
        return dict(enumerate(answers))

    def close(self) -> None:
        """See `Nodes`."""
        self.open = False
