"""Functions of one cell for the reductions that come with the package: init, step, merge and final of each.

State, outs and params are one-dimensional arrays; numba compiles these, and they run as plain Python too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gridcompute.columns import Array


def zero(s: Array) -> None:
    """State of one sum: 0."""
    s[0] = 0


def zero_two(s: Array, n: Array) -> None:
    """State of a value and a count or mark: both 0."""
    s[0] = 0
    n[0] = 0


def add(s: Array, x: Any) -> None:
    """Add the value."""
    s[0] += x


def add_state(s: Array, t: Array) -> None:
    """Add the later sum."""
    s[0] += t[0]


def copy_out(s: Array, out: Array) -> None:
    """The state is the result."""
    out[0] = s[0]


def only_counted(x: Any) -> None:
    """Nothing: the fold counts."""


def mean_merge(s: Array, n: Array, t: Array, m: Array) -> None:
    """Add the later sum and count."""
    s[0] += t[0]
    n[0] += m[0]


def mean_final(s: Array, n: Array, out: Array, ok: Array) -> None:
    """Sum over count; missing for an empty cell."""
    if n[0] == 0:
        ok[0] = False
    else:
        out[0] = s[0] / n[0]


def make_moments(root: bool, mean: bool = False) -> tuple[Callable[..., None], ...]:
    """init, step, merge and final of the variance, or of its root, with the mean before it: sums about the first
    value, k.
    """
    def init(n: Array, k: Array, s: Array, q: Array, ddof: Array) -> None:
        n[0] = 0
        k[0] = np.nan
        s[0] = 0.0
        q[0] = 0.0

    def step(k: Array, s: Array, q: Array, x: Any, ddof: Array) -> None:
        k[0] = x if k[0] != k[0] else k[0]
        d = np.float64(x) - np.float64(k[0])
        s[0] += d
        q[0] += d * d

    def merge(n: Array, k: Array, s: Array, q: Array, n2: Array, k2: Array, s2: Array, q2: Array, ddof: Array) -> None:
        if n2[0] == 0:
            return
        if n[0] == 0:
            k[0] = k2[0]
        d = np.float64(k2[0]) - np.float64(k[0])
        q[0] += q2[0] + d * (2.0 * s2[0] + n2[0] * d)
        s[0] += s2[0] + n2[0] * d
        n[0] += n2[0]

    def final(n: Array, k: Array, s: Array, q: Array, out: Array, ok: Array, ddof: Array) -> None:
        if n[0] <= ddof[0]:
            ok[0] = False
            return
        squares = q[0] - s[0] * (s[0] / n[0])
        out[0] = (squares if not squares < 0.0 else 0.0) / (n[0] - ddof[0])
        if root:
            out[0] = np.sqrt(out[0])

    def with_mean(n: Array, k: Array, s: Array, q: Array, mean: Array, out: Array, mean_ok: Array, ok: Array,
                  ddof: Array) -> None:
        if n[0] == 0:
            mean_ok[0] = False
        else:
            mean[0] = np.float64(k[0]) + s[0] / n[0]
        final(n, k, s, q, out, ok, ddof)

    return init, step, merge, with_mean if mean else final


def extreme(least: bool) -> tuple[Callable[..., None], Callable[..., None]]:
    """The step and merge of the least or greatest value."""
    def step(m: Array, seen: Array, x: Any) -> None:
        # x != x: a NaN that isn't skipped takes over and stays, since it compares false with everything.
        # Always stored: a choice of values vectorises better than a choice of whether to store.
        m[0] = x if seen[0] == 0 or (x < m[0] if least else x > m[0]) or x != x else m[0]
        seen[0] = 1

    def merge(m: Array, seen: Array, m2: Array, seen2: Array) -> None:
        if seen2[0] != 0:
            if seen[0] == 0 or (m2[0] < m[0] if least else m2[0] > m[0]) or m2[0] != m2[0]:
                m[0] = m2[0]
            seen[0] = 1

    return step, merge


def seen_final(m: Array, seen: Array, out: Array, ok: Array) -> None:
    """The kept value; missing if none was seen."""
    out[0] = m[0]
    ok[0] = seen[0] != 0


def arg_init(m: Array, at: Array) -> None:
    """No position yet."""
    m[0] = 0
    at[0] = -1


def arg_final(m: Array, at: Array, out: Array, ok: Array) -> None:
    """The position; missing if there is none."""
    out[0] = at[0]
    ok[0] = at[0] >= 0


def position(least: bool) -> tuple[Callable[..., None], Callable[..., None]]:
    """The step and merge of the position of the least or greatest value."""
    def step(m: Array, at: Array, x: Any, position: int) -> None:
        if at[0] < 0 or (x < m[0] if least else x > m[0]) or (x != x and m[0] == m[0]):
            m[0] = x
            at[0] = position

    def merge(m: Array, at: Array, m2: Array, at2: Array) -> None:
        if at2[0] < 0:
            return
        # Lanes interleave, so among equals (or NaNs) the earlier position is looked for, not the first state.
        same = m2[0] == m[0] or (m2[0] != m2[0] and m[0] != m[0])
        better = (m2[0] < m[0] if least else m2[0] > m[0]) or (m2[0] != m2[0] and m[0] == m[0])
        if at[0] < 0 or better or (same and at2[0] < at[0]):
            m[0] = m2[0]
            at[0] = at2[0]

    return step, merge


def any_init(b: Array) -> None:
    """False so far."""
    b[0] = False


def any_step(b: Array, x: Any) -> None:
    """True from the first value that isn't 0."""
    if x != 0:
        b[0] = True


