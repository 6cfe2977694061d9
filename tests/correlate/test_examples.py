"""The generations shown to a reader."""

from dataclasses import replace

import numpy as np
import pytest

from moeprobe.correlate import correlate, examples
from moeprobe.correlate.shown import texts
from moeprobe.probes import Example, Reading, Span
from tests.correlate.simulated import FakeTrace, World, simulate

SMALL = World(generations=24, layers=3, experts=20, k=4, mean_length=15, delta=3.0, planted=4)


def score(text):
    """From the number of words, so that about half of all texts are positive."""
    return len(text) // 5 * 3 % 10 / 10


class Marker:
    """Marks characters 7 to 12 of each answer: the end of the second token and the beginning of the third."""

    name, version, level, definition = "marker", "1", "generation", "Every other text."

    def examples(self):
        return [Example("w000 " * 3, 1), Example("w000 " * 10, 0)]

    def read(self, passage):
        return Reading(score(passage.text), (Span(7, 12, 1.0, "x"),))


def test_tokens_weights_and_spans():
    trace = simulate(0, SMALL)
    question, rows, _ = correlate(trace, probe=Marker())
    shown = question["examples"]
    assert [one["group"] for one in shown] == ["positive"] * 5 + ["negative"] * 5
    for one in shown:
        generation = trace.generations[one["generation"]]
        assert one["answer_start"] == 3
        assert "".join(one["tokens"][:3]) == generation.prompt_text
        assert "".join(one["tokens"][3:]) == generation.text
        assert one["spans"] == [[4, 6]]
        assert one["score"] == score(generation.text)
        assert len(one["weights"]) == examples.SITES
        for site, weights in one["weights"].items():
            layer, expert = (int(part[1:]) for part in site.split("."))
            expected = raw_weights(trace, one["generation"], layer, expert)
            assert weights["at"] == [index for index, value in enumerate(expected) if value is not None]
            wanted = [value for value in expected if value is not None]
            assert weights["weight"] == pytest.approx(wanted, rel=5e-4)
    best = min((row for row in rows if row["p"] is not None), key=lambda row: row["p"])
    assert best["site"] == next(iter(shown[0]["weights"]))


def raw_weights(trace, generation, layer, expert):
    for shard in trace.shards():
        rows = np.flatnonzero(shard.generation == generation)
        if rows.size:
            hits = shard.experts(layer)[rows] == expert
            weights = shard.weights(layer)[rows]
            return [float(weights[i][hits[i]][0]) if hits[i].any() else None for i in range(rows.size)]
    raise AssertionError(generation)


def test_clearest_scores_first_and_other_prompts_before_repeated_ones():
    trace = simulate(0, SMALL)
    same = [replace(one, prompt_id=f"p{one.index // 3}") for one in trace.generations]
    question, _, _ = correlate(FakeTrace(trace.manifest, same, trace.pieces), probe=Marker(), examples=3)
    positives = [one for one in question["examples"] if one["group"] == "positive"]
    scores = [one["score"] for one in positives if one["prompt_id"] != positives[0]["prompt_id"]]
    every = [score(one.text) for one in trace.generations]
    assert positives[0]["score"] == max(every)
    assert scores == sorted(scores, reverse=True)
    assert len({one["prompt_id"] for one in positives}) == 3


def test_no_text_at_all_when_it_is_not_wanted():
    question, _, _ = correlate(simulate(0, SMALL), by="label", text=False)
    assert question["examples"] == []


def test_long_generations_are_cut_and_said_to_be(monkeypatch):
    monkeypatch.setattr(examples, "PROMPT_TOKENS", 2)
    monkeypatch.setattr(examples, "ANSWER_TOKENS", 4)
    trace = simulate(0, SMALL)
    question, _, notes = correlate(trace, by="label")
    for one in question["examples"]:
        assert len(one["tokens"]) == 6
        assert one["answer_start"] == 2
        generation = trace.generations[one["generation"]]
        assert "".join(one["tokens"]) == generation.prompt_text[5:] + generation.text[:20]
    assert "label:1: 10 of the 10 examples shown are long and only shown in part." in notes


def test_characters_split_over_tokens_are_shown_once():
    """Three tokens make one emoji; the tokenizer gives all of them its range."""
    starts, ends = np.array([0, 1, 1, 1, 2]), np.array([1, 2, 2, 2, 4])
    assert texts("a\U0001f600bc", starts, ends) == ["a", "\U0001f600", "", "", "bc"]
    assert texts("", np.array([], dtype=int), np.array([], dtype=int)) == []
