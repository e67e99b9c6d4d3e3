"""The intervals of everything that follows from a fit, and the fit as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.errors import CannotAnswer, WrongInput
from harness.laws.bootstrap import Interval, Replicates, finite, interval, resample
from harness.laws.config import FitConfig, IntervalMethod
from harness.laws.conventions import SIX_ND, TokenCost, token_cost
from harness.laws.figures import Figure, allocation_exponent, loss_at, optimum_figures, parameter
from harness.laws.fit import Fit, FitStatus
from harness.laws.forms.form import Form
from harness.laws.observations import Observations
from harness.laws.profile import profile
from harness.laws.seeds import SeedNoise

MANY_FAILED = 0.1
"""Share of replicates that did not converge from which on a reader is told."""

MULTIPLES = (1.0, 10.0, 100.0)
"""Budgets at which the optimum is reported, in units of the largest run's FLOPs."""


@dataclass(frozen=True)
class Uncertainty:
    """How far each figure of `fit` may be off, at `level`; nothing without bootstraps, nor of a fit that is
    not identified, whose replicates wander and take longest."""

    fit: Fit
    config: FitConfig
    replicates: Replicates | None

    def of(self, figure: Figure) -> Interval | None:
        if self.replicates is not None:
            return interval(figure.of(self.replicates.values), self.config.level)
        if self.config.intervals is IntervalMethod.profile and self.identified:
            return profile(self.fit.solution, figure, self.config.level).interval
        return None

    @property
    def identified(self) -> bool:
        return self.fit.status is FitStatus.identified

    def notes(self, figures: Sequence[Figure]) -> list[str]:
        """What a reader of the intervals of these figures must know."""
        asked = self.config.bootstraps > 0 or self.config.intervals is IntervalMethod.profile
        if not self.identified:
            return ["no intervals: the law is not identified"] if asked else []
        if self.replicates is None:
            return []
        return [
            *unconverged(self.replicates),
            *strayed(self.fit, self.replicates, figures, self.config.level),
        ]

    def all(self, figures: Sequence[Figure]) -> dict[str, Interval | None] | None:
        """By name; None where no interval was asked for."""
        found = {figure.name: self.of(figure) for figure in figures}
        return None if None in found.values() else found

    def with_one_run(self, figures: Sequence[Figure], loss: float) -> dict[str, Interval | None] | None:
        """`all`, with `loss_one_run`: where a single run may land, seed noise included."""
        found = self.all(figures)
        if found is None:
            return None
        noise = self.fit.seed_noise
        return {**found, "loss_one_run": one_run(loss, found["loss"], noise, self.config.level)}


def one_run(loss: float, of_fit: Interval | None, noise: SeedNoise | None, level: float) -> Interval | None:
    """The fit's interval and the noise of one run in quadrature, on either side of ln `loss`.

    None where seeds were not repeated; an open end stays open.
    """
    if noise is None or of_fit is None:
        return None
    width = noise.half_width(level)

    def widened(end: float | None, sign: int) -> float | None:
        if end is None:
            return None
        return loss * math.exp(sign * math.hypot(max(sign * math.log(end / loss), 0.0), width))

    return widened(of_fit[0], -1), widened(of_fit[1], 1)


def uncertainty(fit: Fit, config: FitConfig) -> Uncertainty:
    """Raises CannotAnswer when the rows do not allow the resampling that was asked for."""
    asked = config.bootstraps > 0 and config.intervals is IntervalMethod.bootstrap
    drawn = asked and fit.status is FitStatus.identified
    replicates = resample(fit.solution, config.bootstraps, config.resampling, config.seed) if drawn else None
    return Uncertainty(fit, config, replicates)


def unconverged(replicates: Replicates) -> list[str]:
    failed = replicates.not_converged
    if failed <= MANY_FAILED * len(replicates):
        return []
    return [f"{failed} of {len(replicates)} replicates did not converge; use fit.intervals=profile"]


def strayed(fit: Fit, replicates: Replicates, figures: Sequence[Figure], level: float) -> list[str]:
    """Figures whose estimate lies outside the interval of its own replicates: they left its neighbourhood."""
    outside = [
        figure.name
        for figure in figures
        if not within(float(figure.of(fit.solution.values[None])[0]), replicates.interval(figure.of, level))
    ]
    if not outside:
        return []
    return [
        f"the estimate of {', '.join(outside)} lies outside its own {level:.0%} bootstrap interval: the "
        "replicates drifted along a ridge of nearly equal fits; use fit.intervals=profile"
    ]


