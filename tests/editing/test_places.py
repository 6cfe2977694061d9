"""Each family's sites: what there is and what is refused is as written down; every place is what it claims to be."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from moeprobe.capture import find_experts
from moeprobe.editing import Places, find_places, layout_of, oracle, reading
from moeprobe.errors import ModelError, MoeprobeError
from moeprobe.sites import KINDS, parse_sites
from tests.capture.families import tiny
from tests.capture.families.checks import PROMPT, forward
from tests.editing.places_table import REASONS, SITES
from tests.editing.written import reasons, written

torch.set_num_threads(1)
FAMILIES = [family for family in tiny.FAMILIES if family != "nllb_moe"]
ROWS = 2 * PROMPT
Combine = Callable[[Any, Tensor, Tensor], Tensor]


def scaled(block: Any, routed: Tensor, shared: Tensor) -> Tensor:
    return routed * block.routed_scaling_factor + shared


def without(block: Any, routed: Tensor, shared: Tensor) -> Tensor:
    assert float(shared.abs().max()) > 0
    return routed


# Blocks whose output is not routed + shared: (block, routed, shared) -> output.
BLOCKS: dict[str, Combine] = {
    "axk1": lambda block, routed, shared: block.post_mlp_layernorm(routed + shared),
    "beam": scaled,
    "cohere2_moe": lambda block, routed, shared: (routed + shared) / 2,
    # Shared experts stand beside the block.
    "granitemoe_swa": without,
    "granitemoehybrid": without,
    "granitemoeshared": without,
    "laguna": scaled,
    "minimax_m3_vl": scaled,
    "muse_spark": lambda block, routed, shared: block.post_expert_proj(routed),
    "openai_privacy_filter": lambda block, routed, shared: routed * block.router.top_k,
    "step3p7": scaled,
}
# Logits are a scaled or capped product of the head.
CAPPED = {"beam", "diffusion_gemma", "mistral_large4", "muse_spark"}
SCALED = {"cohere2_moe", "inkling", "switch_transformers"}


@cache
def built(family: str) -> PreTrainedModel:
    return tiny.build(family)


@contextmanager
def kept(hooked: dict[Any, tuple[nn.Module, bool]]) -> Iterator[dict[Any, list[Tensor]]]:
    """Copies of what modules return, or (True) of what they read, by key, one for each call."""
    values: dict[Any, list[Tensor]] = {key: [] for key in hooked}

    def copy(value: Any) -> Tensor:
        # A copy, since Llama 4 adds routed outputs to the shared one in place.
        return (value[0] if isinstance(value, tuple) else value).detach().clone()

    handles = []
    for key, (module, reads) in hooked.items():
        if reads:
            keep = lambda module, args, key=key: values[key].append(copy(args[0]))  # noqa: E731  # binds key
            handles.append(module.register_forward_pre_hook(keep))
        else:
            keep = lambda module, args, output, key=key: values[key].append(copy(output))  # noqa: E731  # binds key
            handles.append(module.register_forward_hook(keep))
    try:
        yield values
    finally:
        for handle in handles:
            handle.remove()


def hooks(places: dict[int, Places]) -> dict[Any, tuple[nn.Module, bool]]:
    """Every place that is not refused: (layer, kind) -> the module, and whether what it reads counts."""
    found: dict[Any, tuple[nn.Module, bool]] = {}
    for layer, one in places.items():
        modules = {
            "shared": one.shared,
            "moe": one.block,
            "head": None if one.heads is None else one.heads.module,
            "residual": one.decoder,
        }
        for kind, module in modules.items():
            if module is not None and kind not in one.refused:
                found[layer, kind] = (module, kind == "head")
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_sites_and_refusals_are_those_written_down(family: str) -> None:
    places = find_places(built(family))
    assert written(places) == SITES[family]
    assert reasons(places) == {kind: {reason} for kind, reason in REASONS.get(family, {}).items()}


def test_every_family_is_written_down_and_no_other() -> None:
    assert set(SITES) == set(FAMILIES)
    assert set(REASONS) <= set(SITES)
    with pytest.raises(ModelError, match="nllb-moe"):
        find_places(tiny.build("nllb_moe"))


@pytest.mark.parametrize("family", FAMILIES)
def test_each_place_is_called_once_with_a_row_for_every_token(family: str) -> None:
    places = find_places(built(family))
    wanted = hooks(places)
    with kept(wanted) as values:
        forward(built(family))
    hidden = {values[key][0].shape[-1] for key in wanted if key[1] == "residual"} or {
        built(family).config.get_text_config().hidden_size
    }
    assert len(hidden) == 1
    for layer, kind in wanted:
        (value,) = values[layer, kind]
        heads = places[layer].heads
        width = heads.count * heads.width if kind == "head" and heads is not None else next(iter(hidden))
        assert value.numel() == ROWS * width, (layer, kind, value.shape)
        assert value.shape[-1] == width, (layer, kind, value.shape)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_read_is_what_stood_there(family: str) -> None:
    """Also where the model goes on in place."""
    places = find_places(built(family))
    wanted = hooks(places)
    with kept(wanted) as values, reading(places, list(wanted)) as seen:
        forward(built(family))
    for (layer, kind), (value,) in values.items():
        if kind != "shared" or places[layer].shared_gate is None:
            assert torch.equal(seen.values[layer, kind], value.flatten(0, -2)), (layer, kind)


def test_the_document_tells_every_refusal() -> None:
    lines = (Path(__file__).parents[2] / "docs" / "sites.md").read_text().splitlines()
    rows = {tuple(cell.strip().strip("`") for cell in line.strip("|").split("|")) for line in lines if line[:1] == "|"}
    letters = {"expert": "E*", "head": "H*"}
    due = {
        (family, letters.get(kind, kind), reason)
        for family, refused in REASONS.items()
        for kind, reason in refused.items()
    }
    assert due == {row for row in rows if len(row) == 3 and row[0] in SITES and row[1] in {"E*", "H*", *KINDS}}


@pytest.mark.parametrize("family", FAMILIES)
def test_shared_experts_and_routers_agree_with_what_capture_found(family: str) -> None:
    model, places = built(family), find_places(built(family))
    sites = {site.layer: site for site in find_experts(model) if site.stack == ""}
    assert {layer for layer, one in places.items() if one.experts is not None} == set(sites)
    assert sorted(places) == list(range(tiny.LAYERS))
    for layer, site in sites.items():
        one = places[layer]
        assert site.shared == (one.shared is not None or ("shared" in one.refused and "moe" not in one.refused))
        assert one.router is not None
        called: list[Any] = []
        handle = one.router.register_forward_hook(lambda module, args, output, called=called: called.append(output))
        forward(model)
        handle.remove()
        (output,) = called
        parts = [part for part in (output if isinstance(output, tuple) else (output,)) if isinstance(part, Tensor)]
        # Doge scores the product keys of its experts, the square root of as many, twice.
        enough = site.experts if family != "doge" else 2 * site.experts**0.5
        assert max(part.shape[-1] for part in parts if part.is_floating_point()) >= enough
        assert ("expert" in one.refused) == (oracle.refused(site) is not None)


def follows(family: str, model: PreTrainedModel) -> list[float]:
    """By layer, how far the block's output is from what its parts make of it, relative to the block's largest."""
    places, found = find_places(model), []
    wanted: dict[Any, tuple[nn.Module, bool]] = {}
    for layer, one in places.items():
        if one.experts is None or one.block is None:
            continue
        wanted |= {(layer, "routed"): (one.experts.module, False), (layer, "moe"): (one.block, False)}
        if one.shared is not None:
            wanted[layer, "shared"] = (one.shared, False)
        if one.shared_gate is not None:
            wanted[layer, "gate"] = (one.shared_gate, False)
    with kept(wanted) as values:
        forward(model)
    for layer, one in places.items():
        if (layer, "moe") not in wanted:
            continue
        part = {kind: values[layer, kind][0].flatten(0, -2) for at, kind in wanted if at == layer}
        shared = part.get("shared", torch.zeros(1))
        shared = shared * part["gate"].sigmoid() if "gate" in part else shared
        with torch.inference_mode():
            made = BLOCKS.get(family, lambda block, routed, shared: routed + shared)(one.block, part["routed"], shared)
        found.append(float((made - part["moe"]).abs().max() / part["moe"].abs().max()))
    return found


SUMS = [family for family in FAMILIES if not {"moe", "expert"} & set(REASONS.get(family, {}))]


@pytest.mark.parametrize("family", SUMS)
def test_the_block_is_made_of_routed_and_shared_outputs(family: str) -> None:
    found = follows(family, built(family))
    assert found
    assert max(found) < 1e-6


@pytest.mark.parametrize("family", sorted(BLOCKS))
def test_blocks_that_are_no_plain_sum_are_none(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(BLOCKS, family)
    assert max(follows(family, built(family))) > 0.01


def from_residual(family: str, stream: Callable[[Places], nn.Module]) -> tuple[bool, float]:
    """Whether a final norm reads just what `stream` of the last layer returns, and how far logits made of it are."""
    model, places = built(family), find_places(built(family))
    last = places[max(places)]
    path = next(path for path, module in model.named_modules() if module is last.decoder)
    beside = model.get_submodule(".".join(path.split(".")[:-2]))
    norms = {name: child for name, child in beside.named_children() if "norm" in name or name == "ln_f"}
    with kept({"out": (stream(last), False)} | {name: (norm, True) for name, norm in norms.items()}) as values:
        _, logits = forward(model)
    (value,) = values["out"]
    reads = [name for name in norms if len(values[name]) == 1 and torch.equal(values[name][0], value)]
    if not reads:
        return False, float("inf")
    head = model.get_output_embeddings()
    with torch.inference_mode():
        normed = norms[reads[0]](value)
        made = normed if head is None else head(normed)
    if family in CAPPED:
        made, logits = made.argsort(-1).float(), logits.argsort(-1).float()
    elif family in SCALED:
        made = made * (logits.norm() / made.norm())
    return True, float((made - logits).abs().max())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_residual_alone_gives_the_logits(family: str) -> None:
    """And where a layer's output is refused as the residual stream, it does not."""
    reads, off = from_residual(family, lambda last: last.decoder)
    refused = "residual" in REASONS.get(family, {})
    assert reads is not refused
    assert refused or off < 1e-5


