"""Zarr whose chunks lie within other files, as kerchunk and VirtualiZarr describe them: in JSON or a Parquet folder.

What a reference file says isn't believed. The files that it names must lie where the reader allows (beside the
reference file, if nothing else was said), its templates are names and not programs, its offsets are numbers.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import math
import os
import re
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from gridcompute.digests import digest
from gridcompute.errors import CorruptInputError, GridError, MissingInputError, ParameterError
from gridcompute.secrecy import clean
from gridcompute.sources import contained
from gridcompute.sources.files import broken, filesystem, identity, is_remote, open_file, plain_path, shown

SCHEME = "references://"
"""What the path or URL of a reference file is preceded by in the name of the store that it describes."""

MOST_CHUNK = 2**31
TARGETS = "targets"
"""The option that says where referenced files may lie; beside it the group within the store."""
GROUP = "group"

_MOST_RECORDS = 32
_LOCK = threading.Lock()
_COLUMNS = ("path", "offset", "size", "raw")
_METADATA = (".zgroup", ".zarray", ".zattrs", ".zmetadata", "zarr.json")
_NAME = re.compile(r"\{\{\s*(\w+)\s*\}\}")


@dataclass(frozen=True)
class Reference:
    """Bytes of a file: all of them where there is no size; or the bytes themselves."""

    path: str = ""
    offset: int = 0
    size: int | None = None
    inline: bytes | None = None


@dataclass
class References:
    """A reference file that has been read.

    Attributes:
        place: its path or URL.
        options: fsspec's, for it and what it refers to.
        targets: folders and URLs below which referenced files may lie.
        known: references by key, metadata among them.
        record_size: references per Parquet file; 0 for JSON.
        templates: texts that stand for others in paths.
        records: the Parquet files that were read last.
    """

    place: str
    options: Mapping[str, Any]
    targets: tuple[str, ...]
    known: dict[str, Any]
    record_size: int = 0
    templates: Mapping[str, str] = field(default_factory=dict)
    records: dict[str, Any] = field(default_factory=dict, repr=False)

    def get(self, key: str) -> Reference | None:
        """The reference of a key; None where there is none.

        Raises:
            CorruptInputError: it isn't a reference, or one to a place that isn't allowed.
        """
        value = self.known.get(key)
        if value is None and self.record_size and "/" in key:
            value = self._recorded(*key.rsplit("/", 1))
        if value is None:
            return None
        if isinstance(value, bytes):
            return Reference(inline=value)
        if isinstance(value, str):
            return Reference(inline=self._inline(key, value))
        if isinstance(value, Mapping):
            return Reference(inline=json.dumps(value).encode())
        parts: list[Any] = value if isinstance(value, list) and len(value) in (1, 3) else [None]
        path, *span = parts
        if not isinstance(path, str) or not all(type(n) is int and 0 <= n < 2**62 for n in span):
            raise self._unsound(f"{key!r} is {value!s:.80}", "a reference is a path, an offset and a size")
        if span and span[1] > MOST_CHUNK:
            raise self._unsound(f"{key!r} has {span[1]:,} bytes", "no chunk is so large")
        return Reference(self._allowed(self._named(path)), *span)

    def _inline(self, key: str, text: str) -> bytes:
        if not text.startswith("base64:"):
            return text.encode()
        try:
            return base64.b64decode(text.removeprefix("base64:"), validate=True)
        except ValueError as error:
            raise self._unsound(f"{key!r} isn't base64: {error}", "make the references again") from None

    def _named(self, path: str) -> str:
        """A path with the templates' texts in it, each put in once."""
        filled = _NAME.sub(lambda found: self.templates.get(found[1], found[0]), path)
        if "{{" in filled or "{%" in filled:
            raise self._unsound(f"the path {path!r:.120} has a template that isn't a plain name", "write paths in full")
        return filled

    def _allowed(self, path: str) -> str:
        """A referenced path, absolute (beside the reference file where it isn't)."""
        protocol, chained, _ = path.partition("://")
        if "::" in path or "\0" in path or (chained and protocol in ("reference", "references", "file+reference")):
            raise self._unsound(f"it refers to {shown(path)!r:.120}", "only plain files and URLs are referred to")
        if not chained and not path.startswith("/"):
            path = f"{_folder(self.place)}/{path}"
        full = os.path.normpath(plain_path(path)) if not is_remote(path) else path
        parts = re.split(r"[/\\]", unquote(full))  # clients of the web take "%2e" for a dot, and leave a folder by it
        if ".." in parts or not any(full.startswith(f"{target.rstrip('/')}/") for target in self.targets):
            raise self._unsound(
                f"it refers to {shown(full)}, which doesn't lie in {', '.join(map(shown, self.targets))}",
                "if that is meant, say so: targets=[...] names the folders and URLs that may be read",
            )
        return full

    def _unsound(self, what: str, hint: str) -> CorruptInputError:
        return CorruptInputError(f"references {shown(self.place)}: {what}", hint=hint)

    def _recorded(self, array: str, chunk: str) -> Any:
        """The reference of a chunk in a Parquet folder."""
        about = self.known.get(f"{array}/.zarray")
        if not isinstance(about, Mapping) or not re.fullmatch(r"\d+(\.\d+)*", chunk):
            return None
        try:
            counts = [-(-int(n) // int(c)) for n, c in zip(about["shape"], about["chunks"], strict=True)] or [1]
            numbers = [int(n) for n in chunk.split(".")]
            if len(numbers) != len(counts) or any(n >= count for n, count in zip(numbers, counts, strict=True)):
                return None
            number = sum(n * math.prod(counts[i + 1 :]) for i, n in enumerate(numbers))
            file, row = divmod(number, self.record_size)
            columns = self._file(f"{self.place}/{array}/refs.{file}.parq")
            path, offset, size, raw = [columns.get(name, {row: None})[row] for name in _COLUMNS]
        except GridError:
            raise
        except Exception as error:  # of Arrow's own kind, or of metadata that isn't what it should be
            raise broken(self.place, f"references of {array!r}", error) from clean(error)
        if raw is not None:
            return bytes(raw)
        return None if path is None else [path, int(offset), int(size)] if size else [path]

    def _file(self, path: str) -> Mapping[str, Any]:
        import pyarrow.parquet as pq

        with _LOCK:
            known: Mapping[str, Any] | None = self.records.pop(path, None)
            if known is None:
                known = pq.read_table(io.BytesIO(_content(path, self.options))).to_pydict()
            self.records[path] = known  # the last one used comes last
            while len(self.records) > _MOST_RECORDS:
                self.records.pop(next(iter(self.records)))
        return known

    def read(self, found: Reference, start: int, stop: int | None) -> bytes:
        """A part of what a reference names."""
        if found.inline is not None:
            return found.inline[start:stop]
        first = found.offset + start
        last = None if found.size is None else found.offset + found.size
        last = last if stop is None else min(found.offset + stop, last) if last is not None else found.offset + stop
        if is_remote(found.path):
            files, name = filesystem(found.path, self.options)
            return bytes(files.cat_file(name, start=first, end=last))
        root = max((t for t in self.targets if found.path.startswith(f"{t.rstrip('/')}/")), key=len)
        with contained.opened(root.rstrip("/") or "/", found.path) as file:
            file.seek(first)
            return bytes(file.read() if last is None else file.read(last - first))

    def part(self, key: str, wanted: Any = None) -> bytes | None:
        """The bytes of a key, or the part of them that Zarr asks for; None where there is no such key.

        Raises:
            MissingInputError, CorruptInputError: the file that is referred to isn't there, or is too short.
        """
        found = self.get(key)
        if found is None:
            return None
        start, stop = int(getattr(wanted, "start", getattr(wanted, "offset", 0))), getattr(wanted, "end", None)
        if hasattr(wanted, "suffix"):
            start = max(0, self.size_of(found) - int(wanted.suffix))
        try:
            data = self.read(found, start, stop)
        except FileNotFoundError:
            raise MissingInputError(f"no file {shown(found.path)}, to which references lead",
                                    hint="check where the referenced files lie") from None
        if found.size is not None and stop is None and len(data) != found.size - start:
            raise CorruptInputError(f"{shown(found.path)} ends before the {found.size} bytes at {found.offset} that "
                                    f"references name", hint="fetch the file again")
        return data

    def size_of(self, found: Reference) -> int:
        """Bytes that a reference names."""
        if found.inline is not None:
            return len(found.inline)
        if found.size is not None:
            return found.size
        if is_remote(found.path):
            files, name = filesystem(found.path, self.options)
            return int(files.size(name))
        return os.path.getsize(found.path)


def _content(path: str, options: Mapping[str, Any]) -> bytes:
    with open_file(path, options) as file:
        data: bytes = file.read(contained.MOST_METADATA + 1)
    if len(data) > contained.MOST_METADATA:
        raise CorruptInputError(f"references {shown(path)}: the file has more than {contained.MOST_METADATA:,} bytes",
                                hint="keep so many references as Parquet, by kerchunk.df.refs_to_dataframe")
    return data


def _folder(place: str) -> str:
    return place.rpartition("/")[0]


def is_references(path: str, options: Mapping[str, Any]) -> bool:
    """Whether a path or URL looks like a reference file: JSON, or a folder of Parquet files with Zarr's metadata."""
    if path.endswith(".json"):
        return True
    if path.rstrip("/").endswith((".parq", ".parquet")):
        return is_remote(path) or os.path.isfile(os.path.join(path, ".zmetadata"))
    return False


def store_of(
    path: str, targets: str | Sequence[str] | None, options: Mapping[str, Any], group: str = ""
) -> tuple[str, dict[str, Any]]:
    """Name and options of the store that a reference file describes.

    Args:
        path: of the reference file; or fsspec's "reference://", with the file among the options as `fo`.
        targets: folders and URLs below which referenced files may lie; None: beside the reference file.
        options: fsspec's.
        group: within the store.
    """
    given = dict(options)
    if path.startswith("reference://"):
        place = given.pop("fo", None)
        if not isinstance(place, str | os.PathLike):
            raise ParameterError("reference:// needs the path of a reference file", hint="storage_options={'fo': ...}")
        path = plain_path(place)
        given = {**dict(given.get("target_options") or {}), **dict(given.get("remote_options") or {})}
    named = [targets] if isinstance(targets, str | os.PathLike) else list(targets or [_folder(path)])
    url = SCHEME + path.rstrip("/") + (f"#{group}" if group else "")
    return url, {**given, TARGETS: tuple(plain_path(one) for one in named), GROUP: group}


def references(url: str, options: Mapping[str, Any]) -> References:
    """A reference file, read.

    Raises:
        MissingInputError, CorruptInputError: it isn't there, or isn't a reference file.
    """
    place = url.removeprefix(SCHEME).removesuffix(f"#{options[GROUP]}")
    given = {name: value for name, value in options.items() if name not in (TARGETS, GROUP)}
    targets = tuple(options[TARGETS])
    recorded = not place.endswith(".json")
    try:
        found = json.loads(_content(f"{place}/.zmetadata" if recorded else place, given))
        if recorded:
            size = found["record_size"]
            if type(size) is not int or not 0 < size < 2**31:
                raise ValueError(f"record_size is {size!r:.60}")
            return References(place, given, targets, dict(found["metadata"]), size)
        known = found.get("refs", found)
        if found.get("gen"):
            raise ValueError("it generates references (gen), which isn't supported: write them out")
        templates = {str(name): value for name, value in dict(found.get("templates") or {}).items()}
        if not all(isinstance(text, str) for text in templates.values()):
            raise ValueError("a template isn't a text")
        if not any(str(key).rpartition("/")[2] in _METADATA for key in known):
            raise ValueError("it has no Zarr metadata")
        return References(place, given, targets, dict(known), templates=templates)
    except GridError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise broken(shown(place), "isn't a reference file that can be read", error) from clean(error)


def opened(url: str, options: Mapping[str, Any]) -> Any:
    """The Zarr group (or array) that a reference file describes."""
    import zarr

    return zarr.open(_kind()(references(url, options)), mode="r", path=options[GROUP])


def versions(group: Any, path: str, keys: Iterable[str], verify: bool) -> Iterator[str]:
    """What tells one version of an array's chunks from another: where they lie, and the version of the file there."""
    held: References = group.store.references
    path = "/".join(filter(None, [group.path, path]))
    seen: dict[str, str] = {}
    for key in keys:
        name = f"{path}/{key}" if path else key
        found = held.get(name)
        if found is None:
            yield f"{name}|absent"
        elif found.inline is not None:
            yield f"{name}|{digest(found.inline)}"
        else:
            if found.path not in seen:
                seen[found.path] = identity(found.path, held.options, verify)
            yield f"{name}|{seen[found.path]}|{found.offset}|{found.size}"


@lru_cache(maxsize=1)
def _kind() -> Any:
    from zarr.abc.store import Store
    from zarr.core.buffer import default_buffer_prototype

    class ReferenceStore(Store):
        """Zarr's view of references: read-only."""

        supports_writes = supports_deletes = supports_partial_writes = False
        supports_listing = True

        def __init__(self, held: References) -> None:
            super().__init__(read_only=True)
            self.references = held

        def __eq__(self, other: object) -> bool:
            return self is other

        def __str__(self) -> str:
            return shown(self.references.place)

        async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
            data = await asyncio.to_thread(self.references.part, key, byte_range)
            return None if data is None else (prototype or default_buffer_prototype()).buffer.from_bytes(data)

        async def get_partial_values(self, prototype: Any, key_ranges: Iterable[tuple[str, Any]]) -> Any:
            return [await self.get(key, prototype, part) for key, part in key_ranges]

        async def exists(self, key: str) -> bool:
            return self.references.get(key) is not None

        async def set(self, key: str, value: Any) -> None:
            raise TypeError("references are read only")

        async def delete(self, key: str) -> None:
            raise TypeError("references are read only")

        async def list(self) -> AsyncIterator[str]:
            for key in self.references.known:
                yield key

        async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
            for key in self.references.known:
                if key.startswith(prefix):
                    yield key

        async def list_dir(self, prefix: str) -> AsyncIterator[str]:
            start = f"{prefix.rstrip('/')}/" if prefix else ""
            for name in dict.fromkeys(
                key[len(start) :].partition("/")[0] for key in self.references.known if key.startswith(start)
            ):
                yield name

    return ReferenceStore
