"""What may not be concluded: a list that follows from what was run and what was not."""

from collections.abc import Mapping, Sequence
from typing import Any

from moeprobe.findings.causes import CAUSAL_EFFECTS
from moeprobe.report import figures, swaps, verdicts
from moeprobe.report.reach import Limit, reach
from moeprobe.report.voice import Voice, voice_of

Json = Mapping[str, Any]
# What was tested ("expert", or the name of another site), its verdict, its effects.
Tested = tuple[str, str, Json]

# Segment -> what a reader calls it.
SEGMENTS = {
    "answer": "answers",
    "thinking": "thinking",
    "prompt": "prompts",
    "user": "user messages",
    "system": "system prompts",
}


def limits(findings: Json, question: Json, rows: Sequence[Json], runs: Sequence[Json]) -> list[Limit]:
    """Collect the limits of one question: `rows` and `runs` are those of this question only."""
    voice = voice_of(question)
    return [
        *_cause(rows, runs, voice),
        *_interchange(rows, runs),
        _groups(question, voice),
        *reach(question, rows, voice),
        _prompts(findings, question, voice.about),
        _model(findings, runs),
        *_many(findings),
    ]


def _cause(rows: Sequence[Json], runs: Sequence[Json], voice: Voice) -> list[Limit]:
    associated = [row for row in rows if row["association"] == "associated"]
    tested = sum(row["interchange"] is not None for row in associated)
    if not runs:
        return [
            Limit(
                "Whether any expert causes anything was not tested",
                "Interchange was not run. Every expert named here is only associated with "
                f"{voice.theme} in these prompts, whatever its q.",
            )
        ]
    if tested < len(associated):
        return [
            Limit(
                "Whether the other experts cause anything was not tested",
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
            "The verdicts are about the metric; other measures of the behaviour were not tried",
            " ".join(
                f"The verdicts hold for this metric: {run['metric']}; over "
                f"{figures.count(int(run['pairs']), 'prompt pair')}, swapping the {swaps.swapped(run)}. "
                f"{run['alignment']} {run['coverage']} Other metrics, alignments and swaps can give other verdicts."
                for run in runs
            ),
        )
    ]
    unused = sum(int(run["left_out"]) for run in runs)
    if unused:
        found.append(
            Limit(
                "Pairs that did not split were left out",
                f"{figures.count(unused, 'pair')} {'was' if unused == 1 else 'were'} left out of interchange: both "
                "runs, or neither, showed the behaviour. The effects hold for pairs that split.",
            )
        )
    sites = [("expert", row["verdict"], row["interchange"]) for row in rows if row["interchange"] is not None]
    sites += [(str(one["site"]), one["verdict"], one["interchange"]) for run in runs for one in run["others"]]
    return [*found, *_controls(sites), *_inert(sites)]


def _controls(sites: Sequence[Tested]) -> list[Limit]:
    """What placebo donors and comparison sites exclude, and what not."""
    found = []
    placebo = all("minus_placebo" in effects[name]["contrasts"] for _, _, effects in sites for name in CAUSAL_EFFECTS)
    if placebo:
        found.append(
            Limit(
                "What else was swapped along with the behaviour is not known",
                "A placebo donor, another prompt of the same class, shows what any swap does; a causal verdict is "
                "beyond it. That does not exclude that a site carries what else differs inside a pair: topic, words, "
                "length.",
            )
        )
    else:
        found.append(
            Limit("Whether any other swap would do the same was not tested", "No placebo donor was run for every site.")
        )
    compared = [effects for _, _, effects in sites if effects["null"]["asked"]]
    most = max((len(effects["null"]["sites"]) for effects in compared), default=0)
    if compared:
        found.append(
            Limit(
                "Whether other sites do the same was tested for few of them",
                f"Each site was compared with at most {figures.count(most, 'other')} of its kind, those most like it "
                "in selection rate and size of contribution. A causal verdict says that hardly any of these does as "
                "much. It says nothing of others: of another kind or size, earlier or later, or several together.",
            )
        )
    alone = [name for name, _, effects in sites if not effects["null"]["asked"]]
    if alone:
        listed = ", ".join(alone[:5]) + (f" and {len(alone) - 5} more" if len(alone) > 5 else "")
        found.append(
            Limit(
                "Whether a whole block or stream is special is not known",
                f"Alone of their kind in their layers, so compared with nothing: {listed}. Blocks and streams "
                "carry much at once, a stream all that came before it, so a large effect there says where, not what.",
            )
        )
    return found


