"""From two traces to a comparison."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.compare.aligned import Agreement, SameTokens, agreement, same_tokens
from moeprobe.compare.asking import Asked
from moeprobe.compare.document import Comparison
from moeprobe.compare.layers import layer_summaries, overlap_numbers
from moeprobe.compare.matching import Matched, check_comparable, match, pair_up
from moeprobe.compare.register import WORDS, agreed_labels, compare_associations, steady, verdicts
from moeprobe.compare.sentence import design_sentence, match_notes, register_notes
from moeprobe.compare.usage import Usage, compare_usage, gather_both, usage_rows
from moeprobe.correlate.testing import DRAWS
from moeprobe.designs.label_records import Labels
from moeprobe.errors import StatsError
from moeprobe.gathering.counts import other_stacks, segment_lengths
from moeprobe.gathering.inputs import TraceLike
from moeprobe.probes import Probe
from moeprobe.stats import overlap

Ints = NDArray[np.int64]
Json = dict[str, Any]
Answer = tuple[Json, list[Json], list[str]]


def compare(
    first: TraceLike,
    second: TraceLike,
    *,
    probe: Probe | None = None,
    by: str | None = None,
    labels: tuple[Labels, Labels] | None = None,
    name: str | None = None,
    positive: str | None = None,
    negative: str | None = None,
    only: str | None = None,
    segment: str = "answer",
    alpha: float = 0.05,
    draws: int = DRAWS,
    seed: int = 0,
) -> Comparison:
    """Compare two runs of one architecture on the same prompts; differences are B - A.

    Args:
        first, second: runs A and B, for example two checkpoints, or one checkpoint in two settings.
        probe: a register to ask about in both runs; give this, `by` or `labels`, or nothing.
        by: "label", or "metadata.KEY".
        labels: imported ones of whole answers of run A, and of run B (`moeprobe.correlate.read_label_records`). The
            same value means the same in both.
        name: what the register of `labels` is called; by default after the file of run A.
        positive, negative: values of the label that make the two groups, as in `correlate`.
        only: "KEY=VALUE": ask about the register only where the label or metadata has this value.
        segment: which tokens are compared.
        alpha: false discovery rate.
        draws: sign flips and relabellings for the family-wise p; 0 leaves it out.
        seed: of the draws.

    Returns:
        The comparison, in the form of docs/compare.md, without `runs`, `setting` and `commands`.

    Raises:
        StatsError: other architectures or tokenizers, no prompt in common, no tokens in the segment, groups that
            cannot be made, or an argument that makes no sense.
        LabelError: the labels do not fit their run, are of windows, or say other kinds of things of A than of B.
        ProbeError: the probe breaks its contract.
        TraceError: a trace is damaged.
    """
    _check_numbers(alpha, draws)
    asked = Asked(probe, by, labels, name, positive, negative, only, segment, alpha)
    check_comparable(first, second)
    matched = match(first, second)
    asked = asked.of_matched(matched, (first.generations, second.generations))
    same = same_tokens(matched, segment)
    lengths = segment_lengths(matched.first, segment), segment_lengths(matched.second, segment)
    pairs = pair_up(matched.prompt, *lengths)
    if not pairs.length.size:
        raise StatsError(f"No prompt has {segment} tokens in both runs. Choose another segment.")
    counted = same.counted(pairs.keep(len(matched.prompt)))
    infos = list(matched.first.manifest.main_layers)
    agreements = [agreement(matched, same, info, counted) for info in infos]
    gathered, used = gather_both(matched, pairs, segment)
    usage = compare_usage(gathered, agreements, int(counted.sum()), draws=draws, seed=seed)
    design = _design(usage, same, int(counted.sum()), segment, len(pairs.length), draws, alpha)
    layers, overlaps = layer_summaries(gathered.counts, infos, agreements)
    notes = match_notes(matched, len(matched.prompt) - len(pairs.length), used.size, segment)
    notes += _stack_notes(matched.first)
    register = None
    if asked.something:
        common = int(counted.sum()), design["tokens_used"]
        register, said = _register(matched, asked, lengths, agreements, common, draws, seed)
        notes += said
    other_text = design["same_tokens_used"] < design["tokens_used"]
    return Comparison(
        design, usage_rows(usage, agreements, alpha, other_text=other_text), layers, overlaps, register, notes=notes
    )


def _register(
    matched: Matched,
    asked: Asked,
    lengths: tuple[Ints, Ints],
    agreements: list[Agreement],
    common: tuple[int, int],
    draws: int,
    seed: int,
) -> tuple[Json, list[str]]:
    """The `register` of docs/compare.md, and its notes."""
    alpha, groups = asked.alpha, asked.groups(matched)
    size = len(matched.prompt)
    interaction = compare_associations(
        matched, steady(groups, size), lengths, asked.segment, agreements, common, draws=draws, seed=seed
    )
    answers, reasons = [], []
    for number, run in enumerate((matched.first, matched.second)):
        answer, reason = asked.of_run(run, number, groups.member[number * size : (number + 1) * size], groups)
        answers.append(answer)
        reasons.append(reason)
    sides = tuple(None if one is None else one[1] for one in answers)
    rows = verdicts((sides[0], sides[1]), interaction, alpha)
    words = [row["verdict"] for row in rows]
    register: Json = {
        **{name: getattr(groups, name) for name in ("name", "kind", "version", "definition", "positive", "negative",
                                                    "quality", "grouping", "parameters")},
        "run_a": None if answers[0] is None else answers[0][0]["design"],
        "run_b": None if answers[1] is None else answers[1][0]["design"],
        "unasked_a": reasons[0],
        "unasked_b": reasons[1],
        "labels": agreed_labels(groups, matched),
        "units": None if interaction is None else {
            "positive": int((interaction.labels == 1).sum()), "negative": int((interaction.labels == 0).sum()),
        },
        "tested": 0 if interaction is None else interaction.contrast.tested,
        "counts": {word: words.count(word) for word in WORDS},
        "shown_beside": sum(_shown(row, alpha) and row["verdict"] == "neither" for row in rows),
        "overlap": _overlap(sides),
        "rows": rows,
    }  # fmt: skip
    notes = [note for one, name in zip(answers, "AB", strict=True) if one for note in _said(one[2], name)]
    return register, [*groups.notes, *notes, *register_notes(register)]


def _said(notes: list[str], run: str) -> list[str]:
    return [f"Run {run}, {note}" for note in notes]


def _shown(row: Json, alpha: float) -> bool:
    found = row["interaction"]
    return found is not None and found["q"] is not None and found["q"] < alpha


def _overlap(sides: tuple[list[Json] | None, ...]) -> Json | None:
    """Overlap of the associated experts of both runs, among those that were tested in both."""
    one, two = sides
    if one is None or two is None:
        return None
    universe = np.array([a["q"] is not None and b["q"] is not None for a, b in zip(one, two, strict=True)])
    if not universe.any():
        return None
    first, second = (np.array([row["association"] == "associated" for row in rows]) & universe for rows in (one, two))
    return overlap_numbers(overlap(first, second, np.array([row["layer"] for row in one]), universe=universe))


def _design(usage: Usage, same: SameTokens, counted: int, segment: str, pairs: int, draws: int, alpha: float) -> Json:
    tokens = int(usage.gathered.counts.tokens[: usage.prompts].sum())
    design: Json = {
        "kind": "two runs",
        "unit": "prompt",
        "segment": segment,
        "prompts": usage.prompts,
        "pairs": pairs,
        "tokens_used": tokens,
        "same_tokens": int(same.first.row.size),
        "same_tokens_used": counted,
        "identical_generations": same.identical,
        "length_matching": "generations of one prompt matched by rank of length, both runs cut to the shorter one",
        "response": "asin(sqrt(selection rate standardised for tokens))",
        "strata": "token",
        "common_tokens": usage.gathered.common,
        "draws": draws,
        "tested": usage.beyond.tested,
        "tested_marginal": usage.marginal.tested,
        "untestable": len(usage.reasons) - usage.beyond.tested,
        "alpha": alpha,
    }
    return design | {"sentence": design_sentence(design, alpha)}


def _stack_notes(trace: TraceLike) -> list[str]:
    beside = other_stacks(trace)
    return [f"Experts of the main stack only; those of {', '.join(beside)} are not compared."] if beside else []


def _check_numbers(alpha: float, draws: int) -> None:
    if not 0 < alpha < 1:
        raise StatsError(f"alpha is {alpha}; it must lie between 0 and 1, for example 0.05.")
    if draws < 0:
        raise StatsError(f"{draws} draws make no sense; use 10,000, or 0 to leave the family-wise p out.")
