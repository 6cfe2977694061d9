"""Cutting a text into sentences, with exact offsets.

A small rule-based splitter for English prose as language models write it: headings, bullets, quotations, code and
hard-wrapped lines included. It runs in linear time: every pattern steps over a character at most a fixed number of
times.
"""

import re
from dataclasses import dataclass
from itertools import pairwise

# A run of terminators with the closing quotes and brackets that belong to it.
_TERMINATOR = re.compile(r"[.!?…。！？؟।]{1,20}[\"'”’»)\]*_]{0,6}")
_LINE_END = re.compile(r"[\r\n\u2028\u2029\x0b\x0c\x85]")
_STARTS_ITEM = re.compile(r"[ \t]{0,12}(?:[-*•‣–—#>|\"“'(]|\d{1,3}[.):]|[A-Z]|[^\W\d_a-z]|```)")
_ABBREVIATED = (
    "mr mrs ms mx dr prof sr jr st vs e.g i.e cf ca approx fig figs eq eqs sec ch vol pp ed eds al viz rev gen col lt "
    "capt sgt gov sen rep inc ltd co corp dept univ est jan feb mar apr jun jul aug sep sept oct nov dec u.s u.k a.m "
    "p.m ph.d m.d b.a m.a"  # no "no": "No. I won't do that." is two sentences
)
_BOTH_ABBREVIATED_AND_LAST = "etc u.s u.k a.m p.m inc ltd co corp al jr sr ph.d m.d b.a m.a est"
_ABBREVIATIONS = frozenset(_ABBREVIATED.split())
# After these a capital letter does begin a new sentence: "in the U.S. The law ..."
_MAY_END = frozenset(_BOTH_ABBREVIATED_AND_LAST.split())


@dataclass(frozen=True)
class Sentence:
    """`text[start:end]` of the whole, without the white space around it."""

    start: int
    end: int
    text: str


def split_sentences(text: str) -> tuple[Sentence, ...]:
    """Cut `text` into sentences in reading order.

    Every character that is not white space lies in exactly one sentence, and `text[s.start:s.end] == s.text`.
    Offsets count code points.
    """
    cuts = sorted({0, len(text), *_terminator_cuts(text), *_line_cuts(text)})
    found = []
    for start, end in pairwise(cuts):
        piece = text[start:end]
        inner = piece.strip()
        if inner:
            begin = start + len(piece) - len(piece.lstrip())
            found.append(Sentence(begin, begin + len(inner), inner))
    return tuple(found)


def _terminator_cuts(text: str) -> list[int]:
    cuts = []
    for match in _TERMINATOR.finditer(text):
        end = match.end()
        wide = match[0][0] in "。！？"  # no space follows these
        if end < len(text) and not text[end].isspace() and not wide:
            continue
        following = _following(text, end)
        if match[0] == "." and _is_abbreviation(text, match.start(), following):
            continue
        if following.islower() and (match[0][-1] in "\"'”’»" or match[0].startswith(("..", "…"))):
            continue  # "Stop!" he said; and a pause... like this
        cuts.append(end)
    return cuts


def _following(text: str, end: int) -> str:
    """The first character after the space at `end`, looking at most 8 characters ahead; else ""."""
    return text[end : end + 8].lstrip()[:1]


def _is_abbreviation(text: str, dot: int, following: str) -> bool:
    """Whether the full stop at `dot` belongs to an abbreviation, an initial or a list number."""
    word = re.split(r"[\s(\[\"“'‘/–—-]", text[max(0, dot - 12) : dot])[-1]
    if word.isdecimal():  # "1. Preheat the oven": a number that opens its line
        line = _LINE_END.split(text[max(0, dot - 24) : dot])[-1]
        return line.strip(" \t*#-") == word
    folded = word.lower()
    if len(word) == 1 and word.isupper() and word != "I":
        return following.isupper()  # an initial: "J. Smith"
    if folded in _MAY_END:
        return not following.isupper()
    return folded in _ABBREVIATIONS


def _line_cuts(text: str) -> list[int]:
    """Ends of lines that end a sentence: a blank line always, a single one unless the sentence runs on below it."""
    cuts = []
    for match in _LINE_END.finditer(text):
        end = match.end()
        last = text[match.start() - 1 : match.start()] if match.start() else ""
        if end == len(text) or last in ("", ":", ";") or _LINE_END.match(text, end) or _STARTS_ITEM.match(text, end):
            cuts.append(end)
    return cuts
