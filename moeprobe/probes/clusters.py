"""How much several texts of one prompt say: the factor by which their counts shrink before an interval is made.

Answers to one prompt are alike, so twenty of them say less than twenty answers to twenty prompts. The counts are
divided by the design effect and then treated as if they were independent (Rao & Scott 1992, Biometrics 48, 577-585),
with the t quantile of the number of prompts in place of the normal one (Korn & Graubard 1998, Survey Methodology 24,
193-201).
"""

from collections.abc import Sequence

import numpy as np

Z = 1.959963984540054
"""The 0.975 quantile of the standard normal distribution."""


def cluster_numbers(prompts: Sequence[str]) -> list[int]:
    """A number for each text, the same for texts of one prompt; a text whose prompt is not known stands alone.

    Args:
        prompts: (texts,) the prompt of each text, empty where it is not known.
    """
    numbers: dict[str, int] = {}
    return [numbers.setdefault(prompt or f"\n{index}", len(numbers)) for index, prompt in enumerate(prompts)]


def shrinkage(influence: Sequence[float], clusters: Sequence[int]) -> float:
    """The share in (0, 1] of the texts that is left as an effective number of independent ones.

    The design effect is the variance of the sums over prompts divided by the variance of independent texts, and never
    taken below 1. Where nothing varies (a perfect record) it cannot be measured; then each prompt counts as one text.
    Without repeated prompts the answer is 1.

    Args:
        influence: (texts,) how far each text moves the statistic (its linearisation), in any unit; of a share, simply
            0 or 1. Only texts that enter the statistic.
        clusters: (texts,) of `cluster_numbers`.
    """
    values, number = np.asarray(influence, dtype=np.float64), np.unique(clusters, return_inverse=True)[1]
    texts, prompts = values.size, int(number.max(initial=-1)) + 1
    if prompts in (0, texts):
        return 1.0
    if prompts == 1:
        return 1.0 / texts  # one prompt: between prompts nothing is known
    moved = values - values.mean()
    within = float(moved @ moved) / texts
    sums = np.bincount(number, weights=moved)
    between = float(sums @ sums) / texts * prompts / (prompts - 1)
    effect = texts / prompts if within < 1e-15 else max(1.0, between / within)
    return (Z / _t_quantile(prompts - 1)) ** 2 / effect


def _t_quantile(degrees: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.975, degrees))
