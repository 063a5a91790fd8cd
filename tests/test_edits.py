"""Edit distances and paths of many pairs equal edlib's, on its own data and on random pairs; paths cost just that."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import edlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import few
from test_alignment import column

from gridcompute import sequences
from gridcompute.alignment import edit_distances, edit_paths

MODES = {"global": "NW", "prefix": "SHW", "within": "HW"}
DATA = Path(os.environ.get("GRIDCOMPUTE_DATA") or Path(__file__).resolve().parents[1] / ".." / "shared" / "data")
ALPHABETS = [b"ACGT", b"ACGTN", b"ACGTacgtNRYK-", bytes(range(256))]


def folded(letters: Any) -> bytes:
    """Letters as they are compared."""
    return bytes(np.asarray(letters)).upper()


def expected(query: Any, target: Any, mode: str, least: int = -1) -> tuple[int, int]:
    """Edlib's distance and first end; -1 where no letter of the target helps. `least`: what to look for, for speed."""
    query, target = folded(query), folded(target)
    if not query or not target:
        return (len(query) + len(target), len(target) - 1) if mode == "global" else (len(query), -1)
    found = edlib.align(query, target, mode=MODES[mode], task="distance", k=least)
    distance = found["editDistance"]
    if mode == "global":
        return distance, len(target) - 1
    return distance, -1 if distance == len(query) else found["locations"][0][1]


def relative(draw: np.random.Generator, query: Any, rate: float, letters: Any) -> Any:
    """A copy with substitutions, insertions and deletions."""
    chance = draw.random(len(query))
    parts = [np.where(chance < rate / 2, draw.choice(letters, len(query)), query)]
    parts = np.split(parts[0], np.sort(draw.integers(0, len(query) + 1, int(rate * len(query) / 4))))
    inserted = [draw.choice(letters, 1) for _ in parts]
    return np.concatenate([np.concatenate(both) for both in zip(parts, inserted, strict=True)])[1:][
        draw.random(len(query) + len(parts) - 1) >= rate / 4]


def some_pairs(draw: np.random.Generator, count: int, longest: int) -> tuple[list[Any], list[Any]]:
    """Pairs of all lengths and kinds: alike, within each other, unlike, empty."""
    queries, targets = [], []
    for _ in range(count):
        letters = np.frombuffer(ALPHABETS[int(draw.choice(4, p=[0.6, 0.2, 0.1, 0.1]))], np.uint8)
        most = int(draw.choice([4, 70, 300, longest]))
        query = draw.choice(letters, int(draw.integers(0, most + 1)))
        target = draw.choice(letters, int(draw.integers(0, most + 1)))
        if draw.random() < 0.8:
            target = relative(draw, query, float(draw.choice([0, 0.01, 0.1, 0.4])), letters)
        if draw.random() < 0.4:
            around = [draw.choice(letters, int(draw.integers(0, 60))) for _ in range(2)]
            target = np.concatenate([around[0], target, around[1]])
        queries.append(query)
        targets.append(target)
    return queries, targets


def cost_of(query: Any, target: Any, cigar: Any) -> int:
    """Errors of a path, of which each run is checked letter by letter; it must use up both sequences."""
    i = j = cost = 0
    query, target = np.frombuffer(folded(query), np.uint8), np.frombuffer(folded(target), np.uint8)
    for run, before in zip(cigar.tolist(), [0, *cigar.tolist()], strict=False):
        length, operation = run >> 4, run & 15
        assert length
        assert not before or before & 15 != operation
        if operation in (7, 8):
            one, other = query[i : i + length], target[j : j + length]
            assert len(one) == len(other) == length
            assert ((one == other) == (operation == 7)).all()
        assert operation in (1, 2, 7, 8)
        i += length if operation != 2 else 0
        j += length if operation != 1 else 0
        cost += length if operation != 7 else 0
    assert (i, j) == (len(query), len(target))
    return cost


def assert_right(queries: list[Any], targets: list[Any], mode: str) -> None:
    """Distances and ends are edlib's, and paths lead there."""
    found, ends = edit_distances(column(queries), column(targets), mode)
    again, start, stop, (at, cigar) = edit_paths(column(queries), column(targets), mode)
    assert len(at) == len(queries) + 1
    assert (again == found).all()
    assert (stop == ends).all()
    for i, (query, target) in enumerate(zip(queries, targets, strict=True)):
        assert (found[i], ends[i]) == expected(query, target, mode, int(found[i]) or -1), (i, len(query), len(target))
        assert cost_of(query, target[start[i] : ends[i] + 1], cigar[at[i] : at[i + 1]]) == found[i]


