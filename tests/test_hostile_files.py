"""Hostile tables, netCDF files and state at rest: an error of ours, in bounded time; no pickle is read from a store."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gridcompute as grid
from gridcompute.errors import CorruptShardError, GridError
from gridcompute.sources.tables import open_table

SECONDS = 20.0
"""In which the worst file must be refused, on a machine that does other things too."""

ROOT = Path(grid.__file__).parent


def mutated(data: st.DataObject, raw: bytes, *, ends: int = 0) -> bytes:
    """Bytes with a few overwritten, put in or left out; `ends`: mostly among so many of the last."""
    out = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        low = max(0, len(out) - ends) if ends and data.draw(st.booleans()) else 0
        at = data.draw(st.integers(low, max(low, len(out) - 1)))
        out[at:at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    return bytes(out)


def bounded(step: Callable[[], object]) -> None:
    """A step that does what it should or is refused by an error of ours, in time."""
    began = time.monotonic()
    with contextlib.suppress(GridError):
        step()
    assert time.monotonic() - began < SECONDS


TABLE = pa.table({"a": np.arange(200), "t": [f"text {i}" for i in range(200)], "l": [[i, i + 1] for i in range(200)],
                  "d": pa.array(["x", "y"] * 100).dictionary_encode()})


def parquet(path: Path) -> None:
    pq.write_table(TABLE, path, row_group_size=50, write_page_checksum=True)


def arrow(path: Path) -> None:
    with pa.ipc.new_file(path, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=50)


def csv(path: Path) -> None:
    TABLE.select(["a", "t"]).to_pandas().to_csv(path, index=False)


def read_table(path: Path) -> None:
    source = open_table(str(path))
    if hasattr(source, "blocks"):
        for part in source.parts:
            for _ in source.blocks(part):
                pass
    else:
        source.read(source.space.whole(), [field.name for field in source.fields])  # type: ignore[union-attr]


@pytest.mark.parametrize("write", [parquet, arrow, csv])
def test_any_table(write: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / f"t.{write.__name__}"
    write(path)
    raw = path.read_bytes()
    read_table(path)

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def any_bytes(data: st.DataObject) -> None:
        path.write_bytes(mutated(data, raw, ends=2000))
        bounded(lambda: read_table(path))

    any_bytes()


class Evil:
    """Unpickled, it leaves a mark."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("unpickled",)


def test_types_that_a_table_names_run_no_code(own_folder: Path) -> None:
    """An Arrow file may name extension types; some of those were once pickles."""
    field = pa.field("a", pa.int64(), metadata={b"ARROW:extension:name": b"arrow.py_extension_type",
                                                b"ARROW:extension:metadata": pickle.dumps(Evil())})
    schema = pa.schema([field], metadata={b"pandas": pickle.dumps(Evil())})
    table = pa.table([[1, 2]], schema=schema)
    pq.write_table(table, "t.parquet")
    with pa.ipc.new_file("t.arrow", schema) as writer:
        writer.write_table(table)
    for name in ("t.parquet", "t.arrow"):
        bounded(lambda name=name: read_table(Path(name)))  # type: ignore[misc]
        bounded(lambda name=name: grid.run(grid.open_table(name), executor="inline", quiet=True))  # type: ignore[misc]
    assert not Path("unpickled").exists()


NETCDF = """
import sys, time, random
from pathlib import Path
from gridcompute.errors import GridError
from gridcompute.sources.xarrays import open_dataset
from gridcompute.spaces import Region
path, seed = Path(sys.argv[1]), int(sys.argv[2])
raw, rng, outcomes = path.read_bytes(), random.Random(seed), [0, 0]
for number in range(int(sys.argv[3])):
    out = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(min(len(out), 4096) if rng.random() < 0.7 else len(out))
        count = rng.randint(1, 8)
        out[at:at + count] = rng.randbytes(count if rng.random() < 0.7 else rng.randint(0, 8))
    other = path.with_name(f"{number}{path.suffix}")
    other.write_bytes(out)
    print(number, flush=True)
    began = time.monotonic()
    try:
        source = open_dataset(str(other))
        for field in source.fields:
            one = source.select([field.name])
            one.read(Region(tuple((0, min(n, 3)) for _, n in one.space.dims)), [field.name])
        outcomes[0] += 1
    except GridError:
        outcomes[1] += 1
    assert time.monotonic() - began < 20, number
    other.unlink()
print("ended", *outcomes)
"""


