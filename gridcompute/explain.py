"""A plan for people: what will be read, computed and kept, and in how much memory, before anything runs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any

from gridcompute.actions.folds import GROUP, Fold, Merge
from gridcompute.actions.maps import Elementwise, Map
from gridcompute.actions.shapes import Choose
from gridcompute.actions.writes import Write
from gridcompute.bounds import Parts, abreast, fitting, needs, planned_parts
from gridcompute.errors import GridError
from gridcompute.footprint import USUAL_BYTES, WORKER_BYTES
from gridcompute.intermediates import disposable
from gridcompute.op import Op
from gridcompute.outputs import outputs_of, sink_of
from gridcompute.places import occupied
from gridcompute.planning import Plan, Stage
from gridcompute.reasons import committed, earlier, previous, reason
from gridcompute.record import RunRecord
from gridcompute.secrecy import redacted, redacted_values
from gridcompute.sinks.base import EXISTS_HINT
from gridcompute.spaces import Space
from gridcompute.status import counted, size
from gridcompute.store import Store
from gridcompute.timing import rates, remaining_seconds


class Planned:
    """What a run would do.

    Args:
        plan: its first phase.
        workers: cores it would use.
        memory: bytes that a worker may take, 0 for no bound.
        store: the work store, to say what is committed already.
        how: the origin, to say what changed since its last run (see `gridcompute.origins`).
        overwrite: URLs of outputs that replace what lies there.

    Raises:
        MemoryBoundError: it can't fit.
    """

    def __init__(self, plan: Plan, *, workers: int, memory: int, store: Store | None = None,
                 how: Mapping[str, Any] | None = None, overwrite: Collection[str] = ()) -> None:
        self.plan, self.workers, self.memory, self.overwrite = plan, workers, memory, frozenset(overwrite)
        self._store, self._how = store, how
        self.parts: Mapping[int, Parts] = planned_parts(plan, memory)

    @property
    def tasks(self) -> int:
        """Chunks in all (tasks are runs of them)."""
        return sum(stage.chunks for stage in self.plan.stages)

    @property
    def peak_bytes(self) -> int:
        """Most bytes that a worker needs, its base included."""
        return max(map(self._need, self.plan.stages), default=WORKER_BYTES)

    @property
    def usual_bytes(self) -> int:
        """Bytes that a worker is estimated to have at its peak."""
        return self.peak_bytes - WORKER_BYTES + USUAL_BYTES

    def _need(self, stage: Stage) -> int:
        return needs(stage, self._parts(stage), self._threads(stage), self.memory)

    def _threads(self, stage: Stage) -> int:
        """That a task has of workers which would have nothing to do, as far as its memory lets it."""
        if self._parts(stage) > 1 or not stage.peak.thread:
            return 1
        return fitting(stage, abreast(stage, self.workers), self.memory)

    def _parts(self, stage: Stage) -> int:
        return self.parts[stage.number].number if stage.number in self.parts else 1

    @cached_property
    def found(self) -> tuple[int | None, ...]:
        """Per stage, chunks that are committed already; None where results are held or the store can't be asked."""
        if self._store is None:
            return (None,) * len(self.plan.stages)
        try:
            return tuple(committed(self.plan, stage, self._store) for stage in self.plan.stages)
        except (GridError, OSError):  # a plan is shown all the same; the run will say what is wrong with the store
            return (None,) * len(self.plan.stages)

    @cached_property
    def reasons(self) -> tuple[str, ...]:
        """Per stage, a line on what is committed and why the rest isn't."""
        if self._store is None:
            return ("",) * len(self.plan.stages)
        store, before = self._store, previous(self._earlier, self._store)
        return tuple(reason(self.plan, stage, self._ops(stage), found, before, store, stage.number in self._over)
                     for stage, found in zip(self.plan.stages, self.found, strict=True))

    @cached_property
    def _over(self) -> frozenset[int]:
        """Stages that aren't needed any more, as all that reads them is committed."""
        over: set[int] = set()
        for stage in reversed(self.plan.stages):
            readers = [n for n, producers in enumerate(self.plan.producers) if stage.number in producers]
            if readers and stage.number not in self.plan.goals and all(
                    n in over or self.found[n] == self.plan.stages[n].chunks for n in readers):
                over.add(stage.number)
        return frozenset(over)

    @cached_property
    def conflicts(self) -> tuple[tuple[str, str], ...]:
        """Outputs that a run would refuse to write, and what is in their way (of a final phase)."""
        found = []
        with contextlib.suppress(GridError, OSError):  # the run will say what is wrong with the place
            outputs = outputs_of(self.plan)
            for op in {op.recipe: op for _, op in self.plan.sinks}.values():
                sink = sink_of(op)
                if sink.url not in self.overwrite and (why := occupied(sink, outputs[op.recipe].target.recipe)):
                    found.append((sink.url, why))
        return tuple(found)

    @cached_property
    def seconds(self) -> float | None:
        """Seconds that the chunks left will take, going by earlier runs; None where there were none."""
        if self._store is None or self._how is None or not self.plan.final:
            return None
        found = [stage.chunks if stage.number in self._over else found
                 for stage, found in zip(self.plan.stages, self.found, strict=True)]
        return remaining_seconds(self.plan, found, self.workers, rates(self._earlier))

    @property
    def intermediate_bytes(self) -> int:
        """Bytes of committed results that are deleted as soon as nothing needs them: the work store's at most."""
        return sum(self.plan.stages[number].write_bytes for number in disposable(self.plan))

    @cached_property
    def _earlier(self) -> tuple[RunRecord, ...]:
        """Earlier runs of the same, latest first."""
        return () if self._how is None else tuple(
            earlier(redacted_values(self._how), redacted_values(self.plan.graph.canonical()), os.getcwd()))

    def _ops(self, stage: Stage) -> list[Op]:
        return [op for root in stage.roots for op in (*self._fused(root), root)]

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        return {
            "workers": self.workers, "chunks": self.tasks, "peak_bytes_per_worker": self.peak_bytes,
            "usual_bytes_per_worker": self.usual_bytes,
            "intermediate_bytes": self.intermediate_bytes,
            "memory_bound_per_worker": self.memory, "seconds": self.seconds, "final": self.plan.final,
            "counted_first": [str(op) for op in self.plan.lowered.pending],
            "stages": [self._stage(stage) for stage in self.plan.stages],
            "conflicts": [{"output": url, "reason": why} for url, why in self.conflicts],
        }

    def _stage(self, stage: Stage) -> dict[str, Any]:
        return {
            "number": stage.number + 1, "name": stage.name, "chunks": stage.chunks, "kept": kept_as(stage),
            "reads_stages": sorted(n + 1 for n in self.plan.producers[stage.number]),
            "fused": list(dict.fromkeys(str(op) for root in stage.roots for op in self._fused(root))),
            "space": str(stage.roots[0].space),
            "extents": {name: axis.extent * axis.run for name, axis in stage.layouts[0].axes},
            "read_bytes": stage.read_bytes, "write_bytes": stage.write_bytes,
            "chunk_bytes": self._need(stage) - WORKER_BYTES, "parts": self._parts(stage),
            "threads": self._threads(stage),
            "recipes": [op.recipe for op in stage.roots], "committed": self.found[stage.number],
            "reason": self.reasons[stage.number],
        }

    def _fused(self, op: Op) -> list[Op]:
        found: dict[int, Op] = {}
        stack = [op]
        while stack:
            for source in stack.pop().inputs:
                if id(source) not in self.plan.home and id(source) not in found:
                    found[id(source)] = source
                    stack.append(source)
        return [step for step in op.walk() if id(step) in found]

    def _work(self, stage: Stage) -> str:
        """What a stage reads, and what is computed on the way, as people would say it."""
        fused = [op for root in stage.roots for op in self._fused(root)]
        reads = [f"stage {n + 1}" for n in sorted(self.plan.producers[stage.number])]
        reads += [f.name for op in (*fused, *stage.roots) if not (op.inputs or isinstance(op.action, Map))
                  for f in op.fields]  # a kernel over a bare space reads nothing
        steps = [_words(op) for op in fused if (op.inputs or isinstance(op.action, Map))
                 and not isinstance(op.action, Choose)]
        way = f", computes {', '.join(dict.fromkeys(steps))} on the way" if steps else ""
        way += "".join(f", goes {op.action.remark} ({size(op.action.held_bytes)})" for op in (*fused, *stage.roots)
                       if op.action.remark)
        way += ", skips cells that fail" if stage.skips else ""
        return (f"reads {size(stage.read_bytes)} of {', '.join(dict.fromkeys(reads))}" if reads else
                "reads nothing") + way

    def explain(self) -> str:
        """The plan as text that fits on a screen."""
        time = ""
        if self.seconds is not None:
            time = f", about {self.seconds:,.1f} s on {counted(self.workers, 'core')} going by earlier runs"
        lines = [f"{counted(len(self.plan.stages), 'stage')}, {counted(self.tasks, 'chunk')}, "
                 f"about {size(self.usual_bytes)} per worker, at most {size(self.peak_bytes)}{time}"]
        for stage in self.plan.stages:
            facts = self._stage(stage)
            space = Space(tuple((name, n) for name, n in stage.roots[0].space.dims if not _internal(name, n)))
            chunks = counted(stage.chunks, "chunk")
            if stage.chunks != 1:
                chunks += " of (" + ", ".join(f"{name} {facts['extents'][name]}" for name in space.names) + ")"
            lines.append(f"  {facts['number']}. {facts['name']} -> {space} in {chunks}")
            lines.append(f"     {self._work(stage)}; {facts['kept']}, {size(stage.write_bytes)}")
            if stage.number in self.parts:
                lines.append(f"     each chunk {self.parts[stage.number]}")
            if facts["threads"] > 1:
                lines.append(f"     each chunk on {facts['threads']} cores, {size(stage.peak.thread)} for each")
            if facts["reason"]:
                lines.append(f"     {facts['reason']}")
        if self.intermediate_bytes:
            lines.append(f"  at most {size(self.intermediate_bytes)} of that are intermediate results, deleted once "
                         "nothing needs them")
        if not self.plan.final:
            names = ", ".join(str(op) for op in self.plan.lowered.pending)
            lines.append(f"  then the rest, planned when the cells of {names} have been counted")
        lines += [f"  a run would be refused: {url} {why}; {EXISTS_HINT}" for url, why in self.conflicts]
        return redacted("\n".join(lines))

    def __str__(self) -> str:
        return self.explain()

    __repr__ = __str__


def _words(op: Op) -> str:
    """An op as the user wrote it: "t2m - 273.15", or its name."""
    return str(op.action if isinstance(op.action, Elementwise) else op)


def _internal(name: str, length: int | None) -> bool:
    """Whether a dimension is one of segment states, which aren't the user's."""
    return name.startswith("state_") or (name == GROUP and length == 1)


def kept_as(stage: Stage) -> str:
    """How a stage's results are kept, in words."""
    if any(isinstance(op.action, Write) for op in stage.roots):
        return "written in place"
    if stage.held:
        return "held in memory"
    if any(isinstance(op.action, Fold | Merge) and not op.action.last for op in stage.roots):
        return "committed as segment states"
    return "committed"
