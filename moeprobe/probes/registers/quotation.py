"""The register `quotation`: does the answer give another's words, quoted or reported?"""

import re
from collections.abc import Iterator

from moeprobe.probes.cues import LONGEST, Cue, cue, logistic, present
from moeprobe.probes.english import reads_as_english
from moeprobe.probes.probe import Level, Passage, Reading, Span
from moeprobe.probes.registers._beside import FromFiles
from moeprobe.probes.sentences import split_sentences
from moeprobe.probes.voice import MASK, plain

# Verbs that report speech: Biber's (1988) public verbs, without those that seldom take another's words.
_PAST = (
    r"(?:said|told|claimed|announced|explained|insisted|argued|warned|replied|answered|asked|admitted|denied|"
    r"promised|stated|"
    r"testified|declared|complained|added|remarked|reported|confessed|swore|vowed|mentioned|noted|recalled|boasted|"
    r"confirmed|"
    r"predicted|protested|exclaimed|shouted|cried|whispered|muttered|murmured|yelled|demanded|observed|joked|"
    r"quipped|wrote|"
    r"written|concluded|responded|continued|sighed|called out|begged|pleaded|snapped|sang|commented|suggested)"
)
_PRESENT = (
    r"(?:says|tells|claims|announces|explains|insists|argues|warns|replies|answers|asks|admits|denies|promises|"
    r"states|declares|"
    r"complains|adds|remarks|notes|writes|concludes|shouts|cries|whispers|reads)"
)
_VERB = rf"(?:{_PAST}|{_PRESENT}|(?<=they )say|(?<=people )say|(?<=critics )say|(?<=experts )say|(?<=used to )say)"
_WHO = r"(?:[A-Z][\w.'-]+|he|she|they|(?:the|my|his|her|their|our|one|an?|another|two) (?:[\w'-]+ ){0,2}[\w'-]+)"
_OWN = r"(?:\bI|\bwe|\bWe|\byou|\bYou)(?: \w+){0,2} "  # the speaker's words and the listener's are not another's report
_HEARER = r"(?: (?:me|us|him|her|them|(?:the|my|his|her|their) \w+|[a-z]+s|[A-Z]\w+))?"
_THINGS = r"(?:clock|watch|timer|recipe|data|thermometer|map|manual|figures|results?|numbers?)"

