"""What is measured as whole processes: start-up, and a driver's memory."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peering import ROOT, PeerError, Peers
from benchmarks.rows import OURS, Reference, Row, Session, check, interleaved
from benchmarks.running import new_store

PEER_RUNS = {
    "dask": "import dask.array as da\n"
            "assert int(da.arange(1000, chunks=4).map_blocks(lambda x: x).sum().compute()) == 499500",
    "ray": "import ray\nray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level='ERROR')\n"
           "f = ray.remote(lambda i: i)\nassert sum(ray.get([f.remote(i) for i in range(10)])) == 45",
}  # fmt: skip
PEER_IMPORTS = {"dask": "import dask.array", "xarray": "import xarray", "ray": "import ray"}


def process(*arguments: str, cache: Path | None = None) -> tuple[float, str]:
    """Seconds of a whole Python process, and the last line that it printed.

    Raises:
        PeerError: it failed, with the end of what it said.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if cache is not None:
        environment["GRIDCOMPUTE_CACHE"] = str(cache)
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise PeerError(f"python {' '.join(arguments)[:80]} failed: {done.stderr.strip()[-500:]}")
    return seconds, done.stdout.strip().rpartition("\n")[2]


def child(case: str, *arguments: str, cache: Path | None = None) -> dict[str, Any]:
    """What a program of `benchmarks.child` found out, with the seconds of its whole process."""
    seconds, line = process("-m", "benchmarks.child", case, *arguments, cache=cache)
    found: dict[str, Any] = {**json.loads(line), "process": seconds}
    check(found["right"], f"the process {case} {' '.join(arguments)}")
    return found


class _FirstRuns:
    """First runs in processes of their own; keeps the parts that each reported."""

    def __init__(self, executor: str, cache: Path, *, cold: bool = False) -> None:
        self.executor, self.cache, self.cold = executor, cache, cold
        self.parts: list[dict[str, float]] = []

    def __call__(self) -> float:
        if self.cold:
            shutil.rmtree(self.cache, ignore_errors=True)
        with new_store() as url:
            self.parts.append(child("run", self.executor, url, cache=self.cache))
        return self.parts[-1]["process"]

    def part(self, name: str, repeat: int) -> list[float]:
        """A part of the last runs."""
        return [found[name] for found in self.parts[-repeat:]]


def startup(session: Session, peers: Peers) -> Iterator[Row]:
    """Seconds of whole processes that have little to do."""
    repeat, more, cache = session.pick(1, 5, 9), session.mode != "quick", Path(session.folder) / "startup-cache"

    def whole(code: str) -> Callable[[], float]:
        return lambda: process("-c", code)[0]

    imports = {name: whole(code) for name, code in PEER_IMPORTS.items() if peers.wanted(name)}
    systems = {OURS: whole("import gridcompute"), "python": whole("pass"), **imports}
    yield Row("startup/import", "s", interleaved(systems, repeat, warm=more),
              note="A whole process that imports the package; python: that does nothing; peers: that imports theirs.")
    if importlib.util.find_spec("gridcompute.__main__") is not None:
        command = partial(process, "-m", "gridcompute", "--help")
        yield Row("startup/help", "s", interleaved({OURS: lambda: command()[0]}, repeat), note="`gridcompute --help`.")
    # The cold run, always the first of a round, fills the cache that the other one uses.
    cold, warm = _FirstRuns("inline", cache, cold=True), _FirstRuns("inline", cache)
    dask = {"dask": whole(PEER_RUNS["dask"])} if peers.wanted("dask") else {}
    raw = interleaved({"cold": cold, OURS: warm, **dask}, repeat, warm=more)
    yield Row("startup/first-run", "s", {name: values for name, values in raw.items() if name != "cold"},
              note="A process that imports, runs the empty kernel over 1,000 cells inline (256 chunks, each a shard "
              "with two fsyncs), and ends; its compiled code is in the cache. dask: the same with map_blocks, "
              "nothing stored.")
    yield Row("startup/first-run-cold", "s", {OURS: raw["cold"]}, note="The same with an empty cache of compiled code.")
    yield Row("startup/compile", "s", {OURS: cold.part("compile", repeat)}, note="The part of it that is compilation.")
    yield Row("startup/load-code", "s", {OURS: warm.part("compile", repeat)},
              note="The part of the warm run that loads that code from the cache.")
    yield from _first_tasks(session, cache)
    few = session.pick(1, 3, 5)
    on_ray = _FirstRuns("ray", cache)
    plain = {"ray": whole(PEER_RUNS["ray"])} if peers.wanted("ray") else {}
    raw = interleaved({OURS: on_ray, **plain}, few, warm=more)
    yield Row("startup/ray-first-run", "s", raw,
              note="The same on a local Ray of two workers, which the process starts and stops. ray: a process that "
              "starts Ray with its defaults, runs ten plain tasks, and ends.")
    yield Row("startup/ray-session", "s", {OURS: on_ray.part("session", few)}, note="The part of it that starts Ray.")


