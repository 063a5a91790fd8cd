"""Reads cut from a reference, with known edits, are mapped back there; indexes that can't be used are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from gridcompute_workloads.mapping import (
    LONGEST,
    Indexed,
    Settings,
    build_index,
    insert_sizes,
    load_index,
    map_reads,
    save_index,
)
from gridcompute_workloads.mapping.index import GAP, seal
from gridcompute_workloads.mapping.kernel import find_places, new_block
from gridcompute_workloads.mapping.lanes import align
from gridcompute_workloads.mapping.places import GAPPED, LEFT, RIGHT, SCORE
from gridcompute_workloads.mapping.seeds import READ_CODES
from hypothesis import given, settings
from hypothesis import strategies as st

from gridcompute.errors import CorruptInputError, MissingInputError, ParameterError
from gridcompute.sequences import reverse_complement

LETTERS = np.frombuffer(b"ACGT", np.uint8)
INSERTS = {"low": 200, "high": 600, "mean": 400.0, "deviation": 50.0}


class Mapped(NamedTuple):
    """What the mapper gives, by name."""

    flag: Any
    contig: Any
    position: Any
    mapq: Any
    cigar: Any
    mate_contig: Any
    mate_position: Any
    template: Any
    distance: Any
    score: Any
    second: Any

    def ops(self, i: int) -> list[tuple[int, str]]:
        """Operations of a read."""
        cuts, values = self.cigar
        return [(int(op >> 4), "MIDNS"[op & 15]) for op in values[cuts[i] : cuts[i + 1]]]

    def row(self, i: int) -> tuple[Any, ...]:
        """All of a read."""
        return (*(one[i] for one in self[:4]), *self.ops(i), *(one[i] for one in self[5:]))


class Genome(NamedTuple):
    """Contigs and their index. The third contig begins with 400 bases of the first."""

    contigs: tuple[Any, ...]
    index: Indexed


def indexed(contigs: Any) -> Indexed:
    """Of letters by contig."""
    offsets = np.cumsum([0, *(len(one) for one in contigs)])
    return build_index([f"c{i}" for i in range(len(contigs))], offsets, np.concatenate(contigs))


@pytest.fixture(scope="module")
def genome() -> Genome:
    draw = np.random.default_rng(5)
    first, second, third = (draw.choice(LETTERS, size) for size in (9_000, 5_000, 3_000))
    third[:400] = first[6_000:6_400]
    return Genome((first, second, third), indexed((first, second, third)))


def mapped(reads: list[Any], genome: Genome, **how: Any) -> Mapped:
    """All columns of some reads."""
    offsets = np.cumsum([0, *(len(one) for one in reads)]).astype(np.int64)
    letters = np.concatenate([np.zeros(0, np.uint8), *reads])
    return Mapped(*map_reads((offsets, letters), genome.index.arrays, Settings(**how)))


def check_row(one: Mapped, i: int, read: Any, genome: Genome) -> None:
    """The operations take up the read, stay in the contig, and give the score and the edits that are told."""
    if one.flag[i] & 4:
        assert one.ops(i) == []
        assert one.mapq[i] == one.distance[i] == one.score[i] == 0
        return
    letters = reverse_complement(read) if one.flag[i] & 16 else read
    contig, here, there, score, edits = genome.contigs[one.contig[i]], 0, int(one.position[i]), 0, 0
    for length, op in one.ops(i):
        if op == "M":
            assert there + length <= len(contig)
            wrong = int((letters[here : here + length] != contig[there : there + length]).sum())
            score, edits = score + length - 5 * wrong, edits + wrong
        elif op in "ID":
            score, edits = score - 6 - length, edits + length
        here += length if op in "MIS" else 0
        there += length if op in "MD" else 0
    assert (here, score, edits) == (len(read), one.score[i], one.distance[i])
    assert 0 <= one.position[i] <= there <= len(contig)


def edited(draw: Any, contig: Any, start: int, length: int, edits: int) -> Any:
    """A read from there, with substitutions, and now and then a gap of up to 5 in its middle."""
    read = contig[start : start + length + 8].copy()
    kind, cut = draw.integers(3), int(length * draw.uniform(0.35, 0.65))
    gap = int(draw.integers(1, 6))
    if kind == 1 and length > 90:
        read = np.concatenate((read[:cut], read[cut + gap :]))
    elif kind == 2 and length > 90:
        read = np.concatenate((read[:cut], draw.choice(LETTERS, gap), read[cut:]))
    read = read[:length]
    for at in draw.choice(length, edits, replace=False):
        read[at] = draw.choice(LETTERS)
    return read


@given(seed=st.integers(0, 2**32), length=st.sampled_from((35, 50, 100, 150, 300)))
@settings(max_examples=15, deadline=None)
def test_reads_map_back(seed: int, length: int, genome: Genome) -> None:
    draw = np.random.default_rng(seed)
    reads, truth = [], []
    for _ in range(100):
        number = int(draw.integers(2))
        start = int(draw.integers(len(genome.contigs[number]) - length - 8))
        read = edited(draw, genome.contigs[number], start, length, int(draw.integers(0, 1 + length // 50)))
        back = bool(draw.integers(2))
        reads.append(reverse_complement(read) if back else read)
        truth.append((number, start, back))
    found = mapped(reads, genome)
    for i, (number, start, back) in enumerate(truth):
        check_row(found, i, reads[i], genome)
        if number == 0 and 6_000 - length < start < 6_400:
            continue  # lies in two contigs
        assert (found.contig[i], bool(found.flag[i] & 16)) == (number, back)
        clipped = found.ops(i)[0][0] if found.ops(i)[0][1] == "S" else 0
        assert abs(found.position[i] - clipped - start) <= 5
        assert found.mapq[i] >= 20 or length < 50


def test_edits_are_where_they_are(genome: Genome) -> None:
    contig = genome.contigs[1]
    plain, changed = contig[1000:1120].copy(), contig[1000:1120].copy()
    changed[[20, 60, 100]] = reverse_complement(changed[[20, 60, 100]])[::-1]
    deletion = np.concatenate((contig[1000:1060], contig[1063:1120]))
    insertion = np.concatenate((contig[1000:1060], np.frombuffer(b"GATTACA", np.uint8), contig[1060:1120]))
    ragged = np.concatenate((np.frombuffer(b"ACACACACACACAC", np.uint8), contig[1014:1120]))
    found = mapped([plain, reverse_complement(plain), changed, deletion, insertion, ragged], genome)
    assert found.ops(0) == found.ops(1) == found.ops(2) == [(120, "M")]
    assert found.position[:3].tolist() == [1000] * 3
    assert found.flag.tolist() == [0, 16, 0, 0, 0, 0]
    assert found.distance[:5].tolist() == [0, 0, 3, 3, 7]
    assert [op for _, op in found.ops(3)] == ["M", "D", "M"]
    assert [op for _, op in found.ops(4)] == ["M", "I", "M"]
    assert found.ops(3)[1] == (3, "D")
    assert found.ops(4)[1] == (7, "I")
    assert [op for _, op in found.ops(5)] == ["S", "M"]
    assert found.mapq.tolist() == [60] * 6


def test_a_long_gap(genome: Genome) -> None:
    contig = genome.contigs[0]
    gone = np.concatenate((contig[2000:2080], contig[2110:2190]))
    found = mapped([gone], genome)
    check_row(found, 0, gone, genome)
    assert found.distance[0] == 30
    assert [op for _, op in found.ops(0)] == ["M", "D", "M"]


@given(seed=st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_no_gap_is_missed(seed: int) -> None:
    """Where it is said that no gap can help, the alignment with gaps scores no more; in letters that repeat a lot."""
    draw = np.random.default_rng(seed)
    unit = draw.choice(LETTERS, (40, 3))
    tandem = [np.tile(one, int(draw.integers(1, 12)))[: int(draw.integers(3, 30))] for one in unit]
    contig = np.concatenate([*tandem * 3, draw.choice(LETTERS, 1_500)])
    genome = Genome((contig,), indexed([contig]))
    reads = []
    for _ in range(300):
        read = edited(draw, contig, int(draw.integers(len(contig) - 83)), 75, int(draw.integers(3)))
        cut, gap = int(draw.integers(6, 20)), int(draw.integers(4))  # near an end, so that few letters come to differ
        cut = cut if draw.integers(2) else 70 - cut
        odd = draw.choice(LETTERS, gap if draw.integers(2) else 0)
        read = np.concatenate((read[:cut], odd, read[cut + (0 if len(odd) else gap) :]))
        reads.append(read[-70:] if cut < 35 else read[:70])
    codes, starts = READ_CODES[np.concatenate(reads)], np.arange(301, dtype=np.int64) * 70
    block, arrays = new_block(), genome.index.arrays
    words = arrays.codes[: len(arrays.codes) // 8 * 8].view(np.uint64)
    rows = find_places(300, block, codes, starts, arrays, words)
    before = block.table[:rows].copy()
    align(np.arange(rows), block.table, arrays, codes, starts, np.empty(1 << 12, np.uint32), 0)
    after, settled = block.table[:rows], before[:, GAPPED] == 0
    assert settled.sum() > 20
    assert np.array_equal(before[settled][:, [SCORE, LEFT, RIGHT]], after[settled][:, [SCORE, LEFT, RIGHT]])


def test_repeats_have_no_quality(genome: Genome) -> None:
    """A read that lies in two contigs equally well: one of them, by its letters; one edit away from it: the better."""
    reads = [genome.contigs[0][at : at + 100].copy() for at in range(6_010, 6_290, 20)]
    found = mapped(reads, genome)
    assert set(found.mapq.tolist()) == {0}
    assert set(found.contig.tolist()) == {0, 2}
    assert found.second.tolist() == found.score.tolist() == [100] * len(reads)
    again = mapped(reads[::-1], genome)
    assert again.contig.tolist() == found.contig.tolist()[::-1]


def test_odd_reads(genome: Genome) -> None:
    contig = genome.contigs[0]
    read, long = contig[100:250], np.tile(contig, 112)[:1_000_000]
    some_n, iupac, lower = read.copy(), read.copy(), read + 32
    some_n[70], iupac[70] = ord("N"), ord("R")
    only_n, rna = np.full(100, ord("N"), np.uint8), np.where(read == ord("T"), ord("U"), read).astype(np.uint8)
    longest, random = contig[3_000 : 3_000 + LONGEST], np.random.default_rng(9).choice(LETTERS, 150)
    reads = [read[:0], read[:14], only_n, long, random, contig[:LONGEST + 1], read, some_n, iupac, lower, rna, longest]
    found = mapped(reads, genome)
    assert found.flag.tolist() == [4] * 6 + [0] * 6
    assert found.position.tolist() == [-1] * 6 + [100] * 5 + [3_000]
    assert found.distance[6:].tolist() == [0, 1, 1, 0, 0, 0]
    assert len(mapped([], genome).flag) == 0


def test_nothing_goes_across_contigs(genome: Genome) -> None:
    """A read whose halves lie at a contig's end and the next one's begin is clipped; so is what hangs over an end."""
    first, second, _ = genome.contigs
    across = np.concatenate((first[-80:], second[:70]))
    over = np.concatenate((np.frombuffer(b"ACGTAC" * 5, np.uint8), second[:90]))
    one_over = np.concatenate((second[-99:], LETTERS[:1]))
    found = mapped([across, over, one_over], genome)
    for i, read in enumerate((across, over, one_over)):
        check_row(found, i, read, genome)
    assert (found.contig[0], found.ops(0)) == (0, [(80, "M"), (70, "S")])
    assert (found.contig[1], found.ops(1)) == (1, [(30, "S"), (90, "M")])
    assert (found.contig[2], found.ops(2)) == (1, [(99, "M"), (1, "S")])


def pairs_of(genome: Genome, count: int, seed: int) -> list[Any]:
    """Pairs from the first two contigs, the mates one behind the other; some mates have nothing to do with them."""
    draw = np.random.default_rng(seed)
    reads: list[Any] = []
    for _ in range(count):
        contig = genome.contigs[int(draw.integers(2))]
        size = int(np.clip(draw.normal(400, 50), 250, 550))
        start = int(draw.integers(len(contig) - size - 120))
        one = edited(draw, contig, start, 100, int(draw.integers(3)))
        two = reverse_complement(edited(draw, contig, start + size - 100, 100, int(draw.integers(3))))
        if draw.random() < 0.1:
            two = draw.choice(LETTERS, 100)
        if draw.random() < 0.1:
            one = draw.choice(LETTERS, 100)
        reads += [one, two] if draw.random() < 0.5 else [two, one]
    return reads


def test_mates(genome: Genome) -> None:
    """Flags, mates' fields and template lengths are those that the SAM specification asks for."""
    reads = pairs_of(genome, 400, 1)
    found = mapped(reads, genome, paired=1, **INSERTS)
    proper = 0
    for i in range(len(reads)):
        check_row(found, i, reads[i], genome)
        flag, mate = int(found.flag[i]), int(found.flag[i ^ 1])
        assert flag & 1
        assert flag & 0xC0 == (128 if i % 2 else 64)
        assert flag & 2 == mate & 2
        assert bool(flag & 8) == bool(mate & 4)
        assert bool(flag & 32) == bool(mate & 16 and not mate & 4)
        assert found.mate_contig[i] == found.contig[i ^ 1]
        assert found.mate_position[i] == found.position[i ^ 1]
        assert found.template[i] == -found.template[i ^ 1]
        if flag & 4 and not mate & 4:
            assert (found.contig[i], found.position[i]) == (found.contig[i ^ 1], found.position[i ^ 1])
        if flag & 4 or mate & 4:
            assert found.template[i] == 0
        if flag & 2:
            proper += 1
            assert flag & 48 in (16, 32)
            leftmost = found.position[i] <= found.position[i ^ 1]
            assert (found.template[i] > 0) == leftmost or found.position[i] == found.position[i ^ 1]
            assert bool(flag & 32) == (found.template[i] > 0)
    assert 600 < proper < 680
    both = ((found.flag[::2] & 12) == 12).sum()
    assert 0 < both < 20


