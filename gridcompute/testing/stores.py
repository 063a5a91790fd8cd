"""What a store must do, as a test class to inherit.

    class TestMine(StoreConformance):
        @pytest.fixture
        def store(self):
            return MyStore(...)          # empty, and new for each test
"""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gridcompute.errors import StoreError
from gridcompute.store import LocalStore, Store, transient
from gridcompute.testing.faults import CarelessStore


def raised(call: Callable[..., Any], *args: Any) -> BaseException | None:
    """What a call raises, or None."""
    try:
        call(*args)
    except Exception as error:
        return error
    return None


class StoreConformance:
    """What every backend must pass. A subclass gives the fixture `store`: empty, and new for each test."""

    def test_protocol(self, store: Store) -> None:
        """It has every method."""
        assert isinstance(store, Store)

    def test_put_new_once(self, store: Store) -> None:
        """The first bytes stay."""
        assert store.put_new("a/b", b"first")
        assert not store.put_new("a/b", b"second")
        assert not store.put_new("a/b", b"first")
        assert store.get("a/b") == b"first"

    def test_put_replaces(self, store: Store) -> None:
        """The last bytes stay, and block a conditional write."""
        store.put("a", b"first")
        store.put("a", b"second, longer")
        store.put("a", b"third")
        assert store.get("a") == b"third"
        assert not store.put_new("a", b"fourth")

    def test_missing(self, store: Store) -> None:
        """A name that isn't there is FileNotFoundError, and nothing to wait for."""
        for error in (raised(store.get, "no/such"), raised(store.get_range, "no/such", 0, 4)):
            assert isinstance(error, FileNotFoundError)
            assert not transient(error)
        assert not store.exists("no/such")
        store.delete("no/such")

    def test_delete(self, store: Store) -> None:
        """A removed name can be written anew."""
        store.put_new("a/b", b"1")
        assert store.exists("a/b")
        store.delete("a/b")
        assert not store.exists("a/b")
        assert list(store.list()) == []
        assert store.put_new("a/b", b"2")
        assert store.get("a/b") == b"2"

    def test_folder_is_no_name(self, store: Store) -> None:
        """What holds names has no bytes itself."""
        store.put_new("a/b", b"1")
        assert not store.exists("a")

    def test_empty_bytes(self, store: Store) -> None:
        """No bytes are bytes."""
        assert store.put_new("empty", b"")
        assert store.exists("empty")
        assert store.get("empty") == b""
        assert not store.put_new("empty", b"1")
        assert list(store.list_sizes()) == [("empty", 0)]

    def test_ranges(self, store: Store) -> None:
        """Ranges end where the bytes end."""
        store.put_new("r", bytes(range(100)))
        assert store.get_range("r", 10, 20) == bytes(range(10, 20))
        assert store.get_range("r", 90, 200) == bytes(range(90, 100))
        assert store.get_range("r", 0, 100) == bytes(range(100))
        assert store.get_range("r", 5, 5) == b""
        assert store.get_range("r", 100, 110) == b""
        assert store.get_range("r", 500, 510) == b""

    def test_list(self, store: Store) -> None:
        """Names below a folder, at any depth, sorted; a folder's name is no mere prefix."""
        for name in ("b/2", "b/1", "b/c/3", "bb/4", "a"):
            store.put_new(name, name.encode())
        assert list(store.list("b")) == ["b/1", "b/2", "b/c/3"]
        assert list(store.list()) == ["a", "b/1", "b/2", "b/c/3", "bb/4"]
        assert list(store.list_sizes("b/c")) == [("b/c/3", 5)]
        assert list(store.list("a")) == []
        assert list(store.list("none/such")) == []

    def test_list_many(self, store: Store) -> None:
        """More names than one page of an object store's listing."""
        names = [f"many/{i:04d}" for i in range(1005)]
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(lambda name: store.put_new(name, b"x"), names))
        assert list(store.list("many")) == names

    def test_listing_is_fresh(self, store: Store) -> None:
        """What was written after a listing is in the next one."""
        for n in range(4):
            assert len(list(store.list("f"))) == n
            store.put_new(f"f/{n}", b"")

    def test_names(self, store: Store) -> None:
        """Spaces, letters of any script and characters that URLs quote."""
        names = ["with space/x y", "\u00e9t\u00e9/\u6e29\u5ea6.zarr", "c/0/0", ".zattrs", "a=1&b=2",
                 "100%41", "[x]*", "a~b+c;d"]
        for name in names:
            assert store.put_new(name, name.encode())
            assert not store.put_new(name, b"")
        assert {name: store.get(name).decode() for name in store.list()} == {name: name for name in names}

    def test_hostile_names(self, store: Store) -> None:
        """No name leads outside."""
        for name in ("", "/etc/passwd", "../x", "a/../../x", "a/./b", "a//b", "a/", "x\0y", "x\ny", "\ud800",
                     "n" * 256, "a/" * 600 + "b", ".tmp-1-2"):
            for call in (store.get, store.exists, store.delete, lambda n: store.put(n, b""),
                         lambda n: store.put_new(n, b"")):
                assert isinstance(raised(call, name), StoreError), name

    def test_large(self, store: Store) -> None:
        """20 MB come back as they were, whole and in parts."""
        data = random.Random(7).randbytes(20_000_000)
        assert store.put_new("large", data)
        assert store.get("large") == data
        assert store.get_range("large", 12_345_678, 12_345_700) == data[12_345_678:12_345_700]

    def test_race(self, store: Store) -> None:
        """Of 16 writers one wins, each time, and its bytes stay."""
        for turn in range(4):
            name = f"race/{turn}"
            barrier = threading.Barrier(16)

            def write(n: int, name: str = name, barrier: threading.Barrier = barrier) -> bool:
                barrier.wait()
                return store.put_new(name, b"%d" % n * 5000)

            with ThreadPoolExecutor(16) as pool:
                won = list(pool.map(write, range(16)))
            assert won.count(True) == 1
            assert store.get(name) == b"%d" % won.index(True) * 5000

    def test_pickles(self, store: Store) -> None:
        """A copy that went through pickle reads and writes the same names, without the connections."""
        store.put_new("p", b"1")
        copy = pickle.loads(pickle.dumps(store))  # noqa: S301 - our own bytes
        assert copy == store
        assert copy.get("p") == b"1"
        assert not copy.put_new("p", b"2")

    def test_probe(self, store: Store) -> None:
        """A sound store passes and nothing stays behind."""
        store.probe()
        store.probe()
        assert list(store.list()) == []

    def test_probe_refuses_careless(self, store: Store) -> None:
        """The same store without conditions is refused, with the reason and what to do."""
        error = raised(CarelessStore(store).probe)
        assert isinstance(error, StoreError)
        assert "conditional" in error.message
        assert error.hint

    def test_free_bytes(self, store: Store) -> None:
        """A number, or None."""
        free = store.free_bytes()
        assert free is None or free > 0


