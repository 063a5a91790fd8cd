"""What the benchmark `genomics` aligns: genomes and proteins that are there, else made up. Nothing of gridcompute.

Real data lies in the folder genomics of $GRIDCOMPUTE_DATA, else of ../shared/data; two genomes come with Debian's
packages sibelia-examples and kmer-examples.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peering import ROOT, PeerError

Column = tuple[Any, Any]
"""Sequences as a kernel of chunks gets them: offsets (count + 1,), and the letters behind one another."""

BASES = np.frombuffer(b"ACGT", np.uint8)
AUREUS = Path("/usr/share/doc/sibelia/examples/C-Sibelia/Staphylococcus_aureus/NCTC8325.fasta.gz")
TUBERCULOSIS = Path("/usr/share/doc/kmer-examples/test_data.tar.gz"), "GCF_000195955.2_ASM19595v2_genomic.fna"
MADE_UP = 1_000_000
"""Bases of a genome that is made up."""


def data_folder() -> Path:
    """Where real data should lie; it need not be there."""
    named = os.environ.get("GRIDCOMPUTE_DATA")
    return (Path(named) if named else ROOT.parent / "shared" / "data") / "genomics"


def fasta(path: str | Path) -> Iterator[tuple[str, bytes]]:
    """Names (up to the first space) and letters in upper case, of plain text or gzip."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    name, lines = "", list[bytes]()
    with gzip.open(path) if packed else open(path, "rb") as file:
        for line in file:
            if line.startswith(b">"):
                if name or lines:
                    yield name, b"".join(lines).upper()
                name, lines = line[1:].split()[0].decode(), []
            else:
                lines.append(line.strip())
    if name or lines:
        yield name, b"".join(lines).upper()


def column(sequences: Sequence[bytes]) -> Column:
    """Sequences behind one another."""
    lengths = np.array([len(one) for one in sequences], np.int64)
    return np.concatenate([[0], np.cumsum(lengths)]), np.frombuffer(b"".join(sequences), np.uint8).copy()


def texts(sequences: Column) -> list[str]:
    """The sequences of a column."""
    offsets, letters = sequences
    whole = letters.tobytes().decode()
    return [whole[a:b] for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]


def first(sequences: Column, count: int) -> Column:
    """The first ones of a column."""
    offsets, letters = sequences
    return offsets[: count + 1], letters[: offsets[min(count, len(offsets) - 1)]]


def cells(queries: Column, targets: Column) -> int:
    """Cells of the tables of all pairs."""
    return int((np.diff(queries[0]) * np.diff(targets[0])).sum())


# --- genomes ---


@dataclass(frozen=True)
class Genome:
    """A genome as plain FASTA.

    Attributes:
        name: short.
        path: of the file, in the benchmark's folder.
        source: where it is from.
    """

    name: str
    path: Path
    source: str

    @property
    def letters(self) -> Any:
        """Of all contigs, uint8."""
        return np.frombuffer(b"".join(letters for _, letters in fasta(self.path)), np.uint8)


def _plain(folder: Path, name: str, records: Iterator[tuple[str, bytes]] | Sequence[tuple[str, bytes]]) -> Path:
    path = folder / f"{name}.fa"
    with path.open("wb") as file:
        for contig, letters in records:
            lines = b"\n".join(letters[i : i + 80] for i in range(0, len(letters), 80))
            file.write(b">" + contig.encode() + b"\n" + lines + b"\n")
    return path


