"""Keys: hashes that change with whatever determines a result, and with nothing else.

`digest` is for plain values; `function_key` for code: a function, every function that it reaches, and the
values that they read. Keys are 32 hexadecimal digits of BLAKE2b.
"""

from __future__ import annotations

import enum
import functools
import importlib
import importlib.metadata
import random
import sys
import sysconfig
import types
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from gridcompute import syntax
from gridcompute.digests import digest, digest_at, explain_difference
from gridcompute.errors import UnkeyableError

__all__ = [
    "digest",
    "distribution",
    "explain_difference",
    "function_key",
    "function_parts",
    "installed",
    "machine_key",
    "standard",
    "unwrap",
]

# These are ours to change between releases, so their code counts, not their version.
OWN_PACKAGES = ("gridcompute", "gridcompute_workloads")


def function_key(func: Any) -> str:
    """Hash a function with everything that it reaches: 32 hexadecimal digits; see `function_parts`."""
    return digest(function_parts(func))


def function_parts(func: Any) -> dict[str, str]:
    """What a function's key is made of, by name, so that two versions can be compared.

    Names are "code of f", "default x of f", "global SCALE", "closure n of f", "flags of g" and "version of
    scipy". Code counts without comments, docstrings, annotations and formatting. All functions are followed
    that are reached by a name that the code reads; of those in the standard library only the name counts, of
    those in installed distributions the name and version (gridcompute's own are followed).

    Raises:
        UnkeyableError: a global or closure holds something that isn't a plain value.
    """
    walk = Walk(syntax.code_text)
    walk.function(unwrap(func), root=True)
    return dict(sorted(walk.parts.items()))


def machine_key(func: Any) -> str:
    """Hash the code objects that are loaded now, and what they read: compiled code is stored under it.

    Unlike `function_key` it never looks at source files, so it can't be misled by an edit that this process
    hasn't imported.
    """
    walk = Walk(lambda one: syntax.instructions(one.__code__))
    walk.function(unwrap(func), root=True)
    return digest(walk.parts)


def unwrap(func: Any) -> Any:
    """The plain function under numba's dispatchers, our kernels and functools' caches."""
    while True:
        if isinstance(func, (types.FunctionType, types.MethodType, functools.partial, type)):
            return func
        inner = next(
            (
                getattr(func, name)
                for name in ("py_func", "_defn", "func", "__wrapped__")
                if isinstance(getattr(func, name, None), types.FunctionType)
            ),
            None,
        )
        if inner is None:
            return func
        func = inner


