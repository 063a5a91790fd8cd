"""`ds.grid` and `da.grid`: an xarray object as a collection, whichever of xarray and gridcompute is imported first.

xarray isn't imported for it. Where it is there already its classes get the attribute at once; else the moment that
somebody imports it. A collection is made anew each time, since a Dataset may change; xarray's accessors are kept.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

NAMES = ("grid", "gridcompute")
_DOC = """This as a lazy collection of gridcompute: `grid.from_xarray` of it, with all its verbs.

    tau = ds["t2m"].grid.map(trend)
    climatology = ds.grid.groupby("time.month").mean()
    result = grid.run(climatology)[0].to_xarray()
"""


def _collection(data: Any) -> Any:
    from gridcompute.datasets import from_xarray

    try:
        return from_xarray(data)
    except AttributeError as error:  # which xarray would take for an attribute that isn't there
        raise RuntimeError(f"{type(data).__name__}.grid failed: {error}") from error


def register(xarray: ModuleType) -> None:
    """Give xarray's Dataset and DataArray the attributes; a name that another package has taken is left to it."""
    for kind in (xarray.Dataset, xarray.DataArray):
        for name in NAMES:
            taken = vars(kind).get(name)
            if taken is None:
                setattr(kind, name, property(_collection, doc=_DOC))
            elif getattr(taken, "fget", None) is not _collection:
                warnings.warn(f"{kind.__name__}.{name} is another package's: use grid.from_xarray", stacklevel=2)


class _Loading(Loader):
    """xarray's own loader, and then `register`."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        register(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


class _Awaiting(MetaPathFinder):
    """Sees the first import of xarray, and goes."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "xarray" or self not in sys.meta_path:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loading(spec.loader)
        return spec


def watch_for_xarray() -> None:
    """Register with xarray: now, or when it is imported."""
    xarray = sys.modules.get("xarray")
    if xarray is not None and hasattr(xarray, "DataArray"):
        register(xarray)
    elif not any(type(finder) is _Awaiting for finder in sys.meta_path):
        sys.meta_path.insert(0, _Awaiting())
