"""What went wrong with chunks so far: how often each was tried, which wait before the next time, which go alone."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from gridcompute.events import Failure, FailureKind
from gridcompute.retry import Decision, Policy

Chunk = tuple[int, int]
"""Stage and number."""


class Attempts:
    """Failures of one phase, by chunk.

    Args:
        policy: what is done about them.

    >>> attempts = Attempts(Policy())
    >>> attempts.failed((0, 7), Failure("lost_worker", "gone"), now=1.0).action, attempts.alone((0, 7))
    ('retry', True)
    >>> attempts.of(0, [7, 8]), attempts.rests((0, 7))
    (1, False)
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._counts: dict[Chunk, dict[tuple[FailureKind, Chunk | None], int]] = {}
        self._alone: set[Chunk] = set()
        self._delayed: list[tuple[float, Chunk]] = []
        self._resting: set[Chunk] = set()

    def failed(self, chunk: Chunk, failure: Failure, now: float) -> Decision:
        """Count a failure of a chunk; what is to be done about it."""
        counts = self._counts.setdefault(chunk, {})
        cause = (failure.kind, failure.lost)  # each input that is lost has attempts of its own
        attempt = counts[cause] = counts.get(cause, 0) + 1
        decision = self.policy.decide(failure.kind, attempt, chunk[0] * 1_000_003 + chunk[1])
        if decision.action == "recompute" and failure.lost is None:
            return Decision("stop")
        if decision.action != "stop":
            if decision.alone:
                self._alone.add(chunk)
            if decision.delay > 0:
                heapq.heappush(self._delayed, (now + decision.delay, chunk))
                self._resting.add(chunk)
        return decision

    def forget(self, stage: int, chunks: Iterable[int]) -> None:
        """These chunks have come further: how often they failed before counts no more."""
        for chunk in chunks:
            self._counts.pop((stage, chunk), None)

    def of(self, stage: int, chunks: Iterable[int]) -> int:
        """Failures of the chunk, of these, that has failed most often."""
        if not self._counts:
            return 0
        return max((sum(self._counts.get((stage, chunk), {}).values()) for chunk in chunks), default=0)

    def alone(self, chunk: Chunk) -> bool:
        """Whether the chunk is dispatched in a task of its own."""
        return chunk in self._alone

    def rests(self, chunk: Chunk) -> bool:
        """Whether the chunk waits out a delay."""
        return chunk in self._resting

    def rested(self, now: float) -> Iterator[Chunk]:
        """Chunks whose delay is over."""
        while self._delayed and self._delayed[0][0] <= now:
            _, chunk = heapq.heappop(self._delayed)
            self._resting.discard(chunk)
            yield chunk

    @property
    def wake_at(self) -> float | None:
        """When the next delay is over."""
        return self._delayed[0][0] if self._delayed else None
