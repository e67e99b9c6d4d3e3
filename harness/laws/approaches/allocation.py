"""Power laws of the compute-optimal size and tokens in the budget, as approaches 1 and 2 fit them.

Every batch of lines has the estimate in row 0 and its noise replicates after it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.laws.bootstrap import Interval, interval
from harness.laws.surfaces import Floats

FEWEST_BUDGETS = 3
"""Two budgets give a slope and nothing to doubt it by."""

SPAN = 2.0
"""Budgets closer together than this factor say nothing about a power of the budget."""


@dataclass(frozen=True)
class Line:
    """y = intercept + slope x, natural logarithms, [1 + K] each; NaN where a replicate has no line."""

    intercept: Floats
    slope: Floats

    def at(self, x: float) -> Floats:
        return self.intercept + self.slope * x


def fit_line(x: Floats, y: Floats, weights: Floats) -> Line:
    """Weighted least squares of y [1 + K, m] on x [m] with weights [m]; a NaN in y is left out."""
    w = np.where(np.isnan(y), 0.0, weights)
    y = np.nan_to_num(y)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = w.sum(axis=1)
        mean_x, mean_y = w @ x / total, (w * y).sum(axis=1) / total
        away = x - mean_x[:, None]
        spread = (w * away**2).sum(axis=1)
        slope = np.where((w > 0).sum(axis=1) > 1, (w * away * y).sum(axis=1) / spread, np.nan)
    return Line(mean_y - slope * mean_x, slope)


@dataclass(frozen=True)
class Allocation:
    """N* = exp(intercept) C^a and D* likewise, with replicates."""

    params: Line
    tokens: Line

    @property
    def exponent_a(self) -> float:
        """a in N* proportional to C^a."""
        return float(self.params.slope[0])

    def exponent_interval(self, level: float) -> Interval | None:
        """None without replicates; an end that more replicates than its tail miss is open."""
        replicates = self.params.slope[1:]
        return interval(replicates, level) if len(replicates) else None

    def optimum(self, flops: float, level: float) -> dict[str, Any]:
        """N*, D* and D*/N* at a budget, each with its interval."""
        log_c = math.log(flops)
        log_n, log_d = self.params.at(log_c), self.tokens.at(log_c)
        with np.errstate(over="ignore"):
            found = {
                "params": np.exp(log_n),
                "tokens": np.exp(log_d),
                "tokens_per_param": np.exp(log_d - log_n),
            }
        ends = {name: interval(values[1:], level) for name, values in found.items() if len(values) > 1}
        return {
            "flops": flops,
            **{name: float(values[0]) for name, values in found.items()},
            "interval": ends or None,
        }
