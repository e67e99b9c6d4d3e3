"""All steps of a chain refitted on the same resamples of the runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from harness.laws.bootstrap import WARM_DELTA, size_clusters
from harness.laws.config import FitConfig, Resampling
from harness.laws.forms.form import RowNumbers
from harness.laws.newton import minimise
from harness.laws.responses.step import Step
from harness.laws.surfaces import Floats


def resample(steps: Sequence[Step], config: FitConfig) -> tuple[Floats, ...]:
    """Parameters [K, p] of each step on the same `config.bootstraps` resamples of the runs.

    A replicate redraws runs (`cases`, `runs`), sizes of the first step (`sizes`) or residuals; every step
    sees the same draw: what makes a run's loss high makes its accuracy low.
    """
    count, rng = config.bootstraps, np.random.default_rng(config.seed)
    if config.resampling is Resampling.residuals:
        rows = max(len(step.residual) for step in steps)
        draws = rng.random((count, rows))
        return tuple(refit(step, targets=redrawn(step, draws)) for step in steps)
    groups = clusters(steps[0], config.resampling)
    drawn = rng.multinomial(groups.max() + 1, np.full(groups.max() + 1, 1 / (groups.max() + 1)), size=count)
    by_run = np.column_stack([drawn[:, groups], np.ones(count)]).astype(float)
    return tuple(refit(step, weights=by_run[:, step.cluster]) for step in steps)


def clusters(step: Step, resampling: Resampling) -> RowNumbers:
    """The cluster of each run of the first step. Raises CannotAnswer as `size_clusters` does."""
    runs = int(step.cluster.max()) + 1
    if resampling is not Resampling.sizes:
        return np.arange(runs)
    of_row = size_clusters(step.solution)
    found = np.zeros(runs, dtype=np.intp)
    found[step.cluster] = of_row
    return found


def redrawn(step: Step, draws: Floats) -> Floats:
    """Targets [K, n] with centred residuals drawn anew, inflated by what the fit took out of them."""
    data = step.residual[step.cluster >= 0]
    free = len(step.params) - len(step.how.fixed)
    inflated = (data - data.mean()) * np.sqrt(len(data) / max(len(data) - free, 1))
    fitted = step.solution.problem.y[0] - step.residual
    shift = inflated[(draws[:, : len(fitted)] * len(data)).astype(int)]
    return np.where(step.cluster >= 0, fitted + shift, step.solution.problem.y[0])


def refit(step: Step, *, weights: Floats | None = None, targets: Floats | None = None) -> Floats:
    """Parameters [K, p] for other weights or targets [K, n], from the fit's own optimum."""
    problem, drawn = step.solution.problem, weights if weights is not None else targets
    count = 0 if drawn is None else len(drawn)
    if weights is not None:
        problem = replace(problem, weights=weights)
    if targets is not None:
        problem = replace(problem, y=targets)
    if not count:
        return np.zeros((0, len(step.params)))
    with np.errstate(over="ignore", divide="ignore", invalid="ignore", under="ignore"):
        found = minimise(problem, np.repeat(step.solution.theta[None], count, axis=0), first_delta=WARM_DELTA)
    return problem.surface.to_values(found.theta)


def expanded(level: float, runs: int, free: int, resampling: Resampling) -> float:
    """The level whose percentiles cover `level`: resamples of few runs scatter too little, by
    sqrt((n-p)/n) unless residuals were inflated, and have no Student tails (Hesterberg 1411.5279)."""
    from scipy.special import ndtr, stdtrit

    freedom = max(runs - free, 1)
    shrunk = 1.0 if resampling is Resampling.residuals else math.sqrt(runs / freedom)
    return float(1 - 2 * ndtr(shrunk * stdtrit(freedom, (1 - level) / 2)))
