"""Each signal against a computation of its own, from the model's weights or a plain forward."""

import copy
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from moeprobe.capture import Recorder, Recording, find_experts
from moeprobe.capture.margin import margin
from moeprobe.capture.outputs import LogprobTap
from moeprobe.capture.router import block_of
from moeprobe.capture.signals import make_taps
from moeprobe.errors import CaptureError
from tests.capture.families.tiny import build
from tests.capture.tiny_qwen import places, prompts, tiny

IDS = torch.randint(1, 60, (3, 9), generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return tiny()


@pytest.fixture(scope="module")
def deepseek() -> PreTrainedModel:
    return build("deepseek_v3")


def record(model: PreTrainedModel, what: list[str], ids: torch.Tensor = IDS) -> Recording:
    taps = make_taps(model, find_experts(model), what)
    with torch.inference_mode(), Recorder(model, taps=taps) as recorder:
        model(input_ids=ids)
    return recorder.recording()


@contextmanager
def inputs_of(module: torch.nn.Module) -> Any:
    """What a module is called with, (rows, width) per call; by replacing its forward, not by a hook."""
    seen: list[torch.Tensor] = []
    original = module.forward

    def spy(hidden, *args, **kwargs):
        seen.append(hidden.reshape(-1, hidden.shape[-1]).clone())
        return original(hidden, *args, **kwargs)

    module.forward = spy
    try:
        yield seen
    finally:
        del module.forward


def block_inputs(model: PreTrainedModel, ids: torch.Tensor = IDS) -> dict[str, torch.Tensor]:
    """(rows, width) input of each layer's block, which router and experts read."""
    found = {}
    for site in find_experts(model):
        with torch.inference_mode(), inputs_of(block_of(model, site)) as seen:
            model(input_ids=ids)
        found[site.name] = seen[0]
    return found


def is_close(mine: np.ndarray, expected: torch.Tensor, tolerance: float = 2e-5) -> bool:
    return mine.shape == tuple(expected.shape) and np.allclose(
        mine, expected.float().numpy(), rtol=1e-7, atol=tolerance
    )


def close(mine: np.ndarray, expected: torch.Tensor, tolerance: float = 2e-5) -> None:
    assert mine.shape == tuple(expected.shape)
    np.testing.assert_allclose(mine, expected.float().numpy(), atol=tolerance)


def test_softmax_router(model: PreTrainedModel) -> None:
    recording = record(model, ["logits", "margin", "shared-gate", "router-input"])
    for name, hidden in block_inputs(model).items():
        block = block_of(model, next(site for site in find_experts(model) if site.name == name))
        logits = hidden @ block.gate.weight.detach().T
        close(recording.signals[f"{name}.logits"], logits)
        close(recording.signals[f"{name}.router_input"], hidden, 0)
        close(
            recording.signals[f"{name}.shared_gate"],
            (hidden @ block.shared_expert_gate.weight.detach().T)[:, 0].sigmoid(),
        )
        scores = logits.softmax(-1).sort(descending=True).values
        close(recording.signals[f"{name}.margin"], scores[:, 1] - scores[:, 2])
        # The checks bite: the neighbour's rows, the next gap.
        with pytest.raises(AssertionError):
            close(recording.signals[f"{name}.logits"], logits.roll(1, 0))
        with pytest.raises(AssertionError):
            close(recording.signals[f"{name}.margin"], scores[:, 2] - scores[:, 3])


def grouped(scores: torch.Tensor, groups: int, kept: int) -> torch.Tensor:
    """DeepSeek-V3's rule, token by token: only experts of the groups with the best sum of two may be chosen."""
    allowed = torch.full_like(scores, -torch.inf)
    size = scores.shape[1] // groups
    for token, row in enumerate(scores):
        sums = [sum(sorted(row[g * size : (g + 1) * size].tolist())[-2:]) for g in range(groups)]
        for g in sorted(range(groups), key=lambda g: -sums[g])[:kept]:
            allowed[token, g * size : (g + 1) * size] = row[g * size : (g + 1) * size]
    return allowed


def test_sigmoid_bias_and_groups(deepseek: PreTrainedModel) -> None:
    recording = record(deepseek, ["logits", "margin"])
    config = deepseek.config
    groups, kept = config.n_group, config.topk_group
    assert 1 <= kept < groups
    assert config.num_experts_per_tok == 2
    for name, hidden in block_inputs(deepseek).items():
        gate = block_of(deepseek, next(site for site in find_experts(deepseek) if site.name == name)).gate
        logits = hidden @ gate.weight.detach().T
        close(recording.signals[f"{name}.logits"], logits)
        assert gate.e_score_correction_bias.abs().sum() > 0
        scores = logits.sigmoid() + gate.e_score_correction_bias
        best = grouped(scores, groups, kept).sort(descending=True)
        assert (np.sort(recording.layers[name].experts) == best.indices[:, :2].sort().values.numpy()).all()
        close(recording.signals[f"{name}.margin"], best.values[:, 1] - best.values[:, 2])
        for wrong in (scores, grouped(logits.sigmoid(), groups, kept)):  # without groups, without bias
            other = wrong.sort(descending=True).values
            with pytest.raises(AssertionError):
                close(recording.signals[f"{name}.margin"], other[:, 1] - other[:, 2])


def test_sigmoid_bias_without_groups() -> None:
    glm = build("minimax_m2")
    recording = record(glm, ["margin"])
    for name, hidden in block_inputs(glm).items():
        block = block_of(glm, next(site for site in find_experts(glm) if site.name == name))
        scores = (hidden @ block.gate.weight.detach().T).sigmoid() + block.e_score_correction_bias
        best = scores.sort(descending=True).values
        assert is_close(recording.signals[f"{name}.margin"], best[:, 1] - best[:, 2])


def test_probabilities_are_called_so() -> None:
    gemma = build("gemma4")
    recording = record(gemma, ["logits", "margin:1"])
    assert "L1.probabilities" in recording.signals
    assert "L1.logits" not in recording.signals
    probabilities = recording.signals["L1.probabilities"]
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    best = -np.sort(-probabilities, axis=1)
    np.testing.assert_allclose(recording.signals["L1.margin"], best[:, 1] - best[:, 2], atol=1e-6)
    router = block_of(gemma, next(site for site in find_experts(gemma) if site.name == "L1")).router
    with torch.inference_mode(), inputs_of(router) as seen:
        gemma(input_ids=IDS)
        close(probabilities, router(seen[0])[0])


@pytest.mark.parametrize("family", ["llama4", "switch_transformers"])
def test_the_adapters_own_selection_is_no_choice_of_the_model(family: str) -> None:
    """Both adapters call top-k or argmax themselves: their margins would be the score itself, or 1."""
    model = build(family)
    seq2seq = family == "switch_transformers"
    taps = make_taps(model, find_experts(model), ["margin", "logits"])
    with torch.inference_mode(), Recorder(model, taps=taps) as recorder:
        model(input_ids=IDS, **({"decoder_input_ids": IDS} if seq2seq else {}))
    recording = recorder.recording()
    for name, layer in recording.layers.items():
        scores = torch.from_numpy(recording.signals[f"{name}.logits"]).float()
        scores = scores.softmax(-1) if seq2seq else scores
        best, k = scores.sort(descending=True).values, layer.experts.shape[1]
        assert is_close(recording.signals[f"{name}.margin"], best[:, k - 1] - best[:, k])


@pytest.mark.parametrize("family", ["doge", "phimoe"])
def test_a_choice_that_cannot_be_seen_is_said(family: str) -> None:
    with pytest.raises(CaptureError, match="no top-k was seen in its block, so margins cannot be recorded"):
        record(build(family), ["margin"])


def test_margin_by_hand() -> None:
    inf = float("inf")
    scores = torch.tensor([[0.9, 0.5, 0.3], [0.9, 0.5, 0.5], [0.9, 0.5, -inf]])
    gap, sensitive = margin(scores, 2, None, 0.0)
    assert gap[:2].tolist() == pytest.approx([0.2, 0])
    assert gap[2].isnan()
    assert sensitive.tolist() == [False, False, False]
    nothing, flags = margin(scores[:, :2], 2, None, 1.0)
    assert nothing.isnan().all()
    assert not flags.any()


def test_one_rounding_step_by_hand() -> None:
    """Scores are the logits: two of them may each move by eps times the largest, 100; the gap of 1.5 to 2."""
    logits = torch.tensor([[100.0, 12.0, 10.5], [100.0, 12.0, 9.5], [3.0, 12.0, 10.5]])
    assert margin(logits, 2, logits, 0.01)[1].tolist() == [True, False, False]
    # Sigmoid scores: the slope is at most 1/4, also where a bias of 15 stands on top.
    scores = torch.tensor([[0.9, 0.50, 0.46]])
    near, far = torch.tensor([[4.0, 0.0, -0.2]]), torch.tensor([[1.0, 0.0, -0.2]])
    for bias in (0, 15):
        assert margin(scores + bias, 2, near, 0.03)[1].tolist() == [True]
        assert margin(scores + bias, 2, far, 0.03)[1].tolist() == [False]
    # Of a small probability a logit moves little.
    small = torch.tensor([[0.99, 2e-4, 1.7e-4]])
    assert margin(small, 2, near, 0.03)[1].tolist() == [True]
    assert margin(small, 2, near, 0.001)[1].tolist() == [False]


@pytest.mark.parametrize("family", ["qwen2_moe", "deepseek_v3", "mixtral", "glm4_moe"])
def test_flips_by_rounding_are_flagged(family: str) -> None:
    """bfloat16 against float32 with the same weights. Only flips count that no earlier flip in the sequence can have
    caused. Measured here: 87 to 94 % of them flagged; 0.07 to 0.15 % of all choices flip unflagged; 6 % are flagged."""
    low = build(family).bfloat16()
    high = copy.deepcopy(low).float()
    ids = torch.randint(1, 90, (128, 8), generator=torch.Generator().manual_seed(8))
    one, other = (record(model, ["margin"], ids) for model in (low, high))
    before = np.zeros((128, 8), bool)
    flips, flagged, unflagged, sensitive = 0, 0, 0, []
    for name in one.layers:
        experts = [np.sort(run.layers[name].experts, axis=1) for run in (one, other)]
        flipped = (experts[0] != experts[1]).any(1).reshape(128, 8)
        own = flipped & ~np.maximum.accumulate(before, axis=1)
        before |= flipped
        flag = one.signals[f"{name}.gate_sensitive"].reshape(128, 8)
        flips, flagged = flips + own.sum(), flagged + (own & flag).sum()
        unflagged, sensitive = unflagged + (own & ~flag).sum(), [*sensitive, flag.mean()]
    assert flips > 20
    assert flagged / flips > 0.8
    assert unflagged / (before.size * len(sensitive)) < 0.002
    assert np.mean(sensitive) < 0.08


def test_norms_by_hand(model: PreTrainedModel) -> None:
    recording = record(model, ["norms"])
    for name, hidden in block_inputs(model).items():
        experts = find_experts(model)[int(name[1:])].module
        both = torch.einsum("td,eid->tei", hidden, experts.gate_up_proj.detach())
        gate, up = both.chunk(2, -1)
        outputs = torch.einsum("tei,edi->ted", torch.nn.functional.silu(gate) * up, experts.down_proj.detach())
        ids = torch.from_numpy(recording.layers[name].experts)
        close(recording.signals[f"{name}.norms"], outputs.norm(dim=-1).gather(1, ids), 1e-4)
        with pytest.raises(AssertionError):
            close(recording.signals[f"{name}.norms"], outputs.norm(dim=-1).gather(1, ids.flip(1)), 1e-4)


def test_norms_are_not_seen_by_another_recorder(model: PreTrainedModel) -> None:
    """Nor do hooks and wrappers of others see the calls that measure them."""
    taps, calls = make_taps(model, find_experts(model), ["norms"]), []
    handle = find_experts(model)[0].module.register_forward_hook(lambda *_: calls.append(1))
    with torch.inference_mode(), Recorder(model) as outer, Recorder(model, taps=taps) as inner:
        model(input_ids=IDS)
    handle.remove()
    assert len(calls) == 1
    alone = record(model, ["norms"])
    for name, layer in outer.recording().layers.items():
        assert (layer.experts == alone.layers[name].experts).all()
        close(inner.recording().signals[f"{name}.norms"], torch.from_numpy(alone.signals[f"{name}.norms"]), 0)


@pytest.mark.parametrize("family", ["qwen2_moe", "deepseek_v3"])
def test_residual_is_the_hidden_state(family: str) -> None:
    """output_hidden_states gives the embeddings first and the last layer after its norm."""
    model = build(family)
    recording = record(model, ["residual:0,2", "residual:1"])
    with torch.inference_mode():
        states = model(input_ids=IDS, output_hidden_states=True).hidden_states
    for layer in (0, 1, 2):
        close(recording.signals[f"residual.L{layer}"], states[layer + 1].flatten(0, 1), 0)
    assert (recording.signals["residual.L0"] != recording.signals["residual.L1"]).any()


def test_residual_of_a_block_in_a_block() -> None:
    """switch_transformers: decoder.block.2.layer.2.mlp.experts is layer 2, whatever its sub-layer's number."""
    model = build("switch_transformers")
    sites = [site for site in find_experts(model) if site.stack == "" and site.layer == 2]
    assert sites[0].path == "decoder.block.2.layer.2.mlp.experts"
    taps = make_taps(model, sites, ["residual:3", "residual:0"])
    with torch.inference_mode(), Recorder(model, sites, taps) as recorder:
        model(input_ids=IDS, decoder_input_ids=IDS)
        states = model(input_ids=IDS, decoder_input_ids=IDS, output_hidden_states=True).decoder_hidden_states
    signals = recorder.recording().signals
    close(signals["residual.L0"][: IDS.numel()], states[1].flatten(0, 1), 1e-6)
    # The last state has passed the last norm and nothing else.
    last = torch.from_numpy(signals["residual.L3"][: IDS.numel()])
    close(model.decoder.final_layer_norm(last).detach().numpy(), states[-1].flatten(0, 1))


OUTPUTS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True, "top_k": 0, "temperature": 1.7},
    "static": {"do_sample": False, "cache_implementation": "static", "disable_compile": True},
    "chunks": {"do_sample": False, "prefill_chunk_size": 3},
    "one token": {"do_sample": False, "max_new_tokens": 1},
    "lookup": {"do_sample": False, "prompt_lookup_num_tokens": 3},
    "lookup, sampling": {"do_sample": True, "top_k": 0, "prompt_lookup_num_tokens": 3},
    "assisted": {"do_sample": False, "assistant": True},
}


