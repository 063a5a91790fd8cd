"""What is written is shuffled by the size of its items: byte 3 of a blosc chunk's header, for each type and format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import xarray as xr

import gridcompute as grid
from gridcompute.errors import ParameterError
from gridcompute.sinks import zarrs


def chunk_files(folder: Path, name: str) -> list[Path]:
    return [file for file in sorted((folder / name).rglob("*")) if file.is_file()
            and file.name not in (".zarray", ".zattrs", "zarr.json")]  # fmt: skip


@pytest.mark.parametrize("compressor", ["zstd", "lz4"])
def test_every_chunk_of_a_result_is_shuffled_by_its_items_size(own_folder: Path, compressor: str) -> None:
    random = np.random.default_rng(1)
    types = ("f4", "f8", "i2", "i4", "i8")
    ds = xr.Dataset({name: (("time", "x"), (random.random((40, 30)) * 99).astype(name)) for name in types},
                    {"time": np.arange(40), "x": np.arange(30, dtype="f4")})  # fmt: skip
    grid.run(ds.grid.write("a.zarr", compressor=compressor), executor="inline", quiet=True, store="work")
    for name in (*types, "time", "x"):
        files = chunk_files(own_folder / "a.zarr", name)
        assert files
        for file in files:
            assert file.read_bytes()[3] == ds[name].dtype.itemsize, file
    xr.testing.assert_equal(xr.open_zarr("a.zarr").load(), ds)


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "i4"])
def test_what_others_write_with_the_numcodecs_here_is_too(tmp_path: Path, zarr_format: int, dtype: str) -> None:
    from zarr.codecs import BloscCodec

    codec: Any = numcodecs.Blosc("zstd", 3, numcodecs.Blosc.SHUFFLE)
    encoding: dict[str, Any] = {"compressors": codec if zarr_format == 2 else BloscCodec(cname="zstd")}
    ds = xr.Dataset({"v": (("x",), np.arange(100).astype(dtype))})
    ds.to_zarr(tmp_path / "a.zarr", encoding={"v": encoding}, zarr_format=zarr_format, consolidated=False)
    for file in chunk_files(tmp_path / "a.zarr", "v"):
        assert file.read_bytes()[3] == np.dtype(dtype).itemsize


def test_an_old_numcodecs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for found in ("0.15.1", "0.9", "0.16.0", "1.0"):
        zarrs.require_numcodecs.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr("importlib.metadata.version", lambda name, found=found: found)
            if found in ("0.15.1", "0.9"):
                with pytest.raises(ParameterError, match=f"numcodecs {found}"):
                    zarrs.ZarrSink("a.zarr")
            else:
                zarrs.ZarrSink("a.zarr")
    zarrs.require_numcodecs.cache_clear()
