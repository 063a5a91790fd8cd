"""Chunks decoded directly are what zarr-python reads: any codec, byte order and box; what can't be is left to it."""

from __future__ import annotations

import os
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

from gridcompute.errors import CorruptInputError, MissingInputError
from gridcompute.sources import bloscs, chunks, zarrs
from gridcompute.sources.chunks import StoredChunks, _zstd_size
from gridcompute.sources.zarrs import open_zarr
from gridcompute.spaces import Region

SHAPE, CHUNKS = (11, 7, 10), (4, 3, 5)
COMPRESSORS: dict[int, list[Any]] = {
    2: [None, numcodecs.Zstd(3), numcodecs.Blosc(cname="lz4"), numcodecs.Blosc(cname="zstd", shuffle=2),
        numcodecs.GZip(1), numcodecs.Zlib(1), numcodecs.LZ4()],
    3: [None, ZstdCodec(level=3, checksum=True), ZstdCodec(), BloscCodec(cname="lz4", typesize=8), GzipCodec()],
}  # fmt: skip


def made(path: Path, zarr_format: Any, compressor: Any, dtype: str, fill: Any, gaps: set[tuple[int, ...]]) -> Any:
    """An array of random values, whose chunks at some places were never written."""
    extra: dict[str, Any] = {"order": "C"}
    if zarr_format == 3:
        extra = {"serializer": BytesCodec(endian="big" if dtype[0] == ">" else "little")}
    array = zarr.create_array(str(path), shape=SHAPE, chunks=CHUNKS, dtype=dtype, zarr_format=zarr_format,
                              compressors=compressor, fill_value=fill, overwrite=True, **extra)
    values = np.random.default_rng(3).integers(0, 250, SHAPE).astype(dtype)
    for place in np.ndindex(3, 3, 2):
        if place not in gaps:
            at = tuple(slice(i * n, (i + 1) * n) for i, n in zip(place, CHUNKS, strict=True))
            array[at] = values[at]
    return zarr.open_array(str(path), mode="r")


@st.composite
def boxes(draw: Any) -> tuple[slice, ...]:
    ends = [sorted(draw(st.sets(st.integers(0, n), min_size=2, max_size=2))) for n in SHAPE]
    return tuple(slice(lo, hi) for lo, hi in ends)


@pytest.mark.parametrize(("zarr_format", "number"), [(f, i) for f in (2, 3) for i in range(len(COMPRESSORS[f]))])
def test_a_box_is_what_zarr_reads(zarr_format: int, number: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("arrays")

    @given(st.sampled_from(["<f4", ">f4", "<f8", "|u1", "<i2", ">i8", "|b1"]), st.booleans(),
           st.sets(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 1)), max_size=4), st.data())
    def holds(dtype: str, odd: bool, gaps: set[tuple[int, ...]], data: Any) -> None:
        fill = (np.nan if "f" in dtype else 1) if odd else 0
        plain = made(folder / "a.zarr", zarr_format, COMPRESSORS[zarr_format][number], dtype, fill, gaps)
        direct = StoredChunks.of(plain, str(folder / "a.zarr"))
        assert direct is not None
        for _ in range(3):
            where = data.draw(boxes())
            wanted, found = np.asarray(plain[where]), direct.read(where)
            assert found.shape == wanted.shape
            native = wanted.dtype.newbyteorder("=")
            assert found.astype(native).tobytes() == wanted.astype(native).tobytes()

    holds()


def test_format_2_without_a_fill_value(tmp_path: Path) -> None:
    plain = made(tmp_path / "a.zarr", 2, None, "<f4", None, {(0, 0, 0)})
    direct = StoredChunks.of(plain, str(tmp_path / "a.zarr"))
    assert direct is not None
    where = (slice(0, 11), slice(0, 7), slice(0, 10))
    assert np.array_equal(direct.read(where), np.asarray(plain[where]))


@pytest.mark.parametrize(("zarr_format", "options"), [
    (3, {"shards": (8, 6, 10), "chunks": (4, 3, 5)}),
    (3, {"compressors": [ZstdCodec(), Crc32cCodec()]}),
    (3, {"filters": [TransposeCodec(order=(2, 1, 0))]}),
    (2, {"order": "F"}),
    (2, {"filters": [numcodecs.Delta("<f4")]}),
    (2, {"compressors": numcodecs.BZ2()}),
])  # fmt: skip
def test_anything_else_is_read_by_zarr(zarr_format: Any, options: dict[str, Any], tmp_path: Path) -> None:
    array = zarr.create_array(str(tmp_path / "a.zarr"), shape=SHAPE, dtype="<f4", zarr_format=zarr_format,
                              **{"chunks": CHUNKS, **options})
    values = np.arange(770, dtype="f4").reshape(SHAPE)
    array[...] = values
    assert StoredChunks.of(zarr.open_array(str(tmp_path / "a.zarr")), "") is None
    source = open_zarr(tmp_path / "a.zarr")
    assert not source.piecewise
    column: Any = source.read(Region.of((1, 9), (0, 7), (2, 10)), ["a"])["a"]
    assert np.array_equal(column.values, values[1:9, :, 2:])


