"""Alignments with gaps of many candidates at once, one a lane: local, affine, in a band.

Every lane has a read and the bases around its candidate's diagonals. Row by row of the read all lanes do the same step
on one diagonal after the other (Gotoh 1982 in a band; a pair a lane as Rognes 2011). All scores are kept, and the way
back is found from them: so nothing but scores is computed for the cells that no alignment goes through. An alignment
that reaches the read's end gets a bonus there, which is bwa mem's penalty for clipping (Li 2013).

A base outside the contig takes more than any alignment has; together with what lies between contigs (index.GAP, more
than twice the diagonals of a band) no alignment goes from one to the next.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gridcompute.vectors import i16x32

from .places import (
    AT,
    CIGAR,
    CONTIG,
    EDITS,
    END,
    EXTEND,
    HEAD,
    HIGH,
    LEFT,
    LOW,
    MARGIN,
    MATCH,
    MISMATCH,
    OPEN,
    OPS,
    READ,
    RIGHT,
    SCORE,
    STRAND,
    TAIL,
    WIDEST,
)  # fmt: skip
from .seeds import NO_BASE, SEPARATOR

LANES = 32
NEVER = -10_000
"""Less than any score, and far from what two bytes hold."""

OUTSIDE = -3_000
PAST_END = 7
"""Code behind a read's end."""

M, I, D, S = 0, 1, 2, 4  # noqa: E741 - as BAM numbers them


@njit(nogil=True)
def fill(query: Any, target: Any, rows: Any, width: Any, scores: Any, gaps: Any, best: Any) -> None:
    """Scores of all cells.

    Args:
        query: int16 codes, lane beside lane, shape (rows * LANES,).
        target: likewise, shape ((rows + width) * LANES,); row i meets position i + b on diagonal b.
        rows: of the longest read.
        width: diagonals.
        scores: out, shape ((rows + 1) * (width + 1) * LANES,); row i at i + 1, a column of NEVER behind each.
        gaps: scratch, shape ((width + 1) * LANES,).
        best: out, shape (rows * LANES,): the greatest of each row.
    """
    zero, match, mismatch = i16x32.splat(0), i16x32.splat(MATCH), i16x32.splat(-MISMATCH)
    opened, more, never = i16x32.splat(OPEN + EXTEND), i16x32.splat(EXTEND), i16x32.splat(NEVER)
    outside, separator, start = i16x32.splat(OUTSIDE), i16x32.splat(SEPARATOR), i16x32.splat(END)
    step = (width + 1) * LANES
    for b in range(0, width * LANES, LANES):
        start.store(scores, b)
        never.store(gaps, b)
    never.store(scores, width * LANES)
    never.store(gaps, width * LANES)
    for row in range(rows):
        letter = i16x32.load(query, row * LANES)
        above, here, there = row * step, (row + 1) * step, row * LANES
        corner, across, top = i16x32.load(scores, above), never, zero
        for b in range(0, width * LANES, LANES):
            base, next_corner = i16x32.load(target, there + b), i16x32.load(scores, above + b + LANES)
            down = (i16x32.load(gaps, b + LANES) - more).max(next_corner - opened)
            gain = (base == separator).select(outside, (base == letter).select(match, mismatch))
            score = (corner + gain).max(zero).max(down).max(across)
            down.store(gaps, b)
            score.store(scores, here + b)
            across = (across - more).max(score - opened)
            top = top.max(score)
            corner = next_corner
        never.store(scores, here + width * LANES)
        top.store(best, row * LANES)


@njit(nogil=True)
def lane_end(scores: Any, best: Any, lane: Any, length: Any, width: Any, middle: Any) -> Any:
    """Row and diagonal of a lane's last cell, and its score: at the read's end if none is better by more than END."""
    row, top = length - 1, np.int64(best[(length - 1) * LANES + lane]) + END
    for i in range(length):
        if best[i * LANES + lane] > top:
            row, top = i, np.int64(best[i * LANES + lane])
    score = np.int64(best[row * LANES + lane])
    b, first = -1, (row + 1) * (width + 1) * LANES + lane
    for i in range(width):
        if scores[first + i * LANES] == score and (b < 0 or abs(i - middle) < abs(b - middle)):
            b = i
    return row, b, score


