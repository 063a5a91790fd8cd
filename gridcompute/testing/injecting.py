"""Faults carried out where the work is done: in the worker's process, chunk by chunk.

A `ChaosExecutor` gives each order the faults that its chunks are to meet; the worker meets them once each, and leaves a
mark of each in a folder before it does. So what was injected is known after any death, and a job that is gone on with
doesn't meet it again.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import json
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from gridcompute.actions.loads import Ingest
from gridcompute.actions.writes import Write
from gridcompute.columns import Block
from gridcompute.commits import AT_ONCE, Commits
from gridcompute.digests import digest
from gridcompute.events import Event, Failure, FailureKind, Kept, TaskDone, TaskFailed
from gridcompute.orders import Order, Payload
from gridcompute.planning import Stage
from gridcompute.skips import Skips
from gridcompute.store import Store
from gridcompute.testing import faults
from gridcompute.testing.schedule import Fault, Schedule
from gridcompute.worker import StageWorker

NODE_LOST = "the node went away (injected)"

HANG_SECONDS = 3600.0
"""What hangs is killed by the run's deadline; where nobody does that it ends by itself."""

NODE_SECONDS = 60.0
"""Time in which a node that is to be killed is."""


def stage_name(stage: Stage) -> str:
    """What faults know a stage by: the same after the code or the data behind it was changed."""
    return f"{stage.number} {stage.name}, {stage.chunks}"


@dataclass(frozen=True)
class Injected:
    """A fault that was carried out: to which attempt of which chunk."""

    stage: str
    chunk: int
    attempt: int
    kind: str
    how: str = ""


@dataclass(frozen=True)
class Marks:
    """The faults that were carried out: a file each, in a folder that all workers reach."""

    folder: str

    def has(self, stage: str, chunk: int, attempt: int) -> bool:
        """Whether that attempt has met its fault."""
        return os.path.exists(self._path(stage, chunk, attempt))

    def make(self, done: Injected) -> bool:
        """Take note of a fault that is about to be carried out; False if it was before."""
        path = self._path(done.stage, done.chunk, done.attempt)
        mine = f"{path}.{uuid.uuid4().hex}"  # a process that dies in here has noted nothing, and done nothing
        Path(mine).write_text(json.dumps(asdict(done)))
        try:
            os.link(mine, path)
        except FileExistsError:
            return False
        finally:
            os.unlink(mine)
        return True

    def all(self) -> list[Injected]:
        """All of them, by stage, chunk and attempt."""
        found = [Injected(**json.loads(path.read_text())) for path in Path(self.folder).glob("*.json")]
        return sorted(found, key=lambda one: (one.stage, one.chunk, one.attempt))

    def _path(self, stage: str, chunk: int, attempt: int) -> str:
        return os.path.join(self.folder, f"{digest(stage)[:16]}-{chunk}-{attempt}.json")


class DriverKilled(BaseException):
    """The driver's death, where it shares its process with the caller."""


class _Ended(BaseException):
    """A worker's death, or a hang, where it shares its process with the driver."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


@dataclass(frozen=True)
class Injection:
    """The faults of one order; see `gridcompute.worker.Trouble`.

    Attributes:
        stage: its name.
        faults: by chunk.
        marks: where they are noted.
        driver: host and process of the driver: what happens there is simulated.
        node: Ray's number of the driver's node, which isn't killed (its worker is).
        pauses: where it isn't None, time is virtual: seconds that were to be slept.
    """

    stage: str
    faults: Mapping[int, tuple[Fault, ...]]
    marks: Marks
    driver: tuple[str, int]
    node: str = ""
    pauses: list[float] | None = None

    def carry_out(self, worker: StageWorker, order: Order, name: str) -> TaskDone | TaskFailed:
        """See `Trouble`."""
        return _TroubledWorker(worker, self).answer(order, name)

    def next(self, chunk: int) -> tuple[int, Fault] | None:
        """The attempt that a chunk begins now, and its fault; None where it meets no more."""
        for attempt, fault in enumerate(self.faults.get(chunk, ()), 1):
            if not self.marks.has(self.stage, chunk, attempt):
                return attempt, fault
        return None

    def pause(self, seconds: float) -> None:
        """Sleep, or say so."""
        if self.pauses is None:
            time.sleep(seconds)
        else:
            self.pauses.append(seconds)

    @property
    def here(self) -> bool:
        """Whether this is the driver's process."""
        return (socket.gethostname(), os.getpid()) == self.driver

    def end(self, kind: FailureKind, message: str) -> NoReturn:
        """End this process, or pretend to."""
        if not self.here:
            os.kill(os.getpid(), signal.SIGKILL)
        raise _Ended(kind, message)

    @property
    def place(self) -> str:
        """Ray's number of this node, where it may be killed; else empty."""
        if self.here:
            return ""
        import ray

        own = str(ray.get_runtime_context().get_node_id())
        return "" if own == self.node else own

    def end_node(self, place: str) -> NoReturn:
        """Wait for whoever kills nodes and has read so in the mark; where that can't be, end this process."""
        if place:
            time.sleep(NODE_SECONDS)
        self.end("lost_worker", NODE_LOST)


