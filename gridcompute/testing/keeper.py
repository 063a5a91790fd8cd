"""A process that starts a command and ends all that comes of it when whoever asked for it is gone, however that went.

It adopts its descendants (a subreaper), so a daemon that lost its parent is still among them; with `--network` it has
a network namespace of its own, which goes with it. The first line of standard input is a JSON object: `command` (may
be empty: hold the namespace only), `environment`, `log` (a file), `folder` (removed at the end, or empty). Standard
output says "ready" at the start and the command's exit code when it ends. The end of standard input ends everything.

Run as a script by an isolated interpreter, so it imports the standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator

PR_SET_CHILD_SUBREAPER, CLONE_NEWNET = 36, 0x40000000
GRACE = 10.0
"""Seconds within which a killed process is gone."""


def children() -> dict[int, list[int]]:
    """The children of each process of this machine that has any."""
    found: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
                found.setdefault(int(file.read().rpartition(b")")[2].split()[1]), []).append(int(name))
    return found


def descendants(pid: int) -> Iterator[int]:
    """All below a process, parents first."""
    of, waiting = children(), [pid]
    while waiting:
        below = of.get(waiting.pop(), [])
        yield from below
        waiting += below


def reap(first: int) -> None:
    """Take the exit codes of what has ended; the command's own is passed on."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == first:
                with contextlib.suppress(OSError):
                    os.write(1, f"{os.waitstatus_to_exitcode(ended[1])}\n".encode())


def spawn(command: list[str], environment: dict[str, str], log: str) -> int:
    """Start the command with its output in a file."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawnp(command[0], command, environment, setsid=True,
                           file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                                         (os.POSIX_SPAWN_OPEN, 1, log, flags, 0o600),
                                         (os.POSIX_SPAWN_DUP2, 1, 2)])


def main() -> None:
    """Start, wait for the end of standard input, end everything."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        sys.exit(f"no subreaper: {os.strerror(ctypes.get_errno())}")
    if "--network" in sys.argv and libc.unshare(CLONE_NEWNET):
        sys.exit(f"no network namespace: {os.strerror(ctypes.get_errno())}")
    os.write(1, b"ready\n")
    asked = json.loads(sys.stdin.buffer.readline() or b"{}")
    first = spawn(asked["command"], asked["environment"], asked["log"]) if asked.get("command") else 0
    open_ = bool(asked)
    while open_:
        reap(first)
        if select.select([0], [], [], 0.1)[0]:
            open_ = bool(os.read(0, 4096))
    until = time.monotonic() + GRACE
    while (left := list(descendants(os.getpid()))) and time.monotonic() < until:
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
        reap(first)
    if asked.get("folder"):
        shutil.rmtree(asked["folder"], ignore_errors=True)


if __name__ == "__main__":
    main()