@pytest.mark.parametrize("form", ["NETCDF3_CLASSIC", "NETCDF3_64BIT", "NETCDF4"])
def test_any_netcdf_file(form: Any, tmp_path: Path) -> None:
    dataset = xr.Dataset({"v": (("t", "x"), np.arange(12.0).reshape(3, 4)), "n": (("x",), np.arange(4))},
                         {"t": ("t", [0.0, 1, 2], {"units": "days since 2000-01-01"})})
    dataset.to_netcdf(tmp_path / "a.nc", format=form, unlimited_dims=["t"])
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", NETCDF, str(tmp_path / "a.nc"), "7", "150"],
                          capture_output=True, text=True, timeout=250, check=False)
    assert "ended" in done.stdout, done.stdout[-200:] + done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) > 10


# --- what gridcompute itself keeps ---


@pytest.fixture
def finished(own_folder: Path) -> Path:
    """Work of runs: shards, records of chunks, a run's record, a journal, an output with a manifest."""
    numbers = grid.from_arrays({"a": np.arange(40.0), "b": np.arange(40) % 3}, dims="x")
    for output in (numbers.sort("a"), numbers.write("t.parquet"), numbers.write("z.zarr")):
        grid.run(output, executor="inline", quiet=True)
    return own_folder


def again() -> list[Any]:
    from gridcompute.cli import main

    numbers = grid.from_arrays({"a": np.arange(40.0), "b": np.arange(40) % 3}, dims="x")
    found = grid.run(numbers.sort("a"), executor="inline", quiet=True)["a"].to_numpy().tolist()
    for name in ("t.parquet", "z.zarr"):
        with contextlib.suppress(GridError):
            grid.open_result(name)
        with contextlib.suppress(GridError):
            grid.run(numbers.write(name), executor="inline", quiet=True)
    for command in (["list"], ["report", "last"], ["status", "last"]):
        assert main(command) in (0, 1, 2, 130)
    return found


@pytest.mark.parametrize("kind", ["*.arrow", "*.record.json", "run.json", "journal.jsonl", "_manifest.json",
                                  "zarr.json"])
