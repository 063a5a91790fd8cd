"""Ours and C libraries over the same pairs, in turn: whose results must be equal, and how fast each was."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.genomics_libraries import Took, took
from benchmarks.report import number
from benchmarks.rows import OURS, Reference, Row, WrongResultError, check

System = Callable[[], tuple[Took, Any]]
"""One measurement: how long it took, and all scores."""


def contest(systems: Mapping[str, System], repeat: int, what: str) -> dict[str, list[Took]]:
    """Measure systems in turn, after a round that doesn't count.

    Raises:
        WrongResultError: one of them gave other scores than the first.
    """
    raw: dict[str, list[Took]] = {name: [] for name in systems}
    expected: Any = None
    for round_ in range(repeat + 1):
        for name, system in systems.items():
            spent, scores = system()
            expected = scores if expected is None else expected
            check(bool(np.array_equal(scores, expected)), f"{what} by {name}")
            if round_:
                raw[name].append(spent)
    return raw


def rated(name: str, unit: str, amount: float, raw: Mapping[str, list[Took]], *, note: str = "",
          times: float | None = None, published: Reference | None = None) -> Row:
    """A row of rates: amounts a second of the thread's processor; by the clock in the note.

    Args:
        name: of the row.
        unit: of the rates.
        amount: that one measurement did.
        raw: how long each took.
        note: what else is to be known.
        times: how many times the best peer's median ours should be.
        published: what somebody else wrote down.
    """
    rates = {system: [amount / own for own, _ in all_] for system, all_ in raw.items()}
    clock = ", ".join(f"{system} {number(amount / statistics.median(wall for _, wall in all_))}"
                      for system, all_ in raw.items() if all_)
    medians = [(statistics.median(all_), system) for system, all_ in rates.items() if all_ and not is_ours(system)]
    goal = None
    if times is not None and medians:
        best, peer = max(medians)
        goal = Reference(times * best, f"at least {times:g} times {peer}")
    return Row(name, unit, rates, more=True, target=goal, published=published,
               note=f"{note} By the clock: {clock}.".strip())


def is_ours(system: str) -> bool:
    """Whether it is ours, in whatever form."""
    return system.split(",")[0] == OURS


def ours(work: Callable[[], Any]) -> System:
    """A measurement of a compiled function of ours, called in this thread."""
    return lambda: took(work)


def compiled(name: str, work: Callable[[], Any]) -> Row:
    """How long a function's first call takes, on next to nothing: numba compiles it."""
    spent, _ = took(work)
    return Row(f"compile/{name}", "s", {OURS: [spent[1]]},
               note="The first call, on next to nothing, with no compiled code kept from before; it isn't in the rows "
               "below.")


def fastest(systems: Mapping[str, System], expected: Any) -> str:
    """Of several ways to call one library, that which was fastest among those whose scores are right."""
    found: dict[float, str] = {}
    for name, system in systems.items():
        try:
            (own, _), scores = min((system() for _ in range(2)), key=lambda one: one[0])
        except WrongResultError:  # a way that this build of the library doesn't have, or whose scores ran over
            continue
        if np.array_equal(scores, expected):
            found[own] = name
    check(bool(found), f"none of {', '.join(systems)}")
    return found[min(found)]
