"""Edits as a person writes them: VERB:SITES, then =NUMBER where the verb takes one, then @WHERE.

    zero:L18.E5                  the expert's contribution is 0
    bias:L18.E5=+2.5@answer      2.5 is added to its router score, in generated positions only
    zero:L18.E5 / bar:L3.E1      two edits at once

"+" joins sites to a set (L18.E3+E7), so edits are joined by "/".
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moeprobe.errors import InterchangeError
from moeprobe.sites import Layout, Site, SiteSet, parse_sites

_VALUES = ("expert", "head", "shared", "moe", "residual")


@dataclass(frozen=True)
class Verb:
    """What an edit does.

    Attributes:
        kinds: of sites it can be done to.
        number: whether it takes one.
        needs: "" or what must be handed over beside it: "donor", "pool" (donors to draw from) or "means".
    """

    kinds: tuple[str, ...] = _VALUES
    number: bool = False
    needs: str = ""


VERBS: Mapping[str, Verb] = {
    "zero": Verb(),
    "scale": Verb(number=True),
    "mean": Verb(needs="means"),
    "swap": Verb((*_VALUES, "router"), needs="donor"),
    "swap-output": Verb(("expert",), needs="donor"),
    "swap-routing": Verb(("expert",), needs="donor"),
    "noise": Verb(needs="donor"),
    "resample": Verb((*_VALUES, "router"), needs="pool"),
    "bar": Verb(("expert",)),
    "force": Verb(("expert",)),
    "bias": Verb(("expert",), number=True),
}
ROUTING = ("bar", "force", "bias")
"""Verbs that change scores before the router chooses."""
WHERE = ("all", "prompt", "answer")
_FORM = "Write VERB:SITES, for example zero:L18.E5, scale:L18.E5=0.5 or bias:L18.E5=+2.5@answer"
_EDIT = re.compile(r"([A-Za-z-]+)\s*:([^:=@/]+)(?:=([^:=@/]*))?(?:@([^:=@/]*))?")
_NUMBER = re.compile(r"[+-]?(\d{1,20}(\.\d{0,20})?|\.\d{1,20})([eE][+-]?\d{1,3})?")


@dataclass(frozen=True)
class Edit:
    """One edit.

    Attributes:
        verb: a key of `VERBS`.
        sites: what is edited; every member on its own.
        amount: the factor of "scale", what "bias" adds to the router's logit; None for other verbs.
        where: "all" positions, those of the "prompt", or those of the "answer" (the generated tokens). The first
            generated token is chosen at the prompt's last position, so an edit of the answer alone does not touch it.

    Raises:
        InterchangeError: an unknown verb or place, a number too many or missing, or sites of a kind the verb cannot
            be done to.
    """

    verb: str
    sites: SiteSet
    amount: float | None = None
    where: str = "all"

    def __post_init__(self) -> None:
        if self.verb not in VERBS:
            raise InterchangeError(f"{self.verb!r} is no edit. There are: {', '.join(VERBS)}.")
        if self.where not in WHERE:
            raise InterchangeError(f"@{self.where} is no place. There are: {', '.join('@' + one for one in WHERE)}.")
        verb = VERBS[self.verb]
        if verb.number != (self.amount is not None):
            wanted = f"needs a number: {self.verb}:{self.sites}=0.5" if verb.number else "takes no number"
            raise InterchangeError(f"{self.verb} {wanted}.")
        if self.amount is not None and not abs(self.amount) < float("inf"):
            raise InterchangeError(f"{self.verb} needs a finite number. To bar or force an expert, write bar or force.")
        wrong = next((site for site in self.sites.sites if site.kind not in verb.kinds), None)
        if wrong is not None:
            raise InterchangeError(
                f"{self.verb} cannot be done to {wrong}: it is for sites of the kind {', '.join(verb.kinds)}."
            )

    @property
    def needs(self) -> str:
        """As in `Verb`."""
        return VERBS[self.verb].needs

    def __str__(self) -> str:
        number = "" if self.amount is None else f"={self.amount:{'+' if self.verb == 'bias' else ''}}"
        return f"{self.verb}:{self.sites}{number.removesuffix('.0')}" + (
            "" if self.where == "all" else f"@{self.where}"
        )


def parse_edits(text: str, layout: Layout) -> tuple[Edit, ...]:
    """Read one arm: an edit, or several joined by "/", all done at once.

    Args:
        text: for example "zero:L18.E5" or "swap:L14-L18.E* / bar:L3.E1@answer".
        layout: what the model has; from `moeprobe.editing.layout_of`.

    Raises:
        InterchangeError: the text breaks the grammar, or two of the edits do not go together.
        MoeprobeError: a site the model has not.
    """
    edits = tuple(_edit(part.strip(), layout) for part in text.split("/"))
    check_together(edits)
    return edits


def arm_name(edits: Sequence[Edit]) -> str:
    """An arm as it can be read back; "none" where nothing is edited."""
    return " / ".join(map(str, edits)) or "none"


def check_together(edits: Sequence[Edit]) -> None:
    """Make sure that edits can be done at once.

    Raises:
        InterchangeError: one site has two values at one position, an expert is told two things, a donor is needed in
            two senses, or a choice of the router is both changed before and replaced after.
    """
    if {"donor", "pool"} <= {edit.needs for edit in edits}:
        raise InterchangeError("One arm has one donor: resample cannot stand beside a swap. Make two arms of it.")
    seen: dict[tuple[Site, bool, str], Edit] = {}
    for edit in edits:
        for site in edit.sites.sites:
            for place in ("prompt", "answer") if edit.where == "all" else (edit.where,):
                other = seen.setdefault((site, edit.verb in ROUTING, place), edit)
                if other is not edit:
                    raise InterchangeError(f"{other} and {edit} both edit {site} in the {place}; one must go.")
    rerouted = {site.layer for edit in edits if edit.verb in ROUTING for site in edit.sites.sites}
    replaced = {site.layer for edit in edits for site in edit.sites.sites if site.kind == "router"}
    if rerouted & replaced:
        raise InterchangeError(
            f"The choice of L{min(rerouted & replaced)} is replaced whole, so barring, forcing or biasing there would "
            "do nothing. Leave one of the two out."
        )


def _edit(text: str, layout: Layout) -> Edit:
    match = _EDIT.fullmatch(text)
    if match is None:
        raise InterchangeError(f"{_quoted(text)} is no edit. {_FORM}.")
    verb, sites, number, where = (None if part is None else part.strip() for part in match.groups())
    if verb is None or sites is None or verb not in VERBS:
        raise InterchangeError(f"{_quoted(verb or text)} is no edit. There are: {', '.join(VERBS)}.")
    if number is not None and not _NUMBER.fullmatch(number):
        raise InterchangeError(f"{_quoted(number)} is no number. {_FORM}.")
    amount = None if number is None else float(number)
    return Edit(verb, parse_sites(sites, layout), amount, "all" if where is None else where)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
