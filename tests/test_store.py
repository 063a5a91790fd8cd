from __future__ import annotations

import ctypes
import errno
import os
import pickle
import threading
import uuid
from pathlib import Path

import pytest
from fixtures_s3 import S3, s3, s3_endpoint  # noqa: F401
from hypothesis import given
from hypothesis import strategies as st

from gridcompute.errors import GridError, ParameterError, StoreError
from gridcompute.store import (
    LocalStore,
    MemoryStore,
    RemoteStore,
    Store,
    checked_path,
    open_store,
    split_url,
    transient,
)
from gridcompute.stores import local, remote
from gridcompute.testing.faults import Fault, FaultyStore, seeded_faults
from gridcompute.testing.stores import FolderConformance, StoreConformance


class TestMemory(StoreConformance):
    @pytest.fixture
    def store(self) -> Store:
        return open_store(f"memory://{uuid.uuid4().hex}/folder")


class TestFaultless(StoreConformance):
    """A faulty store without faults is a store."""

    @pytest.fixture
    def store(self) -> Store:
        return FaultyStore(open_store(f"memory://{uuid.uuid4().hex}"))


class TestLocal(FolderConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return open_store(tmp_path / "a folder" / "store")


class TestLocalWithoutLinks(FolderConformance):
    """A file system without hard links: the kernel's exclusive rename takes over."""

    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
        def link(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", link)
        return open_store(tmp_path / "store")


class TestS3(StoreConformance):
    @pytest.fixture
    def store(self, s3: S3) -> Store:  # noqa: F811
        return open_store(s3.url, **s3.options)


@pytest.fixture
def bucket(s3: S3) -> RemoteStore:  # noqa: F811
    store = open_store(s3.url, **s3.options)
    assert isinstance(store, RemoteStore)
    return store


def test_neither_links_nor_rename(tmp_path, monkeypatch):
    class Nothing:
        def __init__(self, *_, **__): ...

    monkeypatch.setattr(os, "link", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.ENOTSUP, "no")))
    monkeypatch.setattr(ctypes, "CDLL", Nothing)
    with pytest.raises(StoreError, match="neither hard links"):
        open_store(tmp_path / "s").probe()


@pytest.mark.parametrize(("code", "text"), [
    (errno.ENOSPC, "full"), (errno.EDQUOT, "quota"), (errno.EROFS, "read-only"), (errno.EACCES, "permitted")])
def test_local_says_what_is_amiss(tmp_path, monkeypatch, code, text):
    def write(*_):
        raise OSError(code, os.strerror(code))

    store = open_store(tmp_path)
    monkeypatch.setattr(local.os, "write", write)
    with pytest.raises(StoreError, match=text) as caught:
        store.put_new("a/b", b"x")
    assert caught.value.hint
    assert not transient(caught.value)
    with pytest.raises(StoreError):
        store.probe()
    monkeypatch.undo()
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []  # the temporary file went with the error


def test_local_root_is_a_file(tmp_path):
    (tmp_path / "f").write_text("")
    for root in (tmp_path / "f", tmp_path / "f" / "below"):
        with pytest.raises(StoreError):
            open_store(root).probe()


def test_local_output_follows_the_umask(tmp_path):
    old = os.umask(0o022)
    try:
        open_store(tmp_path / "out", private=False).put_new("a/b", b"")
    finally:
        os.umask(old)
    assert (tmp_path / "out/a/b").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "out/a").stat().st_mode & 0o777 == 0o755


def test_open_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_store("x").url == str(tmp_path / "x")
    folder = tmp_path / "a b"
    assert open_store(folder.as_uri()) == open_store(folder) == LocalStore(str(folder))
    assert open_store("memory://a/b/") == MemoryStore("memory://a/b")
    assert open_store("s3://bucket/p/").url == "s3://bucket/p"
    for bad in ("", "memory://", "file://host/x", "s3://", "simplecache::s3://b/k", "s3://b/../c",
                "s3://b/k?x=1", "a\0b"):
        with pytest.raises(StoreError) as caught:
            open_store(bad)
        assert caught.value.hint
    with pytest.raises(ParameterError):
        open_store("x", key="1")
    with pytest.raises(ParameterError):
        open_store("memory://x", key="1")


def test_split_url(tmp_path):
    assert split_url("s3://b/a/c.zarr") == ("s3://b/a", "c.zarr")
    assert split_url("s3://b/c.zarr/") == ("s3://b", "c.zarr")
    assert split_url("s3://b") == ("s3://b", "")
    assert split_url(tmp_path / "x") == (str(tmp_path), "x")
    assert split_url(tmp_path.as_uri() + "/x%20y") == (str(tmp_path), "x y")


def test_secrets_are_never_shown():
    store = open_store("sftp://me:hunter2@host/folder", key_filename="s3cret")
    assert store.url == "sftp://host/folder"
    assert "hunter2" not in repr(store)
    assert "s3cret" not in repr(store)
    assert dict(store.options) == {"username": "me", "password": "hunter2", "key_filename": "s3cret"}
    assert pickle.loads(pickle.dumps(store)) == store
    with pytest.raises(GridError) as caught:
        open_store("sftp://me:hunter2@host/x?y")
    assert "hunter2" not in str(caught.value)


def test_memory_is_shared_by_name():
    name = uuid.uuid4().hex
    open_store(f"memory://{name}/a").put_new("x", b"1")
    assert open_store(f"memory://{name}").get("a/x") == b"1"
    store = MemoryStore(f"memory://{name}")
    store.clear()
    assert list(store.list()) == []


