"""Edit distance by bit-vectors: 64 rows of the dynamic-programming table per machine word.

A column of the table is kept as vertical differences, +1 bits in `up` and -1 bits in `down`, one word per 64
rows of the query; a target base updates a word in some fifteen operations, and the horizontal difference at
its last row is carried to the next word. The query may have any length and any bytes; letters are compared
without regard to case.

Sources: Myers (1999), J. ACM 46, 395-415; block form as Hyyro (2003), Nordic J. Computing 10, 29-39.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

ONE = np.uint64(1)
ZERO = np.uint64(0)
FULL = np.uint64(0xFFFFFFFFFFFFFFFF)
LAST = np.uint64(63)
TOP = np.uint64(1 << 63)
BELOW_TOP = np.uint64((1 << 63) - 1)

LANES = 64
"""Segments of a target that `scan_lanes` walks together."""

UPPER = np.arange(256, dtype=np.uint8)
UPPER[ord("a") : ord("z") + 1] -= 32

LANE_CODES = np.full(256, 5, np.uint8)
"""3-bit codes for `scan_lanes`: A C G T N, 5 for any other byte; 6 is past the end."""
for _code, _letter in enumerate(b"ACGTN"):
    LANE_CODES[_letter] = LANE_CODES[_letter + 32] = _code


@njit(nogil=True)
def _wrapping_add(a: Any, b: Any) -> Any:
    """Sum modulo 2^64; the top bits apart, as NumPy scalars warn of an overflow, which is meant here."""
    return ((a & BELOW_TOP) + (b & BELOW_TOP)) ^ ((a ^ b) & TOP)


@njit(nogil=True)
def upper(sequence: Any) -> Any:
    """A contiguous upper-case copy."""
    n = sequence.shape[0]
    out = np.empty(n, np.uint8)
    for i in range(n):
        out[i] = UPPER[sequence[i]]
    return out


@njit(nogil=True)
def patterns(query: Any) -> Any:
    """Match bits of a query: `rows` (256,) gives a target byte's row in `match` (letters + 1, words).

    Row 0 is for bytes that the query doesn't contain.
    """
    m = query.shape[0]
    words = max((m + 63) // 64, 1)
    rows = np.zeros(256, np.uint8)
    letters = 0
    for i in range(m):
        letter = UPPER[query[i]]
        if rows[letter] == 0:
            letters += 1
            rows[letter] = letters
    for byte in range(256):
        rows[byte] = rows[UPPER[byte]]
    match = np.zeros((letters + 1, words), np.uint64)
    for i in range(m):
        match[rows[query[i]], i >> 6] |= ONE << np.uint64(i & 63)
    return rows, match


@njit(nogil=True)
def scan(
    rows: Any,
    match: Any,
    m: int,
    target: Any,
    start: int,
    stop: int,
    best: int,
    up: Any,
    down: Any,
) -> Any:
    """Least distance of the query within target[start:stop], both ends of the target free.

    Args:
        rows: of the query's `patterns`.
        match: likewise.
        m: length of the query.
        target: uint8 letters.
        start: first position to look at.
        stop: position after the last.
        best: only less than this counts.
        up: scratch of one word per 64 rows.
        down: likewise.

    Returns:
        The least distance and the first position in `target` (inclusive) that has it; `best` and -1 if none.
    """
    words = match.shape[1]
    for w in range(words):
        up[w] = FULL
        down[w] = ZERO
    last_row = np.uint64((m - 1) & 63)
    score: Any = m
    end = -1
    for j in range(start, stop):
        row = rows[target[j]]
        carry_up = ZERO
        carry_down = ZERO
        rise = ZERO
        fall = ZERO
        for w in range(words):
            equal = match[row, w]
            pv = up[w]
            mv = down[w]
            xv = equal | mv
            equal |= carry_down
            xh = (_wrapping_add(equal & pv, pv) ^ pv) | equal
            rise = mv | ~(xh | pv)
            fall = pv & xh
            shifted_up = (rise << ONE) | carry_up
            shifted_down = (fall << ONE) | carry_down
            carry_up = rise >> LAST
            carry_down = fall >> LAST
            up[w] = shifted_down | ~(xv | shifted_up)
            down[w] = shifted_up & xv
        score += np.int64((rise >> last_row) & ONE) - np.int64((fall >> last_row) & ONE)
        if score < best:
            best = score
            end = j
    return best, end


@njit(nogil=True)
def global_distance(query: Any, target: Any) -> int:
    """Edit distance of two whole, non-empty sequences: as `scan`, but the target's start costs too."""
    m = query.shape[0]
    rows, match = patterns(query)
    words = match.shape[1]
    up = np.full(words, FULL)
    down = np.zeros(words, np.uint64)
    last_row = np.uint64((m - 1) & 63)
    score: Any = m
    for j in range(target.shape[0]):
        row = rows[target[j]]
        carry_up = ONE
        carry_down = ZERO
        rise = ZERO
        fall = ZERO
        for w in range(words):
            equal = match[row, w]
            pv = up[w]
            mv = down[w]
            xv = equal | mv
            equal |= carry_down
            xh = (_wrapping_add(equal & pv, pv) ^ pv) | equal
            rise = mv | ~(xh | pv)
            fall = pv & xh
            shifted_up = (rise << ONE) | carry_up
            shifted_down = (fall << ONE) | carry_down
            carry_up = rise >> LAST
            carry_down = fall >> LAST
            up[w] = shifted_down | ~(xv | shifted_up)
            down[w] = shifted_up & xv
        score += np.int64((rise >> last_row) & ONE) - np.int64((fall >> last_row) & ONE)
    return int(score)


