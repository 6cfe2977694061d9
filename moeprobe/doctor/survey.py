"""What recording a model would give, found on the meta device: sites, routing, bytes; and what would not be recorded.

Nothing here needs weights: shapes, dtypes and kinds of routing are read from a pass without data (dryrun).
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from transformers import GenerationMixin, PreTrainedModel

from moeprobe.capture.attach import refuse_bypassing, refuse_compiled, seam
from moeprobe.capture.discover import ExpertsSite, anchors, find_experts
from moeprobe.doctor.dataflow import UNKNOWN
from moeprobe.doctor.dryrun import DryRun, Seen, adapted_kind, dry_run, path_of
from moeprobe.errors import CaptureError, MoeprobeError
from moeprobe.models.skeleton import skeleton_of
from moeprobe.trace.shard import COLUMNS

# What routers, experts and configs call the number of choices per token.
_CHOICES = ("top_k", "num_experts_per_tok", "num_experts_per_token", "moe_top_k", "moe_topk", "moe_k", "k", "topk",
            "top_k_experts")  # fmt: skip


@dataclass(frozen=True)
class SurveyedSite:
    """One layer of routed experts, as it would be recorded.

    Attributes:
        name: "L14", or "encoder.L14" outside the main stack.
        stack, layer: the two parts of the name.
        path: path of the experts module.
        experts: number of experts E, from the weights' shapes.
        k: choices per token; None when nothing tells.
        k_from: "run" (the tensors of a pass without data), "module" (an attribute of the router or the experts),
            "config", or "" when nothing tells.
        shared: whether shared experts stand beside the routed ones.
        kind: kind of routing, for example "softmax" or "sigmoid, groups, correction bias"; "unknown" when not seen.
        router: path of the router, or None.
        router_by: "identity" (it returned the very tensor the experts got as ids), "derived" (the ids were made from
            what it returned), "hook" (routing is read there), or "" when no router was seen.
        classes: number of scores the router gives, E or more; E when not seen.
        width: numbers per token the router reads; the model's width when not seen.
        residual: numbers per token in the residual stream.
        weights: dtype of the gate weights, for example "bfloat16"; "" when not seen.
        silent: text never runs this stack (a vision tower), so it stays empty in a trace.
    """

    name: str
    stack: str
    layer: int
    path: str
    experts: int
    k: int | None
    k_from: str
    shared: bool
    kind: str
    router: str | None
    router_by: str
    classes: int
    width: int
    residual: int
    weights: str
    silent: bool


@dataclass(frozen=True)
class Problem:
    """Something that would not be recorded: where ("L14", or "the model"), why, and what to do."""

    where: str
    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.why}; {self.remedy}" if self.remedy else f"{self.where}: {self.why}"


@dataclass(frozen=True)
class Survey:
    """All sites of a model, and what would not be recorded of it.

    Attributes:
        family: the config's model type.
        model_class: name of the model's class.
        width: the model's width (numbers per token in the residual stream).
        sites: main stack first, then by stack and layer.
        problems: empty when nothing was found that would not be recorded.
        doubts: what only a run with weights can tell, one sentence each.
        notes: what one should know besides, one sentence each.
    """

    family: str
    model_class: str
    width: int
    sites: tuple[SurveyedSite, ...]
    problems: tuple[Problem, ...]
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def survey(model: PreTrainedModel) -> Survey:
    """Look at `model`, loaded or on the meta device, without running it on data.

    Of a loaded model the modules are taken as they are, and its shapes from a copy without weights.
    """
    width = _width(model)
    family = str(getattr(model.config, "model_type", ""))
    problems = _obstacles(model)
    try:
        sites = find_experts(model)
        by_stack = anchors(model, sites)
    except MoeprobeError as problem:
        return Survey(family, type(model).__name__, width, (), (*problems, Problem("the model", _plain(problem), "")))
    names = [site.name for site in sites]
    problems += [
        Problem(name, f"{names.count(name)} experts modules have this name, so they cannot be told apart", "")
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    run = _run(model, width)
    found = tuple(
        _surveyed(model, site, run.seen.get(site.path), by_stack.get(site.stack, model) is None, width)
        for site in sites
    )
    if run.ran:
        problems += [
            Problem(site.name, f"the model ran without calling {site.path}, so its routing is not seen", "")
            for site in found
            if site.k_from != "run" and not site.silent
        ]
    doubts = tuple(_doubts(model, found, run))
    return Survey(family, type(model).__name__, width, found, tuple(problems), doubts, tuple(_notes(found)))


def _run(model: PreTrainedModel, width: int) -> DryRun:
    try:
        bare = model if _is_empty(model) else skeleton_of(model)
        return dry_run(bare, find_experts(bare), width)
    except Exception as problem:  # noqa: BLE001  # a class whose copy cannot be built is still surveyed by its modules
        return DryRun({}, False, f"{type(problem).__name__}: {problem}".splitlines()[0][:160])


def _doubts(model: PreTrainedModel, sites: Sequence[SurveyedSite], run: DryRun) -> Iterator[str]:
    unseen = [site.name for site in sites if site.k_from != "run" and not site.silent]
    if unseen and not run.ran:
        yield f"Without data the model stops before the experts of {_few(unseen)} ({run.broke})."
    if model.can_generate() and not generates_as_usual(model):
        yield f"{type(model).__name__} generates in its own way."


def generates_as_usual(model: PreTrainedModel) -> bool:
    """Whether `model.generate` is the library's, and not one of the model's own."""
    return getattr(type(model), "generate", None) is GenerationMixin.generate


def _notes(sites: Sequence[SurveyedSite]) -> Iterator[str]:
    silent = [site.name for site in sites if site.silent]
    if silent:
        yield f"Text does not reach {_few(silent)}: nothing is recorded there."
    config = [site.name for site in sites if site.k_from == "config"]
    if config:
        yield f"The k of {_few(config)} is what the config says."
    absent = [site.name for site in sites if site.classes > site.experts]
    if absent:
        yield f"In {_few(absent)} the router also chooses classes that are no experts; they are marked as absent."
    if any(site.kind.startswith("hash") for site in sites):
        hashed = [site.name for site in sites if site.kind.startswith("hash")]
        yield f"In {_few(hashed)} the token alone decides (hash routing): experts there say nothing about context."


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def bytes_per_token(
    sites: Sequence[SurveyedSite], what: Sequence[str] = (), dtype: str = "float32", *, worst: bool = False
) -> int:
    """Bytes that one token takes in a trace. A shard adds its header: under 512 bytes per column.

    Args:
        sites: the layers that are recorded.
        what: optional signals, named as for `--what`: "logits", "margin:14,20", "residual:22", "entropy", ...
        dtype: number format of the model ("float32", "bfloat16", "float16").
        worst: count every number as float32. 16-bit numbers mostly fit float16 without loss, and a column is written
            as float32 only where one of them does not; without this flag they count 2 bytes.

    Raises:
        CaptureError: an unknown signal, or a layer that is not there.
    """
    kept = [site for site in sites if not site.silent]
    masked = len({site.stack for site in kept}) > 1
    total = sum(np.dtype(column).itemsize for column in COLUMNS.values())
    for site in kept:
        k = site.k or 1
        total += k * (1 if site.experts <= 256 else 2)
        total += k * _size(site.weights or dtype, worst)
        # Choices that are absent: rows of another stack, and classes that are no experts.
        total += k if masked or site.classes > site.experts else 0
    return total + sum(_signal_bytes(item, kept, dtype, worst) for item in dict.fromkeys(what))


def _signal_bytes(item: str, sites: list[SurveyedSite], dtype: str, worst: bool) -> int:
    name, _, text = item.partition(":")
    if name in ("experts", "weights"):
        return 0
    if name in ("entropy", "logprob") and not text:
        return 4
    if text and not re.fullmatch(r"\d{1,6}(,\d{1,6})*", text):
        raise CaptureError(f"{item!r} needs layer numbers after the colon, for example {name}:14,20.")
    layers = {int(number) for number in text.split(",")} if text else set()
    size = _size(dtype, worst)
    if name == "residual" and layers:
        return len(layers) * size * max((site.residual for site in sites), default=0)
    per_site: dict[str, Callable[[SurveyedSite], int]] = {
        # Scores have the format of the gate weights where that is the wider one.
        "logits": lambda site: site.classes * max(size, _size(site.weights or dtype, worst)),
        "margin": lambda _: 4 + 1,  # and a flag: whether rounding may flip the choice
        "shared-gate": lambda site: size if site.shared else 0,
        "router-input": lambda site: site.width * size,
        "norms": lambda site: 4 * (site.k or 1),
    }
    if name not in per_site:
        raise CaptureError(f"{item!r} is nothing that can be recorded. Known: {', '.join(per_site)}, entropy, logprob, "
                           "residual:LAYER.")  # fmt: skip
    missing = sorted(layers - {site.layer for site in sites})
    if missing:
        raise CaptureError(f"{item!r}: L{missing[0]} is no layer of experts.")
    return sum(per_site[name](site) for site in sites if not layers or site.layer in layers)


def _size(dtype: str, worst: bool) -> int:
    return 2 if dtype in ("bfloat16", "float16") and not worst else 4


def _obstacles(model: PreTrainedModel) -> list[Problem]:
    """What stands against recording `model` whatever its experts are."""
    problems = []
    for check in (refuse_compiled, refuse_bypassing):
        try:
            check(model)
        except CaptureError as problem:
            problems.append(Problem("the model", _plain(problem), ""))
    if not model.can_generate():
        problems.append(Problem("the model", f"{type(model).__name__} does not generate text", "choose one that does"))
    return problems


def _plain(problem: MoeprobeError) -> str:
    return str(problem).rstrip(".")


def _is_empty(model: PreTrainedModel) -> bool:
    return all(parameter.is_meta for parameter in model.parameters())


def _width(model: PreTrainedModel) -> int:
    config = model.config.get_text_config()
    width = getattr(config, "hidden_size", None) or getattr(config, "d_model", None)
    return width if isinstance(width, int) else 0


def _surveyed(model: PreTrainedModel, site: ExpertsSite, seen: Seen | None, silent: bool, width: int) -> SurveyedSite:
    base = SurveyedSite(
        name=site.name, stack=site.stack, layer=site.layer, path=site.path, experts=site.experts, k=None, k_from="",
        shared=site.shared, kind=UNKNOWN, router=None, router_by="", classes=site.experts, width=width,
        residual=width, weights="", silent=silent,
    )  # fmt: skip
    if seen is not None:
        return replace(
            base, k=seen.k, k_from="run", kind=seen.kind, router=seen.router, router_by=seen.router_by,
            classes=max(seen.classes, site.experts), width=seen.width or width, weights=seen.weights,
        )  # fmt: skip
    block = model.get_submodule(site.path.rpartition(".")[0])
    module, at_call = seam(site)
    if not at_call:
        base = replace(base, router=path_of(model, module), router_by="hook")
    beside = [child for name, child in block.named_children() if re.search("gate|router|experts", name)]
    for owner in (module, *beside, block):
        k = _integer(owner, _CHOICES)
        if k is not None:
            return replace(base, k=k, k_from="module", kind=adapted_kind(site, k) or UNKNOWN)
    k = _integer(model.config.get_text_config(), _CHOICES)
    return base if k is None else replace(base, k=k, k_from="config", kind=adapted_kind(site, k) or UNKNOWN)


def _integer(owner: object, names: Sequence[str]) -> int | None:
    values = (getattr(owner, name, None) for name in names)
    return next((value for value in values if isinstance(value, int) and not isinstance(value, bool)), None)
