"""Which bootstrap interval of a ratio of sums covers? python benchmarks/interchange_intervals.py [--runs N]

Prints the table of docs/causes.md: how often intervals of nominally 95 % lie above or below the truth.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as student

if not __package__:  # run as a file: what is imported lies in the folder above, not in this one
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from moeprobe.judging.ratio import ratios, resamples

Floats = NDArray[np.float64]
KINDS = ("normal", "t3", "right tail", "left tail", "scaled t3", "in some pairs", "mostly zero")
METHODS = ("percentile", "BCa", "studentised", "t", "widened percentile")


def draw(kind: str, pairs: int, runs: int, generator: np.random.Generator) -> tuple[Floats, Floats, float]:
    """Effects and gaps (runs, pairs), and the true ratio in percent."""
    gap = 2 * generator.lognormal(0, 0.6, (runs, pairs))
    skewed = 0.4 * (generator.lognormal(0, 1.2, (runs, pairs)) - np.exp(0.72))
    if kind == "normal":
        return 0.3 * gap + generator.normal(0, 1, (runs, pairs)), gap, 30.0
    if kind == "t3":
        return 0.3 * gap + 0.7 * generator.standard_t(3, (runs, pairs)), gap, 30.0
    if kind == "right tail":
        return 0.3 * gap + skewed, gap, 30.0
    if kind == "left tail":
        return 0.3 * gap - skewed, gap, 30.0
    if kind == "scaled t3":  # noise grows with the gap
        return gap * (0.3 + 0.4 * generator.standard_t(3, (runs, pairs))), gap, 30.0
    if kind == "in some pairs":  # the site does all of it in three pairs of ten
        carried = generator.random((runs, pairs)) < 0.3
        return gap * carried + 0.2 * generator.standard_t(3, (runs, pairs)), gap, 30.0
    # The site runs in one pair of five only.
    ran = generator.random((runs, pairs)) < 0.2
    return ran * (0.3 * gap + generator.standard_t(3, (runs, pairs))), gap, 6.0


def intervals(values: Floats, gap: Floats, weights: Floats) -> dict[str, tuple[float, float]]:
    """95 % intervals of one experiment by every method, in percent."""
    pairs, own = len(gap), 100 * values.sum() / gap.sum()
    drawn = 100 * (weights @ values) / (weights @ gap)
    ends = ratios(values[:, None], gap, weights)
    half = student.ppf(0.975, pairs - 1) * _error(values, gap, own)
    return {
        "percentile": _quantiles(drawn, 0.025, 0.975),
        "BCa": _bca(values, gap, own, drawn),
        "studentised": _studentised(values, gap, own, drawn, weights),
        "t": (own - half, own + half),
        "widened percentile": (float(ends.low[0]), float(ends.high[0])),
    }


def _error(values: Floats, gap: Floats, own: float) -> float:
    """Linearised standard error of the ratio."""
    left = 100 * values - own * gap
    return float(np.sqrt((left**2).mean() / (len(gap) - 1)) / gap.mean())


def _bca(values: Floats, gap: Floats, own: float, drawn: Floats) -> tuple[float, float]:
    """Bias-corrected and accelerated (Efron 1987)."""
    without = (values.sum() - values) / (gap.sum() - gap)
    lean = without.mean() - without
    spread = (lean**2).sum() ** 1.5
    acceleration = float((lean**3).sum() / (6 * spread)) if spread > 0 else 0.0
    share = float(((drawn < own).mean() + (drawn <= own).mean()) / 2)
    bias = float(norm.ppf(min(max(share, 1e-4), 1 - 1e-4)))

    def level(p: float) -> float:
        z = bias + norm.ppf(p)
        return float(norm.cdf(bias + z / (1 - acceleration * z)))

    return _quantiles(drawn, level(0.025), level(0.975))


def _studentised(values: Floats, gap: Floats, own: float, drawn: Floats, weights: Floats) -> tuple[float, float]:
    """Bootstrap-t; resamples without any spread are left out."""
    top, bottom = 100 * values, weights @ gap
    square = weights @ top**2 - 2 * drawn * (weights @ (top * gap)) + drawn**2 * (weights @ gap**2)
    error = np.sqrt(np.maximum(square, 0) / (len(gap) - 1)) / bottom
    usable = error > 1e-9 * np.abs(top).max(initial=1e-300)
    if not usable.any():
        return own, own
    low, high = _quantiles((drawn[usable] - own) / error[usable], 0.025, 0.975)
    scale = _error(values, gap, own)
    return own - high * scale, own - low * scale


def _quantiles(values: Floats, low: float, high: float) -> tuple[float, float]:
    return float(np.quantile(values, low)), float(np.quantile(values, high))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    generator = np.random.default_rng(1)
    print(f"| effects | pairs | {' | '.join(METHODS)} |")
    print("|---" * (len(METHODS) + 2) + "|")
    for kind in KINDS:
        for pairs in (8, 15, 30, 60):
            values, gap, truth = draw(kind, pairs, runs, generator)
            weights = resamples(pairs, 1000, pairs)
            found = [intervals(values[run], gap[run], weights) for run in range(runs)]
            cells = []
            for method in METHODS:
                above = np.mean([one[method][0] > truth for one in found])
                below = np.mean([one[method][1] < truth for one in found])
                width = np.median([one[method][1] - one[method][0] for one in found])
                cells.append(f"{above:.3f} / {below:.3f} ({width:.0f})")
            print(f"| {kind} | {pairs} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
