"""The arms of an interchange experiment: who receives, from whom, and which way an effect counts (METHODS.md 4)."""

from dataclasses import dataclass
from typing import Literal

from moeprobe.editing.write import How
from moeprobe.errors import InterchangeError

Side = Literal["sensitive", "control"]
Source = Literal["partner", "placebo", "random", "noise", "zero", "mean", "resample", "bar"]


OTHER: dict[str, Side] = {"sensitive": "control", "control": "sensitive"}


@dataclass(frozen=True)
class Arm:
    """One kind of edited run.

    Attributes:
        name: what its effects are called.
        recipient: whose run is edited. Effects are oriented: of a sensitive recipient m(unedited) - m(edited), of a
            control recipient m(edited) - m(unedited), so that a positive one goes the way of the gap.
        source: where the site's value comes from.
        sentence: in words.
    """

    name: str
    recipient: Side
    source: Source
    sentence: str

    @property
    def knockout(self) -> bool:
        """Whether there is no donor: the site is taken out, not swapped."""
        return self.source in ("zero", "mean", "resample", "bar")


_SWAPS: dict[Source, str] = {
    "partner": "the site's value comes from the pair's other prompt",
    "placebo": "the site's value comes from a prompt of the recipient's own class, of another pair",
    "random": "the site's value comes from a prompt of the other class, of another pair",
    "noise": "noise is added to the site's value, as long as the difference to the pair's other prompt is",
}
_OUT: dict[Source, str] = {
    "zero": "the site's contribution is set to zero",
    "mean": "the site's contribution is set to its mean over all positions of all prompts",
    "resample": "the site's contribution comes from a prompt of either class, of another pair",
    "bar": "the expert is barred before top-k, so that the router takes another one and renormalises",
}
_EITHER: tuple[tuple[Side, str], ...] = (("sensitive", "necessity"), ("control", "sufficiency"))
_SWAPPED = [
    Arm(name if source == "partner" else f"{source}_{name}", side, source, sentence)
    for source, sentence in _SWAPS.items()
    for side, name in _EITHER
]
_TAKEN_OUT = [
    Arm("knockout" if source == "zero" else f"knockout_{source}", "sensitive", source, sentence)
    for source, sentence in _OUT.items()
]
ARMS = {arm.name: arm for arm in [*_SWAPPED, *_TAKEN_OUT]}
DEFAULT = ("necessity", "sufficiency", "placebo_necessity", "placebo_sufficiency", "knockout")
# What the three swaps of an expert are called, and how they are written.
SWAPS: dict[str, How] = {"contribution": "replace", "output": "output", "routing": "routing"}


def check_arms(names: tuple[str, ...]) -> None:
    """Whether all arms exist.

    Raises:
        InterchangeError: one does not; the message names those that do.
    """
    for name in names:
        if name not in ARMS:
            raise InterchangeError(f"There is no arm {name!r}. Choose from {', '.join(ARMS)}.")
