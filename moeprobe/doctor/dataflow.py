"""Where expert ids come from: the operations that made them, and the module that returned them.

The kind of routing is read off the operations between the router's matrix product and the choice, never off the name
of a class or of a setting. What that does not settle is called "unknown".
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

UNKNOWN = "unknown"
# Here a router begins: what lies before these is the model's, not the routing's.
_PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "linear", "matmul", "mv", "convolution", "einsum"}
_CHOICES = {"topk", "argmax", "sort", "argsort", "max"}
# Their first argument carries the values, the others only say which or where.
_LOOKUPS = {"gather", "index", "index_select", "take", "take_along_dim", "masked_fill", "masked_fill_"}
_SCORES = {"_softmax": "softmax", "sigmoid": "sigmoid", "sigmoid_": "sigmoid", "softplus": "softplus"}


@dataclass(eq=False)
class Step:
    """One tensor: the operation that made it, and from what.

    Attributes:
        op: name of the operation, "" for a tensor that was there before.
        parents: the tensors it was made from, in order of the arguments.
        output: which of the operation's outputs it is.
        shape: its shape.
        integer: whether it holds integers.
        name: of a parameter or buffer; else "".
        modules: paths of the modules that returned this very tensor, inner ones first.
    """

    op: str
    parents: tuple["Step", ...]
    output: int
    shape: tuple[int, ...]
    integer: bool
    name: str = ""
    modules: list[str] = field(default_factory=list)


class Dataflow(TorchDispatchMode):
    """Keeps the history of every tensor made while it is active. Meant for the meta device: it keeps them all alive.

    Args:
        model: whose parameters and buffers get their names.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it so
        self._steps: dict[int, Step] = {}
        self._alive: list[Tensor] = []
        self._guess = False
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            self._remember(tensor, Step("", (), 0, tuple(tensor.shape), not tensor.is_floating_point(), name))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        if self._guess and func is torch.ops.aten._local_scalar_dense.default:
            return not args[0].is_floating_point()
        given = [*tensors(args), *tensors((kwargs or {}).values())]
        result = func(*args, **(kwargs or {}))
        op = func.overloadpacket.__name__
        parents = tuple(self.step(tensor) for tensor in given)
        for index, tensor in enumerate(tensors((result,))):
            made = Step(op, parents, index, tuple(tensor.shape), not tensor.is_floating_point())
            self._remember(tensor, made)
            base = tensor._base
            # Writing into a slice writes into the whole; plain views leave it as it was.
            if base is not None and op.endswith("_") and given and tensor is given[0]:
                whole = Step(op, (self.step(base), made), 0, tuple(base.shape), not base.is_floating_point())
                self._remember(base, whole)
        return result

    @contextlib.contextmanager
    def guessing(self) -> Iterator[None]:
        """Answer 1 (0 for floats) where code asks an empty tensor for its value, which is mostly about masks."""
        self._guess = True
        try:
            yield
        finally:
            self._guess = False

    def step(self, tensor: Tensor) -> Step:
        """The history of `tensor`."""
        found = self._steps.get(id(tensor))
        if found is None:
            found = Step("", (), 0, tuple(tensor.shape), not tensor.is_floating_point())
            self._remember(tensor, found)
        return found

    def _remember(self, tensor: Tensor, step: Step) -> None:
        # Kept alive, so that no later tensor gets the same id().
        self._alive.append(tensor)
        self._steps[id(tensor)] = step


def routing_kind(ids: Step, weights: Step) -> str:
    """What kind of routing made `ids` and `weights`, both (tokens, k), for example "softmax" or
    "sigmoid, groups, correction bias, top-1"; "unknown" where the operations do not tell.
    """
    choices = _choices(ids)
    k = ids.shape[-1] if ids.shape else 0
    if not choices:
        table = any(step.integer and step.name and len(step.shape) == 2 for step in _before(ids))
        return "hash" if table else UNKNOWN
    scored = [step for choice in choices for step in _before(choice.parents[0])]
    valued = list(_values(weights))
    score = _score(scored, valued, k, classes_of(ids))
    if score == UNKNOWN:
        return UNKNOWN
    parts = [score]
    rounds = len({id(choice.parents[0]) for choice in choices})
    if rounds > 1:
        parts.append(f"{rounds} choices one after another")
    elif any(_narrows(step) for step in scored):
        parts.append("groups")
    if any(_is_bias(step, choices[0]) for step in scored if step not in set(valued)):
        parts.append("correction bias")
    if k == 1:
        parts.append("top-1")
    return ", ".join(parts)


