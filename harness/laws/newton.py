"""Minimise the summed Huber loss of a response for many replicates at once.

A projected, damped Newton method with the true second derivatives. The Huber loss with a small delta is
nearly an absolute value, which a Newton step cannot see from afar, so delta is brought down in stages.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from harness.laws.expansion import Expansion, Flags, Target, concatenated
from harness.laws.surfaces import Floats, Surface

STAGE_FACTOR = 3.0
"""Delta shrinks by this factor per stage; measured: 2 is slower, 10 sometimes loses the path."""

FIRST_DELTA = 0.03
"""Above the usual residual in log loss, so that the first stage is close to least squares."""

STAGE_ITERATIONS, STAGE_TOLERANCE = 12, 1e-4
"""A stage only hands on a start; measured, 1e-2 saves a fifth of the time but misses minima on poor data."""

METHOD = (
    "projected, damped Newton method with second derivatives; "
    f"the Huber delta comes down from {FIRST_DELTA:g} in steps of {STAGE_FACTOR:g}"
)

BLOCK = 1 << 16
"""Replicates times rows worked on at once: half a megabyte an array, about ten of which are alive."""

KEPT = 30 << 20
"""Bytes; below 32 MiB, up to which glibc's malloc learns."""


@dataclass(frozen=True)
class Pull:
    """Half of `strength` [K] times the squared distance of a figure of theta from `target` [K].

    `value` maps theta [K, p] to the figure [K], `slope` to its gradient [K, p]. Its own curvature is left
    out of the Newton step.
    """

    value: Callable[[Floats], Floats]
    slope: Callable[[Floats], Floats]
    target: Floats
    strength: Floats

    def expand(self, theta: Floats, which: npt.NDArray[np.intp]) -> tuple[Floats, Floats, Floats]:
        """Its value [K], gradient [K, p] and Hessian [K, p, p] for the replicates `which` [K]."""
        strength, slope = self.strength[which], self.slope(theta)
        away = self.value(theta) - self.target[which]
        outer = slope[:, :, None] * slope[:, None, :]
        return 0.5 * strength * away**2, (strength * away)[:, None] * slope, strength[:, None, None] * outer


@dataclass(frozen=True)
class Problem:
    """The summed Huber loss of response minus `y`; `y` and `weights` are [1, n] or [K, n].

    `prior_mean` and `prior_precision` [p] add half the precision times the squared distance. `lower` and
    `upper` [p] bound theta; a parameter is held by giving both the same value.
    """

    surface: Surface
    y: Floats
    weights: Floats
    delta: float
    lower: Floats
    upper: Floats
    prior_mean: Floats
    prior_precision: Floats
    pull: Pull | None = None

    @property
    def free(self) -> Flags:
        """Which parameters are not held, [p]."""
        return np.asarray(self.lower < self.upper)

    def target(self, which: npt.NDArray[np.intp]) -> Target:
        """Of some replicates."""
        return Target(of_replicates(self.y, which), of_replicates(self.weights, which), self.delta)


def of_replicates(array: Floats, which: npt.NDArray[np.intp]) -> Floats:
    """Rows of what differs between replicates; what they share as it is."""
    return array[which] if len(array) > 1 else array


@dataclass(frozen=True)
class Minimum:
    """theta [K, p], the objective [K] (prior included) and whether the last step was negligible [K]."""

    theta: Floats
    objective: Floats
    converged: Flags


def huber(residual: Floats, delta: float) -> Floats:
    """Half the square up to delta, linear beyond; half the square everywhere for an infinite delta."""
    size = np.abs(residual)
    inside = np.minimum(size, delta)
    return inside * (size - 0.5 * inside)


def objective(problem: Problem, theta: Floats) -> Floats:
    """The weighted sum of the Huber loss plus the prior, [K]; without the pull."""
    residual = problem.surface.response(theta) - problem.y
    fit = (problem.weights * huber(residual, problem.delta)).sum(axis=1)
    return np.asarray(fit + prior_loss(problem, theta))


def prior_loss(problem: Problem, theta: Floats) -> Floats:
    """[K]"""
    return np.asarray(0.5 * (problem.prior_precision * (theta - problem.prior_mean) ** 2).sum(axis=1))


