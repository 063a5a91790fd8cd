"""Ceph's S3 keeps every promise of a store, is closed to others, and goes without a trace."""

from __future__ import annotations

import psutil
import pytest
from fixtures_s3 import S3
from servers import ceph, ceph_s3

from gridcompute.errors import StoreError
from gridcompute.store import Store, open_store
from gridcompute.testing.radosgw import Radosgw
from gridcompute.testing.stores import StoreConformance

pytestmark = pytest.mark.ray

__all__ = ["ceph", "ceph_s3"]


class TestCeph(StoreConformance):
    @pytest.fixture
    def store(self, ceph_s3: S3) -> Store:
        return open_store(ceph_s3.url, **ceph_s3.options)


def test_it_listens_on_loopback_only(ceph: Radosgw) -> None:
    ours = {one.pid for kept in ceph._kept for one in kept.processes()}
    assert len(ours) == 3
    listening = {found.laddr.ip for found in psutil.net_connections("tcp")
                 if found.pid in ours and found.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


def test_a_wrong_secret_is_refused_and_not_shown(ceph_s3: S3) -> None:
    store = open_store(ceph_s3.url, **{**ceph_s3.options, "secret": "not-the-secret"})
    with pytest.raises(StoreError, match="was refused") as caught:
        store.probe()
    assert "check the credentials" in caught.value.hint
    assert "not-the-secret" not in str(caught.value)
