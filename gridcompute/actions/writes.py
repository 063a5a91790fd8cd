"""The end of a graph: a sink that keeps chunks in its own format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gridcompute.op import Action
from gridcompute.sinks.base import Sink
from gridcompute.sinks.zarrs import ZarrSink


@dataclass(frozen=True, eq=False)
class Write(Action):
    """Chunks written by a sink; each is done when the record of what was written is committed."""

    sink: Sink
    durable: ClassVar[bool] = True

    @property
    def label(self) -> str:
        """See `Action`."""
        return "write"

    @property
    def key(self) -> object:
        """See `Action`: with the place, since what was written elsewhere isn't done here."""
        return (self.sink.key, self.sink.url)

    @property
    def needs_lengths(self) -> bool:
        """Whether the format needs the lengths of all dimensions."""
        return isinstance(self.sink, ZarrSink)
