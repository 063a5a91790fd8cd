"""The user's private folder for compiled code: found, made, and refused where others could write to it."""

from __future__ import annotations

import os
import stat
import warnings
from functools import lru_cache
from pathlib import Path

from gridcompute.errors import StoreError


def cache_directory() -> Path | None:
    """The user's folder for compiled code, in $GRIDCOMPUTE_CACHE or gridcompute in the user's cache folder.

    Made if it isn't there. None where none can be made (then code is compiled in each process).

    Raises:
        StoreError: the folder belongs to someone else, or others may write to it.
    """
    named = os.environ.get("GRIDCOMPUTE_CACHE")
    if named:
        root = Path(named)
    else:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        root = Path(home) / "gridcompute"
    root = root.absolute()
    return root / "code" if made_private(root) and made_private(root / "code") else None


def made_private(folder: Path) -> bool:
    """Make a folder for this user alone; gives whether that was possible.

    Raises:
        StoreError: it is there, but others own it or may write to it.
    """
    try:
        found = folder.lstat()
    except FileNotFoundError:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.mkdir(mode=0o700, exist_ok=True)
            found = folder.lstat()
        except OSError as error:
            _warn_once(str(folder), str(error))
            return False
    except OSError as error:
        _warn_once(str(folder), str(error))
        return False
    _refuse_foreign(folder, found)
    return True


def _refuse_foreign(path: Path, found: os.stat_result) -> None:
    hint = f"remove it, or chmod go-w it, or set GRIDCOMPUTE_CACHE to a folder of your own (uid {os.geteuid()})"
    if stat.S_ISLNK(found.st_mode):
        raise StoreError(f"compiled code isn't loaded through the symbolic link {path}", hint=hint)
    if found.st_uid != os.geteuid():
        raise StoreError(f"compiled code isn't loaded from {path}: it belongs to uid {found.st_uid}", hint=hint)
    if found.st_mode & 0o022:
        raise StoreError(
            f"compiled code isn't loaded from {path}: others may write to it (mode {stat.S_IMODE(found.st_mode):04o})",
            hint=hint,
        )


def read_private(path: Path) -> bytes:
    """The content of a file that only this user can have written.

    Raises:
        FileNotFoundError: it isn't there.
        StoreError: others own it or may write to it.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        _refuse_foreign(path, os.fstat(handle))
        return file.read()


@lru_cache(maxsize=8)
def _warn_once(folder: str, why: str) -> None:
    warnings.warn(
        f"compiled code can't be kept in {folder} ({why}): every process compiles its kernels again; "
        "set GRIDCOMPUTE_CACHE to a writable folder",
        stacklevel=2,
    )
