"""BGZF blocks: gzip reads back every byte, pysam every virtual offset; an empty file is one that ends well."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import numpy as np
import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridcompute import bgzf

SIZES = st.sampled_from([0, 1, bgzf.BLOCK - 1, bgzf.BLOCK, bgzf.BLOCK + 1, 3 * bgzf.BLOCK, 200_001])


def some(size: int, seed: int, plain: bool) -> bytes:
    """Bytes that compress well, or not at all."""
    draw = random.Random(seed)
    return bytes(draw.choices(b"ACGT", k=size)) if plain else draw.randbytes(size)


@given(SIZES, st.integers(0, 3), st.booleans(), st.integers(0, 9))
def test_any_bytes_come_back(size: int, level: int, plain: bool, seed: int) -> None:
    data = some(size, seed, plain)
    blocks, begins = bgzf.compress(data, level)
    assert gzip.decompress(blocks + bgzf.END) == data
    assert begins[-1] == len(blocks)
    assert len(begins) == 1 + -(-size // bgzf.BLOCK)
    assert (np.diff(begins) <= 65_536).all()
    assert len(blocks) <= size + 31 * len(begins)  # what can't be compressed is stored


@pytest.mark.parametrize("plain", [True, False])
def test_pysam_finds_virtual_offsets(tmp_path: Path, plain: bool) -> None:
    data = some(300_000, 1, plain)
    blocks, begins = bgzf.compress(data)
    path = tmp_path / "data.gz"
    path.write_bytes(blocks + bgzf.END)
    places = np.array([0, 1, bgzf.BLOCK - 1, bgzf.BLOCK, 2 * bgzf.BLOCK + 7, len(data) - 1])
    with pysam.BGZFile(str(path)) as file:
        for place, offset in zip(places.tolist(), bgzf.virtual_offsets(begins, places).tolist(), strict=True):
            file.seek(offset)
            assert file.read(10) == data[place:place + 10]


def test_the_end_is_htslibs() -> None:
    assert gzip.decompress(bgzf.END) == b""
    assert bgzf.END.hex() == "1f8b08040000000000ff0600424302001b0003000000000000000000"


def test_blocks_behind_others_are_shifted() -> None:
    first, _ = bgzf.compress(b"a" * 100_000)
    _, begins = bgzf.compress(b"b" * 100_000)
    places = np.array([0, 99_999])
    offsets = bgzf.shifted(bgzf.virtual_offsets(begins, places), len(first))
    assert (offsets >> 16).tolist() == (begins[places // bgzf.BLOCK] + len(first)).tolist()
    assert (offsets & 0xFFFF).tolist() == (places % bgzf.BLOCK).tolist()
