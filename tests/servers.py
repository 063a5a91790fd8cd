"""Real servers for tests, each started once a session: Ceph's S3; and what is done where one isn't there."""

from __future__ import annotations

import atexit
import os
import shutil
import uuid
from functools import cache
from typing import NoReturn

import pytest
from fixtures_s3 import S3

from gridcompute.testing import radosgw
from gridcompute.testing.links import forbidden


def lacking(what: str) -> NoReturn:
    """A server isn't installed: that skips a test at home, and fails it where everything has to be there."""
    told = f"{what}: install it with `make servers`"
    if os.environ.get("CI"):
        pytest.fail(told)
    pytest.skip(told)


@cache
def _ceph() -> radosgw.Radosgw:
    """One for all modules; it ends with this process."""
    server = radosgw.Radosgw()
    atexit.register(server.close)
    server.__enter__()
    bucket(server)  # the first takes seconds, as Ceph makes its pools
    return server


@pytest.fixture(scope="session")
def ceph() -> radosgw.Radosgw:
    """Ceph's object gateway."""
    if missing := radosgw.missing():
        lacking(f"no {', '.join(missing)}")
    return _ceph()


@pytest.fixture
def ceph_s3(ceph: radosgw.Radosgw) -> S3:
    """A new, empty bucket on Ceph."""
    return S3(ceph.endpoint, f"s3://{bucket(ceph)}/work", ceph.options)


def bucket(server: radosgw.Radosgw) -> str:
    import s3fs

    name, files = f"bucket-{uuid.uuid4().hex}", s3fs.S3FileSystem(**server.options)
    files.mkdir(name)
    files.pipe_file(f"{name}/seen", b"")
    files.rm_file(f"{name}/seen")
    return name


@pytest.fixture(scope="session")
def redis_server() -> None:
    """Redis is installed."""
    if shutil.which("redis-server") is None:
        lacking("no redis-server")


@pytest.fixture(scope="session")
def namespaces() -> None:
    """The kernel lets this user make network namespaces."""
    missing = [name for name in ("ip", "nsenter") if shutil.which(name) is None]
    if missing:
        lacking(f"no {', '.join(missing)}")
    if reason := forbidden():
        pytest.skip(f"no network namespaces here: {reason}")
