"""Network namespaces joined by a bridge: hosts on one machine whose links can be cut. Wants root and Linux.

The bridge lies in a namespace too, so nothing here touches the machine's own network, and all of it goes when the
processes that hold the namespaces end.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gridcompute.testing.kept import Kept


def forbidden() -> str:
    """Why there can be no network namespaces here; empty if there can."""
    links = Links()
    try:
        links.open()
    except OSError as error:
        return str(error)
    finally:
        links.close()
    return ""


class Links:
    """A bridge and the hosts on it."""

    def __init__(self) -> None:
        self._hub: Kept | None = None

    @staticmethod
    def address(host: int) -> str:
        """The IPv4 address of a host, which means something in the namespaces only."""
        return f"10.201.0.{host + 2}"

    def open(self) -> None:
        """Make the bridge.

        Raises:
            OSError: the kernel or missing rights forbid it, or `ip` or `nsenter` is missing.
        """
        with tempfile.TemporaryDirectory() as folder:
            hub = self._hub = Kept([], Path(folder) / "log", network=True)
            hub.begin()
            self._ip(hub.pid, "link add name hub type bridge")
            self._ip(hub.pid, "link set hub up")

    def join(self, host: int, pid: int) -> None:
        """Connect the namespace of a process to the bridge as that host."""
        assert self._hub is not None
        self._ip(self._hub.pid, f"link add name host{host} type veth peer name eth0 netns {pid}")
        self._ip(self._hub.pid, f"link set host{host} master hub up")
        for step in ("link set lo up", f"addr add {self.address(host)}/24 dev eth0", "link set dev eth0 up"):
            self._ip(pid, step)

    def cut(self, host: int) -> None:
        """Take the link of a host down."""
        assert self._hub is not None
        self._ip(self._hub.pid, f"link set host{host} down")

    def mend(self, host: int) -> None:
        """Take it up again."""
        assert self._hub is not None
        self._ip(self._hub.pid, f"link set host{host} up")

    def within(self, pid: int, command: Sequence[str]) -> list[str]:
        """A command that is run in the namespace of a process."""
        return ["nsenter", f"--net=/proc/{pid}/ns/net", *command]

    def close(self) -> None:
        """The namespaces of the hosts are theirs; the bridge goes."""
        if self._hub is not None:
            self._hub.close()

    def _ip(self, pid: int, step: str) -> None:
        done = subprocess.run(self.within(pid, ["ip", *step.split()]), capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"ip {step}: {done.stderr.strip()}")
