"""The verdicts of docs/findings.md as the page shows them."""

from dataclasses import dataclass

from moeprobe.errors import FindingsError


@dataclass(frozen=True)
class Verdict:
    """One of the verdicts of docs/findings.md: its CSS class, its sign (never colour alone), its label and meaning."""

    name: str
    css: str
    sign: str
    label: str
    meaning: str


VERDICTS: tuple[Verdict, ...] = (
    Verdict(
        "necessary and sufficient",
        "both",
        "\u25c6",
        "Necessary and sufficient",
        "Taking it over from the control run removes the effect or a reliable part of it, and putting it into the "
        "control run brings that about. How large a part: see the percentages.",
    ),
    Verdict(
        "necessary",
        "necessary",
        "\u25b2",
        "Necessary",
        "Replacing its contribution removes the effect or a reliable part of it; putting it in elsewhere does not "
        "bring the effect about.",
    ),
    Verdict(
        "sufficient",
        "sufficient",
        "\u25bc",
        "Sufficient",
        "Putting its contribution in brings the effect or a reliable part of it about; without it the effect comes "
        "about some other way.",
    ),
    Verdict(
        "association only",
        "only",
        "\u25cb",
        "Association only",
        "Its routing goes with the behaviour, or at least with its words, but swapping its contribution did not move "
        "it enough.",
    ),
    Verdict(
        "associated",
        "associated",
        "\u25cf",
        "Associated, cause not tested",
        "Its routing goes with the behaviour. Nobody has tested yet whether it does anything.",
    ),
    Verdict(
        "tokens only",
        "tokens",
        "\u2248",
        "Perhaps only words",
        "Its routing differs, but the words that come along with the behaviour may be all there is to it: beyond them "
        "no difference was shown.",
    ),
    Verdict(
        "neither",
        "neither",
        "\u2715",
        "Tested, neither",
        "Its routing does not go with the behaviour, and swapping its contribution did not move it enough.",
    ),
    Verdict(
        "underpowered",
        "untestable",
        "?",
        "Not decided",
        "It was swapped, but in too few pairs of prompts, or with effects that differ too much between pairs, to call "
        "it a cause or to say that it is none.",
    ),
    Verdict(
        "not associated",
        "none",
        "\u00b7",
        "Not associated",
        "No difference in routing was found. That is not proof that there is none.",
    ),
    Verdict("untestable", "untestable", "/", "Untestable", "The data could not be tested, for example never selected."),
)
_BY_NAME = {verdict.name: verdict for verdict in VERDICTS}
CAUSAL = frozenset({"necessary and sufficient", "necessary", "sufficient"})


def verdict(name: str) -> Verdict:
    """Look up a verdict.

    Raises:
        FindingsError: the name is none of the verdicts of docs/findings.md; a report must not guess.
    """
    if name not in _BY_NAME:
        raise FindingsError(f"The findings hold the verdict {name[:80]!r}, which this report does not know.")
    return _BY_NAME[name]
