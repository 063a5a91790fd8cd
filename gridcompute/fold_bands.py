"""States of all cells of a chunk that are folded as bands of them, and their results, which take the states' place.

Large ones are written to once: fresh memory costs more than what is computed in it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np

from gridcompute.columns import Array, Fixed
from gridcompute.fold import BLOCK, Fold, States
from gridcompute.threads import each

Stretch = tuple[int, int]
"""Cells from one to before another, of the kept cells in their order."""


class Bands:
    """States of one lane, of bands of cells each of which lies in one stretch.

    Args:
        fold: that they are of.
        cells: all of them.
        groups: of each.
        origin: position of the first value.
    """

    def __init__(self, fold: Fold, cells: int, groups: int, origin: int) -> None:
        self._fold, self._whole = fold, fold.empty(cells, groups, origin=origin, lanes=1, blank=True)
        self._lock = threading.Lock()

    def states(self, stretch: Stretch) -> States:
        """Fresh ones of a band."""
        return self._fold.window(self._whole, *stretch)

    def closed(self, bands: Mapping[Stretch, States], threads: int) -> list[Fixed]:
        """Closed states of all cells, as `Fold.close` gives them: each band's arrays are a part of them already."""
        scheme, found = self._fold.scheme, list(self._whole.arrays)
        if scheme.counted >= 0:
            found.insert(scheme.counted, self._counts(bands, threads))
        return [Fixed(flat.reshape(-1, size)) for flat, (_, _, size) in zip(found, scheme.fields, strict=True)]

    def results(self, bands: Mapping[Stretch, States], threads: int, wanted: Sequence[bool] = ()) -> list[Fixed]:
        """The outputs of all cells, as `Fold.results` gives them but groups x cells; the states are gone.

        Args:
            bands: all of them.
            threads: at most.
            wanted: of each output; one that isn't has the same row for all cells, of any values.
        """
        scheme, shape = self._fold.scheme, (self._whole.groups, self._whole.cells)
        wanted = wanted or (True,) * len(scheme.outputs)
        targets = self._targets(wanted)
        valids: list[Array | None] = [None] * len(targets)
        for _ in each(threads, lambda stretch: self._finish(bands[stretch], stretch[0], targets, valids), bands):
            pass
        found = {i: Fixed(values.reshape(*shape, *values.shape[1:]),
                          None if valid is None else valid.reshape(*shape, *values.shape[1:]))
                 for i, values, valid in zip(scheme.filled, targets, valids, strict=True)}
        return [found[i] if i in found else
                Fixed(self._counts(bands, threads) if want else np.broadcast_to(np.int64(0), shape))
                for i, want in enumerate(wanted)]

    def _counts(self, bands: Mapping[Stretch, States], threads: int) -> Array:
        """The number of values of all cells, groups x cells: one for all cells of a group where none misses any."""
        whole, seen = self._whole, {states.seen.tobytes() for states in bands.values()}
        if len(seen) == 1 and not any(states.holes[0] for states in bands.values()):
            return np.broadcast_to(np.frombuffer(seen.pop(), np.int64)[:, None], (whole.groups, whole.cells))
        counts = np.empty((whole.groups, whole.cells), np.int64)

        def count(stretch: Stretch) -> None:
            for group in range(whole.groups):
                counts[group, slice(*stretch)] = self._counted(bands[stretch], group, 0, None)

        for _ in each(threads, count, bands):
            pass
        return counts

    def _targets(self, wanted: Sequence[bool]) -> list[Array]:
        """Memory of the wanted outputs but counts: that of a state with as many bytes a cell, or else fresh."""
        n, free, targets = self._whole.cells * self._whole.groups, list(self._whole.arrays), []
        for i in self._fold.scheme.filled:
            out = self._fold.scheme.outputs[i]
            if not wanted[i]:
                one = np.zeros((1, *(extent for _, extent in out.dims)), out.dtype)
                targets.append(np.broadcast_to(one, (n, *one.shape[1:])))
                continue
            nbytes = n * out.size * out.dtype.itemsize
            place = next((i for i, array in enumerate(free) if array.nbytes == nbytes), None)
            memory = np.empty(nbytes, np.uint8) if place is None else free.pop(place)
            targets.append(memory.view(out.dtype).reshape(n, *(extent for _, extent in out.dims)))
        return targets

    def _finish(self, states: States, start: int, targets: list[Array], valids: list[Array | None]) -> None:
        """The outputs of a band but counts, a block of cells at a time, each of which is computed in the cache."""
        fold, most = self._fold, min(BLOCK, states.cells)
        outputs = [fold.scheme.outputs[i] for i in fold.scheme.filled]
        outs = [np.empty(most * out.size, np.float32 if out.dtype == np.float16 else out.dtype) for out in outputs]
        there = [np.empty(most * out.size, bool) for out in outputs]
        for group in range(states.groups):
            for lo in range(0, states.cells, BLOCK):
                hi = min(lo + BLOCK, states.cells)
                some = [one[:(hi - lo) * out.size] for one, out in zip(outs, outputs, strict=True)]
                marks = [one[:len(part)] for one, part in zip(there, some, strict=True)]
                for part, mark in zip(some, marks, strict=True):
                    part.fill(0)
                    mark.fill(True)
                fold.finish_cells(self._closed(states, group, lo, hi), some, marks, hi - lo)
                at = group * states.stride + start + lo
                for i, (target, part, mark) in enumerate(zip(targets, some, marks, strict=True)):
                    if not target.flags.writeable:
                        continue
                    target[at:at + hi - lo] = part.reshape(hi - lo, *target.shape[1:])
                    if outputs[i].nullable and not mark.all():
                        self._valid(valids, i, targets[i])[at:at + hi - lo] = mark.reshape(hi - lo, *target.shape[1:])

    def _valid(self, valids: list[Array | None], i: int, target: Array) -> Array:
        with self._lock:
            found = valids[i]
            if found is None:
                found = valids[i] = np.ones(target.shape, bool)
            return found

    def _closed(self, states: States, group: int, lo: int, hi: int) -> list[Array]:
        """All fields of some cells of a group, flat."""
        fold, at = self._fold.scheme, group * states.stride
        sizes = [size for i, (_, _, size) in enumerate(fold.fields) if i != fold.counted]
        parts = [array[(at + lo) * size:(at + hi) * size] for array, size in zip(states.arrays, sizes, strict=True)]
        if fold.counted >= 0:
            parts.insert(fold.counted, self._counted(states, group, lo, hi))
        return parts

    @staticmethod
    def _counted(states: States, group: int, lo: int, hi: int | None) -> Array:
        """The number of values of some cells of a group."""
        at, hi = group * states.stride, states.cells if hi is None else hi
        found = np.full(hi - lo, states.seen[group], np.int64)
        if states.holes[0]:
            found -= states.missing[at + lo:at + hi]
        return found


def stretch_of(band: tuple[tuple[int, int], ...], whole: tuple[tuple[int, int], ...]) -> Stretch | None:
    """Where a part of some cells lies among them in their order; None where it isn't one stretch of them."""
    start, count, cut = 0, 1, False
    for (lo, hi), (base, end) in zip(band, whole, strict=True):
        if cut and (lo, hi) != (base, end):
            return None
        cut = cut or hi - lo != 1
        start, count = start * (end - base) + lo - base, count * (hi - lo)
    return start, start + count
