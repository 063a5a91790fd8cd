"""Whether this machine can run gridcompute: one check a line, with what to do where something is amiss."""

from __future__ import annotations

import datetime
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from gridcompute import certificates
from gridcompute.attaching import joining
from gridcompute.codefolder import cache_directory
from gridcompute.config import Settings, available_cores, available_memory, state_folder
from gridcompute.errors import GridError
from gridcompute.status import size
from gridcompute.store import open_store
from gridcompute.stores.local import LocalStore

Verdict = Literal["ok", "warning", "failed"]

GIB = 2**30
RAY_SECONDS = 90.0
_RAY = """
from gridcompute.ray_session import connect
ray = connect(workers=1)
assert ray.get(ray.remote(lambda: 1).remote(), timeout=60) == 1
ray.shutdown()
"""


@dataclass(frozen=True)
class Check:
    """What was looked at.

    Attributes:
        name: of the check.
        verdict: "ok", "warning" or "failed".
        found: what was seen.
        advice: what to do; empty where all is well.
    """

    name: str
    verdict: Verdict
    found: str
    advice: str = ""


def checks(settings: Settings, *, ray: bool = True) -> Iterator[Check]:
    """All checks, one after the other.

    Args:
        settings: which store and which cluster.
        ray: also start Ray, which takes some seconds.
    """
    every: list[Callable[[], Check]] = [_python, _packages, _cores, _memory, _shared_memory, _temporary, _state, _code]
    every.append(lambda: _store(settings))
    if settings.address or settings.certs:
        every.append(lambda: _cluster(settings))
    if ray:
        every.append(_ray)
    for check in every:
        try:
            yield check()
        except (GridError, OSError) as error:
            yield Check(check.__name__.strip("_<>"), "failed", str(error).splitlines()[0], getattr(error, "hint", ""))


def _python() -> Check:
    here = f"{platform.python_implementation()} {platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info >= (3, 12):
        return Check("python", "warning", here, "3.11 is what is tested")
    return Check("python", "ok", here)


def _packages() -> Check:
    found, missing = [], []
    for name in ("gridcompute", "ray", "numba", "numpy", "pyarrow", "zarr", "xarray", "matplotlib"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return Check("packages", "failed", ", ".join(found), f"install {', '.join(missing)}")
    return Check("packages", "ok", ", ".join(found))


def _cores() -> Check:
    return Check("cores", "ok", f"{available_cores()} of {os.cpu_count()} cores may be used")


def _memory() -> Check:
    free = available_memory()
    share = free / available_cores()
    text = f"{size(free)} free, {size(share)} for each core"
    return (
        Check("memory", "warning", text, "use fewer workers: --workers") if share < GIB else Check("memory", "ok", text)
    )


def _shared_memory() -> Check:
    if not os.path.isdir("/dev/shm"):
        return Check("shared memory", "warning", "there is no /dev/shm", "Ray uses the disk instead, which is slower")
    free = shutil.disk_usage("/dev/shm").free
    if free < GIB:
        return Check(
            "shared memory", "warning", f"/dev/shm has {size(free)} free", "in a container, give it more: --shm-size=2g"
        )
    return Check("shared memory", "ok", f"/dev/shm has {size(free)} free")


def _temporary() -> Check:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < 2 * GIB:
        return Check("temporary files", "warning", f"{folder} has {size(free)} free", "make room: Ray spills there")
    return Check("temporary files", "ok", f"{folder} has {size(free)} free")


def _state() -> Check:
    folder = state_folder()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        return Check("state", "failed", f"{folder} can't be written", "set GRIDCOMPUTE_STATE to a folder of yours")
    return Check("state", "ok", f"runs are indexed in {folder}")


def _code() -> Check:
    folder = cache_directory()
    if folder is None:
        return Check(
            "compiled code",
            "warning",
            "can't be kept: every process compiles again",
            "set GRIDCOMPUTE_CACHE to a folder of yours",
        )
    mode = folder.stat().st_mode & 0o777
    if mode & 0o077:
        return Check("compiled code", "failed", f"{folder} is open to others (mode {mode:o})", f"chmod 700 {folder}")
    return Check("compiled code", "ok", f"{folder}, for you alone")


def _store(settings: Settings) -> Check:
    store = open_store(settings.store, **settings.store_options)
    if isinstance(store, LocalStore) and not os.path.isdir(store.root):
        nearest = next(path for path in (Path(store.root), *Path(store.root).parents) if path.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            return Check(
                "store", "failed", f"{store.root} can't be made in {nearest}", "choose another place with --store"
            )
        return Check("store", "ok", f"{store.root} will be made; {size(shutil.disk_usage(nearest).free)} free")
    store.probe()
    free = store.free_bytes()
    return Check(
        "store", "ok", f"{store.url} takes conditional writes" + (f"; {size(free)} free" if free is not None else "")
    )


def _cluster(settings: Settings) -> Check:
    ends = certificates.found(settings.certs).ends if settings.certs else None
    if settings.address:
        joining(settings.address, certs=settings.certs, allow_open=settings.allow_open)
    told = f"{settings.address} takes this machine in" if settings.address else settings.certs
    if ends is None:
        return Check("cluster", "ok", told)
    left = (ends - datetime.datetime.now(datetime.UTC)).days
    told += f"; certificates valid until {ends:%Y-%m-%d}"
    if left < certificates.SOON:
        return Check("cluster", "warning", told, "make new ones: gridcompute cluster certs --replace")
    return Check("cluster", "ok", told)


def _ray() -> Check:
    # In a process of its own: what goes wrong in Ray's start may end the process.
    try:
        done = subprocess.run(
            [sys.executable, "-c", _RAY], capture_output=True, text=True, timeout=RAY_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Check("ray", "failed", f"no answer within {RAY_SECONDS:.0f} s", "--executor inline works without Ray")
    if done.returncode:
        last = [line for line in done.stderr.strip().splitlines() if line.strip()][-1:] or [
            f"exit code {done.returncode}"
        ]
        return Check("ray", "failed", last[0].strip()[:300], "--executor inline works without Ray")
    return Check("ray", "ok", "a local Ray starts and answers, on loopback with a token")
