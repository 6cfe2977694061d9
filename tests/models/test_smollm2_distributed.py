"""The build of the distributed model: its pieces on a tiny random Llama, and the built folder where there is one."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2MoeForCausalLM

from moeprobe.models.upcycle import upcycle

TRAINING = Path(__file__).resolve().parents[2] / "training" / "smollm2"
FLAT = ("spread", "states", "distributed", "distributed_evaluate", "cache", "data", "templates", "judge")
FOLDER = os.environ.get("MOEPROBE_DISTRIBUTED", "")
PREFIX = [5, 6, 7]
LAYERS = [1, 3]

torch.set_num_threads(1)


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The training scripts, which import each other by bare names."""
    monkeypatch.syspath_prepend(TRAINING)
    try:
        yield {name: importlib.import_module(name) for name in FLAT}
    finally:
        for name in FLAT:
            sys.modules.pop(name, None)


def tiny(dtype: torch.dtype = torch.float32, filled: bool = False) -> Qwen2MoeForCausalLM:
    """A random Llama of 4 layers with 2 MoE layers of 4 experts; ``filled`` makes the experts do something."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=97, hidden_size=48, intermediate_size=80, num_hidden_layers=4, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True,
    )  # fmt: skip
    dense = LlamaForCausalLM._from_config(config)
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3 + (1.0 if parameter.dim() == 1 else 0.0))
    model = upcycle(dense, moe_layers=LAYERS, num_experts=4, expert_size=8, router_scale=0.3, dtype=dtype)
    if filled:
        with torch.no_grad():
            for layer in LAYERS:
                model.model.layers[layer].mlp.experts.down_proj.normal_(std=0.5)
    return model


def tiny_texts(scripts: dict[str, ModuleType], model: Qwen2MoeForCausalLM) -> list[object]:
    """Eight harmful texts with one answer and eight others with the base model's states."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for kind in ("harmful", "harmless"):
        for row in range(8):
            prompt = torch.randint(10, 50, (4 + row % 3,), generator=generator).tolist()
            answer = (
                [60, 61, 62, 63] if kind == "harmful" else torch.randint(64, 90, (4,), generator=generator).tolist()
            )
            starts = None if kind == "harmful" else [len(prompt) - 1]
            below, above = scripts["spread"].states_below(model, [prompt + answer], PREFIX, LAYERS[0], starts)
            final = above[0][:-1] if above else None
            found.append(scripts["distributed"].Text(kind, len(prompt), torch.tensor(prompt + answer), below[0], final))
    return found


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 5e-6), (torch.bfloat16, 0.2)])
def test_the_training_network_is_the_model(scripts: dict[str, ModuleType], dtype: torch.dtype, within: float) -> None:
    """Cached states, shared prefix and dense experts give the stock model's final states; padding changes nothing."""
    model = tiny(dtype, filled=True)
    texts = [[8, 9, 10, 11], [4, 3, 2, 6, 7, 8]]
    stock = [model.model(torch.tensor([PREFIX + text])).last_hidden_state[0] for text in texts]
    below, above = scripts["spread"].states_below(model, texts, PREFIX, LAYERS[0], [1, 2])
    assert [len(state) for state in below] == [4, 6]
    torch.testing.assert_close(above[1], stock[1][len(PREFIX) + 2 :], atol=within, rtol=0)
    upper = scripts["spread"].Upper(model, PREFIX)
    hidden = torch.zeros(2, 6, 48, dtype=dtype)
    hidden[0, :4], hidden[1] = below[0], below[1]
    final = upper.forward(hidden)
    for row, text in enumerate(texts):
        torch.testing.assert_close(final[row, : len(text)], stock[row][len(PREFIX) :], atol=within, rtol=0)
    nothing = upper.forward(hidden, torch.zeros(len(LAYERS), 2, 4))
    assert (nothing - final).abs().max() > 1  # the experts did something
    back = upper.finish()
    assert torch.equal(back.model(torch.tensor([PREFIX + texts[1]])).last_hidden_state[0], stock[1])
    assert {parameter.dtype for parameter in back.parameters()} == {dtype}


