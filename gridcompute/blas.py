"""NumPy's BLAS and LAPACK on one thread: their last bits depend on how many they have (law 1)."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
from collections.abc import Callable, Iterator

_NAMES = ("scipy_openblas_{}_num_threads64_", "openblas_{}_num_threads64_", "openblas_{}_num_threads")
_lock = threading.Lock()
_within: list[int] = []
"""For each that is within `one_thread`, how many threads there were before the first."""


@functools.cache
def openblas() -> tuple[Callable[[], int], Callable[[int], object]] | None:
    """Functions that give and set the number of threads of NumPy's OpenBLAS; None where it has another library."""
    from numpy.linalg import _umath_linalg

    path = getattr(_umath_linalg, "__file__", "")
    library = ctypes.CDLL(path) if path else None
    for name in _NAMES:
        if hasattr(library, name.format("get")) and hasattr(library, name.format("set")):
            return getattr(library, name.format("get")), getattr(library, name.format("set"))
    return None


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """NumPy's BLAS has one thread within, in all of this process, and afterwards as many as before."""
    functions = openblas()
    if functions is None:
        yield
        return
    threads, become = functions
    with _lock:
        _within.append(_within[0] if _within else threads())
        become(1)
    try:
        yield
    finally:
        with _lock:
            before = _within.pop()
            if not _within:
                become(before)
