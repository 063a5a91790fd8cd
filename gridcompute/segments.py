"""Segments of a reduction: canonical runs of chunks, each folded in order into one state a kept cell (law 1)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from gridcompute.axes import SPREAD, Axis, Layout
from gridcompute.spaces import Region, Space

SEGMENT = "segment"

STATE_SHARE = 16
"""A segment's input is at least so many times its state's bytes."""

STATE_FLOOR = 256
"""Bytes of state for a kept cell that every reduction is taken to have: mean, variance, a trend and a monthly
mean then have equal segments, and go over the data together."""


@dataclass(frozen=True)
class Segments:
    """Output position s along "segment" reads chunks `s * run` to `(s + 1) * run` over the reduced dimensions.

    Attributes:
        dims: reduced dimensions with their cut axes, in the input's order.
        run: chunks a segment.
        slowest: a kept dimension whose chunks are runs of cuts, with its axis: boxes are cut there. No recipe has it.
    """

    dims: tuple[tuple[str, Axis], ...]
    run: int
    slowest: tuple[str, Axis] | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What enters the recipe: the scheme, with all lengths that the result depends on."""
        return (
            "segments",
            tuple((name, axis.length, axis.extent, len(axis.parts), axis.blocks) for name, axis in self.dims),
            self.run,
        )

    @property
    def layout(self) -> Layout:
        """The reduced dimensions as a layout of their own."""
        return Layout(self.dims)

    @property
    def count(self) -> int:
        """Number of segments."""
        return -(-self.layout.chunks // self.run)

    def chunks(self, segment: int) -> Iterator[Region]:
        """Regions of a segment over the reduced dimensions, in order."""
        layout = self.layout
        for chunk in range(segment * self.run, min((segment + 1) * self.run, layout.chunks)):
            yield layout.region(chunk)

    def inputs(self, region: Region, out: Space, into: Region, names: tuple[str, ...]) -> tuple[Region, ...]:
        """See `Access`: one box a chunk."""
        where = dict(zip(out.names, region.bounds, strict=True))
        full = dict(zip(names, into.bounds, strict=True))
        lo, hi = where.get(SEGMENT, (0, 1))
        boxes = []
        for step in self._steps(where):
            for part in itertools.chain.from_iterable(self.chunks(s) for s in range(lo, hi)):
                at = step | dict(zip((name for name, _ in self.dims), part.bounds, strict=True))
                boxes.append(Region(tuple(at.get(name) or where.get(name) or full[name] for name in names)))
        return tuple(boxes)

    def _steps(self, where: Mapping[str, tuple[int, int]]) -> Iterator[dict[str, tuple[int, int]]]:
        """A region's cuts along the slowest kept dimension."""
        if self.slowest is None:
            yield {}
            return
        name, cuts = self.slowest[0], self.slowest[1].cuts
        lo, hi = where[name]
        for cut in cuts.covering(lo, hi):
            first, last = cuts.bounds(cut)
            yield {name: (max(first, lo), min(last, hi))}

    def consumers(self, region: Region, names: tuple[str, ...], out: Space, whole: Region) -> Region:
        """See `Access`."""
        at = dict(zip(names, region.bounds, strict=True))
        chunks = list(self.layout.covering(Region(tuple(at[name] for name, _ in self.dims))))
        segments = (chunks[0] // self.run, chunks[-1] // self.run + 1) if chunks else (0, 0)
        full = dict(zip(out.names, whole.bounds, strict=True))
        return Region(tuple(segments if name == SEGMENT else at.get(name, full[name]) for name in out.names))


def cut_into_segments(layout: Layout, dims: tuple[str, ...], kept: tuple[str, ...], *, state_bytes: float,
                      cell_bytes: float, light: bool) -> tuple[Layout, Segments]:
    """The segments of a reduction: enough input for their state, and few enough that merging them is cheap.

    Args:
        layout: how its input is cut.
        dims: reduced dimensions, in the input's order.
        kept: dimensions of its results, in that order.
        state_bytes: of the state of a kept cell, all groups.
        cell_bytes: bytes read for one cell of the input.
        light: whether its results may come in as few chunks as those of a reduction over all dimensions.

    Returns:
        The layout of its results' dimensions, and the segments.
    """
    segments = Segments(tuple((name, layout[name]) for name in dims), _run(layout, dims, kept, state_bytes, cell_bytes))
    first = layout.space.names[0]
    slowest = layout[first]
    small = STATE_SHARE * state_bytes <= math.prod(layout[name].length for name in dims) * cell_bytes
    if not light or not small or first in dims or slowest.blocks or slowest.chunks < 2:
        return layout, segments
    # It has small results, and keeps the slowest dimension: their chunks are as long as the segments of a reduction
    # over that, so that both read the same boxes, chunk by chunk, and go over the data together.
    rest = tuple(name for name in layout.space.names if name != first)
    longer = replace(slowest, run=_run(layout, (first,), rest, 0, cell_bytes))
    if longer.run == 1:
        return layout, segments
    axes = tuple((name, longer if name == first else axis) for name, axis in layout.axes)
    return Layout(axes), replace(segments, slowest=(first, longer))


def _run(layout: Layout, dims: tuple[str, ...], kept: tuple[str, ...], state_bytes: float, cell_bytes: float) -> int:
    """Chunks a segment."""
    chunks = Layout(tuple((name, layout[name]) for name in dims)).chunks
    extents = math.prod(axis.extent for _, axis in layout.axes)
    state = int(max(state_bytes, STATE_FLOOR)) * math.prod(layout[name].extent for name in kept)
    boxes = math.prod(layout[name].chunks for name in kept)
    run = max(1, -(-STATE_SHARE * state // max(int(extents * cell_bytes), 1)), -(-chunks * boxes // SPREAD))
    run = 1 << (run - 1).bit_length()  # seldom another one when the data grows
    return max(1, min(run, max(chunks, 1)))


def boxes_of(segments: Segments, layout: Layout, names: tuple[str, ...]) -> object:
    """What tells which boxes each chunk of a fold reads, in order: equal for folds that read the same ones.

    Args:
        segments: of the fold.
        layout: how the fold's results are cut.
        names: the input's dimensions.
    """
    reduced, count = dict(segments.dims), segments.count
    alone = ("fold", segments, tuple((name, layout[name]) for name in names if name in layout.space))
    if any(name not in reduced and name not in layout.space for name in names):
        return alone
    several = [name for name, axis in segments.dims if axis.chunks > 1]
    runs = {name: segments.run if name in several[:1] else 1 for name in reduced}
    axes = {name: replace(reduced[name], run=runs[name]) if name in reduced else layout[name] for name in names}
    cuts = {name: axis.cuts.chunks for name, axis in axes.items()}
    within = [name for name in names if min(axes[name].run, cuts[name]) > 1]
    if len(several) > 1 or len(within) > 1:  # which comes first isn't told by the axes alone
        return alone
    order = [*several[: int(count > 1)], *(name for name, axis in layout.axes if name in axes and axis.chunks > 1)]
    return ("boxes", tuple(order), tuple((name, axis.parts, axis.extent if cuts[name] > 1 else 0, axis.blocks,
                                          min(axis.run, max(cuts[name], 1))) for name, axis in axes.items()))
