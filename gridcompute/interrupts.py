"""Ctrl-C: one line at once, a run that ends in order, and a script that ends without a traceback."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any

STOPPING = "stopping: running tasks may still finish (Ctrl-C again to stop at once)"


def tell(line: str) -> None:
    """A line for the person at the prompt, also from within a signal; nothing where their terminal has gone."""
    with contextlib.suppress(OSError, ValueError, RuntimeError, AttributeError):  # closed, busy writing, or None
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - no result


@contextlib.contextmanager
def interruptible(cancel: threading.Event) -> Iterator[set[int]]:
    """Turn the first SIGINT, SIGTERM or SIGHUP (a closed terminal) into a cancel; only the main thread can.

    A second SIGINT is a KeyboardInterrupt.

    Yields:
        Signals that came.
    """
    heard: set[int] = set()
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return

    def asked(number: int, frame: Any) -> None:
        if heard and number == signal.SIGINT:  # a terminal that closes may send its signal twice
            heard.add(number)
            raise KeyboardInterrupt
        if not heard:
            tell(STOPPING)
        heard.add(number)
        cancel.set()

    wanted = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which nohup asked for
        wanted.append(signal.SIGHUP)
    before = {number: signal.signal(number, asked) for number in wanted}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interrupted(line: str) -> KeyboardInterrupt:
    """Say how to go on; what to raise then, of which a script's end shows no traceback, as all is said."""
    if line:
        tell(line)
    error = KeyboardInterrupt()
    error.told = True  # type: ignore[attr-defined]
    if not getattr(sys.excepthook, "passes_told", False):
        before = sys.excepthook

        def hook(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
            if getattr(value, "told", False):
                _ends.append(error)
            else:
                before(kind, value, trace)

        hook.passes_told = True  # type: ignore[attr-defined]
        sys.excepthook = hook
    return error


_ends: list[KeyboardInterrupt] = []


def _by_signal() -> None:
    """End as a shell expects it after Ctrl-C, by the signal: Python forgets to where Ray's own end executes code."""
    if _ends:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)


atexit.register(_by_signal)  # at import: what is registered first comes last
