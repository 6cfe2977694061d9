"""A head is what its slice says: by cause (weights of one head move one slice) and by hand."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from moeprobe.editing import Heads, Places, find_places
from moeprobe.editing.heads import find_heads
from tests.capture.families import tiny
from tests.capture.families.checks import forward
from tests.editing.places_table import SITES

torch.set_num_threads(1)
# Norms over all queries or keys, so that a query of one head moves the others: only values are moved there.
NORMED = {"flex_olmo", "minimax_m2", "olmoe"}
# Sizes at which keys, values and positions of a head have different widths.
VARIED: dict[str, tuple[dict[str, Any], set[tuple[int, int]]]] = {
    "axk2": ({"v_head_dim": 12}, {(4, 12)}),
    "deepseek_v2": ({"v_head_dim": 12, "qk_nope_head_dim": 16}, {(4, 12)}),
    "deepseek_v3": ({"v_head_dim": 12}, {(4, 12)}),
    "gpt_oss": ({"head_dim": 12}, {(4, 12)}),
    "kimi_linear": ({"v_head_dim": 12, "linear_head_dim": 6}, {(4, 12), (4, 6)}),
    "mimo_v2_flash": ({"v_head_dim": 12, "swa_v_head_dim": 12}, {(4, 12)}),
    "qwen3_5_moe": ({"head_dim": 16, "linear_value_head_dim": 12, "linear_num_value_heads": 6}, {(4, 16), (6, 12)}),
    "qwen3_next": ({"head_dim": 16, "linear_value_head_dim": 12, "linear_num_value_heads": 6}, {(4, 16), (6, 12)}),
}


@dataclass(frozen=True)
class Knob:
    """Rows of a weight that belong to one head or key-value head, and the slices they may move."""

    name: str
    weight: Tensor
    rows: slice
    moves: frozenset[int]


def mixer_of(decoder: nn.Module, heads: Heads) -> nn.Module:
    return next(module for module in decoder.modules() if any(child is heads.module for child in module.children()))


def rows(each: int, which: int, start: int = 0) -> slice:
    return slice(start + which * each, start + (which + 1) * each)


def group(which: int, groups: int, count: int) -> frozenset[int]:
    """Heads that share key-value head `which` of `groups`."""
    return frozenset(range(which * count // groups, (which + 1) * count // groups))


def knobs(family: str, mixer: nn.Module, heads: Heads) -> Iterator[Knob]:
    """One knob for the first, second and last head of each kind of weight that a mixer has."""
    for name, module in mixer.named_modules():
        last, weight = name.split(".")[-1], getattr(module, "weight", None)
        if name.count(".") > (1 if family == "zaya" else 0) or weight is None:
            continue
        size = len(weight)
        if last in ("q_proj", "q_b_proj", "q_gate_proj", "q", "kv_b_proj") and family not in NORMED:
            yield from split(last, weight, size // heads.count, heads.count, heads, grouped=family == "zaya")
        elif last in ("k_proj", "k") and family not in NORMED | {"zaya"}:
            yield from split(last, weight, key_width(mixer, heads), size // key_width(mixer, heads), heads)
        elif last in ("v_proj", "v") and family != "doge":  # Doge masks by the values of all heads
            yield from split(last, weight, heads.width, size // heads.width, heads)
        elif last == "Wqkv":
            groups = (size // heads.width - heads.count) // 2
            yield from split("query", weight, heads.width, heads.count, heads)
            start = (heads.count + groups) * heads.width
            yield from split("value", weight, heads.width, groups, heads, start=start)
        elif last == "in_proj_qkv":
            width, groups = int(mixer.head_k_dim), int(mixer.num_k_heads)
            yield from split("query", weight, width, groups, heads)
            yield from split("key", weight, width, groups, heads, start=groups * width)
            yield from split("value", weight, heads.width, heads.count, heads, start=2 * groups * width)
        elif last == "in_proj_qkvz":
            yield from split(last, weight, size // int(mixer.num_k_heads), int(mixer.num_k_heads), heads)
            # Inside a key head: its query, its key, then its value heads.
            groups, width = int(mixer.num_k_heads), int(mixer.head_k_dim)
            for head in {0, 1, heads.count - 1}:
                key, inside = divmod(head, heads.count // groups)
                start = key * (size // groups) + 2 * width + inside * heads.width
                yield Knob("value", weight, slice(start, start + heads.width), frozenset({head}))


def key_width(mixer: nn.Module, heads: Heads) -> int:
    width = getattr(mixer, "head_dim", None)
    return int(width) if isinstance(width, int) else heads.width


def split(
    name: str, weight: Tensor, each: int, groups: int, heads: Heads, *, start: int = 0, grouped: bool = False
) -> Iterator[Knob]:
    assert heads.count % groups == 0, (name, tuple(weight.shape), each, groups)
    for which in sorted({0, min(1, groups - 1), groups - 1}):
        # Zaya adds the mean of a group's queries to their key.
        moves = group(which * 2 // groups, 2, heads.count) if grouped else group(which, groups, heads.count)
        yield Knob(name, weight, rows(each, which, start), moves)


@contextmanager
def moved(knob: Knob) -> Iterator[None]:
    """The knob's rows of its weight, changed."""
    kept = knob.weight.detach().clone()
    with torch.no_grad():
        chance = torch.randn(kept[knob.rows].shape, generator=torch.Generator().manual_seed(3))
        knob.weight[knob.rows] += chance * kept.std()
    try:
        yield
    finally:
        with torch.no_grad():
            knob.weight.copy_(kept)


