"""The evidence of findings, recomputed token by token from the trace in plain Python; statsmodels knows the errors."""

import json
from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from click.testing import CliRunner

from moeprobe.cli.main import cli
from moeprobe.correlate import correlate
from moeprobe.correlate.evidence import position_edges
from moeprobe.correlate.evidence_windows import PER_GENERATION, REACH, WINDOWS
from moeprobe.correlate.examples import SITES
from moeprobe.errors import StatsError
from moeprobe.probes import Example, Reading
from moeprobe.stats.simulation import World, simulate
from tests.correlate.asking import WORD, Capitals, ask, shuffled_shards, written

SIZE = {"layers": 2, "experts": 24, "k": 3, "planted": 4, "planted_layers": 1, "mean_length": 50.0, "vocabulary": 200}
ASKED = {
    "groups": (World(**SIZE, generations=24, delta=1.5), {"by": "label"}),
    "pairs": (World(**SIZE, generations=24, delta=1.5, pairs=True), {"by": "label", "design": "pairs"}),
    "scores": (World(**SIZE, generations=40, delta=2.0, scores=True), {"by": "metadata.score"}),
    "within": (World(**SIZE, generations=20, delta=1.5, within=True), {"probe": Capitals(), "design": "within"}),
    "samples": (World(**SIZE, generations=40, delta=1.5, samples=2), {"by": "label"}),
}


@pytest.fixture(scope="module", params=list(ASKED))
def asked(request):
    world, arguments = ASKED[request.param]
    trace = simulate(4, world)
    question, rows, _ = ask(trace, text=True, **arguments)
    return request.param, trace, question, rows


def used_tokens(name, trace, question, site):
    """Each counted token as (side, unit, position, chosen, weight, token id, generation), from the trace alone."""
    layer, expert = (int(part[1:]) for part in site.split("."))
    routed = {}
    for shard in trace.shards():
        for row in np.flatnonzero(shard.segment == 1).tolist():
            hit = shard.experts(layer)[row] == expert
            weight = float(shard.weights(layer)[row][hit][0]) if hit.any() else None
            routed.setdefault(int(shard.generation[row]), []).append(
                (int(shard.position[row]), weight, int(shard.token_id[row]))
            )
    cut = lengths_kept(name, trace, {index: len(found) for index, found in routed.items()})
    made = []
    for index, found in routed.items():
        one = trace.generations[index]
        unit = one.pair if name == "pairs" else one.prompt_id
        for rank, (_, weight, token) in enumerate(sorted(found)[: cut[index]]):
            if name == "scores":
                names = question["units"]["positive"]["names"]
                side = "positive" if unit in names else "negative"
            elif name == "within":
                side = "positive" if one.text[rank * WORD] == "W" else "negative"
            else:
                side = "positive" if one.label == 1 else "negative"
            made.append((side, unit, rank, weight is not None, weight, token, index))
    return made


def lengths_kept(name, trace, lengths):
    """How many tokens of each generation are compared; matched as docs/statistics.md says."""
    if name == "scores":
        window = int(np.quantile(list(lengths.values()), 0.05))
        return {index: window if length >= window else 0 for index, length in lengths.items()}
    if name == "within":  # only those with marked and other words
        letters = {index: set(trace.generations[index].text[::WORD]) for index in lengths}
        return {index: length * (letters[index] == {"W", "w"}) for index, length in lengths.items()}
    kept, groups = dict.fromkeys(lengths, 0), [[], []]
    for index in lengths:
        groups[int(trace.generations[index].label)].append(index)
    if name == "pairs":
        groups = [[index] for index in lengths]
        for first in groups:
            (index,) = first
            partner = next(
                other for other in lengths
                if other != index and trace.generations[other].pair == trace.generations[index].pair
            )  # fmt: skip
            kept[index] = min(lengths[index], lengths[partner])
        return kept
    ordered = [sorted(own, key=lambda index: (lengths[index], index)) for own in groups]
    for one, zero in zip(*ordered, strict=True):
        kept[one] = kept[zero] = min(lengths[one], lengths[zero])
    return kept


def leading(rows):
    return sorted((row for row in rows if row["p"] is not None), key=lambda row: row["p"])[:3]


