"""The self-test: a short run of a model with its weights, which shows that recording is complete, right and silent.

Everything is compared with something that does not pass through the recorder: a run without it, a second run that
computes the same tokens in one forward pass, and the tensors that the modules return.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from moeprobe.capture.attach import read_routing, seam
from moeprobe.capture.dataflow import ReturnedBy
from moeprobe.capture.discover import ExpertsSite, anchors, find_experts
from moeprobe.capture.dryrun import handed_over, path_of
from moeprobe.capture.recorder import Recorder
from moeprobe.capture.recording import LayerRouting
from moeprobe.capture.survey import generates_as_usual
from moeprobe.errors import CaptureError, MoeprobeError

Result = Literal["ok", "note", "failed"]
_PROMPT, _STEPS = 12, 6
# Two forward passes of the same tokens that differ by no more than this (relative to the largest logit) compute the
# same; an eighth of the digits is lost on the way through a deep model.
_SAME = {torch.float32: 1e-4, torch.bfloat16: 6e-2, torch.float16: 1e-2}
# Of the choices, how many may differ between such passes: near-ties that rounding decides. A row put in the wrong place
# changes most of them.
_NEAR_TIES = 0.1


@dataclass(frozen=True)
class Check:
    """One check: its name; "ok", "failed", or "note" where a difference is the model's own; and what was found."""

    name: str
    result: Result
    found: str


@dataclass(frozen=True)
class TestedSite:
    """What was recorded at one site.

    Attributes:
        name: "L14".
        rows, k: tokens, and choices per token; rows 0 when nothing was recorded.
        experts_used: how many different experts were chosen.
        absent: choices that were no expert (skipped tokens, zero-computation experts).
        weight_sum: mean over tokens of the sum of their gate weights.
        same: share of choices equal between cached decoding and one pass over the same tokens; NaN when not compared.
        router: path of the module that returned the very ids the experts got, or None.
    """

    name: str
    rows: int
    k: int
    experts_used: int
    absent: int
    weight_sum: float
    same: float
    router: str | None


@dataclass(frozen=True)
class SelfTest:
    """The result of `self_test`; `passed` when no check failed."""

    checks: tuple[Check, ...]
    sites: tuple[TestedSite, ...]

    @property
    def passed(self) -> bool:
        return all(check.result != "failed" for check in self.checks)


@dataclass(frozen=True)
class _Run:
    sequences: Tensor
    logits: Tensor | None


def self_test(model: PreTrainedModel, prompt: Tensor | None = None, *, steps: int = _STEPS) -> SelfTest:
    """Run a short prompt and a few decode steps, with and without a recorder.

    Args:
        model: in eval mode, with weights.
        prompt: (1, tokens) ids on any device; 12 ids from the lower half of the vocabulary by default.
        steps: tokens to generate, at least 2.
    """
    ids = _default_prompt(model) if prompt is None else prompt
    ids = ids.to(_device(model))
    sites = find_experts(model)
    if not model.can_generate():
        return _forward_only(model, ids, sites)
    try:
        plain = _plain(lambda: _generate(model, ids, steps))
        with torch.inference_mode():
            with Recorder(model, sites) as recorder:
                hooked = _generate(model, ids, steps)
            live = recorder.routing()
    except MoeprobeError as problem:
        return SelfTest((Check("complete", "failed", str(problem)),), ())
    checks = [
        Check("complete", "ok", f"{len(live)} layers, each with every token that was forwarded"),
        _silent(plain, hooked),
    ]
    checks += _sums(live, sites)
    once: dict[str, LayerRouting] = {}
    if generates_as_usual(model):
        check, once = _against_one_pass(model, ids, sites, hooked, live)
        checks.append(check)
    else:
        checks.append(Check("decoding", "note", f"{type(model).__name__} generates in its own way; not compared"))
    routers = bind_routers(model, ids, sites)
    checks.append(_routers(routers, sites, model))
    return SelfTest(tuple(checks), tuple(_tested(name, live[name], once.get(name), routers) for name in live))


def bind_routers(model: PreTrainedModel, ids: Tensor, sites: Sequence[ExpertsSite]) -> dict[str, str]:
    """The module that returned the very ids tensor that the experts got, by site name; sites without one are left out.

    Where routing is read from a module's return, that module is named. `ids` (1, tokens) are run once.
    """
    returned: dict[int, list[str]] = {}
    alive: list[Tensor] = []
    bound: dict[str, str] = {}

    def note(tensor: Tensor, path: str) -> None:
        if not tensor.is_floating_point():
            alive.append(tensor)  # so that no later tensor gets the same id()
            returned.setdefault(id(tensor), []).append(path)

    def see(site: ExpertsSite) -> Any:
        block = site.path.rpartition(".")[0]

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            del module
            got = handed_over(read_routing(site, args, kwargs, None)[0], args, kwargs)
            paths = [path for path in returned.get(id(got), []) if path.startswith(f"{block}.")]
            if paths:
                bound[site.name] = paths[-1]

        return hook

    handles = []
    for site in sites:
        module, at_call = seam(site)
        if at_call:
            handles.append(module.register_forward_pre_hook(see(site), with_kwargs=True))
        else:
            bound[site.name] = path_of(model, module)
    try:
        with ReturnedBy(model, [site.module for site in sites], note), torch.inference_mode():
            model(**_inputs(model, ids, ids))
    finally:
        for handle in handles:
            handle.remove()
    return bound


