"""A Ray to run on: a local one, closed by default, or a cluster by its address.

Closed by default (law 10): an own token file (0600), token authentication on, loopback only, no dashboard unless
asked for. The settings for health checks, keepalive and niceness are the measured ones of `docs/design`.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import re
import secrets
import signal
import socket
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from gridcompute import reaper
from gridcompute.attaching import VARIABLES, joining, within
from gridcompute.certificates import require_private
from gridcompute.config import environment, private_folders, set_variables, state_folder
from gridcompute.errors import ClusterError

LOOPBACK = "127.0.0.1"
"""Only with this address do Ray's servers listen on loopback; with 127.0.0.2 they accept connections from outside."""

CONNECT_SECONDS = 25.0
"""Most time that connecting to a cluster may take; an unanswered TLS handshake would wait for ever."""

NODE = "GRIDCOMPUTE_RAY_NODE"
"""Environment variable: address of the node that a driver joins, where a machine has several; the head by default."""

ENVIRONMENT = {
    # A cut link leaves tasks in flight hanging for minutes with the defaults.
    "RAY_grpc_client_keepalive_time_ms": "3000",
    "RAY_grpc_client_keepalive_timeout_ms": "5000",
    # A dead node is noticed in 3 s instead of 15 s.
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    # Workers start at nice +15 otherwise.
    "RAY_worker_niceness": "0",
    # Ray ends a task for memory before the system ends whatever process it likes.
    "RAY_memory_usage_threshold": "0.92",
    "RAY_memory_monitor_refresh_ms": "100",
    # One thread a worker: tasks are the parallelism.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def token_file() -> Path:
    """The file with the token of this process's own Ray, made if it isn't there: 0600 in a folder of 0700.

    No other process's Ray has the same. The file goes when the process ends; those of killed ones with the next start.

    Raises:
        ClusterError: it is readable by others, or can't be made.
    """
    folder, host = state_folder() / "tokens", re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())
    path = folder / f"{host}_{os.getpid()}_{reaper.start_time(os.getpid())}"
    try:
        private_folders(folder.parent, folder)
        for other in folder.glob(f"{host}_*_*"):
            pid, _, since = other.name.removeprefix(f"{host}_").partition("_")
            if pid.isdigit() and since != str(reaper.start_time(int(pid))):
                other.unlink(missing_ok=True)
        with contextlib.suppress(FileExistsError):
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(fd, "w") as file:
                file.write(secrets.token_hex(32))
            atexit.register(_remove_token, path, os.getpid())
    except OSError as error:
        raise ClusterError(
            f"no token can be kept in {path}: {error}", hint="set GRIDCOMPUTE_STATE to a folder of yours"
        ) from error
    require_private(path)
    return path


def _remove_token(path: Path, owner: int) -> None:
    if os.getpid() == owner:  # not a forked child
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the SIGTERM handler of a run (a cancel): Ray puts one that exits in its place."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before):
            signal.signal(signal.SIGTERM, before)


def connect(*, workers: int, address: str = "", dashboard: bool = False, certs: str = "",
            allow_open: str = "") -> Any:
    """The `ray` module, connected.

    Args:
        workers: cores of a local Ray.
        address: of a cluster; empty starts a local Ray, or takes the one that this process is connected to.
        dashboard: start a local Ray's dashboard (on loopback).
        certs: folder with the cluster's token and certificates; else Ray's variables say where they are.
        allow_open: joins a cluster beyond loopback without token or TLS, if it says so in words; see `attaching`.

    Raises:
        ClusterError: Ray can't be started or reached; a cluster that can't be is refused within 5 s.
    """
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        _require_same(sys.modules["ray"], address)
        return sys.modules["ray"]
    address = _found(address)
    _take(joining(address, certs=certs, allow_open=allow_open) if address else _own())
    ray = _ready()
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    try:
        if address:
            late = f"it answers, but doesn't take this process in within {CONNECT_SECONDS:g} s"
            own = os.environ.get(NODE)
            with _kept_address(ray):
                within(CONNECT_SECONDS, partial(ray.init, address=address, _node_ip_address=own, **common),
                       f"the Ray cluster at {address} can't be reached: {late}")
        else:
            _start_local(ray, num_cpus=workers, include_dashboard=dashboard, _temp_dir=_temporary(), **common)
    except ClusterError:
        raise
    except Exception as error:
        where = f"the Ray cluster at {address} can't be reached" if address else "no local Ray could be started"
        raise ClusterError(
            f"{where}: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}",
            hint="check that a node of the cluster runs on this machine, and the versions of Ray and Python there"
            if address
            else "gridcompute doctor says what is missing; --executor inline works without Ray",
        ) from error
    _joined[ray.get_runtime_context().gcs_address] = address
    return ray


def prepared() -> Any:
    """The `ray` module, not connected, with the settings that this process keeps from now on.

    Raises:
        ClusterError: the token can't be kept.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if os.environ["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN_PATH", str(token_file()))
    return _ready()


def _ready() -> Any:
    # Ray reads these when it is imported, and the driver needs them for as long as it lives.
    for name, value in ENVIRONMENT.items():
        if name.startswith("RAY_"):
            os.environ.setdefault(name, value)
    return _imported()


_taken: dict[str, tuple[str | None, str | None]] = {}
"""Ray's variables about who may join that were set here, and what the caller had set in their place."""


