"""Leases: an output belongs to one recipe until it is finished or given up.

The lease is a small JSON file beside the output, hidden (`.trend.zarr.gridcompute-lease.json`). Not inside it:
Zarr would report a foreign object in the store, and an output may be a single file. Readers of Parquet folders
pass over hidden names. Only for the top of a store, which has no beside, it lies within.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gridcompute.errors import LeaseError
from gridcompute.store import LocalStore, Store, open_store, split_url

_NAME = "gridcompute-lease.json"
_FORMAT = 1


@dataclass(frozen=True)
class Lease:
    """A recipe's hold on an output.

    Attributes:
        output: the output's URL.
        recipe: who may write there.
        run: the run that took it first, for messages.
        since: when it was taken, seconds since 1970.
    """

    output: str
    recipe: str
    run: str = ""
    since: float = 0.0
    _options: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False, compare=False)

    @classmethod
    def acquire(cls, output: str | os.PathLike[str], recipe: str, *, run: str = "", now: float = 0.0,
                options: Mapping[str, Any] | None = None) -> Lease:
        """Take an output for a recipe, or join it if the same recipe holds it.

        Args:
            output: URL or path of the output.
            recipe: key of what is written there.
            run: name of the run, for the messages of others.
            now: seconds since 1970.
            options: of the output's store.

        Raises:
            LeaseError: another recipe holds it, or what is there can't be read.
            StoreError: nothing can be written there.
        """
        store, name = _place(output, options or {})
        where = os.fspath(output)
        text = json.dumps({"format": _FORMAT, "recipe": recipe, "run": run, "since": now}).encode()
        for _ in range(8):  # a lease may be released between our two steps
            if store.put_new(name, text):
                return cls(where, recipe, run, now, dict(options or {}))
            try:
                held = _parse(store.get(name), where, f"{store.url}/{name}")
            except FileNotFoundError:
                continue
            if held["recipe"] != recipe:
                by = f" (run {held['run']})" if held["run"] else ""
                raise LeaseError(
                    f"the output {where} belongs to another recipe, {held['recipe'][:16]}, which hasn't finished it"
                    f"{by}",
                    hint="resume that run, write elsewhere, or replace it by write(..., overwrite=True)")
            return cls(where, recipe, held["run"], held["since"], dict(options or {}))
        raise LeaseError(f"the lease of the output {where} comes and goes", hint="try again")

    @classmethod
    def held(cls, output: str | os.PathLike[str], *, options: Mapping[str, Any] | None = None) -> Lease | None:
        """The lease on an output, or None. Raises LeaseError if what is there can't be read."""
        store, name = _place(output, options or {})
        try:
            found = _parse(store.get(name), os.fspath(output), f"{store.url}/{name}")
        except FileNotFoundError:
            return None
        return cls(os.fspath(output), found["recipe"], found["run"], found["since"], dict(options or {}))

    def release(self) -> None:
        """Give the output up; fine if it was already, and without effect if another recipe has taken it since.

        Runs of the same recipe that still write lose the lease with this one. They write the same bytes, and another
        recipe that comes now finds the finished output there.
        """
        now = Lease.held(self.output, options=self._options)
        if now is not None and now.recipe == self.recipe:
            store, name = _place(self.output, self._options)
            store.delete(name)


def _place(output: str | os.PathLike[str], options: Mapping[str, Any]) -> tuple[Store, str]:
    parent, name = split_url(output)
    if not name:
        parent, name = os.fspath(output), ""
    store = open_store(parent, **options)
    if isinstance(store, LocalStore):
        store = LocalStore(store.root, private=False)  # others may read the folder: they should see who writes
    return store, f".{name}.{_NAME}" if name else f".{_NAME}"


def _parse(raw: bytes, output: str, path: str) -> dict[str, Any]:
    try:
        held = json.loads(raw)
        recipe, run, since = held["recipe"], held["run"], held["since"]
        if not (isinstance(recipe, str) and isinstance(run, str) and isinstance(since, (int, float))):
            raise ValueError("a field has another type than it should")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise LeaseError(f"the lease of the output {output} can't be read: {str(error)[:200]}",
                         hint=f"if no run is writing there, delete {path}") from error
    return {"recipe": recipe, "run": run[:200], "since": float(since)}
