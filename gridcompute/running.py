"""A run: live while it goes on, then the way to its results."""

from __future__ import annotations

import contextlib
import copy
import re
import shutil
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from gridcompute.ballots import Rule
from gridcompute.collection import Collection
from gridcompute.config import Settings, available_cores, available_memory, parse_quorum
from gridcompute.destined import Destined
from gridcompute.driver import Driver
from gridcompute.errors import (
    GridError,
    InterruptedRunError,
    KernelError,
    OutputExistsError,
    ParameterError,
    RunError,
)
from gridcompute.executor import Executor, InlineExecutor
from gridcompute.identified import identified
from gridcompute.interrupts import interrupted, interruptible
from gridcompute.journal import Journal
from gridcompute.op import Graph
from gridcompute.places import require_free, require_replaceable
from gridcompute.record import RunRecord, forget
from gridcompute.results import Result
from gridcompute.skips import Tally, in_words
from gridcompute.status import Status, Watch, counted
from gridcompute.store import open_store
from gridcompute.stored import StoredSource

if TYPE_CHECKING:
    import pyarrow as pa


def graph_of(outputs: Sequence[Collection | Destined]) -> Graph:
    """The graph of several outputs; each is known by the name of what it writes, or by its place.

    Raises:
        ParameterError: nothing to compute, or something else than a collection.
    """
    if not outputs:
        raise ParameterError("nothing to run", hint="pass at least one collection")
    coords = []
    for i, output in enumerate(outputs):
        if not isinstance(output, Collection | Destined):
            raise ParameterError(
                f"run takes collections, not {type(output).__name__}", hint="map a kernel over a collection first"
            )
        if isinstance(output, Destined):
            output.used.yes = True
        coords.append((str(i), output.coords))
    ops = identified([output.op for output in outputs])
    return Graph(tuple((str(i), op) for i, op in enumerate(ops)), tuple(coords))


def executor_of(settings: Settings) -> Executor:
    """The executor that settings ask for."""
    if settings.executor == "inline":
        return InlineExecutor(threads=settings.threads)
    from gridcompute.ray_executor import RayExecutor

    workers = settings.workers if settings.address else settings.workers or available_cores()
    return RayExecutor(
        workers=workers, threads=settings.threads, address=settings.address, dashboard=settings.dashboard,
        certs=settings.certs, allow_open=settings.allow_open,
    )


def memory_of(settings: Settings, workers: int) -> int:
    """Bytes that a worker may take: as said, else its share of what is free here (a cluster's nodes aren't asked)."""
    if settings.memory or settings.address:
        return settings.memory
    return available_memory() // max(1, workers)


REPLAY = "gridcompute replay"

MOST_LISTED = 100
"""Skipped cells that a run's record keeps."""


def rule_asked(settings: Settings) -> Rule:
    """Which chunks are computed more than once."""
    quorum = parse_quorum(settings.quorum) if settings.quorum else None
    return Rule(settings.verify, quorum, tolerance=settings.verify_tolerance)


@dataclass(frozen=True)
class _Ended:
    results: Mapping[str, StoredSource]


