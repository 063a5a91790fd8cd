"""What a measurement was made on: processor, cores, load, versions."""

from __future__ import annotations

import contextlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("gridcompute", "ray", "numba", "llvmlite", "numpy", "pyarrow", "zarr", "dask", "xarray")


def describe() -> dict[str, Any]:
    """Processor, cores that this process may use, memory in bytes, system and load averages."""
    return {
        "cpu": _cpu(), "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}", "load": [round(x, 2) for x in os.getloadavg()],
    }  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter, where they are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
