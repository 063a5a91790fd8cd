"""Ballots: how many equal digests a chunk needs before it counts, who voted how, and who is trusted no more.

Every result of a chunk is a vote: the first one, that of a second copy, that of a check. A chunk that nobody wants
checked needs one; one that is checked needs two of at most three; under a quorum k of n.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from gridcompute.attempts import Chunk
from gridcompute.events import Ruled, Turn, Vote

CHECKED = (2, 3)
"""Equal votes that a checked chunk needs, and votes in all: a third one settles a divergence."""

LOST = 2
"""Votes that a worker or node loses until it is quarantined."""


@dataclass(frozen=True)
class Rule:
    """Which chunks are computed more than once.

    Attributes:
        verify: share of the chunks that are checked.
        quorum: equal votes that each chunk needs, and votes in all.
        seeds: a text for each stage; which chunks are checked follows from it and from the chunk's number alone.
        exempt: stages whose chunks can't be computed twice.
        tolerance: relative difference of floating point values up to which results count as equal.

    >>> rule = Rule(verify=0.1, seeds=("beef",))
    >>> sum(rule.votes(0, chunk) == CHECKED for chunk in range(1000))
    101
    >>> Rule(quorum=(3, 5), seeds=("beef",)).votes(0, 7), Rule().votes(0, 7)
    ((3, 5), (1, 1))
    """

    verify: float = 0.0
    quorum: tuple[int, int] | None = None
    seeds: Sequence[str] = ()
    exempt: frozenset[int] = frozenset()
    tolerance: float = 0.0

    @property
    def plain(self) -> bool:
        """Whether no chunk is computed more than once."""
        return not self.verify and self.quorum is None

    def votes(self, stage: int, chunk: int) -> tuple[int, int]:
        """Equal votes that a chunk needs, and the most that it may have."""
        if stage in self.exempt or self.plain:
            return 1, 1
        if self.quorum is not None:
            return self.quorum
        return CHECKED if self.drawn(f"{self.seeds[stage]}/{chunk}") else (1, 1)

    def drawn(self, text: str) -> bool:
        """Whether something is in the sample, by its name."""
        mixed = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return self.quorum is not None or int.from_bytes(mixed, "big") < self.verify * 2.0**64


class Standing:
    """Lost votes of a run, over all its phases.

    Attributes:
        barred: workers and nodes that are trusted no more.

    >>> standing, winner = Standing(), Vote("b", "B", "1")
    >>> standing.lose(Vote("a", "A", "2"), [winner]), standing.lose(Vote("a", "A", "2"), [winner])
    ('', 'A')
    >>> standing.bars("other", "A"), standing.bars("b", "B")
    (True, False)
    """

    def __init__(self) -> None:
        self.barred: tuple[str, ...] = ()
        self._lost: Counter[str] = Counter()

    def bars(self, worker: str, node: str) -> bool:
        """Whether results from there count no more."""
        return bool(self.barred) and (worker in self.barred or node in self.barred)

    def lose(self, vote: Vote, winners: Sequence[Vote]) -> str:
        """Count a lost vote; who is quarantined by it, the node rather than its worker.

        Nobody is blamed by his own kind: a worker that gave both results, or that computes in another class of
        numerics than all who outvoted it. Who is quarantined loses no more.
        """
        known = bool(vote.worker) and not self.bars(vote.worker, vote.node)
        if not known or all(vote.numerics != other.numerics for other in winners):
            return ""
        found = ""
        for who, same in ((vote.worker, [other.worker for other in winners]),
                          (vote.node, [other.node for other in winners])):
            if who and who not in same and any(same):
                self._lost[who] += 1
                if self._lost[who] >= LOST and who not in self.barred:
                    found = who
        if found:
            self.barred = tuple(sorted({*self.barred, found}))
        return found


@dataclass
class Ballot:
    """The votes on one chunk.

    Attributes:
        votes: in the order in which they came.
        committed: digest of what is kept of it by now; empty while nothing is.
        keeper: who committed that, as far as it is known.
        need, most: equal votes that it needs, and votes in all.
    """

    need: int
    most: int
    votes: list[Vote] = field(default_factory=list)
    committed: str = ""
    keeper: Vote | None = None
    ruled: bool = False

    @property
    def best(self) -> tuple[str, int]:
        """The digest with most votes, and how many; the earliest of several."""
        return Counter(vote.digest for vote in self.votes).most_common(1)[0]

    @property
    def hopeless(self) -> bool:
        """Whether no digest can have enough votes any more, or what the majority got can't be got again.

        What somebody left there is a vote that nobody asked for: it isn't counted among the most that there may be.
        """
        again = sum(vote.worker != "" for vote in self.votes) - self.most
        return again >= self.need or (self.best[1] < self.need and self.best[1] + max(0, -again) < self.need)


Verdict = Literal["keep", "again", "void", "split"]
"""What becomes of a chunk after a vote: it counts; another task computes it; what was kept is void, and another task
computes it; no result can win any more."""


class Ballots:
    """The open ballots of one phase.

    Args:
        rule: which chunks need more than one vote.
        standing: of workers and nodes.
        chunks: of each stage.
    """

    def __init__(self, rule: Rule, standing: Standing, chunks: Sequence[int]) -> None:
        self.rule, self.standing = rule, standing
        self.confirmed = 0
        self.same = 0
        self._open: dict[Chunk, Ballot] = {}
        self._chunks, self._names = chunks, {("", ""): 0}
        self._origins: dict[int, array[int]] = {}
        self._former: dict[Chunk, set[int]] = {}
        self._plain = rule.plain
        self._first = Turn(voted=not rule.plain, tolerance=rule.tolerance)

    def turn(self, stage: int, chunk: int) -> Turn:
        """How the next task on a chunk takes part."""
        if self._plain:
            return self._first
        ballot, barred = self._open.get((stage, chunk)), self.standing.barred
        if stage in self.rule.exempt:
            return Turn(barred=barred)
        if self._first.barred != barred:
            self._first = replace(self._first, barred=barred)
        if ballot is None or not ballot.votes:
            return self._first
        best, count = ballot.best
        # Where the winners are known, one of them may get again what was outvoted.
        had = ballot.votes if count < ballot.need else [vote for vote in ballot.votes if vote.digest != best]
        avoid = sorted({name for vote in had for name in (vote.worker, vote.node) if name})
        return replace(self._first, check=bool(ballot.committed), number=len(ballot.votes), avoid=tuple(avoid))

    def take(self, chunk: Chunk, vote: Vote, committed: str, *, check: bool) -> tuple[Verdict, Ruled | None]:
        """Count a vote.

        Args:
            chunk: which.
            vote: on it.
            committed: digest of what is kept of the chunk by now, as this attempt left or found it.
            check: whether the attempt kept nothing.

        Returns:
            What becomes of the chunk, and what is to be noted where results differ.
        """
        ballot = self._open.get(chunk) or Ballot(*self.rule.votes(*chunk))
        if not check:
            if committed != vote.digest and not any(other.digest == committed for other in ballot.votes):
                ballot.votes.append(Vote("", "", committed))  # somebody has computed that, who didn't tell
            ballot.committed, ballot.keeper = committed, vote if committed == vote.digest else None
        ballot.votes.append(vote)
        return self.decide(chunk, ballot)

    def asks(self, chunk: Chunk) -> bool:
        """Whether a chunk needs, or has, more than one vote."""
        return self.rule.votes(*chunk)[0] > 1 or chunk in self._open

    def decide(self, chunk: Chunk, ballot: Ballot) -> tuple[Verdict, Ruled | None]:
        """What becomes of a chunk by the votes on it; the ballot is open until it counts."""
        (best, count), apart = ballot.best, len({vote.digest for vote in ballot.votes}) > 1
        if apart and ballot.need == 1:  # now a majority decides
            ballot.need, ballot.most = CHECKED
        self._open[chunk] = ballot
        ruled = None
        if count >= ballot.need and apart and not ballot.ruled:
            ballot.ruled, winners = True, [vote for vote in ballot.votes if vote.digest == best]
            lost = (self.standing.lose(vote, winners) for vote in ballot.votes if vote.digest != best)
            ruled = self._ruled(chunk, ballot, best, tuple(who for who in lost if who))
        if count >= ballot.need and ballot.committed == best:
            del self._open[chunk]
            self._count(chunk, ballot, best)
            return "keep", ruled
        if ballot.hopeless:
            return "split", self._ruled(chunk, ballot, "", ())
        if count >= ballot.need and ballot.committed:
            ballot.committed, ballot.keeper = "", None
            return "void", ruled
        return "again", ruled

    @staticmethod
    def _ruled(chunk: Chunk, ballot: Ballot, winner: str, barred: tuple[str, ...]) -> Ruled:
        return Ruled(*chunk, tuple(ballot.votes), winner, ballot.need, ballot.most, barred)

    def _count(self, chunk: Chunk, ballot: Ballot, best: str) -> None:
        """A chunk counts: by several votes, or by one of whom it is known."""
        voters = [(vote.worker, vote.node) for vote in ballot.votes if vote.digest == best]
        if ballot.need > 1:
            self.confirmed += 1
            self.same += len(set(voters)) < ballot.need
        elif not self.rule.plain:
            stage, number = chunk
            if stage not in self._origins:
                self._origins[stage] = array("i", bytes(4 * self._chunks[stage]))
            self._origins[stage][number] = self._names.setdefault(voters[0], len(self._names))
            return
        if chunk[0] in self._origins:
            self._origins[chunk[0]][chunk[1]] = 0

    def reopened(self, chunk: Chunk, vote: Vote, committed: str) -> Ballot:
        """The ballot of a chunk that counts already, by one vote, and of which somebody has another result by now."""
        keeper = next(name for name, i in self._names.items() if i == self._origin(chunk))
        return Ballot(*CHECKED, [Vote(*keeper, committed, vote.numerics), vote])

    def _origin(self, chunk: Chunk) -> int:
        return self._origins[chunk[0]][chunk[1]] if chunk[0] in self._origins else 0

    def lost(self, chunk: Chunk) -> None:
        """A chunk that counts is made again: what was computed from it still depends on who computed it before."""
        if origin := self._origin(chunk):
            self._former.setdefault(chunk, set()).add(origin)

    def void(self, chunk: Chunk) -> None:
        """What is kept of a chunk counts no more; the votes on it do."""
        if chunk in self._open:
            self._open[chunk].committed, self._open[chunk].keeper = "", None

    def clear(self, chunk: Chunk) -> bool:
        """Forget the votes on a chunk, as what it was computed from was wrong; whether something is kept of it."""
        ballot = self._open.pop(chunk, None)
        self._former.pop(chunk, None)
        if chunk[0] in self._origins:
            self._origins[chunk[0]][chunk[1]] = 0
        return ballot is not None and bool(ballot.committed)

    def strike(self) -> list[Chunk]:
        """Votes of those who are barred count no more; chunks of which something that one of them made is kept."""
        found = []
        bars = self.standing.bars
        for chunk, ballot in self._open.items():
            ballot.votes = [vote for vote in ballot.votes if not bars(vote.worker, vote.node)]
            if ballot.keeper is not None and bars(ballot.keeper.worker, ballot.keeper.node):
                ballot.committed, ballot.keeper = "", None
                found.append(chunk)
        return found

    def unconfirmed(self) -> Iterator[Chunk]:
        """Chunks that count, or once did, by the one vote of a worker that is barred."""
        numbers = {i for (worker, node), i in self._names.items() if self.standing.bars(worker, node)}
        for stage, origins in self._origins.items():
            yield from ((stage, chunk) for chunk, origin in enumerate(origins) if origin in numbers)
        yield from (chunk for chunk, origins in self._former.items() if not origins.isdisjoint(numbers))