def returned_by(step: Step, block: str) -> tuple[str, bool] | None:
    """The outermost module inside `block` that returned `step`, or else the nearest tensor it was made from.

    Returns:
        Its path, and whether it returned the very tensor; None when no module did.
    """
    inside = [path for path in step.modules if path.startswith(f"{block}.")]
    if inside:
        return inside[-1], True
    for earlier in _before(step):
        inside = [path for path in earlier.modules if path.startswith(f"{block}.")]
        if inside:
            return inside[-1], False
    return None


class ReturnedBy:
    """Context manager that notes which module returned which tensor.

    Args:
        model: whose modules are watched, those inside `skip` left out.
        skip: modules whose inside does not matter (the experts).
        note: called with (tensor, path) for each tensor a module returns, inner modules first.
    """

    def __init__(self, model: nn.Module, skip: Iterable[nn.Module], note: Callable[[Tensor, str], None]) -> None:
        hidden = {id(inner) for module in skip for inner in module.modules()}
        self._modules = [(path, module) for path, module in model.named_modules() if path and id(module) not in hidden]
        self._note = note
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> "ReturnedBy":
        self._handles = [module.register_forward_hook(self._hook(path)) for path, module in self._modules]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, path: str) -> Callable[[nn.Module, Any, Any], None]:
        def seen(module: nn.Module, args: Any, output: Any) -> None:
            del module, args
            for tensor in tensors((output,)):
                self._note(tensor, path)

        return seen


def tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors in `values` and in the tuples, lists and dicts among them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors(value)
        elif isinstance(value, dict):
            yield from tensors(value.values())


def _before(start: Step) -> Iterator[Step]:
    """`start` and what it was made from, nearest first, back to the last matrix products."""
    yield from _walk(start, lambda step: step.parents)


def _values(start: Step) -> Iterator[Step]:
    """As `_before`, but only along values: not through the indices or masks that picked them."""
    yield from _walk(start, lambda step: step.parents[:1] if step.op in _LOOKUPS else step.parents)


def _walk(start: Step, follow: Callable[[Step], tuple[Step, ...]]) -> Iterator[Step]:
    queue, seen = [start], {id(start)}
    for step in queue:
        yield step
        if step.op in _PRODUCTS:
            continue
        for parent in follow(step):
            if id(parent) not in seen:
                seen.add(id(parent))
                queue.append(parent)


def _nearest(start: Step, wanted: Callable[[Step], bool]) -> list[Step]:
    """The nearest steps that are `wanted`; nothing behind them is looked at."""
    return [step for step in _walk(start, lambda step: () if wanted(step) else step.parents) if wanted(step)]


def classes_of(ids: Step) -> int:
    """Among how many classes `ids` were chosen; 0 where no choice was seen."""
    choices = _choices(ids)
    return choices[0].parents[0].shape[-1] if choices and choices[0].parents[0].shape else 0


def _choices(ids: Step) -> list[Step]:
    return _nearest(ids, lambda step: step.op in _CHOICES and bool(step.parents))


def _score(scored: list[Step], valued: list[Step], k: int, classes: int) -> str:
    """The function that turns logits into weights, and whether it acts before or after the choice."""
    names = {id(step): _SCORES[step.op] for step in (*scored, *valued) if step.op in _SCORES}
    late = {
        names[id(step)]
        for step in valued
        if id(step) in names
        and (step.shape[-1] < classes or step.shape[-1] == k)
        and any(one.op in _CHOICES or one.op == "gather" for one in _values(step))
    }
    early = {names[id(step)] for step in (*scored, *valued) if id(step) in names} - late
    if len(late) == 1 and not early:
        return f"top-k then {late.pop()}"
    if early == {"softplus"} and any(step.op in ("sqrt", "sqrt_") for step in (*scored, *valued)):
        return "square root of softplus"
    return early.pop() if len(early) == 1 and not late else UNKNOWN


def _narrows(step: Step) -> bool:
    """Whether `step` is the choice of some groups among several: indices of a choice that leaves some out."""
    if step.op not in _CHOICES or not step.integer or not step.parents:
        return False
    width = step.parents[0].shape[-1] if step.parents[0].shape else 0
    return width > 1 and step.op == "topk" and step.shape[-1] < width


def _is_bias(step: Step, choice: Step) -> bool:
    """Whether `step` is a parameter or buffer with one number per class that the choice is made from."""
    classes = choice.parents[0].shape[-1] if choice.parents[0].shape else 0
    count = 1
    for size in step.shape:
        count *= size
    return bool(step.name) and not step.integer and count == classes > 1
