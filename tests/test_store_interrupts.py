"""Ctrl-C between any two instructions of a store in a folder: no descriptor is lost or closed twice, no half seen."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from striking import everywhere

from gridcompute.store import LocalStore
from gridcompute.stores import local
from gridcompute.stores.base import TEMPORARY

# What a folder is listed with closes itself, and complains of it.
pytestmark = [pytest.mark.faults, pytest.mark.filterwarnings("ignore:unclosed scandir iterator:ResourceWarning")]

DATA = bytes(range(200)) * 10
OLD = b"what was there before"


class Descriptors:
    """Those that are open, of all that were opened since; and those that were closed without being open."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open: set[int] = set()
        self.wrong: list[int] = []
        opened, closed = os.open, os.close

        def open_(*args: Any, **options: Any) -> int:
            fd = opened(*args, **options)
            self.open.add(fd)
            return fd

        def close(fd: int) -> None:
            if fd not in self.open:
                self.wrong.append(fd)
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            self.open.discard(fd)
            closed(fd)

        monkeypatch.setattr(os, "open", open_)
        monkeypatch.setattr(os, "close", close)
        monkeypatch.setattr(os, "fsync", lambda fd: None)  # thousands of them


def in_the_store(code: CodeType) -> bool:
    return code.co_filename in (local.__file__, contextlib.__file__)


def written_to(store: LocalStore, name: str) -> None:
    with store.writing(name) as fd:
        os.write(fd, DATA)


WRITES: dict[str, Callable[[LocalStore, str], object]] = {
    "put_new": lambda store, name: store.put_new(name, DATA),
    "put": lambda store, name: store.put(name, DATA),
    "writing": written_to,
}


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("way", WRITES)
def test_writing(way: str, links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not links:
        def link(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", link)
    descriptors, seen, last = Descriptors(monkeypatch), set(), -1
    for last in everywhere(lambda at: WRITES[way](LocalStore(f"{tmp_path}/{at}"), "folder/name"), in_the_store):
        assert (descriptors.open, descriptors.wrong) == (set(), []), last
        store = LocalStore(f"{tmp_path}/{last}")
        seen.add(there := store.exists("folder/name"))
        if there:
            assert store.get("folder/name") == DATA
        store.sweep()  # what has no writer any more
        assert not [path for path in Path(store.root).rglob("*") if path.name.startswith(TEMPORARY)], last
        assert store.put_new("folder/name", DATA) != there
    assert last > 100
    assert seen == {True, False}


def test_replacing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, descriptors = LocalStore(str(tmp_path)), Descriptors(monkeypatch)
    store.put("name", OLD)
    seen = set()
    for at in everywhere(lambda _: store.put("name", DATA), in_the_store):
        assert (descriptors.open, descriptors.wrong) == (set(), []), at
        seen.add(store.get("name"))
        store.put("name", OLD)
    assert seen == {OLD, DATA}


READS: dict[str, Callable[[LocalStore], object]] = {
    "get": lambda store: store.get("a/b/name"),
    "get_range": lambda store: store.get_range("a/b/name", 5, 10),
    "exists": lambda store: store.exists("a/b/name"),
    "absent": lambda store: store.exists("a/c/name"),
    "list": lambda store: list(store.list()),
    "delete": lambda store: store.delete("a/b/name"),
    "sweep": lambda store: store.sweep(),
}


@pytest.mark.parametrize("way", READS)
def test_reading_and_removing(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, descriptors = LocalStore(str(tmp_path)), Descriptors(monkeypatch)
    store.put_new("a/b/name", DATA)
    Path(tmp_path, "a", f"{local._mine()}0-0").touch()
    last = -1
    for last in everywhere(lambda _: READS[way](store), in_the_store):
        assert (descriptors.open, descriptors.wrong) == (set(), []), last
        if store.exists("a/b/name"):
            assert store.get("a/b/name") == DATA
        else:
            assert way == "delete"
            store.put_new("a/b/name", DATA)
        Path(tmp_path, "a", f"{local._mine()}0-0").touch()
    assert last > 20
