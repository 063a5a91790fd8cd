"""Edit distance of DNA sequences, for use inside kernels.

Sequences are one-dimensional uint8 arrays of ASCII letters, such as a cell of a FASTA or FASTQ column. The
distance counts substitutions, insertions and deletions. Letters are compared literally after upper-casing, as
edlib compares upper-cased input: N equals N and nothing else. Compiled functions (all but `build_index` and
`simulate_reads`) release the GIL and give the same integers under NUMBA_DISABLE_JIT=1.

Ends are 0-based and inclusive, the first of several equally good ones. The end is -1 if no base of the target
helps, that is if the distance equals the query's length: so too for an empty query (distance 0) or target.
Results equal edlib's (mode HW, `locations[0][1]`) but for one case: for such a hopeless query whose length is
a multiple of 64, edlib says 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gridcompute._myers import global_distance, patterns, scan, upper
from gridcompute._reads import COMPLEMENT, SimulatedReads, simulate_pairs, simulate_reads
from gridcompute._seeds import ReferenceIndex, build_index, locate_strands

__all__ = [
    "ReferenceIndex",
    "SimulatedReads",
    "best_semiglobal",
    "best_semiglobal_both",
    "build_index",
    "edit_distance",
    "locate",
    "reverse_complement",
    "simulate_pairs",
    "simulate_reads",
]


@njit(nogil=True)
def reverse_complement(sequence: Any) -> Any:
    """The other strand, read in its own direction, as a new uint8 array.

    IUPAC codes are complemented (N stays N) and keep their case, U counts as T; other bytes stay as they are.

    Args:
        sequence: uint8 letters, shape (n,).
    """
    n = sequence.shape[0]
    out = np.empty(n, np.uint8)
    for i in range(n):
        out[n - 1 - i] = COMPLEMENT[sequence[i]]
    return out


@njit(nogil=True)
def edit_distance(query: Any, target: Any) -> int:
    """Edit distance of two whole sequences (edlib's mode NW). Time: len(target) * ceil(len(query) / 64).

    Args:
        query: uint8 letters, shape (m,).
        target: uint8 letters, shape (n,).
    """
    if query.shape[0] == 0:
        return int(target.shape[0])
    return global_distance(query, target)


@njit(nogil=True)
def best_semiglobal(query: Any, target: Any) -> Any:
    """Least edit distance between the whole query and any stretch of the target (edlib's mode HW).

    Args:
        query: uint8 letters, shape (m,).
        target: uint8 letters, shape (n,).

    Returns:
        The distance, and the first position in the target where such a stretch ends.

    Time: len(target) * ceil(len(query) / 64); `locate` is the fast way for many queries and one target.
    """
    m = query.shape[0]
    if m == 0:
        return 0, -1
    rows, match = patterns(query)
    up = np.empty(match.shape[1], np.uint64)
    down = np.empty(match.shape[1], np.uint64)
    distance, end = scan(rows, match, m, target, 0, target.shape[0], m, up, down)
    return distance, end


@njit(nogil=True)
def best_semiglobal_both(query: Any, target: Any) -> Any:
    """As `best_semiglobal` for the query and its reverse complement; the forward strand wins a tie.

    Args:
        query: uint8 letters, shape (m,).
        target: uint8 letters, shape (n,).

    Returns:
        The distance; its first end in the target, in the target's direction; and the strand, +1 or -1.
    """
    distance, end = best_semiglobal(query, target)
    back_distance, back_end = best_semiglobal(reverse_complement(query), target)
    if back_distance < distance:
        return back_distance, back_end, -1
    return distance, end, 1


@njit(nogil=True)
def locate(query: Any, index: ReferenceIndex) -> Any:
    """What `best_semiglobal_both` finds, by way of an index of the target: exact, and usually a thousand
    times faster.

    Args:
        query: uint8 letters, shape (m,).
        index: `build_index` of the target.

    Returns:
        The distance; its first end in the target, in the target's direction; and the strand, +1 or -1.

    A query that resembles nothing in the target costs a scan of both strands, vectorised.
    """
    m = query.shape[0]
    if m == 0 or index.sequence.shape[0] == 0:
        return m, -1, 1
    forward = upper(query)
    return locate_strands(forward, reverse_complement(forward), index)
