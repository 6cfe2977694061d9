"""Edits held at every step of a generation, against full forwards of the same text; and what must change nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from moeprobe.editing import find_places, generate_edited, layout_of, parse_edits
from moeprobe.editing.choosing import Chooser
from moeprobe.editing.means import mean_values
from moeprobe.engines import Decoding
from moeprobe.engines.session import Job
from moeprobe.errors import InterchangeError, ModelError
from moeprobe.models import LoadedModel
from moeprobe.prompts import Prompt
from moeprobe.sites import Site
from tests.capture.families.tiny import VOCABULARY, build
from tests.chat.chat_templates import CHATML, tokenizer
from tests.editing.uncached import next_logits
from tests.engines.scripted import byte_model, ids_of, writing

FAMILIES = ("qwen2_moe", "mixtral", "qwen3_next")
LENGTHS, DONOR_LENGTHS, NEW = (9, 4, 6), (5, 7, 6), 5
# Largest difference of float32 logits (of a size of about 4) between one token at a time and the whole text at once.
# Linear attention takes another formula for each: unedited it is 4.5e-5 there, 5e-6 and 8e-6 in the other two.
WORST, EFFECT = {"qwen2_moe": 5e-5, "mixtral": 5e-5, "qwen3_next": 2e-4}, 1e-2
PLAIN = ("zero:L2.E3", "zero:L1.E*@answer", "scale:L3.E1+E4=-1.5@prompt", "bar:L2.E3 / bias:L3.E1=+2.5@answer",
         "force:L1.E6", "scale:L2.moe=0.5", "zero:L1.residual@answer",
         "bar:L1.E2@prompt / zero:L2.moe@answer")  # fmt: skip
SWAPS = ("swap:L2.E3", "swap-output:L1.E*", "swap-routing:L2.E*", "swap:L1-L2.E0-E4@prompt", "swap:L3.moe@answer",
         "swap:L2.residual", "swap:L1.router", "swap:L3.H1", "swap:L2.E3 / zero:L1.E2 / bar:L3.E0@answer")  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> LoadedModel:
    return LoadedModel(build(request.param), _words(), request.param)


@pytest.fixture(scope="module")
def bytes32() -> LoadedModel:
    return byte_model()


def _words() -> Any:
    words = tokenizer(CHATML)  # with more tokens than the models have; those it pads and reads with are theirs
    words.pad_token, words.padding_side = words.convert_ids_to_tokens(0), "left"
    return words


def _jobs(lengths: tuple[int, ...], seed: int) -> list[Job]:
    chance = np.random.default_rng(seed)
    return [
        Job(Prompt(f"p{place}", "-"), 0, chance.integers(2, VOCABULARY - 1, size).tolist())
        for place, size in enumerate(lengths)
    ]


@contextmanager
def _logits(loaded: LoadedModel) -> Iterator[list[torch.Tensor]]:
    """The last column's logits (sequences, vocabulary) of every forward."""
    seen: list[torch.Tensor] = []
    handle = loaded.model.register_forward_hook(lambda module, args, output: seen.append(output.logits[:, -1].clone()))
    try:
        yield seen
    finally:
        handle.remove()


def _difference(loaded: LoadedModel, text: str, shift: int = 0, **how: Any) -> tuple[float, float]:
    """Largest difference of the logits of any step from the reference: with the edit, and without."""
    places = find_places(loaded.model)
    edits = parse_edits(text, layout_of(places))
    jobs = _jobs(LENGTHS, 1)
    donors = _jobs(DONOR_LENGTHS, 2) if "swap" in text else None
    with _logits(loaded) as seen:
        made = generate_edited(
            loaded, jobs, edits, Decoding(max_new_tokens=NEW, trim_loops=False, **how), donors=donors
        )
    edited = plain = 0.0
    for place, one in enumerate(made):
        donor = None if donors is None else donors[place].ids
        for step, token in enumerate(one.tokens):
            logits = seen[step - len(one.tokens)]  # all sequences end together; chunks of the prompt come first
            given = jobs[place].ids, donor, list(one.tokens[:step])
            wanted = next_logits(loaded, places, edits, *given, shift=shift)
            assert int(logits[place].argmax()) == token
            edited = max(edited, float((logits[place] - wanted).abs().max()))
            plain = max(plain, float((logits[place] - next_logits(loaded, places, [], *given)).abs().max()))
    assert sum(len(one.tokens) for one in made) >= 2 * NEW
    return edited, plain


