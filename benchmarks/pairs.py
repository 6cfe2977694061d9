"""Paired, alternating timings: the ratio of two ways to run the same step, with a confidence interval.

On a busy machine two means taken minutes apart differ by more than the cost of a hook. So each pair runs the plain step
and the other one right after each other, in random order, and the figure is the median of the ratios within pairs.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike

Clock = Callable[[], int]


@dataclass(frozen=True)
class Ratio:
    """Cost of the other step over the plain one; 1 is no cost.

    Attributes:
        median: exp of the median of log(other / plain) over pairs.
        low, high: 95 % percentile bootstrap interval of it.
        pairs: how many pairs.
    """

    median: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.median:.4f} [{self.low:.4f}, {self.high:.4f}]"

    def record(self) -> dict[str, float | int]:
        """As JSON."""
        return asdict(self)


def paired_ratio(plain: ArrayLike, other: ArrayLike, *, resamples: int = 2000, seed: int = 0) -> Ratio:
    """Median ratio of paired times and its bootstrap interval.

    Args:
        plain, other: (pairs,) times in any unit, in the same order.
        resamples: of the bootstrap over pairs.
        seed: of its random numbers.

    Raises:
        ValueError: the two differ in length, are empty, or hold a time that is not positive.
    """
    before, after = np.asarray(plain, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if before.ndim != 1 or before.shape != after.shape or not len(before):
        raise ValueError(f"paired times must be two (pairs,) arrays, got {before.shape} and {after.shape}")
    if (before <= 0).any() or (after <= 0).any():
        raise ValueError("a time is zero or negative: the clock is too coarse for this step")
    logs = np.log(after / before)
    drawn = np.random.default_rng(seed).integers(0, len(logs), size=(resamples, len(logs)))
    low, high = np.quantile(np.median(logs[drawn], axis=1), [0.025, 0.975])
    return Ratio(float(np.exp(np.median(logs))), float(np.exp(low)), float(np.exp(high)), len(logs))


def clock(device: torch.device) -> Clock:
    """Nanoseconds. On a CPU: CPU time of the process, which does not count what other processes take. With one torch
    thread it is that thread's time, and a tool that works in threads of its own pays for them. On a GPU: wall time,
    once the device is idle."""
    if device.type == "cpu":
        return time.process_time_ns

    def settled() -> int:
        torch.cuda.synchronize(device)
        return time.perf_counter_ns()

    return settled


def timed(now: Clock, step: Callable[[], object]) -> int:
    """Nanoseconds that `step` took."""
    begin = now()
    step()
    return now() - begin


class Pairs:
    """Collects pairs of times of a plain and another step.

    Args:
        plain, other: the two steps; each prepares nothing and leaves things as they were, or calls `after`.
        after: (plain, other) run after each step, outside its time.
        now: the clock.
        seed: decides which comes first in each pair.
    """

    def __init__(
        self,
        plain: Callable[[], object],
        other: Callable[[], object],
        now: Clock,
        *,
        after: tuple[Callable[[], object], Callable[[], object]] | None = None,
        seed: int = 0,
    ) -> None:
        self.steps = (plain, other)
        self.after = after
        self.now = now
        self.times: tuple[list[int], list[int]] = ([], [])
        self._random = np.random.default_rng(seed)

    def run(self) -> None:
        """One more pair."""
        order = (0, 1) if self._random.random() < 0.5 else (1, 0)
        for side in order:
            self.times[side].append(timed(self.now, self.steps[side]))
            if self.after is not None:
                self.after[side]()

    def forget(self) -> None:
        """Drop the times so far: they were to warm up."""
        self.times[0].clear()
        self.times[1].clear()

    def ratio(self) -> Ratio:
        """Cost of the other step over the plain one."""
        return paired_ratio(*self.times)

    def plain_ms(self) -> float:
        """Median time of the plain step, in milliseconds."""
        return float(np.median(self.times[0])) / 1e6
