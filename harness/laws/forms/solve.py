"""From rows to the optimum of one form: bounds, starts, polish with the engine's Newton method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import cast

import numpy as np

from harness.errors import CannotAnswer
from harness.laws.expansion import Expansion, Target, expand_curved
from harness.laws.forms.form import Form, RowNumbers, Rows, gradient
from harness.laws.newton import FIRST_DELTA, Minimum, Problem, minimise, objective
from harness.laws.surfaces import Floats, Law

RACED, RACE_ITERATIONS, FINALISTS = 24, 15, 4
"""The best starts run a few iterations, the first of them to convergence."""

STARTS_AT_ONCE = 64

INITIALISATION = (
    "a fixed grid of the form's own starts, amplitudes by non-negative least squares; "
    f"the best {RACED} run {RACE_ITERATIONS} iterations, the first {FINALISTS} to convergence"
)

STEP = 1e-4
"""Of the central differences of the analytic gradient; the objective itself needs no second derivative."""


class Response(Enum):
    """What the residual is taken of: ln L, L itself, or ln(1 + L)."""

    log = "ln L"
    loss = "L"
    log1p = "ln(1 + L)"


@dataclass(frozen=True)
class Objective:
    """The summed Huber loss of residuals of `response`; least squares for an infinite `delta`.

    `fixed` holds parameters at given natural values.
    """

    response: Response = Response.log
    delta: float = 1e-3
    fixed: Mapping[str, float] = field(default_factory=dict)


def respond(response: Response, loss: Floats) -> tuple[Floats, Floats]:
    """The response and its derivative by the loss."""
    match response:
        case Response.log:
            return np.log(loss), 1 / loss
        case Response.loss:
            return loss, np.ones_like(loss)
        case Response.log1p:
            return np.log1p(loss), 1 / (1 + loss)


def to_values(form: Form, theta: Floats) -> Floats:
    """Natural values from theta, both [..., p]: the exponential of logarithmic parameters."""
    logs = np.array([parameter.log for parameter in form.parameters])
    return np.where(logs, np.exp(np.where(logs, theta, 0.0)), theta)


def to_theta(form: Form, values: Floats) -> Floats:
    """Theta from natural values, both [..., p]."""
    logs = np.array([parameter.log for parameter in form.parameters])
    return np.where(logs, np.log(np.where(logs, values, 1.0)), values)


@dataclass(frozen=True)
class Surface:
    """A form on given rows, as the Newton method sees it; `u` and `v` of its calls are not used."""

    form: Form
    rows: Rows
    response: Response

    def log_loss(self, theta: Floats, u: Floats, v: Floats) -> Floats:
        loss, _ = self.form.evaluate(to_values(self.form, theta).T[:, :, None], self.rows)
        return respond(self.response, loss)[0]

    def gradient(self, theta: Floats, u: Floats, v: Floats) -> tuple[Floats, Floats]:
        values = to_values(self.form, theta)
        loss, jacobian = gradient(self.form, values, self.rows)
        response, slope = respond(self.response, loss)
        logs = np.array([parameter.log for parameter in self.form.parameters])
        chain = np.where(logs, values, 1.0)[:, None, :]
        return response, jacobian * chain * slope[:, :, None]

    def expand(self, theta: Floats, u: Floats, v: Floats, target: Target) -> Expansion:
        return expand_curved(self, theta, u, v, target)

    def curvature(self, theta: Floats, u: Floats, v: Floats, scores: Floats) -> Floats:
        if not self.form.second_derivatives:
            return np.zeros((len(theta), theta.shape[1], theta.shape[1]))

        def score_gradient(at: Floats) -> Floats:
            return np.einsum("kn,knp->kp", scores, self.gradient(at, u, v)[1])

        columns = []
        for i in range(theta.shape[1]):
            step = np.zeros_like(theta)
            step[:, i] = STEP * np.maximum(1.0, np.abs(theta[:, i]))
            columns.append(
                (score_gradient(theta + step) - score_gradient(theta - step)) / 2 / step[:, i, None]
            )
        total = np.stack(columns, axis=-1)
        return 0.5 * (total + np.swapaxes(total, 1, 2))


@dataclass(frozen=True)
class Optimised:
    """theta [p] with its problem and rows; `used` are the row numbers of the input that entered."""

    problem: Problem
    rows: Rows
    theta: Floats
    objective: float
    converged: bool
    used: RowNumbers


def solve_form(form: Form, given: Mapping[str, object], loss: Floats, how: Objective) -> Optimised:
    """The best of a deterministic grid of starts.

    Raises CannotAnswer for too few rows, or rows that are not positive finite numbers.
    """
    rows = form.rows(given)
    refuse_unusable(form, rows, loss)
    used = form.keep(rows, loss)
    rows, loss = {name: column[used] for name, column in rows.items()}, loss[used]
    free = len(form.parameters) - len(how.fixed)
    if len(loss) < free + 1:
        raise CannotAnswer(
            f"{len(loss)} usable rows cannot determine the {free} free parameters of {form.name}; "
            f"at least {free + 1} are needed"
        )
    problem = problem_of(form, rows, loss, how)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore", under="ignore"):
        minimum = best_of_starts(problem, to_theta(form, form.starts(rows, loss)))
    if minimum is None:
        raise CannotAnswer(f"{form.name} finds no starting point on these rows; vary its columns more")
    best = int(np.argmin(minimum.objective))
    return Optimised(
        problem=problem,
        rows=rows,
        theta=minimum.theta[best],
        objective=float(minimum.objective[best]),
        converged=bool(minimum.converged[best]),
        used=used,
    )


def refuse_unusable(form: Form, rows: Rows, loss: Floats) -> None:
    for name, column in (*rows.items(), ("loss", loss)):
        if column.shape != loss.shape:
            raise CannotAnswer(f"{form.name}: {name} has {len(column)} rows, the loss {len(loss)}")
        bad = int((~(np.isfinite(column) & ((column > 0) | (name in form.signed)))).sum())
        if bad:
            raise CannotAnswer(f"{form.name}: {name} is not a positive number on {bad} of {len(loss)} rows")


def problem_of(form: Form, rows: Rows, loss: Floats, how: Objective) -> Problem:
    smallest = float(loss.min())
    bounds = np.array(
        [
            [x * smallest if parameter.floor else x for x in (parameter.low, parameter.high)]
            for parameter in form.parameters
        ]
    ).T
    for name, value in how.fixed.items():
        bounds[:, form.names.index(name)] = value
    lower, upper = (to_theta(form, bound) for bound in bounds)
    zeros = np.zeros(len(form.parameters))
    surface = Surface(form, rows, how.response)
    return Problem(
        # Of a Law the Newton method calls only the three functions that Surface has.
        law=cast(Law, surface),
        u=zeros,
        v=zeros,
        y=respond(how.response, loss)[0][None],
        weights=np.ones((1, len(loss))),
        delta=how.delta,
        lower=lower,
        upper=upper,
        prior_mean=zeros,
        prior_precision=zeros,
    )


def best_of_starts(problem: Problem, starts: Floats) -> Minimum | None:
    """Ranked under a wide delta, because a narrow one sees no slope from afar."""
    starts = np.clip(starts, problem.lower, problem.upper)
    wide = replace(problem, delta=max(problem.delta, FIRST_DELTA))
    chunks = [starts[i : i + STARTS_AT_ONCE] for i in range(0, len(starts), STARTS_AT_ONCE)]
    values = np.concatenate([objective(wide, chunk) for chunk in chunks]) if chunks else np.zeros(0)
    order = np.argsort(values, kind="stable")[:RACED]
    order = order[np.isfinite(values[order])]
    if not len(order):
        return None
    first = minimise(problem, starts[order], iterations=RACE_ITERATIONS)
    ahead = np.argsort(first.objective, kind="stable")[:FINALISTS]
    return minimise(problem, first.theta[ahead], first_delta=problem.delta, iterations=500)
