"""Samples of a fitted form by the bootstrap, and the intervals of what follows from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from harness.errors import CannotAnswer
from harness.laws.bootstrap import WARM_DELTA, Interval
from harness.laws.config import Resampling
from harness.laws.conventions import SIX_ND, TokenCost
from harness.laws.fit import finite
from harness.laws.forms.fit import FormFit
from harness.laws.forms.form import Form, RowNumbers, Rows, optimum
from harness.laws.forms.solve import Optimised, to_values
from harness.laws.newton import Problem, minimise
from harness.laws.observations import SAME_SIZE
from harness.laws.surfaces import Floats


@dataclass(frozen=True)
class FormReplicates:
    """values [K, p], natural. `at_bound` counts replicates on a bound; they stay in every interval:
    leaving them out would show a certainty the data do not give."""

    form: Form
    values: Floats
    resampling: Resampling
    seed: int
    at_bound: int
    not_converged: int

    def losses(self, columns: Mapping[str, object]) -> Floats:
        """[K, n]"""
        return self.form.evaluate(self.values.T[:, :, None], self.form.rows(columns))[0]

    def param_intervals(self, level: float) -> dict[str, Interval]:
        return {name: interval(self.values[:, i], level) for i, name in enumerate(self.form.names)}

    def loss_interval(self, columns: Mapping[str, float], level: float) -> Interval:
        """Of the loss on one row."""
        return interval(self.losses(columns)[:, 0], level)

    def optimum_intervals(
        self,
        flops: float,
        level: float,
        given: Mapping[str, float] | None = None,
        cost: TokenCost = SIX_ND,
    ) -> dict[str, Interval]:
        """Of N*, D*, D*/N* and the loss there, at `flops`; a token costs what `cost` says."""
        found = []
        for values in self.values:
            params = dict(zip(self.form.names, values.tolist(), strict=True))
            try:
                n, d = optimum(self.form, params, flops, given, cost)
            except CannotAnswer:
                found.append((np.nan, np.nan, np.nan, np.nan))
                continue
            rows = self.form.rows({**(given or {}), "params": n, "tokens": d})
            loss = self.form.evaluate(values[:, None, None], rows)[0]
            found.append((n, d, d / n, float(loss[0, 0])))
        names = ("params", "tokens", "tokens_per_param", "loss")
        return {name: interval(np.array(found)[:, i], level) for i, name in enumerate(names)}


def resampled(solution: Optimised, count: int, resampling: Resampling, seed: int) -> Problem:
    """The fit's problem with `count` sets of weights, or of targets for `residuals`.

    Residuals are centred and inflated by sqrt(n / (n - p)), which fitting has taken out of them.
    """
    problem, rng = solution.problem, np.random.default_rng(seed)
    n = problem.y.shape[1]
    match resampling:
        case Resampling.cases:
            return replace(problem, weights=rng.multinomial(n, np.full(n, 1 / n), size=count).astype(float))
        case Resampling.sizes:
            cluster = size_clusters(solution.rows)
            number = int(cluster.max()) + 1
            drawn = rng.multinomial(number, np.full(number, 1 / number), size=count)
            return replace(problem, weights=drawn[:, cluster].astype(float))
        case Resampling.residuals:
            fitted = problem.law.log_loss(solution.theta[None], problem.u, problem.v)[0]
            residual = problem.y[0] - fitted
            free = int((problem.lower < problem.upper).sum())
            inflated = (residual - residual.mean()) * math.sqrt(n / max(n - free, 1))
            return replace(problem, y=fitted + inflated[rng.integers(n, size=(count, n))])


def size_clusters(rows: Rows) -> RowNumbers:
    """The cluster of each row: sizes within `SAME_SIZE` of one another belong together.

    Raises CannotAnswer without params, or with fewer than four sizes.
    """
    if "params" not in rows:
        raise CannotAnswer("a law that does not see params cannot resample sizes; use resampling=cases")
    logs = np.log(rows["params"])
    order = np.argsort(logs, kind="stable")
    cluster = np.empty(len(logs), dtype=np.intp)
    cluster[order] = np.concatenate([[0], np.cumsum(np.diff(logs[order]) > math.log(SAME_SIZE))])
    if cluster.max() < 3:
        raise CannotAnswer(
            f"resampling sizes needs at least 4, here are {cluster.max() + 1}; use resampling=residuals"
        )
    return cluster


def resample_form(
    fit: FormFit, count: int, seed: int = 0, resampling: Resampling = Resampling.cases
) -> FormReplicates:
    """Refit `count` resamples from the fit's own optimum. Same seed, same result.

    Held parameters stay held. The envelope of a frontier is not drawn anew: its rows are.
    """
    solution = fit.solution
    problem = resampled(solution, count, resampling, seed)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore", under="ignore"):
        found = minimise(problem, np.repeat(solution.theta[None], count, axis=0), first_delta=WARM_DELTA)
    free = problem.lower < problem.upper
    ends = (found.theta <= problem.lower + 1e-6) | (found.theta >= problem.upper - 1e-6)
    return FormReplicates(
        form=fit.form,
        values=to_values(fit.form, found.theta),
        resampling=resampling,
        seed=seed,
        at_bound=int((ends & free).any(axis=1).sum()),
        not_converged=int((~found.converged).sum()),
    )


def interval(values: Floats, level: float) -> Interval:
    """Percentiles. A missing value stands at either infinity; an end that reaches it is open (None)."""
    tail = (1 - level) / 2
    low = np.quantile(np.where(np.isnan(values), -np.inf, values), tail, method="lower")
    high = np.quantile(np.where(np.isnan(values), np.inf, values), 1 - tail, method="higher")
    return finite(float(low)), finite(float(high))