def _first_tasks(session: Session, cache: Path) -> Iterator[Row]:
    """What compiled code adds to the first task of a new worker."""
    found: dict[str, list[dict[str, Any]]] = {"kernel": [], "task": []}

    def measure(kind: str) -> float:
        with new_store() as url:
            found[kind].append(child("first", kind, url, cache=cache))
        return found[kind][-1]["wall"] * 1000

    repeat = session.pick(1, 5, 9)
    measure("kernel")  # fills the cache; an empty worker has nothing to be warmed by
    raw = interleaved({OURS: partial(measure, "kernel"), "empty worker": partial(measure, "task")}, repeat, warm=False)
    pairs = list(zip(found["kernel"][-repeat:], found["task"][-repeat:], strict=True))
    check(not any(kernel["compiled"] for kernel, _ in pairs), "a warm cache compiles nothing")
    yield Row("startup/first-task", "ms", raw,
              note="The first task of a new Ray worker, from its order to its answer: a kernel whose compiled code is "
              "in the cache. empty worker: the same as a task in NumPy, with nothing to compile or load.")
    busy = "The same in processor time, which a busy machine disturbs less."
    for unit, clock, what in (("ms", "wall", "The difference."), ("ms of CPU", "cpu", busy)):
        yield Row(f"startup/first-task-more/{clock}", unit, {OURS: [1000 * (k[clock] - t[clock]) for k, t in pairs]},
                  target=Reference(50.0, "under 50 ms over an empty worker's"), note=what)


def memory(session: Session, peers: Peers) -> Iterator[Row]:
    """MiB of a driver."""
    del peers
    cache = Path(session.folder) / "memory-cache"
    sizes = session.pick((1000,), (1000, 10_000, 100_000), (1000, 10_000, 100_000))
    for chunks in sizes:
        repeat = 1 if chunks == max(sizes) else session.pick(1, 3, 3)
        found = []
        for _ in range(repeat):
            with new_store() as url:
                found.append(child("driver", str(chunks), url, cache=cache))
        yield _grown(f"memory/driver/1e{len(str(chunks)) - 1}", found, "ran",
                     f"Resident memory of a driver after it planned and ran {chunks:,} chunks inline.", chunks)
    cells = 10**9
    found = [child("plan", str(cells), cache=cache) for _ in range(session.pick(1, 3, 3))]
    yield _grown("memory/plan/1e9", found, "planned", f"The same after planning a map and a sum over {cells:,} cells.")


def _grown(name: str, found: list[dict[str, Any]], key: str, what: str, chunks: int = 0) -> Row:
    growth = [one[key] - one["before"] for one in found]
    most = max(growth)
    each = f", {most / chunks:,.0f} bytes a chunk" if chunks else ""
    return Row(name, "MiB", {OURS: [one[key] / 2**20 for one in found]},
               note=f"{what} Of that {max(0, most) / 2**20:.1f} MiB more than before{each}.")
