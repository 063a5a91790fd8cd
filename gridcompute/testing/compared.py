"""What a job has left behind, by name and digest, and whether anything of it shouldn't be there."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gridcompute.destined import Destined
from gridcompute.errors import CorruptShardError
from gridcompute.running import Run
from gridcompute.shard import TOMBSTONE, decode_at, parse_shard_name, tombstone
from gridcompute.shardfile import read_header
from gridcompute.store import Store, open_store

_GENERATION = re.compile(r"\.g\d+\.arrow$")

LEFT_OVER = (".tmp-*", "progress-*", "*.partial-*", ".gridcompute-recipe", ".*lease*")
"""Names of what a job that has ended leaves nowhere."""


@dataclass(frozen=True)
class Audit:
    """What is in a work store that a sound job doesn't leave there.

    Attributes:
        doubled: shards that were committed again though the generation before isn't void.
        void: shards that were declared void.
        left: temporary files and the like.
    """

    doubled: tuple[str, ...]
    void: tuple[str, ...]
    left: tuple[str, ...]


def results(run: Run, outputs: Sequence[Any]) -> dict[str, str]:
    """Digests of all that a run was asked for: of each shard's content, of each file's bytes in an output.

    Raises:
        CorruptShardError: shards don't verify (the first of them); all are void by now, so that the next run makes
            them anew.
    """
    found: dict[str, str] = {}
    broken: list[CorruptShardError] = []
    for i, output in enumerate(outputs):
        if isinstance(output, Destined):
            found.update({f"output {i}: {name}": text for name, text in files(Path(output.sink.url))})
            continue
        source: Any = run[i]._source
        store = open_store(source.store, **source.options)
        for entry in source.entries:
            try:
                found[f"output {i}: {_plain(entry.place)}"] = _verified(store, entry.place)
            except CorruptShardError as error:
                broken.append(error)
    if broken:
        raise broken[0]
    return found


def files(folder: Path) -> Iterator[tuple[str, str]]:
    """The files of an output with the digests of their bytes; names that begin with a dot are none of it."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            yield str(name), hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def shards(store: Store) -> dict[str, str]:
    """Digests of all shards of a work store that aren't void and verify; one that is broken is read by nobody."""
    names = list(store.list("shards"))
    void = {name.removesuffix(TOMBSTONE) for name in names if name.endswith(TOMBSTONE)}
    found = {}
    for name in names:
        if name.endswith(".arrow") and name not in void and parse_shard_name(name) is not None:
            try:
                raw = store.get(name)
                decode_at(raw, name)
            except CorruptShardError:
                continue
            found[_plain(name)] = read_header(raw, path=name).digest
    return found


def audit(store: Store, folder: Path) -> Audit:
    """See `Audit`; `folder` holds the store and the outputs."""
    names = set(store.list("shards"))
    void = {name.removesuffix(TOMBSTONE) for name in names if name.endswith(TOMBSTONE)}
    doubled = []
    for name in names:
        parsed = parse_shard_name(name)
        if parsed is not None and not parsed.void and parsed.generation:
            before = name.replace(f".g{parsed.generation}.", f".g{parsed.generation - 1}.")
            if before not in void:
                doubled.append(name)
    left = {str(path.relative_to(folder)) for pattern in LEFT_OVER for path in folder.rglob(pattern)}
    return Audit(tuple(sorted(doubled)), tuple(sorted(void)), tuple(sorted(left)))


def different(one: Mapping[str, str], other: Mapping[str, str], names: Iterable[str]) -> tuple[str, ...]:
    """The names among these that aren't the same in both."""
    return tuple(sorted(name for name in names if one.get(name) != other.get(name)))


def _plain(place: str) -> str:
    """A shard's name whatever its generation."""
    return _GENERATION.sub("", place)


def _verified(store: Store, place: str) -> str:
    try:
        raw = store.get(place)
        decode_at(raw, place)
    except FileNotFoundError:
        raise CorruptShardError(f"the shard {place} is gone", path=place) from None
    except CorruptShardError as error:
        tombstone(store, place, error.message)
        raise
    return read_header(raw, path=place).digest
