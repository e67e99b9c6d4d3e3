"""Profile likelihood of any figure of a fitted law: how much worse the best fit becomes with it elsewhere.

The figure g is pulled towards many targets by a penalty, half strength times (g - target)^2. Whatever the
strength, the minimiser is the best fit among all with the same g, so it lies on the profile exactly: where
it lands is read off, not where it was pulled to. Parameters and derived figures need no other treatment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from harness.laws.bootstrap import Interval
from harness.laws.figures import Figure
from harness.laws.newton import Pull, minimise, objective
from harness.laws.objective import STEP
from harness.laws.solve import Solution, likelihood_scale
from harness.laws.surfaces import Floats

OFFSETS = np.geomspace(0.3, 120.0, 13)
"""Targets on either side, in standard errors; a side that far out and not rejected is called open."""

REFINED = 6
"""Targets inside the bracket of each crossing."""

STRENGTH = 30.0
"""Of the pull, in units of the profile's own curvature by the standard error."""

WIDEST = 5.0
"""Bound of a standard error that the Jacobian gives, in units of the figure (of its logarithm): next to
a bound it can be anything."""

ITERATIONS = 80
SINGULAR = 1e-14
"""Directions whose singular value is below this share of the largest are as uncertain as it says."""

RESOLUTION = 1e-9
"""Of the figure or its logarithm; nearer points are one."""

SHOWN = 10.0
"""Points are kept up to this many times the threshold, and one beyond on each side."""


@dataclass(frozen=True)
class Profile:
    """Values of a parameter, or of a figure, and the likelihood-ratio statistic at each.

    `interval` holds the values the rows do not reject at `level`; None on the side where it is open.
    """

    parameter: str
    values: tuple[float, ...]
    statistic: tuple[float, ...]
    threshold: float
    level: float
    interval: Interval

    def to_json(self) -> dict[str, object]:
        return {
            "parameter": self.parameter,
            "values": list(self.values),
            "statistic": list(self.statistic),
            "threshold": self.threshold,
            "level": self.level,
            "interval": list(self.interval),
        }


def profile(solution: Solution, figure: Figure, level: float) -> Profile:
    """Profile likelihood of `figure`, scaled by `likelihood_scale`; the threshold allows for few rows (t)."""
    from scipy import special

    tracer = Tracer(solution, figure)
    free = max(len(solution.loss) - solution.count, 1)
    threshold = float(special.stdtrit(free, 0.5 + level / 2)) ** 2
    with np.errstate(over="ignore", divide="ignore", invalid="ignore", under="ignore"):
        best = float(tracer.value(solution.theta[None])[0])
        if not np.isfinite(best):
            return Profile(figure.name, (), (), threshold, level, (None, None))
        spread = tracer.spread()
        if spread < RESOLUTION:  # the law fixes the figure, as tied exponents fix the allocation's
            value = float(np.exp(best)) if figure.log else best
            return Profile(figure.name, (value,), (0.0,), threshold, level, (value, value))
        coarse = np.concatenate([-OFFSETS[::-1], OFFSETS]) * spread + best
        found = tracer.trace(coarse, np.repeat(solution.theta[None], len(coarse), axis=0), spread)
        at = np.array([best])
        points = Points(at, np.zeros(1), solution.theta[None]).join(found)
        for side in (-1, 1):
            if (bracket := points.bracket(side, threshold)) is not None:
                inside, outside = bracket
                targets = np.linspace(points.at[inside], points.at[outside], REFINED + 2)[1:-1]
                start = np.repeat(points.theta[inside : inside + 1], REFINED, axis=0)
                width = abs(points.at[outside] - points.at[inside])
                found = found.join(tracer.trace(targets, start, min(spread, width)))
        points = Points(at, np.zeros(1), solution.theta[None]).join(found)
        ends = tuple(points.crossing(side, threshold) for side in (-1, 1))
        shown = points.shown(threshold)
        values = np.exp(shown.at) if figure.log else shown.at
        low, high = (None if end is None else float(np.exp(end)) if figure.log else end for end in ends)
    return Profile(
        parameter=figure.name,
        values=tuple(values.tolist()),
        statistic=tuple(shown.statistic.tolist()),
        threshold=threshold,
        level=level,
        interval=(low, high),
    )


