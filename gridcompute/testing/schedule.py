"""Which faults meet which chunks: a pure function of a seed, so that a failing schedule can be repeated.

>>> schedule = Schedule(seed=7, kill_worker=0.5)
>>> [bool(schedule.faults("0 trend", chunk)) for chunk in range(6)]
[True, False, False, True, False, False]
>>> schedule.faults("0 trend", 3)
(Fault(kind='kill-worker', how='commit', seconds=0.0),)
"""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from typing import Literal

from gridcompute.errors import ParameterError

FaultKind = Literal["kill-worker", "kill-node", "corrupt", "slow", "store", "hang", "memory", "reset"]

MOST = 2
"""Faults that one chunk may meet, of as many kinds: the policy allows three lost workers and one hang, so that its
attempts aren't exhausted by what is injected."""

HOWS: dict[str, tuple[str, ...]] = {
    "kill-worker": ("begin", "commit", "answer"),
    "corrupt": ("flip", "cut", "remove"),
    "store": ("timeout", "unavailable", "lost", "partial"),
}
"""Ways of a kind: when a worker dies, how bytes are damaged, how a store fails."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong while a chunk is carried out.

    Attributes:
        kind: "kill-worker": its process ends by SIGKILL. "kill-node": so does the node's raylet. "corrupt": what the
            chunk has committed is damaged. "slow": it takes longer. "store": a call of its store fails. "hang": it
            never ends. "memory": MemoryError. "reset": a connection is reset.
        how: of a killed worker: at the "begin" of the chunk, at its "commit" when nothing is written yet, or when it
            is committed but no "answer" was given. Of what is corrupt: a bit is flipped ("flip"), the end is cut off
            ("cut"), or it is gone ("remove"). Of a store: as `gridcompute.testing.faults.Fault.kind`.
        seconds: that a slow chunk takes longer.
    """

    kind: FaultKind
    how: str = ""
    seconds: float = 0.0

    @property
    def again(self) -> bool:
        """Whether the chunk is begun again after it."""
        return not (self.kind in ("slow", "corrupt") or self.how == "answer")


@dataclass(frozen=True)
class Schedule:
    """What is injected: rates, each the share of chunks that meet such a fault, and a seed.

    Attributes:
        seed: the same seed and rates give the same faults to the same attempts of the same chunks, whatever the
            number of workers and the timing.
        kill_worker, kill_node, corrupt, slow, store_errors, hang, memory_errors, resets: shares of chunks, 0 to 1; see
            `Fault.kind`.
        kill_driver: how many times the driver dies, to be gone on with.
        slow_seconds: most that a slow chunk takes longer.

    Raises:
        ParameterError: a share that isn't one.
    """

    seed: int = 0
    kill_worker: float = 0.0
    kill_node: float = 0.0
    corrupt: float = 0.0
    slow: float = 0.0
    store_errors: float = 0.0
    hang: float = 0.0
    memory_errors: float = 0.0
    resets: float = 0.0
    kill_driver: int = 0
    slow_seconds: float = 0.5

    def __post_init__(self) -> None:
        for name, share in self.rates.items():
            if not 0 <= share <= 1:
                raise ParameterError(f"{name} is {share}", hint="a share of the chunks, 0 to 1")
        if self.kill_driver < 0 or not 0 <= self.slow_seconds < 3600:
            raise ParameterError("kill_driver is a number of times, slow_seconds a time under an hour")

    @property
    def rates(self) -> dict[str, float]:
        """The shares by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name in RATES}

    def faults(self, stage: str, chunk: int) -> tuple[Fault, ...]:
        """The faults that meet a chunk, in order: the first attempt has the first of them, and so on; at most `MOST`.

        Each kind is drawn for itself, so that a rate more or less leaves the other kinds' faults as they are.

        Args:
            stage: its name (see `gridcompute.testing.injecting.stage_name`).
            chunk: its number.
        """
        hit = []
        for name, kind in RATES.items():
            draw = random.Random(f"{self.seed}/{kind}/{stage}/{chunk}")
            if draw.random() < getattr(self, name):
                how = draw.choice(HOWS.get(kind, ("",)))
                seconds = self.slow_seconds * (0.5 + 0.5 * draw.random()) if kind == "slow" else 0.0
                hit.append(Fault(kind, how, seconds))
        random.Random(f"{self.seed}/{stage}/{chunk}").shuffle(hit)
        first = [fault for fault in hit if fault.again]
        last = [fault for fault in hit if not fault.again]
        # After one of the last ones the chunk isn't begun again, so there is room for one of them only, at the end.
        return (*first[: MOST - bool(last)], *last[:1])

    def deaths(self, chunks: int) -> tuple[int, ...]:
        """After how many chunks of its own each driver that dies does so; of a job of so many chunks in all."""
        share = max(1, chunks // (self.kill_driver + 1))
        return tuple(random.Random(f"{self.seed}/driver/{life}").randint(1, share) for life in range(self.kill_driver))


RATES: dict[str, FaultKind] = {
    "kill_worker": "kill-worker", "kill_node": "kill-node", "corrupt": "corrupt", "slow": "slow",
    "store_errors": "store", "hang": "hang", "memory_errors": "memory", "resets": "reset",
}  # fmt: skip
"""Kinds of faults by the names of their rates."""
