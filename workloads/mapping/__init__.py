"""Short reads against a reference: minimizers, candidates, alignments in lanes, pairs; for kernels of chunks."""

from .index import Index, Indexed, build_index, load_index, save_index
from .kernel import Settings, map_reads
from .pairs import Inserts, insert_sizes
from .places import LONGEST

__all__ = [
    "LONGEST", "Index", "Indexed", "Inserts", "Settings", "build_index", "insert_sizes", "load_index", "map_reads",
    "save_index",
]  # fmt: skip
