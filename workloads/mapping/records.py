"""Alignments as BAM records: the columns of a mapper in, one record a read and the key of its place out.

`aligned.map(records, group=...)` makes what `.sort("key").write("out.bam", header=...)` takes. Everything is as the SAM
specification (version 1.6, section 4.2) lays it out.
"""

from __future__ import annotations

import numpy as np
from numba import njit

import gridcompute as grid

COLUMNS = ("name", "sequence", "quality", "flag", "contig", "position", "mapq", "cigar", "mate_contig", "mate_position",
           "template_length", "distance", "score", "second")
"""What a mapper gives of a read, in the order that `records` takes."""

UNPLACED = np.int64(2**63 - 1)
"""Key of a read without a place: after all others."""

PIECES = 32
"""Of `parallel`: an eighth of a block, 8,192 reads, takes a core some 50 ms."""

PAIRED, UNMAPPED, REVERSE = 0x1, 0x4, 0x10
FIXED = 36
"""Bytes before a record's name, its length's own four among them."""
MOST_OPERATIONS = 65_535
"""Of a CIGAR in its own place; a longer one lies in the tag CG."""
LONGEST_NAME = 254

CODES = np.full(256, 15, np.uint8)
"""Four-bit code of each letter, case aside; U counts as T, what no code stands for as N."""
for _code, _letter in enumerate("=ACMGRSVTWYHKDBN"):
    CODES[ord(_letter)] = CODES[ord(_letter.lower())] = _code
CODES[ord("U")] = CODES[ord("u")] = 8

PAIRS_BACK = np.zeros(16, np.uint8)
"""Code of each code's complement: its four bits, one a base, from the other end."""
for _code in range(16):
    PAIRS_BACK[_code] = int(f"{_code:04b}"[::-1], 2)

CODES_BACK = PAIRS_BACK[CODES]
"""Code of each letter's complement."""

CONSUMES = np.array([1, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0], np.int64)
"""Whether an operation of a CIGAR (MIDNSHP=X) goes along the reference."""


@njit(nogil=True)
def encode_records(  # type: ignore[no-untyped-def]  # numba infers the types
    name, sequence, quality, flag, contig, position, mapq, cigar, mate_contig, mate_position, template_length, distance,
    score, second, group,
):  # fmt: skip
    """Records of reads, and their keys.

    Args:
        name: headers (text); up to the first blank, for pairs without a /1 or /2 at the end, they are the names.
        sequence: letters as sequenced (text). A read of the reverse strand is turned round here.
        quality: of the letters, plus 33 (text); empty where there is none.
        flag: uint16, SAM's.
        contig: int32, -1 for none.
        position: int32, 0-based leftmost, -1 for none.
        mapq: uint8.
        cigar: lists of uint32, length << 4 | operation.
        mate_contig: as `contig`, of the mate.
        mate_position: as `position`, of the mate.
        template_length: int32.
        distance: int32, tag NM; no tag for an unmapped read.
        score: int32, tag AS; as NM.
        second: int32, tag XS, the score of the next best place; no tag where it is negative, or for an unmapped read.
        group: uint8 letters of the read group, tag RG; empty for none.

    Returns:
        Keys (int64: contig << 33 | position << 1 | reverse, `UNPLACED` last), and (offsets, bytes) of the records.

    Raises:
        ValueError: a name of more than 254 letters, or a quality of another length than its read or with a character
            that is none.
    """
    reads = len(flag)
    names = np.empty((reads, 2), np.int64)
    offsets, keys = np.zeros(reads + 1, np.int64), np.empty(reads, np.int64)
    for i in range(reads):
        names[i, 0], names[i, 1] = _named(name[1], name[0][i], name[0][i + 1], int(flag[i]))
        letters, scores = sequence[0][i + 1] - sequence[0][i], quality[0][i + 1] - quality[0][i]
        if scores != letters and scores != 0:
            raise ValueError("a read's quality has another length than its sequence")
        if scores and not _printable(quality[1][quality[0][i]:quality[0][i + 1]]):
            raise ValueError("a read's quality has a character outside ! to ~, which BAM can't hold")
        tags = _tags_bytes(int(flag[i]), int(distance[i]), int(score[i]), int(second[i]), len(group))
        offsets[i + 1] = offsets[i] + tags + _size(names[i, 1] - names[i, 0], letters, cigar[0][i + 1] - cigar[0][i])
        keys[i] = _key(int(contig[i]), int(position[i]), int(flag[i]))
    out = np.empty(offsets[reads], np.uint8)
    for i in range(reads):
        steps = cigar[1][cigar[0][i]:cigar[0][i + 1]]
        letters = int(sequence[0][i + 1] - sequence[0][i])
        back, at = int(flag[i]) & REVERSE != 0, int(offsets[i])
        _put(out, at, 4, int(offsets[i + 1]) - at - 4)
        at = _put_fixed(out, at + 4, int(contig[i]), int(position[i]), int(names[i, 1] - names[i, 0]), int(mapq[i]),
                        int(flag[i]), steps, letters)
        at = _put_mate(out, at, int(mate_contig[i]), int(mate_position[i]), int(template_length[i]))
        at = _put_name(out, at, name[1], names[i, 0], names[i, 1])
        at = _put_steps(out, at, steps, letters)
        at = _put_letters(out, at, sequence[1], sequence[0][i], letters, back)
        at = _put_quality(out, at, quality[1], quality[0][i], quality[0][i + 1] - quality[0][i], letters, back)
        at = _put_tags(out, at, int(flag[i]), int(distance[i]), int(score[i]), int(second[i]))
        _put_rest(out, at, steps, group)
    return keys, (offsets, out)


