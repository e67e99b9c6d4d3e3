"""Resampled fits and the intervals of everything derived from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.errors import CannotAnswer
from harness.laws.config import FitConfig, Resampling
from harness.laws.conventions import SIX_ND, TokenCost, allocate, stated, token_cost
from harness.laws.fit import Fit, finite
from harness.laws.newton import minimise
from harness.laws.observations import SAME_SIZE, Observations
from harness.laws.solve import SMALLEST_FLOOR, Solution, at_lower_floor
from harness.laws.surfaces import ALPHA, Floats, Law, exponent_a, shifted

WARM_DELTA = 0.01
"""A replicate's optimum lies near the fit's own; a shorter way down than from a cold start."""

MULTIPLES = (1.0, 10.0, 100.0)
"""Budgets at which the optimum is reported, in units of the largest run's FLOPs."""

Interval = tuple[float | None, float | None]


@dataclass(frozen=True)
class Replicates:
    """theta [K, p] in the coordinates ln N, ln D.

    `at_bound` counts the replicates that ran to a bound (E to zero, an exponent to its end). They stay
    in every interval: leaving them out would show a certainty the data do not give.
    """

    law: Law
    theta: Floats
    resampling: Resampling
    seed: int
    at_bound: int
    not_converged: int

    def __len__(self) -> int:
        return len(self.theta)

    def log_loss(self, params: float, tokens: float) -> Floats:
        """ln L at one (N, D), [K]."""
        return self.law.log_loss(self.theta, np.log([params]), np.log([tokens]))[:, 0]


def case_weights(observations: Observations, count: int, rng: np.random.Generator) -> Floats:
    """How often each row is drawn, [K, n]."""
    n = len(observations)
    return rng.multinomial(n, np.full(n, 1 / n), size=count).astype(float)


def size_clusters(observations: Observations) -> Floats:
    """The cluster of each row: sizes within `SAME_SIZE` of one another belong together."""
    logs = np.log(observations.params)  # rows are in order of size
    return np.concatenate([[0], np.cumsum(np.diff(logs) > math.log(SAME_SIZE))])


def size_weights(observations: Observations, count: int, rng: np.random.Generator) -> Floats:
    """Whole sizes are drawn together, [K, n]. Raises CannotAnswer with fewer than four sizes."""
    cluster = size_clusters(observations)
    number = int(cluster[-1]) + 1
    if number < 4:
        raise CannotAnswer(
            f"resampling sizes needs at least 4 of them, here are {number}; use resampling=residuals"
        )
    return rng.multinomial(number, np.full(number, 1 / number), size=count)[:, cluster].astype(float)


def redrawn_targets(solution: Solution, count: int, rng: np.random.Generator) -> Floats:
    """Fitted ln L plus residuals drawn with replacement, [K, n].

    Residuals are centred and inflated by sqrt(n / (n - p)), which fitting has taken out of them.
    """
    residual = -solution.residual
    n, p = len(residual), solution.theta.shape[1]
    inflated = (residual - residual.mean()) * math.sqrt(n / max(n - p, 1))
    fitted = solution.problem.y[0] - residual
    return np.asarray(fitted + inflated[rng.integers(n, size=(count, n))])