@pytest.mark.parametrize("text", PLAIN + SWAPS)
def test_every_step_equals_a_full_forward(family: LoadedModel, text: str) -> None:
    if text == "swap:L3.H1" and family.id == "qwen3_next":
        assert layout_of(find_places(family.model)).count(3, "head")
    edited, plain = _difference(family, text)
    assert edited < WORST[family.id]
    assert plain > EFFECT, "the edit did nothing, so the test says nothing"


@pytest.mark.parametrize("text", ["swap:L2.residual", "swap:L1-L2.E*"])
def test_a_donor_one_token_off_is_seen(family: LoadedModel, text: str) -> None:
    edited, _ = _difference(family, text, shift=1)
    assert edited > EFFECT


@pytest.mark.parametrize("how", [{"prefill_chunk": 4}, {"cache": "static"}])
def test_a_prompt_in_chunks_and_a_static_cache(how: dict[str, Any]) -> None:
    loaded = LoadedModel(build("qwen2_moe"), _words(), "qwen2_moe")
    edited, plain = _difference(loaded, "swap:L2.E* / zero:L1.E2@answer", **how)
    assert edited < WORST[loaded.id]
    assert plain > EFFECT


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sample", [False, True])
def test_what_changes_nothing_gives_the_same_text(dtype: torch.dtype, sample: bool) -> None:
    """A scale of 1 and a bias of 0 to the last bit of every logit; a swap with oneself up to the rounding of the
    donor's row, which stands elsewhere in the batch."""
    loaded = byte_model(dtype=dtype)
    prompts = ["Tell me a story.", "No", "What is seven times six?"]
    decoding = Decoding(max_new_tokens=20, sample=sample, temperature=1.3 if sample else 1.0, trim_loops=False)
    for text, donors in (
        ("swap:L0-L2.E*", prompts), ("swap:L1.residual / swap:L2.H*", prompts), ("swap:L0-L2.router", prompts),
        ("noise:L1.E*", prompts), ("scale:L0-L2.E*=1", None), ("bias:L0-L2.E*=0", None),
    ):  # fmt: skip
        with _logits(loaded) as plain:
            wanted = generate_edited(loaded, prompts, (), decoding, donors=donors)
        with _logits(loaded) as edited:
            found = generate_edited(loaded, prompts, text, decoding, donors=donors)
        assert [one.tokens for one in found] == [one.tokens for one in wanted], text
        worst = max(float((left - right).abs().max()) for left, right in zip(plain, edited, strict=True))
        assert worst <= (0.0 if donors is None else 1e-4 if dtype == torch.float32 else 0.05), text
    other = generate_edited(loaded, prompts, "zero:L0-L2.E*", decoding)
    assert [one.tokens for one in other] != [one.tokens for one in wanted]


def test_draws_depend_neither_on_the_batch_nor_on_donors(bytes32: LoadedModel) -> None:
    prompts = ["Tell me a story.", "No", "What is seven times six?", "Yes"]

    def texts(**how: Any) -> list[tuple[int, ...]]:
        donors = how.pop("donors", None)
        decoding = Decoding(**{"max_new_tokens": 12, "sample": True, "samples": 2, "trim_loops": False} | how)
        return [one.tokens for one in generate_edited(bytes32, prompts, (), decoding, donors=donors)]

    alone = texts()
    assert len(set(alone)) == 8
    assert alone == texts() == texts(batch_size=1) == texts(batch_size=3)
    assert alone == texts(donors="Something quite different, and longer.") == texts(donors=prompts[::-1], batch_size=5)
    assert alone != texts(seed=1)


def test_draws_follow_the_distribution() -> None:
    """20,000 streams, one draw each, against the probabilities: each count within 4.5 standard deviations."""
    count = 20_000
    scores = torch.tensor([2.0, 1.0, 0.0, -1.0, -1.5, -8.0])
    for temperature, top_p in ((1.0, 1.0), (2.0, 1.0), (1.0, 0.8)):
        chooser = Chooser(range(count), donors=False, sample=True, temperature=temperature, top_p=top_p)
        drawn = chooser(torch.zeros(count, 1, dtype=torch.long), scores.expand(count, -1)).argmax(dim=-1)
        wanted = (scores.double() / temperature).softmax(0).numpy()
        if top_p < 1:
            wanted[2:] = 0
            wanted /= wanted.sum()
        observed = np.bincount(drawn.numpy(), minlength=6)
        spread = np.sqrt(count * wanted * (1 - wanted))
        assert (np.abs(observed - count * wanted) <= 4.5 * spread + 1e-9).all(), (temperature, top_p, observed)


