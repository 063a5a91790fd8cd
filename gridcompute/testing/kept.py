"""A real server started by a test: its processes, wherever they go, end with the test's own."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

from gridcompute.testing import keeper

START_SECONDS = 120.0
"""Most time that a server may take to come up, on a machine that is busy with other things too."""


class Kept:
    """A command and all that it starts, daemons included.

    Args:
        command: the program and its arguments; none to only hold a network namespace.
        log: the file that its output goes to.
        environment: the command's.
        folder: removed, with all in it, at the end.
        network: give it a network namespace of its own; `begin` is then called by whoever has set that up.

    Raises:
        OSError: the kernel forbids it.
    """

    def __init__(self, command: Sequence[str], log: Path | str, *, environment: Mapping[str, str] | None = None,
                 folder: Path | str = "", network: bool = False) -> None:
        self.log = Path(log)
        self._asked = {"command": list(command), "log": str(log), "folder": str(folder),
                       "environment": dict(os.environ if environment is None else environment)}
        self._process = subprocess.Popen([sys.executable, "-I", "-S", keeper.__file__, *["--network"] * network],
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                         start_new_session=True)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        if self._process.stdout.readline() != b"ready\n":
            raise OSError(self._process.stderr.read().decode().strip() or "the keeper did not start")
        self._codes: list[int] = []
        self._listener: threading.Thread | None = None
        if not network:
            self.begin()

    @property
    def pid(self) -> int:
        """The keeper's, whose network namespace the command has."""
        return self._process.pid

    def begin(self) -> None:
        """Start the command."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(self._asked).encode() + b"\n")
        self._process.stdin.flush()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._codes.append(int(line))

    @property
    def code(self) -> int | None:
        """The command's exit code; None while it runs."""
        return self._codes[0] if self._codes else None

    def processes(self) -> list[psutil.Process]:
        """All that the command has started and that live."""
        found = psutil.Process(self.pid).children(recursive=True) if self._process.poll() is None else []
        return [one for one in found if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]

    def wait_for(self, what: Callable[[], object], told: str, seconds: float = START_SECONDS) -> None:
        """Wait until something holds.

        Args:
            what: true when it does.
            told: what is waited for, for the error.
            seconds: at most.

        Raises:
            TimeoutError: it doesn't hold by then, or the command failed before; with the end of its output.
        """
        until = time.monotonic() + seconds
        while not what():
            if self.code or time.monotonic() > until:
                end = self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""
                failed = f"its command failed with code {self.code}" if self.code else f"not within {seconds:g} s"
                raise TimeoutError(f"waiting for {told}: {failed}\n{end}")
            time.sleep(0.05)

    def close(self) -> None:
        """End everything at once, as kill -9 does."""
        if self._process.poll() is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(keeper.GRACE * 2)
        if self._listener is not None:  # a stream that is closed while it is read is an error there
            self._listener.join(keeper.GRACE)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Ports of an address that nobody listens on at the moment, each another."""
    with contextlib.ExitStack() as kept:
        probes = [kept.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((host, 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def listens(port: int) -> bool:
    """Whether somebody listens on a port of loopback."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