def test_a_mate_is_found_beside_the_other(genome: Genome) -> None:
    """It has no word of 15 bases in common with the reference, or lies in a repeat."""
    first = genome.contigs[0]
    one, lost = first[1_000:1_100], first[1_300:1_400].copy()
    lost[7::14] = reverse_complement(lost[7::14])[::-1]
    repeated = first[6_200:6_300]
    alone = mapped([reverse_complement(lost)], genome)
    assert alone.flag[0] == 4
    reads = [one, reverse_complement(lost), first[5_900:6_000], reverse_complement(repeated)]
    found = mapped(reads, genome, paired=1, **INSERTS)
    assert found.flag.tolist() == [99, 147] * 2
    assert found.position.tolist() == [1_000, 1_300, 5_900, 6_200]
    assert found.template.tolist() == [400, -400] * 2
    assert found.distance.tolist() == [0, 7, 0, 0]
    assert found.mapq[3] >= 20


def test_a_result_depends_on_its_pair_alone(genome: Genome) -> None:
    reads = pairs_of(genome, 700, 3)
    reads += [genome.contigs[0][6_100:6_200], genome.contigs[2][:100]]
    for how in ({}, {"paired": 1, **INSERTS}, {"cigar": 0}):
        whole = mapped(reads, genome, **how)
        order = np.random.default_rng(2).permutation(len(reads) // 2)
        shuffled = mapped([reads[2 * i + mate] for i in order for mate in range(2)], genome, **how)
        for to, i in enumerate(order.tolist()):
            assert shuffled.row(2 * to) == whole.row(2 * i)
            assert shuffled.row(2 * to + 1) == whole.row(2 * i + 1)
        for i in range(0, 20, 2):
            apart = mapped(reads[i : i + 2], genome, **how)
            assert (apart.row(0), apart.row(1)) == (whole.row(i), whole.row(i + 1))


def test_positions_without_operations(genome: Genome) -> None:
    reads = pairs_of(genome, 300, 4)
    full, brief = mapped(reads, genome), mapped(reads, genome, cigar=0)
    assert len(brief.cigar[1]) == 0
    clean = full.distance <= 2
    assert clean.sum() > 300
    assert np.array_equal(full.position[clean], brief.position[clean])
    assert np.array_equal(full.flag, brief.flag)


def test_insert_sizes(genome: Genome) -> None:
    reads = pairs_of(genome, 1_500, 6)
    found = mapped(reads, genome)
    learnt = insert_sizes(found.flag, found.contig, found.position, found.mapq, found.cigar)
    assert abs(learnt.mean - 400) < 5
    assert abs(learnt.deviation - 50) < 5
    assert 150 < learnt.low < 230
    assert 570 < learnt.high < 650
    few = insert_sizes(*(one[:40] for one in found[:4]), (found.cigar[0][:41], found.cigar[1]))
    assert few.high == 0
    with pytest.raises(ParameterError, match="3 reads aren't pairs"):
        insert_sizes(*(one[:3] for one in found[:4]), (found.cigar[0][:4], found.cigar[1]))


def test_the_same_without_numba(genome: Genome, tmp_path: Path) -> None:
    """Index and results are equal in plain Python."""
    contigs = [one[:900].copy() for one in genome.contigs]
    contigs[2][450:] = contigs[1][450:]
    small = Genome(tuple(contigs), indexed(contigs))
    reads = [*pairs_of(small, 6, 8), contigs[2][500:600], reverse_complement(contigs[2][750:850])]
    sizes, letters = [len(one) for one in reads], np.concatenate(reads)
    np.savez(tmp_path / "in.npz", sizes=sizes, letters=letters, contigs=np.concatenate(contigs))
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONWARNINGS": "error"}
    subprocess.run([sys.executable, "-c", PLAIN, str(tmp_path)], env=environment, check=True, timeout=600)
    plain = np.load(tmp_path / "out.npz")
    for name, array in zip(small.index.arrays._fields, small.index.arrays, strict=True):
        assert np.array_equal(plain[name], array), name
    expected = mapped([*reads, *parts(contigs)], small, paired=1, **INSERTS)
    assert (expected.flag & 4 == 0).sum() >= 15
    assert (expected.second > 0).any()
    for name in ("flag", "contig", "position", "mapq", "template", "distance", "score", "second"):
        assert plain["got_" + name].tolist() == getattr(expected, name).tolist(), name
    assert plain["ops"].tolist() == expected.cigar[1].tolist()


def parts(contigs: list[Any]) -> list[Any]:
    """Pairs: one with a gap, one with a mate that has no word of 15 bases, one that is repeated."""
    gone = np.concatenate((contigs[0][20:70], contigs[0][74:120]))
    lost = contigs[1][300:370].copy()
    lost[7::14] = reverse_complement(lost[7::14])[::-1]
    return [gone, reverse_complement(contigs[0][280:350]), contigs[1][100:170], reverse_complement(lost),
            contigs[2][40:110], reverse_complement(contigs[2][250:320])]  # fmt: skip


PLAIN = """
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, "tests")
import test_mapping as t
folder = Path(sys.argv[1])
given = np.load(folder / "in.npz")
cuts = np.cumsum([0, *given["sizes"]])
reads = [given["letters"][a:b] for a, b in zip(cuts[:-1], cuts[1:])]
contigs = [given["contigs"][a : a + 900] for a in (0, 900, 1800)]
genome = t.Genome(tuple(contigs), t.indexed(contigs))
found = t.mapped([*reads, *t.parts(contigs)], genome, paired=1, **t.INSERTS)
columns = {"got_" + name: getattr(found, name) for name in found._fields if name != "cigar"}
np.savez(folder / "out.npz", ops=found.cigar[1], **columns, **genome.index.arrays._asdict())
"""


def test_an_index_is_kept(genome: Genome, tmp_path: Path) -> None:
    save_index(genome.index, tmp_path / "index.arrow")
    loaded = load_index(tmp_path / "index.arrow")
    assert (loaded.names, loaded.digest) == (("c0", "c1", "c2"), genome.index.digest)
    for one, other in zip(loaded.arrays, genome.index.arrays, strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
        assert not one.flags.writeable
    again = indexed(genome.contigs)
    save_index(again, tmp_path / "again.arrow")
    assert (tmp_path / "again.arrow").read_bytes() == (tmp_path / "index.arrow").read_bytes()
    small_letters = np.concatenate(genome.contigs) + np.uint8(32)
    lower = build_index(loaded.names, np.cumsum([0, 9_000, 5_000, 3_000]), small_letters)
    assert lower.digest == loaded.digest


@pytest.mark.parametrize("key", ["version", "k", "w"])
def test_an_index_of_another_kind(key: str, genome: Genome, tmp_path: Path) -> None:
    save_index(genome.index, tmp_path / "index.arrow")
    table = pa.ipc.open_file((tmp_path / "index.arrow").read_bytes()[:-48]).read_all()
    with pa.ipc.new_file(str(tmp_path / "other.arrow"), table.schema.with_metadata(
            {**table.schema.metadata, key.encode(): b"99"})) as writer:
        writer.write_table(table)
    seal(tmp_path / "other.arrow")
    with pytest.raises(CorruptInputError, match=rf"other.arrow is an index of another kind: {key} 99 instead of \d+"):
        load_index(tmp_path / "other.arrow")


def test_what_is_no_index(genome: Genome, tmp_path: Path) -> None:
    path = tmp_path / "index.arrow"
    with pytest.raises(MissingInputError, match="isn't there"):
        load_index(path)
    path.write_bytes(b">c0\nACGT\n")
    with pytest.raises(CorruptInputError, match="isn't an index"):
        load_index(path)
    with pa.ipc.new_file(str(path), pa.schema([("a", pa.int64())])) as writer:
        writer.write_table(pa.table({"a": [1]}))
    for _ in range(2):
        with pytest.raises(CorruptInputError, match="isn't an index"):
            load_index(path)
        seal(path)


def test_a_damaged_index(genome: Genome, tmp_path: Path) -> None:
    """Any byte of its content, and wherever it breaks off."""
    path = tmp_path / "index.arrow"
    save_index(genome.index, path)
    whole = path.read_bytes()
    draw = np.random.default_rng(1)
    for cut in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(CorruptInputError, match="index"):
            load_index(path)
    for at in draw.integers(0, len(whole), 60).tolist():
        broken = bytearray(whole)
        broken[at] ^= 1 << int(draw.integers(8))
        path.write_bytes(broken)
        with pytest.raises(CorruptInputError, match="damaged"):
            load_index(path)


def test_references_that_cant_be_indexed() -> None:
    nothing = np.zeros(0, np.uint8)
    with pytest.raises(ParameterError, match="no bases"):
        build_index([], np.array([0]), nothing)
    with pytest.raises(ParameterError, match="no bases"):
        build_index(["a"], np.array([0, 0]), nothing)
    with pytest.raises(ParameterError, match="1 names for 2 contigs"):
        build_index(["a"], np.array([0, 1, 2]), nothing)
    with pytest.raises(ParameterError, match=r"2,147,483,648 bases in 1 contigs; an index holds 2\^31"):
        build_index(["a"], np.array([0, 2**31]), nothing)


def test_ten_thousand_contigs() -> None:
    draw = np.random.default_rng(7)
    contigs = list(draw.choice(LETTERS, (10_000, 120)))
    contigs[5], contigs[17] = contigs[5][:0], np.full(120, ord("N"), np.uint8)
    genome = Genome(tuple(contigs), indexed(contigs))
    assert len(genome.index.arrays.codes) == sum(map(len, contigs)) + GAP * 10_001
    numbers = draw.integers(18, 10_000, 200).tolist()
    found = mapped([contigs[i][10:110] for i in numbers], genome)
    assert found.contig.tolist() == numbers
    assert set(found.position.tolist()) == {10}


def test_bases_that_are_unknown() -> None:
    """Letters that are no base match nothing, and no word goes over them."""
    contig = np.random.default_rng(3).choice(LETTERS, 2_000)
    contig[500:520], contig[1_000] = ord("N"), ord("Y")
    genome = Genome((contig,), indexed([contig]))
    read = contig[960:1_060].copy()
    found = mapped([read, contig[420:560], np.full(60, ord("N"), np.uint8)], genome)
    assert found.position.tolist() == [960, 420, -1]
    assert found.distance[0] == 1
    assert found.ops(1) == [(80, "M"), (60, "S")]
