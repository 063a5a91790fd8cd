"""Rows of the benchmark `climate` for statistics that cost more to compute than to read, against Python packages.

The packages have one thread, and so has ours, where no workers are named; what both give is compared.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import gridcompute as grid
from benchmarks.climate_ours import AbsentWorkloadError, told, workload
from benchmarks.overhead_tasks import end_ray
from benchmarks.peering import Peers
from benchmarks.rows import OURS, Reference, Row, Session, check
from benchmarks.running import new_store
from gridcompute.coords import Coordinate, packed
from gridcompute.ray_session import connect

YEARS, TEN = 65, 10
FIRST, BASE = 1961, 30
"""First year of the daily temperatures, and years of the base period."""

System = Callable[[], tuple[float, Any]]
"""Seconds, and what is compared."""


def computed(session: Session, peers: Peers) -> Iterator[Row]:
    """Mann-Kendall with Sen's slope, warm days by bootstrap, and empirical orthogonal functions."""
    for name, section in (("Mann-Kendall and Sen", trends), ("TX90p", warm_days), ("EOF", functions)):
        session.begin(f"statistics, {name}")
        try:
            yield from section(session, peers)
        except AbsentWorkloadError as error:
            yield told("statistics", name, "pixels/s", error)


def _run(outputs: Sequence[Any], **options: Any) -> tuple[float, Any]:
    """Seconds of a whole run, and its results as arrays, by column."""
    with new_store() as store:
        began = time.perf_counter()
        run = grid.run(*outputs, store=store, quiet=True, **(options or {"executor": "inline", "workers": 1}))
        seconds = time.perf_counter() - began
        return seconds, {name: run[name].to_numpy() for one in outputs for name in one.columns}


def _rated(name: str, pixels: tuple[float, float], ours: System, theirs: dict[str, System], repeat: tuple[int, int],
           times: float, equal: Callable[[Any, Any], bool], note: str) -> Iterator[Row]:
    """Pixels a second of ours and of a package, in turn, and how many times faster ours is.

    Args:
        name: of the row.
        pixels: of one measurement of ours, and of theirs.
        ours: one measurement.
        theirs: the package by name, or nobody.
        repeat: measurements of ours and of theirs.
        times: how many times faster ours should be.
        equal: whether what both give is the same.
        note: what both compute.
    """
    ours()  # compiles
    raw: dict[str, list[float]] = {OURS: [], **{peer: [] for peer in theirs}}
    for number in range(max(repeat)):
        if number < repeat[0]:
            seconds, found = ours()
            raw[OURS].append(pixels[0] / seconds)
        for peer, measure in theirs.items():
            if number < repeat[1]:
                seconds, known = measure()
                raw[peer].append(pixels[1] / seconds)
                check(equal(found, known), f"{name} by {peer} and ours")
    yield Row(f"statistics/{name}", "pixels/s", raw, more=True, note=note)
    for peer in theirs:
        ratio = statistics.median(raw[OURS]) / statistics.median(raw[peer])
        yield Row(f"times faster/{name}, {peer}", "x", {OURS: [ratio]}, more=True,
                  target=Reference(times, f"at least {times:g} times faster than {peer}"))


def trends(session: Session, peers: Peers) -> Iterator[Row]:
    """Mann-Kendall's test and Sen's slope of annual series."""
    pixels, few = session.pick((2_000, 20), (100_000, 400), (400_000, 400))
    values = np.random.default_rng(3).normal(size=(YEARS, pixels)) + np.arange(YEARS)[:, None] * 0.02
    np.save("annual.npy", values[:, :few])
    series = grid.from_arrays({"annual": values}, dims=("time", "pixel"))["annual"]
    test = series.map(workload("trend", "pixel_trend"), per_year=1.0)[["s", "z", "slope"]]

    def equal(found: Any, known: Any) -> bool:
        s, z, slope = np.array(known).T
        return bool(np.array_equal(found["s"][:few], s) and np.array_equal(found["z"][:few], z)
                    and np.allclose(found["slope"][:few], slope, rtol=1e-9, atol=1e-12))

    theirs = {name: partial(peer.ask, "trends", path=str(Path("annual.npy").absolute()), count=few)
              for name, peer in peers.of("pymannkendall").items()}
    yield from _rated("Mann-Kendall and Sen", (pixels, few), partial(_run, [test]), theirs,
                      session.pick((1, 1), (3, 3), (5, 5)), 100, equal,
                      f"{YEARS} annual values a pixel: S, Z and the exact median of all slopes; {pixels:,} pixels by "
                      f"ours, {few} by a call each of pymannkendall, whose results are equal (the slope to 1e-9).")
    peers.rest("pymannkendall")


