"""The sentences of the report. A causal word appears only where an interchange verdict carries it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moeprobe.errors import FindingsError
from moeprobe.report import figures
from moeprobe.report.voice import Voice

Json = Mapping[str, Any]


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
        "Its routing goes with the behaviour, but swapping its contribution did not move it enough.",
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
        "Too few pairs",
        "Its contribution was swapped in too few pairs of prompts to call it a cause, or to say that it is none.",
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
# Percent of the effect from which on, by the lower end of the interval, it is called the effect and not a part of it.
MOST = 50
CAUSAL = frozenset({"necessary and sufficient", "necessary", "sufficient"})


def verdict(name: str) -> Verdict:
    """Look up a verdict.

    Raises:
        FindingsError: the name is none of the verdicts of docs/findings.md; a report must not guess.
    """
    if name not in _BY_NAME:
        raise FindingsError(f"The findings hold the verdict {name[:80]!r}, which this report does not know.")
    return _BY_NAME[name]


def site(row: Json) -> str:
    """Name the expert of a row from its two numbers."""
    return f"L{int(row['layer'])}.E{int(row['expert'])}"


def caused(voice: Voice) -> str:
    """What a causal verdict is about. Nobody can cause a label that was given: there it is the measured difference."""
    return f"the measured difference that goes with {voice.theme}" if voice.given else voice.about


def effect(value: Json) -> str:
    """Print an effect with its interval: ``97 % [90, 104]``."""
    return f"{figures.percent(value['percent'])} {figures.interval(value['ci'])}"


def largest_null(swaps: Json) -> float | None:
    """The largest effect (in size, percent) of the other experts of the layer; None when none was tried."""
    null = swaps["null"]
    sizes = [abs(x) for key in ("necessity", "sufficiency") for x in null[key] if x is not None]
    return max(sizes, default=None)


def null_sentence(swaps: Json) -> str:
    """Say what the other experts of the same layer did under the same swaps."""
    largest, tried = largest_null(swaps), len(swaps["null"]["sites"])
    if largest is None:
        return "No other expert of the layer was tried for comparison."
    who = "One other expert of the layer" if tried == 1 else f"{tried} other experts of the layer, chosen at random,"
    return f"{who} changed it by at most {figures.percent(largest)} (necessity or sufficiency)."


def summary(row: Json, voice: Voice, run: Json | None) -> str:
    """One finding in a sentence or two that need no training to read."""
    name = site(row)
    opening = f"Expert {int(row['expert'])} of layer {int(row['layer'])} ({name})"
    swaps = row["interchange"]
    if row["verdict"] == "associated" or swaps is None or run is None:
        return f"{opening} {_association(row, voice)}. What it does has not been tested."
    if row["verdict"] in CAUSAL:
        return f"{opening} {_causal(row, voice, swaps, run)} {null_sentence(swaps)}"
    return f"{opening} {_inert(row, voice, swaps, run)}"


def direction(row: Json) -> int:
    """1, -1 or 0: the sign of the test that decides, or of the plain difference where there was none."""
    value = row["t"] if row["t"] is not None else row["rate_difference"] or 0.0
    return (value > 0) - (value < 0)


def _association(row: Json, voice: Voice) -> str:
    if row["association"] == "tokens only":
        verb = "changes" if voice.scores else "differs"
        return f"{verb} with {voice.theme}, but the words used there may explain all of it"
    if row["association"] == "untestable":
        return f"could not be tested for {voice.theme}"
    if row["association"] != "associated":
        return _flat(voice)
    here = " in these generations" if voice.shifts else ""
    sign, plain = direction(row), row["rate_difference"] or 0.0
    start = f"goes {'against' if sign < 0 else 'with'} {voice.theme}{here}"
    if not voice.measured and sign * plain < 0:
        turned = "more" if sign < 0 else "less"
        return f"{start} once the words are held fixed, although in all it is chosen {turned} often {voice.where}"
    if sign < 0 or voice.scores or voice.measured:
        return f"{start}: {voice.less if sign < 0 else voice.more} {voice.where}"
    return start


def _flat(voice: Voice) -> str:
    """No association, in words."""
    if voice.measured:
        return f"shows no measurable difference with {voice.theme}"
    when = {"scores": f"as {voice.theme} rises", "within generations": f"on {voice.theme}"}
    return f"is not chosen measurably more or less often {when.get(voice.kind, f'with {voice.about}')}"


def _causal(row: Json, voice: Voice, swaps: Json, run: Json) -> str:
    """The sentence behind a causal verdict; it claims no more than the verdict and keeps both numbers."""
    needed = (
        f"replacing its contribution in a \u201c{run['positive']}\u201d run by that of a \u201c{run['negative']}\u201d "
        f"run removes {effect(swaps['necessity'])} of the effect (necessity)"
    )
    enough = (
        f"putting it into a \u201c{run['negative']}\u201d run brings {effect(swaps['sufficiency'])} of the effect "
        "about (sufficiency)"
    )
    link = "and" if row["association"] == "associated" else "but"
    start = f"{_association(row, voice)}, {link}"
    plain = "it" if voice.theme == voice.about else voice.about
    thing = part(row) + ("the measured difference" if voice.given else plain)
    if row["verdict"] == "necessary and sufficient":
        return f"{start} causes {thing} here: {needed}, and {enough}."
    if row["verdict"] == "necessary":
        return f"{start} is needed for {thing} here: {needed}. It is not enough on its own: {enough}."
    return f"{start} is enough to bring {thing} about here: {enough}. It is not needed: {needed}."


def part(row: Json) -> str:
    """`part of ` where a causal verdict rests on effects that are not clearly most of the whole.

    A reader takes a bare "causes" for the whole.
    """
    named = {"necessary": ("necessity",), "sufficient": ("sufficiency",)}
    effects = named.get(row["verdict"], ("necessity", "sufficiency"))
    intervals = [row["interchange"][name]["ci"] for name in effects]
    whole = all(interval is not None and interval[0] >= MOST for interval in intervals)
    return "" if whole else "part of "


def _inert(row: Json, voice: Voice, swaps: Json, run: Json) -> str:
    associated = row["association"] == "associated"
    ending = "association only" if associated else "no effect shown"
    start = f"{_association(row, voice)}, {'but' if associated else 'and'}"
    if swaps["exactly_zero"] and row["verdict"] != "underpowered":
        return f"{start} swapping it or knocking it out changed nothing (exactly 0): {ending}."
    numbers = f"necessity {effect(swaps['necessity'])}, sufficiency {effect(swaps['sufficiency'])}"
    if row["verdict"] == "underpowered" and swaps["enough_pairs"]:
        pairs = int(swaps["pairs"])
        return f"{start} swapping it in {pairs} pairs does not settle what it does: {numbers}. More pairs would."
    if row["verdict"] == "underpowered":
        return f"{start} it was swapped in only {int(swaps['pairs'])} pairs, too few for a verdict: {numbers}."
    return (
        f"{start} swapping it changed too little: {numbers}, where reliably more than "
        f"{figures.percent(run['minimum_effect'])}, and more than other experts do, was asked for: {ending}."
    )


def routing(row: Json, voice: Voice, segment: str) -> str:
    """How often the expert is chosen on the two sides, in a sentence."""
    first, second = figures.share(row["S1"]), figures.share(row["S0"])
    start = f"The router chose it for {first} of the {segment} tokens {voice.tokens_one} and {second} "
    gap = f"{figures.change(row['rate_difference'], fine=voice.scores)} points"
    q = f"q {figures.chance(row['q'])}"
    end, tested = (f" ({q})", "") if not voice.measured else ("", f" {_tested(row, voice, q)}")
    if voice.scores:
        return f"{start}{voice.tokens_other}; for one unit of score, {gap}{end}.{tested}"
    if voice.inside:
        return f"{start}{voice.tokens_other} of the same generations{end}.{tested}"
    if voice.pairs:
        return f"{start}{voice.tokens_other}; inside a pair the mean difference is {gap}{end}.{tested}"
    auc = f"separation AUC {figures.number(row['auc'], 2)}"
    return f"{start}{voice.tokens_other} ({auc}{'' if voice.measured else f', {q}'}).{tested}"


def _tested(row: Json, voice: Voice, q: str) -> str:
    """The difference that was tested where it is not that of the choice: another number, perhaps of another sign."""
    per = " for one unit of score" if voice.scores else ""
    held = f" with the {voice.fixed} held fixed" if voice.strata else ""
    return (
        f"What was tested is another quantity, {voice.measured}: its difference per token{per}{held} is "
        f"{figures.signed(row['beyond_difference'])} ({q})."
    )


def doubts(row: Json, question: Json, voice: Voice, run: Json | None) -> list[str]:
    """What would make this finding wrong; two to six sentences that follow from what was and was not run."""
    found = []
    if row["association"] == "associated":
        found += [_follows(question, voice), *_fragile(row, question, voice)]
    if voice.given:
        what = "numbers" if voice.scores else "labels"
        found.append(f"The {what} are wrong or mean something else to whoever set them.")
    elif voice.inside:
        found.append("The probe marked the wrong tokens. How well it marks tokens was not measured.")
    elif voice.scores:
        found.append("The score does not measure what its name says.")
    else:
        found.append("The probe sorted generations wrongly: see its error rate above.")
    swaps = row["interchange"]
    if swaps is None or run is None:
        found.append("It only travels with what really causes the behaviour. Run moeprobe interchange to find out.")
        return found
    return found + _swap_doubts(row, swaps, run)


def _follows(question: Json, voice: Voice) -> str:
    """What else the routing may follow, given what was held fixed."""
    design = question["design"]
    fixed = [f"tokens ({voice.strata})" if voice.strata else "", *(str(word) for word in design["held"])]
    listed = ", ".join(word for word in fixed if word)
    held = f"Only this was held fixed: {listed}." if listed else "Nothing was held fixed."
    if voice.inside:
        return (
            "The routing follows where in the answer the tokens stand, or the meaning of words in their context, which "
            f"come along with the marks. {held}"
        )
    after = design["length_ratio_after"]
    shown = f"The mean length ratio after matching is {figures.number(after, 2)}."
    ratio = "" if after is None or voice.scores else f" {shown}"
    inside = " What the two sides of a pair share cannot be the reason." if voice.pairs else ""
    return (
        "The routing follows topics, lengths or the meaning of words in their context, which come along with "
        f"{voice.theme if voice.scores else 'the behaviour'}. {held}{inside}{ratio}"
    )


def _fragile(row: Json, question: Json, voice: Voice) -> list[str]:
    """What the tests beside the decision say against it; nothing where they were not made."""
    found, alpha = [], question["design"]["alpha"]
    left, partial, confirmed = row["leave_one_out"], row["partial"], row["confirmed"]
    if left is not None and left["p"] is not None and left["p"] >= alpha:
        found.append(f"It hangs on one {voice.unit}: without {left['unit']}, p is {figures.chance(left['p'])}.")
    if partial is not None and partial["q"] is not None and partial["q"] >= alpha:
        found.append(
            "It goes with another register: with the others held fixed, q is "
            f"{figures.chance(partial['q'])}, so its own share is not shown."
        )
    if confirmed is not None and not confirmed["confirmed"]:
        found.append(
            f"It is chance or too weak: the half of the {voice.unit}s that was kept back did not confirm it "
            f"(q {figures.chance(confirmed['q'])})."
        )
    return found


def _swap_doubts(row: Json, swaps: Json, run: Json) -> list[str]:
    found = []
    if row["verdict"] in CAUSAL:
        found.append(f"The metric is not the behaviour: it was {run['metric']}.")
        tried = len(swaps["null"]["sites"])
        if tried < 20:
            found.append(
                f"Swapping other experts does as much. Only {figures.count(tried, 'other expert')} of the layer "
                f"{'was' if tried == 1 else 'were'} tried, so the comparison cannot be finer than 1 in {tried + 1}."
            )
    else:
        found.append(
            f"It acts at other positions, on another metric, or together with experts that stand in for it. Here "
            f"single experts were swapped, aligned at the {run['alignment']}."
        )
    if swaps["pairs"] < 20:
        found.append(f"The {figures.count(swaps['pairs'], 'prompt pair')} are not like other prompts: that is few.")
    return found


def in_short(rows: Sequence[Json], voice: Voice) -> str:
    """The result of one question in one or two sentences, for the head of the page."""
    causal = [row for row in rows if row["verdict"] in CAUSAL]
    inert = sum(row["verdict"] == "association only" for row in rows)
    untested = sum(row["verdict"] == "associated" for row in rows)
    associated = sum(row["association"] == "associated" for row in rows)
    words_only = sum(row["verdict"] == "tokens only" for row in rows)
    here = " in these generations" if voice.shifts else ""
    verb = ("changes", "change") if voice.scores else ("differs", "differ")
    by_words = (
        f"{figures.count(words_only, 'expert')} {verb[words_only != 1]} with {voice.theme}, but the "
        "words used there may explain all of it."
    )
    if not associated and not causal:
        found = f"No expert was found that goes with {voice.theme}."
        if all(row["p"] is None for row in rows):
            found = f"Nothing could be tested for {voice.theme}, so this says neither yes nor no."
        return f"{found} {by_words}" if words_only else found
    parts = [_causes(causal, voice)] if causal else []
    if inert:
        parts.append(
            f"{figures.count(inert, 'expert')} {'goes' if inert == 1 else 'go'} with or against {voice.theme}{here}, "
            "without an effect that interchange could show."
        )
    if untested:
        parts.append(
            f"{figures.count(untested, 'expert')} {'goes' if untested == 1 else 'go'} with or against {voice.theme}"
            f"{here}; what {'it does' if untested == 1 else 'they do'} was not tested."
        )
    if words_only:
        parts.append(by_words)
    return " ".join(parts)


def _causes(causal: Sequence[Json], voice: Voice) -> str:
    """Name up to three causal experts by what was shown: cause only where both swaps carried it."""
    phrases = {
        "necessary and sufficient": ("causes", "cause"),
        "necessary": ("is needed for", "are needed for"),
        "sufficient": ("is enough to bring about", "are each enough to bring about"),
    }
    sentences = []
    for name, share in ((name, share) for name in phrases for share in ("", "part of ")):
        one, several = phrases[name]
        sites = [site(row) for row in causal if row["verdict"] == name and part(row) == share]
        if not sites:
            continue
        listed = sites if len(sites) <= 3 else [*sites[:3], f"{len(sites) - 3} more"]
        joined = listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} and {listed[-1]}"
        verb = one if len(sites) == 1 else several
        sentences.append(f"{joined} {verb} {share}{caused(voice)} in the prompts tested.")
    return " ".join(sentences)


def nothing(question: Json, voice: Voice) -> str:
    """Say plainly that nothing was found, and what that does not mean."""
    design = question["design"]
    tested = int(design["tested"])
    if tested == 0:
        return f"Nothing could be tested for {voice.theme}: see the reasons in the table. This is not a result."
    none = _flat(voice).removeprefix("is not chosen").removeprefix("shows no measurable difference")
    said = f"none is chosen{none}" if not voice.measured else f"none shows a measurable difference{none}"
    return (
        f"Nothing was found. Of {figures.count(tested, 'expert')} tested, {said} (none has q below "
        f"{design['alpha']:g}). That does not show that there is none: with {size(design, voice)} only large "
        "differences can be seen."
    )


def size(design: Json, voice: Voice) -> str:
    """How many units were compared: ``12 and 11 generations``, ``12 pairs``."""
    if voice.kind == "two groups":
        return f"{int(design['positive']['units'])} and {int(design['negative']['units'])} {voice.unit}s"
    return figures.count(int(design["units"]), voice.unit)
