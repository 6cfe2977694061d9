"""Interchange runs as `moeprobe interchange` writes them, simulated so that all numbers and verdicts agree."""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.findings import CAUSAL_EFFECTS, judgement, verdict

Json = dict[str, Any]
Floats = NDArray[np.float64]
# Verdict and percent of necessity, sufficiency and knock-out; a router's choice has no knock-out.
Wanted = tuple[str, float, float, float | None]
GAP = 4.2
MINIMUM = 10.0


def interchanged(findings: Json, question: str, effects: dict[str, Wanted], *, pairs: int, noise: float) -> Json:
    """Add an interchange run with the given verdicts and effects (percent) of experts."""
    rng = np.random.default_rng(11)
    by_site = {row["site"]: row for row in findings["rows"] if row["probe"] == question}
    gap = GAP + np.linspace(-1, 1, pairs)
    for site, wanted in effects.items():
        row = by_site[site]
        others = [name for name in by_site if name.split(".")[0] == site.split(".")[0] and name not in effects][:8]
        row["interchange"] = swaps = swaps_of(wanted, gap, noise, others, rng)
        row["verdict"] = verdict(row["association"], swaps)
        assert row["verdict"] == wanted[0], (site, row["verdict"])
    findings["interchange"].append(_run(question, gap, list(effects)))
    return json.loads(json.dumps(findings))


def with_others(findings: Json, question: str, effects: dict[str, Wanted], *, noise: float) -> Json:
    """Add sites that are no single expert to the run of a question; a set gets members to be compared with."""
    rng = np.random.default_rng(12)
    run = next(run for run in findings["interchange"] if run["probe"] == question)
    gap = np.array(run["sensitive"]) - np.array(run["control"])
    for site, wanted in effects.items():
        kind = site.split(".")[1]
        like = [f"L{layer}.H1" for layer in range(8)] if kind.startswith("H") else None
        like = [f"L18.E{n}+E{n + 1}" for n in range(9, 14)] if "+" in kind else like
        swaps = swaps_of(wanted, gap, noise, like, rng)
        if "+" in kind:
            swaps["additivity"] = _additivity()
        run["others"].append(
            {"site": site, "name": site, "interchange": swaps, "verdict": verdict("untestable", swaps)}
        )
        assert run["others"][-1]["verdict"] == wanted[0], (site, run["others"][-1]["verdict"])
    run["tested"] += list(effects)
    return json.loads(json.dumps(findings))


def swaps_of(wanted: Wanted, gap: Floats, noise: float, others: list[str] | None, rng: np.random.Generator) -> Json:
    """`rows[].interchange` of a site; `others` are its comparison sites, None where it is alone of its kind."""
    named, *values = wanted
    names = ("necessity", "sufficiency", "knockout")[: len(values) - (values[-1] is None)]
    zero, wide = not any(values), named == "underpowered"
    sites = others or []
    swaps: Json = {"pairs": len(gap), "enough_pairs": len(gap) >= 8, "exactly_zero": zero, "adjustment": "family-wise"}
    swaps["thresholds"] = {"minimum_effect": MINIMUM, "material_effect": 30.0, "alpha": 0.05}
    null: Json = {"sites": sites, "active": len(sites) * bool(noise), "asked": others is not None}
    for key, value in zip(names, values, strict=False):
        percents = (
            np.zeros(len(gap)) if zero else (value or 0) + rng.normal(0, max(noise, 2.0) * (1 + 4 * wide), len(gap))
        )
        swaps[key] = {**share(percents * GAP / 100, gap), "per_pair": (percents * GAP / 100).tolist()}
        null[key] = [float(x) for x in rng.normal(0, noise / 4, len(sites))]
    for key in CAUSAL_EFFECTS:
        each, above = np.array(swaps[key]["per_pair"]), sum(one >= swaps[key]["percent"] for one in null[key])
        chance = 0.0001 if swaps[key]["ci"][0] > MINIMUM else 1.0
        placebo = np.zeros(len(gap)) if zero else rng.normal(0, noise * GAP / 400, len(gap))
        swaps[key] |= {"p": chance, "p_zero": chance, "p_swap": chance, "p_minus_placebo": chance}
        swaps[key]["contrasts"] = {"minus_placebo": share(each - placebo, gap)}
        rank = {
            "sites": len(sites),
            "above": above,
            "p": (1 + above) / (1 + len(sites)),
            "best_p": 1 / (1 + len(sites)),
        }
        swaps[key]["rank"] = None if others is None else {**rank, "of": "swap"}
    price = None if "knockout" not in swaps else {"kl": 0.0 if zero else 0.0042, "ci": [0.0, 0.0 if zero else 0.006]}
    swaps |= {"null": null, "additivity": None, "price": price if price is None else {**price, "prompts": 16}}
    return swaps | judgement(swaps)


def share(each: Floats, gap: Floats) -> Json:
    """Percent of the gap with a normal interval, and the mean."""
    half = 1.96 * float(each.std(ddof=1)) / len(each) ** 0.5
    mean, scale = float(each.mean()), 100 / float(gap.mean())
    return {"percent": scale * mean, "ci": [scale * (mean - half), scale * (mean + half)], "mean": mean}


def _additivity() -> Json:
    one = {
        "set": {"percent": 98.0, "ci": [93.0, 101.0]},
        "sum": {"percent": 102.0, "ci": [97.0, 106.0]},
        "missing": {"percent": 4.0, "ci": [1.0, 9.0]},
        "redundancy": {"value": 0.04, "ci": [0.01, 0.09]},
        "words": "redundant",
    }
    return {"necessity": one, "sufficiency": {**one, "redundancy": None, "words": "not told apart from additive"}}


def _run(question: str, gap: Floats, tested: list[str]) -> Json:
    return {
        "probe": question,
        "pairs": len(gap),
        "pair_ids": [f"pair-{i:02d}" for i in range(len(gap))],
        "pairs_from": {"kind": "trace", "name": "refusal.trace", "digest": "sha256:" + "01" * 32},
        "left_out": 2,
        "positive": "harmful",
        "negative": "harmless",
        "metric": "mean negative log-likelihood (nats per token) of the control prompt's own greedy continuation",
        "metric_options": {"name": "control-nll", "unit": "nats per token", "signed": False, "tokens": 5},
        "unit": "nats per token",
        "sensitive": (0.5 + gap).tolist(),
        "control": [0.5] * len(gap),
        "alignment": "positions are paired from the end of the two prompts: read-out token with read-out token, and "
        "backwards. All prompt positions take part, and the forced tokens, one to one.",
        "alignment_options": {"name": "end", "positions": "all", "continuation": True},
        "coverage": "180 of 190 prompt positions had a partner (95 %; least: 6 of 9), 90 of them with the same token.",
        "swap": "contribution",
        "arms": ["necessity", "sufficiency", "placebo_necessity", "placebo_sufficiency", "knockout"],
        "null": 19,
        "gap": {"mean": float(gap.mean()), "ci": [3.9, 4.6], "p": 0.0001, "direction": 1},
        "bootstrap": 10000,
        "seed": 0,
        "minimum_effect": MINIMUM,
        "confirmation": None,
        "rule": "An effect counts if its interval, and that of it minus placebo, lie above the minimum effect.",
        "tested": tested,
        "engine": {"dtype": "float32", "experts_implementation": "eager", "torch": "2.13.0"},
        "others": [],
    }
