"""Alignment of sequences and mapping of reads, against the C and C++ tools that are used for it.

    scores      local alignment scores of DNA pairs, against parasail
    proteins    one protein against a database, against Opal and parasail
    edits       edit distances, against edlib
    similar     near-identical pairs, against WFA2-lib
    published   what edlib and parasail have published, redone
    map         genomics.map, against minimap2 with samtools sort
    accuracy    where it puts simulated reads, against minimap2 and bwa mem

Kernels and their peers run in one thread each, on the same pairs; what they give must be equal.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.genomics_kernels import edits, scores, searches, similar
from benchmarks.genomics_map import accuracy, mapping
from benchmarks.genomics_published import published
from benchmarks.overhead_tasks import end_ray
from benchmarks.peering import Peers
from benchmarks.rows import Row, Session
from benchmarks.running import own_folders

SECTIONS: dict[str, Callable[[Session, Peers], Iterator[Row]]] = {
    "scores": scores, "proteins": searches, "edits": edits, "similar": similar, "published": published, "map": mapping,
    "accuracy": accuracy,
}  # fmt: skip


def rows(session: Session, peers: Peers) -> Iterator[Row]:
    """The sections that are wanted, in turn."""
    with own_folders(Path(session.folder)), contextlib.chdir(session.folder):
        try:
            for name, section in SECTIONS.items():
                if not session.only or name in session.only:
                    yield from section(session, peers)
        finally:
            end_ray()
