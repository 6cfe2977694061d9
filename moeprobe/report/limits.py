"""What may not be concluded: a list that follows from what was run and what was not."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moeprobe.report import figures, words

Json = Mapping[str, Any]

# Segment -> what a reader calls it.
SEGMENTS = {
    "answer": "answers",
    "thinking": "thinking",
    "prompt": "prompts",
    "user": "user messages",
    "system": "system prompts",
}


@dataclass(frozen=True)
class Limit:
    """One thing the reader may not conclude: a heading and the reason with its figures."""

    heading: str
    reason: str


def limits(findings: Json, question: Json, rows: Sequence[Json], runs: Sequence[Json]) -> list[Limit]:
    """Collect the limits of one question: `rows` and `runs` are those of this question only."""
    about = words.behaviour(question["name"])
    return [
        *_cause(rows, runs, about),
        *_interchange(rows, runs),
        _groups(question),
        _few(question),
        _length(question),
        Limit(
            "Not that it is the behaviour rather than its words",
            "Token identity was not yet held fixed. An expert can lead because one word or filler token is frequent "
            f"with {about}.",
        ),
        *_left_out(question),
        _prompts(findings, question, about),
        _model(findings, runs),
        *_many(findings),
    ]


def _cause(rows: Sequence[Json], runs: Sequence[Json], about: str) -> list[Limit]:
    associated = [row for row in rows if row["association"] == "associated"]
    tested = sum(row["interchange"] is not None for row in associated)
    if not runs:
        return [
            Limit(
                "Not that any expert causes anything",
                "Interchange was not run. Every expert named here is only associated with "
                f"{about} in these prompts, whatever its q.",
            )
        ]
    if tested < len(associated):
        return [
            Limit(
                "Not that the untested experts cause anything",
                f"Interchange was run on {tested} of {figures.count(len(associated), 'associated expert')}. "
                "The others are associated in these prompts, nothing more.",
            )
        ]
    return []


def _interchange(rows: Sequence[Json], runs: Sequence[Json]) -> list[Limit]:
    if not runs:
        return []
    found = [
        Limit(
            "Not more than the metric measures",
            " ".join(
                f"The verdicts hold for this metric: {run['metric']}; over "
                f"{figures.count(int(run['pairs']), 'prompt pair')}, aligned at the {run['alignment']}, swapping the "
                f"{run['swap']}. Other metrics, alignments and swaps can give other verdicts."
                for run in runs
            ),
        )
    ]
    unused = sum(int(run["left_out"]) for run in runs)
    if unused:
        found.append(
            Limit(
                "Nothing about prompts that did not split",
                f"{figures.count(unused, 'pair')} {'was' if unused == 1 else 'were'} left out of interchange: both "
                "runs, or neither, showed the behaviour. The effects hold for pairs that split.",
            )
        )
    if any(row["interchange"] is not None and row["verdict"] not in words.CAUSAL for row in rows):
        found.append(
            Limit(
                "Not that an inert expert does nothing",
                "Experts were swapped one at a time. Two experts that stand in for each other both look inert.",
            )
        )
    return found


def _groups(question: Json) -> Limit:
    quality = question["quality"]
    if question["kind"] == "label":
        return Limit(
            "Not that the labels are right",
            "The groups come from labels given with the prompts; moeprobe took them as is.",
        )
    if quality is None:
        return Limit("Not that the probe is right", "The quality of the probe was not measured.")
    balanced = quality["balanced_accuracy"]["value"]
    wrong = "" if balanced is None else f", so about {figures.percent(100 * (1 - balanced))} are sorted wrongly there"
    return Limit(
        "Not that every generation was sorted rightly",
        f"On {figures.count(int(quality['examples']), 'labelled example')} of its own, the probe has precision "
        f"{measured(quality['precision'])}, recall {measured(quality['recall'])} and balanced accuracy "
        f"{measured(quality['balanced_accuracy'])}{wrong}. On other text it can do worse.",
    )


def measured(value: Json) -> str:
    """Print a quality figure with its interval: ``0.94 [0.88, 0.98]``."""
    return f"{figures.number(value['value'], 2)} {figures.interval(value['ci'], digits=2)}"


def _few(question: Json) -> Limit:
    first, second = (int(question["design"][side]["generations"]) for side in ("positive", "negative"))
    total, tested = first + second, int(question["design"]["tested"])
    reason = f"There were {first} and {second} generations."
    if question["design"]["unit"] == "prompt":
        reason += " Several are samples of one prompt and count as one: the number that counts is that of prompts."
    elif first and second:
        best = 2 / math.comb(total, first) if total < 1000 else 0.0
        if best * max(tested, 1) > question["design"]["alpha"] / 10:
            reason += (
                f" Even a perfect separation has an exact permutation p of {figures.chance(min(best, 1.0))}, against "
                f"{figures.count(tested, 'test')}: the small q values lean on the moderated t-test's assumptions."
            )
    few = min(first, second) < 20
    return Limit(
        "Not much: these are few generations" if few else "Not that smaller differences are absent",
        f"{reason} Experts with smaller differences can be missed.",
    )


def _length(question: Json) -> Limit:
    design = question["design"]
    before, after = (figures.number(design[f"length_ratio_{when}"], 2) for when in ("before", "after"))
    return Limit(
        "Not that length plays no part",
        f"Mean token counts, positive to negative, stood {before} to 1 before matching and {after} to 1 after. "
        f"Method: {design['length_matching']}",
    )


def _left_out(question: Json) -> list[Limit]:
    names = {"abstained": "the probe abstained", "unlabelled": "no label", "no_tokens": "no tokens"}
    left = [(label, int(question["design"]["left_out"][key] or 0)) for key, label in names.items()]
    total = sum(value for _, value in left)
    if not total:
        return []
    listed = ", ".join(f"{label}: {value}" for label, value in left if value)
    return [
        Limit(
            "Nothing about the generations left out",
            f"{figures.count(total, 'generation')} {'was' if total == 1 else 'were'} not used ({listed}).",
        )
    ]


def _prompts(findings: Json, question: Json, about: str) -> Limit:
    segment = SEGMENTS.get(question["design"]["segment"], "tokens")
    return Limit(
        "Nothing about other kinds of prompts",
        f"Routing was read in the {segment} of {figures.count(int(findings['trace']['generations']), 'generation')}, "
        f"the whole trace. On another topic, language or format {about} may take another way.",
    )


def _model(findings: Json, runs: Sequence[Json]) -> Limit:
    engine = runs[-1]["engine"] if runs else {}
    provenance = findings["trace"]["provenance"]
    dtype = _scalar(provenance, ("engine", "dtype")) or _scalar(provenance, ("model", "dtype")) or engine.get("dtype")
    listed = ", ".join(f"{key} {value}" for key, value in (provenance.get("decoding") or {}).items() if _plain(value))
    return Limit(
        "Nothing about other models or settings",
        f"One model was looked at, {findings['model']['id']}, in {dtype or 'a dtype that was not recorded'}"
        f"{f', decoding with {listed}' if listed else ''}. Expert numbers carry over to no other model.",
    )


def _scalar(tree: Any, path: tuple[str, ...]) -> str | None:
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return str(tree) if _plain(tree) else None


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _many(findings: Json) -> list[Limit]:
    asked = len(findings["questions"])
    if asked < 2:
        return []
    return [
        Limit(
            "Not that all questions together are controlled",
            f"{asked} questions were asked of the same trace. The q values hold within each, not across them.",
        )
    ]
