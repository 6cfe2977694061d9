"""and, or, not, within: scores, abstentions, spans and names, against the definitions written out at each character."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprobe.errors import ProbeError
from moeprobe.probes import CheckedProbe, Example, Level, Passage, Reading, Span, checked, load_probe, probe_quality
from moeprobe.probes.composing import all_hold, does_not_hold, one_holds

TEXT = "Zero one two three four."


class Told:
    """Answers what it was told, whatever it reads."""

    definition = "As told."

    def __init__(self, name: str, answer: Reading, level: Level = "generation", version: str = "1") -> None:
        self.name, self.answer, self.level, self.version = name, answer, level, version

    def examples(self) -> list[Example]:
        return [Example("a", 1), Example("b", 0)]

    def read(self, passage: Passage) -> Reading:  # noqa: ARG002 - the answer was set beforehand
        return self.answer


class Word:
    """Marks every place of one word."""

    version = "1"
    level: Level = "token"
    definition = "A word."

    def __init__(self, word: str) -> None:
        self.name, self.word = f"word-{word.lower().replace(' ', '-')}", word

    def examples(self) -> list[Example]:
        return [Example(self.word, 1), Example("b", 0)]

    def read(self, passage: Passage) -> Reading:
        at = passage.text.find(self.word)
        if not passage.text.strip():
            return Reading(None)
        return Reading(0.0) if at < 0 else Reading(1.0, (Span(at, at + len(self.word), 1.0, self.name),))


def told(score: float | None, *spans: tuple[int, int], name: str = "a", level: Level = "generation") -> CheckedProbe:
    marks = tuple(Span(start, end, 1.0 if score is None else max(score, 0.5), "m") for start, end in spans)
    return checked(Told(name, Reading(score, marks), level))


def places(reading: Reading) -> list[tuple[int, int]]:
    return [(span.start, span.end) for span in reading.spans]


@pytest.mark.parametrize("values", list(product([None, 0.0, 0.2, 0.5, 0.9], repeat=2)))
def test_scores_are_kleenes(values: tuple[float | None, float | None]) -> None:
    """An abstention could be any score: the answer stands where it would be the same for all of them."""
    anything = [0.0, 0.1, 0.49, 0.5, 0.51, 1.0]
    options = [[value] if value is not None else anything for value in values]
    for rule, pick in ((all_hold, min), (one_holds, max)):
        verdicts = {pick(one) >= 0.5 for one in product(*options)}
        score = rule(list(values))
        assert (score is None) == (len(verdicts) > 1 or (None in values and score is None))
        if len(verdicts) == 1:
            assert score is not None
            assert (score >= 0.5) == verdicts.pop()
        else:
            assert score is None


@pytest.mark.parametrize("score", [0.0, 0.3, 0.49999999999999994, 0.5, 0.7, 1.0])
def test_not_turns_every_verdict(score: float) -> None:
    turned = does_not_hold([score])
    assert turned is not None
    assert (turned >= 0.5) != (score >= 0.5)
    assert turned == pytest.approx(1 - score)
    assert does_not_hold([None]) is None


def test_spans_meet_join_and_turn_around() -> None:
    left, right = told(0.9, (0, 8), (9, 12)), told(0.8, (5, 10), name="b")
    assert places((left & right).read(Passage(TEXT))) == [(5, 8), (9, 10)]
    both = (left | right).read(Passage(TEXT))
    assert [(span.start, span.end, span.score) for span in both.spans] == [(0, 8, 0.9), (8, 9, 0.8), (9, 12, 0.9)]
    # where left is positive as a whole, "not" is negative, and still marks the rest
    turned = (~left).read(Passage(TEXT))
    assert turned.score == pytest.approx(0.1)
    assert places(turned) == [(8, 9), (12, len(TEXT))]
    assert places((right & ~told(0.1, name="c")).read(Passage(TEXT))) == [(5, 10)]  # no mark of c's: c is nowhere


def test_a_probe_without_spans_speaks_of_the_whole() -> None:
    whole, part = told(0.9), told(0.7, (5, 8), name="b")
    assert places((whole & part).read(Passage(TEXT))) == [(5, 8)]
    assert (whole & told(0.6, name="c")).read(Passage(TEXT)) == Reading(0.6)  # nobody marked anything
    assert places((told(0.1) & part).read(Passage(TEXT))) == []
    assert (told(None) & part).read(Passage(TEXT)) == Reading(None)


MARKS = st.lists(st.tuples(st.integers(0, 11), st.integers(1, 5), st.sampled_from([0.2, 0.5, 0.9])), max_size=4)


@given(MARKS, MARKS, st.sampled_from([0.1, 0.6]), st.sampled_from([0.1, 0.6]))
def test_spans_agree_with_every_character(first: list, second: list, one: float, two: float) -> None:
    text = "x" * 16

    def at(marks: list, score: float, place: int) -> float:
        inside = [value for start, length, value in marks if start <= place < start + length]
        return max(inside, default=0.0) if marks else score

    def probe(name: str, marks: list, score: float) -> CheckedProbe:
        spans = tuple(Span(start, start + length, value, "m") for start, length, value in marks)
        return checked(Told(name, Reading(score, spans)))

    a, b = probe("a", first, one), probe("b", second, two)
    for made, rule in ((a & b, min), (a | b, max), (a & ~b, lambda x, y: min(x, does_not_hold([y])))):
        reading = made.read(Passage(text))
        expected = [rule(at(first, one, place), at(second, two, place)) for place in range(16)]
        found = [max((s.score for s in reading.spans if s.start <= place < s.end), default=0.0) for place in range(16)]
        if first or second:
            assert found == [value if value >= 0.5 else 0.0 for value in expected]
        else:
            assert reading.spans == ()


def test_within_a_segment() -> None:
    text = "I think twice. Then I say it twice."
    segments = (("thinking", 0, 15), ("answer", 15, len(text)))
    twice = checked(Word("twice"))
    said = twice.within("answer").read(Passage(text, "", segments))
    assert [text[start:end] for start, end in places(said)] == ["twice"]
    assert places(said) == [(29, 34)]
    assert places(twice.within("thinking").read(Passage(text, "", segments))) == [(8, 13)]
    assert checked(Word("say")).within("thinking").read(Passage(text, "", segments)).score == 0.0
    # a text from elsewhere is an answer as a whole, and thinks nowhere
    assert twice.within("answer").read(Passage(text)).score == 1.0
    assert twice.within("thinking").read(Passage(text)).score is None
    with pytest.raises(ProbeError, match="within thinking or answer"):
        twice.within("prompt")


def test_within_another_probe() -> None:
    quoted = told(1.0, (5, 8), (9, 12), name="quoted")  # "one two": white space between them is bridged
    assert places(checked(Word("one two")).within(quoted).read(Passage(TEXT))) == [(5, 12)]
    assert checked(Word("Zero")).within(quoted).read(Passage(TEXT)).score == 0.0
    assert checked(Word("Zero")).within(told(0.1, name="b")).read(Passage(TEXT)).score is None  # nowhere to look
    assert checked(Word("Zero")).within(told(0.9, name="b")).read(Passage(TEXT)).score == 1.0  # everywhere


def test_nowhere_together_is_no_place() -> None:
    text = "aaa xx bbb yy ccc zz"
    a, b, c = (checked(Word(word)) for word in ("aaa", "bbb", "ccc"))
    together = a & b
    assert together.read(Passage(text)) == Reading(1.0)  # both are in the text
    assert c.within(together).read(Passage(text)) == Reading(None)
    assert places((together | c).read(Passage(text))) == [(14, 17)]
    assert places((~together).read(Passage(text))) == [(0, len(text))]  # at no character do both hold
    assert places((c & ~together).read(Passage(text))) == [(14, 17)]
    assert places((together & c).read(Passage(text))) == []
    assert c.within(a | b | (together & c)).read(Passage(text)).score == 0.0  # "aaa" and "bbb" are looked at
    # as a whole it still is everywhere
    assert places(c.within(told(0.9, name="x") & told(0.8, name="y")).read(Passage(text))) == [(14, 17)]


def test_nothing_is_said_outside_a_place() -> None:
    text = "aaa xx bbb yy ccc zz"
    passage = Passage(text, "", (("thinking", 0, 7), ("answer", 7, len(text))))
    a, c = checked(Word("aaa")), checked(Word("ccc"))
    assert places((~c.within("answer")).read(passage)) == [(7, 14), (17, 20)]
    assert places((~a.within("answer") | c).read(passage)) == [(7, 20)]
    assert places((a & ~c.within("answer")).read(passage)) == []  # "aaa" was thought
    assert places((a | c.within("answer")).read(passage)) == [(0, 3), (14, 17)]
    assert places((told(0.9, name="x").within("answer") & (a | c)).read(passage)) == [(14, 17)]
    whole = told(0.9, name="x").within("answer")  # of the answer as a whole, not of the text
    assert a.within(whole).read(passage).score == 0.0


def test_a_place_that_needs_segments_is_known_to() -> None:
    a, b = checked(Word("aaa")), checked(Word("bbb"))
    assert a.within(b.within("answer")).reads_segments
    assert (~a.within(b.within("answer"))).reads_segments
    assert not a.within(b).reads_segments


@pytest.mark.parametrize(
    "spec",
    [
        "refusal and not first-person-self-examination",
        "not (refusal or first-person-self-examination)",
        "(refusal or first-person-self-examination) and refusal",
        "refusal or first-person-self-examination and refusal",
        "refusal within thinking",
        "not refusal within (first-person-self-examination or refusal)",
        "(refusal and first-person-self-examination) within answer",
        "refusal within (first-person-self-examination within answer)",
    ],
)
def test_the_name_is_the_expression_and_leads_back(spec: str) -> None:
    made = load_probe(spec)
    again = load_probe(made.inner.expression)  # type: ignore[attr-defined]  # of a composed probe
    assert made.inner.expression == again.inner.expression == spec  # type: ignore[attr-defined]  # as above
    assert made.name == (spec if len(spec) <= 80 else made.name)
    assert made.version.count("refusal") == 1
    assert spec in made.definition
    assert load_probe("refusal").definition in made.definition


def test_needless_parentheses_are_no_other_probe() -> None:
    assert load_probe("((refusal) and (first-person-self-examination and refusal))").name == (
        "refusal and first-person-self-examination and refusal"
    )
    assert load_probe("not (not refusal)").name == "refusal"
    assert (~~load_probe("refusal")).name == "refusal"


def test_a_long_expression_has_a_short_name() -> None:
    long = load_probe(" or ".join(["first-person-self-examination"] * 4))
    other = load_probe(" or ".join(["first-person-self-examination"] * 5))
    assert long.name.startswith("combined-")
    assert len({long.name, other.name}) == 2
    assert "first-person-self-examination or first-person" in long.definition


def test_operators_are_the_words() -> None:
    a, b = load_probe("refusal"), load_probe("first-person-self-examination")
    assert (a & ~b).name == load_probe("refusal and not first-person-self-examination").name
    assert (a | b).within("answer").name == "(refusal or first-person-self-examination) within answer"
    text = "I'm sorry, but I can't help with that. I feel uneasy when I say so."
    for made, spec in ((a & b, "refusal and first-person-self-examination"), (~a, "not refusal")):
        assert made.read(Passage(text)) == load_probe(spec).read(Passage(text))


def test_its_level_is_the_coarsest_and_its_quality_not_measured() -> None:
    made = load_probe("refusal and first-person-self-examination")
    assert made.level == "generation"
    assert (told(1.0, level="token") | told(1.0, name="b", level="sentence")).level == "sentence"
    assert made.examples() == ()
    assert probe_quality(made) is None


def test_parts_are_still_checked() -> None:
    broken = checked(Told("broken", Reading(7.0)))
    with pytest.raises(ProbeError, match="broken returned"):
        (broken & told(1.0, name="b")).read(Passage(TEXT))
    with pytest.raises(ProbeError, match="Did you mean 'refusal'"):
        load_probe("not (refusl or refusal)")


def test_parameters_of_the_parts_are_kept_apart(tmp_path) -> None:  # type: ignore[no-untyped-def]  # a path
    path = tmp_path / "n.py"
    path.write_text(
        "from moeprobe.probes import probe\n"
        "@probe(name='n', version='1', level='generation', definition='d', examples=[('a', 1), ('b', 0)])\n"
        "def n(text, *, least=2):\n    return len(text) >= least\n"
    )
    made = load_probe(f"{path}(least=3) and not {path} or {path}(least=9)")
    assert made.name == "n(least=3) and not n or n(least=9)"
    assert made.parameters == {"n(least=3).least": 3, "n.least": 2, "n(least=9).least": 9}
    assert load_probe(f"{path}(least=3) or not {path}(least=3)").parameters == {"n.least": 3}
    with pytest.raises(ProbeError, match="Parameters belong to one probe"):
        load_probe(f"{path} or {path}", {"least": 2})
