"""From observations to the optimum of one law: centring, bounds, starts, polish, weak prior."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from harness.errors import CannotAnswer
from harness.laws.config import LawConfig, LawName
from harness.laws.expansion import Flags
from harness.laws.newton import Minimum, Problem, minimise, objective
from harness.laws.observations import Observations
from harness.laws.start import starts
from harness.laws.surfaces import ALPHA, BETA, LOG_E, Floats, Law, build_law, shifted

SMALLEST_FLOOR = 1e-4
"""E is bounded below by this share of the smallest loss: further down it no longer moves any figure."""

EXPONENT_BOUNDS = (0.01, 3.0)
POWER_BOUNDS = (0.05, 3.0)
AMPLITUDE_BOUND = 20.0
"""Of ln A and ln B at the centre of the rows, where the terms are of the order of the loss."""

POLISHED_STARTS, RACE_ITERATIONS, FINALISTS = 8, 10, 2
"""The best starts of the grid race for a few iterations and the first two go on to convergence; measured:
one start in ten is slow to converge, and the best one alone nearly always arrives."""

WEAK_PRIORS = {
    LawName.chinchilla: {ALPHA: (0.33, 0.06), BETA: (0.33, 0.06)},
    LawName.skaling: {ALPHA: (0.38, 0.08), BETA: (0.38, 0.08), 5: (0.55, 0.2)},
}
"""Mean and standard deviation by column of theta. Source: the prototype over 59 public 8x cases in the
project's issue on forecasts; they span published exponents, such as .34/.28, .35/.37 and .45/.45."""


@dataclass(frozen=True)
class Solution:
    """The optimum [1, p] in centred coordinates u - centre[0], v - centre[1]."""

    law: Law
    problem: Problem
    theta: Floats
    centre: tuple[float, float]
    objective: float
    residual: Floats
    converged: bool

    @property
    def raw_theta(self) -> Floats:
        """[1, p] in the coordinates ln N, ln D."""
        return shifted(self.theta, *self.centre)

    @property
    def scale(self) -> float:
        """Robust residual standard deviation in log loss; see `robust_scale`."""
        return robust_scale(self.residual, self.theta.shape[1])


def robust_scale(residual: Floats, n_parameters: int) -> float:
    """1.4826 times the median absolute residual, corrected for the fitted parameters.

    A law with p parameters passes through about p rows when fitted by a nearly absolute loss, so the
    median is taken over the n - p largest.
    """
    free = max(len(residual) - n_parameters, 1)
    return 1.4826 * float(np.median(np.sort(np.abs(residual))[-free:]))


def likelihood_scale(residual: Floats, delta: float, n_parameters: int) -> float:
    """What turns a difference of summed Huber losses into half a chi-square: E psi^2 / E psi'.

    The mean square of psi is measured (n - p); the share of residuals within delta is that of a normal
    distribution of the robust scale, because counting them is too noisy on a few rows.
    """
    free = max(len(residual) - n_parameters, 1)
    psi_squared = float((np.clip(residual, -delta, delta) ** 2).sum()) / free
    scale = robust_scale(residual, n_parameters)
    if scale == 0.0 or math.isinf(delta):
        return psi_squared
    return psi_squared / math.erf(delta / scale / math.sqrt(2))


def bounds(law: Law, y: Floats) -> tuple[Floats, Floats]:
    """Lower and upper bounds of theta [p] in centred coordinates."""
    floor = float(y.min())
    lower = [-AMPLITUDE_BOUND, -AMPLITUDE_BOUND, floor + math.log(SMALLEST_FLOOR)]
    upper = [AMPLITUDE_BOUND, AMPLITUDE_BOUND, floor]
    shapes = len(law.parameters) - BETA - 1
    lower += [EXPONENT_BOUNDS[0]] * 2 + [POWER_BOUNDS[0]] * shapes
    upper += [EXPONENT_BOUNDS[1]] * 2 + [POWER_BOUNDS[1]] * shapes
    return np.array(lower), np.array(upper)


def at_lower_floor(problem: Problem, theta: Floats) -> Flags:
    """Whether E sits at its lower bound, [K]."""
    return np.asarray(theta[:, LOG_E] < problem.lower[..., LOG_E] + 0.01)


def solve(observations: Observations, config: LawConfig) -> Solution:
    """The global optimum as far as a grid of starts can tell. Deterministic.

    Raises CannotAnswer when there are not more rows than parameters.
    """
    law = build_law(config.name)
    count = len(law.parameters)
    if len(observations) < count + 1:
        raise CannotAnswer(
            f"{len(observations)} usable runs cannot determine the {count} parameters of {law.name.value}; "
            f"at least {count + 1} are needed"
        )
    u, v, y = np.log(observations.params), np.log(observations.tokens), np.log(observations.loss)
    centre = (float(u.mean()), float(v.mean()))
    lower, upper = bounds(law, y)
    problem = Problem(
        law=law,
        u=u - centre[0],
        v=v - centre[1],
        y=y[None],
        weights=np.ones((1, len(y))),
        delta=config.effective_delta,
        lower=lower,
        upper=upper,
        prior_mean=np.zeros(count),
        prior_precision=np.zeros(count),
    )
    solution = best_of_starts(problem, centre)
    return with_prior(solution, config.name) if config.weak_prior else solution


def best_of_starts(problem: Problem, centre: tuple[float, float]) -> Solution:
    found = starts(problem.law, problem.u, problem.v, problem.y[0], problem.delta)
    found = np.clip(found, problem.lower, problem.upper)
    order = np.argsort(objective(problem, found), kind="stable")[:POLISHED_STARTS]
    first = minimise(problem, found[order], iterations=RACE_ITERATIONS)
    ahead = np.argsort(first.objective, kind="stable")[:FINALISTS]
    return pick(problem, minimise(problem, first.theta[ahead], first_delta=problem.delta), centre)


def pick(problem: Problem, minimum: Minimum, centre: tuple[float, float]) -> Solution:
    """The best of several polished starts."""
    best = int(np.argmin(minimum.objective))
    theta = minimum.theta[best : best + 1]
    residual = problem.law.log_loss(theta, problem.u, problem.v)[0] - problem.y[0]
    return Solution(
        law=problem.law,
        problem=problem,
        theta=theta,
        centre=centre,
        objective=float(minimum.objective[best]),
        residual=residual,
        converged=bool(minimum.converged[best]),
    )


def with_prior(plain: Solution, name: LawName) -> Solution:
    """Refit with the weak prior, weighed against the data by the plain fit's own noise."""
    scale = likelihood_scale(plain.residual, plain.problem.delta, plain.theta.shape[1])
    mean, precision = np.zeros(plain.theta.shape[1]), np.zeros(plain.theta.shape[1])
    for column, (centre, deviation) in WEAK_PRIORS[name].items():
        mean[column], precision[column] = centre, scale / deviation**2
    problem = replace(plain.problem, prior_mean=mean, prior_precision=precision)
    found = best_of_starts(problem, plain.centre)
    warm = pick(problem, minimise(problem, plain.theta), plain.centre)
    return min(found, warm, key=lambda s: s.objective)
