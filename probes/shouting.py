"""The shortest probe there is: a function with `@probe`. Does the writer shout?

moeprobe probes check probes/shouting.py
moeprobe correlate RUN.trace --probe probes/shouting.py
"""

from moeprobe.probes import probe

# Short words that are shouted; longer words in capitals are taken for shouted, shorter ones for abbreviations.
_SHOUTED = {"NO", "NOT", "NOW", "STOP", "WHY", "EVER", "NEVER", "THIS", "BEST", "YOU", "MUST", "LOOK", "HELP"}


@probe(
    name="shouting",
    version="1",
    level="generation",
    definition=(
        "The writer shouts: words in capitals that are no abbreviations. Headings, names of firms and short codes do "
        "not count."
    ),
    examples=[
        ("STOP IT right NOW!", 1),
        ("I said NO and I meant it.", 1),
        ("THIS IS THE BEST DAY EVER", 1),
        ("Do NOT open that door.", 1),
        ("Please, LISTEN to me for once.", 1),
        ("WHY would anybody do that?", 1),
        ("NASA was founded in 1958.", 0),
        ("The HTML and CSS files are in the ZIP.", 0),
        ("Stop it right now!", 0),
        ("I am in the USA until May.", 0),
        ("A plain sentence, nothing more.", 0),
        ("He moved to IBM after his PhD.", 0),
    ],
)
def shouting(text: str) -> list[tuple[int, int]] | None:
    """The shouted words as (start, end); None where there is no word to judge."""
    words, at = [], 0
    for word in text.split():
        at = text.index(word, at)
        words.append((at, at + len(word), word.strip(".,;:!?\"'()")))
        at += len(word)
    if not words:
        return None
    return [(start, end) for start, end, word in words if word in _SHOUTED or (word.isupper() and len(word) > 4)]