class _FailingStore(faults.FaultyStore):
    """A store of which one call fails, noted when it does."""

    def __init__(self, store: Store, script: tuple[faults.Fault, ...], noted: Callable[[], bool]) -> None:
        super().__init__(store, script)
        object.__setattr__(self, "noted", noted)

    def _next(self, operation: str) -> faults.FaultKind | None:
        kind = super()._next(operation)
        return kind if kind is not None and self.noted() else None  # type: ignore[attr-defined]


class _TroubledWorker(StageWorker):
    """A stage's worker for one order, with its faults."""

    def __init__(self, worker: StageWorker, injection: Injection) -> None:
        super().__init__(worker.payload, worker.store)
        self._injection, self._plain = injection, worker.store
        self._carrier = worker._carrier
        self._met: dict[int, tuple[int, Fault]] = {}
        self._commits: Commits | None = None

    def answer(self, order: Order, name: str) -> TaskDone | TaskFailed:
        try:
            event = self._run(order, name)
            for item in event.kept:  # where there was no commit of a block: of a file that was counted
                self._committed(item)
            return event
        except _Ended as end:
            if self._commits is not None:  # what was under way would be done by nobody, or before the death
                for _ in range(AT_ONCE + 1):
                    with contextlib.suppress(_Ended):
                        self._commits.end()
            return TaskFailed(order.task.number, Failure(end.kind, end.message), worker=name)

    def _note(self, chunk: int, how: str = "") -> bool:
        attempt, fault = self._met[chunk]
        done = Injected(self._injection.stage, chunk, attempt, fault.kind, how or fault.how)
        return self._injection.marks.make(done)

    def _chunk(self, chunk: int, tokens: Sequence[str], roots: Sequence[int], commits: Commits) -> None:
        self._commits = commits
        met = self._injection.next(chunk)
        if met is None:
            super()._chunk(chunk, tokens, roots, commits)
            return
        self._met[chunk] = met
        fault = met[1]
        self._begins(chunk, fault)
        if fault.kind == "store":
            self._cache, self._cached = {}, 0  # so that it reads, whatever chunk was before it
            self.store = self._failing(chunk, fault)
        try:
            super()._chunk(chunk, tokens, roots, commits)
        finally:
            self.store = self._plain
        if fault.how in ("commit", "answer") and not self._blocks and self._note(chunk):
            self._die()

    def _begins(self, chunk: int, fault: Fault) -> None:
        if fault.kind in ("store", "corrupt") or fault.how in ("commit", "answer"):
            return
        place = self._injection.place if fault.kind == "kill-node" else ""
        if not self._note(chunk, place):
            return
        if fault.kind == "slow":
            self._injection.pause(fault.seconds)
        elif fault.kind == "hang":
            if not self._injection.here:
                time.sleep(HANG_SECONDS)
            raise _Ended("hang", "it never ends (injected)")
        elif fault.kind == "memory":
            raise MemoryError(f"no memory for chunk {chunk} (injected)")
        elif fault.kind == "reset":
            raise ConnectionResetError(errno.ECONNRESET, f"chunk {chunk}: connection reset (injected)")
        elif fault.kind == "kill-node":
            self._injection.end_node(place)
        else:
            self._die()

    def _die(self) -> NoReturn:
        self._injection.end("lost_worker", "the worker died (injected)")

    @property
    def _blocks(self) -> bool:
        """Whether the stage commits blocks: it neither holds its results nor counts files."""
        return not (self.payload.stage.held or isinstance(self.payload.stage.roots[0].action, Ingest))

    def _failing(self, chunk: int, fault: Fault) -> Store:
        """The store of a chunk: reads fail where shards are read and the number is odd, else writes."""
        reads = any(isinstance(place, str) for place in self._places.values())
        operation = "get" if reads and (chunk % 2 or self.payload.stage.held) else "put_new"
        script = (faults.Fault(0, fault.how, operation),)  # type: ignore[arg-type]
        return _FailingStore(self._plain, script, lambda: self._note(chunk))

    def _commit(self, root: int, chunk: int, token: str, block: Block, skips: tuple[Skips, ...]) -> Kept:
        """What meets a chunk at its commit, which other chunks of the task have no part in."""
        _, fault = self._met.get(chunk, (0, None))
        if fault is not None and fault.how == "commit" and self._note(chunk):
            self._die()
        # Commits are under way while the task's own thread is in other chunks: they have a store of their own.
        other = copy.copy(self)
        other.store = self._failing(chunk, fault) if fault is not None and fault.kind == "store" else self._plain
        item = StageWorker._commit(other, root, chunk, token, block, skips)
        self._committed(item)
        return item

    def _committed(self, item: Kept) -> None:
        """What meets a chunk once it is committed, before anybody knows."""
        _, fault = self._met.get(item.chunk, (0, None))
        if fault is None or not item.place:
            return
        if fault.kind == "corrupt" and self._note(item.chunk):
            self._damage(item, fault.how)
        elif fault.how == "answer" and self._note(item.chunk):
            self._die()

    def _damage(self, item: Kept, how: str) -> None:
        op = self.payload.stage.roots[item.root]
        written = isinstance(op.action, Write) and item.blocks
        store: Any = self.payload.outputs[op.recipe].store if written else self._plain
        damage(store, item.blocks[0][0] if item.blocks else item.place, how)


