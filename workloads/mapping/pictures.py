"""What a mapper's run came to: depth along the reference, mapping qualities and insert sizes, as numbers and a picture.

All of it is counted while the run goes on, a chunk at a time, so it takes the same memory for any number of reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import gridcompute as grid
from gridcompute.collection import Collection
from gridcompute.plots import BLUE, INK, ORANGE, figure_file
from gridcompute.running import Run

Array = np.ndarray[Any, Any]

BINS = 1000
"""Stretches of the reference that depth is told for."""
SHORTEST = 500
"""Bases of a stretch at least: reads should be shorter, as each counts where its middle lies."""
LONGEST = 2000
"""Insert sizes that are told apart; longer ones are left out."""
SURE = 20
"""Mapping quality of a read whose place is most likely right: wrong once in a hundred."""

PROPER, UNMAPPED, NOT_PRIMARY = 0x2, 0x4, 0x900

READ, MAPPED, PROPERLY, SURELY = 1, 2, 4, 8
"""What adds up to a read's kind."""


@grid.kernel(
    "(),(),(),(),(),(steps)->(),(),(),(),()",
    names=("place", "quality", "insert", "kind", "span"),
    dtypes=("float64", "float64", "float64", "int64", "int64"),
)
def measures(flag, contig, position, mapq, template_length, cigar, starts):  # type: ignore[no-untyped-def]
    """Middle of a read in the reference's contigs one after the other, its quality, insert size, kind and bases there.

    NaN, and no bases, where there is nothing of the kind: for an unmapped read; for the insert size of reads that
    aren't properly paired, and of the second one of a pair.
    """
    place, quality, insert = np.nan, np.nan, np.nan
    kind, span = 0, 0
    if not flag & NOT_PRIMARY:
        kind = READ
        if not flag & UNMAPPED and contig >= 0:
            for step in cigar:
                operation = int(step) & 15
                if operation in (0, 2, 3, 7, 8):
                    span += int(step) >> 4
            kind |= MAPPED | (SURELY if mapq >= SURE else 0) | (PROPERLY if flag & PROPER else 0)
            place, quality = starts[contig] + position + span / 2, float(mapq)
            if flag & PROPER and template_length > 0:
                insert = float(template_length)
    return place, quality, insert, kind, span