def test_the_values_of_a_block_stay_when_others_are_read(tmp_path: Path) -> None:
    plain = made(tmp_path / "a.zarr", 3, ZstdCodec(), "<f4", 0, set())
    source = open_zarr(tmp_path / "a.zarr")
    regions = [Region.of((i, i + 4), (j, j + 3), (0, 5)) for i in (0, 4) for j in (0, 3)]
    held: list[Any] = [source.read(region, ["a"])["a"].values[1:, ::2] for region in regions]  # type: ignore[union-attr]
    for _ in range(20):
        source.read(regions[0], ["a"])
    for region, values in zip(regions, held, strict=True):
        assert np.array_equal(values, np.asarray(plain[region.slices])[1:, ::2])


@pytest.mark.parametrize("compressor", [ZstdCodec(), BloscCodec(), GzipCodec(), None])
@pytest.mark.parametrize("harm", ["cut", "shorter", "longer", "empty", "other"])
def test_a_broken_chunk_is_named(compressor: Any, harm: str, tmp_path: Path) -> None:
    made(tmp_path / "a.zarr", 3, compressor, "<f4", 0, set())
    chunk = tmp_path / "a.zarr" / "c" / "1" / "0" / "1"
    encode = {ZstdCodec: numcodecs.Zstd().encode, BloscCodec: numcodecs.Blosc().encode,
              GzipCodec: numcodecs.GZip().encode}.get(type(compressor), bytes)
    chunk.write_bytes({"cut": chunk.read_bytes()[:-7], "shorter": bytes(encode(b"\1" * 236)),
                       "longer": bytes(encode(b"\1" * 244)), "empty": b"", "other": b"\xff" * 240}[harm])
    source = open_zarr(tmp_path / "a.zarr")
    assert source.piecewise
    source.read(Region.of((0, 4), (0, 7), (0, 10)), ["a"])
    if (compressor, harm) == (None, "other"):
        return  # as many bytes as there should be: nothing tells that they are wrong
    with pytest.raises(CorruptInputError, match=r"a\.zarr: array 'a', region 4-8_0-3_0-10: ."):
        source.read(Region.of((4, 8), (0, 3), (0, 10)), ["a"])


def test_an_array_that_was_written_anew_is_opened_anew(tmp_path: Path) -> None:
    made(tmp_path / "a.zarr", 3, ZstdCodec(), "<f4", 0, set())
    source, region = open_zarr(tmp_path / "a.zarr"), Region.of((0, 2), (0, 2), (0, 2))
    source.read(region, ["a"])
    array = zarr.create_array(str(tmp_path / "a.zarr"), shape=SHAPE, chunks=(2, 2, 2), dtype="<f4", overwrite=True)
    array[...] = 5
    assert np.array_equal(source.read(region, ["a"])["a"].values, np.full((2, 2, 2), 5))  # type: ignore[union-attr]
    zarr.create_array(str(tmp_path / "a.zarr"), shape=(1, 7, 10), chunks=(2, 2, 2), dtype="<f4", overwrite=True)
    with pytest.raises(CorruptInputError, match="it has changed since it was opened"):
        source.read(region, ["a"])


def test_a_chunk_that_is_read_part_by_part_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array, decoded = made(tmp_path / "a.zarr", 3, ZstdCodec(), "<f4", 0, set()), list[Any]()
    decode = StoredChunks._decode

    def counted(self: StoredChunks, place: Any, target: Any) -> None:
        decoded.append(place)
        decode(self, place, target)

    monkeypatch.setattr(StoredChunks, "_decode", counted)
    source, expected = open_zarr(tmp_path / "a.zarr"), array[:]
    rows = [source.read(Region.of((t, t + 1), (0, 3), (0, 5)), ["a"])["a"] for t in range(4)]
    assert decoded == [(0, 0, 0)]
    for t, row in enumerate(rows):
        np.testing.assert_array_equal(row.values[0], expected[t, :3, :5])  # type: ignore[union-attr]
    chunks.forget()
    source.read(Region.of((0, 1), (0, 3), (0, 5)), ["a"])
    assert len(decoded) == 2
    file = tmp_path / "a.zarr" / "c" / "0" / "0" / "0"
    zarr.open_array(str(tmp_path / "a.zarr"))[:4, :3, :5] = 7.0
    assert file.exists()
    again = source.read(Region.of((0, 1), (0, 3), (0, 5)), ["a"])["a"]
    assert (again.values == 7.0).all(), "written anew, decoded anew"  # type: ignore[union-attr]


