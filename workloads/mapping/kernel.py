"""The mapper: a chunk of reads to placements. Compiled, for use in a kernel of chunks (`batch=True`)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from .choice import best_single, choose_pair, distinct, graded
from .lanes import M, S, align
from .pairs import ANCHORS, UNPAIRED, best_pair, rescue
from .places import (
    AT, CIGAR, COLUMNS, CONTIG, EDITS, GAPPED, HEAD, HIGH, LEFT, LONGEST, LOW, MOST_HITS, MOST_PLACES, OPS, READ, RIGHT,
    SCORE, SEEDS, STRAND, TAIL, all_hits, bucket_shift, candidates, certain, contig_of, lay_out,
)  # fmt: skip
from .places import BELOW, DIAGONAL_SHIFT, STRAND_SHIFT
from .seeds import NO_BASE, READ_CODES, K, minimizers, seed_scratch

BLOCK = 512
"""Reads that are worked on together: their tables stay near the processor."""

MOST_WRONG = 64
"""Letters that differ in an alignment without gaps, at most."""

GOOD = 6
"""Letters that differ in a placement whose gaps aren't looked for where no operations are asked for."""

PAIRED, PROPER, UNMAPPED, MATE_UNMAPPED, REVERSE, MATE_REVERSE, FIRST, LAST = 1, 2, 4, 8, 16, 32, 64, 128


class Settings(NamedTuple):
    """How to map.

    Attributes:
        paired: 1 if rows 2 i and 2 i + 1 are mates, else 0.
        cigar: 1 for operations; 0 for positions alone, which takes less time.
        least: score of a read that counts as mapped.
        low: distance of the outer ends of a proper pair's mates, at the least; see `insert_sizes`.
        high: at the most; 0: no pair is proper.
        mean: of these distances.
        deviation: of these distances.
    """

    paired: int = 0
    cigar: int = 1
    least: int = 25
    low: int = 0
    high: int = 0
    mean: float = 0.0
    deviation: float = 1.0


class Block(NamedTuple):
    """What is known of a block of reads, and scratch.

    Attributes:
        table: candidates of all its reads.
        ranges: (reads, 4): each read's rows, and those that a search beside its mate has found.
        facts: (reads, 3): minimizers that occur too often, all minimizers, a number from the letters.
        query: letters of a read in one direction, padded.
        hits: of a read.
        places: of a read's minimizers.
        seeds: scratch of `minimizers`.
        wrong: places of letters that differ.
        one: rows of a read.
        other: rows of its mate.
    """

    table: Any
    ranges: Any
    facts: Any
    query: Any
    hits: Any
    places: Any
    seeds: Any
    wrong: Any
    one: Any
    other: Any


@njit(nogil=True)
def new_block() -> Block:
    """Scratch for any block."""
    most = 1 + 3 * ANCHORS
    return Block(
        np.empty((BLOCK * (MOST_PLACES + most), COLUMNS), np.int64), np.zeros((BLOCK, 4), np.int64),
        np.zeros((BLOCK, 3), np.int64), np.zeros(LONGEST + 24, np.uint8), np.empty((LONGEST + 1) * MOST_HITS, np.int64),
        np.empty(LONGEST + 1, np.int64), seed_scratch(LONGEST), np.empty(MOST_WRONG + 9, np.int64),
        np.empty(MOST_PLACES + most, np.int64), np.empty(MOST_PLACES + most, np.int64),
    )  # fmt: skip


@njit(nogil=True)
def direct(codes: Any, first: int, length: int, reverse: int, query: Any) -> None:
    """A read's codes in the reference's direction."""
    if reverse:
        for i in range(length):
            code = np.int64(codes[first + length - 1 - i])
            query[i] = 3 - code if code < NO_BASE else code
    else:
        for i in range(length):
            query[i] = codes[first + i]


