"""The mapper: a chunk of reads to placements. Compiled, for use in a kernel of chunks (`batch=True`)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from .choice import best_single, choose_pair, distinct, graded
from .lanes import M, S, align
from .pairs import ANCHORS, UNPAIRED, best_pair, rescue
from .places import (
    CIGAR,
    COLUMNS,
    CONTIG,
    EDITS,
    GAPPED,
    HEAD,
    LEFT,
    LONGEST,
    MOST_HITS,
    MOST_PLACES,
    OPS,
    READ,
    RIGHT,
    SCORE,
    SEEDS,
    STRAND,
    TAIL,
    all_hits,
    bucket_shift,
    candidates,
    certain,
    enter,
    lay_out,
    look_up,
)  # fmt: skip
from .seeds import NO_BASE, READ_CODES, K, minimizers, seed_scratch

BLOCK = 512
"""Reads that are worked on together: their tables stay near the processor."""

MOST_WRONG = 64
"""Letters that differ in an alignment without gaps, at most."""

GOOD = 6
"""Letters that differ in a placement whose gaps aren't looked for where no operations are asked for."""

# Columns of what is given, int32.
FLAG, PLACE, POSITION, MAPQ, MATE_PLACE, MATE_POSITION, TEMPLATE, DISTANCE, BEST, SECOND = range(10)

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
        spans: where a read's minimizers are in the index.
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
    spans: Any
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
        np.empty(LONGEST + 1, np.int64), seed_scratch(LONGEST), np.empty((3, LONGEST + 1), np.int64),
        np.empty(MOST_WRONG + 9, np.int64),
        np.empty(MOST_PLACES + most, np.int64), np.empty(MOST_PLACES + most, np.int64),
    )  # fmt: skip


@njit(nogil=True)
def direct(codes: Any, first: Any, length: Any, reverse: Any, query: Any) -> None:
    """A read's codes in the reference's direction."""
    if reverse:
        for i in range(length):
            code = np.int64(codes[first + length - 1 - i])
            query[i] = 3 - code if code < NO_BASE else code
    else:
        for i in range(length):
            query[i] = codes[first + i]


@njit(nogil=True)
def find_places(reads: Any, block: Block, codes: Any, starts: Any, index: Any, words: Any) -> Any:
    """Candidates of a block's reads, each with its best alignment without gaps; the row behind them."""
    # Taken out here once: inside the loop each use would count references.
    table, ranges, facts, query, wrong = block.table, block.ranges, block.facts, block.query, block.wrong
    places, seeds, spans, hits = block.places, block.seeds, block.spans, block.hits
    buckets, entries, contigs, shift = index.buckets, index.entries, index.starts, bucket_shift(index.buckets)
    eights, row = query.view(np.uint64), np.int64(0)
    for read in range(reads):
        first, length = starts[read], starts[read + 1] - starts[read]
        for i in range(4):
            ranges[read, i] = row
        facts[read, 0] = facts[read, 1] = facts[read, 2] = 0
        if length < K or length > LONGEST:
            continue
        found = minimizers(codes, first, first + length, seeds, places)
        facts[read, 1] = found
        look_up(found, places, seeds, buckets, entries, shift, spans)
        one, sure = certain(found, places, seeds, spans, entries, length)
        if sure > 1:
            enter(table, row, one, sure, contigs)
            table[row, READ] = read
            direct(codes, first, length, table[row, STRAND], query)
            lay_out(table, row, index, words, query, eights, length, wrong)
            whole = table[row, HEAD] == 0 and table[row, TAIL] == 0 and table[row, SCORE] > 0
            if whole and table[row, EDITS] <= sure - 2:
                row += 1
                ranges[read, 1] = row
                continue
        count, facts[read, 0] = all_hits(found, places, seeds, spans, entries, length, hits)
        mark = np.int64(0)
        for i in range(found):
            mark ^= np.int64(seeds[2, places[i]])
        facts[read, 2] = mark
        last = candidates(hits, count, contigs, table, row)
        for strand in range(2):
            laid = False
            for candidate in range(row, last):
                if table[candidate, STRAND] == strand:
                    if not laid:
                        laid = True
                        direct(codes, first, length, strand, query)
                    table[candidate, READ] = read
                    lay_out(table, candidate, index, words, query, eights, length, wrong)
        row = last
        ranges[read, 1] = row
    return row


