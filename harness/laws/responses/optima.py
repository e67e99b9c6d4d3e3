"""Laws through the best learning rate and batch size of every rung; their form: Li et al. 2503.04715."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.errors import WrongInput
from harness.laws.config import FitConfig, LawName, Resampling
from harness.laws.fit import FitStatus, dropped_json
from harness.laws.forms.form import Form
from harness.laws.forms.step_law import BATCH_SIZE, LEARNING_RATE
from harness.laws.objective import Objective, Response
from harness.laws.observations import Observations
from harness.laws.responses.resample import refit
from harness.laws.responses.result import ResponseFit, bootstrap_json, require_cases
from harness.laws.responses.rungs import Rung, Tuned, rungs
from harness.laws.responses.source import Source
from harness.laws.responses.step import Step, fit_step
from harness.laws.responses.trials import trials_of
from harness.laws.surfaces import Floats
from harness.laws.tables import ColumnTable, observations_from_table
from harness.runs import Skipped, content_hash

LOG_LEAST_SQUARES = Objective(response=Response.log, delta=math.inf)


@dataclass(frozen=True, kw_only=True)
class NoLaw:
    """The rungs of a sweep through which no law can be laid, and why, in the JSON of every other fit."""

    law: LawName
    reasons: tuple[str, ...]
    inputs: tuple[str, ...]
    n: int
    conventions: dict[str, str]
    dropped: tuple[Skipped, ...]
    level: float
    details: dict[str, Any]

    status = FitStatus.not_identified

    def to_json(self, at: Sequence[Sequence[float]] = ()) -> dict[str, Any]:
        """Without predictions, whatever `at` asks for."""
        return {
            "law": self.law.value,
            "status": self.status.value,
            "reasons": list(self.reasons),
            "notes": [],
            "params": {},
            "standard_errors": {},
            "intervals": {},
            "objective": None,
            "n": self.n,
            "residual_rms": None,
            "steps": [],
            "dropped": dropped_json(self.dropped),
            "conventions": self.conventions,
            "bootstrap": None,
            "data_hash": content_hash({**self.details, "conventions": self.conventions}),
            "inputs": list(self.inputs),
            "predictions": [],
            **self.details,
        }


def fit_learning_rate(source: Source, config: FitConfig) -> ResponseFit | NoLaw:
    """eta = c N^a D^b through the rungs' optimal learning rates."""
    return fit_optima(source, config, LawName.learning_rate, LEARNING_RATE)


def fit_batch_size(source: Source, config: FitConfig) -> ResponseFit | NoLaw:
    """B = d D^e through the rungs' optimal batch sizes, in tokens."""
    return fit_optima(source, config, LawName.batch_size, BATCH_SIZE)


def fit_optima(source: Source, config: FitConfig, law: LawName, form: Form) -> ResponseFit | NoLaw:
    """From runs or rows (params, tokens, lr, batch_tokens, loss). Rungs whose optimum is at an edge are left
    out; `NoLaw` when fewer are left than the law has parameters plus one.

    Raises WrongInput for a resampling of anything but rungs, or when no run says its learning rate.
    """
    require_cases(config, "rungs")
    observations = observations_from_table(
        source.path, source.where, config.params, columns=source.columns, pooled=source.pooled
    )
    return fit_rungs(observations, config, law, form)


def fit_rungs(observations: Observations, config: FitConfig, law: LawName, form: Form) -> ResponseFit | NoLaw:
    trials = trials_of(observations)
    if trials is None:
        raise WrongInput(
            f"law={law.value} reads the column lr, which not every row has; if another column is meant, add "
            "columns={lr: ITS_NAME}"
        )
    found = rungs(trials, config.level)
    inside = [rung for rung in found if not rung.edge and tuned_of(rung, law) is not None]
    conventions = {
        "params": config.params.value,
        "loss": observations.loss_unit.value,
        "rows": "optima of rungs",
        "batch": "tokens",
        "scatter": "pooled over rungs",
    }
    left_out = (
        *observations.dropped,
        *(Skipped(f"rung {r.params:.4g}, {r.tokens:.4g}", r.edge) for r in found if r.edge),
    )
    details = {"level": config.level, "cells": [rung.to_json() for rung in found]}
    if reasons := too_few(found, inside, law, len(form.parameters) + 1):
        return NoLaw(
            law=law,
            reasons=reasons,
            inputs=tuple(form.columns),
            n=len(inside),
            conventions=conventions,
            dropped=left_out,
            level=config.level,
            details=details,
        )
    step, error = through_optima(inside, law, form)
    drawn = bootstrap_json(config, len(inside))
    return ResponseFit(
        law=law,
        response=quantity_of(law),
        steps=(step,),
        replicates=(resample_rungs(step, error, config),),
        conventions={**conventions, "resampling": "optima, by their own errors or their scatter"},
        table=ColumnTable(values={}, labels=(), dropped=()),
        level=config.level,
        bootstrap=drawn and {**drawn, "resampling": Resampling.residuals.value},
        dropped=left_out,
        details=details,
    )


def through_optima(inside: Sequence[Rung], law: LawName, form: Form) -> tuple[Step, Floats]:
    """The law through the optima of these rungs, and the standard error of each of their logarithms [n]."""
    optima = [one for rung in inside if (one := tuned_of(rung, law)) is not None]
    step = fit_step(
        form,
        {name: [getattr(rung, name) for rung in inside] for name in form.columns},
        np.array([one.value for one in optima]),
        LOG_LEAST_SQUARES,
        quantity=quantity_of(law),
        may_be_constant=True,  # under a parametrization that transfers it is
    )
    return step, np.array([one.error for one in optima])


def quantity_of(law: LawName) -> str:
    return "lr" if law is LawName.learning_rate else "batch_tokens"


def tuned_of(rung: Rung, law: LawName) -> Tuned | None:
    return rung.lr if law is LawName.learning_rate else rung.batch_tokens


def too_few(found: Sequence[Rung], inside: Sequence[Rung], law: LawName, needed: int) -> tuple[str, ...]:
    """Why there is no law through these rungs; empty when there is one."""
    if all(tuned_of(rung, law) is None for rung in found):
        return (f"{quantity_of(law)} does not vary within the rungs; nothing is known of its optimum",)
    if len(inside) >= needed:
        return ()
    why = next((rung.edge for rung in found if rung.edge), f"the sweep has {len(found)} rungs")
    return (
        f"{len(inside)} of {len(found)} rungs (params, tokens) have their optimum inside the grid; "
        f"{law.value} needs at least {needed}: {why}",
    )


def resample_rungs(step: Step, error: Floats, config: FitConfig) -> Floats:
    """Parameters [K, p] for the same rungs, which were chosen, with every optimum moved by its own standard
    error or by the scatter around the law, whichever is larger. Redrawing a handful of rungs would leave
    some draws without the sizes that determine an exponent."""
    target, n = step.solution.problem.y[0], len(error)
    scatter = math.sqrt(float((step.residual**2).sum()) / max(n - len(step.params), 1))
    rng = np.random.default_rng(config.seed)
    moved = np.maximum(error, scatter) * rng.standard_normal((config.bootstraps, n))
    return refit(step, targets=target - step.residual + moved)
