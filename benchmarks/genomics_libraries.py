"""C libraries as peers: a loop over all pairs in C, compiled where the library is, called in this process."""

from __future__ import annotations

import ctypes
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.genomics_data import Column
from benchmarks.peering import PeerError, Peers, interpreter
from benchmarks.rows import check

Took = tuple[float, float]
"""Seconds of the thread's processor, and on the clock."""

HERE = Path(__file__).parent
COMPILE = ("gcc", "-O3", "-march=native", "-shared", "-fPIC", "-o")
LINKED = {"edlib": ("-ledlib",), "wfa2": ("-I/usr/include/wfa2lib", "-lwfa2")}
PACKAGES = {"edlib": "libedlib1", "wfa2": "libwfa2-0"}
WHERE = "import {0}, os; print(os.path.dirname({0}.__file__))"
VERSION = "import importlib.metadata; print(importlib.metadata.version('{0}'))"
AT = np.ctypeslib.ndpointer(np.int64, flags="C")
LETTERS = np.ctypeslib.ndpointer(np.uint8, flags="C")
NUMBERS = np.ctypeslib.ndpointer(np.int32, flags="C")


def took(work: Callable[[], Any]) -> tuple[Took, Any]:
    """How long a call takes, and what it gives."""
    clock, own = time.perf_counter(), time.thread_time()
    value = work()
    return (time.thread_time() - own, time.perf_counter() - clock), value


class Library:
    """One of parasail, edlib and WFA2-lib.

    Raises:
        PeerError: its harness can't be compiled.
    """

    def __init__(self, name: str, folder: str) -> None:
        self.name, made = name, Path(folder) / f"{name}-pairs.so"  # no name that Python could import
        self._wheel = "" if name in LINKED else _said(interpreter(name) or "", "-c", WHERE.format(name))
        linked = LINKED.get(name) or (f"-I{self._wheel}/include", f"{self._wheel}/lib{name}.so")
        command = [*COMPILE, str(made), str(HERE / f"genomics_{name}.c"), *linked]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PeerError(f"gcc can't compile genomics_{name}.c: {done.stderr.strip()[:500]}")
        if self._wheel:  # loaded beforehand, as its own name isn't that of its file
            ctypes.CDLL(f"{self._wheel}/lib{name}.so")
        self._library = ctypes.CDLL(str(made))
        head: list[Any] = [ctypes.c_char_p, ctypes.c_int64]
        self._library.pairs.argtypes = [*head, AT, LETTERS, AT, LETTERS, NUMBERS, NUMBERS]
        self._library.pairs.restype = ctypes.c_int64
        if name == "parasail":
            head = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64]
            self._library.search.argtypes = [*head, AT, LETTERS, NUMBERS, NUMBERS]
            self._library.search.restype = ctypes.c_int64

    @property
    def version(self) -> str:
        """As its package says."""
        if self._wheel:
            return _said(interpreter(self.name) or "", "-c", VERSION.format(self.name))
        return _said("dpkg-query", "-Wf", "${Version}", PACKAGES[self.name])

    def pairs(self, how: str, queries: Column, targets: Column, costs: Sequence[int]) -> tuple[Took, Any]:
        """Time for all pairs, and their numbers, int32.

        Raises:
            WrongResultError: some of them ran over or failed, or there is no such function.
        """
        count = len(queries[0]) - 1
        out, own = np.zeros(count, np.int32), np.array(costs, np.int32)
        spent, failed = took(lambda: self._library.pairs(how.encode(), count, queries[0], queries[1], targets[0],
                                                         targets[1], own, out))
        check(failed == 0, f"{self.name}'s {how}")
        return spent, out

    def search(self, how: str, matrix: str, query: bytes, targets: Column, costs: Sequence[int]) -> tuple[Took, Any]:
        """Time for one query against all targets, and the scores (parasail only)."""
        count = len(targets[0]) - 1
        out, own = np.zeros(count, np.int32), np.array(costs, np.int32)
        spent, failed = took(lambda: self._library.search(how.encode(), matrix.encode(), query, len(query), count,
                                                          targets[0], targets[1], own, out))
        check(failed == 0, f"{self.name}'s {how}")
        return spent, out


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def libraries(peers: Peers, *names: str) -> dict[str, Library]:
    """Those that take part, compiled."""
    found = {}
    for name in names:
        if peers.wanted(name):
            found[name] = Library(name, peers.session.folder)
            peers.told[name] = found[name].version
    return found
