"""Hashes of plain values: the same in every process and on every machine, different for different values."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import struct
import types
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gridcompute.errors import UnkeyableError


def digest(value: object) -> str:
    """Hash a nested plain value: 32 hexadecimal digits, the same in every process and on every machine.

    Takes None, bool, int, float and complex (by their bits), str, bytes, tuples, lists, dicts (in any order),
    sets, enum members, NumPy scalars, dtypes and arrays (by content, dtype and shape), dataclass instances,
    and objects with a `key` (text, or a method giving one). Values of different types never share a digest.

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
        self.put(
            "array",
            f"{value.dtype.str}{value.dtype.descr if value.dtype.names else ''}{value.shape}".encode(),
        )
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
        elif isinstance(getattr(value, "key", None), str) and "key" not in getattr(value, "__dataclass_fields__", ()):
            self.put("keyed", f"{type(value).__qualname__}:{value.key}".encode())
        elif not isinstance(value, type) and isinstance(getattr(type(value), "key", None), types.FunctionType):
            self.put("keyed", f"{type(value).__qualname__}:{value.key()}".encode())
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            self.put("dataclass", f"{type(value).__module__}.{type(value).__qualname__}".encode())
            for one in dataclasses.fields(value):
                self.put("field", one.name.encode())
                self.items([getattr(value, one.name)], f"{path}.{one.name}", value, numbered=False)
        else:
            raise UnkeyableError(
                f"{path} is a {type(value).__module__}.{type(value).__qualname__}: its content can't enter a key",
                hint="use numbers, strings, tuples, dicts, arrays or dataclasses of them",
            )

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


IN_WORDS = "= "
"""What a part begins with that is kept as it is read, not as a digest."""


def in_words(value: object) -> str:
    """A part of a key as an explanation shows it: a plain number as it is, of anything else the digest.

    >>> in_words(3)
    '= 3'
    """
    plain = value.item() if isinstance(value, np.generic) else value
    return f"{IN_WORDS}{plain!r}" if isinstance(plain, bool | int | float) else digest(value)


def explain_difference(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """What changed between two functions' parts, one line each, sorted; empty if nothing did.

    >>> explain_difference({"parameter limit": "= 3"}, {"parameter limit": "= 4"})
    ['parameter limit changed from 3 to 4']
    """
    both = [name for name in old if name in new and old[name] != new[name]]
    lines = [f"{name} changed{_from_to(old[name], new[name])}" for name in both]
    lines += [f"{name} is no longer used" for name in old if name not in new]
    lines += [f"{name} is new" for name in new if name not in old]
    return sorted(lines)


def _from_to(old: str, new: str) -> str:
    if not (old.startswith(IN_WORDS) and new.startswith(IN_WORDS)):
        return ""
    return f" from {old.removeprefix(IN_WORDS)} to {new.removeprefix(IN_WORDS)}"
