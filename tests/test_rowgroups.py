"""Rows of a shard in groups: any run of them reads as the rows it is of, in one read, and what was changed is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridcompute.actions.shapes import joined_blocks
from gridcompute.columns import Block, Field, Fixed, Ragged
from gridcompute.errors import CorruptShardError
from gridcompute.groupreads import read_groups
from gridcompute.rowgroups import cut_rows, even_groups, rows_at
from gridcompute.shardfile import decode, encode
from gridcompute.spaces import Region, Space

FIELDS = (
    Field("key", ("row",), np.dtype("i8")),
    Field("some", ("row",), np.dtype("f4"), nullable=True),
    Field("flag", ("row",), np.dtype(bool)),
    Field("name", ("row",), np.dtype("u1"), "string", nullable=True),
    Field("steps", ("row",), np.dtype("u4"), "list"),
)
SPACE = Space((("row", None),))
REGION = Region.of((0, 1))


def block(rows: int, ends: tuple[int, ...], seed: int = 0) -> Block:
    draw = np.random.default_rng(seed)
    names = [None if draw.random() < 0.2 else b"abcdefgh"[: draw.integers(0, 9)] for _ in range(rows)]
    columns: dict[str, Any] = {
        "key": Fixed(np.sort(draw.integers(0, 99, rows))),
        "some": Fixed(draw.random(rows).astype("f4"), draw.random(rows) < 0.7),
        "flag": Fixed(draw.random(rows) < 0.5),
        "name": Ragged.of(names),
        "steps": Ragged.of([draw.integers(0, 2**32, draw.integers(0, 4)).astype("u4") for _ in range(rows)], np.uint32),
    }
    return Block(REGION, columns, rows, groups=ends)


class Bytes:
    """A shard's bytes, and how often and how much of them was read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads: list[int] = []

    def __call__(self, start: int, stop: int) -> bytes:
        self.reads.append(stop - start)
        return self.data[start:stop]


def cut(draw: Any, rows: int) -> tuple[int, ...]:
    return (*sorted(draw(st.lists(st.integers(0, rows), max_size=5))), rows)


def same(found: Block, wanted: Block) -> bool:
    return encode(found, FIELDS, SPACE)[1] == encode(wanted, FIELDS, SPACE)[1]


@settings(max_examples=40)
@given(st.data(), st.integers(0, 40), st.integers(0, 99))
def test_any_groups_are_their_rows(data: st.DataObject, rows: int, seed: int) -> None:
    ends = cut(data.draw, rows)
    whole = block(rows, ends, seed)
    raw, digest = encode(whole, FIELDS, SPACE)
    assert digest == encode(block(rows, ()), FIELDS, SPACE)[1] or seed
    assert same(decode(raw)[0], whole)
    first = data.draw(st.integers(0, len(ends)))
    last = data.draw(st.integers(first, len(ends)))
    pieces = read_groups(Bytes(raw), first, last, path=f"p{digest}{ends}", store="s")
    start, stop = ((0, *ends)[first], (0, *ends)[last])
    assert sum(piece.rows for piece in pieces) == stop - start
    if pieces:
        columns = {name: rows_at(column, start, stop) for name, column in whole.columns.items()}
        assert same(joined_blocks(pieces, FIELDS, "row", REGION), Block(REGION, columns, stop - start))


def test_only_what_is_wanted_is_read() -> None:
    whole = block(80_000, ())
    whole = Block(REGION, whole.columns, whole.rows, groups=even_groups(whole))
    raw, _ = encode(whole, FIELDS, SPACE)
    store = Bytes(raw)
    assert len(whole.groups) > 4
    read_groups(store, 1, 2, path="few", store="s")
    read_groups(store, 2, 4, path="few", store="s")
    assert len(store.reads) == 3  # its description once
    assert sum(store.reads[1:]) < len(raw)
    with pa.ipc.open_file(pa.py_buffer(raw)) as file:  # as any Arrow reader sees it
        assert file.num_record_batches == len(whole.groups)
        assert file.read_all().num_rows == 80_000


@pytest.mark.faults
@settings(max_examples=60)
@given(st.integers(0, 2**20), st.integers(0, 7))
def test_a_changed_bit_is_told_or_changes_nothing(at: int, bit: int) -> None:
    whole = block(60, (20, 20, 45, 60))
    raw = bytearray(encode(whole, FIELDS, SPACE)[0])
    raw[at % len(raw)] ^= 1 << bit
    try:
        pieces = read_groups(Bytes(bytes(raw)), 0, 4, path=f"bent{at}.{bit}", store="s")
    except CorruptShardError:
        return
    assert same(joined_blocks(pieces, FIELDS, "row", REGION), whole)


@pytest.mark.parametrize(("first", "last"), [(0, 9), (-1, 1), (3, 2)])
def test_groups_that_arent_there(first: int, last: int) -> None:
    raw, _ = encode(block(10, (5, 10)), FIELDS, SPACE)
    with pytest.raises(CorruptShardError, match="it has 2 groups"):
        read_groups(Bytes(raw), first, last, path="short", store="s")


def test_a_shard_that_is_cut_off() -> None:
    raw, _ = encode(block(40_000, (20_000, 40_000)), FIELDS, SPACE)
    with pytest.raises(CorruptShardError, match="cut off"):
        read_groups(Bytes(raw[: len(raw) // 2]), 0, 2, path="cut", store="s")


@pytest.mark.parametrize(("rows", "copied"), [(100, True), (900, False)])
def test_a_few_rows_don_t_keep_the_group_that_they_are_cut_from(rows: int, copied: bool) -> None:
    numbers, text = np.arange(1000), Ragged(np.arange(1001) * 3, np.zeros(3000, np.uint8))
    group = Block(Region.of((0, 1)), {"number": Fixed(numbers), "text": text}, 1000)
    (part,) = cut_rows([group], 50, 50 + rows)
    assert part.rows == rows
    assert (part["number"].values == numbers[50 : 50 + rows]).all()
    assert part["text"].offsets.tolist() == list(range(0, 3 * rows + 1, 3))
    for mine, whole in ((part["number"], numbers), (part["text"], text.values)):
        assert np.shares_memory(mine.values, whole) is not copied
