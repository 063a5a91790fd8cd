"""Where simulated reads are from, by their names, and how many of them a mapper has put there, by lines of SAM."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

TOLERANCE = 10
"""Bases that an end may lie away from its origin."""

CONFIDENT = 20
"""A mapping quality from which on a wrong place is counted."""

UNMAPPED, REVERSE, PROPER, OTHER = 0x4, 0x10, 0x2, 0x900
_OPERATION = re.compile(r"(\d+)([MIDNSHP=X])")


class Origin(NamedTuple):
    """Where a fragment is from: its first and last base on the reference, from 1."""

    contig: str
    start: int
    end: int


def origin(name: str) -> Origin:
    """The origin that wgsim wrote into a read's name.

    >>> origin("NC_017625.1_100_599_1:0:0_0:0:0_2a/1")
    Origin(contig='NC_017625.1', start=100, end=599)

    Raises:
        ValueError: it isn't such a name.
    """
    parts = name.rsplit("_", 5)
    if len(parts) != 6:
        raise ValueError(f"{name!r} isn't the name of a read that wgsim simulated")
    return Origin(parts[0], int(parts[1]), int(parts[2]))


def span(cigar: str) -> int:
    """Bases of the reference that an alignment covers.

    >>> span("5S100M2D43M2I")
    145
    """
    return sum(int(count) for count, operation in _OPERATION.findall(cigar) if operation in "MDN=X")


@dataclass
class Tally:
    """What became of reads.

    Attributes:
        reads: primary lines, mapped or not.
        mapped: those with a place.
        correct: whose first or last base lies where the fragment's does, within 10.
        confident: with a mapping quality of 20 or more.
        wrong: of these, those that aren't correct.
        proper: flagged as one of a proper pair.
    """

    reads: int = 0
    mapped: int = 0
    correct: int = 0
    confident: int = 0
    wrong: int = 0
    proper: int = 0

    def percent(self, count: int) -> float:
        """Of all reads."""
        return 100 * count / self.reads if self.reads else 0.0


def tally(lines: Iterable[str]) -> Tally:
    """Count SAM lines; headers, secondary and supplementary lines don't count."""
    found = Tally()
    for line in lines:
        if line.startswith("@"):
            continue
        name, flag_text, contig, place, quality, cigar = line.split("\t", 6)[:6]
        flag = int(flag_text)
        if flag & OTHER:
            continue
        found.reads += 1
        if flag & UNMAPPED:
            continue
        right = is_right(origin(name), contig, int(place), cigar)
        found.mapped += 1
        found.proper += bool(flag & PROPER)
        found.correct += right
        if int(quality) >= CONFIDENT:
            found.confident += 1
            found.wrong += not right
    return found


def is_right(true: Origin, contig: str, place: int, cigar: str) -> bool:
    """Whether an alignment begins or ends where the fragment does."""
    last = place + span(cigar) - 1
    return contig == true.contig and (abs(place - true.start) <= TOLERANCE or abs(last - true.end) <= TOLERANCE)