def slices(model: PreTrainedModel, heads: Heads) -> Tensor:
    """(rows, heads, width): what the output projection reads."""
    found: list[Tensor] = []
    handle = heads.module.register_forward_pre_hook(lambda module, args: found.append(args[0].detach().clone()))
    forward(model)
    handle.remove()
    (value,) = found
    return value.reshape(-1, heads.count, heads.width)


def mixers(places: dict[int, Places]) -> dict[str, tuple[nn.Module, Heads]]:
    """One layer of each kind: the mixer and its heads."""
    found: dict[str, tuple[nn.Module, Heads]] = {}
    for one in places.values():
        if one.heads is not None:
            mixer = mixer_of(one.decoder, one.heads)
            found.setdefault(f"{type(mixer).__name__} {one.heads.count}x{one.heads.width}", (mixer, one.heads))
    return found


def checked(family: str, model: PreTrainedModel, places: dict[int, Places]) -> int:
    """Every knob moves exactly its slices; returns how many knobs were tried."""
    tried = 0
    for kind, (mixer, heads) in mixers(places).items():
        before = slices(model, heads)
        names = set()
        for knob in knobs(family, mixer, heads):
            with moved(knob):
                apart = (slices(model, heads) - before).abs().amax(dim=(0, 2))
            large = {head for head in range(heads.count) if float(apart[head]) > 1e-4}
            assert large == knob.moves, (kind, knob.name, knob.rows, apart)
            still = [float(apart[head]) for head in range(heads.count) if head not in knob.moves]
            assert max(still, default=0.0) < 1e-6, (kind, knob.name, knob.rows, apart)
            names.add(knob.name)
            tried += 1
        assert names, f"{kind} has no weight that belongs to one head"
    return tried


WITH_HEADS = [family for family in SITES if " H" in SITES[family]]


@pytest.mark.parametrize("family", WITH_HEADS)
def test_weights_of_one_head_move_its_slice_and_no_other(family: str) -> None:
    model = tiny.build(family)
    assert checked(family, model, find_places(model)) >= 2


@pytest.mark.parametrize("family", list(VARIED))
def test_also_where_keys_values_and_positions_have_other_widths(family: str) -> None:
    changes, expected = VARIED[family]
    model = tiny.build_class(tiny.CLASSES[family], {**tiny.CHANGES.get(family, {}), **changes})
    places = find_places(model)
    assert {(one.heads.count, one.heads.width) for one in places.values() if one.heads is not None} == expected
    assert checked(family, model, places) >= 2


