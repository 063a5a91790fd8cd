"""What every store promises, and what they share: the protocol, names, the probe, which errors may pass.

A store maps names to bytes. `put_new` is the one operation that correctness rests on: it is atomic, and of
any number of writers of one name exactly one wins.
"""

from __future__ import annotations

import errno
import uuid
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from gridcompute.errors import GridError, StoreError
from gridcompute.secrecy import clean

TEMPORARY = ".tmp-"  # names that begin so belong to a writer at work: never listed, never addressed

# EBUSY is what s3fs makes of 503 and SlowDown, EREMOTEIO of 500. EIO is what network file systems report when
# their server went away, and a broken disk reports the same: as retries are bounded, trying again costs
# little and tells the two apart. ESTALE: the file was replaced on the NFS server, opening it anew works.
# ENOSPC and EDQUOT aren't here: waiting doesn't make room.
_PASSING = frozenset({
    errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.EIO, errno.EREMOTEIO, errno.ESTALE, errno.ETIMEDOUT,
    errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED, errno.EPIPE, errno.ENETDOWN, errno.ENETUNREACH,
    errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH,
})  # fmt: skip
_PASSING_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504})  # 409: S3 wants a retry when two met
# Libraries below fsspec that don't derive from OSError, by name so that none of them is imported for this.
_PASSING_NAMES = frozenset({
    "HTTPClientError", "ConnectionError", "ConnectionClosedError", "EndpointConnectionError",
    "ReadTimeoutError", "ConnectTimeoutError", "IncompleteReadError", "ResponseParserError",
    "IncompleteRead", "ProtocolError",
    "ClientPayloadError", "ClientConnectionError", "ServerDisconnectedError", "ServerTimeoutError",
})  # fmt: skip
_LIBRARIES = frozenset({"botocore", "aiobotocore", "aiohttp", "urllib3", "http", "requests"})


