"""A store on an object store or server that fsspec reaches; S3 above all.

A new name is one single PUT with If-None-Match: never a multipart upload, on whose completion servers are
known to ignore the condition. A file system of fsspec that only looks and then writes can't do that and is
refused.
"""

from __future__ import annotations

import contextlib
import errno
import inspect
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from gridcompute.errors import StoreError
from gridcompute.secrecy import clean, learn
from gridcompute.stores.base import checked_path, listable, probe, sized, transient

P = ParamSpec("P")
T = TypeVar("T")

_LIMIT = 5 * 2**30 - 1  # S3's bound on a single PUT
_S3 = frozenset({"s3", "s3a"})
# One owner of retries: neither botocore nor s3fs tries a request again by itself (by default they would 125 times, of a
# read). A store does, see `_asked`, and the run's policy decides about all else. With botocore's own 60 s to connect a
# wrong address would look like a slow one, and with its 60 s for an answer a dead server like a slow one.
_S3_CONFIG = {"connect_timeout": 10, "read_timeout": 20, "retries": {"total_max_attempts": 1}}
_S3_TRIES = 1

_TRIES, _PAUSE_SECONDS = 3, 0.1


def _asked(step: Callable[Concatenate[RemoteStore, P], T]) -> Callable[Concatenate[RemoteStore, P], T]:
    """A step that S3 is asked for again where its failure may pass: a task of a thousand reads would else meet one.

    After a time-out only if the store has answered anybody in this process since the one before: a store that is silent
    would else keep each request waiting twice.
    """

    @wraps(step)
    def asked(self: RemoteStore, /, *args: P.args, **kwargs: P.kwargs) -> T:
        for attempt in range(1, _TRIES + 1):
            try:
                found = step(self, *args, **kwargs)
            except Exception as error:
                passes, waited = transient(error), self._patience(error) > 0
                more = passes and attempt < _TRIES and (self._answers.is_set() or not waited)
                (self._answers.clear if waited else self._answers.set)()
                if self._protocol not in _S3 or not more:
                    raise
                time.sleep(_PAUSE_SECONDS * attempt)
            else:
                self._answers.set()
                return found
        raise AssertionError("the last attempt returns or raises")

    return asked


