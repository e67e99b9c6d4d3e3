"""Loss surfaces L(N, D): value, gradient, curvature and compute-optimal allocation.

Every law works on a batch of parameter vectors theta of shape [K, p] and on rows given as u = ln N,
v = ln D of shape [n]; all derivatives are of ln L. Amplitudes and the floor are held as logarithms, so
they are positive by construction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from harness.errors import WrongInput
from harness.laws.config import LawName
from harness.laws.expansion import Expansion, Target, Term, expand_curved, expand_sum, weighted_outer
from harness.laws.expansion import Floats as Floats

FLOPS_PER_PARAM_TOKEN = 6.0
"""The approximation C = 6 N D of Kaplan et al. 2001.08361: attention scores and embeddings left out."""

LOG_A, LOG_B, LOG_E, ALPHA, BETA = range(5)
"""Columns of theta that every law here shares; further shape parameters follow."""


class Law(Protocol):
    """A loss surface. Adding a law is one class with these members."""

    @property
    def name(self) -> LawName: ...

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the natural parameters, in the order of theta."""
        ...

    def log_loss(self, theta: Floats, u: Floats, v: Floats) -> Floats:
        """ln L, [K, n]."""
        ...

    def gradient(self, theta: Floats, u: Floats, v: Floats) -> tuple[Floats, Floats]:
        """ln L [K, n] and its gradient [K, n, p]."""
        ...

    def expand(self, theta: Floats, u: Floats, v: Floats, target: Target) -> Expansion:
        """The summed Huber loss against `target` to second order; see `laws.expansion`."""
        ...


def chinchilla_terms(theta: Floats, u: Floats, v: Floats) -> tuple[Floats, Floats]:
    """ln(A/N^a) and ln(B/D^b), each [K, n]."""
    t = theta[:, :, None]
    return t[:, LOG_A] - t[:, ALPHA] * u, t[:, LOG_B] - t[:, BETA] * v


@dataclass(frozen=True)
class Chinchilla:
    """L = E + A/N^a + B/D^b (Hoffmann et al. 2203.15556, approach 3)."""

    name: LawName = LawName.chinchilla
    parameters: tuple[str, ...] = ("A", "B", "E", "alpha", "beta")

    def log_loss(self, theta: Floats, u: Floats, v: Floats) -> Floats:
        size, data = chinchilla_terms(theta, u, v)
        return np.log(np.exp(size) + np.exp(data) + np.exp(theta[:, LOG_E, None]))

    def gradient(self, theta: Floats, u: Floats, v: Floats) -> tuple[Floats, Floats]:
        size, data = (np.exp(term) for term in chinchilla_terms(theta, u, v))
        floor = np.broadcast_to(np.exp(theta[:, LOG_E, None]), size.shape)
        loss = size + data + floor
        return np.log(loss), np.stack([size, data, floor, -u * size, -v * data], axis=-1) / loss[..., None]

    def expand(self, theta: Floats, u: Floats, v: Floats, target: Target) -> Expansion:
        one = np.ones_like(u)
        terms = (
            Term((LOG_A, ALPHA), np.stack([one, -u])),
            Term((LOG_B, BETA), np.stack([one, -v])),
            Term((LOG_E,), one[None]),
        )
        return expand_sum(terms, theta, target)