def test_unknown_protocol_and_missing_package(monkeypatch):
    with pytest.raises(StoreError, match="nosuch"):
        open_store("nosuch://x/y").probe()

    def missing(*_, **__):
        raise ImportError("install paramiko")

    monkeypatch.setattr("fsspec.url_to_fs", missing)
    with pytest.raises(StoreError, match="isn't installed"):
        open_store("sftp://host/y").probe()


def test_file_system_that_looks_then_writes_is_refused():
    with pytest.raises(StoreError, match="exactly once"):
        _LooksThenWrites("zip://x").probe()


class _LooksThenWrites(RemoteStore):
    @property
    def _files(self):
        from fsspec.implementations.zip import ZipFileSystem

        return ZipFileSystem.__new__(ZipFileSystem)


def test_s3_missing_bucket_and_dead_server(s3):  # noqa: F811
    with pytest.raises(StoreError, match="bucket") as caught:
        open_store("s3://no-such-bucket-here/x", **s3.options).probe()
    assert "create" in caught.value.hint
    dead = {**s3.options, "endpoint_url": "http://127.0.0.1:9"}
    with pytest.raises(StoreError, match="can't be used") as caught:
        open_store(s3.url, **dead).probe()
    assert "reached" in caught.value.hint
    cause = caught.value.__cause__
    assert cause is not None
    assert transient(cause)
    assert "test-secret" not in str(caught.value)


def test_s3_never_multipart(bucket, monkeypatch):
    calls = []
    real = type(bucket._files)._call_s3

    async def call(self, method, *args, **kwargs):
        calls.append((method, kwargs.get("IfNoneMatch")))
        return await real(self, method, *args, **kwargs)

    monkeypatch.setattr(type(bucket._files), "_call_s3", call)
    data = b"x" * (101 * 2**20)  # s3fs's default would cut this in three
    assert bucket.put_new("big", data)
    assert calls == [("put_object", "*")]
    calls.clear()
    assert len(bucket.get("big")) == len(data)
    assert [method for method, _ in calls] == ["get_object"]
    monkeypatch.setattr(remote, "_LIMIT", 1000)
    with pytest.raises(StoreError, match="at once"):
        bucket.put_new("too big", b"x" * 1001)


@pytest.mark.parametrize("there", [True, False])
def test_s3_reads_cephs_answer(bucket, monkeypatch, there):
    """Ceph's 412 arrives as OSError 22: whether something is there decides."""
    def pipe(*_, **__):
        raise OSError(errno.EINVAL, "PreconditionFailed")

    if there:
        bucket.put_new("x", b"1")
    monkeypatch.setattr(bucket._files, "pipe_file", pipe)
    if there:
        assert bucket.put_new("x", b"2") is False
    else:
        with pytest.raises(OSError, match="Precondition"):
            bucket.put_new("x", b"2")


def test_s3_refused_and_no_credentials(bucket, monkeypatch):
    class NoCredentialsError(Exception): ...

    for error, text in ((PermissionError("403"), "refused"), (NoCredentialsError(), "no credentials")):
        def pipe(*_, error=error, **__):
            raise error

        monkeypatch.setattr(bucket._files, "pipe_file", pipe)
        with pytest.raises(StoreError, match=text) as caught:
            bucket.probe()
        assert caught.value.hint


def test_transient():
    from botocore.exceptions import ClientError, EndpointConnectionError

    def answer(status: int) -> OSError:
        error = OSError(errno.EIO, "x")
        response = {"Error": {}, "ResponseMetadata": {"HTTPStatusCode": status}}
        error.__cause__ = ClientError(response, "PutObject")
        return error

    passing = [TimeoutError(), ConnectionResetError(), BrokenPipeError(), OSError(errno.EBUSY, ""),
               OSError(errno.EIO, ""), OSError(errno.ESTALE, ""), answer(500), answer(503), answer(409),
               answer(429), EndpointConnectionError(endpoint_url="x")]
    lasting = [FileNotFoundError(), PermissionError(), OSError(errno.ENOSPC, ""), OSError(errno.EROFS, ""),
               answer(403), answer(400), answer(501), ValueError(), StoreError("x"), KeyboardInterrupt()]
    assert [e for e in passing if not transient(e)] == []
    assert [e for e in lasting if transient(e)] == []
    loop = ValueError()
    loop.__cause__ = loop
    assert not transient(loop)


@given(st.text(max_size=40))
def test_checked_path_stays_inside(text):
    try:
        path = checked_path(text)
    except StoreError:
        return
    assert path == text
    assert os.path.normpath(os.path.join("/root", path)) == "/root/" + path


def test_faulty_store():
    inner = open_store(f"memory://{uuid.uuid4().hex}")
    store = FaultyStore(inner, (Fault(0, "timeout"), Fault(1, "lost"), Fault(2, "partial"),
                                Fault(3, "unavailable"), Fault(1, "corrupt", "get"), Fault(4, "full")))
    errors = (TimeoutError, ConnectionResetError, ConnectionResetError, OSError)
    for name, error in zip("abcd", errors, strict=True):
        with pytest.raises(error) as caught:
            store.put_new(name, b"123456")
        assert transient(caught.value)
    with pytest.raises(StoreError):
        store.put_new("e", b"")
    assert list(store.list_sizes()) == [("b", 6), ("c", 3)]
    assert store.get("b") == b"123456"
    assert store.get("b") == b"123556"
    assert len(store.log) == 6
    assert pickle.loads(pickle.dumps(store)) == store
    assert seeded_faults(3, 0.1) == seeded_faults(3, 0.1) != seeded_faults(4, 0.1)


def test_concurrent_first_writes_make_the_folders(tmp_path):
    store = open_store(tmp_path / "new")
    barrier = threading.Barrier(8)
    failed = []

    def write(n: int) -> None:
        barrier.wait()
        try:
            store.put_new(f"a/b/c/{n}", b"")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(list(store.list())) == 8
