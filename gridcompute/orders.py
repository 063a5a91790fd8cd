"""What is sent to workers: what a stage is, once, and its tasks one by one.

Kept ops are looked up by recipe, so the same payload means the same in every process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from gridcompute.axes import Layout
from gridcompute.columns import Field
from gridcompute.errors import RunError
from gridcompute.events import Task, TaskDone, TaskFailed
from gridcompute.op import detached
from gridcompute.planning import Plan, Stage
from gridcompute.progressword import Word
from gridcompute.sinks.base import Output
from gridcompute.spread import Offer
from gridcompute.store import Store


@dataclass(frozen=True)
class KeptOp:
    """How the results of a kept op of another stage are read."""

    stage: int
    layout: Layout
    fields: tuple[Field, ...]


@dataclass(frozen=True, eq=False)
class Payload:
    """What a worker needs to know of a stage; sent once.

    Attributes:
        stage: its ops and layouts.
        kept: results that it reads, by recipe.
        store: URL of the work store.
        options: the store's.
        outputs: prepared outputs of the ops that write, by recipe.
        threads: that a worker reads and decodes with.
        offer: asks for processes on several nodes, for what one task carries on all of them; None: there is one node.
        worth: seconds that such a task must have left for that.
        memory: bytes that a worker may take in all, 0 for no bound.
        deadline: seconds that a task may take.
    """

    stage: Stage
    kept: Mapping[str, KeptOp]
    store: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    outputs: Mapping[str, Output] = field(default_factory=dict)
    threads: int = 1
    offer: Offer | None = None
    worth: float = 0.0
    memory: int = 0
    deadline: float = 3600.0

    @classmethod
    def of(cls, plan: Plan, stage: Stage, store: Store, outputs: Mapping[str, Output], threads: int = 1, *,
           memory: int = 0, deadline: float = 3600.0) -> Payload:
        """The payload of one stage of a plan."""
        kept = {}
        for root in stage.roots:
            for leaf in plan.leaves(root):
                home = plan.home.get(id(leaf))
                if home is not None:
                    kept[leaf.recipe] = KeptOp(home[0], plan.stages[home[0]].layouts[home[1]], leaf.fields)
        roots = detached(stage.roots, lambda op: op not in stage.roots and op.recipe in kept)
        return cls(replace(stage, roots=roots), kept, store.url, getattr(store, "options", {}), outputs, threads,
                   memory=memory, deadline=deadline)


@dataclass(frozen=True, eq=False)
class Order:
    """One task with what only the driver knows.

    Attributes:
        task: stage and chunks.
        tokens: per chunk, one token a root.
        roots: per chunk, the roots that aren't kept yet.
        places: shard (or held block, or a reference to it) of each input chunk, by (recipe, chunk).
        word: where the task publishes its progress.
        fault: what goes wrong on purpose while it is carried out.
    """

    task: Task
    tokens: tuple[tuple[str, ...], ...]
    roots: tuple[tuple[int, ...], ...]
    places: Mapping[tuple[str, int], Any]
    word: Word | None = None
    fault: Trouble | None = None


class Trouble(Protocol):
    """Carries out orders with faults injected; see `gridcompute.testing.injecting`."""

    def carry_out(self, worker: Any, order: Order, name: str) -> TaskDone | TaskFailed:
        """Do an order in place of a worker."""
        ...


class LostInputError(RunError):
    """An input shard is gone or doesn't verify; it must be made again."""

    def __init__(self, message: str, stage: int, chunk: int) -> None:
        super().__init__(message)
        self.stage = stage
        self.chunk = chunk
