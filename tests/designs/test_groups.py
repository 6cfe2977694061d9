"""Who is in which group."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from moeprobe.designs.groups import label_groups, probe_groups
from moeprobe.designs.regrouping import regroup
from moeprobe.errors import FindingsError, ProbeError, StatsError
from moeprobe.probes import Example, Passage, Reading, Span, checked


def labelled(values, key=None):
    return [
        SimpleNamespace(
            prompt_id=f"p{index}",
            label=value if key is None else None,
            metadata={} if key is None or value is None else {key: value},
            prompt_text="hello ",
            text=f"text {index}",
        )
        for index, value in enumerate(values)
    ]


@dataclass
class Scorer:
    """A probe that reads its score from a table of texts."""

    scores: dict
    name: str = "scorer"
    version: str = "1"
    level: str = "generation"
    definition: str = "A score for each text."
    seen: list = field(default_factory=list)

    def examples(self):
        return [Example("text 0", 1), Example("text 1", 0)]

    def read(self, passage: Passage):
        self.seen.append(passage)
        score = self.scores.get(passage.text)
        return Reading(score, (Span(0, 4, score, "mark"),) if score else ())


@pytest.mark.parametrize(
    ("values", "members"),
    [
        ([True, False, True], [1, 0, 1]),
        ([1, 0, 0], [1, 0, 0]),
        (["1", "0", "1"], [1, 0, 1]),
        (["positive", "negative", "negative"], [1, 0, 0]),
        (["no", "yes", None], [0, 1, -1]),
        (["True", "False", "False"], [1, 0, 0]),
    ],
)
def test_plain_labels(values, members):
    assert label_groups(labelled(values), "label").member.tolist() == members
    assert label_groups(labelled(values, "kind"), "metadata.kind").member.tolist() == members


def test_naming_the_values():
    trace = labelled(["harmful", "harmless", "odd", None, "harmful"])
    both = label_groups(trace, "label", "harmful", "harmless")
    assert both.member.tolist() == [1, 0, -1, -1, 1]
    assert both.name == "label:harmful"
    assert both.unlabelled == 2
    assert both.notes == ("1 generations with other values of label (odd) were left out.",)
    rest = label_groups(trace, "label", positive="harmful")
    assert rest.member.tolist() == [1, 0, 0, -1, 1]
    assert rest.negative == "label = harmless or odd"
    assert label_groups(labelled(["a", "b"]), "label", negative="b").member.tolist() == [1, 0]
    assert label_groups(labelled([True, False]), "label", positive="False").member.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("values", "arguments", "match"),
    [
        (["harmful", "harmless"], {}, "Found: harmful, harmless. Say so, for example --positive harmful"),
        (["true", "no"], {}, "--positive"),
        (["a", "b", "c"], {}, "--positive"),
        (["a", "b", "c"], {"negative": "a"}, "--positive"),
        (["a", "a"], {}, "one value of label"),
        (["a", "b"], {"positive": "z"}, "--positive z: no generation has this value of label. Found: a, b"),
        (["a", "b"], {"positive": "a", "negative": "z"}, "--negative z"),
        (["a", "b"], {"positive": "a", "negative": "a"}, "both name a"),
        ([None, None], {}, "No generation has a value"),
    ],
)
def test_unclear_labels_are_refused(values, arguments, match):
    with pytest.raises(StatsError, match=match):
        label_groups(labelled(values), "label", **arguments)


@pytest.mark.parametrize("by", ["labels", "metadata", "metadata.", "pair"])
def test_unknown_field(by):
    with pytest.raises(StatsError, match=r"metadata\.KEY"):
        label_groups(labelled([1, 0]), by)


def test_metadata_that_is_no_value():
    with pytest.raises(StatsError, match="holds a list"):
        label_groups(labelled([[1], [0]], "kind"), "metadata.kind")


def test_probe_scores():
    probe = Scorer({"text 0": 0.9, "text 1": 0.5, "text 2": 0.49, "text 3": 0.0})
    groups = probe_groups(labelled([None] * 5), probe)
    assert groups.member.tolist() == [1, 1, 0, 0, -1]
    assert groups.scores == (0.9, 0.5, 0.49, 0.0, None)
    assert groups.abstained == 1
    assert (groups.name, groups.kind, groups.version) == ("scorer", "probe", "1")
    assert groups.quality["examples"] == 2
    assert groups.attenuation is None  # it calls both of its own examples positive: no better than guessing
    assert groups.spans[0] == (Span(0, 4, 0.9, "mark"),)
    assert Passage("text 3", "hello ") in probe.seen


def test_probe_that_always_abstains():
    with pytest.raises(StatsError, match="abstained on all 2"):
        probe_groups(labelled([1, 0]), Scorer({}))


def test_probe_that_breaks_its_contract():
    with pytest.raises(ProbeError, match=r"1\.5"):
        probe_groups(labelled([1, 0]), Scorer({"text 0": 1.5}))


def in_sets(values, sets):
    made = labelled(values)
    for one, name in zip(made, sets, strict=True):
        one.metadata["set"] = name
    return made


def test_only_a_part_of_the_prompts():
    trace = in_sets(["a", "b", "c", None, "a"], ["x", "x", "y", "x", "y"])
    groups = label_groups(trace, "label", "a", only="set=x")
    assert groups.member.tolist() == [1, 0, -1, -1, -1]
    assert groups.unlabelled == 1
    assert groups.notes == ()
    probe = Scorer({"text 0": 0.9, "text 2": 0.9, "text 4": 0.1})
    judged = probe_groups(trace, probe, only="metadata.set=y")
    assert judged.member.tolist() == [-1, -1, 1, -1, 0]
    assert judged.abstained == 0
    assert {passage.text for passage in probe.seen if passage.prompt} == {"text 2", "text 4"}
    assert label_groups(trace, "metadata.set", "x", only="label=a").member.tolist() == [1, -1, -1, -1, 0]


@pytest.mark.parametrize(("only", "match"), [("set", "KEY=VALUE"), ("=x", "KEY=VALUE"), ("set=z", ": x, y")])
def test_only_that_fits_nothing(only, match):
    with pytest.raises(StatsError, match=match):
        label_groups(in_sets(["a", "b"], ["x", "y"]), "label", "a", only=only)


def question_of(groups):
    return {"name": groups.name, "version": groups.version, "grouping": groups.grouping}


def test_regroup_gives_the_same_groups():
    trace = in_sets(["a", "b", "c", None, "a", "b"], ["x", "x", "x", "x", "y", "x"])
    for arguments in ({"positive": "a"}, {"positive": "b", "negative": "a", "only": "set=x"}):
        groups = label_groups(trace, "label", **arguments)
        assert regroup(trace, question_of(groups)).member.tolist() == groups.member.tolist()
    probe = Scorer({"text 0": 0.9, "text 2": 0.2, "text 4": 0.1})
    groups = probe_groups(trace, probe, only="set=x")
    assert regroup(trace, question_of(groups), probe).member.tolist() == [1, -1, 0, -1, -1, -1]


def test_regroup_refuses_another_probe():
    trace = labelled([1, 0])
    groups = probe_groups(trace, Scorer({"text 0": 0.9}))
    for other in (None, Scorer({"text 0": 0.9}, version="2"), Scorer({"text 0": 0.9}, name="other")):
        with pytest.raises(StatsError, match="asked of the probe scorer 1, but"):
            regroup(trace, question_of(groups), other)
    with pytest.raises(FindingsError, match="grouping"):
        regroup(trace, {"name": "scorer"}, None)


def test_regroup_refuses_a_probe_that_was_edited():
    """Its name, version and parameters are the same; what it says is not."""
    trace = in_sets([None] * 5, ["x", "x", "x", "x", "y"])
    scores = {"text 0": 0.9, "text 1": 0.2, "text 2": 0.1, "text 3": None}
    question = question_of(probe_groups(trace, Scorer(scores), only="set=x"))
    assert question["grouping"]["members"] == "+--.."
    edited = scores | {"text 1": 0.6, "text 3": 0.1}
    with pytest.raises(StatsError, match="now sorts 2 of 5 generations otherwise. Run correlate again"):
        regroup(trace, question, Scorer(edited))
    with pytest.raises(StatsError, match="sorts all 5 generations as before, but with other scores or marks"):
        regroup(trace, question, Scorer(scores | {"text 1": 0.3}))
    with pytest.raises(StatsError, match="made from 5 generations, but there are 4"):
        regroup(trace[:4], question, Scorer(scores))
    # a sum in another order, and what was not read, are no change
    assert regroup(trace, question, Scorer(scores | {"text 1": 0.2 + 1e-9, "text 4": 1.0})).member.tolist()[0] == 1
    for key in ("members", "readings"):  # a file written before they were recorded
        del question["grouping"][key]
    assert regroup(trace, question, Scorer(edited)).member.tolist() == [1, 1, 0, 0, -1]


def test_regroup_refuses_other_marks():
    class Marker(Scorer):
        def read(self, passage):  # noqa: ARG002 - the mark was set beforehand
            return Reading(1.0, (Span(0, len(self.scores), 1.0, "m"),))

    trace = labelled([None] * 2)
    question = question_of(probe_groups(trace, Marker("ab")))
    assert regroup(trace, question, Marker("xy")).member.tolist() == [1, 1]
    with pytest.raises(StatsError, match="all 2 generations as before, but with other scores or marks"):
        regroup(trace, question, Marker("abc"))


def test_a_composed_probe_is_known_by_what_it_says():
    trace = labelled([None] * 3)
    low, high = ({f"text {number}": value for number in range(3)} for value in (0.1, 0.9))
    made = checked(Scorer(high)) & checked(Scorer(high | {"text 1": 0.0}, name="second"))
    question = question_of(probe_groups(trace, made)) | {"parameters": made.parameters}
    assert regroup(trace, question, made).member.tolist() == [1, 0, 1]
    with pytest.raises(StatsError, match="now sorts 2 of 3 generations otherwise"):
        regroup(trace, question, checked(Scorer(high)) & checked(Scorer(low, name="second")))


def test_counts_are_plain_numbers():
    """What goes into the findings is written as JSON, which takes no numpy number."""
    generations = labelled([None, None, None], None)
    for one, kind in zip(generations, ("a", "a", "b"), strict=True):
        one.metadata = {"set": kind}
    groups = probe_groups(generations, Scorer({"text 0": 0.9}), only="set=a")
    assert (type(groups.abstained), groups.abstained) == (int, 1)
    assert type(label_groups(labelled([1, 0, None]), "label").unlabelled) is int


def test_a_measured_probe_says_what_its_mistakes_leave():
    class Measured(Scorer):
        def examples(self):
            return [Example(f"text {number}", number % 2) for number in range(20)]

    scores = {f"text {number}": float(number % 2) for number in range(30)}
    groups = probe_groups(labelled([None] * 30), Measured(scores | {"text 0": 1.0}))
    assert groups.quality["specificity"]["value"] == 0.9
    # 16 of 30 called positive with Se = 1, Sp = .9: share (16/30 - .1) / .9 = .48148; PPV + NPV - 1 = .90278
    assert groups.attenuation["share"]["value"] == pytest.approx(0.481481, abs=1e-6)
    assert groups.attenuation["factor"]["value"] == pytest.approx(0.902778, abs=1e-6)
