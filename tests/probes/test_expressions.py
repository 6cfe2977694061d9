"""The grammar of probe expressions, and what is said where it is broken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprobe.errors import ProbeError
from moeprobe.probes.expressions import Combination, Expression, Leaf, Placed, leaves_of, parse

A, B, C = Leaf("a"), Leaf("b"), Leaf("c")


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a", A),
        (" ( a ) ", A),
        ("a and b and c", Combination("and", (A, B, C))),
        ("a or b and c", Combination("or", (A, Combination("and", (B, C))))),
        ("(a or b) and c", Combination("and", (Combination("or", (A, B)), C))),
        ("not a and b", Combination("and", (Combination("not", (A,)), B))),
        ("not (a and b)", Combination("not", (Combination("and", (A, B)),))),
        ("not not a", A),
        ("NOT a OR b", Combination("or", (Combination("not", (A,)), B))),
        ("not a within answer", Combination("not", (Placed(A, "answer"),))),
        ("a within b within thinking", Placed(Placed(A, B), "thinking")),
        ("a within (b or c)", Placed(A, Combination("or", (B, C)))),
        ("a.x and ./b.py:y", Combination("and", (Leaf("a.x"), Leaf("./b.py:y")))),
        ("'my dir/x.py' or \"it's.py\"", Combination("or", (Leaf("my dir/x.py"), Leaf("it's.py")))),
        ('a(n=2, w="(x, y)", t=false)', Leaf("a", {"n": 2, "w": "(x, y)", "t": False})),
        ("android and notary", Combination("and", (Leaf("android"), Leaf("notary")))),
    ],
)
def test_reads(text: str, tree: Expression) -> None:
    assert parse(text) == tree


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "expected the name or file of a probe, but the text ends"),
        ("and", "found 'and' (character 1)"),
        ("a and", "but the text ends (character 6)"),
        ("a b", 'expected "and", "or", "within" or the end, but found \'b\' (character 3)'),
        ("(a or b", 'expected "and", "or", "within" or ")"'),
        ("a)", "found ')'"),
        ("a within", "the text ends"),
        ("thinking", "'thinking' is a place"),
        ("a and answer", "'answer' is a place"),
        ("a = b", "found '='"),
        ("'a", "quotation mark that is not closed (character 1)"),
        ("(" * 60 + "a" + ")" * 60, "nested more than 50"),
        ("a or " * 1000 + "a", "at most 4,000"),
        ("a \x1b[2J", "\\x1b"),
    ],
)
def test_names_the_place_of_a_mistake(text: str, complaint: str) -> None:
    with pytest.raises(ProbeError) as caught:
        parse(text)
    assert complaint in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


@given(st.text(alphabet="ab ()'\",=.ornotdwhi\x00é", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse(text)
    except ProbeError:
        return
    assert leaves_of(found)
