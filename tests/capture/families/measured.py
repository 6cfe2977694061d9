"""Everything found out about one family, and the table of all of them."""

from dataclasses import dataclass
from functools import cache

import torch
from transformers import PreTrainedModel

from moeprobe.capture import find_experts
from moeprobe.capture.discover import refusal
from moeprobe.errors import ModelError
from tests.capture.families import tiny
from tests.capture.families.checks import (
    NEW,
    OUTPUTS_AGREE,
    PROMPT,
    SHORT,
    WEIGHTS_AGREE,
    Blocks,
    Counts,
    Difference,
    Run,
    as_routing,
    blocks,
    compare,
    counts,
    forward,
    generate,
    identity,
    recorded,
    teacher_forced,
)

# Families whose cached and uncached forwards differ in the model itself, so that a forward of the finished text is no
# reference. Their logits must differ too, and the record must equal plain hooks in the same run.
CACHED_DIFFERS = {
    "doge": "the router mixes the tokens of a forward pass",
    "minimax": "cached and uncached lightning attention differ in transformers 5.23",
}
FORWARD_ONLY = {
    "diffusion_gemma": "block diffusion: forwards checked, no tracing",
    "openai_privacy_filter": "an encoder: forwards checked, no tracing",
}
REFUSED = {"nllb_moe": "only experts 0 and 1 are ever executed"}


@dataclass(frozen=True)
class Measured:
    """What a family's checks gave.

    Attributes:
        model, run, forced, seen: the model, its run, the teacher-forced run of the same tokens, one forward with the
            parts of its blocks. `forced` is the plain second forward for families that do not generate.
        against_forced: record of the run against that of `forced`; against_plain: against plain hooks in the same run.
        logits_apart: largest difference of the last logits of `run` and `forced`.
        output: relative difference of blocks and what follows from the record.
        counts: choices in the record.
        bitwise: tokens and logits are the same bits with and without capture.
    """

    model: PreTrainedModel
    run: Run
    forced: Run
    seen: Blocks
    against_forced: Difference
    against_plain: Difference
    logits_apart: float
    output: float
    counts: Counts
    bitwise: bool


@cache
def measure(family: str) -> Measured:
    """Build the family and run every check once."""
    model = tiny.build(family)
    how = forward if family in FORWARD_ONLY else generate
    plain_tokens, plain_logits = how(model)
    run = recorded(model, how)
    forced = recorded(model, forward) if family in FORWARD_ONLY else teacher_forced(model, run)
    seen = blocks(model)
    return Measured(
        model=model,
        run=run,
        forced=forced,
        seen=seen,
        against_forced=compare(model, run.routing, forced.routing),
        against_plain=compare(model, run.routing, as_routing(model, run.plain)),
        logits_apart=float((run.logits[-1] - forced.logits[-1 if family in FORWARD_ONLY else 0]).abs().max()),
        output=identity(model, seen, seen.run.routing),
        counts=counts(model, run, run.routing),
        bitwise=torch.equal(plain_tokens, run.tokens) and torch.equal(plain_logits, run.logits),
    )


HEADER = ("family", "class", "sites", "stacks", "experts", "k", "routing", "ids", "weights", "block output", "logits",
          "note")  # fmt: skip


def row(family: str) -> tuple[str, ...]:
    """One row of the table in docs/families.md."""
    cls = tiny.CLASSES[family]
    if family in REFUSED:
        try:
            find_experts(tiny.build(family))
        except ModelError:
            nothing = ("refused",) * 9
            return (family, cls, *nothing, f"refused by name: {REFUSED[family]}")
    found = measure(family)
    sites = find_experts(found.model)
    stacks = ", ".join(dict.fromkeys(site.stack or "main" for site in sites))
    exact = found.against_plain if family in {**CACHED_DIFFERS, **FORWARD_ONLY} else found.against_forced
    against = "live" if family in CACHED_DIFFERS else "forward" if family in FORWARD_ONLY else "exact"
    return (
        family,
        cls,
        str(len(sites)),
        stacks,
        _one({site.experts for site in sites}),
        _one({layer.experts.shape[-1] for layer in found.run.routing.values()}),
        kind(found.model),
        against if exact.ids == 0 else f"{exact.ids} differ",
        "<= 1e-5" if exact.weights <= WEIGHTS_AGREE else f"{exact.weights:.0e}",
        "<= 1e-5" if found.output <= OUTPUTS_AGREE else f"{found.output:.0e}",
        "bitwise" if found.bitwise else "differ",
        _note(family, found),
    )


