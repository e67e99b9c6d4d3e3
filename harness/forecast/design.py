"""Which runs next: those that most reduce the variance of the bet's prediction for their FLOPs.

The laws of the ensemble, each with the covariance of its fit, are one Gaussian over ln L at the bet and at
every candidate: within a law J S J' (J the derivatives of ln L by the parameters, S their covariance),
between laws the covariance of their predictions. Measuring a candidate takes off its share,

    V(bet) - V(bet | x) = Cov(bet, x)^2 / (V(x) + noise^2),

the intra- and inter-model terms of arXiv:2604.22753 in one, and a third: what all laws get wrong together
beyond the largest run, as in the interval of the forecast. Candidates are taken greedily, each conditioned
on those before it; those that the laws of the bet would not see are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.errors import CannotAnswer
from harness.forecast.ensemble import NEAR, Ensemble, excess
from harness.laws.forms.form import Rows
from harness.laws.objective import FormSurface, Response
from harness.laws.solve import Solution
from harness.laws.surfaces import Flags, Floats

COST_POWERS = (1.0, 0.5, 0.0)
"""Variance per FLOP alone spends the budget on runs too small to say much, variance alone on one large run;
of the designs by gain / cost^power the one with the least variance left is taken."""

LOG_PRIOR, EXPONENT_PRIOR = 5.0, 0.3
"""Standard deviations of a vague prior on the parameters that are searched as logarithms and on the others:
with few runs a law may be unidentified, and its covariance must still say in which direction."""


@dataclass(frozen=True)
class Chosen:
    """A candidate by its number, what it costs after those before it (FLOPs) and the standard deviation of
    ln L at the bet once it is measured."""

    candidate: int
    flops: float
    std_after: float


@dataclass(frozen=True)
class Design:
    """`std_before` is the standard deviation of ln L at the bet from the runs there are."""

    chosen: tuple[Chosen, ...]
    std_before: float

    @property
    def flops(self) -> float:
        return sum(one.flops for one in self.chosen)

    @property
    def std_after(self) -> float:
        return self.chosen[-1].std_after if self.chosen else self.std_before


Cost = Callable[[int, Sequence[int]], float]
"""FLOPs of a candidate, given the numbers of those already chosen."""


def design(covariance: Floats, noise: float, cost: Cost, count: int, budget: float, bets: int = 1) -> Design:
    """At most `count` candidates within `budget` FLOPs; the bets are the last rows of `covariance`, and what
    is made small is the mean of their variances.

    `noise` is the standard deviation of ln L of one run. Raises CannotAnswer when not even the cheapest
    candidate can be paid.
    """
    cheapest = min((cost(i, ()) for i in range(len(covariance) - bets)), default=0.0)
    if cheapest > budget:
        raise CannotAnswer(f"the cheapest candidate takes {cheapest:.3g} FLOPs, more than {budget:.3g}")
    powers = COST_POWERS if count > 1 else COST_POWERS[:1]  # a single run leaves the rest for those after it
    found = [greedy(covariance, noise, cost, count, budget, power, bets) for power in powers]
    return min(found, key=lambda one: (one.std_after, one.flops))


def greedy(
    covariance: Floats, noise: float, cost: Cost, count: int, budget: float, power: float, bets: int = 1
) -> Design:
    """A candidate may be taken again, as a second seed of it, unless its cost then is infinite."""
    left, spent, chosen = covariance.copy(), 0.0, list[Chosen]()
    candidates = len(covariance) - bets
    while len(chosen) < count:
        numbers = [one.candidate for one in chosen]
        costs = np.array([cost(i, numbers) for i in range(candidates)])
        told = (left[candidates:, :candidates] ** 2).mean(axis=0)
        gain = told / (left.diagonal()[:candidates] + noise**2)
        score = np.where(costs <= budget - spent, gain / costs**power, -1.0)
        best = int(score.argmax())
        if score[best] <= 0:
            break
        left -= np.outer(left[best], left[best]) / (left[best, best] + noise**2)
        spent += costs[best]
        chosen.append(Chosen(best, float(costs[best]), std_of(left, bets)))
    return Design(tuple(chosen), std_of(covariance, bets))


def std_of(covariance: Floats, bets: int) -> float:
    """Of ln L at the bets, the root of their mean variance."""
    return math.sqrt(max(float(covariance.diagonal()[-bets:].mean()), 0.0))


def joint_covariance(ensemble: Ensemble, rows: Rows) -> Floats:
    """Of ln L at rows [n, n]: the weighted mean of the laws' own, and that between them."""
    within = [member_covariance(solution, rows) for solution in ensemble.solutions]
    apart = ensemble.member_log_loss(rows) - ensemble.log_loss(rows)
    between = np.einsum("m,mi,mj->ij", ensemble.weights, apart, apart)
    return np.asarray(np.einsum("m,mij->ij", ensemble.weights, np.array(within)) + between)


def extrapolation(flops: Floats, largest: float, growth: float) -> Floats:
    """Of ln L at rows of `flops`, the dearest of them a bet, [n, n]: what the laws together get wrong beyond
    the `largest` run. A random walk in ln C whose standard deviation at the dearest bet is that of the
    forecast's own interval, `growth` times ln(C / C_max): a run on the way there takes its share of the way
    off."""
    beyond = np.maximum(np.log(flops / largest), 0.0)
    return np.asarray(growth**2 * beyond.max() * np.minimum(beyond[:, None], beyond))


def useful(ensemble: Ensemble, rows: Rows, flops: Floats, known: tuple[Floats, Floats]) -> Flags:
    """Candidates that the laws of the bet would see once trained, [n]: those predicted within `NEAR` of the
    best of a similar budget, among themselves and the runs `known` (their FLOPs and losses). All of them
    where none is: laws widen what they look at where too little is near."""
    predicted = np.exp(ensemble.log_loss(rows))
    above = excess(np.append(flops, known[0]), np.append(predicted, known[1]))
    seen = np.asarray(above[: len(predicted)] <= NEAR)
    return seen if seen.any() else np.ones(len(seen), dtype=bool)


def member_covariance(solution: Solution, rows: Rows) -> Floats:
    """Of one law's ln L at rows, [n, n], by the delta method."""
    own = derivatives(solution, solution.rows) * np.sqrt(solution.relative_weights)[:, None]
    prior = np.diag([(LOG_PRIOR if one.log else EXPONENT_PRIOR) ** -2 for one in solution.form.parameters])
    precision = own.T @ own / solution.scale**2 + prior
    there = derivatives(solution, rows)
    return np.asarray(there @ np.linalg.solve(precision, there.T))


def derivatives(solution: Solution, rows: Rows) -> Floats:
    """Of ln L at rows by the parameters (the logarithms of logarithmic ones), [n, p]."""
    surface = FormSurface(solution.form, solution.form.rows(rows), Response.log)
    return np.asarray(surface.gradient(surface.to_theta(solution.values[None]))[1][0])
