"""Shards in a store: their names, atomic commits where the first one wins, and what is done already.

    shards/<first two of the recipe>/<recipe>/<region>-<token>.g<generation>.arrow
    ... .record.json     instead of .arrow: the record of a chunk that lies in a sink's own format
    ... .tombstone       after either: that generation is void, and the next one counts

A name that is there and isn't void is done; nothing else is needed to resume. The token stands for the input
objects that the region reads.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from gridcompute.columns import Block, Field
from gridcompute.content import content_digest
from gridcompute.errors import (
    CorruptShardError,
    DivergenceError,
    GridError,
    ParameterError,
    RecordError,
    StoreError,
)
from gridcompute.numerics import numerics_class
from gridcompute.shardfile import FORMAT as NEWEST
from gridcompute.shardfile import decode, encode
from gridcompute.spaces import Region, Space
from gridcompute.store import Store, checked_path

FORMAT = 1  # of records and tombstones
NO_TOKEN = "0"
MAX_GENERATIONS = 64
TOMBSTONE = ".tombstone"

ShardKind = Literal["arrow", "record"]
_SUFFIX: dict[ShardKind, str] = {"arrow": ".arrow", "record": ".record.json"}
_RECIPE = re.compile(r"[0-9a-z]{4,128}")
_TOKEN = re.compile(r"[0-9a-z]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{16,128}")
_NAME = re.compile(r"(all|\d{1,19}-\d{1,19}(?:_\d{1,19}-\d{1,19})*)-([0-9a-z]{1,64})"
                   r"\.g(0|[1-9]\d{0,3})(\.arrow|\.record\.json)(\.tombstone)?")


@dataclass(frozen=True)
class ShardName:
    """A shard's path, taken apart. `region` is the text of a Region ("0-8_16-24", "all")."""

    recipe: str
    region: str
    token: str
    generation: int
    kind: ShardKind
    void: bool = False


@dataclass(frozen=True)
class Done:
    """A committed shard as a listing shows it: path in its store, generation, size in bytes, kind."""

    path: str
    generation: int
    size: int
    kind: ShardKind


@dataclass(frozen=True)
class Commit:
    """What a commit came to.

    Attributes:
        path: where the shard is.
        digest: of its content.
        size: its bytes in the store; for a record, those of the sink's chunk.
        rows: its rows.
        won: whether this call wrote it; otherwise the same content was there already.
        numerics: class of the process that computed what is there.
        own: digest of what this call would have written.
    """

    path: str
    digest: str
    size: int
    rows: int
    won: bool
    numerics: str
    own: str = field(default="", compare=False)


@dataclass(frozen=True)
class Record:
    """A chunk in a sink's own format: the sink's bytes are the shard, and this makes it done.

    Attributes:
        path: of the chunk, relative to the output; empty for a chunk that the sink needn't store.
        size: its bytes.
        digest: hex, of its bytes or of its content, as the sink decides; always in the same way.
        rows: its rows or cells.
        meta: what else the sink wants back, texts by name.
        numerics: class of the process that computed it.
    """

    path: str
    size: int
    digest: str
    rows: int
    meta: tuple[tuple[str, str], ...] = ()
    numerics: str = ""


def shard_path(recipe: str, region: str, token: str = NO_TOKEN, generation: int = 0,
               kind: ShardKind = "arrow") -> str:
    """A shard's path.

    >>> shard_path("beef0123", "0-8_16-24", "9a")
    'shards/be/beef0123/0-8_16-24-9a.g0.arrow'

    Raises:
        ParameterError: a recipe or token that isn't hex or lower-case letters, or what no region's text is.
    """
    name = f"{region}-{token}.g{generation}{_SUFFIX[kind]}"
    if not (_RECIPE.fullmatch(recipe) and _TOKEN.fullmatch(token) and _NAME.fullmatch(name)) or len(name) > 240:
        raise ParameterError(f"no shard can be named by {recipe!r}, {region!r}, {token!r} and {generation}")
    return f"{_folder(recipe)}/{name}"


def _folder(recipe: str) -> str:
    return f"shards/{recipe[:2]}/{recipe}"


def parse_shard_name(path: str) -> ShardName | None:
    """A shard's or tombstone's path taken apart; None for any other name."""
    parts = path.split("/")
    if len(parts) != 4 or parts[0] != "shards" or parts[1] != parts[2][:2] or not _RECIPE.fullmatch(parts[2]):
        return None
    match = _NAME.fullmatch(parts[3])
    if match is None:
        return None
    kind: ShardKind = "arrow" if match[4] == ".arrow" else "record"
    return ShardName(parts[2], match[1], match[2], int(match[3]), kind, match[5] is not None)


def names(store: Store, recipe: str) -> frozenset[str]:
    """Names of all shards and tombstones of a recipe, from one listing."""
    return frozenset(store.list(_folder(recipe)))