def any_merge(b: Array, c: Array) -> None:
    """True if the later state is."""
    if c[0]:
        b[0] = True


def all_init(b: Array) -> None:
    """True so far."""
    b[0] = True


def all_step(b: Array, x: Any) -> None:
    """False from the first 0."""
    if x == 0:
        b[0] = False


def all_merge(b: Array, c: Array) -> None:
    """False if the later state is."""
    if not c[0]:
        b[0] = False


def first_step(v: Array, seen: Array, x: Any) -> None:
    """Keep the first value."""
    if seen[0] == 0:
        v[0] = x
        seen[0] = 1


def first_merge(v: Array, seen: Array, v2: Array, seen2: Array) -> None:
    """Take the later value only if there is none yet."""
    if seen[0] == 0:
        v[0] = v2[0]
        seen[0] = seen2[0]


def last_step(v: Array, seen: Array, x: Any) -> None:
    """Keep each value in turn."""
    v[0] = x
    seen[0] = 1


def last_merge(v: Array, seen: Array, v2: Array, seen2: Array) -> None:
    """Take the later value if there is one."""
    if seen2[0] != 0:
        v[0] = v2[0]
        seen[0] = 1


def histogram_init(n: Array, edges: Array, uniform: Array) -> None:
    """Empty bins."""
    for i in range(len(n)):
        n[i] = 0


def histogram_step(n: Array, x: Any, edges: Array, uniform: Array) -> None:
    """Count the value in its bin, the edges being compared in float64."""
    v = np.float64(x)
    bins = len(n)
    # Written so that NaN fails it too.
    if not (v >= edges[0] and v <= edges[bins]):
        return
    if uniform[0] == 1:
        # A guess, which the edges then decide: rounding can put it one off.
        i = int((v - edges[0]) / (edges[bins] - edges[0]) * bins)
        if i >= bins:
            i = bins - 1
        while i > 0 and v < edges[i]:
            i -= 1
        while i < bins - 1 and v >= edges[i + 1]:
            i += 1
    else:
        i = 0
        high = bins
        while high - i > 1:
            middle = (i + high) // 2
            if v >= edges[middle]:
                i = middle
            else:
                high = middle
    n[i] += 1


def histogram_merge(n: Array, m: Array, edges: Array, uniform: Array) -> None:
    """Add the later bins."""
    for i in range(len(n)):
        n[i] += m[i]


def histogram_final(n: Array, out: Array, edges: Array, uniform: Array) -> None:
    """The bins are the result."""
    for i in range(len(n)):
        out[i] = n[i]


def topk(largest: bool) -> tuple[Callable[..., None], ...]:
    """init, step, merge and final of the k greatest or least values."""
    def init(v: Array, n: Array) -> None:
        for i in range(len(v)):
            v[i] = 0
        n[0] = 0

    def step(v: Array, n: Array, x: Any) -> None:
        i = n[0]
        if i == len(v):
            if not (x > v[i - 1] if largest else x < v[i - 1]):
                return
            i -= 1
        else:
            n[0] += 1
        while i > 0 and (x > v[i - 1] if largest else x < v[i - 1]):
            v[i] = v[i - 1]
            i -= 1
        v[i] = x

    def merge(v: Array, n: Array, w: Array, m: Array) -> None:
        for j in range(m[0]):
            x = w[j]
            i = n[0]
            if i == len(v):
                if not (x > v[i - 1] if largest else x < v[i - 1]):
                    return
                i -= 1
            else:
                n[0] += 1
            while i > 0 and (x > v[i - 1] if largest else x < v[i - 1]):
                v[i] = v[i - 1]
                i -= 1
            v[i] = x

    def final(v: Array, n: Array, out: Array, ok: Array) -> None:
        for i in range(len(v)):
            out[i] = v[i]
            ok[i] = i < n[0]

    return init, step, merge, final
