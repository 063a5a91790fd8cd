"""What is done about each class of failure: a pure policy (law 5: one owner of retries).

>>> Policy().decide("user", attempt=1, seed=0).action
'stop'
>>> Policy().decide("lost_worker", attempt=1, seed=0).action
'retry'
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gridcompute.events import FailureKind

Doing = Literal["retry", "recompute", "stop"]


@dataclass(frozen=True)
class Decision:
    """What to do, and after how many seconds.

    Attributes:
        action: "retry" the chunk, "recompute" the input that it lost first, or "stop" the run.
        delay: seconds to wait before.
        alone: dispatch the chunk in a task of its own, so that what kills it is known.
    """

    action: Doing
    delay: float = 0.0
    alone: bool = False


@dataclass(frozen=True)
class Policy:
    """Attempts and delays by class of failure.

    Attributes:
        attempts: tries in all before the run stops; a class that isn't named stops at once. Where one runs out of
            memory each further try takes less at once, and the last of them is `gridcompute.sizes`' to say.
        base: seconds before the first retry of a transient failure; doubles each time, with jitter.
        longest: most seconds to wait.
    """

    attempts: Mapping[FailureKind, int] = field(default_factory=lambda: {
        "transient": 6, "lost_worker": 4, "out_of_memory": 12, "corrupt_shard": 4, "hang": 2})
    base: float = 0.2
    longest: float = 30.0

    def decide(self, kind: FailureKind, attempt: int, seed: int) -> Decision:
        """The decision after an attempt failed (1 for the first); `seed` makes the jitter repeatable."""
        if attempt >= self.attempts.get(kind, 1):
            return Decision("stop")
        if kind == "transient":
            return Decision("retry", self._delay(attempt, seed))
        if kind == "corrupt_shard":
            return Decision("recompute")
        return Decision("retry", alone=True)

    def _delay(self, attempt: int, seed: int) -> float:
        span = min(self.longest, self.base * 2.0 ** (attempt - 1))
        mixed = hashlib.blake2b(f"{seed}/{attempt}".encode(), digest_size=8).digest()
        # Half fixed, half random: retries of many chunks spread without any of them being immediate.
        return span * (0.5 + 0.5 * int.from_bytes(mixed, "big") / 2.0**64)
