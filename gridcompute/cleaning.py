"""What can go: records of runs, and shards that no remaining run's record names. Outputs are never touched."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gridcompute import journal
from gridcompute.config import state_folder
from gridcompute.errors import RecordError
from gridcompute.record import RunRecord, forget, known, load, records
from gridcompute.store import Store, open_store
from gridcompute.stores.local import LocalStore
from gridcompute.summary import recipes

_RECORD_FILES = ("run.json", "journal.jsonl")
_SHARDS, _CLAIMS = "shards", "kept"


@dataclass(frozen=True)
class Leavings:
    """What `clean` would remove.

    Attributes:
        store: URL of the work store.
        runs: records that go.
        dangling: names in the index whose record is gone or unreadable.
        shards: names of shards in the store, with their bytes.
        record_bytes: of records and journals.
        notes: what stays that might have been expected to go, and why.
    """

    store: str
    runs: tuple[RunRecord, ...]
    dangling: tuple[str, ...]
    shards: tuple[tuple[str, int], ...]
    record_bytes: int
    notes: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes in all."""
        return self.record_bytes + sum(size for _, size in self.shards)

    def __bool__(self) -> bool:
        return bool(self.runs or self.dangling or self.shards)


def leavings(url: str, *, names: Sequence[str] = (), everything: bool = False, days: float | None = None) -> Leavings:
    """What can go from a work store.

    Args:
        url: of the store.
        names: runs whose records go.
        everything: all runs of this store that have ended.
        days: runs of this store that ended and were begun longer ago than this, also with `everything`.

    Raises:
        RecordError: a run that isn't there, isn't of this store, or still runs.
    """
    store = open_store(url)
    here = {r.run: r for r in _of_store(store)}
    alive = [r for r in here.values() if r.alive]
    chosen = {r.run: r for r in map(load, names)}
    for record in chosen.values():
        if record.run not in here:
            raise RecordError(
                f"the run {record.run} isn't of the store {store.url}", hint=f"--store {record.settings.get('store')}"
            )
        if record.alive:
            raise RecordError(f"the run {record.run} is still running", hint=f"gridcompute cancel {record.run}")
    old = time.time() - (days or 0) * 86400
    if everything or days is not None:
        chosen |= {name: r for name, r in here.items() if not r.alive and (days is None or r.created < old)}
    rest = [r for name, r in here.items() if name not in chosen]
    shards: list[tuple[str, int]] = []
    notes: list[str] = []
    if alive:
        notes.append(f"shards stay while {alive[0].run} is running")
    else:
        named = _named(rest, notes)
        if named is not None:
            there = [*store.list_sizes(_SHARDS), *store.list_sizes(_CLAIMS)]
            shards = [(name, size) for name, size in there if _recipe(name) not in named]
    if not isinstance(store, LocalStore):
        notes.append(
            "runs that others made in this store aren't known here: their shards go too, and would be computed again"
        )
    files = [path for r in chosen.values() for path in _files(r)]
    return Leavings(
        store.url,
        tuple(chosen.values()),
        tuple(_dangling()),
        tuple(shards),
        sum(p.stat().st_size for p in files),
        tuple(notes),
    )


def clean(found: Leavings) -> None:
    """Remove it: records last, so that an interrupted clean can be repeated."""
    store = open_store(found.store)
    for name, _ in found.shards:
        store.delete(name)
    if isinstance(store, LocalStore):
        _tidy(Path(store.root) / _SHARDS)
    for record in found.runs:
        for path in _files(record):
            path.unlink(missing_ok=True)
        for folder in (Path(record.folder), Path(record.folder).parent):
            with contextlib.suppress(OSError):
                folder.rmdir()
        forget(record)
    for name in found.dangling:
        (state_folder() / "runs" / f"{name}.json").unlink(missing_ok=True)


def _of_store(store: Store) -> Iterable[RunRecord]:
    """Records of runs in a store: those of the index, and those that lie beside a local store's shards."""
    found = {r.run: r for r in records() if open_store(str(r.settings.get("store", "."))).url == store.url}
    if isinstance(store, LocalStore):
        for path in sorted(Path(store.root).glob("runs/*/run.json")):
            with contextlib.suppress(RecordError):
                record = load(str(path.parent))
                found.setdefault(record.run, record)
    return found.values()


def _named(rest: Iterable[RunRecord], notes: list[str]) -> set[str] | None:
    """Recipes that the remaining runs name; None where one doesn't say."""
    named: set[str] = set()
    for record in rest:
        own = recipes(record)
        if own is None and (journal.read(record.journal) or not record.journal.exists()) and record.state != "failed":
            notes.append(f"shards stay: the journal of {record.run} doesn't say which are its own")
            return None
        named |= own or set()
    return named


def _recipe(name: str) -> str:
    parts = name.split("/")
    if parts[0] == _CLAIMS:
        return parts[-1]
    return parts[2] if len(parts) > 3 else ""


def _files(record: RunRecord) -> list[Path]:
    return [path for name in _RECORD_FILES if (path := Path(record.folder) / name).is_file()]


def _dangling() -> list[str]:
    found = []
    for name in known():
        try:
            folder = json.loads((state_folder() / "runs" / f"{name}.json").read_text())["folder"]
            if not (Path(folder) / "run.json").exists():
                found.append(name)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            found.append(name)
    return found


def _tidy(folder: Path) -> None:
    """Remove the folders that were left empty."""
    if folder.is_dir():
        for path in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
            with contextlib.suppress(OSError):
                path.rmdir()
