"""A mock S3 server on loopback (moto), started once per session; a bucket of its own for each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest


@dataclass(frozen=True)
class S3:
    """Where the server is and how to open stores on it: `open_store(s3.url, **s3.options)`."""

    endpoint: str
    url: str
    options: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The mock server's URL."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint: str) -> S3:
    """A new, empty bucket."""
    import s3fs

    options = {"key": "test", "secret": "test-secret", "endpoint_url": s3_endpoint}
    bucket = f"bucket-{uuid.uuid4().hex}"
    s3fs.S3FileSystem(**options).mkdir(bucket)
    return S3(s3_endpoint, f"s3://{bucket}/work", options)