def within(value: float, ends: Interval) -> bool:
    """Open ends hold everything; a figure that is not finite has nothing to be outside of."""
    low, high = ends
    return not (low is not None and value < low) and not (high is not None and value > high)


def fit_json(
    observations: Observations,
    fit: Fit,
    config: FitConfig,
    budgets: Sequence[float] = (),
    at: Sequence[Sequence[float]] = (),
) -> dict[str, Any]:
    """What `harness fit format=json` prints: the fit, its intervals, the optimum at each budget and the
    loss at each (params, tokens) of `at`.

    `budgets` are FLOPs; by default 1, 10 and 100 times the largest run. A law of compute alone has a loss
    at each budget (`frontier`), no allocation. Raises WrongInput for an `at` the law cannot answer.
    """
    check_points(fit.form, at)
    cost = token_cost(observations, config.flops)
    largest = cost.largest(observations)
    flops = tuple(budgets) or tuple(multiple * largest for multiple in MULTIPLES)
    given, doubt = fresh(observations, fit), uncertainty(fit, config)
    form, allocates = fit.form, fit.form.allocates
    figures = [parameter(form, i) for i in range(len(form.parameters))]
    exponent = allocation_exponent(form, largest, SIX_ND, given)
    figures += [exponent] if allocates else []
    optima = optimum_figures(form, flops[0], cost, given) if allocates else ()
    judged = [*figures, *(replace(figure, name=f"optimal {figure.name}") for figure in optima)]
    return {
        **fit.to_json(),
        "notes": [*fit.notes, *doubt.notes(judged), *([cost.note] if cost.note else [])],
        "conventions": {
            **fit.conventions,
            "flops_of_optimum": cost.label,
            "flops_of_exponent_a": SIX_ND.label,
        },
        "exponent_a": finite(float(exponent.of(fit.solution.values[None])[0])) if allocates else None,
        "intervals": doubt.all(figures) or {},
        "interval_method": config.intervals.value,
        "level": config.level,
        "bootstrap": doubt.replicates and bootstrap_json(doubt.replicates, config),
        "optimum": [optimum_json(doubt, c, given, cost) for c in flops] if allocates else [],
        "frontier": [] if allocates else [point_json(doubt, {"flops": c}) for c in flops],
        "predictions": [point_json(doubt, named_point(point, given)) for point in at],
    }


def fresh(observations: Observations, fit: Fit) -> dict[str, float]:
    """What else the law reads at a budget: as many unique tokens as the rows have at most."""
    if "unique_tokens" not in fit.form.columns or observations.unique_tokens is None:
        return {}
    return {"unique_tokens": float(np.max(observations.unique_tokens))}


def check_points(form: Form, at: Sequence[Sequence[float]]) -> None:
    """Raises WrongInput for an entry of `at` that the law cannot answer; fitting takes longer than asking."""
    if at and not form.allocates:
        raise WrongInput(f"at=: {form.name} is a law of {', '.join(form.columns)}; ask it at flops=[...]")
    for point in at:
        if len(point) not in (2, 3) or any(not (math.isfinite(x) and x > 0) for x in point):
            raise WrongInput(f"at=: {list(point)} is not [params, tokens] or [params, tokens, unique tokens]")


def named_point(point: Sequence[float], given: Mapping[str, float]) -> dict[str, float]:
    """Columns of one entry of `at`; a third number is unique tokens."""
    return {**given, **dict(zip(("params", "tokens", "unique_tokens"), map(float, point), strict=False))}


def optimum_json(
    doubt: Uncertainty, flops: float, given: Mapping[str, float], cost: TokenCost
) -> dict[str, Any]:
    """Nulls where the law has no optimum at `flops`."""
    figures = optimum_figures(doubt.fit.form, flops, cost, given)
    try:
        found = doubt.fit.optimum(flops, cost, given)
    except CannotAnswer as error:
        return {"flops": flops, **dict.fromkeys((f.name for f in figures), None), "reason": str(error)}
    return {**found.to_json(), **given, "interval": doubt.with_one_run(figures, found.loss)}


def point_json(doubt: Uncertainty, columns: Mapping[str, float]) -> dict[str, Any]:
    """The loss at one row, with its intervals."""
    loss = float(doubt.fit.predict(columns)[0])
    figures = [loss_at(doubt.fit.form, columns)]
    return {**columns, "loss": loss, "interval": doubt.with_one_run(figures, loss)}


def bootstrap_json(replicates: Replicates, config: FitConfig) -> dict[str, Any]:
    return {
        "count": len(replicates),
        "resampling": replicates.resampling.value,
        "seed": replicates.seed,
        "level": config.level,
        "at_bound": replicates.at_bound,
        "not_converged": replicates.not_converged,
    }
