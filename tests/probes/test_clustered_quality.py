"""Several texts of a prompt are alike: intervals that take them for independent cover too seldom, ours do not."""

import numpy as np
import pytest
from scipy.stats import norm

from moeprobe.probes import Example, Reading
from moeprobe.probes.quality import measure

NAMES = ("balanced_accuracy", "precision", "recall", "f1", "auc")


def world(rng: np.random.Generator, prompts: int, each: int, mixed: bool) -> tuple[list[Example], list[Reading]]:
    """Scores share a shift inside a prompt; a prompt's texts have one label, or either by chance."""
    examples, readings = [], []
    for prompt in range(prompts):
        shift = rng.normal()
        for number in range(each):
            label = int(rng.random() < 0.5) if mixed else prompt % 2
            score = norm.cdf(1.2 * (2 * label - 1) + shift + rng.normal(0, 0.6))
            examples.append(Example(f"{prompt}.{number}", label, f"prompt {prompt}"))
            readings.append(Reading(float(score)))
    return examples, readings


def apart(examples: list[Example]) -> list[Example]:
    return [Example(one.text, one.label) for one in examples]


@pytest.mark.parametrize(("prompts", "each", "mixed"), [(20, 5, False), (20, 5, True), (40, 4, False)])
def test_naive_intervals_undercover_and_ours_do_not(prompts: int, each: int, mixed: bool) -> None:
    rng, draws = np.random.default_rng(0), 200  # standard error of a coverage of .95: .015
    examples, readings = world(rng, 20_000, 1, True)
    large = measure("x", apart(examples), readings, "x")
    ours, naive = dict.fromkeys(NAMES, 0), dict.fromkeys(NAMES, 0)
    for _ in range(draws):
        examples, readings = world(rng, prompts, each, mixed)
        for given, covered in ((examples, ours), (apart(examples), naive)):
            quality = measure("x", given, readings, "x")
            for name in NAMES:
                truth, rate = getattr(large, name).value, getattr(quality, name)
                covered[name] += rate.low <= truth <= rate.high
    assert min(ours.values()) / draws >= 0.88, ours  # measured: .90 to .98
    assert all(ours[name] > naive[name] for name in NAMES), (ours, naive)
    if not mixed:
        assert max(naive.values()) / draws <= 0.88, naive


def test_counts_prompts() -> None:
    examples, readings = world(np.random.default_rng(1), 6, 3, False)
    assert measure("x", examples, readings, "x").prompts == 6
    assert measure("x", apart(examples), readings, "x").prompts == 18


def test_recall_and_specificity_of_one_prompt_are_not_independent() -> None:
    # Half of the prompts are read right, half wrong, each with a text of either label: the two shares move together.
    examples = [Example(f"{p}{label}", label, f"prompt {p}") for p in range(40) for label in (0, 1)]
    readings = [Reading(float(one.label if int(one.prompt.split()[1]) % 2 else 1 - one.label)) for one in examples]
    together = measure("x", examples, readings, "x").balanced_accuracy
    separate = measure("x", apart(examples), readings, "x").balanced_accuracy
    assert together.low is not None and separate.low is not None  # noqa: PT018
    assert 0.5 - together.low > 1.35 * (0.5 - separate.low)  # root of 2, and the t quantile
