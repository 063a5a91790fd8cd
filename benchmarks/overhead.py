"""What the framework itself costs, apart from any kernel's work.

Sections: dispatch (a task), cells (an empty kernel), startup (whole processes), resume (committed shards), memory (the
driver's), plan (graphs of any size).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks import overhead_plans, overhead_processes, overhead_tasks
from benchmarks.peering import Peers
from benchmarks.rows import Row, Session
from benchmarks.running import own_folders

SECTIONS = {
    "plan": overhead_plans.planning,
    "resume": overhead_plans.resuming,
    "memory": overhead_processes.memory,
    "startup": overhead_processes.startup,
    "dispatch": overhead_tasks.dispatch,
    "cells": overhead_tasks.cells,
}
"""In this order: what needs Ray comes last, so that its processes don't disturb the rest."""


def rows(session: Session, peers: Peers) -> Iterator[Row]:
    """Measure section by section."""
    with own_folders(Path(session.folder)), contextlib.chdir(session.folder):
        try:
            for name, section in SECTIONS.items():
                if not session.only or name in session.only:
                    session.begin(name)
                    yield from section(session, peers)
        finally:
            overhead_tasks.end_ray()
