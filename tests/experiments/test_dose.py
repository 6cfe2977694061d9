"""Dose series: known answers on the compiled model, hand arithmetic on random ones, and trends."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import page_trend_test, spearmanr

from moeprobe.chat.encode import encode_prompt
from moeprobe.errors import InterchangeError
from moeprobe.experiments.dose import DosePlan, dose_series
from moeprobe.experiments.dosed import DoseResult
from moeprobe.experiments.shams import nearest, usage_of
from moeprobe.interchange.profile import LayerProfile
from moeprobe.judging.intervals import means
from moeprobe.judging.trend import contrast, trend
from moeprobe.models import LoadedModel, smollm2
from moeprobe.pairs.metrics import ControlNLL, LogitDifference
from moeprobe.pairs.pairs import TokenPair
from moeprobe.prompts import Prompt
from moeprobe.sites import expert_site, parse_expert, parse_site
from tests.interchange.random_moe import random_model, random_pairs

QUICK = DosePlan(bootstrap=100)


@pytest.fixture(scope="module")
def triggered(compiled: LoadedModel, compiled_prompts: list[Prompt]) -> list[TokenPair]:
    ids = [tuple(encode_prompt(compiled.tokenizer, one)) for one in compiled_prompts if one.label == "triggered"]
    return [TokenPair(str(place), one, one) for place, one in enumerate(ids[:6])]


@pytest.fixture(scope="module")
def causal(compiled: LoadedModel, triggered: list[TokenPair]) -> DoseResult:
    return dose_series(compiled, triggered, parse_expert("L2.E5"), sorry(compiled), plan=QUICK)


def sorry(model: LoadedModel) -> LogitDifference:
    return LogitDifference(model, ["sorry"], ["the"])


def test_the_causal_expert_has_a_dose_and_a_response(causal: DoseResult) -> None:
    for kind in ("bias", "scale"):
        own = causal.trends[causal.site][kind]
        assert own.monotone == 6
        assert own.mean > 0
        assert own.p < 1e-6
        against = causal.contrasts[kind]
        assert against is not None
        assert (against.rank, against.of) == (1, 6)
    # Shams write nothing that the refusal reads: whatever their scale, not one bit moves.
    for sham in causal.shams:
        assert causal.trends[sham]["scale"].flat == 6
        assert causal.trends[sham]["scale"].mean == 0.0


def test_what_each_dose_did_is_measured(causal: DoseResult) -> None:
    bias, scale = (causal.series[causal.site][kind] for kind in ("bias", "scale"))
    rate = bias.rate.mean(axis=0)
    assert (np.diff(rate[:-1]) >= 0).all()
    assert (rate[0], rate[-1]) == (0.0, 1.0)
    assert np.isnan(bias.weight[:, 0]).all()
    own = bias.doses.index(0.0)
    np.testing.assert_array_equal(bias.outcome[:, own], scale.outcome[:, scale.doses.index(1.0)])
    assert bias.size[:, own].max() == 0.0
    # Barred, and set to zero: others write nothing here, so both are the same text-free model.
    np.testing.assert_allclose(bias.outcome[:, 0], scale.outcome[:, 0], rtol=1e-6)
    assert (np.diff(bias.weight[:, 4:9].mean(axis=0)) > 0).all()
    notes = " ".join(causal.notes)
    assert "Up to a bias of -4, L2.E5 is never chosen" in notes
    assert "Biased shams crowd L2.E5 out" in notes
    assert "changes by more than 5 %" in notes


def test_the_inert_expert_moves_nothing_by_any_scale(compiled: LoadedModel, triggered: list[TokenPair]) -> None:
    plan = DosePlan(biases=(), bootstrap=100)
    found = dose_series(compiled, triggered, parse_expert("L1.E1"), sorry(compiled), plan=plan)
    own = found.trends[found.site]["scale"]
    assert (own.flat, own.p) == (6, 1.0)
    against = found.contrasts["scale"]
    assert against is not None
    assert against.rank == against.of == 6  # ties count against the site
    assert np.isnan(own.spearman).all()
    json.dumps(found.to_json(), allow_nan=False)


def test_scale_and_bias_by_hand() -> None:
    model, pairs = random_model("qwen2_moe"), random_pairs()
    network: Any = model.model
    site, factor, bias = expert_site(1, 2), 1.5, 2.0
    metric = LogitDifference(model, [5], [7])
    plan = DosePlan(biases=(-2.0, 0.0, bias), scales=(0.0, 1.0, factor), shams=1, bootstrap=100, batch_size=1)
    found = dose_series(model, pairs, site, metric, plan=plan)
    block = network.model.layers[1].mlp

    def logits(prompt: tuple[int, ...], hook: Any, where: Any) -> torch.Tensor:
        handle = where.register_forward_hook(hook)
        with torch.inference_mode():
            result = network(input_ids=torch.tensor([prompt])).logits[0, -1]
        handle.remove()
        return result[5] - result[7]

    def scaled(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        hidden, ids, weights = args[:3]
        for row, slot in (ids == site.expert).nonzero().tolist():
            gate, up = (module.gate_up_proj[site.expert] @ hidden[row]).chunk(2)
            own = weights[row, slot] * (module.down_proj[site.expert] @ (torch.nn.functional.silu(gate) * up))
            output[row] += (factor - 1) * own
        return output

    def biased(module: Any, args: Any, output: Any) -> Any:
        scores = args[0].reshape(-1, 32) @ module.weight.T
        scores[:, site.expert] += bias
        weights, ids = scores.softmax(dim=-1).topk(2, dim=-1)
        if module.norm_topk_prob:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return output[0], weights, ids

    series = found.series[site]
    for place, pair in enumerate(pairs):
        by_scale = float(logits(pair.sensitive, scaled, block.experts))
        assert series["scale"].outcome[place, 2] == pytest.approx(by_scale, abs=5e-6)
        by_bias = float(logits(pair.sensitive, biased, block.gate))
        assert series["bias"].outcome[place, 2] == pytest.approx(by_bias, abs=5e-6)
    assert np.ptp(series["scale"].outcome, axis=1).max() > 1e-3
    # The change grows with the distance from 1, whatever its sign: 0 is twice as far as 1.5.
    np.testing.assert_allclose(series["scale"].size[:, 0], 2 * series["scale"].size[:, 2], rtol=1e-4)


def test_padding_forced_tokens_and_batches_change_no_number() -> None:
    model, pairs = random_model("mixtral"), random_pairs()
    results = [
        dose_series(model, pairs, expert_site(0, 1), ControlNLL(3), plan=DosePlan(shams=1, bootstrap=100, batch_size=n))
        for n in (1, 4)
    ]
    for kind in ("bias", "scale"):
        one, four = (result.series[expert_site(0, 1)][kind] for result in results)
        for name in ("outcome", "rate", "weight", "size"):
            np.testing.assert_allclose(getattr(one, name), getattr(four, name), atol=2e-5)
    assert results[0].shams == results[1].shams


def test_a_scale_of_an_expert_nobody_chose_is_said_to_reach_nothing() -> None:
    model, pairs = random_model("mixtral"), random_pairs()
    gate: Any = model.model.model.layers[1].mlp.gate
    with torch.no_grad():
        gate.weight[3] = 0.0
        gate.weight[:3] = gate.weight[:3].abs()
    layer: Any = model.model.model.layers[1]
    layer.post_attention_layernorm.register_forward_hook(lambda module, args, output: output.abs())
    found = dose_series(model, pairs, expert_site(1, 3), LogitDifference(model, [5], [7]), plan=QUICK)
    assert not found.series[found.site]["scale"].rate.any()
    assert any("never chosen in these prompts" in note for note in found.notes)
    assert found.trends[found.site]["scale"].flat == len(pairs)


def test_trends_against_scipy_and_numpy() -> None:
    rng = np.random.default_rng(0)
    doses = [-4.0, -1.0, 0.0, 2.0, 8.0]
    outcome = 0.3 * np.asarray(doses) + rng.normal(0, 1.0, (12, 5))
    found = trend(doses, outcome, bootstrap=2000)
    np.testing.assert_allclose(found.slope, [np.polyfit(doses, row, 1)[0] for row in outcome])
    np.testing.assert_allclose(found.spearman, [spearmanr(doses, row).statistic for row in outcome])
    assert found.p == pytest.approx(2 * page_trend_test(outcome).pvalue)
    assert found.ci[0] < 0.3 < found.ci[1]
    falling = trend(doses, -outcome, bootstrap=100)
    assert falling.p == pytest.approx(found.p)
    assert falling.mean == pytest.approx(-found.mean)
    assert trend(doses, rng.normal(0, 1.0, (12, 5)), bootstrap=100).p > 0.05


def test_the_interval_of_a_mean_keeps_its_level_with_few_prompts() -> None:
    rng = np.random.default_rng(1)
    found = means(rng.normal(0, 1, (8, 3000)), bootstrap=1000)
    covered = ((found.low <= 0) & (found.high >= 0)).mean()
    assert 0.93 <= covered <= 0.98
    gaps = rng.normal(0, 1, (5, 2))
    gaps[:, 1] = np.nan
    assert np.isnan(means(gaps, bootstrap=100).mean[1])
    with pytest.raises(InterchangeError, match="at least 2 prompts"):
        means(np.ones((1, 2)))


def test_shams_are_the_nearest_and_ties_count_against() -> None:
    usage = LayerProfile(np.array([0.5, 0.48, 0.1, 0.0, 0.52]), np.array([1.0, 1.1, 9.0, 0.0, 1.0]))
    assert nearest(expert_site(3, 0), usage, 2) == [expert_site(3, 4), expert_site(3, 1)]
    assert expert_site(3, 3) not in nearest(expert_site(3, 0), usage, 9)
    with pytest.raises(InterchangeError, match="E0 to E4"):
        nearest(expert_site(3, 5), usage, 2)
    alone = LayerProfile(np.array([1.0, 0.0]), np.array([1.0, 0.0]))
    with pytest.raises(InterchangeError, match="has no shams"):
        nearest(expert_site(3, 0), alone, 2)
    flat = trend([0.0, 1.0, 2.0], np.ones((3, 3)), bootstrap=100)
    found = contrast(flat, [flat, flat], bootstrap=100)
    assert found is not None
    assert (found.rank, found.p) == (3, 1.0)


def test_usage_by_hand() -> None:
    model, pairs = random_model("qwen2_moe"), random_pairs()
    seen: list[tuple[torch.Tensor, ...]] = []
    experts: Any = model.model.model.layers[1].mlp.experts
    prompts = [pair.sensitive for pair in pairs]
    handle = experts.register_forward_pre_hook(lambda module, args: seen.append(args[:3]))
    with torch.inference_mode():
        for prompt in prompts:
            model.model(input_ids=torch.tensor([prompt]))
    handle.remove()
    found = usage_of(model, prompts, 1, batch_size=4)
    hidden, ids, weights = (torch.cat(parts) for parts in zip(*seen, strict=True))
    for expert in range(4):
        rows, slots = (ids == expert).nonzero(as_tuple=True)
        assert found.rate[expert] == pytest.approx(len(rows) / len(ids))
        gate, up = (hidden[rows] @ experts.gate_up_proj[expert].T).chunk(2, dim=-1)
        written = (torch.nn.functional.silu(gate) * up) @ experts.down_proj[expert].T * weights[rows, slots][:, None]
        assert found.norm[expert] == pytest.approx(float(written.detach().norm(dim=-1).mean()), rel=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"biases": (1.0, 0.0, 2.0)}, "rising order"),
        ({"biases": (1.0, 2.0, 3.0)}, "with 0 among them"),
        ({"biases": (-np.inf, 0.0, 1.0, np.inf)}, "at least 3 finite"),
        ({"scales": (0.0, 1.0, np.inf)}, "3 finite"),
        ({"scales": (0.0, 1.0, 2.0, np.inf)}, "without end"),
        ({"biases": (), "scales": ()}, "no doses"),
        ({"bootstrap": 5}, "100 draws"),
    ],
)
def test_plans_that_make_no_sense(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InterchangeError, match=message):
        DosePlan(**change)


def test_a_metric_that_breaks_ends_the_series(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pairs = random_model("mixtral"), random_pairs()
    metric = LogitDifference(model, [5], [7])
    original, calls = metric.score, iter(range(100))

    def score(*given: Any) -> torch.Tensor:
        found = original(*given)
        return found / 0 if next(calls) == 2 else found

    monkeypatch.setattr(metric, "score", score)
    with pytest.raises(InterchangeError, match=r"NaN or infinite on some prompt under a bias of -8 at L0\.E1"):
        dose_series(model, pairs, expert_site(0, 1), metric, plan=QUICK)


def test_mistakes_are_named() -> None:
    model, pairs = random_model("mixtral"), random_pairs()
    metric = LogitDifference(model, [5], [7])
    with pytest.raises(InterchangeError, match="at least 2 prompts"):
        dose_series(model, pairs[:1], expert_site(0, 1), metric, plan=QUICK)
    with pytest.raises(InterchangeError, match=r"E0 to E3; L0\.E4 is none"):
        dose_series(model, pairs, expert_site(0, 4), metric, plan=QUICK)
    with pytest.raises(InterchangeError, match=r"L1\.E1 is none of them"):
        dose_series(model, pairs, expert_site(0, 1), metric, plan=QUICK, shams=[expert_site(1, 1)])
    with pytest.raises(InterchangeError, match="no layer 9"):
        dose_series(model, pairs, expert_site(9, 1), metric, plan=QUICK)
    with pytest.raises(InterchangeError, match="is no expert"):
        dose_series(model, pairs, parse_site("L1.H1"), metric, plan=QUICK)


@pytest.mark.slow
@pytest.mark.smollm2
@pytest.mark.skipif(not smollm2.is_installed(), reason=f"SmolLM2 is not installed; run: {smollm2.INSTALL}")
def test_refusal_follows_the_dose_of_the_planted_expert() -> None:
    from tests.interchange.refusals import refusals

    model, pairs = refusals(6)
    plan = DosePlan(biases=(), scales=(0.0, 0.5, 1.0, 1.5), shams=3, bootstrap=500)
    metric = LogitDifference(model, ["I"], ["Here", "To", "The"])
    found = dose_series(model, pairs, parse_expert("L18.E5"), metric, plan=plan)
    own = found.trends[found.site]["scale"]
    assert own.monotone == len(pairs)
    assert own.ci[0] > 0
    for sham in found.shams:
        assert found.trends[sham]["scale"].flat == len(pairs)
