"""Keys: hashes that change with whatever determines a result, and with nothing else.

`digest` is for plain values; `function_key` for code: a function, every function that it reaches, and the
values that they read. Keys are 32 hexadecimal digits of BLAKE2b.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import importlib
import random
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

from gridcompute import syntax
from gridcompute.behind import classes, members, of_user, overloads, unwrap, wrapped
from gridcompute.digests import digest, digest_at, explain_difference
from gridcompute.errors import UnkeyableError
from gridcompute.installs import OWN_PACKAGES, distribution, extension_of, foreign, installed, known_by_name, standard

__all__ = [
    "OWN_PACKAGES",
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

_SAID = ("__doc__", "__name__", "__qualname__")
"""What code may ask of a function and the key of the function's code leaves out."""
_HIDING = ("globals", "locals", "vars", "eval", "exec")
"""Python's own functions through which code reads names that it doesn't show."""

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
    return dict(sorted(_parts(func, syntax.code_text).items()))


def machine_key(func: Any) -> str:
    """Hash the code objects that are loaded now, and what they read: compiled code is stored under it.

    Unlike `function_key` it never looks at source files, so it can't be misled by an edit that this process
    hasn't imported.
    """
    return digest(_parts(func, lambda one: syntax.instructions(one.__code__)))


def _parts(func: Any, text: Any) -> dict[str, str]:
    walk, root = Walk(text), unwrap(func)
    try:
        walk.function(root)
    except UnkeyableError as error:
        module = getattr(root, "__globals__", {}).get("__name__") or ""
        if foreign(module) and next(wrapped(root), None) is not None:
            raise UnkeyableError(f"{root.__name__} is decorated by code of {module}, whose arguments enter no key",
                                 hint="use it inside the function, as in: with np.errstate(...):") from error
        raise
    return walk.parts


