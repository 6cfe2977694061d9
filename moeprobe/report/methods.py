"""The methods section: sentences for a paper, made from what was really run, each with the works it rests on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moeprobe.findings.causes import CAUSAL_EFFECTS
from moeprobe.report import figures, limits, swaps
from moeprobe.report.references import WORKS
from moeprobe.report.voice import Voice

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Said:
    """A sentence and the keys of `references.WORKS` that it cites."""

    text: str
    works: tuple[str, ...] = ()


@dataclass(frozen=True)
class Paragraph:
    """A heading and its sentences."""

    heading: str
    sentences: list[Said]


def paragraphs(
    findings: Json, asked: Json, rows: Sequence[Json], runs: Sequence[Json], voice: Voice
) -> list[Paragraph]:
    """The methods of one question; `rows` and `runs` are those of this question only."""
    return [
        Paragraph("Recording", _recording(findings, asked, voice)),
        Paragraph("Design", _design(asked, voice)),
        Paragraph("Association", [*_quantities(rows), *_test(asked, voice), *_beside(asked, rows, voice)]),
        *(Paragraph("Interchange", _interchange(run, _effects(run, rows))) for run in runs),
    ]


def text(made: Sequence[Paragraph]) -> str:
    """The paragraphs as plain text, with works cited by author and year."""
    said = []
    for one in made:
        sentences = []
        for sentence in one.sentences:
            cited = "; ".join(WORKS[key].cited for key in sentence.works)
            sentences.append(f"{sentence.text} ({cited})." if cited else sentence.text)
        said.append(f"{one.heading}. {' '.join(sentences)}")
    return "\n\n".join(said)


def works(made: Sequence[Paragraph]) -> set[str]:
    """All works that these paragraphs cite."""
    return {key for one in made for said in one.sentences for key in said.works}


def _recording(findings: Json, asked: Json, voice: Voice) -> list[Said]:
    trace, model = findings["trace"], findings["model"]
    engine = trace["provenance"].get("engine") or {}
    name = engine.get("name") if isinstance(engine, Mapping) else None
    sentences = [
        Said(
            f"The experts that the router chose for every token, with their gate weights, were recorded from "
            f"{model['id']} with moeprobe {findings['moeprobe']}{f' ({name})' if isinstance(name, str) else ''}, as "
            f"the model used them: {figures.count(int(trace['generations']), 'generation')}, "
            f"{figures.count(int(trace['rows']), 'routed token')}."
        )
    ]
    if voice.given:
        sentences.append(Said(f"What was compared came with the prompts: {_plain(asked['definition'])}."))
        return sentences
    version = asked["version"] or "unknown"
    set_to = settings(asked)
    said = f"Text was judged by the probe {asked['name']} (version {version}{f', set to {set_to}' if set_to else ''})"
    quality = asked["quality"]
    if quality is not None:
        on, source = figures.count(int(quality["examples"]), "labelled example"), ""
        if quality.get("labels") is not None:
            on, source = limits.measured_on(quality), f"; SHA-256 of the file {quality['digest'][7:19]}..."
        said += (
            f", which on {on} has a balanced accuracy of {limits.measured(quality['balanced_accuracy'])} "
            f"(95 % interval{source})"
        )
    return [*sentences, Said(f"{said}.")]


def settings(asked: Json) -> str:
    """What a probe was set to: ``least = 3, strict = true``; empty where it cannot be set."""
    found = asked.get("parameters") or {}
    return ", ".join(
        f"{name} = {str(value).lower() if isinstance(value, bool) else value}" for name, value in found.items()
    )


def _plain(text: str) -> str:
    """A sentence of the findings without its full stop, to go on from."""
    return str(text).rstrip().removesuffix(".")


def _design(asked: Json, voice: Voice) -> list[Said]:
    design = asked["design"]
    sentences = [Said(str(design["sentence"])), Said(f"Length: {_plain(design['length_matching'])}.")]
    power = design["detectable"]
    if power is not None:
        sentences.append(
            Said(
                f"A lone expert is found with a chance of {figures.percent(100 * power['power'])} if it differs by "
                f"{figures.number(power['d'], 2)} standard deviations of the {voice.unit}s."
            )
        )
    return sentences


def _quantities(rows: Sequence[Json]) -> list[Said]:
    split = any(row["valuation"] is not None for row in rows)
    return [
        Said(
            "For each expert the selection rate S (tokens that chose it / tokens), the weight when selected Q (sum of "
            "its gate weights / tokens that chose it) and the mean weight W = S \u00b7 Q were computed from sums over "
            "tokens."
        ),
        *(
            [
                Said(
                    "The difference of W was split symmetrically into entry, \u00bd(Q\u2081 + Q\u2080)\u00b7\u0394S, "
                    "and valuation, \u00bd(S\u2081 + S\u2080)\u00b7\u0394Q",
                    ("kitagawa1955",),
                )
            ]
            if split
            else []
        ),
    ]


def _test(asked: Json, voice: Voice) -> list[Said]:
    design = asked["design"]
    response = f"The response was {_plain(design['response'])}"
    fixed = (
        Said(
            f"{response}, compared only within the same {voice.strata}: what was observed less what the stratum "
            "expects, as in the stratified test of Mantel and Haenszel, taken as the one-step odds ratio of Peto",
            ("mantel1959", "yusuf1985"),
        )
        if voice.strata
        else Said(f"{response}.")
    )
    return [
        fixed,
        _statistic(design, voice),
        Said(
            f"p values of {figures.count(int(design['tested']), 'expert')} were adjusted together by the method of "
            f"Benjamini and Hochberg; q below {design['alpha']:g} was called associated",
            ("benjamini1995",),
        ),
        *_familywise(design),
        _interval(design, voice),
    ]


def _statistic(design: Json, voice: Voice) -> Said:
    if voice.shifts:
        return Said(
            "The marks were turned in circles inside each generation; p is the share of all turns whose sum is as "
            "large, by convolution over the generations."
        )
    what = {
        "pairs": "of the differences inside pairs",
        "scores": "of the slope on the score",
        "within generations": f"of the differences inside each {voice.unit}",
    }.get(voice.kind, "between the groups")
    held = ", ".join(str(word) for word in design["held"])
    also = f", with {held} held fixed in the linear model" if held else ""
    df = design["prior_df"]
    shown = "none" if df is None else figures.number(df, 1)
    prior = f" (prior: {design['prior']}; prior degrees of freedom: {shown})"
    return Said(f"It was tested by a moderated t-test {what}{also}{prior}", ("smyth2004",))


def _familywise(design: Json) -> list[Said]:
    how, draws = str(design["resampling"]), int(design["draws"])
    if not draws or how.startswith("none"):
        return []
    cited = ("westfall1993", "freedman1983") if "Freedman-Lane" in how else ("westfall1993",)
    return [Said(f"Family-wise p values are from {draws:,} draws: {how}", cited)]


def _interval(design: Json, voice: Voice) -> Said:
    start = "Intervals of the difference are 95 %"
    if voice.scores or (voice.kind == "two groups" and design["held"]):
        return Said(f"{start}, of the regression coefficient with HC3 errors", ("mackinnon1985",))
    if voice.kind == "two groups":
        return Said(f"{start}, of two means with unequal variances", ("welch1947",))
    return Said(f"{start}, of the mean difference inside a {voice.unit} (paired t).")


def _beside(asked: Json, rows: Sequence[Json], voice: Voice) -> list[Said]:
    """What stands beside the decision, as far as it was computed."""
    found = []
    if any(row["auc"] is not None for row in rows):
        found.append(Said("Separation is the Mann-Whitney statistic as a share (AUC)", ("mann1947",)))
    if any(row.get("odds_ratio") is not None for row in rows):
        found.append(Said("Odds ratios are pooled over strata", ("mantel1959",)))
    if any(row["log_odds_shrunk"] is not None for row in rows):
        found.append(Said("Shrunken log odds ratios are posterior means under a mixture of normals", ("stephens2017",)))
    if any(layer.get("jsd") is not None for layer in asked["layers"]):
        found.append(
            Said("Whole layers were compared by the Jensen-Shannon divergence of their shares of choices", ("lin1991",))
        )
    if asked.get("families"):
        found.append(Said("p values of families of layers were adjusted by Holm\u2019s method", ("holm1979",)))
    if asked.get("coalitions"):
        found.append(Said("Experts that are chosen together were found without labels and tested as one."))
    found += _again(asked["design"], voice)
    return found


def _again(design: Json, voice: Voice) -> list[Said]:
    found = []
    partial, halves = design["partial"], design["confirmation"]
    if partial is not None and not partial["reason"]:
        named = ", ".join(str(other) for other in partial["others"])
        found.append(Said(f"A second test held the scores of {named} fixed; it decides nothing."))
    if halves is not None:
        found.append(
            Said(
                f"The {int(halves['screened'])} leading experts of a random half of the {voice.unit}s were tested "
                "once more on the other half, one-sided",
                ("benjamini1995",),
            )
        )
    return found


def _effects(run: Json, rows: Sequence[Json]) -> list[Json]:
    """The effects of all sites of a run."""
    inside = set(run["tested"])
    return [row["interchange"] for row in rows if row["interchange"] is not None and row["site"] in inside] + [
        other["interchange"] for other in run["others"]
    ]


def _interchange(run: Json, effects: Sequence[Json]) -> list[Said]:
    what = swaps.SWAPPED.get(run["swap"], ("", str(run["swap"])))[1]
    return [
        Said(
            f"For {figures.count(len(run['tested']), 'site')}, in {figures.count(int(run['pairs']), 'pair')} of "
            f"prompts (\u201c{run['positive']}\u201d against \u201c{run['negative']}\u201d), what the site does in one "
            f"run was put into the other (interchange intervention); what was swapped is the {what}",
            ("geiger2021",),
        ),
        Said(f"The metric was {_plain(run['metric'])}. {_plain(run['alignment'])}. {_plain(run['coverage'])}."),
        Said(
            "Necessity is m(sensitive) \u2212 m(sensitive | site \u2190 control) and sufficiency is "
            "m(control | site \u2190 sensitive) \u2212 m(control), with m the metric; both are given as 100 times the "
            "ratio of their sum over pairs to the sum of the gap, m(sensitive) \u2212 m(control)."
        ),
        *_controls(run, effects),
        Said(
            f"Intervals are 95 %, from {int(run['bootstrap']):,} bootstrap samples of pairs (seed {run['seed']}), "
            "percentiles widened for few pairs",
            ("hesterberg2015",),
        ),
        *_chance(effects),
        Said(f"Rule of the verdicts: {_plain(run['rule'])}."),
        *_price(effects),
    ]


def _controls(run: Json, effects: Sequence[Json]) -> list[Said]:
    """Donors and comparison sites that were run."""
    named = {
        "placebo": "a prompt of the recipient\u2019s own class (placebo)",
        "random": "a prompt of the other class and another pair",
        "noise": "the recipient\u2019s own value with noise as long as the swap",
    }
    arms = [text for name, text in named.items() if f"{name}_necessity" in run["arms"]]
    found = [Said(f"Control donors: {'; '.join(arms)}.")] if arms else [Said("No control donor was run.")]
    most = max((len(one["null"]["sites"]) for one in effects), default=0)
    if most:
        found.append(
            Said(f"Each site was compared with up to {most} of its kind, most like it in use and size of contribution.")
        )
    knocked = [swaps.EFFECTS[name].lower() for name in swaps.EFFECTS if name not in CAUSAL_EFFECTS
               and any(name in one for one in effects)]  # fmt: skip
    return [*found, *([Said(f"Beside it, and in no verdict: {'; '.join(knocked)}.")] if knocked else [])]


def _chance(effects: Sequence[Json]) -> list[Said]:
    adjusted = {one["adjustment"] for one in effects}
    found = []
    if "family-wise" in adjusted:
        found.append(
            Said(
                "p values are from sign flips of whole pairs, family-wise over all sites and both directions by "
                "step-down max-T",
                ("westfall1993", "romano2005"),
            )
        )
    if "held out" in adjusted:
        found.append(
            Said(
                "Sites were chosen on one half of the pairs and judged on the other; their p values, from sign flips "
                "of whole pairs, were adjusted over the sites chosen",
                ("benjamini1995",),
            )
        )
    return found


def _price(effects: Sequence[Json]) -> list[Said]:
    if all(one["price"] is None for one in effects):
        return []
    return [
        Said(
            "The price of a knock-out is the mean Kullback-Leibler divergence of what the model says next with and "
            "without the site, per token of neutral prompts",
            ("kullback1951",),
        )
    ]
