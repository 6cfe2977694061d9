"""The gate: on simulated routing with a known truth, the default pipeline must not call experts that carry nothing.

STATISTICS.md 2 and 3b. Every claim comes with a method that fails the same gate, as proof that the gate bites.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2
from simulated import FakeTrace, World, simulate

from moeprobe.correlate import correlate
from moeprobe.correlate.counts import Counts, segment_lengths
from moeprobe.stats import adjust, asin_sqrt, moderated_t
from tests.correlate.counting import count

ALPHA, BOUND = 0.05, 0.1
NULL = World()  # 15 against 15 generations, 4 layers of 128 experts, no expert carries the label
LENGTHS = World(generations=60, mean_length=150, shorter_positives=6)


def default_calls(trace: FakeTrace) -> set[str]:
    """Experts that the default pipeline calls associated."""
    return {
        row["site"]
        for row in correlate(trace, by="label", text=False, draws=0)[1]
        if row["association"] == "associated"
    }


def all_tokens(trace: FakeTrace) -> tuple[Counts, np.ndarray]:
    """Counts without length matching, and the labels of the generations."""
    counts = count(trace, "answer", segment_lengths(trace, "answer"))
    return counts, np.array([one.label for one in trace.generations])


def token_chi2_calls(trace: FakeTrace) -> int:
    """What the literature does: tokens as if independent, 2 x 2 chi-square, Benjamini-Hochberg."""
    counts, label = all_tokens(trace)
    chosen = [counts.selected[label == group].sum(axis=0) for group in (0, 1)]
    tokens = [counts.tokens[label == group].sum() for group in (0, 1)]
    seen = chosen[0] + chosen[1] > 0
    rate = (chosen[0] + chosen[1])[seen] / sum(tokens)
    difference = chosen[1][seen] / tokens[1] - chosen[0][seen] / tokens[0]
    statistic = difference**2 / (rate * (1 - rate) * (1 / tokens[0] + 1 / tokens[1]))
    return int((adjust(chi2.sf(statistic, 1)) < ALPHA).sum())


def untruncated_calls(trace: FakeTrace) -> int:
    """The same moderated t-test and filter, but on all tokens of every generation."""
    counts, label = all_tokens(trace)
    values = asin_sqrt(counts.selected / counts.tokens[:, None])
    smaller = min(counts.tokens[label == 1].sum(), counts.tokens[label == 0].sum())
    expected = counts.selected.sum(axis=0) / counts.tokens.sum() * smaller
    return int((adjust(moderated_t(values[:, expected >= 5], label).p) < ALPHA).sum())


def share(calls: list[bool]) -> float:
    return sum(calls) / len(calls)


def test_global_null():
    """P(any rejection) <= .1 over 40 runs; a token-level test rejects in all of them."""
    traces = [simulate(seed, NULL) for seed in range(40)]
    assert share([bool(default_calls(trace)) for trace in traces]) <= BOUND
    assert share([token_chi2_calls(trace) > 0 for trace in traces]) > 0.9


@pytest.mark.parametrize(
    "world",
    [
        pytest.param(replace(NULL, generations=10), id="five against five"),
        pytest.param(replace(NULL, positives=6), id="six against 24"),
        pytest.param(replace(NULL, generations=60, mean_length=8), id="eight tokens each"),
        pytest.param(replace(LENGTHS, positives=8, mean_length=60), id="eight against 52, six times shorter"),
    ],
)
def test_null_of_awkward_designs(world):
    assert share([bool(default_calls(simulate(seed, world))) for seed in range(40)]) <= BOUND


def test_length_confound_without_any_effect():
    """Positives six times shorter: the same test on all tokens calls experts, the rank-matched one does not."""
    traces = [simulate(seed, LENGTHS) for seed in range(60)]
    assert share([untruncated_calls(trace) > 0 for trace in traces[:20]]) > 0.5
    assert share([bool(default_calls(trace)) for trace in traces]) <= BOUND


def test_samples_of_one_prompt_are_not_replicates():
    """Six samples of each of ten prompts: as 60 generations they give false calls, as ten prompts they do not."""
    world = replace(NULL, generations=60, samples=6)
    traces = [simulate(seed, world) for seed in range(60)]
    ignored = [
        FakeTrace(one.manifest, [replace(g, prompt_id=str(g.index)) for g in one.generations], one.pieces)
        for one in traces[:20]
    ]
    assert share([bool(default_calls(trace)) for trace in ignored]) > 0.5
    assert share([bool(default_calls(trace)) for trace in traces]) <= BOUND


@pytest.mark.parametrize(("world", "least"), [(NULL, 0.6), (LENGTHS, 0.5)], ids=["plain", "six times shorter"])
def test_power_and_false_discoveries(world, least):
    """Planted experts are found; of all calls, at most a tenth lie in the layers that carry nothing."""
    found, false = [], []
    for seed in range(12):
        calls = default_calls(simulate(100 + seed, replace(world, delta=1.2)))
        planted = {site for site in calls if site.startswith("L0.") and int(site[4:]) < 10}
        found.append(len(planted) / 10)
        false.append(sum(not site.startswith("L0.") for site in calls) / max(len(calls), 1))
    assert np.mean(found) >= least
    assert np.mean(false) <= BOUND
