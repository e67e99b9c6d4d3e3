"""One form fitted to one response, with the reasons not to believe it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.errors import CannotAnswer
from harness.laws.bounds import boundaries
from harness.laws.checks import Grade
from harness.laws.fit import FitStatus, conventions, doubts, standard_errors
from harness.laws.forms.form import Form, RowNumbers, predict
from harness.laws.identify import DEGENERATE, check_residual, degeneracy
from harness.laws.objective import Objective
from harness.laws.solve import Solution, solve_form
from harness.laws.surfaces import Floats

LEAST_SHARE = 0.5
"""Of the variance of the response a law has to explain; below it, the rows hardly show the law."""


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
    solution: Solution

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
        said = conventions(self.solution)
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
    limits: Mapping[str, float] | None = None,
    may_be_constant: bool = False,
) -> Step:
    """Fit `form`. A parameter of `limits` may end on that bound of its own, which is a limit of the quantity
    itself, as no accuracy exceeds 1; it is then said so in a note. Unless the quantity `may_be_constant`, a
    form that explains little of its variance is refused.

    Raises CannotAnswer for too few rows, or rows that are not positive numbers where they have to be.
    """
    if bad := 0 if form.signed_response else int((~(response > 0)).sum()):
        raise CannotAnswer(
            f"{quantity} is not positive on {bad} of {len(response)} rows; leave them out: where={quantity}>0"
        )
    found = solve_form(form, rows, response, how)
    params, errors = form.named(found.values), standard_errors(found)
    target, residual = found.problem.y[0], -found.response_residual
    reasons, at_limit = ends(found, limits or {})
    reasons += [] if may_be_constant else unexplained(form, target, residual)
    if degeneracy(found) < DEGENERATE and not at_limit:
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
        residual=residual,
        cluster=np.arange(len(response)) if cluster is None else cluster,
        how=how,
        solution=found,
    )


def ends(found: Solution, limits: Mapping[str, float]) -> tuple[list[str], list[str]]:
    """Parameters that ended on a bound: as a reason, or as a note where the bound is a limit."""
    reasons: list[str] = []
    notes: list[str] = []
    for end in boundaries(found):
        one, value = found.form.parameters[end.at], found.values[end.at]
        bound = one.low if end.limit == found.problem.lower[end.at] else one.high
        if limits.get(one.name) == bound:
            notes.append(f"{one.name} = {value:.3g} is the end of what it can be")
        else:
            reasons.append(end.reason)
    return reasons, notes


def unexplained(form: Form, target: Floats, residual: Floats) -> list[str]:
    total = float(((target - target.mean()) ** 2).sum())
    share = 1 - float((residual**2).sum()) / total if total > 0 else 0.0
    if share >= LEAST_SHARE:
        return []
    return [f"{form.name} explains {max(share, 0):.0%} of the variance of these rows, less than half"]


def close(step: Step) -> Step:
    """A step of losses, refused when it misses them by more than a law of N and D may."""
    missed = check_residual(step.solution)
    return refused(step, missed.reason) if missed.grade is Grade.failed else step


def refused(step: Step, *reasons: str) -> Step:
    """The step with further reasons not to believe it."""
    return replace(step, status=FitStatus.not_identified, reasons=(*step.reasons, *reasons))