def bootstrap(
    observations: Observations,
    solution: Solution,
    count: int,
    resampling: Resampling = Resampling.cases,
    seed: int = 0,
) -> Replicates:
    """Refit `count` resamples from a warm start. Same seed, same result, whatever the order of the rows.

    Raises CannotAnswer when `sizes` are to be redrawn and there are fewer than four.
    """
    rng = np.random.default_rng(seed)
    problem = solution.problem
    match resampling:
        case Resampling.cases:
            problem = replace(problem, weights=case_weights(observations, count, rng))
        case Resampling.sizes:
            problem = replace(problem, weights=size_weights(observations, count, rng))
        case Resampling.residuals:
            problem = replace(problem, y=redrawn_targets(solution, count, rng))
    start = np.repeat(solution.theta, count, axis=0)
    found = minimise(problem, start, first_delta=WARM_DELTA)
    ends = (found.theta[:, ALPHA:] <= problem.lower[ALPHA:] + 1e-6) | (
        found.theta[:, ALPHA:] >= problem.upper[ALPHA:] - 1e-6
    )
    bound = at_lower_floor(problem, found.theta) | ends.any(axis=1)
    return Replicates(
        law=solution.law,
        theta=shifted(found.theta, *solution.centre),
        resampling=resampling,
        seed=seed,
        at_bound=int(bound.sum()),
        not_converged=int((~found.converged).sum()),
    )


def interval(values: Floats, level: float) -> Interval:
    """Percentiles; None at an end that is not finite."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return finite(float(low)), finite(float(high))


def param_intervals(replicates: Replicates, level: float) -> dict[str, Interval]:
    """Of every natural parameter and of the exponent a."""
    natural = np.concatenate([np.exp(replicates.theta[:, :ALPHA]), replicates.theta[:, ALPHA:]], axis=1)
    found = {name: interval(natural[:, at], level) for at, name in enumerate(replicates.law.parameters)}
    return {**found, "exponent_a": interval(exponent_a(replicates.theta), level)}


def optimum_intervals(
    replicates: Replicates, flops: float, level: float, cost: TokenCost = SIX_ND
) -> dict[str, Interval]:
    """Of N*, D*, D*/N* and the loss there, at `flops`; a token costs what `cost` says.

    A replicate whose optimum overflows stands at infinity, and an end that reaches it is open (None).
    """
    log_n, log_d = allocate(replicates.law, replicates.theta, flops, cost)
    rows = enumerate(zip(log_n, log_d, strict=True))
    log_loss = np.array(
        [replicates.law.log_loss(replicates.theta[i : i + 1], n[None], d[None])[0, 0] for i, (n, d) in rows]
    )
    with np.errstate(over="ignore", invalid="ignore"):
        found = {
            "params": np.exp(log_n),
            "tokens": np.exp(log_d),
            "tokens_per_param": np.exp(log_d - log_n),
            "loss": np.exp(log_loss),
        }
        return {name: interval(values, level) for name, values in found.items()}


def fit_json(
    observations: Observations, fit: Fit, config: FitConfig, budgets: tuple[float, ...] = ()
) -> dict[str, Any]:
    """What `harness fit format=json` prints: the fit, its intervals and the optimum at each budget.

    `budgets` are FLOPs; by default 1, 10 and 100 times the largest run.
    """
    cost = token_cost(observations, config.flops)
    flops = budgets or tuple(m * cost.largest(observations) for m in MULTIPLES)
    replicates = (
        bootstrap(observations, fit.solution, config.bootstraps, config.resampling, config.seed)
        if config.bootstraps
        else None
    )
    optima = []
    for budget in flops:
        found: dict[str, Any] = fit.optimum(budget, cost).to_json()
        found["interval"] = optimum_intervals(replicates, budget, config.level, cost) if replicates else None
        optima.append(found)
    return {
        **fit.to_json(),
        "notes": [*fit.notes, *([cost.note] if cost.note else [])],
        "conventions": stated(observations, cost),
        "intervals": param_intervals(replicates, config.level) if replicates else {},
        "bootstrap": None if replicates is None else bootstrap_json(replicates, config.level),
        "optimum": optima,
    }


def bootstrap_json(replicates: Replicates, level: float) -> dict[str, Any]:
    return {
        "count": len(replicates),
        "resampling": replicates.resampling.value,
        "seed": replicates.seed,
        "level": level,
        "at_bound": replicates.at_bound,
        "not_converged": replicates.not_converged,
        "floor_bound": f"E at {SMALLEST_FLOOR:g} of the smallest loss",
    }
