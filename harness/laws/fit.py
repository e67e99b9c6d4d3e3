"""One law fitted to one set of rows, with its conventions, its checks and its verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np

from harness.laws.bootstrap import Replicates, finite, resample
from harness.laws.bounds import Boundary, boundaries
from harness.laws.checks import Check, Grade
from harness.laws.config import LawConfig, Resampling
from harness.laws.conventions import SIX_ND, TokenCost
from harness.laws.figures import parameter
from harness.laws.forms.catalogue import FORMS
from harness.laws.forms.form import Form, RowNumbers, predict
from harness.laws.forms.optimum import optimum
from harness.laws.identify import identify
from harness.laws.objective import Objective, objective_of
from harness.laws.observations import FLOPS_6ND, Observations
from harness.laws.precision import UNDETERMINED, check_allocation, check_parameters
from harness.laws.profile import Profile, covariance, profile
from harness.laws.seeds import SeedNoise, seed_noise
from harness.laws.solve import Solution, solve_form
from harness.laws.surfaces import Floats
from harness.runs import Skipped

UNCERTAIN = 1.0
"""Standard error of a logarithm: a factor of e."""


class FitStatus(Enum):
    identified = "identified"
    not_identified = "not_identified"


@dataclass(frozen=True)
class Optimum:
    """The compute-optimal allocation of `flops`, counted as `flops_convention` says, and its loss."""

    flops: float
    params: float
    tokens: float
    loss: float
    flops_convention: str = FLOPS_6ND

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "tokens_per_param": self.tokens / self.params}


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One result for every law.

    `params` are in full precision, in the units of `conventions`; `objective` is the summed loss of the
    residuals of the response; `residual_rms` and `residual_scale` (robust) are in log loss.
    `standard_errors` are of ln p for positive parameters searched as logarithms, of p otherwise:
    Gauss-Newton, from the robust scale; nothing for held parameters. `profile` is that of the first
    parameter on a bound, else of the irreducible loss. `left_out` rows were not on a frontier's envelope.
    """

    form: Form
    status: FitStatus
    params: dict[str, float]
    standard_errors: dict[str, float]
    objective: float
    n: int
    left_out: int
    residual_rms: float
    residual_scale: float
    conventions: dict[str, str]
    checks: tuple[Check, ...]
    profile: Profile | None
    seed_noise: SeedNoise | None
    solution: Solution
    dropped: tuple[Skipped, ...] = ()
    data_hash: str = ""

    @property
    def law(self) -> str:
        return self.form.name

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the fit is not identified; empty when it is."""
        return tuple(check.reason for check in self.checks if check.grade is Grade.failed)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is weakly determined although the fit is usable."""
        weak = tuple(check.reason for check in self.checks if check.grade is Grade.weak)
        return (*weak, *doubts(self.form, self.params, self.standard_errors))

    def predict(self, columns: Mapping[str, object]) -> Floats:
        """The loss [n], in the unit of the rows; columns the law does not read are ignored."""
        return predict(self.form, self.params, columns)

    def optimum(
        self, flops: float, cost: TokenCost = SIX_ND, given: Mapping[str, float] | None = None
    ) -> Optimum:
        """The allocation that minimises the loss at `flops`; a token costs what `cost` says, and `given`
        holds what else the law reads, such as unique_tokens.

        Raises CannotAnswer for a form that does not know params and tokens apart.
        """
        n, d = optimum(self.form, self.params, flops, cost, given)
        loss = float(self.predict({**(given or {}), "params": n, "tokens": d})[0])
        return Optimum(flops=flops, params=n, tokens=d, loss=loss, flops_convention=cost.label)

    def to_json(self) -> dict[str, Any]:
        """Without intervals; `intervals.fit_json` adds them and the optimum."""
        how = self.solution.how
        return {
            "law": self.law,
            "status": self.status.value,
            "reasons": list(self.reasons),
            "notes": list(self.notes),
            "params": dict(self.params),
            "standard_errors": {name: finite(value) for name, value in self.standard_errors.items()},
            "objective": self.objective,
            "loss_function": loss_function_json(how),
            "weak_prior": how.weak_prior,
            "n": self.n,
            "left_out": self.left_out,
            "residual_rms": self.residual_rms,
            "residual_scale": self.residual_scale,
            "seed_noise": self.seed_noise and self.seed_noise.to_json(),
            "dropped": dropped_json(self.dropped),
            "conventions": dict(self.conventions),
            "checks": [check.to_json() for check in self.checks],
            "profile": self.profile and self.profile.to_json(),
            "data_hash": self.data_hash,
        }


def loss_function_json(how: Objective) -> dict[str, Any]:
    name = "huber" if math.isfinite(how.delta) else "least_squares"
    return {"name": name, "delta": finite(how.delta)}


def dropped_json(dropped: tuple[Skipped, ...]) -> list[dict[str, Any]]:
    """Counted by reason, with the names."""
    names: dict[str, list[str]] = {}
    for item in dropped:
        names.setdefault(item.reason, []).append(item.name)
    return [
        {"reason": reason, "count": len(found), "names": sorted({*found} - {"(filter)"})}
        for reason, found in names.items()
    ]


def fit_law(observations: Observations, config: LawConfig, level: float = 0.9) -> Fit:
    """Fit the law that `config` names; see `fit_observed`."""
    return fit_observed(observations, FORMS[config.name.value], config, level)