# Kinds of speech presentation: direct, free direct and indirect (Leech & Short 1981; Semino & Short 2004). Weights were
# set by hand on quotation.jsonl.
BIAS = -3.0
BEFORE: tuple[Cue, ...] = (
    Cue("reported before", 5.5, re.compile(rf"\b{_VERB}\b[^.!?\"{MASK}]{{0,40}}[,:]?\s*$")),
    cue(
        "attributed before",
        5.0,
        r"\b(?:in the words of|as [^,.!?]{1,40} (?:put it|goes)|in [^,.!?]{1,30}['s] words|"
        r"according to)\b[^.!?]{0,60}$",
    ),
    cue(
        "written somewhere",
        5.5,
        r"\b(?:sign|notice|note|label|headline|banner|inscription|plaque|caption|poster)\b[^.!?\"]{0,40}\bread:?\s*$",
    ),
    Cue("described", 4.5, re.compile(r"\b(?:called|described|dismissed|condemned|praised)\b [^.!?\"]{3,50}$")),
    cue(
        "asked by the user",
        5.5,
        r"\byou(?:r (?:message|question|letter|note))? (?:asked|said|wrote|says)\b[^.!?\"]{0,30}$",
    ),
    cue(
        "mentioned",
        -6.0,
        r"\b(?:words?|phrases?|terms?|expression|title|titled|entitled|named|known as|so-called|letters?|songs?|"
        r"films?|books?|"
        r"novels?|poems?|buttons?|fields?|click|press)(?: (?:is|like|of|was))? ?[,:]?\s*$",
    ),
    cue(
        "offered",
        -7.0,
        r"\b(?:you (?:could|can|might|may|should|would)|try|for example|for instance|something like|template|"
        r"here(?:'s| is)|"
        r"opening|answer with|reply with|instead of)\b[^.!?]{0,60}$",
    ),
    Cue(
        "told to say",
        -7.0,
        re.compile(
            r"(?:^|[.!?;,:] |\bto |\band |\bor |\bplease )(?:[Ss]ay|[Ww]rite|[Aa]nswer|[Aa]sk|"
            r"[Tt]ell \w+)\b[^.!?]{0,25}$"
        ),
    ),
)
SHORT_BEFORE: tuple[Cue, ...] = (
    cue("a word itself", -6.0, r"\b(?:called|means?|meant|translate|as|spelled) ?[,:]?\s*$"),
)
"""Only before three words or fewer: "called 'save'", but not "called it 'a cowardly act against the people'"."""
AFTER: tuple[Cue, ...] = (
    Cue("reported after", 6.0, re.compile(rf"^[,.!?]?\s*(?:{_WHO} {_VERB}|{_VERB} {_WHO})\b")),
    Cue("attributed after", 6.0, re.compile(r"^\s*(?:>\s*)?[—–~-]{1,2}\s*[A-Z]")),
    cue(
        "explained",
        -5.0,
        r"^[,.]?\s*(?:means?|meant|is used|has (?:more|many)|refers?|stands? for|is an?|comes from|rhymes|is how)\b",
    ),
)
REPORTS: tuple[Cue, ...] = (
    Cue("that", 6.0, re.compile(rf"(?<!is )(?<!was )(?<!been )\b{_VERB}{_HEARER},? (?:that|whether|if)\b(?! is to)")),
    Cue(
        "without that",
        5.5,
        re.compile(
            r"(?<!is )(?<!was )\b(?:said|says|claimed|claims|insisted|admitted|swore|promised|stated|replied|"
            r"announced|vowed)"
            r" (?:he|she|they|it|there|the|his|her|their|no one|nobody)\b(?! (?:same|word|words)\b)[^.!?]{3,}"
        ),
    ),
    Cue("told to", 4.5, re.compile(r"(?<!is )(?<!are )(?<!was )(?<!were )\bsaid (?:not )?to [a-z]+")),
    Cue(
        "asked",
        4.5,
        re.compile(
            rf"(?<!be )(?<!am )(?<!is )(?<!are )(?<!was )(?<!were )\basked{_HEARER} (?:why|how|where|when|what|who)\b"
        ),
    ),
    Cue("own words", -6.0, re.compile(rf"{_OWN}{_VERB}\b|\bif (?:some|any)(?:one|body)\b|\b[Ii]f an? \w+ ")),
    Cue("a thing shows", -5.0, re.compile(rf"\b{_THINGS} (?:said|says|say|tells?|told)\b")),
)
_QUOTES = re.compile(
    r"\"(?<!\w\")[^\"\n]{1,600}\"|«[^»\n]{1,600}»|(?:(?<=[\s(\[—–:])|^)'(?=\S)[^\n]{1,400}?(?<=\S)'(?!\w)", re.MULTILINE
)
_BLOCK = re.compile(
    r"^[ \t]{0,3}>(?!>)[ \t]*(?!\W*(?:note|tip|warning|important|caution|info|hint)\b)\S[^\n]*$",
    re.MULTILINE | re.IGNORECASE,
)
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[^\n]*$", re.MULTILINE)
_INLINE = re.compile(r"`[^`\n]{1,300}`")
_ENDS = (".", "!", "?", ",", "…")
_CAPITALS = re.compile(r"(?:(?:[A-Z\d][\w'-]*|of|the|and|a|an|in|on|to|for|with|at|by)[,:]? ?)+[.,!?]?")  # titles
_BLOCK_WEIGHT, _SENTENCE, _LONG, _SHORT, _SPEECH_LINE, _ALONE, _TITLE = 5.0, 1.5, 3.0, -2.5, 3.0, 1.5, -2.0


