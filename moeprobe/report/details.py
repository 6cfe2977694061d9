"""What stands beside the decision for one expert: intervals, robustness, other registers, scores of others."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moeprobe.report import figures
from moeprobe.report.voice import Voice

Json = Mapping[str, Any]

# Names under which others rank experts by these scores.
PEERS = {
    "risk_difference": "SteerMoE risk difference",
    "npmi": "RICE nPMI",
    "specialization": "OLMoE specialization",
    "ratio": "Ratio S\u2081 / S\u2080",
    "log_odds": "Log odds ratio",
}


@dataclass(frozen=True)
class Detail:
    """A group of figures: a heading, lines of label and value, and what to know of them."""

    heading: str
    lines: list[tuple[str, str]]
    note: str


def details(row: Json, question: Json, voice: Voice) -> list[Detail]:
    """All groups of one row that hold a figure."""
    groups = [_tests(row, question, voice), _sizes(row, voice), robust(row, question, voice), _peers(row)]
    return [group for group in groups if group.lines]


def _tests(row: Json, question: Json, voice: Voice) -> Detail:
    lines = []
    if row["p"] is not None:
        fixed = f"{voice.fixed} held fixed; decides" if voice.strata else "decides"
        lines.append((f"Test ({fixed})", _test(row, shifts=voice.shifts)))
    if row["marginal"]["p"] is not None:
        lines.append((f"Test ({voice.fixed or 'words'} not held fixed)", _test(row["marginal"], shifts=voice.shifts)))
    if row["beyond_difference"] is not None:
        per = " per unit of score" if voice.scores else ""
        what = f" of {voice.thing} per token" if voice.measured else ""
        size = f"{figures.change(row['beyond_difference'], fine=voice.scores)} points"
        if voice.measured:
            size = figures.signed(row["beyond_difference"])
        lines.append((f"Difference{what} beyond the {voice.fixed or 'words'}", f"{size}{per}"))
    return Detail("Tests", lines, family(question["design"]) if lines else "")


def family(design: Json) -> str:
    """How the family-wise p was made, or that there is none and why; "" where none was asked for."""
    draws, how = int(design["draws"]), str(design["resampling"])
    none, colon, why = how.partition("none: ")
    if colon and not none:
        return f"No family-wise p: {why}."
    return f"Family-wise p: {how}; {draws:,} draws." if draws else ""


def _test(test: Json, *, shifts: bool) -> str:
    """``t 5.31 on 34.2 degrees of freedom, p 0.001, q 0.020, family-wise p 0.031``."""
    name = "z" if shifts else "t"
    df = "" if test["df"] is None else f" on {figures.number(test['df'], 1)} degrees of freedom"
    chances = f"p {figures.chance(test['p'])}, q {figures.chance(test['q'])}"
    return (
        f"{name} {figures.number(test['t'], 2, sign=True)}{df}, {chances}, family-wise p {figures.chance(test['fwer'])}"
    )


def _sizes(row: Json, voice: Voice) -> Detail:
    sizes = (("Change in mean weight, \u0394W", "dW"), ("Entry (chosen more often)", "entry"),
             ("Valuation (larger weight when chosen)", "valuation"))  # fmt: skip
    lines = [
        (label, f"{figures.number(row[name], 4, sign=True)} {figures.interval(row[f'{name}_ci'], digits=4)}")
        for label, name in sizes
        if row[name] is not None
    ]
    if row.get("odds_ratio") is not None:
        strata = "tokens held fixed" if voice.strata else "tokens not held fixed"
        lines.append((f"Odds ratio of being chosen ({strata})", figures.number(row["odds_ratio"], 2)))
    if row["log_odds"] is not None:
        error = "" if row["log_odds_se"] is None else f", standard error {figures.number(row['log_odds_se'], 2)}"
        lines.append(
            (
                "Log odds ratio of being chosen (tokens not held fixed)",
                figures.number(row["log_odds"], 2, sign=True) + error,
            )
        )
    if row["log_odds_shrunk"] is not None:
        lines.append(("Log odds ratio, shrunken", figures.number(row["log_odds_shrunk"], 2, sign=True)))
    between = " They compare the upper with the lower half of the scores." if voice.scores else ""
    return Detail(
        "Sizes",
        lines,
        "Intervals: 95 %, leaving out one unit at a time. Shrunken: pulled towards what all experts show, so that a "
        f"leader by chance looks less extreme.{between}",
    )


def robust(row: Json, question: Json, voice: Voice) -> Detail:
    """What the tests beside the decision say: without one unit, one kind of token, other registers, on fresh units."""
    lines = []
    left = row["leave_one_out"]
    if left is not None:
        lines.append((f"Worst p without one {voice.unit}", f"{figures.chance(left['p'])}, without {left['unit']}"))
    token = row.get("leave_token_out")
    if isinstance(token, Mapping):
        shown = f"\u201c{token['token']}\u201d" if token.get("token") else f"number {token.get('token_id')}"
        lines.append(("Worst p without one kind of token", f"{figures.chance(token.get('p'))}, without {shown}"))
    partial = question["design"]["partial"]
    if partial is not None and row["partial"] is not None:
        named = ", ".join(str(other) for other in partial["others"])
        said = "not tested" if row["partial"]["p"] is None else _test(row["partial"], shifts=False)
        lines.append((f"With {named} held fixed", said))
    if question["design"]["confirmation"] is not None:
        lines.append((f"On the half of the {voice.unit}s kept back", _confirmed(row["confirmed"])))
    return Detail("Does it hold up?", lines, "None of this is part of the verdict.")


def _confirmed(confirmed: Json | None) -> str:
    if confirmed is None:
        return "not tested: it was not among the leaders of the first half"
    said = "confirmed" if confirmed["confirmed"] else "not confirmed"
    return f"{said}: one-sided p {figures.chance(confirmed['p'])}, q {figures.chance(confirmed['q'])}"


def _peers(row: Json) -> Detail:
    lines = [
        (label, figures.number(row["peers"][key], 3, sign=key != "ratio"))
        for key, label in PEERS.items()
        if row["peers"].get(key) is not None
    ]
    return Detail(
        "Scores that others rank by",
        lines,
        "They are shown for comparison and decide nothing here: none of them controls errors, and words are not held "
        "fixed in them.",
    )
