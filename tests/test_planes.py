"""Large columns in shards: byte planes, in pieces, by several threads; and what a hostile writer could make of them."""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pyarrow import ipc
from test_shard import set_in

from gridcompute import content, planes, shard, shardfile
from gridcompute.columns import Block, Field, Fixed, Ragged
from gridcompute.content import column_digest, content_digest
from gridcompute.errors import CorruptShardError, DivergenceError, ParameterError
from gridcompute.shard import commit, read_shard
from gridcompute.shardfile import decode, encode, read_ends, read_header
from gridcompute.spaces import Region, Space
from gridcompute.store import open_store

DTYPES = ["?", "i1", "i2", "u4", "i8", "f2", "f4", "f8", "c16", "M8[ns]", "M8[D]", "m8[ms]", "S3", ">f8", ">i2"]


@pytest.fixture(scope="module")
def small():
    """Sizes at which a few values are many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planes, "LEAST_BYTES", 1)
        patch.setattr(planes, "PIECE_BYTES", 150)
        patch.setattr(planes, "_ROWS", 4)
        patch.setattr(content, "PIECE_BYTES", 40)
        yield


@pytest.fixture
def as_they_are(monkeypatch):
    for (module, name), value in SIZES.items():
        monkeypatch.setattr(module, name, value)


SIZES = {(module, name): getattr(module, name) for module, name in [
    (planes, "LEAST_BYTES"), (planes, "PIECE_BYTES"), (planes, "_ROWS"), (content, "PIECE_BYTES")]}


@st.composite
def blocks(draw):
    """Blocks of fixed columns, all over the dims x (their rows) and some over more, in any order of dims."""
    lengths = {"y": draw(st.integers(1, 4)), "x": draw(st.integers(1, 9))}
    fields, columns = [], {}
    for number in range(draw(st.integers(1, 3))):
        dims = draw(st.sampled_from([("x",), ("y", "x"), ("x", "y")]))
        dims = dims if dims != ("x", "y") or number else ("y", "x")
        shape = tuple(lengths[d] for d in dims)
        dtype = np.dtype(draw(st.sampled_from(DTYPES)))
        values = draw(hnp.arrays(dtype, shape))
        valid = draw(st.none() | hnp.arrays(bool, shape))
        columns[f"c{number}"] = Fixed(np.asfortranarray(values) if draw(st.booleans()) else values, valid)
        fields.append(Field(f"c{number}", dims, dtype.newbyteorder("="), "fixed", valid is not None))
    region = Region(tuple((2, 2 + n) for n in lengths.values()))
    return Block(region, columns, lengths["y"]), tuple(fields), Space.of(y=20, x=20)


def same(one, other, fields):
    for field in fields:
        a, b = one[field.name], other[field.name]
        there = np.ones(a.values.shape, bool) if a.valid is None else a.valid
        assert (there == (True if b.valid is None else b.valid)).all()
        assert b.values.dtype == field.dtype
        np.testing.assert_array_equal(a.values[there], b.values[there])


@given(made=blocks(), compression=st.sampled_from(["zstd", "lz4"]), threads=st.integers(1, 3))
def test_round_trip(small, made, compression, threads):
    block, fields, space = made
    data, digest = encode(block, fields, space, {"recipe": "r"}, compression=compression, threads=threads)
    assert bytes(data) == bytes(encode(block, fields, space, {"recipe": "r"}, compression=compression)[0])
    back, meta = decode(data)
    assert digest == meta["digest"] == content_digest(block, fields, threads) == content_digest(back, fields)
    assert digest == encode(block, fields, space, compression=None)[1]
    same(block, back, fields)
    header = read_header(data)
    assert read_ends(lambda start, stop: bytes(data[start:stop]), len(data)) == header
    assert (header.step > 0) == any(map(planes.suited, fields))
    assert header.format == (2 if header.step or any(map(content.in_pieces, back.columns.values())) else 1)
    for field in fields:
        some, _ = decode(data, names=[field.name])
        assert list(some.columns) == [field.name]
        same(block, some, [field])


@given(values=hnp.arrays("f8", st.integers(0, 30)), valid=st.booleans())
def test_equal_values_give_equal_bytes(small, values, valid):
    """Whatever their strides, the bits of their NaNs, and what lies under nulls."""
    field, n = (Field("a", ("n",), np.dtype("f8"), nullable=True),), len(values)
    mask = np.arange(n) % 2 == 0 if valid else None
    other = np.repeat(values, 2)
    other[np.isnan(other)] = -np.float64("nan")
    if valid:
        other[::2][~mask] = 7
    one, two = (encode(Block(Region.of((0, n)), {"a": Fixed(v, mask)}, n), field, Space.of(n=n))[0]
                for v in (values, other[::2]))
    assert bytes(one) == bytes(two)


def test_sizes(as_they_are):
    """A column of 5 MiB is in planes and hashed in pieces; one that is a little too small stays plain Arrow."""
    n = 5 * 2**17
    field = (Field("a", ("n",), np.dtype("f8")),)
    values = np.round(np.random.default_rng(0).normal(280, 10, n).astype("f4"), 2).astype("f8")
    data, digest = encode(Block(Region.of((0, n)), {"a": Fixed(values)}, n), field, Space.of(n=n), threads=2)
    assert len(data) < 0.4 * values.nbytes
    back, meta = decode(data)
    assert (meta["format"], meta["digest"]) == ("2", digest)
    np.testing.assert_array_equal(back["a"].values, values)
    assert column_digest(field[0], Fixed(values)) != column_digest(field[0], Fixed(values), pieces=False)
    with ipc.open_file(data) as reader:
        assert reader.schema.field("a").type == pa.struct([pa.field(str(k), "u1", nullable=False) for k in range(8)])
        first = reader.get_batch(0).column(0)
    plane = np.stack([np.asarray(first.field(k)) for k in range(8)], axis=-1)  # as another reader would
    np.testing.assert_array_equal(plane.reshape(-1).view("f8"), values[:len(first)])
    few = 2**17 - 1
    data, _ = encode(Block(Region.of((0, few)), {"a": Fixed(values[:few])}, few), field, Space.of(n=few))
    assert read_header(data).format == 1
    with ipc.open_file(data) as reader:
        assert reader.schema.field("a").type == pa.float64()


def test_digest_in_pieces_does_not_change_between_versions(as_they_are):
    """A changed digest would call every stored shard corrupt: this needs a new format number."""
    field, values = (Field("a", ("n",), np.dtype("i4")),), np.arange(2**21, dtype="i4")
    assert content_digest(Block(Region.of((0, 2**21)), {"a": Fixed(values)}), field) == GOLDEN


GOLDEN = "eb4a7414dfca30cfc75891bac167aa45"


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_values_that_do_not_compress_fit(as_they_are, dtype):
    """Noise gets larger by compression, and has room."""
    n = 2**20
    values = np.frombuffer(np.random.default_rng(1).bytes(n * np.dtype(dtype).itemsize), dtype)
    values = np.where(np.isnan(values), 0, values).astype(dtype)
    mask = np.random.default_rng(2).random(n) > 0.5
    field = (Field("a", ("n",), np.dtype(dtype), nullable=True),)
    for compression in ("zstd", "lz4"):
        block = Block(Region.of((0, n)), {"a": Fixed(values, mask)}, n)
        data, _ = encode(block, field, Space.of(n=n), compression=compression)
        same(block, decode(data)[0], field)


def test_several_threads_where_one_core_was_told():
    """Workers tell Arrow of one core; a task with more compresses with more, and to the same bytes."""
    code = ("import numpy as np, pyarrow as pa, hashlib\n"
            "from gridcompute.columns import Block, Field, Fixed\n"
            "from gridcompute.shardfile import encode\n"
            "from gridcompute.spaces import Region, Space\n"
            "v = np.random.default_rng(0).normal(size=3 * 2**20).round(2)\n"
            "field, n = (Field('a', ('n',), v.dtype),), len(v)\n"
            "for threads in (1, 3):\n"
            "    block = Block(Region.of((0, n)), {'a': Fixed(v)}, n)\n"
            "    data = encode(block, field, Space.of(n=n), threads=threads)[0]\n"
            "    print(hashlib.sha256(data).hexdigest(), pa.cpu_count() >= threads)\n")
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"},
                          capture_output=True, text=True, check=True)
    one, three = done.stdout.splitlines()
    assert one == three
    assert one.endswith("True")


def example(n=40):
    rng = np.random.default_rng(5)
    fields = (Field("v", ("t", "y"), np.dtype("f8"), nullable=True), Field("k", ("y",), np.dtype("i4")),
              Field("b", ("y",), np.dtype("?")))
    block = Block(Region.of((0, 2), (0, n)), {
        "v": Fixed(rng.normal(size=(2, n)), rng.random((2, n)) > 0.2), "k": Fixed(rng.integers(0, 9, n).astype("i4")),
        "b": Fixed(rng.random(n) > 0.5)}, 2)
    return block, fields, Space.of(t=2, y=n)


@pytest.fixture(scope="module")
def raw(small):
    return bytes(encode(*example(), {"recipe": "beef"})[0])


def harmless(data, original):
    """Damaged bytes are refused, or the damage was in padding and the values are the same."""
    try:
        block, meta = decode(data, path="p")
    except CorruptShardError as error:
        assert error.path == "p"  # noqa: PT017 - either outcome is right
        return
    assert meta == decode(original)[1]
    assert content_digest(block, example()[1]) == meta["digest"]


@given(data=st.data())
def test_flipped_bits(raw, data):
    bent = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 3))):
        bent[data.draw(st.integers(0, len(bent) - 1))] ^= data.draw(st.integers(1, 255))
    harmless(bytes(bent), raw)


@given(data=st.data())
def test_overwritten_words(raw, data):
    bent = bytearray(raw)
    word = data.draw(st.sampled_from([-1, -2, 0, 1, 2**31 - 1, 2**40, 2**62, -(2**63)]))
    struct.pack_into("<q", bent, data.draw(st.integers(0, len(bent) // 8 - 1)) * 8, word)
    harmless(bytes(bent), raw)


@given(data=st.data())
def test_cut_off(raw, data):
    with pytest.raises(CorruptShardError):
        decode(raw[: data.draw(st.integers(0, len(raw) - 1))])


def rewritten(raw, change=lambda values: None, bend=lambda batches: batches):
    """The example with another description or other batches, as a hostile writer would make it."""
    with ipc.open_file(raw) as reader:
        found, metadata = [reader.get_batch(i) for i in range(reader.num_record_batches)], dict(reader.schema.metadata)
    values = json.loads(metadata[b"gridcompute"])
    change(values)
    text = json.dumps(values).encode()
    metadata = {b"gridcompute": text, b"gridcompute.check": shardfile._check(text)}
    sink = pa.BufferOutputStream()
    found = bend(found)
    with ipc.new_file(sink, found[0].schema.with_metadata(metadata)) as writer:
        for batch in found:
            writer.write_batch(batch.replace_schema_metadata(metadata))
    return sink.getvalue().to_pybytes()


def test_rewriting_alone_is_harmless(raw):
    block, _ = decode(rewritten(raw))
    same(example()[0], block, example()[1])


@pytest.mark.parametrize("change", [
    set_in("step", value=0), set_in("step", value=1), set_in("step", value=-1), set_in("step", value=2**61),
    set_in("step", value="5"), set_in("step", value=5.0), set_in("step", value=None), set_in("format", value=1),
    set_in("groups", value=[[40, 8, 1]]), set_in("length", value=2**40), set_in("extents", "t", value=2**50),
    set_in("extents", "y", value=2**50), set_in("fields", 0, "kind", value="list"),
    set_in("fields", 0, "dtype", value="<i8"), set_in("fields", 0, "dtype", value="<f4"),
    set_in("fields", 2, "dtype", value="<i4"), set_in("fields", 1, "dtype", value="|S4"),
    set_in("fields", 2, "planes", value=True), set_in("fields", 1, "planes", value=False),
])  # fmt: skip
def test_hostile_descriptions(raw, change):
    with pytest.raises(CorruptShardError):
        decode(rewritten(raw, change))


def test_lengths_are_checked_before_anything_is_allocated(raw, monkeypatch):
    """A description that claims terabytes, with every digest right."""
    def change(values):
        values["extents"]["t"], values["region"][0], values["space"][0] = 2**40, [0, 2**40], ["t", 2**40]

    monkeypatch.setattr(planes.np, "empty", None)  # not reached
    with pytest.raises(CorruptShardError, match="fewer bytes"):
        decode(rewritten(raw, change))


def planes_with_nulls(batches):
    def bent(array):
        if pa.types.is_struct(array.type):
            parts = [pa.array([None] * len(array), pa.uint8()), *(array.field(k) for k in range(1, 4))]
            return pa.StructArray.from_arrays(parts, fields=[pa.field(str(k), pa.uint8()) for k in range(4)])
        return array

    return [pa.RecordBatch.from_arrays([batch.column(0), bent(batch.column(1)), batch.column(2)], batch.schema.names)
            for batch in batches]


@pytest.mark.parametrize("bend", [
    lambda found: found[:-1], lambda found: found + found[-1:], lambda found: found[::-1],
    lambda found: [batch.slice(0, batch.num_rows - 1) for batch in found],
    lambda found: [batch.select([1, 0, 2]) for batch in found],
    lambda found: [batch.set_column(1, "k", pa.array(range(batch.num_rows), pa.int32())) for batch in found],
    lambda found: [batch.set_column(2, "b", batch.column(1)) for batch in found],
    planes_with_nulls,
])
def test_hostile_batches(raw, bend):
    with pytest.raises(CorruptShardError):
        decode(rewritten(raw, bend=bend))


def test_what_could_not_be_read_is_not_written(small, monkeypatch):
    monkeypatch.setattr(shardfile, "MAX_BYTES", 100)
    with pytest.raises(ParameterError, match="smaller"):
        encode(*example())


def test_blocks_that_stay_as_they_are(small):
    """Strings and lists among them, groups of rows, no compression."""
    block, fields, space = example()
    text = (*fields, Field("s", ("y",), np.dtype("u1"), "string"))
    mixed = replace(block, columns={**block.columns, "s": Ragged.of([b"x" * k for k in range(40)])})
    assert read_header(encode(mixed, text, space)[0]).step == 0
    assert read_header(encode(block, fields, space, compression=None)[0]).step == 0
    rows = Block(Region.of((0, 40)), {"k": block["k"]}, 40, groups=(10, 40))
    assert read_header(encode(rows, fields[1:2], Space.of(y=40))[0]).step == 0


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "work")


RECIPE = "beef" * 8


def test_commits(small, store):
    """Once; another result is a divergence; what lost half its bytes is made anew."""
    block, fields, space = example()
    first = commit(store, RECIPE, "0", block, fields, space, threads=2)
    again = commit(store, RECIPE, "0", block, fields, space)
    assert (first.won, again.won, again.digest, first.size) == (True, False, first.digest, len(store.get(first.path)))
    same(block, read_shard(store, RECIPE, block.region)[0], fields)
    changed = replace(block, columns={**block.columns, "k": Fixed(block["k"].values + 1)})
    with pytest.raises(DivergenceError):
        commit(store, RECIPE, "0", changed, fields, space)
    store.put(first.path, store.get(first.path)[:-100])
    made = commit(store, RECIPE, "0", block, fields, space)
    assert (made.won, made.digest, made.path) == (True, first.digest, first.path.replace(".g0.", ".g1."))


def test_a_shard_of_the_format_before_is_the_same_result(small, store, monkeypatch):
    """Written with digests of whole columns, as plain Arrow; committed again it isn't taken for another result."""
    block, fields, space = example()
    with monkeypatch.context() as before:
        before.setattr(planes, "LEAST_BYTES", math.inf)
        before.setattr(content, "PIECE_BYTES", math.inf)
        old = commit(store, RECIPE, "0", block, fields, space)
        assert read_header(store.get(old.path)).format == 1
    found, meta = read_shard(store, RECIPE, block.region)
    same(block, found, fields)
    assert meta["format"] == "1"
    new = commit(store, RECIPE, "0", block, fields, space)
    assert (new.won, new.path) == (False, old.path)
    assert new.digest == new.own == content_digest(block, fields) != old.digest
    assert shard.FORMAT == 1  # of records, which didn't change