def done(store: Store, recipe: str) -> dict[tuple[str, str], Done]:
    """All committed shards of a recipe by (text of the region, token), from one listing.

    Of several generations the first that isn't void counts; a record beside a shard says no more than that.
    Foreign names are passed over.
    """
    if not _RECIPE.fullmatch(recipe):
        raise ParameterError(f"{recipe[:80]!r} isn't a recipe")
    found: dict[tuple[str, str], Done] = {}
    void: set[str] = set()
    for path, size in reversed(list(store.list_sizes(_folder(recipe)))):  # tombstones first: longer names
        name = parse_shard_name(path)
        if name is None or name.recipe != recipe:
            continue
        if name.void:
            void.add(path.removesuffix(TOMBSTONE))
        elif path not in void:
            key = (name.region, name.token)
            before = found.get(key)
            if before is None or (name.kind, name.generation) < (before.kind, before.generation):
                found[key] = Done(path, name.generation, size, name.kind)
    return found


def tombstone(store: Store, path: str, reason: str) -> bool:
    """Declare a shard void, so that the next generation can be committed; False if somebody did already.

    Raises:
        ParameterError: not a shard's path.
    """
    name = parse_shard_name(path)
    if name is None or name.void:
        raise ParameterError(f"{path[:200]!r} isn't a shard's path")
    return store.put_new(path + TOMBSTONE, json.dumps({"format": FORMAT, "reason": reason[:2000]}).encode())


def commit(store: Store, recipe: str, token: str, block: Block, fields: Sequence[Field], space: Space, *,
           meta: Mapping[str, str] | None = None, compression: str | None = "zstd", threads: int = 1) -> Commit:
    """Make a block durable under its name, once; whoever comes first wins, and the same content is success.

    What is there but doesn't verify gets a tombstone, and the next generation is committed. Arguments as `encode`.

    Raises:
        DivergenceError: other content of the same numerics class is there.
        StoreError, or whatever the store raises: ask `gridcompute.store.transient`.
    """
    region = str(block.region)
    known = {"recipe": recipe, "chunk": region, "token": token}
    data, digest = encode(block, fields, space, {**(meta or {}), **known}, compression=compression,
                          threads=threads)

    def there(raw: bytes, path: str) -> Commit:
        found, texts = decode(raw, path=path)
        _check_place(texts, known, path)
        # An older format's digest of a large column is another one.
        told = texts["digest"] if int(texts["format"]) == NEWEST else content_digest(found, fields, threads)
        return Commit(path, told, len(raw), found.rows, False, texts["numerics"])

    def path_of(generation: int) -> str:
        return shard_path(recipe, region, token, generation)

    ours = Commit("", digest, len(data), block.rows, True, numerics_class())
    return _commit(store, path_of, data, ours, there)


def commit_record(store: Store, recipe: str, region: Region, token: str, record: Record) -> Commit:
    """Declare a sink's chunk done, once; otherwise as `commit`."""
    text = str(region)
    data = _record_bytes(recipe, text, token, record)

    def there(raw: bytes, path: str) -> Commit:
        found = _parse_record(raw, {"recipe": recipe, "chunk": text, "token": token}, path)
        return Commit(path, found.digest, found.size, found.rows, False, found.numerics)

    def path_of(generation: int) -> str:
        return shard_path(recipe, text, token, generation, "record")

    ours = Commit("", record.digest, record.size, record.rows, True, record.numerics or numerics_class())
    return _commit(store, path_of, data, ours, there)


def _commit(store: Store, path_of: Callable[[int], str], data: bytes | memoryview, ours: Commit,
            there: Callable[[bytes, str], Commit]) -> Commit:
    for generation in range(MAX_GENERATIONS):
        path = path_of(generation)
        won = store.put_new(path, data)
        if won:
            return Commit(path, ours.digest, ours.size, ours.rows, True, ours.numerics)
        if store.exists(path + TOMBSTONE):
            continue
        try:
            other = there(store.get(path), path)
        except FileNotFoundError:
            continue  # removed since; the next generation counts as well
        except CorruptShardError as error:
            tombstone(store, path, error.message)
            continue
        if other.digest == ours.digest or other.numerics != ours.numerics:
            return replace(other, own=ours.digest)  # across classes the last bits may differ: the first one counts
        raise DivergenceError(
            f"two different results for one chunk: {path} holds {other.digest}, this computation gave {ours.digest}, "
            f"both on {ours.numerics}", path=path, there=other.digest, own=ours.digest,
            hint="the kernel reads something that isn't in its recipe (a clock, the environment, unseeded randomness, "
            "a race); `replay` the chunk to compare")
    raise StoreError(f"{MAX_GENERATIONS} generations of {path_of(0)} are void or broken in {store.url}",
                     hint="check the store's disk; then remove the recipe's folder")


