"""Which stack of layers an experts module belongs to, and what one forward pass of that stack is.

Names come from the module path alone, so wrappers do not matter: `model.layers.14.mlp.experts` and
`model.language_model.layers.14.mlp.experts` are both L14 of the main stack "".
"""

import re
from collections.abc import Iterable

from torch import nn
from transformers import PreTrainedModel

from moeprobe.errors import ModelError

MAIN = ""
# Stack -> what a segment of the module path looks like; the first that fits wins. Inside a layer, "attention" is the
# mixture-of-attention of JetMoe, "vision" the image experts that ERNIE 4.5 VL keeps beside its text experts.
_BEFORE_LAYER = {
    "talker": re.compile(r"talker|code_predictor|token2wav"),
    "audio": re.compile(r"audio|speech"),
    "vision": re.compile(r"vision|visual|image|vit\b"),
    "mtp": re.compile(r"\bmtp\b|nextn"),
    "encoder": re.compile(r"^encoder$"),
}
_IN_LAYER = {"vision": re.compile(r"vision|visual|image"), "attention": re.compile(r"attention|attn")}
# Stacks that a run on text never reaches.
SILENT = frozenset({"talker", "audio", "vision", "mtp"})
# Lists of layers. Not "layer": the blocks of T5-like models are lists of sub-layers of that name.
_LISTS = frozenset({"layers", "blocks", "block", "h"})


def split(path: str) -> tuple[list[str], int, list[str]]:
    """A module path as (segments before the layer number, the layer number, segments after it).

    Raises:
        ModelError: there is no number in the path.
    """
    segments = path.split(".")
    numbers = [place for place, segment in enumerate(segments) if segment.isdigit()]
    if not numbers:
        raise ModelError(f"The module {path} stands in no numbered layer, so its experts cannot be named.")
    in_lists = [place for place in numbers if place > 0 and segments[place - 1] in _LISTS]
    place = in_lists[-1] if in_lists else numbers[-1]
    return segments[:place], int(segments[place]), segments[place + 1 :]


def stack_of(path: str) -> str:
    """The stack that a module path belongs to: "", "encoder", "vision", "audio", "talker", "mtp" or "attention"."""
    before, _, after = split(path)
    for segments, names in ((before, _BEFORE_LAYER), (after, _IN_LAYER)):
        for name, pattern in names.items():
            if any(pattern.search(segment) for segment in segments):
                return name
    return MAIN


def anchor(model: PreTrainedModel, stack: str, paths: Iterable[str], stacks: Iterable[str]) -> nn.Module | None:
    """The module whose forward is one forward pass of `stack`.

    Args:
        model: the whole model.
        stack: one of `stacks`.
        paths: module paths of the stack's sites.
        stacks: names of all stacks of the model.

    Returns:
        The encoder for "encoder"; for the main stack and "attention" the outermost module that can be called, which is
        the model itself but for wrappers that only generate (Qwen3-Omni: its thinker). Block diffusion has encoder and
        decoder but is no encoder-decoder in the library's sense: there it is the decoder. None for a stack that text
        never runs.
    """
    if stack in SILENT:
        return None
    before, _, _ = split(next(iter(paths)))
    if stack == "encoder":
        return model.get_submodule(".".join(before[: before.index("encoder") + 1]))
    two_passes = "encoder" in stacks and not getattr(model.config, "is_encoder_decoder", False)
    if two_passes and "decoder" in before:
        return model.get_submodule(".".join(before[: before.index("decoder") + 1]))
    for end in range(len(before)):
        module = model.get_submodule(".".join(before[:end]))
        if type(module).forward is not nn.Module.forward:
            return module
    return model
