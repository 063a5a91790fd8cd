"""Rows of the benchmark `climate` for operations that read a stack once: how fast, against decoding alone and peers.

Seconds per GB are the slope between a small and a large stack, so that what a run costs at its start doesn't count.
Totals and peers are of the small one: xarray would need more than this machine's memory for the large one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import gridcompute as grid
from benchmarks import climate_cdo
from benchmarks.climate_decode import BLOSC, DECODE, decode, decompress
from benchmarks.climate_ours import OPERATIONS, SAID, AbsentWorkloadError, check_run, opened, ran, told
from benchmarks.climate_stack import SMALL, Stack, netcdf, right
from benchmarks.overhead_tasks import end_ray
from benchmarks.peering import PeerProcess, Peers
from benchmarks.rows import OURS, Reference, Row, Session, check, interleaved
from benchmarks.running import new_store
from benchmarks.stream import Setup
from gridcompute.ray_session import connect

TIMES_DECODING = {"five": 2.2}
"""How many times decoding an operation may take, where it isn't 1.5."""

TIMES_XARRAY = {"anomaly": 8.0, "five": 12.0, "months": 4.0, "gradient": 4.0, "trend": 2.0, "zonal": 2.0}
TIMES_CDO = {"five": 8.0}
"""How many times faster than cdo ours should be, where it isn't twice."""

XARRAY = tuple(name for name in OPERATIONS if name != "regrid")
Peer = Callable[[str], float]
"""Seconds that an operation takes over the small stack."""


def streaming(session: Session, peers: Peers, small: Stack, large: Stack, tiny: Stack) -> Iterator[Row]:
    """Seconds per GB, how many times decoding that is, totals, and how many times faster than peers."""
    setups = session.pick((Setup(2, 1),), (Setup(2, 1),), (Setup(2, 1), Setup(0, 2)))
    others = _peers(peers, small, tiny)
    for setup in setups:
        if setup.workers:
            yield _start(setup)
        session.begin(f"stream, {_short(setup)}, compile")
        yield _compiled(setup, large)
        session.begin(f"stream, {_short(setup)}, decode")
        yield _decoding(session, setup, small, large)
        for name in OPERATIONS:
            session.begin(f"stream, {_short(setup)}, {name}")
            try:
                yield from _rows(session, name, setup, others if setup == setups[0] else {}, small, large)
            except AbsentWorkloadError as error:
                yield told("seconds", f"{name}, {_short(setup)}", "s/GB", error)
    peers.rest("flox", "xarray")


def _short(setup: Setup) -> str:
    return f"{setup.workers} workers" if setup.workers else f"{setup.threads} threads"


def _start(setup: Setup) -> Row:
    end_ray()
    began = time.perf_counter()
    connect(workers=setup.cores)
    return Row("start/ray", "s", {OURS: [time.perf_counter() - began]},
               note=f"Starting a local Ray of {setup.cores} cores; it isn't in the rows below.")


def _compiled(setup: Setup, stack: Stack) -> Row:
    """Run everything over the stack that is measured, once, so that all code is compiled."""
    spent = 0.0
    for make in OPERATIONS.values():
        try:
            outputs = make(opened(stack), stack)
        except AbsentWorkloadError:
            continue
        with new_store() as store:
            spent += ran(outputs, executor=setup.executor(), store=store).status.compile_seconds
    return Row(f"compile/{_short(setup)}", "s", {OURS: [spent]},
               note="Compiling all operations, or loading their code from a cache that others filled, in the workers; "
               "it isn't in the rows below.")


def _decoding(session: Session, setup: Setup, small: Stack, large: Stack) -> Row:
    """The reader of runs against the codec."""
    systems = {OURS: partial(decode, setup), BLOSC: partial(decompress, setup)}
    for measure in systems.values():
        measure(small)
    slopes = interleaved({name: partial(_slope, measure, small, large) for name, measure in systems.items()},
                         session.pick(1, 3, 5), warm=False)
    return Row(f"decode/{_short(setup)}", "s/GB", slopes,
               note="Decoding by the reader of runs, each stored chunk once; and Blosc alone, into one buffer.")


def _slope(measure: Callable[[Stack], float], small: Stack, large: Stack) -> float:
    return (measure(large) - measure(small)) / (large.gigabytes - small.gigabytes)


