"""Laws whose response is not the loss against N and D: accuracy, coverage, reward, tuned settings.

One or two forms in a chain, each fitted to its own rows, resampled together. The result has the JSON of
every other fit, with predictions where the user asks for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import CannotAnswer, WrongInput
from harness.laws.bootstrap import WARM_DELTA, Interval
from harness.laws.config import FitConfig, LawName, Resampling
from harness.laws.fit import FitStatus, dropped_json, finite
from harness.laws.forms.fit import DEGENERATE, boundary, conventions, doubts, standard_errors
from harness.laws.forms.form import Form, RowNumbers, Rows, predict
from harness.laws.forms.resample import interval, size_clusters
from harness.laws.forms.solve import Objective, Optimised, respond, solve_form, to_values
from harness.laws.newton import minimise
from harness.laws.sources.source import load
from harness.laws.surfaces import Floats
from harness.laws.tables import ColumnTable, read_columns
from harness.runs import Skipped, content_hash

LEAST_SHARE = 0.5
"""Of the variance of the response a law has to explain; below it, the rows hardly show the law."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A table as the user named it. `columns` maps the names that a law wants to the table's own."""

    path: Path
    where: Sequence[str] = ()
    columns: Mapping[str, str] = field(default_factory=dict)

    def read(self, *names: str) -> ColumnTable:
        return read_columns(self.path, names, self.where, self.columns)

    def has(self, *names: str) -> bool:
        present = {*load(self.path).columns, *self.columns}
        return set(names) <= present


@dataclass(frozen=True, kw_only=True)
class Step:
    """One form fitted to its rows of `quantity`. `cluster` [n] says which run each row belongs to; -1 for a
    row that is not data and is in every resample. `residual` [n] is in the response that was fitted."""

    form: Form
    quantity: str
    status: FitStatus
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    params: dict[str, float]
    standard_errors: dict[str, float]
    residual: Floats
    cluster: RowNumbers
    how: Objective
    solution: Optimised

    def predict(self, columns: Mapping[str, object]) -> Floats:
        """The response [n]."""
        return predict(self.form, self.params, columns)

    @property
    def n(self) -> int:
        """Rows of data."""
        return int((self.cluster >= 0).sum())

    @property
    def residual_rms(self) -> float:
        return float(np.sqrt(np.mean(self.residual[self.cluster >= 0] ** 2)))

    @property
    def conventions(self) -> dict[str, str]:
        """With the name of the quantity where a law of loss says L."""
        said = conventions(self.how)
        return {**said, "response": said["response"].replace("L", self.quantity)}

    def to_json(self) -> dict[str, Any]:
        return {
            "law": self.form.name,
            "status": self.status.value,
            "params": dict(self.params),
            "objective": self.solution.objective,
            "n": self.n,
            "residual_rms": self.residual_rms,
            "conventions": self.conventions,
        }


def fit_step(
    form: Form,
    rows: Mapping[str, object],
    response: Floats,
    how: Objective,
    *,
    quantity: str = "loss",
    cluster: RowNumbers | None = None,
    limits: Sequence[str] = (),
) -> Step:
    """Fit `form`. A parameter of `limits` may end on its bound, which is a limit of the quantity itself,
    as no accuracy exceeds 1; it is then said so in a note.

    Raises CannotAnswer for too few rows or rows that are not positive numbers.
    """
    if bad := int((~(response > 0)).sum()):
        raise CannotAnswer(
            f"{quantity} is not positive on {bad} of {len(response)} rows; leave them out: where={quantity}>0"
        )
    found = solve_form(form, rows, response, how)
    values = to_values(form, found.theta)
    params = {name: float(value) for name, value in zip(form.names, values, strict=True)}
    with np.errstate(over="ignore", invalid="ignore"):
        errors, degeneracy = standard_errors(form, found, how)
    fitted = found.problem.law.log_loss(found.theta[None], found.problem.u, found.problem.v)[0]
    target = respond(how.response, response[found.used])[0]
    reasons, at_limit = ends(form, found, how, limits)
    reasons += unexplained(form, target, target - fitted)
    if degeneracy < DEGENERATE and not at_limit:
        reasons.append(f"the parameters of {form.name} cannot be told apart on these rows")
    if not found.converged:
        reasons.append(f"the minimiser of {form.name} did not converge")
    return Step(
        form=form,
        quantity=quantity,
        status=FitStatus.not_identified if reasons else FitStatus.identified,
        reasons=tuple(reasons),
        notes=(*at_limit, *doubts(form, params, errors)),
        params=params,
        standard_errors=errors,
        residual=target - fitted,
        cluster=np.arange(len(response)) if cluster is None else cluster,
        how=how,
        solution=found,
    )


