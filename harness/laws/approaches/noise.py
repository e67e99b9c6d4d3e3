"""What noise the losses carry, measured on a surface through them, and draws of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from harness.errors import CannotAnswer
from harness.laws.config import LawConfig, LossFunction
from harness.laws.fit import solve
from harness.laws.forms.chinchilla import ALPHA
from harness.laws.newton import minimise
from harness.laws.observations import Observations
from harness.laws.solve import Solution
from harness.laws.surfaces import Floats


@dataclass(frozen=True)
class Surface:
    """E + A/N^alpha + B/D^beta through some rows by least squares of ln L (variable projection, then
    Newton), and the noise around it.

    `sigma` is the residual standard deviation in log loss, misfit included, with `freedom` degrees of
    freedom.
    """

    solution: Solution
    sigma: float
    freedom: int

    @property
    def values(self) -> Floats:
        """A, B, E, alpha, beta, [1, 5]."""
        return self.solution.values[None]

    @property
    def at_bound(self) -> bool:
        """Whether an exponent ran to its end, so that the rows do not say how lopsided the valley is."""
        theta, problem = self.solution.theta[ALPHA:], self.solution.problem
        ends = (theta <= problem.lower[ALPHA:] + 1e-6) | (theta >= problem.upper[ALPHA:] - 1e-6)
        return bool(ends.any())

    def draws(self, shape: tuple[int, int], seed: int) -> Floats:
        """Noise in log loss [replicates, rows].

        Each replicate has a sigma of its own, drawn as widely as `freedom` leaves it open: with a few
        rows to spare, one sigma for all would make every interval too narrow.
        """
        rng = np.random.default_rng(seed)
        sigmas = self.sigma * np.sqrt(self.freedom / rng.chisquare(self.freedom, size=shape[0]))
        return np.asarray(sigmas[:, None] * rng.standard_normal(shape))

    def refit(self, log_loss: Floats) -> Floats:
        """A, B, E, alpha, beta [K, 5] of replicates of ln L [K, n], from this surface's own optimum."""
        problem = replace(self.solution.problem, y=log_loss)
        found = minimise(problem, np.repeat(self.solution.theta[None], len(log_loss), axis=0))
        return problem.surface.to_values(found.theta)


def fit_surface(observations: Observations) -> Surface:
    """Raises CannotAnswer when there are not more rows than the five parameters."""
    if len(observations) < 7:
        raise CannotAnswer(f"{len(observations)} runs are too few for a surface and its noise; 7 are needed")
    solution = solve(observations, LawConfig(loss=LossFunction.least_squares))
    freedom = len(observations) - solution.count
    return Surface(solution, float(np.sqrt((solution.residual**2).sum() / freedom)), freedom)