def expand(problem: Problem, theta: Floats, which: npt.NDArray[np.intp] | None = None) -> Expansion:
    """The objective, prior and pull included, to second order at theta [K, p]; `which` replicates [K]."""
    which = np.arange(len(theta)) if which is None else which
    size = max(1, BLOCK // problem.y.shape[1])
    blocks = [slice(at, at + size) for at in range(0, len(theta), size)]
    fit = concatenated([problem.surface.expand(theta[b], problem.target(which[b])) for b in blocks])
    whole = Expansion(
        theta=theta,
        value=fit.value + prior_loss(problem, theta),
        gradient=fit.gradient + problem.prior_precision * (theta - problem.prior_mean),
        hessian=fit.hessian + np.diag(problem.prior_precision),
        scale=fit.scale + problem.prior_precision + 1e-300,
    )
    if problem.pull is None:
        return whole
    value, gradient, hessian = problem.pull.expand(theta, which)
    diagonal = np.diagonal(hessian, axis1=1, axis2=2)
    terms = (np.zeros_like(theta), value, gradient, hessian, diagonal)
    return Expansion(*(one + other for one, other in zip(vars(whole).values(), terms, strict=True)))


def newton_step(here: Expansion, damping: Floats, lower: Floats, upper: Floats) -> tuple[Floats, Floats]:
    """Where a damped step within the bounds leads [K, p], and the decrease it predicts [K].

    A parameter that pushes against its bound is held.
    """
    held = ((here.theta <= lower) & (here.gradient > 0)) | ((here.theta >= upper) & (here.gradient < 0))
    root = np.where(held, 0.0, 1 / np.sqrt(here.scale))
    scaled = here.hessian * root[:, :, None] * root[:, None, :]
    slope = here.gradient * root
    step = solve_damped(scaled, slope, damping)
    return np.clip(here.theta - step * root, lower, upper), (step * slope).sum(axis=1)


def solve_damped(matrix: Floats, right: Floats, damping: Floats) -> Floats:
    """(matrix + damping) x = right, [K, p]; negative eigenvalues count by their size.

    NaN where the matrix is not finite.
    """
    damped = matrix + damping[:, None, None] * np.eye(matrix.shape[1])
    solved, positive = eliminate(damped, right)
    if not positive.all():
        finite = np.isfinite(matrix).all(axis=(1, 2))
        solved[~finite] = np.nan
        rest = ~positive & finite
        values, vectors = np.linalg.eigh(matrix[rest])
        along = np.einsum("kpq,kp->kq", vectors, right[rest]) / (np.abs(values) + damping[rest, None])
        solved[rest] = np.einsum("kpq,kq->kp", vectors, along)
    return solved


def eliminate(matrix: Floats, right: Floats) -> tuple[Floats, Flags]:
    """Solve matrix [K, p, p] x = right [K, p], and say where the matrix is positive definite [K].

    Elimination without pivoting, each operation over the whole batch: LAPACK is called once a matrix,
    and on 5 x 5 ones its overhead was a third of a bootstrap.
    """
    a, x = matrix.transpose(1, 2, 0).copy(), right.T.copy()
    positive = np.ones(len(matrix), dtype=bool)
    for j in range(len(a)):
        positive &= a[j, j] > 0
        pivot = np.where(positive, a[j, j], 1.0)
        a[j] /= pivot
        x[j] /= pivot
        factor = a[j + 1 :, j].copy()
        a[j + 1 :] -= factor[:, None] * a[j]
        x[j + 1 :] -= factor * x[j]
    for j in reversed(range(len(a))):
        x[j] -= (a[j, j + 1 :] * x[j + 1 :]).sum(axis=0)
    return x.T, positive


def descend(problem: Problem, theta: Floats, iterations: int, tolerance: float) -> Minimum:
    """Newton at one delta. Replicates leave the batch as they converge, or where no step is to be had."""
    active = np.arange(len(theta))
    here = expand(problem, np.clip(theta, problem.lower, problem.upper))
    found = Minimum(here.theta.copy(), here.value.copy(), np.zeros(len(theta), dtype=bool))
    damping = np.full(len(theta), 1e-3)
    for _ in range(iterations):
        trial, predicted = newton_step(here, damping, problem.lower, problem.upper)
        stuck = damping > 1e8
        lost = ~np.isfinite(predicted + here.value)
        left = ~(lost | stuck | (predicted <= tolerance * np.maximum(here.value, 1e-300)))
        found.converged[active[~left & ~lost]] = True
        active, here, damping, trial = active[left], here.rows(left), damping[left], trial[left]
        if not len(active):
            break
        there = expand(problem, trial, active)
        better = (there.value < here.value) & np.isfinite(there.hessian).all(axis=(1, 2))
        here = here.or_better(there, better)
        found.theta[active], found.objective[active] = here.theta, here.value
        damping = np.where(better, np.maximum(damping / 5, 1e-12), np.maximum(damping * 4, 1e-8))
    return found


def stages(delta: float, first: float = FIRST_DELTA) -> list[float]:
    """Deltas from `first` down to `delta`, the last; a step shorter than half a stage is left out."""
    path: list[float] = []
    while first > delta * math.sqrt(STAGE_FACTOR):
        path.append(first)
        first /= STAGE_FACTOR
    return [*path, delta]


def minimise(
    problem: Problem, start: Floats, *, first_delta: float = FIRST_DELTA, iterations: int = 200
) -> Minimum:
    """Minimise from each row of `start` [K, p]. Deterministic; memory is bounded by `BLOCK`."""
    keep_freed_pages()
    theta = start
    *warm, last = stages(problem.delta, first_delta)
    for delta in warm:
        theta = descend(replace(problem, delta=delta), theta, STAGE_ITERATIONS, STAGE_TOLERANCE).theta
    return descend(replace(problem, delta=last), theta, iterations, 1e-13)


def keep_freed_pages() -> None:
    """Free one large array, never touched, so that malloc keeps the pages of smaller ones.

    glibc hands out an array above a threshold in new pages each time, and raises that threshold to the
    largest such array freed. Measured: page faults cost the loops here two to ten times their arithmetic.
    Without effect on other systems.
    """
    del_me = np.empty(KEPT // 8)
    del del_me