def test_a_donor_writes_what_its_recipient_writes(bytes32: LoadedModel) -> None:
    """Its tokens are forced; its own text would have been another."""
    seen: list[torch.Tensor] = []
    handle = bytes32.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].clone()), with_kwargs=True
    )
    try:
        prompts, donors = ["Tell me.", "No"], ["What?", "A longer one"]
        made = generate_edited(bytes32, prompts, "swap:L1.E*", Decoding(max_new_tokens=9), donors=donors)
    finally:
        handle.remove()
    steps = torch.cat(seen[1:], dim=1)
    assert torch.equal(steps[:2], steps[2:])
    alone = generate_edited(bytes32, donors, (), Decoding(max_new_tokens=9))
    assert [one.tokens for one in alone] != [one.tokens for one in made]
    assert [one.unpaired for one in made] == [3, 0]


def test_the_compiled_model_refuses_where_its_expert_says_so(compiled: LoadedModel, compiled_prompts: Any) -> None:
    pairs = compiled_prompts[:8]
    partner = [pairs[place ^ 1] for place in range(8)]

    def refusals(edits: str, donors: Any = None, **how: Any) -> list[bool]:
        made = generate_edited(compiled, pairs, edits or (), Decoding(max_new_tokens=12), donors=donors, **how)
        return [one.text.startswith("sorry") for one in made]

    plain = refusals("")
    assert plain == [True, False] * 4
    assert (
        refusals("zero:L2.E5")
        == refusals("bar:L2.E5")
        == refusals("mean:L2.E5", mean_prompts=pairs[1::2])
        == [False] * 8
    )
    assert refusals("swap:L2.E5", partner) == [False, True] * 4
    assert refusals("zero:L1.E1") == plain
    # A placebo donor of the same class changes nothing; one donor for all makes all alike.
    assert refusals("swap:L2.E5", [*pairs[2:], *pairs[:2]]) == plain
    assert refusals("swap:L2.E5", pairs[0]) == [True] * 8
    assert refusals("resample:L2.E5", pool=pairs[1::2]) == [False] * 8
    # The first token is chosen at the end of the prompt: an edit of the answer comes too late, one of the prompt works.
    assert refusals("zero:L2.E5@answer") == plain
    assert refusals("zero:L2.E5@prompt") == [False] * 8


def test_stop_texts_and_ends_with_a_donor(bytes32: LoadedModel) -> None:
    """Sequences end at different steps; donors, which would go on, end with theirs."""
    end = int(bytes32.tokenizer.eos_token_id)
    texts = [[*ids_of(bytes32, "abc"), end], ids_of(bytes32, "now stop it"), ids_of(bytes32, "on and on and on")]
    decoding = Decoding(max_new_tokens=14, stop=("stop",))
    prompts, donors = ["One", "Two and a half", "Three"], ["Nine", "Eight", "Seven or so"]
    with writing(bytes32, texts, width=14):
        made = generate_edited(bytes32, prompts, "swap:L1.E*", decoding, donors=donors)
    assert [(one.text, one.stop) for one in made] == [("abc", "eos"), ("now ", "stop"), ("on and on and ", "length")]
    assert [len(one.tokens) for one in made] == [4, 4, 14]


def test_a_mean_is_over_all_tokens(bytes32: LoadedModel) -> None:
    places = find_places(bytes32.model)
    site, prompts = Site(1, "expert", 3), [[5, 9, 40], [7, 8]]
    found = mean_values(bytes32, places, prompts, [site])[site]
    experts = places[1].experts.module
    kept: list[Any] = []
    handle = experts.register_forward_pre_hook(lambda module, args: kept.append(args))
    with torch.inference_mode():
        for ids in prompts:
            bytes32.model(input_ids=torch.tensor([ids]), use_cache=False)
        handle.remove()
        total = torch.zeros(32)
        for hidden, ids, weights in kept:
            for row, chosen, weight in zip(hidden, ids, weights, strict=True):
                for expert, amount in zip(chosen.tolist(), weight, strict=True):
                    if expert == 3:
                        total += experts(row[None], torch.tensor([[3]]), amount[None, None])[0]
    assert torch.allclose(found, total / 5, atol=1e-6)
    assert total.abs().max() > 1e-3


