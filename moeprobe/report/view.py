"""From findings to what the template prints: one `QuestionView` for each question, numbers already in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moeprobe.errors import FindingsError
from moeprobe.report import (
    cells,
    figures,
    limits,
    maps,
    methods,
    plots,
    references,
    swaps,
    table,
    tokens,
    verdicts,
    words,
)
from moeprobe.report.comparison import Comparison, comparisons, letter
from moeprobe.report.confounds import Confounds, confounds_view
from moeprobe.report.confounds import doubts as confounded
from moeprobe.report.evidence import Evidence, evidence_view
from moeprobe.report.layers import Beside, beside
from moeprobe.report.profile import Profile, profile
from moeprobe.report.provenance import origin
from moeprobe.report.reach import Limit
from moeprobe.report.results import Part
from moeprobe.report.voice import Voice, voice_of
from moeprobe.visible import HIDDEN, cleaned

Json = Mapping[str, Any]

CAUSAL_CARDS = 12
OTHER_CARDS = 4


@dataclass(frozen=True)
class Card:
    """One leading finding."""

    site: str
    anchor: str
    verdict: verdicts.Badge
    summary: str
    routing: str
    shares: tuple[float, float]
    facts: list[tuple[str, str]]
    notes: list[str]
    doubts: list[str]
    evidence: Evidence | None
    question: str


@dataclass(frozen=True)
class QuestionView:
    """Everything the page says about one question."""

    key: str
    title: str
    about: str
    theme: str
    sides: tuple[str, str]
    model: str
    in_short: str
    tally: list[tuple[verdicts.Badge, int]]
    asked: list[tuple[str, str]]
    design: str
    cards: list[Card]
    nothing: str
    more: str
    layers: list[maps.LayerLine]
    map_note: str
    profile: Profile
    beside: list[Beside]
    columns: list[table.Column]
    table: table.Table
    runs: list[plots.RunView]
    examples: list[tokens.ExampleLine]
    confounds: Confounds | None
    sites: list[str]
    limits: list[Limit]
    alpha: str
    methods: list[methods.Paragraph]

    @property
    def method(self) -> str:
        """The methods as plain text."""
        return methods.text(self.methods)


@dataclass(frozen=True)
class PageView:
    """The whole page: what the template prints, and `data` for the script."""

    title: str
    models: str
    lead: str
    questions: list[QuestionView]
    notes: list[str]
    comparisons: list[Comparison]
    works: list[tuple[str, references.Work]]
    provenance: list[tuple[str, list[tuple[str, str]]]]
    verdicts: Sequence[verdicts.Badge]
    text: bool
    data: dict[str, Any]
    parts: list[Part] = field(default_factory=list)


def page_view(findings: Sequence[Json], *, text: bool, title: str | None) -> PageView:
    """Build the view of one or several findings objects. Without `text` no token of a generation enters it."""
    several = sum(len(one["questions"]) for one in findings) > 1
    questions, cell_list, token_list, notes, provenance, documents = [], [], [], [], [], []
    for number, raw in enumerate(findings):
        clean = cleaned(tokens.for_page(raw, text=text))
        documents.append(clean)
        notes += clean["notes"]
        provenance.append((clean["model"]["id"], origin(clean)))
        for index, asked in enumerate(clean["questions"]):
            key = f"m{number}q{index}"
            rows = [row for row in clean["rows"] if row["probe"] == asked["name"]]
            run = f", run {letter(number)}" if len(findings) > 1 else ""
            named = f"{voice_of(asked).about} in {clean['model']['id']}{run}" if several else voice_of(asked).about
            view = _question(key, named, clean, asked, raw["questions"][index]["examples"], rows, text=text)
            questions.append(view)
            alpha = asked["design"]["alpha"]
            cell_list.append(
                cells.cell_data(key, named, clean["model"]["layers"], table.order(rows), voice_of(asked), alpha)
            )
            token_list.append(tokens.example_data(raw["questions"][index]["examples"] if text else []))
    data = {
        "hidden": HIDDEN,
        "verdicts": [[one.label, one.css, one.sign] for one in verdicts.VERDICTS],
        "maps": cell_list,
        "tokens": token_list,
    }
    heading = cleaned(title) if title is not None else _title(questions)
    models = ", ".join(dict.fromkeys(view.model for view in questions)) if title is None else ""
    lead = " ".join(view.in_short for view in questions) if questions else "The findings hold no question."
    cited = {key for view in questions for key in methods.works(view.methods)}
    return PageView(
        heading, models, lead, questions, notes, comparisons(documents), references.listed(cited), provenance,
        verdicts.VERDICTS, text, data,
    )  # fmt: skip


def _title(questions: Sequence[QuestionView]) -> str:
    about = list(dict.fromkeys(view.theme for view in questions))
    if not about:
        return "Expert report"
    named = [*about[:3], "more"] if len(about) > 3 else about
    listed = " and ".join([*([", ".join(named[:-1])] if named[1:] else []), named[-1]])
    return f"Which experts go with {listed}?"


def _question(
    key: str,
    title: str,
    findings: Json,
    asked: Json,
    raw_examples: Sequence[Json],
    rows: Sequence[Json],
    *,
    text: bool,
) -> QuestionView:
    voice, ordered = voice_of(asked), table.order(rows)
    about = voice.about
    runs = [run for run in findings["interchange"] if run["probe"] == asked["name"]]
    cards, more = _cards(key, asked, ordered, runs, voice)
    return QuestionView(
        key=key,
        title=title,
        about=about,
        theme=voice.theme,
        sides=(voice.one, voice.other),
        model=findings["model"]["id"],
        in_short=words.in_short(rows, voice, [other for run in runs for other in run["others"]]),
        tally=verdicts.tally(rows),
        asked=_asked(findings, asked, voice),
        design=asked["design"]["sentence"],
        cards=cards,
        nothing="" if cards else words.nothing(asked, voice),
        more=more,
        layers=maps.layer_lines(findings["model"]["layers"], rows, voice),
        map_note=maps.note(voice, asked["design"]["alpha"]),
        profile=profile(asked, rows, findings["model"]["layers"], voice),
        beside=beside(asked, voice),
        columns=table.columns(voice),
        table=table.table(key, ordered, asked, voice),
        runs=[plots.run_view(run, _tested(run, runs, ordered), voice) for run in runs],
        examples=[tokens.example_line(one, index, voice) for index, one in enumerate(raw_examples)],
        confounds=confounds_view(asked, ordered, voice, text=text),
        sites=[cleaned(site) for site in tokens.sites(raw_examples)],
        limits=limits.limits(findings, asked, rows, runs),
        alpha=f"{asked['design']['alpha']:g}",
        methods=methods.paragraphs(findings, asked, rows, runs, voice),
    )


def _run_of(row: Json, runs: Sequence[Json]) -> Json | None:
    """The run a row's effects come from: the last that tested its site; None where the row holds no effects.

    Raises:
        FindingsError: the row holds effects, but no run says how they were made.
    """
    if row["interchange"] is None:
        return None
    found = next((run for run in reversed(runs) if words.site(row) in run["tested"]), None)
    if found is None:
        raise FindingsError(
            f"{words.site(row)} holds interchange effects, but no interchange run of the findings tested it. "
            "Run moeprobe interchange again."
        )
    return found


def _tested(run: Json, runs: Sequence[Json], rows: Sequence[Json]) -> list[Json]:
    """The rows whose effects come from `run`."""
    return [row for row in rows if _run_of(row, runs) is run]


def _cards(key: str, asked: Json, rows: Sequence[Json], runs: Sequence[Json], voice: Voice) -> tuple[list[Card], str]:
    """Choose the leading findings: causal first, then inert, then the strongest that were not tested."""
    causal = [row for row in rows if row["verdict"] in verdicts.CAUSAL]
    tested = [row for row in rows if row["verdict"] in ("association only", "neither", "underpowered")]
    untested = [row for row in rows if row["verdict"] == "associated"]
    chosen = [*causal[:CAUSAL_CARDS], *tested[:OTHER_CARDS], *untested[:OTHER_CARDS]]
    left = len(causal) + len(tested) + len(untested) - len(chosen)
    more = f"{figures.count(left, 'more expert')} with a finding or a test: see the table below." if left else ""
    return [_card(key, asked, row, _run_of(row, runs), voice) for row in chosen], more


def _card(key: str, asked: Json, row: Json, run: Json | None, voice: Voice) -> Card:
    effects = row["interchange"]
    return Card(
        site=words.site(row),
        anchor=table.anchor(key, row),
        verdict=verdicts.badge(row["verdict"], effects),
        summary=words.summary(row, voice, run),
        routing=words.routing(row, voice, asked["design"]["segment"]),
        shares=(100 * (row["S1"] or 0.0), 100 * (row["S0"] or 0.0)),
        facts=[] if effects is None else swaps.facts(effects, "expert"),
        notes=[] if effects is None else swaps.notes(effects, "expert"),
        doubts=[*words.doubts(row, asked, voice, run), *confounded(asked, row, voice)],
        evidence=evidence_view(row, asked, voice),
        question=key,
    )


def _asked(findings: Json, asked: Json, voice: Voice) -> list[tuple[str, str]]:
    model = findings["model"]
    given = "The number" if voice.scores else "The label"
    source = given if voice.given else f"The probe, version {asked['version'] or 'unknown'}"
    return [
        ("Model", f"{model['id']} ({model['family']}): {_layers(model)}"),
        ("Question", _wanted(asked, voice)),
        (source, asked["definition"]),
        *_settings(asked),
        (
            f"How good the {'probe' if not voice.given and (voice.scores or voice.inside) else 'sorting'} is",
            _quality(asked),
        ),
        *zip(_names(voice), _sides(asked, voice), strict=True),
    ]


def _settings(asked: Json) -> list[tuple[str, str]]:
    """What the probe was set to, where it can be set."""
    found = methods.settings(asked)
    return [("Its settings", f"set to {found}")] if found else []


def _wanted(asked: Json, voice: Voice) -> str:
    segment = limits.SEGMENTS.get(asked["design"]["segment"], "tokens")
    where = {
        "scores": f"in {segment}, the higher {voice.theme} is",
        "within generations": f"on the tokens of {segment} that {voice.about} marks",
    }.get(voice.kind, f"in {segment} with {voice.about}")
    if voice.measured:
        return f"Of which experts is this larger, or smaller, {where}: {voice.measured}? And do they cause it?"
    return f"Which experts are chosen more, or less, {where}, and do they cause it?"


def _names(voice: Voice) -> tuple[str, str]:
    named = f" {voice.about}" if voice.kind in ("two groups", "pairs") else ""
    return f"{voice.one.capitalize()}{named}", f"{voice.other.capitalize()}{named}"


def _sides(asked: Json, voice: Voice) -> list[str]:
    """Who stands on either side, with how many generations and tokens."""
    design = asked["design"]
    names = [str(asked["positive"]), str(asked["negative"])]
    if voice.scores:
        names = [f"{voice.unit}s with a score {side} the median, for display; the test uses the scores themselves"
                 for side in ("above", "at or below")]  # fmt: skip
    found = []
    for name, side in zip(names, (design["positive"], design["negative"]), strict=True):
        counted = figures.count(int(side["generations"]), "generation")
        units = figures.count(int(side["units"]), voice.unit)
        size = counted if voice.unit == "generation" else f"{counted}, {units}"
        found.append(f"{name}: {size} ({int(side['tokens_used']):,} of {int(side['tokens']):,} tokens used)")
    return found


def _quality(asked: Json) -> str:
    quality = asked["quality"]
    if quality is None:
        given = asked["kind"] == "label"
        return "Not applicable: the labels or numbers were given." if given else "Not measured."
    return (
        f"On {limits.measured_on(quality)}: precision {limits.measured(quality['precision'])}, recall "
        f"{limits.measured(quality['recall'])}, specificity {limits.measured(quality['specificity'])}, balanced "
        f"accuracy {limits.measured(quality['balanced_accuracy'])} (95 % intervals; 1 is perfect, a balanced accuracy "
        f"of 0.5 is guessing). {_attenuation(asked)}"
    ).strip()


def _attenuation(asked: Json) -> str:
    """How much of a true difference the probe's mistakes leave, in words."""
    found = asked["attenuation"]
    if found is None:
        return ""
    factor, share = (
        f"{figures.percent(100 * found[key]['value'])} {figures.interval(found[key]['ci'], 100, 0)}"
        for key in ("factor", "share")
    )
    return (
        f"Its mistakes mix the groups, so differences look smaller than they are: as measured, about {factor} of a "
        f"true difference would show. By the same count {share} of the generations truly belong on the positive side. "
        f"Basis: {found['basis']}. No p value is changed by this."
    )


def _layers(model: Json) -> str:
    layers = sorted(model["layers"], key=lambda layer: int(layer["layer"]))
    total = sum(int(layer["experts"]) for layer in layers)
    numbers = [int(layer["layer"]) for layer in layers]
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        which = f"layers {numbers[0]} to {numbers[-1]}"
    else:
        which = ("layer " if len(numbers) == 1 else "layers ") + ", ".join(str(number) for number in numbers)
    shapes = sorted({(int(layer["experts"]), int(layer["k"])) for layer in layers})
    each = " or ".join(f"{experts} experts, {k} chosen per token" for experts, k in shapes)
    return (
        f"{figures.count(int(model['num_hidden_layers']), 'layer')}, of which {len(numbers)} with experts ({which}): "
        f"{each}; {figures.count(total, 'expert')} in all"
    )