class Run:
    """One run of a graph.

    Attributes:
        record: name, folder, settings.
        status: where it stands.
    """

    def __init__(self, outputs: Sequence[Collection | Destined], graph: Graph, settings: Settings, record: RunRecord, *,
                 executor: Executor | None = None, watch: Watch | None = None, says_end: bool = True) -> None:
        self.record, self._outputs, self._graph, self._settings = record, list(outputs), graph, settings
        self._executor, self._watch, self._says_end = executor, watch, says_end
        self._driver: Driver | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._ended: _Ended | None = None
        self._cancel = threading.Event()
        self._executed: dict[str, Any] = {"executor": settings.executor, "workers": 0, "executor_seconds": 0.0}
        self.status = Status()

    @property
    def name(self) -> str:
        """The run's name, for `resume` and the command line."""
        return self.record.run

    @property
    def state(self) -> str:
        """"running", "done", "failed" or "interrupted"."""
        if self._ended is not None:
            return "done"
        if self._error is not None:
            return "interrupted" if isinstance(self._error, InterruptedRunError | KeyboardInterrupt) else "failed"
        return "running"

    def __repr__(self) -> str:
        done, total = sum(self.status.done.values()), sum(self.status.total.values())
        return f"<Run {self.name} {self.state}, {done} of {counted(total, 'chunk')}>"

    def _go(self) -> None:
        settings = self._settings
        try:
            self.record.save()
            store = open_store(settings.store, **settings.store_options)
            store.probe()
            with Journal.open(self.record.journal) as journal:
                journal.append("begun", run=self.name, key=self.record.key)
                owned = self._executor is None
                executor = self._executor or executor_of(settings)
                try:
                    replaced = [o.sink for o in self._outputs if isinstance(o, Destined) and o.overwrite]
                    require_replaceable(replaced)
                    require_free([o.sink for o in self._outputs if isinstance(o, Destined) and not o.overwrite])
                    overwrite = frozenset(sink.url for sink in replaced)
                    self._driver = Driver(self._graph, store, executor, journal, run=self.name, overwrite=overwrite,
                                          memory=memory_of(settings, executor.workers), deadline=settings.deadline,
                                          rule=rule_asked(settings), watch=self._seen,
                                          keep_intermediates=settings.keep_intermediates,
                                          verify_outputs=settings.verify_outputs)
                    self._driver.cancelled = self._cancel
                    self.status = self._driver.status
                    self._ended = _Ended(dict(self._driver.run()))
                finally:
                    self._executed = {"executor": executor.name, "workers": executor.workers,
                                      "executor_seconds": executor.start_seconds}
                    if owned:
                        executor.close()
        except BaseException as error:
            self._error = error
            if isinstance(error, InterruptedRunError):
                error.hint = self.going_on
            elif isinstance(error, GridError):
                error.hint = self._replayed(error)
            if not isinstance(error, GridError | KeyboardInterrupt):
                self._error = RunError(f"the run failed within gridcompute: {type(error).__name__}: {error}",
                                       hint="please report this with the traceback")
                self._error.__cause__ = error
        finally:
            self.record = self.record.ended(self.state, self.summary())
            with contextlib.suppress(GridError):
                self.record.save()
            if isinstance(self._error, OutputExistsError) and self._says_end and not (
                    self.record.resumed or self.status.computed):
                forget(self.record)  # it never began: nothing to go on with
                shutil.rmtree(self.record.folder, ignore_errors=True)

    def _seen(self, status: Status) -> None:
        if self._watch is not None:
            self._watch(status)

    def start(self) -> Run:
        """Begin in a thread of its own."""
        self._thread = threading.Thread(target=self._go, name=f"gridcompute {self.name}", daemon=True)
        self._thread.start()
        return self

    def block(self) -> Run:
        """Carry out here; the first Ctrl-C asks the run to stop, a second one ends it at once.

        Raises:
            GridError: why it failed; InterruptedRunError where something else than Ctrl-C stopped it.
            KeyboardInterrupt: after Ctrl-C, also where the run came to its end before it could stop: whoever pressed
                it wants no more to happen.
        """
        with interruptible(self._cancel) as heard:
            self._go()
        if signal.SIGINT in heard and self.state != "failed":
            ended = f"interrupted; {self.going_on}" if self.state == "interrupted" else f"{self.name} was done by then"
            raise interrupted(ended if self._says_end else "") from None
        return self._checked()

    def _replayed(self, error: GridError) -> str:
        """An error's hint with the command that runs its cell alone, where that can make the run again."""
        if self.record.how and isinstance(error, KernelError) and error.cell is not None and error.dims:
            cell = in_words(error.dims, error.cell, error.block)
            return (f"{REPLAY} {self.name} {cell} runs it alone, with --pdb in a debugger; on_error=\"skip\" "
                    "leaves such cells out")
        if self.record.how:
            return error.hint.replace(f"{REPLAY} RUN", f"{REPLAY} {self.name}")
        return re.sub(rf"{REPLAY} RUN (\S+)", rf'grid.replay("{self.name}", "\1")', error.hint)

    @property
    def going_on(self) -> str:
        """How an interrupted run is gone on with."""
        if not self.record.how:
            return "run it again to go on: what was committed counts"
        return f"gridcompute resume {self.name} goes on with it"

    def wait(self, timeout: float | None = None) -> Run:
        """Wait for the end, or for so many seconds.

        Raises:
            GridError: why the run failed or was interrupted.
            TimeoutError: it still runs.
        """
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                raise TimeoutError(f"run {self.name} still runs after {timeout} s")
        return self._checked()

    def _checked(self) -> Run:
        if self._error is not None:
            raise self._error
        return self

    def cancel(self) -> None:
        """Ask the run to stop: running tasks get 5 s; what was committed stays."""
        self._cancel.set()

    def __getitem__(self, name: str | int) -> Result:
        """A result: an output by its place, or a column by its name.

        Raises:
            ParameterError: nothing of that name, or several.
            RunError: the run isn't done.
        """
        if self._ended is None:
            raise RunError(f"run {self.name} is {self.state}: it has no results yet", hint="run.wait() waits for them")
        places = range(len(self._outputs))
        fits = [i for i in places if i == name or (isinstance(name, str) and name in self._outputs[i].columns)]
        if len(fits) != 1:
            columns = [c for o in self._outputs for c in o.columns]
            raise ParameterError(f"{'no' if not fits else 'more than one'} result {name!r}",
                                 hint=f"outputs 0 to {len(self._outputs) - 1}, with the columns {', '.join(columns)}")
        output = self._outputs[fits[0]]
        source = self._ended.results.get(str(fits[0]))
        url = output.sink.url if isinstance(output, Destined) else ""
        names = [name] if isinstance(name, str) else list(output.columns)
        return Result(names, source, output.coords, url)

    def part(self, first: int, last: int) -> Run:
        """This run as if the outputs from `first` to before `last` were all that it has."""
        one, places = copy.copy(self), range(len(self._outputs))[first:last]
        one._outputs = [self._outputs[i] for i in places]
        if self._ended is not None:
            results = self._ended.results
            one._ended = _Ended({str(i - first): results[str(i)] for i in places if str(i) in results})
        return one

    def summary(self) -> dict[str, Any]:
        """Figures of the run as plain values."""
        values = {**asdict(self.status), **self._executed}
        values["state"] = self.state
        values["seconds"] = max(0.0, self.status.ended - self.status.started)
        values["error"] = "" if self._error is None else str(self._error)
        values["skipped_cells"] = list(islice(self._tally.told(), MOST_LISTED))
        return values

    @property
    def skipped(self) -> pa.Table:
        """The cells that were skipped (`on_error="skip"`), also for chunks that an earlier run computed.

        A table of text: op, cell (as `replay` takes it), kind (a class of failure, "user" where the kernel raised) and
        error. Of a chunk the first 1,000 are listed; `status.skipped` counts all.
        """
        return self._tally.table()

    @property
    def _tally(self) -> Tally:
        return Tally() if self._driver is None else self._driver.tally

    @property
    def error(self) -> BaseException | None:
        """Why it failed or was interrupted."""
        return self._error
