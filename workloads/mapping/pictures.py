"""What a mapper's run came to: depth along the reference, mapping qualities, insert sizes, in words and a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gridcompute.bamcounts import PAIRED, PROPER, UNMAPPED, Counts, counted, stretch_width
from gridcompute.plots import BLUE, INK, ORANGE, figure_file
from gridcompute.sinks.bam import BamSink, read_counts
from gridcompute.sinks.opening import open_sink
from gridcompute.sinks.results import open_result

Array = np.ndarray[Any, Any]

SURE = 20
"""Mapping quality of a read whose place is most likely right: wrong once in a hundred."""

_ALONG = np.array([1, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0], np.int64)


def counts_of(output: str, names: Sequence[str], lengths: Sequence[int]) -> Counts:
    """What a finished output's reads come to: of BAM as it was counted while written, of a table by one pass over it.

    Args:
        output: URL.
        names: of the contigs.
        lengths: of the contigs.
    """
    if isinstance(open_sink(output), BamSink):
        return read_counts(output)
    table = open_result(output)
    columns = ["flag", "contig", "position", "mapq", "template_length"]
    columns += ["cigar"] if "cigar" in table.schema.names else []
    rows = (_counted(batch, pa.array(names, pa.string()), lengths) for batch in table.to_batches(columns=columns))
    return Counts.of(rows, lengths)


def _counted(batch: pa.RecordBatch, names: pa.Array, lengths: Sequence[int]) -> Array:
    flag, position, mapq, template = (batch[name].to_numpy().astype(np.int64)
                                      for name in ("flag", "position", "mapq", "template_length"))
    contig = pc.fill_null(pc.index_in(batch["contig"].cast(pa.string()), value_set=names), -1).to_numpy()
    span = np.zeros(len(flag), np.int64)
    if "cigar" in batch.schema.names:
        ops = batch["cigar"]
        steps = ops.flatten().to_numpy().astype(np.int64)
        along = np.concatenate([[0], np.cumsum((steps >> 4) * _ALONG[steps & 15])])
        bounds = np.concatenate([[0], np.cumsum(pc.fill_null(pc.list_value_length(ops), 0).to_numpy())])
        span = along[bounds[1:]] - along[bounds[:-1]]
    return counted(flag, contig.astype(np.int64), position, span, mapq, template, lengths)


def told(counts: Counts) -> Iterator[str]:
    """Lines for people."""
    reads = counts.reads
    if not reads:
        yield "no reads"
        return
    parts = [("mapped", counts.having(0, UNMAPPED))]
    if counts.having(PAIRED):
        parts.append(("properly paired", counts.having(PROPER, UNMAPPED)))
    parts.append((f"with MAPQ {SURE} or more", int(counts.qualities[SURE:].sum())))
    yield f"{reads:,} reads: " + ", ".join(f"{n:,} {what} ({100 * n / reads:.2f} %)" for what, n in parts)
    depth = [f"mean depth {counts.bases.sum() / max(1, sum(counts.lengths)):.1f}"] if counts.bases.any() else []
    insert = [f"median insert size {median(counts.inserts):,}"] if counts.inserts.any() else []
    if depth or insert:
        yield ", ".join(depth + insert)


def median(counts: Array) -> int:
    """The median of whole numbers, from how often each occurs."""
    return int(np.searchsorted(np.cumsum(counts), (int(counts.sum()) + 1) // 2))


def draw(path: Path, counts: Counts, names: Sequence[str], title: str) -> Path:
    """Depth along the reference, where operations tell it; mapping qualities, and insert sizes where there are pairs.

    Args:
        path: PNG to write.
        counts: of a finished output.
        names: of the contigs.
        title: above all.
    """
    below = ["quality", "insert"] if counts.inserts.any() else ["quality"]
    deep = bool(counts.bases.any())
    rows = [["depth"] * len(below), below] if deep else [below]
    with figure_file(path, 9.2, 3.2 * len(rows), mosaic=rows) as (figure, panels):
        if deep:
            _depth(panels["depth"], counts, names)
        most = max(60, int(np.flatnonzero(counts.qualities).max(initial=0)))
        _bars(panels["quality"], np.arange(most + 1), counts.qualities[: most + 1], "mapping quality")
        panels["quality"].set_yscale("symlog", linthresh=1)
        panels["quality"].axvline(SURE - 0.5, color=ORANGE, lw=1, ls="--")
        panels["quality"].annotate(f"{SURE} and more", (SURE - 0.5, 1), xycoords=("data", "axes fraction"),
                                   xytext=(4, -10), textcoords="offset points", fontsize=9, color=ORANGE)
        if "insert" in panels:
            _inserts(panels["insert"], counts.inserts)
        for panel in panels.values():
            panel.tick_params(colors=INK, labelsize=9)
            panel.spines[["top", "right"]].set_visible(False)
        figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=12)
    return path


def _depth(panel: Any, counts: Counts, names: Sequence[str]) -> None:
    depth, total = counts.depth, max(1, sum(counts.lengths))
    unit, name = (1e6, "Mb") if total >= 2e6 else (1e3, "kb")
    edges = np.minimum(np.arange(len(depth) + 1) * stretch_width(counts.lengths), total) / unit
    panel.stairs(depth, edges, fill=True, color=BLUE, alpha=0.85)
    middle = float(np.median(depth))
    panel.axhline(middle, color=INK, lw=1, ls="--")
    panel.annotate(f"median {middle:.3g}", (1, middle), xycoords=("axes fraction", "data"), xytext=(-4, 4),
                   textcoords="offset points", ha="right", fontsize=9, color=INK,
                   bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5})
    ends = np.cumsum(counts.lengths) / unit
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