@pytest.mark.parametrize("way", OUTPUTS)
def test_entropy_and_logprob(model: PreTrainedModel, way: str) -> None:
    how = {"max_new_tokens": 30} | OUTPUTS[way]
    ids, mask = prompts(6, 4)
    if "lookup" in way or how.pop("assistant", False):
        ids = ids[:1, -4:].repeat(1, 3)
        mask = torch.ones_like(ids)
    if way == "assisted":
        how["assistant_model"] = copy.deepcopy(model)
        with torch.no_grad():
            how["assistant_model"].lm_head.weight += 0.4 * torch.randn(
                64, 32, generator=torch.Generator().manual_seed(1)
            )
    torch.manual_seed(0)
    taps = make_taps(model, find_experts(model), ["entropy", "logprob"])
    with torch.inference_mode(), Recorder(model, taps=taps) as recorder:
        tokens = model.generate(ids, attention_mask=mask, **how)
        next(tap for tap in taps if isinstance(tap, LogprobTap)).finish(tokens.numpy())
    recording = recorder.recording()
    grid, width, real = recording.stacks[""].grid, ids.shape[1], places(tokens.numpy(), mask)
    recording.check("", tokens.numpy(), real)
    for place in range(len(ids)):
        row = tokens[place : place + 1, width - int(mask[place].sum()) :]
        with torch.inference_mode():
            logs = model(row).logits[0].float().log_softmax(-1)[int(mask[place].sum()) - 1 : -1]
        expected = logs.gather(-1, tokens[place, width:, None])[:, 0]
        mine = grid[place, width - 1 : tokens.shape[1] - 1]
        # From the row of the last prompt token, which chose the first new one, to the last but one token.
        assert len(expected) == how["max_new_tokens"]
        close(recording.signals["logprob"][mine], expected, 2e-4)
        close(recording.signals["entropy"][mine], torch.distributions.Categorical(logits=logs).entropy(), 2e-4)
        if len(expected) > 1:
            with pytest.raises(AssertionError):
                close(recording.signals["logprob"][mine], expected.roll(1), 2e-4)
    if "lookup" in way or way == "assisted":
        assert len(recording.stacks[""].rows.token) > tokens.shape[1], "some drafts were rejected"