@pytest.mark.parametrize("mode", MODES)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=few(6), deadline=None)
def test_pairs_equal_edlib_s(mode: str, seed: int) -> None:
    assert_right(*some_pairs(np.random.default_rng(seed), 120, 5000), mode)


@pytest.mark.parametrize("mode", MODES)
def test_lengths_about_words_and_strips(mode: str) -> None:
    """Each length once alone, where one pair is done by itself, and once among the others."""
    draw, bases = np.random.default_rng(1), np.frombuffer(b"ACGT", np.uint8)
    queries = [draw.choice(bases, m) for m in (1, 63, 64, 65, 127, 128, 255, 256, 257, 511, 1023, 1024, 1025, 2049)]
    targets = [relative(draw, query, 0.1, bases) for query in queries]
    assert_right(queries, targets, mode)
    for query, target in zip(queries, targets, strict=True):
        assert_right([query], [target], mode)


def test_what_is_alone_or_far_from_all_others() -> None:
    """Bands that are too narrow at first, gaps as long as a sequence, and groups of unlike pairs."""
    draw, bases = np.random.default_rng(2), np.frombuffer(b"ACGT", np.uint8)
    long = draw.choice(bases, 20_000)
    queries = [long, long, long[:9000], draw.choice(bases, 1500), np.full(3000, 65, np.uint8)]
    targets = [relative(draw, long, 0.05, bases), long[4000:], np.concatenate([long[:100], long[8000:]]),
               draw.choice(bases, 6000), np.full(1, 65, np.uint8)]
    for mode in MODES:
        assert_right(queries, targets, mode)
        assert_right(queries * 9, targets * 9, mode)


def test_a_read_within_a_long_target() -> None:
    """Which eight lanes look through by parts: also where its end lies at a part's bound."""
    draw, bases = np.random.default_rng(3), np.frombuffer(b"ACGT", np.uint8)
    target = draw.choice(bases, 40_003)
    reads = [relative(draw, target[at : at + 90], 0.1, bases) for at in range(4900, 5100, 7)]
    for read in [*reads, target[:70], target[-70:], np.full(80, 78, np.uint8)]:
        assert_right([read], [target], "within")


def test_neighbours_change_nothing() -> None:
    queries, targets = some_pairs(np.random.default_rng(4), 200, 900)
    for mode in MODES:
        whole = edit_paths(column(queries), column(targets), mode)
        for pick in (slice(None, None, -1), slice(3, 80), slice(5, 6)):
            part = edit_paths(column(queries[pick]), column(targets[pick]), mode)
            assert all((one == other[pick]).all() for one, other in zip(part[:3], whole[:3], strict=True))
            (at, cigar), (all_at, all_cigar) = part[3], whole[3]
            for i, number in enumerate(range(200)[pick]):
                assert (cigar[at[i] : at[i + 1]] == all_cigar[all_at[number] : all_at[number + 1]]).all()


def test_gaps_lie_to_the_left() -> None:
    def paths(query: bytes, target: bytes, mode: str) -> tuple[int, int, str]:
        one, other = (column([np.frombuffer(text, np.uint8)]) for text in (query, target))
        _, start, end, (_, cigar) = edit_paths(one, other, mode)
        return int(start[0]), int(end[0]), "".join(f"{run >> 4}{'MIDNSHP=X'[run & 15]}" for run in cigar.tolist())

    assert paths(b"ACGGGGT", b"ACGGGT", "global") == (0, 5, "2=1I4=")
    assert paths(b"ttgcagg", b"ACTTGCAAGGTA", "within") == (2, 8, "5=1X1=")  # as the guide has it


def test_another_mode_is_an_error() -> None:
    one = column([np.full(3, 65, np.uint8)])
    with pytest.raises(ValueError, match="mode is none of global, prefix, within"):
        edit_distances(one, one, "semiglobal")


