"""One form fitted to rows: parameters in full precision, how they were found, and whether to believe them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.errors import WrongInput
from harness.laws.conventions import SIX_ND, TokenCost
from harness.laws.fit import FitStatus, Optimum, finite
from harness.laws.forms.form import Form, Parameter, optimum, predict
from harness.laws.forms.misfit import missing_curvature
from harness.laws.forms.solve import Objective, Optimised, solve_form, to_values
from harness.laws.identify import FLOOR_AT_ZERO, LARGEST_RESIDUAL
from harness.laws.solve import robust_scale
from harness.laws.surfaces import Floats

DEGENERATE = 1e-6
"""Ratio of the smallest to the largest singular value of the Jacobian, columns scaled to unit length."""

AT_BOUND = 0.01
"""A parameter this near to its bound (in its logarithm, or as a share of the range) is on it."""

UNCERTAIN, UNDETERMINED = 1.0, 23.0
"""Standard errors of a logarithm: a factor of e, and one of ten thousand million."""


@dataclass(frozen=True, kw_only=True)
class FormFit:
    """`objective` is the summed loss of the residuals of the response; `residual_rms` and
    `residual_scale` (robust) are in log loss. `standard_errors` are of ln p for positive parameters, of p
    otherwise: Gauss-Newton, from the robust scale; nothing for held parameters.
    """

    form: Form
    status: FitStatus
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    params: dict[str, float]
    standard_errors: dict[str, float]
    objective: float
    n: int
    left_out: int
    residual_rms: float
    residual_scale: float
    conventions: dict[str, str]
    solution: Optimised

    def predict(self, columns: Mapping[str, object]) -> Floats:
        """The loss [n], in the unit of the rows."""
        return predict(self.form, self.params, columns)

    def optimum(
        self, flops: float, given: Mapping[str, float] | None = None, cost: TokenCost = SIX_ND
    ) -> Optimum:
        """The allocation that minimises the loss at `flops`; a token costs what `cost` says.

        Raises CannotAnswer for a form that does not know params and tokens apart.
        """
        n, d = optimum(self.form, self.params, flops, given, cost)
        loss = float(self.predict({**(given or {}), "params": n, "tokens": d})[0])
        return Optimum(flops=flops, params=n, tokens=d, loss=loss, flops_convention=cost.label)

    def to_json(self) -> dict[str, Any]:
        return {
            "law": self.form.name,
            "status": self.status.value,
            "reasons": list(self.reasons),
            "notes": list(self.notes),
            "params": dict(self.params),
            "standard_errors": {name: finite(value) for name, value in self.standard_errors.items()},
            "objective": self.objective,
            "n": self.n,
            "left_out": self.left_out,
            "residual_rms": self.residual_rms,
            "residual_scale": self.residual_scale,
            "conventions": dict(self.conventions),
        }


def fit_form(
    form: Form, columns: Mapping[str, object], loss: object, how: Objective | None = None
) -> FormFit:
    """Fit `form` to `columns` and `loss` by `how` (summed Huber of ln L, delta 1e-3, when not given).

    A fit the rows cannot support comes back as `not_identified` with its reasons. Raises CannotAnswer for
    too few or unusable rows, WrongInput for a missing column or an unknown held parameter.
    """
    how = how or Objective()
    unknown = sorted(set(how.fixed) - set(form.names))
    if unknown:
        raise WrongInput(f"{form.name} has no parameter {', '.join(unknown)}")
    losses = np.atleast_1d(np.asarray(loss, dtype=float))
    found = solve_form(form, columns, losses, how)
    values = to_values(form, found.theta)
    params = {name: float(value) for name, value in zip(form.names, values, strict=True)}
    residual = np.log(predict(form, params, found.rows)) - np.log(losses[found.used])
    scale = robust_scale(residual, len(values) - len(how.fixed))
    errors, degeneracy = standard_errors(form, found, how)
    free = np.array([name not in how.fixed for name in form.names])
    bend = missing_curvature(form, found.rows, found.theta, free, residual)
    reasons = (*refusals(form, found, how, degeneracy, scale), *([bend] if bend else []))
    return FormFit(
        form=form,
        status=FitStatus.not_identified if reasons else FitStatus.identified,
        reasons=reasons,
        notes=tuple(doubts(form, params, errors)),
        params=params,
        standard_errors=errors,
        objective=found.objective,
        n=len(residual),
        left_out=len(losses) - len(residual),
        residual_rms=float(np.sqrt(np.mean(residual**2))),
        residual_scale=scale,
        conventions=conventions(how),
        solution=found,
    )


def conventions(how: Objective) -> dict[str, str]:
    loss = "least squares" if math.isinf(how.delta) else f"huber {how.delta:g}, summed"
    held = ", ".join(f"{name}={value!r}" for name, value in how.fixed.items())
    return {
        "response": how.response.value,
        "loss_function": loss,
        "held": held or "none",
    }


def standard_errors(form: Form, found: Optimised, how: Objective) -> tuple[dict[str, float], float]:
    """By name, and the ratio of the Jacobian's extreme singular values."""
    problem = found.problem
    response, jacobian = problem.law.gradient(found.theta[None], problem.u, problem.v)
    free = np.array([name not in how.fixed for name in form.names])
    columns = jacobian[0][:, free]
    length = np.maximum(np.linalg.norm(columns, axis=0), 1e-300)
    _, singular, basis = np.linalg.svd(columns / length, full_matrices=False)
    scale = robust_scale(response[0] - problem.y[0], int(free.sum()))
    spread = np.sqrt(((basis / np.maximum(singular, 1e-100)[:, None]) ** 2).sum(axis=0)) * scale / length
    names = [name for name, is_free in zip(form.names, free, strict=True) if is_free]
    errors = {name: float(error) for name, error in zip(names, spread, strict=True)}
    return errors, float(singular[-1] / singular[0])