def test_any_bytes_in_what_is_kept(finished: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The results stay right, or the error is one of ours; and nothing but our own folders is touched."""
    files = sorted(finished.rglob(kind))
    assert files
    kept = {path: path.read_bytes() for path in files}
    before = {path.name for path in finished.iterdir()}

    @settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(data=st.data())
    def any_bytes(data: st.DataObject) -> None:
        for path, raw in kept.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            path.write_bytes(mutated(data, raw))
        began = time.monotonic()
        with contextlib.suppress(GridError):
            assert again() == list(range(40))
        assert time.monotonic() - began < 3 * SECONDS

    any_bytes()
    assert "Traceback" not in capsys.readouterr().err
    assert {path.name for path in finished.iterdir()} == before


def test_what_is_kept_is_private(finished: Path) -> None:
    """Whatever the umask says; outputs have the user's usual permissions."""
    paths = [one for top in ("state", ".gridcompute") for one in (finished / top, *(finished / top).rglob("*"))]
    assert len(paths) > 10
    assert [str(path) for path in paths if path.stat().st_mode & 0o077] == []


def test_a_run_of_a_session_is_not_made_again_from_its_record(own_folder: Path,
                                                              capsys: pytest.CaptureFixture[str]) -> None:
    from gridcompute.cli import main

    code = "import gridcompute as g; g.run(g.from_arrays({'a': [1.0]}, dims='x').sum(), executor='inline', quiet=True)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert main(["resume", "last"]) == 2
    assert "session" in capsys.readouterr().err


NESTED = b"[" * 200_000


@pytest.mark.parametrize("kind", ["*.json", "index"])
def test_what_is_kept_may_be_a_bomb_of_brackets(finished: Path, kind: str) -> None:
    files = sorted((finished / "state/runs").glob("*.json") if kind == "index" else finished.rglob(kind))
    assert files
    for path in files:
        path.chmod(0o600)
        path.write_bytes(NESTED)
    bounded(again)


@pytest.mark.parametrize("raw", [b"", NESTED, pickle.dumps({"recipe": "x"}),
                                 b'{"recipe": "../../x", "run": "", "since": 1e999}'], ids=lambda raw: repr(raw[:12]))
def test_any_lease_and_any_tombstone(finished: Path, raw: bytes) -> None:
    (finished / ".t.parquet.gridcompute-lease.json").write_bytes(raw)
    (finished / ".z.zarr.gridcompute-lease.json").write_bytes(raw)
    for shard in list(finished.rglob("*.arrow")):
        if "shards" in shard.parts:
            shard.with_name(shard.name + ".tombstone").write_bytes(raw)
    bounded(again)


def test_any_checkpoint(own_folder: Path) -> None:
    """Kept states of an `iterate` are shards: broken ones get a tombstone, and the work begins before them."""
    from gridcompute.checkpoints import Checkpoints
    from gridcompute.columns import Block, Field, Fixed
    from gridcompute.spaces import Space
    from gridcompute.store import open_store

    space = Space.of({"x": 4})
    fields = [Field("v", ("x",), np.dtype("f8"))]
    kept = Checkpoints(open_store(str(own_folder / "work")), "ab12" * 8, "0", space.whole(), fields, space)
    state = Block(space.whole(), {"v": Fixed(np.arange(4.0))}, 4)
    kept.keep(7, lambda: state)
    (path,) = (own_folder / "work").rglob("*.arrow")
    raw = path.read_bytes()

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def any_bytes(data: st.DataObject) -> None:
        for one in path.parent.iterdir():
            one.unlink()
        path.write_bytes(mutated(data, raw))
        found = None
        with contextlib.suppress(GridError):
            found = kept.latest()
        assert found is None or (found[0], found[1]["v"].values.tolist()) == (7, [0, 1, 2, 3])  # type: ignore[union-attr]

    any_bytes()


# --- no pickle at rest ---

PICKLES = {
    "apart": "a kernel's work for one cell, by a pipe from the worker that started the process",
    "codecache": "numba's compiled code, in the user's cache folder: private (0700), refused where it isn't",
    "codeloading": "the class that does so",
    "ray_nodes": "a gang's iteration, put into Ray's object store by our own driver in this run",
    "shipping": "an op's payload, put into Ray's object store by our own driver in this run",
    "testing.lives": "a job under chaos, by a pipe from the process that started this one",
    "testing.stores": "a store of a test, pickled a line before",
}
"""Modules that unpickle, and why what they unpickle is ours."""

LOADERS = {"load", "loads", "Unpickler", "PickleBuffer", "read_pickle", "allow_pickle"}
MODULES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "_pickle"}


def unpickles(tree: ast.AST) -> bool:
    """Whether a module calls anything that reads pickles, or NumPy's loading of them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in MODULES and node.attr in LOADERS:
                return True
            if node.value.id in ("np", "numpy") and node.attr == "load":
                return True
        if isinstance(node, ast.ImportFrom) and node.module in MODULES and {one.name for one in node.names} & LOADERS:
            return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Unpickler":
            return True
        if isinstance(node, ast.keyword) and node.arg in LOADERS:
            return True
    return False


def test_modules_that_unpickle_are_known() -> None:
    found = set()
    for path in ROOT.rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if unpickles(ast.parse(path.read_text(encoding="utf-8"))):
            found.add(name)
    assert found == set(PICKLES)


@pytest.mark.parametrize("text", ["import pickle\npickle.loads(b'')", "from cloudpickle import loads", "np.load('x')",
                                  "pd.read_x('x', allow_pickle=True)", "import marshal\nmarshal.loads(b'')"])
def test_reading_a_pickle_is_noticed(text: str) -> None:
    assert unpickles(ast.parse(text))
    assert not unpickles(ast.parse("import json\njson.loads('1')\npickle.dumps(1)"))


def test_a_pickle_in_the_place_of_anything_kept_is_not_read(finished: Path) -> None:
    for path in [*finished.rglob("*.arrow"), *finished.rglob("*.json"), *finished.rglob("*.jsonl"),
                 *finished.rglob("*.parquet")]:
        if path.is_file():
            path.chmod(0o600)
            path.write_bytes(pickle.dumps(Evil()))
    bounded(again)
    assert not (finished / "unpickled").exists()


def test_errors_of_shards_are_of_one_kind() -> None:
    from gridcompute.shardfile import decode

    for raw in (b"", b"ARROW1", pickle.dumps(Evil()), json.dumps({}).encode(), NESTED):
        with pytest.raises(CorruptShardError):
            decode(raw)