def _own() -> dict[str, str | None]:
    """The variables of a local Ray: a token of its own, never that of a cluster whose variables are set here."""
    mode = os.environ.get("RAY_AUTH_MODE") or "token"
    token = str(token_file()) if mode.lower() == "token" else None
    return {**dict.fromkeys(VARIABLES), "RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN_PATH": token, "RAY_USE_TLS": "0"}


def _take(values: Mapping[str, str | None]) -> None:
    """Set Ray's variables about who may join, for this process and those that it starts from now on."""
    _taken.update({name: (value, os.environ.get(name)) for name, value in values.items()})
    set_variables(values)
    read_again()


def read_again() -> None:
    """Have Ray read its variables about who may join: it keeps what they were when it was imported."""
    if "ray" in sys.modules:
        raylet = sys.modules["ray"]._raylet
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()


def _found(address: str) -> str:
    """The address to join; empty for a local Ray. "auto" is what Ray finds on this machine."""
    # What was set for a Ray before isn't the caller's.
    set_variables({name: theirs for name, (ours, theirs) in _taken.items() if os.environ.get(name) == ours})
    _taken.clear()
    if address != "auto":
        return "" if address == "local" else address
    ray = _ready()
    try:
        with _kept_address(ray):
            return str(ray._private.services.canonicalize_bootstrap_address_or_die("auto"))
    except (ConnectionError, ValueError) as error:
        raise ClusterError(f"no Ray cluster is found on this machine: {str(error).splitlines()[0]}",
                           hint="give the address of its head, such as 10.0.0.1:6379") from error


_joined: dict[str, str] = {}
"""What each Ray that this process was connected to here goes by: its own address, and that which was asked for."""


def _require_same(ray: Any, address: str) -> None:
    """Refuse to compute on another Ray than the one asked for; a Ray that the caller connected to is taken as it is."""
    own = ray.get_runtime_context().gcs_address
    asked = _joined.get(own)
    if address and asked is not None and address not in (asked, own):
        where = f"the Ray cluster at {asked}" if asked else "a local Ray"
        raise ClusterError(
            f"this process is connected to {where}, not to {address}",
            hint="start a new process (restart the notebook's kernel), or call ray.shutdown() first",
        )


def _imported() -> Any:
    """The `ray` module, without what it says in a notebook and what it does to errors that end the process.

    Its hook reports such an error to Ray first, and waits a minute at full load where Ray has ended.
    """
    hook = sys.excepthook
    logging.getLogger("ray.widgets").setLevel(logging.ERROR)
    import ray

    if "ray" in getattr(sys.excepthook, "__module__", "").split("."):
        sys.excepthook = ray._private.worker.normal_excepthook if hook is sys.excepthook else hook
    logging.getLogger("ray").setLevel(logging.ERROR)
    return ray


def _start_local(ray: Any, **options: Any) -> None:
    """Start a local Ray whose servers listen on loopback only, and that ends with this process however that ends."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    missing = {name: value for name, value in ENVIRONMENT.items() if name not in os.environ}
    # A task has no business with the secrets of a cluster that it doesn't run on.
    elsewhere = dict.fromkeys(("RAY_ADDRESS", "GRIDCOMPUTE_ADDRESS", "GRIDCOMPUTE_CERTS", "GRIDCOMPUTE_ALLOW_OPEN"))
    with environment({**missing, **elsewhere}), _own_signals(), _kept_address(ray):
        ray.init(address="local", _node_ip_address=LOOPBACK, **options)  # whatever RAY_ADDRESS says
    reaper.watch(child.pid for child in psutil.Process().children(recursive=True) if child.pid not in before)
    atexit.register(_end_local, ray, os.getpid())


def _end_local(ray: Any, owner: int) -> None:
    """End it when this process ends: nothing runs there then that would need the two seconds that Ray takes for it.

    Ray gives each of its servers a second to end well, one after another, and waits for half a second for logs.
    """
    node: Any = getattr(ray._private.worker, "_global_node", None)
    end = getattr(node, "kill_all_processes", None)
    if os.getpid() != owner or end is None or not ray.is_initialized():
        return

    def at_once(**_: Any) -> None:
        family: list[psutil.Process] = []
        for server in (info.process for infos in node.all_processes.values() for info in infos):
            with contextlib.suppress(psutil.Error):
                family += psutil.Process(server.pid).children(recursive=True)
        end(check_alive=False, allow_graceful=False)
        for one in family:
            with contextlib.suppress(psutil.Error):
                one.kill()

    node.kill_all_processes = at_once
    ray.shutdown()


@contextlib.contextmanager
def _kept_address(ray: Any) -> Iterator[None]:
    """Keep Ray from replacing 127.0.0.1 by the machine's outward address; there is no setting for it."""
    services = ray._private.services
    before = services.resolve_ip_for_localhost
    services.resolve_ip_for_localhost = lambda host: host
    try:
        yield
    finally:
        services.resolve_ip_for_localhost = before


def _temporary() -> str:
    """Ray's folder for sockets and logs: private, and short enough for a socket's name."""
    folder = Path(tempfile.gettempdir()) / f"gridcompute-{os.getuid()}"
    if len(str(folder)) > 40:
        folder = Path("/tmp") / folder.name
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        raise ClusterError(f"{folder} belongs to another user, or is no folder", hint="set TMPDIR to a folder of yours")
    folder.chmod(0o700)
    return str(folder)
