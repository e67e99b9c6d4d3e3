"""Rolling origin inside the rows of a fit: fit the cheaper runs, predict the dearer ones.

All that the weights of the laws, the width of the interval and the verdict may learn from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.errors import CannotAnswer
from harness.forecast.ensemble import MEMBERS, fit_ensemble, of_compute
from harness.forecast.ladder import FEWEST_RUNGS
from harness.laws.alternatives import SAME_BUDGET
from harness.laws.forms.form import Form
from harness.laws.observations import SAME_SIZE, Observations, levels
from harness.laws.surfaces import Flags, Floats

FEWEST_ROWS = 7
"""One more than the plain law needs to be overdetermined."""

MOST_ORIGINS = 6
SMALLEST_RATIO = 1.5
"""Nearer runs test the noise, not the extrapolation."""

MEDIAN_TO_DEVIATION = 1.4826
"""Of a normal distribution: the standard deviation over the median absolute value."""

RECORD_RATIOS = (3.0, 10.0, 33.0)
BAND = math.sqrt(10.0 / 3.0)
"""A run belongs to the ratio of the record that it lies within this factor of."""

NEARBY = math.log(3.0)
"""Width in ln(ratio) of the kernel that picks cases at the bet's own extrapolation ratio."""

FEWER_ROWS = 0.75
"""The error per unit of ln(ratio) falls as the rows to this power. Over 8x splits of public tables, and of
copies of them cut to a quarter, the sweep errs .3 times as much as origins of a fifth to two fifths of its
rows, .6 times as much as those of about half, .9 times as much as those of more."""

SMALLEST_RATE = 1e-4
"""Of the log error per unit of ln(ratio): a rate of nothing is chance."""

EQUAL_ORIGINS = 4.0
"""Equal weights count as much as this many origins: laws of a few runs rank each other by chance."""


@dataclass(frozen=True)
class Case:
    """One held-out run: `ratio` is its FLOPs over the largest fitted, the errors are ln(predicted/actual),
    of every law that could be fitted and of their equal mean."""

    origin_flops: float
    n_train: int
    run_id: str
    ratio: float
    log_error: float
    by_law: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "error": math.expm1(self.log_error)}


@dataclass(frozen=True)
class Rolling:
    cases: tuple[Case, ...]

    @property
    def origins(self) -> int:
        return len({case.origin_flops for case in self.cases})

    @property
    def largest_ratio(self) -> float:
        return max((case.ratio for case in self.cases), default=1.0)

    def record(self) -> list[dict[str, Any]]:
        """Errors at 3, 10 and 33 times the compute fitted; None where nothing could be held out."""
        return [self.record_at(ratio) for ratio in RECORD_RATIOS]

    def record_at(self, ratio: float) -> dict[str, Any]:
        near = [case for case in self.cases if ratio / BAND <= case.ratio < ratio * BAND]
        errors = np.expm1([case.log_error for case in near])
        return {
            "ratio": ratio,
            "cases": len(near),
            "origins": len({case.origin_flops for case in near}),
            "error_median": float(np.median(np.abs(errors))) if near else None,
            "bias": float(np.median(errors)) if near else None,
        }

    def growth(self, ratio: float, rows: int) -> tuple[float, float]:
        """Log error per unit of ln(ratio) of a sweep of `rows`, as a standard deviation, and how many origins
        it rests on.

        A median over the cases of each origin, those near `ratio` counting most, then the geometric mean
        over origins, each as far as an origin of its rows errs more than the sweep.
        """
        total, count = 0.0, 0.0
        for mine in self.by_origin():
            near = kernel(mine, ratio)
            rates = np.array([abs(case.log_error) / math.log(case.ratio) for case in mine])
            share = (mine[0].n_train / rows) ** FEWER_ROWS
            rate = share * max(weighted_median(rates, near), SMALLEST_RATE)
            total += near.max() * math.log(MEDIAN_TO_DEVIATION * rate)
            count += float(near.max())
        return (math.exp(total / count), count) if count else (0.0, 0.0)

    def by_origin(self) -> list[list[Case]]:
        found: dict[float, list[Case]] = {}
        for case in self.cases:
            found.setdefault(case.origin_flops, []).append(case)
        return list(found.values())

    def weights(self, names: Sequence[str], ratio: float) -> dict[str, float]:
        """What each law weighs in a bet at `ratio`: inversely as the mean square of its errors there,
        shrunk towards equal weights. They sum to one."""
        squares = np.array([self.mean_squares(name, ratio) for name in names])
        found = squares.sum(axis=0)  # unused laws have neither squares nor origins
        if not found[1]:
            return {name: 1 / len(names) for name in names}
        usual = found[0] / found[1]
        mean = (EQUAL_ORIGINS * usual + squares[:, 0]) / (EQUAL_ORIGINS + squares[:, 1])
        weight = 1 / np.maximum(mean, 1e-12)
        return dict(zip(names, (weight / weight.sum()).tolist(), strict=True))

    def mean_squares(self, name: str, ratio: float) -> tuple[float, float]:
        """The sum over origins of the mean square error of one law, and the number of origins, both with
        each origin counted as near as its cases come to `ratio`."""
        total, origins = 0.0, 0.0
        for cases in self.by_origin():
            mine = [case for case in cases if name in case.by_law]
            if not mine:
                continue
            near = kernel(mine, ratio)
            squares = np.array([case.by_law[name] for case in mine]) ** 2
            total += near.max() * float(near @ squares / max(near.sum(), 1e-300))
            origins += float(near.max())
        return total, origins

    def to_json(self) -> dict[str, Any]:
        return {
            "origins": self.origins,
            "largest_ratio": self.largest_ratio,
            "record": self.record(),
            "cases": [case.to_json() for case in self.cases],
        }


