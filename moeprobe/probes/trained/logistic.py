"""Logistic regression with an L2 penalty, and Platt's calibration: two small convex problems, solved by L-BFGS."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def fit_logistic(features: Any, labels: Ints, weights: Floats, penalty: float) -> tuple[Floats, float]:
    """Coefficients and intercept that minimise sum_i w_i log(1 + exp(-y_i (x_i b + a))) + penalty / 2 * |b|^2.

    The intercept is not penalised. With C = 1 / penalty this is the problem of scikit-learn's LogisticRegression.

    Args:
        features: (texts, features), sparse or dense.
        labels: (texts,) 0 or 1, both present.
        weights: (texts,) weight of each text.
        penalty: above 0.
    """
    from scipy.optimize import minimize

    sign = 2.0 * labels - 1
    turned = features.T.tocsr() if hasattr(features, "tocsr") else features.T

    def loss(point: Floats) -> tuple[float, Floats]:
        margins = sign * (features @ point[:-1] + point[-1])
        pull = -weights * sign * _sigmoid(-margins)
        value = float((weights * np.logaddexp(0, -margins)).sum() + penalty / 2 * (point[:-1] @ point[:-1]))
        return value, np.append(turned @ pull + penalty * point[:-1], pull.sum())

    # ftol 0: only the gradient decides, which is what bounds the distance to the minimum
    options = {"maxiter": 5000, "maxfun": 10_000, "gtol": 1e-8, "ftol": 0.0, "maxcor": 20}
    found = minimize(loss, np.zeros(features.shape[1] + 1), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x[:-1]), float(found.x[-1])


def fit_platt(decisions: Floats, labels: Ints, weights: Floats) -> tuple[float, float]:
    """Slope and offset with which sigmoid(slope * decision + offset) is a probability (Platt 1999).

    The targets are Platt's (n1 + 1) / (n1 + 2) and 1 / (n0 + 2), which keeps the curve from becoming a step where the
    decisions part the classes. The slope is never negative: 0 says that the decisions tell nothing.

    Args:
        decisions: (texts,) of models that did not see the text.
        labels: (texts,) 0 or 1, both present.
        weights: (texts,) weight of each text.
    """
    from scipy.optimize import minimize

    positives = int(labels.sum())
    target = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))
    spread = float(np.abs(decisions).max()) or 1.0  # both numbers of one size make the problem well conditioned
    scaled = decisions / spread

    def loss(point: Floats) -> tuple[float, Floats]:
        odds = point[0] * scaled + point[1]
        pull = weights * (_sigmoid(odds) - target)
        value = float((weights * (np.logaddexp(0, odds) - target * odds)).sum())
        return value, np.array([(pull * scaled).sum(), pull.sum()])

    found = minimize(
        loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)],
        options={"maxiter": 1000, "gtol": 1e-9, "ftol": 0.0},
    )  # fmt: skip
    return float(found.x[0]) / spread, float(found.x[1])


def balance(labels: Ints) -> Floats:
    """Weights that give both classes half of the sum: n / (2 n_class), scikit-learn's class_weight="balanced"."""
    positives = labels.mean()
    return np.asarray(np.where(labels == 1, 0.5 / positives, 0.5 / (1 - positives)))


def probability(odds: Floats) -> Floats:
    """1 / (1 + exp(-odds)), rounded to 6 digits so that the last bits of exp on another machine change nothing."""
    return np.asarray(np.round(_sigmoid(np.clip(odds, -50, 50)), 6))


def _sigmoid(odds: Floats) -> Floats:
    from scipy.special import expit

    return np.asarray(expit(odds))
