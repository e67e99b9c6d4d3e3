"""Where the learning rate is not known: finished runs lend their own curves, at equal shares of the run.

This is right when all runs follow one schedule, stretched to their lengths; curves of well-tuned runs then
collapse onto each other (Qiu et al. 2507.02119).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.forecast.inflight.gaussian import end_given
from harness.forecast.inflight.lender import SLOWING, STRAY, TRIED_SHARES, Walk
from harness.forecast.inflight.lenders import GROWTH_ERROR, NEAREST, spread
from harness.forecast.inflight.mixture import Mixture
from harness.forecast.inflight.trajectory import Positions, Trajectory, nearest, row_noise
from harness.laws.surfaces import Floats

LENGTH, LENGTH_ERROR = -0.4, 0.15
"""A fall from the same share shrinks as (length)^-.4: the exponent of a curve in the tokens seen, .43 to .51
in the fits of 2503.12811."""

MISFIT = 0.15
STRAYS = STRAY[1:]
PAIRED = 16
"""Runs that are compared with their neighbours, at most about as many."""

ROWS, FIRST = 32, 0.03
NEIGHBOURHOOD = 0.02
"""Of a share: how far a lender's rows are averaged."""


class EqualShares:
    """The finished runs of one sweep without schedules. `walk` is how they stray from each other."""

    def __init__(self, finished: Sequence[Trajectory]) -> None:
        self.lenders = [
            run for run in spread(finished) if run.final is not None and len(run.rows(ROWS, FIRST)) > 4
        ]
        self.walk = trained(self.lenders)

    def __len__(self) -> int:
        return len(self.lenders)

    def predict(self, run: Trajectory) -> Mixture | None:
        at = run.rows(ROWS, FIRST)
        if not len(at):
            return None
        near = nearest(run, self.lenders, NEAREST)
        ends = [from_one(run, at, lender, self.walk) for lender in near]
        means, variances = np.array([e for e, _ in ends]), np.array([v for _, v in ends])
        equal = np.full(len(near), 1 / len(near))
        return Mixture(means, variances, equal, tuple(one.run_id for one in near))


def trained(runs: Sequence[Trajectory]) -> Walk:
    """How runs stray from their nearest neighbours: for each slowing the likeliest stray, and of those the
    one by which their ends are predicted best."""
    some = runs[:: max(1, len(runs) // PAIRED)]
    pairs = [(one, other) for one in some for other in nearest(one, runs, 3) if one is not other]
    likeliest = []
    for slowing in SLOWING:
        walks = [Walk(stray, slowing) for stray in STRAYS]
        likeliest.append(min((ends(pairs, walk) for walk in walks), key=lambda tried: tried.surprise))
    return min(likeliest, key=lambda tried: tried.error).walk


@dataclass(frozen=True)
class Tried:
    """What a walk says of finished runs, each from one other at some shares: misses and variances [n]."""

    walk: Walk
    misses: Floats
    variances: Floats

    @property
    def surprise(self) -> float:
        """Minus twice the log density, but for a constant."""
        return float((self.misses**2 / self.variances + np.log(self.variances)).sum())

    @property
    def error(self) -> float:
        return float(np.abs(self.misses).sum())


def ends(pairs: Sequence[tuple[Trajectory, Trajectory]], walk: Walk) -> Tried:
    found = []
    for run, lender in pairs:
        for share in TRIED_SHARES:
            begun = run.until(share)
            at = begun.rows(ROWS, FIRST)
            if len(at):
                end, variance = from_one(begun, at, lender, walk)
                found.append((run.result - end, variance))
    return Tried(walk, *np.array(found).reshape(-1, 2).T)


def from_one(run: Trajectory, at: Positions, lender: Trajectory, walk: Walk) -> tuple[float, float]:
    """Mean and variance of the result."""
    shares = np.append(run.steps[at] / run.end, 1.0)
    fold = math.log(run.params / lender.params) if run.params and lender.params else 0.0
    length = math.log(run.end / lender.end)
    grown = math.exp(LENGTH * length)
    deviation = math.hypot(MISFIT, GROWTH_ERROR * fold, LENGTH_ERROR * length)
    ahead = grown * (smooth(lender, shares) - lender.result)
    fall = max(grown * float(smooth(lender, np.array([0.1]))[0] - lender.result), 1e-12)
    noise = row_noise(run.values[at]) + 1e-3 * fall
    covariance = walk.covariance(shares, fall)
    end, variance = end_given(
        run.values[at], ahead[None], [(ahead[None], np.array([deviation]))], covariance, noise, fall
    )
    return float(end[0]), float(variance[0]) + noise**2


def smooth(run: Trajectory, shares: Floats) -> Floats:
    """The curve at these shares of the run, its neighbouring rows averaged; its result at the end."""
    seen = np.isfinite(run.values)
    own, values = run.steps[seen] / run.end, run.values[seen]
    sums = np.concatenate([[0.0], np.cumsum(values)])
    low = np.searchsorted(own, shares * (1 - NEIGHBOURHOOD))
    high = np.searchsorted(own, shares * (1 + NEIGHBOURHOOD), side="right")
    many = high - low
    means = (sums[high] - sums[low]) / np.maximum(many, 1)
    found = np.where(many > 1, means, np.interp(shares, own, values))
    return np.where(shares >= 1.0, run.result, found)
