"""Corrections: the published example, limma's BH, and NaN that does not count."""

import json
from pathlib import Path

import numpy as np
import pytest

from moeprobe.errors import StatsError
from moeprobe.stats import adjust

# Benjamini and Hochberg 1995, section 4.1: 15 p-values of the thrombolysis study.
BH_1995 = np.array(
    [1e-4, 4e-4, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.324, 0.4262, 0.5719, 0.6528, 0.759, 1.0]
)


@pytest.mark.parametrize(("method", "rejections"), [("bh", 4), ("by", 3), ("holm", 3)])
def test_benjamini_hochberg_1995(method, rejections):
    assert int((adjust(BH_1995, method) < 0.05).sum()) == rejections


def test_equals_the_definition():
    """q_(i) = min over j >= i of m p_(j) / j, written out."""
    p = np.random.default_rng(0).uniform(size=40) ** 2
    order = np.argsort(p)
    q = np.empty(40)
    q[order] = [min(min(40 * p[order][j] / (j + 1) for j in range(i, 40)), 1) for i in range(40)]
    np.testing.assert_allclose(adjust(p), q, rtol=1e-12)


def test_equals_limma():
    case = json.loads((Path(__file__).parent / "data" / "limma_case.json").read_text())["limma"]
    np.testing.assert_allclose(adjust(case["global_p"]), case["bh"], rtol=1e-12)


def test_nan_stays_and_does_not_count():
    with_gaps = np.full(30, np.nan)
    with_gaps[::2] = BH_1995
    adjusted = adjust(with_gaps)
    assert np.isnan(adjusted[1::2]).all()
    np.testing.assert_array_equal(adjusted[::2], adjust(BH_1995))


def test_shape_is_kept_and_nothing_tested_is_nothing():
    assert adjust(BH_1995.reshape(3, 5)).shape == (3, 5)
    assert np.isnan(adjust([np.nan, np.nan])).all()
    assert adjust([]).shape == (0,)


def test_refuses_nonsense():
    with pytest.raises(StatsError, match="bh, by, holm"):
        adjust([0.1], "bonferoni")
    with pytest.raises(StatsError, match="outside"):
        adjust([0.1, 1.2])
