"""Tables of edit distances as bit-vectors, eight pairs at once, a pair a lane.

A column of a pair's table is kept as vertical differences, a bit a row: +1 in `state`'s first vector of a word, -1 in
the second (Myers 1999, J. ACM 46, 395-415; words below each other as Hyyro 2003, Nordic J. Computing 10, 29-39). A
sequence is laid as planes: word by word, and in each word bit p of 64 letters; letters are equal where all planes are.
So nothing depends on a table that is looked up, which lanes couldn't do at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from gridcompute.vectors import u8x64, u64x8

LANES = 8
PLAIN, WITH_N, ANY = 2, 3, 8
"""Planes that tell A C G T apart, these and N, all bytes: so many of PLANES."""
PLANES = np.array([1, 2, 3, 0, 4, 5, 6, 7], np.uint8)
"""Bits of a letter, in the order in which they are needed."""
GLOBAL, PREFIX, WITHIN, BACKWARDS = np.int64(0), np.int64(1), np.int64(2), np.int64(3)
"""Whole sequences; queries at targets' starts; within targets; and at their starts again, where of several ends the
last one is meant. Typed, as numba compiles a function again for a number that is written as such."""
ONE, ZERO, FULL = np.uint64(1), np.uint64(0), np.uint64(0xFFFFFFFFFFFFFFFF)


@njit(nogil=True)
def long_enough(letters: Any) -> Any:
    """Letters, of which a vector can be loaded: with zeros behind them where there are fewer."""
    if len(letters) >= 64:
        return letters
    out = np.zeros(64, np.uint8)
    for i in range(len(letters)):
        out[i] = letters[i]
    return out


@njit(nogil=True, forceinline=True)
def letters_at(letters: Any, at: int) -> Any:
    """64 letters in upper case from a place on; and how many come before that place, since the array ends."""
    place = min(at, len(letters) - 64)
    found = u8x64.load(letters, place)
    small = (found >= u8x64.splat(97)) & (found <= u8x64.splat(122))
    return small.select(found - u8x64.splat(32), found), np.uint64(at - place)


@njit(nogil=True, forceinline=True)
def lowest(count: int) -> Any:
    """A word with so many of its lowest bits set, 64 at most."""
    return FULL if count >= 64 else (ONE << np.uint64(count)) - ONE


@njit(nogil=True)
def planes_needed(letters: Any, first: int, last: int) -> int:
    """How many planes tell the letters of a sequence apart from each other and from other such sequences' letters."""
    found = PLAIN
    for at in range(first, last, 64):
        here, before = letters_at(letters, at)
        bases = (here == u8x64.splat(65)) | (here == u8x64.splat(67)) | (here == u8x64.splat(71)) | (
            here == u8x64.splat(84))
        other = (~bases.bits() >> before) & lowest(last - at)
        if other != ZERO:
            found = WITH_N
            if other & ~((here == u8x64.splat(78)).bits() >> before) != ZERO:
                return ANY
    return found


@njit(nogil=True)
def lay(letters: Any, first: int, last: int, planes: int, lanes: int, lane: int, out: Any) -> None:
    """Write a sequence's planes for one lane: word w's plane p at (w * planes + p) * lanes + lane."""
    for at in range(first, last, 64):
        here, before = letters_at(letters, at)
        place = ((at - first) >> 6) * planes * lanes + lane
        for p in range(planes):
            bit = u8x64.splat(1 << PLANES[p])
            out[place + p * lanes] = ((here & bit) == bit).bits() >> before


