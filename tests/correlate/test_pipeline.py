"""correlate as a whole: what it returns, what it refuses, and that its numbers are the definitions'."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from moeprobe.correlate import correlate
from moeprobe.correlate.question import asked_of
from moeprobe.errors import StatsError
from moeprobe.findings import Findings, load_findings
from moeprobe.gathering.counts import segment_lengths
from moeprobe.probes import Example, Reading, Span
from moeprobe.stats import matched_lengths
from moeprobe.trace import Generation, LayerInfo, Manifest, Routing, ShardData, TraceWriter, load_trace
from tests.correlate.simulated import (
    FakeGeneration,
    FakeLayer,
    FakeManifest,
    FakeShard,
    FakeTrace,
    World,
    planted_cells,
    simulate,
)
from tests.gathering.counting import count

PLANTED = World(delta=1.5)
SMALL = World(generations=12, layers=3, experts=20, k=4, mean_length=15, delta=3.0, planted=4)


@pytest.fixture(scope="module")
def answered():
    return correlate(simulate(0, PLANTED), by="label")


def relabelled(trace, labels):
    generations = [replace(one, label=label) for one, label in zip(trace.generations, labels, strict=True)]
    return FakeTrace(trace.manifest, generations, trace.pieces)


def toy_trace(generations=20, tokens=30, experts=16):
    """A deterministic model: positives always choose expert 0, negatives always expert 1, all of them expert 2."""
    rows = generations * tokens
    positive = np.repeat(np.arange(generations) % 2 == 0, tokens)
    ids = np.column_stack([np.where(positive, 0, 1), np.full(rows, 2)]).astype(np.uint8)
    columns = {
        "token_id": np.tile(np.arange(tokens), generations),
        "generation": np.repeat(np.arange(generations), tokens),
        "position": np.tile(np.arange(tokens), generations),
        "segment": np.ones(rows, dtype=np.uint8),
        "char_start": np.tile(np.arange(tokens), generations),
        "char_end": np.tile(np.arange(tokens) + 1, generations),
    }
    shard = FakeShard(columns, {0: (ids, np.full(ids.shape, 0.5, dtype=np.float32), None)})
    made = [FakeGeneration(i, f"p{i}", i % 2 == 0, "", "x" * tokens) for i in range(generations)]
    return FakeTrace(FakeManifest((FakeLayer(0, experts, 2),)), made, (shard,))


def test_finds_the_planted_experts(answered):
    _, rows, notes = answered
    found = {row["site"] for row in rows if row["association"] == "associated"}
    assert len(found & planted_cells(PLANTED)) >= 8
    # false calls are counted over many traces by the gates (test_error_gate.py): one trace says nothing of a rate
    for row in rows:
        if row["site"] in found & planted_cells(PLANTED):
            assert (row["t"] > 0) == (row["expert"] % 2 == 0) == (row["rate_difference"] > 0) == (row["auc"] > 0.5)
    assert notes == []


def test_every_row_keeps_the_identities(answered):
    _, rows, _ = answered
    assert len(rows) == 512
    for row in rows:
        for group in "10":
            S, Q, W = row["S" + group], row["Q" + group], row["W" + group]
            assert (Q is None) == (S == 0)
            assert abs(W - S * (Q or 0)) <= 1e-12
        assert abs(row["entry"] + row["valuation"] - row["dW"]) <= 1e-12
        assert row["dS"] == row["S1"] - row["S0"]
        assert row["rate_difference_ci"] is None or (
            row["rate_difference_ci"][0] <= row["rate_difference"] <= row["rate_difference_ci"][1]
        )
        assert row["verdict"] == row["association"]
        assert (row["reason"] is None) == (row["q"] is not None)
    for layer in range(4):
        for group in "10":
            assert sum(row["S" + group] for row in rows if row["layer"] == layer) == pytest.approx(8, abs=1e-9)
            assert sum(row["W" + group] for row in rows if row["layer"] == layer) == pytest.approx(1, abs=1e-6)


def test_nothing_is_nan_and_json_takes_it(answered):
    for trace in (simulate(0, PLANTED), toy_trace(), simulate(1, SMALL)):
        question, rows, _ = correlate(trace, by="label")
        json.dumps([question, rows], allow_nan=False)  # raises on NaN and infinity
        for row in rows:
            for test, untested in (
                (row, row["reason"] is not None),
                (row["marginal"], row["rate_difference_ci"] is None),
            ):
                for key in ("t", "df", "p", "q", "fwer"):
                    assert (test[key] is None) == untested
                assert untested or (0 < test["p"] <= test["q"] <= 1 and 0 < test["fwer"] <= 1)
            assert (row["association"] == "untestable") <= (row["q"] is None)


def test_numbers_are_those_of_the_definitions(answered):
    """One expert, recomputed from the raw rows with plain Python."""
    trace = simulate(0, PLANTED)
    _, rows, _ = answered
    row = next(row for row in rows if row["site"] == "L0.E0")
    lengths = [len(one.text) // 5 for one in trace.generations]
    arms = {label: [g for g in range(30) if trace.generations[g].label == label] for label in (1, 0)}
    keep = {}
    pairs = zip(*(sorted(arm, key=lengths.__getitem__) for arm in arms.values()), strict=True)
    for one, zero in pairs:
        keep[one] = keep[zero] = min(lengths[one], lengths[zero])
    chosen, weight = dict.fromkeys(range(30), 0), dict.fromkeys(range(30), 0.0)
    for shard in trace.shards():
        for index in range(len(shard.position)):
            g = int(shard.generation[index])
            if 0 <= shard.position[index] - 3 < keep[g]:
                for expert, w in zip(shard.experts(0)[index], shard.weights(0)[index], strict=True):
                    if expert == 0:
                        chosen[g] += 1
                        weight[g] += float(w)
    tokens = sum(keep[g] for g in arms[1])
    assert row["S1"] == pytest.approx(sum(chosen[g] for g in arms[1]) / tokens, rel=1e-12)
    assert row["W1"] == pytest.approx(sum(weight[g] for g in arms[1]) / tokens, rel=1e-8)
    rates = [[chosen[g] / keep[g] for g in arms[label]] for label in (1, 0)]
    assert row["auc"] == pytest.approx(mannwhitneyu(*rates).statistic / 225, rel=1e-12)
    assert row["rate_difference"] == pytest.approx(np.mean(rates[0]) - np.mean(rates[1]), rel=1e-12)


def test_shards_do_not_matter():
    trace = simulate(1, SMALL)
    assert correlate(trace.resharded([[g] for g in range(11, -1, -1)]), by="label") == correlate(trace, by="label")


def test_design_says_what_was_done(answered):
    question, rows, _ = answered
    design = question["design"]
    assert design["positive"]["generations"] == design["negative"]["generations"] == 15
    assert design["positive"]["tokens_used"] == design["negative"]["tokens_used"] <= design["positive"]["tokens"]
    assert design["length_ratio_after"] == 1.0
    assert design["tested"] == sum(row["p"] is not None for row in rows)
    assert design["tested"] + design["untestable"] == 512
    assert f"Benjamini-Hochberg over {design['tested']} experts" in design["sentence"]
    assert question["positive"] == "label = 1"
    assert design["prior_df"] is None or design["prior_df"] > 0
    assert design["prior"].startswith("prior variance following")


def test_deterministic_model_is_associated_with_a_tiny_p():
    question, rows, _ = correlate(toy_trace(), by="label")
    assert [row["association"] for row in rows[:3]] == ["associated", "associated", "untestable"]
    assert rows[0]["p"] < 1e-14
    # by hand, with the sampling floor 1 / (4 * 30): pi/2 / sqrt(1/120 * (1/10 + 1/10))
    assert rows[0]["marginal"]["t"] == pytest.approx(38.4765, rel=1e-5)
    # By hand: of every token 10 of 20 choose it, so O - E is 15 or -15 and V is 30 / 4 in each generation: standardised
    # rates of 1/2 +- 15/32, whose asin(sqrt()) differ by 1.215375. The floor is 7.5 / 16 / 8^2, times 1 - 1 / 20, as E
    # holds the own tokens; t is that difference over the root of the floor / 5.
    assert rows[0]["t"] == pytest.approx(32.58014, rel=1e-5)
    assert rows[0]["fwer"] == pytest.approx(1 / 10_001)
    assert rows[0]["S1"] == 1
    assert rows[0]["auc"] == 1
    low, high = rows[0]["rate_difference_ci"]
    assert 0.9 < low < high == 1  # 300 tokens each way do not make a rate exactly 1
    assert rows[2]["reason"] == "selected at the same rate in every generation"
    assert {row["reason"] for row in rows[3:]} == {"never selected in the compared tokens"}
    assert question["design"]["prior"].startswith("none")


def test_rare_experts_are_not_tested():
    trace = toy_trace()
    ids, weights, _ = trace.pieces[0].routing[0]
    ids = ids.copy()
    ids[:8, 1] = 5  # 8 selections in all, 4 expected in each group
    ids[300:311, 1] = 6  # 11 selections, 5.5 expected
    shard = FakeShard(trace.pieces[0].columns, {0: (ids, weights, None)})
    trace = FakeTrace(trace.manifest, trace.generations, (shard,))
    rows = correlate(trace, by="label")[1]
    assert rows[5]["reason"] == "too rare: 4.0 selections expected in the smaller group, 5 are needed"
    assert rows[5]["p"] is rows[5]["rate_difference_ci"] is None
    assert rows[6]["reason"] is None
    # five against fifteen: 11 selections in 600 tokens are 2.75 expected in the smaller group's 150
    uneven = correlate(relabelled(trace, [index < 5 for index in range(20)]), by="label")[1]
    assert uneven[6]["reason"] == "too rare: 2.8 selections expected in the smaller group, 5 are needed"


@pytest.mark.parametrize(("generations", "tested", "noted"), [(8, False, True), (10, True, True), (30, True, False)])
def test_few_generations(generations, tested, noted):
    question, rows, notes = correlate(simulate(0, replace(PLANTED, generations=generations)), by="label")
    assert any(row["p"] is not None for row in rows) == tested
    assert bool(notes) == noted
    if not tested:
        assert {row["association"] for row in rows} == {"untestable"}
        assert {row["reason"] for row in rows} == {"fewer than 5 generations in a group (4 positive, 4 negative)"}
        assert "carry no p-value" in notes[0]
        assert question["design"]["tested"] == 0
        assert question["design"]["prior"] == "none: no test was made"
        assert all(row["rate_difference_ci"] is None for row in rows)
        assert rows[0]["S1"] > 0
    elif noted:
        assert "Only 5 positive and 5 negative generations" in notes[0]


def test_samples_of_one_prompt_are_one_unit():
    trace = simulate(0, replace(PLANTED, samples=3))
    question, rows, notes = correlate(trace, by="label")
    assert question["design"]["unit"] == "prompt"
    assert question["design"]["positive"]["generations"] == 15
    assert "5 positive and 5 negative prompts" in notes[0]
    # one value for each prompt: all its kept tokens together
    lengths = segment_lengths(trace, "answer")
    positive = np.array([one.label == 1 for one in trace.generations])
    keep = np.zeros_like(lengths)
    keep[positive], keep[~positive] = matched_lengths(lengths[positive], lengths[~positive])
    counts = count(trace, "answer", keep)
    rates = [counts.selected[i : i + 3, 0].sum() / keep[i : i + 3].sum() for i in range(0, 30, 3)]
    assert rows[0]["rate_difference"] == pytest.approx(np.mean(rates[::2]) - np.mean(rates[1::2]), rel=1e-12)
    four = simulate(0, replace(PLANTED, generations=24, samples=3))
    assert {row["association"] for row in correlate(four, by="label")[1]} == {"untestable"}


def test_one_class_only_is_refused():
    trace = simulate(0, SMALL)
    with pytest.raises(StatsError, match="one value of label"):
        correlate(relabelled(trace, ["a"] * 12), by="label")
    with pytest.raises(StatsError, match="No generation is positive"):
        correlate(trace, probe=Judge({}))
    with pytest.raises(StatsError, match="No generation has a value"):
        correlate(relabelled(trace, [None] * 12), by="label")


def test_group_without_tokens_in_the_segment():
    trace = simulate(0, SMALL)
    with pytest.raises(StatsError, match="has a token in segment 'thinking'"):
        correlate(trace, by="label", segment="thinking")


@pytest.mark.parametrize(
    "arguments",
    [{}, {"by": "label", "probe": "x"}, {"by": "label", "alpha": 1.0}, {"by": "label", "segment": "reply"}],
)
def test_arguments_that_make_no_sense(arguments):
    if arguments.get("probe"):
        arguments = {**arguments, "probe": Judge({})}
    with pytest.raises(StatsError):
        correlate(simulate(0, SMALL), **arguments)


def test_unlabelled_and_empty_generations_are_left_out_and_counted():
    trace = simulate(0, SMALL)
    labels = [None, None, *(one.label for one in trace.generations[2:])]
    trace = relabelled(trace, labels)
    pieces = []
    for piece in trace.pieces:  # generation 4 stopped at once: a prompt without an answer
        rows = ~((piece.columns["generation"] == 4) & (piece.columns["segment"] == 1))
        routing = {layer: (ids[rows], weights[rows], None) for layer, (ids, weights, _) in piece.routing.items()}
        pieces.append(FakeShard({name: values[rows] for name, values in piece.columns.items()}, routing))
    design = correlate(FakeTrace(trace.manifest, trace.generations, tuple(pieces)), by="label")[0]["design"]
    found = {"unlabelled": 2, "no_tokens": 1}
    assert design["left_out"] == dict.fromkeys(design["left_out"], 0) | found
    assert design["positive"]["generations"] == 4
    assert design["negative"]["generations"] == 5
    assert "quantile" in design["length_matching"]


class Judge:
    """Positive where the text holds a word of the table; marks the word."""

    name, version, level, definition = "judge", "3", "generation", "Texts with a word."

    def __init__(self, words):
        self.words = words

    def examples(self):
        return [Example("w000 ", 1), Example("", 0)]

    def read(self, passage):
        found = [(passage.text.index(word), word) for word in self.words if word in passage.text]
        return Reading(1.0 if found else 0.0, tuple(Span(start, start + len(word), 1.0, word) for start, word in found))


def test_probe_question():
    trace = simulate(0, SMALL)
    word = trace.generations[0].text[5:10]
    positives = [one.index for one in trace.generations if word in one.text]
    assert 0 < len(positives) < 12
    question, rows, _ = correlate(trace, probe=Judge({word: 1}))
    assert question["name"] == rows[0]["probe"] == "judge"
    assert question["quality"]["examples"] == 2
    assert "attenuation" in question
    assert question["design"]["positive"]["generations"] == len(positives)
    with pytest.raises(StatsError, match="with a probe the score decides"):
        correlate(trace, probe=Judge({word: 1}), positive="1")


def test_a_real_trace_and_a_real_findings_file(tmp_path: Path):
    """Written by TraceWriter, read by load_trace, and the findings pass the reader's checks."""
    fake = simulate(0, SMALL)
    layers = tuple(LayerInfo(info.layer, info.experts, info.k, 1.0, False, "experts") for info in fake.manifest.layers)
    manifest = Manifest(layers, "now", "0", {"id": "toy"}, {}, {}, {}, {}, {})
    with TraceWriter(tmp_path / "toy.trace") as writer:
        for piece in fake.pieces:
            made = []
            for index in dict.fromkeys(int(value) for value in piece.columns["generation"]):
                one = fake.generations[index]
                answer = len(one.text) // 5
                texts = (one.prompt_text, one.text)
                made.append(
                    Generation(index, one.prompt_id, 0, *texts, "eos", answer + 1, 0, 3, answer, label=one.label)
                )
            routing = {f"L{layer}": Routing(ids, weights) for layer, (ids, weights, _) in piece.routing.items()}
            writer.add(ShardData(piece.columns, routing), made, manifest)
        writer.finish()
    question, rows, notes = correlate(load_trace(tmp_path / "toy.trace"), by="label")
    assert (question, rows, notes) == correlate(fake, by="label")
    model = {"id": "toy", "family": "toy", "num_hidden_layers": 4, "layers": []}
    run = {"path": "toy.trace", "digest": "", "generations": 0, "rows": 0, "provenance": {}}
    Findings(model, run, [question], rows, [], notes).write(tmp_path / "findings.json")
    assert load_findings(tmp_path / "findings.json").rows == rows


def test_only_is_said_in_the_design():
    trace = simulate(0, SMALL)
    kept = [replace(one, metadata={"set": "x" if one.index < 10 else "y"}) for one in trace.generations]
    question, _, _ = correlate(FakeTrace(trace.manifest, kept, trace.pieces), by="label", only="set=x", text=False)
    assert question["design"]["positive"]["generations"] == 5
    assert question["design"]["left_out"]["unlabelled"] == 0
    assert "label = 0, only where set = x, on" in question["design"]["sentence"]
    assert question["grouping"] == {"by": "label", "positive": "1", "negative": None, "only": "set=x"}


@pytest.mark.parametrize("kind", ["pairs", "scores", "within generations", "two groups"])
def test_label_error_is_said_to_shrink_groups_only(kind):
    left = {"factor": {"value": 0.8, "ci": [0.7, 0.9]}, "share": {"value": 0.5, "ci": [0.4, 0.6]}, "basis": "x"}
    groups = SimpleNamespace(
        name="x", kind="probe", version="1", parameters={}, definition="x", positive="x", negative="x", quality=None,
        attenuation=left, grouping={},
    )  # fmt: skip
    assert asked_of(groups, SimpleNamespace(kind=kind))["attenuation"] == (left if kind == "two groups" else None)
