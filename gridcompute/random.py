"""Counter-based random numbers for kernels: Philox4x32-10, one independent stream a cell.

A kernel whose last arguments include `rng` draws from it with the functions here; the same functions run
compiled and as plain Python, with equal bits. The 64-bit key comes from the seed and the op's declared name,
the 128-bit counter from the cell's linear index (low half) and the number of the block drawn (high half),
so what a cell draws depends on nothing else: not on the chunk, the order or the worker.

Source: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3",
SC11, 2011; constants and known answers from the authors' Random123.

`uniform` and `integers` are exact everywhere. `normal` (in its tails) and `exponential` call the logarithm of
the C library: equal bits within a numerics class, as DESIGN's law 1 says.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
from numba import njit

State = np.ndarray[Any, Any]

# The state's slots. All arithmetic stays below 2**64, so plain Python sees no overflow either.
_KEY, _CELL, _BLOCK, _LEFT, _SECOND = 0, 1, 2, 3, 4
STATE_SIZE = 5

_LOW = np.uint64(0xFFFFFFFF)
_MAX = np.uint64(0xFFFFFFFFFFFFFFFF)
_32 = np.uint64(32)
_11 = np.uint64(11)
_12 = np.uint64(12)
_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_M0 = np.uint64(0xD2511F53)
_M1 = np.uint64(0xCD9E8D57)
_W0 = np.uint64(0x9E3779B9)
_W1 = np.uint64(0xBB67AE85)


def seed_key(seed: int, name: str) -> np.uint64:
    """The stream family of an op: 64 bits from the run's seed (any integer) and the op's declared name."""
    text = f"{int(seed)}\0{name}".encode()
    return np.uint64(int.from_bytes(hashlib.blake2b(text, digest_size=8, person=b"gridcompute-rng").digest(), "little"))


@njit(nogil=True)
def philox(c0: np.uint64, c1: np.uint64, c2: np.uint64, c3: np.uint64, k0: np.uint64, k1: np.uint64) -> Any:
    """Ten rounds of Philox4x32 on a counter and a key given as 32-bit words, each held in a uint64."""
    for _ in range(10):
        p0 = _M0 * c0
        p1 = _M1 * c2
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1 & _LOW, (p0 >> _32) ^ c3 ^ k1, p0 & _LOW
        k0 = (k0 + _W0) & _LOW
        k1 = (k1 + _W1) & _LOW
    return c0, c1, c2, c3


def state(key: int | np.uint64, cell: int = 0) -> State:
    """A fresh state: uint64, `STATE_SIZE` entries, at the first draw of `cell`."""
    made = np.zeros(STATE_SIZE, np.uint64)
    made[_KEY] = key
    made[_CELL] = cell
    return made


@njit(nogil=True)
def reset(state: State, cell: int) -> None:
    """Go to the first draw of another cell, given by its linear index (0 or more)."""
    state[_CELL] = np.uint64(cell)
    state[_BLOCK] = _ZERO
    state[_LEFT] = _ZERO


@njit(nogil=True)
def bits(rng: State) -> Any:
    """The next 64 random bits; a block of the counter gives two."""
    if rng[_LEFT] != _ZERO:
        rng[_LEFT] = _ZERO
        return rng[_SECOND]
    cell, block, key = rng[_CELL], rng[_BLOCK], rng[_KEY]
    w0, w1, w2, w3 = philox(cell & _LOW, cell >> _32, block & _LOW, block >> _32, key & _LOW, key >> _32)
    rng[_BLOCK] = block + _ONE
    rng[_LEFT] = _ONE
    rng[_SECOND] = w2 | (w3 << _32)
    return w0 | (w1 << _32)


@njit(nogil=True)
def uniform(rng: State) -> float:
    """A float64 in [0, 1), a multiple of 2**-53."""
    return np.float64(bits(rng) >> _11) * 1.1102230246251565e-16


@njit(nogil=True)
def integers(rng: State, n: int) -> Any:
    """An int64 in [0, n), each equally likely (the remainder's bias is rejected).

    Raises:
        ValueError: n isn't positive.
    """
    if n <= 0:
        raise ValueError("integers(rng, n) needs n of 1 or more")
    size = np.uint64(n)
    uneven = ((_MAX - size) + _ONE) % size
    x = bits(rng)
    while x < uneven:
        x = bits(rng)
    return np.int64(x % size)


@njit(nogil=True)
def exponential(rng: State) -> float:
    """A float64 from the exponential distribution of mean 1: -log(u), u in (0, 1]; calls libm's log."""
    return -math.log(np.float64((bits(rng) >> _11) + _ONE) * 1.1102230246251565e-16)


@njit(nogil=True)
def normal(rng: State) -> float:
    """A float64 from the standard normal distribution: the inverse of its distribution function at one draw.

    One draw a value, never rejected. Accurate to about 1e-16 relative. In the centre (85 % of the draws) only
    arithmetic; in the tails libm's log. Source: M. J. Wichura, algorithm AS 241 (PPND16), Applied Statistics
    37, 1988.
    """
    # Midpoints of 2**52 equal intervals: never 0 or 1, and symmetric.
    return _normal_quantile((np.float64(bits(rng) >> _12) + 0.5) * 2.220446049250313e-16)


# Coefficients of AS 241, highest power first: numerator and denominator for the centre, the tails, the far tails.
_CENTRE = (2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4,
           1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080e0)
_CENTRE_BELOW = (5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
                 5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0)
_TAIL = (7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e0,
         3.64784832476320460504e0, 5.76949722146069140550e0, 4.63033784615654529590e0, 1.42343711074968357734e0)
_TAIL_BELOW = (1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2,
               1.48103976427480074590e-1, 6.89767334985100004550e-1, 1.67638483018380384940e0,
               2.05319162663775882187e0, 1.0)
_FAR = (2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3, 2.65321895265761230930e-2,
        2.96560571828504891230e-1, 1.78482653991729133580e0, 5.46378491116411436990e0, 6.65790464350110377720e0)
_FAR_BELOW = (2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5,
              7.86869131145613259100e-4, 1.48753612908506148525e-2, 1.36929880922735805310e-1,
              5.99832206555887937690e-1, 1.0)


@njit(nogil=True)
def _ratio(above: tuple[float, ...], below: tuple[float, ...], r: float) -> float:
    """Two polynomials' ratio by Horner's rule, in a fixed order of operations."""
    a, b = above[0], below[0]
    for i in range(1, len(above)):
        a = a * r + above[i]
        b = b * r + below[i]
    return a / b


@njit(nogil=True)
def _normal_quantile(p: float) -> float:
    q = p - 0.5
    if abs(q) <= 0.425:
        return q * _ratio(_CENTRE, _CENTRE_BELOW, 0.180625 - q * q)
    r = math.sqrt(-math.log(p if q < 0 else 1.0 - p))
    x = _ratio(_TAIL, _TAIL_BELOW, r - 1.6) if r <= 5.0 else _ratio(_FAR, _FAR_BELOW, r - 5.0)
    return -x if q < 0 else x
