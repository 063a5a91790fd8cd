"""What is kept of a run: a record that says how to make its graph again, and where its journal is.

A record lies with the journal in `<work folder>/runs/<run>/run.json` (0600); the user's state directory has an index of
all, so that a run can be named from anywhere. Neither holds secrets: options of stores aren't written.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

from gridcompute.config import WORK, Settings, private_folders, state_folder
from gridcompute.errors import RecordError, StoreError
from gridcompute.op import Graph
from gridcompute.secrecy import redacted_values
from gridcompute.sources.files import shown

FORMAT = 1

RECENT = 100
"""Runs among which an earlier one of the same is looked for: an index may hold thousands."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,100}")
_NAME_CHARACTERS = 64  # of a run's name before its date: a hundred columns make no name for a folder
_STATES = ("running", "done", "failed", "interrupted")
_NUMBERS = (int, float)
_TYPES: dict[str, Any] = {
    "run": str, "key": str, "graph": list, "how": dict, "settings": dict, "outputs": list, "folder": str, "cwd": str,
    "created": _NUMBERS, "state": str, "pid": int, "summary": dict, "versions": dict, "pid_since": _NUMBERS,
    "resumed": _NUMBERS,
}  # fmt: skip
_FIGURES = ("seconds", "executor_seconds", "compile_seconds", "task_seconds", "workers", "computed", "reused", "tasks",
            "rows", "nbytes", "retries", "skipped", "peak_bytes", "doubled", "compiled", "bound_bytes", "copies", "won",
            "confirmed", "same_process")  # fmt: skip
_NAMED_FIGURES = ("task_bytes", "parts")


