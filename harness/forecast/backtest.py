"""Rolling origin inside the sweep: fit the cheaper cells, predict the dearer ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.forecast.ensemble import fit_ensemble
from harness.laws.config import LawConfig
from harness.laws.observations import SAME_SIZE, Observations, levels
from harness.laws.surfaces import Floats

FEWEST_ROWS = 7
"""One more than the plain law needs to be overdetermined."""

MOST_ORIGINS = 6
SMALLEST_RATIO = 1.5
"""Nearer runs test the noise, not the extrapolation."""

MEDIAN_TO_DEVIATION = 1.4826
"""Of a normal distribution: the standard deviation over the median absolute value."""


@dataclass(frozen=True)
class Case:
    """One held-out run: `ratio` is its FLOPs over the largest fitted, `log_error` ln(predicted/actual)."""

    origin_flops: float
    n_train: int
    run_id: str
    ratio: float
    log_error: float

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "error": math.expm1(self.log_error)}


@dataclass(frozen=True)
class Backtest:
    cases: tuple[Case, ...]

    @property
    def origins(self) -> int:
        return len({case.origin_flops for case in self.cases})

    @property
    def largest_ratio(self) -> float:
        return max((case.ratio for case in self.cases), default=1.0)

    def error_at(self, low: float, high: float) -> float | None:
        """Root mean square log error of the cases with a ratio in [low, high)."""
        errors = [case.log_error for case in self.cases if low <= case.ratio < high]
        return math.sqrt(sum(e * e for e in errors) / len(errors)) if errors else None

    def growth(self, noise: float) -> float | None:
        """Log error per unit of ln(ratio), the noise of a single run (log loss) taken out.

        A median over cases, turned into a standard deviation: the smallest origins hold few rows and
        miss by far more than the whole sweep will.
        """
        if not self.cases:
            return None
        rates = [math.sqrt(max(c.log_error**2 - noise**2, 0.0)) / math.log(c.ratio) for c in self.cases]
        return MEDIAN_TO_DEVIATION * float(np.median(rates))

    def to_json(self) -> dict[str, Any]:
        bands = {"1.5x to 3x": (1.5, 3.0), "3x to 10x": (3.0, 10.0), "10x and more": (10.0, math.inf)}
        return {
            "origins": self.origins,
            "largest_ratio": self.largest_ratio,
            "rms_log_error": {name: self.error_at(*band) for name, band in bands.items()},
            "cases": [case.to_json() for case in self.cases],
        }


def origins(observations: Observations) -> list[float]:
    """FLOPs thresholds, spread evenly over those that leave a fittable sweep below and runs above."""
    thresholds = []
    for flops in budgets(observations.flops):
        below = observations.flops <= flops
        ahead = observations.flops.max() / flops >= SMALLEST_RATIO
        if ahead and fittable(observations, below):
            thresholds.append(flops)
    if len(thresholds) <= MOST_ORIGINS:
        return thresholds
    at = np.unique(np.linspace(0, len(thresholds) - 1, MOST_ORIGINS).round().astype(int))
    return [thresholds[i] for i in at]


def budgets(flops: Floats) -> list[float]:
    """The dearest run of every budget: cells of one isoFLOP slice differ by rounding to whole steps."""
    tops: list[float] = []
    start = 0.0
    for value in sorted(set(flops.tolist())):
        if value > SAME_SIZE * start:
            tops.append(value)
            start = value
        tops[-1] = value
    return tops


def fittable(observations: Observations, keep: Any) -> bool:
    """Enough rows, with three sizes, three token counts and two budgets: within one budget a larger model
    always sees fewer tokens, and no fit can tell the two apart."""
    wanted = ((observations.params, 3), (observations.tokens, 3), (observations.flops, 2))
    return int(keep.sum()) >= FEWEST_ROWS and all(levels(values[keep]) >= count for values, count in wanted)


def rolling_origin(observations: Observations, configs: Sequence[LawConfig]) -> Backtest:
    """Errors of the ensemble on every run at least 1.5 times dearer than the dearest fitted one.

    Empty when the sweep is too small to hold anything out.
    """
    found: list[Case] = []
    for threshold in origins(observations):
        train = observations.subset(observations.flops <= threshold)
        test = observations.subset(observations.flops >= SMALLEST_RATIO * threshold)
        predicted = fit_ensemble(train, configs).log_loss(test.params, test.tokens)
        errors = predicted - np.log(test.loss)
        for name, flops, error in zip(test.run_ids, test.flops, errors, strict=True):
            found.append(Case(threshold, len(train), name, float(flops / threshold), float(error)))
    return Backtest(tuple(found))
