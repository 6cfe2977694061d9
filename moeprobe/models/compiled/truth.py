"""What is true of the compiled model by construction. This module imports nothing heavy."""

from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class Truth:
    """The planted facts, as names of sites and words.

    Attributes:
        causal: selected at every position from the trigger on and nowhere else, and the sole cause of the refusal.
        inert: selected exactly where `causal` is; its output is 0, so it causes nothing.
        token: selected exactly where the current token is `filler`; its output is 0.
        null_layer: the layer whose routing is the same for every token of every text.
        flag_layers: layers where the trigger changes routing; elsewhere routing depends on the current token alone.
        trigger: the word that sets the flag.
        refusal: the word that follows with probability 1 while the flag is up (never twice in a row).
        filler: an ordinary word that triggered texts use more often.
        mirrors: strict variant only: planted expert -> the idle expert selected exactly where the planted one is not.
        anchors: strict variant only: the expert of each layer that every token selects.
    """

    causal: str = "L2.E5"
    inert: str = "L1.E1"
    token: str = "L3.E6"  # noqa: S105 - an expert, no secret
    null_layer: int = 0
    flag_layers: tuple[int, ...] = (1, 2)
    trigger: str = "crimson"
    refusal: str = "sorry"
    filler: str = "thus"
    layers: int = 4
    experts: int = 8
    top_k: int = 2
    mirrors: MappingProxyType[str, str] = field(
        default_factory=lambda: MappingProxyType({"L1.E1": "L1.E4", "L2.E5": "L2.E2", "L3.E6": "L3.E0"})
    )
    anchors: tuple[str, ...] = ("L1.E7", "L2.E7", "L3.E7")


TRUTH = Truth()
