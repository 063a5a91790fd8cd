"""Tasks on Ray: one Ray task an order, no retries of Ray's own, results as small events (law 5).

An op's payload is put once and unpickled once a worker; blocks that are held stay in Ray's object store, and the
driver only holds references to them.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from gridcompute.bounds import abreast
from gridcompute.columns import Block
from gridcompute.content import seal
from gridcompute.errors import WorkerLostError
from gridcompute.events import Event, Failure, FailureKind, TaskDone, TaskFailed
from gridcompute.footprint import Kills, outgrown
from gridcompute.orders import LostInputError, Order, Payload
from gridcompute.ray_calls import CALLS, leave
from gridcompute.ray_nodes import RayNodes
from gridcompute.ray_places import EXIT_SECONDS, HandedBack, Placing, refuses
from gridcompute.ray_session import connect
from gridcompute.ray_watch import ControlStore
from gridcompute.shipping import packed, unpacked
from gridcompute.worker import StageWorker

STAGES = 64
"""Stages that a worker process keeps unpickled; it outlives the run, so older ones go."""

SPREAD_SECONDS = 10.0
"""What an `iterate` has left of less than this ends on one node before processes on others would have paid."""

KILL_SECONDS = 10.0
"""A process that isn't gone by then is stuck in a system call; what it was writing is swept by a later run."""

STAGE_BYTES = 64 * 2**20
"""Of these, with the arrays that they hold: several small ones, or a single large one."""

_stages: dict[str, tuple[StageWorker, int]] = {}
"""Per worker process: the stages it has unpickled, oldest first, with their bytes."""


@dataclass(frozen=True)
class Held:
    """A held block: its task's second return value, and its key there."""

    ref: Any
    root: int
    chunk: int
    stage: int


def run_order(key: str, payload: list[Any], order: Order, held: bool, hold: float) -> Any:
    """Do an order in a worker process.

    Args:
        key: of the payload, unique in the session.
        payload: a reference to the packed payload, in a list so that Ray doesn't fetch it each time.
        order: the task.
        held: whether its stage is.
        hold: seconds that a process which isn't to do it keeps busy, so that another is asked.

    Returns:
        The event, or that this process isn't to do it; for a held stage also the blocks by (root, chunk).
    """
    import ray

    turn = order.task.turn
    name = f"{socket.gethostname()}:{os.getpid()}"
    node = ray.get_runtime_context().get_node_id() if turn.voted or turn.barred else ""
    if refuses(turn, name, node):
        if name in turn.barred:
            threading.Timer(EXIT_SECONDS, os._exit, (0,)).start()
        time.sleep(hold)
        back = HandedBack(name)
        return (back, {}) if held else back
    new = key not in _stages
    if new:
        arrays = ray.get(payload[0])
        _stages[key] = StageWorker(unpacked(arrays)), sum(array.nbytes for array in arrays)
        while len(_stages) > STAGES or (sum(size for _, size in _stages.values()) > STAGE_BYTES and len(_stages) > 1):
            del _stages[next(iter(_stages))]
    worker, _ = _stages[key]
    places = {}
    for place, value in order.places.items():
        if isinstance(value, Held):
            try:
                value = _opened(ray.get(value.ref)[value.root, value.chunk])
            except (ray.exceptions.RayError, ValueError) as error:
                lost = LostInputError(f"a held block is gone: {error}", value.stage, value.chunk)
                failure = Failure("corrupt_shard", str(lost), order.task.chunks[0], lost=(value.stage, value.chunk))
                return _answer(TaskFailed(order.task.number, failure, worker=name, node=node), held)
        places[place] = value
    event = worker.run(replace(order, places=places), name)
    if new and outgrown(sum(kept.value.nbytes for kept in event.kept if kept.value is not None)):
        # Once a stage: a process is reused by jobs that know nothing of what earlier ones have left in it.
        leave(ray._private.worker.global_worker)
    return _answer(replace(event, node=node), held)


def _answer(event: TaskDone | TaskFailed, held: bool) -> Any:
    if not held:
        return event
    blocks = {(k.root, k.chunk): (k.value, seal(k.value)) for k in event.kept if k.value is not None}
    return replace(event, kept=tuple(replace(k, value=None) for k in event.kept)), blocks


