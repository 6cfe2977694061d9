"""From a trace and questions to rows: groups, design, counts, tests, examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.correlate.confirm import confirm
from moeprobe.correlate.counted import counted_tokens
from moeprobe.correlate.effects import effect_fields
from moeprobe.correlate.evidence import evidence_of
from moeprobe.correlate.evidence_confounds import confounds_of, without_text
from moeprobe.correlate.examples import PER_GROUP, build_examples, leading_sites
from moeprobe.correlate.one_token import without_one_token
from moeprobe.correlate.partial import Partial, partial_column
from moeprobe.correlate.question import asked_of, describe
from moeprobe.correlate.rows import build_rows, column_cells, excess_difference, listed
from moeprobe.correlate.sentence import confirm_note, partial_note, unit_notes
from moeprobe.correlate.shifting import compare_shifted, ends_notes
from moeprobe.correlate.testing import DRAWS, Tested, compare_cells
from moeprobe.correlate.together import coalitions_of, families_of, layers_of
from moeprobe.designs.design import Design
from moeprobe.designs.groups import LEFT_OUT, Groups, is_numeric, label_groups, number_groups, probe_groups
from moeprobe.designs.held import hold
from moeprobe.designs.imported import IMPORTED, coverage_notes, imported_groups
from moeprobe.designs.label_records import Labels
from moeprobe.designs.planning import plan
from moeprobe.designs.segments import segments_of
from moeprobe.errors import StatsError
from moeprobe.gathering.counts import other_stacks, segment_lengths
from moeprobe.gathering.gather import Gathered, gather
from moeprobe.gathering.inputs import TraceLike
from moeprobe.gathering.judged import JudgedTrace
from moeprobe.gathering.strata import STRATA, lay_out
from moeprobe.probes import Probe
from moeprobe.probes.measured import Measured, measured_on_labels

Json = dict[str, Any]
Answer = tuple[Json, list[Json], list[str]]


@dataclass(frozen=True)
class Options:
    """How questions are answered; see `correlate` for each."""

    segment: str = "answer"
    alpha: float = 0.05
    text: bool = True
    draws: int = DRAWS
    seed: int = 0
    design: str = "auto"
    strata: tuple[str, ...] = ("token",)
    response: str = "S"
    blocks: tuple[str, ...] = ()
    covariates: tuple[str, ...] = ()
    confirm: bool = False
    coalitions: bool = False
    unit: str | None = None
    examples: int | None = PER_GROUP

    def __post_init__(self) -> None:
        for name in ("strata", "blocks", "covariates"):
            given: str | Sequence[str] = getattr(self, name)
            object.__setattr__(self, name, (given,) if isinstance(given, str) else tuple(given))
        if not 0 < self.alpha < 1:
            raise StatsError(f"alpha is {self.alpha}; it must lie between 0 and 1, for example 0.05.")
        if self.seed < 0:
            raise StatsError(f"The seed is {self.seed}; it must be 0 or more.")
        if self.examples is not None and self.examples < 0:
            raise StatsError(f"{self.examples} examples make no sense; use 0 or more, or all.")
        if self.draws < 0:
            raise StatsError(f"{self.draws} relabellings make no sense; use 10,000, or 0 to leave them out.")
        if self.strata not in STRATA or not self.strata:
            known = "; ".join(",".join(key) for key in STRATA if key)
            raise StatsError(f"Unknown strata {','.join(self.strata)!r}. Choose one of: {known}.")


def correlate(
    trace: TraceLike,
    *,
    probe: Probe | None = None,
    by: str | None = None,
    labels: Labels | None = None,
    name: str | None = None,
    positive: str | None = None,
    negative: str | None = None,
    only: str | None = None,
    others: Sequence[Probe] = (),
    checked_on: str | Path | None = None,
    **options: Any,
) -> Answer:
    """Which experts go with a probe's score or with a label: the default pipeline of docs/statistics.md.

    Args:
        trace: a recorded run.
        probe: judges every generation; give either this, `by` or `labels`.
        by: "label", or "metadata.KEY". More than two distinct numbers are compared as scores.
        labels: imported ones, of `read_label_records`, `frame_labels` or `read_inspect_log` (docs/labels.md).
        name: what the question of `labels` is called; by default after their file.
        positive, negative: values of the label that make the two groups; see `groups.label_groups`.
        only: "KEY=VALUE": use only generations whose label or metadata has this value.
        others: further registers whose scores the partial column holds fixed.
        checked_on: a file of labelled text (`read_labels`) that tells how good `probe` is; None: what the probe brings.
        **options: of `Options`:
            segment: which tokens are compared: "answer", "thinking", "prompt" (all of it), "user", "system".
            alpha: false discovery rate below which an expert counts as associated.
            text: put a few generations with their text into the question.
            draws: relabellings for the family-wise p (max-T); 0 leaves it out.
            seed: of the relabellings and of the halves of `confirm`.
            design: "auto", "groups", "pairs" (generations with the same `pair`), "scores" (the probe's score or the
                value as a number) or "within" (tokens that the probe marks against the others of a generation); what
                "auto" takes says `planning.plan`.
            strata: what is held fixed of each token: ("token",), ("token", "position"), ("previous",),
                ("token", "previous").
            response: "S" (selections) or another of `gather.RESPONSES`.
            blocks: "metadata.KEY", ...: only generations of one block are compared with each other.
            covariates: "metadata.KEY", ...: numbers whose linear effect is held fixed.
            confirm: screen on one half of the units and confirm on the other.
            coalitions: also find experts that are chosen together, and test each set as one.
            unit: "pair", "label" or "metadata.KEY": generations with one value are one unit (a family of prompts);
                None: the prompt.
            examples: generations of each group that are put in with their text; None for all.

    Returns:
        The question (one object), its rows (one object for each expert) and notes, all in the form of docs/findings.md.

    Raises:
        StatsError: the groups cannot be made, one is empty, or an argument makes no sense.
        LabelError: the labels do not fit the trace.
        ProbeError: the probe breaks its contract, or cannot be measured on `checked_on` (`measured_on_labels`).
        TraceError: the trace is damaged.
    """
    chosen = Options(**options)
    if checked_on is not None and probe is None:
        raise StatsError("Only a probe can be checked on labels (--checked-on); here labels or numbers are compared.")
    if labels is None:
        # measured before the probe reads the whole trace, so that a wrong file is told at once
        measured = None if probe is None or checked_on is None else measured_on_labels(probe, checked_on)
        groups = _groups(trace, probe, by, positive, negative, only, chosen, measured)
    elif probe is not None or by is not None:
        raise StatsError("Say what to compare: a probe (--probe), a label (--by label) or imported labels (--labels).")
    else:
        named: Json = {"name": name, "positive": positive, "negative": negative, "only": only}
        groups = imported_groups(trace.generations, labels, **named, design=chosen.design)
    segments = segments_of(trace) if others else None
    beside = [probe_groups(trace.generations, other, only=only, segments=segments) for other in others]
    return _answer(trace, groups, beside, chosen)


def correlate_probes(
    trace: TraceLike,
    probes: Sequence[Probe],
    *,
    only: str | None = None,
    checked_on: Mapping[str, str | Path] | None = None,
    **options: Any,
) -> list[Answer]:
    """Ask several probes; each also gets a partial column that holds the scores of the others fixed.

    Args:
        trace, only, **options: as `correlate`.
        probes: at least one.
        checked_on: name of a probe -> file of labelled text that tells how good it is.

    Raises:
        StatsError, ProbeError, TraceError: as `correlate`; or `checked_on` names a probe that is not asked.
    """
    chosen, files = Options(**options), dict(checked_on or {})
    names = [probe.name for probe in probes]
    if strange := sorted(set(files) - set(names)):
        raise StatsError(f"A file was given to check {strange[0][:80]!r} on, which is not asked ({', '.join(names)}).")
    measured = {probe.name: measured_on_labels(probe, files[probe.name]) for probe in probes if probe.name in files}
    made = [_groups(trace, one, None, None, None, only, chosen, measured.get(one.name)) for one in probes]
    return [
        _answer(trace, groups, [other for other in made if other is not groups], chosen) for groups in made
    ]  # fmt: skip


def _answer(trace: TraceLike, groups: Groups, others: Sequence[Groups], options: Options) -> Answer:
    read = _judged(trace, groups, options)
    held = hold(trace.generations, options.blocks, options.covariates, groups.member != LEFT_OUT)
    wanted = groups.asks if options.design == "auto" else options.design
    lengths = segment_lengths(read, options.segment)
    design = plan(read, groups, options.segment, lengths, wanted, held, options.unit)
    design = replace(design, drawn_by=groups.drawn_by)
    gathered = gather(
        read, design.selection, strata=options.strata, response=options.response, labels=design.labels
    )  # fmt: skip
    tested = _test(read, gathered, design, options)
    partial = partial_column(tested, design, others, options.draws, options.seed) if others else None
    halves = confirm(tested, design, options.alpha, options.seed) if options.confirm else None
    cells = len(tested.reasons)
    beside = effect_fields(gathered.counts, design, tested)
    beside["partial"] = [None] * cells if partial is None else column_cells(partial.column)
    beside["confirmed"] = [None] * cells if halves is None else halves.cells
    beside["odds_ratio"] = [None] * cells if gathered.odds_ratio is None else listed(gathered.odds_ratio)
    beside["leave_token_out"] = without_one_token(read, gathered, design, tested, options.strata, options.alpha)
    rows = build_rows(gathered, design, tested, beside, groups.name, options.alpha)
    seen = _seen(read, groups, design, gathered, rows, lengths, options)
    examples, cut = build_examples(trace, groups, design, rows, options.examples) if options.text else ([], 0)
    question = {
        **asked_of(groups, design),
        "design": describe(design, groups, gathered, tested, partial, halves, options.alpha, options.draws, held),
        **_together(read, gathered, design, tested, options),
        "examples": examples,
        **seen,
    }
    whole_labels = groups.grouping.get("by") == IMPORTED and design.spans is None
    notes = [
        *groups.notes,
        *(coverage_notes(trace, groups) if whole_labels else ()),
        *design.notes,
        *unit_notes(design),
        *_more_notes(design, partial, halves is not None, options),
    ]
    notes += ends_notes(read, design) if design.shifts else []
    notes += _trace_notes(trace, len(examples), cut)
    return question, rows, [f"{groups.name}: {note}" for note in notes]


def _judged(trace: TraceLike, groups: Groups, options: Options) -> TraceLike:
    """The trace; where only stretches of the answers were judged, with all other generated tokens set apart."""
    if groups.judged is None:
        return trace
    stretches = [np.array(found, dtype=np.int64).reshape(-1, 2) for found in groups.judged]
    return JudgedTrace(trace, stretches, options.segment)


def _together(trace: TraceLike, gathered: Gathered, design: Design, tested: Tested, options: Options) -> Json:
    """What is said of experts together."""
    draws, seed = options.draws, options.seed
    difference = excess_difference(gathered, design)
    coalitions, words = (
        coalitions_of(trace, design, options.strata, draws, seed) if options.coalitions else ([], "not asked for")
    )
    return {
        "layers": layers_of(trace, gathered, design, draws, seed),
        "families": families_of(trace, gathered, design, tested, difference, options.alpha, seed),
        "coalitions": coalitions,
        "coalitions_found": words,
    }


def _seen(
    trace: TraceLike,
    groups: Groups,
    design: Design,
    gathered: Gathered,
    rows: list[Json],
    lengths: NDArray[np.int64],
    options: Options,
) -> Json:
    """What a reader can see of the question; the evidence of the leading rows is put into them."""
    layout = lay_out(trace, design.selection, None)
    tokens, sites = counted_tokens(trace, layout), leading_sites(rows)
    units, positions, found = evidence_of(
        trace, layout, tokens, groups, design, gathered.counts, sites, text=options.text
    )  # fmt: skip
    for row in rows:
        row["evidence"] = found.get(row["site"])
    if not options.text:
        without_text(rows)
    confounds = confounds_of(trace, layout, tokens, design, lengths, options.seed, text=options.text)
    return {"units": units, "positions": positions, "confounds": confounds}


def _test(trace: TraceLike, gathered: Gathered, design: Design, options: Options) -> Tested:
    if design.shifts:
        return compare_shifted(trace, gathered, design, options.strata, draws=options.draws, seed=options.seed)
    return compare_cells(gathered, design, draws=options.draws, seed=options.seed)


def _more_notes(design: Design, partial: Partial | None, confirmed: bool, options: Options) -> list[str]:
    notes = [partial_note(partial)] if partial is not None else []
    if options.confirm and not confirmed:
        notes.append(confirm_note(design))
    return notes


def _trace_notes(trace: TraceLike, examples: int, cut: int) -> list[str]:
    notes, beside = [], other_stacks(trace)
    if beside:
        notes.append(f"Experts of the main stack only; those of {', '.join(beside)} are in the trace, but not tested.")
    if cut:
        notes.append(f"{cut} of the {examples} examples shown are long and only shown in part.")
    return notes


def _groups(
    trace: TraceLike,
    probe: Probe | None,
    by: str | None,
    positive: str | None,
    negative: str | None,
    only: str | None,
    options: Options,
    measured: Measured | None,
) -> Groups:
    if not trace.generations:
        raise StatsError("The trace holds no generations. Record some with `moeprobe trace`.")
    if by is not None and probe is None:
        named = positive is not None or negative is not None
        if options.design == "scores" and named:
            raise StatsError("--positive and --negative name groups; scores are compared as numbers (--design scores).")
        if options.design == "scores" or (
            options.design == "auto" and not named and is_numeric(trace.generations, by, only)
        ):  # fmt: skip
            return number_groups(trace.generations, by, only=only)
        return label_groups(trace.generations, by, positive, negative, only=only)
    if probe is None or by is not None:
        raise StatsError("Say what to compare: either a probe (--probe) or a label (--by label), not both.")
    if positive is not None or negative is not None:
        raise StatsError("--positive and --negative name values of a label; with a probe the score decides.")
    return probe_groups(trace.generations, probe, only=only, segments=segments_of(trace), measured=measured)
