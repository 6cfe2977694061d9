"""How large is a report, how fast does it load? Findings of a 40 x 256 model with 200 generations of 1,000 tokens.

    python benchmarks/report_size.py [--out report.html] [--findings findings.json] [--generations 200] [--tokens 1000]

The findings are made up, but in the form and the entropy of real ones: words by Zipf's law, gate weights of chosen
experts, evidence of twenty leaders. `document` is what the tests of the report's size use, too. Where Chromium is
installed, the time to its load event is measured as well, with requests and messages on the console.
"""

import argparse
import gzip
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from moeprobe.findings import SCHEMA
from moeprobe.report import render

Json = dict[str, Any]
LEADERS = 20
BINS = 12
SIDES = ("positive", "negative")
QUALITY = ("precision", "recall", "specificity", "balanced_accuracy", "f1", "auc")


def document(
    layers: int = 40, experts: int = 256, k: int = 8, generations: int = 200, tokens: int = 1000, seed: int = 0
) -> Json:
    """Findings without interchange: one question, `layers` x `experts` rows, every generation as an example."""
    rng = np.random.default_rng(seed)
    sizes = ((generations + 1) // 2, generations // 2)
    leaders = [f"L{layer}.E{expert}" for layer, expert in _leading(rng, layers, experts)]
    words = _vocabulary(rng)
    rates = {site: (float(rng.uniform(0.08, 0.4)), float(rng.uniform(0.02, 0.12))) for site in leaders}
    rows = [_row(rng, layer, expert, k / experts, rates, sizes) for layer in range(layers) for expert in range(experts)]
    for row in rows:
        if row["evidence"] is not None:
            row["evidence"]["windows"] = [_pair(rng, words, rates[row["site"]][0]) for _ in range(6)]
    examples = [_example(rng, index, words, rates, tokens) for index in range(generations)]
    return {
        "schema": SCHEMA,
        "created": "2026-11-21T12:00:00+00:00",
        "moeprobe": "0.1.0",
        "model": {
            "id": "Qwen/Qwen3.5-35B-A3B", "family": "qwen3_5_moe", "num_hidden_layers": layers,
            "layers": [
                {"layer": i, "experts": experts, "k": k, "weight_sum": "1.0", "shared": 1} for i in range(layers)
            ],
        },
        "trace": {
            "path": "run.trace", "digest": "sha256:" + "01" * 32, "generations": generations,
            "rows": generations * tokens,
            "provenance": {name: {} for name in ("model", "tokenizer", "decoding", "engine", "versions")},
        },
        "questions": [_question(rng, rows, sizes, tokens, words) | {"examples": examples}],
        "rows": rows,
        "interchange": [],
        "commands": ["moeprobe correlate run.trace --probe refusal --examples all"],
        "notes": [],
    }  # fmt: skip


def _leading(rng: np.random.Generator, layers: int, experts: int) -> list[tuple[int, int]]:
    cells = rng.choice(layers * experts, size=min(LEADERS, layers * experts), replace=False)
    return [(int(cell) // experts, int(cell) % experts) for cell in cells]


def _vocabulary(rng: np.random.Generator, size: int = 12_000) -> tuple[list[str], np.ndarray]:
    """Texts of token types, and the chance of each: Zipf's law."""
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    lengths = rng.poisson(3.6, size) + 1
    texts = [(" " if rng.random() < 0.75 else "") + "".join(rng.choice(letters, length).tolist()) for length in lengths]
    texts[:5] = [",", ".", "\n", " the", " and"]
    chance = 1 / (np.arange(size) + 2.7)
    return texts, chance / chance.sum()


def _tokens(rng: np.random.Generator, words: tuple[list[str], np.ndarray], count: int) -> list[str]:
    texts, chance = words
    return [texts[index] for index in rng.choice(len(texts), size=count, p=chance).tolist()]


def _weights(rng: np.random.Generator, rate: float, count: int) -> Json:
    at = np.flatnonzero(rng.random(count) < rate)
    return {"at": at.tolist(), "weight": [float(f"{w:.4g}") for w in rng.beta(2, 12, at.size).tolist()]}


def _example(
    rng: np.random.Generator, index: int, words: tuple[list[str], np.ndarray], rates: dict[str, Any], tokens: int
) -> Json:
    side, start = index % 2, tokens // 20
    return {
        "generation": index, "prompt_id": f"prompt-{index:03d}", "group": SIDES[side],
        "score": round(float(rng.beta(6, 2) if side == 0 else rng.beta(1, 9)), 4),
        "tokens": _tokens(rng, words, tokens), "answer_start": start,
        "spans": [[start + 40 * i, start + 40 * i + 12] for i in range(5)] if side == 0 and tokens > 300 else [],
        "weights": {site: _weights(rng, rate[side], tokens) for site, rate in rates.items()},
    }  # fmt: skip


def _pair(rng: np.random.Generator, words: tuple[list[str], np.ndarray], rate: float) -> Json:
    windows = []
    for side in (0, 1):
        weights = _weights(rng, rate * (1 - side), 25)
        windows.append(
            {"generation": int(rng.integers(0, 100)), "prompt_id": f"prompt-{rng.integers(0, 200):03d}",
             "group": SIDES[side], "position": int(rng.integers(12, 900)), "centre": 12,
             "tokens": _tokens(rng, words, 25), "spans": [[8, 14]] if side == 0 else [], "gate": weights}
        )  # fmt: skip
    return {"window": windows[0], "matched": windows[1], "matched_by": "token"}


def _row(
    rng: np.random.Generator, layer: int, expert: int, base: float, rates: dict[str, Any], sizes: tuple[int, int]
) -> Json:
    site = f"L{layer}.E{expert}"
    leads = site in rates
    one, zero = rates.get(site, (base * float(rng.lognormal(0, 0.1)),) * 2)
    t = float(rng.normal()) + (8.0 if leads else 0.0)
    p = 2 * float(np.exp(-(t**2) / 2) / (abs(t) + 1.5)) if abs(t) > 3 else float(rng.uniform(0.01, 1))
    own = [np.clip(rng.normal(mean, 0.04, size), 0, 1).round(6) for mean, size in zip((one, zero), sizes, strict=True)]
    difference = float(own[0].mean() - own[1].mean())
    q1, q0 = (float(x) for x in rng.uniform(0.1, 0.2, 2))
    test = {"t": t, "df": 198.0, "p": p, "q": min(1.0, 30 * p) if leads else 1.0, "fwer": 1.0}
    association = "associated" if leads else "not associated"
    valuation = (one + zero) / 2 * (q1 - q0)
    return {
        "site": site, "layer": layer, "expert": expert, "probe": "refusal",
        "S1": one, "Q1": q1, "W1": one * q1, "S0": zero, "Q0": q0, "W0": zero * q0,
        "dS": one - zero, "dW": one * q1 - zero * q0, "entry": one * q1 - zero * q0 - valuation, "valuation": valuation,
        "rate_difference": difference, "rate_difference_ci": [difference - 0.012, difference + 0.012],
        **{name: [difference / 10 - 0.01, difference / 10 + 0.01] for name in ("dW_ci", "entry_ci", "valuation_ci")},
        "odds_ratio": float(rng.lognormal(0, 0.2)), "log_odds": float(rng.normal(0, 0.2)),
        "log_odds_se": float(rng.uniform(0.1, 0.2)), "log_odds_shrunk": float(rng.normal(0, 0.02)),
        "leave_one_out": {"unit": "prompt-007", "p": p * 2 if leads else min(1.0, p + 0.1)},
        "leave_token_out": {"token_id": 4, "token": " the", "rate_difference": difference * 0.9, "p": p * 3}
        if leads else None,
        "partial": None, "confirmed": None,
        "peers": {name: float(rng.normal(0, 0.1)) for name in
                  ("risk_difference", "npmi", "specialization", "ratio", "log_odds")},
        "auc": float((own[0][:, None] > own[1][None, :]).mean()) if leads else float(rng.uniform(0.4, 0.6)),
        "beyond_difference": difference * 0.8, **test, "marginal": test, "association": association, "reason": None,
        "evidence": _evidence(own) if leads else None, "interchange": None, "verdict": association,
    }  # fmt: skip


def _evidence(own: list[np.ndarray]) -> Json:
    lines = {}
    for side, values in zip(SIDES, own, strict=True):
        mean, half = float(values.mean()), 0.02
        lines[side] = {
            "rate": [round(mean, 6)] * BINS, "low": [max(round(mean - half, 6), 0.0)] * BINS,
            "high": [round(mean + half, 6)] * BINS,
        }  # fmt: skip
    return {"rates": {side: v.tolist() for side, v in zip(SIDES, own, strict=True)}, "timeline": lines, "windows": []}


def _question(
    rng: np.random.Generator, rows: list[Json], sizes: tuple[int, int], tokens: int, words: tuple[list[str], np.ndarray]
) -> Json:
    rate = {"value": 0.95, "ci": [0.9, 0.98]}
    arms = {
        side: {"generations": n, "units": n, "tokens": n * tokens, "tokens_used": n * tokens, "median_length": tokens}
        for side, n in zip(SIDES, sizes, strict=True)
    }
    left_out = ("abstained", "unlabelled", "no_tokens", "no_covariate", "incomplete_pairs", "too_short", "one_kind",
                "extra_samples")  # fmt: skip
    return {
        "name": "refusal", "kind": "probe", "version": "1.0", "definition": "The model declines.",
        "positive": "score >= 0.5", "negative": "score < 0.5",
        "parameters": {},
        "quality": {"on": "held-out examples", "examples": 60, **dict.fromkeys(QUALITY, rate)},
        "attenuation": {"factor": rate, "share": rate, "basis": "60 examples like the rest"},
        "grouping": {"by": None, "positive": None, "negative": None, "only": None},
        "design": {
            "kind": "two groups", "unit": "generation", "units": sum(sizes), "pairs": None, "segment": "answer", **arms,
            "left_out": dict.fromkeys(left_out, 0), "length_ratio_before": 1.0, "length_ratio_after": 1.0,
            "length_matching": "both cut to the shorter one", "response": "(O - E) / sqrt(V)", "strata": "token id",
            "common_tokens": 0.9, "held": [], "resampling": "the groups' names dealt out anew", "draws": 10_000,
            "prior": "one for all layers", "prior_df": 12.0, "tested": len(rows), "tested_marginal": len(rows),
            "untestable": 0, "alpha": 0.05, "detectable": {"d": 0.9, "power": 0.8, "alpha": 1e-5}, "partial": None,
            "confirmation": None, "sentence": "Generations with refusal were compared with those without.",
        },
        "layers": [
            {"layer": layer, "jsd": 0.01, "jsd_p": 0.2, "jsd_q": 0.4, "entropy1": 0.8, "entropy0": 0.8,
             "entropy_p": 0.5, "entropy_q": 0.6, "largest_load": 2.4, "committee": []}
            for layer in sorted({row["layer"] for row in rows})
        ],
        "families": [], "coalitions": [], "coalitions_found": "not asked for",
        **_beside(rng, sizes, tokens, words[0]),
    }  # fmt: skip


def _beside(rng: np.random.Generator, sizes: tuple[int, int], tokens: int, texts: list[str]) -> Json:
    edges = np.unique(np.linspace(0, tokens, BINS + 1).astype(int)).tolist()
    names = [[f"prompt-{2 * i + side:03d}" for i in range(size)] for side, size in enumerate(sizes)]
    quartiles = [int(tokens * share) for share in (0.5, 0.9, 1.0, 1.1, 1.4)]
    return {
        "units": {
            side: {"names": own, "tokens": [tokens] * len(own), "scores": None}
            for side, own in zip(SIDES, names, strict=True)
        },
        "positions": {"edges": edges}
        | {
            side: {"tokens": [n * tokens // BINS] * (len(edges) - 1), "units": [n] * (len(edges) - 1)}
            for side, n in zip(SIDES, sizes, strict=True)
        },
        "confounds": {
            "lengths": {when: dict.fromkeys(SIDES, quartiles) for when in ("before", "after")},
            "tokens": [
                {"token_id": i, "token": texts[i], "positive": float(rng.random() / 50),
                 "negative": float(rng.random() / 50)}
                for i in range(12)
            ],
            "topics": [
                {"word": texts[20 + i].strip(), "z": float(rng.normal(0, 3)), "positive": 9, "negative": 2}
                for i in range(16)
            ],
            "sorting": [
                {"sorter": by, "auc": 0.55, "ci": [0.47, 0.63], "how": "before matching", "reason": None}
                for by in ("length", "prompt words")
            ],
        },
    }  # fmt: skip


def load(content: str, times: int = 5) -> tuple[list[float], list[str], list[str]]:
    """Open the page in headless Chromium: seconds to the end of its load event, requests, messages on the console."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests/report"))
    from report_browser import Browser, missing

    if reason := missing():
        print(f"not loaded: {reason}")
        return [], [], []
    seconds, requests, complaints = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        path.write_text(content, encoding="utf-8")
        browser = Browser(Path(folder) / "profile")
        try:
            browser.open(path).close()  # the first tab of a browser pays for its start
            for _ in range(times):
                tab = browser.open(path)
                seconds.append(tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000)
                requests += tab.requests()
                complaints += tab.complaints()
                tab.close()
        finally:
            browser.close()
    return seconds, requests, complaints


def main() -> None:
    """Print the size of the page and of its parts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--findings", type=Path)
    parser.add_argument("--generations", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=1000)
    given = parser.parse_args()
    made = document(generations=given.generations, tokens=given.tokens)
    if given.findings:
        given.findings.write_text(json.dumps(made), encoding="utf-8")
    start = time.perf_counter()
    page = render([made])
    print(f"rendered in {time.perf_counter() - start:.2f} s")
    parts = {
        "page": page, "data": page.partition('id="data">')[2].partition("</script>")[0],
        "table of experts": page.partition('<section id="table"')[2].partition("</section>")[0],
        "findings": page.partition('<section id="found"')[2].partition("</section>")[0],
    }  # fmt: skip
    for name, part in parts.items():
        content = part.encode()
        print(f"{name}: {len(content):,} bytes ({len(gzip.compress(content)):,} gzipped)")
    print(f"findings.json: {len(json.dumps(made)):,} bytes")
    seconds, requests, complaints = load(page)
    if seconds:
        print(
            f"load event: median {np.median(seconds):.2f} s of {len(seconds)} ({min(seconds):.2f} to "
            f"{max(seconds):.2f}); {len(requests)} requests, {len(complaints)} messages on the console"
        )
    if given.out:
        given.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