@njit(nogil=True)
def way_back(query: Any, target: Any, scores: Any, width: Any, lane: Any, row: Any, b: Any, score: Any, ops: Any,
             at: Any) -> Any:
    """The alignment that ends in a cell: its first row, that row's diagonal, edits, and how many operations.

    Those are in `ops` from `at` on, as BAM has them.
    """
    step = (width + 1) * LANES
    count, edits, run = 0, np.int64(0), 0
    while True:
        here = (row + 1) * step + b * LANES + lane
        before = np.int64(scores[here - step])
        base = target[(row + b) * LANES + lane]
        same = base == query[row * LANES + lane]
        if base != SEPARATOR and score == before + (MATCH if same else -MISMATCH):
            run += 1
            edits += np.int64(not same)
            if row == 0 or before == 0:
                break
            row -= 1
            score = before
            continue
        gap, op = 1, D
        while True:
            need = score + OPEN + gap * EXTEND
            if b >= gap and scores[here - gap * LANES] == need:
                break
            if row >= gap and b + gap < width and scores[here - gap * (step - LANES)] == need:
                op = I
                break
            gap += 1
        ops[at + count], ops[at + count + 1] = run << 4 | M, gap << 4 | op
        count, run, edits, score = count + 2, 0, edits + gap, need
        if op == D:
            b -= gap
        else:
            row, b = row - gap, b + gap
    ops[at + count] = run << 4 | M
    count += 1
    for i in range(count // 2):
        ops[at + i], ops[at + count - 1 - i] = ops[at + count - 1 - i], ops[at + i]
    return row, b, edits, count


@njit(nogil=True)
def band_of(row: Any) -> Any:
    """Diagonals of a candidate's alignment: one of two widths, so that it depends on nothing else."""
    near = row[AT] - row[LOW] <= MARGIN // 2 and row[HIGH] - row[AT] <= MARGIN // 2
    return 2 * MARGIN + 1 if near else WIDEST


@njit(nogil=True)
def _laid(group: Any, table: Any, index: Any, codes: Any, starts: Any, rows: Any, width: Any, query: Any,
          target: Any) -> None:
    """Lay the reads of a group and the bases beside them in lanes."""
    for lane in range(LANES):
        row = table[group[min(lane, len(group) - 1)]]
        first, length = starts[row[READ]], starts[row[READ] + 1] - starts[row[READ]]
        if row[STRAND]:
            for i in range(length):
                code = np.int64(codes[first + length - 1 - i])
                query[i * LANES + lane] = 3 - code if code < NO_BASE else code
        else:
            for i in range(length):
                query[i * LANES + lane] = codes[first + i]
        for i in range(length, rows):
            query[i * LANES + lane] = PAST_END
        origin = row[AT] - width // 2
        low, high = index.starts[row[CONTIG]], index.starts[row[CONTIG]] + index.lengths[row[CONTIG]]
        for i in range(rows + width):
            inside = low <= origin + i < high
            target[i * LANES + lane] = index.codes[origin + i] if inside else SEPARATOR


@njit(nogil=True)
def align(jobs: Any, table: Any, index: Any, codes: Any, starts: Any, ops: Any, used: Any) -> Any:
    """Align candidates with gaps, each in a lane; a row of the table is changed where that scores more than without.

    Args:
        jobs: int64 rows of the table.
        table: candidates.
        index: of the reference.
        codes: of the block's reads.
        starts: int64, where each read's codes begin, and the last one's end.
        ops: operations of all alignments with gaps, uint32.
        used: how many of them there are.

    Returns:
        `ops`, or a larger copy, and how many there are now.
    """
    keys = np.empty(len(jobs), np.int64)
    rows = width = 1
    for i in range(len(jobs)):
        length, band = starts[table[jobs[i], READ] + 1] - starts[table[jobs[i], READ]], band_of(table[jobs[i]])
        keys[i] = (band << 10 | length) << 32 | i
        rows, width = max(rows, length), max(width, band)
    keys.sort()
    query, target = np.empty(rows * LANES, np.int16), np.empty((rows + width) * LANES, np.int16)
    scores, gaps = np.empty((rows + 1) * (width + 1) * LANES, np.int16), np.empty((width + 1) * LANES, np.int16)
    best, group = np.empty(rows * LANES, np.int16), np.empty(LANES, np.int64)
    first = 0
    while first < len(jobs):
        lanes, rows, width = 0, 1, keys[first] >> 42
        while lanes < LANES and first + lanes < len(jobs) and keys[first + lanes] >> 42 == width:
            key = keys[first + lanes]
            group[lanes] = jobs[key & 0xFFFFFFFF]
            rows = max(rows, key >> 32 & 1023)
            lanes += 1
        first += lanes
        _laid(group[:lanes], table, index, codes, starts, rows, width, query, target)
        fill(query, target, rows, width, scores, gaps, best)
        if used + lanes * (rows + 2) > len(ops):
            larger = np.empty(2 * len(ops) + lanes * (rows + 2), np.uint32)
            larger[:used] = ops[:used]
            ops = larger
        for lane in range(lanes):
            row = table[group[lane]]
            length = starts[row[READ] + 1] - starts[row[READ]]
            last, b, score = lane_end(scores, best, lane, length, width, width // 2)
            if score <= 0:
                continue
            start, b_start, edits, count = way_back(query, target, scores, width, lane, last, b, score, ops, used)
            score -= END if start == 0 else 0
            whole = END * (np.int64(start == 0) + np.int64(last == length - 1))
            before = END * (np.int64(row[HEAD] == 0) + np.int64(row[TAIL] == 0))
            if row[SCORE] > 0 and score + whole <= row[SCORE] + before:
                continue
            origin = row[AT] - width // 2
            row[SCORE], row[EDITS], row[HEAD], row[TAIL] = score, edits, start, length - 1 - last
            row[LEFT], row[RIGHT] = origin + start + b_start, origin + last + b + 1
            row[CIGAR], row[OPS] = (used, count) if count > 1 else (-1, 0)
            used += count
    return ops, used