def kernel(cases: Sequence[Case], ratio: float) -> Floats:
    """How near each case comes to `ratio`, at most 1."""
    return np.exp([-0.5 * (math.log(case.ratio / ratio) / NEARBY) ** 2 for case in cases])


def weighted_median(values: Floats, weights: Floats) -> float:
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(share, share[-1] / 2)])


def origins(observations: Observations, members: Sequence[Form] = MEMBERS) -> list[float]:
    """FLOPs thresholds, spread evenly over those that leave a fittable sweep below and runs above."""
    thresholds = []
    for flops in budgets(observations.flops):
        below = observations.flops <= flops
        ahead = observations.flops.max() / flops >= SMALLEST_RATIO
        if ahead and fittable(observations, below, members):
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


def fittable(observations: Observations, keep: Flags, members: Sequence[Form]) -> bool:
    """Enough rows, with three sizes, three token counts and two budgets: within one budget a larger model
    always sees fewer tokens, and no fit can tell the two apart. Along one line, enough budgets."""
    if of_compute(members):
        return levels(observations.flops[keep], SAME_BUDGET) >= FEWEST_RUNGS - 1
    wanted = ((observations.params, 3), (observations.tokens, 3), (observations.flops, 2))
    return int(keep.sum()) >= FEWEST_ROWS and all(levels(values[keep]) >= count for values, count in wanted)


def rolling_origin(observations: Observations, delta: float, members: Sequence[Form] = MEMBERS) -> Rolling:
    """Errors on every run at least 1.5 times dearer than the dearest fitted one.

    Empty when the sweep is too small to hold anything out.
    """
    found: list[Case] = []
    for threshold in origins(observations, members):
        train = observations.subset(observations.flops <= threshold)
        test = observations.subset(observations.flops >= SMALLEST_RATIO * threshold)
        try:
            ensemble = fit_ensemble(train, delta, members)
        except CannotAnswer:
            continue
        errors = ensemble.member_log_loss(test.columns) - np.log(test.loss)
        for i, (name, flops) in enumerate(zip(test.run_ids, test.flops, strict=True)):
            by_law = dict(zip(ensemble.names, errors[:, i].tolist(), strict=True))
            mean = float(ensemble.weights @ errors[:, i])
            found.append(Case(threshold, len(train), name, float(flops / threshold), mean, by_law))
    return Rolling(tuple(found))
