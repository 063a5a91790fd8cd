"""What letters and gaps score."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gridcompute.columns import Array
from gridcompute.errors import ParameterError

QUERY_PAD, TARGET_PAD = 126, 127
"""Codes of what lies behind a sequence's end: unlike any letter, and unlike each other."""

MOST = 2**20
"""The greatest score or cost of a letter or a gap."""


class Simple(NamedTuple):
    """One score for letters that are equal, one for those that aren't, and affine gaps; see `simple`.

    Attributes:
        queries: code of each byte of a query, uint8 (256,).
        targets: the same for targets.
        scores: int32, shape (codes, codes): of a query's code and a target's.
        match: above 0.
        mismatch: what is taken off, 0 or more.
        gap_open: what the first letter of a gap costs.
        gap_extend: what each further one costs.
    """

    queries: Array
    targets: Array
    scores: Array
    match: int
    mismatch: int
    gap_open: int
    gap_extend: int


class Matrix(NamedTuple):
    """A score for each pair of letters, and affine gaps; see `matrix`.

    Attributes:
        queries: code of each byte of a query, uint8 (256,).
        targets: the same for targets.
        scores: int32, shape (codes, codes): of a query's code and a target's.
        gap_open: what the first letter of a gap costs.
        gap_extend: what each further one costs.
    """

    queries: Array
    targets: Array
    scores: Array
    gap_open: int
    gap_extend: int


def require_costs(**given: object) -> None:
    """Whole numbers, and a gap's first letter no cheaper than a further one.

    Raises:
        ParameterError: naming the one that is wrong.
    """
    for name, value in given.items():
        least = 1 if name == "match" else 0
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= MOST:
            raise ParameterError(f"{name} is {value!r}", hint=f"a whole number from {least} to {MOST:,}; costs have no "
                                 "sign")
    first, more = given["gap_open"], given["gap_extend"]
    if isinstance(first, int | np.integer) and isinstance(more, int | np.integer) and more > first:
        raise ParameterError(f"gap_extend is {more}, more than gap_open, {first}",
                             hint="the first letter of a gap costs gap_open, each further one gap_extend")


def simple(match: int = 1, mismatch: int = 2, gap_open: int = 3, gap_extend: int = 1, *, letters: str = "ACGT",
           same: str = "") -> Simple:
    """Scores for DNA and the like. A letter that isn't among `letters` equals none, itself neither.

    Args:
        match: what two equal letters score.
        mismatch: what two others cost.
        gap_open: what the first letter of a gap costs.
        gap_extend: what each further letter of it costs.
        letters: the alphabet, upper or lower case.
        same: pairs of letters that count as one, such as "TU".

    Raises:
        ParameterError: values that give no alignment, or letters that aren't ASCII.
    """
    require_costs(match=match, mismatch=mismatch, gap_open=gap_open, gap_extend=gap_extend)
    if not letters or not (letters + same).isascii() or len(letters) > 62 or len(same) % 2 or not set(
            same[::2].upper()) <= set(letters.upper()):
        raise ParameterError(f"letters are {letters!r}, same is {same!r}", hint="ASCII letters, and pairs of them")
    code = {letter: i for i, letter in enumerate(dict.fromkeys(letters.upper()))}
    # Two codes more, for what isn't among the letters: they differ, so that such a letter equals none.
    queries, targets = np.full(256, len(code), np.uint8), np.full(256, len(code) + 1, np.uint8)
    scores = np.full((len(code) + 2, len(code) + 2), -mismatch, np.int32)
    scores[np.arange(len(code)), np.arange(len(code))] = match
    code |= {other.upper(): code[one.upper()] for one, other in zip(same[::2], same[1::2], strict=True)}
    for letter, number in code.items():
        for byte in {ord(letter), ord(letter.lower())}:
            queries[byte] = targets[byte] = number
    return Simple(queries, targets, scores, int(match), int(mismatch), int(gap_open), int(gap_extend))
