"""States of an `iterate` or a `propagate` on its way, kept in the work store: a run goes on from the last of them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence

from gridcompute.columns import Block, Field
from gridcompute.digests import digest
from gridcompute.errors import CorruptShardError
from gridcompute.shard import commit, done, read_shard, tombstone
from gridcompute.spaces import Region, Space
from gridcompute.store import Store

EVERY_SECONDS = 30.0
SHARE = 50.0
"""Keeping a state may take so much less than the steps since the last."""


class Checkpoints:
    """The kept states of one op.

    Args:
        store: the work store.
        recipe: the op's.
        token: of the objects that it reads.
        region: the whole space.
        fields: of the state.
        space: of the state.
    """

    def __init__(self, store: Store, recipe: str, token: str, region: Region, fields: Sequence[Field],
                 space: Space) -> None:
        self.store, self.token, self.region, self.fields, self.space = store, token, region, fields, space
        self.recipe = digest(("checkpoint", recipe))
        self._last, self._cost = time.monotonic(), 0.0

    def _found(self) -> list[tuple[int, str, int]]:
        """Steps, paths and generations of what is there, the latest first."""
        found = []
        for (region, token), entry in done(self.store, self.recipe).items():
            name, _, step = token.rpartition("s")
            if name == self.token and region == str(self.region) and step.isdigit():
                found.append((int(step), entry.path, entry.generation))
        return sorted(found, reverse=True)

    def latest(self) -> tuple[int, Block] | None:
        """The last state that verifies, with the number of steps that led to it."""
        for step, path, generation in self._found():
            try:
                block, _ = read_shard(self.store, self.recipe, self.region, f"{self.token}s{step}",
                                      generation=generation)
                return step, block
            except CorruptShardError as error:
                tombstone(self.store, path, error.message)
            except FileNotFoundError:  # another run of the same recipe has gone on
                continue
        return None

    def due(self) -> bool:
        """Whether it is time to keep a state."""
        return time.monotonic() - self._last >= max(EVERY_SECONDS, SHARE * self._cost)

    def keep(self, step: int, state: Callable[[], Block]) -> None:
        """Keep the state after so many steps; those before it are no longer needed."""
        began, before = time.monotonic(), self._found()
        commit(self.store, self.recipe, f"{self.token}s{step}", state(), self.fields, self.space)
        self._remove(path for at, path, _ in before if at < step)
        self._last = time.monotonic()
        self._cost = self._last - began

    def clear(self) -> None:
        """Remove all of them: the result is committed."""
        self._remove(path for _, path, _ in self._found())

    def _remove(self, paths: Iterable[str]) -> None:
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                self.store.delete(path)
