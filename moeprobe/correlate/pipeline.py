"""From a trace and a question to rows: groups, lengths, counts, tests, examples."""

import math
from typing import Any

import numpy as np

from moeprobe.correlate.counts import other_stacks, segment_lengths
from moeprobe.correlate.design import Arm, Design, plan, unit_names
from moeprobe.correlate.effects import detectable, effect_cells, layer_summaries
from moeprobe.correlate.examples import build_examples
from moeprobe.correlate.gather import Gathered, gather
from moeprobe.correlate.groups import Groups, label_groups, probe_groups
from moeprobe.correlate.inputs import TraceLike
from moeprobe.correlate.rows import build_rows
from moeprobe.correlate.selection import Selection
from moeprobe.correlate.sentence import design_sentence, matching_words, prior_words, resampling_words, unit_notes
from moeprobe.correlate.testing import DRAWS, MIN_UNITS, WARN_UNITS, Tested, compare_cells
from moeprobe.errors import StatsError
from moeprobe.probes import Probe


def correlate(
    trace: TraceLike,
    *,
    probe: Probe | None = None,
    by: str | None = None,
    positive: str | None = None,
    negative: str | None = None,
    only: str | None = None,
    segment: str = "answer",
    alpha: float = 0.05,
    text: bool = True,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    """Which experts go with a probe's score or with a label: the default pipeline of docs/statistics.md.

    Args:
        trace: a recorded run.
        probe: judges every generation; give either this or `by`.
        by: "label", or "metadata.KEY".
        positive, negative: values of the label that make the two groups; see `groups.label_groups`.
        only: "KEY=VALUE": use only generations whose label or metadata has this value.
        segment: which tokens are compared: "answer", "thinking", "prompt" (all of it), "user", "system".
        alpha: false discovery rate below which an expert counts as associated.
        text: put a few generations with their text into the question.
        draws: relabellings for the family-wise p (max-T); 0 leaves it out.
        seed: of the relabellings.

    Returns:
        The question (one object), its rows (one object for each expert) and notes, all in the form of docs/findings.md.

    Raises:
        StatsError: the groups cannot be made, one is empty, or an argument makes no sense.
        ProbeError: the probe breaks its contract.
        TraceError: the trace is damaged.
    """
    groups = _groups(trace, probe, by, positive, negative, only)
    _check_numbers(alpha, draws)
    design = plan(trace, groups, segment, segment_lengths(trace, segment))
    unit = np.full(design.keep.size, -1, dtype=np.int64)
    unit[design.keep > 0] = design.unit
    gathered = gather(trace, Selection(segment, design.keep, unit, len(design.labels)))
    tested = compare_cells(gathered.counts, gathered.held, design, draws=draws, seed=seed)
    extras = effect_cells(gathered.counts, gathered.held, design, tested, unit_names(trace, design))
    rows = build_rows(gathered.counts, design, tested, extras, groups.name, alpha)
    examples, cut = build_examples(trace, groups, design, rows) if text else ([], 0)
    question = {
        **_asked(groups),
        "design": _design(design, groups, gathered, tested, alpha, draws),
        "layers": layer_summaries(gathered.counts, design, draws=draws, seed=seed),
        "examples": examples,
    }
    notes = [*groups.notes, *unit_notes(design, MIN_UNITS, WARN_UNITS), *_trace_notes(trace, len(examples), cut)]
    return question, rows, [f"{groups.name}: {note}" for note in notes]


def _check_numbers(alpha: float, draws: int) -> None:
    if not 0 < alpha < 1:
        raise StatsError(f"alpha is {alpha}; it must lie between 0 and 1, for example 0.05.")
    if draws < 0:
        raise StatsError(f"{draws} relabellings make no sense; use 10,000, or 0 to leave the family-wise p out.")


def _asked(groups: Groups) -> dict[str, Any]:
    """What was asked, without the answer."""
    names = ("name", "kind", "version", "definition", "positive", "negative", "quality", "grouping")
    return {name: getattr(groups, name) for name in names}


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
) -> Groups:
    if not trace.generations:
        raise StatsError("The trace holds no generations. Record some with `moeprobe trace`.")
    if by is not None and probe is None:
        return label_groups(trace.generations, by, positive, negative, only=only)
    if probe is None or by is not None:
        raise StatsError("Say what to compare: either a probe (--probe) or a label (--by label), not both.")
    if positive is not None or negative is not None:
        raise StatsError("--positive and --negative name values of a label; with a probe the score decides.")
    return probe_groups(trace.generations, probe, only=only)


def _design(
    design: Design, groups: Groups, gathered: Gathered, tested: Tested, alpha: float, draws: int
) -> dict[str, Any]:
    """The `design` object of docs/findings.md."""
    positive, negative = design.positive, design.negative
    number, result = tested.beyond.tested, tested.beyond.result
    return {
        "kind": "two groups",
        "unit": design.unit_name,
        "segment": design.segment,
        "positive": _arm(positive),
        "negative": _arm(negative),
        "left_out": {"abstained": groups.abstained, "unlabelled": groups.unlabelled, "no_tokens": design.no_tokens},
        "length_ratio_before": _ratio(positive.tokens, positive, negative.tokens, negative),
        "length_ratio_after": _ratio(positive.tokens_used, positive, negative.tokens_used, negative),
        "length_matching": matching_words(design),
        "response": "(O - E) / sqrt(V)",
        "strata": "token",
        "common_tokens": gathered.common,
        "resampling": resampling_words(design, draws),
        "draws": draws,
        "prior": prior_words(result),
        "prior_df": None if result is None or math.isinf(result.prior_df) else result.prior_df,
        "tested": number,
        "tested_marginal": tested.marginal.tested,
        "untestable": len(tested.reasons) - number,
        "alpha": alpha,
        "detectable": detectable(design, tested.beyond),
        "sentence": design_sentence(design, groups, alpha, number),
    }


def _arm(arm: Arm) -> dict[str, Any]:
    return {
        "generations": arm.generations,
        "tokens": arm.tokens,
        "tokens_used": arm.tokens_used,
        "median_length": arm.median_length,
    }


def _ratio(tokens1: int, arm1: Arm, tokens0: int, arm0: Arm) -> float:
    """Mean tokens per generation, positive over negative."""
    return (tokens1 / arm1.generations) / (tokens0 / arm0.generations)
