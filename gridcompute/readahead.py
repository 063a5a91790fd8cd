"""What a task's next chunk reads from outside, read by a thread while the chunk before it is computed and written.

It pays where reading waits: for a remote store, or where a worker has a second core. The bits are the same: a block is
read by the same call, and an error that reading raised is raised where the block is wanted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from gridcompute.actions.loads import Load
from gridcompute.columns import Block
from gridcompute.op import Op
from gridcompute.spaces import Region

Loads = dict[tuple[str, Region], tuple[Op, Region]]


def loads(roots: Iterable[tuple[Op, Region]], kept: Collection[str]) -> Loads:
    """The regions of sources that computing regions of ops reads, each once.

    Args:
        roots: ops with a region of each.
        kept: recipes of the ops whose results lie in a store.
    """
    found: Loads = {}
    seen, stack = set[tuple[str, Region]](), list(roots)
    while stack:
        one, part = stack.pop()
        if isinstance(one.action, Load):
            found[one.recipe, part] = (one, part)
            continue
        for i, source in enumerate(one.inputs):
            new = {(source.recipe, box) for box in one.reads(i, part) if box.cells} - seen
            seen |= new
            if source.recipe not in kept:
                stack += [(source, box) for _, box in new]
    return found


def waits(ops: Iterable[Op]) -> bool:
    """Whether some of the ops read from sources that answer after a while: from another machine."""
    return any(isinstance(op.action, Load) and getattr(op.action.source, "remote", False) for op in ops)


class ReadAhead:
    """Blocks that are being read for the next chunk; a context: what nobody took is forgotten at its end."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._now: dict[tuple[str, Region], Future[Block]] = {}
        self._next: dict[tuple[str, Region], Future[Block]] = {}
        self._useful = True

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *error: object) -> None:
        for future in (*self._now.values(), *self._next.values()):
            future.cancel()
        self._pool.shutdown()

    def turn(self, following: Loads) -> None:
        """A chunk begins: what was read for it may be taken, and what the one after it reads is begun.

        An op may read its box in pieces; then what was read ahead stays, and nothing more is.
        """
        self._useful &= not self._now
        self._now, self._next = self._next, {}
        if self._useful:
            self._next = {key: self._pool.submit(_block, *load) for key, load in following.items()
                          if key not in self._now}

    def take(self, recipe: str, region: Region) -> Block | None:
        """A block of this chunk, once; None for one that wasn't read ahead."""
        future = self._now.pop((recipe, region), None)
        return None if future is None else future.result()


def _block(op: Op, region: Region) -> Block:
    def read(i: int, part: Region) -> Block:
        raise AssertionError(f"{op} has no inputs")

    return op.action.compute(op, region, read)

