"""Compiled code on disk, under our own keys.

numba's cache is keyed by the file and its time, so it returns stale code when an imported function changes,
and it can't serve functions of notebooks and scripts. Here code is stored under a key of everything that it
was compiled from (`keys.machine_key`), the argument types, and the versions and processor that it was made
for. The first process of a node to need it compiles; the others wait for its lock and load.

The files are pickles that numba made: the directory is private to the user, and refused if it isn't.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import platform
import sys
import tempfile
import time
import types as pytypes
from collections import namedtuple
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core.caching import _Cache
from numba.core.compiler import Compiler, CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher, cpu_target
from numba.core.serialize import dumps

from gridcompute import syntax
from gridcompute.codefolder import cache_directory, made_private, read_private
from gridcompute.codeloading import Unpickler, made_ready, names_outside
from gridcompute.keys import OWN_PACKAGES, digest, installed, machine_key, standard, unwrap

types: Any = numba.types
config: Any = numba.core.config

_rebuild: Any = CompileResult._rebuild
_dumps: Any = dumps

_FORMAT = b"gridcompute-code-2\n"
_LOCK_SECONDS = 300.0

_seconds = 0.0
_compiled = 0
_depth = 0
_made: dict[str, Any] = {}


def compile_seconds() -> float:
    """Seconds that this process has spent on compiling kernels or loading them from the cache."""
    return _seconds


def compiled() -> int:
    """How many functions this process has compiled; those loaded from the cache don't count."""
    return _compiled


def cached_njit(func: Callable[..., Any], key: str = "", *, flags: frozenset[str] = frozenset(),
                inline: bool = False, apart: bool = False) -> Any:
    """Compile a function on first use, or load it from the user's cache if its like was compiled before.

    Plain Python functions that it calls are compiled with it, unless they belong to installed distributions.
    Arithmetic is strict IEEE but for `flags`; a division by zero gives inf or nan, as NumPy's does. Releases
    the GIL. Under NUMBA_DISABLE_JIT the function itself is returned.

    Args:
        func: a Python function, or numba's dispatcher of one.
        key: anything that its compiled code depends on and its own code doesn't show.
        flags: LLVM's fast-math flags ("contract", "reassoc").
        inline: put it into whatever compiled code calls it: a call with a few arrays takes 10 ns.
        apart: the function's array arguments share no memory that it writes. Where it has many, LLVM doesn't check that
            before a loop, and the loop isn't vectorised.
    """
    plain = unwrap(func)
    if config.DISABLE_JIT:
        return plain
    marks = [word for word, there in (("inline", inline), ("apart", apart)) if there]
    full = digest(("njit", key, machine_key(plain), sorted(flags), *marks))
    with global_compiler_lock:
        if full not in _made:
            _made[full] = _Copies(flags).root(plain, full, inline, _Apart if apart else Compiler)
        return _made[full]


class _Apart(Compiler):  # type: ignore[misc, unused-ignore]
    """numba's compiler, with LLVM's `noalias` on the arguments, as numba itself has it for its parallel loops."""

    def __init__(self, typingctx: Any, targetctx: Any, library: Any, args: Any, return_type: Any, flags: Any,
                 locals: Any) -> None:
        flags.noalias = True
        made: Any = super().__init__
        made(typingctx, targetctx, library, args, return_type, flags, locals)


