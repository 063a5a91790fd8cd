"""Pickling what goes to workers: the user's own code by value, everything installed by name."""

from __future__ import annotations

import importlib
import io
import os
import pickle
import sys
import sysconfig
from types import ModuleType
from typing import Any

import cloudpickle
import numpy as np
from numba.core.dispatcher import Dispatcher

_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_OURS = ("gridcompute", "gridcompute_workloads")


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Names installed compiled functions instead of copying them: a copy would be another function to the worker."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Dispatcher):
            module, name = obj.py_func.__module__, obj.py_func.__qualname__
            if not _is_users(sys.modules.get(module)) and getattr(sys.modules.get(module), name, None) is obj:
                return _named, (module, name)
        return super().reducer_override(obj)


def _named(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def by_value(value: Any, buffers: list[pickle.PickleBuffer] | None = None) -> bytes:
    """Pickle with the user's own modules by value: a worker must not import another version of them.

    Args:
        value: to pickle.
        buffers: takes the memory of arrays, which then isn't in the bytes.
    """
    registered = []
    for module in list(sys.modules.values()):
        if _is_users(module) and module.__name__ not in cloudpickle.list_registry_pickle_by_value():
            cloudpickle.register_pickle_by_value(module)
            registered.append(module)
    try:
        file = io.BytesIO()
        _Pickler(file, 5, buffer_callback=None if buffers is None else buffers.append).dump(value)
        return file.getvalue()
    finally:
        for module in registered:
            cloudpickle.unregister_pickle_by_value(module)


def packed(value: Any) -> list[Any]:
    """As `by_value`, as arrays of bytes, which Ray's object store gives to all workers of a node without a copy."""
    buffers: list[pickle.PickleBuffer] = []
    text = by_value(value, buffers)
    memories: list[Any] = [text, *(one.raw() for one in buffers)]
    return [np.frombuffer(memory, np.uint8) for memory in memories]


def unpacked(arrays: list[Any]) -> Any:
    """What was packed; its arrays lie where those given do (in Ray's store, where they can't be written to)."""
    return cloudpickle.loads(memoryview(arrays[0]), buffers=arrays[1:])


def _is_users(module: ModuleType | None) -> bool:
    """Whether a module lies outside the interpreter, its installed packages and gridcompute."""
    file = getattr(module, "__file__", None)
    name = getattr(module, "__name__", "__main__")
    if not isinstance(file, str) or name.split(".")[0] in ("__main__", *_OURS):
        return False
    return sys.modules.get(name) is module and not os.path.abspath(file).startswith(_INSTALLED)
