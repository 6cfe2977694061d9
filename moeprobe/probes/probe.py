"""What a probe is: a judge of text that says how strongly a passage speaks in one register.

A probe sees the text of a generation and its prompt, never the routing: a probe that read the routing would find
exactly the experts it had read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args, runtime_checkable

Level = Literal["token", "sentence", "generation"]
"""The finest piece of text at which a probe's answer means something."""

LEVELS: tuple[str, ...] = get_args(Level)

THRESHOLD = 0.5
"""A passage, or a stretch of it, is called positive from this score on."""

Segment = tuple[str, int, int]
"""A named stretch of a passage: name, start, end, in characters of its text."""


@dataclass(frozen=True)
class Passage:
    """One generation as a probe sees it.

    Attributes:
        text: what the model wrote, without template tokens.
        prompt: what it was asked; empty where it is not known.
        segments: which stretches of `text` are "thinking" and which "answer", in order; empty where it is not known.
    """

    text: str
    prompt: str = ""
    segments: tuple[Segment, ...] = ()


@dataclass(frozen=True)
class Span:
    """A marked stretch of a passage: `text[start:end]`, in code points (not bytes, not tokens), with its own score."""

    start: int
    end: int
    score: float
    label: str


@dataclass(frozen=True)
class Reading:
    """A probe's answer on one passage.

    Attributes:
        score: in [0, 1]; from 0.5 on the passage counts as positive. None: the probe abstains.
        spans: the stretches that speak in the register (or that almost do, with a low score), in any order.
        label: a finer class, for example "epistemic denial".
        outputs: a score in [0, 1] or None (abstains) for each name in the probe's `outputs`; empty where it has none.
    """

    score: float | None
    spans: tuple[Span, ...] = ()
    label: str | None = None
    outputs: Mapping[str, float | None] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Example:
    """A passage with its right answer: label 1 where it speaks in the register, else 0.

    Attributes:
        text: the passage.
        label: 1 or 0.
        prompt: what was asked; a probe may read it.
        note: whatever its author wants to remember.
        outputs: right answers, 0 or 1, of the probe's further outputs; those that are not known are left out.
        unit: the name of the prompt or answer that the text is a part of, where its words are not known. No probe is
            shown it.
    """

    text: str
    label: int
    prompt: str = ""
    note: str = ""
    outputs: Mapping[str, int] = field(default_factory=dict, hash=False)
    unit: str = ""

    @property
    def cluster(self) -> str:
        """What examples share that are not independent: the prompt, else the unit; empty for one that stands alone."""
        return self.prompt if self.prompt.strip() else self.unit


@runtime_checkable
class Probe(Protocol):
    """What anyone writes to add a register: a plain class with these members. No base class is needed.

    Four more may be there:

    - `outputs`, a tuple of names: every reading then gives each of them a score, beside the main one.
    - `held_out()`, examples like those of `examples()` that the rule was not made on.
    - `held_out_read`, "once" (also where it is missing) or "again": the rule was changed after they had been read.
    - `parameters`, name to number, text or truth value: what the answers depend on besides the text. Where it is
      missing, the keyword-only arguments of `__init__` that have a default and are kept under their own name.
    """

    @property
    def name(self) -> str:
        """Lower-case words joined by hyphens, for example "hedging"."""

    @property
    def version(self) -> str:
        """Raise it whenever the same text may get another score."""

    @property
    def level(self) -> Level:
        """ "token", "sentence" or "generation"."""

    @property
    def definition(self) -> str:
        """One paragraph: what counts, and what looks alike but does not."""

    def examples(self) -> Sequence[Example]:
        """Labelled examples of both kinds, by which the probe can be judged."""

    def read(self, passage: Passage) -> Reading:
        """Judge one passage. The same passage must always get the same answer."""