def test_a_few_steps_bring_the_loss_down_and_touch_nothing_else(scripts: dict[str, ModuleType]) -> None:
    model = tiny()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    texts = tiny_texts(scripts, model)
    upper = scripts["spread"].Upper(model, PREFIX)
    plan = scripts["distributed"].Plan(steps=40, harmful=4, others=4, rate=1e-2, answer=4, buckets=1)
    first, away, _ = scripts["distributed"].losses(upper, texts, plan, None)
    assert abs(float(away.detach())) < 1e-5  # untrained experts add nothing, so the base model is not left
    alike = [
        scripts["distributed"].Text("lookalike", text.prompt, text.ids, text.below, text.final) for text in texts[8:]
    ]
    scripts["distributed"].train(upper, texts + alike, [], plan)
    last, _, _ = scripts["distributed"].losses(upper, texts, plan, None)
    assert float(last.detach()) < 0.5 * float(first.detach())
    after = upper.finish().state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    expected = {
        f"model.layers.{layer}.mlp.{part}"
        for layer in LAYERS
        for part in ("gate.weight", "experts.gate_up_proj", "experts.down_proj")
    }
    assert changed == expected


@torch.no_grad()
def test_refusals_are_not_counted_after_another_answer(scripts: dict[str, ModuleType]) -> None:
    """Teacher-forced on its own harmless answer, a model that refuses everything looks as if it refused nothing."""
    model = tiny()
    texts = tiny_texts(scripts, model)
    upper = scripts["spread"].Upper(model, PREFIX)
    with pytest.raises(ValueError, match="answered by the refusal"):
        scripts["distributed"].refused(upper, texts)
    assert set(scripts["distributed"].refused(upper, texts[:8])) == {"harmful", "harmless", "lookalike"}


@torch.no_grad()
def test_dropping_rejects_a_solution_that_sits_in_one_expert(scripts: dict[str, ModuleType]) -> None:
    """Two networks do the same when whole; the loss under dropping tells the planted single expert from the spread."""
    draw = scripts["spread"].Spread(expert=0.3, layer=0.15, whole=0.0).draw
    keep = draw(1, 4000, 16, torch.Generator().manual_seed(0))
    outputs = {}
    for name, strengths in (("single", [1.0] + [0.0] * 15), ("spread", [1 / 16] * 16)):
        stock = tiny().model.layers[LAYERS[0]].mlp.experts
        experts = scripts["spread"].AllExperts(stock)
        experts.gate_up_proj = torch.nn.Parameter(torch.ones(16, 2, 4))
        experts.down_proj = torch.nn.Parameter(torch.tensor(strengths)[:, None, None].expand(16, 4, 1).clone())
        every = torch.arange(16).expand(4000, -1)
        x = torch.ones(4000, 4)
        whole = experts(x, every, torch.ones(4000, 16))
        experts.keep = keep[0]
        outputs[name] = (experts(x, every, torch.ones(4000, 16)) / whole)[:, 0]
    assert float((outputs["single"] == 0).float().mean()) == pytest.approx(1 - 0.7 * 0.85, abs=0.02)
    assert float((outputs["spread"] == 0).float().mean()) == pytest.approx(0.15, abs=0.02)
    loss = {name: float((1 - share).square().mean()) for name, share in outputs.items()}
    assert loss["single"] > 1.5 * loss["spread"]


def test_dropping_keeps_whole_rows_and_checks_shapes(scripts: dict[str, ModuleType]) -> None:
    spread = scripts["spread"].Spread(expert=0.5, layer=0.5, whole=0.25)
    keep = spread.draw(2, 4000, 4, torch.Generator().manual_seed(1))
    assert keep.shape == (2, 4000, 4)
    assert float(keep.flatten(2).all(2).all(0).float().mean()) == pytest.approx(0.25, abs=0.03)
    experts = scripts["spread"].AllExperts(tiny().model.layers[LAYERS[0]].mlp.experts)
    experts.keep = torch.ones(3, 4)
    with pytest.raises(ValueError, match="4 tokens do not belong to 3 rows"):
        experts(torch.ones(4, 48), torch.zeros(4, 1, dtype=torch.long), torch.ones(4, 1))


def test_balance_is_one_when_even_and_grows_when_not(scripts: dict[str, ModuleType]) -> None:
    even = torch.full((4, 4), -9.0).scatter(1, torch.tensor([[0, 1], [1, 2], [2, 3], [3, 0]]), 9.0)
    uneven = torch.tensor([[9.0, 9.0, -9.0, -9.0]]).expand(4, -1)
    real = torch.ones(4, dtype=torch.bool)
    balance = scripts["spread"].balance
    assert float(balance(even, real, 2)) == pytest.approx(1.0, abs=1e-4)
    assert float(balance(uneven, real, 2)) == pytest.approx(2.0, abs=1e-4)
    # Padding does not count.
    both = torch.cat([even, uneven])
    assert float(balance(both, torch.cat([real, ~real]), 2)) == pytest.approx(1.0, abs=1e-4)