class Walk:
    """Collects the parts of a function, going through everything that its code reads."""

    def __init__(self, text: Any) -> None:
        self.text = text
        self.parts: dict[str, str] = {}
        self.seen: dict[int, str] = {}
        self.behind: set[int] = set()
        self.kept: list[object] = []  # ids stay unique only while the objects live

    def name(self, kind: str, what: str) -> str:
        name, count = f"{kind} {what}", 1
        while name in self.parts:
            count += 1
            name = f"{kind} {what} #{count}"
        return name

    def function(self, func: Any) -> str:
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
        if name in _HIDING:
            raise UnkeyableError(f"{called} calls {name}(), and no key sees what is read through it",
                                 hint="name what it needs, or pass it as a parameter of the kernel")
        if hasattr(importlib.import_module("builtins"), name):
            return None
        raise UnkeyableError(
            f"{called} reads the global {name!r}, which isn't defined",
            hint="define it before the kernel is used",
        )

    def chain(self, value: Any, label: str, attributes: tuple[str, ...], called: str) -> None:
        """Follow attributes of modules (`module.f`), then add what they lead to."""
        module = None
        while attributes and isinstance(value, types.ModuleType):
            attribute = attributes[0]
            if not hasattr(value, attribute):
                raise UnkeyableError(f"{called} reads {label.split(' ')[1]}.{attribute}, which isn't there")
            module, value, label = value, getattr(value, attribute), f"{label}.{attribute}"
            attributes = attributes[1:]
        if isinstance(value, types.FunctionType) and attributes:
            first = attributes[0]
            if first in vars(value):
                self.value(vars(value)[first], f"{label}.{first}", called)
            elif first in _SAID:  # code counts without these
                self.put(f"{label}.{first}", getattr(value, first), called)
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
            if module is None or not foreign(module.__name__, getattr(module, "__file__", None) or ""):
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
        if isinstance(value, functools.partial | functools.partialmethod):
            self.value(value.func, label, called)
            self.parts[self.name(label, "arguments")] = digest_at((value.args, value.keywords), label)
        elif isinstance(inner, types.FunctionType) and not isinstance(getattr(value, "key", None), str):
            self.reached(inner, value, label, called)
        elif isinstance(value, type):
            self.type(value, label, called)
        elif (
            isinstance(value, (types.BuiltinFunctionType, np.ufunc))
            or (known_by_name(value) and not of_user(value))
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
            ours = type(value).__module__.split(".")[0] in OWN_PACKAGES
            kernel = ours and isinstance(getattr(value, "key", None), str)  # whose key says it all
            for kind in () if kernel else classes(value):  # what it holds may be asked by its methods
                if id(kind) not in self.seen:
                    self.type(kind, f"class {kind.__qualname__}", called)

    def put(self, label: str, value: object, called: str) -> None:
        """Add a part; where another function reads something else of that name, under the reader's name too."""
        self.put_digest(label, digest_at(value, label), called)

    def put_digest(self, label: str, hashed: str, called: str) -> None:
        """As `put`, of a digest."""
        if self.parts.setdefault(label, hashed) != hashed:
            self.parts[self.name(label, "of " + called)] = hashed

    def reached(self, func: types.FunctionType, value: Any, label: str, called: str) -> None:
        """Add a function that a name stands for: by its code, or by name and version."""
        module = func.__globals__.get("__name__") or ""  # a decorator's wrapper says that it is of the wrapped one's
        from_elsewhere = module.split(".")[0] not in OWN_PACKAGES and installed(func.__code__.co_filename, module)
        if from_elsewhere or standard(func.__code__.co_filename):
            self.put(label, f"{module}.{func.__qualname__}", called)
            if from_elsewhere:
                self.version(module)
            self.also(func, label, called)
            return
        for one in overloads(func):
            raise UnkeyableError(f"{called} calls {label}, in whose place numba would compile {one.__name__}",
                                 hint=f"write {func.__name__} itself as the kernel needs it, and drop the overload")
        name = self.function(func)
        self.also(func, label, called)
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

    def also(self, func: Any, label: str, called: str) -> None:
        """Add what is called where a function is named: what it wraps, if it is a foreign one, and its overloads."""
        if id(func) in self.behind:
            return
        self.behind.add(id(func))
        self.kept.append(func)
        own = isinstance(func, types.FunctionType) and not standard(func.__code__.co_filename) and not installed(
            func.__code__.co_filename, func.__globals__.get("__name__") or "")
        for what, found in (("wrapped by", () if own else wrapped(func)), ("overload of", overloads(func))):
            for one in found:
                self.value(one, f"{what} {label}", called)

    def type(self, value: type, label: str, called: str) -> None:
        """Add a class: by name if Python's or installed; an enum's members, a tuple's fields, else code."""
        if value.__module__.split(".")[0] in sys.stdlib_module_names and value.__module__ != "__main__":
            self.put(label, f"{value.__module__}.{value.__qualname__}", called)
        elif installed(syntax.source_file(value), value.__module__) or value.__module__.split(".")[0] == "numpy":
            self.put(label, f"{value.__module__}.{value.__qualname__}", called)
            self.version(value.__module__)
        elif id(value) in self.seen:
            self.put(label, self.seen[id(value)], called)
        else:
            self.seen[id(value)] = label
            self.kept.append(value)
            self.put(label, _shape(value), called)
            if type(type(value)) is type and not foreign(type(value).__module__):
                self.type(type(value), f"{label}'s metaclass", called)
            for name, member in members(value):
                self.value(member, f"{label}.{name}", called)

    def foreign(self, value: Any, label: str, called: str) -> None:
        """Add a compiled function by name and version, or by the file that it lies in."""
        module = getattr(value, "__module__", None) or type(value).__module__
        if isinstance(value, np.ufunc):  # these don't say where they are from: scipy has some too
            if value.__name__.endswith(" (vectorized)"):
                raise UnkeyableError(f"{called} reads {label}: a ufunc of a Python function, whose code can't be found",
                                     hint="call the function itself, or numba.vectorize it")
            module = "numpy" if getattr(np, value.__name__, None) is value else extension_of(value)
        owner = getattr(value, "__self__", None)
        if owner is not None and not isinstance(owner, types.ModuleType):
            raise UnkeyableError(
                f"{called} reads {label}: a method bound to a {type(owner).__qualname__}",
                hint="pass the object as a parameter of the kernel",
            )
        self.also(value, label, called)
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


def _shape(value: type) -> object:
    """What a class is beside its code: an enum's members, the fields of a tuple or dataclass, its bases."""
    if issubclass(value, enum.Enum):
        return {one.name: one.value for one in value}
    if issubclass(value, tuple) and hasattr(value, "_fields"):
        return (value.__qualname__, value._fields, getattr(value, "_field_defaults", {}))
    bases = [f"{base.__module__}.{base.__qualname__}" for base in value.__mro__[1:]]
    if not dataclasses.is_dataclass(value):
        return bases
    return bases, [(field.name, field.init, bool(field.kw_only)) for field in dataclasses.fields(value)]
