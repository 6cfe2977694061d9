"""Attention heads of a layer: slices of what the output projection of its mixer reads.

Found by what a mixer says of itself (a width of heads, a number of heads) and by what its output projection reads. A
mixer whose projection does not read one head beside the other is refused, with the reason.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from torch import nn

# What output projections are called.
_OUT = ("o_proj", "out_proj", "o", "dense", "wo", "c_proj")
# What mixers call the width of what one head gives, the surest first: values may be narrower or wider than keys.
_WIDTHS = ("head_v_dim", "v_head_dim", "key_value_proj_dim", "head_dim")
# What mixers, or their configs, call the number of heads. Linear attention has as many as it has value heads.
_COUNTS = ("num_v_heads", "num_heads", "num_attention_heads", "n_heads")
# Attention to an encoder's output: L3.H0 is a head of self-attention.
_CROSS = re.compile(r"cross|encdec", re.IGNORECASE)
_ATTENTION = re.compile(r"att(n|ention)", re.IGNORECASE)


@dataclass(frozen=True)
class Heads:
    """Attention heads of a layer: slices of the output projection's input, `count` of `width`.

    Attributes:
        module: the output projection. Head h is values h * width to (h + 1) * width of the last dimension it reads.
        count: number of heads. In linear attention: of value heads.
        width: values per head.
    """

    module: nn.Module
    count: int
    width: int


def find_heads(decoder: nn.Module, *, but: Collection[nn.Module] = ()) -> Heads | str | None:
    """The heads of a decoder layer.

    Args:
        decoder: the layer.
        but: modules inside it that hold no mixer (the MoE block, shared experts).

    Returns:
        The heads; why they are refused, in words; or None where the layer has no mixer at all (as Nemotron-H's MoE
        layers).
    """
    mixers = list(_mixers(decoder, {id(inner) for module in but for inner in module.modules()}))
    with_width = [mixer for mixer in mixers if _width(mixer[1]) is not None]
    if len(with_width) > 1:
        paths = " and ".join(path for path, _, _ in with_width)
        return f"it has several attention modules ({paths}), so one number would name two heads"
    if with_width or mixers:
        _, mixer, projection = (with_width or mixers)[0]
        return _judge(mixer, projection)
    for name, child in decoder.named_children():
        if _ATTENTION.search(name) and next(child.parameters(), None) is not None:
            return f"{name} ({type(child).__name__}) has no single projection that reads its heads side by side"
    return None


def _mixers(decoder: nn.Module, but: Collection[int]) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """(path, mixer, output projection) of all modules of the layer that have an output projection."""
    for path, module in decoder.named_modules():
        if id(module) in but or module is decoder or _CROSS.search(path):
            continue
        for name, child in module.named_children():
            if name in _OUT and isinstance(getattr(child, "in_features", None), int):
                yield path, module, child
                break


def _width(mixer: nn.Module) -> int | None:
    return next((width for name in _WIDTHS if type(width := getattr(mixer, name, None)) is int), None)


def _judge(mixer: nn.Module, projection: nn.Module) -> Heads | str:
    name, width, read = type(mixer).__name__, _width(mixer), _int(projection, "in_features")
    # The skip of a state-space model; linear attention has none.
    if "D" in dict(mixer.named_parameters(recurse=False)):
        return f"its mixer is a state-space model ({name}), whose output is not made of heads"
    if width is None:
        return f"its mixer ({name}) has no heads"
    count, left = divmod(read, width)
    if left or count not in _declared(mixer, width):
        said = ", ".join(str(number) for number in sorted(_declared(mixer, width))) or "an unknown number of"
        return f"the output projection of {name} reads {read} values, which are not {said} heads of {width}"
    norm = _norm_across(mixer, read)
    if norm is not None and count > 1:
        return f"{name} norms all heads together ({norm}), so no slice is one head's own"
    return Heads(projection, count, width)


def _declared(mixer: nn.Module, width: int) -> set[int]:
    """Numbers of heads that a mixer speaks of: its own, its config's, or key-value heads times their groups."""
    config = vars(getattr(mixer, "config", object)) if hasattr(mixer, "config") else {}
    found = {number for name in _COUNTS if (number := _int(mixer, name) or _plain(config.get(name)))}
    groups, values = _int(mixer, "num_key_value_groups"), getattr(mixer, "v_proj", None)
    if groups and isinstance(values, nn.Module):
        found.add(groups * _int(values, "out_features") // width)
    return found


def _norm_across(mixer: nn.Module, read: int) -> str | None:
    """Name of a norm over all that the output projection reads; those of queries, keys and values come before it."""
    for name, child in mixer.named_children():
        weight = getattr(child, "weight", None)
        is_norm = "norm" in name.lower() or "norm" in type(child).__name__.lower()
        if is_norm and name[0] not in "qkv" and isinstance(weight, nn.Parameter) and weight.numel() == read:
            return name
    return None


def _int(module: nn.Module, name: str) -> int:
    return _plain(getattr(module, name, None))


def _plain(value: object) -> int:
    return value if type(value) is int else 0
