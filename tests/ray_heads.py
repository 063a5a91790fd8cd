"""Ray heads of their own for tests, each in its folder and with its ports; ended by their own process numbers."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping

import psutil

from gridcompute.testing.kept import free_ports

_PORTS = ("node-manager-port", "object-manager-port", "runtime-env-agent-port", "dashboard-agent-grpc-port",
          "dashboard-agent-listen-port", "metrics-export-port")


@contextlib.contextmanager
def head(host: str, variables: Mapping[str, str], *, cores: int = 1) -> Iterator[str]:
    """A head on an address with Ray's variables about who may join; its address."""
    port, *others = free_ports(1 + len(_PORTS), host)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "GRIDCOMPUTE_"))}
    # A socket's name has at most 107 bytes: the folder's own must be short.
    with tempfile.TemporaryDirectory(prefix="gch-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats",
                   "--node-ip-address", host, "--port", str(port), "--temp-dir", folder, "--num-cpus", str(cores),
                   "--include-dashboard", "false", "--object-store-memory", "80000000",
                   *(f"--{name}={number}" for name, number in zip(_PORTS, others, strict=True))]
        log = os.path.join(folder, "start.log")
        with open(log, "wb") as said:
            process = subprocess.Popen(command, env={**kept, **variables}, stdout=said, stderr=said, cwd=folder)
        try:
            _wait(process, log)
            yield f"{host}:{port}"
        finally:
            _end(process)


def _wait(process: subprocess.Popen[bytes], log: str) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        with open(log) as file:
            if "Ray runtime started" in file.read():
                return
        time.sleep(0.1)
    with open(log) as file:
        raise AssertionError(f"no head: {file.read()[-2000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        ours = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for one in ours:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(ours, timeout=30)
    process.wait()
