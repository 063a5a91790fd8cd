"""Where a read may lie: from the places of its minimizers to candidates, each with its best alignment without gaps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from .index import PLACE_BITS
from .seeds import HASH_BITS, K

LONGEST = 1000
"""Letters of a read; longer ones aren't mapped."""

MATCH, MISMATCH, OPEN, EXTEND, END = 1, 4, 6, 1, 5
"""Scores as bwa mem's: a gap of g letters takes OPEN + g * EXTEND, a clipped end END."""

SPARE = 8
"""Letters at a read's ends that `gap_helps` leaves out: less isn't won by clipping them."""

MOST_HITS = 128
"""Places of a minimizer that are looked at; of one that has more none, unless all have more."""

MOST_COUNTED = 1024
"""Entries of a minimizer that are counted."""

FEW = 32
"""Entries of a bucket that are gone through one by one."""

MOST_PLACES = 64
"""Candidates of a read: those with the most minimizers."""

NEAR = 32
"""Diagonals less than so far apart belong to one candidate: its alignment may have gaps."""

MARGIN = 12
"""Diagonals on either side of a candidate's that an alignment with gaps may reach."""

FAR = 36
"""Diagonals of a candidate on either side of its main one."""

WIDEST = 2 * (FAR + MARGIN) + 1
"""Diagonals of an alignment with gaps."""

# Columns of a table of candidates, int64.
STRAND, AT, LOW, HIGH, SEEDS, CONTIG, GAPPED, SCORE = range(8)
LEFT, RIGHT, HEAD, TAIL, EDITS, CIGAR, OPS, READ = range(8, 16)
"""1 for the reverse complement; the main diagonal (place of the first letter), the least, the greatest;
minimizers; contig; 1 if an alignment with gaps may be better; score; place of the first aligned base and behind the
last one; letters clipped before and behind; edits; where operations begin (-1: no gap), how many; the read's number."""
COLUMNS = 16

DIAGONAL_SHIFT, STRAND_SHIFT, BELOW = 10, 43, LONGEST
"""Of a hit: its place in the read (10 bits), its diagonal plus BELOW, its strand."""


@njit(nogil=True)
def bucket_shift(starts: Any) -> Any:
    """Bits of a hash below those that choose a bucket."""
    shift, buckets = HASH_BITS, len(starts) - 1
    while buckets > 1:
        buckets >>= 1
        shift -= 1
    return shift


@njit(nogil=True)
def first_of(entries: Any, first: Any, last: Any, least: Any) -> Any:
    """The first of some entries that is no less than a value."""
    while first < last:
        middle = (first + last) >> 1
        if entries[middle] < least:
            first = middle + 1
        else:
            last = middle
    return first


@njit(nogil=True)
def look_up(found: Any, places: Any, scratch: Any, buckets: Any, entries: Any, shift: Any, spans: Any) -> None:
    """Where the entries of each of a read's minimizers begin (spans[0]) and end (spans[1]).

    In three passes, so that the processor waits for many places of memory at once, not for one after the other.
    """
    for i in range(found):
        bucket = np.int64(scratch[2, places[i]]) >> shift
        spans[0, i], spans[1, i] = buckets[bucket], buckets[bucket + 1]
    last = len(entries) - 1
    for i in range(found):
        spans[2, i] = entries[min(spans[0, i], last)]
    for i in range(found):
        word, first, last = np.int64(scratch[2, places[i]]), spans[0, i], spans[1, i]
        if last - first > FEW:
            first = first_of(entries, first, last, word << PLACE_BITS + 1)
            last = min(last, first + MOST_COUNTED)
        elif first < last and spans[2, i] >> PLACE_BITS + 1 < word:
            first += 1
            while first < last and entries[first] >> PLACE_BITS + 1 < word:
                first += 1
        end = first
        while end < last and entries[end] >> PLACE_BITS + 1 == word:
            end += 1
        spans[0, i], spans[1, i] = first, end


@njit(nogil=True)
def hit(entry: Any, place: Any, reverse: bool, length: Any) -> Any:
    """Strand, diagonal and place in the read (in the reference's direction), to be sorted."""
    there, strand = (entry & (1 << PLACE_BITS + 1) - 1) >> 1, entry & 1 ^ np.int64(reverse)
    own = length - K - place if strand else place
    return strand << STRAND_SHIFT | there - own + BELOW << DIAGONAL_SHIFT | own


@njit(nogil=True)
def words_differ(words: Any, query: Any, at: Any, i: Any, length: Any) -> Any:
    """A bit for each of 8 letters, from 8 * i on, that differ: the lowest of its byte."""
    from_word, shift = at + 8 * i >> 3, np.uint64((at & 7) << 3)
    there = words[from_word] >> shift | (words[from_word + 1] << np.uint64(1)) << (np.uint64(63) - shift)
    x = there ^ query[i]
    x = (x | x >> np.uint64(1) | x >> np.uint64(2)) & np.uint64(0x0101010101010101)
    if 8 * i + 8 > length:
        x &= (np.uint64(1) << np.uint64(8 * (length - 8 * i))) - np.uint64(1)
    return x


