"""A small process that outlives a killed driver and ends what its local Ray leaves running.

Ray's own processes end when the driver does, but for the raylet's agents, which stay after a kill -9 (seen for
minutes). The driver holds the only write end of a pipe to this process: when the pipe closes, the driver is gone,
however it went. Run as a script with an isolated interpreter, so it imports the standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterable

GRACE = 5.0
"""Seconds that Ray gets to end by itself."""


def watch(pids: Iterable[int]) -> int:
    """Start the process, for these children of this one; it stays until this process ends. Returns its number."""
    known = [[pid, started] for pid in pids if (started := start_time(pid)) is not None]
    reading, writing = os.pipe()  # neither is inherited by other children
    try:
        null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)]
        process = os.posix_spawn(sys.executable, [sys.executable, "-I", "-S", __file__], os.environ, setsid=True,
                                 file_actions=[(os.POSIX_SPAWN_DUP2, reading, 0), *null])
    finally:
        os.close(reading)
    os.write(writing, json.dumps(known).encode() + b"\n")
    return process


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is none. Tells a reused number apart."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] == b"Z" else int(fields[19])


def main() -> None:
    """Wait for the end of standard input, then end what is left of the processes named on its first line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    left = [(int(pid), int(started)) for pid, started in json.loads(sys.stdin.buffer.readline() or b"[]")]
    while sys.stdin.buffer.read(4096):
        pass
    for wait, number in ((GRACE, signal.SIGTERM), (2.0, signal.SIGKILL)):
        until = time.monotonic() + wait
        while left and time.monotonic() < until:
            left = [(pid, started) for pid, started in left if start_time(pid) == started]
            time.sleep(0.1)
        for pid, _ in left:
            with contextlib.suppress(OSError):
                os.kill(pid, number)


if __name__ == "__main__":
    main()
