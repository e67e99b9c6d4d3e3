"""The allocation of a training budget that minimises a form's loss: closed form or search, batched."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from harness.errors import CannotAnswer
from harness.laws.conventions import SIX_ND, SIZES, TokenCost
from harness.laws.forms.form import Form
from harness.laws.surfaces import FLOPS_PER_PARAM_TOKEN, Floats

GRID, ZOOM, ZOOMS = 151, 21, 3
"""Points of the first grid over `SIZES` (.2 apart in ln N) and of each finer one inside the best cell."""

BATCH = 256
"""Parameter vectors searched at once; bounds the memory to some tens of MB."""

EXPONENT_STEP = 2.0
"""Ratio of the two budgets between which the allocation exponent is measured."""


def allocate(
    form: Form,
    values: Floats,
    flops: float,
    cost: TokenCost = SIX_ND,
    given: Mapping[str, float] | None = None,
) -> tuple[Floats, Floats]:
    """ln N* and ln D* [K] for values [K, p] that minimise the loss under C = F(N) D, F the `cost` of a token.

    `given` holds what else the form reads, such as unique_tokens. NaN where the loss has no valley
    between `SIZES`. Raises CannotAnswer for a form that does not know params and tokens apart.
    """
    if not form.allocates:
        raise CannotAnswer(f"{form.name} is a law of {', '.join(form.columns)}; it allocates no budget")
    if form.allocation is not None and cost.is_6nd:
        log_n = form.allocation(values.T, flops)
        return log_n, math.log(flops / FLOPS_PER_PARAM_TOKEN) - log_n
    parts = [values[i : i + BATCH] for i in range(0, len(values), BATCH)]
    with np.errstate(over="ignore", divide="ignore", invalid="ignore", under="ignore"):
        log_n = np.concatenate([searched(form, part, flops, cost, given) for part in parts])
    return log_n, math.log(flops) - np.log(cost.per_token(np.exp(log_n)))


def searched(
    form: Form,
    values: Floats,
    flops: float,
    cost: TokenCost = SIX_ND,
    given: Mapping[str, float] | None = None,
) -> Floats:
    """ln N* [K]: the lowest valley of the loss along the budget, by ever finer grids and a last parabola.

    A valley, not the least value: farseer, for one, falls again at sizes that no token is left for.
    """
    others = {name: np.full((len(values), 1), value) for name, value in (given or {}).items()}

    def losses(log_n: Floats) -> Floats:
        params = np.exp(log_n)
        return form.losses(values, {**others, "params": params, "tokens": flops / cost.per_token(params)})

    row = np.arange(len(values))
    grid = np.broadcast_to(np.log(np.geomspace(*SIZES, GRID)), (len(values), GRID))
    found = losses(grid)
    inner = found[:, 1:-1]
    valley = (inner <= found[:, :-2]) & (inner < found[:, 2:])
    at = 1 + np.where(valley, inner, np.inf).argmin(axis=1)
    for _ in range(ZOOMS):
        low, high = grid[row, at - 1], grid[row, at + 1]
        grid = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, ZOOM)
        found = losses(grid)
        at = 1 + found[:, 1:-1].argmin(axis=1)
    left, middle, right = (found[row, at + step] for step in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = np.where(bend > 0, 0.5 * (left - right) / np.where(bend > 0, bend, 1.0), 0.0)
    log_n = grid[row, at] + np.clip(shift, -1, 1) * (grid[:, 1] - grid[:, 0])
    return np.where(valley.any(axis=1), log_n, np.nan)


def exponent_a(
    form: Form,
    values: Floats,
    flops: float,
    cost: TokenCost = SIX_ND,
    given: Mapping[str, float] | None = None,
) -> Floats:
    """a in N* proportional to C^a around `flops` [K]: only some forms have one a for all budgets."""
    root = math.sqrt(EXPONENT_STEP)
    low, high = (allocate(form, values, c, cost, given)[0] for c in (flops / root, flops * root))
    return np.asarray((high - low) / math.log(EXPONENT_STEP))


def optimum(
    form: Form,
    params: Mapping[str, float],
    flops: float,
    cost: TokenCost = SIX_ND,
    given: Mapping[str, float] | None = None,
) -> tuple[float, float]:
    """The params and tokens that minimise the loss at `flops`.

    Raises CannotAnswer for a form that allocates no budget, or where there is no optimum.
    """
    log_n, log_d = allocate(form, form.values(params)[None], flops, cost, given)
    if not (math.isfinite(log_n[0]) and abs(log_n[0]) < 700 and abs(log_d[0]) < 700):
        raise CannotAnswer(f"{form.name} has no compute-optimal size at {flops:g} FLOPs")
    return math.exp(log_n[0]), math.exp(log_d[0])