def ends(form: Form, found: Optimised, how: Objective, limits: Sequence[str]) -> tuple[list[str], list[str]]:
    """Parameters that ended on a bound: as a reason, or as a note where the bound is a limit."""
    reasons: list[str] = []
    notes: list[str] = []
    problem = found.problem
    bounds = zip(form.parameters, found.theta, problem.lower, problem.upper, strict=True)
    for parameter, at, low, high in bounds:
        if parameter.name not in how.fixed:
            said = boundary(parameter, float(at), float(low), float(high))
            if said and parameter.name in limits:
                value = math.exp(at) if parameter.log else at
                notes.append(f"{parameter.name} = {value:.3g} is the end of what it can be: not seen here")
            else:
                reasons.extend(said)
    return reasons, notes


def unexplained(form: Form, target: Floats, residual: Floats) -> list[str]:
    share = 1 - float((residual**2).sum()) / max(float(((target - target.mean()) ** 2).sum()), 1e-300)
    if share >= LEAST_SHARE:
        return []
    return [f"{form.name} explains {max(share, 0):.0%} of the variance of these rows, less than half"]


def refused(step: Step, *reasons: str) -> Step:
    """The step with further reasons not to believe it."""
    return replace(step, status=FitStatus.not_identified, reasons=(*step.reasons, *reasons))


# Resampling ---------------------------------------------------------------------------------------------


