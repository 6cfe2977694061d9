"""Swaps held at every step: how often the behaviour appears, and the texts before and after."""

import math
from collections.abc import Mapping

from moeprobe.errors import FindingsError
from moeprobe.fields import Fields
from moeprobe.findings.changes import as_it_is, to_the_gap
from moeprobe.findings.checks import check_ends, check_texts, check_unit, is_number
from moeprobe.probes.probe import THRESHOLD
from moeprobe.report import figures
from moeprobe.report.results.part import Comparison, Part, Table

# Arm -> the arm it is compared with, and what was done, in words.
_SWAPS = {
    "necessity": ("sensitive", "sensitive prompt; the site speaks as after the control prompt"),
    "sufficiency": ("control", "control prompt; the site speaks as after the sensitive prompt"),
    "knockout": ("sensitive", "sensitive prompt; the site adds nothing"),
    "placebo_necessity": ("sensitive", "sensitive prompt; the site speaks as after another sensitive prompt"),
    "placebo_sufficiency": ("control", "control prompt; the site speaks as after another control prompt"),
}
_RESCUE = {
    "rescue": ("recipient", "control prompt; the site speaks as after the sensitive prompt"),
    "random_site": ("recipient", "control prompt; another site speaks as after the sensitive prompt"),
    "placebo_donor": ("recipient", "control prompt; the site speaks as after another control prompt"),
    "noise": ("recipient", "control prompt; noise as long as the swap is added"),
}
_SIGNS = (
    "Changes are of the share of answers that show the behaviour: with a minus sign it fell. A fall after sensitive "
    "prompts closes the gap, and so does a rise after controls."
)
Arms = Mapping[str, tuple[str, str]]
Answers = Mapping[str, "_Arm"]
TEXTS = ("necessity", "sufficiency", "knockout", "rescue")
PAIRS = 40


def behaviour_part(fields: Fields) -> Part:
    """`moeprobe.behaviour/1`: necessity, sufficiency and knock-out in generated text.

    Raises:
        FindingsError: a field is missing, or a count does not follow from the scores.
    """
    title = f"What is written when {fields.text('sites')} is swapped at every step"
    return _changed(fields, _answers(fields), _SWAPS, title, [], [])


def rescue_part(fields: Fields) -> Part:
    """`moeprobe.rescue/2`: sites of sensitive prompts injected into the answers to their controls.

    Raises:
        FindingsError: as `behaviour_part`.
    """
    answers = _answers(fields)
    effects = _effects(fields, "beyond", _RESCUE, answers)
    beyond = [f"Beyond {name.replace('_', ' ')}: {_beyond(one)}." for name, one in effects.items()]
    site = fields.optional_text("random_sites") or "none: nothing else runs and writes"
    title = f"What is written when {fields.text('sites')} is put into other runs"
    return _changed(fields, answers, _RESCUE, title, beyond, [("Random site", site)])


def _changed(
    fields: Fields, answers: Answers, arms: Arms, title: str, more: list[str], facts: list[tuple[str, str]]
) -> Part:
    names, probe = check_texts(fields, "pairs"), fields.text("probe")
    effects = _effects(fields, "effects", arms, answers)
    return Part(
        title=title,
        model=str(fields.section("model").get("id", "a model")),
        sentences=[*(_sentence(name, effects[name], probe, arms) for name in TEXTS if name in effects), *more, _SIGNS],
        facts=[("Pairs of prompts", f"{len(names):,}"), ("Judged by", f"the probe {probe}"), *_gap(answers), *facts],
        tables=[_table(effects, arms)],
        texts=_texts(names, answers, fields, arms),
        cautions=[
            "The probe judges the text; where it is wrong, so are these counts.",
            "An arm shows what any swap does, too; only what it does beyond its placebo is of the site and the class.",
        ],
    )


def _answers(fields: Fields) -> Answers:
    pairs = len(check_texts(fields, "pairs"))
    return {
        name: _Arm(Fields(one, f"{fields.where}, answers, {name}", FindingsError), pairs)
        for name, one in fields.section("answers").items()
    }


def _effects(fields: Fields, key: str, arms: Arms, answers: Answers) -> dict[str, Fields]:
    """The effects of `key`, held against the answers: each arm against its base, or "rescue" beyond each control."""
    found = {}
    for name, one in fields.section(key).items():
        effect = Fields(one, f"{fields.where}, {key}, {name}", FindingsError)
        if name not in arms:
            raise FindingsError(f"{effect.where}: there is no such arm; known are {', '.join(arms)}.")
        arm, base = ("rescue", name) if key == "beyond" else (name, arms[name][0])
        _check_counts(arm, effect, answers, base)
        check_ends(effect, "points_ci")
        check_unit(effect, "p")
        found[name] = effect
    return found


class _Arm:
    """Texts and scores of one arm, one per pair."""

    def __init__(self, fields: Fields, pairs: int) -> None:
        self.texts, self.scores = fields.items("texts"), fields.items("scores")
        if len(self.texts) != pairs or len(self.scores) != pairs:
            raise FindingsError(f"{fields.where}: needs one text and one score for each of {pairs} pairs.")
        if not all(isinstance(text, str) for text in self.texts):
            raise FindingsError(f"{fields.where}: 'texts' must be texts.")
        if not all(one is None or is_number(one) for one in self.scores):
            raise FindingsError(f"{fields.where}: 'scores' must be numbers or null.")


