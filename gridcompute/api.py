"""What a script calls: open data, plan, run, start, resume."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gridcompute import datasets, reducing
from gridcompute.actions.loads import Ingest, Load
from gridcompute.collection import Collection
from gridcompute.config import Settings, available_cores
from gridcompute.destined import Destined
from gridcompute.errors import EmptyGridError, ParameterError
from gridcompute.executor import Executor
from gridcompute.explain import Planned
from gridcompute.kernels import Kernel
from gridcompute.onerror import skipping
from gridcompute.op import Graph, Op
from gridcompute.origins import Origin, PlannedInstead, ReachedRun, current
from gridcompute.places import require_apart
from gridcompute.planning import Plan
from gridcompute.progress import watcher
from gridcompute.running import Run, graph_of, memory_of
from gridcompute.secrecy import redacted
from gridcompute.sources.files import plain_path
from gridcompute.spaces import Space
from gridcompute.status import Watch
from gridcompute.store import open_store

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def space(**lengths: int) -> Collection:
    """An index space without columns: `grid.space(path=10**9)`; kernels see its cells by `cell` and `rng`.

    Raises:
        ParameterError: a length that isn't a whole number.
        EmptyGridError: a length of 0, or no dimension.
    """
    from gridcompute.sources.index import IndexSource

    for name, length in lengths.items():
        if not isinstance(length, int) or isinstance(length, bool) or length < 0:
            raise ParameterError(f"dimension {name!r} has the length {length!r}", hint="lengths are whole numbers")
    if not lengths or 0 in lengths.values():
        raise EmptyGridError(f"the space {Space.of(lengths)} has no cells", hint="give each dimension a length above 0")
    return from_source(IndexSource(Space.of(lengths)))


def from_source(source: Any) -> Collection:
    """The columns of a source (see `gridcompute.sources`), each read only where it is used.

    Raises:
        EmptyGridError: a source of known length without cells.
    """
    if hasattr(source, "blocks"):
        dims = Space(((source.dim, None),))
        return Collection.of(Op(Ingest(source), (), (), dims, source.fields, f"ingest {_short(source.parts)}"))
    if source.space.cells == 0:
        raise EmptyGridError(f"{source} has no cells: {source.space}", hint="check the file or the selection")
    if not source.fields:
        op = Op(Load(source), (), (), source.space, (), "space")
        return Collection.of(op, source.coords)
    columns = {}
    for field in source.fields:
        one = source.select([field.name])
        columns[field.name] = (Op(Load(one), (), (), one.space, one.fields, field.name), field.name)
    return Collection(columns, [*source.coords, *getattr(source, "auxiliary", ())])


def _short(parts: tuple[str, ...]) -> str:
    first = redacted(parts[0]).rsplit("/", 1)[-1]
    return first if len(parts) == 1 else f"{first} and {len(parts) - 1} more"


def open_dataset(paths: Any, *, dim: str | None = None, **options: Any) -> Collection:
    """The variables of anything xarray reads (netCDF, GRIB, Zarr, a URL, an open Dataset), lazily.

    Args:
        paths: one path or URL, a glob, a list, or an xarray Dataset or DataArray (see `from_xarray`).
        dim: dimension along which several files follow each other, where it isn't plain.
        options: `engine`, `group` within the file, `targets` to which reference files may lead, `storage_options`.

    Raises:
        MissingInputError, CorruptInputError: a file isn't there, or isn't a dataset.
        AlignmentError: several files that don't fit together.
    """
    from gridcompute.sources import xarrays

    if datasets.is_xarray(paths):
        return datasets.from_xarray(paths)
    return from_source(xarrays.open_dataset(paths, dim=dim, **options))


def from_xarray(data: Any) -> Collection:
    """The variables of an xarray Dataset or DataArray, lazily, with coordinates, bounds, calendars and attributes.

    What xarray has opened from a file and not changed is read from there by our own reader; what else it has not
    loaded yet, chunk by chunk in the workers as it would itself; what is in memory is taken as it is. Values are
    those that xarray shows: scale, offset and fill values are applied, gaps are NaN.

    Raises:
        ParameterError: a variable or coordinate that has no place in a collection, by name.
        EmptyGridError: no variable, or one without cells.
    """
    return datasets.from_xarray(data)


def _texts(paths: Paths) -> str | list[str]:
    if isinstance(paths, str | os.PathLike):
        return os.fspath(paths)
    if not isinstance(paths, Iterable) or isinstance(paths, bytes | Mapping):
        raise ParameterError(f"paths are {paths!r:.60}", hint="give a path or URL, or a list of them")
    return [plain_path(path) for path in paths]


def open_zarr(url: Any, *, group: str = "", **options: Any) -> Collection:
    """The arrays of a Zarr group (v2 or v3), lazily; only the chunks that are needed are read.

    Args:
        url: path or URL of the store.
        group: within it, such as "forecast/surface".
        options: `storage_options`.
    """
    from gridcompute.sources import xarrays, zarrs

    place = xarrays.within(plain_path(url), group) if group else url
    return from_source(zarrs.open_zarr(place, **options))


def open_table(paths: Paths, **options: Any) -> Collection:
    """The columns of Parquet, Arrow IPC or CSV files, lazily."""
    from gridcompute.sources import tables

    return from_source(tables.open_table(_texts(paths), **options))


def open_sequences(paths: Paths, **options: Any) -> Collection:
    """The reads of FASTA or FASTQ files (plain or gzip): columns name, sequence and, for FASTQ, quality."""
    from gridcompute.sources import fastx

    return from_source(fastx.open_sequences(_texts(paths), **options))


def from_arrays(arrays: Mapping[str, Any], dims: Any = None, **options: Any) -> Collection:
    """Columns from arrays in memory; their contents enter the names of shards.

    Args:
        arrays: by column name: NumPy arrays, masked arrays, Arrow arrays, or lists of strings or arrays.
        dims: names of the dimensions, of all or by column.
        options: `coords`.
    """
    from gridcompute.sources import arrays as source

    return from_source(source.from_arrays(arrays, dims, **options))


def map(kernel: Kernel, *collections: Collection, **options: Any) -> Collection:
    """A kernel over several collections, aligned by dimension and coordinate; see `Collection.map`."""
    if not collections:
        raise ParameterError("map needs a collection or a space", hint="grid.space(n=...) has cells without columns")
    return collections[0].map(kernel, *collections[1:], **options)


def concat(collections: Sequence[Collection], dim: str) -> Collection:
    """Collections with the same columns one after the other along a dimension.

    Raises:
        AlignmentError: columns, dtypes or other dimensions differ.
    """
    if not collections:
        raise ParameterError("concat needs at least one collection")
    op = reducing.concat_ops([c.op for c in collections], dim)
    joined = reducing.concat_coords([c.coords for c in collections], dim)
    others = reducing.merged_coords([Collection(c.columns, [x for x in c.coords if x.dim != dim]) for c in collections])
    return Collection.of(op, [*joined, *others])


def plan(*outputs: Collection | Destined, memory: int | str | None = None, workers: int = 0, store: str | None = None,
         store_options: Mapping[str, Any] | None = None, on_error: str | None = None) -> Planned:
    """What a run would do: cells, tasks, bytes, peak memory, time, and what is committed already; nothing is computed.

    Raises:
        MemoryBoundError: it can't fit, with the numbers.
    """
    graph = graph_of(outputs)  # first, as in `_made`
    settings = Settings.of(memory=memory, workers=workers, store=store, store_options=store_options, on_error=on_error)
    require_apart(graph, settings.store)
    graph = skipping(graph) if settings.on_error == "skip" else graph
    return _planned(outputs, graph, settings)


def _planned(outputs: Sequence[Collection | Destined], graph: Graph, settings: Settings) -> Planned:
    count = settings.workers or available_cores()
    work = open_store(settings.store, **settings.store_options)
    overwrite = [one.sink.url for one in outputs if isinstance(one, Destined) and one.overwrite]
    return Planned(Plan(graph), workers=count, memory=memory_of(settings, count), store=work, how=current().upcoming,
                   overwrite=overwrite)


def start(
    *outputs: Collection | Destined,
    watch: Watch | None = None,
    executor: Executor | str | None = None,
    how: Mapping[str, Any] | None = None,
    name: str = "",
    **options: Any,
) -> Run:
    """Begin a run and come back at once; wait for it, look at its status, or cancel it.

    Args:
        outputs: collections to compute or, where they were given a place, to write.
        watch: called with the status after each event.
        executor: "ray", "inline", or an executor of your own.
        how: how the graph can be made again, for `resume`; else it is known for scripts and workloads.
        name: of the run.
        options: `store`, `workers`, `address`, `memory`, `deadline`, `on_error`, `quiet`; see
            `gridcompute.config.Settings`.
    """
    return _made(outputs, watch, executor, how, name, options).start()


def run(
    *outputs: Collection | Destined,
    watch: Watch | None = None,
    executor: Executor | str | None = None,
    how: Mapping[str, Any] | None = None,
    name: str = "",
    **options: Any,
) -> Run:
    """Run to the end, with a progress bar in a terminal; arguments as in `start`.

    Returns:
        The finished run: `run["column"].to_xarray()` and the like.

    Raises:
        GridError: why it failed; `InterruptedRunError` where it was cancelled.
        KeyboardInterrupt: after Ctrl-C. What was committed stays: run it again to go on.
    """
    made = _made(outputs, watch, executor, how, name, options)
    if watch is not None:
        return made.block()
    with watcher(quiet=made._settings.quiet) as show:
        made._watch = show
        return made.block()


def _made(
    outputs: tuple[Collection | Destined, ...],
    watch: Watch | None,
    executor: Executor | str | None,
    how: Mapping[str, Any] | None,
    name: str,
    options: dict[str, Any],
) -> Run:
    _require_kinds(watch, executor, how, name)
    named = executor if isinstance(executor, str) else None
    graph = graph_of(outputs)  # first: an output whose run is refused needs no warning that it was forgotten
    settings = Settings.of(executor=named, **options)
    require_apart(graph, settings.store)
    graph = skipping(graph) if settings.on_error == "skip" else graph
    if settings.verify_inputs:
        os.environ["GRIDCOMPUTE_VERIFY_INPUTS"] = "1"
    origin = current() if how is None else Origin(dict(how))
    if current().stops == current().calls:
        raise ReachedRun(graph, settings)
    if current().plans:
        raise PlannedInstead(_planned(outputs, graph, settings))
    record = origin.record(graph, settings, name)
    own = None if executor is None or isinstance(executor, str) else executor
    made = Run(outputs, graph, settings, record, executor=own, watch=watch, says_end=not origin.reports)
    origin.runs.append(made)
    return made


def _require_kinds(watch: Any, executor: Any, how: Any, name: Any) -> None:
    """Refuse arguments of other types than `start` says, before a record is made."""
    for what, value, fits, hint in (
        ("watch", watch, watch is None or callable(watch), "a function of a status"),
        ("executor", executor, executor is None or isinstance(executor, str) or hasattr(executor, "submit"),
         "ray, inline, or an executor of your own"),
        ("how", how, how is None or isinstance(how, Mapping), "a mapping that says how the graph can be made again"),
        ("name", name, isinstance(name, str), "a text"),
    ):  # fmt: skip
        if not fits:
            raise ParameterError(f"{what} is {value!r:.100}", hint=hint)
