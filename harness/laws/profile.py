"""The profile of the floor E: how much worse the best fit becomes when E is held."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from harness.laws.newton import minimise
from harness.laws.solve import SMALLEST_FLOOR, Solution, likelihood_scale
from harness.laws.surfaces import LOG_E, Floats

GRID = 41
"""Values of E between zero and the smallest loss."""


@dataclass(frozen=True)
class Profile:
    """E in units of the loss, and the likelihood-ratio statistic at each value.

    `interval` holds the values of E the data do not reject at `level`; None where it is open: below
    when E = 0 is not rejected, above when E up to the smallest loss is not.
    """

    floor: tuple[float, ...]
    statistic: tuple[float, ...]
    threshold: float
    level: float
    interval: tuple[float | None, float | None]

    def to_json(self) -> dict[str, object]:
        return {
            "E": list(self.floor),
            "statistic": list(self.statistic),
            "threshold": self.threshold,
            "level": self.level,
            "interval": list(self.interval),
        }


def profile_floor(solution: Solution, level: float) -> Profile:
    """Profile likelihood of E, scaled by `likelihood_scale`; the threshold allows for few rows (t)."""
    from scipy.special import stdtrit

    problem, count = solution.problem, solution.theta.shape[1]
    smallest = float(np.exp(problem.y.min()))
    floor = smallest * np.concatenate([[SMALLEST_FLOOR], np.linspace(0, 1, GRID)[1:-1], [0.999]])
    start = np.repeat(solution.theta, GRID, axis=0)
    start[:, LOG_E] = np.log(floor)
    lower, upper = (np.repeat(b[None], GRID, axis=0) for b in (problem.lower, problem.upper))
    lower[:, LOG_E] = upper[:, LOG_E] = np.log(floor)
    held = minimise(replace(problem, lower=lower, upper=upper), start, iterations=60)
    scale = likelihood_scale(solution.residual, problem.delta, count)
    rise = np.maximum(held.objective - solution.objective, 0.0)
    statistic = 2 * rise / max(scale, 1e-300)
    freedom = max(len(solution.residual) - count, 1)
    threshold = float(stdtrit(freedom, 0.5 + level / 2)) ** 2
    return Profile(
        floor=tuple(floor.tolist()),
        statistic=tuple(np.minimum(statistic, 1e12).tolist()),
        threshold=threshold,
        level=level,
        interval=crossing(floor, statistic, threshold, float(np.exp(solution.theta[0, LOG_E]))),
    )


def crossing(
    floor: Floats, statistic: Floats, threshold: float, best: float
) -> tuple[float | None, float | None]:
    """Where the statistic passes the threshold on either side of the optimum, by linear interpolation."""
    floor, statistic = np.append(floor, best), np.append(statistic, 0.0)
    order = np.argsort(floor, kind="stable")
    floor, statistic = floor[order], statistic[order]
    inside = np.flatnonzero(statistic <= threshold)
    first, last = int(inside[0]), int(inside[-1])

    def between(within: int, outside: int) -> float:
        share = (threshold - statistic[within]) / (statistic[outside] - statistic[within])
        return float(floor[within] + share * (floor[outside] - floor[within]))

    low = None if first == 0 else between(first, first - 1)
    high = None if last == len(floor) - 1 else between(last, last + 1)
    return low, high