@njit(nogil=True)
def find_places(block: Block, read: int, row: int, codes: Any, starts: Any, index: Any, shift: int, words: Any) -> int:
    """A read's candidates, each with its best alignment without gaps; the row behind them."""
    first, length = starts[read], starts[read + 1] - starts[read]
    block.facts[read] = 0
    block.ranges[read] = row
    if length < K or length > LONGEST:
        return row
    table, query = block.table, block.query
    found = minimizers(codes, first, first + length, block.seeds, block.places)
    block.facts[read, 1] = found
    pairs_of_words = query.view(np.uint64)
    one, sure = certain(found, block.places, block.seeds, index, shift, length)
    if sure > 1:
        at = (one >> DIAGONAL_SHIFT & (1 << STRAND_SHIFT - DIAGONAL_SHIFT) - 1) - BELOW
        table[row, STRAND], table[row, AT], table[row, SEEDS], table[row, READ] = one >> STRAND_SHIFT, at, sure, read
        table[row, LOW], table[row, HIGH] = at, at
        table[row, CONTIG] = contig_of(index, at + (one & (1 << DIAGONAL_SHIFT) - 1))
        direct(codes, first, length, table[row, STRAND], query)
        lay_out(table[row], index, words, pairs_of_words, length, block.wrong)
        if table[row, HEAD] == 0 and table[row, TAIL] == 0 and table[row, EDITS] <= sure - 2 and table[row, SCORE] > 0:
            block.ranges[read, 1] = row + 1
            return row + 1
    count, block.facts[read, 0] = all_hits(found, block.places, block.seeds, index, shift, length, block.hits)
    mark = np.int64(0)
    for i in range(found):
        mark ^= np.int64(block.seeds[2, block.places[i]])
    block.facts[read, 2] = mark
    last = candidates(block.hits, count, index, table, row)
    laid = -1
    for strand in range(2):
        for candidate in range(row, last):
            if table[candidate, STRAND] == strand:
                if laid != strand:
                    laid = strand
                    direct(codes, first, length, strand, query)
                table[candidate, READ] = read
                lay_out(table[candidate], index, words, pairs_of_words, length, block.wrong)
    block.ranges[read, 1] = last
    return last


@njit(nogil=True)
def wanted(block: Block, first: int, last: int, settings: Settings, jobs: Any, count: int) -> int:
    """Add rows whose gaps are worth looking for to `jobs`: those with half the minimizers that the best has."""
    table, top = block.table, 0
    for row in range(first, last):
        top = max(top, table[row, SEEDS])
    for row in range(first, last):
        if not table[row, GAPPED] or 2 * table[row, SEEDS] < top:
            continue
        whole = table[row, SCORE] > 0 and table[row, HEAD] == 0 and table[row, TAIL] == 0
        if settings.cigar == 0 and whole and table[row, EDITS] <= GOOD:
            continue
        jobs[count] = row
        count += 1
    return count


@njit(nogil=True)
def search_mates(block: Block, read: int, row: int, codes: Any, starts: Any, index: Any, words: Any,
                 settings: Settings) -> int:
    """Candidates of two mates beside each other, if those there are make no good pair; the row behind them."""
    table, ranges = block.table, block.ranges
    ones = distinct(ranges, read, table, settings.least, block.one)
    others = distinct(ranges, read + 1, table, settings.least, block.other)
    best = np.zeros(2, np.int64)
    for i in range(ones):
        best[0] = max(best[0], table[block.one[i], SCORE])
    for i in range(others):
        best[1] = max(best[1], table[block.other[i], SCORE])
    top = best_pair(block.one, ones, block.other, others, table, settings, 0)[0]
    if settings.high == 0 or ones + others == 0 or top > best[0] + best[1] - UNPAIRED:
        return row
    for mate in range(2):
        me = read + 1 - mate  # who is searched for
        first, length = starts[me], starts[me + 1] - starts[me]
        ranges[me, 2] = row
        if K <= length <= LONGEST:
            rows, count = (block.other, others) if mate else (block.one, ones)
            tried = 0
            for i in range(count):
                anchor = table[rows[i]]
                if anchor[SCORE] < best[mate] - UNPAIRED or tried == ANCHORS:
                    continue
                tried += 1
                direct(codes, first, length, 1 - anchor[STRAND], block.query)
                row = rescue(anchor, me, index, words, block.query.view(np.uint64), length, settings, table, row,
                             block.wrong)
        ranges[me, 3] = row
    return row


