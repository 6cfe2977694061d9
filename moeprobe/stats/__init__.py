"""Statistics on plain arrays: which experts differ between two groups, by how much, and how sure one may be.

Nothing here knows a trace, a probe or a model. Decisions are made in float64.
"""

from moeprobe.stats.decomposition import Split, decompose
from moeprobe.stats.effects import Interval, auc, welch_interval, wilson_interval
from moeprobe.stats.matching import matched_lengths
from moeprobe.stats.moderated import ModeratedT, moderate, moderated_t, moderated_t_paired
from moeprobe.stats.multiplicity import adjust
from moeprobe.stats.prior import VariancePrior, fit_prior
from moeprobe.stats.rates import GATE_SCALE, Rates, asin_sqrt, pool, sampling_floor, to_fixed

__all__ = [
    "GATE_SCALE", "Interval", "ModeratedT", "Rates", "Split", "VariancePrior", "adjust", "asin_sqrt", "auc",
    "decompose", "fit_prior", "matched_lengths", "moderate", "moderated_t", "moderated_t_paired", "pool",
    "sampling_floor", "to_fixed", "welch_interval", "wilson_interval",
]  # fmt: skip
