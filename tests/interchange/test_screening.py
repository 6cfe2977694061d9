"""Estimates against finite differences and exact swaps, by the editing room's writes, one unpadded pair at a time."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from moeprobe.editing import find_places, layout_of
from moeprobe.errors import InterchangeError
from moeprobe.interchange.lab import Lab, lab
from moeprobe.interchange.measure import measure
from moeprobe.interchange.screen import SWAPS, Screen
from moeprobe.interchange.screening import KINDS, screen
from moeprobe.models import LoadedModel
from moeprobe.pairs.alignment import Alignment
from moeprobe.pairs.donors import donors
from moeprobe.pairs.pairs import TokenPair, label_members, select_pairs
from moeprobe.prompts import Prompt
from moeprobe.sites import Site, SiteSet, parse_site
from tests.interchange.screened import FAMILIES, Exact, Linear, load, random_pairs

PAIRS = random_pairs()


ARMS = ("necessity", "sufficiency", "knockout")


def bench(loaded: LoadedModel, *, batch_size: int = 8, **options: Any) -> Lab:
    return lab(loaded, metric=Linear(), batch_size=batch_size, **options)


def kinds_of(loaded: LoadedModel) -> list[str]:
    layout = layout_of(find_places(loaded.model))
    return [kind for kind in KINDS if layout.sites(kind)]


def picked(result: Screen, kind: str, effect: str, count: int) -> list[int]:
    """Columns of the sites of a kind with the largest estimates."""
    order = [result.sites.index(site) for site in result.kind(kind).ranking(effect)]
    return order[:count]


def close(found: float, expected: float, scale: float) -> bool:
    return abs(found - expected) <= 2e-3 * abs(expected) + 2e-4 * scale


@pytest.mark.parametrize("family", FAMILIES)
def test_estimates_are_the_derivatives_of_swaps(family: str) -> None:
    """Of every kind of site the family has, the largest and some others, in both directions, and of knock-outs."""
    loaded = load(family)
    kinds = kinds_of(loaded)
    assert {"expert", "moe", "residual"} <= set(kinds)
    result = screen(bench(loaded, batch_size=3), PAIRS, kinds=kinds, arms=ARMS)
    exact = {name: [Exact(loaded, pair, name) for pair in PAIRS[:2]] for name in ("sensitive", "control")}
    for kind in kinds:
        for effect, side, sign in (
            ("necessity", "sensitive", -1), ("sufficiency", "control", 1), ("knockout", "sensitive", -1),
        ):  # fmt: skip
            scale = float(np.abs(result.kind(kind).estimates[effect]).max())
            assert scale > 0
            for column in picked(result, kind, effect, 2):
                for row, one in enumerate(exact[side]):
                    slopes = partial(one.slopes, result.sites[column], zero=effect == "knockout")
                    found = float(result.estimates[effect][row, column])
                    assert any(close(found, sign * slope, scale) for slope in slopes()), (
                        effect, str(result.sites[column]), found, list(slopes()),
                    )  # fmt: skip


def test_scores_are_those_of_unpadded_runs() -> None:
    loaded = load("olmoe")
    result = screen(bench(loaded), PAIRS, arms=ARMS)
    for row, pair in enumerate(PAIRS):
        assert result.sensitive[row] == pytest.approx(Exact(loaded, pair, "sensitive").metric(), abs=1e-8)
        assert result.control[row] == pytest.approx(Exact(loaded, pair, "control").metric(), abs=1e-8)


class _Identity(nn.Module):
    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden


@pytest.mark.parametrize("family", ["qwen2_moe", "mixtral"])
def test_a_linear_site_is_estimated_exactly(family: str) -> None:
    """Without the final norm the logits are linear in what the last layer adds, so first order is everything: each
    estimate there equals the exact swap, in sign and size, m(sensitive) - m(sensitive edited) and so on."""
    loaded = load(family)
    loaded.model.model.norm = _Identity()
    result = screen(bench(loaded), PAIRS, kinds=["expert", "moe"], arms=ARMS)
    last = max(site.layer for site in result.sites)
    columns = [column for column, site in enumerate(result.sites) if site.layer == last]
    largest = 0.0
    for row, pair in enumerate(PAIRS):
        sensitive, control = (Exact(loaded, pair, name) for name in ("sensitive", "control"))
        for column in columns:
            site = result.sites[column]
            exact = {
                "necessity": sensitive.metric() - sensitive.metric(site),
                "sufficiency": control.metric(site) - control.metric(),
                "knockout": sensitive.metric() - sensitive.metric(site, zero=True),
            }
            for effect, value in exact.items():
                assert result.estimates[effect][row, column] == pytest.approx(value, abs=1e-5)
                largest = max(largest, abs(value))
        # The same holds for the gap when the whole block is swapped in the last layer, up to the rest of the layer.
    assert largest > 0.1


def test_another_alignment_gives_other_estimates() -> None:
    """The test above holds for the end of prompt only: aligned at the start, the last rows have other partners."""
    loaded = load("mixtral")
    loaded.model.model.norm = _Identity()
    right = screen(bench(loaded), PAIRS, arms=ARMS)
    wrong = screen(bench(loaded, alignment=Alignment("start")), PAIRS, arms=ARMS)
    last = [column for column, site in enumerate(right.sites) if site.layer == 3]
    for effect in ("necessity", "sufficiency"):
        difference = np.abs(right.estimates[effect] - wrong.estimates[effect])[:, last]
        assert difference.max() > 0.1
    np.testing.assert_allclose(right.estimates["knockout"], wrong.estimates["knockout"], atol=1e-9)


def test_own_part_is_weight_times_gradient_of_weight() -> None:
    """A contribution is w * E(x), so slope times contribution is w * dm/dw, which autograd gives without moeprobe."""
    loaded = load("mixtral")
    model = loaded.model
    pair = PAIRS[0]
    result = screen(bench(loaded), [pair], arms=ARMS)
    kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def keep(layer: int):
        def hook(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            hidden, ids, weights = args
            weights = weights * torch.ones_like(weights, requires_grad=True)
            weights.retain_grad()
            kept[layer] = (ids, weights)
            return hidden, ids, weights

        return hook

    handles = [
        layer.mlp.experts.register_forward_pre_hook(keep(number)) for number, layer in enumerate(model.model.layers)
    ]
    logits = model(input_ids=torch.tensor([[*pair.sensitive, 7]])).logits[:, -2:]
    Linear().score(logits, torch.empty(0), torch.empty(0)).sum().backward()
    for handle in handles:
        handle.remove()
    for column, site in enumerate(result.sites):
        ids, weights = kept[site.layer]
        assert weights.grad is not None
        expected = float((weights.detach() * weights.grad)[ids == site.index].sum())
        assert result.estimates["knockout"][0, column] == pytest.approx(expected, abs=1e-5)
    assert np.abs(result.estimates["knockout"]).max() > 0.1


@pytest.mark.parametrize("family", ["qwen3_5_moe", "deepseek_v3"])
def test_neither_batches_nor_padding_matter(family: str) -> None:
    loaded = load(family)
    pairs = random_pairs(5, seed=4)
    kinds = kinds_of(loaded)
    one, several, every = (screen(bench(loaded, batch_size=size), pairs, kinds=kinds) for size in (1, 2, 5))
    for other in (several, every):
        assert other.sites == one.sites
        assert (other.used == one.used).all()
        for effect, values in one.estimates.items():
            scale = float(np.abs(values).max())
            np.testing.assert_allclose(other.estimates[effect], values, atol=1e-4 * scale, err_msg=effect)


@pytest.mark.parametrize("kind", ["placebo", "random"])
def test_other_donors_are_pairs_with_that_donor(kind: str) -> None:
    """With a metric that is the same for every pair, a placebo donor is nothing but another partner."""
    loaded = load("olmoe")
    result = screen(
        bench(loaded, seed=5), PAIRS, kinds=["expert", "head"], arms=[*ARMS, f"{kind}_necessity", f"{kind}_sufficiency"]
    )
    for side, effect in (("sensitive", "necessity"), ("control", "sufficiency")):
        chosen = donors(PAIRS, kind, 5, recipient=side)
        givers = [PAIRS[place] for place in chosen]
        other = "control" if side == "sensitive" else "sensitive"
        given = [pair.side(side if kind == "placebo" else other) for pair in givers]
        pairs = [
            TokenPair(pair.id, *((pair.sensitive, donor) if side == "sensitive" else (donor, pair.control)))
            for pair, donor in zip(PAIRS, given, strict=True)
        ]
        expected = screen(bench(loaded), pairs, kinds=["expert", "head"], arms=ARMS)
        np.testing.assert_allclose(result.estimates[f"{kind}_{effect}"], expected.estimates[effect], atol=1e-6)
        assert np.abs(result.estimates[f"{kind}_{effect}"] - result.estimates[effect]).max() > 1e-3


def test_experts_that_nobody_chose_are_marked() -> None:
    loaded = load("mixtral")
    barred = Site(2, "expert", 5)
    original = torch.topk

    def without(scores: torch.Tensor, k: int, dim: int = -1, **options: object) -> object:
        scores = scores.clone()
        scores[..., 5] = -1
        return original(scores, k, dim=dim)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "topk", without)
        result = screen(bench(loaded), PAIRS, arms=ARMS)
    column = result.sites.index(barred)
    assert not result.used[column]
    assert not any(values[:, column].any() for values in result.estimates.values())
    assert result.used.sum() > len(result.sites) / 2
    assert barred not in result.select(share=1.0)
    assert barred not in result.audit([], 1000, 0)


def test_a_saturated_end_misses_what_the_other_end_finds(compiled: LoadedModel, compiled_prompts: list[Prompt]) -> None:
    """The planted expert is all there is, in both swaps. The control runs are so sure of their answer that the slope
    there is 0, so the sufficiency estimate does not see it; the selection joins both and does."""
    ids = [compiled.tokenizer(one.prompt)["input_ids"] for one in compiled_prompts]
    pairs = select_pairs(label_members(compiled_prompts, ids, "triggered")).pairs[:6]
    one = lab(compiled)
    result = screen(one, pairs, arms=SWAPS)
    planted = parse_site("L2.E5")
    exact = measure(one, pairs, [SiteSet("planted", (planted,))], SWAPS).sites
    for effects in exact.values():
        assert all(effects[name].sum() == pytest.approx(result.gap.sum()) for name in SWAPS)
    assert result.ranking("necessity")[0] == planted
    assert result.ranking("sufficiency").index(planted) > 4
    assert planted in result.select(share=0.1, wanted=1)
    assert planted not in result.select(share=0.1, wanted=1, effects=["sufficiency"])


def test_what_cannot_be_screened_is_refused() -> None:
    loaded = load("mixtral")
    with pytest.raises(InterchangeError, match="no pairs"):
        screen(bench(loaded), [])
    with pytest.raises(InterchangeError, match="'router' cannot be screened"):
        screen(bench(loaded), PAIRS, kinds=["router"])
    with pytest.raises(InterchangeError, match="no shared to be screened: L0 has no shared expert"):
        screen(bench(loaded), PAIRS, kinds=["shared"])
    with pytest.raises(InterchangeError, match="same length"):
        screen(bench(loaded, alignment=Alignment("equal")), PAIRS, arms=ARMS)
    with pytest.raises(InterchangeError, match="arm noise_necessity cannot be estimated"):
        screen(bench(loaded), PAIRS, arms=["noise_necessity"])
    with pytest.raises(InterchangeError, match="swap 'routing' cannot be estimated"):
        screen(bench(loaded, swap="routing"), PAIRS, arms=ARMS)
