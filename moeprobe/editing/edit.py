"""What one forward is to have at chosen places instead of its own values."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from moeprobe.errors import InterchangeError

How = Literal["replace", "output", "routing", "scale", "add"]
HOWS = ("replace", "output", "routing", "scale", "add")


@dataclass(frozen=True)
class Write:
    """A change of one kind of site in one layer. Every row may carry another site, or none.

    Attributes:
        layer: the model's own layer index.
        kind: "expert", "head", "shared", "moe" or "residual"; "router" replaces the whole choice of a row.
        index: (rows,) integer: which expert or head in each row, any number >= 0 for the other kinds; below 0: the row
            keeps its own value.
        how: "replace" the contribution by `value`; "output" (experts): the expert is run on the donor's input `value`
            with the row's own weight; "routing" (experts): the row's own input with the donor's weight `value`
            (rows, 1); "scale" the contribution by `value` (rows, 1); "add" `value`.
        value: (rows, width), (rows, 1) as said above; for a router the weights (rows, k). None with `partner`.
        partner: (rows,) integer: take the live value of another row of the same forward instead of `value`, as it
            stands before anything of this kind is written in this layer. Any number where the row is not touched.
        ids: (rows, k), for a router only.

    Raises:
        InterchangeError: what is asked contradicts itself, or the number of rows does.
    """

    layer: int
    kind: str
    index: Tensor
    how: How = "replace"
    value: Tensor | None = None
    partner: Tensor | None = None
    ids: Tensor | None = None

    def __post_init__(self) -> None:
        if self.how not in HOWS:
            raise InterchangeError(f"{self.how!r} is no way to edit. Choose one of {', '.join(HOWS)}.")
        if (self.value is None) == (self.partner is None):
            raise InterchangeError("A write needs a value or a partner, and not both.")
        if self.how in ("output", "routing") and self.kind != "expert":
            raise InterchangeError(f"Only experts have an output and a routing apart; this is a {self.kind}.")
        if self.kind == "router" and self.how != "replace":
            raise InterchangeError("A router's choice is replaced as a whole; scores are changed by rerouting.")
        if self.partner is not None and self.how in ("scale", "add"):
            raise InterchangeError("A partner's value replaces; it does not scale or add.")
        given = len(self.given if self.partner is None else self.partner)
        if given != len(self.index):
            raise InterchangeError(f"The donor has {given} rows, the write {len(self.index)}; align them first.")
        if self.partner is not None and bool(((self.partner < 0) & (self.index.to(self.partner.device) >= 0)).any()):
            raise InterchangeError("A row is to take its partner's value and has no partner; give it index -1.")

    @property
    def given(self) -> Tensor:
        """The value of a write without a partner."""
        if self.value is None:
            raise InterchangeError("This write takes a partner's live value; it has none of its own.")
        return self.value

    def wide(self, width: int) -> Tensor:
        """The value of a write without a partner.

        Raises:
            InterchangeError: it is not (rows, width), or (rows, 1) where one number per row is asked.
        """
        due = (len(self.index), 1 if self.how in ("scale", "routing") else width)
        if tuple(self.given.shape) != due:
            raise InterchangeError(
                f"The value for {self.how!r} at L{self.layer}.{self.kind} has shape {tuple(self.given.shape)}, "
                f"not {due}."
            )
        return self.given


def meet(one: Write, other: Write) -> bool:
    """Whether two writes at a place of a layer change the same site of some row."""
    if len(one.index) != len(other.index):
        return False  # the forward will name the one that does not fit
    first, second = one.index, other.index.to(one.index.device)
    same = first == second if one.kind in ("expert", "head") else torch.ones_like(first, dtype=torch.bool)
    return bool((same & (first >= 0) & (second >= 0)).any())
