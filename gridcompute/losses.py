"""What is said of a task that gave no answer: its worker died, was killed for memory, or passed the deadline."""

from __future__ import annotations

from dataclasses import replace

from gridcompute.actions.rows import Explode
from gridcompute.errors import DeadlineError, OutOfMemoryError, RunError, WorkerLostError
from gridcompute.events import Failure, Kept, Task, TaskFailed
from gridcompute.located import cell_of, chunk_of, loop_of, read_for
from gridcompute.op import Op
from gridcompute.planning import Stage
from gridcompute.progressword import Mark
from gridcompute.skips import in_words

SILENT = ("lost_worker", "out_of_memory", "hang")
"""Kinds of failure of which the worker itself could report nothing."""

_REPLAY = "gridcompute replay RUN CELL runs the kernel on that cell in a process of its own"

_HINTS = {
    "lost_worker": "a process that dies in the same cell each time has a fault in its kernel or in a library that it "
                   f'calls: {_REPLAY}; on_error="skip" leaves such cells out',
    "out_of_memory": "use fewer workers, give more by memory=, or make the cells smaller",
    "hang": f'{_REPLAY} to see whether it ends; raise deadline= if it only takes long; on_error="skip" leaves such '
            "cells out",
}  # fmt: skip


def overdue(task: Task, deadline: float) -> TaskFailed:
    """The event of a task that ran past its deadline."""
    return TaskFailed(task.number, Failure("hang", f"it ran longer than the deadline of {deadline:g} s"))


def named(event: TaskFailed, task: Task, stage: Stage, mark: Mark | None, kept: tuple[Kept, ...], *, memory: int = 0,
          most: int = 1) -> TaskFailed:
    """The event of a silent failure, with the op, chunk and cell that the task had published, and what it had kept.

    Args:
        event: as the executor, or the deadline, gave it.
        task: which it was.
        stage: of the task.
        mark: what it published last, where that could be read.
        kept: chunks of the task that are found committed.
        memory: bytes that a worker may take, 0 for no bound.
        most: parts that the chunk can be computed in.
    """
    done = {item.chunk for item in kept}
    left = [chunk for chunk in task.chunks if chunk not in done]
    known = mark.chunk if mark is not None else event.failure.chunk
    chunk = known if known in left else left[0] if len(left) == 1 else -1
    where = f"stage {stage.name}"
    if chunk >= 0:
        region = stage.layouts[0].region(chunk)
        ranges = chunk_of(stage.roots[0].space, region)
        where += f", chunk {chunk}" + (f" ({ranges})" if ranges else "")
        if mark is not None and mark.chunk == chunk and mark.op:
            where += f", in {mark.op}{_cell(stage, mark)}"
    else:
        where += f", one of the chunks {', '.join(map(str, left[:8]))}{' ...' if len(left) > 8 else ''}"
    cell = mark.cell if mark is not None and mark.chunk == chunk else None
    failure = event.failure
    what = {"lost_worker": "a worker was lost", "out_of_memory": "a worker ran out of memory", "hang": "a task hangs"}
    hint, figures = _HINTS[failure.kind].replace("CELL", _words(stage, mark) if cell and mark else "CELL"), ""
    if failure.kind == "out_of_memory":
        figures = _figures(failure, task, memory)
        if task.parts >= most:
            hint += f"; this chunk can't be computed in {'more ' * (most > 1)}parts"
    message = f"{what[failure.kind]} in {where}{figures}: {failure.message}"
    kinds: dict[str, type[RunError]] = {"hang": DeadlineError, "out_of_memory": OutOfMemoryError}
    error = kinds.get(failure.kind, WorkerLostError)(message, hint=hint)
    return replace(event, kept=kept, failure=replace(failure, message=message, chunk=chunk, cell=cell, error=error))


def _figures(failure: Failure, task: Task, memory: int) -> str:
    """How much a task that ran out of memory had, and might have had, in words."""
    said = f", computed in {task.parts} parts" if task.parts > 1 else ""
    had = [f"it had {failure.peak_bytes / 2**20:,.0f} MiB"] if failure.peak_bytes else []
    had += [f"a worker may take {memory / 2**20:,.0f} MiB"] if memory else []
    return said + (f" ({', '.join(had)})" if had else "")


def _cell(stage: Stage, mark: Mark) -> str:
    """The cell that a task had published, in words."""
    if mark.cell is None:
        return ""
    op = _op(stage, mark)
    return f" at cell {mark.cell}" if op is None else f" at {cell_of(op, mark.cell)}{read_for(op, mark.cell)}"


def _words(stage: Stage, mark: Mark) -> str:
    """The cell as `replay` takes it; "CELL" where its dimensions aren't known."""
    op = _op(stage, mark)
    if op is None or mark.cell is None:
        return "CELL"
    space = op.inputs[0].space if isinstance(op.action, Explode) else op.space
    return in_words(loop_of(op), mark.cell, -1 if space.known else mark.chunk)


def _op(stage: Stage, mark: Mark) -> Op | None:
    """The op whose kernel was running."""
    return next((op for root in stage.roots for op in root.walk()
                 if mark.cell is not None and str(op) == mark.op and len(loop_of(op)) == len(mark.cell)), None)
