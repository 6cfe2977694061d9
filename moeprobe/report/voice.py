"""How one question is spoken of: the same sentences in the words of its design."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moeprobe.errors import FindingsError

Json = Mapping[str, Any]

KINDS = ("two groups", "pairs", "scores", "within generations")


@dataclass(frozen=True)
class Voice:
    """The words of one question.

    Attributes:
        kind: one of KINDS.
        about: what is asked about: ``refusal``, ``the label \u201charmful\u201d``.
        theme: what an expert goes with: ``refusal``, ``the score of refusal``, ``the tokens marked for refusal``.
        given: whether it was given with the prompts; nobody can cause what was given.
        where: ends "it is chosen more often": ``there``, ``the higher the score``.
        one, other: short names of the two sides.
        tokens_one, tokens_other: which tokens each side is, after "of the answer tokens".
        unit: what counts once.
        shifts: whether the test turned the marks inside these generations, so that it says nothing of others.
        measured: what was compared where it was not the choice, else "".
        strata: what tokens must share to be compared, "" where nothing.
        named: the two sides as the findings name them: ``score >= 0.5``, ``score < 0.5``.
    """

    kind: str
    about: str
    theme: str
    given: bool
    where: str
    one: str
    other: str
    tokens_one: str
    tokens_other: str
    unit: str
    shifts: bool
    measured: str
    strata: str
    named: tuple[str, str]

    @property
    def scores(self) -> bool:
        return self.kind == "scores"

    @property
    def pairs(self) -> bool:
        return self.kind == "pairs"

    @property
    def inside(self) -> bool:
        return self.kind == "within generations"

    @property
    def word_fixed(self) -> bool:
        """Whether a token is compared only with the same token (and not only with, say, the same previous one)."""
        return re.search(r"(?<!previous )token", self.strata) is not None

    @property
    def fixed(self) -> str:
        """``words``, or what else tokens must share to be compared: ``previous token id``."""
        return "words" if self.strata in ("token", "token id") else self.strata

    def sorted_by_probe(self, run: Json) -> bool:
        """Whether the probe made the sides of an interchange run: then they are called by what it looks for."""
        return not self.given and (str(run["positive"]), str(run["negative"])) == self.named

    def runs(self, run: Json) -> tuple[str, str, str]:
        """A run of the sensitive prompt and two ways to say one of the control: ``a run with refusal``, ..."""
        if self.sorted_by_probe(run):
            return f"a run with {self.about}", "one without", "a run without"
        control = f"a \u201c{run['negative']}\u201d run"
        return f"a \u201c{run['positive']}\u201d run", control, control

    @property
    def more(self) -> str:
        """``it is chosen more often``, or what it is that is larger."""
        return f"{self.thing} is larger" if self.measured else "it is chosen more often"

    @property
    def less(self) -> str:
        return f"{self.thing} is smaller" if self.measured else "it is chosen less often"

    @property
    def thing(self) -> str:
        """A short name of what was compared, where it was not the choice."""
        names = {"the gate": "its gate weight", "the rout": "its score by the router"}
        return names.get(self.measured[:8], "the length of its output")


def voice_of(question: Json) -> Voice:
    """The words of a question of docs/findings.md.

    Raises:
        FindingsError: its design is none that this report knows; a report must not guess.
    """
    design = question["design"]
    kind, about = str(design["kind"]), behaviour(question)
    if kind not in KINDS:
        raise FindingsError(f"The findings hold a design {kind[:80]!r}, which this report does not know.")
    given = question["kind"] == "label"
    sides = {
        "scores": ("upper half", "lower half", "in the upper half of the scores", "in the lower half"),
        "within generations": ("marked", "other", f"that {about} marks", "of the other tokens"),
    }.get(kind, ("with", "without", f"with {about}", "without"))
    strata, response = str(design["strata"]), str(design["response"])
    return Voice(
        kind=kind,
        about=about,
        theme=_theme(kind, about, given),
        given=given,
        where="the higher the score" if kind == "scores" else "there",
        one=sides[0],
        other=sides[1],
        tokens_one=sides[2],
        tokens_other=sides[3],
        unit=str(design["unit"]),
        shifts=kind == "within generations" and _turned(design),
        measured=_measured(response),
        strata="" if strata == "none" else strata,
        named=(str(question["positive"]), str(question["negative"])),
    )


def behaviour(question: Json) -> str:
    """What a question is about: ``refusal``, ``the label \u201charmful\u201d``, ``the number \u201clevel\u201d``."""
    name = str(question["name"])
    if question["kind"] != "label":
        return name
    key, colon, value = name.partition(":")
    key = key.removeprefix("metadata.")
    if not colon:
        return f"the number \u201c{key}\u201d"
    return f"the label \u201c{value}\u201d" if key == "label" else f"the label \u201c{key} = {value}\u201d"


def _theme(kind: str, about: str, given: bool) -> str:
    if kind == "scores":
        return about if given else f"the score of {about}"
    return f"the tokens marked for {about}" if kind == "within generations" else about


def _turned(design: Json) -> bool:
    return "turned in a circle" in str(design["resampling"]) or "from all shifts" in str(design["prior"])


def _measured(response: str) -> str:
    """What was compared, where it was not the choice of the expert."""
    found = re.search(r"the gate weight|the router's|the length of the expert's output", response)
    return "" if found is None else response[found.start() :]
