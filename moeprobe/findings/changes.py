"""How often the behaviour appears in generated text, before and after a swap: what the figures of a file say in words.

A file counts `points` in the direction of the gap: a fall is positive where the answers to the sensitive prompts were
changed, a rise where those to the controls were. People get the change as it is, and what it did to the gap in words.
"""

from collections.abc import Sequence

# Arms that start from the answers to the sensitive prompts: there the behaviour must fall to close the gap.
FALLING = frozenset({"necessity", "knockout", "placebo_necessity"})

_HARDLY = 0.5  # percent of the gap; less would be shown as 0
# The gap is taken over the pairs in which the probe answered to both prompts, the change over those of its two arms.
_ELSEWHERE = "cannot be put as a share of the gap, which was measured in other pairs"


def as_it_is(arm: str, points: float, ends: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Change of the share that shows the behaviour, in points, below 0 where it fell; and its interval.

    Args:
        arm: its name in the file.
        points, ends: as in the file, positive in the direction of the gap.
    """
    low, high = ends
    return (-points + 0.0, (-high + 0.0, -low + 0.0)) if arm in FALLING else (points, (low, high))


def to_the_gap(points: float, percent: float | None) -> str:
    """What a change did to the gap between the two prompts: ``closes 87 % of the gap``.

    Args:
        points: positive in the direction of the gap.
        percent: the same in percent of the gap; None where there is no gap to close.
    """
    if points == 0:
        return _ELSEWHERE if percent is not None and abs(percent) >= _HARDLY else "leaves the gap as it is"
    if percent is None:
        return "cannot be put as a share of the gap, which is not above 0 or was not measured"
    if abs(percent) < _HARDLY:
        return "hardly moves the gap" if abs(points) < 1 else _ELSEWHERE
    if points * percent < 0:
        return _ELSEWHERE
    if percent < 0:
        return f"widens the gap by {-percent:.0f} %"
    whole = "closes the whole gap"
    return f"closes {percent:.0f} % of the gap" if percent < 99.5 else whole if percent < 100.5 else (
        f"{whole} and more ({percent:.0f} %)"
    )  # fmt: skip