class Walk:
    """Collects the parts of a function, going through everything that its code reads."""

    def __init__(self, text: Any) -> None:
        self.text = text
        self.parts: dict[str, str] = {}
        self.seen: dict[int, str] = {}
        self.kept: list[object] = []  # ids stay unique only while the objects live

    def name(self, kind: str, what: str) -> str:
        name, count = f"{kind} {what}", 1
        while name in self.parts:
            count += 1
            name = f"{kind} {what} #{count}"
        return name

    def function(self, func: Any, *, root: bool = False) -> str:
        """Add a Python function's parts; gives the name under which its code stands."""
        if id(func) in self.seen:
            return self.seen[id(func)]
        if not isinstance(func, types.FunctionType):
            raise UnkeyableError(f"{func!r} isn't a Python function, so it has no key")
        called = syntax.label(func)
        name = self.name("code of", called)
        self.seen[id(func)] = name
        self.kept.append(func)
        self.parts[name] = digest(self.text(func))
        arguments = func.__code__.co_varnames[: func.__code__.co_argcount]
        defaults = dict(zip(reversed(arguments), reversed(func.__defaults__ or ()), strict=False))
        for argument, value in {**defaults, **(func.__kwdefaults__ or {})}.items():
            self.value(value, f"default {argument} of {called}", called)
        for kind, outside, attributes in sorted(set(syntax.reads(func.__code__))):
            if kind == "import":
                self.local_import(func, outside, attributes, called)
            else:
                label = f"global {outside}" if kind == "global" else f"closure {outside} of {called}"
                found = self.lookup(func, kind, outside, called)
                if found is not None:
                    self.chain(found[0], label, attributes, called)
        return name

    def lookup(self, func: types.FunctionType, kind: str, name: str, called: str) -> tuple[Any] | None:
        """The value of a name, in a tuple; None for Python's own names."""
        if kind == "closure":
            cell = dict(zip(func.__code__.co_freevars, func.__closure__ or (), strict=True))[name]
            try:
                return (cell.cell_contents,)
            except ValueError:
                raise UnkeyableError(f"{called} reads {name!r}, which has no value yet") from None
        if name in func.__globals__:
            return (func.__globals__[name],)
        if hasattr(importlib.import_module("builtins"), name):
            return None
        raise UnkeyableError(
            f"{called} reads the global {name!r}, which isn't defined",
            hint="define it before the kernel is used",
        )

    def chain(self, value: Any, label: str, attributes: tuple[str, ...], called: str) -> None:
        """Follow attributes of modules (`module.f`), then add what they lead to."""
        module = None
        for attribute in attributes:
            if not isinstance(value, types.ModuleType):
                break
            if not hasattr(value, attribute):
                raise UnkeyableError(f"{called} reads {label.split(' ')[1]}.{attribute}, which isn't there")
            module, value, label = value, getattr(value, attribute), f"{label}.{attribute}"
        if isinstance(value, types.ModuleType):
            raise UnkeyableError(
                f"{called} passes on the module {value.__name__} as a value ({label})",
                hint="name what it needs of it: module.function",
            )
        try:
            self.value(value, label, called)
        except UnkeyableError:
            if isinstance(getattr(value, "__self__", None), (random.Random, np.random.RandomState)):
                raise UnkeyableError(
                    f"{called} draws by {label}, so no two runs would give the same",
                    hint="take a last argument rng: its numbers follow from the seed and the cell",
                ) from None
            if module is None or not _foreign(module.__name__, getattr(module, "__file__", None) or ""):
                raise
            # A constant of an installed module, such as np.s_: its version says what it is.
            self.put(label, f"{module.__name__}.{label.rsplit('.', 1)[-1]}", called)
            self.version(module.__name__)

    def local_import(self, func: types.FunctionType, module: str, names: tuple[str, ...], called: str) -> None:
        """Imports inside a function: of installed packages the version, else the named things."""
        top = module.split(".")[0]
        if top in sys.stdlib_module_names:
            return
        try:
            loaded = importlib.import_module(module)
        except ImportError as error:
            raise UnkeyableError(f"{called} imports {module}: {error}") from None
        if installed(getattr(loaded, "__file__", None) or "", loaded.__name__):
            self.version(loaded.__name__)
        elif names:
            for name in names:
                self.chain(loaded, f"global {module}", (name,), called)
        else:
            raise UnkeyableError(
                f"{called} imports the whole module {module} inside the function",
                hint=f"import it at the top of the file, or say: from {module} import ...",
            )

    def value(self, value: Any, label: str, called: str) -> None:
        """Add anything a name may stand for."""
        inner = unwrap(value)
        if isinstance(inner, types.FunctionType) and not isinstance(getattr(value, "key", None), str):
            self.reached(inner, value, label, called)
        elif isinstance(value, functools.partial):
            self.value(value.func, label, called)
            self.parts[self.name(label, "arguments")] = digest_at((value.args, value.keywords), label)
        elif isinstance(value, type):
            self.type(value, label, called)
        elif (
            isinstance(value, (types.BuiltinFunctionType, np.ufunc))
            or _named(value)
            or type(value).__module__.startswith("numba.")
        ):
            self.foreign(value, label, called)
        else:
            try:
                hashed = digest_at(value, label)
            except UnkeyableError as error:
                raise UnkeyableError(
                    f"{called} reads {label}: {error.message}", hint="pass it as a parameter of the kernel"
                ) from None
            self.put_digest(label, hashed, called)

    def put(self, label: str, value: object, called: str) -> None:
        """Add a part; where another function reads something else of that name, under the reader's name too."""
        self.put_digest(label, digest_at(value, label), called)

    def put_digest(self, label: str, hashed: str, called: str) -> None:
        """As `put`, of a digest."""
        if self.parts.setdefault(label, hashed) != hashed:
            self.parts[self.name(label, "of " + called)] = hashed

    def reached(self, func: types.FunctionType, value: Any, label: str, called: str) -> None:
        """Add a function that a name stands for: by its code, or by name and version."""
        top = (func.__module__ or "").split(".")[0]
        if top not in OWN_PACKAGES and installed(func.__code__.co_filename, func.__module__ or ""):
            self.put(label, f"{func.__module__}.{func.__qualname__}", called)
            self.version(func.__module__ or "")
            return
        if standard(func.__code__.co_filename):
            self.put(label, f"{func.__module__}.{func.__qualname__}", called)
            return
        name = self.function(func)
        # Which function a name stands for: two may swap their names.
        self.parts[self.name(label, "stands for")] = digest(name)
        flags = {
            key: kept
            for key, kept in getattr(value, "targetoptions", {}).items()
            if key in ("fastmath", "error_model", "boundscheck", "parallel") and kept
        }
        if flags:
            self.parts[name.replace("code of", "flags of", 1)] = digest(
                {key: sorted(kept) if isinstance(kept, (set, frozenset)) else str(kept) for key, kept in flags.items()}
            )

    def type(self, value: type, label: str, called: str) -> None:
        """Add a class: by name if Python's or installed; an enum's members, a tuple's fields, else code."""
        if issubclass(value, enum.Enum):
            self.put(label, {one.name: one.value for one in value}, called)
        elif issubclass(value, tuple) and hasattr(value, "_fields"):
            defaults = getattr(value, "_field_defaults", {})
            self.put(label, (value.__qualname__, value._fields, defaults), called)
        elif value.__module__.split(".")[0] in sys.stdlib_module_names:
            self.put(label, f"{value.__module__}.{value.__qualname__}", called)
        elif installed(syntax.source_file(value), value.__module__) or value.__module__.split(".")[0] == "numpy":
            self.put(label, f"{value.__module__}.{value.__qualname__}", called)
            self.version(value.__module__)
        elif id(value) in self.seen:
            self.put(label, self.seen[id(value)], called)
        else:
            self.seen[id(value)] = label
            self.kept.append(value)
            self.put(label, [f"{base.__module__}.{base.__qualname__}" for base in value.__mro__[1:]], called)
            for name, member in _members(value):
                self.value(member, f"{label}.{name}", called)

    def foreign(self, value: Any, label: str, called: str) -> None:
        """Add a compiled function by name and version, or by the file that it lies in."""
        module = getattr(value, "__module__", None) or type(value).__module__
        if isinstance(value, np.ufunc):  # these don't say where they are from: scipy has some too
            module = "numpy" if getattr(np, value.__name__, None) is value else _extension_of(value)
        owner = getattr(value, "__self__", None)
        if owner is not None and not isinstance(owner, types.ModuleType):
            raise UnkeyableError(
                f"{called} reads {label}: a method bound to a {type(owner).__qualname__}",
                hint="pass the object as a parameter of the kernel",
            )
        named = getattr(value, "__qualname__", None) or getattr(value, "__name__", None) or str(value)
        self.put(label, f"{module}.{named}", called)
        if module.split(".")[0] in sys.stdlib_module_names:
            return
        file = getattr(sys.modules.get(module), "__file__", None) or ""
        if installed(file, module):
            self.version(module)
        elif file:
            self.parts[f"file of {module}"] = digest(Path(file).read_bytes())
        else:
            raise UnkeyableError(f"{called} reads {label}: {named} of module {module}, whose code can't be found")

    def version(self, module: str) -> None:
        name, version = distribution(module.split(".")[0])
        self.parts[f"version of {name}"] = digest(version)


