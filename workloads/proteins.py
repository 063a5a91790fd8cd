"""Proteins for a search: databases read and checked, and generated ones with relatives planted among them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gridcompute.alignment.published import TABLES
from gridcompute.columns import Ragged
from gridcompute.errors import CorruptInputError, ParameterError
from gridcompute.sources.fastx import SequenceSource, read_reference

Array = np.ndarray[Any, Any]

BACKGROUND = {
    "A": 7805, "C": 1925, "D": 5364, "E": 6295, "F": 3856, "G": 7377, "H": 2199, "I": 5142, "K": 5744, "L": 9019,
    "M": 2243, "N": 4487, "P": 5203, "Q": 4264, "R": 5129, "S": 7120, "T": 5841, "V": 6441, "W": 1330, "Y": 3216,
}  # fmt: skip
"""How often an amino acid is met in proteins, in 100,000 (Robinson and Robinson 1991)."""

IDENTITIES = (90, 70, 50, 40, 30)
"""Of the copies of each generated query that lie in the generated database, in percent."""

SHORTEST, LONGEST = 60, 700
"""Generated proteins."""

BASES = np.isin(np.arange(256), np.frombuffer(b"ACGTUNacgtun", np.uint8))
ENOUGH = 50
"""Letters from which on it is plain whether they are bases."""


class Proteins(NamedTuple):
    """Sequences by name.

    Attributes:
        names: the headers.
        offsets: int64, one more than names.
        letters: uint8, end to end.
        label: for people.
    """

    names: tuple[str, ...]
    offsets: Array
    letters: Array
    label: str

    @property
    def described(self) -> str:
        """A line for people."""
        return f"{self.label}, {len(self.letters):,} letters in {len(self.names):,} sequences"


def open_proteins(path: str, matrix: str) -> Proteins:
    """Read a FASTA file, plain or gzip.

    Raises:
        MissingInputError, CorruptInputError: the file isn't there, isn't FASTA, or holds no letter.
        ParameterError: it holds bases, and the matrix is one of proteins.
    """
    names, offsets, letters = read_reference(path)
    if not letters.size:
        raise CorruptInputError(f"{path} has no letters", hint="give a FASTA file with a sequence")
    require_proteins(letters, path, matrix)
    return Proteins(names, offsets, letters, path)


def require_first_proteins(source: SequenceSource, path: str, matrix: str) -> None:
    """Look at the first sequences of a file.

    Raises:
        CorruptInputError: they can't be read.
        ParameterError: as `require_proteins`.
    """
    for block in source.blocks(source.parts[0]):
        column = block["sequence"]
        assert isinstance(column, Ragged)
        require_proteins(column.values, path, matrix)
        return


def require_proteins(letters: Array, path: str, matrix: str) -> None:
    """Refuse bases.

    Raises:
        ParameterError: nearly all letters are those of nucleotides, and the matrix is one of proteins.
    """
    share = float(BASES[letters].mean()) if len(letters) >= ENOUGH else 0.0
    if share > 0.95 and matrix.upper() in TABLES:
        raise ParameterError(f"{path} holds no proteins: {100 * share:.1f} % of its letters are A, C, G, T, U or N, as "
                             "in nucleotides", hint="translate it first, or give a matrix for nucleotides")


def simulated(count: int, seed: int) -> tuple[Proteins, Proteins]:
    """Queries and a database of so many proteins, with copies of each query among them; deterministic from the seed.

    Letters are drawn by `BACKGROUND`. A copy has letters drawn anew, and a stretch left out. There is a query for each
    hundred proteins; its header says where its copies lie.

    Raises:
        ParameterError: fewer than 10 proteins.
    """
    if count < 10 or seed < 0:
        raise ParameterError(f"count is {count}, seed is {seed}", hint="10 proteins or more, and a seed of 0 or more")
    draw = np.random.Philox(seed)
    lengths = SHORTEST + (draw.random_raw(count) % np.uint64(LONGEST - SHORTEST + 1)).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    letters = _drawn(draw, int(offsets[-1]))
    made = [letters[a:b] for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]
    many, each = max(1, count // 100), min(len(IDENTITIES), count // 2)
    queries, names = [], []
    for i in range(many):
        query = _drawn(draw, int(lengths[i]))
        places = [(i + many * (copy + 1)) % count for copy in range(each)]
        for place, identity in zip(places, IDENTITIES, strict=False):
            made[place] = _copied(draw, query, identity)
        queries.append(query)
        names.append(f"query{i + 1} copies=" + ",".join(f"protein{place + 1}" for place in places))
    named = tuple(f"protein{i + 1}" for i in range(count))
    said = f"generated, seed {seed}"
    return _joined(tuple(names), queries, said), _joined(named, made, said)


def _drawn(draw: Any, count: int) -> Array:
    bounds = np.cumsum(list(BACKGROUND.values()), dtype=np.uint64)
    words = draw.random_raw(count) % np.uint64(bounds[-1])
    known = np.frombuffer("".join(BACKGROUND).encode(), np.uint8)
    return np.asarray(known[np.searchsorted(bounds, words, side="right")])


def _copied(draw: Any, sequence: Array, identity: int) -> Array:
    """A copy in which so many percent of the letters stay; others are drawn anew. Five of them are left out."""
    stay = draw.random_raw(len(sequence)) % np.uint64(100) < np.uint64(identity)
    found = np.where(stay, sequence, _drawn(draw, len(sequence)))
    cut = int(draw.random_raw(1)[0] % np.uint64(len(sequence) - 5))
    return np.concatenate([found[:cut], found[cut + 5 :]])


def _joined(names: tuple[str, ...], sequences: list[Array], label: str) -> Proteins:
    return Proteins(names, np.cumsum([0, *map(len, sequences)]), np.concatenate(sequences), label)
