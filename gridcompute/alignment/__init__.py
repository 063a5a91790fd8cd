"""Alignment of sequences, many pairs at once: for kernels of chunks (`batch=True`).

    from gridcompute import alignment

    @grid.kernel("(m),(n)->()", batch=True, names=("score",))
    def score(reads, windows, scoring):
        return alignment.local_scores(reads, windows, scoring)

    table["read"].map(score, table["window"], scoring=alignment.simple(match=2, mismatch=3, gap_open=5, gap_extend=2))

Whatever else is in the chunk, a pair's result is the same.
"""

from gridcompute.alignment.cigars import cigar_letters, cigar_text
from gridcompute.alignment.differences import global_scores, semiglobal_scores
from gridcompute.alignment.edit_paths import edit_paths
from gridcompute.alignment.edits import edit_distances
from gridcompute.alignment.local import local_scores
from gridcompute.alignment.matrices import matrix
from gridcompute.alignment.paths import global_paths, local_paths, semiglobal_paths, similar_scores
from gridcompute.alignment.scoring import Matrix, Simple, simple
from gridcompute.alignment.search import LANES, Database, block_scores, database, search_scores

__all__ = [
    "LANES", "Database", "Matrix", "Simple", "block_scores", "cigar_letters", "cigar_text", "database",
    "edit_distances", "edit_paths", "global_paths", "global_scores", "local_paths", "local_scores", "matrix",
    "search_scores", "semiglobal_paths", "semiglobal_scores", "similar_scores", "simple",
]  # fmt: skip
