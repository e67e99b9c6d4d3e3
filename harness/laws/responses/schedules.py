"""Loss curves under their learning-rate schedules: one set of constants for all runs of a model.

Rows (run_id, step, lr, loss). The rate of every optimiser step is the logged one, interpolated linearly; a
run logged from a later step than 0 is taken to have warmed up linearly from zero until then. Filters choose
losses: the schedule is read from all rows of a run, also from those that have no loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import WrongInput
from harness.laws.bootstrap import FEWEST_CLUSTERS
from harness.laws.config import FitConfig, LawName, Resampling
from harness.laws.fit import Fit, FitStatus
from harness.laws.objective import objective_of
from harness.laws.responses.resample import resample
from harness.laws.responses.result import ResponseFit, bootstrap_json, require_cases
from harness.laws.responses.source import Source
from harness.laws.responses.step import Step
from harness.laws.surfaces import Floats
from harness.laws.tables import ColumnTable
from harness.runs import Skipped

if TYPE_CHECKING:
    from harness.laws.curves import Curve

LONGEST = 10_000_000
"""Steps; a column that goes beyond counts tokens or samples, and its schedule would fill the memory."""

CORRELATED = (
    "neighbouring losses of a curve are correlated; the standard errors take them for independent and are "
    "too small"
)


@dataclass(frozen=True)
class RunChoice:
    """Run ids to fit (all, when empty, but those to predict) and run ids only to predict."""

    fitted: Sequence[str] = ()
    predicted: Sequence[str] = ()

    def __post_init__(self) -> None:
        if both := sorted({*self.fitted} & {*self.predicted}):
            raise WrongInput(f"the run {both[0]!r} is both in curves= and in predict=")

    def of(self, runs: Sequence[str]) -> tuple[list[str], list[str]]:
        """Those of `runs` to fit and to predict. Raises WrongInput for a run that is not there, or none."""
        if unknown := [name for name in (*self.fitted, *self.predicted) if name not in runs]:
            raise WrongInput(f"no usable row of the run {unknown[0]!r}; there are {', '.join(runs)}")
        fitted = self.fitted or [name for name in runs if name not in self.predicted]
        if not fitted:
            raise WrongInput("predict= names every run; none is left to fit")
        return list(dict.fromkeys(fitted)), list(dict.fromkeys(self.predicted))


def fit_schedule_law(source: Source, config: FitConfig, choice: RunChoice | None = None) -> ResponseFit:
    """law=tissue (2408.11029) or law=multi_power (2503.12811).

    Raises WrongInput for columns that are not there, a rate or step that cannot be, or a run of one row.
    """
    from harness.laws.curves import fit_multi_power, fit_tissue

    if config.resampling is not Resampling.runs:
        require_cases(config, "runs")
    curves = read_curves(source, choice or RunChoice())
    used = list(curves.fitted.values())
    solve = fit_tissue if config.law.name is LawName.tissue else fit_multi_power
    fit = solve(used, objective_of(config.law))
    step = step_of(fit, np.repeat(np.arange(len(used)), [len(curve.steps) for curve in used]))
    refusal = no_intervals(fit, len(used), config)
    drawn = replace(config, bootstraps=0) if refusal else config
    return ResponseFit(
        law=config.law.name,
        response="loss",
        steps=(step,),
        replicates=resample((step,), drawn),
        conventions={
            "schedule": "lr linear between logged steps, from zero at step 0 to the first",
            "resampling": "whole runs",
        },
        table=curves.table,
        level=config.level,
        bootstrap=bootstrap_json(drawn, len(used)),
        dropped=tuple(curves.left_out()),
        notes=(CORRELATED, *([refusal] if refusal else [])),
        details={
            "inputs": [],
            "curves": [
                *(curve_json(name, curve, fit, "fitted") for name, curve in curves.fitted.items()),
                *(curve_json(name, curve, fit, "predicted") for name, curve in curves.predicted.items()),
            ],
        },
    )


def no_intervals(fit: Fit, runs: int, config: FitConfig) -> str:
    """Why none are drawn; empty when they are, or were not asked for."""
    if not config.bootstraps:
        return ""
    if fit.status is FitStatus.not_identified:
        return "no intervals: the law is not identified"
    if config.law.name is LawName.multi_power:
        return "no intervals: every resample of multi_power costs a fit of its own"
    if runs < FEWEST_CLUSTERS:
        return f"no intervals: they redraw whole runs, at least {FEWEST_CLUSTERS}, and here are {runs}"
    return ""


@dataclass(frozen=True)
class Curves:
    """By run id, with the table that the losses are from."""

    fitted: dict[str, Curve]
    predicted: dict[str, Curve]
    table: ColumnTable

    def left_out(self) -> list[Skipped]:
        """Runs that pass the filters and were not chosen."""
        others = sorted({*self.table.labels} - {*self.fitted, *self.predicted})
        return [Skipped(name, "neither in curves= nor in predict=") for name in others]


def read_curves(source: Source, choice: RunChoice) -> Curves:
    """The curves of the chosen runs, of those that pass the filters. Raises WrongInput as `schedule` does."""
    from harness.laws.curves import Curve

    if not source.has("run_id"):
        raise WrongInput(f"{source.path} has no column 'run_id'; name its own: columns={{run_id: ITS_NAME}}")
    table, logged = source.read("step", "lr", "loss"), replace(source, where=()).read("step", "lr")
    losses, rates = by_run(table), by_run(logged)
    fitted, predicted = choice.of(list(losses))

    def curve(name: str) -> Curve:
        steps, loss = losses[name]["step"], losses[name]["loss"]
        if len(steps) < 2:
            raise WrongInput(f"the run {name!r} has one row; a curve needs at least two")
        lr = schedule(name, rates[name]["step"], rates[name]["lr"])
        if not (lr[: int(steps[0]) + 1] > 0).any():
            raise WrongInput(
                f"the run {name!r}: lr is still zero at step {steps[0]:g}, which no schedule law describes; "
                f"leave its loss out: 'where=[\"step>{steps[0]:g}\"]'"
            )
        return Curve(lr, steps.astype(np.intp), loss)

    return Curves({name: curve(name) for name in fitted}, {name: curve(name) for name in predicted}, table)


def by_run(table: ColumnTable) -> dict[str, Mapping[str, Floats]]:
    """The columns of every run, its rows in the table's order."""
    rows: dict[str, list[int]] = {}
    for at, name in enumerate(table.labels):
        rows.setdefault(name, []).append(at)
    return {
        name: {column: values[at] for column, values in table.values.items()} for name, at in rows.items()
    }


