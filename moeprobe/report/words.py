"""The sentences of the report. A causal word appears only where an interchange verdict carries it."""

from collections.abc import Mapping, Sequence
from typing import Any

from moeprobe.findings.verdicts import CAUSAL, in_words
from moeprobe.report import figures, swaps, verdicts
from moeprobe.report.voice import Voice

Json = Mapping[str, Any]


def site(row: Json) -> str:
    """Name the expert of a row from its two numbers."""
    return f"L{int(row['layer'])}.E{int(row['expert'])}"


def caused(voice: Voice) -> str:
    """What a causal verdict is about. Nobody can cause a label that was given: there it is the measured difference."""
    return f"the measured difference that goes with {voice.theme}" if voice.given else voice.about


def summary(row: Json, voice: Voice, run: Json | None) -> str:
    """One finding in a sentence or two that need no training to read."""
    opening = f"Expert {int(row['expert'])} of layer {int(row['layer'])} ({site(row)}) {_association(row, voice)}"
    effects, associated = row["interchange"], row["association"] == "associated"
    if row["verdict"] == "associated" or effects is None or run is None:
        return f"{opening}. What it does has not been tested."
    link = (
        "and"
        if associated == (row["verdict"] in CAUSAL)
        else "but"
        if associated or row["verdict"] in CAUSAL
        else "and"
    )
    if row["verdict"] in CAUSAL:
        thing = "the measured difference" if voice.given else "it" if voice.theme == voice.about else voice.about
        found = swaps.causal(row["verdict"], effects, voice.runs(run), thing, swaps.swapped(run))
        return f"{opening}, {link} {found} {swaps.null_sentence(effects, 'expert')}"
    return f"{opening}, {link} {swaps.inert(row['verdict'], effects, run, 'expert', in_words(row['verdict']))}"


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
        found.append("The probe sorted generations wrongly: see how good it is, under \u201cWhat was asked\u201d.")
    if row["interchange"] is None or run is None:
        found.append("It only travels with what really causes the behaviour. Run moeprobe interchange to find out.")
        return found
    return found + swaps.doubts(row["verdict"], row["interchange"], run, "expert")


def _follows(question: Json, voice: Voice) -> str:
    """What else the routing may follow, given what was held fixed."""
    design = question["design"]
    tokens = "which token it is" if voice.fixed == "words" else f"tokens ({voice.strata})"
    fixed = [tokens if voice.strata else "", *(str(word) for word in design["held"])]
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


def in_short(rows: Sequence[Json], voice: Voice, others: Sequence[Json] = ()) -> str:
    """The result of one question in a few sentences, for the head of the page; `others` are no single experts."""
    causal = [row for row in rows if row["verdict"] in CAUSAL]
    associated = [row for row in rows if row["association"] == "associated"]
    by_words = _by_words([row for row in rows if row["association"] == "tokens only" and row not in causal], voice)
    if not associated and not causal and not any(other["verdict"] in CAUSAL for other in others):
        found = f"No expert was found that goes with {voice.theme}."
        if all(row["p"] is None for row in rows):
            found = f"Nothing could be tested for {voice.theme}, so this says neither yes nor no."
        return " ".join([found, *by_words])
    parts = [_causes(causal, voice)] if causal else []
    return " ".join([*parts, *other_causes(others), *_uncaused(associated, voice), *by_words])


def _uncaused(associated: Sequence[Json], voice: Voice) -> list[str]:
    """A sentence for each way in which an associated expert is not shown to cause anything."""
    found = []
    for verdict in ("association only", "underpowered", "associated"):
        these = [row for row in associated if row["verdict"] == verdict]
        number, one = len(these), len(these) == 1
        if not these:
            continue
        here = " in these generations" if voice.shifts else ""
        goes = f"{'goes' if one else 'go'} {_ways(these)} {voice.theme}{here}"
        it = "it does" if one else "they do"
        found.append(
            {
                "association only": f"{figures.count(number, 'expert')} {goes}, without an effect that interchange "
                "could show.",
                "underpowered": f"Of {figures.count(number, 'more expert')} that {goes}, interchange could not decide "
                f"whether {it} anything.",
                "associated": f"{figures.count(number, 'expert')} {goes}; what {it} was not tested.",
            }[verdict]
        )
    return found


def _ways(rows: Sequence[Json]) -> str:
    """``with``, ``against``, or both where they differ."""
    signs = {direction(row) for row in rows}
    return "with" if signs == {1} else "against" if signs == {-1} else "with or against"


def _by_words(rows: Sequence[Json], voice: Voice) -> list[str]:
    """Experts whose difference the words may explain: they are never said to go with the behaviour."""
    if not rows:
        return []
    one = len(rows) == 1
    verb = ("changes", "change") if voice.scores else ("differs", "differ")
    tested = sum(row["verdict"] == "association only" for row in rows)
    said = f"{figures.count(len(rows), 'expert')} {verb[not one]} with {voice.theme}, but the words used there may "
    said += "explain all of it"
    if not tested:
        return [f"{said}."]
    which = ("it" if one else "them") if tested == len(rows) else f"{tested} of them"
    return [f"{said}; swapping {which} showed no effect."]


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
        these = [row for row in causal if row["verdict"] == name and swaps.part(name, row["interchange"]) == share]
        sites = [site(row) for row in these]
        if not sites:
            continue
        listed = sites if len(sites) <= 3 else [*sites[:3], f"{len(sites) - 3} more"]
        joined = listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} and {listed[-1]}"
        verb = one if len(sites) == 1 else several
        much = _much(name, [(site(row), row["interchange"]) for row in these[:3]])
        sentences.append(f"{joined} {verb} {share}{caused(voice)} in the prompts tested ({much} of the gap).")
    return " ".join(sentences)


def _much(name: str, tested: Sequence[tuple[str, Json]]) -> str:
    """What sites with one causal verdict carry: the percentages of one, or those of each behind its name."""
    if len(tested) == 1:
        return verdicts.sizes(name, tested[0][1])
    return "; ".join(f"{one}: {verdicts.sizes(name, effects)}" for one, effects in tested)


def other_causes(others: Sequence[Json]) -> list[str]:
    """Sites with a causal verdict that are no single expert, up to three by name, in a sentence for each verdict."""
    found = []
    for name in ("necessary and sufficient", "necessary", "sufficient"):
        these = [other for other in others if other["verdict"] == name]
        if these:
            sites = [f"{one['site']} for {verdicts.sizes(name, one['interchange'])}" for one in these[:3]]
            listed = "; ".join(sites) + (f"; and {len(these) - 3} more" if len(these) > 3 else "")
            found.append(f"Of sites that are no single expert, these are {name}, in percent of the gap: {listed}.")
    return found


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