@njit(nogil=True)
def lay_lanes(sequence: Any) -> Any:
    """`LANE_CODES` of a target cut in LANES segments, side by side: shape (ceil(n / LANES), LANES)."""
    n = sequence.shape[0]
    length = (n + LANES - 1) // LANES
    out = np.full((length, LANES), 6, np.uint8)
    for lane in range(LANES):
        base = lane * length
        for i in range(min(length, max(n - base, 0))):
            out[i, lane] = LANE_CODES[sequence[base + i]]
    return out


@njit(nogil=True)
def fits_lanes(query: Any, lanes: Any) -> bool:
    """Whether `scan_lanes` may be used: only A C G T N in the query, and segments at least twice as long."""
    if lanes.shape[0] < 2 * query.shape[0]:
        return False
    other = 0
    for i in range(query.shape[0]):
        other += int(LANE_CODES[query[i]] > 4)
    return other == 0


@njit(nogil=True)
def _spread(codes: Any, shared: Any) -> None:
    """Fill blocks 0 to 2 of `shared` with the bits of each lane's code as whole words; clear the carries."""
    for lane in range(LANES):
        code = np.uint64(codes[lane])
        shared[lane] = FULL if code & ONE else ZERO
        shared[LANES + lane] = FULL if (code >> ONE) & ONE else ZERO
        shared[2 * LANES + lane] = FULL if code >> np.uint64(2) else ZERO
        shared[3 * LANES + lane] = ZERO
        shared[4 * LANES + lane] = ZERO