def test_rates_of_each_unit(asked):
    name, trace, question, rows = asked
    assert sum(row["evidence"] is not None for row in rows) == min(SITES, len(rows))
    for row in leading(rows):
        tokens = used_tokens(name, trace, question, row["site"])
        for side in ("positive", "negative"):
            units = question["units"][side]
            for unit, size, rate in zip(units["names"], units["tokens"], row["evidence"]["rates"][side], strict=True):
                own = [one for one in tokens if one[:2] == (side, unit)]
                assert size == len(own) > 0
                assert rate == pytest.approx(sum(one[3] for one in own) / len(own), abs=1e-6)
        rates = row["evidence"]["rates"]
        difference = np.mean(rates["positive"]) - np.mean(rates["negative"])
        if name == "scores":
            scores = [*question["units"]["positive"]["scores"], *question["units"]["negative"]["scores"]]
            slope = np.polyfit(scores, [*rates["positive"], *rates["negative"]], 1)[0]
            assert row["rate_difference"] == pytest.approx(slope, abs=1e-4)
        else:
            assert row["rate_difference"] == pytest.approx(difference, abs=1e-5)


def test_timeline_is_a_share_with_clustered_errors(asked):
    name, trace, question, rows = asked
    edges = question["positions"]["edges"]
    row = leading(rows)[0]
    tokens = used_tokens(name, trace, question, row["site"])
    compared = 0
    for side in ("positive", "negative"):
        line, counted = row["evidence"]["timeline"][side], question["positions"][side]
        for index in range(len(edges) - 1):
            own = [one for one in tokens if one[0] == side and edges[index] <= one[2] < edges[index + 1]]
            assert counted["tokens"][index] == len(own)
            units = [one[1] for one in own]
            assert counted["units"][index] == len(set(units))
            if not own:
                assert line["rate"][index] is None
                continue
            chosen = np.array([one[3] for one in own], dtype=float)
            assert line["rate"][index] == pytest.approx(chosen.mean(), abs=1e-6)
            if len(set(units)) < 2:
                assert line["low"][index] is line["high"][index] is None
                continue
            groups = np.unique(units, return_inverse=True)[1]
            fit = sm.OLS(chosen, np.ones(chosen.size)).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
            pulled = (chosen.sum() + 2) / (chosen.size + 4)
            floor = np.sqrt(pulled * (1 - pulled) / (chosen.size + 4))
            if fit.bse[0] > floor:
                low, high = fit.conf_int()[0]
                assert [line["low"][index], line["high"][index]] == pytest.approx(
                    [max(low, 0), min(high, 1)], abs=2e-6
                )  # fmt: skip
                compared += 1
            else:
                assert line["low"][index] < line["rate"][index] < line["high"][index]
    assert compared > 0


def test_windows_are_the_largest_weights_and_matches_are_like_them(asked):
    name, trace, question, rows = asked
    for row in leading(rows):
        tokens = used_tokens(name, trace, question, row["site"])
        at = {(one[6], one[2]): one for one in tokens}
        windows = row["evidence"]["windows"]
        assert 0 < len(windows) <= WINDOWS
        strengths = [centre_weight(one["window"]) for one in windows]
        assert strengths == sorted(strengths, reverse=True)
        assert strengths[0] == pytest.approx(max(one[4] for one in tokens if one[3]), rel=5e-4)
        generations = [one["window"]["generation"] for one in windows]
        assert max(generations.count(one) for one in generations) <= PER_GENERATION
        taken = set()
        for one in windows:
            window, match = one["window"], one["matched"]
            side, *_, token, _ = at[window["generation"], window["position"]]
            assert side == window["group"]
            check_window(trace, window, row["site"])
            others = [x for x in tokens if not x[3] and x[5] == token and x[0] != side and (x[6], x[2]) not in taken]
            if others:
                assert one["matched_by"] == "token"
            if match is None:
                continue
            taken.add((match["generation"], match["position"]))
            check_window(trace, match, row["site"])
            found = at[match["generation"], match["position"]]
            assert not found[3], "the match chose the expert"
            if one["matched_by"] == "token":
                assert found[5] == token
                assert found[0] != side or not others
            else:
                assert abs(match["position"] - window["position"]) <= 1


def centre_weight(window):
    return dict(zip(window["gate"]["at"], window["gate"]["weight"], strict=True))[window["centre"]]


