"""Whether a GRIB file is whole: readers leave out what is cut off, and gaps would stand in its place."""

from __future__ import annotations

import os
from typing import IO

_MOST_BETWEEN = 2**16  # bytes of padding between messages
_LARGE = 0x800000  # in edition 1, of messages whose length is counted otherwise


def cut_off(file: IO[bytes]) -> str:
    """What is wrong with the last message of a file; empty where each ends as it should."""
    size, at, count = file.seek(0, os.SEEK_END), 0, 0
    while at < size:
        file.seek(at)
        head = file.read(16)
        if head[:4] != b"GRIB":
            found = (head + file.read(_MOST_BETWEEN)).find(b"GRIB")
            if found < 0:
                break
            at += found
            continue
        if len(head) < 16:
            return f"message {count + 1} ends within its head"
        length = int.from_bytes(head[8:16] if head[7] == 2 else head[4:7], "big")
        if head[7] == 1 and length & _LARGE:
            break
        if length < 16 or at + length > size:
            return f"message {count + 1} has {size - at:,} of {length:,} bytes"
        file.seek(at + length - 4)
        if file.read(4) != b"7777":
            return f"message {count + 1} doesn't end with 7777"
        at, count = at + length, count + 1
    return ""
