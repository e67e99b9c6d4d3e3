"""Minimise the summed Huber loss of ln L for many replicates at once.

A projected, damped Newton method with the true second derivatives. The Huber loss with a small delta is
nearly an absolute value, which a Newton step cannot see from afar, so delta is brought down in stages.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from harness.laws.surfaces import Floats, Law, weighted_outer

Flags = npt.NDArray[np.bool_]

STAGE_FACTOR = 3.0
"""Delta shrinks by this factor per stage; measured: 2 is slower, 10 sometimes loses the path."""

FIRST_DELTA = 0.03
"""Above the usual residual in log loss, so that the first stage is close to least squares."""

REPLICATES_AT_ONCE = 512
"""Bounds the memory: 512 replicates of 10,000 rows and 5 parameters hold about 0.2 GB a pass."""

METHOD = (
    "projected, damped Newton method with second derivatives; "
    f"the Huber delta comes down from {FIRST_DELTA:g} in steps of {STAGE_FACTOR:g}"
)


@dataclass(frozen=True)
class Problem:
    """Rows u = ln N, v = ln D, target y = ln L; `y` and `weights` are [1, n] or [K, n].

    `prior_mean` and `prior_precision` [p] add half the precision times the squared distance. `lower` and
    `upper` are [p] or [K, p]; a parameter is held by giving both the same value.
    """

    law: Law
    u: Floats
    v: Floats
    y: Floats
    weights: Floats
    delta: float
    lower: Floats
    upper: Floats
    prior_mean: Floats
    prior_precision: Floats

    def rows(self, which: npt.NDArray[np.intp] | slice) -> Problem:
        """The sub-problem of some replicates."""

        def pick(array: Floats) -> Floats:
            return array[which] if array.ndim == 2 and len(array) > 1 else array

        return replace(
            self, y=pick(self.y), weights=pick(self.weights), lower=pick(self.lower), upper=pick(self.upper)
        )


@dataclass(frozen=True)
class Minimum:
    """theta [K, p], the objective [K] (prior included) and whether the last step was negligible [K]."""

    theta: Floats
    objective: Floats
    converged: Flags


def huber(residual: Floats, delta: float) -> Floats:
    """Half the square up to delta, linear beyond; half the square everywhere for an infinite delta."""
    size = np.abs(residual)
    if np.isinf(delta):
        return 0.5 * size**2
    inside = np.minimum(size, delta)
    return inside * (size - 0.5 * inside)


def objective(problem: Problem, theta: Floats) -> Floats:
    """The summed Huber loss plus the prior, [K]."""
    residual = problem.law.log_loss(theta, problem.u, problem.v) - problem.y
    fit = (problem.weights * huber(residual, problem.delta)).sum(axis=1)
    prior = 0.5 * (problem.prior_precision * (theta - problem.prior_mean) ** 2).sum(axis=1)
    return np.asarray(fit + prior)


def derivatives(problem: Problem, theta: Floats) -> tuple[Floats, Floats, Floats]:
    """Gradient [K, p], Hessian [K, p, p] of the objective, and the diagonal of its majoriser [K, p].

    The majoriser replaces the Huber loss by the parabola that touches it (iteratively reweighted least
    squares); its diagonal sets the scale of each parameter.
    """
    law, delta = problem.law, problem.delta
    log_loss, jacobian = law.gradient(theta, problem.u, problem.v)
    residual = log_loss - problem.y
    score = problem.weights * np.clip(residual, -delta, delta)
    inside = problem.weights * (np.abs(residual) <= delta)
    gradient = np.einsum("kn,knp->kp", score, jacobian)
    hessian = weighted_outer(jacobian, inside) + law.curvature(theta, problem.u, problem.v, score)
    touch = problem.weights * np.minimum(1.0, delta / np.maximum(np.abs(residual), 1e-300))
    scale = np.einsum("kn,knp->kp", touch, jacobian**2)
    gradient += problem.prior_precision * (theta - problem.prior_mean)
    hessian += np.diag(problem.prior_precision)
    return gradient, hessian, scale + problem.prior_precision + 1e-300


def newton_step(problem: Problem, theta: Floats, damping: Floats) -> tuple[Floats, Floats]:
    """A damped step within the bounds and the decrease it predicts [K].

    Negative curvature is turned positive (absolute eigenvalues), and a parameter that pushes against its
    bound is held.
    """
    gradient, hessian, diagonal = derivatives(problem, theta)
    held = ((theta <= problem.lower) & (gradient > 0)) | ((theta >= problem.upper) & (gradient < 0))
    gradient = np.where(held, 0.0, gradient)
    root = 1 / np.sqrt(diagonal)
    scaled = hessian * root[:, :, None] * root[:, None, :]
    scaled = np.where(held[:, :, None] | held[:, None, :], 0.0, scaled)
    values, vectors = np.linalg.eigh(scaled)
    size = np.abs(values) + damping[:, None]
    along = np.einsum("kpq,kp->kq", vectors, gradient * root)
    step = -np.einsum("kpq,kq->kp", vectors, along / size) * root
    predicted = (along**2 / size).sum(axis=1)
    moved = np.clip(theta + step, problem.lower, problem.upper) - theta
    return moved, predicted


def descend(problem: Problem, theta: Floats, iterations: int, tolerance: float) -> Minimum:
    """Newton at one delta. Replicates leave the batch as they converge."""
    theta = np.clip(theta, problem.lower, problem.upper)
    value = objective(problem, theta)
    damping = np.full(len(theta), 1e-3)
    converged = np.zeros(len(theta), dtype=bool)
    for _ in range(iterations):
        active = np.flatnonzero(~converged)
        if not len(active):
            break
        part = problem.rows(active)
        step, predicted = newton_step(part, theta[active], damping[active])
        trial = objective(part, theta[active] + step)
        better = trial < value[active]
        small = predicted <= tolerance * np.maximum(value[active], 1e-300)
        stuck = ~better & (damping[active] > 1e8)
        converged[active] = small | stuck
        theta[active] = np.where(better[:, None], theta[active] + step, theta[active])
        value[active] = np.where(better, trial, value[active])
        damping[active] = np.where(
            better, np.maximum(damping[active] / 5, 1e-12), np.maximum(damping[active] * 4, 1e-8)
        )
    return Minimum(theta=theta, objective=value, converged=converged)


def stages(delta: float, first: float = FIRST_DELTA) -> list[float]:
    """Deltas from `first` down to `delta`; one stage when `delta` is the larger."""
    path: list[float] = []
    while first > delta:
        path.append(first)
        first /= STAGE_FACTOR
    return [*path, delta]


def minimise(
    problem: Problem, start: Floats, *, first_delta: float = FIRST_DELTA, iterations: int = 200
) -> Minimum:
    """Minimise from each row of `start` [K, p]. Deterministic; memory is bounded by splitting the batch."""
    parts: list[Minimum] = []
    for at in range(0, len(start), REPLICATES_AT_ONCE):
        chunk = slice(at, at + REPLICATES_AT_ONCE)
        part, theta = problem.rows(chunk), start[chunk].copy()
        *warm, _ = stages(problem.delta, first_delta)
        for delta in warm:
            theta = descend(replace(part, delta=delta), theta, 12, 1e-4).theta
        parts.append(descend(part, theta, iterations, 1e-13))
    return Minimum(
        theta=np.concatenate([p.theta for p in parts]),
        objective=np.concatenate([p.objective for p in parts]),
        converged=np.concatenate([p.converged for p in parts]),
    )