def _inert(sites: Sequence[Tested]) -> list[Limit]:
    if not any(name == "expert" and verdict not in verdicts.CAUSAL for name, verdict, _ in sites):
        return []
    sets = ", and in the sets named here only" if any("+" in name for name, _, _ in sites) else ""
    return [
        Limit(
            "What inert experts do together with others was not tested",
            f"Experts were swapped one at a time{sets}. Two experts that stand in for each other both look inert.",
        )
    ]


def _groups(question: Json, voice: Voice) -> Limit:
    quality = question["quality"]
    if voice.given and voice.scores:
        return Limit(
            "Whether the given numbers are right was not checked",
            "They came with the prompts; moeprobe took them as is.",
        )
    if voice.given:
        return Limit(
            "Whether the given labels are right was not checked",
            "The groups come from labels given with the prompts; moeprobe took them as is.",
        )
    if quality is None:
        return Limit(
            "How often the probe errs was not measured",
            "These findings hold no figure of its mistakes: it was not measured on labelled examples.",
        )
    if voice.inside or voice.scores:
        return _other_use(quality, voice)
    return Limit(
        "Which generations were sorted wrongly is not known",
        f"On {measured_on(quality)}, the probe has precision "
        f"{measured(quality['precision'])}, recall {measured(quality['recall'])} and balanced accuracy "
        f"{measured(quality['balanced_accuracy'])}. On other text it can do worse.",
    )


def _other_use(quality: Json, voice: Voice) -> Limit:
    """The probe's quality is that of sorting whole texts; here its marks or its scores were used."""
    if voice.inside:
        heading = "How well the probe marks single tokens was not measured"
    else:
        heading = "How exact the probe\u2019s scores are was not measured"
    return Limit(
        heading,
        f"It sorts whole texts with balanced accuracy {measured(quality['balanced_accuracy'])}, on "
        f"{measured_on(quality)}.",
    )


def measured_on(quality: Json) -> str:
    """What a probe's quality was measured on: ``40 held-out examples``."""
    number = int(quality["examples"])
    if quality["on"] == "its own examples":
        return f"{figures.count(number, 'labelled example')} of its own"
    if quality["on"] == "held-out examples, read again":
        said = figures.count(number, "labelled example")
        return f"{said} written before its rule, which was changed after they were read"
    if quality["on"] == "held-out examples":
        return f"{figures.count(number, 'labelled example')} that it was not made on"
    if quality.get("labels") is not None:
        left_out = int(quality["left_out"])
        known = f", without {figures.count(left_out, 'text')} that it brings itself" if left_out else ""
        return f"{figures.count(number, 'text')} labelled in {quality['labels']}{known}"
    return f"{figures.count(number, 'labelled example')} ({quality['on']})"


def measured(value: Json) -> str:
    """Print a quality figure with its interval: ``0.94 [0.88, 0.98]``."""
    return f"{figures.number(value['value'], 2)} {figures.interval(value['ci'], digits=2)}"


def _prompts(findings: Json, question: Json, about: str) -> Limit:
    segment = SEGMENTS.get(question["design"]["segment"], "tokens")
    return Limit(
        "Other kinds of prompts were not looked at",
        f"Routing was read in the {segment} of {figures.count(int(findings['trace']['generations']), 'generation')}, "
        f"the whole trace. On another topic, language or format {about} may take another way.",
    )


def _model(findings: Json, runs: Sequence[Json]) -> Limit:
    engine = runs[-1]["engine"] if runs else {}
    provenance = findings["trace"]["provenance"]
    dtype = _scalar(provenance, ("engine", "dtype")) or _scalar(provenance, ("model", "dtype")) or engine.get("dtype")
    listed = ", ".join(f"{key} {value}" for key, value in (provenance.get("decoding") or {}).items() if _plain(value))
    return Limit(
        "Other models and settings were not looked at",
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
            "False discoveries over all questions together were not controlled",
            f"{asked} questions were asked of the same trace. The q values hold within each, not across them.",
        )
    ]