def check_window(trace, window, site):
    """Texts and weights of a window, token by token."""
    layer, expert = (int(part[1:]) for part in site.split("."))
    one = trace.generations[window["generation"]]
    for shard in trace.shards():
        rows = np.flatnonzero(shard.generation == window["generation"])
        if not rows.size:
            continue
        rows = rows[np.argsort(shard.position[rows])]
        prompt = int((shard.segment[rows] != 1).sum())
        centre = prompt + window["position"]
        first = max(0, centre - REACH)
        own = rows[first : centre + REACH + 1]
        assert window["centre"] == centre - first
        texts = [
            (one.text if shard.segment[row] == 1 else one.prompt_text)[shard.char_start[row] : shard.char_end[row]]
            for row in own
        ]
        assert window["tokens"] == texts
        hits = shard.experts(layer)[own] == expert
        assert window["gate"]["at"] == np.flatnonzero(hits.any(axis=1)).tolist()
        assert window["gate"]["weight"] == pytest.approx(shard.weights(layer)[own][hits].tolist(), rel=5e-4)


def test_marks_of_windows_are_the_probes():
    trace = simulate(4, ASKED["within"][0])
    _, rows, _ = ask(trace, text=True, **ASKED["within"][1])
    windows = [one["window"] for one in leading(rows)[0]["evidence"]["windows"]]
    for window in windows:
        marked = {index for first, last in window["spans"] for index in range(first, last)}
        assert marked == {index for index, token in enumerate(window["tokens"]) if token.startswith("W")}


def test_evidence_does_not_depend_on_shards_and_is_read_again(asked, tmp_path):
    name, trace, question, rows = asked
    again = ask(shuffled_shards(trace), text=True, **ASKED[name][1])
    assert [row["evidence"] for row in again[1]] == [row["evidence"] for row in rows]
    assert {key: again[0][key] for key in ("units", "positions", "confounds")} == {
        key: question[key] for key in ("units", "positions", "confounds")
    }
    written([(question, rows, [])], tmp_path)


def test_without_text_no_word_of_a_prompt_or_answer_is_left(asked):
    name, trace, _, _ = asked
    answer = ask(trace, **ASKED[name][1])
    said = json.dumps(answer)
    words = {word for one in trace.generations for word in (one.text + one.prompt_text).split()}
    assert len(words) > 50
    assert [word for word in words if word in said] == []
    with_text = json.dumps(ask(trace, text=True, **ASKED[name][1]))
    assert sum(word in with_text for word in words) > 50, "the check sees text where there is some"
    rows = [row for row in answer[1] if row["evidence"] is not None]
    assert rows
    assert all(row["evidence"]["windows"] == [] and row["evidence"]["timeline"] for row in rows)


def test_bins_hold_about_equally_many_tokens():
    rank = np.concatenate([np.arange(length) for length in (3, 40, 55, 55, 80)])
    edges = position_edges(rank)
    assert edges[0] == 0
    assert edges[-1] == 80
    counts = np.histogram(rank, bins=edges)[0]
    assert counts.sum() == rank.size
    assert counts.max() <= 2 * counts.min() + 5
    assert position_edges(np.zeros(5, dtype=np.int64)).tolist() == [0, 1]


class Everything:
    """A score by length, and no marks."""

    name, version, level, definition = "long", "1", "generation", "Long answers."

    def examples(self):
        return [Example("w0000 " * 9, 1), Example("w0000 ", 0)]

    def read(self, passage):
        return Reading(float(len(passage.text) > 40 * WORD))


def test_how_many_examples_are_held():
    trace = simulate(4, ASKED["groups"][0])
    for most, expected in ((0, 0), (2, 4), (None, 24)):
        question, _, _ = ask(trace, text=True, by="label", examples=most)
        assert len(question["examples"]) == expected
        assert question["units"] is not None
    with pytest.raises(StatsError, match="-1 examples"):
        ask(trace, text=True, by="label", examples=-1)
    every, _, _ = correlate(trace, probe=Everything(), examples=None, draws=0)
    assert sorted(one["generation"] for one in every["examples"]) == list(range(24))


def test_the_command_takes_a_number_or_all(tmp_path):
    trace = simulate(4, replace(ASKED["groups"][0], generations=12))
    where = trace.save(tmp_path / "run.trace")
    for said, expected in (("1", 2), ("all", 12)):
        done = CliRunner().invoke(
            cli, ["correlate", str(where), "--by", "label", "--draws", "0", "--examples", said, "--json"]
        )
        assert done.exit_code == 0, done.output
        assert len(json.loads(done.stdout)["questions"][0]["examples"]) == expected
    done = CliRunner().invoke(cli, ["correlate", str(where), "--by", "label", "--examples", "few"])
    assert done.exit_code == 2
    assert "neither a whole number nor `all`" in done.output
