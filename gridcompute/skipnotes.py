"""Which committed chunks have skipped cells, from one listing: a note lies beside the shard of each that has.

    shards/<first two of the recipe>/<recipe>/<region>-<token>.skipped.json

A note is written before its shard, so that no shard with skipped cells is without one. What counts is what the shard
itself says (its `skipped`); the note's own text is for a shard that was removed once nobody needed it any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from gridcompute.errors import CorruptShardError
from gridcompute.shard import Done, shard_path
from gridcompute.shardfile import read_ends
from gridcompute.skips import Skips, of_text, to_text
from gridcompute.store import Store

META = "skipped"
"""Under which a shard or a record says which cells were skipped."""

_FIRST, _NOTE = ".g0.arrow", ".skipped.json"

At = tuple[str, str]
"""A chunk: its region's text, its token."""


def note(store: Store, recipe: str, at: At, skips: Iterable[Skips]) -> None:
    """Write a chunk's note."""
    store.put(shard_path(recipe, *at).removesuffix(_FIRST) + _NOTE, to_text(skips).encode())


def notes(store: Store, recipe: str) -> dict[At, str]:
    """Paths of a recipe's notes."""
    found: dict[At, str] = {}
    for path, _ in store.list_sizes(shard_path(recipe, "all").rpartition("/")[0]):
        if path.endswith(_NOTE):
            region, _, token = path.rpartition("/")[2].removesuffix(_NOTE).rpartition("-")
            found[region, token] = path
    return found


def read_note(store: Store, path: str, shard: Done | None) -> tuple[Skips, ...]:
    """The skipped cells of a chunk: as its shard says, else as its note does; none where both are broken.

    A broken shard is found, and made anew, when it is read.
    """
    try:
        if shard is not None:
            header = read_ends(partial(store.get_range, shard.path), shard.size, path=shard.path)
            return skips_in(header.meta)
        return of_text(store.get(path).decode())
    except (CorruptShardError, FileNotFoundError, ValueError):
        return ()


def skips_in(meta: Mapping[str, str]) -> tuple[Skips, ...]:
    """The skipped cells that a shard or a record tells of (ValueError for what isn't such a text)."""
    return of_text(meta[META]) if META in meta else ()
