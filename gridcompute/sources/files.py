"""Files and URLs from outside: which there are, which version of each, and the ones this process has open."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from gridcompute.errors import CorruptInputError, MissingInputError, ParameterError
from gridcompute.secrecy import clean, learn

VERIFY = "GRIDCOMPUTE_VERIFY_INPUTS"
"""Environment variable: set to anything but 0, the identity of a file is a hash of its content."""

T = TypeVar("T")
_USER = re.compile(r"(://)[^/@]*@")


def is_remote(url: str) -> bool:
    """Whether a URL isn't a path of this machine."""
    return "://" in url and not url.startswith("file://")


def plain_path(url: str | os.PathLike[str]) -> str:
    """A local path made absolute (workers have other current folders); other URLs as they are.

    Raises:
        ParameterError: not a path, or one that no file can have.
    """
    if not isinstance(url, str | os.PathLike) or not isinstance(os.fspath(url), str):
        raise ParameterError(f"a path or URL is a text, not {type(url).__name__}")
    text = os.fspath(url)
    if not text or "\0" in text:
        raise ParameterError(f"{text!r} is no path or URL")
    if is_remote(text):
        return text
    if text.startswith("file://"):
        host, slash, rest = text.removeprefix("file://").partition("/")
        if host not in ("", "localhost") or not slash:
            raise ParameterError(f"{text!r} isn't a file URL of this machine", hint="write file:///absolute/path")
        text = slash + rest
    return os.path.abspath(os.path.expanduser(text))


def shown(url: str) -> str:
    """A URL for people: without a user's name and password."""
    return _USER.sub(r"\1", url)


def expand(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], **options: Any) -> tuple[str, ...]:
    """The files that a path, URL, glob pattern or list of these names; a pattern's matches in sorted order.

    Raises:
        MissingInputError: a pattern without a match, or an empty list.
    """
    if not isinstance(paths, str | os.PathLike | Iterable) or isinstance(paths, bytes | Mapping):
        raise ParameterError(f"paths are {paths!r:.60}", hint="give a path or URL, or a list of them")
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    found: list[str] = []
    for path in map(plain_path, given):
        if glob.has_magic(path) and not os.path.exists(path) and not path.startswith(("http://", "https://")):
            found += _matches(path, options)
        else:
            found.append(path)
    if not found:
        raise MissingInputError("no input files: the list is empty", hint="name at least one file")
    return tuple(found)


def _matches(pattern: str, options: Mapping[str, Any]) -> list[str]:
    if is_remote(pattern):
        files, path = filesystem(pattern, options)
        with signed_in(pattern):
            matches = [files.unstrip_protocol(name) for name in files.glob(path)]
    else:
        matches = glob.glob(pattern, recursive=True)
    if not matches:
        raise MissingInputError(f"no file matches {pattern}", hint="check the folder and the pattern")
    return sorted(matches)