def _foreign(module: str, file: str) -> bool:
    return module.split(".")[0] in sys.stdlib_module_names or installed(file, module)


def _named(value: Any) -> bool:
    """Whether a callable of Python or of an installed distribution is known by its name: np.where, a Cython one."""
    module = getattr(value, "__module__", None)
    if not (callable(value) and isinstance(getattr(value, "__name__", None), str) and isinstance(module, str)):
        return False
    return _foreign(module, getattr(sys.modules.get(module), "__file__", None) or "")


def _extension_of(value: Any) -> str:
    """The compiled module that defines a function which doesn't say so itself."""
    found = [
        name
        for name, one in list(sys.modules.items())
        if str(getattr(one, "__file__", "")).endswith(".so") and vars(one).get(value.__name__) is value
    ]
    return min(found, default="numpy")


def _members(owner: type) -> Iterator[tuple[str, Any]]:
    for base in reversed(owner.__mro__[:-1]):
        if standard(syntax.source_file(base)) or base.__module__.split(".")[0] in sys.stdlib_module_names:
            continue
        for name, member in sorted(vars(base).items()):
            if name in (
                "__dict__",
                "__weakref__",
                "__module__",
                "__doc__",
                "__annotations__",
                "__firstlineno__",
                "__static_attributes__",
                "__dataclass_fields__",
                "__dataclass_params__",
                "__annotate__",
                "__qualname__",
                "__slots__",
            ) or isinstance(member, types.MemberDescriptorType):
                continue
            if isinstance(member, property):
                yield from ((f"{name}.{one.__name__}", one) for one in (member.fget, member.fset) if one is not None)
            else:
                yield name, member.__func__ if isinstance(member, (staticmethod, classmethod)) else member


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


@lru_cache(maxsize=256)
def distribution(top: str) -> tuple[str, str]:
    """Name and version of the installed distribution that has a top-level module."""
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
