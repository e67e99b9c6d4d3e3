"""Would the chooser have saved compute? Runs of a finished table are chosen within a share of its FLOPs, as
if they were still to be trained, and the bet on those held out is made anew from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from harness.errors import CannotAnswer
from harness.forecast.backtest import split
from harness.forecast.design import design, extrapolation, joint_covariance, useful
from harness.forecast.engine import PUBLIC_GROWTH
from harness.forecast.ensemble import QUIETEST, Ensemble, fit_ensemble
from harness.laws.bootstrap import resample
from harness.laws.config import Resampling
from harness.laws.observations import Observations
from harness.laws.surfaces import Floats

FIRST = 8
"""Runs to begin with: no law can be asked what to learn next before some rows determine it."""

FIRST_AMONG = 3
"""They are drawn from the cheapest runs, this many times as many."""

FEWEST_RUNS = 13
"""With fewer, little is left to choose after the first."""

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)

RESAMPLES, WITHIN = 200, 0.9
"""As near to the full table's bet as this share of its own resamples is as good as the full table."""


class Order(Enum):
    """In which the runs are trained: as the chooser says, at random, or the cheapest first."""

    design = "design"
    random = "random"
    grid = "grid"


@dataclass(frozen=True)
class Moment:
    """The bet from `runs` runs within `share` of the table's FLOPs, of which they take `spent`: the mean
    absolute log error over the runs held out, and the mean absolute distance to what the full table says of
    them."""

    order: Order
    seed: int
    share: float
    spent: float
    runs: int
    error: float
    distance: float


@dataclass(frozen=True)
class Replay:
    """`full_error` is the mean absolute log error of the full table's bet, `full_noise` how far nine in ten
    of the bets from resamples of the full table come to lie from it at most."""

    moments: tuple[Moment, ...]
    full_error: float
    full_noise: float
    runs: int
    flops: float

    def summary(self) -> list[dict[str, Any]]:
        """Per order and share the means over seeds; `reached` is the share of seeds that come as near to the
        full table's bet as its own resamples."""
        return [
            {
                "order": order.value,
                "share": share,
                "runs": float(np.mean([m.runs for m in found])),
                "error": float(np.mean([m.error for m in found])),
                "distance": float(np.mean([m.distance for m in found])),
                "distance_range": [min(m.distance for m in found), max(m.distance for m in found)],
                "reached": float(np.mean([m.distance <= self.full_noise for m in found])),
            }
            for order in Order
            for share in SHARES
            if (found := [m for m in self.moments if m.order is order and m.share == share])
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            "full_error": self.full_error,
            "full_noise": self.full_noise,
            "runs": self.runs,
            "flops": self.flops,
            "summary": self.summary(),
            "moments": [{**vars(m), "order": m.order.value} for m in self.moments],
        }


@dataclass(frozen=True)
class Table:
    """What a replay may look at: rows whose losses it knows once it has trained them, and the bet."""

    rows: Observations
    held: Observations
    delta: float

    def fit(self, trained: Sequence[int]) -> Ensemble:
        known = np.zeros(len(self.rows), dtype=bool)
        known[list(trained)] = True
        return fit_ensemble(self.rows.subset(known), self.delta)

    def bet(self, trained: Sequence[int]) -> Floats:
        """ln L of the runs held out."""
        return self.fit(trained).log_loss(self.held.columns)


def replay(observations: Observations, ratio: float, delta: float, seeds: int) -> Replay:
    """Raises CannotAnswer when the table holds too few runs for the question."""
    rows, held = split(observations, ratio)
    if len(rows) < FEWEST_RUNS:
        raise CannotAnswer(f"{len(rows)} runs are too few to choose among; at least {FEWEST_RUNS} are needed")
    table = Table(rows, held, delta)
    whole = table.fit(range(len(rows)))
    full, actual = whole.log_loss(held.columns), np.log(held.loss)

    def moment(order: Order, seed: int, share: float) -> Moment:
        trained = chosen(table, order, seed, share)
        said = table.bet(trained)
        return Moment(
            order=order,
            seed=seed,
            share=share,
            spent=float(rows.flops[trained].sum() / rows.flops.sum()),
            runs=len(trained),
            error=float(np.abs(said - actual).mean()),
            distance=float(np.abs(said - full).mean()),
        )

    return Replay(
        tuple(moment(order, seed, share) for seed in range(seeds) for order in Order for share in SHARES),
        full_error=float(np.abs(full - actual).mean()),
        full_noise=resampled_distance(whole, held, full),
        runs=len(rows),
        flops=float(rows.flops.sum()),
    )


