"""The best learning rate and batch size of each cell of a grid, and the laws through them.

Per (params, tokens) cell a parabola of ln loss in ln lr, or in ln lr and ln batch together, over the rows
near the best one; its minimum is the cell's optimum. Form of the laws: Li et al. 2503.04715.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.errors import CannotAnswer
from harness.laws.bootstrap import finite
from harness.laws.config import FitConfig, LawName
from harness.laws.forms.form import Form
from harness.laws.forms.step_law import BATCH_SIZE, LEARNING_RATE
from harness.laws.responses.resample import refit
from harness.laws.responses.result import ResponseFit, bootstrap_json, require_cases
from harness.laws.responses.source import Source
from harness.laws.responses.step import Step, fit_step
from harness.laws.solve import Objective, Response
from harness.laws.surfaces import Floats
from harness.runs import Skipped

NEAR = 0.01
"""Rows within this share of the cell's best loss shape its parabola; further away the valley is steeper on
the side of large rates, where training breaks down."""

LOG_LEAST_SQUARES = Objective(response=Response.log, delta=math.inf)


@dataclass(frozen=True)
class Optimum:
    """Of one cell, in natural units. `errors` are standard errors of the logarithms.

    `edge` says why it cannot be trusted: empty for a minimum inside the grid.
    """

    params: float
    tokens: float
    lr: float
    batch_tokens: float
    errors: tuple[float, float]
    rows: int
    edge: str

    def to_json(self) -> dict[str, Any]:
        lr, batch = self.errors
        return {
            "params": self.params,
            "tokens": self.tokens,
            "lr": self.lr,
            "lr_error": finite(lr),
            "batch_tokens": self.batch_tokens,
            "batch_error": finite(batch),
            "rows": self.rows,
            "edge": self.edge,
        }


@dataclass(frozen=True)
class Valley:
    """Minimum of a parabola in x [q], its covariance [q, q], and whether it is a minimum at all."""

    at: Floats
    covariance: Floats
    convex: bool


def valley(x: Floats, y: Floats) -> Valley:
    """Least squares y = c + g'x + x'Hx/2 over x [n, q]. Its minimum -H^-1 g has by the delta method the
    covariance of the gradient there, taken through H^-1."""
    centre = x.mean(axis=0)
    z = x - centre
    q = z.shape[1]
    pairs = [(i, j) for i in range(q) for j in range(i, q)]
    columns = [np.ones(len(z)), *z.T, *((0.5 if i == j else 1.0) * z[:, i] * z[:, j] for i, j in pairs)]
    design = np.column_stack(columns)
    solved, *_ = np.linalg.lstsq(design, y, rcond=None)
    freedom = max(len(y) - design.shape[1], 1)
    variance = float(((design @ solved - y) ** 2).sum()) / freedom
    spread = variance * np.linalg.pinv(design.T @ design)
    hessian = np.zeros((q, q))
    for (i, j), value in zip(pairs, solved[1 + q :], strict=True):
        hessian[i, j] = hessian[j, i] = value
    if np.linalg.eigvalsh(hessian).min() <= 0:
        return Valley(centre, np.full((q, q), np.inf), convex=False)
    at = -np.linalg.solve(hessian, solved[1 : 1 + q])
    slopes = np.zeros((q, len(solved)))  # of the gradient at the minimum by the coefficients
    slopes[:, 1 : 1 + q] = np.eye(q)
    for column, (i, j) in enumerate(pairs, start=1 + q):
        slopes[i, column] = at[j]
        slopes[j, column] = at[i]
    through = np.linalg.solve(hessian, slopes)
    return Valley(centre + at, through @ spread @ through.T, convex=True)


def cell_optimum(lr: Floats, batch: Floats, loss: Floats, params: float, tokens: float) -> Optimum:
    """The optimum of one cell's rows [n]. A batch that does not vary is taken as it is."""
    joint = len(np.unique(batch)) > 1
    x = np.log(np.column_stack([lr, batch]) if joint else lr[:, None])
    needed = (6 if joint else 3) + 1
    near = loss <= loss.min() * (1 + NEAR)
    if near.sum() < needed:
        near = loss <= np.sort(loss)[min(needed, len(loss)) - 1]
    best = int(np.argmin(loss))
    if near.sum() < needed:
        edge = f"{len(loss)} rows, at least {needed} are needed"
        found = Valley(x[best], np.zeros((0, 0)), convex=False)
    else:
        found = valley(x[near], np.log(loss[near]))
        edge = edge_of(found, x, best)
    at = np.exp(found.at if found.convex else x[best])
    errors = np.sqrt(np.diag(found.covariance)) if found.convex else np.full(x.shape[1], np.inf)
    return Optimum(
        params=params,
        tokens=tokens,
        lr=float(at[0]),
        batch_tokens=float(at[1]) if joint else float(batch[0]),
        errors=(float(errors[0]), float(errors[1]) if joint else 0.0),
        rows=int(near.sum()),
        edge=edge,
    )