def read_shard(store: Store, recipe: str, region: Region, token: str = NO_TOKEN, *,
               names: Collection[str] | None = None, generation: int | None = None,
               verify: bool = True) -> tuple[Block, dict[str, str]]:
    """A committed block and its texts.

    Args:
        store: the work store.
        recipe: the op's key.
        region: the chunk.
        token: of the inputs that the chunk reads.
        names: the columns wanted.
        generation: the one that a listing or a commit named: one request. None looks for the first that isn't void
            and verifies: two requests for each.
        verify: recompute the digests.

    Raises:
        FileNotFoundError: no shard there.
        CorruptShardError: it is there, but none that verifies; `path` names it, for `tombstone`.
        RecordError: written by a newer version.
    """
    known = {"recipe": recipe, "chunk": str(region), "token": token}
    broken: CorruptShardError | None = None
    for number in range(MAX_GENERATIONS) if generation is None else (generation,):
        path = shard_path(recipe, str(region), token, number)
        try:
            raw = store.get(path)
        except FileNotFoundError:
            if broken is not None:
                raise broken from None
            raise
        if generation is None and store.exists(path + TOMBSTONE):
            broken = broken or CorruptShardError(f"the shard {path} was declared void", path=path,
                                                 hint="compute the chunk again")
            continue
        try:
            block, texts = decode(raw, names=names, verify=verify, path=path)
            _check_place(texts, known, path)
            return block, texts
        except CorruptShardError as error:
            broken = error
    raise broken or CorruptShardError(f"no generation of {path} verifies", path=path)


def decode_at(raw: bytes, path: str, *, names: Collection[str] | None = None) -> Block:
    """The block of a shard that a listing or a commit named, whose texts say that it belongs there.

    Raises:
        CorruptShardError: it doesn't verify, or is another's.
    """
    block, texts = decode(raw, names=names, path=path)
    if (name := parse_shard_name(path)) is not None:
        _check_place(texts, {"recipe": name.recipe, "chunk": name.region, "token": name.token}, path)
    return block


def _check_place(texts: Mapping[str, str], known: Mapping[str, str], path: str) -> None:
    for key, value in known.items():
        if texts.get(key) != value:
            raise CorruptShardError(f"the shard {path} holds {key} {str(texts.get(key))[:80]!r} instead of {value!r}",
                                    path=path, hint="somebody renamed or replaced it; it is computed again")


def read_record(store: Store, recipe: str, region: Region, token: str = NO_TOKEN, *, generation: int = 0) -> Record:
    """The record of a sink's chunk.

    Raises:
        FileNotFoundError, CorruptShardError, RecordError: as `read_shard`.
    """
    path = shard_path(recipe, str(region), token, generation, "record")
    return _parse_record(store.get(path), {"recipe": recipe, "chunk": str(region), "token": token}, path)


def _record_bytes(recipe: str, region: str, token: str, record: Record) -> bytes:
    if not _DIGEST.fullmatch(record.digest):
        raise ParameterError(f"the record's digest {record.digest[:80]!r} isn't hex")
    if record.path:
        checked_path(record.path)
    values = {"format": FORMAT, "recipe": recipe, "chunk": region, "token": token, "path": record.path,
              "size": record.size, "digest": record.digest, "rows": record.rows, "meta": dict(record.meta),
              "numerics": record.numerics or numerics_class()}
    return json.dumps({**values, "check": _record_check(values)}, allow_nan=False).encode()


def _record_check(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, allow_nan=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _parse_record(raw: bytes, known: Mapping[str, str], path: str) -> Record:
    try:
        values = json.loads(raw)
        if not isinstance(values, dict) or values.pop("check", None) != _record_check(values):
            raise ValueError("its check doesn't match")
        if type(values["format"]) is int and values["format"] > FORMAT:
            raise RecordError(f"the record {path} has format {values['format']}, this version knows {FORMAT}",
                              hint="update gridcompute, or use another work folder")
        counts = [values[key] for key in ("size", "rows")]
        texts = [values[key] for key in ("path", "digest", "numerics")] + list(values["meta"].values())
        if any(type(n) is not int or n < 0 for n in counts) or not all(isinstance(t, str) for t in texts):
            raise ValueError("a field has another type than it should")
        if not _DIGEST.fullmatch(values["digest"]):
            raise ValueError("its digest isn't hex")
        if values["path"]:
            checked_path(values["path"])
        _check_place(values, known, path)
    except (CorruptShardError, RecordError):
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, StoreError) as error:
        what = error.message if isinstance(error, GridError) else str(error)
        raise CorruptShardError(f"the record {path} is corrupt: {what[:300]}", path=path,
                                hint="the chunk is computed again") from error
    return Record(values["path"], values["size"], values["digest"], values["rows"], tuple(values["meta"].items()),
                  values["numerics"])
