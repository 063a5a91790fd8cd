"""Several Ray nodes on this machine, each a raylet with workers of its own, to try out what happens when one is lost.

    with LocalCluster(nodes=3) as cluster:
        grid.run(out, address=cluster.address)

Node 0 is the head: Ray's control store runs there. The nodes have the addresses 127.0.0.2, 127.0.0.3, ... (Ray
replaces 127.0.0.1 by the machine's outward address). With such addresses Ray's servers accept connections on all of
the machine's interfaces, so token authentication is on; with `links=True` each node lies in a network namespace of
its own, which nothing outside can reach, and its link can be cut.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from gridcompute import ray_session
from gridcompute.config import OPEN_IN_WORDS
from gridcompute.testing.kept import START_SECONDS, Kept, free_ports, listens
from gridcompute.testing.links import Links

OBJECT_STORE_BYTES = 128 * 2**20
STARTS = 3
"""Tries to start a node."""

AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
REDIS_SETTINGS = {"RAY_external_storage_namespace": "gridcompute", "RAY_gcs_rpc_server_reconnect_timeout_s": "120"}


@dataclass
class Node:
    """One node.

    Attributes:
        number: its place in `LocalCluster.nodes`; 0 is the head.
        address: IPv4, unlike that of any other node.
        kept: its processes.
        name: Ray's, in hexadecimal digits.
    """

    number: int
    address: str
    kept: Kept = field(repr=False)
    name: str = ""

    def raylet(self) -> psutil.Process | None:
        """The process that leads the node, while it lives."""
        return next((one for one in self.kept.processes() if one.name() == "raylet"), None)

    def workers(self) -> list[int]:
        """Process numbers of its workers, those that have outlived the raylet included."""
        found = []
        for one in self.kept.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                words = one.cmdline() or [""]
                titled = words[0].startswith("ray::") and not words[0].startswith(AGENTS)
                if titled or any(word.endswith("/default_worker.py") for word in words):
                    found.append(one.pid)
        return found


class LocalCluster:
    """Ray nodes on this machine, for as long as the `with` block lasts or this process lives.

    They have a token of their own, which this process uses meanwhile.

    Args:
        nodes: how many, the head included.
        cores: of each.
        redis: keep the control store's contents in a Redis (redis-server), so that the head can be started again.
        links: put each node into a network namespace of its own (root only); `cut` and `mend` are its link's.
        object_store: bytes of each node's object store.

    Attributes:
        address: what `grid.run(..., address=...)` and `gridcompute run --address` want.
        nodes: the nodes, lost ones included.
        environment: what another process needs in its environment to join.

    Raises:
        TimeoutError: a node or Redis did not come up; with the end of its log.
        OSError: the kernel gives no network namespace.
        ValueError: both `redis` and `links`.
    """

    def __init__(self, nodes: int = 3, cores: int = 1, *, redis: bool = False, links: bool = False,
                 object_store: int = OBJECT_STORE_BYTES) -> None:
        if redis and links:
            raise ValueError("redis and links don't go together: Redis listens on the machine's own loopback")
        self.count, self.cores, self.object_store = nodes, cores, object_store
        self.nodes: list[Node] = []
        self.address, self.links = "", Links() if links else None
        self.environment: dict[str, str] = {}
        self._redis, self._redis_address, self._redis_options = redis, "", list[str]()
        self._kept: list[Kept] = []
        self._folder = Path(os.devnull)  # until it is made
        self._before: dict[str, str | None] = {}

    def __enter__(self) -> LocalCluster:
        # Short: the names of Ray's sockets hang below it, and those are limited to 107 characters.
        self._folder = Path(tempfile.mkdtemp(prefix="gridcompute-", dir="/tmp"))
        token = self._folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        self._before = _set_variables({"RAY_AUTH_TOKEN": None, **self.environment})
        ray_session.prepared()
        try:
            if self.links is not None:
                self.links.open()
                # Beyond loopback and without TLS, but nothing outside can reach it.
                self.environment |= {"GRIDCOMPUTE_ALLOW_OPEN": OPEN_IN_WORDS}
            if self._redis:
                self.environment |= REDIS_SETTINGS
                self._start_redis()
            for _ in range(self.count):
                self.add_node()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End all processes and remove all files; a driver in this process should have left by `ray.shutdown()`."""
        for kept in reversed(self._kept):
            kept.close()
        if self.links is not None:
            self.links.close()
        before, self._before = self._before, {}
        _set_variables(before)
        shutil.rmtree(self._folder, ignore_errors=True)

    def add_node(self) -> Node:
        """Start one more node; the first is the head."""
        number = len(self.nodes)
        address = self.links.address(number) if self.links is not None else f"127.0.0.{number + 2}"
        for again in range(STARTS):
            try:
                node = self._start(number, address)
                break
            except TimeoutError:  # on a busy machine a raylet may give up as its agents are slow to come up
                if self.links is not None or again + 1 == STARTS:
                    raise
                _kill_all(self._kept[-1])
                # The control store takes the one that failed for alive a while longer.
                address, self.address = f"127.0.{again + 1}.{number + 2}", self.address if number else ""
        self.nodes.append(node)
        return node

    def kill_node(self, number: int) -> None:
        """As a machine that loses its power: the raylet and all else there at once, with nobody to say so."""
        if (raylet := self.nodes[number].raylet()) is not None:
            raylet.suspend()  # else it would report its workers' deaths
        _kill_all(self.nodes[number].kept)

    def kill_worker(self, number: int) -> int:
        """One worker of a node; its process number.

        Raises:
            IndexError: the node has none.
        """
        pid = self.nodes[number].workers()[0]
        worker = psutil.Process(pid)
        _kill(worker)
        psutil.wait_procs([worker], timeout=START_SECONDS)
        return pid

    def kill_raylet(self, number: int) -> None:
        """The process that leads a node; its workers may live on."""
        raylet = self.nodes[number].raylet()
        if raylet is not None:
            _kill(raylet)
            psutil.wait_procs([raylet], timeout=START_SECONDS)

    def kill_control_store(self) -> None:
        """Ray's control store only; the head's raylet and its workers live on."""
        stores = [one for one in self.nodes[0].kept.processes() if one.name() == "gcs_server"]
        for one in stores:
            _kill(one)
        psutil.wait_procs(stores, timeout=START_SECONDS)

    def kill_head(self) -> None:
        """The head with Ray's control store."""
        self.kill_node(0)

    def restart_head(self) -> None:
        """Start the head again at the same address; without `redis` it knows nothing of the other nodes."""
        self.kill_node(0)
        # Else Ray takes the other nodes' processes, which name the address, for a head that runs on this machine.
        (self._folder / "ray" / "ray_current_cluster").unlink(missing_ok=True)
        self.nodes[0] = self._start(0, self.nodes[0].address)

    def workers(self, number: int) -> list[int]:
        """Process numbers of a node's workers."""
        return self.nodes[number].workers()

    def cut(self, number: int) -> None:
        """Take a node's link down; needs `links=True`."""
        self._links().cut(number)

    def mend(self, number: int) -> None:
        """Take a node's link up again."""
        self._links().mend(number)

    def command(self, command: Sequence[str], node: int = 0) -> list[str]:
        """A command to be run where it can reach the cluster: as it is, or within a node's network namespace."""
        return list(command) if self.links is None else self.links.within(self.nodes[node].kept.pid, command)

    def environment_at(self, number: int) -> dict[str, str]:
        """As `environment`, for a driver that joins this node and no other."""
        return {**self.environment, ray_session.NODE: self.nodes[number].address}

    def alive(self) -> dict[str, bool]:
        """Of each node that Ray knows, by its name in hexadecimal digits, whether Ray takes it for alive.

        Not with `links=True`: this process can't reach the control store there.
        """
        import ray

        raylet: Any = ray._raylet
        found = raylet.GcsClient(address=self.address).get_all_node_info(timeout=START_SECONDS)
        return {name.hex(): info.state == 0 for name, info in found.items()}

    def _known(self, name: str) -> bool:
        with contextlib.suppress(sys.modules["ray"].exceptions.RpcError):  # a head that comes up again
            return self.alive().get(name, False)
        return False

    def _start(self, number: int, address: str) -> Node:
        port = self.address.rpartition(":")[2] or str(free_ports(1)[0])
        head = ["--head", "--port", port, "--include-dashboard", "false", *self._redis_options]
        where = ["--address", self.address, "--include-log-monitor", "false"] if number else head
        name = secrets.token_hex(28)
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *where, "--node-ip-address", address,
                   "--num-cpus", str(self.cores), "--object-store-memory", str(self.object_store),
                   "--disable-usage-stats", "--temp-dir", str(self._folder / "ray")]
        settings = {**ray_session.ENVIRONMENT, **os.environ, **self.environment}
        if self._redis_address and not number:
            settings["RAY_REDIS_ADDRESS"] = self._redis_address
        settings["RAY_OVERRIDE_NODE_ID_FOR_TESTING"] = name
        kept = Kept(command, self._folder / f"node-{number}.log", environment=settings, folder=self._folder,
                    network=self.links is not None)
        self._kept.append(kept)
        if self.links is not None:
            self.links.join(number, kept.pid)
            kept.begin()
        self.address = self.address or f"{address}:{port}"
        # One after another: a raylet gives up if its agent takes 15 s to come up.
        kept.wait_for(lambda: kept.code == 0, f"node {number} at {address}")
        node = Node(number, address, kept, name)
        if self.links is None:
            kept.wait_for(lambda: self._known(name), f"node {number} at {address} to be known as alive")
        return node

    def _start_redis(self) -> None:
        (port,), word, folder = free_ports(1), secrets.token_hex(32), self._folder / "redis"
        folder.mkdir(mode=0o700)
        settings = folder / "redis.conf"
        settings.touch(mode=0o600)
        settings.write_text(f"bind 127.0.0.1\nport {port}\nrequirepass {word}\ndir {folder}\nappendonly no\nsave ''\n")
        kept = Kept(["redis-server", str(settings)], folder / "log", folder=self._folder)
        self._kept.append(kept)
        kept.wait_for(lambda: listens(port), f"Redis at port {port}")
        self._redis_address, self._redis_options = f"127.0.0.1:{port}", ["--redis-password", word]

    def _links(self) -> Links:
        if self.links is None:
            raise ValueError("the nodes have no links of their own: LocalCluster(links=True)")
        return self.links


def _set_variables(values: Mapping[str, str | None]) -> dict[str, str | None]:
    """Set or remove variables about who may join, and have Ray read them; what they were."""
    before = {name: os.environ.pop(name, None) for name in values}
    os.environ |= {name: value for name, value in values.items() if value is not None}
    ray_session.read_again()
    return before


def _kill_all(kept: Kept) -> None:
    """All that a command has started, but its keeper: the cluster's folder goes with that."""
    killed = sorted(kept.processes(), key=lambda one: one.name() == "raylet")
    for one in killed:
        _kill(one)
    psutil.wait_procs(killed, timeout=START_SECONDS)


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()