def test_another_module_in_the_place_of_the_layer_is_seen() -> None:
    assert from_residual("mixtral", lambda last: last.block or last.decoder)[0] is False


@pytest.mark.parametrize("name", list(tiny.SEVERAL_STACKS))
def test_models_with_several_stacks_give_their_text_stack(name: str) -> None:
    model = tiny.build_class(name, tiny.SEVERAL_STACKS[name])
    places = find_places(model)
    assert sorted(places) == list(range(tiny.LAYERS))
    paths = {id(module): path for path, module in model.named_modules()}
    assert all(
        "vision" not in paths[id(one.decoder)] and "talker" not in paths[id(one.decoder)] for one in places.values()
    )
    assert all(one.heads is not None for one in places.values())


# From the default config of each class, that of its first release: layers by heads and their width.
FULL_SIZE = {
    "deepseek_v3": {"128x128": 61},
    "dots3_note": {"128x128": 13, "64x128": 33},
    "gpt_oss": {"64x64": 36},
    "inkling": {"64x128": 66},
    "jamba": {"None": 28, "32x128": 4},
    "kimi_linear": {"32x128": 27},
    "mimo_v2_flash": {"64x128": 48},
    "minimax": {"32x128": 16, "None": 16},
    "qwen3_5_moe": {"32x128": 30, "16x256": 10},
    "step3p7": {"64x128": 45},
}


