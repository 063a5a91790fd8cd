"""What a lost worker and a dead driver cost: one map job on several systems, `climate.trend` under fire, and resume.

    worker      one of two workers is killed in mid-run
    driver      the driver is killed in mid-run, and the same job is started again
    trend       climate.trend while one of its two workers is killed every five seconds
    resume      whole commands that find 10,000 shards committed
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import recovery_commands, recovery_jobs
from benchmarks.peering import ROOT, PeerError, Peers, interpreter
from benchmarks.rows import OURS, Reference, Row, Session, WrongResultError

SYSTEMS = (OURS, "distributed", "ray", "parsl")

DEADLINES = (60.0, 600.0, 600.0)
"""Seconds after which a job is taken for hung, and ended, by mode."""

value = functools.lru_cache(maxsize=None)(recovery_jobs.value)
"""As the jobs compute it; what is looked for in all of their results is computed once."""

AT_WORK = 1.0
"""A process that ended no task for so many seconds more than others isn't at work."""

USED = {
    OURS: "grid.map of a task over 2,000 chunks, with no settings.",
    "distributed": "client.submit on a LocalCluster, whose tasks may lose three workers; each task writes its file.",
    "ray": "Ray Data: read_parquet, map, write_parquet, with a CheckpointConfig.",
    "parsl": "cached apps of a high-throughput executor with checkpoints at each task's end, and its default of no "
             "retries; each task writes its file.",
}