def refusals(
    form: Form, found: Optimised, how: Objective, degeneracy: float, scale: float
) -> tuple[str, ...]:
    """Why the parameters cannot be believed; empty when they can."""
    problem = found.problem
    reasons = []
    for parameter, at, low, high in zip(
        form.parameters, found.theta, problem.lower, problem.upper, strict=True
    ):
        if parameter.name not in how.fixed:
            reasons.extend(boundary(parameter, float(at), float(low), float(high)))
    if degeneracy < DEGENERATE:
        reasons.append(
            f"the parameters cannot be told apart: the smallest singular value of the Jacobian is "
            f"{degeneracy:.1e} of the largest"
        )
    if scale > LARGEST_RESIDUAL:
        reasons.append(f"the residual is {scale:.2%} of the loss, the limit {LARGEST_RESIDUAL:.0%}")
    if not found.converged:
        reasons.append("the minimiser did not converge")
    return tuple(reasons)


def boundary(parameter: Parameter, at: float, low: float, high: float) -> list[str]:
    """One line when a parameter ends on a bound; a floor also when it is negligible."""
    reach = AT_BOUND if parameter.log else AT_BOUND * (high - low)
    shown = math.exp(at) if parameter.log else at
    if parameter.floor and at < high + math.log(FLOOR_AT_ZERO / parameter.high):
        return [f"{parameter.name} ran to zero ({shown:.1e})"]
    if at - low < reach or high - at < reach:
        side = "lower" if at - low < high - at else "upper"
        return [f"{parameter.name} ran to its {side} bound ({shown:g})"]
    return []


def doubts(form: Form, params: Mapping[str, float], errors: Mapping[str, float]) -> list[str]:
    """What is weakly determined although the law describes its rows."""
    found = []
    for parameter in form.parameters:
        error = errors.get(parameter.name, 0.0)
        if parameter.log and error > UNDETERMINED:
            found.append(f"{parameter.name} is not determined")
        elif parameter.log and error > UNCERTAIN:
            found.append(f"{parameter.name} is known only to a factor of {math.exp(error):.3g}")
        elif not parameter.log and error > abs(params[parameter.name]):
            found.append(f"{parameter.name} cannot be told from zero (standard error {error:.3g})")
    return found
