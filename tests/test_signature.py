from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridcompute.errors import SignatureError
from gridcompute.signature import MAX_LENGTH, Signature

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,6}", fullmatch=True)
CORES = st.lists(NAMES, max_size=3, unique=True).map(tuple)


@pytest.mark.parametrize(
    ("text", "inputs", "outputs"),
    [
        ("(time)->(),()", (("time",),), ((), ())),
        ("(n),(m)->()", (("n",), ("m",)), ((),)),
        ("(lat,lon)->()", (("lat", "lon"),), ((),)),
        ("->()", (), ((),)),
        ("()->(month)", ((),), (("month",),)),
        (" ( n , m ) , ( ) -> ( k ) ", (("n", "m"), ()), (("k",),)),
    ],
)
def test_parses(text, inputs, outputs):
    assert Signature.parse(text) == Signature(inputs, outputs)


@given(st.lists(CORES, max_size=4), st.lists(CORES, min_size=1, max_size=4), st.sampled_from(["", " ", "\t"]))
def test_round_trip(inputs, outputs, blank):
    made = Signature(tuple(inputs), tuple(outputs))
    text = str(made)
    assert Signature.parse(text) == made
    spaced = "".join(blank + c if c in "()," else c for c in text).replace("->", blank + "->" + blank)
    assert Signature.parse(spaced) == made


@pytest.mark.parametrize(
    ("text", "position", "says"),
    [
        ("", 0, "found the end"),
        ("(n)", 3, "'->'"),
        ("(n)->", 5, "'('"),
        ("(n->()", 2, "expected ','"),
        ("(n,)->()", 3, "dimension's name"),
        ("(n n)->()", 3, "expected ','"),
        ("(n,n)->()", 3, "stands twice"),
        ("(n)->()x", 7, "after the outputs"),
        ("(n)=>()", 3, "unexpected '='"),
        ("(3)->()", 1, "unexpected '3'"),
        ("(é)->()", 1, "unexpected 'é'"),
        ("(n),->()", 4, "'('"),
        ("n->()", 0, "'('"),
        ("(n)->()->()", 7, "after the outputs"),
    ],
)
def test_errors_point_at_the_place(text, position, says):
    with pytest.raises(SignatureError, match="position") as caught:
        Signature.parse(text)
    assert f"position {position}" in caught.value.message
    assert says in caught.value.message
    assert caught.value.message.splitlines()[-1] == "    " + " " * position + "^"


@given(st.text(alphabet="()->,nm _é\n3", max_size=30))
def test_hostile_text_is_refused_or_means_what_it_says(text):
    try:
        made = Signature.parse(text)
    except SignatureError:
        return
    assert Signature.parse(str(made)) == made
    assert str(made) == "".join(text.split())


@pytest.mark.parametrize("text", ["(" * (MAX_LENGTH + 1), "(n)->" + ",".join(["()"] * 1000), None, 3, b"->()"])
def test_too_long_or_no_text(text):
    with pytest.raises(SignatureError):
        Signature.parse(text)


def test_dimensions_by_side():
    made = Signature.parse("(time,n),(n)->(n),(month),(month,time)")
    assert made.input_dims == ("time", "n")
    assert made.output_dims == ("n", "month", "time")
    assert made.new_dims == ("month",)