@dataclass
class Job:
    """One job of one system in a folder of its own.

    Attributes:
        system: whose.
        folder: of logs, results and whatever the system keeps.
        tasks: how many.
        iterations: of each.
        deadline: seconds after which it is taken for hung.
        seconds: that all its processes took, until it was killed and after.
        ended: whether its last process ended well.
    """

    system: str
    folder: Path
    tasks: int
    iterations: int
    deadline: float = DEADLINES[1]
    seconds: float = 0.0
    ended: bool = True
    said: str = ""
    _began: float = field(default=0.0, repr=False)

    def __post_init__(self) -> None:
        for name in ("log", "out", "input"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        if self.system == "ray":
            import pyarrow as pa
            import pyarrow.parquet as pq

            for task in range(self.tasks):
                pq.write_table(pa.table({"id": [task]}), self.folder / "input" / f"{task:05}.parquet")

    def start(self) -> subprocess.Popen[str]:
        """Begin it, or begin it once more."""
        python = sys.executable if self.system == OURS else interpreter(self.system)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        command = [str(python), "-m", "benchmarks.recovery_jobs", self.system, str(self.folder), str(self.tasks),
                   str(self.iterations)]
        self._began = time.perf_counter()
        with (self.folder / "said").open("w") as said:
            return subprocess.Popen(command, cwd=self.folder, env=environment, text=True, stdout=said, stderr=said,
                                    start_new_session=True)

    def finish(self, process: subprocess.Popen[str]) -> None:
        """Wait for its end; one that doesn't come is brought about."""
        try:
            self.ended = process.wait(self.deadline) == 0
        except subprocess.TimeoutExpired:
            self.ended, family = False, _family(process)
            process.kill()
            process.wait()
            _end(family)
        self.seconds += time.perf_counter() - self._began
        self.said = (self.folder / "said").read_text()[-2000:]

    def kill(self, process: subprocess.Popen[str]) -> None:
        """End its driver at once, as a machine's end or `kill -9` does, then all that belonged to it."""
        family = _family(process)
        process.kill()
        process.wait()
        self.seconds += time.perf_counter() - self._began
        _end(family)

    def await_tasks(self, process: subprocess.Popen[str], share: float) -> None:
        """Wait until that share of the tasks is done.

        Raises:
            WrongResultError: the job ends before.
        """
        while len(self.done()) < share * self.tasks:
            if process.poll() is not None or time.perf_counter() > self._began + self.deadline:
                raise WrongResultError(f"{self.system} ended early: {(self.folder / 'said').read_text()[-2000:]}")
            time.sleep(0.02)

    def kill_worker(self) -> None:
        """End a process in the midst of a task: of those at work, the one whose last task has ended longest ago."""
        ends = sorted((path.stat().st_mtime, int(path.name)) for path in (self.folder / "log").iterdir())
        for at, pid in ends:
            if at > ends[-1][0] - AT_WORK:
                os.kill(pid, signal.SIGKILL)
                return

    def done(self) -> Counter[int]:
        """How often each task was done."""
        lines = (line for path in (self.folder / "log").iterdir() for line in path.read_text().splitlines())
        return Counter(int(line) for line in lines)

    @property
    def again(self) -> int:
        """Tasks done more than once, as often as they were."""
        return sum(self.done().values()) - len(self.done())

    @property
    def lost(self) -> int:
        """Results that are missing, wrong or there twice."""
        found: Counter[int] = Counter()
        wrong = 0
        if self.system == "ray":
            import pyarrow.parquet as pq

            for path in self.folder.glob("parquet/**/*.parquet"):
                for row in pq.read_table(path).to_pylist():
                    found[row["id"]] += 1
                    wrong += row["x"] != value(row["id"], self.iterations)
        for path in (self.folder / "out").iterdir():
            if path.name.isdigit():
                found[int(path.name)] += 1
                wrong += path.read_text() != str(value(int(path.name), self.iterations))
        return self.tasks - len(found) + sum(found.values()) - len(found) + wrong


def _family(process: subprocess.Popen[str]) -> list[Any]:
    """All processes that one has started, or they in turn."""
    import psutil

    try:
        return list(psutil.Process(process.pid).children(recursive=True))
    except psutil.Error:
        return []


def _end(family: list[Any]) -> None:
    """End what a job has left running."""
    import psutil

    for one in family:
        with contextlib.suppress(psutil.Error):
            one.kill()


def _undisturbed(job: Job) -> None:
    job.finish(job.start())


def _worker_lost(job: Job) -> None:
    process = job.start()
    job.await_tasks(process, 0.4)
    job.kill_worker()
    job.finish(process)


def _driver_lost(job: Job) -> None:
    process = job.start()
    job.await_tasks(process, 0.4)
    job.kill(process)
    job.finish(job.start())


def _iterations(seconds: float) -> int:
    """Steps of the work that take about so long here."""
    recovery_jobs.value(1, 10)
    began = time.perf_counter()
    recovery_jobs.value(1, 10**6)
    return int(seconds * 10**6 / (time.perf_counter() - began))


class _Jobs:
    """Jobs of all systems; undisturbed ones are done once."""

    def __init__(self, session: Session, peers: Peers) -> None:
        self.session = session
        self.systems = [name for name in SYSTEMS if name == OURS or peers.wanted(name)]
        self.tasks = session.pick(100, 2000, 2000)
        self.iterations = _iterations(0.03)
        self._number = 0
        self._clean: dict[str, Job] = {}

    def job(self, system: str, scenario: Callable[[Job], None]) -> Job:
        self._number += 1
        folder = Path(self.session.folder) / f"{system}-{self._number}"
        job = Job(system, folder, self.tasks, self.iterations, self.session.pick(*DEADLINES))
        scenario(job)
        return job

    def clean(self, system: str) -> Job:
        """The undisturbed run.

        Raises:
            PeerError: it fails, so that there is nothing to compare with.
        """
        if system not in self._clean:
            job = self._clean[system] = self.job(system, _undisturbed)
            if not job.ended or job.lost or job.again:
                raise PeerError(f"{system} fails undisturbed ({job.lost} lost, {job.again} again): {job.said[-500:]}")
        return self._clean[system]

    def rows(self, name: str, scenario: Callable[[Job], None], what: str) -> Iterator[Row]:
        """A scenario on all systems."""
        jobs = {system: self.job(system, scenario) for system in self.systems}
        used = " ".join(f"{system}: {USED[system]}" for system in jobs if system != OURS)
        yield Row(f"{name}/finished", "jobs", {s: [float(j.ended and not j.lost)] for s, j in jobs.items()}, more=True,
                  target=Reference(1.0, "the job finishes, with all results"),
                  note=f"{what} {self.tasks:,} tasks of 30 ms. 1: it ended well, with each result once. {used}")
        yield Row(f"{name}/again", "tasks", {s: [float(j.again)] for s, j in jobs.items()},
                  note="Tasks that were done more than once.")
        yield Row(f"{name}/lost", "results", {s: [float(j.lost)] for s, j in jobs.items()},
                  target=Reference(0.0, "nothing is lost"), note="Results that are missing, wrong or there twice.")
        yield Row(f"{name}/time", "times", {s: [j.seconds / self.clean(s).seconds] for s, j in jobs.items()},
                  note="Seconds of all its processes over those of an undisturbed run of the same system.")


SECTIONS = ("worker", "driver", "trend", "resume")


def rows(session: Session, peers: Peers) -> Iterator[Row]:
    """All sections."""
    with recovery_commands.own_folders(Path(session.folder)):
        jobs = _Jobs(session, peers)
        for name in SECTIONS:
            # Within a minute there is no time for all of it.
            if (session.only and name not in session.only) or (session.mode == "quick" and not session.only
                                                                and name in ("driver", "trend")):
                continue
            session.begin(name)
            if name == "worker":
                yield Row("clean/time", "s", {system: [jobs.clean(system).seconds] for system in jobs.systems},
                          note="The undisturbed job, its whole process.")
                yield from jobs.rows("worker", _worker_lost, "One of two workers is killed at 40 % of")
            elif name == "driver":
                yield from jobs.rows("driver", _driver_lost, "The driver is killed at 40 % of, and started again:")
            elif name == "trend":
                yield from recovery_commands.trend(session)
            else:
                yield from recovery_commands.resume(session)