@grid.kernel(
    "(name),(letters),(letters2),(),(),(),(),(steps),(),(),(),(),(),()->(),(record)",
    batch=True,
    parallel=PIECES,
    names=("key", "record"),
    dtypes=("int64", "uint8"),
)
def records(  # type: ignore[no-untyped-def]  # numba infers the types
    name, sequence, quality, flag, contig, position, mapq, cigar, mate_contig, mate_position, template_length, distance,
    score, second, group,
):  # fmt: skip
    """`encode_records`, for collections with its columns in that order (`COLUMNS`)."""
    return encode_records(name, sequence, quality, flag, contig, position, mapq, cigar, mate_contig, mate_position,
                          template_length, distance, score, second, group)


@njit
def _printable(letters):  # type: ignore[no-untyped-def]
    """Whether all are among ! to ~, as SAM writes qualities."""
    wrong = np.int64(0)
    for letter in letters:
        wrong += (letter < 33) | (letter > 126)
    return wrong == 0


@njit
def _key(contig, position, flag):  # type: ignore[no-untyped-def]
    """Where a read comes in the order of coordinates."""
    if contig < 0 or position < 0:
        return UNPLACED
    return np.int64(contig << 33 | position << 1 | (1 if flag & REVERSE else 0))


@njit
def _size(letters_of_name, letters, steps):  # type: ignore[no-untyped-def]
    """Bytes of a record but for its tags; with the one that holds a long CIGAR, for which two operations stand."""
    size = FIXED + max(letters_of_name, 1) + 1 + (letters + 1) // 2 + letters + 4 * steps
    return size if steps <= MOST_OPERATIONS else size + 16


@njit
def _tags_bytes(flag, distance, score, second, group):  # type: ignore[no-untyped-def]
    size = group + 4 if group else 0
    if not flag & UNMAPPED:
        size += _tag_bytes(distance) + _tag_bytes(score)
        if second >= 0:
            size += _tag_bytes(second)
    return size


@njit
def _put_fixed(out, at, contig, position, letters_of_name, mapq, flag, steps, letters):  # type: ignore[no-untyped-def]
    """What comes before the mate's place; gives what comes next."""
    placed = _key(contig, position, flag) != UNPLACED
    span = 0 if flag & UNMAPPED else _span(steps)
    where = position if placed else -1
    _put(out, at, 4, contig if placed else -1)
    _put(out, at + 4, 4, where)
    out[at + 8] = max(letters_of_name, 1) + 1
    out[at + 9] = mapq
    _put(out, at + 10, 2, bin_of(where, where + max(span, 1)))
    _put(out, at + 12, 2, len(steps) if len(steps) <= MOST_OPERATIONS else 2)
    _put(out, at + 14, 2, flag)
    _put(out, at + 16, 4, letters)
    return at + 20


@njit
def _put_mate(out, at, contig, position, template_length):  # type: ignore[no-untyped-def]
    _put(out, at, 4, contig)
    _put(out, at + 4, 4, position)
    _put(out, at + 8, 4, template_length)
    return at + 12


@njit
def _put_tags(out, at, flag, distance, score, second):  # type: ignore[no-untyped-def]
    """NM, AS and XS of a mapped read."""
    if not flag & UNMAPPED:
        at = _put_tag(out, at, 78, 77, distance)
        at = _put_tag(out, at, 65, 83, score)
        if second >= 0:
            at = _put_tag(out, at, 88, 83, second)
    return at


