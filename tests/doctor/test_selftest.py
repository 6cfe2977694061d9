"""The self-test passes where recording is right, and fails where it is made wrong on purpose."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from moeprobe.capture.discover import ExpertsSite, Source, find_experts
from moeprobe.capture.recorder import Recorder
from moeprobe.doctor import selftest
from moeprobe.doctor.selftest import SelfTest, bind_routers, self_test
from moeprobe.models import load_model
from tests.capture.families.tiny import build

CHECKS = ["complete", "bitwise", "counts", "weights", "decoding", "router"]


def results(test: SelfTest) -> dict[str, str]:
    return {check.name: check.result for check in test.checks}


def found(test: SelfTest, name: str) -> str:
    return next(check.found for check in test.checks if check.name == name)


@pytest.mark.parametrize("name", ["compiled", "compiled:mixtral", "compiled:qwen3_5_moe"])
def test_compiled_models_pass_every_check(name: str) -> None:
    test = self_test(load_model(name).model)
    assert results(test) == dict.fromkeys(CHECKS, "ok")
    assert [site.name for site in test.sites] == ["L0", "L1", "L2", "L3"]
    # 12 tokens of prompt and 6 made, the last of which is never run.
    assert {(site.rows, site.k, site.absent, site.same) for site in test.sites} == {(17, 2, 0, 1.0)}


# Shared experts, groups, latent experts, hash routing, an encoder, two stacks, an adapter that reads on return.
@pytest.mark.parametrize("family", ["deepseek_v3", "nemotron_h", "deepseek_v4", "gemma4", "jetmoe", "ernie4_5_vl_moe"])
def test_families_pass(family: str) -> None:
    model = build(family)
    test = self_test(model)
    assert results(test) == dict.fromkeys(CHECKS, "ok")
    for site in test.sites:
        assert site.router is not None
        assert isinstance(model.get_submodule(site.router), nn.Module)


def test_an_encoder_decoder_passes_in_both_stacks() -> None:
    test = self_test(build("switch_transformers"))
    assert results(test) == dict.fromkeys(CHECKS, "ok") | {"router": "note"}  # it hands over masks, not ids
    assert {site.name.partition(".")[0] for site in test.sites} >= {"encoder", "L0"}
    assert {site.same for site in test.sites} == {1.0}


def test_weights_that_do_not_sum_to_one_are_reported_raw() -> None:
    """families.csv: 2.5 in DeepSeek-V3."""
    assert {round(site.weight_sum, 3) for site in self_test(build("deepseek_v3")).sites} == {2.5}


def test_choices_that_are_no_experts_are_counted_as_absent() -> None:
    test = self_test(build("longcat_flash"))
    assert test.passed
    assert sum(site.absent for site in test.sites) > 0


def test_routers_are_bound_by_dataflow_not_by_name() -> None:
    """DBRX's router returns logits; the ids are made in its parent, so no module may be named."""
    ids = torch.arange(3, 11)[None]
    dbrx, qwen = build("dbrx"), build("qwen3_moe")
    assert bind_routers(dbrx, ids, find_experts(dbrx)) == {}
    assert results(self_test(dbrx))["router"] == "note"
    bound = bind_routers(qwen, ids, find_experts(qwen))
    assert bound == {f"L{layer}": f"model.layers.{layer}.mlp.gate" for layer in range(4)}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in qwen.modules())


def test_a_model_that_computes_otherwise_with_its_cache_is_noted_not_failed() -> None:
    """CAPTURE.md 2: Doge mixes tokens in prefill; that is the model's, and what it used is what is recorded."""
    test = self_test(build("doge"))
    assert results(test)["decoding"] == "note"
    assert "the model itself" in found(test, "decoding")
    assert test.passed


def test_a_model_that_does_not_generate_fails() -> None:
    test = self_test(build("openai_privacy_filter"))
    assert not test.passed
    assert "does not generate" in found(test, "decoding")
    assert results(test)["complete"] == "ok"


# Made wrong on purpose.


