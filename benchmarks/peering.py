"""Peers in processes of their own: asked one measurement at a time, so that ours and theirs take turns.

A peer runs under this interpreter where it is installed, else under that of `.venv-peers` (`make peers`).
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.rows import Session

ROOT = Path(__file__).resolve().parents[1]
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"

MODULES = {"cubed": "cubed", "dask": "dask.array", "distributed": "distributed", "eofs": "eofs", "flox": "flox",
           "joblib": "joblib", "numba": "numba", "parasail": "parasail", "parsl": "parsl",
           "pymannkendall": "pymannkendall", "pyopal": "pyopal", "pywfa": "pywfa", "ray": "ray",
           "ray_dask": "ray.util.dask", "xarray": "xarray", "xclim": "xclim"}  # fmt: skip
"""Peers, with the module that shows whether one is installed."""

PROGRAMS = {"mpi": "mpicc", "cdo": "cdo", "bwa": "bwa", "minimap2": "minimap2"}
"""Peers that aren't Python's, with the command that shows whether one is installed."""

LIBRARIES = {"edlib": "edlib.h", "wfa2": "wfa2lib/wavefront/wavefront_align.h"}
"""Peers that are C libraries of the system's packages, with the header that shows whether one is installed."""


class PeerError(Exception):
    """A peer or section that there isn't, or a peer that failed."""


def known_peers() -> tuple[str, ...]:
    """Names that `--peers` takes."""
    return tuple(sorted([*MODULES, *PROGRAMS, *LIBRARIES]))


@lru_cache
def interpreter(peer: str) -> str | None:
    """The Python that has a peer (or the command of a program, or the compiler for a library), or None."""
    if peer in PROGRAMS:
        return shutil.which(PROGRAMS[peer])
    if peer in LIBRARIES:
        return shutil.which("gcc") if (Path("/usr/include") / LIBRARIES[peer]).exists() else None
    if importlib.util.find_spec(MODULES[peer].partition(".")[0]) is not None:
        return sys.executable
    if PEERS_PYTHON.exists():
        found = subprocess.run([PEERS_PYTHON, "-c", f"import {MODULES[peer]}"], capture_output=True, check=False)
        if found.returncode == 0:
            return str(PEERS_PYTHON)
    return None


def end(process: subprocess.Popen[str]) -> None:
    """Close what a process reads from, and wait until it has ended."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


class PeerProcess:
    """One peer that waits for questions; started at the first."""

    def __init__(self, name: str, python: str, folder: str) -> None:
        self.name, self.python, self.folder = name, python, folder
        self.versions: dict[str, str] = {}
        self._process: subprocess.Popen[str] | None = None

    def ask(self, case: str, **arguments: Any) -> tuple[float, Any]:
        """Seconds of one measurement, and what it gave.

        Raises:
            PeerError: the peer failed, with what it said.
        """
        if self._process is None:
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
            command = [self.python, "-m", "benchmarks.peers", self.name]
            self._process = subprocess.Popen(command, cwd=self.folder, env=environment, text=True,
                                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({"case": case, **arguments}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise PeerError(f"the peer {self.name} ended in the case {case!r} (its last words are above)")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(f"the peer {self.name} failed in the case {case!r}: {answer['error']}")
        self.versions.update(answer["versions"])
        return float(answer["seconds"]), answer["value"]

    def close(self) -> None:
        """Let it end."""
        if self._process is not None:
            end(self._process)
            self._process = None


def _how(name: str) -> str:
    """How to install a peer."""
    if name in PROGRAMS:
        return f"its command is {PROGRAMS[name]}, of the system's packages"
    if name in LIBRARIES:
        return f"its header is {LIBRARIES[name]}, of the system's packages"
    return "`make peers` installs all of them in .venv-peers"


class Peers:
    """The peers of one session.

    Attributes:
        told: versions of peers that aren't Python processes, by name.

    Raises:
        PeerError: one that was asked for by name is unknown, or isn't installed.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.told: dict[str, str] = {}
        self._made: dict[str, PeerProcess] = {}
        for name in session.peers or ():
            if name not in known_peers():
                raise PeerError(f"no peer {name!r}; there is: {', '.join(known_peers())}")
            if interpreter(name) is None:
                raise PeerError(f"the peer {name} isn't installed; {_how(name)}")

    def wanted(self, name: str) -> bool:
        """Whether a peer takes part; one that isn't installed is noted."""
        if self.session.peers is not None and name not in self.session.peers:
            return False
        if interpreter(name) is None:
            self.session.absent.append(name)
            return False
        return True

    def of(self, *names: str) -> dict[str, PeerProcess]:
        """Those of the named peers that take part."""
        for name in names:
            if name not in self._made and self.wanted(name):
                self._made[name] = PeerProcess(name, interpreter(name) or "", self.session.folder)
        return {name: self._made[name] for name in names if name in self._made}

    @property
    def versions(self) -> dict[str, str]:
        """Of all peers that answered, where they differ in name from our own packages."""
        found = {f"peer {name}": version for name, version in self.told.items()}
        for process in self._made.values():
            found.update({f"peer {name}": version for name, version in process.versions.items()})
        return found

    def rest(self, *names: str) -> None:
        """End peers that the next rows don't need: an idle cluster takes time from what is measured."""
        for name in names:
            if name in self._made:
                self._made[name].close()

    def __enter__(self) -> Peers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.rest(*self._made)
