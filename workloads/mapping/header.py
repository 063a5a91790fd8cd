"""The header of a BAM file: contigs, read group, and what wrote it."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np

import gridcompute
from gridcompute.errors import ParameterError

from .index import Indexed

CONTIG = re.compile(r"[0-9A-Za-z!#$%&+./:;?@^_|~-][0-9A-Za-z!#$%&*+./:;=?@^_|~-]*")
"""Names of contigs, by section 1.2.1 of the SAM specification."""


def sam_header(genome: Indexed, read_group: str) -> tuple[str, np.ndarray[Any, Any]]:
    """The lines but for @HD, and the read group's letters for each record's tag RG (none where there is no group).

    Raises:
        ParameterError: two contigs of one name, one without bases, or with a name that SAM doesn't allow; a read group
            without an ID, or with fields that aren't like SM:sample.
    """
    for name, length in zip(genome.names, genome.arrays.lengths.tolist(), strict=True):
        if not length or not CONTIG.fullmatch(name):
            what = "can't have that name in SAM" if length else "has no bases"
            raise ParameterError(f"the reference's contig {name!r} {what}", hint="leave it out, or rename it")
    if len(set(genome.names)) < len(genome.names):
        twice = next(name for name, many in Counter(genome.names).items() if many > 1)
        raise ParameterError(f"the reference names the contig {twice!r} twice",
                             hint="names go up to the first blank: give each its own")
    lines = [f"@SQ\tSN:{name}\tLN:{length}"
             for name, length in zip(genome.names, genome.arrays.lengths.tolist(), strict=True)]
    group = ""
    if read_group:
        fields = [field for field in read_group.replace("\\t", "\t").split("\t") if field and field != "@RG"]
        tags = dict(field.split(":", 1) for field in fields if field[2:3] == ":" and field[3:])
        group = tags.get("ID", "")
        if not group or len(tags) < len(fields) or not read_group.isascii() or (not read_group.isprintable() and any(
                ord(letter) < 32 and letter != "\t" for letter in read_group)):
            raise ParameterError(f"{read_group!r} isn't a read group", hint=r'write it like "@RG\tID:lane1\tSM:sample"')
        lines.append("\t".join(["@RG", f"ID:{group}", *(field for field in fields if not field.startswith("ID:"))]))
    # No parameters and no time: the same reads give the same bytes.
    lines.append("@PG\tID:gridcompute\tPN:gridcompute" + f"\tVN:{version()}")
    return "".join(f"{line}\n" for line in lines), np.frombuffer(group.encode(), np.uint8)


def version() -> str:
    """Of gridcompute."""
    from importlib.metadata import version as found

    return found(gridcompute.__name__)
