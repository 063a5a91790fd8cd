"""Loops over steps and cells around a kernel: source is written for each shape of step, then compiled.

One member of a gang runs one loop: the units `lo` to `hi` of the space's first dimension, for the steps `first` to
`last`. Row r of the state (what step r - 1 gave) lies in slot r % depth of a ring, the units of each member together. A
unit's place in a row is its number plus the member's `shift`. For edges and a kernel "(n)->()" the loop reads

    for t in range(first, last):
        (wait until the slot's last readers are done)
        for p in range(lo, min(hi, active(t))):
            (wait for the inputs that other members make)
            a0 = frozen(v0, prev + starts[b], counts[b])      # in place where the inputs lie side by side
            r0 = kernel(a0, (p,), t)
            v0[here + p] = r0
            (say that it is there, if others read it)
        (units beyond `active` keep their values)

and for a halo the window of each cell is laid out in `s0` first. It gives `atomics.CAME`, or why it ended early.

In a band (`gridcompute.bands`) the units are numbered anew, so p is a number and `units[p]` the unit; of its numbers
a member computes in each step those first ones that are still needed, `needed[last - 1 - t]`. For windows over the
first dimension `map0` gives then the places by number and position in the window.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from gridcompute import atomics, random
from gridcompute.codecache import cached_njit
from gridcompute.kernels import Kernel
from gridcompute.keys import digest, machine_key
from gridcompute.loops import kernel_function, touch_compiled
from gridcompute.shares import APART

PAD = 8
"""Words between two members' flags: a cache line."""


@dataclass(frozen=True)
class StepShape:
    """What a loop's source depends on.

    Attributes:
        casts: per column, whether the kernel gives another type than the column's.
        params: number of parameters.
        specials: those that the kernel takes.
        dims: of the space.
        window: axes of the kernel's windows, in its order; None for edges.
        active: whether a row's width is given by a function.
        band: whether the units are those of a band.
    """

    casts: tuple[bool, ...]
    params: int
    specials: tuple[str, ...]
    dims: int
    window: tuple[int, ...] | None
    active: bool
    band: bool = False

    @property
    def unit(self) -> str:
        """The name of a unit's index in the space, where p is its number."""
        return "u" if self.band else "p"

    @property
    def columns(self) -> range:
        """Numbers of the columns."""
        return range(len(self.casts))


def arguments(shape: StepShape) -> list[str]:
    """Names of the loop's arguments."""
    names = ["mark", "place", "control", "times", "me", "members", "first", "last", "lo", "hi", "block", "shift",
             "width", "depth", "base", "patience", "seq", "done", "ready", "readers", "shown", "await_rows", "await_at",
             "space"]
    names += ["units", "needed"] if shape.band else []
    names += ["rng"] if "rng" in shape.specials else []
    if shape.window is None:
        names += ["lead", "period", "starts", "counts", "rows", "at"]
    else:
        names += [f"map{axis}" for axis in shape.window] + [f"fill{i}" for i in shape.columns]
    for i in shape.columns:
        names += [f"v{i}", f"s{i}"] + ([f"q{i}"] if shape.window is not None else [])
        names += [f"t{i}"] if shape.casts[i] else []
    return names + [f"p{i}" for i in range(shape.params)]


def source(shape: StepShape) -> str:
    """The loop's Python source."""
    units = _edges_unit(shape) if shape.window is None else _window_unit(shape)
    kept = [*(f"v{i}[here + p + shift] = v{i}[prev + p + shift]" for i in shape.columns), *_said()]
    if shape.band:
        computed = ["for p in range(lo, lo + needed[last - 1 - t]):", "    u = units[p]",
                    *(["    if u >= wide:", *_lines(2, [*kept, "continue"])] if shape.active else []),
                    *_lines(1, units)]  # fmt: skip
    else:
        computed = ["for p in range(lo, min(hi, wide)):", *_lines(1, units),
                    *(["for p in range(max(lo, wide), hi):", *_lines(1, kept)] if shape.active else [])]  # fmt: skip
    body = [
        *_start(),
        *(["phase = first if first < lead else lead + (first - lead) % period"] if shape.window is None else []),
        "slack = first",
        "for t in range(first, last):",
        *_lines(1, [
            "touch(place, t)",
            "if load_acquire(control, 0) != 0:",
            "    return ENDED",
            "prev = (t % depth) * width",
            "here = ((t + 1) % depth) * width",
            *_reuse(),
            f"wide = {'min(space[0], active(t))' if shape.active else 'space[0]'}",
            *computed,
            "store_release(done, me * PAD, base + t + 1)",
            *(["phase += 1", "if phase == lead + period:", "    phase = lead"] if shape.window is None else []),
        ]),
        "times[2 * me + 1] = nanoseconds()",
        "return CAME",
    ]
    return "\n".join([f"def loop({', '.join(arguments(shape))}):", *_lines(1, body)]) + "\n"


def _lines(depth: int, lines: list[str]) -> list[str]:
    return ["    " * depth + line for line in lines]


def _checked(call: str) -> list[str]:
    return [f"code = {call}", "if code != CAME:", "    return code"]


def _start() -> list[str]:
    """All members begin together, so that their clocks count work and nothing else."""
    return [
        "store_release(ready, me * PAD, base + first)",
        "for m in range(members):",
        *_lines(1, _checked("wait_equal(ready, m * PAD, base + first, control, patience)")),
        "times[2 * me] = nanoseconds()",
    ]