def edge_of(found: Valley, x: Floats, best: int) -> str:
    """Why the minimum is not inside the grid; empty when it is."""
    names = ("lr", "batch")[: x.shape[1]]
    for i, name in enumerate(names):
        for end, side in ((x[:, i].min(), "smallest"), (x[:, i].max(), "largest")):
            if x[best, i] == end:
                return f"the best run has the {side} {name} of the grid"
    if not found.convex:
        return "the loss has no minimum in the grid"
    outside = (found.at < x.min(axis=0)) | (found.at > x.max(axis=0))
    return f"the optimal {names[int(np.argmax(outside))]} lies outside the grid" if outside.any() else ""


def cell_optima(params: Floats, tokens: Floats, lr: Floats, batch: Floats, loss: Floats) -> list[Optimum]:
    """One per (params, tokens), in order."""
    cells = sorted(set(zip(params.tolist(), tokens.tolist(), strict=True)))
    found = []
    for n, d in cells:
        rows = (params == n) & (tokens == d)
        found.append(cell_optimum(lr[rows], batch[rows], loss[rows], n, d))
    return found


def fit_learning_rate(source: Source, config: FitConfig) -> ResponseFit:
    """eta = c N^a D^b through the cells' optimal learning rates."""
    return fit_optima(source, config, LawName.learning_rate, LEARNING_RATE)


def fit_batch_size(source: Source, config: FitConfig) -> ResponseFit:
    """B = d D^e through the cells' optimal batch sizes, in tokens."""
    return fit_optima(source, config, LawName.batch_size, BATCH_SIZE)


def fit_optima(source: Source, config: FitConfig, law: LawName, form: Form) -> ResponseFit:
    """From rows (params, tokens, lr, batch_tokens, loss). Cells whose optimum is at an edge are left out.

    Raises CannotAnswer when fewer cells are left than the law has parameters plus one, WrongInput for a
    resampling of anything but cells.
    """
    require_cases(config, "cells")
    size = f"params_{config.params.value}"
    table = source.read(size, "tokens", "lr", "batch_tokens", "loss")
    positive = np.all([column > 0 for column in table.values.values()], axis=0)
    columns = (table.values[name][positive] for name in (size, "tokens", "lr", "batch_tokens", "loss"))
    cells = cell_optima(*columns)
    inside = [cell for cell in cells if not cell.edge]
    response, error = response_of(inside, law)
    rows = {"params": [c.params for c in inside], "tokens": [c.tokens for c in inside]}
    needed = len(form.parameters) + 1
    if len(inside) < needed:
        raise CannotAnswer(
            f"{len(inside)} of {len(cells)} (params, tokens) cells have their optimum inside the grid; "
            f"{law.value} needs at least {needed}: {first_edge(cells)}"
        )
    if law is LawName.batch_size and not np.all(error > 0):
        raise CannotAnswer("batch_tokens does not vary within the cells; nothing is known of its optimum")
    quantity = "lr" if law is LawName.learning_rate else "batch_tokens"
    step = fit_step(
        form, {name: rows[name] for name in form.columns}, response, LOG_LEAST_SQUARES, quantity=quantity
    )
    left_out = [
        *(Skipped(table.labels[i], "not positive") for i in np.flatnonzero(~positive)),
        *(Skipped(f"cell {c.params:.4g}, {c.tokens:.4g}", c.edge) for c in cells if c.edge),
    ]
    return ResponseFit(
        law=law,
        response=quantity,
        steps=(step,),
        replicates=(resample_cells(step, error, config),),
        conventions={
            "params": config.params.value,
            "rows": "optima of (params, tokens) cells",
            "batch": "tokens",
            "resampling": "cells, each moved by its own error",
        },
        table=table,
        level=config.level,
        bootstrap=bootstrap_json(config, len(inside)),
        dropped=tuple(left_out),
        details={"cells": [cell.to_json() for cell in cells]},
    )


def response_of(cells: Sequence[Optimum], law: LawName) -> tuple[Floats, Floats]:
    """The optimal values [n] and the standard errors of their logarithms."""
    if law is LawName.learning_rate:
        return np.array([c.lr for c in cells]), np.array([c.errors[0] for c in cells])
    return np.array([c.batch_tokens for c in cells]), np.array([c.errors[1] for c in cells])


def first_edge(cells: Sequence[Optimum]) -> str:
    return next((cell.edge for cell in cells if cell.edge), "the grid has few cells")


def resample_cells(step: Step, error: Floats, config: FitConfig) -> Floats:
    """Parameters [K, p] with cells redrawn and each optimum moved by its own standard error."""
    count, n = config.bootstraps, len(error)
    rng = np.random.default_rng(config.seed)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=count).astype(float)
    targets = step.solution.problem.y + error * rng.standard_normal((count, n))
    return refit(step, weights=weights, targets=targets)
