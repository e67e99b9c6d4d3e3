"""A form fitted to a project's observations, and the JSON of that fit with its intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from harness.laws.bootstrap import MULTIPLES
from harness.laws.config import FitConfig, LawConfig
from harness.laws.conventions import TokenCost, stated, token_cost
from harness.laws.fit import dropped_json, finite
from harness.laws.forms.fit import FormFit, fit_form
from harness.laws.forms.form import Form
from harness.laws.forms.resample import FormReplicates, resample_form
from harness.laws.forms.solve import Objective
from harness.laws.observations import Observations

SLOPE_STEP = 1.01
"""Ratio of the two budgets between which the allocation exponent is measured."""


def fit_observed(observations: Observations, form: Form, config: LawConfig) -> FormFit:
    """Fit `form` to ln L of the observations with the loss function of `config`.

    Raises WrongInput for a column the observations do not have, CannotAnswer for too few rows.
    """
    columns = {name: getattr(observations, name) for name in ("params", "tokens", "flops")}
    return fit_form(form, columns, observations.loss, Objective(delta=config.effective_delta))


def exponent_a(fit: FormFit, flops: float, given: Mapping[str, float] | None = None) -> float:
    """a in N* proportional to C^a, near `flops`: a form other than Chinchilla's need not have one a."""
    low, high = (fit.optimum(c, given).params for c in (flops, flops * SLOPE_STEP))
    return math.log(high / low) / math.log(SLOPE_STEP)


def form_json(
    observations: Observations, fit: FormFit, config: FitConfig, budgets: tuple[float, ...] = ()
) -> dict[str, Any]:
    """What `harness fit format=json` prints for a form. `budgets` are FLOPs; by default 1, 10 and 100
    times the largest run. A law of compute alone has a loss at each budget, no allocation."""
    cost = token_cost(observations, config.flops)
    largest = cost.largest(observations)
    flops = budgets or tuple(multiple * largest for multiple in MULTIPLES)
    replicates = (
        resample_form(fit, config.bootstraps, config.seed, config.resampling) if config.bootstraps else None
    )
    allocates = {"params", "tokens"} <= set(fit.form.columns)
    return {
        **fit.to_json(),
        "loss_function": {"name": config.law.loss.value, "delta": finite(config.law.effective_delta)},
        "notes": [*fit.notes, *([cost.note] if cost.note else [])],
        "conventions": {**stated(observations, cost), **fit.conventions},
        "dropped": dropped_json(observations.dropped),
        "data_hash": observations.data_hash(),
        "exponent_a": exponent_a(fit, largest) if allocates else None,
        "intervals": replicates.param_intervals(config.level) if replicates else {},
        "bootstrap": replicates and bootstrap_json(replicates, config),
        "optimum": [optimum_json(fit, replicates, c, config.level, cost) for c in flops] if allocates else [],
        "frontier": [] if allocates else [loss_json(fit, replicates, c, config.level) for c in flops],
    }


def optimum_json(
    fit: FormFit, replicates: FormReplicates | None, flops: float, level: float, cost: TokenCost
) -> dict[str, Any]:
    found = replicates.optimum_intervals(flops, level, cost=cost) if replicates else None
    return {**fit.optimum(flops, cost=cost).to_json(), "interval": found}


def loss_json(fit: FormFit, replicates: FormReplicates | None, flops: float, level: float) -> dict[str, Any]:
    found = replicates.loss_interval({"flops": flops}, level) if replicates else None
    return {"flops": flops, "loss": float(fit.predict({"flops": flops})[0]), "interval": found}


def bootstrap_json(replicates: FormReplicates, config: FitConfig) -> dict[str, Any]:
    return {
        "count": len(replicates.values),
        "resampling": replicates.resampling.value,
        "seed": replicates.seed,
        "level": config.level,
        "at_bound": replicates.at_bound,
        "not_converged": replicates.not_converged,
    }