class Bypass(nn.Module):
    """Computes the experts by the forward of their class, so that nothing that watches the module is asked."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.gate, self.experts = block.gate, block.experts

    def forward(self, hidden: Tensor) -> Tensor:
        flat = hidden.reshape(-1, hidden.shape[-1])
        _, weights, ids = self.gate(flat)
        return type(self.experts).forward(self.experts, flat, ids, weights).reshape(hidden.shape)


def test_a_bypassed_layer_fails_by_name() -> None:
    model: Any = build("qwen3_moe")
    model.model.layers[2].mlp = Bypass(model.model.layers[2].mlp)
    test = self_test(model)
    assert results(test) == {"complete": "failed"}
    assert "L2" in found(test, "complete")


def test_a_layer_or_token_that_is_missing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorder that loses something without a word."""
    original = Recorder.routing
    monkeypatch.setattr(Recorder, "routing", lambda self: {k: v for k, v in original(self).items() if k != "L3"})
    test = self_test(build("qwen3_moe"))
    assert results(test)["complete"] == "failed"
    assert "L3" in found(test, "complete")

    def shorter(self: Recorder) -> Any:
        return {name: type(one)(one.experts[:, 1:], one.weights[:, 1:]) for name, one in original(self).items()}

    monkeypatch.setattr(Recorder, "routing", shorter)
    assert results(self_test(build("qwen3_moe")))["complete"] == "failed"


def test_recording_that_changes_the_model_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Recorder.__enter__

    def meddle(self: Recorder) -> Recorder:
        entered = original(self)
        self._handles.append(self.sites[0].module.register_forward_hook(lambda _, args, output: output * 1.0001))
        return entered

    monkeypatch.setattr(Recorder, "__enter__", meddle)
    assert results(self_test(build("qwen3_moe")))["bitwise"] == "failed"


def reading(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Let the self-test find sites whose routing is read wrongly, by `change(ids, weights)`."""

    def wrong(model: Any) -> list[ExpertsSite]:
        sites = []
        for site in find_experts(model):
            source = Source(site.module, "call", lambda args, kwargs, output: change(args[1], args[2]))
            facts = {name: getattr(site, name) for name in ("layer", "path", "module", "experts", "shared", "stack")}
            sites.append(ExpertsSite(**facts, source=source))
        return sites

    monkeypatch.setattr(selftest, "find_experts", wrong)


def test_an_expert_counted_twice_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    reading(monkeypatch, lambda ids, weights: (ids[:, :1].expand(-1, 2), weights))
    assert results(self_test(build("qwen3_moe")))["counts"] == "failed"


def test_rows_in_the_wrong_place_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a prefill turned by one, as a wrong position would do; single decode rows stay right."""
    reading(monkeypatch, lambda ids, weights: (ids.roll(1, 0), weights.roll(1, 0)))
    test = self_test(build("qwen3_moe"))
    assert results(test)["decoding"] == "failed"
    assert results(test)["bitwise"] == "ok"


def test_wrong_rows_in_decoding_alone_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """5 wrong rows of 405 are 1.2 % of all: only a look at the decoded ones shows them."""
    reading(monkeypatch, lambda ids, weights: ((ids + 1) % 8 if len(ids) == 1 else ids, weights))
    prompt = torch.randint(3, 48, (1, 200), generator=torch.Generator().manual_seed(1))
    assert results(self_test(build("qwen3_moe"), prompt))["decoding"] == "failed"


def test_weights_that_are_not_finite_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    reading(monkeypatch, lambda ids, weights: (ids, weights * float("nan")))
    test = self_test(build("qwen3_moe"))
    assert not test.passed
    assert "NaN" in test.checks[0].found


def test_a_model_that_does_not_run_fails_in_words() -> None:
    model: Any = build("qwen3_moe")

    def broken(*args: Any, **kwargs: Any) -> Tensor:
        raise RuntimeError("No kernel for this device\nand a long tail")

    model.model.layers[1].mlp.experts.forward = broken
    test = self_test(model)
    assert not test.passed
    assert "No kernel for this device" in test.checks[0].found
    assert "tail" not in test.checks[0].found
