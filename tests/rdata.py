"""Reads R's data files (RDX2, XDR), as far as vectors with names go: what references of climdex.pcic come in."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from pathlib import Path
from typing import Any

import numpy as np

OPENERS = {b"\x1f\x8b": gzip.decompress, b"BZ": bz2.decompress, b"\xfd7": lzma.decompress}
NIL, SYMBOL, PAIRS, TEXT, LOGICALS, INTEGERS, REALS, TEXTS, LIST, KNOWN = 254, 1, 2, 9, 10, 13, 14, 16, 19, 255


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 7 + 12
        self.symbols: list[Any] = []

    def number(self) -> int:
        self.at += 4
        return int(struct.unpack_from(">i", self.data, self.at - 4)[0])

    def array(self, kind: str, count: int) -> np.ndarray[Any, Any]:
        found = np.frombuffer(self.data, kind, count, self.at).astype(np.float64)
        self.at += count * np.dtype(kind).itemsize
        return found

    def item(self) -> Any:
        return self.value(self.number())

    def pairs(self, flags: int) -> dict[Any, Any]:
        found = {}
        while flags & 255 == PAIRS:
            if flags & 0x200:
                self.item()
            key = self.item() if flags & 0x400 else None
            found[key] = self.item()
            flags = self.number()
        assert flags & 255 == NIL
        return found

    def value(self, flags: int) -> Any:
        kind = flags & 255
        if kind == NIL:
            return None
        if kind == KNOWN:
            return self.symbols[(flags >> 8 or self.number()) - 1]
        if kind == SYMBOL:
            self.symbols.append(self.item())
            return self.symbols[-1]
        if kind == PAIRS:
            return self.pairs(flags)
        count = self.number()
        if kind == TEXT:
            self.at += max(count, 0)
            return None if count < 0 else self.data[self.at - count : self.at].decode()
        if kind in (LOGICALS, INTEGERS):
            found: Any = self.array(">i4", count)
            found[found == -(2**31)] = np.nan
        elif kind == REALS:
            found = self.array(">f8", count)
        elif kind in (TEXTS, LIST):
            found = [self.item() for _ in range(count)]
        else:
            raise ValueError(f"R type {kind}")
        return (found, self.item()) if flags & 0x200 else found


def read_rda(path: Path) -> dict[str, tuple[np.ndarray[Any, Any], list[str]]]:
    """Values and names of each named vector in a file."""
    raw = path.read_bytes()
    data = OPENERS[raw[:2]](raw)
    assert data[:7] == b"RDX2\nX\n"
    return {name: (values, attributes["names"]) for name, (values, attributes) in _Reader(data).item().items()}
