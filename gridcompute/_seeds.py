"""Exact search for a read in an indexed reference: seeds find candidate windows, bit-vectors verify them.

Cut a query into e + j pieces: an alignment with at most e errors leaves at least j of them intact, and since
it has at most e insertions and deletions, the diagonals (place in the target minus place in the query) of
those j differ by at most e. So every alignment with at most e errors lies in a window about j hits within e
diagonals of each other. If the best distance found in these windows is at most e, nothing better exists
elsewhere, and no earlier end of an equally good alignment either. Otherwise e is raised, until a scan of the
whole target is the cheaper way.

Sources: the pigeonhole filter of Wu and Manber (1992), Comm. ACM 35, 83-91; several hits as Navarro (2001),
ACM Computing Surveys 33, 31-88.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from gridcompute._myers import UPPER, fits_lanes, lay_lanes, patterns, scan, scan_lanes
from gridcompute.errors import ParameterError

LONGEST_WORD = 12

CODES = np.zeros(256, np.uint8)
"""2-bit base codes; any other byte counts as A here, and is told apart when a window is verified."""
for _code, _letter in enumerate(b"ACGT"):
    CODES[_letter] = CODES[_letter + 32] = _code


class ReferenceIndex(NamedTuple):
    """A target's bases and where each word of k bases occurs; arrays only, to be shared read-only.

    Attributes:
        sequence: upper-case uint8 letters, shape (n,).
        offsets: int32, shape (4**k + 1,): positions[offsets[w]:offsets[w + 1]] are the places of word w (two
            bits per base, first base highest), so a shorter word's places are one range as well.
        positions: int32, shape (n,): starts of all words, ascending within a word. Past the end counts as A.
        lanes: `sequence` in 3-bit codes, cut in segments side by side.
    """

    sequence: Any
    offsets: Any
    positions: Any
    lanes: Any


@njit(nogil=True)
def _place_words(sequence: Any, k: int) -> Any:
    """Offsets and positions of all words of k bases, by a counting sort."""
    n = sequence.shape[0]
    mask = (1 << (2 * k)) - 1
    counts = np.zeros(mask + 2, np.int32)
    word: Any = 0
    for i in range(n + k - 1):
        word = ((word << 2) | (np.int64(CODES[sequence[i]]) if i < n else 0)) & mask
        if i >= k - 1:
            counts[word + 1] += 1
    for w in range(mask + 1):
        counts[w + 1] += counts[w]
    free = counts[:-1].copy()
    positions = np.empty(n, np.int32)
    word = 0
    for i in range(n + k - 1):
        word = ((word << 2) | (np.int64(CODES[sequence[i]]) if i < n else 0)) & mask
        if i >= k - 1:
            positions[free[word]] = i - k + 1
            free[word] += 1
    return counts, positions


def build_index(target: Any) -> ReferenceIndex:
    """Index a target for `locate`.

    Args:
        target: uint8 letters, shape (n,); upper or lower case, N and any other byte allowed.

    Returns:
        About 6 n bytes and 4 (4**k) bytes, with k near log4(n) and at most 12: 48 MB for a bacterial genome.

    Raises:
        ParameterError: not one-dimensional uint8, or 2^31 bases and more.
    """
    letters = np.asarray(target)
    if letters.dtype != np.uint8 or letters.ndim != 1:
        got = f"{letters.dtype} of shape {letters.shape}"
        raise ParameterError(f"target must be one-dimensional uint8 letters, got {got}")
    if letters.size >= 2**31 - LONGEST_WORD:
        raise ParameterError(f"target has {letters.size} bases, the limit is 2^31", hint="split it")
    sequence = UPPER[letters]
    k = 1
    while k < LONGEST_WORD and 4 ** (k + 1) <= letters.size:
        k += 1
    offsets, positions = _place_words(sequence, k)
    return ReferenceIndex(sequence, offsets, positions, lay_lanes(sequence))


@njit(nogil=True)
def choose_pieces(m: int, n: int, k: int, budget: float, proven: int) -> Any:
    """Errors e and hits j to search for: the largest e above `proven` expected to cost at most `budget` word
    steps.

    Expectations are for random sequences. They decide how fast an answer is found, never which. (-1, 0) if
    none fits.
    """
    words = (m + 63) // 64
    errors = -1
    hits = 0
    for length in range(4, k + 4):
        for j in range(1, 5):
            e = m // length - j
            if e <= proven or e <= errors:
                continue
            found = (e + j) * (float(n) / 4.0 ** min(length, k) * (0.25 if length > k else 1.0))
            together = found
            for _ in range(1, j):
                together *= found * (e + 1) / n
            if 8.0 * found + 8.0 * (e + j) + (together + 1.0) * (m + 2 * e) * words <= budget:
                errors = e
                hits = j
    return errors, hits


@njit(nogil=True)
def _word_range(query: Any, start: int, stop: int, k: int, offsets: Any) -> Any:
    """Where the places of query[start:stop] (its first k bases, if longer) lie in the index."""
    length = min(stop - start, k)
    word: Any = 0
    for i in range(start, start + length):
        word = (word << 2) | np.int64(CODES[query[i]])
    spare = 2 * (k - length)
    return np.int64(offsets[word << spare]), np.int64(offsets[(word + 1) << spare])


@njit(nogil=True)
def diagonals(query: Any, index: Any, k: int, pieces: int, most: int) -> Any:
    """Sorted diagonals at which a piece of the query occurs (and some at which it doesn't), and whether all
    are there.

    With more than `most` of them, the list is empty.
    """
    m = query.shape[0]
    n = index.sequence.shape[0]
    ranges = np.empty((pieces, 2), np.int64)
    total = 0
    for piece in range(pieces):
        first, last = _word_range(query, piece * m // pieces, (piece + 1) * m // pieces, k, index.offsets)
        ranges[piece, 0] = first
        ranges[piece, 1] = last
        total += last - first
    found = np.empty(total if total <= most else 0, np.int64)
    if total > most:
        return found, False
    count = 0
    for piece in range(pieces):
        start = piece * m // pieces
        length = (piece + 1) * m // pieces - start
        for r in range(ranges[piece, 0], ranges[piece, 1]):
            place = np.int64(index.positions[r])
            same = length <= k or place + length <= n
            if same:
                for i in range(k, length):
                    if index.sequence[place + i] != query[start + i]:
                        same = False
                        break
            if same:
                found[count] = place - start
                count += 1
    found = found[:count]
    found.sort()
    return found, True


@njit(nogil=True)
def search_windows(query: Any, rows: Any, match: Any, index: Any, found: Any, errors: int, hits: int) -> Any:
    """Least distance and its first end in the windows about `hits` diagonals within `errors`: see the module.

    Returns:
        (errors + 1, -1) unless a distance of at most `errors` is found; what is found is exact.
    """
    m = query.shape[0]
    n = index.sequence.shape[0]
    up = np.empty(match.shape[1], np.uint64)
    down = np.empty(match.shape[1], np.uint64)
    best = errors + 1
    end = -1
    start = 0
    stop = -1
    for i in range(found.shape[0] - hits + 1):
        far = found[i + hits - 1]
        if far - found[i] > errors:
            continue
        left = max(found[i] - errors, 0)
        right = min(far + m + errors, n)
        if left > stop:
            if stop > start:
                best, here = scan(rows, match, m, index.sequence, start, stop, best, up, down)
                end = here if here >= 0 else end
            start = left
        stop = max(stop, right)
    if stop > start:
        best, here = scan(rows, match, m, index.sequence, start, stop, best, up, down)
        end = here if here >= 0 else end
    return best, end


@njit(nogil=True)
def search_whole(query: Any, rows: Any, match: Any, index: Any) -> Any:
    """Least distance and its first end in the whole target."""
    if fits_lanes(query, index.lanes):
        return scan_lanes(query, index.lanes)
    up = np.empty(match.shape[1], np.uint64)
    down = np.empty(match.shape[1], np.uint64)
    m = query.shape[0]
    return scan(rows, match, m, index.sequence, 0, index.sequence.shape[0], m, up, down)


@njit(nogil=True)
def locate_strands(forward: Any, backward: Any, index: Any) -> Any:
    """Least distance, first end and strand of a query (upper case, not empty) and its reverse complement."""
    m = forward.shape[0]
    n = index.sequence.shape[0]
    k = 0
    while (1 << (2 * (k + 1))) < index.offsets.shape[0]:
        k += 1
    rows, match = patterns(forward)
    back_rows, back_match = patterns(backward)
    whole = float(n) * ((m + 63) // 64) / 4.0
    proven = -1
    budget = whole / 4096.0
    while budget < whole:
        errors, hits = choose_pieces(m, n, k, budget, proven)
        budget *= 8.0
        if errors < 0:
            continue
        most = int(whole / 8.0)
        found, complete = diagonals(forward, index, k, errors + hits, most)
        if not complete:
            break
        best, end = search_windows(forward, rows, match, index, found, errors, hits)
        found, complete = diagonals(backward, index, k, errors + hits, most)
        if not complete:
            break
        back_best, back_end = search_windows(backward, back_rows, back_match, index, found, errors, hits)
        if min(best, back_best) <= errors:
            return (best, end, 1) if best <= back_best else (back_best, back_end, -1)
        proven = errors
    best, end = search_whole(forward, rows, match, index)
    back_best, back_end = search_whole(backward, back_rows, back_match, index)
    return (best, end, 1) if best <= back_best else (back_best, back_end, -1)