@njit(nogil=True)
def wanted(ranges: Any, part: Any, reads: Any, table: Any, settings: Settings, jobs: Any) -> Any:
    """Rows whose gaps are worth looking for, in `jobs`: of each read those with half the minimizers of the best."""
    count = 0
    for read in range(reads):
        top = 0
        for row in range(ranges[read, part], ranges[read, part + 1]):
            top = max(top, table[row, SEEDS])
        for row in range(ranges[read, part], ranges[read, part + 1]):
            if not table[row, GAPPED] or 2 * table[row, SEEDS] < top:
                continue
            whole = table[row, SCORE] > 0 and table[row, HEAD] == 0 and table[row, TAIL] == 0
            if settings.cigar == 0 and whole and table[row, EDITS] <= GOOD:
                continue
            jobs[count] = row
            count += 1
    return count


@njit(nogil=True)
def search_mates(reads: Any, block: Block, row: Any, codes: Any, starts: Any, index: Any, words: Any,
                 settings: Settings) -> None:
    """Candidates of mates beside each other, where those there are make no good pair."""
    table, ranges, query, wrong, one, other = (
        block.table, block.ranges, block.query, block.wrong, block.one, block.other)
    eights, best, counts = query.view(np.uint64), np.zeros(2, np.int64), np.zeros(2, np.int64)
    for read in range(0, reads - 1, 2):
        counts[0] = distinct(ranges, read, table, settings.least, one)
        counts[1] = distinct(ranges, read + 1, table, settings.least, other)
        best[0], best[1] = highest(one, counts[0], table), highest(other, counts[1], table)
        top = best_pair(one, counts[0], other, counts[1], table, settings, best[0])[0]
        if counts[0] + counts[1] == 0 or top > best[0] + best[1] - UNPAIRED:
            continue
        for mate in range(2):
            me, tried = read + 1 - mate, 0  # who is searched for
            first, length = starts[me], starts[me + 1] - starts[me]
            ranges[me, 2] = row
            for i in range(counts[mate] if K <= length <= LONGEST else 0):
                anchor = other[i] if mate else one[i]
                if table[anchor, SCORE] < best[mate] - UNPAIRED or tried == ANCHORS:
                    continue
                tried += 1
                direct(codes, first, length, 1 - table[anchor, STRAND], query)
                row = rescue(anchor, me, index, words, query, eights, length, settings, table, row, wrong)
            ranges[me, 3] = row


@njit(nogil=True)
def highest(rows: Any, count: Any, table: Any) -> Any:
    """The best score of some rows."""
    top = np.int64(0)
    for i in range(count):
        top = max(top, table[rows[i], SCORE])
    return top


@njit(nogil=True)
def write_read(out: Any, i: Any, row: Any, quality: Any, second: Any, table: Any, contigs: Any, flag: Any) -> None:
    """A read's columns; row -1 if it isn't mapped."""
    if row < 0:
        out[i, FLAG], out[i, PLACE], out[i, POSITION] = flag | UNMAPPED, -1, -1
        return
    out[i, FLAG] = flag | (REVERSE if table[row, STRAND] else 0)
    out[i, PLACE], out[i, POSITION] = table[row, CONTIG], table[row, LEFT] - contigs[table[row, CONTIG]]
    out[i, MAPQ], out[i, DISTANCE], out[i, BEST], out[i, SECOND] = quality, table[row, EDITS], table[row, SCORE], second


@njit(nogil=True)
def write_ops(values: Any, used: Any, row: Any, table: Any, ops: Any) -> Any:
    """Append a placement's operations to an array that has room; how many it holds."""
    if table[row, HEAD]:
        values[used] = table[row, HEAD] << 4 | S
        used += 1
    if table[row, CIGAR] < 0:
        values[used] = (table[row, RIGHT] - table[row, LEFT]) << 4 | M
        used += 1
    else:
        for j in range(table[row, CIGAR], table[row, CIGAR] + table[row, OPS]):
            values[used] = ops[j]
            used += 1
    if table[row, TAIL]:
        values[used] = table[row, TAIL] << 4 | S
        used += 1
    return used


@njit(nogil=True)
def write_mates(out: Any, i: Any, a: Any, b: Any, table: Any) -> None:
    """What two mates say of each other: rows i and i + 1."""
    for me, mate in ((i, i + 1), (i + 1, i)):
        if out[me, FLAG] & UNMAPPED and not out[mate, FLAG] & UNMAPPED:
            out[me, PLACE], out[me, POSITION] = out[mate, PLACE], out[mate, POSITION]
    for me, mate in ((i, i + 1), (i + 1, i)):
        if out[mate, FLAG] & UNMAPPED:
            out[me, FLAG] |= MATE_UNMAPPED
        elif out[mate, FLAG] & REVERSE:
            out[me, FLAG] |= MATE_REVERSE
        out[me, MATE_PLACE], out[me, MATE_POSITION] = out[mate, PLACE], out[mate, POSITION]
    if a < 0 or b < 0 or table[a, CONTIG] != table[b, CONTIG]:
        return
    size = max(table[a, RIGHT], table[b, RIGHT]) - min(table[a, LEFT], table[b, LEFT])
    sign = 1 if table[a, LEFT] <= table[b, LEFT] else -1
    out[i, TEMPLATE], out[i + 1, TEMPLATE] = sign * size, -sign * size


