"""What is computed from reductions alone, cell by cell: it runs where they end, and they need no place in a store.

A standard deviation that is the root of a variance, the spread of anomalies from the moments of days: such ops read a
reduction's cells only, each at its own place. So a task that has folded a chunk computes them at once, and keeps these
instead of what they are made of.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from gridcompute.access import Whole
from gridcompute.actions.folds import Fold
from gridcompute.actions.maps import Elementwise, Map
from gridcompute.actions.shapes import Choose, Transpose
from gridcompute.actions.writes import Write
from gridcompute.axes import Axis, Layout
from gridcompute.cost import SHARED_BYTES
from gridcompute.op import Op
from gridcompute.segments import boxes_of


class Endings:
    """The reductions of a lowered graph that are read where they end, and nowhere else.

    Args:
        ops: all lowered ops, inputs first.
        asked: ids of those whose results are asked for.
        layouts: how each is cut, by its id.
        kept: ids of those that are kept.

    Attributes:
        folds: those reductions, by id: they needn't be kept.
        roots: what is kept instead: the layout of each op, by its id.
    """

    def __init__(self, ops: Collection[Op], asked: Collection[int], layouts: Mapping[int, Layout],
                 kept: Collection[int]) -> None:
        self._layouts, self._kept = layouts, set(kept)
        self._readers: dict[int, list[tuple[Op, int]]] = {}
        self.folds = {id(op): op for op in ops if isinstance(op.action, Fold) and op.action.last
                      and id(op) in self._kept and id(op) not in asked}
        self.roots: dict[int, Layout] = {}
        if not self.folds:
            return
        for op in ops:
            for i, source in enumerate(op.inputs):
                self._readers.setdefault(id(source), []).append((op, i))
        tops = {key: self._tops(op) for key, op in self.folds.items()}
        self._ends = {id(top) for some in tops.values() for top in some}
        while bad := {key for key in self.folds if not tops[key] or not all(map(self._ends_here, tops[key]))}:
            self.folds = {key: op for key, op in self.folds.items() if key not in bad}
        self.roots = {id(top): self._layout(top) for key in self.folds for top in tops[key]}

    def _tops(self, fold: Op) -> list[Op]:
        """The ops to be kept instead of a fold; none where it is read otherwise too."""
        tops, stack, seen = dict[int, Op](), [fold], {id(fold)}
        while stack:
            op = stack.pop()
            for reader, i in self._readers.get(id(op), ()):
                if isinstance(reader.action, Write) and op is not fold:
                    tops[id(op)] = op
                elif not _in_place(fold, reader, i):
                    return []
                elif id(reader) in self._kept:
                    tops[id(reader)] = reader
                elif id(reader) not in seen:
                    seen.add(id(reader))
                    stack.append(reader)
        return list(tops.values())

    def _behind(self, top: Op) -> tuple[list[Op], list[Op]]:
        """The folds that end in an op, and all else that is read or computed for it."""
        ops = [op for op in top.walk(lambda op: op is not top and id(op) in self._kept) if op is not top]
        return [op for op in ops if id(op) in self.folds], [op for op in ops if id(op) not in self.folds]

    def _ends_here(self, top: Op) -> bool:
        """Whether all that an op reads goes over the same boxes, and isn't smaller than what would be kept."""
        folds, others = self._behind(top)
        if self._again(top):
            return False
        before = {id(op) for fold in folds for op in fold.walk(lambda op: id(op) in self._kept and op not in folds)}
        size = sum(fold.whole.cells * fold.cell_bytes for fold in folds)
        boxes = {self._boxes(fold) for fold in folds}
        return len(boxes) == 1 and None not in boxes and all(_small(op, self._kept) for op in others) and (
            {id(op) for op in others} & self._kept <= before) and (
            id(top) in self._kept or top.whole.cells * top.cell_bytes < size)

    def _again(self, top: Op) -> bool:
        """Whether an op reads reductions beside what ends in another op: it would go over the data after that one."""
        stop = (self._kept | self._ends) - {id(top)}
        near = [op for op in top.walk(lambda op: id(op) in stop) if op is not top]
        return any(id(op) in self.folds for op in near) and any(id(op) in self._ends for op in near)

    def _boxes(self, fold: Op) -> object:
        """What tells the boxes that a fold reads, and the dimensions that it keeps; None where not by axes alone."""
        assert isinstance(fold.action, Fold)
        boxes = boxes_of(fold.action.segments, self._layouts[id(fold)], fold.inputs[0].space.names)
        return (fold.action.kept, boxes) if isinstance(boxes, tuple) and boxes[0] == "boxes" else None

    def _layout(self, top: Op) -> Layout:
        """Cut as the folds that end in it are."""
        fold = self._behind(top)[0][0]
        assert isinstance(fold.action, Fold)
        cut = self._layouts[id(fold)]
        return Layout.of({name: cut[name] if name in fold.action.kept else Axis((n or 0,), extent=max(n or 1, 1))
                          for name, n in top.space.dims})


def chosen(op: Op) -> bool:
    """Whether an op's columns are those of reductions, and lie where these have put them."""
    return isinstance(op.action, Choose) and all(isinstance(source.action, Fold) for source in op.inputs)


def _small(op: Op, kept: Collection[int]) -> bool:
    """Whether a task that folds may have an op beside its folds: its memory is theirs, and its chunks may be few."""
    read = id(op) in kept or not op.inputs
    return op.whole.cells * op.cell_bytes <= SHARED_BYTES if read else op.action.parallel <= 1


def _in_place(fold: Op, reader: Op, i: int) -> bool:
    """Whether each cell of an op reads what a fold gives at the same place, and any region of it can be computed."""
    action, access = reader.action, reader.accesses[i]
    assert isinstance(fold.action, Fold)
    kept = set(fold.action.kept)
    if not isinstance(action, Map | Elementwise | Choose | Transpose) or action.aligned or action.parallel > 1 \
            or not isinstance(access, Whole) or not reader.space.known:
        return False
    if kept & ({name for name, _ in access.dims} | action.whole):
        return False
    new = set(reader.space.names) - set(fold.space.names) - action.whole
    order = tuple(name for name in reader.space.names if name in kept)
    return not new and order == fold.action.kept and all(not f.ragged and kept <= set(f.dims) for f in reader.fields)