def damage(store: Store, path: str, how: str) -> None:
    """Flip a bit of a stored object ("flip"), cut its end off ("cut") or remove it ("remove")."""
    data = store.get(path)
    if how == "remove":
        store.delete(path)
    elif how == "cut":
        store.put(path, data[: len(data) // 2])
    else:
        middle = len(data) // 2
        store.put(path, data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if data else b"\1")


@dataclass
class ChaosExecutor:
    """An executor whose tasks meet the faults of a schedule; everything else is the inner one's.

    Attributes:
        inner: who carries out orders.
        schedule: which faults.
        marks: where they are noted.
        dies_after: chunks after whose answers the driver dies; 0: it doesn't.
        die: how it does.
        node: see `Injection`.
        tend: called between answers, such as to put new nodes in the place of those that went away.
    """

    inner: Any
    schedule: Schedule
    marks: Marks
    dies_after: int = 0
    die: Callable[[], None] | None = None
    node: str = ""
    tend: Callable[[], None] | None = None
    _names: dict[int, str] = field(default_factory=dict)
    _kept: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)

    def begin(self, payloads: Sequence[Payload]) -> None:
        """See `Executor`."""
        self._names = {payload.stage.number: stage_name(payload.stage) for payload in payloads}
        self.inner.begin(payloads)
        if self.inner.name == "ray":
            self.node = str(sys.modules["ray"].get_runtime_context().get_node_id())

    def submit(self, order: Order) -> None:
        """See `Executor`."""
        stage = self._names[order.task.stage]
        met = {chunk: found for chunk in order.task.chunks if (found := self.schedule.faults(stage, chunk))}
        if met:
            driver = socket.gethostname(), os.getpid()
            order = replace(order, fault=Injection(stage, met, self.marks, driver, self.node))
        self.inner.submit(order)

    def poll(self, timeout: float) -> list[Event]:
        """See `Executor`."""
        events: list[Event] = self.inner.poll(timeout)
        if self.tend is not None:
            self.tend()
        self._kept += sum(len({item.chunk for item in getattr(event, "kept", ())}) for event in events)
        if self.die is not None and 0 < self.dies_after <= self._kept:
            self.die()
        return events
