"""From rows to the optimum of one form: surface, bounds, starts, polish, weak prior."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from harness.errors import CannotAnswer, WrongInput
from harness.laws.forms.form import Form, RowNumbers, Rows
from harness.laws.newton import FIRST_DELTA, Minimum, Problem, minimise, objective
from harness.laws.objective import FormSurface, Objective, Response, respond
from harness.laws.surfaces import Floats, Surface

RACE_ITERATIONS, FINALISTS = 15, 4
"""The best starts run a few iterations, the first of them to convergence; measured: one start in ten is
slow to converge, and the best one alone nearly always arrives."""

STARTS_AT_ONCE = 128


def initialisation(form: Form) -> str:
    """In words, how the optimum was looked for."""
    return (
        "a fixed grid of the form's own starts, amplitudes by non-negative least squares; "
        f"the best {form.raced} run {RACE_ITERATIONS} iterations, the first {FINALISTS} to convergence"
    )


def surface_of(form: Form, rows: Rows, how: Objective) -> Surface:
    """The form's own surface for ln L with every parameter free, whose coordinates may be centred."""
    if form.surface is not None and how.response is Response.log and not how.fixed:
        return form.surface(rows)
    return FormSurface(form, rows, how.response)


@dataclass(frozen=True, kw_only=True)
class Solution:
    """The optimum theta [p] with its problem and the rows that entered; `used` are their numbers in the
    input, `runs` [n] numbers the run each belongs to. `residual` [n] is fitted minus observed ln L,
    whatever the response; of a form with a signed response it is that of the response."""

    form: Form
    how: Objective
    problem: Problem
    rows: Rows
    loss: Floats
    theta: Floats
    objective: float
    converged: bool
    used: RowNumbers
    residual: Floats
    runs: RowNumbers | None = None

    @property
    def values(self) -> Floats:
        """Natural parameters [p]."""
        return self.problem.surface.to_values(self.theta[None])[0]

    @property
    def count(self) -> int:
        """How many parameters were fitted."""
        return int(self.problem.free.sum())

    @property
    def relative_weights(self) -> Floats:
        """The rows' weights over their mean, [n]."""
        weights = self.problem.weights[0]
        return np.asarray(weights / weights.mean())

    @property
    def response_residual(self) -> Floats:
        """[n] in the response the fit was made in."""
        return np.asarray(self.problem.surface.response(self.theta[None])[0] - self.problem.y[0])

    @property
    def scale(self) -> float:
        """Robust residual standard deviation in log loss of a row of mean weight; see `robust_scale`."""
        return robust_scale(self.residual * np.sqrt(self.relative_weights), self.count)

    @property
    def response_scale(self) -> float:
        """The same in the response."""
        return robust_scale(self.response_residual * np.sqrt(self.relative_weights), self.count)


def robust_scale(residual: Floats, n_parameters: int) -> float:
    """1.4826 times the median absolute residual, corrected for the fitted parameters.

    A law with p parameters passes through about p rows when fitted by a nearly absolute loss, so the
    median is taken over the n - p largest.
    """
    free = max(len(residual) - n_parameters, 1)
    return 1.4826 * float(np.median(np.sort(np.abs(residual))[-free:]))


def likelihood_scale(solution: Solution) -> float:
    """What turns a difference of summed Huber losses into half a chi-square: E psi^2 / E psi'.

    The mean square of psi is measured (n - p); the share of residuals within delta is that of a normal
    distribution of the robust scale, because counting them is too noisy on a few rows.
    """
    residual, delta = solution.response_residual, solution.problem.delta
    weights = solution.problem.weights[0]
    free = max(len(residual) - solution.count, 1)
    psi_squared = float(((weights * np.clip(residual, -delta, delta)) ** 2).sum()) / free
    root, scale = np.sqrt(solution.relative_weights), solution.response_scale
    bend = float(weights.mean())
    if scale > 0 and math.isfinite(delta):
        reach = delta * root / scale / math.sqrt(2)
        bend = float((weights * [math.erf(x) for x in reach]).mean())
    return psi_squared / bend


def normal_scale(deviation: float, delta: float) -> float:
    """The likelihood scale of normal residuals of this standard deviation and mean weight."""
    if not (deviation > 0 and math.isfinite(delta)):
        return deviation**2
    reach = delta / deviation
    inside, density = math.erf(reach / math.sqrt(2)), math.exp(-(reach**2) / 2) / math.sqrt(2 * math.pi)
    psi_squared = deviation**2 * (inside - 2 * reach * density) + delta**2 * (1 - inside)
    return psi_squared / inside


