"""The end of a graph: a sink that keeps chunks in its own format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from gridcompute.columns import Field
from gridcompute.digests import IN_WORDS, digest
from gridcompute.op import Action, Op
from gridcompute.sinks.base import Sink
from gridcompute.sinks.zarrs import ZarrSink
from gridcompute.sources.files import shown
from gridcompute.times import Attrs, time_attrs


@dataclass(frozen=True, eq=False)
class Write(Action):
    """Chunks written by a sink; each is done when the record of what was written is committed.

    Attributes:
        sink: format and place.
        times: of each column, the attributes that make its numbers times (see `times`); empty where there are none.
    """

    sink: Sink
    times: tuple[Attrs, ...] = ()
    durable: ClassVar[bool] = True

    @classmethod
    def of(cls, sink: Sink, fields: Sequence[Field]) -> Write:
        """A sink that takes these columns."""
        times = tuple(time_attrs(f) for f in fields)
        return cls(sink, times if any(times) else ())

    @property
    def label(self) -> str:
        """See `Action`."""
        return "write"

    @property
    def key(self) -> object:
        """See `Action`: with the place, since what was written elsewhere isn't done here."""
        return (self.sink.key, self.sink.url, *self.times)

    @property
    def parts(self) -> Mapping[str, str]:
        """See `Action`."""
        return {"output's folder": f"{IN_WORDS}{shown(self.sink.url)}", "output's format": digest(self.sink.key),
                "units of times": digest(self.times)}

    @property
    def needs_lengths(self) -> bool:
        """Whether the format needs the lengths of all dimensions."""
        return isinstance(self.sink, ZarrSink)

    def grid(self, op: Op) -> tuple[int, ...] | None:
        """Extents of the sink's own chunks, where some were asked for: chunks of the plan are multiples of them."""
        return self.sink.grid(op.space, op.fields) if isinstance(self.sink, ZarrSink) else None
