"""An `iterate` carried by two nodes of a Ray cluster, against one: steps in turn on the same two cores.

Both nodes are on this machine, one core each, so what passes between them goes through two object stores and loopback,
not through a network.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import gridcompute as grid
from benchmarks.peering import Peers
from benchmarks.rows import OURS, Row, Session, check
from benchmarks.running import own_folders
from gridcompute import ray_session
from gridcompute.config import environment
from gridcompute.shipping import by_value

ONE = "one node"
SECTIONS = ("stencil",)


def diffuse(window: Any) -> Any:
    """Heat that flows to the four neighbours."""
    around = window[0, 1] + window[1, 0] + window[1, 2] + window[2, 1]
    return 0.6 * window[1, 1] + 0.1 * around


def rows(session: Session, peers: Peers) -> Iterator[Row]:
    """What a step takes, what a round of no steps takes, and how many steps a round got."""
    found = _measured(*session.pick((1000, 60, 2), (2000, 200, 3), (4000, 200, 5)), session)
    side = session.pick(1000, 2000, 4000)
    yield Row(f"stencil/{side}/step", "ms", {OURS: found["two"], ONE: found["one"]},
              note=f"A step over {side} x {side} cells (float64, 3 x 3, periodic), by two nodes of a core and by one.")
    yield Row(f"stencil/{side}/latency", "ms", {OURS: found["latency"]},
              note="A round without a step: the members are called and exchange one row each way.")
    yield Row(f"stencil/{side}/reach", "steps", {OURS: found["reach"]}, note="Steps of a round, as chosen.")
    yield Row(f"stencil/{side}/start", "s", {OURS: found["start"]},
              note="From asking for members until they are there; the state goes on on one node meanwhile.")


def _measured(side: int, steps: int, times: int, session: Session) -> dict[str, list[float]]:
    lazy = grid.from_arrays({"v": np.zeros((side, side))}, dims=("y", "x"))["v"]
    out = lazy.iterate(grid.kernel("(y,x)->()")(diffuse), steps, halo={"y": 1, "x": 1}, boundary="periodic")
    found: dict[str, list[float]] = {name: [] for name in ("one", "two", "latency", "reach", "start")}
    with own_folders(Path(session.folder)), _two_nodes() as ray:
        lead = ray.remote(led).options(num_cpus=1, max_retries=0)
        for repetition in range(times):
            session.begin(f"repetition {repetition + 1}")
            told = ray.get(lead.remote(by_value(out.op)))
            check(told.pop("same"), "two nodes give the bits of one")
            for name, value in told.items():
                found[name].append(value)
    return found


@contextlib.contextmanager
def _two_nodes() -> Iterator[Any]:
    ray = ray_session.prepared()
    from ray.cluster_utils import Cluster

    nodes = Cluster()
    try:
        with environment({name: value for name, value in ray_session.ENVIRONMENT.items() if name not in os.environ}):
            for number in (2, 3):  # Ray takes 127.0.0.1 for the machine's outward address
                nodes.add_node(num_cpus=1, node_ip_address=f"127.0.0.{number}", include_dashboard=False,
                               object_store_memory=2**30)  # fmt: skip
        ray_session.connect(workers=2, address=nodes.address)
        yield ray
    finally:
        ray.shutdown()
        nodes.shutdown()


def led(payload: bytes) -> dict[str, Any]:
    """In a task on one of the nodes: stretches of steps in turn, and the medians of what a step of them took."""
    import cloudpickle

    from gridcompute.columns import Fixed
    from gridcompute.ray_nodes import RayNodes
    from gridcompute.spread import Iteration, Spread

    op = cloudpickle.loads(payload)
    action, start = op.action, np.random.default_rng(1).random([n for _, n in op.space.dims])
    what = Iteration(action.cells, action.neighbours, action.fill, op.space.names, start.shape, (start.dtype,),
                     action.steps)
    began = time.perf_counter()
    nodes = RayNodes(what, 2)
    while (threads := nodes.ready()) is None:
        time.sleep(0.01)
    told: dict[str, Any] = {"start": time.perf_counter() - began}
    try:
        gang = what.gang(1)
        gang.put(0, [Fixed(start)])
        first = max(2, action.steps // 20)
        seconds = gang.run(0, first) / first
        wide = Spread(what, nodes, threads, gang.get(first), first, seconds)
        told |= {"latency": wide.latency * 1e3, "reach": float(wide.reach)}
        rates: dict[str, list[float]] = {"one": [], "two": []}
        row = first
        while row < action.steps:
            began = time.perf_counter()
            wide.go(action.steps)
            rates["two"].append((time.perf_counter() - began) / (wide.row - row))
            began = time.perf_counter()
            gang.run(row, wide.row)
            rates["one"].append((time.perf_counter() - began) / (wide.row - row))
            row = wide.row
        told |= {name: statistics.median(values) * 1e3 for name, values in rates.items()}
        told["same"] = wide.columns()[0].values.tobytes() == gang.get(row)[0].values.tobytes()
        return told
    finally:
        nodes.close()
