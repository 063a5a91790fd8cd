"""How the tests are shared out to processes that run at once (pytest-xdist), and what coverage traces in them."""

from __future__ import annotations

import gc
import os
import re
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from numba.core import compiler

OWN_PROCESS = "GRIDCOMPUTE_TEST_IN_OWN_PROCESS"
"""The variable of a process for one test, which measures what is in it."""

traced = False
"""Whether coverage traces the compiler too."""


_TOGETHER = {
    "ray": r"^pytestmark = .*pytest\.mark\.ray\b",  # each wants the machine for its cluster or its server
    "alignment": r"^(from|import) .*align",  # their compiled functions are long, and a process's own
}
"""Files that are shared out as one, by what is in them."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests go to one process, in order: they share a folder or a session."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            return together(config.rootpath / file) or file

    return ByFile(config, log)


@lru_cache
def together(file: Path) -> str:
    """Which files a file of tests is shared out with."""
    text = file.read_text()
    return next((name for name, sign in _TOGETHER.items() if re.search(sign, text, re.MULTILINE)), "")


def _quick(compile_extra: Any) -> Any:
    def compiled(*args: Any, **options: Any) -> Any:
        # No `with`: the tracer goes and comes back in one frame, or it would count calls that it doesn't see end.
        tracer, collects = sys.gettrace(), gc.isenabled()
        gc.disable()
        if not traced:
            sys.settrace(None)
        try:
            return compile_extra(*args, **options)
        finally:
            sys.settrace(tracer)
            if collects:
                gc.enable()

    return compiled


# numba's compiler is Python, most of what the tests run, and none of ours: tracing it took a quarter of their time,
# collecting garbage as often as its many objects have it a tenth.
if OWN_PROCESS not in os.environ:
    compiler.compile_extra = _quick(compiler.compile_extra)


@pytest.fixture(scope="module")
def compiler_traced() -> Any:
    """For tests of what the compiler calls: our types, overloads and intrinsics."""
    global traced
    traced = True
    yield
    traced = False