@pytest.mark.parametrize("family", list(FULL_SIZE))
def test_heads_at_full_size(family: str) -> None:
    """Without weights. At tiny size many widths are alike, so that one could stand for another."""
    cls = getattr(transformers, tiny.CLASSES[family])
    with torch.device("meta"):
        model = cls._from_config(cls.config_class())
    heads = [one.heads for one in find_places(model).values()]
    counts = Counter("None" if one is None else f"{one.count}x{one.width}" for one in heads)
    assert counts == FULL_SIZE[family]


@pytest.mark.parametrize(
    ("family", "text", "message"),
    [
        (
            "gemma4",
            "L1.moe",
            "MoE block of L1 cannot be read and edited: its router and experts stand in the decoder",
        ),
        ("deepseek_v4", "L2.residual", "4 residual streams run side by side"),
        ("jamba", "L*.H9", "no layer of that band has it. Its layers go to H3 at most."),
        ("jamba", "L1.H0", "state-space model (JambaMambaMixer)"),
        ("minimax", "L1.H0", "norms all heads together"),
        ("jetmoe", "L0.H0", "mixture of attention"),
        ("mixtral", "L1.shared", "L1 has no shared expert. It has E0-E7, H0-H3, router, moe, residual."),
        ("deepseek_v3", "L0.E1", "L0 has no experts. It has H0-H3, residual. Layers with experts: L1-L3."),
        ("nemotron_h", "L1.H0", "L1 has no attention heads. It has E0-E7, router, shared, moe, residual."),
    ],
)
def test_what_a_model_has_not_is_said_in_words(family: str, text: str, message: str) -> None:
    with pytest.raises(MoeprobeError) as caught:
        parse_sites(text, layout_of(find_places(built(family))))
    assert message in str(caught.value)


def test_several_lists_of_layers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = built("mixtral")
    sites = find_experts(model)
    moved = type(sites[1])(**{**vars(sites[1]), "path": "model.others.1.mlp.experts"})
    monkeypatch.setattr("moeprobe.editing.places.find_experts", lambda model: [sites[0], moved])
    with pytest.raises(ModelError, match="stand in 2 lists"):
        find_places(model)