@njit(nogil=True)
def write_read(out: Any, i: int, row: int, quality: int, second: int, table: Any, index: Any, flag: int) -> None:
    """A read's columns; row -1 if it isn't mapped."""
    if row < 0:
        out.flag[i], out.contig[i], out.position[i] = flag | UNMAPPED, -1, -1
        return
    place = table[row]
    out.flag[i] = flag | (REVERSE if place[STRAND] else 0)
    out.contig[i], out.position[i] = place[CONTIG], place[LEFT] - index.starts[place[CONTIG]]
    out.mapq[i], out.distance[i], out.score[i], out.second[i] = quality, place[EDITS], place[SCORE], second


@njit(nogil=True)
def write_ops(values: Any, used: int, row: int, table: Any, ops: Any) -> Any:
    """Append a placement's operations; all of them, and how many there are."""
    place = table[row]
    if used + place[OPS] + 3 > len(values):
        larger = np.empty(2 * len(values) + place[OPS] + 3, np.uint32)
        larger[:used] = values[:used]
        values = larger
    if place[HEAD]:
        values[used] = place[HEAD] << 4 | S
        used += 1
    if place[CIGAR] < 0:
        values[used] = (place[RIGHT] - place[LEFT]) << 4 | M
        used += 1
    for j in range(place[OPS] if place[CIGAR] >= 0 else 0):
        values[used] = ops[place[CIGAR] + j]
        used += 1
    if place[TAIL]:
        values[used] = place[TAIL] << 4 | S
        used += 1
    return values, used


@njit(nogil=True)
def write_mates(out: Any, i: int, a: int, b: int, table: Any) -> None:
    """What two mates say of each other: rows i and i + 1."""
    for me, mate in ((i, i + 1), (i + 1, i)):
        if out.flag[me] & UNMAPPED and not out.flag[mate] & UNMAPPED:
            out.contig[me], out.position[me] = out.contig[mate], out.position[mate]
    for me, mate in ((i, i + 1), (i + 1, i)):
        if out.flag[mate] & UNMAPPED:
            out.flag[me] |= MATE_UNMAPPED
        elif out.flag[mate] & REVERSE:
            out.flag[me] |= MATE_REVERSE
        out.mate_contig[me], out.mate_position[me] = out.contig[mate], out.position[mate]
    if a < 0 or b < 0 or table[a, CONTIG] != table[b, CONTIG]:
        return
    size = max(table[a, RIGHT], table[b, RIGHT]) - min(table[a, LEFT], table[b, LEFT])
    sign = 1 if table[a, LEFT] <= table[b, LEFT] else -1
    out.template[i], out.template[i + 1] = sign * size, -sign * size


class Columns(NamedTuple):
    """What `map_reads` gives for each read, without operations."""

    flag: Any
    contig: Any
    position: Any
    mapq: Any
    mate_contig: Any
    mate_position: Any
    template: Any
    distance: Any
    score: Any
    second: Any


@njit(nogil=True)
def _new_columns(count: int) -> Columns:
    return Columns(
        np.zeros(count, np.uint16), np.full(count, -1, np.int32), np.full(count, -1, np.int32), np.zeros(count, np.uint8),
        np.full(count, -1, np.int32), np.full(count, -1, np.int32), np.zeros(count, np.int32),
        np.zeros(count, np.int32), np.zeros(count, np.int32), np.zeros(count, np.int32),
    )  # fmt: skip


