"""The self-test: a short run of a model with its weights, which shows that recording is complete, right and silent.

Everything is compared with something that does not pass through the recorder: a run without it, a second run that
computes the same tokens in one forward pass, and the tensors that the modules return.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from moeprobe.capture.attach import read_routing, seam
from moeprobe.capture.discover import ExpertsSite, anchors, find_experts
from moeprobe.capture.recorder import Recorder
from moeprobe.capture.recording import LayerRouting
from moeprobe.doctor.dataflow import ReturnedBy
from moeprobe.doctor.dryrun import handed_over, path_of
from moeprobe.doctor.survey import generates_as_usual
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

    Raises:
        ModelError: the model has no experts that can be recorded.
    """
    ids = _default_prompt(model) if prompt is None else prompt
    ids = ids.to(_device(model))
    sites = find_experts(model)
    generates = model.can_generate()
    run: Callable[[], _Run] = (
        (lambda: _generate(model, ids, steps)) if generates else (lambda: _forward(model, ids, ids))
    )
    try:
        plain = _tried(run)
        with Recorder(model, sites) as recorder:
            hooked = _tried(run)
        live = recorder.routing()
    except MoeprobeError as problem:
        return SelfTest((Check("complete", "failed", str(problem)),), ())
    rows = hooked.sequences.shape[1] - 1 if generates_as_usual(model) else None
    checks = [_complete(live, _loud(model, sites), rows), _silent(plain, hooked), *_sums(live, sites)]
    once: dict[str, LayerRouting] = {}
    if generates_as_usual(model):
        check, once = _against_one_pass(model, ids, sites, hooked, live)
        checks.append(check)
    elif generates:
        checks.append(Check("decoding", "note", f"{type(model).__name__} generates in its own way; not compared"))
    else:
        checks.append(
            Check("decoding", "failed", f"{type(model).__name__} does not generate: there is nothing to trace")
        )
    check, routers = _bound(model, ids, sites)
    checks.append(check)
    return SelfTest(tuple(checks), tuple(_tested(name, live[name], once.get(name), routers) for name in live))


def bind_routers(model: PreTrainedModel, ids: Tensor, sites: Sequence[ExpertsSite]) -> dict[str, str]:
    """The module that returned the very ids tensor that the experts got, by site name; sites without one are left out.

    Where routing is read from a module's return, that module is named. `ids` (1, tokens) are run once.

    Raises:
        CaptureError: the model does not run.
    """
    returned: dict[int, list[str]] = {}
    alive: list[Tensor] = []
    bound: dict[str, str] = {}

    def note(tensor: Tensor, path: str) -> None:
        if not tensor.is_floating_point():
            alive.append(tensor)  # so that no later tensor gets the same id()
            returned.setdefault(id(tensor), []).append(path)

    def see(site: ExpertsSite) -> Any:
        """A hook that notes which module handed the site its choices."""
        block = site.path.rpartition(".")[0]

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            """Note the last module inside the block that returned what the experts are given."""
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
        with ReturnedBy(model, [site.module for site in sites], note):
            _tried(lambda: _forward(model, ids, ids))
    finally:
        for handle in handles:
            handle.remove()
    return bound


def _tried(run: Callable[[], _Run]) -> _Run:
    """One run of the model.

    Raises:
        CaptureError: it failed, whether for the recorder or for the model itself.
    """
    try:
        with torch.inference_mode():
            return run()
    except MoeprobeError:
        raise
    except Exception as problem:  # a kernel that needs a GPU, too little memory, a model's own error
        text = (str(problem).strip().splitlines() or [""])[0][:200]
        raise CaptureError(f"The model does not run: {type(problem).__name__}: {text}") from problem


def _forward(model: PreTrainedModel, prompt: Tensor, tokens: Tensor) -> _Run:
    """One pass over `tokens`; in an encoder-decoder they are the decoder's."""
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if getattr(model.config, "is_encoder_decoder", False):
        inputs = {"input_ids": prompt, "attention_mask": torch.ones_like(prompt), "decoder_input_ids": tokens}
    output = model(**inputs)
    found = getattr(output, "logits", None)
    found = getattr(output, "last_hidden_state", None) if found is None else found
    return _Run(tokens, found if isinstance(found, Tensor) else None)


def _generate(model: PreTrainedModel, ids: Tensor, steps: int) -> _Run:
    options: dict[str, Any] = {"max_new_tokens": steps, "do_sample": False, "num_beams": 1, "disable_compile": True}
    if generates_as_usual(model):
        options |= {"min_new_tokens": steps, "return_dict_in_generate": True, "output_logits": True}
    made: Any = model.generate(ids, attention_mask=torch.ones_like(ids), **options)  # type: ignore[operator]  # typed as a module
    sequences = made if isinstance(made, Tensor) else made.sequences
    scores = getattr(made, "logits", None)
    return _Run(sequences, torch.stack(tuple(scores), dim=1) if isinstance(scores, tuple) else None)