def resampled_distance(whole: Ensemble, held: Observations, full: Floats) -> float:
    """What the mean absolute distance of resampled bets to the `full` table's is at most, nine times in
    ten."""
    drawn = [resample(one, RESAMPLES, Resampling.residuals, 0) for one in whole.solutions]
    bets = np.mean([np.log(one.losses(one.form.rows(held.columns))) for one in drawn], axis=0)
    return float(np.nanquantile(np.abs(bets - full).mean(axis=1), WITHIN))


def chosen(table: Table, order: Order, seed: int, share: float) -> list[int]:
    """The numbers of the runs trained within `share` of the FLOPs, the same first ones in every order."""
    flops, rng = table.rows.flops, np.random.default_rng(seed)
    cheapest = np.argsort(flops, kind="stable")
    first = rng.choice(
        cheapest[: max(FIRST, min(FIRST * FIRST_AMONG, len(flops) // 2))], FIRST, replace=False
    ).tolist()
    budget = share * float(flops.sum())
    match order:
        case Order.design:
            return by_design(table, first, budget)
        case Order.random:
            return filled(flops, first, rng.permutation(len(flops)).tolist(), budget)
        case Order.grid:
            return filled(flops, first, cheapest.tolist(), budget)


def filled(flops: Floats, first: Sequence[int], order: Sequence[int], budget: float) -> list[int]:
    """The first and whatever else still fits the budget, in this order."""
    trained, spent = list(first), float(flops[list(first)].sum())
    for i in order:
        if i not in trained and spent + flops[i] <= budget:
            trained.append(i)
            spent += float(flops[i])
    return trained


def by_design(table: Table, first: Sequence[int], budget: float) -> list[int]:
    """The whole budget is planned, the cheaper half of the plan trained, and the rest planned anew with what
    that taught: a dear run is not begun before cheap ones have said what it is for, nor is what it takes
    spent on the way to it."""
    flops, trained = table.rows.flops, list(first)
    while plan := plan_within(table, trained, budget - float(flops[trained].sum())):
        plan.sort(key=lambda i: float(flops[i]))
        trained += plan[: max(1, len(plan) // 2)]
    return trained


def plan_within(table: Table, trained: Sequence[int], budget: float) -> list[int]:
    """All that the chooser would train next for `budget` FLOPs, for the runs held out together."""
    rows, held = table.rows, table.held
    left = [i for i in range(len(rows)) if i not in trained and rows.flops[i] <= budget]
    if not left:
        return []
    ensemble, known = table.fit(trained), (rows.flops[list(trained)], rows.loss[list(trained)])
    there = {name: getattr(rows, name)[left] for name in ("params", "tokens", "flops")}
    seen = useful(ensemble, there, there["flops"], known)
    left = [i for i, one in zip(left, seen, strict=True) if one]
    columns = {
        name: np.append(getattr(rows, name)[left], getattr(held, name))
        for name in ("params", "tokens", "flops")
    }
    flops = columns["flops"]

    def cost(candidate: int, chosen: Sequence[int]) -> float:
        return math.inf if candidate in chosen else float(flops[candidate])

    noise = max(float(np.median([solution.scale for solution in ensemble.solutions])), QUIETEST)
    covariance = joint_covariance(ensemble, columns)
    covariance += extrapolation(flops, float(known[0].max()), PUBLIC_GROWTH)
    found = design(covariance, noise, cost, len(left), budget, len(held))
    return [left[one.candidate] for one in found.chosen]
