"""A store in a folder of a local or network file system.

A new name appears by a hard link from a finished, synced temporary file: `link` fails if the name exists, on
every POSIX file system and over NFS, so one of many writers wins and no reader ever sees half a file. Where
there are no hard links (FAT, some FUSE mounts) the kernel's rename without replacing does the same; where
there is neither, the probe refuses.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import socket
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import starmap

from gridcompute.errors import StoreError
from gridcompute.stores.base import TEMPORARY, checked_path, listable, probe

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_RENAME_NOREPLACE = 1
_REASONS = {
    errno.EACCES: ("isn't permitted", "check who owns the folder and its permissions"),
    errno.EPERM: ("isn't permitted", "check who owns the folder and its permissions"),
    errno.EROFS: ("isn't possible, the file system is read-only", "choose a folder on a writable disk"),
    errno.ENOSPC: ("isn't possible, the disk is full", "make room; what was committed stays"),
    errno.EDQUOT: ("isn't possible, the disk quota is used up", "make room; what was committed stays"),
    errno.ENOTDIR: ("isn't possible, a file or a symbolic link stands where a folder should be",
                    "a store follows no links below its own folder: move what is in the way"),
    errno.ELOOP: ("isn't possible, a symbolic link stands in its place", "remove it: a store follows none"),
    errno.EEXIST: ("isn't possible, a file stands in the folder's place", "choose another folder"),
    errno.EISDIR: ("isn't possible, a folder stands in its place", "move what is in the way"),
    errno.ENAMETOOLONG: ("isn't possible, the name is too long", "choose a shorter folder"),
}  # fmt: skip


@dataclass(frozen=True)
class LocalStore:
    """Files below one folder.

    No name leaves the folder: every step down is opened relative to the one above and follows no symbolic
    link.

    Attributes:
        root: absolute path of the folder; made when first written to.
        private: folders 0700 and files 0600 (work stores); otherwise as the user's umask says (outputs).
    """

    root: str
    private: bool = True

    @property
    def url(self) -> str:
        """The folder's absolute path."""
        return self.root

    def get(self, path: str) -> bytes:
        """All bytes under a name."""
        with self.reading(path) as fd:
            return _read(fd, os.fstat(fd).st_size, 0)

    def get_range(self, path: str, start: int, stop: int) -> bytes:
        """Bytes start to stop, fewer where they end before."""
        with self.reading(path) as fd:
            return _read(fd, max(0, min(stop, os.fstat(fd).st_size) - start), start)

    def put_new(self, path: str, data: bytes | memoryview) -> bool:
        """Write a name that isn't there: temporary file, fsync, exclusive link, fsync of the folder."""
        with self._explained("writing", path), self._parent(path, create=True) as (folder, name):
            if _is_there(folder, name):
                return False
            with self._temporary(folder, data) as temporary:
                if not _appear(folder, temporary, name):
                    return False
            _sync(folder)
            return True

    def put(self, path: str, data: bytes) -> None:
        """Write a name, replacing what is there, by a rename."""
        with self._explained("writing", path), self._parent(path, create=True) as (folder, name):
            with self._temporary(folder, data) as temporary:
                os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            _sync(folder)

    def exists(self, path: str) -> bool:
        """Whether there is a file under a name."""
        try:
            with self._explained("looking up", path), self._parent(path) as (folder, name):
                return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return False

    def delete(self, path: str) -> None:
        """Remove a name; folders stay."""
        with (contextlib.suppress(FileNotFoundError), self._explained("removing", path),
              self._parent(path) as (folder, name)):
            os.unlink(name, dir_fd=folder)

    def list(self, prefix: str = "") -> Iterator[str]:
        """The names below a folder, sorted."""
        return (name for name, _ in self.list_sizes(prefix))

    def list_sizes(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """The names below a folder with their sizes, sorted."""
        below = f"{checked_path(prefix)}/" if prefix else ""
        with self._explained("listing", prefix):
            found = [(below + name, info.st_size) for name, info in self._walk(prefix)]
        return iter(sorted(pair for pair in found if listable(pair[0])))

    def free_bytes(self) -> int | None:
        """Bytes that this user can still write to the disk."""
        folder = self.root
        while not os.path.isdir(folder) and os.path.dirname(folder) != folder:
            folder = os.path.dirname(folder)
        try:
            info = os.statvfs(folder)
        except OSError:
            return None
        return info.f_bavail * info.f_frsize

    def sweep(self, older_than: float = 86400.0) -> int:
        """Remove temporary files of dead writers: this machine's, which hold no lock any more, and others' by age.

        Args:
            older_than: seconds by the disk's own times; whatever is older has no writer.
        """
        swept, before = 0, time.time() - older_than
        for path, info in tuple(self._walk("")):
            head, _, name = path.rpartition("/")
            if not name.startswith(TEMPORARY):
                continue
            with contextlib.suppress(FileNotFoundError), self._folder(head) as folder:
                if info.st_mtime < before or (name.startswith(_mine()) and not _locked(folder, name)):
                    os.unlink(name, dir_fd=folder)
                    swept += 1
        return swept

    def probe(self) -> None:
        """Check that names can be written once, read and removed."""
        probe(self)

    @contextlib.contextmanager
    def _explained(self, doing: str, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason, hint = _REASONS.get(error.errno or 0, ("", ""))
            if error.errno == errno.ENOTDIR and os.path.isfile(self.root):
                reason, hint = "isn't possible, that is a file, not a folder", "remove the file, or choose another name"
            if error.errno == errno.ENOENT and doing == "writing":
                reason, hint = "isn't possible, its folder can't be made or went away", "choose another folder"
            what = f"{doing} {path!r} in the store {self.root}"
            if not reason:
                error.add_note(what)
                raise
            raise StoreError(f"{what} {reason}", hint=hint) from error

    @contextlib.contextmanager
    def _folder(self, path: str, create: bool = False) -> Iterator[int]:
        """A descriptor of a folder below the root, reached without following links."""
        mode = 0o700 if self.private else 0o777
        if create and not os.path.isdir(self.root):
            os.makedirs(self.root, mode, exist_ok=True)
        with _descriptors() as opened:
            fd = opened(self.root, _FOLDER)
            for part in path.split("/") if path else ():
                try:
                    fd = opened(part, _FOLDER | os.O_NOFOLLOW, dir_fd=fd)
                except FileNotFoundError:
                    if not create:
                        raise
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, mode, dir_fd=fd)
                        _sync(fd)
                    fd = opened(part, _FOLDER | os.O_NOFOLLOW, dir_fd=fd)
            yield fd

    @contextlib.contextmanager
    def _parent(self, path: str, create: bool = False) -> Iterator[tuple[int, str]]:
        head, _, name = checked_path(path).rpartition("/")
        with self._folder(head, create) as folder:
            yield folder, name

    @contextlib.contextmanager
    def reading(self, path: str) -> Iterator[int]:
        """A descriptor of a file, to be read."""
        with self._explained("reading", path), self._parent(path) as (folder, name), _descriptors() as opened:
            # Without O_NONBLOCK a pipe planted under the name would hold the reader for ever.
            fd = opened(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            yield fd

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[int]:
        """A descriptor to be written to; the name, which mustn't be there, appears as the block ends, synced.

        Raises:
            FileExistsError: somebody else's file has the name by then.
        """
        with self._explained("writing", path), self._parent(path, create=True) as (folder, name):
            with self._new_file(folder) as (fd, temporary):
                yield fd
                os.fsync(fd)
                if not _appear(folder, temporary, name):
                    raise FileExistsError(path)
            _sync(folder)

    @contextlib.contextmanager
    def _temporary(self, folder: int, data: bytes | memoryview) -> Iterator[str]:
        """A finished, synced file under a name of its own; removed at the end unless renamed."""
        with self._new_file(folder) as (fd, temporary):
            rest = memoryview(data).cast("B")
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fsync(fd)
            yield temporary

    @contextlib.contextmanager
    def _new_file(self, folder: int) -> Iterator[tuple[int, str]]:
        """A temporary file, open to be written to, and its name; closed at the end, and removed unless renamed.

        It is locked meanwhile: a lock ends with its process, so a sweep knows what nobody finishes any more.
        """
        flags, name = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, ""
        try:
            with _descriptors() as opened:
                for last in (False, False, True):
                    name = f"{_mine()}{os.getpid()}-{uuid.uuid4().hex}"
                    fd = opened(name, flags, 0o600 if self.private else 0o666, dir_fd=folder)
                    with contextlib.suppress(OSError):  # a file system without locks
                        fcntl.flock(fd, fcntl.LOCK_SH)
                    if last or os.fstat(fd).st_nlink:  # else a sweep came between the two calls
                        break
                yield fd, name
        finally:
            with contextlib.suppress(OSError):  # it has its own name by now; what stays is swept one day
                os.unlink(name, dir_fd=folder)

    def _walk(self, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
        """Regular files below a folder, temporary ones too, by paths relative to it; no links."""
        base = f"{prefix}/" if prefix else ""
        todo = [""]
        while todo:
            head = todo.pop()
            try:
                with self._folder((base + head).rstrip("/")) as fd, os.scandir(fd) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            todo.append(f"{head}{entry.name}/")
                        elif entry.is_file(follow_symlinks=False):
                            with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                                yield head + entry.name, entry.stat(follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):  # nothing is below a file, or a link
                continue


@cache
def _mine() -> str:
    """How temporary files begin that are written on this machine."""
    return f"{TEMPORARY}{hashlib.blake2b(socket.gethostname().encode(), digest_size=4).hexdigest()}-"


@contextlib.contextmanager
def _descriptors() -> Iterator[Callable[..., int]]:
    """`os.open`, of descriptors that are closed at the end, each once, wherever a KeyboardInterrupt strikes.

    Python raises it between any two of its own instructions. So opening one and taking note of it is a single call of
    C, and so is crossing it out and closing it; and one that strikes where they were to be closed finds them closed a
    level further up.
    """
    own: list[int] = []

    def opened(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        own.extend(starmap(partial(os.open, dir_fd=dir_fd), [(path, flags, mode)]))
        return own[-1]

    def close() -> None:
        any(map(os.close, map(list.pop, [own] * len(own))))

    try:
        try:
            yield opened
        finally:
            close()
    finally:
        close()


def _locked(folder: int, name: str) -> bool:
    """Whether a file has a writer; where locks can't tell it has."""
    with _descriptors() as opened:
        try:
            fd = opened(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except PermissionError:
            return True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        except OSError:
            return True


def _sync(folder: int) -> None:
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some FUSE mounts can't sync a folder
            raise


def _read(fd: int, size: int, start: int) -> bytes:
    parts = []
    while size > 0:
        part = os.pread(fd, size, start)
        if not part:
            break
        parts.append(part)
        size, start = size - len(part), start + len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _is_there(folder: int, name: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _appear(folder: int, temporary: str, name: str) -> bool:
    """Give a finished file its name, if nothing has it."""
    try:
        os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        return True
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if _rename_new(folder, temporary, name):
            return True
    if not _is_there(folder, name):  # a folder or a link: nothing that a reader could read
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    return False


def _rename_new(folder: int, temporary: str, name: str) -> bool:
    """Rename without replacing (Linux 3.15): atomic where the file system has it, refused elsewhere."""
    rename: Callable[..., int] | None = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    code = errno.ENOSYS
    if rename is not None:
        if rename(folder, os.fsencode(temporary), folder, os.fsencode(name), _RENAME_NOREPLACE) == 0:
            return True
        code = ctypes.get_errno()
    if code == errno.EEXIST:
        return False
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        raise StoreError("this file system has neither hard links nor a rename that doesn't replace, so two "
                         "workers could both commit one shard", hint="choose a folder on another file system")
    raise OSError(code, os.strerror(code), name)
