"""Where tests' runs keep what they write, and a Ray for a module; conftest.py makes these known to all tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings


def few(count: int) -> int:
    """Examples of a property that takes long for each: so many, and more where a profile has more than usual."""
    return count * max(1, settings.default.max_examples // 100)


@pytest.fixture(scope="module", autouse=True)
def what_is_loaded_stays() -> None:
    """The garbage collector looks no more at what lives by now: modules, types and compiled code, most of all there is.

    Compiling makes so many objects that it looks often, at 300,000 of them in vain: a third of the time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def code_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache of compiled code for the session, so that what two tests compile is compiled once."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "code"  # of all processes of the session
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRIDCOMPUTE_CACHE", str(folder))
        yield folder


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own folder: its runs' records lie there, and it is where the test stands."""
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def module_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same for a whole module."""
    folder = tmp_path_factory.mktemp("module")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRIDCOMPUTE_STATE", str(folder / "state"))
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def session_of_two(module_folder: Path) -> Iterator[Any]:
    """A Ray session of two workers on this machine."""
    from gridcompute.ray_session import connect

    ray = connect(workers=2)
    yield ray
    ray.shutdown()


@pytest.fixture
def options(session_of_two: Any, tmp_path: Path) -> dict[str, Any]:
    """Of a run on that session, with a store of the test's own."""
    return {"store": tmp_path / "work", "workers": 2, "quiet": True, "executor": "ray"}