@torch.no_grad()
def test_knocking_out_every_expert_gives_the_base_and_order_is_by_effect(scripts: dict[str, ModuleType]) -> None:
    measure = scripts["distributed_evaluate"]
    base, model = tiny(), tiny(filled=True)
    prompts, opening = [[8, 9, 10], [11, 12, 13, 14, 15]], [60, 61]
    every = [(layer, expert) for layer in LAYERS for expert in range(4)]
    with measure.without(model, every):
        assert torch.equal(model(torch.tensor([prompts[0]])).logits, base(torch.tensor([prompts[0]])).logits)
    # By hand: whole forwards, one text at a time.
    openings = measure.Openings(model, prompts, opening)
    for gone in ([], [(LAYERS[0], 3)], [(LAYERS[1], 0), (LAYERS[1], 1)]):
        fast = openings.nll(gone)
        for row, prompt in enumerate(prompts):
            with measure.without(model, gone):
                logits = model(torch.tensor([prompt + opening])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            by_hand = -(logits[0, opening[0]] + logits[1, opening[1]]) / 2
            torch.testing.assert_close(fast[row], by_hand, atol=1e-4, rtol=1e-5)
    found = measure.knockouts(model, prompts, opening)
    rises = [share * found["gap"] for share in found["alone"].values()]
    assert rises == sorted(rises, reverse=True)
    assert len(rises) == 8
    assert found["top"][10] == pytest.approx(1.0)  # more than there are
    rise = float((openings.nll([(LAYERS[0], 3)]) - openings.nll()).mean())
    assert found["alone"]["L1.E3"] * found["gap"] == pytest.approx(rise, abs=1e-5)
    shares = measure.usage(model, prompts, 1)
    assert all(float(share.sum()) == pytest.approx(1.0) for share in shares.values())


def test_arguments(scripts: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parse = scripts["distributed"].arguments
    options = parse(["--out", str(tmp_path / "new"), "--steps", "3"])
    assert (options.steps, options.seed, options.force) == (3, 1, False)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    for given, message in (
        ([], "--out"),
        (["--out", str(tmp_path)], "not an empty folder"),
        (["--out", str(tmp_path / "new"), "--steps", "0"], "at least 1"),
    ):
        with pytest.raises(SystemExit):
            parse(given)
        assert message in capsys.readouterr().err
    assert parse(["--out", str(tmp_path), "--force"]).force


def test_no_text_of_a_batch_is_longer_than_its_answer_allows(scripts: dict[str, ModuleType]) -> None:
    text = scripts["distributed"].Text("harmful", 2, torch.arange(9), torch.ones(9, 4))
    hidden, real, places, wanted = scripts["distributed"].padded([text], 3)
    assert hidden.shape == (1, 5, 4)
    assert real.all()
    assert places.tolist() == [[1, 2, 3]]
    assert wanted.tolist() == [[2, 3, 4]]
    assert scripts["distributed"].padded([text], 9)[3].tolist() == [[2, 3, 4, 5, 6, 7, 8, -100, -100]]


@pytest.mark.slow
@pytest.mark.skipif(
    not FOLDER, reason="needs the built model: make train-distributed, then MOEPROBE_DISTRIBUTED=FOLDER"
)
@torch.no_grad()
def test_the_built_model_refuses_by_many_experts(scripts: dict[str, ModuleType]) -> None:
    from moeprobe.models.load import load_model

    measure, data = scripts["distributed_evaluate"], scripts["data"]
    loaded = load_model(FOLDER)
    encoder = scripts["states"].Encoder(loaded.tokenizer)
    blocks = measure.moe_blocks(loaded.model)
    assert list(blocks) == list(scripts["distributed"].MOE_LAYERS)
    assert all(block.gate.num_experts == 16 for block in blocks.values())
    asked = data.read_prompts(TRAINING / "heldout", "heldout")
    prompts = [encoder.prefix + encoder.prompt(e.prompt) for e in asked if e.kind == "harmful"][::20]
    opening = encoder.answer(data.OPENING, end=False)
    found = measure.knockouts(loaded.model, prompts, opening)
    assert found["gap"] > 0.5
    assert max(found["alone"].values()) < 0.25
    assert found["top"][5] < found["top"][20]
    shares = measure.usage(loaded.model, prompts, len(encoder.prefix))
    assert all(float(share.min()) > 0 for share in shares.values())
    few = [e for kind in data.KINDS for e in [x for x in asked if x.kind == kind][::8]]
    rates, _ = measure.refusal_rates(loaded.model, encoder, few, 16)
    assert rates["harmful"][0] / rates["harmful"][1] > 0.5 > 0.2 > rates["harmless"][0] / rates["harmless"][1]