@dataclass(frozen=True)
class RemoteStore:
    """Names below a URL that fsspec opens.

    Attributes:
        url: without user, password or query; those come as options.
        options: what the file system's constructor takes (key, secret, endpoint_url ...). Never shown, and
            never written anywhere by gridcompute; leave them out where the environment has the credentials.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)

    def __post_init__(self) -> None:
        learn(self.options)

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteStore, (self.url, dict(self.options))  # not the open connections

    @property
    def _protocol(self) -> str:
        return self.url.partition("://")[0]

    @cached_property
    def _files(self) -> Any:
        import fsspec  # here, as a worker that only knows local disks shouldn't pay for it

        options = dict(self.options)
        if self._protocol in _S3:
            options.setdefault("use_listings_cache", False)  # other processes write, too
            options["config_kwargs"] = {**_S3_CONFIG, **options.get("config_kwargs", {})}
        try:
            files, _ = fsspec.url_to_fs(self.url, **options)
        except ImportError as error:
            raise StoreError(f"the store {self.url} needs a package that isn't installed: {error}",
                             hint=f"install what fsspec asks for to open {self._protocol}://") from clean(error)
        except (ValueError, TypeError) as error:
            raise StoreError(f"the store {self.url} can't be opened: {error}",
                             hint="check the protocol and the options") from clean(error)
        if self._protocol in _S3:
            files.retries = _S3_TRIES
        return files

    @cached_property
    def _answers(self) -> threading.Event:
        """Set while the last request of this process that ended wasn't one without an answer."""
        answers = threading.Event()
        answers.set()
        return answers

    @cached_property
    def _base(self) -> str:
        return str(self._files._strip_protocol(self.url)).rstrip("/")

    @cached_property
    def _parameters(self) -> frozenset[str]:
        """Parameters of the file system's own write; empty if it has none of its own that creates."""
        from fsspec.asyn import AsyncFileSystem
        from fsspec.spec import AbstractFileSystem

        kind = type(self._files)
        for name, base in (("_pipe_file", AsyncFileSystem), ("pipe_file", AbstractFileSystem)):
            own = getattr(kind, name, None)
            # fsspec's default looks first and writes then: two writers could both find nothing.
            if own is not None and own is not getattr(base, name, None):
                parameters = frozenset(inspect.signature(own).parameters)
                if "mode" in parameters:
                    return parameters
        return frozenset()

    def _full(self, path: str) -> str:
        if "?versionId=" in path:
            raise StoreError(f"the name {path!r} can't be used: S3 reads a version number out of it",
                             hint="choose another name")
        return f"{self._base}/{checked_path(path)}"

    @_asked
    def get(self, path: str) -> bytes:
        """All bytes under a name, by one request: parts of two writings never mix."""
        with self._explained("reading", path):
            return self._cat(self._full(path))

    @_asked
    def get_range(self, path: str, start: int, stop: int) -> bytes:
        """Bytes start to stop, fewer where they end before."""
        if stop <= start:
            return b""
        full = self._full(path)
        with self._explained("reading", path):
            try:
                return bytes(self._files.cat_file(full, start=start, end=stop))
            except (OSError, ValueError) as error:
                if isinstance(error, FileNotFoundError) or transient(error):
                    raise
                if self._files.info(full)["size"] <= start:  # S3 answers 416 to a range past the end
                    return b""
                raise

    @_asked
    def put_new(self, path: str, data: bytes | memoryview) -> bool:
        """Write a name that isn't there by one conditional PUT."""
        if not self._parameters:
            raise StoreError(
                f"{self._protocol}:// can't create a name exactly once (fsspec looks first and writes then)",
                hint="use a local disk or an S3 bucket for the work store and the output")
        full = self._full(path)
        with self._explained("writing", path, bucket=True):
            try:
                self._pipe(full, data, "create")
            except FileExistsError:
                return False
            except OSError as error:
                # s3fs makes EINVAL of Ceph's 412, and of plain mistakes: only what is there decides.
                if error.errno in (errno.EINVAL, errno.EEXIST) and self._is_there(full):
                    return False
                raise
        return True

    @_asked
    def put(self, path: str, data: bytes) -> None:
        """Write a name, replacing what is there, by one PUT."""
        if not self._parameters:
            raise StoreError(f"{self._protocol}:// offers no way to replace a name at once",
                             hint="use a local disk or an S3 bucket for the work store and the output")
        full = self._full(path)
        with self._explained("writing", path, bucket=True):
            self._pipe(full, data, "overwrite")

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[Any]:
        """A binary file to be written to, a large one as a multipart upload; the name appears as the block ends.

        Nothing appears where the block raises. Unlike `put_new` this doesn't tell who was first.
        """
        full = self._full(path)
        with self._explained("writing", path, bucket=True):
            file = self._files.open(full, "wb", autocommit=False)
            try:
                yield file
                file.close()
            except BaseException:
                file.discard()
                raise
            file.commit()

    @_asked
    def exists(self, path: str) -> bool:
        """Whether there are bytes under a name."""
        full = self._full(path)
        with self._explained("looking up", path):
            return self._is_there(full)

    @_asked
    def delete(self, path: str) -> None:
        """Remove a name."""
        full = self._full(path)
        with contextlib.suppress(FileNotFoundError), self._explained("removing", path):
            self._files.rm_file(full)

    def list(self, prefix: str = "") -> Iterator[str]:
        """The names below a folder, sorted."""
        return (name for name, _ in self.list_sizes(prefix))

    @_asked
    def list_sizes(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """The names below a folder with their sizes, sorted; one request for each thousand names."""
        below = f"{self._base}/{checked_path(prefix)}" if prefix else self._base
        with self._explained("listing", prefix):
            self._files.invalidate_cache()
            try:
                found = self._files.find(below, detail=True)
            except FileNotFoundError as error:
                if _no_bucket(error):
                    raise
                found = {}
        skip = len(self._base) + 1
        names = ((name[skip:], int(info["size"] or 0)) for name, info in found.items()
                 if name.startswith(f"{below}/") and info.get("type") == "file")
        return iter(sorted(pair for pair in names if listable(pair[0])))

    def free_bytes(self) -> int | None:
        """Unknown: object stores don't say."""
        return None

    def sweep(self, older_than: float = 86400.0) -> int:
        """Nothing to do: single PUTs leave nothing behind."""
        return 0

    def probe(self) -> None:
        """Check that names can be written once, read and removed."""
        probe(self)

    def _cat(self, full: str) -> bytes:
        if self._protocol in _S3:
            # Several connections would first ask for the size, then fetch ranges: slower, and not one
            # snapshot.
            return bytes(self._files.cat_file(full, max_concurrency=1))
        return bytes(self._files.cat_file(full))

    def _pipe(self, full: str, data: bytes | memoryview, mode: str) -> None:
        # s3fs cuts what is at least two of its chunks long into a multipart upload: no chunk is that long.
        whole = {"chunksize": 5 * 2**30} if "chunksize" in self._parameters else {}
        self._files.pipe_file(full, sized(bytes(data), _LIMIT, self.url), mode=mode, **whole)

    def _is_there(self, full: str) -> bool:
        try:
            return bool(self._files.info(full, refresh=True)["type"] == "file" if self._protocol in _S3
                        else self._files.info(full)["type"] == "file")
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def _explained(self, doing: str, path: str, *, bucket: bool = False) -> Iterator[None]:
        what = f"{doing} {path!r} in the store {self.url}" if path else f"{doing} the store {self.url}"
        try:
            yield
        except FileNotFoundError as error:
            if not bucket and not _no_bucket(error):
                raise
            raise StoreError(f"{what} failed: the bucket or folder isn't there",
                             hint="create it first, or check its name and the endpoint") from clean(error)
        except PermissionError as error:
            raise StoreError(f"{what} was refused: {error}",
                             hint="check the credentials and what they are allowed to do there") from clean(error)
        except Exception as error:
            if "CredentialsError" in type(error).__name__:
                raise StoreError(f"{what} failed: no credentials", hint=(
                    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile, on every node")) from clean(error)
            error.add_note(what)
            if seconds := self._patience(error):
                error.add_note(f"no answer within {seconds:g} s")
            raise

    def _patience(self, error: BaseException) -> float:
        """Seconds that were waited in vain; 0 where it was no time-out of S3."""
        kinds = {"ConnectTimeoutError": "connect_timeout", "ReadTimeoutError": "read_timeout"}
        wanted = kinds.get(type(error).__name__)
        if self._protocol not in _S3 or wanted is None:
            return 0.0
        return float({**_S3_CONFIG, **self.options.get("config_kwargs", {})}[wanted])


def _no_bucket(error: BaseException) -> bool:
    """Whether S3 says that there is no such bucket, not only no such name in it."""
    response = getattr(error.__cause__, "response", None)
    return isinstance(response, dict) and response.get("Error", {}).get("Code") == "NoSuchBucket"
