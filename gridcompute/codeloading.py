"""Loading compiled code into a process that hasn't compiled any, without what numba needs only to compile."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from typing import Any

import numba
from llvmlite.binding import add_symbol, address_of_symbol

environment: Any = numba.core.environment
runtime: Any = numba.core.runtime


class Unpickler(pickle.Unpickler):
    """Loads what numba made, without the modules of numba's own functions that are part of it.

    A compiled function holds the globals of each function in it, for use by Python code, of which there is none here.
    That of an array's sum imports SciPy's linear algebra.
    """

    def find_class(self, module: str, name: str) -> Any:
        """See `pickle.Unpickler`."""
        return _environment if (module, name) == ("numba.core.environment", "_rebuild_env") \
            else super().find_class(module, name)


def _environment(module: str, constants: list[Any], name: str) -> Any:
    if module in sys.modules or not module.startswith("numba."):
        return environment._rebuild_env(module, constants, name)
    made = environment.lookup_environment(name)
    if made is None:
        made = environment.Environment({"__name__": module})
        made.consts[:] = constants
        made.env_name = name
        environment.Environment._memo[name] = made
    return made


def names_outside(library: Any) -> list[str]:
    """Names that machine code expects to find in the process that runs it."""
    module = library._final_module
    return sorted(one.name for one in (*module.functions, *module.global_variables)
                  if one.is_declaration and not one.name.startswith("llvm."))


def made_ready(target_context: Any, outside: Sequence[str]) -> None:
    """Make this process one that can run loaded code.

    numba gets ready to compile anything, which imports 200 modules, SciPy's linear algebra among them: 300 ms in a new
    worker. Code that was compiled needs no more than the functions in C that manage arrays' memory, but for names that
    come with those modules.
    """
    for name, address in runtime._nrt_python.c_helpers.items():
        add_symbol(name if name.startswith("_") else f"NRT_{name}", address)
    if not all(address_of_symbol(name) for name in outside):
        target_context.refresh()
