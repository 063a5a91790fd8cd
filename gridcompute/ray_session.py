"""A Ray to run on: a local one, closed by default, or a cluster by its address.

Closed by default (law 10): an own token file (0600), token authentication on, loopback only, no dashboard unless
asked for. The settings for health checks, keepalive and niceness are the measured ones of `docs/design`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from gridcompute import reaper
from gridcompute.config import environment, state_folder
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
    """The file with this user's cluster token, made if it isn't there: 0600 in a folder of 0700.

    Raises:
        ClusterError: it is readable by others, or can't be made.
    """
    folder = state_folder()
    path = folder / "ray_token"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(fd, "w") as file:
                file.write(secrets.token_hex(32))
        mode = path.stat().st_mode & 0o777
    except OSError as error:
        raise ClusterError(
            f"no token can be kept in {path}: {error}", hint="set GRIDCOMPUTE_STATE to a folder of yours"
        ) from error
    if mode & 0o077:
        raise ClusterError(
            f"others can read the cluster token {path} (mode {mode:o})", hint=f"remove it; a new one is made: rm {path}"
        )
    return path


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


def connect(*, workers: int, address: str = "", dashboard: bool = False) -> Any:
    """The `ray` module, connected.

    Args:
        workers: cores of a local Ray.
        address: of a cluster; empty starts a local Ray, or takes the one that this process is connected to.
        dashboard: start a local Ray's dashboard (on loopback).

    Raises:
        ClusterError: Ray can't be started or reached.
    """
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        _require_same(sys.modules["ray"], address)
        return sys.modules["ray"]
    ray = prepared()
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    try:
        if address:
            _answers(address)
            own = os.environ.get(NODE)
            _within(CONNECT_SECONDS, partial(ray.init, address=address, _node_ip_address=own, **common))
        else:
            _start_local(ray, num_cpus=workers, include_dashboard=dashboard, _temp_dir=_temporary(), **common)
    except ClusterError:
        raise
    except Exception as error:
        where = f"the Ray cluster at {address} can't be reached" if address else "no local Ray could be started"
        raise ClusterError(
            f"{where}: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}",
            hint="check the address and that RAY_AUTH_TOKEN_PATH names the cluster's token"
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
    # Ray reads these when it is imported, and the driver needs them for as long as it lives.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if os.environ["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN_PATH", str(token_file()))
    for name, value in ENVIRONMENT.items():
        if name.startswith("RAY_"):
            os.environ.setdefault(name, value)
    return _imported()


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
    with environment(missing), _own_signals(), _kept_address(ray):
        ray.init(_node_ip_address=LOOPBACK, **options)
    reaper.watch(child.pid for child in psutil.Process().children(recursive=True) if child.pid not in before)


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


def _answers(address: str) -> None:
    """Refuse an address where nobody listens at once: Ray would try for minutes.

    Raises:
        ClusterError: nobody listens there.
    """
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise ClusterError(f"the Ray cluster at {address} can't be reached: {error}",
                           hint="check the address, and that the cluster runs") from error


def _within(seconds: float, step: Callable[[], Any]) -> None:
    """Do a step in a thread that is given up after so many seconds."""
    failure: list[BaseException] = []

    def run() -> None:
        try:
            step()
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="gridcompute connects", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds:g} s: a wrong token, a wrong TLS certificate, or no Ray")
    if failure:
        raise failure[0]


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