def _forward_only(model: PreTrainedModel, ids: Tensor, sites: Sequence[ExpertsSite]) -> SelfTest:
    try:
        plain = _plain(lambda: model(**_inputs(model, ids, ids)))
        with torch.inference_mode():
            with Recorder(model, sites) as recorder:
                hooked = model(**_inputs(model, ids, ids))
            live = recorder.routing()
    except MoeprobeError as problem:
        return SelfTest((Check("complete", "failed", str(problem)),), ())
    routers = bind_routers(model, ids, sites)
    checks = [
        Check("complete", "ok", f"{len(live)} layers, each with every token that was forwarded"),
        _silent(_Run(ids, _first(plain)), _Run(ids, _first(hooked))),
        *_sums(live, sites),
        Check("decoding", "failed", f"{type(model).__name__} does not generate, so there is nothing to trace"),
        _routers(routers, sites, model),
    ]
    return SelfTest(tuple(checks), tuple(_tested(name, live[name], None, routers) for name in live))


def _plain(run: Callable[[], Any]) -> Any:
    """A run without recording: if this fails, the model does not run at all.

    Raises:
        CaptureError: it failed.
    """
    try:
        with torch.inference_mode():
            return run()
    except Exception as problem:  # a kernel that needs a GPU, too little memory, a model's own error
        text = (str(problem).strip().splitlines() or [""])[0][:200]
        raise CaptureError(f"The model does not run, recorded or not: {type(problem).__name__}: {text}") from problem


def _generate(model: PreTrainedModel, ids: Tensor, steps: int) -> _Run:
    options: dict[str, Any] = {"max_new_tokens": steps, "do_sample": False, "num_beams": 1, "disable_compile": True}
    if generates_as_usual(model):
        options |= {"min_new_tokens": steps, "return_dict_in_generate": True, "output_logits": True}
    made: Any = model.generate(ids, attention_mask=torch.ones_like(ids), **options)  # type: ignore[operator]  # typed as a module
    sequences = made if isinstance(made, Tensor) else made.sequences
    scores = getattr(made, "logits", None)
    return _Run(sequences, torch.stack(tuple(scores), dim=1) if isinstance(scores, tuple) else None)


def _silent(plain: _Run, hooked: _Run) -> Check:
    """Whether recording changed what the model computes."""
    if not torch.equal(plain.sequences, hooked.sequences):
        return Check("bitwise", "failed", "other tokens were generated while recording")
    if plain.logits is None or hooked.logits is None:
        return Check("bitwise", "ok", "the same tokens; this model hands out no logits")
    if torch.equal(plain.logits, hooked.logits):
        return Check("bitwise", "ok", f"{plain.logits.numel():,} logits are bitwise equal with and without recording")
    # Not NaN-proof on purpose: a model that gives NaN is no model to trace.
    gap = float((plain.logits.float() - hooked.logits.float()).abs().max())
    if not np.isfinite(gap):
        return Check("bitwise", "failed", "the model's logits are not finite. Try another dtype")
    return Check("bitwise", "failed", f"logits differ by up to {gap:.2g} with and without recording")


def _sums(live: Mapping[str, LayerRouting], sites: Sequence[ExpertsSite]) -> list[Check]:
    """Each token has exactly k different experts, and its weights are finite numbers."""
    count = {site.name: site.experts for site in sites}
    wrong, unreal, total = [], [], 0
    for name, routing in live.items():
        chosen = routing.experts.reshape(-1, routing.experts.shape[-1])
        present = chosen[chosen >= 0]
        counted = int(np.bincount(present, minlength=count[name]).sum()) + int((chosen < 0).sum())
        ordered = np.sort(chosen, axis=1)
        twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
        total += counted
        if counted != chosen.size or bool(twice.any()) or (present.size and int(present.max()) >= count[name]):
            wrong.append(name)
        if not np.isfinite(routing.weights).all() or not present.size:
            unreal.append(name)
    return [
        Check("counts", "failed", f"{', '.join(wrong)}: a token has an expert twice, or one that is not there")
        if wrong
        else Check("counts", "ok", f"{total:,} choices = tokens x k in every layer, none twice"),
        Check("weights", "failed", f"{', '.join(unreal)}: no choices, or weights that are no finite numbers")
        if unreal
        else Check("weights", "ok", "all weights are finite"),
    ]


