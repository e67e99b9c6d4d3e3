"""How each law would spend the bet's compute, and what it costs to have believed the wrong one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.errors import CannotAnswer
from harness.forecast.ensemble import Ensemble
from harness.laws.conventions import TokenCost
from harness.laws.forms.optimum import allocate
from harness.laws.solve import Solution

GRID = 401
"""Sizes between the smallest and the largest optimum of any law, where the ensemble's own is looked for."""

HALVINGS = 60
SMALLEST_SHARE = 1e-3
"""Of the compute, below which a wasted share is called all of it."""


@dataclass(frozen=True)
class Allocation:
    """Parameters and tokens that spend `flops` best under one law, or under the ensemble, and the loss."""

    law: str
    flops: float
    params: float
    tokens: float
    loss: float

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "tokens_per_param": self.tokens / self.params}


@dataclass(frozen=True)
class Regret:
    """Of spending the budget as `chosen` would have it when `true` is the law: the loss that is lost, and
    the share of the compute that buys nothing, since a smaller budget reaches the same loss."""

    chosen: str
    true: str
    loss: float
    compute_share: float


def law_allocation(name: str, solution: Solution, flops: float, cost: TokenCost) -> Allocation | None:
    """None where the law has no optimum."""
    if not solution.form.allocates:
        return None
    log_n, log_d = (float(x[0]) for x in allocate(solution.form, solution.values[None], flops, cost))
    if not (math.isfinite(log_n) and abs(log_n) < 700 and abs(log_d) < 700):
        return None
    n, d = math.exp(log_n), math.exp(log_d)
    return Allocation(name, flops, n, d, loss_at(solution, n, d))


def loss_at(solution: Solution, params: float, tokens: float) -> float:
    rows = solution.form.rows({"params": params, "tokens": tokens})
    return float(solution.form.losses(solution.values[None], rows)[0, 0])


def allocations(ensemble: Ensemble, flops: float, cost: TokenCost) -> list[Allocation]:
    """Of every law that has an optimum at `flops`."""
    pairs = zip(ensemble.names, ensemble.solutions, strict=True)
    return [a for name, solution in pairs if (a := law_allocation(name, solution, flops, cost))]


def best_allocation(ensemble: Ensemble, flops: float, cost: TokenCost) -> Allocation:
    """The least loss of the ensemble along the budget. Raises CannotAnswer when no law has an optimum."""
    found = allocations(ensemble, flops, cost)
    if not found:
        raise CannotAnswer(f"no law has an optimum at {flops:.3g} FLOPs; give params= and tokens=")
    sizes = np.array([a.params for a in found])
    params = np.geomspace(sizes.min(), sizes.max(), GRID)
    tokens = flops / cost.per_token(params)
    losses = ensemble.log_loss({"params": params, "tokens": tokens})
    at = int(losses.argmin())
    return Allocation("ensemble", flops, float(params[at]), float(tokens[at]), float(np.exp(losses[at])))


def runner_up(ensemble: Ensemble) -> tuple[int, int]:
    """The laws of the largest and the second largest weight, by number."""
    order = np.argsort(-ensemble.weights, kind="stable")
    return int(order[0]), int(order[1])


def regret(ensemble: Ensemble, flops: float, cost: TokenCost) -> Regret | None:
    """Of choosing the size by the runner-up when the first law is true. None with one law, or where either
    has no optimum."""
    if len(ensemble.solutions) < 2:
        return None
    first, second = runner_up(ensemble)
    true = ensemble.solutions[first]
    best, chosen = (
        law_allocation(ensemble.names[i], ensemble.solutions[i], flops, cost) for i in (first, second)
    )
    if best is None or chosen is None:
        return None
    reached = loss_at(true, chosen.params, chosen.tokens)
    share = 1 - equivalent_share(true, flops, cost, reached)
    return Regret(chosen.law, best.law, max(reached - best.loss, 0.0), max(share, 0.0))


def equivalent_share(solution: Solution, flops: float, cost: TokenCost, loss: float) -> float:
    """The share of `flops` with which the law, spent best, reaches `loss`; by bisection in ln C."""
    low, high = math.log(SMALLEST_SHARE), 0.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        found = law_allocation("", solution, flops * math.exp(middle), cost)
        low, high = (low, middle) if found is not None and found.loss <= loss else (middle, high)
    return math.exp(high)


def allocation_json(ensemble: Ensemble, flops: float, cost: TokenCost) -> dict[str, Any] | None:
    """The optimum of the ensemble with the range over laws; None where there is none."""
    try:
        best = best_allocation(ensemble, flops, cost)
    except CannotAnswer:
        return None
    laws = allocations(ensemble, flops, cost)
    return {
        **best.to_json(),
        "flops_convention": cost.label,
        "params_range_over_laws": ends([a.params for a in laws]),
        "tokens_per_param_range_over_laws": ends([a.tokens / a.params for a in laws]),
    }


def ends(values: Sequence[float]) -> list[float]:
    return [min(values), max(values)]