@runtime_checkable
class Store(Protocol):
    """Names to bytes, on whatever the URL points to.

    A store is a frozen value: it pickles as its URL and options, and a worker that receives one opens its own
    connections. Neither `url` nor `repr` shows a secret. Names are relative paths (see `checked_path`).

    `get` and `get_range` raise FileNotFoundError for a name that isn't there, as only the caller knows
    whether that is a missing input, a shard not yet done, or nothing at all. What can't pass by waiting (no
    permission, no room, a hostile name) is a StoreError. Anything else comes as the backend raised
    it: ask `transient`.
    """

    @property
    def url(self) -> str:
        """Where it is; `open_store(url, **options)` opens it again."""
        ...

    def get(self, path: str) -> bytes:
        """All bytes under a name."""
        ...

    def get_range(self, path: str, start: int, stop: int) -> bytes:
        """Bytes start to stop (0 <= start <= stop), fewer where they end before."""
        ...

    def put_new(self, path: str, data: bytes | memoryview) -> bool:
        """Write a name that isn't there, atomically; False if others were first, and their bytes stay.

        Both answers are success. After a lost answer (a time-out) a repeated call may say False
        of one's own bytes.
        """
        ...

    def put(self, path: str, data: bytes) -> None:
        """Write a name, replacing what is there; a reader sees the old bytes or the new ones."""
        ...

    def exists(self, path: str) -> bool:
        """Whether there are bytes under a name."""
        ...

    def delete(self, path: str) -> None:
        """Remove a name; one that isn't there is fine."""
        ...

    def list(self, prefix: str = "") -> Iterator[str]:
        """The names below a folder, at any depth, sorted."""
        ...

    def list_sizes(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """The names below a folder with their sizes in bytes, sorted by name."""
        ...

    def free_bytes(self) -> int | None:
        """Bytes that can still be written, None where nobody can say."""
        ...

    def sweep(self, older_than: float = 86400.0) -> int:
        """Remove what dead writers left behind, if older than that many seconds; returns how many."""
        ...

    def probe(self) -> None:
        """Check that names can be written exactly once here, read and removed, or raise StoreError."""
        ...


def checked_path(path: str) -> str:
    """The path, if it is a plain relative name that can't leave its store.

    Raises:
        StoreError: empty, absolute, with `.`, `..` or empty parts, with control characters, not encodable as
            UTF-8, longer than 1024 bytes or with a part over 255, or a writer's temporary name.
    """
    try:
        raw = path.encode()
    except UnicodeEncodeError:
        raise _bad_path(path, "isn't valid Unicode") from None
    if not path or len(raw) > 1024:
        raise _bad_path(path, "is empty" if not path else "is longer than 1024 bytes")
    if any(byte < 32 or byte == 127 for byte in raw):
        raise _bad_path(path, "contains control characters")
    for part in path.split("/"):
        if part in ("", ".", ".."):
            raise _bad_path(path, "isn't a plain relative path")
        if part.startswith(TEMPORARY):
            raise _bad_path(path, f"contains {TEMPORARY!r}, which marks a writer's temporary file")
        if len(part) > 63 and len(part.encode()) > 255:
            raise _bad_path(path, "has a part longer than 255 bytes")
    return path


def _bad_path(path: str, what: str) -> StoreError:
    return StoreError(f"the name {path[:200]!r} can't be used in a store: it {what}",
                      hint="a name that was read from a store or an input may have been tampered with")


def listable(path: str) -> bool:
    """Whether a name found in a backend is one that a store would have written."""
    try:
        checked_path(path)
    except StoreError:
        return False
    return True


def transient(error: BaseException) -> bool:
    """Whether the same call may well succeed a little later, judged by an error and its causes.

    Time-outs, dropped connections, HTTP 408, 409, 425, 429 and 5xx, and the errno values that networks and
    network file systems answer with. No permission, no room and missing files aren't.
    """
    for link in _chain(error):
        verdict = _judged(link)
        if verdict is not None:
            return verdict
    # s3fs sets the HTTP answer as the cause of its OSError: the answer, where there is one, has been asked
    # first.
    return any(isinstance(e, OSError) and e.errno in _PASSING for e in _chain(error))


def unanswered(error: BaseException, where: str = "") -> StoreError:
    """What the user reads of a failure that might have passed by waiting, and didn't.

    Args:
        error: as the store raised it, with a note of what was done where.
        where: more about it, such as the stage, or how often it was tried.
    """
    doing, *more = getattr(error, "__notes__", ()) or ["using a store"]
    return StoreError(f"{doing} failed{where and f' {where}'}: {'; '.join([_told(error), *more])}",
                      hint="check the network and the store, then resume the run: what was committed stays")


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    for _ in range(16):
        if link is None:
            return
        yield link
        link = link.__cause__


def _judged(error: BaseException) -> bool | None:
    if isinstance(error, GridError):
        return False
    if isinstance(error, (TimeoutError, ConnectionError)):
        return True
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if isinstance(status, int):
            return status in _PASSING_STATUS
    if isinstance(getattr(error, "status", None), int):
        return error.status in _PASSING_STATUS  # type: ignore[attr-defined]
    for kind in type(error).__mro__:
        if kind.__name__ in _PASSING_NAMES and kind.__module__.split(".")[0] in _LIBRARIES:
            return True
    return None


def sized(data: bytes, limit: int, url: str) -> bytes:
    """The data, if one write may be that large here."""
    if len(data) > limit:
        raise StoreError(f"{len(data)} bytes can't be written to {url} at once: the limit is {limit} bytes",
                         hint="make the chunks smaller (parallel= on the kernel, or a smaller byte target)")
    return data


def probe(store: Store) -> None:
    """Check a store by writing a marker twice, reading it and removing it twice.

    A store that lets the second write through can't decide between two writers, and exactly-once commits
    would silently be wrong on it: it is refused.

    Raises:
        StoreError: what is amiss and what to do.
    """
    marker = f".gridcompute-probe-{uuid.uuid4().hex}"
    try:
        store.put_new(marker, b"first")  # False too, where its answer was lost and it was asked again
        again = store.put_new(marker, b"second")
        found = store.get(marker)
        store.delete(marker)
        store.delete(marker)
        gone = not store.exists(marker)
    except StoreError:
        raise
    except Exception as error:
        cause = "; ".join([_told(error), *getattr(error, "__notes__", ())[1:]])
        raise StoreError(f"the store {store.url} can't be used: {cause}", hint=(
            "it can't be reached now: check the address and the network, then try again" if transient(error)
            else "check the address, the credentials and the permissions")) from clean(error)
    if again or found != b"first":
        raise StoreError(
            f"the store {store.url} ignores conditional writes: a second write of the same new name went "
            "through, so two workers could both commit one shard",
            hint="use a local disk or an object store that honours If-None-Match (AWS S3, Ceph 16 or newer)")
    if not gone:
        raise StoreError(f"the store {store.url} doesn't keep what is written or removed",
                         hint="check whether a cache or a read-only mount lies in between")