def fit_observed(observations: Observations, form: Form, config: LawConfig, level: float = 0.9) -> Fit:
    """Fit `form` to ln L of the observations with the loss function of `config`.

    A fit that the rows cannot support comes back as `not_identified` with its reasons, not as an error.
    Raises WrongInput for a column the observations do not have, CannotAnswer for too few rows.
    """
    solution = solve(observations, config, form)
    fit = judged(solution, level, seed_noise(observations), len(observations))
    return replace(
        fit,
        conventions={**observations.conventions, **fit.conventions},
        dropped=observations.dropped,
        data_hash=observations.data_hash(),
    )


def solve(observations: Observations, config: LawConfig, form: Form | None = None) -> Solution:
    """The optimum alone, unjudged: of `form`, else of the law that `config` names."""
    form = form or FORMS[config.name.value]
    how = objective_of(config)
    runs = np.arange(len(observations))
    if observations.clusters:
        runs = np.unique(observations.clusters, return_inverse=True)[1]
    return solve_form(form, observations.columns, observations.loss, how, observations.weights, runs)


def fit_form(
    form: Form,
    columns: Mapping[str, object],
    loss: object,
    how: Objective | None = None,
    weights: Floats | None = None,
    runs: RowNumbers | None = None,
    level: float = 0.9,
) -> Fit:
    """Fit `form` to `columns` and `loss` by `how` (summed Huber of ln L, delta 1e-3, when not given).

    `weights` [n] multiply the rows' losses, `runs` [n] numbers the run each row belongs to, `level` is
    that of the profile. A fit the rows cannot support comes back as `not_identified` with its reasons.
    Raises CannotAnswer for too few or unusable rows, WrongInput for a missing column or an unknown held
    parameter.
    """
    losses = np.atleast_1d(np.asarray(loss, dtype=float))
    solution = solve_form(form, columns, losses, how or Objective(), weights, runs)
    return judged(solution, level, None, len(losses))


def judged(solution: Solution, level: float, noise: SeedNoise | None, rows: int) -> Fit:
    """A solution with its checks, errors and the profile that bears on them."""
    found = boundaries(solution)
    shape = bearing_profile(solution, found, level)
    errors = standard_errors(solution)
    known = (check_parameters(solution, errors), *check_allocation(solution))
    checks = (*identify(solution, found, shape, noise), *known)
    failed = any(check.grade is Grade.failed for check in checks)
    return Fit(
        form=solution.form,
        status=FitStatus.not_identified if failed else FitStatus.identified,
        params=solution.form.named(solution.values),
        standard_errors=errors,
        objective=solution.objective,
        n=len(solution.loss),
        left_out=rows - len(solution.loss),
        residual_rms=float(np.sqrt(np.mean(solution.residual**2))),
        residual_scale=solution.scale,
        conventions=conventions(solution),
        checks=checks,
        profile=shape,
        seed_noise=noise,
        solution=solution,
    )


def bearing_profile(solution: Solution, found: list[Boundary], level: float) -> Profile | None:
    """Of the first parameter on a bound, else of the irreducible loss where the form is cheap."""
    at = found[0].at if found else solution.form.floor
    held = at is None or not solution.problem.free[at]
    if at is None or held or not (found or solution.form.second_derivatives):
        return None
    return profile(solution, parameter(solution.form, at), level)


def conventions(solution: Solution) -> dict[str, str]:
    how, weights = solution.how, solution.problem.weights[0]
    loss = "least squares" if math.isinf(how.delta) else f"huber {how.delta:g}, summed"
    held = ", ".join(f"{name}={value!r}" for name, value in how.fixed.items())
    equal = bool((weights == weights[0]).all())
    return {
        "response": how.response.value,
        "loss_function": loss,
        "weights": "equal" if equal else "multiply the loss of the row",
        "held": held or "none",
    }


def standard_errors(solution: Solution) -> dict[str, float]:
    """By name, of the free parameters."""
    free = [i for i, is_free in enumerate(solution.problem.free) if is_free]
    spread = natural_gradient(solution)[free][:, free]
    errors = np.sqrt(np.maximum(np.einsum("ip,pq,iq->i", spread, covariance(solution), spread), 0.0))
    return {solution.form.names[i]: float(error) for i, error in zip(free, errors, strict=True)}


def natural_gradient(solution: Solution) -> Floats:
    """Derivatives of every parameter (or its logarithm, where searched so) by theta, [p, p]."""
    surface, size = solution.problem.surface, len(solution.theta)
    step = 1e-4
    with np.errstate(all="ignore"):
        ends = [surface.to_values(solution.theta + sign * step * np.eye(size)) for sign in (1, -1)]
        logs = np.array([one.log for one in solution.form.parameters])
        ahead, behind = (np.where(logs, np.log(np.where(logs, end, 1.0)), end) for end in ends)
    return np.asarray((ahead - behind).T / 2 / step)


def doubts(form: Form, params: Mapping[str, float], errors: Mapping[str, float]) -> list[str]:
    """What is weakly determined although the law describes its rows."""
    found = []
    for one in form.parameters:
        error = errors.get(one.name, 0.0)
        if one.log and error > UNDETERMINED:
            found.append(f"{one.name} is not determined")
        elif one.log and error > UNCERTAIN:
            found.append(f"{one.name} is known only to a factor of {math.exp(error):.3g}")
        elif not one.log and error > abs(params[one.name]):
            found.append(f"{one.name} cannot be told from zero (standard error {error:.3g})")
    return found


def resample_form(
    fit: Fit, count: int, seed: int = 0, resampling: Resampling = Resampling.cases
) -> Replicates:
    """Refit `count` resamples; see `bootstrap.resample`."""
    return resample(fit.solution, count, resampling, seed)