def schedule(name: str, steps: Floats, lr: Floats) -> Floats:
    """The learning rate [last + 1] at every step from 0 to the last logged one. Raises WrongInput for steps
    that are not whole, or do not increase, and rates that are negative or all zero."""
    if (steps != np.round(steps)).any() or steps[0] < 0 or steps.max() > LONGEST:
        raise WrongInput(f"the run {name!r}: step must be a whole number from 0 to {LONGEST:,}")
    if (falls := np.flatnonzero(np.diff(steps) <= 0)).size:
        before, after = steps[falls[0]], steps[falls[0] + 1]
        raise WrongInput(f"the run {name!r}: steps must increase, and {after:g} follows {before:g}")
    if (lr < 0).any() or not (lr > 0).any():
        raise WrongInput(
            f"the run {name!r}: lr must not be negative, nor always zero; "
            f"it lies in [{lr.min():g}, {lr.max():g}]"
        )
    if steps[0] > 0:
        steps, lr = np.concatenate([[0.0], steps]), np.concatenate([[0.0], lr])
    return np.interp(np.arange(int(steps[-1]) + 1), steps, lr)


def step_of(fit: Fit, cluster: Floats) -> Step:
    """The fit as a step of a response; `cluster` [n] numbers the run of each row."""
    return Step(
        form=fit.form,
        quantity="loss",
        status=fit.status,
        reasons=fit.reasons,
        notes=fit.notes,
        params=fit.params,
        standard_errors=fit.standard_errors,
        residual=-fit.solution.response_residual,
        cluster=cluster.astype(np.intp),
        how=fit.solution.how,
        solution=fit.solution,
    )


def predicted_loss(fit: Fit, curve: Curve) -> Floats:
    """[n], at the curve's own steps, with the merged changes that the constants were fitted with."""
    from harness.laws.curves import FIT_MERGE, TISSUE, annealing_rows, predict_multi_power

    if fit.form is TISSUE:
        return fit.predict(annealing_rows(curve.lr, curve.steps))
    return predict_multi_power(fit.params, curve.lr, curve.steps, FIT_MERGE)


def curve_json(name: str, curve: Curve, fit: Fit, role: str) -> dict[str, Any]:
    """The end of one run and the relative errors (predicted / measured - 1) along it."""
    loss = predicted_loss(fit, curve)
    errors = np.abs(loss / curve.loss - 1)
    return {
        "run_id": name,
        "role": role,
        "n": len(loss),
        "last_step": int(curve.steps[-1]),
        "loss": float(curve.loss[-1]),
        "predicted_loss": float(loss[-1]),
        "mean_relative_error": float(errors.mean()),
        "worst_relative_error": float(errors.max()),
    }