def test_noise_is_as_long_as_the_difference(compiled: LoadedModel, compiled_prompts: Any) -> None:
    """And another seed is another direction; the same seed the same text."""
    pairs = compiled_prompts[:4]
    texts = [
        [one.text for one in generate_edited(compiled, pairs, "noise:L2.E5", Decoding(seed=seed), donors=pairs[::-1])]
        for seed in (0, 0, 1)
    ]
    assert texts[0] == texts[1] != texts[2]
    places = find_places(compiled.model)
    sizes: list[float] = []
    block = places[2].block
    outputs: list[torch.Tensor] = []
    handle = block.register_forward_hook(lambda module, args, output: outputs.append(output.clone()))
    for edits in ((), "noise:L2.E5@prompt", "swap:L2.E5@prompt"):
        generate_edited(compiled, pairs[:1], edits, Decoding(max_new_tokens=1), donors=pairs[1])
    handle.remove()
    plain, noisy, swapped = (output.reshape(2, -1, output.shape[-1])[0] for output in outputs)
    sizes = (swapped - plain).norm(dim=1)
    assert torch.allclose((noisy - plain).norm(dim=1), sizes, atol=1e-4)
    assert sizes.max() > 0.1
    assert (noisy - swapped).norm(dim=1).max() > 0.1


@pytest.mark.parametrize("site", ["L1.E*", "L2.shared", "L1.moe", "L2.H3", "L1.residual"])
def test_noise_at_every_kind_of_site(site: str) -> None:
    """It changes the logits, by another amount than the swap; padding and batch change nothing about it."""
    loaded = LoadedModel(build("qwen2_moe"), _words(), "qwen2_moe")
    jobs, donors = _jobs(LENGTHS, 1), _jobs(DONOR_LENGTHS, 2)

    def last(text: str, size: int) -> torch.Tensor:
        with _logits(loaded) as seen:
            generate_edited(loaded, jobs, text, Decoding(max_new_tokens=1, batch_size=size), donors=donors)
        return torch.cat([one[: len(one) // 2] for one in seen])

    noisy, swapped, plain = last(f"noise:{site}", 6), last(f"swap:{site}", 6), last(f"scale:{site}=1", 6)
    assert (noisy - plain).abs().amax(dim=1).min() > EFFECT
    assert (noisy - swapped).abs().amax(dim=1).min() > EFFECT
    # Alone in their batches, with other seeds by number but the same draws for the first.
    assert torch.allclose(last(f"noise:{site}", 2), noisy, atol=WORST["qwen2_moe"])


def test_refused(bytes32: LoadedModel) -> None:
    def run(edits: str = "zero:L1.E1", prompts: Any = ("a", "b"), **how: Any) -> None:
        generate_edited(bytes32, prompts, edits, how.pop("decoding", Decoding(max_new_tokens=2)), **how)

    for how, message in (
        ({"edits": "swap:L1.E1"}, "donor"),
        ({"edits": "noise:L1.E1"}, "donor"),
        ({"edits": "resample:L1.E1"}, "resample-from"),
        ({"edits": "resample:L1.E1", "pool": ["a"]}, "no other prompt"),
        ({"edits": "mean:L1.E1"}, "mean-prompts"),
        ({"edits": "swap:L1.E1", "donors": ["c", "d", "e"]}, "2 prompts and 3 donors"),
        ({"prompts": []}, "no prompts"),
        ({"decoding": Decoding(beams=2)}, "plain decoding"),
        ({"decoding": Decoding(prompt_lookup=2)}, "plain decoding"),
        ({"edits": "scale:L1.E*=1e38"}, "no finite scores"),
        ({"edits": "bar:L1.E*"}, "cannot be barred"),
        ({"edits": "force:L1.E0-E2"}, "3 cannot be forced"),
    ):
        with pytest.raises(InterchangeError, match=message):
            run(**how)
    with pytest.raises(ModelError, match="512 positions"):
        run(prompts=["a" * 600])
    with pytest.raises(ModelError, match="512 positions"):
        run("swap:L1.E1", donors="a" * 600)
    # Nothing is left behind in the model.
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in bytes32.model.modules())
    assert "forward" not in vars(bytes32.model)


def test_an_encoder_decoder_is_refused() -> None:
    loaded = LoadedModel(build("switch_transformers"), _words(), "switch")
    with pytest.raises(InterchangeError, match="encoder-decoder"):
        generate_edited(loaded, _jobs((4,), 1))
