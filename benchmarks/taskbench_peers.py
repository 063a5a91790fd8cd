"""Task Bench on other Python systems: the same task, one call of theirs each, and edges as they want them told.

Nothing of gridcompute is imported here; each process has one of the systems only.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import taskbench_oracle as oracle

Graph = dict[Any, Any]


@lru_cache
def _compiled() -> Any:
    import numba

    from benchmarks.taskbench_kernel import task

    return numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})(task)


@lru_cache
def _expected(pattern: str, width: int) -> Any:
    return oracle.expected(pattern, width)


def node(pattern: str, width: int, t: int, p: int, iterations: int, *read: Any) -> tuple[int, int, int]:
    """One task; what it reads are the triples that others gave."""
    import numpy as np

    at, point = (np.array([one[i] for one in read], np.int64) for i in range(2))
    hashes = np.array([one[2] for one in read], np.uint64)
    lead, period = oracle.cycle(pattern, width)
    found = _compiled()(at, point, hashes, _expected(pattern, width), lead, period, iterations, (p,), t)
    return tuple(int(one) for one in found)  # type: ignore[return-value]


def _told(pattern: str, width: int, steps: int) -> list[list[list[int]]]:
    lead, period = oracle.cycle(pattern, width)
    phases = [[oracle.inputs(pattern, t, p, width) for p in range(width)] for t in range(lead + period)]
    return [phases[t if t < lead else lead + (t - lead) % period] for t in range(steps)]


def _made(pattern: str, width: int, steps: int, submit: Callable[..., Any]) -> list[Any]:
    """The whole graph by a `submit(t, p, *inputs)`: its last row, then what nobody reads, which is to be done too."""
    told = _told(pattern, width, steps)
    first = oracle.first_row(width)
    before = [(-1, p, int(first["hash"][p])) for p in range(width)]
    unread: list[Any] = []
    for t in range(steps):
        row = oracle.row(pattern, t, width)
        after = list(before)
        for p in range(row):
            after[p] = submit(t, p, *(before[q] for q in told[t][p]))
        read = {q for p in range(row) for q in told[t][p]}
        if t > 0:
            unread += [before[p] for p in range(min(row, oracle.row(pattern, t - 1, width))) if p not in read]
        before = after
    return [*before, *unread]


def _dict(pattern: str, width: int, steps: int, iterations: int) -> tuple[Graph, list[Any]]:
    """A graph in dask's own form."""
    graph: Graph = {}

    def submit(t: int, p: int, *read: Any) -> Any:
        graph[f"task-{t}-{p}"] = (partial(node, pattern, width, t, p, iterations), *read)
        return f"task-{t}-{p}"

    return graph, _made(pattern, width, steps, submit)


def _answer(began: float, width: int, done: list[Any]) -> tuple[float, list[str]]:
    return time.perf_counter() - began, [str(one[2]) for one in done[:width]]


def dask(pattern: str, width: int, steps: int, iterations: int) -> tuple[float, list[str]]:
    """The threaded scheduler, two threads."""
    get = import_module("dask.threaded").get
    graph, last = _dict(pattern, width, steps, iterations)
    began = time.perf_counter()
    return _answer(began, width, list(get(graph, last, num_workers=2)))


def distributed(client: Any, pattern: str, width: int, steps: int, iterations: int) -> tuple[float, list[str]]:
    """Futures on two worker processes."""
    began = time.perf_counter()
    last = _made(pattern, width, steps, lambda t, p, *read: client.submit(
        node, pattern, width, t, p, iterations, *read, pure=False))  # fmt: skip
    return _answer(began, width, client.gather(last))


@lru_cache
def ray_session() -> Any:
    """Ray with two cores, started once."""
    ray: Any = import_module("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    return ray


def ray_tasks(pattern: str, width: int, steps: int, iterations: int) -> tuple[float, list[str]]:
    """A Ray task each, on two workers."""
    ray = ray_session()
    call = ray.remote(node).options(num_cpus=1, max_retries=0)
    began = time.perf_counter()
    last = _made(pattern, width, steps, lambda t, p, *read: call.remote(pattern, width, t, p, iterations, *read))
    return _answer(began, width, ray.get(last))


def ray_dask(pattern: str, width: int, steps: int, iterations: int) -> tuple[float, list[str]]:
    """Dask's graph on Ray's scheduler."""
    ray_session()
    get = import_module("ray.util.dask").ray_dask_get
    graph, last = _dict(pattern, width, steps, iterations)
    began = time.perf_counter()
    return _answer(began, width, list(get(graph, last)))


@lru_cache
def _parsl() -> Any:
    parsl: Any = import_module("parsl")
    executors = import_module("parsl.executors")
    providers = import_module("parsl.providers")
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it starts its own scripts
    one = executors.HighThroughputExecutor(label="two", max_workers_per_node=2, cores_per_worker=1, encrypted=False,
                                           address="127.0.0.1", provider=providers.LocalProvider(max_blocks=1))
    parsl.load(parsl.Config(executors=[one], strategy="none"))
    return parsl.python_app(node)


def parsl(pattern: str, width: int, steps: int, iterations: int) -> tuple[float, list[str]]:
    """An app each, on two workers of the high-throughput executor."""
    app = _parsl()
    began = time.perf_counter()
    last = _made(pattern, width, steps, lambda t, p, *read: app(pattern, width, t, p, iterations, *read))
    return _answer(began, width, [one.result() if hasattr(one, "result") else one for one in last])


def end() -> None:
    """Stop what this process started."""
    if ray_session.cache_info().currsize:
        ray_session().shutdown()
    if _parsl.cache_info().currsize:
        import_module("parsl").dfk().cleanup()