@pytest.mark.parametrize("family", ["mixtral", "qwen3_5_moe", "deepseek_v3"])
def test_other_slices_are_rejected(family: str) -> None:
    """Halves of heads, and slices of what the mixer itself reads, do not pass the check above."""
    model = tiny.build(family)
    places = find_places(model)

    def halves(mixer: nn.Module, heads: Heads) -> Heads:
        return Heads(heads.module, heads.count * 2, heads.width // 2)

    def inputs(mixer: nn.Module, heads: Heads) -> Heads:
        return Heads(
            next(child for child in mixer.children() if isinstance(child, nn.Linear)), heads.count, heads.width
        )

    for change in (halves, inputs):
        wrong = {}
        for layer, one in places.items():
            assert one.heads is not None
            heads = change(mixer_of(one.decoder, one.heads), one.heads)
            wrong[layer] = Places(**{**vars(one), "heads": heads})
        with pytest.raises(AssertionError):
            checked(family, model, wrong)


# By hand, head by head: (mixer, hidden (positions, width), cos, sin (positions, turned)) -> (positions, heads, width)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on the first dimensions: halves turned against each other."""
    part, rest = x[:, : cos.shape[-1]], x[:, cos.shape[-1] :]
    left, right = part.chunk(2, dim=-1)
    return torch.cat([part * cos + torch.cat([-right, left], dim=-1) * sin, rest], dim=-1)


def attended(q: Tensor, k: Tensor, v: Tensor, scale: float, sink: Tensor | None = None) -> Tensor:
    """Causal softmax attention of one head, (positions, width); a sink takes its share and gives nothing."""
    scores = (q @ k.T * scale).masked_fill(torch.ones(len(q), len(q)).triu(1).bool(), -torch.inf)
    if sink is not None:
        scores = torch.cat([scores, sink.expand(len(q), 1)], dim=1)
    return scores.softmax(-1)[:, : len(k)] @ v


def root_mean_square(x: Tensor, weight: Tensor) -> Tensor:
    return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * weight


def plain(mixer: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Grouped queries; with norms per head or over all, sinks, and a gate beside each query where there are."""
    width, kv = mixer.head_dim, mixer.k_proj.out_features // mixer.head_dim
    count = mixer.o_proj.in_features // width
    q, k, v = mixer.q_proj(x), mixer.k_proj(x), mixer.v_proj(x)
    gate = None
    if mixer.q_proj.out_features == 2 * count * width:
        q, gate = (part.flatten(1) for part in q.view(len(x), count, 2 * width).chunk(2, dim=-1))
    over_all = hasattr(mixer, "q_norm") and mixer.q_norm.weight.numel() > width
    if over_all:
        q, k = root_mean_square(q, mixer.q_norm.weight), root_mean_square(k, mixer.k_norm.weight)
    found = []
    for head in range(count):
        one = [part[:, rows(width, at)] for part, at in ((q, head), (k, head * kv // count), (v, head * kv // count))]
        if hasattr(mixer, "q_norm") and not over_all:
            # Qwen 3.5's norms scale by 1 + weight.
            plus = 1.0 if "Qwen3_5" in type(mixer).__name__ else 0.0
            one[0] = root_mean_square(one[0], mixer.q_norm.weight + plus)
            one[1] = root_mean_square(one[1], mixer.k_norm.weight + plus)
        sink = mixer.sinks[head] if hasattr(mixer, "sinks") else None
        scale = mixer.config.attention_multiplier if "Granite" in type(mixer).__name__ else width**-0.5
        out = attended(turned(one[0], cos, sin), turned(one[1], cos, sin), one[2], scale, sink)
        found.append(out if gate is None else out * gate[:, rows(width, head)].sigmoid())
    return torch.stack(found, dim=1)


def latent(mixer: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """DeepSeek V3: queries and keys of a part without positions and a part with; the latter shared by all heads."""
    nope, rope, width = mixer.qk_nope_head_dim, mixer.qk_rope_head_dim, mixer.v_head_dim
    q = mixer.q_b_proj(root_mean_square(mixer.q_a_proj(x), mixer.q_a_layernorm.weight))
    low, k_rope = mixer.kv_a_proj_with_mqa(x).split([mixer.kv_lora_rank, rope], dim=-1)
    kv = mixer.kv_b_proj(root_mean_square(low, mixer.kv_a_layernorm.weight))
    # Positions turn neighbours against each other: even places first, then odd ones, makes halves of them.
    order = torch.cat([torch.arange(0, rope, 2), torch.arange(1, rope, 2)])
    found = []
    for head in range(mixer.num_heads):
        one = q[:, rows(nope + rope, head)]
        keys, values = kv[:, rows(nope + width, head)].split([nope, width], dim=-1)
        query = torch.cat([one[:, :nope], turned(one[:, nope:][:, order], cos, sin)], dim=-1)
        key = torch.cat([keys, turned(k_rope[:, order], cos, sin)], dim=-1)
        found.append(attended(query, key, values, (nope + rope) ** -0.5))
    return torch.stack(found, dim=1)


BY_HAND = {
    "deepseek_v3": latent, "glm4_moe": plain, "gpt_oss": plain, "granitemoe": plain, "mixtral": plain, "olmoe": plain,
    "qwen2_moe": plain, "qwen3_5_moe": plain, "qwen3_moe": plain,
}  # fmt: skip


@pytest.mark.parametrize("family", list(BY_HAND))
def test_each_head_computed_by_hand_is_its_slice(family: str) -> None:
    changes = VARIED[family][0] if family in VARIED else {}
    model = tiny.build_class(tiny.CLASSES[family], {**tiny.CHANGES.get(family, {}), **changes})
    one = [one for one in find_places(model).values() if one.heads is not None][-1]
    assert one.heads is not None
    mixer, calls = mixer_of(one.decoder, one.heads), []
    handle = mixer.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
    )
    seen = slices(model, one.heads).view(2, -1, one.heads.count, one.heads.width)
    handle.remove()
    ((args, kwargs),) = calls
    hidden = kwargs.get("hidden_states", args[0] if args else None)
    cos, sin = kwargs.get("position_embeddings", args[1] if len(args) > 1 else None)
    with torch.inference_mode():
        made = BY_HAND[family](mixer, hidden[0], whole(cos[0]), whole(sin[0]))
    assert made.shape == seen[0].shape
    # The first prompt has no padding.
    torch.testing.assert_close(made, seen[0], rtol=1e-4, atol=1e-5)


def whole(table: Tensor) -> Tensor:
    """gpt-oss keeps half of the table, since both halves are alike."""
    return table if len(table.shape) < 2 or not is_half(table) else torch.cat([table, table], dim=-1)


def is_half(table: Tensor) -> bool:
    half = table.shape[-1] // 2
    return not torch.equal(table[:, :half], table[:, half:])


# What is refused, built by hand.


class Mixer(nn.Module):
    def __init__(self, read: int = 32, **facts: Any) -> None:
        super().__init__()
        self.o_proj = nn.Linear(read, 16)
        for name, fact in facts.items():
            setattr(self, name, fact)


class Layer(nn.Module):
    def __init__(self, **children: nn.Module) -> None:
        super().__init__()
        for name, child in children.items():
            setattr(self, name, child)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Layer(attn=Mixer(head_dim=8)), "reads 32 values, which are not an unknown number of heads of 8"),
        (Layer(attn=Mixer(head_dim=8, num_heads=8)), "reads 32 values, which are not 8 heads of 8"),
        (Layer(attn=Mixer(head_dim=7, num_heads=4)), "reads 32 values, which are not 4 heads of 7"),
        (Layer(attn=Mixer(head_dim=8, num_heads=4, norm=nn.RMSNorm(32))), "norms all heads together (norm)"),
        (Layer(attn=Mixer(head_dim=8, num_heads=4, D=nn.Parameter(torch.ones(4)))), "state-space model"),
        (Layer(conv=Mixer()), "has no heads"),
        (
            Layer(a=Mixer(head_dim=8, num_heads=4), b=Mixer(head_dim=8, num_heads=4)),
            "several attention modules (a and b)",
        ),
        (Layer(self_attn=nn.Linear(4, 4)), "self_attn (Linear) has no single projection"),
    ],
)
def test_mixers_that_are_not_understood_are_refused(layer: nn.Module, reason: str) -> None:
    found = find_heads(layer)
    assert isinstance(found, str)
    assert reason in found


def test_mixers_that_are_understood() -> None:
    inside = Mixer(head_dim=8, num_heads=4)
    for layer in (Layer(attn=inside), Layer(attn=inside, cross_attn=Mixer(head_dim=8, num_heads=4))):
        found = find_heads(layer)
        assert found == Heads(inside.o_proj, 4, 8)
    assert find_heads(Layer(attn=Mixer(head_dim=8, num_heads=4, q_norm=nn.RMSNorm(32)))) is not None
    assert find_heads(Layer(mlp=nn.Linear(4, 4))) is None
    assert isinstance(find_heads(Layer(self_attn=inside, mlp=Mixer())), Heads)
    assert isinstance(find_heads(Layer(mlp=inside), but=[inside]), type(None))