class Quotation(FromFiles):
    """Each quotation's log odds are BIAS plus what stands before, after and in it; each sentence may report speech."""

    name = "quotation"
    version = "1"
    level: Level = "sentence"
    held_out_read = "again"
    definition = (
        "The answer gives the words of another, marked as such, in English: quoted directly and attributed (he said, "
        "as the poet put it, a sign that reads), a longer quotation, lines of dialogue, a block quote, or reported "
        "(she said that, they asked whether). Quotation marks alone do not count: titles, words that are mentioned or "
        "doubted, labels of buttons, inches, and text that is offered to be said or written. What the speaker says "
        "itself does not count, nor thoughts, nor what a study found or a clock says, nor speech without its content "
        "(he thanked them)."
    )

    def read(self, passage: Passage) -> Reading:
        """Score in [0, 1] with quotations and reporting sentences as spans; abstains on no text, other languages."""
        if not passage.text.strip() or not reads_as_english(passage.text):
            return Reading(None)
        text = plain(_without_code(passage.text))  # plain() would turn a code mark into a quotation mark
        found = [*_quoted(text), *_blocks(text), *_reported(text)]
        spans = [Span(start, end, score, "quotation") for start, end, odds in found if (score := logistic(odds)) >= 0.5]
        best = max((odds for *_, odds in found), default=BIAS)
        return Reading(logistic(best), tuple(spans), "quotation" if spans else None)


def _quoted(text: str) -> Iterator[tuple[int, int, float]]:
    """Start, end and log odds of each quotation in quotation marks."""
    matches = list(_QUOTES.finditer(text))
    lines = sum(_alone(text, *match.span()) for match in matches)
    for match in matches:
        start, end = match.span()
        line = text.rfind("\n", 0, start) + 1
        inner, words = match[0][1:-1].strip(), len(match[0].split())
        odds = BIAS + sum(present(BEFORE, text[max(line, start - 90) : start]).values())
        odds += sum(present(AFTER, text[end : end + 60]).values())
        ended = inner.endswith(_ENDS)
        odds += _SENTENCE * (ended and words > 1) + _SHORT * (words <= 2 and not ended)
        if words <= 3:
            odds += sum(present(SHORT_BEFORE, text[max(line, start - 30) : start]).values())
        elif words >= 5:
            odds += _TITLE if _CAPITALS.fullmatch(inner) else _LONG
        if _alone(text, start, end):
            odds += _ALONE + _SPEECH_LINE * (lines >= 2)
        yield start, end, odds


def _alone(text: str, start: int, end: int) -> bool:
    """Whether a quotation with an end of its own is a whole line."""
    before, after = text[max(0, start - 1) : start], text[end : end + 1]
    return before in ("", "\n") and after in ("", "\n", "\r") and text[start:end][-2:-1] in _ENDS


def _blocks(text: str) -> Iterator[tuple[int, int, float]]:
    for match in _BLOCK.finditer(text):
        yield *match.span(), BIAS + _BLOCK_WEIGHT


def _reported(text: str) -> Iterator[tuple[int, int, float]]:
    """Sentences that report speech outside quotation marks."""
    outside = _QUOTES.sub(lambda match: MASK * len(match[0]), text)
    for sentence in split_sentences(text):
        words = " ".join(outside[sentence.start : sentence.end].split())[:LONGEST]
        if found := present(REPORTS, words):
            yield sentence.start, sentence.end, BIAS + sum(found.values())


def _without_code(text: str) -> str:
    """Fenced blocks and inline code masked; same length."""
    marks = [match.span() for match in _FENCE.finditer(text)]
    pieces, done = [], 0
    for opening, closing in zip(marks[::2], [*marks[1::2], (len(text), len(text))], strict=False):
        pieces += [text[done : opening[0]], MASK * (closing[1] - opening[0])]
        done = closing[1]
    return _INLINE.sub(lambda match: MASK * len(match[0]), "".join(pieces) + text[done:])