def test_one_long_pair_of_sequences() -> None:
    draw, bases = np.random.default_rng(5), np.frombuffer(b"ACGTN", np.uint8)
    for m, rate in ((383, 0.1), (384, 0.1), (700, 0.0), (1024, 0.3), (5000, 0.02)):
        query = draw.choice(bases, m)
        target = np.concatenate([draw.choice(bases, 500), relative(draw, query, rate, bases), draw.choice(bases, 90)])
        assert sequences.edit_distance(query, target) == expected(query, target, "global")[0]
        assert sequences.best_semiglobal(query, target) == expected(query, target, "within")


def fasta(path: Path) -> Any:
    """The one sequence of a file."""
    lines = gzip.decompress(path.read_bytes()).split(b"\n")
    return np.frombuffer(b"".join(line for line in lines if not line.startswith(b">")), np.uint8)


@pytest.fixture(scope="module")
def edlib_data() -> Path:
    """Edlib's own test data, and the genome that it names."""
    folder = DATA / "genomics" / "edlib" / "test_data"
    if not folder.exists():
        pytest.skip(f"no {folder}: GRIDCOMPUTE_DATA names a folder that has it")
    return folder


def test_edlib_s_phage(edlib_data: Path) -> None:
    """Whole genomes of 94,481 bases, 99 to 60 % alike."""
    folder = edlib_data / "Enterobacteria_Phage_1"
    one = fasta(folder / "Enterobacteria_phage_1.fasta.gz")
    others = [fasta(path) for path in sorted(folder.glob("mutated_??_perc.fasta.gz"))]
    assert len(others) >= 5
    found, _ = edit_distances(column([one] * len(others)), column(others), "global")
    for other, distance in zip(others, found, strict=True):
        assert expected(one, other, "global", int(distance))[0] == distance == sequences.edit_distance(one, other)
    near = [other for other, distance in zip(others, found, strict=True) if distance < 7000]
    assert_right([one] * len(near), near, "global")


@pytest.mark.parametrize(("kind", "mode"), [("mason_illumina_reads", "within"), ("prefixes", "prefix")])
def test_edlib_s_reads(edlib_data: Path, kind: str, mode: str) -> None:
    """Reads and prefixes of 50 to 10,000 bases, 99 to 60 % alike, in a bacterial genome."""
    genome = fasta(DATA / "genomics" / "DH1.fasta.gz")
    queries = [fasta(path) for path in sorted((edlib_data / "E_coli_DH1" / kind).glob("*/*.fasta.gz"))]
    assert len(queries) >= 35
    targets = [genome] * len(queries)
    if mode == "within":  # edlib takes seconds for each of the longest: of those two are enough
        queries = [one for one in queries if len(one) < 5000] + [one for one in queries if len(one) >= 5000][-2:]
        for query in queries:
            assert_right([query], [genome], mode)
    else:
        assert_right(queries, [target[:50_000] for target in targets], mode)


PLAIN = """
import sys
import numpy as np
from gridcompute import sequences
from gridcompute.alignment import edit_distances, edit_paths
draw = np.random.default_rng(0)
def column(many):
    return np.cumsum([0, *(len(one) for one in many)]), np.concatenate(many)
queries = [draw.choice(np.frombuffer(letters, np.uint8), m) for m in (0, 5, 30, 70, 530)
           for letters in (b"ACGT", b"acgtN", b"HELO-")]
targets = [np.concatenate([one[:9], one[8:21], one[23:]]) for one in queries]
out = []
for mode in ("global", "prefix", "within"):
    out += [edit_distances(column(queries[:12]), column(targets[:12]), mode)[1]]
    *found, (at, cigar) = edit_paths(column(queries), column(targets), mode)
    out += [*found, at, cigar]
out += [[sequences.edit_distance(queries[-2], targets[-2])], sequences.best_semiglobal(queries[-2], targets[-2])]
told = " ".join(str(int(v)) for one in out for v in one)
"""


def test_same_integers_without_compilation() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", PLAIN + "sys.stdout.write(told)"], capture_output=True,
                          text=True, check=False, env={**os.environ, "NUMBA_DISABLE_JIT": "1"})
    assert done.returncode == 0, done.stderr
    names: dict[str, Any] = {}
    exec(PLAIN, names)
    assert done.stdout == names["told"]
    assert len(names["told"]) > 400