def _loud(model: PreTrainedModel, sites: Sequence[ExpertsSite]) -> list[ExpertsSite]:
    """The sites that text reaches."""
    stacks = anchors(model, list(sites))
    return [site for site in sites if stacks.get(site.stack, model) is not None]


def _complete(live: Mapping[str, LayerRouting], sites: Sequence[ExpertsSite], rows: int | None) -> Check:
    """Every layer that text reaches, and in the main stack every token but the last, which is never run."""
    missing = [site.name for site in sites if site.name not in live or not live[site.name].experts.size]
    short = [
        site.name
        for site in sites
        if rows is not None and site.stack == "" and site.name in live and live[site.name].experts.shape[1] != rows
    ]
    if missing or short:
        return Check("complete", "failed", f"not every token of {', '.join([*missing, *short][:5])} was recorded")
    return Check("complete", "ok", f"every token that was run, in {len(live)} layer{'s' if len(live) > 1 else ''}")


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
        with Recorder(model, sites) as recorder:
            output = _tried(lambda: _forward(model, ids, tokens))
        once = recorder.routing()
    except MoeprobeError as problem:
        return Check("decoding", "failed", str(problem)), {}
    equal = {name: _same(live[name], once[name]) for name in live if name in once}
    if set(equal) != set(live) or any(np.isnan(share) for share in equal.values()):
        return Check("decoding", "failed", "cached decoding and one pass recorded other layers or tokens"), once
    if all(share == 1 for share in equal.values()):
        return Check(
            "decoding", "ok", "the experts of cached decoding are those of one pass over the same tokens"
        ), once
    return _difference(ids.shape[1], equal, _gap(run, output.logits, model.dtype), live, once), once


def _difference(
    prompt: int,
    equal: Mapping[str, float],
    gap: float | None,
    live: Mapping[str, LayerRouting],
    once: Mapping[str, LayerRouting],
) -> Check:
    """What it means that cached decoding and one pass chose other experts."""
    first = next(name for name, share in equal.items() if share < 1)
    places = f"{1 - _mean(equal.values()):.1%} of the choices, first in {first} ({1 - equal[first]:.1%}),"
    if gap is not None and gap > 1:
        found = f"the model itself computes otherwise with its cache: {places} differ. The run's own are recorded"
        return Check("decoding", "note", found)
    # Rows in a wrong place show in decoding, whatever the length of the prompt.
    decoded = _mean(_same(_after(live[name], prompt), _after(once[name], prompt)) for name in equal if "." not in name)
    if 1 - min(_mean(equal.values()), decoded) <= _NEAR_TIES:
        found = f"{places} differ from one pass over the same tokens: few enough for near-ties that rounding decides"
        return Check("decoding", "note", found)
    return Check("decoding", "failed", f"{places} differ from one pass over the same tokens, but the logits agree")


def _mean(shares: Iterable[float]) -> float:
    """Mean, leaving out what could not be compared."""
    known = [share for share in shares if not np.isnan(share)]
    return float(np.mean(known)) if known else 1.0


def _same(live: LayerRouting, once: LayerRouting) -> float:
    """Share of a token's choices that are among those of the other run; NaN when there is nothing to compare."""
    if live.experts.shape != once.experts.shape or not live.experts.size:
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


def _bound(model: PreTrainedModel, ids: Tensor, sites: Sequence[ExpertsSite]) -> tuple[Check, dict[str, str]]:
    try:
        routers = bind_routers(model, ids, sites)
    except CaptureError as problem:
        return Check("router", "note", str(problem)), {}
    unbound = [site.name for site in _loud(model, sites) if site.name not in routers]
    if unbound:
        few = ", ".join(unbound[:3]) + (" ..." if len(unbound) > 3 else "")
        return Check("router", "note", f"no module returned the ids of {few}: they are made outside a router"), routers
    return Check("router", "ok", "each layer's router returned the very ids its experts got"), routers


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


def _device(model: PreTrainedModel) -> torch.device:
    device: torch.device = model.device
    # Weights offloaded to disk stand on the meta device between calls; hooks of accelerate take inputs from the CPU.
    return torch.device("cpu") if device.type == "meta" else device


def _default_prompt(model: PreTrainedModel) -> Tensor:
    size = int(getattr(model.config.get_text_config(), "vocab_size", 0)) or 100
    # Marks for images and the like stand at the upper end of vocabularies, ends and padding at the very start.
    return torch.randint(min(3, size // 4), max(size // 2, 4), (1, _PROMPT), generator=torch.Generator().manual_seed(0))
