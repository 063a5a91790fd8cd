"""What a BAM file's reads come to: how many of each flag, quality and insert size, and bases along the reference.

Counted of each part as it is written, and added up at the end; so nothing has to be read again. Of secondary and
supplementary alignments only the flags are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gridcompute.columns import Array

STRETCHES = 1000
"""Of the reference that bases are told for, about."""

SHORTEST = 512
"""Positions of a stretch at least: a read's bases count where its middle lies."""

LONGEST = 2000
"""Insert sizes that are told apart; longer ones are left out."""

PAIRED, PROPER, UNMAPPED, NOT_PRIMARY = 0x1, 0x2, 0x4, 0x900
FLAG, QUALITY, INSERT, DEPTH = range(4)
"""What is counted; with the key and the count a row of three."""


def stretch_width(lengths: Sequence[int]) -> int:
    """Positions of a stretch, for contigs one after the other."""
    return max(SHORTEST, -(-sum(lengths) // STRETCHES))


def counted(flag: Array, contig: Array, position: Array, span: Array, mapq: Array, template_length: Array,
            lengths: Sequence[int]) -> Array:
    """Counts of some alignments: int64, shape (rows, 3), of `FLAG` and so on, a key and how many.

    Args:
        flag: SAM's, one an alignment, as all that follows.
        contig: number, -1 for none.
        position: from 0.
        span: positions of the reference that it covers.
        mapq: mapping quality.
        template_length: SAM's.
        lengths: of the contigs.
    """
    mapped = (flag & (UNMAPPED | NOT_PRIMARY) == 0) & (contig >= 0)
    proper = mapped & (flag & PROPER != 0) & (template_length > 0) & (template_length <= LONGEST)
    starts = np.cumsum([0, *lengths])[:-1]
    middle = starts[contig[mapped]] + position[mapped] + span[mapped] // 2 if len(starts) else np.empty(0, np.int64)
    return np.concatenate([
        _rows(FLAG, np.bincount(flag)), _rows(QUALITY, np.bincount(mapq[mapped])),
        _rows(INSERT, np.bincount(template_length[proper])),
        _rows(DEPTH, np.bincount(middle // stretch_width(lengths), span[mapped]).astype(np.int64)),
    ])


def _rows(kind: int, counts: Array) -> Array:
    keys = np.flatnonzero(counts)
    return np.stack([np.full(len(keys), kind), keys, counts[keys]], axis=1).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Counts:
    """Of all alignments.

    Attributes:
        flags: how many by SAM flag.
        qualities: int64, shape (256,): mapped reads by mapping quality.
        inserts: int64, shape (LONGEST + 1,): properly paired reads by insert size, one of each pair.
        bases: int64, one a stretch of the reference: positions that its reads cover together.
        lengths: of the contigs.
    """

    flags: Mapping[int, int]
    qualities: Array
    inserts: Array
    bases: Array
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, rows: Iterable[Array], lengths: Sequence[int]) -> Counts:
        """Add up what `counted` gave; keys beyond what there can be are left out."""
        every = np.concatenate([np.empty((0, 3), np.int64), *rows])
        stretches = max(1, -(-sum(lengths) // stretch_width(lengths)))

        def summed(kind: int, size: int) -> Array:
            own = every[(every[:, 0] == kind) & (every[:, 1] >= 0) & (every[:, 1] < size)]
            total = np.zeros(size, np.int64)
            np.add.at(total, own[:, 1], own[:, 2])
            return total

        flags = summed(FLAG, 2**16)
        return cls({int(flag): int(flags[flag]) for flag in np.flatnonzero(flags)}, summed(QUALITY, 256),
                   summed(INSERT, LONGEST + 1), summed(DEPTH, stretches), tuple(int(n) for n in lengths))

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `from_json`."""
        return {"flags": [[flag, count] for flag, count in self.flags.items()], "qualities": self.qualities.tolist(),
                "inserts": self.inserts.tolist(), "bases": self.bases.tolist(), "lengths": list(self.lengths)}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Counts:
        """What `to_json` gave. Raises ValueError, KeyError or TypeError for anything else."""
        qualities, inserts, bases = (np.array(said[name], np.int64) for name in ("qualities", "inserts", "bases"))
        flags = {int(flag): int(count) for flag, count in said["flags"]}
        return cls(flags, qualities, inserts, bases, tuple(map(int, said["lengths"])))

    @property
    def reads(self) -> int:
        """Primary alignments and unmapped reads."""
        return self.having(0, 0)

    def having(self, flags: int, without: int = 0) -> int:
        """Reads with all of some flags, and none of others."""
        return sum(count for flag, count in self.flags.items()
                   if not flag & NOT_PRIMARY and flag & flags == flags and not flag & without)

    @property
    def depth(self) -> Array:
        """Mean depth of each stretch."""
        ends = np.minimum(np.arange(1, len(self.bases) + 1) * stretch_width(self.lengths), sum(self.lengths))
        return self.bases / np.maximum(np.diff(ends, prepend=0), 1)
