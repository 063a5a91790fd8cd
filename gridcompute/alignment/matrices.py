"""Scores of letters by a substitution matrix: a published one, one of a file, or one's own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gridcompute.alignment.published import LETTERS, TABLES
from gridcompute.alignment.scoring import MOST, Matrix, require_costs
from gridcompute.columns import Array
from gridcompute.errors import MissingInputError, ParameterError

MOST_LETTERS = 31
"""Of a matrix: with what stands behind a sequence's end 32, half a register of bytes."""

_FORM = "as NCBI's files have it: a line of letters, then for each of them a line: the letter and whole numbers"


def matrix(of: str | os.PathLike[str] | tuple[str, Any] = "BLOSUM62", gap_open: int = 12,
           gap_extend: int = 1) -> Matrix:
    """Scores by a substitution matrix. A gap of k letters costs gap_open + (k - 1) * gap_extend.

    So the defaults are what BLAST calls existence 11, extension 1. Lower case counts as upper. A letter that the matrix
    doesn't have counts as X, U as C; where it has no X either, it scores the matrix's least with all.

    Args:
        of: a published matrix's name (BLOSUM45, 50, 62, 80, 90, PAM30, 70, 250); a file in NCBI's format, or its text;
            or letters and their table, a row a letter of the query.
        gap_open: what the first letter of a gap costs.
        gap_extend: what each further letter of it costs.

    Raises:
        ParameterError: costs that make no sense; a table that isn't square, isn't of whole numbers, lacks letters, or
            has more than 31.
        MissingInputError: neither a name nor a file that is there.
    """
    require_costs(gap_open=gap_open, gap_extend=gap_extend)
    letters, table = _given(*of, "the matrix") if isinstance(of, tuple) else _found(of)
    worst = min(0, int(table.min()))
    scores = np.full((len(letters) + 1, len(letters) + 1), worst, np.int32)
    scores[:-1, :-1] = table
    code = {letter: i for i, letter in enumerate(letters)}
    other = code.get("X", len(letters))
    codes = np.full(256, other, np.uint8)
    for letter, number in {"U": code.get("C", other), **code}.items():
        codes[[ord(letter), ord(letter.lower())]] = number
    if other < len(letters):
        scores = np.ascontiguousarray(scores[:-1, :-1])
    return Matrix(codes, codes.copy(), scores, int(gap_open), int(gap_extend))


def published(name: str) -> Array:
    """The table of a published matrix, int64, letters as in `LETTERS`."""
    lower = [[int(word) for word in line.split()] for line in TABLES[name].split("\n") if line]
    table = np.zeros((len(lower), len(lower)), np.int64)
    for row, values in enumerate(lower):
        table[row, : row + 1] = table[: row + 1, row] = values
    return table


def _found(of: str | os.PathLike[str]) -> tuple[str, Array]:
    """Letters and table of a name, a file or a text."""
    said = os.fspath(of)
    if said.upper() in TABLES:
        return LETTERS, published(said.upper())
    if "\n" in said:
        return _read(said, "the matrix")
    try:
        text = Path(said).expanduser().read_text("ascii")
    except OSError as error:
        raise MissingInputError(f"no matrix {said!r}, and no file of this name can be read: {error.strerror}",
                                hint=f"name a file, or one of {', '.join(TABLES)}") from None
    except UnicodeDecodeError:
        raise ParameterError(f"the matrix of {said} isn't ASCII text", hint=_FORM) from None
    return _read(text, f"the matrix of {said}")


def _read(text: str, what: str) -> tuple[str, Array]:
    """Letters and table of a text in NCBI's format."""
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines or any(len(word) != 1 for word in lines[0]):
        raise ParameterError(f"{what} has no line of letters", hint=_FORM)
    rows = {line[0]: line[1:] for line in lines[1:]}
    missing = [one for one in lines[0] if one not in rows] + [one for one in rows if one not in lines[0]]
    if missing:
        raise ParameterError(f"{what} has {', '.join(missing)} not both as a row and as a column", hint=_FORM)
    if len(rows) != len(lines) - 1:
        raise ParameterError(f"{what} has a letter twice", hint=_FORM)
    return _given("".join(lines[0]), [rows[one] for one in lines[0]], what)


def _given(letters: str, table: Sequence[Sequence[Any]] | Array, what: str) -> tuple[str, Array]:
    """Letters in upper case and their table as integers, if they are that."""
    letters, rows = letters.upper(), [list(row) for row in table]
    if not letters or not letters.isascii() or not letters.isprintable() or len(set(letters)) != len(letters):
        raise ParameterError(f"{what} has the letters {letters!r}", hint="ASCII characters, each of them once")
    if len(letters) > MOST_LETTERS:
        raise ParameterError(f"{what} has {len(letters)} letters", hint=f"{MOST_LETTERS} are the most")
    for letter, row in zip(letters, rows, strict=False):
        if len(row) != len(letters):
            raise ParameterError(f"{what} has {len(row)} values in the row of {letter}, not {len(letters)}", hint=_FORM)
    if len(rows) != len(letters):
        raise ParameterError(f"{what} has {len(rows)} rows for {len(letters)} letters", hint=_FORM)
    try:
        found = np.array([[_whole(value) for value in row] for row in rows], np.int64)
    except ValueError as error:
        raise ParameterError(f"{what} holds {error.args[0]}, which isn't a whole number", hint=_FORM) from None
    if abs(found).max() > MOST:
        raise ParameterError(f"{what} holds {found.flat[abs(found).argmax()]}", hint=f"from -{MOST:,} to {MOST:,}")
    return letters, found


def _whole(value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(repr(value)) from None
    if isinstance(value, str) or number == value:
        return number
    raise ValueError(repr(value))