def _opened(found: tuple[Block, int]) -> Block:
    """A block out of the object store, which keeps no checksums: memory, a network and a disk lie behind it."""
    block, sealed = found
    if seal(block) != sealed:
        raise ValueError("its bytes aren't those that were put there")
    return block


class RayExecutor:
    """Orders as Ray tasks, on a local Ray or a cluster.

    Args:
        workers: cores; 0 for all that Ray has.
        threads: of each worker, which reads and decodes with them; cores are divided by it.
        address: of a cluster, empty for a local Ray.
        dashboard: start a local Ray's dashboard.
        certs: folder with the cluster's token and certificates.
        allow_open: see `Settings`.

    Attributes:
        worth: seconds that an `iterate` must have left to be carried by several nodes.

    Ray is started or reached when the first phase begins that has something to do; `begin` raises ClusterError where
    that fails. Until then `workers` is what was asked for.
    """

    name, widens = "ray", True

    def __init__(self, *, workers: int, threads: int = 1, address: str = "", dashboard: bool = False, certs: str = "",
                 allow_open: str = "") -> None:
        self._cores, self._address = workers, address
        self._options: dict[str, Any] = {
            "address": address, "dashboard": dashboard, "certs": certs, "allow_open": allow_open}
        self.threads, self.workers, self.queue = threads, max(1, workers // threads), 1
        self.start_seconds, self.worth = 0.0, SPREAD_SECONDS
        self._ray: Any = None
        self._placing: Any = None
        self._orders: dict[int, Order] = {}
        self._run: Any = None
        self._payloads: dict[int, tuple[str, Any, dict[str, Any], Any]] = {}
        self._local, self._kills = workers, Kills()
        self._pending: dict[Any, tuple[int, int]] = {}
        self._blocks: dict[Any, Any] = {}
        self._killed: list[Any] = []

    def _connect(self) -> None:
        began = time.monotonic()
        self._ray = connect(workers=self._cores, **self._options)
        self._control = ControlStore(self._ray.get_runtime_context().gcs_address)
        cores = int(self._ray.cluster_resources().get("CPU", 1))
        self._local = max(1, cores)
        wanted = self._cores or cores if self._address else min(self._cores or cores, cores)
        self.workers = max(1, wanted // self.threads)
        # Where Ray has more cores than were asked for, tasks submitted ahead would run at once.
        self.queue = 2 if wanted >= cores else 1
        self._run, self._placing = self._ray.remote(max_calls=CALLS)(run_order), Placing(self._ray)
        self.start_seconds = time.monotonic() - began

    def begin(self, payloads: Sequence[Payload]) -> None:
        """See `Executor`."""
        if self._ray is None:
            self._connect()
        self._payloads, self._orders = {}, {}
        for payload in payloads:
            stage = payload.stage
            if any(op.action.spans for op in stage.roots):
                payload = self._spanning(payload)
            else:
                payload = self._widened(payload, abreast(stage, self.workers))
            # Once a stage: Ray makes a class of each set of options.
            # A local Ray may have fewer cores than a worker has threads: it would wait for more of them for ever.
            cores = payload.threads if self._address else min(payload.threads, self._local)
            options = {"num_cpus": cores, "max_retries": 0, "num_returns": 2 if stage.held else 1,
                       "name": f"stage {stage.number}"}
            call = self._run.options(**options)
            self._payloads[stage.number] = (uuid.uuid4().hex, self._ray.put(packed(payload)), options, call)

    def _spanning(self, payload: Payload) -> Payload:
        """For a task that may have all of the run's cores: those of one node, and the offer of others."""
        wide, cores, nodes = self._widened(payload, self.workers), self.workers * self.threads, self._nodes()
        wide = replace(wide, memory=payload.memory * (wide.threads // self.threads))
        several = cores > wide.threads and sum(node > 0 for node in nodes) > 1
        return replace(wide, offer=partial(RayNodes, cores=cores) if several else None, worth=self.worth)

    def _widened(self, payload: Payload, times: int) -> Payload:
        """For tasks that have the cores of several workers each, as far as a node goes; memory is that of one."""
        if times == 1:
            return payload
        return replace(payload, threads=max(self.threads, min(self.threads * times, max(self._nodes(), default=0))))

    def _nodes(self) -> list[int]:
        """Cores of each node."""
        return [int(node["Resources"].get("CPU", 0)) for node in self._ray.nodes() if node["Alive"]]

    def submit(self, order: Order) -> None:
        """See `Executor`."""
        key, ref, options, call = self._payloads[order.task.stage]
        turn, held, times, hold = order.task.turn, options["num_returns"] == 2, 1, 0.0
        if turn.avoid or turn.barred or turn.copy:
            self._orders[order.task.number] = order
            times, hold = self._placing.times(order, self.workers)
            if place := self._placing.place(order, self.workers):
                call = self._run.options(**options, **place)
        for _ in range(times):
            answer = call.remote(key, [ref], order, held, hold)
            if held:
                answer, blocks = answer
                self._blocks[answer] = blocks
            self._pending[answer] = (order.task.number, order.task.stage)

    def poll(self, timeout: float) -> list[Event]:
        """See `Executor`."""
        for order in self._placing.due() if self._placing is not None else ():
            self.submit(order)
        if not self._pending:
            if self._orders:
                time.sleep(self._placing.patience(timeout))
            return []
        refs = list(self._pending)
        ready, _ = self._ray.wait(refs, num_returns=1, timeout=self._placing.patience(timeout))
        self._control.check()
        if ready and len(refs) > 1:
            ready, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        return [event for ref in ready if (event := self._event(ref)) is not None]

    def _event(self, ref: Any) -> Event | None:
        if ref not in self._pending:  # another process was quicker
            return None
        number, stage = self._pending.pop(ref)
        blocks = self._blocks.pop(ref, None)
        try:
            event: TaskDone | TaskFailed | HandedBack = self._ray.get(ref)
        except Exception as error:
            kind = self._kind(error)
            # Of an error within the task Ray's text begins with its own names for the task: the cause says more.
            told = getattr(error, "cause", None) or error
            text = f"{type(told).__name__}: {next(iter(str(told).strip().splitlines()), '')}"
            self._forget(number)
            message = text if kind != "fatal" else f"a task of stage {stage} failed: {text}"
            return TaskFailed(number, Failure(kind, message, error=WorkerLostError(message)))
        if isinstance(event, HandedBack):
            if number in self._orders and not any(task == number for task, _ in self._pending.values()):
                self._placing.handed_back(self._orders[number])
            return None
        self._forget(number)
        if blocks is not None:
            kept = tuple(replace(k, value=Held(blocks, k.root, k.chunk, k.stage)) for k in event.kept)
            return replace(event, kept=kept)
        return event

    def _kind(self, error: Exception) -> FailureKind:
        failures = self._ray.exceptions
        if isinstance(error, failures.OutOfMemoryError):
            return "out_of_memory"
        if isinstance(error, failures.RayTaskError):
            return "fatal"
        return "out_of_memory" if self._kills.another() else "lost_worker"

    def _forget(self, task: int) -> None:
        """A task has its answer; that of others who were asked as well isn't wanted."""
        if self._orders.pop(task, None) is not None:
            self._placing.forget(task)
            for ref in [ref for ref, (number, _) in self._pending.items() if number == task]:
                del self._pending[ref]
                self._blocks.pop(ref, None)

    def kill(self, task: int) -> None:
        """See `Executor`."""
        for ref, (number, _) in list(self._pending.items()):
            if number == task:
                self._pending.pop(ref)
                self._blocks.pop(ref, None)
                self._killed.append(ref)
                self._ray.cancel(ref, force=True)
        self._forget(task)

    def close(self) -> None:
        """See `Executor`; Ray itself stays up for the next run of this process."""
        for number, _ in list(self._pending.values()):
            self.kill(number)
        if self._killed:  # their processes may write until they are gone
            self._ray.wait(self._killed, num_returns=len(self._killed), timeout=KILL_SECONDS)
        self._payloads, self._blocks, self._orders, self._killed = {}, {}, {}, []
