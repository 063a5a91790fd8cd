"""Why chunks of a plan are hits or misses: what is committed, and what changed since the last run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gridcompute import journal
from gridcompute.actions.loads import Ingest
from gridcompute.actions.writes import Write
from gridcompute.commits import PART_REGION
from gridcompute.keys import explain_difference
from gridcompute.op import Op
from gridcompute.outputs import finished, outputs_of
from gridcompute.planning import Plan, Stage
from gridcompute.record import RunRecord, installed_versions, latest
from gridcompute.shard import done
from gridcompute.status import counted
from gridcompute.store import Store
from gridcompute.stores.local import LocalStore

Canonical = Sequence[Mapping[str, Any]]


def op_changes(before: Canonical, after: Canonical, versions: Mapping[str, str] | None = None) -> dict[str, list[str]]:
    """What changed, by op: lines such as "global SCALE changed". Ops that merely read changed ones aren't named.

    Args:
        before: a graph's canonical form, as a record keeps it.
        after: the form of the graph now.
        versions: of the distributions that were installed before.
    """
    old, new = _numbered(before), _numbered(after)
    changes: dict[str, list[str]] = {}
    for place, op in new.items():
        name = str(op["op"])
        if place not in old:
            changes.setdefault(name, []).append("is new")
        elif op["recipe"] != old[place]["recipe"]:
            lines = explain_difference(dict(old[place]["parts"]), dict(op["parts"]))
            if lines or not _below(op, after, old):
                lines = [_updated(line, versions or {}) for line in lines]
                changes.setdefault(name, []).extend(lines or ["reads other cells or columns"])
    for place, op in old.items():
        if place not in new:
            changes.setdefault(str(op["op"]), []).append("is gone")
    return changes


def _updated(line: str, before: Mapping[str, str]) -> str:
    """A line of a changed version with both versions, where they are known."""
    name = line.removeprefix("version of ").removesuffix(" changed")
    if line != f"version of {name} changed":
        return line
    old, now = before.get(name), installed_versions([name]).get(name)
    return f"{name} was updated" + (f" from {old} to {now}" if old and now and old != now else "")


def _numbered(graph: Canonical) -> dict[tuple[str, str, int], Mapping[str, Any]]:
    """Ops by name, kind and how many of these came before."""
    count: dict[tuple[str, str], int] = {}
    found = {}
    for op in graph:
        key = (str(op["op"]), str(op["action"]))
        found[(*key, count.get(key, 0))] = op
        count[key] = count.get(key, 0) + 1
    return found


def _below(op: Mapping[str, Any], graph: Canonical, old: Mapping[Any, Mapping[str, Any]]) -> bool:
    """Whether an input's recipe is one that the old graph didn't have."""
    recipes = {one["recipe"] for one in old.values()}
    return any(graph[i]["recipe"] not in recipes for i in op["inputs"])


def graph_changes(before: Canonical, after: Canonical, versions: Mapping[str, str] | None = None) -> list[str]:
    """`op_changes` as lines, "op f: code of f changed, global SCALE changed"."""
    changes = op_changes(before, after, versions)
    return [f"op {name}: {', '.join(lines)}" for name, lines in changes.items()] or ["the order of the outputs"]


def earlier(how: Mapping[str, Any], graph: Canonical, cwd: str) -> Iterator[RunRecord]:
    """Of the runs of late, those of the same workload or script, latest first; of a session, of the same outputs in the
    same folder.

    Those that ended before any work aren't among them: they hide an earlier one and can't say anything.
    """

    def same(record: RunRecord) -> bool:
        if how:
            keys = ("workload", "script", "call")
            return bool(record.how) and all(record.how.get(key) == how.get(key) for key in keys)
        return not record.how and record.cwd == cwd and _last(record.graph) == _last(graph)

    return (record for record in latest() if same(record) and _worked(record))


def _worked(record: RunRecord) -> bool:
    return record.state == "done" or any(event.get("kind") == "phase" for event in journal.read(record.journal))


def previous(runs: Sequence[RunRecord], store: Store) -> RunRecord | None:
    """The first of some runs, of those with this work store if there are any."""
    return next((record for record in runs if in_store(record, store)), runs[0] if runs else None)


def in_store(record: RunRecord, store: Store) -> bool:
    """Whether a run's work store is this one."""
    url = str(record.settings.get("store", ""))
    if isinstance(store, LocalStore) and "://" not in url:
        return os.path.realpath(url) == os.path.realpath(store.url)
    return url == store.url


def _last(graph: Canonical) -> str:
    return str(graph[-1]["op"]) if graph else ""


def committed(plan: Plan, stage: Stage, store: Store) -> int | None:
    """How many chunks of a stage are committed (one listing a kept op); None where results are held in memory."""
    if stage.held:
        return None
    outputs = outputs_of(plan)
    listings = [done(store, op.recipe) for op in stage.roots]
    whole = {root for root, op in enumerate(stage.roots) if not listings[root] and finished(op, outputs.get(op.recipe))}
    if not all(listing or root in whole for root, listing in enumerate(listings)):
        return 0
    return sum(
        all(root in whole or _present(plan, stage, root, chunk, listing) for root, listing in enumerate(listings))
        for chunk in range(stage.chunks)
    )


def _present(plan: Plan, stage: Stage, root: int, chunk: int, listing: Mapping[tuple[str, str], Any]) -> bool:
    ingest = isinstance(stage.roots[root].action, Ingest)
    region = PART_REGION if ingest else stage.layouts[root].region(chunk)
    entry = listing.get((str(region), plan.chunk_token(stage.number, root, chunk)))
    if entry is None:
        return False
    # A record beside which there is no shard says how many rows it had: enough where they are only counted.
    return entry.kind == "arrow" or not plan.final or isinstance(stage.roots[root].action, Ingest | Write)


def reason(plan: Plan, stage: Stage, ops: Sequence[Op], found: int | None, before: RunRecord | None,
           store: Store, over: bool = False) -> str:
    """One line for a stage: what is committed, and why the rest isn't; empty where there is nothing to say.

    Args:
        plan: the plan.
        stage: one of its stages.
        ops: the stage's ops, those fused into it included.
        found: what `committed` gave.
        before: the last run of the same origin.
        store: the work store that was asked.
        over: whether all that reads it is committed.
    """
    if over and found is not None and found < stage.chunks:
        return "not needed: what reads it is committed"
    if found is None or (not found and before is None):
        return ""
    told = f"{found:,} of {counted(stage.chunks, 'chunk')} committed"
    if found == stage.chunks or before is None:
        return told
    if not in_store(before, store):
        return f"{told}; {before.run} has another work store: {before.settings.get('store')}"
    changes = op_changes(before.graph, plan.graph.canonical(), before.versions)
    own = [f"{line} ({name})" for name in dict.fromkeys(str(op) for op in ops) for line in changes.get(name, [])]
    if own:
        return f"{told}; recipe changed since {before.run}: {'; '.join(own)}"
    if changes.keys() & {str(op) for root in stage.roots for op in root.walk()}:
        return f"{told}; what it reads has changed since {before.run}"
    return f"{told}; the recipe is that of {before.run}, the rest wasn't done or its input has changed"