@dataclass(frozen=True)
class Skaling:
    """L = (A/N^a + B/D^b)^k + E (2608.07222). k = 1 is Chinchilla; the optimum at a budget is the same."""

    name: LawName = LawName.skaling
    parameters: tuple[str, ...] = ("A", "B", "E", "alpha", "beta", "k")

    def log_loss(self, theta: Floats, u: Floats, v: Floats) -> Floats:
        inner = np.logaddexp(*chinchilla_terms(theta, u, v))
        return np.logaddexp(theta[:, 5, None] * inner, theta[:, LOG_E, None])

    def gradient(self, theta: Floats, u: Floats, v: Floats) -> tuple[Floats, Floats]:
        log_loss, reducible, outer, _ = self._parts(theta, u, v)
        gradient = reducible[..., None] * outer
        gradient[..., LOG_E] = 1 - reducible
        return log_loss, gradient

    def expand(self, theta: Floats, u: Floats, v: Floats, target: Target) -> Expansion:
        return expand_curved(self, theta, u, v, target)

    def curvature(self, theta: Floats, u: Floats, v: Floats, scores: Floats) -> Floats:
        """Weighted by the scores and summed over rows, [K, p, p].

        ln L = ln(exp(h) + E) with h = k ln(inner); the inner sum as in Chinchilla."""
        _, reducible, outer, inner = self._parts(theta, u, v)
        k, floor = theta[:, 5, None, None], 1 - reducible
        total = weighted_outer(outer, scores * reducible * floor)
        total[:, LOG_E, LOG_E] = (scores * reducible * floor).sum(axis=1)
        mixed = -np.einsum("kn,knp->kp", scores * reducible * floor, outer)
        total[:, LOG_E, :] += mixed
        total[:, :, LOG_E] += mixed
        total += k * inner_curvature(inner, u, v, scores * reducible)
        cross = np.einsum("kn,knp->kp", scores * reducible, inner)
        total[:, 5, :] += cross
        total[:, :, 5] += cross
        return total

    def _parts(self, theta: Floats, u: Floats, v: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """ln L, the reducible share of L, and the gradients of h = k ln(inner) and of ln(inner)."""
        size, data = chinchilla_terms(theta, u, v)
        log_inner = np.logaddexp(size, data)
        power = theta[:, 5, None] * log_inner
        log_loss = np.logaddexp(power, theta[:, LOG_E, None])
        share = np.exp(size - log_inner)
        zero = np.zeros_like(share)
        inner = np.stack([share, 1 - share, zero, -u * share, -v * (1 - share), zero], axis=-1)
        outer = theta[:, 5, None, None] * inner
        outer[..., 5] = log_inner
        return log_loss, np.exp(power - log_loss), outer, inner


def inner_curvature(inner: Floats, u: Floats, v: Floats, scores: Floats) -> Floats:
    """The score-weighted second derivatives of ln(A/N^a + B/D^b), given its gradient."""
    total = -weighted_outer(inner, scores)
    for share, one, slope, x in ((inner[..., 0], LOG_A, ALPHA, u), (inner[..., 1], LOG_B, BETA, v)):
        weighted = scores * share
        total[:, one, one] += weighted.sum(axis=1)
        cross = weighted @ x
        total[:, one, slope] -= cross
        total[:, slope, one] -= cross
        total[:, slope, slope] += weighted @ x**2
    return total


def build_law(name: LawName) -> Law:
    match name:
        case LawName.chinchilla:
            return Chinchilla()
        case LawName.skaling:
            return Skaling()
        case _:
            raise WrongInput(f"law={name.value} fits and predicts, but this verb wants chinchilla or skaling")


# Natural parameters and theta ---------------------------------------------------------------------------


def to_params(law: Law, theta: Floats) -> dict[str, float]:
    """Natural parameters in full precision from one theta [p]."""
    values = np.concatenate([np.exp(theta[:ALPHA]), theta[ALPHA:]])
    return {name: float(value) for name, value in zip(law.parameters, values, strict=True)}


def to_theta(law: Law, params: dict[str, float]) -> Floats:
    """One theta [p] from natural parameters; A, B and E must be positive."""
    values = [params[name] for name in law.parameters]
    return np.array([math.log(x) for x in values[:ALPHA]] + values[ALPHA:])


def shifted(theta: Floats, du: float, dv: float) -> Floats:
    """The same surface in coordinates u + du, v + dv (used to centre the rows while fitting)."""
    moved = theta.copy()
    moved[:, LOG_A] += theta[:, ALPHA] * du
    moved[:, LOG_B] += theta[:, BETA] * dv
    return moved


# Allocation of a budget ---------------------------------------------------------------------------------


def exponent_a(theta: Floats) -> Floats:
    """a in N* proportional to C^a: b/(a + b), [K]."""
    return np.asarray(theta[:, BETA] / (theta[:, ALPHA] + theta[:, BETA]))


def optimum_6nd(theta: Floats, flops: float) -> tuple[Floats, Floats]:
    """ln N* and ln D* [K] that minimise the loss under C = 6 N D (Hoffmann et al., equation 4).

    G = (alpha A / beta B)^(1/(alpha+beta)), N* = G (C/6)^(beta/(alpha+beta)), D* = (C/6) / N*.
    """
    alpha, beta = theta[:, ALPHA], theta[:, BETA]
    log_g = (np.log(alpha / beta) + theta[:, LOG_A] - theta[:, LOG_B]) / (alpha + beta)
    log_nd = math.log(flops / FLOPS_PER_PARAM_TOKEN)
    log_n = log_g + log_nd * exponent_a(theta)
    return log_n, log_nd - log_n


def optimum_exact(
    law: Law,
    theta: Floats,
    flops: float,
    flops_per_token: Callable[[Floats], Floats],
    sizes: tuple[float, float],
) -> tuple[Floats, Floats]:
    """ln N* and ln D* [K] under C = F(N) D with the exact training FLOPs per token F(N).

    Searches between the two `sizes` by repeated grids, each three times finer, to 1e-6 in ln N; an
    optimum outside comes back at the end it was pushed to.
    """
    low = np.full(len(theta), math.log(sizes[0]))
    high = np.full(len(theta), math.log(sizes[1]))
    for _ in range(40):
        grid = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, 9)
        tokens = math.log(flops) - np.log(flops_per_token(np.exp(grid)))
        losses = np.array(
            [law.log_loss(row[None], u, v)[0] for row, u, v in zip(theta, grid, tokens, strict=True)]
        )
        best = losses.argmin(axis=1)
        rows = np.arange(len(theta))
        low, high = grid[rows, np.maximum(best - 1, 0)], grid[rows, np.minimum(best + 1, 8)]
        if float((high - low).max()) < 1e-6:
            break
    log_n = (low + high) / 2
    return log_n, math.log(flops) - np.log(flops_per_token(np.exp(log_n)))