class _Copies:
    """Copies of a function and of the user's functions that it calls, each under a name of its own.

    LLVM finds code by name: without a key in it, two versions of a function that one process loads from the
    caches of two others could be taken for each other.
    """

    def __init__(self, flags: frozenset[str]) -> None:
        self.flags = flags
        self.made: dict[int, CPUDispatcher] = {}
        self.options = {
            "nopython": True,
            "nogil": True,
            "boundscheck": None,
            "error_model": "numpy",
            "fastmath": set(flags) if flags else False,
        }

    def root(self, func: pytypes.FunctionType, key: str, inline: bool, compiler: type[Any]) -> CachedDispatcher:
        copy = _renamed(func, key)
        options = {**self.options, "forceinline": inline}
        dispatcher = CachedDispatcher(copy, targetoptions=options, pipeline_class=compiler)
        dispatcher._cache = _Files(key)
        self.made[id(func)] = dispatcher
        self.fill(func, copy)
        return dispatcher

    def fill(self, func: pytypes.FunctionType, copy: pytypes.FunctionType) -> None:
        """Give the copy its globals and closure; it is in `made` already, as it may call itself."""
        namespace = copy.__globals__
        cells = dict(zip(func.__code__.co_freevars, func.__closure__ or (), strict=True))
        closed: dict[str, Any] = {}
        for kind, name, attributes in syntax.reads(func.__code__):
            if kind == "global" and name in func.__globals__:
                namespace[name] = self.replaced(namespace.get(name, func.__globals__[name]), attributes)
            elif kind == "closure":
                with contextlib.suppress(ValueError):  # an empty cell stays empty
                    old = closed[name] if name in closed else cells[name].cell_contents
                    closed[name] = self.replaced(old, attributes)
        for name, cell in zip(func.__code__.co_freevars, copy.__closure__ or (), strict=True):
            if name in closed:
                cell.cell_contents = closed[name]

    def replaced(self, value: Any, attributes: tuple[str, ...]) -> Any:
        """What stands for a value in compiled code: a compiled copy of a function, else the value itself."""
        if isinstance(value, pytypes.ModuleType):
            inner = getattr(value, attributes[0], None) if attributes else None
            new = self.replaced(inner, attributes[1:])
            if new is inner:
                return value
            proxy = pytypes.ModuleType(value.__name__)
            proxy.__dict__.update(value.__dict__)
            setattr(proxy, attributes[0], new)
            return proxy
        func = unwrap(value)
        jitted = isinstance(value, CPUDispatcher)
        if not isinstance(func, pytypes.FunctionType) or hasattr(value, "_defn") or isinstance(value, np.ufunc):
            return value
        if id(func) in self.made:
            return self.made[id(func)]
        ours = (func.__module__ or "").split(".")[0] in OWN_PACKAGES
        file = func.__code__.co_filename
        if (ours and jitted) or standard(file) or installed(file, func.__module__ or ""):
            return value
        chosen = {**value.targetoptions, "nopython": True} if jitted else self.options
        copy = _renamed(func, digest((machine_key(func), sorted(self.flags), repr(sorted(chosen.items(), key=str)))))
        self.made[id(func)] = CPUDispatcher(copy, targetoptions=chosen)
        self.fill(func, copy)
        return self.made[id(func)]


def _renamed(func: pytypes.FunctionType, key: str) -> pytypes.FunctionType:
    # numba imports the module named here when it loads code, so it must be one that every process has.
    namespace: dict[str, Any] = {"__name__": __name__, "__builtins__": __builtins__}
    cells = tuple(pytypes.CellType() for _ in func.__closure__ or ())
    copy = pytypes.FunctionType(func.__code__, namespace, func.__name__, func.__defaults__, cells or None)
    copy.__qualname__ = f"{func.__qualname__}_{key[:16]}"
    copy.__module__ = __name__
    return copy


class CachedDispatcher(CPUDispatcher):
    """numba's dispatcher, with a lock between processes around each compilation, and a clock."""

    _cache: Any

    def compile(self, sig: Any) -> Any:
        """Compile for a signature, or load it; waits while another process compiles the same."""
        global _seconds, _depth
        with global_compiler_lock:
            started = time.perf_counter()
            _depth += 1
            try:
                files = self._cache
                if not isinstance(files, _Files) or files.has(sig):
                    return super().compile(sig)
                with files.locked(sig):
                    return super().compile(sig)
            finally:
                _depth -= 1
                if _depth == 0:  # compiling one function may compile others inside
                    _seconds += time.perf_counter() - started


