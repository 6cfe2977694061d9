"""Numbers in print, against values written by hand."""

import pytest

from moeprobe.report import figures


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (97.3, "97\u00a0%"),
        (0, "0\u00a0%"),
        (0.01, "0.0\u00a0%"),
        (-0.01, "0.0\u00a0%"),
        (-3.14, "\u22123.1\u00a0%"),
        (None, "\u2013"),
    ],
)
def test_percent(value: float | None, printed: str) -> None:
    assert figures.percent(value) == printed


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (0.05, "0.050"),
        (0.00012, "1.2\u00b710\u207b\u2074"),
        (9.96e-6, "1.0\u00b710\u207b\u2075"),
        (0.0, "under 10\u207b\u00b3\u2070\u2070"),
        (None, "\u2013"),
        (1.0, "1.000"),
    ],
)
def test_chance(value: float | None, printed: str) -> None:
    assert figures.chance(value) == printed


def test_zero_has_no_sign() -> None:
    assert figures.number(-0.0001, 2, sign=True) == "0.00"
    assert figures.points(0.1234) == "+12.3"
    assert figures.points(-0.1234) == "\u221212.3"


def test_intervals() -> None:
    assert figures.interval([90.2, 104.4]) == "[90, 104]"
    assert figures.interval([0.0, 0.0]) == "[0, 0]"
    assert figures.interval([-1.04, 6.4]) == "[\u22121.0, 6.4]"
    assert figures.interval(None) == figures.interval([None, 1.0]) == "[no interval]"
