"""The numerics class: what must be equal on two machines for floating point results to be equal bit by
bit.
"""

from __future__ import annotations

import functools
import importlib.metadata
import platform
from pathlib import Path

import numpy as np

# glibc and NumPy choose their exp, sin and log by these, and the variants differ in the last bit.
_X86_FLAGS = ("fma", "avx2", "avx512f")


@functools.cache
def numerics_class() -> str:
    """This process's class, such as
    `x86_64+fma+avx2;glibc-2.36;numba-0.68.1;llvmlite-0.50.0;numpy-2.4.0;...`.

    Architecture with the instruction sets that libm and NumPy select code by, libm's version, numba,
    llvmlite, NumPy and its BLAS. Bits are promised to be equal within a class; across classes only to a
    tolerance.
    """
    parts = [_architecture(), "-".join(filter(None, platform.libc_ver())) or "libc-unknown"]
    parts += [f"{name}-{_version(name)}" for name in ("numba", "llvmlite", "numpy")]
    return ";".join([*parts, _blas()])


def _architecture() -> str:
    machine = platform.machine() or "unknown"
    if machine not in ("x86_64", "AMD64"):
        return machine
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{machine}+unknown"
    flags = next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
    return "+".join([machine, *(flag for flag in _X86_FLAGS if flag in flags)])


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _blas() -> str:
    config = np.show_config("dicts")
    blas = config.get("Build Dependencies", {}).get("blas", {}) if isinstance(config, dict) else {}
    return f"{blas.get('name', 'blas')}-{blas.get('version', 'unknown')}"