@njit
def bin_of(begin, end):  # type: ignore[no-untyped-def]
    """The bin of BAI's scheme that holds positions begin to end (section 5.3)."""
    end -= 1
    for level in range(5):
        shift = 14 + 3 * level
        if begin >> shift == end >> shift:
            return ((1 << (15 - 3 * level)) - 1) // 7 + (begin >> shift)
    return 0


@njit
def _named(values, begin, end, flag):  # type: ignore[no-untyped-def]
    """Where a read's name lies in its header."""
    stop = begin
    while stop < end and values[stop] > 32:
        stop += 1
    if flag & PAIRED and stop - begin > 2 and values[stop - 2] == 47 and 49 <= values[stop - 1] <= 50:
        stop -= 2
    if stop - begin > LONGEST_NAME:
        raise ValueError("a read's name has more than 254 letters, which BAM can't hold")
    return begin, stop


@njit
def _span(steps):  # type: ignore[no-untyped-def]
    """Positions of the reference that a CIGAR covers."""
    total = 0
    for k in range(len(steps)):
        total += (int(steps[k]) >> 4) * CONSUMES[int(steps[k]) & 15]
    return total


@njit
def _put(out, at, width, value):  # type: ignore[no-untyped-def]
    """A whole number's lowest bytes, least first."""
    for k in range(width):
        out[at + k] = (value >> (8 * k)) & 255


@njit
def _put_name(out, at, values, begin, end):  # type: ignore[no-untyped-def]
    """The name, * for none, with the zero that ends it; gives what comes next."""
    for k in range(begin, end):
        out[at + k - begin] = values[k]
    at += end - begin
    if begin == end:
        out[at] = 42
        at += 1
    out[at] = 0
    return at + 1


@njit
def _put_steps(out, at, steps, letters):  # type: ignore[no-untyped-def]
    """The CIGAR; a long one's place is held by the read's length (S) and the reference's (N)."""
    if len(steps) > MOST_OPERATIONS:
        _put(out, at, 4, letters << 4 | 4)
        _put(out, at + 4, 4, _span(steps) << 4 | 3)
        return at + 8
    for k in range(len(steps)):
        _put(out, at, 4, int(steps[k]))
        at += 4
    return at


@njit
def _put_letters(out, at, values, begin, letters, back):  # type: ignore[no-untyped-def]
    """Two letters a byte; of the reverse strand their complements, from the last one on."""
    for k in range(letters // 2):
        if back:
            last = begin + letters - 1 - 2 * k
            out[at + k] = CODES_BACK[values[last]] << 4 | CODES_BACK[values[last - 1]]
        else:
            out[at + k] = CODES[values[begin + 2 * k]] << 4 | CODES[values[begin + 2 * k + 1]]
    if letters % 2:
        out[at + letters // 2] = CODES_BACK[values[begin]] << 4 if back else CODES[values[begin + letters - 1]] << 4
    return at + (letters + 1) // 2


@njit
def _put_quality(out, at, values, begin, scores, letters, back):  # type: ignore[no-untyped-def]
    """A byte a letter, 255 where there are no scores."""
    step = -1 if back else 1
    first = begin + letters - 1 if back else begin
    for k in range(letters):
        out[at + k] = values[first + step * k] - 33 if scores else 255
    return at + letters


@njit
def _tag_bytes(value):  # type: ignore[no-untyped-def]
    """Bytes of a number's tag: the narrowest type that holds it."""
    if -128 <= value < 256:
        return 4
    return 5 if -32_768 <= value < 65_536 else 7


@njit
def _put_tag(out, at, first, letter, value):  # type: ignore[no-untyped-def]
    """A number's tag: types C, S; of negative ones c, s; or i."""
    width = _tag_bytes(value) - 3
    out[at], out[at + 1] = first, letter
    out[at + 2] = 105 if width == 4 else (67 if width == 1 else 83) + (32 if value < 0 else 0)
    _put(out, at + 3, width, value)
    return at + 3 + width


@njit
def _put_rest(out, at, steps, group):  # type: ignore[no-untyped-def]
    """The read group, and a CIGAR that is too long for its place."""
    if len(group):
        out[at], out[at + 1], out[at + 2] = 82, 71, 90  # RG:Z
        for k in range(len(group)):
            out[at + 3 + k] = group[k]
        out[at + 3 + len(group)] = 0
        at += len(group) + 4
    if len(steps) > MOST_OPERATIONS:
        out[at], out[at + 1], out[at + 2], out[at + 3] = 67, 71, 66, 73  # CG:B,I
        _put(out, at + 4, 4, len(steps))
        for k in range(len(steps)):
            _put(out, at + 8 + 4 * k, 4, int(steps[k]))
