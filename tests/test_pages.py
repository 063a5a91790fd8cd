"""Pages of the ledger: what is packed comes back as it was, and what can't be packed too."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridcompute.axes import Axis, Layout
from gridcompute.events import Kept
from gridcompute.pages import Page
from gridcompute.shard import shard_path
from gridcompute.stored import Entry

RECIPE = "beef0123"
LAYOUT = Layout.of({"lat": Axis((7,), extent=2), "lon": Axis((5, 4), extent=3)})
HEX = st.text("0123456789abcdef", min_size=1, max_size=32)


@st.composite
def kept(draw: st.DrawFn) -> Kept:
    chunk = draw(st.integers(0, LAYOUT.chunks - 1))
    token, generation = draw(HEX), draw(st.integers(0, 63))
    kind = draw(st.sampled_from(["arrow", "record"]))
    region = draw(st.sampled_from([str(LAYOUT.region(chunk)), "0-1"]))
    place = draw(st.sampled_from(["", shard_path(RECIPE, region, token, generation, kind)]))  # type: ignore[arg-type]
    blocks = draw(st.sampled_from([(), (("part/0", 3, "ab", 9),)]))
    value = None if place else object()
    return Kept(3, 1, chunk, place, draw(st.one_of(st.just(""), HEX)), draw(st.integers(-1, 2**62)),
                draw(st.integers(0, 2**62)), won=False, value=value, blocks=blocks)


@given(items=st.lists(kept(), max_size=30), dropped=st.sets(st.integers(0, LAYOUT.chunks - 1)))
def test_what_is_noted_comes_back(items: list[Kept], dropped: set[int]) -> None:
    page, plain = Page(3, 1, RECIPE, LAYOUT), dict[int, Kept]()
    for item in items:
        page.add(item)
        plain[item.chunk] = item
    for chunk in dropped:
        page.drop(chunk)
        plain.pop(chunk, None)
    for chunk in range(LAYOUT.chunks):
        assert page.has(chunk) == (chunk in plain)
        if chunk in plain:
            assert page.kept(chunk) == plain[chunk]
            assert page.kept(chunk).value is plain[chunk].value
            one = plain[chunk]
            assert page[chunk] == Entry(one.place, one.digest, one.rows, one.nbytes)
        else:
            with pytest.raises(KeyError):
                page.kept(chunk)


def test_a_whole_page_is_a_sequence_of_entries_that_can_be_sent() -> None:
    page = Page(0, 0, RECIPE, LAYOUT)
    for chunk in range(LAYOUT.chunks):
        page.add(Kept(0, 0, chunk, shard_path(RECIPE, str(LAYOUT.region(chunk)), "9a", 2), "ab" * 16, chunk, 100))
    sent = pickle.loads(pickle.dumps(page))
    assert list(sent) == list(page) == list(page[:])
    last = shard_path(RECIPE, str(LAYOUT.region(len(page) - 1)), "9a", 2)
    assert sent[-1] == Entry(last, "ab" * 16, len(page) - 1, 100)
    with pytest.raises(IndexError):
        page[len(page)]
    assert not page._others