@dataclass(frozen=True)
class RunRecord:
    """A run as it is kept.

    Attributes:
        run: its name.
        key: of its graph.
        graph: the graph's canonical form.
        how: how to make the graph again: {"workload", "parameters"} or {"script", "arguments"}; {} for a session.
        settings: those of `KEPT`.
        outputs: URLs of what is written.
        folder: the record's folder.
        cwd: folder the run was started in.
        created: seconds since 1970.
        state: "running", "done", "failed" or "interrupted"; what was last written, which a killed driver can't update.
        pid: the driver's process.
        pid_since: when that process began, as numbers of processes are used again.
        resumed: seconds since 1970, 0 for a run that wasn't resumed.
        summary: figures of the finished run.
        versions: of what was computed with.
    """

    run: str
    key: str
    graph: list[dict[str, Any]]
    how: dict[str, Any]
    settings: dict[str, Any]
    outputs: list[str]
    folder: str
    cwd: str
    created: float
    state: str = "running"
    pid: int = 0
    summary: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    pid_since: float = 0.0
    resumed: float = 0.0

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return Path(self.folder) / "journal.jsonl"

    def save(self) -> None:
        """Write the record and its line in the index.

        Raises:
            StoreError: the folder can't be written.
        """
        folder, index = Path(self.folder), state_folder() / "runs"
        try:
            private_folders(folder.parent.parent, folder.parent, folder, index.parent, index)
            _write(folder / "run.json", {"format": FORMAT, **redacted_values(asdict(self))}, ROOM)
            _write(index / f"{self.run}.json", {"format": FORMAT, "folder": self.folder})
        except OSError as error:
            raise StoreError(f"the run's record can't be written to {_at(error, folder, index)}: {error.strerror}",
                             hint="choose another work store with --store, or set GRIDCOMPUTE_STATE") from error

    def ended(self, state: str, summary: Mapping[str, Any]) -> RunRecord:
        """The record of the run's end."""
        return replace(self, state=state, summary=dict(summary))

    def finished(self, files: Iterable[str], lines: Iterable[str]) -> RunRecord:
        """The record with what the run's workload wrote besides (pictures and the like) and said at its end."""
        return replace(self, summary={**self.summary, "files": list(files), "lines": list(lines)})

    @property
    def alive(self) -> bool:
        """Whether the driver still runs on this machine."""
        if self.state != "running" or not self.pid:
            return False
        import psutil

        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.pid_since) < 1
            return bool(same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True

    @property
    def standing(self) -> str:
        """The state, corrected for a driver that died without writing it."""
        return "interrupted" if self.state == "running" and not self.alive else self.state


def _at(error: OSError, folder: Path, index: Path) -> Path:
    """Which of a record's two places an error is about."""
    return index if str(error.filename).startswith(str(index.parent)) else folder


ROOM = 2**14
"""Blanks behind a record fill it up to a multiple of this: on a full disk its end is written into their place."""


def _write(path: Path, values: Mapping[str, Any], room: int = 1) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    text = json.dumps(values, indent=1, default=str).encode()
    text += b" " * (-len(text) % room)
    try:
        fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(fd, "wb") as file:
            _synced(file, text)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno != errno.ENOSPC or not path.is_file() or path.stat().st_size != len(text):
            raise
        with path.open("r+b") as file:
            _synced(file, text)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _synced(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


KEPT = ("store", "executor", "workers", "address", "certs", "memory", "deadline", "on_error", "keep_intermediates",
        "verify", "verify_tolerance", "quorum")
"""Settings that a resumed run has too."""


def new_record(graph: Graph, settings: Settings, how: Mapping[str, Any], name: str = "") -> RunRecord:
    """A record for a run that begins now."""
    base = re.sub(r"[^a-z0-9]+", "-", (name or "run").lower()).strip("-") or "run"
    base = base[:_NAME_CHARACTERS].rstrip("-")
    run = f"{base}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"
    local = settings.store if "://" not in settings.store else WORK
    outputs = [str(op.action.sink.url) for _, op in graph.outputs if hasattr(op.action, "sink")]
    kept = {name: getattr(settings, name) for name in KEPT}
    kept["certs"] = str(Path(settings.certs).expanduser().absolute()) if settings.certs else ""
    there = Path(settings.store).expanduser().absolute()
    kept["store"] = shown(settings.store) if "://" in settings.store else str(there)
    pid, since = driver_process()
    folder = str(Path(local).absolute() / "runs" / run)
    known = redacted_values(graph.canonical()), redacted_values(how)
    return RunRecord(run, graph.key, *known, kept, redacted_values(outputs), folder, os.getcwd(),
                     time.time(), pid=pid, pid_since=since, versions=versions(graph))


def driver_process() -> tuple[int, float]:
    """This process's number, and when it began."""
    import psutil

    return os.getpid(), psutil.Process().create_time()


def versions(graph: Graph) -> dict[str, str]:
    """Versions of what results depend on: of Python, ours and our libraries', and of those that kernels call."""
    called = {part.removeprefix("version of ") for op in graph.canonical() for part in op["parts"]
              if part.startswith("version of ")}
    names = sorted({"gridcompute", "numba", "numpy", "pyarrow", "ray", *called})
    return {"python": platform.python_version(), **installed_versions(names)}


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of distributions, of those that are installed."""
    found = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def load(run: str) -> RunRecord:
    """A run's record, by its name, the beginning of its name, its folder, or "last".

    Raises:
        RecordError: there is none, several fit, it is broken, or a newer version wrote it.
    """
    if not run:  # such as a shell's variable that isn't set: every name begins with it
        raise RecordError("no run is named", hint="gridcompute list shows the runs")
    path = os.path.join(run, "run.json")
    if os.path.isfile(path):  # unlike Path's, also of names that no file can have
        return _read(Path(path))
    names = known()
    if run == "last" and (found := records()):  # those whose folder is still there
        return found[-1]
    fits = [name for name in names if name == run] or [name for name in names if name.startswith(run)]
    if len(fits) == 1 and _NAME.fullmatch(fits[0]):
        return _read_indexed(fits[0])
    if len(fits) > 1:
        raise RecordError(f"several runs begin with {run!r}: {', '.join(fits[:5])}", hint="give more of the name")
    raise RecordError(f"no run {run!r:.100}", hint="gridcompute list shows the runs")


def known() -> list[str]:
    """Names of all indexed runs."""
    index = state_folder() / "runs"
    return sorted(path.stem for path in index.glob("*.json") if not path.name.startswith("."))


def records() -> list[RunRecord]:
    """Records of all indexed runs that can still be read, oldest first."""
    found = []
    for name in known():
        with contextlib.suppress(RecordError):
            found.append(_read_indexed(name))
    return sorted(found, key=lambda record: record.created)


def latest(most: int = RECENT) -> Iterator[RunRecord]:
    """Records of the runs that were indexed last, latest first; read one by one."""
    index = state_folder() / "runs"
    with contextlib.suppress(FileNotFoundError), os.scandir(index) as entries:
        found = [(entry.stat().st_mtime_ns, entry.name) for entry in entries
                 if entry.name.endswith(".json") and not entry.name.startswith(".")]
        for _, name in sorted(found, reverse=True)[:most]:
            with contextlib.suppress(RecordError):
                yield _read_indexed(name.removesuffix(".json"))


def forget(record: RunRecord) -> None:
    """Take a run out of the index."""
    (state_folder() / "runs" / f"{record.run}.json").unlink(missing_ok=True)


def _read_indexed(name: str) -> RunRecord:
    values = _json(state_folder() / "runs" / f"{name}.json")
    return _read(Path(str(values.get("folder", ""))) / "run.json")


def _read(path: Path) -> RunRecord:
    values = _json(path)
    made = values.pop("format", None)
    if isinstance(made, int) and made > FORMAT:
        raise RecordError(f"the record {path} has format {made}, this version knows {FORMAT}",
                          hint="update gridcompute")
    try:
        _check(values)
        # What a record says of its own place isn't believed: saving it would write wherever it names.
        return replace(RunRecord(**values), folder=str(path.parent.absolute()))
    except TypeError as error:
        raise RecordError(f"the record {path} is broken: {error}",
                          hint="run it again; what was committed counts") from None


def _check(values: Mapping[str, Any]) -> None:
    """Refuse values of other types than a record's (TypeError), as what is shown and signalled relies on them."""
    for name, value in values.items():
        if name in _TYPES and (not isinstance(value, _TYPES[name]) or isinstance(value, bool)):
            raise TypeError(f"{name} is a {type(value).__name__}")
    times = [values.get(name, 0) for name in ("created", "pid_since", "resumed")]
    figures = [values.get("summary", {}).get(name, 0) for name in _FIGURES]
    if not all(isinstance(one, _NUMBERS) and abs(one) < 1e18 for one in (*times, *figures)):
        raise TypeError("a figure isn't a number")
    named = [values.get("summary", {}).get(name, {}) for name in _NAMED_FIGURES]
    if not all(isinstance(one, dict) and all(isinstance(figure, int) and 0 <= figure < 2**62 for figure in one.values())
               for one in named):
        raise TypeError("a figure isn't a number")
    if not (_NAME.fullmatch(values.get("run", "")) and values.get("state", "running") in _STATES):
        raise TypeError("its name or state isn't one")
    if values.get("pid", 0) < 0 or not all(isinstance(one, str) for one in values.get("outputs", ())):
        raise TypeError("a field has another type than it should")
    _check_graph(values)
    settings, texts = values.get("settings", {}), ("store", "executor", "address", "certs", "on_error")
    if not all(isinstance(settings.get(name, ""), str) for name in texts):
        raise TypeError("a setting has another type than it should")


def _check_graph(values: Mapping[str, Any]) -> None:
    """Refuse (TypeError) a graph that can't be compared, and a way to make it that can't be gone."""
    graph = values.get("graph", [])
    texts = {"op": str, "action": str, "recipe": str, "space": str, "inputs": list, "parts": dict}
    if not all(isinstance(op, dict) and all(isinstance(op.get(name), kind) for name, kind in texts.items())
               and all(type(i) is int and 0 <= i < len(graph) for i in op["inputs"]) for op in graph):
        raise TypeError("its graph isn't one")
    for name, kind in {"workload": str, "parameters": dict, "script": str, "arguments": list, "call": int}.items():
        if not isinstance(values.get("how", {}).get(name, kind()), kind):
            raise TypeError(f"{name} has another type than it should")


def _json(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file() and path.exists():
            raise OSError("it isn't a file")
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise RecordError(f"no record {path}",
                          hint="its folder was removed or moved; gridcompute clean tidies the index") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"the record {path} can't be read: {error}",
                          hint="run it again; what was committed counts") from None
    if not isinstance(values, dict):
        raise RecordError(f"the record {path} is broken", hint="run it again; what was committed counts")
    return values
