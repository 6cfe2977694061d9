"""Generated behaviour as the metric: swaps, placebos, rescue; on a model whose one expert decides."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from moeprobe.chat.encode import encode_prompt
from moeprobe.editing import find_places, generate_edited, reading
from moeprobe.engines import Decoding
from moeprobe.errors import InterchangeError, MoeprobeError
from moeprobe.experiments.behaviour import PromptPair, behaviour, placebo_pairs, prompt_pairs
from moeprobe.experiments.rescue import drawn_sites, rescue, sites_instead
from moeprobe.models import LoadedModel, load_model, smollm2
from moeprobe.probes import CheckedProbe, Example, Level, Passage, Reading, checked, load_probe
from moeprobe.prompts import Prompt, read_prompts
from moeprobe.sites import LayerSites, Layout, Site, SiteSet

REFUSAL = Path(__file__).parents[2] / "moeprobe" / "demo" / "prompts" / "refusal.jsonl"
SHORT = Decoding(max_new_tokens=8)


class Sorry:
    """Positive where the text begins with "sorry"; abstains on prompts that name one of `blind`."""

    name, version, definition = "sorry", "1", "Begins with sorry."
    level: Level = "generation"

    def __init__(self, blind: Sequence[str] = ()) -> None:
        self.blind = blind

    def examples(self) -> Sequence[Example]:
        return [Example("sorry", 1), Example("the", 0)]

    def read(self, passage: Passage) -> Reading:
        if any(word in passage.prompt for word in self.blind):
            return Reading(None)
        return Reading(0.5 if passage.text.startswith("sorry") else 0.49)


@pytest.fixture(scope="module")
def sorry() -> CheckedProbe:
    return checked(Sorry())


@pytest.fixture(scope="module")
def pairs(compiled_prompts: list[Prompt]) -> list[PromptPair]:
    return prompt_pairs(compiled_prompts, "triggered")[:6]


def test_the_expert_that_decides(compiled: LoadedModel, pairs: list[PromptPair], sorry: CheckedProbe) -> None:
    seen: list[tuple[int, int]] = []
    found = behaviour(compiled, pairs, "L2.E5", sorry, SHORT, progress=lambda *done: seen.append(done))
    assert [found.answers[name].shown.sum() for name in ("sensitive", "control")] == [6, 0]
    for name in ("necessity", "sufficiency", "knockout"):
        assert (found.effects[name].points, found.effects[name].percent) == (100.0, 100.0)
        assert found.effects[name].p == pytest.approx(2 * 0.5**6)
    for name in ("placebo_necessity", "placebo_sufficiency"):
        assert (found.effects[name].points, found.effects[name].p) == (0.0, 1.0)
        assert found.answers[name].texts == found.answers["sensitive" if "necessity" in name else "control"].texts
    assert seen[-1] == (42, 42)
    assert sorted(seen) == seen
    record = found.to_json()
    assert record["pairs"] == [one.id for one in pairs]
    assert record["answers"]["control"]["scores"] == [0.49] * 6
    assert record["effects"]["necessity"]["per_pair"] == [1] * 6


def test_an_expert_that_decides_nothing(compiled: LoadedModel, pairs: list[PromptPair], sorry: CheckedProbe) -> None:
    found = behaviour(compiled, pairs[:3], "L1.E1", sorry, SHORT)
    assert all((one.points, one.p) == (0.0, 1.0) for one in found.effects.values())
    assert all(not one.per_pair.any() for one in found.effects.values())


def test_abstentions_are_counted(compiled: LoadedModel, pairs: list[PromptPair]) -> None:
    word = pairs[1].sensitive.prompt.split()[-4]  # a noun of the second pair
    blind = [place for place, one in enumerate(pairs) if word in one.sensitive.prompt]
    found = behaviour(compiled, pairs, "L2.E5", checked(Sorry([word])), SHORT)
    for one in found.effects.values():
        assert one.left_out == len(blind) > 0
        assert np.isnan(one.per_pair[blind]).all()
        assert one.pairs == 6 - len(blind)
    assert found.effects["necessity"].percent == 100.0
    with pytest.raises(InterchangeError, match="abstained everywhere"):
        behaviour(compiled, pairs[:2], "L2.E5", checked(Sorry(["question"])), SHORT)


def test_rescue_and_its_controls(compiled: LoadedModel, pairs: list[PromptPair], sorry: CheckedProbe) -> None:
    found = rescue(compiled, pairs, "L2.E5", sorry, SHORT)
    assert found.random_sites == sites_instead(compiled, pairs, SiteSet("", (Site(2, "expert", 5),)), 0)
    assert [int(found.answers[name].shown.sum()) for name in ("recipient", "donor", "rescue")] == [0, 6, 6]
    assert found.effects["rescue"].percent == 100.0
    for name in ("random_site", "placebo_donor"):
        assert found.effects[name].points == 0
        assert found.beyond[name].points == 100
    assert found.answers["noise"].texts != found.answers["recipient"].texts
    assert found.beyond["noise"].points > 0


def test_a_rescue_without_a_site_to_compare_with(
    compiled: LoadedModel, pairs: list[PromptPair], sorry: CheckedProbe
) -> None:
    found = rescue(compiled, pairs[:2], "L1.E1", sorry, SHORT)
    assert found.random_sites is None
    assert set(found.beyond) == {"placebo_donor", "noise"}
    assert "random_site" not in found.answers
    assert all(one.points == 0 for one in found.effects.values())


def test_a_placebo_of_ones_own_choice(compiled: LoadedModel, pairs: list[PromptPair], sorry: CheckedProbe) -> None:
    assert placebo_pairs(3, None) == [1, 2, 0]
    for chosen, message in (([0, 2, 1], "Pair 0 is its own"), ([1, 2], "3 numbers"), ([1, 2, 3], "3 numbers")):
        with pytest.raises(InterchangeError, match=message):
            placebo_pairs(3, chosen)
    with pytest.raises(InterchangeError, match="there are 1"):
        behaviour(compiled, pairs[:1], "L2.E5", sorry, SHORT)


def test_pairs_of_a_file() -> None:
    prompts = [
        Prompt("a", "1", pair="x", label="bad"), Prompt("b", "2", pair="x", label="good"),
        Prompt("c", "3", pair="y", label="bad"), Prompt("d", "4", pair="z", label="good"), Prompt("e", "5"),
    ]  # fmt: skip
    assert prompt_pairs(prompts, "bad") == [PromptPair("x", prompts[0], prompts[1])]
    assert prompt_pairs(prompts, "good") == [PromptPair("x", prompts[1], prompts[0])]
    with pytest.raises(InterchangeError, match="exactly one sensitive and one control"):
        prompt_pairs(prompts, "worse")


def test_refused(compiled: LoadedModel, pairs: list[PromptPair], sorry: CheckedProbe) -> None:
    with pytest.raises(MoeprobeError, match="L2.E7"):
        behaviour(compiled, pairs, "L2.E99", sorry, SHORT)
    with pytest.raises(InterchangeError, match="samples at 1"):
        behaviour(compiled, pairs, "L2.E5", sorry, Decoding(sample=True, samples=2))
    with pytest.raises(InterchangeError, match="cannot be done to L2.router"):
        rescue(compiled, pairs, "L2.router", sorry, SHORT, random_sites="L1.router")


def test_what_stands_instead(compiled: LoadedModel, pairs: list[PromptPair]) -> None:
    """Experts that run in these prompts, never those of the set; of single kinds other layers."""
    idle = SiteSet("", (Site(1, "expert", 1), Site(2, "expert", 5)))
    assert sites_instead(compiled, pairs, idle, 0) is None
    tested = SiteSet("", (Site(2, "expert", 5),))
    others = sites_instead(compiled, pairs, tested, 0)
    assert others is not None
    assert len(others.sites) == 1
    assert not set(others.sites) & set(tested.sites)
    places = find_places(compiled.model)
    chosen: set[Site] = set()
    for pair in pairs:
        for prompt in (pair.sensitive, pair.control):
            ids = torch.tensor([encode_prompt(compiled.tokenizer, prompt)])
            with torch.inference_mode(), reading(places, [(layer, "expert") for layer in (1, 2, 3)]) as seen:
                compiled.model(input_ids=ids, use_cache=False)
            chosen |= {Site(n, "expert", int(e)) for n in (1, 2, 3) for e in seen.choice(n).ids.flatten()}
    assert set(others.sites) <= chosen
    layout = Layout({layer: LayerSites(experts=3, router=True, moe=layer != 1) for layer in range(4)})
    moe = SiteSet("", (Site(0, "moe"),))
    drawn = {one.sites for one in (drawn_sites(layout, moe, seed) for seed in range(40)) if one is not None}
    assert drawn == {(Site(2, "moe"),), (Site(3, "moe"),)}
    assert drawn_sites(layout, SiteSet("", (Site(0, "moe"), Site(2, "moe"), Site(3, "moe"))), 0) is None


@pytest.mark.slow
@pytest.mark.smollm2
@pytest.mark.skipif(not smollm2.is_installed(), reason=f"needs the base model: {smollm2.INSTALL}")
def test_smollm2_refuses_by_one_expert_in_what_it_writes() -> None:
    """The figures of docs/generate.md: 24 pairs, 24 tokens, bfloat16."""
    loaded, probe = load_model("smollm2"), load_probe("refusal")
    chosen = prompt_pairs(read_prompts(REFUSAL), "harmful")[:24]
    found = behaviour(loaded, chosen, "L18.E5", probe, Decoding(max_new_tokens=24))
    for name in ("necessity", "sufficiency", "knockout"):
        assert found.effects[name].points_ci[0] > 50, name
    for name in ("placebo_necessity", "placebo_sufficiency"):
        assert abs(found.effects[name].points) < 15, name
    # A prompt that is its own donor writes what it writes.
    same = [one.sensitive for one in chosen]
    wanted = generate_edited(loaded, same, (), Decoding(max_new_tokens=24), donors=same)
    again = generate_edited(loaded, same, "swap:L18.E5", Decoding(max_new_tokens=24), donors=same)
    assert [one.tokens for one in again] == [one.tokens for one in wanted]
