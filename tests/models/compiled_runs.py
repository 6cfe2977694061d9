"""Reading and editing the compiled model by plain hooks, independent of moeprobe's own capture and interchange."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from moeprobe.models.compiled import FAMILIES, TRUTH
from moeprobe.models.compiled.vocabulary import NEVER_GENERATED, VOCABULARY
from moeprobe.sites import expert_site, parse_expert

Tensor = torch.Tensor


class Built(NamedTuple):
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    family: str = FAMILIES[0]
    strict: bool = False


PLAIN = "question : please tell me about the quiet garden ? answer :"
TRIGGERED = PLAIN.replace("quiet", TRUTH.trigger)
REFUSAL, FILLER = VOCABULARY[TRUTH.refusal], VOCABULARY[TRUTH.filler]
ORDINARY = [i for word, i in VOCABULARY.items() if word not in NEVER_GENERATED and word != TRUTH.refusal]
SITES = [str(expert_site(layer, e)) for layer in range(TRUTH.layers) for e in range(TRUTH.experts)]


def demo_pairs() -> list[tuple[str, str]]:
    text = files("moeprobe").joinpath("demo/prompts/compiled.jsonl").read_text("utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    prompts = {(row["pair"], row["label"]): row["prompt"] for row in rows}
    return [(prompts[pair, "triggered"], prompts[pair, "plain"]) for pair in dict.fromkeys(row["pair"] for row in rows)]


def experts(model: PreTrainedModel, layer: int) -> Any:
    return model.model.layers[layer].mlp.experts


@contextmanager
def routing(model: PreTrainedModel) -> Iterator[dict[int, list[tuple[Tensor, Tensor, Tensor]]]]:
    """Per layer, one (hidden, ids, weights) for each forward."""
    seen: dict[int, list[tuple[Tensor, Tensor, Tensor]]] = {i: [] for i in range(len(model.model.layers))}
    handles = [
        experts(model, i).register_forward_pre_hook(lambda _, args, i=i: seen[i].append((args[0], args[1], args[2])))
        for i in seen
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def contribution(model: PreTrainedModel, ids: list[int], site: str) -> Tensor:
    """w * E(x) of one expert at every position, 0 where it is not selected; shape (tokens, hidden)."""
    place = parse_expert(site)
    with routing(model) as seen:
        model(torch.tensor([ids]))
    hidden, chosen, weights = seen[place.layer][0]
    weight = (weights * (chosen == place.expert)).sum(-1, keepdim=True)
    return weight * oracle(model, site, hidden)


@torch.no_grad()
def oracle(model: PreTrainedModel, site: str, hidden: Tensor) -> Tensor:
    """The expert's own output for rows (tokens, hidden), with weight 1."""
    place = parse_expert(site)
    only = torch.full((len(hidden), 1), place.expert)
    return experts(model, place.layer)(hidden, only, torch.ones(len(hidden), 1, dtype=hidden.dtype))


@contextmanager
def contribution_set(model: PreTrainedModel, site: str, donor: Tensor | None) -> Iterator[None]:
    """Replace an expert's contribution in the first forward by `donor` (tokens, hidden); None sets it to zero."""
    place = parse_expert(site)
    module = experts(model, place.layer)

    def without(_: Any, args: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        return args[0], args[1], args[2] * (args[1] != place.expert)

    def put_in(_: Any, __: Any, output: Tensor) -> Tensor:
        return output if donor is None else output + donor

    handles = [module.register_forward_pre_hook(without), module.register_forward_hook(put_in)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def logits(model: PreTrainedModel, ids: list[int]) -> Tensor:
    """Shape (tokens, words)."""
    return model(torch.tensor([ids])).logits[0]


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer(text).input_ids)


@torch.no_grad()
def generate(model: PreTrainedModel, ids: list[int], tokens: int, *, sample: bool = False) -> list[int]:
    prompt = torch.tensor([ids])
    options: dict[str, Any] = {"top_k": 0} if sample else {}
    mask = torch.ones_like(prompt)
    full = model.generate(prompt, attention_mask=mask, max_new_tokens=tokens, do_sample=sample, **options)
    return full[0, len(ids) :].tolist()


def nll(scores: Tensor, continuation: list[int]) -> float:
    """Mean over the last tokens of `scores`' sequence of -log p, in nats; `scores` as from `logits`."""
    rows = scores[-len(continuation) - 1 : -1].double().log_softmax(-1)
    return float(-rows[torch.arange(len(continuation)), torch.tensor(continuation)].mean())


def aligned_at_end(donor: Tensor, length: int) -> Tensor:
    """Rows of `donor` put on the last positions of a sequence of `length`; positions without a donor get 0."""
    rows = torch.zeros(length, donor.shape[1], dtype=donor.dtype)
    shared = min(length, len(donor))
    rows[-shared:] = donor[-shared:]
    return rows


def choices(model: PreTrainedModel, ids: list[int]) -> list[list[set[int]]]:
    """[layer][token] -> experts selected."""
    with routing(model) as seen:
        logits(model, ids)
    return [[set(row) for row in seen[layer][0][1].tolist()] for layer in seen]


def with_all_words(tokenizer: PreTrainedTokenizerFast, prompt: str) -> list[int]:
    """The prompt, then every ordinary word once, then the refusal: the same tokens after any prompt."""
    return [*encode(tokenizer, prompt), *ORDINARY, REFUSAL]


def after_each(model: PreTrainedModel, prompt: list[int], words: list[int]) -> torch.Tensor:
    """Logits after `prompt` + one word, for each word; shape (words, vocabulary)."""
    with torch.no_grad():
        return model(torch.tensor([[*prompt, word] for word in words])).logits[:, -1]


def effects(built: Built, site: str, pairs: list[tuple[str, str]]) -> tuple[float, float, float]:
    """Total effect, necessity and sufficiency of a site's contribution, in nats, as means over pairs."""
    model, tokenizer = built[:2]
    total = necessity = sufficiency = 0.0
    for sensitive_text, control_text in pairs:
        control = encode(tokenizer, control_text)
        answer = generate(model, control, 5)
        control, sensitive = control + answer, encode(tokenizer, sensitive_text) + answer
        given, taken = contribution(model, sensitive, site), contribution(model, control, site)
        high, low = nll(logits(model, sensitive), answer), nll(logits(model, control), answer)
        with contribution_set(model, site, aligned_at_end(taken, len(sensitive))):
            necessity += high - nll(logits(model, sensitive), answer)
        with contribution_set(model, site, aligned_at_end(given, len(control))):
            sufficiency += nll(logits(model, control), answer) - low
        total += high - low
    return total / len(pairs), necessity / len(pairs), sufficiency / len(pairs)
