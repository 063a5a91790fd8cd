"""What an Arrow IPC file says it needs, read before anything is allocated for it.

Arrow checks its own framing, but allocates what a compressed buffer claims to become. A few dozen bytes from
a hostile or damaged store could so ask for terabytes. This reads the claims out of the flatbuffers (Arrow
columnar format 1.5: Footer, Message, RecordBatch) and compares them with what that many bytes can hold.
"""

from __future__ import annotations

import struct

MAGIC = b"ARROW1"
# zstd turns a block of at most 128 KiB into no less than 4 bytes (a run of one byte); LZ4 does 255 to 1 at
# best.
_BEST_RATIO = 32768
_SLACK = 131072
_RECORD_BATCH = 3  # MessageHeader's tag


_FORMS = {form: struct.Struct(form) for form in ("<B", "<H", "<i", "<I", "<q")}


class _Bytes:
    """Integers at checked positions; ValueError outside."""

    def __init__(self, data: memoryview) -> None:
        self.data = data

    def number(self, form: str, at: int) -> int:
        packed = _FORMS[form]
        if at < 0 or at + packed.size > len(self.data):
            raise ValueError("an offset leads outside the file")
        number: int = packed.unpack_from(self.data, at)[0]
        return number

    def table(self, at: int) -> int:
        """Position of the table that an offset at `at` points to."""
        return at + self.number("<I", at)

    def field(self, table: int, index: int) -> int:
        """Position of a table's field, 0 if it isn't set."""
        layout = table - self.number("<i", table)
        if 4 + 2 * index + 2 > self.number("<H", layout):
            return 0
        offset = self.number("<H", layout + 4 + 2 * index)
        return table + offset if offset else 0

    def vector(self, at: int, width: int) -> tuple[int, int]:
        """Position of the first element and number of elements."""
        if not at:
            return 0, 0
        start = self.table(at)
        count = self.number("<I", start)
        if start + 4 + count * width > len(self.data):
            raise ValueError("a list is longer than the file")
        return start + 4, count


def check_sizes(data: bytes | memoryview, limit: int) -> int:
    """Bytes that the buffers of an Arrow IPC file's record batches take when decompressed.

    Raises:
        ValueError: no such file, or more claimed than `limit` or than its bytes can hold.
    """
    view = memoryview(data)
    if len(data) < 24 or view[:6] != MAGIC or view[-6:] != MAGIC:
        raise ValueError("not an Arrow IPC file, or cut off")
    raw = _Bytes(view)
    size = raw.number("<i", len(data) - 10)
    if size <= 0 or size > len(data) - 18:
        raise ValueError("the footer's length is wrong")
    footer = _Bytes(view[len(data) - 10 - size : len(data) - 10])
    root = footer.table(0)
    _, dictionaries = footer.vector(footer.field(root, 2), 24)
    block, batches = footer.vector(footer.field(root, 3), 24)
    if dictionaries or not batches:
        raise ValueError(f"{batches} record batches and {dictionaries} dictionaries")
    total = 0
    for place in range(block, block + 24 * batches, 24):
        at, head, body = (footer.number(f, place + o) for f, o in (("<q", 0), ("<i", 8), ("<q", 16)))
        if at < 8 or head < 16 or body < 0 or at + head + body > len(data):
            raise ValueError("a record batch lies outside the file")
        total += check_message(view[at:at + head + body], head, limit - total)
    return total


def check_message(data: memoryview, head: int, limit: int) -> int:
    """The same of a record batch's message, whose first `head` bytes describe what follows."""
    raw = _Bytes(data)
    skip = 8 if raw.number("<I", 0) == 0xFFFFFFFF else 4
    return _batch_size(_Bytes(data[skip:head]), data[head:], limit)


def _batch_size(message: _Bytes, body: memoryview, limit: int) -> int:
    root = message.table(0)
    tag, header = message.field(root, 1), message.field(root, 2)
    if not tag or not header or message.number("<B", tag) != _RECORD_BATCH:
        raise ValueError("the message isn't a record batch")
    batch = message.table(header)
    first, count = message.vector(message.field(batch, 2), 16)
    compressed = bool(message.field(batch, 3))
    inside, total = _Bytes(body), 0
    for at in range(first, first + 16 * count, 16):
        start, length = message.number("<q", at), message.number("<q", at + 8)
        if start < 0 or length < 0 or start + length > len(body):
            raise ValueError("a buffer lies outside the record batch")
        claimed = length
        if compressed and length:
            claimed = inside.number("<q", start)
            if claimed == -1:  # kept as it is
                claimed = length - 8
            if claimed < 0 or claimed > _BEST_RATIO * length + _SLACK:
                raise ValueError(f"a buffer of {length} bytes claims to become {claimed}")
        total += claimed
        if total > limit:
            raise ValueError(f"more than {limit} bytes when decompressed")
    return total
