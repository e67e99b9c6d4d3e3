"""Starting points by variable projection: a grid over the exponents, the rest by a linear solve."""

from __future__ import annotations

import itertools

import numpy as np

from harness.laws.config import LawName
from harness.laws.surfaces import Floats, Law

EXPONENTS = np.geomspace(0.05, 1.6, 11)
"""Published exponents lie between .08 (Kaplan) and .7; the grid reaches well past both ends."""

POWERS = (0.4, 0.6, 1.0)
"""Skaling's k: .31 to .49 published (2608.07222), and 1, where it is Chinchilla."""

FLOOR_SHARE = 1e-3
"""A coefficient that the linear solve puts at zero starts at this share of the smallest loss."""


def nonnegative_solve(design: Floats, target: Floats, weights: Floats) -> Floats:
    """Weighted least squares with non-negative coefficients, batched: design [K, n, c] -> [K, c].

    With three columns there are seven sets of columns that may be positive: solve each, keep the best
    feasible one. That is exact and has no loop over the batch.
    """
    weighted = design * weights[..., None]
    gram = np.swapaxes(weighted, 1, 2) @ design
    moment = np.einsum("knc,kn->kc", weighted, np.broadcast_to(target, weights.shape))
    columns = design.shape[2]
    best = np.zeros_like(moment)
    gain = np.zeros(len(design))
    for size in range(1, columns + 1):
        for chosen in itertools.combinations(range(columns), size):
            sub = gram[:, chosen][:, :, chosen]
            ridge = 1e-13 * np.trace(sub, axis1=1, axis2=2)[:, None, None] * np.eye(size)
            solved = np.linalg.solve(sub + ridge, moment[:, chosen][..., None])[..., 0]
            explained = (solved * moment[:, chosen]).sum(axis=1)
            take = (solved >= 0).all(axis=1) & (explained > gain)
            full = np.zeros_like(moment)
            full[:, chosen] = solved
            best = np.where(take[:, None], full, best)
            gain = np.where(take, explained, gain)
    return best


def chinchilla_starts(u: Floats, v: Floats, y: Floats, delta: float) -> Floats:
    """One theta per pair of exponents on the grid, E, A and B by reweighted non-negative least squares.

    Residuals are relative to the observed loss, which is the residual in log loss to first order.
    """
    a, b = (x.ravel() for x in np.meshgrid(EXPONENTS, EXPONENTS, indexing="ij"))
    loss = np.exp(y)
    ones = np.ones((len(a), len(u)))
    columns = (np.exp(-a[:, None] * u), np.exp(-b[:, None] * v), ones)
    design = np.stack(columns, axis=-1) / loss[None, :, None]
    weights = ones
    for _ in range(6):
        solved = nonnegative_solve(design, np.ones_like(y), weights)
        residual = np.einsum("knc,kc->kn", design, solved) - 1
        weights = np.ones_like(residual) if np.isinf(delta) else 1 / np.maximum(np.abs(residual), delta)
    logs = np.log(np.maximum(solved, FLOOR_SHARE * loss.min()))
    return np.column_stack([logs, a, b])


def starts(law: Law, u: Floats, v: Floats, y: Floats, delta: float) -> Floats:
    """Candidate theta [K, p] for `law`."""
    base = chinchilla_starts(u, v, y, delta)
    if law.name is LawName.chinchilla:
        return base
    return np.concatenate([with_power(base, k) for k in POWERS])


def with_power(base: Floats, k: float) -> Floats:
    """Skaling starts whose terms, each raised to k, are the Chinchilla terms."""
    lifted = base.copy()
    lifted[:, [0, 1, 3, 4]] /= k
    return np.column_stack([lifted, np.full(len(base), k)])
