"""Hostile Zarr stores of both formats: an error of ours, within bounded time and memory; nothing outside is touched."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gridcompute as grid
from gridcompute.errors import CorruptInputError, GridError
from gridcompute.sources.zarrs import open_zarr
from gridcompute.spaces import Region

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")

SECONDS = 20.0
"""In which the worst store must be refused, on a machine that does other things too."""

METADATA = {2: ".zarray", 3: "zarr.json"}
CHUNK = {2: "0.0", 3: "c/0/0"}


def made(folder: Path, zarr_format: int, **options: Any) -> Path:
    """A group with an array over two dimensions and their coordinates."""
    group = zarr.create_group(str(folder), zarr_format=zarr_format)
    for name, shape in (("v", (6, 8)), ("y", (6,)), ("x", (8,))):
        dims = ("y", "x") if name == "v" else (name,)
        given = {"dimension_names": dims} if zarr_format == 3 else {"attributes": {"_ARRAY_DIMENSIONS": dims}}
        chunks = tuple(n // 2 for n in shape)
        array = group.create_array(name, shape=shape, chunks=chunks, dtype="f8", **given, **options)  # type: ignore[arg-type]
        array[...] = np.arange(np.prod(shape), dtype=float).reshape(shape)
    return folder


def read(folder: Path) -> None:
    """Open a store, and read the first cells of each column with what tells their versions."""
    source = open_zarr(folder)
    for field in source.fields:
        one = source.select([field.name])
        region = Region(tuple((0, min(n or 0, 5)) for _, n in one.space.dims))
        one.objects(region)
        one.read(region, [field.name])


def refused_or_read(folder: Path) -> bool:
    """Whether a store is read; if it isn't, the error is one of ours, in time."""
    began = time.monotonic()
    try:
        read(folder)
        return True
    except GridError:
        return False
    finally:
        assert time.monotonic() - began < SECONDS


@pytest.fixture(scope="module", params=[2, 3], ids=["format 2", "format 3"])
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """A store, and beside it a file that no reading of it may reach."""
    folder = tmp_path_factory.mktemp("zarr")
    made(folder / "a.zarr", request.param)
    (folder / "outside").write_bytes(struct.pack("<12d", *[666.0] * 12))
    yield request.param, folder / "a.zarr"
    assert sorted(one.name for one in folder.iterdir()) == ["a.zarr", "outside"]


