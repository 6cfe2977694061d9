"""Barring, forcing and biasing against routing computed by hand from the router's raw weights."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from moeprobe.capture import Recorder
from moeprobe.editing import Reroute, Rerouter, bias_for, find_places, rerouting, scores
from moeprobe.errors import InterchangeError
from tests.capture.families import tiny
from tests.capture.families.checks import forward
from tests.editing.by_hand import Call, calls
from tests.editing.exact import apart, model_of

IDS = torch.randint(3, 90, (2, 9), generator=torch.Generator().manual_seed(13))
INFINITY = float("inf")
ROWS = 18


def run(model: PreTrainedModel) -> Tensor:
    """Logits of two prompts without padding: the scores of padding are all 0, and ties may be broken in any way."""
    return forward(model, input_ids=IDS, attention_mask=torch.ones_like(IDS))[1]


# By hand: (router, logits (rows, E) with the bias, bias) -> weight of every expert (rows, E), 0 where it is not chosen.
# Forced experts have the weight of their own score.


def choose(selection: Tensor, bias: Tensor, k: int) -> Tensor:
    """(rows, E) the k best, with forced ones first and without barred ones."""
    ranked = torch.where(bias == INFINITY, INFINITY, torch.where(bias == -INFINITY, -INFINITY, selection))
    chosen = torch.zeros_like(selection, dtype=torch.bool)
    return chosen.scatter_(1, ranked.argsort(dim=1, descending=True)[:, :k], True)


def softmax_first(router: Any, logits: Tensor, bias: Tensor, *, renormalise: bool = True, k: int = 2) -> Tensor:
    every = logits.exp() / logits.exp().sum(1, keepdim=True)
    weights = torch.where(choose(every, bias, k), every, 0)
    return weights / weights.sum(1, keepdim=True) if renormalise else weights


def softmax_last(router: Any, logits: Tensor, bias: Tensor) -> Tensor:
    weights = torch.where(choose(logits, bias, 2), logits.exp(), 0)
    return weights / weights.sum(1, keepdim=True)


def in_groups(router: Any, logits: Tensor, bias: Tensor) -> Tensor:
    """DeepSeek V3: sigmoid, a correction bias for the choice alone, the best groups by their two best experts."""
    every = 1 / (1 + (-logits).exp())
    selection = every + router.e_score_correction_bias
    groups = selection.reshape(len(logits), router.num_group, -1)
    best = groups.sort(dim=2, descending=True).values[:, :, :2].sum(2)
    inside = choose(best, torch.zeros_like(best), router.topk_group)
    allowed = inside[:, :, None].expand_as(groups).reshape(logits.shape)
    weights = torch.where(choose(torch.where(allowed, selection, -INFINITY), bias, 2), every, 0)
    if router.norm_topk_prob:
        weights = weights / weights.sum(1, keepdim=True)
    return weights * router.routed_scaling_factor


def in_best_group(router: Any, logits: Tensor, bias: Tensor) -> Tensor:
    """DeepSeek V2: softmax, the group with the best expert; weights as they are."""
    every = logits.exp() / logits.exp().sum(1, keepdim=True)
    groups = every.reshape(len(logits), router.num_group, -1)
    inside = choose(groups.amax(2), torch.zeros(len(logits), router.num_group), router.topk_group)
    allowed = inside[:, :, None].expand_as(groups).reshape(logits.shape)
    return torch.where(choose(torch.where(allowed, every, 0), bias, 2), every, 0) * router.routed_scaling_factor


def dbrx(router: Any, logits: Tensor, bias: Tensor) -> Tensor:
    return softmax_first(router, logits, bias, k=tiny.build("dbrx").config.ffn_config.moe_top_k)


HANDS: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "mixtral": softmax_first,
    "qwen3_5_moe": softmax_first,
    "qwen3_moe": lambda router, logits, bias: softmax_first(router, logits, bias, renormalise=router.norm_topk_prob),
    "gpt_oss": softmax_last,
    "deepseek_v2": in_best_group,
    "deepseek_v3": in_groups,
    "nemotron_h": in_groups,
    "dbrx": dbrx,
}


class Bench:
    """A model, one of its layers, and what its router is given."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.places = model, find_places(model)
        layers = [layer for layer, one in self.places.items() if one.experts is not None]
        self.layer = layers[len(layers) // 2]
        self.one = self.places[self.layer]
        self.site = self.one.experts
        self.router: Any = self.one.router
        given: list[Tensor] = []
        handle = self.router.register_forward_pre_hook(lambda module, args: given.append(args[0]))
        with calls({self.layer: self.site}) as found:
            self.base = run(model)
        handle.remove()
        self.call = found[self.layer]
        inner = getattr(self.router, "layer", self.router)
        x = given[0].reshape(-1, given[0].shape[-1])
        with torch.inference_mode():
            self.logits = x @ inner.weight.T + (0 if getattr(inner, "bias", None) is None else inner.bias)

    def rerouted(self, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (rows, E) that the experts were given, and the logits of the model."""
        with rerouting(self.places, [Reroute(self.layer, bias)]), calls({self.layer: self.site}) as found:
            logits = run(self.model)
        return self.dense(found[self.layer]), logits

    def dense(self, call: Call) -> Tensor:
        """(rows, E) weights."""
        return torch.zeros(ROWS, self.site.experts).scatter_add_(1, call.ids, call.weights.float())

    def given_by_hand(self, weights: Tensor) -> Tensor:
        """Logits of the model when the experts of this layer are called with `weights` (rows, E)."""
        k = self.call.ids.shape[1]
        values, ids = weights.topk(k, dim=1)

        def swap(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            new = [(args + tuple(kwargs.values()))[0], ids, values.to(self.call.weights.dtype)]
            return tuple(new[: len(args)]), dict(zip(kwargs, new[len(args) :], strict=True))

        handle = self.site.module.register_forward_pre_hook(swap, with_kwargs=True)
        try:
            return run(self.model)
        finally:
            handle.remove()

    def bias(self, kind: str) -> Tensor:
        """(rows, E): the best expert barred, the worst forced, all biased by noise, or each in a third of the rows."""
        rows, count = torch.arange(ROWS), self.site.experts
        bar, force = torch.zeros(ROWS, count), torch.zeros(ROWS, count)
        bar[rows, self.dense(self.call).argmax(1)] = -INFINITY
        force[rows, self.logits[:, :count].argmin(1)] = INFINITY
        noise = 2 * torch.randn(ROWS, count, generator=torch.Generator().manual_seed(2))
        third = (rows % 3)[:, None]
        mixed = torch.where(third == 0, bar, torch.where(third == 1, force, noise))
        return {"bar": bar, "force": force, "bias": noise, "mixed": mixed, "together": bar + noise}[kind]


def by_hand(bench: Bench, family: str, bias: Tensor) -> Tensor:
    finite = torch.where(bias == -INFINITY, -INFINITY, torch.where(bias == INFINITY, 0, bias))
    return HANDS[family](bench.router, bench.logits + finite, bias)


KINDS = ["bar", "force", "bias", "mixed", "together"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", HANDS)
def test_rerouting_is_routing_by_hand(family: str, kind: str) -> None:
    bench = Bench(model_of(family, torch.float32))
    with torch.inference_mode():
        bias = bench.bias(kind)
        due = by_hand(bench, family, bias)
        weights, logits = bench.rerouted(bias)
        assert torch.equal(weights != 0, due != 0)
        assert apart(weights, due) < 2e-6
        assert apart(logits, bench.given_by_hand(due)) < 2e-6
        # And it is something else than what the model does.
        assert not torch.equal(logits, bench.base)
        assert apart(bench.dense(bench.call), by_hand(bench, family, torch.zeros_like(bias))) < 2e-6


@pytest.mark.parametrize("implementation", ["batched_mm", "grouped_mm"])
def test_with_other_implementations(implementation: str) -> None:
    model = model_of("deepseek_v3", torch.float32)
    model.set_experts_implementation(implementation)
    try:
        bench = Bench(model)
        with torch.inference_mode():
            due = by_hand(bench, "deepseek_v3", bench.bias("mixed"))
            weights, logits = bench.rerouted(bench.bias("mixed"))
            assert max(apart(weights, due), apart(logits, bench.given_by_hand(due))) < 2e-6
    finally:
        model.set_experts_implementation("eager")


def test_shared_experts_as_wide_as_the_router_are_left_alone() -> None:
    """Qwen3-Next has 512 experts and shared experts of width 512, computed first: their products are no logits."""
    model = tiny.build_class("Qwen3NextForCausalLM", {"shared_expert_intermediate_size": 8})
    bench = Bench(model)
    assert bench.one.shared.gate_proj.out_features == bench.site.experts
    with torch.inference_mode():
        due = softmax_first(bench.router, bench.logits + bench.bias("bias"), bench.bias("bias"))
        weights, logits = bench.rerouted(bench.bias("bias"))
        assert max(apart(weights, due), apart(logits, bench.given_by_hand(due))) < 2e-6


def test_no_bias_changes_no_bit() -> None:
    for family in HANDS:
        bench = Bench(model_of(family, torch.float32))
        with torch.inference_mode():
            assert torch.equal(bench.rerouted(torch.zeros(1, bench.site.experts))[1], bench.base)


def test_one_bias_for_all_rows() -> None:
    bench = Bench(model_of("mixtral", torch.float32))
    bias = bias_for(8, bar=[2], force=[5], bias={1: 0.5})
    assert bias.tolist() == [[0, 0.5, -INFINITY, 0, 0, INFINITY, 0, 0]]
    with torch.inference_mode():
        assert torch.equal(bench.rerouted(bias)[1], bench.rerouted(bias.expand(ROWS, -1))[1])


def test_barring_is_not_zeroing() -> None:
    """Barred before top-k, another expert takes over and the weights still sum to 1; zeroed, a hole is left."""
    bench = Bench(model_of("mixtral", torch.float32))
    with torch.inference_mode():
        weights, _ = bench.rerouted(bench.bias("bar"))
    assert torch.allclose(weights.sum(1), torch.ones(ROWS))
    assert ((weights != 0).sum(1) == 2).all()


# Mistakes that these tests, or the check of the choice itself, find.


@contextmanager
def without(patch: pytest.MonkeyPatch, name: str, does: Any) -> Iterator[None]:
    with patch.context() as inner:
        inner.setattr(scores.Scores, name, does)
        yield


def test_logits_alone_do_not_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a correction bias a score of 0 may still win: without a mask of top-k the barred expert comes back."""
    bench = Bench(tiny.build("deepseek_v3"))
    with torch.no_grad():
        bench.router.e_score_correction_bias[:4] += 5
    bench = Bench(bench.model)
    assert (bench.call.ids < 4).all()
    bias = bias_for(8, bar=[0, 1, 2])
    with torch.inference_mode():
        weights, _ = bench.rerouted(bias)
        assert (weights[:, :3] == 0).all()
        with (
            without(monkeypatch, "_select", lambda self, func, args, kwargs: func(*args, **kwargs)),
            pytest.raises(InterchangeError, match="did not do as told"),
        ):
            bench.rerouted(bias)


def test_a_mask_of_groups_would_take_the_weight_of_a_forced_expert(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(model_of("deepseek_v2", torch.float32))
    bias = bench.bias("force")
    with torch.inference_mode(), without(monkeypatch, "_unmasked", lambda self, given, masked: masked):
        weights, _ = bench.rerouted(bias)
    due = by_hand(bench, "deepseek_v2", bias)
    assert ((due != 0) & (weights == 0)).any()


def test_a_bias_of_the_choice_alone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others would not be renormalised."""
    bench = Bench(model_of("qwen3_moe", torch.float32))
    assert not bench.router.norm_topk_prob
    with torch.inference_mode(), without(monkeypatch, "_bias", lambda self, logits: logits):
        weights, _ = bench.rerouted(bench.bias("bar"))
    assert apart(weights, by_hand(bench, "qwen3_moe", bench.bias("bar"))) > 1e-3


# Families whose choice is not handed to the experts: read off the router.


@pytest.mark.parametrize("family", ["llama4", "jetmoe", "switch_transformers"])
def test_families_without_swaps_can_be_barred(family: str) -> None:
    model = model_of(family, torch.float32)
    places = find_places(model)
    layer = [number for number, one in places.items() if one.experts is not None][-1]
    name = f"L{layer}"
    with Recorder(model) as recorder:
        base = run(model)
    seen = recorder.routing()[name].experts
    barred = int(seen[seen >= 0].reshape(-1)[0])
    with rerouting(places, [Reroute(layer, bias_for(8, bar=[barred]))]), Recorder(model) as recorder:
        logits = run(model)
    assert barred in seen
    assert barred not in recorder.routing()[name].experts
    assert not torch.equal(logits, base)
    with rerouting(places, [Reroute(layer, torch.zeros(1, 8))]):
        assert torch.equal(run(model), base)


def test_a_recorder_sees_the_new_choice() -> None:
    bench = Bench(model_of("mixtral", torch.float32))
    bias = bench.bias("mixed")
    due = by_hand(bench, "mixtral", bias)
    for inside in (False, True):  # attached before, or within
        with Recorder(bench.model) as outer, rerouting(bench.places, [Reroute(bench.layer, bias)]):
            if inside:
                with Recorder(bench.model) as recorder:
                    run(bench.model)
            else:
                recorder = outer
                run(bench.model)
        layer = recorder.routing()[f"L{bench.layer}"]
        ids, weights = (torch.from_numpy(part).reshape(ROWS, -1) for part in (layer.experts, layer.weights))
        assert apart(torch.zeros(ROWS, 8).scatter_(1, ids, weights), due) < 2e-6


def test_changed_between_forwards() -> None:
    bench = Bench(model_of("gpt_oss", torch.float32))
    bar = Reroute(bench.layer, bench.bias("bar"))
    with Rerouter(bench.places, [bench.layer]) as rerouter:
        assert torch.equal(run(bench.model), bench.base)
        rerouter.set([bar])
        assert not torch.equal(run(bench.model), bench.base)
        rerouter.set([])
        assert torch.equal(run(bench.model), bench.base)
        with pytest.raises(InterchangeError, match="L0 was not named"):
            rerouter.set([Reroute(0, bar.bias)])
        with pytest.raises(InterchangeError, match="has two biases"):
            rerouter.set([bar, bar])


def test_one_bias_through_a_generation() -> None:
    bench = Bench(model_of("mixtral", torch.float32))
    ids = torch.randint(3, 90, (1, 6), generator=torch.Generator().manual_seed(1))
    bar = Reroute(bench.layer, bias_for(8, bar=[0, 1, 2]))
    with torch.inference_mode(), rerouting(bench.places, [bar]), Recorder(bench.model) as recorder:
        bench.model.generate(input_ids=ids, max_new_tokens=4, do_sample=False)
    chosen = recorder.routing()[f"L{bench.layer}"].experts
    assert chosen.shape[1] == 9
    assert chosen.min() >= 3


# What is refused.


def refused(family: str, bias: Tensor, layer: int | None = None) -> str:
    model = model_of(family, torch.float32)
    places = find_places(model)
    layers = [number for number, one in places.items() if one.experts is not None]
    where = layers[len(layers) // 2] if layer is None else layer
    with pytest.raises(InterchangeError) as problem, rerouting(places, [Reroute(where, bias)]):
        run(model)
    return str(problem.value)


def test_refusals_say_why() -> None:
    assert "selects by max" in refused("phimoe", bias_for(8, force=[1]))
    assert "hash of the token" in refused("deepseek_v4", bias_for(8, bar=[1]), layer=0)
    assert "products of two keys" in refused("doge", bias_for(16, bar=[1]))
    assert "did not do as told" in refused("switch_transformers", bias_for(8, force=[1]))
    assert "7 cannot be barred" in refused("mixtral", bias_for(8, bar=range(7)))
    assert "chooses 2 experts; 3 cannot be forced" in refused("mixtral", bias_for(8, force=range(3)))
    assert "has 8 experts, the router bias 7" in refused("mixtral", bias_for(7, bar=[1]))
    assert "5 rows, the forward 18" in refused("mixtral", torch.zeros(5, 8))
    assert "no layer 9" in refused("mixtral", torch.zeros(1, 8), layer=9)
    assert "no routed experts" in refused("deepseek_v3", torch.zeros(1, 8), layer=0)


def test_bad_biases() -> None:
    with pytest.raises(InterchangeError, match="without NaN"):
        Reroute(0, torch.tensor([[float("nan")]]))
    with pytest.raises(InterchangeError, match="without NaN"):
        Reroute(0, torch.zeros(3))
    with pytest.raises(InterchangeError, match=r"\[1\] are both barred and forced"):
        bias_for(4, bar=[1], force=[1])
    with pytest.raises(InterchangeError, match="experts 0 to 3, not 4"):
        bias_for(4, bar=[4])


def test_two_products_that_could_be_logits_are_refused() -> None:
    """A router whose hidden layer is as wide as it has classes: which product makes the scores cannot be told."""
    bench = Bench(model_of("mixtral", torch.float32))
    real = type(bench.router).forward

    def twice(hidden: Tensor) -> Any:
        torch.nn.functional.linear(hidden.reshape(-1, hidden.shape[-1]), bench.router.weight)
        return real(bench.router, hidden)

    bench.router.forward = twice
    try:
        with pytest.raises(InterchangeError, match="2 products look like its scores"):
            bench.rerouted(bench.bias("bias"))
        assert not torch.equal(bench.rerouted(bench.bias("force"))[1], bench.base)  # forcing needs no logits
    finally:
        del bench.router.forward


@pytest.mark.slow
@pytest.mark.parametrize("family", [one for one in tiny.FAMILIES if one not in ("nllb_moe", "doge")])
def test_every_family_obeys(family: str) -> None:
    """Rerouting raises by itself where the choice is not as told. Families without a forced expert are named."""
    model = model_of(family, torch.float32)
    places = find_places(model)
    layer = [number for number, one in places.items() if one.experts is not None][-1]
    count = places[layer].experts.experts
    for bias in (torch.zeros(1, count), bias_for(count, bar=[0, 1, 2]), bias_for(count, bias={3: 1.0})):
        with rerouting(places, [Reroute(layer, bias)]):
            run(model)
    for expert in range(count):
        with rerouting(places, [Reroute(layer, bias_for(count, force=[expert]))]):
            if family in ("phimoe", "switch_transformers"):
                with pytest.raises(InterchangeError, match="did not do as told"):
                    run(model)
            else:
                run(model)
