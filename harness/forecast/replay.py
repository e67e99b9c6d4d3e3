"""Would the chooser have saved compute? Runs of a finished table are chosen one batch after another, as if
they were still to be trained, and the bet on those held out is made anew after each batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from harness.errors import CannotAnswer
from harness.forecast.backtest import split
from harness.forecast.design import design, extrapolation, joint_covariance, useful
from harness.forecast.engine import PUBLIC_GROWTH
from harness.forecast.ensemble import Ensemble, fit_ensemble
from harness.laws.observations import Observations
from harness.laws.surfaces import Floats

FIRST = 8
"""Runs to begin with: no law can be asked what to learn next before some rows determine it."""

FIRST_AMONG = 3
"""They are drawn from the cheapest runs, this many times as many."""

BATCH = 4
"""Runs chosen before the laws are fitted again, as many as a small cluster trains side by side."""

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)


def batch_size(rows: int) -> int:
    """Of a small table single runs: four would be a large share of it."""
    return max(1, min(BATCH, rows // 20))


class Order(Enum):
    """In which the runs are trained: as the chooser says, at random, or the cheapest first."""

    design = "design"
    random = "random"
    grid = "grid"


@dataclass(frozen=True)
class Moment:
    """The bet when `share` of the table's FLOPs are spent on `runs` runs: the mean absolute log error over
    the runs held out, and the mean absolute distance to what the full table says of them."""

    order: Order
    seed: int
    share: float
    runs: int
    error: float
    distance: float


@dataclass(frozen=True)
class Replay:
    """`full_error` is the mean absolute log error of the full table's bet."""

    moments: tuple[Moment, ...]
    full_error: float
    runs: int
    flops: float

    def summary(self) -> list[dict[str, Any]]:
        """Per order and share the means over seeds."""
        return [
            {
                "order": order.value,
                "share": share,
                "runs": float(np.mean([m.runs for m in found])),
                "error": float(np.mean([m.error for m in found])),
                "distance": float(np.mean([m.distance for m in found])),
            }
            for order in Order
            for share in SHARES
            if (found := [m for m in self.moments if m.order is order and m.share == share])
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            "full_error": self.full_error,
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
    if len(rows) <= FIRST + BATCH:
        raise CannotAnswer(
            f"{len(rows)} runs are too few to choose among; at least {FIRST + BATCH + 1} are needed"
        )
    table = Table(rows, held, delta)
    full = table.bet(range(len(rows)))
    actual = np.log(held.loss)
    moments = [
        Moment(
            order=order,
            seed=seed,
            share=share,
            runs=len(trained),
            error=float(np.abs(said - actual).mean()),
            distance=float(np.abs(said - full).mean()),
        )
        for seed in range(seeds)
        for order in Order
        for share, trained in at_shares(table, steps(table, order, seed))
        for said in [table.bet(trained)]
    ]
    return Replay(tuple(moments), float(np.abs(full - actual).mean()), len(rows), float(rows.flops.sum()))


def at_shares(table: Table, steps: Iterator[list[int]]) -> Iterator[tuple[float, list[int]]]:
    """The last state within each share of the FLOPs, where there is one."""
    before: list[int] | None = None
    shares = list(SHARES)
    for trained in steps:
        spent = float(table.rows.flops[trained].sum() / table.rows.flops.sum())
        while shares and spent > shares[0]:
            share = shares.pop(0)
            if before is not None:
                yield share, before
        if not shares:
            return
        before = list(trained)


def steps(table: Table, order: Order, seed: int) -> Iterator[list[int]]:
    """The numbers of the runs trained so far, batch after batch, the same first ones in every order."""
    flops, rng = table.rows.flops, np.random.default_rng(seed)
    cheapest = np.argsort(flops, kind="stable")
    trained = rng.choice(
        cheapest[: max(FIRST, min(FIRST * FIRST_AMONG, len(flops) // 2))], FIRST, replace=False
    ).tolist()
    shuffled = rng.permutation(len(flops)).tolist()
    size = batch_size(len(flops))
    while True:
        yield trained
        left = [i for i in range(len(flops)) if i not in trained]
        if not left:
            return
        match order:
            case Order.design:
                batch = best_batch(table, trained, left)
            case Order.random:
                batch = [i for i in shuffled if i not in trained][:size]
            case Order.grid:
                batch = [i for i in cheapest.tolist() if i not in trained][:size]
        trained = [*trained, *batch]


def best_batch(table: Table, trained: Sequence[int], left: Sequence[int]) -> list[int]:
    """What the chooser would have trained next, for the dearest run held out. It may spend as much again as
    is spent, and at least what the cheapest run takes."""
    ensemble = table.fit(trained)
    rows, top = table.rows, int(table.held.flops.argmax())
    columns = {
        name: np.append(getattr(rows, name)[list(left)], getattr(table.held, name)[top])
        for name in ("params", "tokens")
    }
    spent, flops = rows.flops[list(trained)], np.append(rows.flops[list(left)], table.held.flops[top])
    noise = float(np.median([solution.scale for solution in ensemble.solutions]))
    seen = useful(ensemble, columns, flops, (spent, rows.loss[list(trained)]))
    if not seen.any():
        return [left[int(flops[:-1].argmin())]]

    def cost(candidate: int, chosen: Sequence[int]) -> float:
        return math.inf if candidate in chosen or not seen[candidate] else float(flops[candidate])

    budget = max(float(spent.sum()), float(flops[:-1][seen].min()))
    covariance = joint_covariance(ensemble, columns) + extrapolation(flops, float(spent.max()), PUBLIC_GROWTH)
    found = design(covariance, noise, cost, batch_size(len(rows)), budget)
    return [left[one.candidate] for one in found.chosen] or [left[int(flops[:-1].argmin())]]