@njit(nogil=True)
def mismatches(words: Any, query: Any, at: Any, length: Any, most: Any, out: Any) -> Any:
    """How many letters differ, and where (ascending, in `out`); when more than `most`, some number above it.

    Args:
        words: the reference's codes, 8 in a word.
        query: the read's, likewise.
        at: place of the read's first letter in the reference; all places must be there.
        length: letters.
        most: at least 0.
        out: int64, shape (most + 9,).
    """
    count = 0
    for i in range((length + 7) >> 3):
        x = words_differ(words, query, at, i, length)
        if x:
            for byte in range(8):
                out[count] = 8 * i + byte
                bit: Any = np.int64(x >> np.uint64(8 * byte) & np.uint64(1))
                count += bit
            if count > most:
                return count
    return count


@njit(nogil=True)
def trim(wrong: Any, count: Any, length: Any) -> Any:
    """The best stretch of an alignment without gaps: score, first letter, behind the last one, edits in it."""
    start, first, score = 0, 0, END
    best, best_start, best_stop, best_edits = -1, 0, 0, 0
    edits = 0
    for i in range(count):
        score += wrong[i] - first
        if score > best:
            best, best_start, best_stop, best_edits = score, start, wrong[i], edits
        first = wrong[i] + 1
        score -= MISMATCH
        edits += 1
        if score <= 0:
            start, score, edits = first, 0, 0
    score += length - first + END
    if score >= best:
        best, best_start, best_stop, best_edits = score, start, length, edits
    best -= END * (int(best_start == 0) + int(best_stop == length))
    return best, best_start, best_stop, best_edits


@njit(nogil=True)
def contig_of(starts: Any, place: Any) -> Any:
    """The contig that a place is in."""
    low, high = 0, len(starts)
    while high - low > 1:
        middle = (low + high) >> 1
        if starts[middle] <= place:
            low = middle
        else:
            high = middle
    return low


@njit(nogil=True)
def gap_helps(codes: Any, query: Any, at: Any, length: Any, wrong: Any, count: Any) -> bool:
    """Whether an alignment of the whole read, with up to 4 letters that differ, may score more with a gap.

    One gap puts the first or the last x of these letters onto another diagonal, for what it takes (an insertion also
    the letters that it inserts); so few of the letters there may differ. Two gaps put letters in the middle there. What
    a clipped end could add is less than SPARE letters, which aren't looked at.
    """
    for x in range(2, count + 1):
        for kind in range(1, 3):  # letters that a gap of one takes: 1 for a deletion, 2 for an insertion
            gap = 1
            while (MATCH + MISMATCH) * x > OPEN + gap * kind:
                most = ((MATCH + MISMATCH) * x - OPEN - gap * kind - 1) // (MATCH + MISMATCH)
                shift = gap if kind == 1 else -gap
                within = gap * (kind - 1)  # letters that an insertion takes from those that are to be compared
                i, left = wrong[count - x] + within, most
                while i < length - SPARE and left >= 0:
                    left -= int(query[i] != codes[at + i + shift])
                    i += 1
                if left >= 0:
                    return True
                i, left = wrong[x - 1] - within, most
                while i >= SPARE and left >= 0:
                    left -= int(query[i] != codes[at + i - shift])
                    i -= 1
                if left >= 0:
                    return True
                gap += 1
    for shift in range(-2, 3):
        same = count == 4 and shift != 0
        i = wrong[0] + abs(shift)
        while same and i <= wrong[count - 1] - abs(shift):
            same = query[i] == codes[at + i + shift]
            i += 1
        if same:
            return True
    return False


@njit(nogil=True)
def lay_out(table: Any, row: Any, index: Any, words: Any, query: Any, eights: Any, length: Any, wrong: Any) -> None:
    """The best alignment without gaps on a candidate's main diagonal, and whether one with gaps may be better."""
    at, contig = table[row, AT], table[row, CONTIG]
    table[row, GAPPED], table[row, SCORE], table[row, CIGAR], table[row, OPS] = 1, 0, -1, 0
    table[row, LEFT], table[row, RIGHT], table[row, HEAD], table[row, TAIL], table[row, EDITS] = at, at, 0, 0, 0
    start = index.starts[contig]
    if at < start or at + length > start + index.lengths[contig]:
        return  # it hangs over an end
    most = len(wrong) - 9
    count = mismatches(words, eights, at, length, most, wrong)
    if count > most:
        return
    score, start, stop, edits = trim(wrong, count, length)
    table[row, SCORE], table[row, LEFT], table[row, RIGHT], table[row, EDITS] = score, at + start, at + stop, edits
    table[row, HEAD], table[row, TAIL] = start, length - stop
    # A gap takes at least 7, and a mismatch 5 of what the read could have.
    lone = table[row, LOW] == at == table[row, HIGH] and start == 0 and stop == length
    if lone and (count < 2 or (count <= 4 and not gap_helps(index.codes, query, at, length, wrong, count))):
        table[row, GAPPED] = 0


