"""Jobs for schedules of faults: the two main ones on small inputs, and random graphs; what a schedule is made of."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from oracle_graphs import grow_arrays, grow_tables

import gridcompute as grid
from gridcompute.testing.schedule import Schedule


def pixels(folder: Path) -> Path:
    """40 years of 6 x 7 pixels, some of their values missing."""
    import xarray as xr

    path = folder / "small.nc"
    if not path.exists():
        rng = np.random.default_rng(1)
        values = (rng.normal(size=(40, 6, 7)).cumsum(axis=0)).astype("f4")
        values[rng.random(values.shape) < 0.02] = np.nan
        times = np.arange("1980", "2020", dtype="M8[Y]").astype("M8[ns]")
        xr.Dataset({"t": (("time", "y", "x"), values)}, {"time": times}).to_netcdf(path)
    return path


def climate(folder: Path) -> Any:
    """climate.trend on small data."""
    return grid.workload("climate.trend")(input=str(pixels(folder)), output=str(folder / "never.zarr"), picture="none")


def contigs(folder: Path) -> Path:
    """2 contigs, the second mostly a repeat of the first."""
    path = folder / "small.fa"
    if not path.exists():
        rng = np.random.default_rng(2)
        first = "".join(rng.choice(list("ACGT"), 4000))
        path.write_text(f">one\n{first}\n>two\n{first[500:1500]}{''.join(rng.choice(list('ACGT'), 500))}\n")
    return path


def genomics(folder: Path) -> Any:
    """genomics.distance of 60 reads."""
    return grid.workload("genomics.distance")(reference=str(contigs(folder)), count=60,
                                              output=str(folder / "never.parquet"), picture="none")


def mapping(folder: Path) -> Any:
    """genomics.map of 2,000 pairs."""
    return grid.workload("genomics.map")(reference=str(contigs(folder)), count=2000,
                                         output=str(folder / "never.bam"), picture="none")


@cache
def graph(number: int) -> Sequence[Any]:
    """The outputs of a random graph: the same for the same number."""
    found: list[Any] = []

    @seed(number)
    @settings(max_examples=6, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))
    @given(st.data())
    def grow(data: Any) -> None:
        grown = (grow_tables if number % 2 else grow_arrays)(data.draw, 5)
        found[:] = [one.lazy for one in grown]

    grow()
    return tuple(found)


def schedule(number: int, **changed: Any) -> Schedule:
    """A schedule of a seed: which kinds of faults, how many, and how often the driver dies is drawn by it."""
    draw = random.Random(f"schedule {number}")
    rates = {name: draw.choice((0.0, 0.05, 0.1, 0.3)) for name in ("kill_worker", "corrupt", "slow", "store_errors",
                                                                   "memory_errors", "resets", "hang", "kill_node")}
    rates["hang"] /= 3
    rates["kill_node"] /= 5
    made = {**rates, "kill_driver": draw.choice((0, 0, 1, 2, 3)), "slow_seconds": 0.02, **changed}
    return Schedule(seed=number, **made)
