"""Whose words they are: what a passage quotes, drafts for somebody else, or shows as code is not its speaker's own."""

import re

MASK = "\ufffc"
"""Stands in for every character that is not the speaker's own; no pattern of a register matches it."""

_PLAIN = str.maketrans(
    {"’": "'", "‘": "'", "ʼ": "'", "′": "'", "`": "'", "“": '"', "”": '"', "„": '"', "\u00a0": " ", "\u202f": " "}
)
_FENCE = re.compile(r"^[ \t]{0,3}(?:```|~~~)", re.MULTILINE)
_QUOTED_LINE = re.compile(r"^[ \t]{0,3}>.*$", re.MULTILINE)
_DOUBLE = re.compile(r"“[^”\n]{0,600}”|(?<!\w)\"[^\"\n]{0,600}\"")
_SINGLE = re.compile(r"(?:(?<=[\s(\[—–:])|^)['‘](?=\S)[^\n]{0,400}?(?<=[\S])['’](?!\w)", re.MULTILINE)
_SALUTATION = re.compile(
    r"^[ \t]*(?:\**subject\**:[^\n]*$|dear (?:(?:diary|journal|abby)\b|[^\n,:]{1,60}[,:])"
    r"|(?:hi|hello|hey|good morning) (?!there\b|everyone\b|again\b)[^\n,!.?]{1,40},[ \t]*$)",
    re.MULTILINE | re.IGNORECASE,
)
_TO_THE_USER = re.compile(r"\s*dear (?:user|friend|reader|valued user)\b", re.IGNORECASE)
_SIGN_OFF = re.compile(
    r"^[ \t]*(?:(?:kind|best|warm|warmest|with)? ?(?:regards|wishes)|best|sincerely(?: yours)?|yours(?: \w+)?|love|"
    r"cheers|"
    r"thanks|thank you|respectfully|with (?:love|thanks|gratitude|appreciation))[,.!]?[ \t]*\n[^\n]{0,60}",
    re.MULTILINE | re.IGNORECASE,
)
_SCARE_WORDS = 2  # one or two words in quotation marks are mentioned or doubted by the speaker, not said by another


def plain(text: str) -> str:
    """`text` with typographic quotes and spaces made plain; same length, so offsets stay true."""
    return text.translate(_PLAIN)


def own_words(text: str, *, letters: bool = False) -> str:
    """`text` with everything that is not the speaker's own masked; same length, so offsets stay true.

    Masked are quotations of three words and more, block quotes, fenced code, and letters (from a salutation or
    subject line to the sign-off; `letters=True` keeps these, for registers of the page and not of its speaker). A
    passage that is one quotation or one code block as a whole is left as it is, since models put their whole answer in
    quotation marks now and then.
    """
    ranges = [*_fences(text), *([] if letters else _letters(text))]
    ranges += [match.span() for match in _QUOTED_LINE.finditer(text)]
    for pattern in (_DOUBLE, _SINGLE):
        ranges += [match.span() for match in pattern.finditer(text) if _is_speech(match[0])]
    first, last = len(text) - len(text.lstrip()), len(text.rstrip())
    pieces, done = [], 0
    for start, end in sorted(ranges):
        if (start <= first and end >= last and text[first : first + 1] in "\"“'‘") or end <= done:
            continue
        start = max(start, done)
        pieces += [text[done:start], MASK * (end - start)]
        done = end
    return plain("".join(pieces) + text[done:])


def flowing(sentence: str) -> str:
    """A sentence for pattern matching: line breaks as spaces, no emphasis marks. Offsets are lost."""
    return " ".join(sentence.replace("*", "").replace("_", " ").split())


def _is_speech(quotation: str) -> bool:
    """Whether a quotation is somebody's words: longer than scare quotes, or a sentence with its own end."""
    return len(quotation.split()) > _SCARE_WORDS or quotation[-2:-1] in tuple(".,!?…")


def _fences(text: str) -> list[tuple[int, int]]:
    """Fenced code blocks; one that is never closed runs to the end."""
    marks = [match.span() for match in _FENCE.finditer(text)]
    if len(marks) % 2:
        marks.append((len(text), len(text)))
    return [(opening[0], closing[1]) for opening, closing in zip(marks[::2], marks[1::2], strict=True)]


def _letters(text: str) -> list[tuple[int, int]]:
    """From each salutation to the next sign-off, or to the end where nobody signs."""
    ranges: list[tuple[int, int]] = []
    for opening in _SALUTATION.finditer(text):
        if _TO_THE_USER.match(opening[0]) or (ranges and opening.start() < ranges[-1][1]):
            continue
        closing = _SIGN_OFF.search(text, opening.end())
        ranges.append((opening.start(), closing.end() if closing else len(text)))
    return ranges
