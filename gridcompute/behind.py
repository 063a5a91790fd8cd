"""Code that a value brings with it without naming it: what a decorator wraps, an instance's class, an overload."""

from __future__ import annotations

import dataclasses
import enum
import functools
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

from gridcompute.installs import OWN_PACKAGES, installed, standard

_GENERATED = (
    "__dict__", "__weakref__", "__module__", "__doc__", "__annotations__", "__firstlineno__", "__static_attributes__",
    "__dataclass_fields__", "__dataclass_params__", "__annotate__", "__qualname__", "__slots__", "_abc_impl",
)  # fmt: skip


def unwrap(func: Any) -> Any:
    """The plain function under numba's dispatchers, our kernels and functools' caches.

    An instance of a user's own class stays what it is: its class may do anything with the function it holds.
    """
    while True:
        if isinstance(func, (types.FunctionType, types.MethodType, functools.partial, type)):
            return func
        if of_user(func):
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


def of_user(value: Any) -> bool:
    """Whether a value is an instance of a class that the user wrote."""
    if type(value).__module__.split(".")[0] in OWN_PACKAGES:
        return False
    made = [member for base in type(value).__mro__ for member in vars(base).values()]
    return any(isinstance(member, types.FunctionType) and _own(member) for member in made)


def wrapped(value: Any) -> Iterator[Any]:
    """The user's own functions that a foreign one calls: in its closure, under `__wrapped__`, registered with it."""
    held = [getattr(value, name, None) for name in ("__wrapped__", "pyfunc", "registry")]
    for cell in getattr(value, "__closure__", None) or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:
            continue
    for one in list(held):
        held += one.values() if isinstance(one, Mapping) else one if isinstance(one, tuple | list) else ()
    seen: set[int] = set()
    for one in held:
        inner = unwrap(one)
        if isinstance(inner, types.FunctionType) and id(inner) not in seen and _own(inner):
            seen.add(id(inner))
            yield one


def _own(func: types.FunctionType) -> bool:
    file = func.__code__.co_filename
    return not standard(file) and not installed(file, func.__globals__.get("__name__", ""))


def overloads(func: Any) -> Iterator[types.FunctionType]:
    """The user's own functions that numba compiles in place of one (`numba.extending.overload`)."""
    templates = sys.modules.get("numba.core.typing.templates")
    if templates is None:
        return
    for known, kind in list(templates.builtin_registry.globals):
        if known is func:
            made = [getattr(one, "_overload_func", None) for one in getattr(kind, "templates", ())]
            yield from (one for one in made if isinstance(one, types.FunctionType) and _own(one))


def classes(value: Any) -> Iterator[type]:
    """The user's own classes whose instances are in a plain value: dataclasses, named tuples, enum members."""
    kind = type(value)
    if kind.__module__ != "builtins" and (
        isinstance(value, enum.Enum) or dataclasses.is_dataclass(kind) or hasattr(kind, "_fields")
    ):
        yield kind
    if isinstance(value, Mapping):
        inside = [*value, *value.values()]
    elif isinstance(value, tuple | list | set | frozenset):
        inside = list(value)
    else:
        inside = [getattr(value, f.name) for f in dataclasses.fields(value)] if dataclasses.is_dataclass(kind) else []
    for one in inside:
        yield from classes(one)


def members(owner: type) -> Iterator[tuple[str, Any]]:
    """What a class and its bases from outside the standard library define, by name, in a fixed order."""
    plain = issubclass(owner, enum.Enum) or (issubclass(owner, tuple) and hasattr(owner, "_fields"))
    for base in reversed(owner.__mro__[:-1]):
        if base.__module__.split(".")[0] in sys.stdlib_module_names:
            continue
        for name, member in sorted(vars(base).items()):
            if name in _GENERATED or isinstance(member, types.MemberDescriptorType):
                continue
            if isinstance(member, property):
                yield from ((f"{name}.{one.__name__}", one) for one in (member.fget, member.fset) if one is not None)
                continue
            inner = member.__func__ if isinstance(member, (staticmethod, classmethod)) else member
            if not (plain and _made(owner, name, unwrap(inner))) and not _initialiser(owner, inner):
                yield name, inner
    if dataclasses.is_dataclass(owner):
        for field in dataclasses.fields(owner):
            if field.default_factory is not dataclasses.MISSING:
                yield f"{field.name} by default", field.default_factory


def _made(owner: type, name: str, member: Any) -> bool:
    """Whether enum or namedtuple made a member: its values are in the class's key already."""
    if isinstance(member, types.FunctionType):
        file = member.__code__.co_filename
        return standard(file) or (file == "<string>" and name.startswith("_"))
    return name.startswith("_") or isinstance(member, owner) or not isinstance(member, int | float | str | tuple)


def _initialiser(owner: type, member: Any) -> bool:
    """Whether a member is a dataclass's own, whose defaults may stand for factories: its fields say the same."""
    return (dataclasses.is_dataclass(owner) and isinstance(member, types.FunctionType)
            and member.__name__ == "__init__" and member.__code__.co_filename == "<string>")
