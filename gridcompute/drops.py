"""Which kept chunks nothing needs any more: decided purely, as chunks come to their end.

A held chunk is let go when all that reads it is kept. A committed one only when all that reads it is committed, or was
held and is let go itself: what is held is gone after an interruption, and would be made again from it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from gridcompute.planview import PlanView

IDLE, WAITING, READY, RUNNING, DONE, GONE = range(6)
"""Of a chunk: needed by nobody; lacks an input, waits out a delay; may be submitted; submitted; kept; kept, let go."""

ChunkId = tuple[int, int]


class Drops:
    """Chunks that can go, of one phase.

    Args:
        plan: of the phase.
        status: of all chunks, by stage; what can go is marked as GONE there.
        left: chunks that are still to be made, by stage.
        waits: by stage its consumers, and whether they read all of it.
        disposable: committed stages of which nothing is asked for.

    Attributes:
        matters: by stage, whether its chunks read any that can go.
    """

    def __init__(self, plan: PlanView, status: Sequence[bytearray], left: Sequence[int],
                 waits: Sequence[Mapping[int, bool]], disposable: Collection[int]) -> None:
        self._plan, self._status, self._left, self._waits = plan, status, left, waits
        self._held = [stage.held for stage in plan.stages]
        self._goes = [stage.held or number in disposable for number, stage in enumerate(plan.stages)]
        self.matters = [any(self._goes[producer] for producer in producers) for producers in plan.producers]
        # Of a chunk that can't go yet, one that still needs it: others need no second look.
        self._in_the_way: dict[ChunkId, ChunkId] = {}

    def found(self, partly: Iterable[ChunkId] = ()) -> Iterator[ChunkId]:
        """What was committed before this run, and nothing in it needs.

        Args:
            partly: chunks of which something is there, but not all: a run may have been killed while it deleted them.
        """
        yield from (one for one in partly if self._goes[one[0]] and self._status[one[0]][one[1]] == IDLE)
        for stage, goes in enumerate(self._goes):
            if goes and not self._held[stage] and DONE in self._status[stage]:
                yield from ((stage, chunk) for chunk in range(len(self._status[stage])) if self._free(stage, chunk))

    def after(self, stage: int, chunk: int, *, again: bool = False) -> Iterator[ChunkId]:
        """What can go now that a chunk is kept; itself too where it was made `again` and all that reads it is over."""
        over = [(stage, chunk)]
        if again and self._goes[stage] and self._waits[stage] and self._free(stage, chunk):
            yield stage, chunk
        while over:
            for producer, before in self._inputs(*over.pop()):
                if self._free(producer, before):
                    yield producer, before
                    if self._held[producer] and self.matters[producer]:
                        over.append((producer, before))

    def _inputs(self, stage: int, chunk: int) -> Iterator[ChunkId]:
        """Chunks that one reads; those that the whole stage reads are looked at once, at its end."""
        if not self.matters[stage]:
            return
        whole = {p for p in self._plan.producers[stage] if self._goes[p] and self._waits[p][stage]}
        if len(whole) < len(self._plan.producers[stage]):
            yield from ((p, c) for p, c in self._plan.inputs(stage, chunk) if self._goes[p] and p not in whole)
        for producer in whole:
            if self._all_over(stage, producer):
                yield from ((producer, before) for before in range(len(self._status[producer])))

    def _free(self, stage: int, chunk: int) -> bool:
        """Mark a chunk as gone if it can go."""
        one, waits = (stage, chunk), self._waits[stage]
        if self._status[stage][chunk] != DONE:
            return False
        if one in self._in_the_way and not self._over(*self._in_the_way[one], stage):
            return False
        if not all(self._all_over(after, stage) for after, whole in waits.items() if whole):
            return False
        if not all(waits.values()):
            # The last of them is likely to come last.
            for after in reversed(list(self._plan.consumers(stage, chunk))):
                if not waits[after[0]] and not self._over(*after, stage):
                    self._in_the_way[one] = after
                    return False
        self._in_the_way.pop(one, None)
        self._status[stage][chunk] = GONE
        return True

    def _over(self, stage: int, chunk: int, producer: int) -> bool:
        """Whether a chunk needs what it reads of a producer no more."""
        status = self._status[stage][chunk]
        return status in (IDLE, GONE) or (status == DONE and (self._held[producer] or not self._held[stage]))

    def _all_over(self, stage: int, producer: int) -> bool:
        if self._left[stage]:
            return False
        return self._held[producer] or not self._held[stage] or DONE not in self._status[stage]