def _one(values: set[int]) -> str:
    return "/".join(map(str, sorted(values)))


def _note(family: str, found: Measured) -> str:
    notes = []
    if family in CACHED_DIFFERS:
        notes.append(f"{CACHED_DIFFERS[family]}; compared with plain hooks in the same run")
    if family in FORWARD_ONLY:
        notes.append(FORWARD_ONLY[family])
    elif refusal(found.model) is not None:
        notes.append("recorded, not traced")
    if any(site.stack == "vision" for site in find_experts(found.model)):
        notes.append("vision experts silent on text")
    if any((layer.experts < 0).any() for layer in found.run.routing.values()):
        notes.append("some choices have no expert")
    return "; ".join(notes) or "-"


def kind(model: PreTrainedModel) -> str:
    """Kind of routing, from what the tiny model is made of."""
    site = find_experts(model)[0]
    name = type(site.module).__name__
    special = {
        "DogeCDMoE": "product keys",
        "SwitchTransformersExperts": "top-1 with capacity",
        "Llama4TextExperts": "top-k, scores on the input",
        "ZayaExperts": "top-1 with a skip class",
        "LongcatFlashExperts": "top-k with zero-computation experts",
        "JetMoeMoE": "top-k, sorted by expert",
    }
    if name in special:
        return special[name]
    parent = model.get_submodule(site.path.rpartition(".")[0])
    router = next(child for child_name, child in parent.named_children() if child_name in ("gate", "router"))
    every = [name for name, _ in [*model.named_parameters(), *model.named_buffers()]]
    groups = getattr(router, "num_group", None) or 1
    best = "top-k in the best groups" if groups > 1 else "top-k"
    hashed = "hash of the token, then " if any(name.endswith("tid2eid") for name in every) else ""
    return hashed + best + (", corrected scores" if any("correction_bias" in name for name in every) else "")


INTRODUCTION = """# The 72 families of transformers 5.23 that route experts

Made by `MOEPROBE_WRITE_DOCS=1 pytest tests/capture/families`; the same tests fail when this table is not what they
find. Do not edit it. Each family is built from its config alone at tiny size ({layers} layers, {experts} experts,
float32, eager experts) and generates {new} tokens greedily from two prompts of {prompt} and {short} tokens, padded on
the left.

- **ids**, **weights**: the record of the generation against one forward, without a cache, of the same tokens ("exact").
  "live": the model itself differs between cached and uncached runs (its logits do too), so the record is compared
  with plain hooks on the routers in the same run. "forward": the family has no generation of its own kind; the record
  of a forward is compared with plain hooks. "<= 1e-5" is the largest difference of any weight.
- **block output**: the largest difference between what a block gives and the sum over the chosen experts of
  w * E(x), with shared experts and scales where the block has them; relative to the block's largest output. E(x) is the
  experts module called with one expert and weight 1; by hand from the weights where it is not called with ids.
- **logits**: the same bits with and without capture.
- Real checkpoints differ in sizes and settings; a family's row says nothing of quantised or fused kernels.

{exact} of 72 are exact, {live} live, {forward} by forwards, {refused} refused.

"""


def document(rows: list[tuple[str, ...]]) -> str:
    """docs/families.md."""
    kinds = [cells[HEADER.index("ids")] for cells in rows]
    totals = {name: kinds.count(name) for name in ("exact", "live", "forward", "refused")}
    sizes = {"layers": tiny.LAYERS, "experts": tiny.EXPERTS, "new": NEW, "prompt": PROMPT, "short": SHORT}
    lines = [" | ".join(cells) for cells in (HEADER, ("---",) * len(HEADER), *rows)]
    return INTRODUCTION.format(**totals, **sizes) + "".join(f"| {line} |\n" for line in lines)
