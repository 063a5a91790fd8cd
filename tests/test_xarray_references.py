"""Reference files (kerchunk's): read as the files they describe, lazily, and not led anywhere else."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
from fixtures_s3 import S3, s3, s3_endpoint  # noqa: F401
from hypothesis import given
from hypothesis import strategies as st
from places import few

import gridcompute as grid
from gridcompute.errors import CorruptInputError, GridError, MissingInputError
from gridcompute.sources.references import Reference, References
from gridcompute.sources.xarrays import open_dataset

pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")


def dataset() -> xr.Dataset:
    random = np.random.default_rng(1)
    t = random.normal(280, 10, (6, 4, 5)).astype("f4")
    t[0, 0, 0] = np.nan
    made = xr.Dataset(
        {"t": (("time", "lat", "lon"), t, {"units": "K"})},
        {"time": xr.date_range("2001-01-01", periods=6, calendar="noleap", use_cftime=True),
         "lat": np.arange(4.0), "lon": np.arange(5.0)},
        {"title": "drawn"},
    )  # fmt: skip
    made["t"].encoding = {"chunks": (2, 4, 5)}
    return made


def referred(store: Path, *, folder: str = "") -> dict[str, Any]:
    """References to the files of a Zarr store, chunks by file, metadata written out."""
    refs: dict[str, Any] = {}
    for file in sorted(store.rglob("*")):
        if file.is_file() and file.name != ".zmetadata":
            key = file.relative_to(store).as_posix()
            text = file.name.startswith(".z") or file.name == "zarr.json"
            refs[key] = file.read_text() if text else [f"{folder}{store.name}/{key}", 0, file.stat().st_size]
    return refs


def made(folder: Path, zarr_format: int = 2) -> tuple[xr.Dataset, Path]:
    """A store, and beside it what refers to it."""
    ds = dataset()
    ds.to_zarr(folder / "s.zarr", zarr_format=zarr_format, consolidated=False)
    path = folder / "refs.json"
    path.write_text(json.dumps({"version": 1, "refs": referred(folder / "s.zarr")}))
    return ds, path


def equal(collection: grid.Collection, ds: xr.Dataset) -> None:
    result = grid.run(collection, executor="inline", quiet=True, store="work")[0].to_xarray()
    xr.testing.assert_identical(result.load(), ds)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_json_is_read_as_what_it_refers_to(own_folder: Path, zarr_format: int) -> None:
    ds, path = made(own_folder, zarr_format)
    equal(grid.open_dataset("refs.json"), ds)
    equal(grid.open_dataset("reference://", storage_options={"fo": str(path)}), ds)
    source = open_dataset(path)
    region = source.space.whole()
    first = source.objects(region)
    assert any(f"{own_folder}/s.zarr/t/" in name for name in first)
    chunk = next(file for file in sorted((own_folder / "s.zarr" / "t").rglob("*0*")) if file.is_file())
    chunk.write_bytes(chunk.read_bytes())
    assert open_dataset(path).objects(region) != first, "a file that was written anew is another version"


def test_netcdf_is_read_through_kerchunks_references(own_folder: Path) -> None:
    kerchunk = pytest.importorskip("kerchunk.netCDF3")
    pytest.importorskip("scipy")
    ds = dataset()
    ds.to_netcdf("c.nc", format="NETCDF3_64BIT")
    refs = kerchunk.NetCDF3ToZarr(str(own_folder / "c.nc")).translate()
    Path("c.json").write_text(json.dumps(refs))
    found = grid.run(grid.open_dataset("c.json")["t"], executor="inline", quiet=True, store="work")[0].to_xarray()
    xr.testing.assert_equal(found.load(), xr.open_dataset("c.nc"))


def test_parquet_is_read_record_by_record(own_folder: Path) -> None:
    ds, _ = made(own_folder)
    refs = referred(own_folder / "s.zarr", folder=f"{own_folder}/")
    metadata = {key: json.loads(text) for key, text in refs.items() if isinstance(text, str)}
    folder = own_folder / "refs.parq"
    folder.mkdir()
    (folder / ".zmetadata").write_text(json.dumps({"metadata": metadata, "record_size": 2}))
    for name in ds.variables:
        about = metadata[f"{name}/.zarray"]
        count = math.prod(-(-n // c) for n, c in zip(about["shape"], about["chunks"], strict=True))
        rows = [refs[f"{name}/{'.'.join([str(i), *['0'] * (len(about['shape']) - 1)])}"] for i in range(count)]
        inline = name == "lat"
        (folder / str(name)).mkdir()
        for i in range(0, count, 2):
            part = rows[i : i + 2]
            table = {"path": [None if inline else r[0] for r in part], "offset": [r[1] for r in part],
                     "size": [r[2] for r in part],
                     "raw": [Path(r[0]).read_bytes() if inline else None for r in part]}  # fmt: skip
            pq.write_table(pa.table(table), folder / str(name) / f"refs.{i // 2}.parq")
    equal(grid.open_dataset("refs.parq"), ds)
    (folder / "t" / "refs.1.parq").write_bytes(b"PAR1 no")
    with pytest.raises(GridError, match="refs"):
        source = open_dataset(folder)
        source.read(source.space.whole(), ["t"])


def test_groups_within_references(own_folder: Path) -> None:
    ds = dataset()
    ds.to_zarr("s.zarr", group="deep/down", zarr_format=2, consolidated=False)
    Path("refs.json").write_text(json.dumps(referred(own_folder / "s.zarr")))
    equal(grid.open_dataset("refs.json", group="deep/down"), ds)
    equal(grid.open_dataset("s.zarr", group="deep/down"), ds)
    equal(grid.open_zarr("s.zarr", group="deep/down"), ds)


def test_references_in_memory_and_on_s3(own_folder: Path, s3: S3) -> None:  # noqa: F811
    import fsspec

    ds, _ = made(own_folder)
    for base, given_options in (("memory://refs", {}), (s3.url, s3.options)):
        files, place = fsspec.core.url_to_fs(base, **given_options)
        files.put(str(own_folder / "s.zarr"), f"{place}/s.zarr", recursive=True)
        refs = referred(own_folder / "s.zarr", folder=f"{base}/")
        files.pipe(f"{place}/refs.json", json.dumps({"refs": refs}).encode())
        equal(grid.open_dataset(f"{base}/refs.json", storage_options=given_options), ds)
        with pytest.raises(CorruptInputError, match="doesn't lie in"):
            Path("local.json").write_text(json.dumps({"refs": refs}))
            source = open_dataset("local.json", storage_options=given_options)
            source.read(source.space.whole(), ["t"])
        equal(grid.open_dataset("local.json", targets=base, storage_options=given_options), ds)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/etc/hostname", "doesn't lie in"),
        ("file:///etc/hostname", "doesn't lie in"),
        ("../outside", "doesn't lie in"),
        ("s3://elsewhere/x", "doesn't lie in"),
        ("s.zarr/../../outside", "doesn't lie in"),
        ("reference://x", "only plain files"),
        ("simplecache::file:///etc/hostname", "only plain files"),
        ("{{ cycler.__init__.__globals__ }}", "template"),
        ("{{a}}", "template"),
        ("{% for x in y %}", "template"),
        ("link", "leads out"),
    ],
)
def test_references_lead_nowhere_else(own_folder: Path, path: str, said: str) -> None:
    folder = own_folder / "inside"
    folder.mkdir()
    (own_folder / "outside").write_bytes(bytes(1000))
    (folder / "link").symlink_to(own_folder / "outside")
    _, place = made(folder)
    refs = json.loads(place.read_text())
    refs["templates"] = {"a": "{{b}}", "b": "{{a}}"}
    key = next(key for key in refs["refs"] if key.startswith("t/0"))
    refs["refs"][key] = [path, 0, 80]
    place.write_text(json.dumps(refs))
    source = open_dataset(place)
    with pytest.raises(CorruptInputError, match=said):
        source.objects(source.space.whole())
        source.read(source.space.whole(), ["t"])
    with pytest.raises(CorruptInputError, match=said):
        source.read(source.space.whole(), ["t"])


@pytest.mark.parametrize("path", ["../x", "%2e%2e/x", ".%2E/x", "..%2fx", "a/..\\..\\x"])
def test_references_leave_no_folder_of_the_web(path: str) -> None:
    found = References("https://host/data/refs.json", {}, ("https://host/data",), {
        "t/0": [f"https://host/data/{path}", 0, 8], "t/1": [path, 0, 8], "t/2": ["%2e.nc", 0, 8]})
    for key in ("t/0", "t/1"):
        with pytest.raises(CorruptInputError, match="doesn't lie in"):
            found.get(key)
    assert found.get("t/2") == Reference("https://host/data/%2e.nc", 0, 8)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "isn't a reference file"),
        ("[]", "isn't a reference file"),
        ("{}", "no Zarr metadata"),
        ("[" * 100_000, "isn't a reference file"),
        ('{"refs": {".zgroup": "{}"}, "gen": [{"key": "a"}]}', "generates"),
        ('{"refs": {".zgroup": "{}"}, "templates": {"a": 1}}', "template isn't a text"),
        ('{"refs": 5}', "isn't a reference file"),
    ],
)
def test_what_is_no_reference_file_is_refused(own_folder: Path, text: str, said: str) -> None:
    Path("refs.json").write_text(text)
    with pytest.raises(CorruptInputError, match=said):
        open_dataset("refs.json")


def test_a_huge_reference_file_is_refused(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gridcompute.sources import contained

    _, place = made(own_folder)
    monkeypatch.setattr(contained, "MOST_METADATA", 100)
    with pytest.raises(CorruptInputError, match="more than 100 bytes"):
        open_dataset(place)


@pytest.mark.faults
def test_a_referenced_file_that_is_short_or_gone(own_folder: Path) -> None:
    _, place = made(own_folder)
    source = open_dataset(place)
    chunk = sorted(file for file in (own_folder / "s.zarr" / "t").rglob("*") if not file.name.startswith("."))[0]
    chunk.write_bytes(chunk.read_bytes()[:-3])
    with pytest.raises(CorruptInputError, match="ends before"):
        source.read(source.space.whole(), ["t"])
    chunk.unlink()
    with pytest.raises(MissingInputError, match="references lead"):
        source.read(source.space.whole(), ["t"])


def references(value: Any) -> References:
    return References("/data/refs.json", {}, ("/data",), {"a": value})


def test_each_form_of_a_reference() -> None:
    assert references("text").get("a") == Reference(inline=b"text")
    assert references("base64:" + base64.b64encode(b"\0x").decode()).get("a") == Reference(inline=b"\0x")
    assert references({"zarr_format": 2}).get("a") == Reference(inline=b'{"zarr_format": 2}')
    assert references(["x.nc"]).get("a") == Reference("/data/x.nc")
    assert references(["file:///data/x.nc", 3, 4]).get("a") == Reference("/data/x.nc", 3, 4)
    assert references("text").get("b") is None
    for wrong in (["x", -1, 5], ["x", 0, 2**40], ["x", 0], ["x", "0", "5"], [5, 0, 5], [], ["x", True, 2], 7,
                  "base64:$$"):  # fmt: skip
        with pytest.raises(CorruptInputError):
            references(wrong).get("a")


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda inner: st.lists(
    inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=8)  # fmt: skip


@given(JSON)
def test_any_reference_is_one_or_refused(value: Any) -> None:
    try:
        found = references(value).get("a")
    except CorruptInputError:
        return
    assert found is None or found.inline is not None or found.path.startswith("/data/")


@given(st.data())
def test_any_change_of_a_reference_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    folder = tmp_path_factory.mktemp("fuzzed")
    _, place = made(folder)
    for _ in range(few(8)):
        raw = bytearray(place.read_bytes())
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
        other = folder / "other.json"
        other.write_bytes(raw)
        try:
            source = open_dataset(other)
            source.read(source.space.whole(), [f.name for f in source.fields])
        except GridError:
            continue