def tallies(aligned: Collection, lengths: Sequence[int]) -> list[Collection]:
    """What is to be run beside the mapper's own output for `Tally.of`.

    Args:
        aligned: columns flag, contig, position, mapq, template_length and cigar, as `records` takes them.
        lengths: bases of each contig.
    """
    total = max(1, sum(lengths))
    starts = np.cumsum([0, *lengths[:-1]]).astype(np.int64)
    columns = ["flag", "contig", "position", "mapq", "template_length", "cigar"]
    measured = aligned[columns].map(measures, starts=starts)
    stretches = max(1, min(BINS, total // SHORTEST))
    return [measured["place"].reduce("histogram", bins=(stretches, 0.0, float(total))),
            measured["quality"].reduce("histogram", bins=np.arange(257) - 0.5),
            measured["insert"].reduce("histogram", bins=np.arange(LONGEST + 2) - 0.5),
            measured["kind"].reduce("histogram", bins=np.arange(17) - 0.5), measured["span"].sum()]


@dataclass(frozen=True, eq=False)
class Tally:
    """Counts of a finished run.

    Attributes:
        places: int64, reads by stretch of the reference, all of the same length.
        qualities: int64, mapped reads by mapping quality, 0 to 255.
        inserts: int64, properly paired reads by insert size, 0 to `LONGEST`.
        kinds: int64, reads by kind (`READ`, `MAPPED` and so on, added up).
        bases: of the reference that all reads cover together.
        lengths: bases of each contig.
    """

    places: Array
    qualities: Array
    inserts: Array
    kinds: Array
    bases: int
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, run: Run, first: int, lengths: Sequence[int]) -> Tally:
        """The counts of a run, of which `tallies` are the outputs from number `first` on."""
        places, qualities, inserts, kinds, bases = (run[first + i].to_numpy() for i in range(5))
        return cls(places, qualities, inserts, kinds, int(bases), tuple(lengths))

    def count(self, kind: int) -> int:
        """Reads of a kind."""
        return int(self.kinds[(np.arange(len(self.kinds)) & kind) == kind].sum())

    @property
    def depth(self) -> Array:
        """Mean depth of each stretch."""
        reads = max(1, int(self.places.sum()))
        return self.places * (self.bases / reads) / (max(1, sum(self.lengths)) / len(self.places))

    @property
    def insert(self) -> int | None:
        """The median insert size; None without pairs."""
        return median(self.inserts) if self.inserts.any() else None

    def told(self) -> Iterator[str]:
        """Lines for people."""
        reads = self.count(READ)
        if not reads:
            yield "no reads"
            return
        parts = [("mapped", self.count(MAPPED)), ("properly paired", self.count(PROPERLY)),
                 (f"with MAPQ {SURE} or more", self.count(SURELY))]
        yield f"{reads:,} reads: " + ", ".join(f"{n:,} {what} ({100 * n / reads:.2f} %)" for what, n in parts
                                               if n or what != "properly paired")
        insert = "" if self.insert is None else f", median insert size {self.insert:,}"
        yield f"mean depth {self.bases / max(1, sum(self.lengths)):.1f}{insert}"


def median(counts: Array) -> int:
    """The median of whole numbers, from how often each occurs."""
    return int(np.searchsorted(np.cumsum(counts), (int(counts.sum()) + 1) // 2))


def draw(path: Path, tally: Tally, names: Sequence[str], title: str) -> Path:
    """Depth along the reference; below it mapping qualities, and insert sizes where there are pairs.

    Args:
        path: PNG to write.
        tally: of a finished run.
        names: of the contigs.
        title: above all.
    """
    below = ["quality", "insert"] if tally.inserts.any() else ["quality"]
    with figure_file(path, 9.2, 6.4, mosaic=[["depth"] * len(below), below]) as (figure, panels):
        _depth(panels["depth"], tally, names)
        most = max(60, int(np.flatnonzero(tally.qualities).max(initial=0)))
        _bars(panels["quality"], np.arange(most + 1), tally.qualities[: most + 1], "mapping quality")
        panels["quality"].set_yscale("symlog", linthresh=1)
        panels["quality"].axvline(SURE - 0.5, color=ORANGE, lw=1, ls="--")
        panels["quality"].annotate(f"{SURE} and more", (SURE - 0.5, 1), xycoords=("data", "axes fraction"),
                                   xytext=(4, -10), textcoords="offset points", fontsize=9, color=ORANGE)
        if "insert" in panels:
            _inserts(panels["insert"], tally.inserts)
        for panel in panels.values():
            panel.tick_params(colors=INK, labelsize=9)
            panel.spines[["top", "right"]].set_visible(False)
        figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=12)
    return path


def _depth(panel: Any, tally: Tally, names: Sequence[str]) -> None:
    depth, total = tally.depth, max(1, sum(tally.lengths))
    unit, name = (1e6, "Mb") if total >= 2e6 else (1e3, "kb")
    edges = np.linspace(0, total, len(depth) + 1) / unit
    panel.stairs(depth, edges, fill=True, color=BLUE, alpha=0.85)
    middle = float(np.median(depth))
    panel.axhline(middle, color=INK, lw=1, ls="--")
    panel.annotate(f"median {middle:.3g}", (1, middle), xycoords=("axes fraction", "data"), xytext=(-4, 4),
                   textcoords="offset points", ha="right", fontsize=9, color=INK,
                   bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5})
    ends = np.cumsum(tally.lengths) / unit
    if 1 < len(ends) <= 200:
        for end in ends[:-1]:
            panel.axvline(end, color="#999999", lw=0.6)
    for begin, end, contig in zip([0, *ends[:-1]], ends, names, strict=True):
        if len(ends) > 1 and end - begin > 0.012 * len(contig) * ends[-1]:  # where the name has room
            panel.annotate(contig, ((begin + end) / 2, 1), xycoords=("data", "axes fraction"), xytext=(0, 2),
                           textcoords="offset points", ha="center", fontsize=8, color="#555555")
    where = names[0] if len(names) == 1 else "the reference, contigs one after the other"
    panel.set_xlabel(f"position in {where} ({name})", color=INK)
    panel.set_ylabel("depth", color=INK)
    panel.set_xlim(0, max(total / unit, edges[-1]))
    panel.set_ylim(0, max(1.0, 1.15 * float(depth.max(initial=0))))


def _bars(panel: Any, values: Array, counts: Array, label: str) -> None:
    panel.bar(values, counts, width=0.9, color=BLUE)
    panel.set_xlabel(label, color=INK)
    panel.set_ylabel("reads", color=INK)


def _inserts(panel: Any, counts: Array) -> None:
    """Insert sizes, but for the rarest at either end, in bars of a few bases where they spread widely."""
    shares = np.cumsum(counts) / counts.sum()
    low, high = int(np.searchsorted(shares, 0.001)), int(np.searchsorted(shares, 0.999)) + 1
    step = max(1, -(-(high - low) // 80))
    starts = np.arange(low, high, step)
    summed = np.add.reduceat(counts[low:high], starts - low)
    panel.bar(starts + step / 2 - 0.5, summed, width=0.9 * step, color=BLUE)
    middle = median(counts)
    panel.axvline(middle, color=INK, lw=1, ls="--")
    panel.annotate(f"median {middle:,}", (middle, 1), xycoords=("data", "axes fraction"), xytext=(4, -10),
                   textcoords="offset points", fontsize=9, color=INK)
    panel.set_xlabel("insert size" + (f" (bars of {step} bases)" if step > 1 else ""), color=INK)
    panel.set_ylabel("pairs", color=INK)
