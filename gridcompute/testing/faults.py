"""Stores that fail on purpose: faults are data, so a test says exactly which call fails and how."""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gridcompute.errors import StoreError
from gridcompute.store import Store, probe

FaultKind = Literal["timeout", "unavailable", "lost", "partial", "corrupt", "full"]


@dataclass(frozen=True)
class Fault:
    """One failure at one call.

    Attributes:
        call: which call of that operation fails, counted from 0.
        kind: "timeout" (nothing is done, TimeoutError), "unavailable" (nothing is done, as S3's 503), "lost"
            (it is done, but the answer is lost: ConnectionResetError), "partial" (half the bytes are left
            behind, as on a store that isn't atomic: ConnectionResetError), "corrupt" (one bit of what is read
            is flipped, no error), "full" (StoreError: no room).
        operation: the method that fails.
    """

    call: int
    kind: FaultKind
    operation: str = "put_new"


def seeded_faults(seed: int, rate: float, calls: int = 1000,
                  kinds: Sequence[FaultKind] = ("timeout", "unavailable", "lost"),
                  operations: Sequence[str] = ("get", "put_new", "put")) -> tuple[Fault, ...]:
    """A script in which each of the first calls of each operation fails with a probability of `rate`."""
    draw = random.Random(seed)
    return tuple(Fault(call, draw.choice(list(kinds)), operation)
                 for operation in operations for call in range(calls) if draw.random() < rate)


@dataclass(frozen=True)
class FaultyStore:
    """A store that fails where a script says so, and passes everything else on.

    Calls are counted per operation and per object; a pickled copy counts from 0 again.

    Attributes:
        store: what is behind it.
        script: the faults.
        log: what was injected so far.
    """

    store: Store
    script: tuple[Fault, ...] = ()
    log: list[Fault] = field(default_factory=list, compare=False)
    _calls: dict[str, int] = field(default_factory=dict, compare=False, repr=False)
    _lock: Any = field(default_factory=threading.Lock, compare=False, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.store, self.script)

    @property
    def url(self) -> str:
        """The inner store's URL."""
        return self.store.url

    def _next(self, operation: str) -> FaultKind | None:
        with self._lock:
            call = self._calls.get(operation, 0)
            self._calls[operation] = call + 1
            for fault in self.script:
                if fault.operation == operation and fault.call == call:
                    self.log.append(fault)
                    return fault.kind
        return None

    def _before(self, operation: str) -> FaultKind | None:
        kind = self._next(operation)
        if kind == "timeout":
            raise TimeoutError(f"{operation} on {self.url} took too long (injected)")
        if kind == "unavailable":
            raise OSError(errno.EBUSY, f"{operation} on {self.url}: 503 SlowDown (injected)")
        if kind == "full":
            raise StoreError(f"{operation} on {self.url}: the disk is full (injected)", hint="make room")
        return kind

    def _after(self, operation: str, kind: FaultKind | None) -> None:
        if kind in ("lost", "partial"):
            raise ConnectionResetError(errno.ECONNRESET, f"{operation} on {self.url}: no answer (injected)")

    def get(self, path: str) -> bytes:
        """As the inner store, or a fault."""
        kind = self._before("get")
        return self._bent(self.store.get(path), "get", kind)

    def get_range(self, path: str, start: int, stop: int) -> bytes:
        """As the inner store, or a fault."""
        kind = self._before("get_range")
        return self._bent(self.store.get_range(path, start, stop), "get_range", kind)

    def _bent(self, data: bytes, operation: str, kind: FaultKind | None) -> bytes:
        self._after(operation, kind)
        if kind == "corrupt" and data:
            middle = len(data) // 2
            return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        return data

    def put_new(self, path: str, data: bytes | memoryview) -> bool:
        """As the inner store, or a fault."""
        kind = self._before("put_new")
        won = self.store.put_new(path, data[: len(data) // 2] if kind == "partial" else data)
        self._after("put_new", kind)
        return won

    def put(self, path: str, data: bytes) -> None:
        """As the inner store, or a fault."""
        kind = self._before("put")
        self.store.put(path, data[: len(data) // 2] if kind == "partial" else data)
        self._after("put", kind)

    def exists(self, path: str) -> bool:
        """As the inner store, or a fault."""
        self._after("exists", self._before("exists"))
        return self.store.exists(path)

    def delete(self, path: str) -> None:
        """As the inner store, or a fault."""
        kind = self._before("delete")
        self.store.delete(path)
        self._after("delete", kind)

    def list(self, prefix: str = "") -> Iterator[str]:
        """As the inner store, or a fault."""
        return (name for name, _ in self.list_sizes(prefix))

    def list_sizes(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """As the inner store, or a fault (operation "list")."""
        self._after("list", self._before("list"))
        return self.store.list_sizes(prefix)

    def free_bytes(self) -> int | None:
        """As the inner store."""
        return self.store.free_bytes()

    def sweep(self, older_than: float = 86400.0) -> int:
        """As the inner store."""
        return self.store.sweep(older_than)

    def probe(self) -> None:
        """Through the faults."""
        probe(self)


@dataclass(frozen=True)
class CarelessStore(FaultyStore):
    """A store that ignores conditions, as some S3 gateways do: every writer of a name "wins"."""

    def put_new(self, path: str, data: bytes | memoryview) -> bool:
        """Overwrites what is there."""
        self.store.put(path, bytes(data))
        return True