def _ours(name: str, setup: Setup, stack: Stack) -> float:
    with new_store() as store:
        began = time.perf_counter()
        outputs = OPERATIONS[name](opened(stack), stack)
        run = grid.run(*outputs.values(), executor=setup.executor(), store=store, quiet=True)
        seconds = time.perf_counter() - began
        check_run(outputs, run, stack, f"{name} ({setup})")
    return seconds


def _rows(session: Session, name: str, setup: Setup, others: Mapping[str, Peer], small: Stack,
          large: Stack) -> Iterator[Row]:
    OPERATIONS[name](opened(small), small)  # refused before anything is timed, where a function isn't there
    if setup.workers:  # of one session, workers have the code of this operation alone
        end_ray()
        connect(workers=setup.cores)
    _ours(name, setup, small)
    others = {peer: measure for peer, measure in others.items() if _has(peer, name)}
    slopes: dict[str, list[float]] = {OURS: [], DECODE: []}
    totals: dict[str, list[float]] = {OURS: [], DECODE: [], **{peer: [] for peer in others}}
    gigabytes = large.gigabytes - small.gigabytes
    for number in range(session.pick(1, 3, 5)):
        for system, measure in ((OURS, partial(_ours, name, setup)), (DECODE, partial(decode, setup))):
            one, two = measure(small), measure(large)
            slopes[system].append((two - one) / gigabytes)
            totals[system].append(one)
        for peer, seconds in others.items():
            if number < session.pick(1, 3 if _goal(peer, name) else 1, 3):
                totals[peer].append(seconds(name))
    label = f"{name}, {_short(setup)}"
    yield Row(f"seconds/{label}", "s/GB", slopes, note=f"{SAID[name][:1].upper()}{SAID[name][1:]}.")
    goal = TIMES_DECODING.get(name, 1.5)
    yield Row(f"times decoding/{label}", "x decode",
              {OURS: [a / b for a, b in zip(slopes[OURS], slopes[DECODE], strict=True) if b > 0]},
              target=Reference(goal, f"at most {goal:g} times decoding alone"))
    yield Row(f"total/{label}", "s", totals,
              note=f"The whole of {small.gigabytes:.2g} GB: from opening it to committed results (peers: results in "
              "memory, or files).")
    yield from _times(label, name, totals)


def _has(peer: str, name: str) -> bool:
    return name in (climate_cdo.STEPS if peer == "cdo" else XARRAY)


def _goal(peer: str, name: str) -> float | None:
    """How many times faster than a peer ours should be."""
    return TIMES_CDO.get(name, 2.0) if peer == "cdo" else TIMES_XARRAY.get(name)


def _times(label: str, name: str, totals: Mapping[str, Sequence[float]]) -> Iterator[Row]:
    """How many times faster ours is than each peer, with what it should be."""
    for peer, theirs in totals.items():
        if peer in (OURS, DECODE):
            continue
        goal = _goal(peer, name)
        ratios = [b / a for a, b in zip(totals[OURS], theirs, strict=False)]
        yield Row(f"times faster/{label}, {peer}", "x", {OURS: ratios}, more=True,
                  target=Reference(goal, f"at least {goal:g} times faster than {peer}") if goal else None)


def _peers(peers: Peers, stack: Stack, tiny: Stack) -> dict[str, Peer]:
    """Measurements of the peers that take part, with two threads; they have seen a tiny stack before."""
    found: dict[str, Peer] = {}
    with_flox = peers.of("flox")
    for label, peer in (with_flox or peers.of("xarray")).items():
        found[f"xarray + dask{' + flox' * (label == 'flox')}"] = partial(_by_xarray, peer, stack)
        for name in ("five", "std", "gradient"):
            _by_xarray(peer, tiny, name)
    if peers.wanted("cdo"):
        netcdf(stack)
        found["cdo"] = partial(_by_cdo, stack)
    else:
        print("cdo is left out: it isn't wanted, or there is no command `cdo` (apt install cdo)", file=sys.stderr)
    return found


def _by_xarray(peer: PeerProcess, stack: Stack, name: str) -> float:
    seconds, found = peer.ask("climate", name=name, path=str(Path(stack.path).absolute()), steps=stack.steps,
                              small=stack.grid == SMALL, threads=2)
    check(right(stack, found), f"xarray's {name} over {stack.path}")
    return seconds


def _by_cdo(stack: Stack, name: str) -> float:
    seconds, found = climate_cdo.stream(name, stack, 2)
    check(right(stack, found), f"cdo's {name} over {stack.path}")
    return seconds