def test_without_a_finish_the_last_row_is_unknown(model: PreTrainedModel) -> None:
    recording = record(model, ["logprob"])
    values = recording.signals["logprob"].reshape(IDS.shape)
    with torch.inference_mode():
        logs = model(IDS).logits.log_softmax(-1)[:, :-1].gather(-1, IDS[:, 1:, None])[..., 0]
    close(values[:, :-1], logs)
    assert np.isnan(values[:, -1]).all()


EVERYTHING = ["logits", "margin", "router-input", "norms", "residual:1", "entropy", "logprob"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["qwen2_moe", "deepseek_v3", "gemma4", "gpt_oss"])
def test_logits_are_bitwise_equal_with_every_tap(family: str, dtype: torch.dtype) -> None:
    model = build(family).to(dtype)
    what = [*EVERYTHING, *(["shared-gate"] if family == "qwen2_moe" else [])]
    taps = make_taps(model, find_experts(model), what)
    with torch.inference_mode():
        plain = model(IDS).logits
        text = model.generate(IDS, max_new_tokens=8, do_sample=False)
        with Recorder(model, taps=taps) as recorder:
            assert torch.equal(model(IDS).logits, plain)
            recorder.clear()
            assert torch.equal(model.generate(IDS, max_new_tokens=8, do_sample=False), text)
    assert {len(values) for values in recorder.recording().signals.values()} == {3 * 16}