def warm_days(session: Session, peers: Peers) -> Iterator[Row]:
    """Days above the base period's 90th percentile, the base's own days by the bootstrap."""
    extreme_indices = workload("indices", "extreme_indices")
    pixels, years, base = session.pick((4, 12, 10), (400, 32, BASE), (400, 32, BASE))
    day, draw = np.arange(365 * years), np.random.default_rng(4)
    values = (15 + 10 * np.sin(2 * np.pi * day / 365)[:, None] + 3 * draw.normal(size=(len(day), pixels))).astype("f4")
    np.save("daily.npy", values)
    when = Coordinate("time", "time", day, f"days since {FIRST}-01-01", "noleap")
    table = grid.from_arrays({"tasmax": values}, dims=("time", "pixel"), coords=[when])
    series = workload("inputs", "with_attrs")(table, {"tasmax": {"units": "degC"}})["tasmax"]
    found = extreme_indices(series, only=["tx90p"], base=(FIRST, FIRST + base - 1), monthly=False, wraps=False)

    def equal(found: Any, known: Any) -> bool:
        days = found["tx90p"] * 365 / 100
        known = np.array(known)
        return bool(np.allclose(days if days.shape == known.shape else days.T, known, atol=1e-6))

    theirs = {name: partial(peer.ask, "warm days", path=str(Path("daily.npy").absolute()), first_year=FIRST, base=base)
              for name, peer in peers.of("xclim").items()}
    yield from _rated("TX90p", (pixels, pixels), partial(_run, [found]), theirs,
                      session.pick((1, 1), (3, 1), (3, 2)), 100, equal,
                      f"{years} years of daily maxima, {base} of them the base period, five-day windows, "
                      f"bootstrap of Zhang et al. (2005); {pixels} pixels at once by both; equal days a year.")
    peers.rest("xclim")


def functions(session: Session, peers: Peers) -> Iterator[Row]:
    """The first empirical orthogonal functions of a field, and of a larger one."""
    shape = session.pick((60, 9, 18), (600, 90, 180), (600, 90, 180))
    yield from _functions("EOF", peers, shape, 1, session.pick((1, 1), (5, 5), (9, 9)))
    if session.mode != "quick":
        for workers in (1, 2):
            name = f"EOF of 64,800 points, {workers} worker{'s' * (workers > 1)}"
            session.begin(f"statistics, {name}")
            yield from _functions(name, peers, (1200, 180, 360), workers, session.pick((1, 1), (3, 1), (3, 3)))
    peers.rest("eofs")


def _functions(name: str, peers: Peers, shape: tuple[int, int, int], workers: int,
               repeat: tuple[int, int]) -> Iterator[Row]:
    """Of fields over time, latitude and longitude; two workers are Ray's, and eofs then has two threads of BLAS."""
    orthogonal, (steps, lats, lons) = workload("eof", "eofs"), shape
    draw, lat = np.random.default_rng(5), np.linspace(88, -88, lats)
    patterns = draw.normal(size=(12, lats, lons)) * np.exp(-np.arange(12) / 4)[:, None, None]
    values = np.tensordot(draw.normal(size=(steps, 12)), patterns, 1)
    values += 0.1 * draw.normal(size=shape)
    weights = np.sqrt(np.cos(np.radians(lat)))
    values = values.astype("f4")
    np.save("field.npy", values)
    np.save("weights.npy", np.repeat(weights[:, None], lons, 1))
    axes = [Coordinate("lat", "lat", lat, attrs=packed({"units": "degrees_north"})),
            Coordinate("lon", "lon", np.arange(lons) * 360.0 / lons, attrs=packed({"units": "degrees_east"}))]
    field = grid.from_arrays({"field": values}, dims=("time", "lat", "lon"), coords=axes)["field"]
    modes = orthogonal(field, TEN, "sqrt-cos")
    outputs = [modes[what] for what in ("fraction", "pc", "eof")]

    def equal(found: Any, known: Any) -> bool:
        shares = np.allclose(found["fraction"], known["shares"], rtol=1e-4)
        return bool(shares and np.allclose((found["eof"] ** 2).sum(1).T, known["rows"], rtol=1e-2, atol=1e-6))

    if workers > 1:
        end_ray()
        connect(workers=workers)
    options: dict[str, Any] = {"executor": "ray", "workers": workers} if workers > 1 else {}
    theirs = {peer: partial(process.ask, "functions", path=str(Path("field.npy").absolute()), count=TEN,
                            weights=str(Path("weights.npy").absolute()), threads=workers)
              for peer, process in peers.of("eofs").items()}
    pixels = float(lats * lons)
    yield from _rated(name, (pixels, pixels), partial(_run, outputs, **options), theirs, repeat, 10, equal,
                      f"The first {TEN} functions of {steps:,} fields of {lats} x {lons}, float32, weighted by the "
                      "square root of the cosine of latitude; ours multiplies in float64, eofs in float32. Shares of "
                      "variance and functions are equal.")
