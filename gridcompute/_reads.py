"""Simulated reads: slices of a reference with errors, of either strand, deterministic from the seed alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from gridcompute._myers import ONE, UPPER, ZERO
from gridcompute.errors import ParameterError

BASES = np.frombuffer(b"ACGT", np.uint8)

COMPLEMENT = np.arange(256, dtype=np.uint8)
"""Complement of every byte: IUPAC codes keep their case, U counts as T, anything else is its own."""
for _letters in (b"AT", b"CG", b"RY", b"KM", b"BV", b"DH"):
    for _a, _b in (_letters, _letters[::-1], _letters.lower(), _letters[::-1].lower()):
        COMPLEMENT[_a] = _b
COMPLEMENT[ord("U")] = ord("A")
COMPLEMENT[ord("u")] = ord("a")

_HIGH = np.uint64(32)
_THIRD = np.uint64(3)


class SimulatedReads(NamedTuple):
    """Reads in list layout, and the truth about each.

    Attributes:
        offsets: shape (n + 1,) int64; read i is values[offsets[i]:offsets[i + 1]].
        values: uint8 letters of all reads.
        position: int64, 0-based start on the reference's forward strand.
        end: int64, last base of the reference (inclusive) that the read was copied from.
        strand: int8, +1 forward or -1 (the read is the reverse complement).
        errors: int64, errors put in; no fewer than the read's edit distance there.
    """

    offsets: Any
    values: Any
    position: Any
    end: Any
    strand: Any
    errors: Any


@njit(nogil=True)
def _write_read(reference: Any, start: int, draws: Any, limits: Any, out: Any) -> Any:
    """Copy a read from `start` with errors; one draw per base: the high half picks the error, the low half a
    base.

    Returns:
        Position after the last base copied, and the number of errors.
    """
    errors = 0
    at = start
    n = reference.shape[0]
    for i in range(out.shape[0]):
        draw = draws[i]
        event = draw >> _HIGH
        inserted = limits[0] <= event < limits[1]
        if limits[1] <= event < limits[2] and at < n:
            at += 1
            errors += 1
        if at >= n or inserted:
            out[i] = BASES[draw & _THIRD]
            errors += 1
            continue
        letter = UPPER[reference[at]]
        at += 1
        if event < limits[0]:
            shift = (draw & np.uint64(0xFFFFFFFF)) % _THIRD + ONE
            code = ZERO
            for c in range(4):
                if BASES[c] == letter:
                    code = np.uint64(c)
            letter = BASES[(code + shift) & _THIRD]
            errors += 1
        out[i] = letter
    return at, errors


@njit(nogil=True)
def _write_reads(
    reference: Any,
    offsets: Any,
    position: Any,
    strand: Any,
    draws: Any,
    limits: Any,
    values: Any,
    end: Any,
    errors: Any,
) -> None:
    """Fill `values`, `end` and `errors`; a reverse read is turned round in place."""
    for i in range(position.shape[0]):
        read = values[offsets[i] : offsets[i + 1]]
        stop, count = _write_read(reference, position[i], draws[offsets[i] : offsets[i + 1]], limits, read)
        end[i] = stop - 1
        errors[i] = count
        if strand[i] < 0:
            n = read.shape[0]
            for j in range((n + 1) // 2):
                a = COMPLEMENT[read[j]]
                read[j] = COMPLEMENT[read[n - 1 - j]]
                read[n - 1 - j] = a


def simulate_reads(
    reference: Any,
    n: int,
    *,
    length: tuple[int, int] = (50, 300),
    substitution: float = 0.04,
    insertion: float = 0.005,
    deletion: float = 0.005,
    seed: int = 0,
) -> SimulatedReads:
    """Draw reads from a reference: uniform start, length and strand, then errors base by base.

    Draws are raw words of Philox, a stream that NumPy doesn't change, in a fixed order: the reads depend on
    the arguments only, and a larger `n` doesn't keep the first reads. Lower-case letters come out in upper
    case.

    Args:
        reference: uint8 letters, shape (bases,); at least length[1] and fewer than 2^32 of them.
        n: number of reads.
        length: shortest and longest read, both included; every read has exactly the length drawn.
        substitution: rate of replacing a base by another one.
        insertion: rate of putting a random base before the next one.
        deletion: rate of leaving a base of the reference out.
        seed: 0 or more.

    Raises:
        ParameterError: the reference is shorter than the longest read, or a count, rate or length makes no
        sense.
    """
    rates = (substitution, insertion, deletion)
    reference = _checked(reference, n, length, rates, seed)
    shortest, longest = length
    words = np.random.Philox(seed).random_raw(3 * n).reshape(3, n)
    half = words >> _HIGH
    lengths = shortest + (half[0] * np.uint64(longest - shortest + 1) >> _HIGH).astype(np.int64)
    places = (reference.size - lengths + 1).astype(np.uint64)
    position = (half[1] * places >> _HIGH).astype(np.int64)
    strand = np.where(words[2] >> np.uint64(63) == 0, 1, -1).astype(np.int8)
    return _copied(reference, lengths, position, strand, rates, seed)


def simulate_pairs(
    reference: Any,
    n: int,
    *,
    length: int = 150,
    insert: tuple[float, float] = (400.0, 40.0),
    substitution: float = 0.008,
    insertion: float = 0.001,
    deletion: float = 0.001,
    seed: int = 0,
) -> SimulatedReads:
    """Draw pairs of reads from both ends of fragments of a reference; rows 2i and 2i + 1 are mates.

    One mate reads forward, the other its reverse complement; which of them is first is drawn, as is all else, as
    `simulate_reads` says. A fragment's length is normal, as far as a sum of twelve uniform numbers is, no less than a
    read's.

    Args:
        reference: uint8 letters, shape (bases,); at least `length` and fewer than 2^32 of them.
        n: number of pairs.
        length: of every read.
        insert: mean and standard deviation of a fragment's length, in bases.
        substitution: as in `simulate_reads`; so are the other two.
        insertion: see there.
        deletion: see there.
        seed: 0 or more.

    Raises:
        ParameterError: as `simulate_reads`.
    """
    rates = (substitution, insertion, deletion)
    reference = _checked(reference, n, (length, length), rates, seed)
    mean, deviation = insert
    if not (0 <= mean < 2**31 and 0 <= deviation < 2**31):
        raise ParameterError(f"insert={insert} must be a mean and a standard deviation, in bases")
    half = np.random.Philox([seed, 2]).random_raw(14 * n).reshape(14, n) >> _HIGH
    normal = half[:12].sum(axis=0).astype(np.float64) / 2**32 - 6
    spans = np.clip(np.rint(mean + deviation * normal).astype(np.int64), length, reference.size)
    start = (half[12] * (reference.size - spans + 1).astype(np.uint64) >> _HIGH).astype(np.int64)
    turned = (half[13] >> np.uint64(31)).astype(np.int64)
    ends = np.stack([start, start + spans - length])
    position = np.stack([ends[turned, np.arange(n)], ends[1 - turned, np.arange(n)]], axis=1).reshape(-1)
    strand = np.stack([1 - 2 * turned, 2 * turned - 1], axis=1).reshape(-1).astype(np.int8)
    return _copied(reference, np.full(2 * n, length), position, strand, rates, seed)


def _checked(reference: Any, n: int, length: tuple[int, int], rates: tuple[float, ...], seed: int) -> Any:
    """The reference, contiguous; ParameterError where reads can't be drawn from it like that."""
    reference = np.ascontiguousarray(reference)
    shortest, longest = length
    if reference.dtype != np.uint8 or reference.ndim != 1:
        got = f"{reference.dtype} of shape {reference.shape}"
        raise ParameterError(f"reference must be one-dimensional uint8 letters, got {got}")
    if n < 0 or seed < 0:
        raise ParameterError(f"n and seed must not be negative, got n={n}, seed={seed}")
    if not 1 <= shortest <= longest <= reference.size < 2**32:
        raise ParameterError(
            f"length={length} must be (shortest, longest), from 1 to the reference's {reference.size} bases",
            hint="give a longer reference or shorter reads",
        )
    if any(not 0.0 <= rate <= 1.0 for rate in rates) or sum(rates) > 1.0:
        raise ParameterError(f"error rates must be shares that add up to 1 at most, got {rates}")
    return reference


def _copied(reference: Any, lengths: Any, position: Any, strand: Any, rates: tuple[float, ...],
            seed: int) -> SimulatedReads:
    """Reads copied from their places, with errors."""
    n = len(lengths)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    # A generator of its own for the errors: that of the places doesn't shift with the number of bases.
    draws = np.random.Philox([seed, 1]).random_raw(int(offsets[-1]))
    limits = np.array([round(sum(rates[: k + 1]) * 2**32) for k in range(3)], np.uint64)
    values = np.empty(int(offsets[-1]), np.uint8)
    end = np.empty(n, np.int64)
    errors = np.empty(n, np.int64)
    _write_reads(reference, offsets, position, strand, draws, limits, values, end, errors)
    return SimulatedReads(offsets, values, position, end, strand, errors)