def _check_counts(name: str, effect: Fields, answers: Answers, base: str) -> None:
    """The counts of an arm must follow from the scores that stand beside the texts."""
    if name not in answers or base not in answers:
        raise FindingsError(f"{effect.where}: there are no answers of {name!r} and of {base!r} to compare.")
    both = _judged(answers[base], answers[name])
    found = (len(both), *(sum(pair[side] >= THRESHOLD for pair in both) for side in (0, 1)))
    if found != tuple(effect.integer(key) for key in ("pairs", "before", "after")):
        raise FindingsError(f"{effect.where}: the counts do not follow from the scores.")
    # fewer of the sensitive answers are positive, more of all others: as the experiment counts
    sign = -1 if base == "sensitive" else 1
    points = 100 * sign * (found[2] - found[1]) / max(1, found[0])
    if not math.isclose(effect.number("points"), points, abs_tol=1e-6):
        raise FindingsError(f"{effect.where}: the points do not follow from the scores.")


def _gap(answers: Answers) -> list[tuple[str, str]]:
    """How far the answers to the two prompts of a pair lie apart, unedited; nothing where they are not there."""
    for first, second in (("sensitive", "control"), ("donor", "recipient")):
        if first in answers and second in answers:
            both = _judged(answers[first], answers[second])
            with_it, without = (sum(pair[side] >= THRESHOLD for pair in both) for side in (0, 1))
            gap = 100 * (with_it - without) / max(1, len(both))
            apart = f"{figures.number(abs(gap), 0)} points apart{', the wrong way round' if gap < 0 else ''}"
            said = (
                f"shown in {with_it} of {len(both)} answers to the sensitive prompts and {without} of {len(both)} to "
            )
            return [("The gap", f"{said}the controls, unedited: {apart}")]
    return []


def _judged(first: "_Arm", second: "_Arm") -> list[tuple[float, float]]:
    """The scores of both arms where the probe abstained in neither."""
    return [(one, two) for one, two in zip(first.scores, second.scores, strict=True)
            if one is not None and two is not None]  # fmt: skip


def _sentence(name: str, effect: Fields, probe: str, arms: Arms) -> str:
    pairs, before, after = (effect.integer(key) for key in ("pairs", "before", "after"))
    change, ends = _as_it_is(name, effect)
    return (
        f"{name.capitalize()}: {probe} in {before} of {pairs} answers before and {after} after ({arms[name][1]}). That "
        f"{_to_the_gap(effect)}: a change of {change} points {ends}, exact McNemar p "
        f"{figures.chance(effect.number('p'))}."
    )


def _beyond(effect: Fields) -> str:
    """The rescue against one of its controls; here a rise is a rise."""
    pairs, before, after = (effect.integer(key) for key in ("pairs", "before", "after"))
    change, ends = _as_it_is("rescue", effect)
    return (
        f"shown in {after} of {pairs} answers with the rescue and in {before} with that, {change} points {ends}, exact "
        f"McNemar p {figures.chance(effect.number('p'))}"
    )


def _as_it_is(name: str, effect: Fields) -> tuple[str, str]:
    change, ends = as_it_is(name, effect.number("points"), effect.items("points_ci"))
    return figures.number(change, 0, sign=True), figures.interval(ends, digits=0)


def _to_the_gap(effect: Fields) -> str:
    words = to_the_gap(effect.number("points"), effect.optional_number("percent"))
    return words.replace(" %", f"{figures.NBSP}%")


def _table(effects: dict[str, Fields], arms: Arms) -> Table:
    rows = []
    for name, effect in effects.items():
        pairs, before, after = (effect.integer(key) for key in ("pairs", "before", "after"))
        rows.append(
            [name.replace("_", " "), f"{before:,} of {pairs:,}", f"{after:,} of {pairs:,}", _to_the_gap(effect),
             *_as_it_is(name, effect), figures.chance(effect.number("p")), arms[name][1]]
        )  # fmt: skip
    head = ["arm", "shown before", "shown after", "what it does", "change, points", "95 %", "p", "what was done"]
    return Table("How often the behaviour appears.", head, rows)


def _texts(names: list[str], answers: Answers, fields: Fields, arms: Arms) -> list[tuple[str, list[Comparison]]]:
    prompts = _prompts(fields, len(names))
    shown = [name for name in TEXTS if name in answers and name in arms and arms[name][0] in answers]
    return [
        (pair, [_compared(arm, arms[arm], place, answers, prompts) for arm in shown])
        for place, pair in enumerate(names[:PAIRS])
    ]


def _compared(
    arm: str, what: tuple[str, str], place: int, answers: Answers, prompts: list[dict[str, str]]
) -> Comparison:
    base, done = what
    before, after = answers[base].texts[place], answers[arm].texts[place]
    same = next((i for i, (one, two) in enumerate(zip(before, after, strict=False)) if one != two),
                min(len(before), len(after)))  # fmt: skip
    scores = [answers[name].scores[place] for name in (base, arm)]
    said = [figures.number(score, 2) if score is not None else "abstained" for score in scores]
    return Comparison(
        title=arm,
        prompt=prompts[place].get({"recipient": "control"}.get(base, base), "") if prompts else "",
        before="unedited",
        after=done.partition("; ")[2],
        same=before[:same],
        before_rest=before[same:],
        after_rest=after[same:],
        judged="" if scores == [None, None] else f"score before {said[0]}, after {said[1]}",
    )


def _prompts(fields: Fields, pairs: int) -> list[dict[str, str]]:
    """Prompts of each pair by side; empty in files that do not hold them."""
    if "prompts" not in fields.data:
        return []
    found: list[dict[str, str]] = fields.items("prompts")
    if len(found) != pairs or not all(
        isinstance(one, dict) and all(isinstance(text, str) for text in one.values()) for one in found
    ):
        raise FindingsError(f"{fields.where}: 'prompts' needs an object of texts for each of {pairs} pairs.")
    return found
