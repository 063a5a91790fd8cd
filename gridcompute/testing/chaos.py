"""A job beside its clean twin: the same outputs once undisturbed, once under a schedule of faults, and compared.

    import gridcompute as grid

    report = grid.chaos(out, kill_worker=0.1, corrupt=0.05, seed=7)
    assert report.equal, report.text()

Both are carried out in a temporary folder of their own: the outputs are written there, not where they were destined
for, and so is the work store. Inputs are only read.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from gridcompute.actions.writes import Write
from gridcompute.collection import Collection
from gridcompute.config import parse_bytes, state_folder
from gridcompute.destined import Destined
from gridcompute.errors import CorruptShardError, GridError, ParameterError
from gridcompute.journal import read
from gridcompute.registry import Job
from gridcompute.running import Run, graph_of
from gridcompute.status import counted
from gridcompute.store import open_store
from gridcompute.testing.compared import audit, different, results, shards
from gridcompute.testing.injecting import DriverKilled, Injected, Marks
from gridcompute.testing.lives import Life, apart, here
from gridcompute.testing.schedule import RATES, Schedule

EXECUTORS = ("ray", "inline", "simulated")

MENDINGS = 8
"""Runs that follow the job to make anew what was damaged after its commit."""


@dataclass(frozen=True)
class Cost:
    """What a job took, in all its lives, as its journals say.

    Attributes:
        seconds: of its lives, without the start of the last one's executor.
        tasks: that ended.
        chunks: that were kept.
        failures: of tasks.
    """

    seconds: float
    tasks: int
    chunks: int
    failures: int

    @classmethod
    def of(cls, store: str, seconds: float) -> Cost:
        """What all runs on a work store took."""
        events = [event for path in Path(store).glob("runs/*/journal.jsonl") for event in read(path)]
        kept = [event for event in events if event["kind"] == "kept"]
        failures = sum(event["kind"] == "failed" for event in events)
        return cls(seconds, len(kept), sum(len(event["chunks"]) for event in kept), failures)


@dataclass(frozen=True)
class Report:
    """How a job fared.

    Attributes:
        schedule: what it met.
        executor: "ray", "inline" or "simulated".
        compared: names of results and intermediate shards that were compared.
        different: those that aren't the clean twin's, or are there only once.
        unnoticed: results that were damaged after their commit and that the job itself ended with.
        mendings: runs that followed to make those anew.
        injected: the faults that were carried out.
        deaths: of the driver.
        clean, cost: what the twin and the job took.
        doubled, void, left: see `gridcompute.testing.compared.Audit`.
        failed: why the job failed; empty where it didn't.
        folder: where its files are, where they are kept.
    """

    schedule: Schedule
    executor: str
    compared: int
    different: tuple[str, ...]
    unnoticed: tuple[str, ...]
    mendings: int
    injected: tuple[Injected, ...]
    deaths: int
    clean: Cost
    cost: Cost
    doubled: tuple[str, ...] = ()
    void: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    failed: str = ""
    folder: str = ""

    @property
    def equal(self) -> bool:
        """Whether all that was asked for has the clean twin's bytes."""
        return not (self.failed or self.different or self.doubled)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"equal": self.equal, **asdict(self)}

    def text(self) -> str:
        """Lines for people."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        kinds = Counter(one.kind for one in self.injected) + Counter({"kill-driver": self.deaths})
        told = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
        yield f"injected   {told or 'nothing: raise the rates, or take another seed'}"
        for one in self.injected:
            how = f" ({one.how})" if one.how else ""
            yield f"           {one.kind}{how}: stage {one.stage} chunks, chunk {one.chunk}, attempt {one.attempt}"
        cost, clean = self.cost, self.clean
        yield (f"cost       {cost.seconds:.1f} s beside {clean.seconds:.1f} s, {counted(cost.tasks, 'task')} beside "
               f"{clean.tasks:,}, {counted(cost.chunks, 'chunk')} kept beside {clean.chunks:,}, "
               f"{counted(cost.failures, 'task')} failed")
        if self.unnoticed:
            yield (f"mended     {counted(len(self.unnoticed), 'result')} damaged after the commit, which the job "
                   f"itself ended with, by {counted(self.mendings, 'run')} after it")
        for name in (*self.doubled, *self.different):
            yield f"different  {name}"
        if self.failed:
            yield f"failed     {self.failed}"
        same = self.compared - len(self.different)
        yield f"{'equal' if self.equal else 'not equal'}{'' if not self.equal else '     '} " + (
            f"{same:,} of {counted(self.compared, 'result')} and shards have the clean twin's bytes")
        if self.folder:
            yield f"kept       {self.folder}"


def chaos(*outputs: Collection | Destined, executor: str = "ray", **options: Any) -> Report:
    """Carry out outputs beside their clean twin, under faults; see `run_chaos` for options, `Schedule` for rates.

    Raises:
        ParameterError: an option that neither has.
    """
    known = {field.name for field in fields(Schedule)}
    schedule = Schedule(**{name: options.pop(name) for name in list(options) if name in known})
    try:
        return run_chaos(outputs, schedule, executor=executor, **options)
    except TypeError as error:
        if "keyword argument" not in str(error):
            raise
        raise ParameterError(f"chaos: {error}", hint=f"rates: {', '.join(RATES)}; seed, kill_driver") from None


def run_chaos(job: Job | Sequence[Collection | Destined], schedule: Schedule, *, executor: str = "ray",
              workers: int = 0, nodes: int = 0, address: str = "", memory: int | str = 0, deadline: float = 60.0,
              limit: float = 600.0, keep: bool = False, cluster: Any = None) -> Report:
    """Carry out a job beside its clean twin.

    Args:
        job: outputs, or what a workload builds; what it would do when finished isn't done.
        schedule: the faults.
        executor: "ray"; "inline", where deaths are only pretended; or "simulated": several workers in virtual time.
        workers: cores; 0 for all.
        nodes: of an own Ray cluster on this machine; 0 for a local Ray, and for 3 where nodes are to be killed.
        address: of a Ray cluster, whose machines all see this one's temporary folder.
        memory: that a worker may take.
        deadline: seconds that a task may take.
        limit: seconds after which a life of the job counts as hanging.
        keep: keep the files; they are kept where the twins differ, too.
        cluster: a `gridcompute.testing.cluster.LocalCluster` to take instead of an own one.

    Raises:
        GridError: the clean twin fails.
        ParameterError: what the executor can't do.
    """
    outputs = tuple(job.outputs if isinstance(job, Job) else job)
    graph_of(outputs)
    nodes = nodes or (3 if schedule.kill_node and executor == "ray" and cluster is None else 0)
    if executor not in EXECUTORS:
        raise ParameterError(f"executor is {executor!r}", hint=f"one of {', '.join(EXECUTORS)}")
    if nodes and (executor != "ray" or address):
        raise ParameterError("nodes are killed on an own Ray cluster only", hint="leave out --address and --executor")
    if address and executor != "ray":
        raise ParameterError(f"an address is given, but executor is {executor!r}", hint="leave out one of both")
    folder = Path(tempfile.mkdtemp(prefix="gridcompute-chaos-"))
    options = {"store": str(folder / "job" / "work"), "deadline": deadline,
               "memory": parse_bytes(memory) if memory else None}
    kept = keep
    try:
        with _cluster(nodes) as own:
            nodes_of = cluster or own
            life = Life(moved(outputs, folder / "job" / "out"), options, executor, workers,
                        nodes_of.address if nodes_of else address, limit)
            report = _Twins(folder, life, schedule, nodes_of).report()
        kept = keep or not report.equal
        return replace(report, folder=str(folder) if kept else "")
    finally:
        for path in folder.rglob("run.json"):  # the user's list of runs has none of these
            (state_folder() / "runs" / f"{path.parent.name}.json").unlink(missing_ok=True)
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


def moved(outputs: Sequence[Collection | Destined], folder: Path) -> list[Collection | Destined]:
    """The same outputs, written below a folder."""
    found: list[Collection | Destined] = []
    for i, output in enumerate(outputs):
        if isinstance(output, Collection):
            found.append(output)
            continue
        name = output.sink.url.rstrip("/").rpartition("/")[2]
        own: dict[str, Any] = {"storage_options": {}} if hasattr(output.sink, "storage_options") else {}
        sink: Any = replace(output.sink, url=str(folder / str(i) / name), **own)  # type: ignore[type-var]
        output.used.yes = True
        found.append(Destined(replace(output.op, action=Write.of(sink, output.op.fields)), output.coords, sink, False))
    return found


class _Twins:
    """A job and its clean twin, one after the other in the same place, so that even names are the same."""

    def __init__(self, folder: Path, life: Life, schedule: Schedule, cluster: Any) -> None:
        self.folder, self.life, self.schedule = folder, life, schedule
        self.store = str(life.options["store"])
        self.marks = Marks(str(folder / "marks"))
        self.nodes = _Nodes(self.marks, cluster) if cluster is not None else None
        self.deaths, self.mendings, self.seconds = 0, 0, 0.0
        self.unnoticed: tuple[str, ...] = ()

    def report(self) -> Report:
        """Both, and how they compare."""
        executor = "inline" if self.life.executor == "simulated" else self.life.executor
        clean = results(self._lived(replace(self.life, executor=executor)), self.life.outputs)
        clean_cost, expected = Cost.of(self.store, self.seconds), shards(open_store(self.store))
        (self.folder / "job").rename(self.folder / "clean")
        Path(self.marks.folder).mkdir()
        found, failed, self.seconds = dict[str, str](), "", 0.0
        try:
            found = self._disturbed(clean, clean_cost.chunks)
        except GridError as error:
            failed = f"{type(error).__name__}: {error.message}"
        finally:
            if self.nodes is not None:
                self.nodes.wait()
        between = shards(open_store(self.store))
        both = {*expected} & {*between}
        wrong = () if failed else different(clean, found, {*clean, *found}) + different(expected, between, both)
        seen = audit(open_store(self.store), self.folder / "job")
        return Report(self.schedule, self.life.executor, len({*clean, *found}) + len(both), wrong, self.unnoticed,
                      self.mendings, tuple(self.marks.all()), self.deaths, clean_cost,
                      Cost.of(self.store, self.seconds), seen.doubled, seen.void, seen.left, failed)

    def _lived(self, life: Life) -> Run:
        began = time.monotonic()
        try:
            run = here(life)
            self.seconds -= run.summary()["executor_seconds"]
            return run
        finally:
            self.seconds += time.monotonic() - began

    def _disturbed(self, clean: Mapping[str, str], chunks: int) -> dict[str, str]:
        """The job with all its faults, then runs without any until its results verify: what they hold."""
        tend = self.nodes.tend if self.nodes is not None else None
        life = replace(self.life, schedule=self.schedule, marks=self.marks, tend=tend)
        for number, after in enumerate(self.schedule.deaths(chunks)):
            self.deaths += self._died(replace(life, dies_after=after, number=number))
        run = self._lived(replace(life, number=self.schedule.kill_driver))
        found: dict[str, str] = {}
        with contextlib.suppress(CorruptShardError):
            found = results(run, self.life.outputs)
        # Which chunks of an output are whole the job itself doesn't look at: a run that goes on with it does.
        if found == clean:
            return found
        self.unnoticed = different(clean, found, clean) if found else ("a result that can't be read",)
        for _ in range(MENDINGS):
            run = self._lived(replace(self.life, options={**self.life.options, "verify_outputs": True}))
            self.mendings += 1
            try:
                return results(run, self.life.outputs)
            except CorruptShardError:
                continue
        return found

    def _died(self, life: Life) -> bool:
        if life.executor == "ray":
            began = time.monotonic()
            died = apart(replace(life, tend=None), life.tend or (lambda: None))
            self.seconds += time.monotonic() - began
            return died
        try:
            self._lived(life)
        except DriverKilled:
            return True
        return False


class _Nodes:
    """Kills the nodes whose workers say that it is their turn, and puts others in their place."""

    def __init__(self, marks: Marks, cluster: Any) -> None:
        self.marks, self.cluster = marks, cluster
        self._done: set[str] = set()
        self._threads: list[threading.Thread] = []
        self._failure: BaseException | None = None

    def tend(self) -> None:
        """Look for marks."""
        for one in self.marks.all():
            if one.kind == "kill-node" and one.how and one.how not in self._done:
                self._done.add(one.how)
                self._threads.append(threading.Thread(target=self._replace, args=(one.how,), daemon=True))
                self._threads[-1].start()

    def wait(self) -> None:
        """Until all are there again.

        Raises:
            TimeoutError: one didn't come up.
        """
        for thread in self._threads:
            thread.join()
        if self._failure is not None:
            raise self._failure

    def _replace(self, name: str) -> None:
        try:
            for node in list(self.cluster.nodes):
                if node.name == name:
                    self.cluster.kill_node(node.number)
                    self.cluster.add_node()
        except BaseException as error:
            self._failure = error


@contextlib.contextmanager
def _cluster(nodes: int) -> Iterator[Any]:
    if not nodes:
        yield None
        return
    import sys

    from gridcompute.testing.cluster import LocalCluster

    with LocalCluster(nodes=nodes) as cluster:
        try:
            yield cluster
        finally:
            sys.modules["ray"].shutdown()
