"""A part of the page that shows one result."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Table:
    """A table in words: `head`, and `rows` as long as it; the first cell of a row names it."""

    caption: str
    head: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Comparison:
    """Two texts of one pair: `same` is what both begin with.

    Attributes:
        title: which arm, in words.
        prompt: what was asked, empty where the file does not say.
        before, after: in words, what either text is.
        same, before_rest, after_rest: the texts, parted where they part.
        judged: what the probe said of both.
    """

    title: str
    prompt: str
    before: str
    after: str
    same: str
    before_rest: str
    after_rest: str
    judged: str


@dataclass(frozen=True)
class Part:
    """One result: a title, sentences, tables, and pairs of texts by pair id."""

    title: str
    model: str
    sentences: list[str]
    facts: list[tuple[str, str]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    texts: list[tuple[str, list[Comparison]]] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)
