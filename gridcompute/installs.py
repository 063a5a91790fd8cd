"""Where code comes from: the standard library, an installed distribution, or the user's own files."""

from __future__ import annotations

import importlib.metadata
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path
from typing import Any

from gridcompute.errors import UnkeyableError

# These are ours to change between releases, so their code counts, not their version.
OWN_PACKAGES = ("gridcompute", "gridcompute_workloads")


@lru_cache(maxsize=1)
def _folders() -> tuple[tuple[str, ...], tuple[str, ...]]:
    paths = sysconfig.get_paths()
    installed = {paths["purelib"], paths["platlib"]}
    installed |= {path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")}
    return tuple(f"{path}/" for path in installed), tuple({f"{paths['stdlib']}/", f"{paths['platstdlib']}/"})


def installed(file: str, module: str) -> bool:
    """Whether a file belongs to an installed distribution (one in site-packages)."""
    if module.split(".")[0] in OWN_PACKAGES:
        return False
    return file.startswith(_folders()[0]) or (not file and module.split(".")[0] == "numpy")


def standard(file: str) -> bool:
    """Whether a file belongs to Python itself."""
    return file.startswith("<frozen ") or (file.startswith(_folders()[1]) and not file.startswith(_folders()[0]))


def foreign(module: str, file: str | None = None) -> bool:
    """Whether a module is Python's own or an installed distribution's; without its file, that of the loaded one."""
    if file is None:
        file = getattr(sys.modules.get(module), "__file__", None) or ""
    return module.split(".")[0] in sys.stdlib_module_names or installed(file, module)


def known_by_name(value: Any) -> bool:
    """Whether a callable of Python or of an installed distribution is known by its name: np.where, a Cython one."""
    module = getattr(value, "__module__", None)
    if not (callable(value) and isinstance(getattr(value, "__name__", None), str) and isinstance(module, str)):
        return False
    return foreign(module)


def extension_of(value: Any) -> str:
    """The compiled module that defines a function which doesn't say so itself."""
    found = [
        name
        for name, one in list(sys.modules.items())
        if str(getattr(one, "__file__", "")).endswith(".so") and vars(one).get(value.__name__) is value
    ]
    return min(found, default="numpy")


@lru_cache(maxsize=256)
def distribution(top: str) -> tuple[str, str]:
    """Name and version of the installed distribution that has a top-level module.

    Raises:
        UnkeyableError: none has it.
    """
    try:
        return top, importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        names = importlib.metadata.packages_distributions().get(top)
    if not names:
        raise UnkeyableError(
            f"module {top} lies among installed packages, but belongs to none of them",
            hint="install it as a package, or move it beside the script",
        )
    return names[0], importlib.metadata.version(names[0])
