"""Loops over the cells of a `Dag` around kernels: source is written for each shape of loop, then compiled.

Members take runs of positions of the graph's order, one after the other, until all are taken or the time is over. For
one kernel "(n),()->()" the loop of one of several members reads

    take = 1
    while True:
        lo = fetch_add(claim, 0, take)
        if lo >= last: break
        for i in range(lo, min(last, lo + take)):
            p = order[i]
            n = offsets[p + 1] - offsets[p]
            for k in range(n):
                w = inputs[offsets[p] + k]
                (wait until the cell w is done)
                s0[k] = v0[w]
            v0[p] = kernel(frozen(s0, 0, n), x0[p])
            (say that the cell p is done)
        (double or halve `take`, by what it took; end where the time is over)

Positions are taken in order, and a cell's inputs lie before it: whoever has the least position that isn't done never
waits. What was taken is done when the members have ended, so it is always a beginning of the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from gridcompute import atomics, random
from gridcompute.codecache import cached_njit
from gridcompute.kernels import Kernel
from gridcompute.keys import digest
from gridcompute.loops import kernel_function, touch_compiled
from gridcompute.steploops import PAD

MOST_TAKEN = 64
"""Positions that a member takes at once, at most: others may need them, and one look at the clock is shared by them."""

SHORT, LONG = 2_000, 8_000
"""Nanoseconds: a member whose positions took less takes twice as many, one whose took more half as many."""


WRONG_LENGTH = "a result has another length than its dimension"


@dataclass(frozen=True)
class DagShape:
    """What a loop's source depends on.

    Attributes:
        outputs: number of dimensions of each result of a cell: 0 is a number.
        own: per own column of a cell "fixed" or "ragged".
        kernels: per kernel the number of its parameters and its specials.
        waits: whether there are other members.
    """

    outputs: tuple[int, ...]
    own: tuple[str, ...]
    kernels: tuple[tuple[int, tuple[str, ...]], ...]
    waits: bool


def arguments(shape: DagShape) -> list[str]:
    """Names of the loop's arguments."""
    names = ["mark", "control", "claim", "ready", "times", "me", "members", "epoch", "last", "most", "patience",
             "flags", "order", "offsets", "inputs"]  # fmt: skip
    names += ["kind"] if len(shape.kernels) > 1 else []
    names += [f"{what}{i}" for i in range(len(shape.outputs)) for what in "vs"]
    for i, kind in enumerate(shape.own):
        names += [f"x{i}"] if kind == "fixed" else [f"x{i}_offsets", f"x{i}"]
    for k, (params, specials) in enumerate(shape.kernels):
        names += ([f"rng{k}"] if "rng" in specials else []) + [f"p{k}_{i}" for i in range(params)]
    return names


def source(shape: DagShape) -> str:
    """The loop's Python source."""
    body = [
        # All members begin together, so that their clocks count work and nothing else.
        "store_release(ready, me * PAD, epoch)",
        "for m in range(members):",
        "    code = wait_equal(ready, m * PAD, epoch, control, patience)",
        "    if code != CAME:",
        "        return code",
        "before = nanoseconds()",
        "times[2 * me] = before",
        "until = before + most",
        "take = 1",
        "while True:",
        "    lo = fetch_add(claim, 0, take)",
        "    if lo >= last:",
        "        break",
        "    if load_acquire(control, 0) != 0:",
        "        return ENDED",
        "    for i in range(lo, min(last, lo + take)):",
        *("        " + line for line in _cell(shape)),
        "    now = nanoseconds()",
        "    if now > until:",
        "        break",
        "    if now - before < SHORT and take < MOST_TAKEN:",
        "        take += take",
        "    elif now - before > LONG and take > 1:",
        "        take >>= 1",
        "    before = now",
        "times[2 * me + 1] = nanoseconds()",
        "return CAME",
    ]
    return "\n".join([f"def loop({', '.join(arguments(shape))}):", *("    " + line for line in body)]) + "\n"


def _cell(shape: DagShape) -> list[str]:
    outputs = range(len(shape.outputs))
    wait = [
        "    if load_acquire(flags, w) == 0:",
        "        code = wait_equal(flags, w, 1, control, patience)",
        "        if code != CAME:",
        "            return code",
    ]
    lines = [
        "p = 0 + order[i]",
        "touch(mark, p)",
        "o = offsets[p]",
        "n = offsets[p + 1] - o",
        "for k in range(n):",
        "    w = 0 + inputs[o + k]",
        *(wait if shape.waits else []),
        *(f"    s{i}[k] = v{i}[w]" for i in outputs),
        *(f"a{i} = frozen(s{i}, 0, n)" for i in outputs),
    ]
    for i, kind in enumerate(shape.own):
        lines.append(f"b{i} = x{i}[p]" if kind == "fixed" else
                     f"b{i} = frozen(x{i}, x{i}_offsets[p], x{i}_offsets[p + 1] - x{i}_offsets[p])")
    last = len(shape.kernels) - 1
    for k in range(len(shape.kernels)):
        test = [] if not last else ["else:"] if k == last else [f"{'elif' if k else 'if'} kind[p] == {k}:"]
        lines += [*test, *(("    " if last else "") + line for line in _call(shape, k))]
    return [*lines, "store_release(flags, p, 1)"]


def _call(shape: DagShape, k: int) -> list[str]:
    """Run one of the kernels and keep what it gives."""
    params, specials = shape.kernels[k]
    special = {"cell": "(p,)", "rng": f"rng{k}"}
    passed = [*(f"a{i}" for i in range(len(shape.outputs))), *(f"b{i}" for i in range(len(shape.own))),
              *(f"p{k}_{i}" for i in range(params)), *(special[name] for name in specials)]
    results = [f"r{k}_{i}" for i in range(len(shape.outputs))]
    lengths = [f"{result}.shape[{axis}] != v{i}.shape[{axis + 1}]"
               for i, result in enumerate(results) for axis in range(shape.outputs[i])]
    return [
        *([f"reset(rng{k}, p)"] if "rng" in specials else []),
        f"{', '.join(results)} = kernel{k}({', '.join(passed)})",
        *([f"if {' or '.join(lengths)}:", f"    raise ValueError({WRONG_LENGTH!r})"] if lengths else []),
        *(f"v{i}[p] = {result}" for i, result in enumerate(results)),
    ]


def make_dag_loop(kernels: Sequence[Kernel], shape: DagShape) -> Any:
    """The compiled loop around kernels of mode "cell"; each is compiled with its own flags."""
    return _make(tuple(map(kernel_function, kernels)), digest([kernel.key for kernel in kernels]), shape)


@lru_cache(maxsize=256)
def _make(functions: tuple[Any, ...], key: str, shape: DagShape) -> Any:
    text = source(shape)
    namespace = {
        "__name__": __name__, **{f"kernel{k}": function for k, function in enumerate(functions)},
        "reset": random.reset, "touch": touch_compiled, "frozen": atomics.frozen, "fetch_add": atomics.fetch_add,
        "load_acquire": atomics.load_acquire, "store_release": atomics.store_release,
        "wait_equal": atomics.wait_equal, "nanoseconds": atomics.nanoseconds, "CAME": atomics.CAME,
        "ENDED": atomics.ENDED, "PAD": PAD, "SHORT": SHORT, "LONG": LONG, "MOST_TAKEN": MOST_TAKEN,
    }  # fmt: skip
    exec(compile(text, "<gridcompute dag>", "exec"), namespace)
    return cached_njit(namespace["loop"], digest((key, text)))
