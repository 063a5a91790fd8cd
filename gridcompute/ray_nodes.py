"""Members of an `iterate` on the nodes of a Ray cluster: one actor a node, owned by the task that leads them.

Ray ends an actor when the process that made it is gone, so no member outlives its task. None is started again by Ray
(law 5): the task fails as one that lost a worker, and another attempt goes on from the last state that was kept.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import cloudpickle

from gridcompute.errors import WorkerLostError
from gridcompute.numerics import numerics_class
from gridcompute.shipping import by_value
from gridcompute.spread import Iteration, Member

ASK_SECONDS = 30.0
"""Nodes whose member hasn't come by then are busy with something else: it goes on without them."""


class RayMember(Member):
    """A member that reads what it is to carry from a reference to pickled bytes."""

    def __init__(self, iteration: list[Any], threads: int) -> None:
        import ray

        super().__init__(cloudpickle.loads(ray.get(iteration[0])), threads)

    def numerics(self) -> str:
        """Its class of numerics: bits are equal within one (law 1)."""
        return numerics_class()


class RayNodes:
    """As `gridcompute.spread.Nodes`, made within a Ray task on one of the nodes.

    Args:
        iteration: what is carried.
        cores: that the run may use on all nodes; the task has those of its own node already.
    """

    def __init__(self, iteration: Iteration, cores: int) -> None:
        import ray

        self._ray: Any = ray
        self._began, self._settled = time.monotonic(), False
        payload = ray.put(by_value(iteration))
        made = ray.remote(RayMember)
        self._members, self._threads, self._names = list[Any](), list[int](), list[str]()
        for node, threads, needed in places(self._ray.nodes(), ray.get_runtime_context().get_node_id(), cores):
            # The task's own node has no free cores: the task has them, and leaves them to its member.
            at = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            member = made.options(num_cpus=needed, max_restarts=0, max_task_retries=0, scheduling_strategy=at)
            self._members.append(member.remote([payload], threads))
            self._threads.append(threads)
            self._names.append(node["NodeManagerAddress"])
        self._awaited = [member.numerics.remote().future() for member in self._members]

    def ready(self) -> tuple[int, ...] | None:
        """See `Nodes`."""
        if not self._settled:
            done = [one.done() for one in self._awaited]
            if not all(done) and time.monotonic() - self._began < ASK_SECONDS:
                return None
            there = [came and one.exception() is None and one.result() == numerics_class()
                     for came, one in zip(done, self._awaited, strict=True)]
            for member in (member for member, kept in zip(self._members, there, strict=True) if not kept):
                self._end(member)
            for listed in (self._members, self._threads, self._names):
                listed[:] = [item for item, kept in zip(listed, there, strict=True) if kept]
            self._settled = True
        return tuple(self._threads)

    def ask(self, node: int, method: str, *arguments: Any, answers: int = 1) -> Sequence[Any]:
        """See `Nodes`."""
        found = getattr(self._members[node], method).options(num_returns=answers).remote(*arguments)
        return found if isinstance(found, list) else [found]

    def come(self, answers: Sequence[Any], seconds: float) -> Mapping[int, Any]:
        """See `Nodes`; a wait of Ray's own would give the task's cores to other tasks meanwhile."""
        futures = [answer.future() for answer in answers]
        concurrent.futures.wait(futures, seconds)
        return {place: self._answer(one) for place, one in enumerate(futures) if one.done()}

    def _answer(self, future: Any) -> Any:
        failures = self._ray.exceptions
        try:
            return future.result()
        except failures.RayTaskError as error:
            cause = error.cause
            if not isinstance(cause, failures.RayError):
                raise cause from None
        except failures.RayError:
            pass
        raise WorkerLostError(f"one of the {len(self._members)} nodes that carry it together, "
                              f"{', '.join(self._names)}, lost its process") from None

    def close(self) -> None:
        """See `Nodes`."""
        for member in self._members:
            self._end(member)
        self._members.clear()

    def _end(self, member: Any) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(member, no_restart=True)


def places(nodes: Sequence[Mapping[str, Any]], own: str, cores: int) -> list[tuple[Mapping[str, Any], int, int]]:
    """Nodes that take part, the threads of each, and the cores to ask Ray for.

    Args:
        nodes: as Ray lists them.
        own: the task's own node, which comes first.
        cores: of all together.

    >>> two = [{"NodeID": name, "Alive": True, "Resources": {"CPU": 4.0}} for name in "ab"]
    >>> [(node["NodeID"], *numbers) for node, *numbers in places(two, "b", 6)]
    [('b', 4, 0), ('a', 2, 2)]
    """
    found = []
    for node in sorted(nodes, key=lambda one: (one["NodeID"] != own, -one["Resources"].get("CPU", 0), one["NodeID"])):
        threads = min(cores, int(node["Resources"].get("CPU", 0)))
        if node["Alive"] and threads > 0:
            found.append((node, threads, 0 if node["NodeID"] == own else threads))
            cores -= threads
    return found
