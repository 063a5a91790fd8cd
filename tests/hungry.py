"""A source whose reading takes sixty times what it gives, which no plan can know: for tests of memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gridcompute.columns import Block, Field, Fixed
from gridcompute.spaces import Region, Space

TIMES = 60


@dataclass(frozen=True)
class Hungry:
    """The numbers 0 to n, one after the other."""

    n: int
    coords = ()
    stored = (("x", 1),)
    stored_bytes = 0
    uniform = True
    fields = (Field("v", ("x",), np.dtype("f8")),)

    @property
    def space(self) -> Space:
        return Space.of(x=self.n)

    @property
    def key(self) -> object:
        return ("hungry",)

    def objects(self, region: Region) -> tuple[str, ...]:
        return ()

    def read(self, region: Region, names: Sequence[str]) -> Block:
        (lo, hi), = region.bounds
        scratch = np.ones((TIMES, hi - lo))
        return Block(region, {"v": Fixed(np.arange(lo, hi) * scratch[0])}, hi - lo)

    def select(self, names: Sequence[str]) -> Hungry:
        return self
