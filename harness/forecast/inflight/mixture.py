"""A distribution of the end of a run, as a mixture of normals, and draws from it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from harness.laws.surfaces import Floats

DRAWS = 2000


@dataclass(frozen=True)
class Mixture:
    """Each [k]. `lenders` are the finished runs that it was borrowed
    from; no draw lies outside of `bounds`."""

    means: Floats
    variances: Floats
    weights: Floats
    lenders: tuple[str, ...] = ()
    bounds: tuple[float, float] = (-np.inf, np.inf)

    @property
    def mean(self) -> float:
        return float(self.weights @ self.means)

    @property
    def deviation(self) -> float:
        return float(self.weights @ (self.variances + (self.means - self.mean) ** 2)) ** 0.5

    def widened(self, width: float) -> Mixture:
        """About the same mean, with `width` times the standard deviation."""
        means = self.mean + width * (self.means - self.mean)
        return replace(self, means=means, variances=width**2 * self.variances)

    def draws(self, seed: int, run_number: int) -> Floats:
        """[DRAWS]. The choice of component is shared by all runs of one `seed`: what one shape gets wrong it
        gets wrong for all."""
        chosen = np.random.default_rng(seed).random(DRAWS)
        own = np.random.default_rng([seed, run_number]).standard_normal(DRAWS)
        at = np.minimum(np.searchsorted(np.cumsum(self.weights), chosen), len(self.weights) - 1)
        return np.clip(self.means[at] + np.sqrt(self.variances[at]) * own, *self.bounds)
