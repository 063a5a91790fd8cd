"""Statistics of a stack made like ERA5, against decoding it alone, xarray with dask, cdo and the field's packages.

    stream      operations that read the stack once, alone and five together
    statistics  Mann-Kendall with Sen's slope, TX90p, EOF: against pymannkendall, xclim, eofs
    rechunk     from days of whole fields to series of some cells, against dask and Cubed, and within a bound of memory
    memory      peaks on daily climatology, against xarray, and of every operation against the plan's bound
    bits        whether results are the same to the bit, from one worker and two, one thread and two
    suites      workloads of Coiled's geospatial suite and Cubed's quadratic means, made small
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

from benchmarks.climate_bits import same_bits
from benchmarks.climate_memory import peaks
from benchmarks.climate_rechunk import rechunking
from benchmarks.climate_stack import QUARTER, SMALL, Stack, beginning, made
from benchmarks.climate_statistics import computed
from benchmarks.climate_stream import streaming
from benchmarks.climate_suites import suites
from benchmarks.overhead_tasks import end_ray
from benchmarks.peering import Peers
from benchmarks.rows import Row, Session
from benchmarks.running import own_folders


class Data:
    """The stacks, made when they are first asked for, in the current folder.

    Attributes:
        session: that they are for.
    """

    def __init__(self, session: Session) -> None:
        self.session = session

    @cached_property
    def large(self) -> Stack:
        """4 GB; a coarse one of 40 MB in the mode quick."""
        self.session.begin("data")
        return made("large.zarr", 960, self.session.pick(SMALL, QUARTER, QUARTER))

    @cached_property
    def small(self) -> Stack:
        """Its first quarter."""
        return beginning(self.large, "small.zarr", 240)

    @cached_property
    def tiny(self) -> Stack:
        """A coarse one, for what must have run once."""
        return made("tiny.zarr", 60, SMALL)


Section = Callable[[Session, Peers, Data], Iterator[Row]]

SECTIONS: dict[str, Section] = {
    "stream": lambda session, peers, data: streaming(session, peers, data.small, data.large, data.tiny),
    "statistics": lambda session, peers, data: computed(session, peers),
    "rechunk": lambda session, peers, data: rechunking(session, peers, data.small, data.large),
    "memory": lambda session, peers, data: peaks(session, peers, data.small, data.large),
    "bits": lambda session, peers, data: same_bits(session, data.small),
    "suites": lambda session, peers, data: suites(session, peers, data.small),
}


def rows(session: Session, peers: Peers) -> Iterator[Row]:
    """The sections that are wanted, in turn."""
    data = Data(session)
    with own_folders(Path(session.folder)), contextlib.chdir(session.folder):
        try:
            for name, section in SECTIONS.items():
                if not session.only or name in session.only:
                    yield from section(session, peers, data)
        finally:
            end_ray()
