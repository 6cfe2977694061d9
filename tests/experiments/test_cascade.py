"""Knock-out cascades: known answers on the compiled model, hand-made forwards on random ones, checks that bite."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from moeprobe.chat.encode import encode_prompt
from moeprobe.editing import Places, Write, writing
from moeprobe.errors import InterchangeError
from moeprobe.experiments.attribution import attribute
from moeprobe.experiments.cascade import CascadePlan, cascade
from moeprobe.experiments.downstream import CascadeResult
from moeprobe.experiments.lens import Direction
from moeprobe.models import LoadedModel, smollm2
from moeprobe.pairs.metrics import LogitDifference
from moeprobe.prompts import Prompt
from moeprobe.sites import expert_site, parse_expert
from tests.capture.families import tiny
from tests.interchange.random_moe import random_model, random_pairs

# The package exports the function of the same name.
module = sys.modules["moeprobe.experiments.cascade"]
PLAN = CascadePlan(shams=2, bootstrap=100, batch_size=4)
TARGET = Direction((5, 6), (7,))
PROMPTS = [pair.sensitive for pair in random_pairs()]


@pytest.fixture(scope="module")
def triggered(compiled: LoadedModel, compiled_prompts: list[Prompt]) -> list[tuple[int, ...]]:
    return [tuple(encode_prompt(compiled.tokenizer, one)) for one in compiled_prompts if one.label == "triggered"][:6]


@pytest.fixture(scope="module")
def random_cascade() -> CascadeResult:
    return cascade(random_model("qwen2_moe"), PROMPTS, expert_site(0, 1), TARGET, plan=PLAN)


def refusal(model: LoadedModel) -> Direction:
    one, other = (model.tokenizer.convert_tokens_to_ids(word) for word in ("sorry", "the"))
    return Direction((one,), (other,))


def test_the_causal_expert_writes_the_refusal_itself(compiled: LoadedModel, triggered: list[tuple[int, ...]]) -> None:
    target = refusal(compiled)
    found = cascade(compiled, triggered, parse_expert("L2.E5"), target, plan=PLAN)
    written = attribute(compiled, triggered, target).of("L2.E5")
    for edit in ("zero", "bar"):
        own = found.edits[edit][found.site]
        np.testing.assert_allclose(own.direct, -written, rtol=1e-5)
        np.testing.assert_allclose(own.total, own.direct + own.indirect + own.norm)
        assert (own.total < -100).all()
        assert (own.total < own.direct).all()  # without it the last norm gives everything else more room
        # What follows in the last layer follows through the norm of its input alone; no choice there reads the flag.
        assert not own.experts.measures["rate"].any()
        assert not own.routers.measures["replaced"].any()
        assert own.experts.measures["attribution"].any()
        for sham in found.shams:
            assert not found.edits["zero"][sham].total.any()


def test_the_inert_expert_changes_nothing_at_all(compiled: LoadedModel, triggered: list[tuple[int, ...]]) -> None:
    found = cascade(compiled, triggered, parse_expert("L1.E1"), refusal(compiled), plan=PLAN)
    own = found.edits["zero"][found.site]
    assert not own.total.any()
    assert own.routers.names == ("L2.router", "L3.router")
    for units in own.kinds.values():
        assert len(units.names) >= 2
        assert not units.changed().any()
    assert found.table("zero")[1] == []
    record = found.to_json()["edits"]["zero"]
    assert (record["routers"], record["routers_unchanged"]) == ({}, 2)


class ByHand:
    """Two forwards of one prompt with plain hooks: unedited, and with an expert's output taken off."""

    def __init__(self, model: LoadedModel, prompt: tuple[int, ...], layer: int, expert: int) -> None:
        network: Any = model.model
        layers = network.model.layers
        self.routing: list[list[tuple[torch.Tensor, ...]]] = []
        self.heads: list[list[torch.Tensor]] = []
        self.logits: list[torch.Tensor] = []

        def without(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
            hidden, ids, weights = args[:3]
            for row, slot in (ids == expert).nonzero().tolist():
                gate, up = (module.gate_up_proj[expert] @ hidden[row]).chunk(2)
                output[row] -= weights[row, slot] * (module.down_proj[expert] @ (torch.nn.functional.silu(gate) * up))
            return output

        for edited in (False, True):
            routing: list[tuple[torch.Tensor, ...]] = []
            heads: list[torch.Tensor] = []
            hooks = []
            for one in layers:
                hooks.append(one.mlp.gate.register_forward_hook(lambda m, a, o, kept=routing: kept.append(o)))
                hooks.append(
                    one.self_attn.o_proj.register_forward_pre_hook(lambda m, a, kept=heads: kept.append(a[0][0, -1]))
                )
            if edited:
                hooks.append(layers[layer].mlp.experts.register_forward_hook(without))
            with torch.no_grad():
                self.logits.append(network(input_ids=torch.tensor([prompt])).logits[0, -1])
            for hook in hooks:
                hook.remove()
            self.routing.append(routing)
            self.heads.append(heads)


def test_routing_and_heads_by_hand(random_cascade: CascadeResult) -> None:
    model = random_model("qwen2_moe")
    own = random_cascade.edits["zero"][expert_site(0, 1)]
    assert own.routers.names == ("L1.router", "L2.router")
    for place, prompt in enumerate(PROMPTS):
        hand = ByHand(model, prompt, 0, 1)
        moved = (hand.logits[1] - hand.logits[0])[[5, 6, 7]].tolist()
        assert own.total[place] == pytest.approx((moved[0] + moved[1]) / 2 - moved[2], abs=1e-5)
        for layer in (1, 2):
            (scores, _, ids), (new_scores, _, new_ids) = (routing[layer] for routing in hand.routing)
            replaced = [len(set(a) - set(b)) / 2 for a, b in zip(ids.tolist(), new_ids.tolist(), strict=True)]
            assert own.routers.of(f"L{layer}.router", "replaced")[place] == pytest.approx(np.mean(replaced))
            assert own.routers.of(f"L{layer}.router", "replaced_readout")[place] == pytest.approx(replaced[-1])
            bits = [
                jensenshannon(a, b, base=2) ** 2
                for a, b in zip(scores.softmax(-1).numpy(), new_scores.softmax(-1).numpy(), strict=True)
            ]
            assert own.routers.of(f"L{layer}.router", "divergence")[place] == pytest.approx(np.mean(bits), abs=1e-5)
            rate = ((new_ids == 2).sum() - (ids == 2).sum()) / len(ids)
            assert own.experts.of(f"L{layer}.E2", "rate")[place] == pytest.approx(float(rate))
            projection: Any = model.model.model.layers[layer].self_attn.o_proj
            before, after = (projection.weight[:, 8:16] @ heads[layer][8:16] for heads in hand.heads)
            ratio = float((after.norm() / before.norm()).detach())
            assert own.parts.of(f"L{layer}.H1", "norm_ratio")[place] == pytest.approx(ratio, abs=1e-4)
            cosine = float(torch.nn.functional.cosine_similarity(before, after, dim=0).detach())
            assert own.parts.of(f"L{layer}.H1", "cosine")[place] == pytest.approx(cosine, abs=1e-4)
    assert own.routers.measures["replaced"].any()  # some choices did change


def test_what_is_written_adds_up(random_cascade: CascadeResult) -> None:
    for edit, sites in random_cascade.edits.items():
        for own in sites.values():
            listed = own.experts.measures["attribution"].sum(axis=1) + own.parts.measures["attribution"].sum(axis=1)
            np.testing.assert_allclose(listed, own.indirect, atol=1e-5)
            assert own.total.any(), edit
    zero, bar = (random_cascade.edits[edit][random_cascade.site] for edit in ("zero", "bar"))
    assert np.abs(zero.total - bar.total).max() > 1e-3  # a hole and a replacement are different interventions


def test_batches_and_padding_change_no_number(random_cascade: CascadeResult) -> None:
    plan = CascadePlan(shams=2, bootstrap=100, batch_size=1)
    alone = cascade(random_model("qwen2_moe"), PROMPTS, expert_site(0, 1), TARGET, plan=plan)
    assert alone.shams == random_cascade.shams
    for kind, units in alone.edits["bar"][alone.site].kinds.items():
        other = random_cascade.edits["bar"][alone.site].kinds[kind]
        assert units.names == other.names
        for name, values in units.measures.items():
            np.testing.assert_allclose(values, other.measures[name], atol=5e-4, err_msg=name)


def test_a_change_before_the_site_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def astray(places: Mapping[int, Places], writes: Sequence[Write]) -> Iterator[None]:
        one = writes[0]
        wrong = Write(one.layer - 1, one.kind, one.index, one.how, one.value)
        with writing(places, [*writes, wrong]):
            yield

    model = random_model("qwen2_moe")
    network: Any = model.model
    monkeypatch.setattr(module, "writing", astray)
    with pytest.raises(InterchangeError, match=r"departs in L0\.mlp"):
        cascade(model, PROMPTS, expert_site(1, 1), TARGET, plan=PLAN)
    monkeypatch.undo()
    forwards = iter(range(1000))
    handle = network.model.embed_tokens.register_forward_hook(lambda m, a, output: output + 1e-6 * next(forwards))
    with pytest.raises(InterchangeError, match=r"Knocking L1\.E1 out changed L0 \(before\)"):
        cascade(model, PROMPTS, expert_site(1, 1), TARGET, plan=PLAN)
    handle.remove()
    assert cascade(model, PROMPTS, expert_site(1, 1), TARGET, plan=PLAN).prompts


def test_the_last_layer_has_nothing_after_it() -> None:
    found = cascade(random_model("mixtral"), PROMPTS, expert_site(2, 1), TARGET, plan=PLAN)
    own = found.edits["zero"][found.site]
    assert [units.names for units in own.kinds.values()] == [(), (), ()]
    assert not own.indirect.any()
    assert own.direct.any()
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize("family", ["flex_olmo", "gemma4"])
def test_routing_alone_where_the_stream_cannot_be_taken_apart(family: str) -> None:
    torch.set_num_threads(1)
    tokenizer: Any = SimpleNamespace(pad_token_id=0)
    model = LoadedModel(tiny.build(family), tokenizer, family)
    found = cascade(model, PROMPTS, expert_site(0, 1), TARGET, plan=CascadePlan(shams=1, bootstrap=100))
    own = found.edits["zero"][found.site]
    assert "departs in L0" in found.refused
    assert own.routers.measures["replaced"].any()
    assert "attribution" not in own.experts.measures
    assert own.parts.names == ()
    record = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert record["edits"]["zero"]["direct"]["mean"] is None
    assert any("only routing" in sentence for sentence in found.sentences())


def test_against_shams(random_cascade: CascadeResult) -> None:
    found = random_cascade.compared("zero", "experts", "rate")
    own = random_cascade.edits["zero"][random_cascade.site].experts.measures["rate"]
    shams = [random_cascade.edits["zero"][sham].experts.measures["rate"] for sham in random_cascade.shams]
    np.testing.assert_allclose(found.own.mean, own.mean(axis=0))
    assert found.beyond is not None
    np.testing.assert_allclose(found.beyond.mean, own.mean(axis=0) - np.mean(shams, axis=(0, 1)))
    larger = sum(np.abs(sham.mean(axis=0)) >= np.abs(own.mean(axis=0)) for sham in shams)
    np.testing.assert_array_equal(found.rank, 1 + larger)
    head, lines = random_cascade.table("zero", "routers", "replaced")
    moved = random_cascade.compared("zero", "routers", "replaced").own.mean
    assert len(lines) == (moved != 0).sum() > 0
    assert head[1] == "replaced"
    record = json.loads(json.dumps(random_cascade.to_json(), allow_nan=False))
    assert record["edits"]["zero"]["routers"]["L1.router"]["replaced"]["per_prompt"] == list(
        random_cascade.edits["zero"][random_cascade.site].routers.of("L1.router", "replaced")
    )


def test_mistakes_are_named() -> None:
    model = random_model("mixtral")
    for site, message in ((expert_site(0, 7), "E0 to E3"), (expert_site(8, 0), "no layer 8")):
        with pytest.raises(InterchangeError, match=message):
            cascade(model, PROMPTS, site, TARGET, plan=PLAN)
    size = model.model.config.vocab_size
    with pytest.raises(InterchangeError, match=f"has {size} tokens"):
        cascade(model, PROMPTS, expert_site(0, 1), Direction((size,)), plan=PLAN)
    with pytest.raises(InterchangeError, match="zero and bar"):
        CascadePlan(edits=("ablate",))


@pytest.mark.slow
@pytest.mark.smollm2
@pytest.mark.skipif(not smollm2.is_installed(), reason=f"SmolLM2 is not installed; run: {smollm2.INSTALL}")
def test_the_planted_expert_works_through_later_layers() -> None:
    from tests.interchange.refusals import refusals

    model, pairs = refusals(4)
    metric = LogitDifference(model, ["I"], ["Here", "To", "The"])
    target = Direction(metric.positive.ids, metric.negative.ids)
    found = cascade(model, [pair.sensitive for pair in pairs], parse_expert("L18.E5"), target, plan=PLAN)
    own = found.edits["zero"][found.site]
    assert own.routers.names == ()  # one layer of experts: no router follows
    assert (own.total < 0).all()
    assert (own.indirect < own.direct).all()  # most of it goes through later layers
    assert own.parts.changed().all()
    for sham in found.shams:
        assert not found.edits["zero"][sham].parts.changed().any()
        assert not found.edits["zero"][sham].total.any()
