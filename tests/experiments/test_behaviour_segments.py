"""Probes that read thinking or answer apart judge edited text too: each part is told apart in what an edit made."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moeprobe.designs.segments import segments_of
from moeprobe.editing import Edit, generate_edited
from moeprobe.engines import Decoding, record
from moeprobe.errors import InterchangeError
from moeprobe.experiments.behaviour import PromptPair, TextArm, behaviour, effect, prompt_pairs, run_arms, site_set
from moeprobe.experiments.rescue import rescue
from moeprobe.models import LoadedModel
from moeprobe.probes import checked, probe
from moeprobe.prompts import Prompt

SHORT = Decoding(max_new_tokens=8)


@probe(name="sorry", version="1", level="generation", definition="Says sorry.", examples=[("sorry", 1), ("the", 0)])
def sorry(text: str) -> bool:
    return "sorry" in text


@probe(name="farmer", version="1", level="generation", definition="Of a farmer.", examples=[("farmer", 1), ("the", 0)])
def farmer(text: str) -> bool:
    return "farmer" in text


SORRY, FARMER = checked(sorry), checked(farmer)


@pytest.fixture(scope="module")
def thinker(compiled: LoadedModel) -> LoadedModel:
    """The compiled model, which writes "sorry thus sorry thus ..." or "the narrow farmer holds ...", with a tokenizer
    that declares how its thinking opens and closes: "sorry thus" and "the narrow farmer" are thought."""
    tokenizer = deepcopy(compiled.tokenizer)
    marks = {"thinking": {"open": "sorry", "close": "thus"}, "reasoning": {"open": "the", "close": "farmer"}}
    tokenizer.response_template = {"fields": marks}
    return replace(compiled, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def pairs(compiled_prompts: list[Prompt]) -> list[PromptPair]:
    return prompt_pairs(compiled_prompts, "triggered")[:3]


def given(pairs: list[PromptPair]) -> list[Any]:
    return [one for pair in pairs for one in (pair.sensitive, pair.control)]


def test_the_parts_are_those_that_a_trace_has(thinker: LoadedModel, pairs: list[PromptPair], tmp_path: Path) -> None:
    written = generate_edited(thinker, given(pairs), decoding=SHORT)
    assert [one.text[start:end] for one in written[:2] for _, start, end in one.segments] == [
        "sorry thus", " sorry thus sorry thus sorry thus", "the narrow farmer", " holds this hill finds a",
    ]  # fmt: skip
    assert [name for name, _, _ in written[0].segments] == ["thinking", "answer"]
    trace = record(thinker, given(pairs), tmp_path / "a.trace", decoding=SHORT)
    assert tuple(one.segments for one in written) == segments_of(trace)


def test_a_part_that_begins_with_the_last_token_has_no_row_and_is_none(
    thinker: LoadedModel, pairs: list[PromptPair], tmp_path: Path
) -> None:
    three = Decoding(max_new_tokens=3)  # "sorry thus", then the first word of the answer
    written = generate_edited(thinker, given(pairs), decoding=three)
    assert written[0].segments == (("thinking", 0, len("sorry thus sorry")),)
    assert tuple(one.segments for one in written) == segments_of(
        record(thinker, given(pairs), tmp_path / "b.trace", decoding=three)
    )


def test_an_edit_moves_what_is_thought(thinker: LoadedModel, pairs: list[PromptPair]) -> None:
    found = behaviour(thinker, pairs, "L2.E5", SORRY.within("thinking"), SHORT)
    assert found.probe == "sorry within thinking"
    assert [found.answers[name].shown.tolist() for name in ("sensitive", "control")] == [[1, 1, 1], [0, 0, 0]]
    assert [found.effects[name].points for name in ("necessity", "sufficiency", "knockout")] == [100.0] * 3
    assert found.effects["placebo_necessity"].points == 0.0
    assert rescue(thinker, pairs, "L2.E5", SORRY.within("thinking"), SHORT).effects["rescue"].points == 100.0


def test_only_the_part_that_is_asked_for_is_read(thinker: LoadedModel, pairs: list[PromptPair]) -> None:
    back = [PromptPair(one.id, one.control, one.sensitive) for one in pairs]
    for judge in (FARMER, FARMER.within("thinking")):
        assert behaviour(thinker, back, "L2.E5", judge, SHORT).effects["necessity"].points == 100.0
    with pytest.raises(InterchangeError, match="alike"):  # the farmer is thought of and never spoken of
        behaviour(thinker, back, "L2.E5", FARMER.within("answer"), SHORT)


def test_a_model_that_does_not_think(compiled: LoadedModel, pairs: list[PromptPair], thinker: LoadedModel) -> None:
    everything = behaviour(compiled, pairs, "L2.E5", SORRY.within("answer"), SHORT)
    assert everything.effects["knockout"].points == 100.0
    with pytest.raises(InterchangeError, match="had nothing to read in any answer"):
        behaviour(compiled, pairs, "L2.E5", SORRY.within("thinking"), SHORT)
    with pytest.raises(InterchangeError, match="had nothing to read in any answer"):  # cut off before thinking is over
        behaviour(thinker, pairs, "L2.E5", SORRY.within("answer"), Decoding(max_new_tokens=2))


def test_an_answer_without_the_part_is_left_out_and_counted(compiled: LoadedModel, pairs: list[PromptPair]) -> None:
    """Only "sorry thus" is thinking here: the controls do not think, nor does a sensitive run whose expert is gone."""
    tokenizer = deepcopy(compiled.tokenizer)
    tokenizer.response_template = {"fields": {"thinking": {"open": "sorry", "close": "thus"}}}
    model = replace(compiled, tokenizer=tokenizer)
    arms = [
        TextArm(name, tuple(one.sensitive for one in pairs), tuple(one.control for one in pairs), edits)
        for name, edits in (("sensitive", ()), ("knockout", (Edit("zero", site_set(model, "L2.E5")),)))
    ]
    answers = run_arms(model, arms, SORRY.within("thinking"), SHORT, None)
    assert answers["sensitive"].shown.tolist() == [1, 1, 1]
    assert np.isnan(answers["knockout"].shown).all()
    with pytest.raises(InterchangeError, match="No pair was judged in both arms"):
        effect(answers, "knockout", "sensitive", None, 100, 0)