class _Files(_Cache):
    """The compiled forms of one function: a file per argument types, with a digest of its content."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.enabled = True

    @property
    def cache_path(self) -> str:
        folder = self._folder()
        return "" if folder is None else str(folder)

    def enable(self) -> None:
        self.enabled = True

    def disable(self) -> None:
        self.enabled = False

    def flush(self) -> None:
        """Remove this function's files."""
        for path in (self._folder() or Path()).glob(f"{self.key}-*"):
            path.unlink(missing_ok=True)

    def has(self, sig: Any) -> bool:
        path = self._path(sig)
        return path is not None and path.exists()

    def _folder(self) -> Path | None:
        root = cache_directory()
        if root is None or not self.enabled:
            return None
        folder = root / platform_tag()
        return folder if made_private(folder) else None

    def _path(self, sig: Any) -> Path | None:
        args = tuple(getattr(sig, "args", sig))
        folder = self._folder() if all(_stable(one) for one in args) else None
        return None if folder is None else folder / f"{self.key}-{digest([_type_text(one) for one in args])[:16]}.code"

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled form for a signature, or None; a broken file counts as none."""
        path = self._path(sig)
        try:
            content = b"" if path is None else read_private(path)
        except FileNotFoundError:
            return None
        head = len(_FORMAT) + 64
        if content[:head] != _FORMAT + hashlib.sha256(content[head:]).hexdigest().encode():
            return None
        try:
            # The folder and the file are this user's alone, and the digest says that it is whole.
            outside, reduced = Unpickler(io.BytesIO(content[head:])).load()
            made_ready(target_context, outside)
            loaded = _rebuild(target_context, *reduced)
        except Exception:  # whatever a stale pickle raises, compiling anew is the answer
            return None
        return loaded if tuple(loaded.signature.args) == tuple(getattr(sig, "args", sig)) else None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Store a compiled form; an unwritable or full disk costs the next process a compilation, no more."""
        global _compiled
        _compiled += 1
        path = self._path(sig)
        if path is None or data.library.has_dynamic_globals or any(not one.can_cache for one in data.lifted):
            return
        content = _dumps((names_outside(data.library), data._reduce()))
        with contextlib.suppress(OSError):
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(_FORMAT + hashlib.sha256(content).hexdigest().encode() + content)
                os.replace(name, path)
            except OSError:
                Path(name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self, sig: Any) -> Iterator[None]:
        """Hold a signature's file lock; after `_LOCK_SECONDS` go on without (compiling twice is harmless)."""
        path = self._path(sig)
        if path is None:
            yield
            return
        try:
            handle = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            yield
            return
        try:
            give_up = time.monotonic() + _LOCK_SECONDS
            while time.monotonic() < give_up:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(0.01)
                except OSError:  # a file system without locks
                    break
            yield
        finally:
            os.close(handle)


@lru_cache(maxsize=1)
def platform_tag() -> str:
    """A name for what machine code depends on besides its source: processor, versions, Python."""
    return digest(
        (
            cpu_target.target_context.codegen().magic_tuple(),
            numba.__version__,
            llvmlite.__version__,
            np.__version__,
            sys.implementation.cache_tag,
            platform.libc_ver(),
        )
    )[:16]


def _type_text(one: Any) -> str:
    """A type's name; named tuples also by their fields."""
    inner = "".join(_type_text(part) for part in getattr(one, "types", ())) if isinstance(one, types.BaseTuple) else ""
    fields = f"{one.instance_class.__module__}{one.fields}" if isinstance(one, types.BaseNamedTuple) else ""
    return f"{one}{getattr(one, 'aligned', '')}{fields}{inner}"


def _stable(one: Any) -> bool:
    """Whether a type is the same in another process: functions as arguments aren't."""
    return "0x" not in str(one) and not isinstance(one, (types.Callable, types.Opaque, types.PyObject))


def __getattr__(name: str) -> Any:
    """Classes of named tuples, made on demand so that a pickle finds them by their fields alone."""
    if not name.startswith("Table__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made: Any = namedtuple(name, name.split("__")[1:])  # type: ignore[misc]
    made.__module__ = __name__
    globals()[name] = made
    return made


def shared_tuple(value: Any) -> Any:
    """A named tuple as one of a class that depends on its fields' names only, so that code is shared."""
    if not hasattr(value, "_fields"):
        return value
    name = "Table__" + "__".join(value._fields)
    if any("__" in field or field.startswith("_") for field in value._fields):
        return value
    made = globals().get(name) or __getattr__(name)
    return made(*(shared_tuple(one) for one in value))
