"""A store in this process's memory, for the inline executor and for tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

from gridcompute.stores.base import checked_path, probe

_NAMED: dict[str, dict[str, bytes]] = {}
_LOCK = threading.Lock()


@dataclass(frozen=True)
class MemoryStore:
    """Bytes in a dictionary that all stores of one name in one process share.

    Another process that opens the same URL sees its own, empty store.

    Attributes:
        url: `memory://name` or `memory://name/folder`.
    """

    url: str

    @property
    def _shared(self) -> dict[str, bytes]:
        with _LOCK:
            return _NAMED.setdefault(self._split[0], {})

    @property
    def _split(self) -> tuple[str, str]:
        name, _, folder = self.url.removeprefix("memory://").strip("/").partition("/")
        return name, f"{checked_path(folder)}/" if folder else ""

    def _key(self, path: str) -> str:
        return self._split[1] + checked_path(path)

    def get(self, path: str) -> bytes:
        """All bytes under a name."""
        try:
            return self._shared[self._key(path)]
        except KeyError:
            raise FileNotFoundError(f"no {path!r} in {self.url}") from None

    def get_range(self, path: str, start: int, stop: int) -> bytes:
        """Bytes start to stop, fewer where they end before."""
        return self.get(path)[start:stop]

    def put_new(self, path: str, data: bytes | memoryview) -> bool:
        """Write a name that isn't there; False if it is."""
        shared, key = self._shared, self._key(path)
        with _LOCK:
            if key in shared:
                return False
            shared[key] = bytes(data)
            return True

    def put(self, path: str, data: bytes) -> None:
        """Write a name, replacing what is there."""
        shared, key = self._shared, self._key(path)
        with _LOCK:
            shared[key] = bytes(data)

    def exists(self, path: str) -> bool:
        """Whether there are bytes under a name."""
        return self._key(path) in self._shared

    def delete(self, path: str) -> None:
        """Remove a name."""
        shared, key = self._shared, self._key(path)
        with _LOCK:
            shared.pop(key, None)

    def list(self, prefix: str = "") -> Iterator[str]:
        """The names below a folder, sorted."""
        return (name for name, _ in self.list_sizes(prefix))

    def list_sizes(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """The names below a folder with their sizes, sorted."""
        base = self._split[1]
        below = base + (f"{checked_path(prefix)}/" if prefix else "")
        shared = self._shared
        with _LOCK:
            found = [(key[len(base) :], len(data)) for key, data in shared.items() if key.startswith(below)]
        return iter(sorted(found))

    def free_bytes(self) -> int | None:
        """Unknown: the machine's memory is bounded by the plan, not by the store."""
        return None

    def sweep(self, older_than: float = 86400.0) -> int:
        """Nothing to do: writers leave nothing behind."""
        return 0

    def probe(self) -> None:
        """Check that names can be written once, read and removed."""
        probe(self)

    def clear(self) -> None:
        """Forget everything below this store's URL."""
        for name in tuple(self.list()):
            self.delete(name)
