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

FREEDOM = 3
"""Degrees of freedom of a healthy curve's rises: spikes that recover are common."""


def base_rate(ended: Sequence[Trajectory]) -> float:
    """Share of runs that diverge, of those that have ended (Jeffreys' prior)."""
    return (sum(run.diverged for run in ended) + 0.5) / (len(ended) + 1)


def diverges(run: Trajectory, rate: float) -> float:
    """Lower values are better. 1 when the last value is not finite."""
    if len(run.values) and not np.isfinite(run.values[-1]):
        return 1.0
    values = run.values[np.isfinite(run.values)]
    prior = min(rate * max(1 - run.share, 0.0), 0.5)
    window = max(FEWEST, round(WINDOW * len(values)))
    if len(values) < 3 * window:
        return prior
    medians = np.median(values[: len(values) // window * window].reshape(-1, window), axis=1)
    before = values[:-window]
    best = float(medians[np.arange(len(medians)) * window + window <= len(before)].min())
    span = max(float(values[0]) - best, abs(best) * 1e-3, 1e-12)
    rise = float(np.median(values[-window:])) - best
    if rise <= 0:
        return prior
    expected = math.hypot(1.25 * row_noise(before) * math.sqrt(2 / window), WIGGLE * span)
    healthy = t_density(rise / expected) / expected
    odds = prior / (1 - prior) / span / healthy  # a rise of a diverging run: anything up to where it began
    return odds / (1 + odds)


def t_density(z: float) -> float:
    """Student's t of three degrees of freedom."""
    return 2 / (math.pi * math.sqrt(FREEDOM)) / (1 + z * z / FREEDOM) ** 2