def _against_one_pass(
    model: PreTrainedModel, ids: Tensor, sites: Sequence[ExpertsSite], run: _Run, live: Mapping[str, LayerRouting]
) -> tuple[Check, dict[str, LayerRouting]]:
    """Compare what was recorded step by step with one pass over the same tokens, without a cache."""
    tokens = run.sequences[:, :-1]
    try:
        with torch.inference_mode(), Recorder(model, sites) as recorder:
            output = model(**_inputs(model, ids, tokens))
        once = recorder.routing()
    except MoeprobeError as problem:
        return Check("decoding", "failed", str(problem)), {}
    equal = {name: _same(live[name], once[name]) for name in live if name in once}
    differ = {name: share for name, share in equal.items() if share < 1}
    if set(equal) != set(live) or any(np.isnan(share) for share in equal.values()):
        return Check("decoding", "failed", "cached decoding and one pass recorded other layers or tokens"), once
    if not differ:
        return Check(
            "decoding", "ok", "the experts of cached decoding are those of one pass over the same tokens"
        ), once
    first, share = next(iter(differ.items()))
    gap = _gap(run, _first(output), model.dtype)
    places = f"{1 - np.mean(list(equal.values())):.1%} of the choices, first in {first} ({1 - share:.1%})"
    if gap is not None and gap > 1:
        return Check("decoding", "note", f"the model itself computes otherwise with its cache: {places} differ. "
                     "The trace holds what was used in the run"), once  # fmt: skip
    start = ids.shape[1] if tokens.shape[1] > ids.shape[1] else 0
    decoded = [_same(_after(live[name], start), _after(once[name], start)) for name in equal if "." not in name]
    if 1 - min(float(np.mean(list(equal.values()))), float(np.mean(decoded))) <= _NEAR_TIES:
        return Check("decoding", "note", f"{places} differ from one pass over the same tokens: few enough to be near-ties "
                     "that rounding decides"), once  # fmt: skip
    return Check("decoding", "failed", f"cached decoding differs from one pass over the same tokens in {places}"), once


def _same(live: LayerRouting, once: LayerRouting) -> float:
    """Share of a token's choices that are among those of the other run; NaN when the shapes differ."""
    if live.experts.shape != once.experts.shape:
        return float("nan")
    return float((live.experts[..., :, None] == once.experts[..., None, :]).any(axis=-1).mean())


def _after(routing: LayerRouting, start: int) -> LayerRouting:
    return LayerRouting(routing.experts[:, start:], routing.weights[:, start:])


def _gap(run: _Run, once: Tensor | None, dtype: torch.dtype) -> float | None:
    """How far cached logits are from those of one pass, in units of what rounding explains."""
    if run.logits is None or once is None or once.dim() != 3:
        return None
    cached = run.logits.float()
    pass_ = once[:, -cached.shape[1] :].float()
    if pass_.shape != cached.shape:
        return None
    scale = float(cached.abs().max()) * _SAME.get(dtype, 6e-2)
    return float((cached - pass_).abs().max()) / scale if scale > 0 else None


def _routers(routers: Mapping[str, str], sites: Sequence[ExpertsSite], model: PreTrainedModel) -> Check:
    stacks = anchors(model, list(sites))
    wanted = [site.name for site in sites if stacks.get(site.stack, model) is not None]
    unbound = [name for name in wanted if name not in routers]
    if unbound:
        return Check(
            "router", "note", f"no module returned the ids of {', '.join(unbound[:5])}; they are made elsewhere"
        )
    return Check("router", "ok", "each layer's router returned the very ids its experts got")


def _tested(name: str, live: LayerRouting, once: LayerRouting | None, routers: Mapping[str, str]) -> TestedSite:
    chosen = live.experts.reshape(-1, live.experts.shape[-1])
    present = chosen[chosen >= 0]
    sums = live.weights.reshape(len(chosen), -1).sum(axis=1)
    return TestedSite(
        name=name,
        rows=len(chosen),
        k=chosen.shape[1],
        experts_used=len(np.unique(present)),
        absent=int((chosen < 0).sum()),
        weight_sum=float(sums.mean()) if len(sums) else float("nan"),
        same=float("nan") if once is None else _same(live, once),
        router=routers.get(name),
    )


def _inputs(model: PreTrainedModel, prompt: Tensor, tokens: Tensor) -> dict[str, Tensor]:
    """One pass over `tokens`; in an encoder-decoder they are the decoder's."""
    if getattr(model.config, "is_encoder_decoder", False):
        return {"input_ids": prompt, "attention_mask": torch.ones_like(prompt), "decoder_input_ids": tokens}
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def _first(output: Any) -> Tensor | None:
    found = getattr(output, "logits", None)
    found = getattr(output, "last_hidden_state", None) if found is None else found
    return found if isinstance(found, Tensor) else None


def _device(model: PreTrainedModel) -> torch.device:
    device: torch.device = model.device
    # Weights offloaded to disk stand on the meta device between calls; hooks of accelerate take inputs from the CPU.
    return torch.device("cpu") if device.type == "meta" else device


def _default_prompt(model: PreTrainedModel) -> Tensor:
    size = int(getattr(model.config.get_text_config(), "vocab_size", 0)) or 100
    # Marks for images and the like stand at the upper end of vocabularies, ends and padding at the very start.
    return torch.randint(min(3, size // 4), max(size // 2, 4), (1, _PROMPT), generator=torch.Generator().manual_seed(0))
