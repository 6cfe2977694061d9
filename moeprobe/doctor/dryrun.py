"""A pass without data: the whole model is run on empty tensors of the meta device, the experts being stepped over.

Shapes, dtypes, operations and the module that returns the ids are those of a real run. Only code that looks into a
tensor cannot be followed; where a model's masks do that, other ways of calling it are tried.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from moeprobe.capture.attach import read_routing, seam
from moeprobe.capture.discover import ExpertsSite
from moeprobe.doctor.dataflow import Dataflow, ReturnedBy, classes_of, returned_by, routing_kind, tensors

_TOKENS = 8
# Their adapters undo what the model did to its choice, so the operations that are seen are partly ours. From the source
# of transformers 5.23.
_ADAPTED = {
    "JetMoeMoE": "top-k then softmax",
    "JetMoeMoA": "top-k then softmax",
    "Llama4TextExperts": "top-k then sigmoid",
    "SwitchTransformersExperts": "softmax",
    "DogeCDMoE": "product keys, top-k then softmax",
}


@dataclass(frozen=True)
class Seen:
    """What a pass showed of one site; see SurveyedSite for the fields.

    Attributes:
        classes: 0 when the router's scores were not seen.
        width: None when the router's input was not seen.
    """

    k: int
    weights: str
    kind: str
    router: str | None
    router_by: str
    classes: int
    width: int | None


@dataclass(frozen=True)
class DryRun:
    """What was seen, by path of the experts; whether the whole model ran through; why a pass broke off ("" if none)."""

    seen: dict[str, Seen]
    ran: bool
    broke: str


def dry_run(model: PreTrainedModel, sites: Sequence[ExpertsSite], width: int) -> DryRun:
    """Run `model`, which must be on the meta device, on empty tensors.

    Args:
        model: a skeleton.
        sites: its sites.
        width: of the hidden states, for blocks that are run by themselves.
    """
    seen: dict[str, Seen] = {}
    ran, broke = False, ""
    flow = Dataflow(model)

    def note(tensor: Tensor, path: str) -> None:
        flow.step(tensor).modules.append(path)

    with contextlib.ExitStack() as stack:
        for site in sites:
            stack.enter_context(_stepped_over(site))
            stack.enter_context(_Watch(model, site, flow, seen))
        stack.enter_context(ReturnedBy(model, [site.module for site in sites], note))
        stack.enter_context(torch.no_grad())
        stack.enter_context(flow)
        for faithful, call in _calls(model, sites, width, flow):
            if all(site.path in seen for site in sites):
                break
            try:
                call()
                ran = ran or faithful
            except Exception as problem:  # noqa: BLE001  # a model's own code may need data, in any place and any way
                broke = broke or f"{type(problem).__name__}: {problem}".strip().splitlines()[0][:160]
    return DryRun(seen, ran, broke)


def handed_over(ids: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The tensor that became `ids` at the experts' call: ours is another object of the same shape."""
    given = (one for one in tensors((args, kwargs)) if not one.is_floating_point() and one.shape == ids.shape)
    return next(given, ids)


def path_of(model: nn.Module, module: nn.Module) -> str:
    """Path of `module` inside `model`."""
    path: str = next(path for path, one in model.named_modules() if one is module)
    return path


def adapted_kind(site: ExpertsSite, k: int) -> str | None:
    """Kind of routing of a family that has an adapter, which hides the operations; None for all others."""
    kind = _ADAPTED.get(type(site.module).__name__)
    return f"{kind}, top-1" if kind and k == 1 else kind


def _calls(
    model: PreTrainedModel, sites: Sequence[ExpertsSite], width: int, flow: Dataflow
) -> Iterator[tuple[bool, Callable[[], object]]]:
    """Ways to run the model; False for those that may take another path than a real run."""
    ids = torch.zeros((1, _TOKENS), dtype=torch.long, device="meta")
    inputs: dict[str, Any] = {"input_ids": ids}
    inputs |= {"decoder_input_ids": ids} if getattr(model.config, "is_encoder_decoder", False) else {}
    # With a cache, most models make their masks without looking into them.
    yield True, functools.partial(model, **inputs, use_cache=True)
    yield True, functools.partial(model, **inputs, use_cache=False)
    yield True, functools.partial(model, **inputs)

    def guessing() -> object:
        with flow.guessing():
            return model(**inputs)

    yield False, guessing
    hidden = torch.zeros((1, _TOKENS, width), dtype=model.dtype, device="meta")
    for path in dict.fromkeys(site.path.rpartition(".")[0] for site in sites):
        yield False, functools.partial(model.get_submodule(path), hidden)


@contextlib.contextmanager
def _stepped_over(site: ExpertsSite) -> Iterator[None]:
    """Experts that return an empty tensor of the right shape, since their loops need data; hooks on them still run."""
    module, at_call = seam(site)
    if not at_call and module is site.module:
        yield
        return
    site.module.forward = _empty_output
    try:
        yield
    finally:
        del site.module.forward


def _empty_output(hidden: Tensor, *_: Any, **__: Any) -> Tensor:
    return torch.empty_like(hidden)


@dataclass
class _Watch:
    """Context manager that fills `seen` for one site."""

    model: PreTrainedModel
    site: ExpertsSite
    flow: Dataflow
    seen: dict[str, Seen]
    # Of the modules beside the experts, by path: width of the first number tensor they read, widths they return.
    reads: dict[str, int] = field(default_factory=dict)
    returns: dict[str, list[int]] = field(default_factory=dict)
    handles: list[RemovableHandle] = field(default_factory=list)

    def __enter__(self) -> None:
        module, at_call = seam(self.site)
        own = {id(inner) for inner in self.site.module.modules()}
        for name, inner in self.model.get_submodule(self._block).named_modules():
            if name and id(inner) not in own:
                hook = functools.partial(self._beside, f"{self._block}.{name}")
                self.handles.append(inner.register_forward_hook(hook, with_kwargs=True))
        self.handles.append(
            module.register_forward_pre_hook(self._choice, with_kwargs=True)
            if at_call
            else module.register_forward_hook(self._choice, with_kwargs=True)
        )

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    @property
    def _block(self) -> str:
        return self.site.path.rpartition(".")[0]

    def _beside(self, path: str, module: nn.Module, args: Any, kwargs: Any, output: object) -> None:
        del module
        given = next((one for one in tensors((args, kwargs)) if one.is_floating_point() and one.dim()), None)
        if given is not None:
            self.reads[path] = int(given.shape[-1])
        made = (one for one in tensors((output,)) if one.is_floating_point() and one.dim() >= 2)
        self.returns[path] = [int(one.shape[-1]) for one in made]

    def _choice(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object = None) -> None:
        ids, weights = read_routing(self.site, args, kwargs, output)
        step = self.flow.step(handed_over(ids, args, kwargs))
        found = returned_by(step, self._block)
        router, by = (None, "") if found is None else (found[0], "identity" if found[1] else "derived")
        if not seam(self.site)[1]:
            router, by = path_of(self.model, module), "hook"
        wide = [one for one in self.returns.get(router or "", []) if one >= self.site.experts]
        k = int(ids.shape[1])
        self.seen.setdefault(
            self.site.path,
            Seen(
                k=k,
                weights=str(weights.dtype).removeprefix("torch."),
                kind=adapted_kind(self.site, k) or routing_kind(step, self.flow.step(weights)),
                router=router,
                router_by=by,
                classes=classes_of(step) if classes_of(step) in wide else (wide or [0])[0],
                width=self.reads.get(router or ""),
            ),
        )