@njit(nogil=True)
def _lane_word(b0: Any, b1: Any, b2: Any, inside: Any, word: Any, shared: Any) -> None:
    """Update one word of every lane with its next base.

    Arrays are flat, in blocks of LANES at constant offsets: else the compiler can't prove that they don't
    overlap, and doesn't vectorise. `word`: up, down. `shared`: three bits of the base, the two carries, rise
    and fall.
    """
    for lane in range(LANES):
        unequal = (b0 ^ shared[lane]) | (b1 ^ shared[LANES + lane]) | (b2 ^ shared[2 * LANES + lane])
        equal = ~unequal & inside
        pv = word[lane]
        mv = word[LANES + lane]
        up_in = shared[3 * LANES + lane]
        down_in = shared[4 * LANES + lane]
        xv = equal | mv
        equal |= down_in
        xh = (_wrapping_add(equal & pv, pv) ^ pv) | equal
        rise = mv | ~(xh | pv)
        fall = pv & xh
        shifted_up = (rise << ONE) | up_in
        word[lane] = (fall << ONE) | down_in | ~(xv | shifted_up)
        word[LANES + lane] = shifted_up & xv
        shared[3 * LANES + lane] = rise >> LAST
        shared[4 * LANES + lane] = fall >> LAST
        shared[5 * LANES + lane] = rise
        shared[6 * LANES + lane] = fall


@njit(nogil=True)
def _lane_scores(shared: Any, last_row: Any, step: int, tally: Any) -> None:
    """Follow the score in the query's last row. `tally`: score, best, position of the best."""
    for lane in range(LANES):
        score = tally[lane] + np.int64((shared[5 * LANES + lane] >> last_row) & ONE)
        score -= np.int64((shared[6 * LANES + lane] >> last_row) & ONE)
        best = tally[LANES + lane]
        end = tally[2 * LANES + lane]
        tally[lane] = score
        tally[2 * LANES + lane] = step if score < best else end
        tally[LANES + lane] = score if score < best else best


@njit(nogil=True)
def _query_planes(query: Any) -> Any:
    """Per word of the query: three bit-planes of its `LANE_CODES`, and the bits that lie within the query."""
    m = query.shape[0]
    planes = np.zeros(((m + 63) // 64, 4), np.uint64)
    for i in range(m):
        bit = ONE << np.uint64(i & 63)
        code = LANE_CODES[query[i]]
        for b in range(3):
            if (code >> b) & 1:
                planes[i >> 6, b] |= bit
        planes[i >> 6, 3] |= bit
    return planes


@njit(nogil=True)
def scan_lanes(query: Any, lanes: Any) -> Any:
    """As `scan` of a whole target, walking LANES segments of it at once, which the compiler vectorises.

    A segment's first columns depend on the bases before it, but on no more than 2 m of them: an optimal
    alignment has at most m errors, so it spans at most 2 m bases. Each lane therefore first walks the last 2
    m bases of its left neighbour. Columns past the target's end match nothing, so they can't lower the score.

    Args:
        query: what `fits_lanes` accepts, not empty.
        lanes: `lay_lanes` of the target.
    """
    m = query.shape[0]
    length = lanes.shape[0]
    planes = _query_planes(query)
    words = planes.shape[0]
    # Loops, not slices: numba takes seconds to compile an assignment to a slice.
    state = np.zeros((words, 2 * LANES), np.uint64)
    for w in range(words):
        for lane in range(LANES):
            state[w, lane] = FULL
    shared = np.zeros(7 * LANES, np.uint64)
    tally = np.full(3 * LANES, m, np.int64)
    shifted = np.full(LANES, 6, np.uint8)
    last_row = np.uint64((m - 1) & 63)
    for step in range(-2 * m, length):
        if step < 0:
            # Lane 0 has no left neighbour, and starts afresh at step 0.
            for lane in range(1, LANES):
                shifted[lane] = lanes[length + step, lane - 1]
            _spread(shifted, shared)
        else:
            _spread(lanes[step], shared)
        if step == 0:
            for w in range(words):
                state[w, 0] = FULL
                state[w, LANES] = ZERO
            tally[0] = m
            for lane in range(LANES):
                tally[LANES + lane] = m
        for w in range(words):
            _lane_word(planes[w, 0], planes[w, 1], planes[w, 2], planes[w, 3], state[w], shared)
        _lane_scores(shared, last_row, step, tally)
    least = m
    first = -1
    for lane in range(LANES):
        if tally[LANES + lane] < least:
            least = tally[LANES + lane]
            first = lane * length + tally[2 * LANES + lane]
    return least, first
