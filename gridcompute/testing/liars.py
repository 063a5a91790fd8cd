"""Workers that give wrong values: an executor whose tasks run on nodes that aren't there, one of which flips bits."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gridcompute.columns import Block, Column, Fixed, Ragged
from gridcompute.events import Event, TaskDone, TaskFailed
from gridcompute.executor import InlineExecutor
from gridcompute.op import Op
from gridcompute.orders import Order, Payload
from gridcompute.spaces import Region
from gridcompute.store import Store
from gridcompute.worker import StageWorker

DEFAULT = ("A", "B", "C")


def flipped(block: Block, draw: random.Random) -> Block:
    """A block with one bit of one value changed; as it was where it has no values."""
    names = [name for name, column in block.columns.items() if column.values.size]
    if not names:
        return block
    name = draw.choice(sorted(names))
    column = block.columns[name]
    values = column.values.copy()
    flat = values.reshape(-1)
    at = draw.randrange(flat.size)
    if flat.dtype.kind == "b":
        flat[at] = not flat[at]
    else:
        flat[at : at + 1].view(np.uint8)[draw.randrange(min(flat.dtype.itemsize, 2))] ^= 1
    bent: Column = Ragged(column.offsets, values, column.valid) if isinstance(column, Ragged) else Fixed(
        values, column.valid)
    return replace(block, columns={**block.columns, name: bent})


class _Liar(StageWorker):
    """A worker that flips a bit of some of its results, before anybody takes a digest of them."""

    def __init__(self, payload: Payload, store: Store | None, draw: random.Random, rate: float) -> None:
        super().__init__(payload, store)
        self.draw, self.rate, self.lies = draw, rate, 0

    def _bent(self, block: Block) -> Block:
        if self.draw.random() >= self.rate:
            return block
        self.lies += 1
        return flipped(block, self.draw)

    def _root(self, op: Op, region: Region, memo: dict[tuple[str, Region], Block], token: str) -> Block:
        return self._bent(super()._root(op, region, memo, token))

    def reduced(self, wanted: Sequence[tuple[Op, Region]]) -> Iterator[Block]:
        return map(self._bent, super().reduced(wanted))


class LyingExecutor(InlineExecutor):
    """`InlineExecutor` that says its tasks run on several nodes, one process each; one of them lies.

    What a file's ingestion gives isn't bent.

    Args:
        liar: the node whose results are wrong.
        rate: share of its results that are.
        seed: of which ones.
        nodes: names of all nodes.
        options: of `InlineExecutor`.

    Attributes:
        did: orders by node.
    """

    name = "lying"

    def __init__(self, *, liar: str = "B", rate: float = 1.0, seed: int = 0, nodes: Sequence[str] = DEFAULT,
                 **options: Any) -> None:
        super().__init__(**options)
        self._liar, self._rate, self._draw, self._nodes = liar, rate, random.Random(seed), list(nodes)
        self._liars: Mapping[int, _Liar] = {}
        self._lies = 0
        self.did: dict[str, list[Order]] = {node: [] for node in nodes}

    @property
    def lies(self) -> int:
        """Results that were bent so far."""
        return self._lies + sum(liar.lies for liar in self._liars.values())

    def begin(self, payloads: Sequence[Payload]) -> None:
        """See `Executor`."""
        super().begin(payloads)
        self._lies = self.lies
        self._liars = {p.stage.number: _Liar(p, self._store, self._draw, self._rate) for p in payloads}

    def poll(self, timeout: float) -> list[Event]:
        """See `Executor`: does one task, somewhere."""
        if not self._orders:
            return []
        order = self._orders.pop(0 if self._random is None else self._random.randrange(len(self._orders)))
        turn = order.task.turn
        allowed = [node for node in self._nodes if node not in turn.barred]
        node = self._draw.choice([one for one in allowed if one not in turn.avoid] or allowed)
        self.did[node].append(order)
        workers: Mapping[int, StageWorker] = self._liars if node == self._liar else self._stages
        event: TaskDone | TaskFailed = workers[order.task.stage].run(order, f"host-{node}:1")
        return [replace(event, node=node)]
