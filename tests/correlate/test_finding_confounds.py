"""What else tells the groups apart: against hand computation, scikit-learn, and texts whose truth is known."""

from collections import Counter

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from moeprobe.correlate.evidence_sorting import sort_by_length, sort_by_position
from moeprobe.correlate.evidence_topics import Prompt, dirichlet_z, sort_by_words, topics, words_of
from moeprobe.probes.auc import newcombe
from moeprobe.stats.simulation import World, simulate
from tests.correlate.asking import Capitals, answers_of, ask, changed

SIZE = {"layers": 1, "experts": 16, "k": 2, "planted": 2, "planted_layers": 1, "mean_length": 60.0, "vocabulary": 200}
COMMON = [
    "please",
    "tell",
    "me",
    "about",
    "the",
    "thing",
    "that",
    "people",
    "like",
    "to",
    "do",
    "in",
    "evening",
    "with",
    "friends",
]


def prompts(seed, count, *, topic=0.0, same=False):
    """Random prompts; on the positive side `topic` of them speak of locks, on the other of bread."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        for side in (1, 0):
            words = rng.choice(COMMON, 8).tolist()
            if rng.random() < topic:
                words.append("lock" if side else "bread")
            text = " ".join(words) + f" {number if same else 2 * number + side}"
            made.append(Prompt(f"same {number}" if same else text, side, str(number) if same else text))
    return made


def test_words():
    assert words_of("Don't panic: É, 2x2 \U0001f600 ПРИВЕТ!") == {"don't", "panic", "é", "2x2", "привет"}
    assert words_of("鍵の複製 ok") == {"鍵の", "の複", "複製", "ok"}
    assert words_of("鍵") == {"鍵"}
    assert words_of("_ -- \n") == set()
    assert max(len(word) for word in words_of("x" * 1_000_000)) == 40


def test_dirichlet_z_by_hand():
    """Equations 16, 19 and 20 of Monroe, Colaresi and Quinn (2008), word by word."""
    one, zero = np.array([9.0, 3.0, 0.0, 12.0]), np.array([1.0, 3.0, 5.0, 11.0])
    total = 0.1 * (one.sum() + zero.sum())
    expected = []
    for y1, y0 in zip(one.tolist(), zero.tolist(), strict=True):
        prior = 0.1 * (y1 + y0)
        delta = np.log((y1 + prior) / (one.sum() + total - y1 - prior))
        delta -= np.log((y0 + prior) / (zero.sum() + total - y0 - prior))
        expected.append(delta / np.sqrt(1 / (y1 + prior) + 1 / (y0 + prior)))
    assert dirichlet_z(one, zero) == pytest.approx(expected, rel=1e-12)
    assert np.isfinite(dirichlet_z(np.array([4.0]), np.array([2.0]))).all()


def test_topics_are_found_and_chance_is_not():
    found = topics(prompts(0, 30, topic=0.6))
    assert [(word["word"], word["z"] > 0) for word in found][:2] == [("lock", True), ("bread", False)]
    counted = Counter(one.side for one in prompts(0, 30, topic=0.6) if "lock" in one.text)
    assert (found[0]["positive"], found[0]["negative"]) == (counted[1], counted[0])
    assert not {"the", "please"} & {word["word"] for word in found}
    by_chance = [len(topics(prompts(seed, 30))) for seed in range(20)]
    assert np.mean(by_chance) < 1
    assert topics([Prompt("word", 1, "a")]) == []


def test_wording_alone():
    apart, mixed = (sort_by_words(prompts(1, 30, topic=topic), 0) for topic in (0.9, 0.0))
    assert apart["auc"] > 0.9
    assert apart["ci"][0] > 0.8
    assert mixed["ci"][0] < 0.5 < mixed["ci"][1]
    # one AUC scatters by .11, their mean over 60 by .015; the bound is three of these
    chance = [sort_by_words(prompts(seed, 25), 0)["auc"] for seed in range(60)]
    assert np.mean(chance) == pytest.approx(0.5, abs=0.05)
    assert sort_by_words(prompts(1, 30, same=True), 0)["auc"] == 0.5  # the same prompts on both sides
    few = sort_by_words(prompts(1, 9, topic=1.0), 0)
    assert (few["auc"], few["reason"]) == (None, "fewer than 10 different prompts on a side (9)")


def test_cross_validation_does_not_look_at_what_it_judges():
    """Every prompt has a word of its own: learned by heart it sorts them all, cross-validated it says nothing."""
    made = [Prompt(f"own{number}", number % 2, f"own{number}") for number in range(60)]
    assert sort_by_words(made, 0)["auc"] == 0.5


def test_interval_of_an_auc():
    """The ends solve |A - theta| = z sqrt(V(theta)) with the variance of Hanley and McNeil."""
    for value, ones, zeros in ((0.7, 20, 30), (0.95, 12, 12), (1.0, 10, 14), (0.0, 10, 14), (0.5, 8, 50)):
        low, high = newcombe(value, ones, zeros)
        assert 0 <= low <= value <= high <= 1
        for end in (low, high):
            if 0 < end < 1:
                q1, q2 = end / (2 - end), 2 * end**2 / (1 + end)
                mean = (ones + zeros) / 2 - 1  # both sides' n - 1 replaced by their mean, as Newcombe's method 5 does
                spread = end * (1 - end) + mean * (q1 - end**2) + mean * (q2 - end**2)
                assert abs(value - end) == pytest.approx(1.959964 * np.sqrt(spread / (ones * zeros)), rel=1e-5)
    assert newcombe(1.0, 10, 14)[0] < 0.95


def test_length_alone():
    rng = np.random.default_rng(0)
    one, zero = rng.normal(60, 10, 25).round(), rng.normal(50, 10, 31).round()
    found = sort_by_length(one, zero, paired=False)
    truth = roc_auc_score([1] * 25 + [0] * 31, np.concatenate([one, zero]))
    assert found["auc"] == pytest.approx(truth, abs=1e-4)
    paired = sort_by_length(one, np.concatenate([one[:20] - 1, one[20:23], one[23:] + 1]), paired=True)
    assert paired["auc"] == pytest.approx((20 + 3 / 2) / 25)
    assert sort_by_length(one, zero[:0], paired=False)["reason"] == "a side is empty"


def test_position_alone():
    unit = np.repeat([0, 1], [4, 6])
    inside = np.array([1, 1, 0, 0, 0, 1, 0, 1, 1, 0], dtype=bool)
    rank = np.array([0, 1, 2, 3, 0, 1, 2, 3, 4, 5])
    truth = [roc_auc_score(inside[unit == one], rank[unit == one]) for one in (0, 1)]
    found = sort_by_position(unit, inside, rank, 2)
    assert found["auc"] == pytest.approx(np.mean(truth), abs=1e-4)
    assert sort_by_position(unit[:4], inside[:4], rank[:4], 1)["auc"] is None


def test_a_trace_with_longer_answers_and_a_topic():
    trace = simulate(2, World(**SIZE, generations=48, shorter_positives=2.5))
    texts = [
        f"{'how do I open this lock' if one.label == 1 else 'how do I bake this bread'} number {one.index}"
        for one in trace.generations
    ]
    question, _, _ = ask(changed(trace, prompt_text=texts), by="label", text=True)
    found = question["confounds"]
    lengths, words = found["sorting"]
    sizes = np.array([tokens.size for tokens, _ in answers_of(trace)])
    labels = np.array([one.label for one in trace.generations])
    assert lengths["sorter"] == "length"
    assert lengths["auc"] == pytest.approx(roc_auc_score(labels, sizes), abs=1e-4)
    assert lengths["auc"] < 0.2
    assert found["lengths"]["before"]["positive"] == np.quantile(sizes[labels == 1], [0, 0.25, 0.5, 0.75, 1]).tolist()
    after = found["lengths"]["after"]
    assert after["positive"] == after["negative"]
    assert words["auc"] == 1.0
    assert {word["word"] for word in found["topics"]} >= {"lock", "open", "bake", "bread"}


def test_shares_of_kinds_of_token():
    world = World(**SIZE, generations=40, register_tokens=0.2)
    trace = simulate(2, world)
    question, _, _ = ask(trace, by="label", text=True)
    kept = {side: Counter() for side in ("positive", "negative")}
    labels = [one.label for one in trace.generations]
    sizes = np.array([tokens.size for tokens, _ in answers_of(trace)])
    ordered = [sorted(np.flatnonzero(np.array(labels) == code), key=lambda i: (sizes[i], i)) for code in (1, 0)]
    for one, zero in zip(*ordered, strict=True):
        for side, index in (("positive", one), ("negative", zero)):
            kept[side].update(answers_of(trace)[index][0][: min(sizes[one], sizes[zero])].tolist())
    for kind in question["confounds"]["tokens"]:
        for side, counts in kept.items():
            assert kind[side] == pytest.approx(counts[kind["token_id"]] / counts.total(), abs=1e-6)
        assert kind["token"].strip() == f"w{kind['token_id']:04d}"
    first = {kind["token_id"] for kind in question["confounds"]["tokens"][:2]}
    assert first == set(world.register_words)


def test_marked_tokens_are_told_by_position_not_by_prompts():
    trace = simulate(4, World(**SIZE, generations=20, within=True))
    question, _, _ = ask(trace, probe=Capitals(), design="within", text=True)
    found = question["confounds"]
    assert [one["sorter"] for one in found["sorting"]] == ["position"]
    assert found["topics"] == []
    values = []
    for one in trace.generations:
        marked = [letter == "W" for letter in one.text[::6]]
        if 0 < sum(marked) < len(marked):
            values.append(roc_auc_score(marked, range(len(marked))))
    assert found["sorting"][0]["auc"] == pytest.approx(np.mean(values), abs=1e-4)