_WRITERS = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from gridcompute.store import open_store
store, base, go = open_store(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
print("ready", flush=True)
while not go.exists():
    time.sleep(0.001)
with ThreadPoolExecutor(4) as pool:
    won = list(pool.map(lambda n: store.put_new("race", b"%03d" % n * 100_000), range(base, base + 4)))
print(*(base + i for i, w in enumerate(won) if w))
"""

_HALF_WRITER = """
import os, sys, time
from gridcompute.store import open_store
def stop(*args, **kwargs):
    print("ready", flush=True)
    time.sleep(60)
os.link = os.rename = stop
getattr(open_store(sys.argv[1]), sys.argv[2])("killed/name", b"x" * 3_000_000)
"""


class FolderConformance(StoreConformance):
    """What a store in a folder must pass besides: several processes, kill -9, private files, no way out."""

    def test_processes_race(self, store: LocalStore, tmp_path: Path) -> None:
        """Of 16 writers in 4 processes one wins."""
        go = tmp_path / "go"
        children = [_child(_WRITERS, store.url, str(4 * n), str(go)) for n in range(4)]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        go.touch()
        winners = " ".join(child.communicate(timeout=60)[0].strip() for child in children).split()
        assert len(winners) == 1
        assert store.get("race") == b"%03d" % int(winners[0]) * 100_000

    def test_killed_writer(self, store: LocalStore) -> None:
        """A writer killed before the last step leaves nothing in sight; a sweep removes its file."""
        for way in ("put_new", "put"):
            child = _child(_HALF_WRITER, store.url, way)
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            child.kill()
            child.communicate()
            assert not store.exists("killed/name")
            assert list(store.list()) == []
        left = list(Path(store.root, "killed").iterdir())
        assert len(left) == 2
        with store._temporary(store_folder := os.open(Path(store.root, "killed"), os.O_RDONLY), b"of a living writer"):
            assert store.sweep() == 2
        os.close(store_folder)
        assert store.sweep() == 0
        assert store.put_new("killed/name", b"again")
        assert list(Path(store.root, "killed").iterdir()) == [Path(store.root, "killed", "name")]

    def test_private(self, store: LocalStore) -> None:
        """Nobody else may read a work store."""
        store.put_new("a/b/c", b"1")
        store.put("a/d", b"1")
        for path in (Path(store.root), *Path(store.root).rglob("*")):
            assert path.stat().st_mode & 0o077 == 0, path

    def test_links_lead_nowhere(self, store: LocalStore, tmp_path: Path) -> None:
        """Planted links and pipes are neither read, written through, listed nor waited for."""
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "secret").write_bytes(b"secret")
        store.put_new("x", b"1")
        root = Path(store.root)
        (root / "folder").symlink_to(outside)
        (root / "file").symlink_to(outside / "secret")
        os.mkfifo(root / "pipe")
        for name in ("folder/secret", "file", "pipe"):
            assert isinstance(raised(store.get, name), StoreError), name
        for name in ("folder/new", "file", "pipe"):
            assert isinstance(raised(store.put_new, name, b"2"), StoreError), name
        assert list(store.list()) == ["x"]
        assert list(store.list("folder")) == []
        assert sorted(p.name for p in outside.iterdir()) == ["secret"]
        assert (outside / "secret").read_bytes() == b"secret"

    def test_reader_never_sees_half(self, store: LocalStore) -> None:
        """While a name is replaced over and over, a reader gets one whole state."""
        states = [bytes([n]) * 300_000 for n in range(8)]
        store.put("m", states[0])
        stop = time.monotonic() + 0.5

        def write() -> None:
            n = 0
            while time.monotonic() < stop:
                n += 1
                store.put("m", states[n % 8])

        writer = threading.Thread(target=write)
        writer.start()
        while time.monotonic() < stop:
            assert store.get("m") in states
        writer.join()


def _child(script: str, *args: str) -> subprocess.Popen[str]:
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    return subprocess.Popen([sys.executable, "-c", script, *args], stdout=subprocess.PIPE, text=True,
                            env={**os.environ, "PYTHONPATH": path})
