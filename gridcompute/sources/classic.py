"""Length of a classic netCDF file by its header, as the netCDF library silently pads what is cut off.

The layout is that of "The NetCDF Classic Format Specification" (Unidata), CDF-1, CDF-2 and CDF-5.
"""

from __future__ import annotations

import math
from typing import BinaryIO

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}
_STREAMING = {4: 0xFFFFFFFF, 8: 0xFFFFFFFFFFFFFFFF}


def needed_bytes(file: BinaryIO) -> int:
    """Bytes that the file must have for all its variables, by its header.

    Raises:
        ValueError: a header that ends early or makes no sense.
    """
    header = _Header(file)
    return header.needed()


class _Header:
    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        magic = file.read(4)
        if magic[:3] != b"CDF" or magic[3:] not in (b"\x01", b"\x02", b"\x05"):
            raise ValueError("no classic netCDF header")
        self.count_bytes = 8 if magic[3] == 5 else 4
        self.offset_bytes = 4 if magic[3] == 1 else 8

    def number(self, size: int) -> int:
        data = self.file.read(size)
        if len(data) < size:
            raise ValueError("its header ends early")
        return int.from_bytes(data, "big")

    def count(self) -> int:
        return self.number(self.count_bytes)

    def skip(self, size: int) -> None:
        self.file.seek(size + -size % 4, 1)  # everything is padded to 4 bytes

    def listed(self, tag: int) -> int:
        """Length of a list that begins with a tag; an absent list has two zeros."""
        found, length = self.number(4), self.count()
        if found not in (0, tag) or (found == 0 and length):
            raise ValueError("its header makes no sense")
        return length

    def attributes(self) -> None:
        for _ in range(self.listed(12)):
            self.skip(self.count())
            kind = self.number(4)
            self.skip(self.count() * _SIZES.get(kind, 1))

    def needed(self) -> int:
        records = self.count()
        lengths = []
        for _ in range(self.listed(10)):
            self.skip(self.count())
            lengths.append(self.count())
        self.attributes()
        fixed: list[tuple[int, int]] = []
        per_record: list[tuple[int, int]] = []
        for _ in range(self.listed(11)):
            self.skip(self.count())
            dims = [self.count() for _ in range(self.count())]
            if any(dim >= len(lengths) for dim in dims):
                raise ValueError("its header makes no sense")
            self.attributes()
            size = _SIZES.get(self.number(4), 1)
            self.count()  # vsize, which is wrong for variables above 4 GB
            begin = self.number(self.offset_bytes)
            recorded = bool(dims) and lengths[dims[0]] == 0
            size *= math.prod(lengths[dim] for dim in (dims[1:] if recorded else dims))
            (per_record if recorded else fixed).append((begin, size))
        ends = [begin + size for begin, size in fixed]
        if per_record and 0 < records != _STREAMING[self.count_bytes]:
            one = len(per_record) == 1  # then records aren't padded
            step = per_record[0][1] if one else sum(size + -size % 4 for _, size in per_record)
            ends += [begin + (records - 1) * step + size for begin, size in per_record]
        return max(ends, default=0)
