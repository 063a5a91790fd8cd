"""Outputs, inputs and the work store kept apart: what lies where, before anything is written.

An output that replaced one of its own inputs would be computed from what is left of it, and two outputs in one
place would each miss files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

from gridcompute.errors import OutputExistsError, ParameterError
from gridcompute.lease import Lease
from gridcompute.op import Graph
from gridcompute.sinks.bam import BamSink
from gridcompute.sinks.base import CLAIM, EXISTS_HINT, Sink, data_names
from gridcompute.sinks.tables import MANIFEST, finished_recipe
from gridcompute.sinks.zarrs import RECIPE
from gridcompute.store import Store, open_store, transient

_MARKS = frozenset({"zarr.json", ".zgroup", ".zarray", ".zmetadata", MANIFEST, CLAIM})
_ENDINGS = (".parquet", ".pq", ".arrow", ".feather")


def require_apart(graph: Graph, store: str) -> None:
    """Refuse outputs that lie in each other, in an input, around one, or in the work store's own folders.

    Args:
        graph: what is to be run.
        store: URL of the work store.

    Raises:
        ParameterError: naming both places.
    """
    outputs: dict[str, tuple[str, str]] = {}
    for _, op in graph.outputs:
        sink = getattr(op.action, "sink", None)
        if sink is None:
            continue
        place = _place(sink.url)
        if outputs.setdefault(place, (sink.url, op.recipe))[1] != op.recipe:
            raise ParameterError(f"two outputs are to be written to {sink.url}", hint="give each a place of its own")
    for place, (url, _) in outputs.items():
        for other, (there, _) in outputs.items():
            if place != other and _within(place, other):
                raise ParameterError(f"the output {url} lies in the output {there}", hint="write it beside it")
    work = _place(store)
    for place, (url, _) in outputs.items():
        if _within(work, place) or any(_within(place, f"{work}/{own}") for own in ("shards", "runs")):
            raise ParameterError(f"the output {url} lies over the work store {store}", hint="write it elsewhere")
    for url in _inputs(graph) if outputs else ():
        place = _place(url)
        for other, (there, _) in outputs.items():
            if _within(place, other) or _within(other, place):
                raise ParameterError(
                    f"the output {there} lies where the input {url} is read from",
                    hint="write elsewhere; replace the input by it afterwards",
                )


def require_replaceable(sinks: Iterable[Sink]) -> None:
    """Refuse to replace a folder that holds something else than a dataset.

    Raises:
        OutputExistsError: naming a file that is there.
    """
    for sink in sinks:
        names = list(_store(sink).list())
        strange = [name for name in names if not name.endswith(_ENDINGS)]
        if strange and not _MARKS.intersection(names):
            raise OutputExistsError(
                f"{sink.url} isn't a dataset that could be overwritten: it holds {strange[0]!r}",
                hint="remove it yourself, or write elsewhere",
            )


def require_free(sinks: Iterable[Sink]) -> None:
    """Refuse places that hold what no run of ours can have written; what one has is compared once it is planned.

    Raises:
        OutputExistsError: naming the place.
    """
    for sink in sinks:
        try:
            why = occupied(sink)
        except Exception as error:
            if transient(error):  # the driver asks again, and again
                continue
            raise
        if why:
            raise OutputExistsError(f"{sink.url} {why}", hint=EXISTS_HINT)


def occupied(sink: Sink, recipe: str | None = None) -> str:
    """What is in the way of an output, in words; empty where nothing is. Only reads.

    Args:
        sink: the output's place.
        recipe: of what is to be written there; None counts only what isn't of any recipe.
    """
    store, options = _store(sink), getattr(sink, "storage_options", {})
    held = Lease.held(sink.url, options=options)
    if held is not None and recipe is not None and held.recipe != recipe:
        return "belongs to another recipe, which hasn't finished it" + (f" (run {held.run})" if held.run else "")
    if isinstance(sink, BamSink) and (found := sink.finished) is not None:
        return "" if found and recipe in (None, found) else "exists already"
    finished = finished_recipe(store) or _zarr_recipe(store)
    if not finished and store.exists(CLAIM):
        owner = store.get(CLAIM).decode(errors="replace")
        return "holds another run's unfinished output" if recipe not in (None, owner) else ""
    if not finished and not data_names(store):
        return ""
    return "" if finished and recipe in (None, finished) else "exists already"


def _zarr_recipe(store: Store) -> str:
    try:
        return str(json.loads(store.get("zarr.json"))["attributes"].get(RECIPE, ""))
    except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError, RecursionError):
        return ""


def _store(sink: Sink) -> Store:
    options: dict[str, Any] = {} if "://" in sink.url else {"private": False}
    return open_store(sink.url, **{**options, **getattr(sink, "storage_options", {})})


def _inputs(graph: Graph) -> Iterator[str]:
    for op in graph.ops:
        source = getattr(op.action, "source", None)
        if source is not None:
            yield from _files(source)


def _files(source: Any) -> Iterator[str]:
    """Paths and URLs that a source reads; none for what is in memory."""
    for inner in getattr(source, "sources", ()):
        yield from _files(inner)
    for name in ("path", "url"):
        if isinstance(found := getattr(source, name, None), str):
            yield found
    yield from (part for part in getattr(source, "parts", ()) if isinstance(part, str))


def _place(url: str) -> str:
    text = os.fspath(url)
    if "://" in text and not text.startswith("file://"):
        return text.rstrip("/")
    return os.path.realpath(os.path.expanduser(text.removeprefix("file://")))


def _within(place: str, outer: str) -> bool:
    return place == outer or place.startswith(outer.rstrip("/") + "/")