def _reuse() -> list[str]:
    """Row t + 1 takes the slot of row t + 1 - depth, which its readers are done with when they have made the next."""
    return [
        "oldest = t + 2 - depth",
        "if slack < oldest and readers.size > 0:",
        "    slack = t + 1",
        "    for k in range(readers.size):",
        *_lines(2, _checked("wait_least(done, readers[k] * PAD, base + oldest, control, patience)")),
        "        slack = min(slack, load_acquire(done, readers[k] * PAD) - base)",
    ]


def _said() -> list[str]:
    """Say that a unit is there, where other members read it."""
    return ["if shown[p - lo]:", "    store_release(seq, here + p + shift, base + t + 1)"]


def _awaited(b: str) -> list[str]:
    return [
        f"for k in range(await_rows[{b}], await_rows[{b} + 1]):",
        "    w = prev + await_at[k]",
        "    if load_acquire(seq, w) != base + t:",
        *_lines(2, _checked("wait_equal(seq, w, base + t, control, patience)")),
    ]


def _call(shape: StepShape, inputs: list[str], cell: list[str], linear: str, target: str) -> list[str]:
    """Run the kernel on a cell and store what it gives."""
    special = {"cell": "(" + "".join(f"{one}, " for one in cell) + ")", "step": "t", "rng": "rng"}
    passed = [*inputs, *(f"p{i}" for i in range(shape.params)), *(special[name] for name in shape.specials)]
    lines = [f"touch(mark, {linear})"]
    lines += [f"reset(rng, {linear})"] if "rng" in shape.specials else []
    lines.append(f"{', '.join(f'r{i}' for i in shape.columns)} = kernel({', '.join(passed)})")
    for i in shape.columns:
        # Through an element of the kernel's own type first, as its results are converted where they are stored.
        lines += [f"t{i}[0] = r{i}", f"v{i}[{target}] = t{i}[0]"] if shape.casts[i] else [f"v{i}[{target}] = r{i}"]
    return lines


def _edges_unit(shape: StepShape) -> list[str]:
    gather = [line for i in shape.columns for line in (f"    s{i}[k] = v{i}[w]",)]
    return [
        "b = phase * block + p - lo",
        *_awaited("b"),
        "n = counts[b]",
        "f = starts[b]",
        "if f >= 0:",
        *(f"    a{i} = frozen(v{i}, prev + f, n)" for i in shape.columns),
        "else:",
        f"    if f == {APART}:",
        "        o = rows[b]",
        "        for k in range(n):",
        "            w = prev + at[o + k]",
        *_lines(2, gather),
        *(f"    a{i} = frozen(s{i}, 0, n)" for i in shape.columns),
        *_call(shape, [f"a{i}" for i in shape.columns], [shape.unit], shape.unit, "here + p + shift"),
        *_said(),
    ]


def _window_unit(shape: StepShape) -> list[str]:
    assert shape.window is not None
    cell = [shape.unit, *(f"c{axis}" for axis in range(1, shape.dims))]
    linear, flat = shape.unit, "{}"
    for axis in range(1, shape.dims):
        linear = f"({linear}) * space[{axis}] + c{axis}"
        flat = f"({flat}) * space[{axis}] + " + "{}"
    own = flat.format("here + p + shift", *cell[1:])
    lines = [*_awaited("p - lo")]
    for axis in range(1, shape.dims):
        lines += _lines(axis - 1, [f"for c{axis} in range(space[{axis}]):"])
    inner: list[str] = []

    def at(axis: int) -> str:
        return "p - lo, " if shape.band and axis == 0 else f"{cell[axis]} + "

    for number, axis in enumerate(shape.window):
        inner += _lines(number, [f"for w{number} in range(s0.shape[{number}]):",
                                 f"    m{axis} = map{axis}[{at(axis)}w{number}]"])  # fmt: skip
    found = [f"m{axis}" if axis in shape.window else cell[axis] for axis in range(shape.dims)]
    read = flat.format(f"prev + {found[0]}" if 0 in shape.window else "prev + p + shift", *found[1:])
    window = ", ".join(f"w{number}" for number in range(len(shape.window)))
    inner += _lines(len(shape.window), [
        f"if {' or '.join(f'm{axis} < 0' for axis in shape.window)}:",
        *(f"    s{i}[{window}] = fill{i}[0]" for i in shape.columns),
        "else:",
        f"    w = {read}",
        *(f"    s{i}[{window}] = v{i}[w]" for i in shape.columns),
    ])
    inner += _call(shape, [f"q{i}" for i in shape.columns], cell, linear, own)
    return [*lines, *_lines(shape.dims - 1, inner), *_said()]


def make_step_loop(kernel: Kernel, shape: StepShape, active: Any = None) -> Any:
    """The compiled loop around a kernel.

    Args:
        kernel: of mode "cell".
        shape: of the loop.
        active: a row's width by step, compiled; where `shape.active`.
    """
    key = digest((kernel.key, None if active is None else machine_key(active)))
    return _make(kernel_function(kernel), active, key, kernel.flags, shape)


@lru_cache(maxsize=256)
def _make(function: Any, active: Any, key: str, flags: frozenset[str], shape: StepShape) -> Any:
    text = source(shape)
    namespace = {
        "__name__": __name__, "kernel": function, "active": active, "reset": random.reset, "touch": touch_compiled,
        "frozen": atomics.frozen, "load_acquire": atomics.load_acquire, "store_release": atomics.store_release,
        "wait_equal": atomics.wait_equal, "wait_least": atomics.wait_least, "nanoseconds": atomics.nanoseconds,
        "CAME": atomics.CAME, "ENDED": atomics.ENDED, "PAD": PAD,
    }  # fmt: skip
    exec(compile(text, "<gridcompute steps>", "exec"), namespace)
    return cached_njit(namespace["loop"], digest((key, text)), flags=flags)
