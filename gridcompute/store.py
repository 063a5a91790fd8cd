"""Stores: where shards, records and outputs live.

>>> store = open_store("memory://example")
>>> store.put_new("a/b", b"first"), store.put_new("a/b", b"second"), store.get("a/b")
(True, False, b'first')
"""

from __future__ import annotations

import os
import posixpath
import re
from typing import Any
from urllib.parse import unquote

from gridcompute.errors import ParameterError, StoreError
from gridcompute.stores.base import Store, checked_path, probe, transient, unanswered
from gridcompute.stores.local import LocalStore
from gridcompute.stores.memory import MemoryStore
from gridcompute.stores.remote import RemoteStore

__all__ = [
    "LocalStore", "MemoryStore", "RemoteStore", "Store", "checked_path", "open_store", "probe", "split_url",
    "transient", "unanswered",
]

_PROTOCOL = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)


def open_store(url: str | os.PathLike[str], **options: Any) -> Store:
    """The store at a URL. Nothing is read or written yet: `probe()` does that.

    Args:
        url: a path or `file://` URL (made absolute, as workers have other current folders), `memory://name`,
            or any URL that fsspec opens, such as `s3://bucket/folder`.
        options: for a folder `private` (default True: 0700 and 0600); else fsspec's for that protocol. A user
            and a password within the URL are taken out of it into the options, so that no message or record
            shows them.

    Raises:
        StoreError: a URL that no store can be made of.
        ParameterError: an option that the kind of store doesn't have.
    """
    text = os.fspath(url)
    match = _PROTOCOL.fullmatch(text)
    if match is None or match[1] == "file":
        path = text if match is None else _file_path(text, match[2])
        return _local(path, options)
    protocol, rest = match.groups()
    if protocol == "memory":
        if options:
            raise ParameterError(f"memory:// takes no options, got {', '.join(sorted(options))}")
        if not rest.strip("/"):
            raise StoreError("memory:// needs a name", hint="write memory://name")
        return MemoryStore(f"memory://{rest.strip('/')}")
    return _remote(protocol, rest, options)


def _file_path(url: str, rest: str) -> str:
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost") or not slash:
        raise StoreError(f"{url!r} isn't a file URL of this machine",
                         hint="write file:///absolute/path, or a path")
    return unquote(slash + path)


def _local(path: str, options: dict[str, Any]) -> LocalStore:
    unknown = sorted(set(options) - {"private"})
    if unknown:
        raise ParameterError(f"a folder has no option {unknown[0]!r}", hint="the only option is private=")
    if not path or "\0" in path or ("::" in path and "://" in path):
        raise StoreError(f"{path!r} isn't a folder's path or a store's URL",
                         hint="write a path, or a URL like s3://bucket/folder")
    return LocalStore(os.path.abspath(os.path.expanduser(path)), **options)


def _remote(protocol: str, rest: str, options: dict[str, Any]) -> RemoteStore:
    place, slash, path = rest.partition("/")
    user, at, host = place.rpartition("@")
    if at:
        name, _, password = user.partition(":")
        given = {"username": unquote(name), "password": unquote(password)}
        options = {**{key: value for key, value in given.items() if value}, **options}
    safe = f"{protocol}://{host}{slash}{path}".rstrip("/")
    if "?" in path or "#" in path:
        raise StoreError(f"the URL {safe.partition('?')[0]!r} has a query or a fragment",
                         hint="give credentials and settings as options")
    if not host or "::" in safe or any(part in (".", "..") for part in path.split("/")):
        raise StoreError(f"{safe!r} isn't a store's URL", hint="write it like s3://bucket/folder")
    return RemoteStore(safe, options)


def split_url(url: str | os.PathLike[str]) -> tuple[str, str]:
    """The URL of the folder that holds a URL, and the last part of its name.

    The name is empty where the URL is the top of its store (`s3://bucket`, `memory://name`, `/`).

    >>> split_url("s3://bucket/results/trend.zarr/")
    ('s3://bucket/results', 'trend.zarr')
    """
    text = os.fspath(url)
    match = _PROTOCOL.fullmatch(text)
    if match is None or match[1] == "file":
        path = text if match is None else _file_path(text, match[2])
        head, name = os.path.split(os.path.abspath(os.path.expanduser(path)))
        return head, name
    host, _, path = match[2].rstrip("/").partition("/")
    head, name = posixpath.split(path)
    return f"{match[1]}://{host}/{head}".rstrip("/"), name