def test_a_tap_that_writes_into_the_model_is_seen(model: PreTrainedModel) -> None:
    """The bitwise check bites on a hook that changes the last bit."""
    handle = find_experts(model)[1].module.register_forward_pre_hook(lambda m, args: (args[0] * (1 + 1e-7), *args[1:]))
    with torch.inference_mode():
        changed = model(IDS).logits
        handle.remove()
        assert not torch.equal(model(IDS).logits, changed)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("logit", "'logit' is nothing that can be recorded. Did you mean 'logits'"),
        ("margin:7", "'margin:7': L7 is no recorded layer of experts. Recorded: L0, L1, L2"),
        ("logits:x", "'logits:x' needs layer numbers after the colon, for example logits:14,20"),
        ("logits:1,", "needs layer numbers"),
        ("residual", "needs layer numbers after the colon, for example residual:14,20"),
        ("residual:3", "residual:3: the model has 3 layers, counted from 0"),
        ("entropy:1", "'entropy:1' is nothing that can be recorded. Did you mean 'entropy'"),
        ("experts:1", "'experts:1' is nothing that can be recorded. Did you mean 'experts'"),
        ("", "'' is nothing that can be recorded"),
    ],
)
def test_wrong_names_are_explained(model: PreTrainedModel, what: str, message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        make_taps(model, find_experts(model), [what])


def test_a_signal_that_is_not_there(deepseek: PreTrainedModel) -> None:
    with pytest.raises(CaptureError, match="The model has no shared-gate in the recorded layers"):
        make_taps(deepseek, find_experts(deepseek), ["shared-gate"])


def test_one_signal_asked_for_twice_is_recorded_once(model: PreTrainedModel) -> None:
    recording = record(model, ["logits", "logits:1", "experts", "residual:1", "residual:0,1"])
    assert sorted(recording.signals) == ["L0.logits", "L1.logits", "L2.logits", "residual.L0", "residual.L1"]