def solve_form(
    form: Form,
    given: Mapping[str, object],
    loss: Floats,
    how: Objective,
    weights: Floats | None = None,
    runs: RowNumbers | None = None,
) -> Solution:
    """The global optimum as far as a deterministic grid of starts can tell.

    `weights` multiply the rows' losses; `runs` numbers the run of each row, for resampling whole runs.

    Raises CannotAnswer for too few rows, or rows that are not positive finite numbers, WrongInput for a
    missing column or an unknown held parameter.
    """
    if unknown := sorted(set(how.fixed) - set(form.names)):
        raise WrongInput(f"{form.name} has no parameter {', '.join(unknown)}")
    rows, weight = form.rows(given), np.ones(len(loss)) if weights is None else weights
    refuse_unusable(form, {**rows, "weight": weight}, loss)
    used = form.keep(rows, loss)
    rows, loss = {name: column[used] for name, column in rows.items()}, loss[used]
    free = len(form.parameters) - len(how.fixed)
    if len(loss) < free + 1:
        raise CannotAnswer(
            f"{len(loss)} usable rows cannot determine the {free} free parameters of {form.name}; "
            f"at least {free + 1} are needed"
        )
    problem = problem_of(form, rows, loss, weight[used], how)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore", under="ignore"):
        starts = problem.surface.to_theta(form.starts(rows, loss))
        minimum = best_of_starts(problem, starts, form.raced)
        if minimum is None:
            raise CannotAnswer(f"{form.name} finds no starting point on these rows; vary its columns more")
        solution = solution_of(form, how, problem, rows, loss, minimum, used)
        solution = with_prior(solution, starts) if how.weak_prior else solution
    return replace(solution, runs=None if runs is None else runs[used])


def refuse_unusable(form: Form, rows: Rows, loss: Floats) -> None:
    columns = [(name, column, name in form.signed) for name, column in rows.items()]
    for name, column, signed in (*columns, ("loss", loss, form.signed_response)):
        if column.shape != loss.shape:
            raise CannotAnswer(f"{form.name}: {name} has {len(column)} rows, the loss {len(loss)}")
        bad = int((~(np.isfinite(column) & ((column > 0) | signed))).sum())
        if bad:
            raise CannotAnswer(f"{form.name}: {name} is not a positive number on {bad} of {len(loss)} rows")


def problem_of(form: Form, rows: Rows, loss: Floats, weights: Floats, how: Objective) -> Problem:
    surface = surface_of(form, rows, how)
    lower, upper = surface.bounds(float(loss.min()))
    for name, value in how.fixed.items():
        at = form.names.index(name)
        log = form.parameters[at].log
        lower[at] = upper[at] = np.log(value) if log else value
    zeros = np.zeros(len(form.parameters))
    return Problem(
        surface=surface,
        y=respond(how.response, loss)[0][None],
        weights=weights[None],
        delta=how.delta,
        lower=lower,
        upper=upper,
        prior_mean=zeros,
        prior_precision=zeros,
    )


def best_of_starts(problem: Problem, starts: Floats, raced: int) -> Minimum | None:
    """The finalists. Starts are ranked under a wide delta, because a narrow one sees no slope from afar."""
    starts = np.clip(starts, problem.lower, problem.upper)
    wide = replace(problem, delta=max(problem.delta, FIRST_DELTA))
    chunks = [starts[i : i + STARTS_AT_ONCE] for i in range(0, len(starts), STARTS_AT_ONCE)]
    values = np.concatenate([objective(wide, chunk) for chunk in chunks]) if chunks else np.zeros(0)
    order = np.argsort(values, kind="stable")[:raced]
    order = order[np.isfinite(values[order])]
    if not len(order):
        return None
    first = minimise(problem, starts[order], iterations=RACE_ITERATIONS)
    ahead = np.argsort(first.objective, kind="stable")[:FINALISTS]
    return minimise(problem, first.theta[ahead], first_delta=problem.delta, iterations=500)


def solution_of(
    form: Form,
    how: Objective,
    problem: Problem,
    rows: Rows,
    loss: Floats,
    minimum: Minimum,
    used: RowNumbers,
) -> Solution:
    """The best of several polished starts."""
    best = int(np.argmin(minimum.objective))
    theta = minimum.theta[best]
    fitted = form.losses(problem.surface.to_values(theta[None]), rows)[0]
    return Solution(
        form=form,
        how=how,
        problem=problem,
        rows=rows,
        loss=loss,
        theta=theta,
        objective=float(minimum.objective[best]),
        converged=bool(minimum.converged[best]),
        used=used,
        residual=fitted - loss if form.signed_response else np.log(fitted) - np.log(loss),
    )


def with_prior(plain: Solution, starts: Floats) -> Solution:
    """Refit with the form's weak prior, from the starts and from the plain optimum."""
    problem = plain.problem
    scale = max(likelihood_scale(plain), normal_scale(plain.how.quietest, problem.delta))
    mean, precision = problem.prior_mean.copy(), problem.prior_precision.copy()
    for name, (centre, deviation) in plain.form.weak_prior.items():
        at = plain.form.names.index(name)
        mean[at], precision[at] = centre, scale / deviation**2
    problem = replace(problem, prior_mean=mean, prior_precision=precision)
    found = [minimise(problem, plain.theta[None]), best_of_starts(problem, starts, plain.form.raced)]
    candidates = [
        solution_of(plain.form, plain.how, problem, plain.rows, plain.loss, minimum, plain.used)
        for minimum in found
        if minimum is not None
    ]
    return min(candidates, key=lambda s: s.objective)
