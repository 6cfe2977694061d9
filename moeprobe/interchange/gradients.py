"""Gradients: how much a run's metric would change with what stands at each place, from one forward and one backward.

Places are those of `editing`. The gradient is taken with respect to what a place adds or hands on: the experts' joint
output (every expert of the layer adds to it), the heads side by side, the shared experts' gated output, the block's and
the layer's output. Parameters are frozen meanwhile, so that no gradient of weights is computed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from moeprobe.editing.places import Places
from moeprobe.editing.seen import Place, Seen, arguments, first, flat, gate_values, place_of, reading
from moeprobe.errors import InterchangeError

# The way of running experts that every family has, whose backward needs no memory beyond its activations: batched_mm
# keeps a copy of an expert's weights for each choice, and grouped_mm without a native kernel makes gradients of all
# weights even where they are frozen.
_IMPLEMENTATION = "eager"
# Words in torch's errors when an operation of the forward has no backward.
_NO_BACKWARD = ("derivative", "does not require grad", "backward", "autograd")


@dataclass(frozen=True)
class Sensed:
    """One forward and its gradients.

    Attributes:
        seen: what stood at the places.
        score: (runs,) float64, the metric.
        slopes: d score of the row's own run / d value, (rows, width), by place; of "router" places that of the experts'
            joint output.
    """

    seen: Seen
    score: Tensor
    slopes: Mapping[Place, Tensor]


def sense(
    model: PreTrainedModel, places: Mapping[int, Places], wanted: Iterable[Place], run: Callable[[], Tensor]
) -> Sensed:
    """One forward and one backward for all places at once.

    Memory: as in training with frozen weights, all activations from the first place on stay until the backward, and
    two tensors (rows, width) for each place. Runs of one batch do not see one another, so the gradient of the sum of
    their scores is each run's own.

    Args:
        model: in eval mode.
        places: the model's places, by layer.
        wanted: (layer, kind) that are sensed.
        run: one forward of the model; gives the metric (runs,), differentiable with respect to the logits.

    Raises:
        InterchangeError: a place the model has not, a model in training mode, or one that gives no gradient.
    """
    if model.training:
        raise InterchangeError("The model is in training mode, where dropout makes every run another. Call eval().")
    wanted = list(dict.fromkeys(wanted))
    tracks = _Tracks(places, wanted)
    with (
        torch.inference_mode(False), torch.enable_grad(), _frozen(model), _differentiable(model), _explained(model),
        _folded(model), reading(places, wanted) as seen, tracks,
    ):  # fmt: skip
        score = run()
        tracks.check(score)
        held = list(tracks.held.values())
        found = torch.autograd.grad(score.sum(), held, allow_unused=True)
    slopes = {}
    for place, value, slope in zip(tracks.held, held, found, strict=True):
        # A place that no later value depends on has slope 0 (heads that are computed and not used).
        flown = torch.zeros_like(value) if slope is None else slope
        slopes[place] = flat(flown) / tracks.gates[place] if place in tracks.gates else flat(flown)
        if not bool(torch.isfinite(slopes[place]).all()):
            raise InterchangeError(
                f"The gradient at L{place[0]}.{place[1]} is not finite on these prompts. Try --dtype float32."
            )
    return Sensed(seen, score.detach(), slopes)


class _Tracks:
    """Hooks that keep the live value of each place within the graph, and begin the graph at the first of them.

    The module's caller gets a copy, because several families change it in place afterwards, which would change what is
    differentiated with respect to.
    """

    def __init__(self, places: Mapping[int, Places], wanted: Iterable[Place]) -> None:
        self.places = places
        self.wanted = list(wanted)
        self.held: dict[Place, Tensor] = {}
        self.gates: dict[Place, Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> "_Tracks":
        try:
            for layer, kind in self.wanted:
                self._install(layer, kind)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _install(self, layer: int, kind: str) -> None:
        module, place = place_of(self.places, layer, kind), (layer, kind)
        if kind == "head":

            def before(module: nn.Module, args: tuple[Any, ...]) -> Any:
                del module
                return self._hold(place, args[0], args[0]), *args[1:]

            self._handles.append(module.register_forward_pre_hook(before))
            return

        def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
            """Hold the output, and the gate that multiplies it afterwards."""
            del module
            given = arguments(args, kwargs)[0] if kind in ("expert", "router") else (*args, *kwargs.values())[0]
            if kind == "shared" and self.places[layer].shared_gate is not None:
                gate = gate_values(self.places[layer], flat(given)).detach().float()
                # Where a gate underflows to 0 nothing comes through, and the slope counts as 0.
                self.gates[place] = gate.clamp(min=torch.finfo(gate.dtype).tiny)
            held = self._hold(place, first(result), given)
            return held if isinstance(result, Tensor) else (held, *result[1:])

        self._handles.append(module.register_forward_hook(after, with_kwargs=True))

    def _hold(self, place: Place, value: Tensor, given: Tensor) -> Tensor:
        """Keep `value` and hand on a copy. `given`: what the module was called with."""
        if place in self.held:
            raise InterchangeError(f"L{place[0]}.{place[1]} runs twice in one forward, so it cannot be screened.")
        if given.requires_grad and not value.requires_grad:
            raise InterchangeError(
                f"The module at L{place[0]}.{place[1]} gives no gradient (quantised weights, or a kernel without a "
                "backward), so its sites cannot be screened. Name sites and swap them exactly."
            )
        self.held[place] = value if value.requires_grad else value.detach().requires_grad_()
        return self.held[place].clone()

    def check(self, score: Tensor) -> None:
        """Whether every place was met and the metric depends on them."""
        missing = [f"L{layer}.{kind}" for layer, kind in self.wanted if (layer, kind) not in self.held]
        if missing:
            raise InterchangeError(f"{', '.join(missing)} did not run in this forward, so they cannot be screened.")
        if not score.requires_grad:
            raise InterchangeError("The metric does not depend on the logits in a way that gives a gradient.")


@contextmanager
def _frozen(model: PreTrainedModel) -> Iterator[None]:
    """No parameter requires a gradient; afterwards those do that did."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def _differentiable(model: PreTrainedModel) -> Iterator[None]:
    """The experts run eagerly; afterwards as before."""
    before = model.get_experts_implementation()
    switched = any(name not in (None, _IMPLEMENTATION) for name in before.values())
    try:
        if switched:
            model.set_experts_implementation(_IMPLEMENTATION)
    except (RuntimeError, ValueError) as problem:
        raise InterchangeError(
            f"The experts cannot be run eagerly, so nothing can be screened ({_first_line(problem)}). Name sites and "
            "swap them exactly."
        ) from problem
    try:
        yield
    finally:
        if switched:
            model.set_experts_implementation(before)


@contextmanager
def _folded(model: PreTrainedModel) -> Iterator[None]:
    """The read-out columns reach the output embeddings as one block. They are a slice, for which torch's backward
    copies the matrix once for each run (60 % of the time on SmolLM2 in bfloat16)."""
    head = model.get_output_embeddings()

    def before(module: nn.Module, args: tuple[Any, ...]) -> Any:
        del module
        return tuple(one.contiguous() if isinstance(one, Tensor) else one for one in args)

    handle = None if head is None else head.register_forward_pre_hook(before)
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


@contextmanager
def _explained(model: PreTrainedModel) -> Iterator[None]:
    """An operation without a backward, in words."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as problem:
        if not any(word in str(problem) for word in _NO_BACKWARD):
            raise
        raise InterchangeError(
            f"{type(model).__name__} gives no gradient here ({_first_line(problem)}), so its sites cannot be screened. "
            "Name sites and swap them exactly."
        ) from problem


def _first_line(problem: BaseException) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]
