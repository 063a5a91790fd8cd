"""Digests of logical content: the same values give the same digest, however they are sliced, padded or
packed.

Canonical form: C order in the field's dimensions, little-endian, offsets that begin at 0, null cells zero (or
of length 0), every NaN the one quiet NaN of its width; -0.0 stays -0.0, as it divides differently from 0.0.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from isal import isal_zlib

from gridcompute.columns import Array, Block, Column, Field, Fixed, Ragged
from gridcompute.errors import ParameterError
from gridcompute.threads import each

PIECE_BYTES = 2**22
"""Of a column's values that are hashed at a time where there are more, by several threads."""

_DTYPE = re.compile(r"[<>|]([biufc]\d{1,2}|S\d{1,5}|[mM]8\[\d{0,9}(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])")


def checked_dtype(text: str) -> np.dtype[Any]:
    """A dtype that a shard may hold, by NumPy's short name: numbers, booleans, times, fixed bytes.

    Raises:
        ParameterError: any other text; objects and structures in particular.
    """
    if not _DTYPE.fullmatch(text) or text.endswith("S0"):
        raise ParameterError(f"values of type {text[:60]!r} can't be kept in a shard",
                             hint="use numbers, booleans, times, fixed bytes, strings or lists")
    try:
        return np.dtype(text)
    except TypeError:
        raise ParameterError(f"there is no type {text[:60]!r}") from None


def content_digest(block: Block, fields: Sequence[Field], threads: int = 1) -> str:
    """BLAKE2b-128 (hex) of a block's values, names, dims, dtypes and shapes; not of its region or attributes.

    Raises:
        ParameterError: a column whose arrays aren't what its field says.
    """
    digests = {f.name: column_digest(f, canonical(f, block[f.name]), threads) for f in fields}
    return block_digest(fields, digests)


def seal(block: Block) -> int:
    """A checksum of a block's arrays as they lie in memory (CRC-32): for a way on which nobody else looks.

    It costs a twentieth of a digest, and isn't one: equal content may have several.
    """
    check = 0
    for name in sorted(block.columns):
        column = block.columns[name]
        arrays = [column.values, column.valid, column.offsets if isinstance(column, Ragged) else None]
        for array in arrays:
            check = isal_zlib.crc32(b"-" if array is None else _raw(array), check)
    return check


def block_digest(fields: Sequence[Field], digests: Mapping[str, str]) -> str:
    """The digest of a block from those of its columns."""
    rows = sorted([f.name, list(f.dims), f.kind, digests[f.name]] for f in fields)
    return hashlib.blake2b(json.dumps(rows).encode(), digest_size=16).hexdigest()


def column_digest(field: Field, column: Column, threads: int = 1, *, pieces: bool = True) -> str:
    """BLAKE2b-128 (hex) of a column in canonical form.

    Args:
        field: what it is.
        column: in that form.
        threads: that hash its pieces.
        pieces: whether many values are hashed in pieces; they weren't in shards of format 1.
    """
    shape = list(column.values.shape) if isinstance(column, Fixed) else [column.cells]
    nulls, raw = column.valid is not None, _raw(column.values)
    head = [field.kind, field.dtype.newbyteorder("<").str, shape, nulls]
    large = pieces and in_pieces(column)
    digest = hashlib.blake2b(json.dumps([*head, PIECE_BYTES] if large else head).encode(), digest_size=16)
    if column.valid is not None:
        digest.update(np.packbits(column.valid.reshape(-1), bitorder="little").data)
    if isinstance(column, Ragged):
        digest.update(_raw(column.offsets))
    if large:
        starts = range(0, len(raw), PIECE_BYTES)
        for one in each(threads, lambda at: hashlib.blake2b(raw[at:at + PIECE_BYTES], digest_size=32).digest(), starts):
            digest.update(one)
    else:
        digest.update(raw)
    return digest.hexdigest()


def in_pieces(column: Column) -> bool:
    """Whether a column has so many values that they are hashed in pieces."""
    return column.values.nbytes > PIECE_BYTES


def canonical(field: Field, column: Column) -> Column:
    """A column in canonical form; its own arrays where they already are.

    Raises:
        ParameterError: arrays that aren't what the field says.
    """
    dtype = field.dtype
    checked_dtype(dtype.str)
    fits = isinstance(column, Ragged) if field.ragged else isinstance(column, Fixed)
    if not fits or column.values.dtype.newbyteorder("=") != dtype.newbyteorder("="):
        raise ParameterError(f"column {field.name!r} is a {type(column).__name__} of {column.values.dtype}, "
                             f"but its field says {field.kind} of {dtype}")
    if isinstance(column, Ragged):
        return _canonical_ragged(column, dtype)
    valid = _canonical_valid(column.valid)
    values = np.asarray(column.values, dtype.newbyteorder("<"), order="C")
    if valid is not None:
        if valid.shape != values.shape:
            raise ParameterError(f"column {field.name!r} has {valid.shape} marks for {values.shape} cells")
        values = values.copy()
        values[~valid] = np.zeros((), values.dtype)
        valid = np.asarray(valid, bool, order="C")
    return Fixed(_one_nan(values), valid)


def _canonical_valid(valid: Array | None) -> Array | None:
    return None if valid is None or bool(valid.all()) else valid


def _canonical_ragged(column: Ragged, dtype: np.dtype[Any]) -> Ragged:
    valid = _canonical_valid(column.valid)
    offsets = np.ascontiguousarray(column.offsets, np.int64)
    if not len(offsets):
        offsets = np.zeros(1, np.int64)
    if valid is not None:
        lengths = np.diff(offsets)
        if lengths[~valid].any():
            keep = Ragged(offsets, column.values).taken(np.flatnonzero(valid))
            lengths = np.where(valid, lengths, 0)
            offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
            column = Ragged(offsets, keep.values)
        valid = np.ascontiguousarray(valid)
    values = np.ascontiguousarray(column.values[offsets[0] : offsets[-1]], dtype.newbyteorder("<"))
    return Ragged(offsets - offsets[0] if offsets[0] else offsets, _one_nan(values), valid)


def _one_nan(values: Array) -> Array:
    """The values with the one quiet NaN of their width in place of every NaN (in each part of a complex)."""
    if values.dtype.kind == "b":
        return np.asarray(values.view(np.uint8) != 0) if values.size else values
    if values.dtype.kind not in "fc":
        return values
    width = values.dtype.itemsize // (2 if values.dtype.kind == "c" else 1)
    parts = values.reshape(-1).view(f"<f{width}")
    nans = np.isnan(parts)
    if not nans.any():
        return values
    one = np.array(np.nan, f"<f{width}")
    bits = parts.view(f"<u{width}")
    if bool((bits[nans] == one.view(f"<u{width}")).all()):
        return values
    parts = parts.copy()
    parts[nans] = one
    return parts.view(values.dtype).reshape(values.shape)


def _raw(values: Array) -> memoryview:
    """The bytes of an array in C order."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data if values.size else memoryview(b"")
