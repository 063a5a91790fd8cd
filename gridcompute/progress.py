"""A progress bar with a rate and an honest estimate; in a log, a line a minute."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from gridcompute.status import Status, counted

Watch = Callable[[Status], None]

MIN_SECONDS = 0.1

LINE_SECONDS = 60.0
"""Between two lines, where standard error is no terminal: a batch job's log, say."""


def remaining(done: int, total: int, seconds: float) -> float | None:
    """Seconds left at the rate so far; None while there is nothing to judge by.

    >>> remaining(25, 100, 10.0)
    30.0
    """
    if done <= 0 or seconds <= 0:
        return None
    return seconds / done * (total - done)


def clock(seconds: float | None) -> str:
    """A duration as people read it.

    >>> clock(3725)
    '1:02:05'
    """
    if seconds is None:
        return "-:--"
    whole = int(seconds + 0.5)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


@contextlib.contextmanager
def watcher(*, quiet: bool = False) -> Iterator[Watch]:
    """Something to call with each status; draws on standard error if that is a terminal, else writes lines there."""
    if quiet:
        yield lambda status: None
        return
    if not sys.stderr.isatty():
        yield _Lines().show
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
    from rich.table import Column

    console = Console(stderr=True)  # names are cut so that bar, counts and note, of 60 characters, are seen whole
    named = Column(no_wrap=True, overflow="ellipsis", max_width=max(16, console.width - 60))
    columns = (SpinnerColumn(), TextColumn("{task.description}", table_column=named), BarColumn(bar_width=20),
               TextColumn("{task.completed:,}/{task.fields[counted]}"), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=console, transient=True) as bars:
        yield _Bars(bars).show


class _Lines:
    """Now and then a line with the stages in work; none for a run that is done before the first is due."""

    def __init__(self) -> None:
        self._told = time.monotonic()
        self._phases: dict[int, tuple[int, float | None]] = {}

    def show(self, status: Status) -> None:
        """Write a line, if the last one was long enough ago."""
        now, done, total = time.monotonic(), sum(status.done.values()), sum(status.total.values())
        first, since = self._phases.get(status.phase, (done, None))
        if since is None and done > first:  # neither what was found done nor the start says anything about the rate
            first, since = done, now
        self._phases[status.phase] = first, since
        if now - self._told < LINE_SECONDS or done == total:
            return
        self._told = now
        stages = [f"{name}: {status.done[name]:,} of {counted(of, 'chunk')}"
                  for name, of in status.total.items() if 0 < status.done[name] < of]
        left = remaining(done - first, total - first, now - since) if since is not None else None
        about = f", about {clock(left)} left" if left is not None else ""
        sys.stderr.write(f"{'; '.join(stages) or 'begun'}{about}\n")


class _Bars:
    """One bar a stage; its rate begins with the first chunk that this run makes: what was found done doesn't count,
    nor do Ray's start and compilation. No stage is left less time than those before it.
    """

    def __init__(self, bars: object) -> None:
        self._bars = bars
        self._rows: dict[tuple[int, str], tuple[int, int, float | None]] = {}
        self._shown = 0.0

    def show(self, status: Status) -> None:
        """Draw the status, at most ten times a second."""
        now = time.monotonic()
        over = sum(status.done.values()) == sum(status.total.values())
        if now - self._shown < MIN_SECONDS and not over:
            return
        self._shown = now
        begun, longest = False, 0.0
        for name, total in status.total.items():
            done = status.done[name]
            key = (status.phase, name)
            if key not in self._rows:
                row = self._bars.add_task(  # type: ignore[attr-defined]
                    name, total=total, completed=done, note="", counted=counted(total, "chunk"))
                self._rows[key] = (row, done, None)
            row, first, since = self._rows[key]
            if since is None and done > first:
                first, since = done, now
                self._rows[key] = (row, first, since)
            note = "waiting" if status.tasks or begun else "starting"  # Ray, then compilation
            if since is not None:
                left = remaining(done - first, total - first, now - since)
                longest = max(longest, left or 0.0)
                note = "running" if left is None else f"{(done - first) / (now - since):,.1f}/s, {clock(longest)} left"
            begun = begun or done < total
            note = "done" if done == total else note
            self._bars.update(row, completed=done, total=total, note=note)  # type: ignore[attr-defined]