@njit(nogil=True)
def choose(reads: Any, block: Block, out: Any, first: Any, contigs: Any, settings: Settings, chosen: Any) -> None:
    """The placements of a block's reads: their columns, from row `first` on; their rows of the table in `chosen`."""
    table, ranges, facts, one, other = block.table, block.ranges, block.facts, block.one, block.other
    if settings.paired == 0:
        for read in range(reads):
            count, quality, second = distinct(ranges, read, table, settings.least, one), 0, 0
            row = best_single(one, count, table, facts[read, 2])
            if row >= 0:
                quality, second = graded(row, one, count, table, facts[read, 0], max(facts[read, 1], 1))
            write_read(out, first + read, row, quality, second, table, contigs, 0)
            chosen[read] = row
        return
    for read in range(0, reads - 1, 2):
        i, ones = first + read, distinct(ranges, read, table, settings.least, one)
        others = distinct(ranges, read + 1, table, settings.least, other)
        a, b, quality_a, quality_b, second_a, second_b, proper = choose_pair(
            one, ones, other, others, table, settings, facts, read, facts[read, 2] ^ facts[read + 1, 2])
        both = PAIRED | (PROPER if proper else 0)
        write_read(out, i, a, quality_a, second_a, table, contigs, both | FIRST)
        write_read(out, i + 1, b, quality_b, second_b, table, contigs, both | LAST)
        write_mates(out, i, a, b, table)
        chosen[read], chosen[read + 1] = a, b


@njit(nogil=True)
def map_reads(sequences: Any, index: Any, settings: Settings) -> Any:
    """Map the reads of a chunk; a read's or a pair's result depends on nothing else in the chunk.

    Args:
        sequences: offsets (reads + 1,) and uint8 letters, as a kernel of chunks gets text.
        index: `build_index(...).arrays`.
        settings: how.

    Returns:
        flag, contig, position, mapq, operations (offsets and values), mate_contig, mate_position, template_length,
        distance, score, second: see docs/guide/mapping.md.

    Raises:
        ValueError: an odd number of reads that should be pairs.
    """
    offsets, letters = sequences
    count = len(offsets) - 1
    if settings.paired and count % 2:
        raise ValueError("an odd number of reads can't be pairs")
    out, block = np.zeros((count, SECOND + 1), np.int32), new_block()
    out[:, MATE_PLACE] = out[:, MATE_POSITION] = -1
    cuts, values, used = np.zeros(count + 1, np.int64), np.empty(2 * count + 16, np.uint32), np.int64(0)
    jobs, ops, none = np.empty(len(block.table), np.int64), np.empty(1 << 14, np.uint32), np.int64(0)
    words = index.codes[: len(index.codes) // 8 * 8].view(np.uint64)
    starts, chosen = np.empty(BLOCK + 1, np.int64), np.empty(BLOCK, np.int64)
    for first in range(0, count, BLOCK):
        reads = min(BLOCK, count - first)
        origin = np.int64(offsets[first])
        codes = READ_CODES[letters[origin : offsets[first + reads]]]
        for read in range(reads + 1):
            starts[read] = np.int64(offsets[first + read]) - origin
        chosen[:] = -1
        rows = find_places(reads, block, codes, starts, index, words)
        wants = wanted(block.ranges, 0, reads, block.table, settings, jobs)
        ops, used_ops = align(jobs[:wants], block.table, index, codes, starts, ops, none)
        if settings.paired and settings.high > 0:
            search_mates(reads, block, rows, codes, starts, index, words, settings)
            wants = wanted(block.ranges, 2, reads, block.table, settings, jobs)
            ops, used_ops = align(jobs[:wants], block.table, index, codes, starts, ops, used_ops)
        choose(reads, block, out, first, index.starts, settings, chosen)
        if used + used_ops + 3 * reads > len(values):
            values = np.concatenate((values[:used], np.empty(len(values) + used_ops + 3 * reads, np.uint32)))
        for read in range(reads):
            if settings.cigar and chosen[read] >= 0:
                used = write_ops(values, used, chosen[read], block.table, ops)
            cuts[first + read + 1] = used
    columns = out.T.copy()
    return (columns[FLAG].astype(np.uint16), columns[PLACE], columns[POSITION], columns[MAPQ].astype(np.uint8),
            (cuts, values[:used].copy()), columns[MATE_PLACE], columns[MATE_POSITION], columns[TEMPLATE],
            columns[DISTANCE], columns[BEST], columns[SECOND])