KEYS = st.sampled_from(["id", "name", "configuration", "codecs", "separator", "chunk_shape", "endian", "level", "x"])
ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20)
    | st.sampled_from([10**400, -1, 0, 2**31, 2**63, "|O", "<f8", "<U2147483647", "|V4294967295", "pickle", "NaN", "C",
                       "../../outside", "/etc/passwd", "0x" + "f" * 40, "bytes"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


def places(values: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Ways to each value within a JSON document."""
    inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return [path] * bool(path) + [found for key, value in inner for found in places(value, (*path, key))]


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_metadata(stored: tuple[int, Path], data: st.DataObject) -> None:
    zarr_format, folder = stored
    name = data.draw(st.sampled_from(["v", "x"]))
    path = folder / name / METADATA[zarr_format]
    before = path.read_text()
    values = json.loads(before)
    for _ in range(data.draw(st.integers(1, 2))):
        found = places(values)
        if not found:
            break
        *way, last = data.draw(st.sampled_from(found))
        inner = values
        for key in way:
            inner = inner[key]
        inner[last] = data.draw(ANY)
    try:
        path.write_text(json.dumps(values))
        refused_or_read(folder)
    finally:
        path.write_text(before)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_bytes_in_any_file(stored: tuple[int, Path], data: st.DataObject) -> None:
    _, folder = stored
    path = data.draw(st.sampled_from(sorted(one for one in folder.rglob("*") if one.is_file())))
    before = path.read_bytes()
    raw = bytearray(before)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(raw) - 1)))
        raw[at:at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    try:
        path.write_bytes(raw)
        refused_or_read(folder)
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "", "null", "\0", '"' + "x" * 10**6 + '"',
                                  "1" * 10**6], ids=lambda text: text[:6])  # fmt: skip
def test_metadata_that_is_a_bomb_or_nothing(stored: tuple[int, Path], text: str, tmp_path: Path) -> None:
    zarr_format, folder = stored
    shutil.copytree(folder, tmp_path / "a.zarr")
    (tmp_path / "a.zarr/v" / METADATA[zarr_format]).write_text(text)
    refused_or_read(tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / ("zarr.json" if zarr_format == 3 else ".zgroup")).write_text(text)
    assert not refused_or_read(tmp_path / "a.zarr")


class Evil:
    """Unpickled, it leaves a mark."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize(
    ("dtype", "filters", "compressor"),
    [
        ("|O", [{"id": "pickle", "protocol": 5}], None),
        ("|O", [{"id": "vlen-utf8"}, {"id": "pickle", "protocol": 5}], None),
        ("|O", [{"id": "pickle", "protocol": 5}, {"id": "vlen-utf8"}], None),
        ("|O", [{"id": "vlen-utf8"}], {"id": "pickle", "protocol": 5}),
        ("<f8", None, {"id": "pickle", "protocol": 5}),
        ("<f8", [{"id": "shuffle", "elementsize": 8}, {"id": "pickle", "protocol": 5}], None),
        ("|O", [{"id": "json2"}], None), ("|O", [{"id": "msgpack2"}], None), ("<f8", None, {"id": "no.such"}),
    ],
    ids=str,
)  # fmt: skip
def test_pickles_are_never_read(dtype: str, filters: Any, compressor: Any, allowed: bool, tmp_path: Path,
                                monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where numcodecs was told that it may."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("numcodecs.pickles.ALLOW_UNSAFE_PICKLE_DECODE", allowed, raising=False)
    made(tmp_path / "a.zarr", 2)
    for name in ("v", "x"):
        path = tmp_path / "a.zarr" / name / ".zarray"
        before = path.read_text()
        path.write_text(json.dumps({**json.loads(before), "dtype": dtype, "filters": filters, "compressor": compressor,
                                    "fill_value": None}))
        for chunk in (tmp_path / "a.zarr" / name).glob("[0-9]*"):
            chunk.write_bytes(pickle.dumps(Evil()))
        assert not refused_or_read(tmp_path / "a.zarr")
        path.write_text(before)
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize("codec", ["numcodecs.pickle", "pickle", "numcodecs.json2", "my_codec", "gridcompute", ""])
@pytest.mark.parametrize("inner", [False, True])
def test_codecs_of_format_3_are_known_ones(codec: str, inner: bool, tmp_path: Path) -> None:
    made(tmp_path / "a.zarr", 3)
    path = tmp_path / "a.zarr/v/zarr.json"
    values = json.loads(path.read_text())
    named = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": codec, "configuration": {}}]
    if inner:
        named = [{"name": "sharding_indexed", "configuration": {
            "chunk_shape": [3, 4], "codecs": named, "index_codecs": [named[0], {"name": "crc32c"}]}}]
    path.write_text(json.dumps({**values, "codecs": named}))
    assert not refused_or_read(tmp_path / "a.zarr")


@pytest.mark.parametrize("name", ["../outside.zarr/v", "/tmp/outside", "a/../../outside.zarr/v", "..", ".", "", "a/b",
                                  "a\nb", "a\\b", "\0"])  # fmt: skip
def test_names_in_consolidated_metadata_lead_nowhere(name: str, tmp_path: Path) -> None:
    made(tmp_path / "outside.zarr", 3, compressors=None)
    made(tmp_path / "a.zarr", 3, compressors=None)
    zarr.consolidate_metadata(str(tmp_path / "a.zarr"))
    path = tmp_path / "a.zarr/zarr.json"
    values = json.loads(path.read_text())
    kept = values["consolidated_metadata"]["metadata"]
    values["consolidated_metadata"]["metadata"] = {name: kept["v"]}
    path.write_text(json.dumps(values))
    with contextlib.suppress(GridError):
        assert [field.name for field in open_zarr(tmp_path / "a.zarr").fields] == []


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("separator", ["../", "/../", "", "..", "\0", 5, None, "//"])
def test_separators_lead_nowhere(zarr_format: int, separator: Any, tmp_path: Path) -> None:
    made(tmp_path / "a.zarr", zarr_format)
    path = tmp_path / "a.zarr/v" / METADATA[zarr_format]
    change = {"dimension_separator": separator} if zarr_format == 2 else {
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": separator}}}
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert not refused_or_read(tmp_path / "a.zarr") or separator is None


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("what", ["chunk", "folder", "array", "metadata", "group"])
@pytest.mark.parametrize("direct", [True, False], ids=["direct", "by zarr"])
def test_links_out_of_a_store_are_refused(zarr_format: int, what: str, direct: bool, tmp_path: Path) -> None:
    options: dict[str, Any] = {"compressors": None} if direct else {"compressors": None, "order": "F"}
    for name in ("outside.zarr", "a.zarr"):
        made(tmp_path / name, zarr_format, **options)
    if what == "folder" and zarr_format == 2:
        return  # its chunks lie in none
    part = {"chunk": f"v/{CHUNK[zarr_format]}", "folder": "v/c/0", "array": "v",
            "metadata": f"v/{METADATA[zarr_format]}", "group": ".zgroup" if zarr_format == 2 else "zarr.json"}[what]
    path = tmp_path / "a.zarr" / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.symlink_to(tmp_path / "outside.zarr" / part)
    with pytest.raises(GridError, match="link leads out" if what in ("chunk", "folder") else ""):
        read(tmp_path / "a.zarr")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_links_within_a_store_and_to_it_are_followed(zarr_format: int, tmp_path: Path) -> None:
    made(tmp_path / "a.zarr", zarr_format, compressors=None)
    chunk = tmp_path / "a.zarr/v" / CHUNK[zarr_format]
    chunk.rename(tmp_path / "a.zarr/v/kept")
    chunk.symlink_to(tmp_path / "a.zarr/v/kept")
    (tmp_path / "link.zarr").symlink_to("a.zarr")
    for name in ("a.zarr", "link.zarr"):
        assert open_zarr(tmp_path / name).read(Region.of((0, 1), (0, 3)), ["v"])["v"].values[0, 1:].tolist() == [1, 2]  # type: ignore[union-attr]


def in_format_3(change: dict[str, Any], array: str = "v") -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        made(folder, 3)
        path = folder / array / "zarr.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    return harm


def chunks_of(*shape: int) -> dict[str, Any]:
    return {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shape)}}}


def bomb(compress: Callable[[bytes], bytes], codec: str) -> Callable[[Path], None]:
    """A chunk of a few bytes or megabytes that becomes gigabytes."""
    def harm(folder: Path) -> None:
        made(folder, 2)
        small = compress(bytes(2**29))
        for name in ("v", "x"):
            path = folder / name / ".zarray"
            path.write_text(json.dumps({**json.loads(path.read_text()), "compressor": {"id": codec}, "filters": None}))
            for chunk in (folder / name).glob("[0-9]*"):
                chunk.write_bytes(small)
    return harm


def zstd_claim(size: int) -> bytes:
    """A frame that claims to hold so many bytes (RFC 8878): a single segment, 8 bytes of size, an empty last block."""
    return b"\x28\xb5\x2f\xfd" + bytes((0b11100000,)) + struct.pack("<Q", size) + b"\x01\x00\x00"


BOMBS: dict[str, Callable[[Path], None]] = {
    "coordinate": in_format_3({"shape": [2**31], **chunks_of(2**31)}, "x"),
    "coordinate in chunks": in_format_3({"shape": [2**31], **chunks_of(1024)}, "x"),
    "chunk": in_format_3(chunks_of(2**17, 2**17)),
    "chunk beyond counting": in_format_3(chunks_of(2**62, 2**62)),
    "chunks of nothing": in_format_3({"shape": [2**20, 2**20], **chunks_of(1, 1)}),
    "text": in_format_3({"data_type": {"name": "fixed_length_utf32", "configuration": {"length_bytes": 2**31 - 4}},
                         "fill_value": ""}),
    "zlib": bomb(lambda data: zlib.compress(data, 9), "zlib"),
    "gzip": bomb(lambda data: bytes(numcodecs.GZip(9).encode(data)), "gzip"),
    "zstd": bomb(lambda data: bytes(numcodecs.Zstd().encode(data)), "zstd"),
    "zstd's claim": bomb(lambda data: zstd_claim(2**35), "zstd"),
    "lz4's claim": bomb(lambda data: struct.pack("<I", 2**31 - 1) + b"\0" * 40, "lz4"),
    "blosc": bomb(lambda data: bytes(numcodecs.Blosc().encode(data)), "blosc"),
}  # fmt: skip

MEASURED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_hostile_zarr as tests
import zarr, xarray, numcodecs
tests.made(Path("plain.zarr"), 3)
tests.read(Path("plain.zarr"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(tests.refused_or_read(Path("a.zarr")), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("name", BOMBS)
def test_what_a_store_claims_is_not_believed(name: str, tmp_path: Path) -> None:
    """In a process of its own, whose memory at its peak is looked at."""
    BOMBS[name](tmp_path / "a.zarr")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", MEASURED, str(Path(__file__).parent)], cwd=tmp_path,
                          capture_output=True, text=True, timeout=120, check=False,
                          env={**os.environ, "GRIDCOMPUTE_STATE": str(tmp_path / "state")})
    assert done.returncode == 0, done.stderr[-3000:]
    answer, kilobytes = done.stdout.split()
    assert answer == "False"
    assert int(kilobytes) < 256 * 1024, f"{int(kilobytes) // 1024} MiB"


def test_an_array_of_more_files_than_can_be_looked_at_is_named(tmp_path: Path) -> None:
    BOMBS["chunks of nothing"](tmp_path / "a.zarr")
    source = open_zarr(tmp_path / "a.zarr")
    with pytest.raises(CorruptInputError, match="files hold"):
        source.objects(Region.of((0, 2**12), (0, 2**12)))


def test_a_run_over_a_hostile_store_fails_by_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))
    made(tmp_path / "a.zarr", 3)
    lazy = grid.open_zarr("a.zarr")["v"]
    (tmp_path / "a.zarr/v/c/1/1").write_bytes(zstd_claim(2**40))
    with pytest.raises(GridError, match="says that it holds"):
        grid.run(lazy.sum(), executor="inline", quiet=True)
