"""Outputs of a run: taken before any work starts, finished when all is done, given back where nothing was begun."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Protocol

from gridcompute.errors import CorruptShardError
from gridcompute.journal import Journal
from gridcompute.lease import Lease
from gridcompute.ledger import Ledger
from gridcompute.outputs import outputs_of, sink_of
from gridcompute.planning import Plan, Stage
from gridcompute.shard import tombstone
from gridcompute.sinks.bam import BamSink
from gridcompute.sinks.base import Output, Sink, Written
from gridcompute.store import Store, open_store
from gridcompute.stored import StoredSource


class Again(Protocol):
    """Does a step, again while its failure is one that passes."""

    def __call__(self, step: Callable[[], Any], /) -> Any: ...  # noqa: D102


class Deliveries:
    """Outputs by the recipe of what is written.

    Args:
        run: name of the run, for leases.
        overwrite: URLs of outputs that replace what lies there.
        again: how steps against a store are done.
        reach: makes sure that there will be workers, before anything is removed.
        drawn: which chunks' files are read again before an output appears, by the names of their records.

    Attributes:
        outputs: prepared.
    """

    def __init__(self, run: str, overwrite: frozenset[str], again: Again, reach: Callable[[], None],
                 drawn: Callable[[str], bool] = lambda name: False) -> None:
        self.outputs: dict[str, Output] = {}
        self._run, self._overwrite, self._again, self._reach = run, overwrite, again, reach
        self._drawn = drawn
        self._leases: dict[str, Lease] = {}

    def prepare(self, plan: Plan) -> None:
        """Take the outputs before any work starts; nothing is written yet."""
        sinks = {op.recipe: sink_of(op) for _, op in plan.sinks}
        for key, output in outputs_of(plan).items():
            sink, target = sinks[key], output.target
            options = getattr(sink, "storage_options", {})
            if sink.url in self._overwrite:
                self._again(partial(self._clear, sink, target.recipe))
            lease = self._again(partial(Lease.acquire, sink.url, target.recipe, run=self._run, now=time.time(),
                                        options=options))
            try:
                self.outputs[key] = self._again(
                    partial(sink.prepare, target.space, target.fields, target.coords, target.extents, target.recipe)
                )
            except BaseException:
                with contextlib.suppress(Exception):  # why it couldn't be prepared is what matters
                    lease.release()
                raise
            self._leases[key] = lease

    def leave(self, running: Iterable[Stage] = ()) -> None:
        """Nothing was begun, or a kernel failed, and other work may well take this one's place: give back the outputs
        that this run has taken and that hold nothing yet, but for those that a running task may write to still.
        """
        busy = {op.recipe for stage in running for op in stage.roots}
        for key, lease in self._leases.items():
            with contextlib.suppress(Exception):  # why it ended is what matters
                if lease.run == self._run and key not in busy and self.outputs[key].give_up():
                    lease.release()

    def _clear(self, sink: Sink, recipe: str) -> None:
        """Remove what another recipe left at an output that may be overwritten."""
        options = getattr(sink, "storage_options", {})
        held = Lease.held(sink.url, options=options)
        if held is not None and held.recipe == recipe:
            return
        if held is not None:
            held.release()
        if files := _present(sink):
            self._reach()
        for store, name in files:
            store.delete(name)

    def deliver(self, plan: Plan, ledger: Ledger, journal: Journal) -> Mapping[str, StoredSource]:
        """Metadata last, so that a dataset appears at once; then the leases go.

        Raises:
            CorruptShardError: a file that was read again isn't what was written; its chunk is void by then.

        Returns:
            The kept chunks of each output that isn't written by a sink.
        """
        results: dict[str, StoredSource] = {}
        for name, op in plan.lowered.outputs.items():
            if op.recipe not in self.outputs:
                results[name] = self._again(partial(ledger.stored, op))
            elif op.recipe not in ledger.finished:
                number, root = plan.home[id(op)]
                output, written = self.outputs[op.recipe], list[Written]()
                for chunk in range(plan.stages[number].chunks):
                    kept = ledger.pages[number][root].kept(chunk)
                    files = [Written(path, size, digested, rows) for path, rows, digested, size in kept.blocks]
                    if self._drawn(kept.place):
                        self._again(partial(_read_again, output, files, kept.place, ledger.store))
                    written += files
                self._again(partial(output.finalize, written))
                journal.append("finalized", output=output.url)
        for lease in self._leases.values():
            self._again(lease.release)
        return results


def _present(sink: Sink) -> list[tuple[Store, str]]:
    """What lies at an output's place: the files of a folder, or what a sink of single files says."""
    if isinstance(sink, BamSink):
        return sink.present()
    options = getattr(sink, "storage_options", {})
    store = open_store(sink.url, **({} if "://" in sink.url else {"private": False}), **options)
    return [(store, name) for name in store.list()]


def _read_again(output: Output, files: list[Written], record: str, store: Store) -> None:
    for one in files:
        if not output.verify(one):
            tombstone(store, record, f"{one.path} isn't what was written")
            raise CorruptShardError(f"{output.url}: {one.path} isn't what was written", path=record,
                                    hint="it is written again; if this recurs, check the disk")
