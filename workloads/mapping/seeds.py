"""Minimizers of a sequence: the words of 15 bases that are looked up instead of all of them.

A word and its reverse complement count as one. A word is a minimizer if its hash is the least of some `WINDOW`
neighbouring words it is one of; so two sequences that share `K + WINDOW - 1` bases share a minimizer, on any strand
(Roberts et al. 2004, Bioinformatics 20, 3363-3369). Words are hashed and compared 16 at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gridcompute.vectors import u32x16

K = 15
"""Bases of a word; odd, so that none is its own reverse complement."""

WINDOW = 8
"""Neighbouring words of which the least is taken."""

HASH_BITS = 2 * K
WORDS = (1 << HASH_BITS) - 1
NONE = 0xFFFFFFFF
"""The hash of a word with a letter that isn't a base."""

NO_BASE = 4
"""Code of a letter in a reference that isn't a base, and above all such codes."""

READ_N = 5
"""Code of a letter in a read that isn't a base: it equals nothing in a reference."""

SEPARATOR = 6
"""Code of what stands between contigs."""

PAD = 32
"""Spare places of scratch arrays behind the last word and before the first window."""


def _codes(other: int) -> Any:
    codes = np.full(256, other, np.uint8)
    for letter, code in zip("ACGTU", (0, 1, 2, 3, 3), strict=True):
        codes[ord(letter)] = codes[ord(letter.lower())] = code
    return codes


REFERENCE_CODES, READ_CODES = _codes(NO_BASE), _codes(READ_N)


@njit(nogil=True)
def seed_scratch(length: Any) -> Any:
    """Scratch of `minimizers` for sequences of at most so many letters."""
    return np.zeros((5, length + 3 * PAD), np.uint32)


@njit(nogil=True)
def _hashed(words: Any) -> Any:
    """A permutation of the words of K bases, 16 at once."""
    mask = u32x16.splat(WORDS)
    words = (words ^ (words >> u32x16.splat(15))) * u32x16.splat(0x2C1B3C6D) & mask
    words = (words ^ (words >> u32x16.splat(12))) * u32x16.splat(0x297A2D39) & mask
    return words ^ (words >> u32x16.splat(15))


@njit(nogil=True)
def minimizers(codes: Any, start: Any, stop: Any, scratch: Any, places: Any) -> Any:
    """How many minimizers codes[start:stop] has; their places, from `start`, ascending in `places`.

    Of the minimizer at place i, scratch[2, i] is the hash, and it is the reverse complement's if scratch[0, i] >
    scratch[1, i].

    Args:
        codes: uint8, shape (n,); above 3 no base.
        start: of the stretch.
        stop: of the stretch.
        scratch: `seed_scratch` of at least its length.
        places: int64, at least as many as there are words in it, and one.
    """
    count = stop - start - K + 1
    if count <= 0:
        return 0
    ahead, back, hashes, least, chosen = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
    word: Any = 0
    reverse: Any = 0
    good, bad = 0, False
    for i in range(stop - start):
        code: Any = np.int64(codes[start + i])
        good += 1
        if code > 3:
            good, code, bad = 0, 0, True
        word = (word << 2 | code) & WORDS
        reverse = reverse >> 2 | (3 - code) << (HASH_BITS - 2)
        if i >= K - 1:
            ahead[i - K + 1] = word
            back[i - K + 1] = reverse
            chosen[i - K + 1] = good < K
    for i in range(0, count, 16):
        _hashed(u32x16.load(ahead, i).min(u32x16.load(back, i))).store(hashes, i)
    none = u32x16.splat(NONE)
    none.store(hashes, count)  # a window that reaches beyond the last word has its least among those that are there
    if bad:
        for i in range(count):
            if chosen[i]:
                hashes[i] = NONE
    windows = max(count - WINDOW + 1, 1)
    for i in range(0, windows, 16):
        low = u32x16.load(hashes, i)
        for j in range(1, WINDOW):
            low = low.min(u32x16.load(hashes, i + j))
        low.store(least, PAD + i)
    zero, one = u32x16.splat(0), u32x16.splat(1)
    for i in range(0, PAD, 16):
        zero.store(least, PAD + windows + i)
    for i in range(0, count, 16):
        high = u32x16.load(least, PAD + i)
        for j in range(1, WINDOW):
            high = high.max(u32x16.load(least, PAD + i - j))
        own = u32x16.load(hashes, i)
        ((high == own) & (own != none)).select(one, zero).store(chosen, i)
    found: Any = 0
    for i in range(count):
        places[found] = i
        found += np.int64(chosen[i])
    return found