@dataclass(frozen=True)
class Points:
    """Points of a profile in order of the figure: `at` [k], `statistic` [k], `theta` [k, p]."""

    at: Floats
    statistic: Floats
    theta: Floats

    def join(self, other: Points) -> Points:
        """Of points at one place, as several targets beyond a bound end there, the best."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        at, statistic, theta = (np.concatenate(pair) for pair in pairs)
        order = np.lexsort((statistic, np.round(at / RESOLUTION)))
        apart = np.diff(np.round(at[order] / RESOLUTION), prepend=-np.inf) > 0
        kept = order[apart]
        return Points(at[kept], statistic[kept], theta[kept])

    def bracket(self, side: int, threshold: float) -> tuple[int, int] | None:
        """The outermost point within the threshold and the next one out; None when there is none."""
        inside = np.flatnonzero(self.statistic <= threshold)
        last = int(inside[0] if side < 0 else inside[-1])
        return (last, last + side) if 0 <= last + side < len(self.at) else None

    def crossing(self, side: int, threshold: float) -> float | None:
        """Where the root of the statistic, which is nearly straight, passes that of the threshold."""
        if (bracket := self.bracket(side, threshold)) is None:
            return None
        inside, outside = bracket
        low, high = np.sqrt(self.statistic[[inside, outside]])
        share = (np.sqrt(threshold) - low) / (high - low)
        return float(self.at[inside] + share * (self.at[outside] - self.at[inside]))

    def shown(self, threshold: float) -> Points:
        near = np.flatnonzero(self.statistic <= SHOWN * threshold)
        keep = slice(max(int(near[0]) - 1, 0), int(near[-1]) + 2)
        return Points(self.at[keep], self.statistic[keep], self.theta[keep])


@dataclass(frozen=True)
class Tracer:
    """Refits with a figure pulled away from its best value."""

    solution: Solution
    figure: Figure

    def value(self, theta: Floats) -> Floats:
        """The figure or its logarithm, [K]."""
        found = self.figure.of(self.solution.problem.surface.to_values(theta))
        return np.log(found) if self.figure.log else np.asarray(found)

    def slope(self, theta: Floats) -> Floats:
        """Its gradient by theta, [K, p], by central differences in one batch."""
        count, size = theta.shape
        step = STEP * np.maximum(1.0, np.abs(theta))
        moves = step[:, None, :] * np.eye(size)
        moved = np.concatenate([theta[:, None, :] + moves, theta[:, None, :] - moves])
        ahead, behind = self.value(moved.reshape(-1, size)).reshape(2, count, size)
        return np.nan_to_num((ahead - behind) / 2 / step)

    def spread(self) -> float:
        """The standard error, at most `WIDEST`."""
        error = standard_error(self.solution, self.figure)
        return min(error, WIDEST) if np.isfinite(error) else WIDEST

    def trace(self, targets: Floats, start: Floats, spread: float) -> Points:
        """Where the refits land, and the statistic there. Those that leave the finite are left out."""
        problem, scale = self.solution.problem, likelihood_scale(self.solution)
        strength = np.full(len(targets), STRENGTH * max(scale, 1e-300) / spread**2)
        pulled = replace(problem, pull=Pull(self.value, self.slope, targets, strength))
        theta = minimise(pulled, start, first_delta=problem.delta, iterations=ITERATIONS).theta
        at, rise = self.value(theta), objective(problem, theta) - self.solution.objective
        statistic = np.minimum(2 * np.maximum(rise, 0.0) / max(scale, 1e-300), 1e12)
        kept = np.isfinite(at) & np.isfinite(statistic)
        return Points(at[kept], statistic[kept], theta[kept])


def standard_error(solution: Solution, figure: Figure) -> float:
    """Of the figure or its logarithm, by the Jacobian (delta method)."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore", under="ignore"):
        slope = Tracer(solution, figure).slope(solution.theta[None])[0][solution.problem.free]
        return float(np.sqrt(max(slope @ covariance(solution) @ slope, 0.0)))


def covariance(solution: Solution) -> Floats:
    """Of the free parameters of theta, Gauss-Newton from the robust scale of the response."""
    problem = solution.problem
    root = np.sqrt(solution.relative_weights)
    jacobian = problem.surface.gradient(solution.theta[None])[1][0][:, problem.free] * root[:, None]
    length = np.maximum(np.linalg.norm(jacobian, axis=0), 1e-100)
    _, singular, basis = np.linalg.svd(jacobian / length, full_matrices=False)
    from_unit = basis.T / np.maximum(singular, SINGULAR * singular.max()) / length[:, None]
    scale = solution.response_scale
    return np.asarray(from_unit @ from_unit.T * scale**2)