@njit(nogil=True)
def choose(block: Block, read: int, out: Any, i: int, index: Any, settings: Settings, chosen: Any) -> None:
    """The placements of a read, or of two mates, to rows i and i + 1."""
    table, facts = block.table, block.facts
    ones = distinct(block.ranges, read, table, settings.least, block.one)
    if settings.paired == 0:
        row, quality, second = best_single(block.one, ones, table, facts[read, 2]), 0, 0
        if row >= 0:
            quality, second = graded(row, block.one, ones, table, facts[read, 0], max(facts[read, 1], 1))
        write_read(out, i, row, quality, second, table, index, 0)
        chosen[0] = row
        return
    others = distinct(block.ranges, read + 1, table, settings.least, block.other)
    a, b, quality_a, quality_b, second_a, second_b, proper = choose_pair(
        block.one, ones, block.other, others, table, settings, facts[read : read + 2], facts[read, 2] ^ facts[read + 1, 2])
    both = PAIRED | (PROPER if proper else 0)
    write_read(out, i, a, quality_a, second_a, table, index, both | FIRST)
    write_read(out, i + 1, b, quality_b, second_b, table, index, both | LAST)
    write_mates(out, i, a, b, table)
    chosen[0], chosen[1] = a, b


@njit(nogil=True)
def map_reads(sequences: Any, index: Any, settings: Settings) -> Any:
    """Map the reads of a chunk; a read's or a pair's result depends on nothing else in the chunk.

    Args:
        sequences: offsets (reads + 1,) and uint8 letters, as a kernel of chunks gets text.
        index: `build_index(...).index`.
        settings: how.

    Returns:
        flag, contig, position, mapq, operations (offsets and values), mate_contig, mate_position, template_length,
        distance, score, second: see docs/guide/mapping.md.
    """
    offsets, letters = sequences
    count = len(offsets) - 1
    out, block = _new_columns(count), new_block()
    cuts, values, used = np.zeros(count + 1, np.int64), np.empty(2 * count + 16, np.uint32), 0
    jobs, ops = np.empty(len(block.table), np.int64), np.empty(1 << 14, np.uint32)
    words, shift = index.codes[: len(index.codes) // 8 * 8].view(np.uint64), bucket_shift(index)
    starts, chosen, step = np.empty(BLOCK + 1, np.int64), np.full(2, -1, np.int64), 2 if settings.paired else 1
    for first in range(0, count, BLOCK):
        reads = min(BLOCK, count - first)
        origin = np.int64(offsets[first])
        codes = READ_CODES[letters[origin : offsets[first + reads]]]
        row = wants = np.int64(0)
        for read in range(reads + 1):
            starts[read] = np.int64(offsets[first + read]) - origin
        for read in range(reads):
            last = find_places(block, read, row, codes, starts, index, shift, words)
            wants = wanted(block, row, last, settings, jobs, wants)
            row = last
        ops, used_ops = align(jobs[:wants], block.table, index, codes, starts, ops, 0)
        if settings.paired:
            wants = 0
            for read in range(0, reads - 1, 2):
                last = search_mates(block, read, row, codes, starts, index, words, settings)
                wants = wanted(block, row, last, settings, jobs, wants)
                row = last
            ops, used_ops = align(jobs[:wants], block.table, index, codes, starts, ops, used_ops)
        for read in range(0, reads - step + 1, step):
            choose(block, read, out, first + read, index, settings, chosen)
            for mate in range(step):
                if settings.cigar and chosen[mate] >= 0:
                    values, used = write_ops(values, used, chosen[mate], block.table, ops)
                cuts[first + read + mate + 1] = used
    return (out.flag, out.contig, out.position, out.mapq, (cuts, values[:used].copy()), out.mate_contig,
            out.mate_position, out.template, out.distance, out.score, out.second)