def first_genome(folder: Path) -> Genome:
    """E. coli DH1, or bases made up of which a tenth is there twice."""
    path = data_folder() / "DH1.fasta.gz"
    if path.exists():
        return Genome("DH1", _plain(folder, "DH1", fasta(path)), "E. coli DH1, NC_017625.1")
    draw = np.random.default_rng(1)
    letters = draw.choice(BASES, MADE_UP)
    letters[-MADE_UP // 10 :] = letters[: MADE_UP // 10]
    return Genome("made-up", _plain(folder, "made-up", [("made-up", letters.tobytes())]), "bases made up")


def genomes(folder: Path) -> list[Genome]:
    """That one, and the two of Debian's packages where those are installed."""
    found = [first_genome(folder)]
    if AUREUS.exists():
        found.append(Genome("S-aureus", _plain(folder, "S-aureus", fasta(AUREUS)), "S. aureus NCTC 8325, NC_007795.1"))
    archive, member = TUBERCULOSIS
    if archive.exists():
        with tarfile.open(archive) as opened:
            inside = opened.extractfile(member)
            assert inside is not None
            (folder / "packed.fa").write_bytes(inside.read())
        path = _plain(folder, "M-tuberculosis", fasta(folder / "packed.fa"))
        found.append(Genome("M-tuberculosis", path, "M. tuberculosis H37Rv, ASM19595v2"))
    return found


def simulated(genome: Genome, count: int, seed: int, *, paired: bool) -> tuple[Path, Path]:
    """FASTQ files of reads of 150 bases by wgsim, which writes their origin into their names; the second if paired.

    Raises:
        PeerError: wgsim fails.
    """
    folder = genome.path.parent
    paths = folder / f"{genome.name}-{count}-{seed}-1.fq", folder / f"{genome.name}-{count}-{seed}-2.fq"
    if not paths[0].exists() or (paired and not paths[1].exists()):
        second = str(paths[1]) if paired else os.devnull
        command = ["wgsim", "-N", str(count), "-1", "150", "-2", "150", "-e", ".01", "-r", ".001", "-R", ".15",
                   "-X", ".3", "-S", str(seed), str(genome.path), str(paths[0]), second]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise PeerError(f"wgsim failed: {done.stderr.strip()[-500:]}")
    return paths


# --- pairs ---


def pairs(letters: Any, count: int, length: int, errors: float, seed: int = 1) -> tuple[Column, Column]:
    """Stretches of a genome with errors, and without (the targets).

    Eight of ten errors are other bases, one is left out, one is put in.
    """
    draw = np.random.default_rng(seed)
    starts = draw.integers(0, len(letters) - length, count)
    target = letters[starts[:, None] + np.arange(length)]
    target = np.where(np.isin(target, BASES), target, BASES[0])
    kind = draw.choice(4, target.shape, p=(1 - errors, errors * 0.8, errors * 0.1, errors * 0.1))
    other = BASES[(np.searchsorted(BASES, target) + draw.integers(1, 4, target.shape)) % 4]
    times = np.array([1, 1, 0, 2])[kind]
    offsets = np.concatenate([[0], np.cumsum(times.sum(axis=1))])
    query = np.repeat(np.where(kind == 1, other, target).ravel(), times.ravel())
    put_in = np.cumsum(times.ravel())[kind.ravel() == 3] - 1
    query[put_in] = draw.choice(BASES, len(put_in))
    return (offsets, query), (np.arange(count + 1) * length, target.ravel())


# --- proteins ---


@lru_cache
def proteins(name: str) -> tuple[tuple[bytes, ...], str]:
    """A file of proteins, DB or QUERY, and where it is from; made up where there is none."""
    path = data_folder() / f"{name}.fasta.gz"
    if path.exists():
        return tuple(letters for _, letters in fasta(path)), f"{path.name} of Debian's mmseqs2-examples"
    draw = np.random.default_rng(len(name))
    lengths = np.maximum(20, draw.gamma(2.0, 180.0, 20_000 if name == "DB" else 500).astype(int))
    letters = draw.choice(np.frombuffer(b"ARNDCQEGHILKMFPSTWYV", np.uint8), int(lengths.sum())).tobytes()
    ends = np.cumsum(lengths).tolist()
    return tuple(letters[a:b] for a, b in zip([0, *ends], ends, strict=False)), "residues made up"


def of_length(sequences: Sequence[bytes], length: int) -> bytes:
    """The first one whose length comes closest."""
    return min(sequences, key=lambda one: abs(len(one) - length))