def resample(steps: Sequence[Step], config: FitConfig) -> tuple[Floats, ...]:
    """Parameters [K, p] of each step on the same `config.bootstraps` resamples of the runs.

    A replicate redraws runs (`cases`), sizes of the first step (`sizes`) or residuals, and every step
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
    if resampling is Resampling.cases:
        return np.arange(runs)
    of_row = size_clusters(step.solution.rows)
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
    return to_values(step.form, found.theta)


def expanded(level: float, runs: int, free: int, resampling: Resampling) -> float:
    """The level whose percentiles cover `level`: resamples of few runs scatter too little, by
    sqrt((n-p)/n) unless residuals were inflated, and have no Student tails (Hesterberg 1411.5279)."""
    from scipy.special import ndtr, stdtrit

    freedom = max(runs - free, 1)
    shrunk = 1.0 if resampling is Resampling.residuals else math.sqrt(runs / freedom)
    return float(1 - 2 * ndtr(shrunk * stdtrit(freedom, (1 - level) / 2)))


# Results ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ResponseFit:
    """A chain of steps: the response of each is the only column of the next.

    `replicates` are the parameters [K, p] of each step on the same resamples. `details` is what a law adds
    to its JSON.
    """

    law: LawName
    response: str
    steps: tuple[Step, ...]
    replicates: tuple[Floats, ...]
    conventions: dict[str, str]
    table: ColumnTable
    level: float
    bootstrap: dict[str, Any] | None
    notes: tuple[str, ...] = ()
    dropped: tuple[Skipped, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.steps[0].form.columns

    @property
    def reasons(self) -> tuple[str, ...]:
        return tuple(reason for step in self.steps for reason in step.reasons)

    @property
    def status(self) -> FitStatus:
        return FitStatus.not_identified if self.reasons else FitStatus.identified

    @property
    def percentiles(self) -> float:
        """The share of resamples between the ends of an interval, see `expanded`."""
        if self.bootstrap is None:
            return self.level
        free = len(self.steps[0].params) - len(self.steps[0].how.fixed)
        resampling = Resampling(self.bootstrap["resampling"])
        return expanded(self.level, self.bootstrap["units"], free, resampling)

    @property
    def params(self) -> dict[str, float]:
        return {name: value for step in self.steps for name, value in step.params.items()}

    def predict(self, columns: Mapping[str, object]) -> Floats:
        """The response [n]."""
        return self.chained([np.array([list(step.params.values())]) for step in self.steps], columns)[0]

    def samples(self, columns: Mapping[str, object]) -> Floats:
        """The response on every resample, [K, n]."""
        return self.chained(self.replicates, columns)

    def chained(self, values: Sequence[Floats], columns: Mapping[str, object]) -> Floats:
        """[K, n] for values [K, p] of each step."""
        rows: Rows = self.steps[0].form.rows(columns)
        for number, (step, value) in enumerate(zip(self.steps, values, strict=True), start=1):
            response, _ = step.form.evaluate(value.T[:, :, None], rows)
            rows = {name: response for following in self.steps[number:] for name in following.form.columns}
        return response

    def intervals(self) -> dict[str, Interval]:
        return {
            name: interval(values[:, i], self.percentiles)
            for step, values in zip(self.steps, self.replicates, strict=True)
            for i, name in enumerate(step.form.names)
            if len(values)
        }

    def predictions(self, at: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
        """The response with its interval at rows of `inputs`. Raises WrongInput for rows of other length."""
        found = []
        for row in at:
            if len(row) != len(self.inputs) or not all(np.isfinite(row)) or not all(x > 0 for x in row):
                raise WrongInput(f"at={list(row)}: this law wants positive {', '.join(self.inputs)}")
            point = dict(zip(self.inputs, row, strict=True))
            drawn = self.samples(point)
            found.append(
                {
                    **point,
                    self.response: float(self.predict(point)[0]),
                    "interval": interval(drawn[:, 0], self.percentiles) if len(drawn) else None,
                }
            )
        return found

    def data_hash(self) -> str:
        """SHA-256 of the numbers that every step was fitted to, whatever the order of the rows."""

        def rows(step: Step) -> list[list[float]]:
            columns = [*step.solution.rows.values(), step.solution.problem.y[0]]
            return sorted(np.column_stack(columns).tolist())

        return content_hash({"steps": [rows(step) for step in self.steps], "conventions": self.conventions})

    def to_json(self, at: Sequence[Sequence[float]] = ()) -> dict[str, Any]:
        last = self.steps[-1]
        return {
            "law": self.law.value,
            "status": self.status.value,
            "reasons": list(self.reasons),
            "notes": [*self.notes, *(note for step in self.steps for note in step.notes)],
            "params": self.params,
            "standard_errors": {
                name: finite(error) for step in self.steps for name, error in step.standard_errors.items()
            },
            "intervals": self.intervals(),
            "objective": last.solution.objective,
            "n": last.n,
            "residual_rms": last.residual_rms,
            "steps": [step.to_json() for step in self.steps],
            "dropped": dropped_json((*self.table.dropped, *self.dropped)),
            "conventions": {**last.conventions, **self.conventions},
            "bootstrap": self.bootstrap,
            "data_hash": self.data_hash(),
            "inputs": list(self.inputs),
            "predictions": self.predictions(at),
            **self.details,
        }


def bootstrap_json(config: FitConfig, units: int) -> dict[str, Any] | None:
    """`units` is how many runs, problems or cells a replicate redraws."""
    if not config.bootstraps:
        return None
    return {
        "count": config.bootstraps,
        "resampling": config.resampling.value,
        "units": units,
        "seed": config.seed,
        "level": config.level,
    }


def within(table: ColumnTable, name: str, low: float, high: float) -> None:
    """Raises CannotAnswer when a value of the column lies outside; percents often do."""
    column = table.values[name]
    outside = int(((column < low) | (column > high)).sum())
    if outside:
        raise CannotAnswer(
            f"{name} must lie between {low:g} and {high:g}, and does not on {outside} of {len(column)} rows "
            f"({column.min():g} to {column.max():g}); a percentage must be divided by 100"
        )


def run_numbers(labels: Sequence[str], runs: Sequence[str]) -> RowNumbers:
    """The position of each label among `runs`. Raises WrongInput for a label that is not there."""
    place = {run: i for i, run in enumerate(runs)}
    if unknown := sorted(set(labels) - set(place)):
        raise WrongInput(f"the run {unknown[0]!r} is not in the table of finished runs")
    return np.array([place[label] for label in labels], dtype=np.intp)
