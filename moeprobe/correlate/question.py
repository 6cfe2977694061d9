"""The object of a question in the findings file: what was asked, and how it was answered."""

import math
from typing import Any

from moeprobe.correlate.confirm import Halves
from moeprobe.correlate.effects import detectable
from moeprobe.correlate.partial import Partial
from moeprobe.correlate.sentence import (
    MARKED,
    OTHER_TOKENS,
    design_sentence,
    prior_words,
    resampling_words,
    response_words,
)
from moeprobe.correlate.testing import Tested
from moeprobe.designs.design import Arm, Design
from moeprobe.designs.groups import Groups
from moeprobe.designs.held import Held
from moeprobe.gathering.gather import Gathered

Json = dict[str, Any]


def asked_of(groups: Groups, design: Design) -> Json:
    """What was asked, without the answer."""
    names = (
        "name", "kind", "version", "parameters", "definition", "positive", "negative", "quality", "attenuation",
        "grouping",
    )  # fmt: skip
    asked = {name: getattr(groups, name) for name in names}
    if design.kind != "two groups":
        # Marks and scores were not measured, and of pairs it matters whether both can truly be alike.
        asked["attenuation"] = None
    if design.kind == "within generations":
        asked |= {"positive": MARKED[groups.kind], "negative": OTHER_TOKENS}
    return asked


def describe(
    design: Design,
    groups: Groups,
    gathered: Gathered,
    tested: Tested,
    partial: Partial | None,
    halves: Halves | None,
    alpha: float,
    draws: int,
    held: Held,
) -> Json:
    """The `design` object of docs/findings.md."""
    positive, negative = design.positive, design.negative
    number, result = tested.beyond.tested, tested.beyond.result
    return {
        "kind": design.kind,
        "unit": design.unit_name,
        "units": design.units,
        "pairs": design.units if design.kind == "pairs" else None,
        "segment": design.segment,
        "positive": _arm(positive),
        "negative": _arm(negative),
        "left_out": {"abstained": groups.abstained, "unlabelled": groups.unlabelled, **design.left_out},
        "length_ratio_before": _ratio(positive.tokens, positive, negative.tokens, negative),
        "length_ratio_after": _ratio(positive.tokens_used, positive, negative.tokens_used, negative),
        "length_matching": design.matching,
        "response": response_words(gathered, design),
        "strata": gathered.strata_words or "none",
        "common_tokens": gathered.common,
        "held": list(held.words),
        "resampling": resampling_words(design, draws),
        "draws": draws,
        "prior": prior_words(result, tested.beyond.tested),
        "prior_df": None if result is None or math.isinf(result.prior_df) else result.prior_df,
        "tested": number,
        "tested_marginal": tested.marginal.tested,
        "untestable": len(tested.reasons) - number,
        "alpha": alpha,
        "detectable": detectable(design, tested.beyond),
        "partial": None if partial is None else _partial(partial),
        "confirmation": None if halves is None else _halves(halves),
        "sentence": design_sentence(design, groups, gathered, alpha, number, held),
    }


def _arm(arm: Arm) -> Json:
    return {
        "generations": arm.generations,
        "units": arm.units,
        "tokens": arm.tokens,
        "tokens_used": arm.tokens_used,
        "median_length": arm.median_length,
    }


def _partial(partial: Partial) -> Json:
    return {
        "others": list(partial.others),
        "units": partial.units,
        "tested": partial.column.tested,
        "reason": partial.reason,
    }


def _halves(halves: Halves) -> Json:
    first, second = halves.units
    return {
        "screen_units": first,
        "confirm_units": second,
        "screened": halves.screened,
        "confirmed": halves.confirmed,
    }


def _ratio(tokens1: int, arm1: Arm, tokens0: int, arm0: Arm) -> float | None:
    """Mean tokens per generation, positive over negative; None where one side has none."""
    if not (arm1.generations and arm0.generations and tokens0):
        return None
    return (tokens1 / arm1.generations) / (tokens0 / arm0.generations)