@njit(nogil=True, forceinline=True)
def ones(word: Any) -> Any:
    """How many bits of a word are set."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    word += word >> np.uint64(8)
    word += word >> np.uint64(16)
    word += word >> np.uint64(32)
    return np.int64(word & np.uint64(127))


@njit(nogil=True, forceinline=True)
def step(equal: Any, up: Any, down: Any, rise: Any, fall: Any) -> Any:
    """A word's next column.

    Args:
        equal: rows whose letter is the column's.
        up: rows that are one more than the row above, in the column before.
        down: rows that are one less.
        rise: in the lowest bit whether the row above the word is one more than in the column before.
        fall: whether it is one less.

    Returns:
        `up` and `down` of the column, and which rows are one more and one less than in the column before.
    """
    one = u64x8.splat(1)
    across = equal | down
    equal = equal | fall
    along = (((equal & up) + up) ^ up) | equal
    more, less = down | ~(along | up), up & along
    risen = (more << one) | rise
    return (less << one) | fall | ~(across | risen), risen & across, more, less


def _walker(plain: bool, scored: bool, kept: bool) -> Callable[..., Any]:
    """A function that does some columns, of one word of the target, in some words of the query.

    Its arguments: query and target, laid, and their planes; the words' differences, before and afterwards; first column
    and that behind the last; words likewise; what a column more costs in the row above them; for scores value, least
    value, its column, shift to the last row, and 1 if the latest of such columns is meant; scratch of eight vectors;
    where columns are kept, and from which place on.

    Args:
        plain: sequences are laid in two planes.
        scored: the last row's least value is followed.
        kept: each column is kept.
    """

    @njit(nogil=True)
    def walk(query: Any, target: Any, planes: int, state: Any, columns: Any, words: Any, rise: int, tally: Any,
             masks: Any, keep: Any, keep_at: int) -> None:
        one, nothing, last_bit = u64x8.splat(1), u64x8.splat(0), u64x8.splat(63)
        start = (columns[0] >> 6) * planes * LANES
        t0, t1 = u64x8.load(target, start), u64x8.load(target, start + LANES)
        if scored:
            value, least, end = u64x8.load(tally, 0), u64x8.load(tally, LANES), u64x8.load(tally, 2 * LANES)
            shift, latest = u64x8.load(tally, 3 * LANES), u64x8.load(tally, 4 * LANES)
        for column in range(columns[0], columns[1]):
            by = u64x8.splat(column & 63)
            c0, c1 = nothing - ((t0 >> by) & one), nothing - ((t1 >> by) & one)
            if not plain:
                for p in range(0, planes * LANES, LANES):
                    (nothing - ((u64x8.load(target, start + p) >> by) & one)).store(masks, p)
            risen, fallen, more, less = u64x8.splat(rise), nothing, nothing, nothing
            for word in range(words[0], words[1]):
                at, place = word * 2 * LANES, word * planes * LANES
                unequal = (u64x8.load(query, place) ^ c0) | (u64x8.load(query, place + LANES) ^ c1)
                if not plain:
                    for p in range(2 * LANES, planes * LANES, LANES):
                        unequal |= u64x8.load(query, place + p) ^ u64x8.load(masks, p)
                up, down = u64x8.load(state, at), u64x8.load(state, at + LANES)
                up, down, more, less = step(~unequal, up, down, risen, fallen)
                risen, fallen = more >> last_bit, less >> last_bit
                up.store(state, at)
                down.store(state, at + LANES)
                if kept:
                    up.store(keep, keep_at)
                    down.store(keep, keep_at + LANES)
                    keep_at += 2 * LANES
            if scored:
                value += ((more >> shift) & one) - ((less >> shift) & one)
                end = (value < least + latest).select(u64x8.splat(column), end)
                least = least.min(value)
        if scored:
            value.store(tally, 0)
            least.store(tally, LANES)
            end.store(tally, 2 * LANES)

    return walk


_walk_plain, _walk_any = _walker(True, False, False), _walker(False, False, False)
_score_plain, _score_any = _walker(True, True, False), _walker(False, True, False)
_keep_plain, _keep_any = _walker(True, False, True), _walker(False, False, True)


@njit(nogil=True, forceinline=True)
def walk(query: Any, target: Any, planes: int, state: Any, columns: Any, words: Any, masks: Any) -> None:
    """Some columns of tables of whole sequences: see `_walker`."""
    if planes == PLAIN:
        _walk_plain(query, target, planes, state, columns, words, 1, state, masks, state, 0)
    else:
        _walk_any(query, target, planes, state, columns, words, 1, state, masks, state, 0)


@njit(nogil=True, forceinline=True)
def keep(query: Any, target: Any, planes: int, state: Any, columns: Any, words: Any, masks: Any, kept: Any,
         at: int) -> None:
    """Some columns, each of which is kept: see `_walker`."""
    if planes == PLAIN:
        _keep_plain(query, target, planes, state, columns, words, 1, state, masks, kept, at)
    else:
        _keep_any(query, target, planes, state, columns, words, 1, state, masks, kept, at)


@njit(nogil=True, forceinline=True)
def score(query: Any, target: Any, planes: int, state: Any, columns: Any, words: Any, rise: int, tally: Any,
          masks: Any) -> None:
    """Some columns of tables of queries within targets or at their starts: see `_walker`."""
    if planes == PLAIN:
        _score_plain(query, target, planes, state, columns, words, rise, tally, masks, state, 0)
    else:
        _score_any(query, target, planes, state, columns, words, rise, tally, masks, state, 0)
