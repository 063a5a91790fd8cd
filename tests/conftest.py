"""What every test may use: the folder of real data, and Hypothesis' profiles."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from at_once import OWN_PROCESS, compiler_traced, pytest_xdist_make_scheduler  # noqa: F401
from hypothesis import HealthCheck, settings
from places import (  # noqa: F401
    code_cache,
    module_folder,
    options,
    own_folder,
    session_of_two,
    what_is_loaded_stays,
)

from gridcompute import axes

# A property test compiles kernels and touches disks, so the time of one example says nothing.
_SHARED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("dev", max_examples=50, **_SHARED)
settings.register_profile("ci", max_examples=100, derandomize=True, print_blob=True, **_SHARED)
settings.register_profile("thorough", max_examples=2000, **_SHARED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A test that measures or bounds its process' memory has one without what other tests have left in theirs."""
    if pyfuncitem.get_closest_marker("own_process") is None or OWN_PROCESS in os.environ:
        return None
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-cov", pyfuncitem.nodeid]
    done = subprocess.run(command, cwd=pyfuncitem.config.rootpath, env={**os.environ, OWN_PROCESS: "1"}, text=True,
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout, done.stdout
    return True


@pytest.fixture(scope="session", autouse=True)
def _small_data_is_cut() -> Iterator[None]:
    """Tests' data is small; its chunks are to be many all the same (a test of the floor sets it back)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(axes, "LIGHT_FLOOR", 1)
        yield


@pytest.fixture(scope="module", autouse=True)
def _no_ray_is_left() -> Iterator[None]:
    """Each module starts the Ray that it wants: one that another has left may have other cores, or be a cluster."""
    yield
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real data: $GRIDCOMPUTE_DATA, else ../shared/data; without either the test is skipped."""
    named = os.environ.get("GRIDCOMPUTE_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set GRIDCOMPUTE_DATA to a folder that has it")
    return folder
