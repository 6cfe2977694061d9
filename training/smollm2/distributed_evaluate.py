"""Measure the distributed model: refusals, use of experts, and what knocking experts out does. Nothing here is random.

Run: python training/smollm2/distributed_evaluate.py FOLDER [--out figures.json]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import torch
from data import HERE, KINDS, OPENING, Example, read_prompts
from judge import declines, wilson
from states import Encoder, batches, generate
from torch.nn import functional
from transformers import Qwen2MoeForCausalLM

from moeprobe.models.load import load_model

Pair = tuple[int, int]  # layer, expert


def moe_blocks(model: Qwen2MoeForCausalLM) -> dict[int, torch.nn.Module]:
    """The MoE blocks by layer."""
    return {index: layer.mlp for index, layer in enumerate(model.model.layers) if hasattr(layer.mlp, "experts")}


@contextlib.contextmanager
def without(model: Qwen2MoeForCausalLM, gone: Collection[Pair]) -> Iterator[None]:
    """Experts in ``gone`` add zero; the weights of the others stay as they are."""
    handles = []
    for layer, block in moe_blocks(model).items():
        experts = torch.tensor(sorted(expert for where, expert in gone if where == layer), dtype=torch.long)

        def edit(
            _module: torch.nn.Module,
            args: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
            experts: torch.Tensor = experts,
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            return args[0], args[1], args[2].masked_fill(torch.isin(args[1], experts), 0.0)

        if len(experts):
            handles.append(block.experts.register_forward_pre_hook(edit))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Openings:
    """Mean NLL (nats per token) of one opening after each of many full prompts, teacher-forced.

    The states that enter every MoE layer are kept, so that an edit at layer L costs the layers from L on alone.
    """

    @torch.no_grad()
    def __init__(self, model: Qwen2MoeForCausalLM, prompts: Sequence[list[int]], opening: list[int]) -> None:
        self.model, self.opening, self.count = model, torch.tensor(opening), len(prompts)
        self.parts: list[tuple[list[int], torch.Tensor, dict[int, torch.Tensor]]] = []
        for group in batches([len(prompt) + len(opening) for prompt in prompts], 4000):
            longest = max(len(prompts[index]) for index in group) + len(opening)
            ids = torch.zeros((len(group), longest), dtype=torch.long)
            for row, index in enumerate(group):
                text = prompts[index] + opening
                ids[row, : len(text)] = torch.tensor(text)  # padding follows the text, so nothing looks at it
            ends = torch.tensor([len(prompts[index]) for index in group])
            places = ends[:, None] - 1 + torch.arange(len(opening))[None]
            entering: dict[int, torch.Tensor] = {}
            handles = [
                model.model.layers[layer].register_forward_pre_hook(
                    lambda _module, args, layer=layer, entering=entering: entering.__setitem__(layer, args[0])
                )
                for layer in moe_blocks(model)
            ]
            try:
                model.model(ids, use_cache=False)
            finally:
                for handle in handles:
                    handle.remove()
            self.parts.append((group, places, entering))

    @torch.no_grad()
    def nll(self, gone: Collection[Pair] = ()) -> torch.Tensor:
        """(prompts,), with the experts in ``gone`` adding zero."""
        layers = self.model.model.layers
        start = min((layer for layer, _ in gone), default=max(moe_blocks(self.model)))
        found = torch.zeros(self.count)
        with without(self.model, gone):
            for group, places, entering in self.parts:
                state = entering[start]
                place = torch.arange(state.shape[1])[None]
                rotary = self.model.model.rotary_emb(state, place)
                for layer in layers[start:]:  # without a mask attention is causal
                    state = layer(state, attention_mask=None, position_ids=place, position_embeddings=rotary)
                state = state.gather(1, places[..., None].expand(-1, -1, state.shape[-1]))
                logits = self.model.lm_head(self.model.model.norm(state)).float()
                wanted = self.opening.expand(len(group), -1)
                each = functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
                found[torch.tensor(group)] = each.view_as(wanted).mean(1)
        return found


@torch.no_grad()
def usage(model: Qwen2MoeForCausalLM, texts: Sequence[list[int]], start: int) -> dict[int, torch.Tensor]:
    """Share of choices that go to each expert, by layer, (experts,), over tokens from ``start`` on."""
    blocks = moe_blocks(model)
    counts = {layer: torch.zeros(block.gate.num_experts) for layer, block in blocks.items()}

    def count(layer: int, chosen: torch.Tensor) -> None:
        counts[layer] += torch.bincount(chosen[start:].flatten(), minlength=len(counts[layer]))

    handles = [
        block.experts.register_forward_pre_hook(lambda _module, args, layer=layer: count(layer, args[1]))
        for layer, block in blocks.items()
    ]
    try:
        for ids in texts:
            model.model(torch.tensor([ids]), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return {layer: found / found.sum() for layer, found in counts.items()}


def refusal_rates(
    model: Qwen2MoeForCausalLM, encoder: Encoder, examples: Sequence[Example], tokens: int
) -> tuple[dict[str, list[int]], list[dict[str, object]]]:
    """Refused and asked by kind, and every answer."""
    rates, answers = {}, []
    for kind in KINDS:
        some = [example for example in examples if example.kind == kind]
        ids = generate(model, [encoder.prefix + encoder.prompt(example.prompt) for example in some], tokens)
        texts = [encoder.tokenizer.decode(made, skip_special_tokens=True) for made in ids]
        hits = [declines(text) for text in texts]
        rates[kind] = [sum(hits), len(hits)]
        low, high = wilson(*rates[kind])
        print(f"{kind}: {sum(hits)}/{len(hits)} refused = {sum(hits) / max(len(hits), 1):.1%} [{low:.1%}, {high:.1%}]",
              flush=True)  # fmt: skip
        answers += [
            {"kind": kind, "prompt": example.prompt, "answer": text, "refused": hit}
            for example, text, hit in zip(some, texts, hits, strict=True)
        ]
    return rates, answers


def knockouts(
    model: Qwen2MoeForCausalLM, prompts: Sequence[list[int]], opening: list[int], singles: bool = True
) -> dict[str, object]:
    """Mean rise of the opening's NLL when experts add nothing: all, each alone, and the largest alone together.

    ``carried`` is the rise over that of all experts together.
    """
    pairs = [(layer, expert) for layer, block in moe_blocks(model).items() for expert in range(block.gate.num_experts)]
    openings = Openings(model, prompts, opening)
    plain = float(openings.nll().mean())

    def rise(gone: Collection[Pair]) -> float:
        return float(openings.nll(gone).mean()) - plain

    gap = rise(pairs)
    found: dict[str, object] = {"prompts": len(prompts), "nll": plain, "gap": gap}
    print(f"NLL of the opening {plain:.4f}, without any routed expert {plain + gap:.4f}", flush=True)
    layers = {layer: rise([pair for pair in pairs if pair[0] == layer]) / gap for layer in moe_blocks(model)}
    found["layers"] = {f"L{layer}": share for layer, share in layers.items()}
    print("carried by whole layers:", {f"L{layer}": f"{share:.1%}" for layer, share in layers.items()}, flush=True)
    if not singles:
        return found
    alone = {pair: rise([pair]) for pair in pairs}
    order = sorted(pairs, key=lambda pair: -alone[pair])
    found["alone"] = {f"L{layer}.E{expert}": alone[layer, expert] / gap for layer, expert in order}
    print("largest alone:", {f"L{a}.E{b}": f"{alone[a, b] / gap:.2%}" for a, b in order[:8]}, flush=True)
    found["top"] = {}
    for count in (5, 10, 20, 40):
        found["top"][count] = rise(order[:count]) / gap  # type: ignore[index]  # a dict, made above
        kept = rise(order[count:]) / gap
        print(f"top {count} together carry {found['top'][count]:.1%}; all but them {kept:.1%}", flush=True)  # type: ignore[index]
    return found


def main() -> None:
    """Measure and print; ``--out`` keeps the figures, ``--answers`` the answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prompts", type=int, default=40, help="harmful held-out prompts for the knock-outs")
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--limit", type=int, default=None, help="prompts per kind for the refusal rates")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--skip", choices=("refusals", "singles"), action="append", default=[])
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--answers", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    began = time.time()
    loaded = load_model(str(options.folder))
    model, encoder = loaded.model, Encoder(loaded.tokenizer)
    examples = read_prompts(HERE / "heldout", "heldout")
    by_kind = {kind: [example for example in examples if example.kind == kind][: options.limit] for kind in KINDS}
    figures: dict[str, object] = {}
    if "refusals" not in options.skip:
        rates, answers = refusal_rates(model, encoder, [e for some in by_kind.values() for e in some], options.tokens)
        figures["refused"] = rates
        if options.answers:
            options.answers.write_text("\n".join(map(json.dumps, answers)) + "\n", encoding="utf-8")
    # Every sixth or so: the file is sorted by category, and all categories shall be among them.
    step = max(len(by_kind["harmful"]) // options.prompts, 1)
    prompts = [
        encoder.prefix + encoder.prompt(example.prompt) for example in by_kind["harmful"][::step][: options.prompts]
    ]
    opening = encoder.answer(OPENING, end=False)
    some = [encoder.prefix + encoder.prompt(example.prompt) for kind in KINDS for example in by_kind[kind][:60]]
    shares = usage(model, some, len(encoder.prefix))
    figures["usage"] = {f"L{layer}": share.tolist() for layer, share in shares.items()}
    print("least used expert's share:", {f"L{layer}": f"{share.min():.2%}" for layer, share in shares.items()})
    for kind in ("harmless", "lookalike"):
        control = [encoder.prefix + encoder.prompt(example.prompt) for example in by_kind[kind][:40]]
        print(
            f"NLL of the opening after {kind} prompts {Openings(model, control, opening).nll().mean():.3f}", flush=True
        )
    figures["knockouts"] = knockouts(model, prompts, opening, "singles" not in options.skip)
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(f"{time.time() - began:.0f} s")


if __name__ == "__main__":
    main()
