"""A kernel in a process of its own, watched: what kills it, hangs it or takes too much memory is told by its cell.

A chunk that was lost without a word is tried again like this where its kernels skip (`on_error="skip"`). The worker
that carries it is the witness, on whatever machine: it reads the position of the cell in work from memory that it
shares with the process. A cell that fails alone, after the part that it was in had failed, is skipped.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from typing import Any

import cloudpickle
import numpy as np

from gridcompute.columns import Array
from gridcompute.config import available_memory
from gridcompute.errors import GridError, RunError, WorkerLostError
from gridcompute.events import FailureKind
from gridcompute.shipping import by_value
from gridcompute.skipping import IDLE, Failed, Part, Work

START_SECONDS = 120.0
"""Time that the process may take to start, and to compile or load the kernel."""

LOOK_SECONDS = 0.25
"""Time between two looks at the cell in work."""

MEMORY_SHARE = 0.75
"""Of the memory that is free, what the process may take."""


SIGNALS = {one.value: one.name for one in signal.Signals}


@dataclass(frozen=True)
class Death:
    """How a part of the work ended without an answer.

    Attributes:
        kind: class of the failure.
        text: what is said of it.
        position: of the cell in work; None where that isn't known.
    """

    kind: FailureKind
    text: str
    position: int | None


class Apart:
    """A process that carries out parts of some work; another takes its place when it dies.

    Args:
        patience: seconds that a cell (of a kernel of chunks: a part) may take.
        plain: kernels are plain Python there.
    """

    def __init__(self, patience: float, *, plain: bool = False) -> None:
        self._bytes, self._patience = b"", patience
        self._more = {"NUMBA_DISABLE_JIT": "1"} if plain else {}
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._file.truncate(mmap.PAGESIZE)
        self._word = np.frombuffer(mmap.mmap(self._file.fileno(), mmap.PAGESIZE), np.int64, 1)
        self._process: subprocess.Popen[bytes] | None = None
        self._link: Connection[Any, Any] | None = None
        self._given = False

    def give(self, work: Work) -> None:
        """What is done from here on."""
        self._bytes, self._given = by_value((list(sys.path), work)), False

    def part(self, lo: int, hi: int, *, traced: bool = False) -> Part | Death:
        """Cells lo to hi, there (`Work.part`, or `Work.traced`).

        Raises:
            WorkerLostError: no such process can be started.
            Exception: what the work raises that is no fault of a cell.
        """
        self._word[0] = IDLE
        link = self._ready()
        answer = None
        with contextlib.suppress(OSError, EOFError):
            link.send((lo, hi, traced))
            if (late := self._late(link)) is not None:
                return late
            answer = link.recv()
        if answer is None:
            return self._dead()
        if isinstance(answer, MemoryError):
            self._end()  # what it has taken is given back
            return Death("out_of_memory", "MemoryError: there isn't so much memory", self._position())
        if isinstance(answer, BaseException):
            raise answer
        found: Part = answer
        return found

    def _ready(self) -> Connection[Any, Any]:
        """The way to a process that has the work."""
        link = self._link or self._started()
        if not self._given:
            try:
                link.send(self._bytes)
                if not link.poll(START_SECONDS):
                    raise EOFError
                link.recv()
            except (OSError, EOFError):
                raise WorkerLostError(f"a process for a kernel can't be used: {self._dead().text}",
                                      hint="its own messages are above") from None
        self._given = True
        return link

    def _started(self) -> Connection[Any, Any]:
        ours, theirs = Pipe()
        fds = (theirs.fileno(), self._file.fileno())
        command = [sys.executable, "-c", f"from gridcompute.apart import main; main({fds[0]}, {fds[1]})"]
        path = os.pathsep.join([*filter(None, sys.path), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=fds,
                                         env={**os.environ, "PYTHONPATH": path, **self._more})
        theirs.close()
        self._link, self._given = ours, False
        return ours

    def _late(self, link: Connection[Any, Any]) -> Death | None:
        """Wait for the answer; a cell that takes too long ends the process."""
        last, since = IDLE, time.monotonic()
        while not link.poll(LOOK_SECONDS):
            at, now = int(self._word[0]), time.monotonic()
            if at != last:
                last, since = at, now
            elif now - since > self._patience + (START_SECONDS if at == IDLE else 0.0):
                found = Death("hang", f"it ran longer than {self._patience:g} s", self._position())
                self._end()
                return found
        return None

    def _position(self) -> int | None:
        at = int(self._word[0])
        return None if at == IDLE else at

    def _dead(self) -> Death:
        """What is said of a process that has gone."""
        process = self._process
        assert process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5.0)
        code, position = process.returncode, self._position()
        self._end()
        if code is None:
            text = "its process gave no answer"
        elif code < 0:
            text = f"its process was killed by {SIGNALS.get(-code, f'signal {-code}')}"
        else:
            text = f"its process ended with exit code {code}"
        return Death("lost_worker", text, position)

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._link is not None:
            self._link.close()
        self._process = self._link = None

    def close(self) -> None:
        """End the process."""
        self._end()
        self._file.close()


class Isolation:
    """A carrier (see `gridcompute.skipping`) that leaves out the cells which end a process, until it is closed.

    Args:
        patience: as of `Apart`.
    """

    def __init__(self, patience: float) -> None:
        self._apart = Apart(patience)

    def __call__(self, work: Work) -> Part:
        """All cells of the work but for those that fail, of whatever kind."""
        self._apart.give(work)
        parts, failed = list(_parts(work, self._apart)), Failed()
        for _, more in parts:
            failed.extend(more)
        return [np.concatenate(values) for values in zip(*(values for values, _ in parts), strict=True)], failed

    def close(self) -> None:
        """End the process."""
        self._apart.close()


def _parts(work: Work, apart: Apart) -> Iterator[Part]:
    """The work part by part, in order: a part that dies is cut at the cell in work, else in the middle."""
    waiting = [(0, work.cells.count)]
    while waiting:
        lo, hi = waiting.pop()
        found = apart.part(lo, hi)
        if not isinstance(found, Death):
            yield found
        elif hi - lo == 1:
            if found.position is None:  # no cell was in work: it isn't this one's fault
                kind = MemoryError if found.kind == "out_of_memory" else WorkerLostError
                raise kind(f"a process for kernel {work.kernel.name} ended before the kernel began: {found.text}")
            failed = Failed()
            failed.add(lo, found.kind, found.text)
            yield work.nothing(lo, hi), failed
        elif work.kernel.mode == "cell" and found.position is not None and lo <= found.position < hi:
            at = found.position
            waiting += [(a, b) for a, b in ((at + 1, hi), (at, at + 1), (lo, at)) if a < b]
        else:
            middle = (lo + hi) // 2
            waiting += [(middle, hi), (lo, middle)]


def main(link_fd: int, word_fd: int) -> None:
    """The process: takes work, then answers with part after part of it; ends with its parent."""
    with contextlib.suppress(OSError, AttributeError):  # Linux: a parent that is killed takes this process with it
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    bound = used + int(MEMORY_SHARE * available_memory())
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (bound, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    word: Array = np.frombuffer(mmap.mmap(word_fd, mmap.PAGESIZE), np.int64, 1)
    link: Connection[Any, Any] = Connection(link_fd)
    work: Work | None = None
    with contextlib.suppress(EOFError):
        while True:
            asked = link.recv()
            if isinstance(asked, bytes):
                sys.path[:], work = cloudpickle.loads(asked)
                link.send("ready")
            else:
                assert work is not None
                lo, hi, traced = asked
                link.send_bytes(_answer(work.traced if traced else work.part, lo, hi, word))


def _answer(call: Callable[[int, int, Array], Part], lo: int, hi: int, word: Array) -> bytes:
    try:
        return pickle.dumps(call(lo, hi, word))
    except MemoryError:
        return pickle.dumps(MemoryError())
    except GridError as error:
        return pickle.dumps(error)
    except Exception as error:
        return pickle.dumps(RunError("".join(traceback.format_exception(error)[-3:]).strip()))
