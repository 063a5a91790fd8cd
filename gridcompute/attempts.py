"""What went wrong with chunks so far: how often each was tried, which wait before the next time, which go alone."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gridcompute.events import Failure, FailureKind
from gridcompute.retry import Decision, Policy

Chunk = tuple[int, int]
"""Stage and number."""

FORGIVEN = 4
"""So many times the policy's attempts at most are made of a chunk whose workers were lost for no fault of its own."""


@dataclass
class _Outage:
    """Failures that might have passed, while nothing at all is kept: the store's own, whichever chunk meets them.

    Attributes:
        rounds: of failures, of which each began when the one before had been waited out.
        kept: chunks, when it began.
        due: when a next round begins.
    """

    rounds: int = 0
    kept: int = -1
    due: float = 0.0


@dataclass
class _Losses:
    """Lost workers of a chunk.

    Attributes:
        count: how many.
        cell: in work at the last one.
    """

    count: int = 0
    cell: tuple[int, ...] | None = None


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
        self.kept = 0  # chunks, so far: counted by who keeps them
        self._lost, self._outage = 0, _Outage()
        self._last: Failure | None = None
        self._losses: dict[Chunk, _Losses] = {}
        self._counts: dict[Chunk, dict[tuple[FailureKind, Chunk | None], int]] = {}
        self._alone: set[Chunk] = set()
        self._delayed: list[tuple[float, Chunk]] = []
        self._resting: set[Chunk] = set()

    def failed(self, chunk: Chunk, failure: Failure, now: float, seconds: float = 0.0) -> Decision:
        """Count a failure of a chunk, after so many seconds of its task; what is to be done about it."""
        counts = self._counts.setdefault(chunk, {})
        cause = (failure.kind, failure.lost)  # each input that is lost has attempts of its own
        attempt = counts[cause] = counts.get(cause, 0) + 1
        if failure.kind == "lost_worker" and self._innocent(chunk, failure):
            attempt = counts[cause] = max(1, attempt - 1)
        if failure.kind == "transient":
            # Where chunks take turns at a store that is silent, each would else be tried as often as all are now.
            attempt = max(attempt, min(2 * attempt, self._rounds(now, seconds)))
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

    def _rounds(self, now: float, seconds: float) -> int:
        """Which round of failures this one is in, as many as are met at once being one."""
        outage = self._outage
        if outage.kept != self.kept:
            outage = self._outage = _Outage(kept=self.kept, due=now - seconds)
        if now - seconds / 2 >= outage.due:  # most of its time came after the last round and its delay
            outage.rounds += 1
            outage.due = now + self.policy.decide("transient", outage.rounds, 0).delay
        return outage.rounds

    def _innocent(self, chunk: Chunk, failure: Failure) -> bool:
        """Whether the loss of a worker says little against the chunk in work, as what ends workers ends others', too.

        A chunk that ends its workers does so in the same cell each time. Where the cell isn't known, others have lost
        none, or fewer; and where every chunk ends its workers none is ever kept.
        """
        self._lost += failure is not self._last  # one loss may be blamed on several chunks
        self._last = failure
        losses = self._losses.setdefault(chunk, _Losses())
        moved = failure.cell is not None and losses.cell is not None and failure.cell != losses.cell
        losses.count, losses.cell = losses.count + 1, failure.cell
        others = failure.cell is None and self.kept > 0 and self._lost - losses.count >= losses.count
        fine = losses.count > 1 and (moved or others)
        return fine and losses.count < FORGIVEN * self.policy.attempts.get("lost_worker", 1)

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
