"""Outputs, inputs and the work store kept apart: what lies where, before anything is written.

An output that replaced one of its own inputs would be computed from what is left of it, and two outputs in one
place would each miss files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from gridcompute.errors import OutputExistsError, ParameterError
from gridcompute.op import Graph
from gridcompute.sinks.base import CLAIM, Sink
from gridcompute.sinks.tables import MANIFEST
from gridcompute.store import open_store

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
        options: dict[str, Any] = {} if "://" in sink.url else {"private": False}
        names = list(open_store(sink.url, **{**options, **getattr(sink, "storage_options", {})}).list())
        strange = [name for name in names if not name.endswith(_ENDINGS)]
        if strange and not _MARKS.intersection(names):
            raise OutputExistsError(
                f"{sink.url} isn't a dataset that could be overwritten: it holds {strange[0]!r}",
                hint="remove it yourself, or write elsewhere",
            )


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
