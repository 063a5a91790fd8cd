"""Servers that tests start: known by all that comes of them, and gone with the test; hosts whose links can be cut."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from servers import namespaces

from gridcompute.testing.kept import Kept
from gridcompute.testing.links import Links

__all__ = ["namespaces"]

DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(300)
    os._exit(0)
os.wait()
"""


def test_a_daemon_that_left_its_parents_is_still_known_and_ended(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with Kept([sys.executable, "-c", DAEMON], tmp_path / "log", folder=folder) as kept:
        kept.wait_for(lambda: kept.code == 0, "the command's end")
        (daemon,) = kept.processes()
        assert daemon.ppid() == kept.pid
    assert not psutil.pid_exists(daemon.pid)
    assert not folder.exists()


def test_a_command_that_fails_is_told_with_its_output(tmp_path: Path) -> None:
    with Kept(["sh", "-c", "echo no such thing; exit 3"], tmp_path / "log") as kept:
        with pytest.raises(TimeoutError, match=r"(?s)waiting for it: its command failed with code 3\nno such thing"):
            kept.wait_for(lambda: False, "it")
        with pytest.raises(TimeoutError, match="failed with code 3"):
            kept.wait_for(lambda: False, "it", seconds=0.0)
    with (Kept(["sleep", "60"], tmp_path / "other") as kept,
          pytest.raises(TimeoutError, match=r"waiting for Godot: not within 0\.1 s")):
        kept.wait_for(lambda: False, "Godot", seconds=0.1)


SERVER = "import socket; s = socket.create_server(('', 7007))\nwhile True: s.accept()[0].close()"
CLIENT = "import socket, sys; socket.create_connection((sys.argv[1], 7007), timeout=float(sys.argv[2])).close()"


@pytest.mark.usefixtures("namespaces")
def test_hosts_reach_each_other_unless_a_link_is_cut(tmp_path: Path) -> None:
    links = Links()
    links.open()
    server = Kept([sys.executable, "-c", SERVER], tmp_path / "server", network=True)
    client = Kept([], tmp_path / "client", network=True)
    try:
        for host, kept in enumerate((server, client)):
            links.join(host, kept.pid)
            kept.begin()

        def reached(seconds: float) -> bool:
            asked = links.within(client.pid, [sys.executable, "-c", CLIENT, links.address(0), str(seconds)])
            return subprocess.run(asked, capture_output=True, check=False).returncode == 0

        server.wait_for(lambda: reached(2.0), "the server to be reached")
        links.cut(0)
        assert not reached(1.0)
        links.mend(0)
        server.wait_for(lambda: reached(2.0), "the server to be reached again")
    finally:
        client.close()
        server.close()
        links.close()
    devices = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    assert "host0" not in devices
