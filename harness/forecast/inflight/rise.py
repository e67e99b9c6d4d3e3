"""The probability that a run diverges, from how it ends so far and from how others of its sweep ended."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from harness.forecast.inflight.trajectory import Trajectory, row_noise

WINDOW, FEWEST = 0.05, 3
"""Rows looked at: a share of those that there are, and at least this many."""

WIGGLE = 0.01
"""Of the fall so far: how far a healthy curve may rise over a window beyond its noise."""

BEFOREHAND = (0.5, 10.0)
"""Diverged runs, and all, that stand for what is known before any of a sweep has ended: one in twenty."""

FREEDOM = 3
"""Degrees of freedom of a healthy curve's rises, for each window that they have lasted: spikes that recover
are common."""


def base_rate(ended: Sequence[Trajectory]) -> float:
    """Share of runs that diverge, of those that have ended and of `BEFOREHAND`."""
    return (sum(run.diverged for run in ended) + BEFOREHAND[0]) / (len(ended) + BEFOREHAND[1])


def diverges(run: Trajectory, rate: float) -> float:
    """Lower values are better. 1 when the last value is not finite."""
    if len(run.values) and not np.isfinite(run.values[-1]):
        return 1.0
    values = run.values[np.isfinite(run.values)]
    prior = min(rate * max(1 - run.share, 0.0), 0.5)
    window = max(FEWEST, round(WINDOW * len(values)))
    if len(values) < 3 * window:
        return prior
    medians = np.median(values[len(values) % window :].reshape(-1, window), axis=1)
    before = medians[:-1]
    spread = math.hypot(1.25 * row_noise(values[:-window]) / math.sqrt(window), row_noise(before))
    best = float(before.min()) + spread * math.sqrt(2 * math.log(len(before)))  # the luckiest of so many
    rise = float(medians[-1]) - best
    if rise <= 0:
        return prior
    span = max(float(values[0]) - best, abs(best) * 1e-3, 4 * math.sqrt(window) * spread, 1e-12)
    expected = math.hypot(math.sqrt(2) * spread, WIGGLE * span)
    down = np.flatnonzero(medians < best + rise / 2)
    lasted = len(medians) - 1 - int(down[-1]) if len(down) else len(medians)
    healthy = t_density(rise / expected, FREEDOM * lasted) / expected
    if healthy == 0.0:
        return 1.0
    odds = prior / (1 - prior) / span / healthy  # a rise of a diverging run: anything up to where it began
    return odds / (1 + odds)


def t_density(z: float, freedom: float) -> float:
    """Student's t."""
    half = (freedom + 1) / 2
    top = math.lgamma(half) - math.lgamma(freedom / 2) - half * math.log1p(z * z / freedom)
    return math.exp(top) / math.sqrt(math.pi * freedom)