@njit(nogil=True)
def certain(found: Any, places: Any, scratch: Any, spans: Any, entries: Any, length: Any) -> Any:
    """The only place where a read can lie well, if minimizers that don't overlap say so: a hit, and how many there are.

    Each of them occurs once in the reference, all on one diagonal. Whatever else the read is laid on has an edit in
    each of them.
    """
    free, count, first = 0, 0, np.int64(-1)
    for i in range(found):
        place = places[i]
        if place < free or spans[1, i] - spans[0, i] != 1:
            continue
        one = hit(entries[spans[0, i]], place, scratch[0, place] > scratch[1, place], length)
        if count and one >> DIAGONAL_SHIFT != first >> DIAGONAL_SHIFT:
            return first, 0
        first = one
        count += 1
        free = place + K
    return first, count


@njit(nogil=True)
def all_hits(found: Any, places: Any, scratch: Any, spans: Any, entries: Any, length: Any, hits: Any) -> Any:
    """All places of the read's minimizers, sorted; how many, and how many minimizers have too many of them."""
    count, skipped, rarest = 0, 0, -1
    for i in range(found):
        place, start, end = places[i], spans[0, i], spans[1, i]
        if end - start > MOST_HITS:
            skipped += 1
            if rarest < 0 or end - start < spans[1, rarest] - spans[0, rarest]:
                rarest = i
            continue
        for j in range(start, end):
            hits[count] = hit(entries[j], place, scratch[0, place] > scratch[1, place], length)
            count += 1
    if 2 * skipped > found:  # most of the read is a repeat
        place, start = places[rarest], spans[0, rarest]
        for j in range(start, start + MOST_HITS):
            hits[count] = hit(entries[j], place, scratch[0, place] > scratch[1, place], length)
            count += 1
    ascend(hits, count)
    return count, skipped


@njit(nogil=True)
def ascend(values: Any, count: Any) -> None:
    """Sort the first ones."""
    if count > 64:
        values[:count].sort()
        return
    for i in range(1, count):
        value, j = values[i], i - 1
        while j >= 0 and values[j] > value:
            values[j + 1] = values[j]
            j -= 1
        values[j + 1] = value


@njit(nogil=True)
def diagonal(one: Any) -> Any:
    """A hit's diagonal: the place of the read's first letter."""
    return (one >> DIAGONAL_SHIFT & (1 << STRAND_SHIFT - DIAGONAL_SHIFT) - 1) - BELOW


@njit(nogil=True)
def enter(table: Any, row: Any, one: Any, seeds: Any, starts: Any) -> None:
    """A candidate on a hit's diagonal."""
    at = diagonal(one)
    table[row, STRAND], table[row, AT], table[row, SEEDS] = one >> STRAND_SHIFT, at, seeds
    table[row, LOW] = table[row, HIGH] = at
    table[row, CONTIG] = contig_of(starts, at + (one & (1 << DIAGONAL_SHIFT) - 1))


@njit(nogil=True)
def candidates(hits: Any, count: Any, starts: Any, table: Any, first: Any) -> Any:
    """Candidates from sorted hits: runs of diagonals near each other, those with the most hits; behind the last one."""
    row, top, i = first, 0, 0
    while i < count:
        end, run, most, main = i, 0, 0, i
        while end < count and (end == i or hits[end] - hits[end - 1] < NEAR << DIAGONAL_SHIFT):
            same = end > i and hits[end] >> DIAGONAL_SHIFT == hits[end - 1] >> DIAGONAL_SHIFT
            run = run + 1 if same else 1
            if run > most:
                most, main = run, end
            end += 1
        seeds, to = end - i, row
        top = max(top, seeds)
        if row - first == MOST_PLACES:
            to = first
            for other in range(first, row):
                if table[other, SEEDS] < table[to, SEEDS]:
                    to = other
        if 4 * seeds >= top and (to == row or table[to, SEEDS] < seeds):
            enter(table, to, hits[main], seeds, starts)
            table[to, LOW] = max(diagonal(hits[i]), table[to, AT] - FAR)
            table[to, HIGH] = min(diagonal(hits[end - 1]), table[to, AT] + FAR)
            row += int(to == row)
        i = end
    kept = first
    for i in range(first, row):
        if 4 * table[i, SEEDS] >= top:
            for column in range(COLUMNS):
                table[kept, column] = table[i, column]
            kept += 1
    return kept