def test_nothing_of_a_large_chunk_stays_when_it_is_forgotten(tmp_path: Path) -> None:
    """Neither its values nor its file's bytes."""
    array = zarr.create_array(str(tmp_path / "a.zarr"), shape=(2**21,), chunks=(2**21,), dtype="<f8")
    array[...] = np.random.default_rng(0).random(2**21)  # which can't be compressed
    direct = StoredChunks.of(array, str(tmp_path / "a.zarr"))
    assert direct is not None
    chunks.forget()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        assert direct.read((slice(0, 5),)).shape == (5,)
        chunks.BUFFERS.clear()
        assert tracemalloc.get_traced_memory()[0] > before + 2 * 2**23
        chunks.forget()
        chunks.BUFFERS.clear()
        assert tracemalloc.get_traced_memory()[0] < before + 2**20
    finally:
        tracemalloc.stop()


def test_the_chunks_of_a_tile_are_kept_while_it_is_read_and_looked_into(tmp_path: Path,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    array, decoded = made(tmp_path / "a.zarr", 3, ZstdCodec(), "<f4", 0, {(1, 0, 0)}), list[Any]()
    decode = StoredChunks._decode

    def counted(self: StoredChunks, place: Any, target: Any) -> None:
        decoded.append(place)
        decode(self, place, target)

    monkeypatch.setattr(StoredChunks, "_decode", counted)
    direct, expected = StoredChunks.of(array, str(tmp_path / "a.zarr")), array[:]
    assert direct is not None
    with chunks.keeping():
        for rows in ((0, 4), (4, 8), (2, 7)):
            for row in range(*rows):
                found = direct.read((slice(row, row + 1), slice(0, 3), slice(0, 10)))
                np.testing.assert_array_equal(found, expected[row : row + 1, :3])
        assert sorted(decoded) == [(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 0, 1)]
        one = direct.read((slice(1, 3), slice(0, 3), slice(0, 5)))
        another = direct.read((slice(2, 4), slice(0, 3), slice(0, 5)))
        assert np.shares_memory(one, another)
        assert not one.flags.writeable
        whole = direct.read((slice(0, 4), slice(0, 3), slice(0, 5)))
        assert whole.flags.writeable
        assert not np.shares_memory(one, whole)
    np.testing.assert_array_equal(one, expected[1:3, :3, :5])
    before = len(decoded)
    direct.read((slice(0, 1), slice(0, 3), slice(0, 5)))
    assert len(decoded) == before
    direct.read((slice(0, 1), slice(0, 3), slice(5, 9)))
    assert len(decoded) == before + 1, "nothing is kept but the last one"


def test_a_blosc_chunk_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "a.zarr", 3, BloscCodec(cname="lz4", typesize=4), "<f4", 0, set())
    file = tmp_path / "a.zarr" / "c" / "0" / "0" / "0"
    whole = file.read_bytes()
    for length in (0, 3, 15, 16, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(CorruptInputError, match=r"a\.zarr"):
            open_zarr(tmp_path / "a.zarr").read(Region.of((0, 4), (0, 3), (0, 5)), ["a"])


def walk(count: int) -> Any:
    return np.random.default_rng(7).integers(-2, 3, count).cumsum().astype("<f4")


@pytest.fixture
def in_runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Any Blosc chunk is decoded as it is read, a few blocks at a time; the bytes in memory for each run."""
    monkeypatch.setattr(chunks, "RUNS_BYTES", 1)
    monkeypatch.setattr(bloscs, "RUN_BYTES", 3000)
    taken, memory = list[int](), chunks._memory

    def seen(size: int) -> memoryview:
        taken.append(size)
        return memory(size)

    monkeypatch.setattr(chunks, "_memory", seen)
    return taken


@pytest.mark.parametrize("count", [1, 17, 1024, 1025, 40_000, 40_960, 40_961])
def test_a_large_blosc_chunk_is_decoded_as_it_is_read(count: int, in_runs: list[int], tmp_path: Path) -> None:
    codec = BloscCodec(cname="zstd", clevel=3, typesize=4, blocksize=4096)
    array = zarr.create_array(str(tmp_path / "a.zarr"), shape=(count,), chunks=(count,), dtype="<f4", compressors=codec)
    array[:] = values = walk(count)
    stored = (tmp_path / "a.zarr" / "c" / "0").stat().st_size
    found = StoredChunks.of(zarr.open_array(str(tmp_path / "a.zarr"), mode="r"), str(tmp_path / "a.zarr"))
    assert found is not None
    np.testing.assert_array_equal(found.read((slice(0, count),)), values)
    if count > 20_000:
        assert len(in_runs) > 2
        assert max(in_runs) < stored / 2


@pytest.mark.parametrize("harm", ["total", "block", "stored", "places", "order", "cut", "longer", "noise"])
def test_a_large_blosc_chunk_whose_header_lies(harm: str, in_runs: list[int], tmp_path: Path) -> None:
    codec = BloscCodec(cname="zstd", clevel=3, typesize=4, blocksize=4096)
    array = zarr.create_array(str(tmp_path / "a.zarr"), shape=(40_000,), chunks=(40_000,), dtype="<f4",
                              compressors=codec)
    array[:] = np.random.default_rng(1).random(40_000) if harm == "noise" else walk(40_000)
    path = tmp_path / "a.zarr" / "c" / "0"
    data = bytearray(path.read_bytes())
    at = {"total": 4, "block": 8, "stored": 12, "places": 16}
    if harm in at:
        data[at[harm]:at[harm] + 4] = (int.from_bytes(data[at[harm]:at[harm] + 4], "little") + 1).to_bytes(4, "little")
    if harm == "order":  # two places are exchanged: the values aren't what they were, or it is refused
        data[16:24] = data[20:24] + data[16:20]
    path.write_bytes(bytes(data[:-9] if harm == "cut" else data + b"\0" * 9 if harm == "longer" else data))
    source = open_zarr(tmp_path / "a.zarr")
    whole = Region.of((0, 40_000))
    if harm in ("noise", "order", "longer"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(chunks, "RUNS_BYTES", 2**60)
            chunks.forget()
            wanted = outcome(source, whole)
        assert outcome(source, whole) == wanted, "as when it is read as a whole"
    else:
        with pytest.raises(CorruptInputError, match=r"a\.zarr: array"):
            source.read(whole, [source.fields[0].name])


def outcome(source: Any, region: Region) -> bytes | str:
    try:
        values: bytes = source.read(region, [source.fields[0].name])[source.fields[0].name].values.tobytes()
        return values
    except CorruptInputError:
        return "refused"


@pytest.mark.parametrize("grouped", [False, True])
def test_an_array_that_is_gone_or_of_another_type_is_refused(grouped: bool, tmp_path: Path) -> None:
    path = tmp_path / "g.zarr"
    folder = path / "a" if grouped else path
    if grouped:
        zarr.open_group(str(path), mode="w")
    name = "a" if grouped else "g"
    made(folder, 3, ZstdCodec(), "<i8", 0, set())
    source, box = open_zarr(path), Region.of((0, 4), (0, 3), (0, 5))
    source.read(box, [name])
    made(folder, 3, ZstdCodec(), "<f8", 0, set())
    with pytest.raises(CorruptInputError, match="changed since it was opened"):
        source.read(box, [name])
    shutil.rmtree(folder)
    for _ in range(2):
        with pytest.raises(MissingInputError, match="any more"):
            source.read(box, [name])


def test_the_size_in_a_frame_s_header() -> None:
    for size in (1, 200, 256, 300, 65_791, 65_792, 1_000_000):
        frame = bytes(numcodecs.Zstd(1).encode(os.urandom(size)))
        assert _zstd_size(memoryview(frame + bytes(18))) == size
    assert _zstd_size(memoryview(b"")) is None
    assert _zstd_size(memoryview(bytes(20))) is None
    assert _zstd_size(memoryview(b"\x28\xb5\x2f\xfd\x00" + bytes(20))) is None  # written as a stream


def test_remote_stores_are_read_by_zarr(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "memory://chunks-of-a-remote-store/a.zarr"
    array = zarr.create_array(url, shape=(4,), chunks=(2,), dtype="<i4")
    array[...] = np.arange(4)
    source = open_zarr(url)
    monkeypatch.setattr(zarrs, "_chunks", lambda folder: pytest.fail(f"looked for chunk files in {folder}"))
    assert not source.piecewise
    assert source.read(Region.of((1, 4)), ["a"])["a"].values.tolist() == [1, 2, 3]  # type: ignore[union-attr]
