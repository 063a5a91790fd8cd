"""Keys: hashes that change with whatever determines a result, and with nothing else.

`digest` is for plain values; `function_key` for code: a function, every function that it reaches, and the values
that they read. Keys are 32 hexadecimal digits of BLAKE2b.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import importlib
import importlib.metadata
import struct
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from gridcompute import syntax
from gridcompute.errors import UnkeyableError

# These are ours to change between releases, so their code counts, not their version.
OWN_PACKAGES = ("gridcompute", "gridcompute_workloads")


def digest(value: object) -> str:
    """Hash a nested plain value: 32 hexadecimal digits, the same in every process and on every machine.

    Takes None, bool, int, float and complex (by their bits), str, bytes, tuples, lists, dicts (in any order), sets,
    enum members, NumPy scalars, dtypes and arrays (by content, dtype and shape), dataclass instances, and
    objects with a `key` (text, or a method giving one). Values of different types never share a digest.

    Raises:
        UnkeyableError: something else is inside; the message names the path to it.
    """
    state = _Hash()
    state.add(value, "the value")
    return state.blake.hexdigest()


class _Hash:
    """Feeds a value to BLAKE2b as tag, length and content, so that no two values share their bytes."""

    def __init__(self) -> None:
        self.blake = hashlib.blake2b(digest_size=16)
        self.open: set[int] = set()

    def put(self, tag: str, content: Any = b"") -> None:
        size = memoryview(content).nbytes
        self.blake.update(f"{tag}:{size}:".encode())
        self.blake.update(content)

    def add(self, value: Any, path: str) -> None:
        kind = type(value)
        if value is None or kind is bool or kind is int or value is Ellipsis:
            self.put(kind.__name__, repr(value).encode())
        elif kind is float:
            self.put("float", struct.pack("<d", value))
        elif kind is complex:
            self.put("complex", struct.pack("<2d", value.real, value.imag))
        elif kind is str:
            self.put("str", value.encode("utf-8", "surrogatepass"))
        elif kind in (bytes, bytearray):
            self.put("bytes", bytes(value))
        elif isinstance(value, np.generic) and not value.dtype.hasobject:
            self.put("scalar", f"{value.dtype.str}{value.dtype.descr if value.dtype.names else ''}".encode())
            self.put("bits", value.tobytes())
        elif isinstance(value, np.dtype):
            self.put("dtype", f"{value.str}{value.descr if value.names else ''}".encode())
        elif kind in (np.ndarray, np.memmap):
            self.array(value, path)
        elif isinstance(value, enum.Enum):
            self.put("enum", f"{kind.__module__}.{kind.__qualname__}.{value.name}".encode())
            self.add(value.value, f"{path}.value")
        else:
            self.nested(value, path)

    def array(self, value: np.ndarray[Any, Any], path: str) -> None:
        if value.dtype.hasobject:
            self.put("objects", repr(value.shape).encode())
            self.items(value.ravel().tolist(), path, value)
            return
        self.put("array", f"{value.dtype.str}{value.dtype.descr if value.dtype.names else ''}{value.shape}".encode())
        self.put("content", np.ascontiguousarray(value).reshape(-1).view(np.uint8) if value.size else b"")

    def nested(self, value: Any, path: str) -> None:
        if isinstance(value, tuple):  # named ones included: their fields' names count
            fields = getattr(value, "_fields", ())
            named = f"{type(value).__qualname__}{fields}" if type(value) is not tuple else ""
            self.put("tuple", f"{len(value)}{named}".encode())
            self.items(value, path, value)
        elif type(value) is list:
            self.put("list", str(len(value)).encode())
            self.items(value, path, value)
        elif isinstance(value, (dict, types.MappingProxyType)):
            self.put("dict", str(len(value)).encode())
            keyed = ((digest_at(key, f"a key of {path}"), key) for key in value)
            for hashed, key in sorted(keyed, key=lambda pair: pair[0]):
                self.put("key", hashed.encode())
                self.items([value[key]], f"{path}[{key!r}]", value, numbered=False)
        elif isinstance(value, (set, frozenset)):
            self.put("set", str(len(value)).encode())
            for hashed in sorted(digest_at(one, f"a member of {path}") for one in value):
                self.put("member", hashed.encode())
        elif isinstance(getattr(value, "key", None), str):
            self.put("keyed", f"{type(value).__qualname__}:{value.key}".encode())
        elif not isinstance(value, type) and isinstance(getattr(type(value), "key", None), types.FunctionType):
            self.put("keyed", f"{type(value).__qualname__}:{value.key()}".encode())
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            self.put("dataclass", f"{type(value).__module__}.{type(value).__qualname__}".encode())
            for one in dataclasses.fields(value):
                self.put("field", one.name.encode())
                self.items([getattr(value, one.name)], f"{path}.{one.name}", value, numbered=False)
        else:
            raise UnkeyableError(f"{path} is a {type(value).__module__}.{type(value).__qualname__}: its content can't "
                                 "enter a key", hint="use numbers, strings, tuples, dicts, arrays or dataclasses of them")

    def items(self, values: Iterable[Any], path: str, owner: object, *, numbered: bool = True) -> None:
        if id(owner) in self.open:
            raise UnkeyableError(f"{path} contains itself, so it has no key")
        self.open.add(id(owner))
        for i, one in enumerate(values):
            self.add(one, f"{path}[{i}]" if numbered else path)
        self.open.discard(id(owner))


def digest_at(value: object, path: str) -> str:
    """`digest` of a value that an error message is to call `path`."""
    state = _Hash()
    state.add(value, path)
    return state.blake.hexdigest()


def function_key(func: Any) -> str:
    """Hash a function with everything that it reaches: 32 hexadecimal digits; see `function_parts`."""
    return digest(function_parts(func))


def function_parts(func: Any) -> dict[str, str]:
    """What a function's key is made of, by name, so that two versions can be compared.

    Names are "code of f", "default x of f", "global SCALE", "closure n of f", "flags of g", "version of scipy". Code
    counts without comments, docstrings, annotations and formatting. Followed are all functions that are
    reached by a name that the code reads, outside the standard library and installed distributions; of those,
    the version counts (gridcompute's own are followed).

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


def explain_difference(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """What changed between two functions' parts, one line each, sorted; empty if nothing did."""
    lines = [f"{name} changed" for name in old if name in new and old[name] != new[name]]
    lines += [f"{name} is no longer used" for name in old if name not in new]
    lines += [f"{name} is new" for name in new if name not in old]
    return sorted(lines)


def unwrap(func: Any) -> Any:
    """The plain function under numba's dispatchers, our kernels and functools' caches."""
    while True:
        if isinstance(func, (types.FunctionType, types.MethodType, functools.partial, type)):
            return func
        inner = next((getattr(func, name) for name in ("py_func", "_defn", "func", "__wrapped__")
                      if isinstance(getattr(func, name, None), types.FunctionType)), None)
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
        raise UnkeyableError(f"{called} reads the global {name!r}, which isn't defined",
                             hint="define it before the kernel is used")

    def chain(self, value: Any, label: str, attributes: tuple[str, ...], called: str) -> None:
        """Follow attributes of modules (`module.f`), then add what they lead to."""
        for attribute in attributes:
            if not isinstance(value, types.ModuleType):
                break
            if not hasattr(value, attribute):
                raise UnkeyableError(f"{called} reads {label.split(' ')[1]}.{attribute}, which isn't there")
            value, label = getattr(value, attribute), f"{label}.{attribute}"
        if isinstance(value, types.ModuleType):
            raise UnkeyableError(f"{called} passes on the module {value.__name__} as a value ({label})",
                                 hint="name what it needs of it: module.function")
        self.value(value, label, called)

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
            raise UnkeyableError(f"{called} imports the whole module {module} inside the function",
                                 hint=f"import it at the top of the file, or say: from {module} import ...")

    def value(self, value: Any, label: str, called: str) -> None:
        """Add anything a name may stand for."""
        inner = unwrap(value)
        if isinstance(inner, types.FunctionType) and not isinstance(getattr(value, "key", None), str):
            self.reached(inner, value, label)
        elif isinstance(value, functools.partial):
            self.value(value.func, label, called)
            self.parts[self.name(label, "arguments")] = digest_at((value.args, value.keywords), label)
        elif isinstance(value, type):
            self.type(value, label, called)
        elif isinstance(value, (types.BuiltinFunctionType, np.ufunc)) or type(value).__module__.startswith("numba."):
            self.foreign(value, label, called)
        else:
            try:
                hashed = digest_at(value, label)
            except UnkeyableError as error:
                raise UnkeyableError(f"{called} reads {label}: {error.message}",
                                     hint="pass it as a parameter of the kernel") from None
            if self.parts.setdefault(label, hashed) != hashed:
                self.parts[self.name(label, "of " + called)] = hashed

    def reached(self, func: types.FunctionType, value: Any, label: str) -> None:
        top = (func.__module__ or "").split(".")[0]
        if top not in OWN_PACKAGES and installed(func.__code__.co_filename, func.__module__ or ""):
            self.parts.setdefault(label, digest(f"{func.__module__}.{func.__qualname__}"))
            self.version(func.__module__ or "")
            return
        if standard(func.__code__.co_filename):
            self.parts.setdefault(label, digest(f"{func.__module__}.{func.__qualname__}"))
            return
        name = self.function(func)
        # Which function a name stands for: two may swap their names.
        self.parts[self.name(label, "stands for")] = digest(name)
        flags = {key: kept for key, kept in getattr(value, "targetoptions", {}).items()
                 if key in ("fastmath", "error_model", "boundscheck", "parallel") and kept}
        if flags:
            self.parts[name.replace("code of", "flags of", 1)] = digest(
                {key: sorted(kept) if isinstance(kept, (set, frozenset)) else str(kept) for key, kept in flags.items()})

    def type(self, value: type, label: str, called: str) -> None:
        """Add a class: by name if it is Python's or installed; members of enums, fields of named tuples, else code."""
        if issubclass(value, enum.Enum):
            self.parts[label] = digest_at({one.name: one.value for one in value}, label)
        elif issubclass(value, tuple) and hasattr(value, "_fields"):
            defaults = getattr(value, "_field_defaults", {})
            self.parts[label] = digest_at((value.__qualname__, value._fields, defaults), label)
        elif value.__module__.split(".")[0] in sys.stdlib_module_names:
            self.parts[label] = digest(f"{value.__module__}.{value.__qualname__}")
        elif installed(syntax.source_file(value), value.__module__) or value.__module__.split(".")[0] == "numpy":
            self.parts[label] = digest(f"{value.__module__}.{value.__qualname__}")
            self.version(value.__module__)
        elif id(value) not in self.seen:
            self.seen[id(value)] = label
            self.kept.append(value)
            self.parts[label] = digest([f"{base.__module__}.{base.__qualname__}" for base in value.__mro__[1:]])
            for name, member in _members(value):
                self.value(member, f"{label}.{name}", called)

    def foreign(self, value: Any, label: str, called: str) -> None:
        """Add a compiled function by name and version, or by the file that it lies in."""
        module = getattr(value, "__module__", None) or type(value).__module__
        if isinstance(value, np.ufunc):
            module = "numpy"
        owner = getattr(value, "__self__", None)
        if owner is not None and not isinstance(owner, types.ModuleType):
            raise UnkeyableError(f"{called} reads {label}: a method bound to a {type(owner).__qualname__}",
                                 hint="pass the object as a parameter of the kernel")
        named = getattr(value, "__qualname__", None) or getattr(value, "__name__", None) or str(value)
        self.parts[label] = digest(f"{module}.{named}")
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


def _members(owner: type) -> Iterator[tuple[str, Any]]:
    for base in reversed(owner.__mro__[:-1]):
        if standard(syntax.source_file(base)) or base.__module__.split(".")[0] in sys.stdlib_module_names:
            continue
        for name, member in sorted(vars(base).items()):
            if name in ("__dict__", "__weakref__", "__module__", "__doc__", "__annotations__", "__firstlineno__",
                        "__static_attributes__", "__dataclass_fields__", "__dataclass_params__", "__annotate__",
                        "__qualname__", "__slots__") or isinstance(member, types.MemberDescriptorType):
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
        raise UnkeyableError(f"module {top} lies among installed packages, but belongs to none of them",
                             hint="install it as a package, or move it beside the script")
    return names[0], importlib.metadata.version(names[0])