def filesystem(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """Fsspec's file system for a URL, and the path within it. Listings aren't cached: others write, too."""
    import fsspec

    extra = {"use_listings_cache": False} if url.startswith(("s3://", "s3a://")) else {}
    learn(options)
    try:
        return fsspec.core.url_to_fs(url, **{**extra, **options})  # type: ignore[no-any-return]
    except (ImportError, ValueError, TypeError) as error:
        raise ParameterError(
            f"{shown(url)} can't be opened: {error}", hint="check the protocol and the options"
        ) from clean(error)


@contextlib.contextmanager
def signed_in(url: str) -> Iterator[None]:
    """Missing credentials as an error of ours: botocore's isn't an `OSError` as those of other causes are."""
    try:
        yield
    except Exception as error:
        if "CredentialsError" not in type(error).__name__:
            raise
        raise MissingInputError(
            f"{shown(url)} can't be read: no credentials",
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile, on every node; "
            'of public data take storage_options={"anon": True}',
        ) from clean(error)


def open_file(url: str, options: Mapping[str, Any]) -> Any:
    """A file opened for reading bytes.

    Raises:
        MissingInputError: it isn't there, or can't be reached.
    """
    try:
        if not is_remote(url):
            _require_plain(url, os.stat(url).st_mode)
            return open(url, "rb")
        files, path = filesystem(url, options)
        with signed_in(url):
            return files.open(path, "rb")
    except FileNotFoundError:
        raise MissingInputError(f"no file {shown(url)}", hint="check the path") from None
    except OSError as error:
        raise MissingInputError(
            f"{shown(url)} can't be read: {error}", hint="check the path and the permissions"
        ) from clean(error)
    except ValueError as error:  # fsspec's, of a URL without a bucket or a name
        raise ParameterError(f"{shown(url)} can't be opened: {error}", hint="check the URL") from clean(error)


def _require_plain(path: str, mode: int) -> None:
    """Refuse pipes and sockets: opening one waits for ever, and an input is read several times."""
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        raise MissingInputError(f"{path} is a pipe, not a file", hint="write it to a file first")


def verifying() -> bool:
    """Whether the environment says that contents tell versions apart (see `VERIFY`)."""
    return os.environ.get(VERIFY, "0") not in ("", "0")


def identity(url: str, options: Mapping[str, Any], verify: bool | None = None) -> str:
    """What tells one version of a file from another: path, size, and mtime and inode or ETag.

    Args:
        url: absolute path or URL.
        options: fsspec's.
        verify: hash the content instead; None asks the environment (see `VERIFY`).

    Raises:
        MissingInputError: the file isn't there.
    """
    verify = verifying() if verify is None else verify
    if not is_remote(url):
        try:
            status = os.stat(url)
        except OSError as error:
            raise MissingInputError(f"no file {url}: {error.strerror}", hint="check the path") from None
        _require_plain(url, status.st_mode)
        stamp = f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"
        return f"{url}|{_content(url, stamp)}" if verify else f"{url}|{stamp}"
    files, path = filesystem(url, options)
    try:
        with signed_in(url):
            stamp = "" if verify else stamp_of(files.info(path))
        return f"{url}|{stamp or _content_of(url, options)}"
    except FileNotFoundError:
        raise MissingInputError(f"no file {shown(url)}", hint="check the URL, and whether its server answers") from None
    except OSError as error:
        raise MissingInputError(
            f"{shown(url)} can't be reached: {error}", hint="check the URL and the network"
        ) from clean(error)
    except ValueError as error:
        raise ParameterError(f"{shown(url)} can't be opened: {error}", hint="check the URL") from clean(error)


def stamp_of(info: Mapping[str, Any]) -> str:
    """Size and version of a remote object from fsspec's `info`; empty where the server tells no version."""
    for name in (
        "VersionId",
        "version_id",
        "generation",
        "ETag",
        "etag",
        "md5Hash",
        "Last-Modified",
        "LastModified",
        "mtime",
        "created",
    ):
        if info.get(name) not in (None, "", "null"):
            return f"{info.get('size')}-{str(info[name]).strip(chr(34))}"
    return ""


_hashes: dict[tuple[str, str], str] = {}


def _content(path: str, stamp: str) -> str:
    if (path, stamp) not in _hashes:
        with open(path, "rb") as file:
            _hashes[path, stamp] = hashlib.file_digest(file, "sha256").hexdigest()
    return _hashes[path, stamp]


def _content_of(url: str, options: Mapping[str, Any]) -> str:
    state = hashlib.sha256()
    with open_file(url, options) as file:
        while data := file.read(1 << 20):
            state.update(data)
    return state.hexdigest()


class OpenFiles:
    """A small cache of opened files in one process; what falls out of it is left to the garbage collector."""

    def __init__(self, size: int = 16) -> None:
        self._size = size
        self._lock = threading.RLock()
        self._process = 0
        self._open: OrderedDict[object, Any] = OrderedDict()

    def get(self, key: object, version: str, opened: Callable[[], T]) -> T:
        """The open file of a key, opened anew if its version is another; never one of a parent process."""
        with self._lock:
            if self._process != os.getpid():
                self._open, self._process = OrderedDict(), os.getpid()
            if self._open.get(key, ("", None))[0] != version or key not in self._open:
                self._open.pop(key, None)
                self._open[key] = version, opened()
            self._open.move_to_end(key)
            while len(self._open) > self._size:
                self._open.popitem(last=False)
            return self._open[key][1]  # type: ignore[no-any-return]

    def clear(self) -> None:
        """Let go of all."""
        with self._lock:
            self._open.clear()

    def forget(self, key: object) -> None:
        """Open the file of a key anew the next time."""
        with self._lock:
            self._open.pop(key, None)


def broken(where: str, what: str, error: BaseException | str, *, instead: str = "") -> CorruptInputError:
    """The error of a file that is there but can't be read, alike for all readers; `instead` names other readers."""
    text = " ".join(str(error).split())[:300] or type(error).__name__
    again = f"fetch the file again, or check what wrote it{'; ' * bool(instead)}{instead}"
    return CorruptInputError(f"{where}: {what}: {text}", hint=again)
