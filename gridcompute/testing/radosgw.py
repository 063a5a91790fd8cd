"""A real S3 store on this machine: Ceph's object gateway with one monitor and one OSD that keeps its data in memory.

Wants Debian's radosgw, ceph-mon, ceph-osd and ceph-common (`make servers`). Listens on loopback, with keys of its own.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from gridcompute.testing.kept import Kept, free_ports, listens

PROGRAMS = ("radosgw", "radosgw-admin", "ceph-mon", "ceph-osd", "ceph", "ceph-authtool", "monmaptool")
KEYRINGS = {
    "mon.": {"mon": "allow *"},
    "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *", "mds": "allow *"},
    "client.rgw": {"mon": "allow rw", "osd": "allow rwx"},
}
CONFIG = """
[global]
fsid = {fsid}
mon initial members = a
mon host = [v2:127.0.0.1:{mon},v1:127.0.0.1:{old}]
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {folder}/keyring
log file = {folder}/$name.log
pid file = {folder}/$name.pid
admin socket = {folder}/$name.asok
run dir = {folder}
crash dir = {folder}/crash
public addr = 127.0.0.1
cluster addr = 127.0.0.1
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon warn on pool no redundancy = false
mon data avail crit = 0
[mon.a]
mon data = {folder}/mon
[osd.0]
osd data = {folder}/osd
keyring = {folder}/osd/keyring
osd objectstore = memstore
memstore device bytes = {capacity}
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw data = {folder}/rgw
rgw enable usage log = false
rgw gc obj min wait = 1
"""


def missing() -> list[str]:
    """The programs that aren't installed."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


class Radosgw:
    """Ceph's S3 for as long as the `with` block lasts or this process lives.

    Args:
        capacity: bytes that the store may hold, in memory.

    Attributes:
        endpoint: its URL.
        key, secret: of its only user.

    Raises:
        FileNotFoundError: a program isn't installed.
        TimeoutError: a daemon doesn't come up; with the end of its log.
    """

    def __init__(self, capacity: int = 2**30) -> None:
        self.capacity = capacity
        self.key, self.secret = secrets.token_hex(10), secrets.token_hex(20)
        self.endpoint = ""
        self._kept: list[Kept] = []
        self._folder = Path(os.devnull)  # until it is made

    @property
    def options(self) -> dict[str, Any]:
        """What s3fs wants: `open_store("s3://bucket/work", **options)`."""
        return {"key": self.key, "secret": self.secret, "endpoint_url": self.endpoint}

    def __enter__(self) -> Radosgw:
        if lacking := missing():
            raise FileNotFoundError(f"not installed: {', '.join(lacking)}")
        self._folder = Path(tempfile.mkdtemp(prefix="gridcompute-", dir="/tmp"))
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the daemons and remove all they had."""
        for kept in reversed(self._kept):
            kept.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> None:
        mon, old, port = free_ports(3)
        fsid = str(uuid.uuid4())
        for name in ("mon", "osd", "rgw", "crash"):
            (self._folder / name).mkdir()
        (self._folder / "ceph.conf").write_text(
            CONFIG.format(folder=self._folder, fsid=fsid, mon=mon, old=old, port=port, capacity=self.capacity))
        keyring = str(self._folder / "keyring")
        self._run("ceph-authtool", "--create-keyring", keyring)
        for name, caps in KEYRINGS.items():
            granted = [word for part, what in caps.items() for word in ("--cap", part, what)]
            self._run("ceph-authtool", keyring, "--gen-key", "-n", name, *granted)
        self._run("monmaptool", "--create", "--addv", "a", f"[v2:127.0.0.1:{mon},v1:127.0.0.1:{old}]", "--fsid", fsid,
                  str(self._folder / "monmap"))
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", str(self._folder / "monmap"))
        self._keep("ceph-mon", "-i", "a").wait_for(lambda: listens(mon), "the monitor")
        # The OSD's own identity must be the one that the monitor was told.
        osd = str(uuid.uuid4())
        self._run("ceph", "osd", "new", osd)
        self._run("ceph", "auth", "get-or-create", "osd.0", "mon", "allow profile osd", "osd", "allow *",
                  "-o", str(self._folder / "osd" / "keyring"))
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._keep("ceph-osd", "-i", "0")
        self._keep("radosgw", "-n", "client.rgw").wait_for(lambda: listens(port), "the gateway")
        self._run("radosgw-admin", "user", "create", "--uid", "gridcompute", "--display-name", "gridcompute",
                  "--access-key", self.key, "--secret", self.secret)
        self.endpoint = f"http://127.0.0.1:{port}"

    @property
    def _environment(self) -> Mapping[str, str]:
        return {**os.environ, "CEPH_CONF": str(self._folder / "ceph.conf")}

    def _keep(self, program: str, *arguments: str) -> Kept:
        command = [program, "-c", str(self._folder / "ceph.conf"), "-f", *arguments]
        self._kept.append(Kept(command, self._folder / f"{program}.out", environment=self._environment,
                               folder=self._folder))
        return self._kept[-1]

    def _run(self, program: str, *arguments: str) -> None:
        configured = [] if program in ("ceph-authtool", "monmaptool") else ["-c", str(self._folder / "ceph.conf")]
        done = subprocess.run([program, *configured, *arguments], env=self._environment, capture_output=True, text=True,
                              timeout=120, check=False)
        if done.returncode:
            raise OSError(f"{program} {' '.join(arguments[:3])}: {(done.stderr or done.stdout)[-2000:]}")
