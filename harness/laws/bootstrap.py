"""Samples of a fitted law by the bootstrap."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from harness.errors import CannotAnswer
from harness.laws.config import Resampling
from harness.laws.forms.form import Form, RowNumbers
from harness.laws.newton import Problem, minimise
from harness.laws.observations import SAME_SIZE
from harness.laws.solve import Solution
from harness.laws.surfaces import Floats

WARM_DELTA = 0.01
"""A replicate's optimum lies near the fit's own; a shorter way down than from a cold start."""

FEWEST_CLUSTERS = 4
"""With fewer, most resamples hold two sizes (or runs) at most."""

Interval = tuple[float | None, float | None]


@dataclass(frozen=True)
class Replicates:
    """values [K, p], natural.

    `at_bound` counts the replicates that ran to a bound (E to zero, an exponent to its end). They stay
    in every interval: leaving them out would show a certainty the data do not give.
    """

    form: Form
    values: Floats
    resampling: Resampling
    seed: int
    at_bound: int
    not_converged: int

    def __len__(self) -> int:
        return len(self.values)

    def losses(self, columns: Mapping[str, object]) -> Floats:
        """The loss of every replicate at every row, [K, n]."""
        return self.form.losses(self.values, self.form.rows(columns))

    def interval(self, figure: Callable[[Floats], Floats], level: float) -> Interval:
        """Of a figure that maps values [K, p] to [K]."""
        return interval(figure(self.values), level)

    def param_intervals(self, level: float) -> dict[str, Interval]:
        return {name: interval(self.values[:, i], level) for i, name in enumerate(self.form.names)}

    def loss_interval(self, columns: Mapping[str, float], level: float) -> Interval:
        """Of the loss on one row."""
        return interval(self.losses(columns)[:, 0], level)


def resample(solution: Solution, count: int, resampling: Resampling, seed: int) -> Replicates:
    """Refit `count` resamples from the fit's own optimum. Same seed, same result.

    Held parameters stay held. The envelope of a frontier is not drawn anew: its rows are. Raises
    CannotAnswer when sizes or runs are to be redrawn and there are fewer than four.
    """
    problem = resampled(solution, count, resampling, seed)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore", under="ignore"):
        found = minimise(problem, np.repeat(solution.theta[None], count, axis=0), first_delta=WARM_DELTA)
        values = problem.surface.to_values(found.theta)
    ends = (found.theta <= problem.lower + 1e-6) | (found.theta >= problem.upper - 1e-6)
    return Replicates(
        form=solution.form,
        values=values,
        resampling=resampling,
        seed=seed,
        at_bound=int((ends & problem.free).any(axis=1).sum()),
        not_converged=int((~found.converged).sum()),
    )


def resampled(solution: Solution, count: int, resampling: Resampling, seed: int) -> Problem:
    """The fit's problem with `count` sets of weights, or of targets for `residuals`."""
    problem, rng = solution.problem, np.random.default_rng(seed)
    match resampling:
        case Resampling.residuals:
            return replace(problem, y=redrawn_targets(solution, count, rng))
        case Resampling.cases:
            cluster = np.arange(problem.y.shape[1])
        case Resampling.sizes:
            cluster = size_clusters(solution)
        case Resampling.runs:
            cluster = run_clusters(solution)
    return replace(problem, weights=problem.weights * drawn(cluster, count, rng))


def drawn(cluster: RowNumbers, count: int, rng: np.random.Generator) -> Floats:
    """How often each row is drawn when whole clusters are, [K, n]."""
    number = int(cluster.max()) + 1
    return rng.multinomial(number, np.full(number, 1 / number), size=count)[:, cluster].astype(float)


def redrawn_targets(solution: Solution, count: int, rng: np.random.Generator) -> Floats:
    """The fitted response plus residuals drawn with replacement, [K, n].

    Residuals are centred and inflated by sqrt(n / (n - p)), which fitting has taken out of them. A
    weight stands for a precision: residuals are drawn in units of their row's own 1/sqrt(weight).
    """
    root = np.sqrt(solution.relative_weights)
    residual = -solution.response_residual * root
    n = len(residual)
    inflated = (residual - residual.mean()) * math.sqrt(n / max(n - solution.count, 1))
    fitted = solution.problem.y[0] + solution.response_residual
    return np.asarray(fitted + inflated[rng.integers(n, size=(count, n))] / root)


def size_clusters(solution: Solution) -> RowNumbers:
    """The cluster of each row: sizes within `SAME_SIZE` of one another belong together."""
    if "params" not in solution.rows:
        raise CannotAnswer("a law that does not see params cannot resample sizes; use fit.resampling=cases")
    logs = np.log(solution.rows["params"])
    order = np.argsort(logs, kind="stable")
    cluster = np.empty(len(logs), dtype=np.intp)
    cluster[order] = np.concatenate([[0], np.cumsum(np.diff(logs[order]) > math.log(SAME_SIZE))])
    return enough(cluster, "sizes")


def run_clusters(solution: Solution) -> RowNumbers:
    """Rows of one run, such as the branches of a trunk, belong together."""
    if solution.runs is None:
        raise CannotAnswer("these rows do not say which run they belong to; use fit.resampling=cases")
    return enough(np.unique(solution.runs, return_inverse=True)[1], "runs")


def enough(cluster: RowNumbers, what: str) -> RowNumbers:
    if cluster.max() + 1 < FEWEST_CLUSTERS:
        raise CannotAnswer(
            f"resampling {what} needs at least {FEWEST_CLUSTERS} of them, here are {cluster.max() + 1}; "
            "use fit.resampling=residuals"
        )
    return cluster


def interval(values: Floats, level: float) -> Interval:
    """Percentiles. A missing value stands at either infinity; an end that reaches it is open (None)."""
    tail = (1 - level) / 2
    low = np.quantile(np.where(np.isnan(values), -np.inf, values), tail, method="lower")
    high = np.quantile(np.where(np.isnan(values), np.inf, values), 1 - tail, method="higher")
    return finite(float(low)), finite(float(high))


def finite(value: float) -> float | None:
    """None for what JSON cannot say."""
    return value if math.isfinite(value) else None
