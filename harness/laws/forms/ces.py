"""L = (E^(1/p) + (X^(1/k) + Y^(1/k))^k)^p with X = A/N^alpha and Y = B/D^beta.

The size and data terms are joined with a constant elasticity of substitution (Arrow, Chenery, Minhas and
Solow 1961). k says how sharply the loss rises beside the optimum of a budget, apart from how it falls along
the optima, which alpha, beta and E say: one pair of exponents cannot serve both, and where it must, the runs
beside the optimum decide the forecast. With p = 1 it is Skaling (2608.07222) in the exponents of each term
alone; with k = 1 the plain law of the p-th root of the loss, whose local exponent falls more slowly towards
the floor (a power transformation, Box and Cox 1964).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from harness.laws.expansion import Expansion, Target, expand_curved, weighted_outer
from harness.laws.forms import chinchilla
from harness.laws.forms.chinchilla import ALPHA, BETA, LOG_A, LOG_B, LOG_E, Centred, centred, plain
from harness.laws.forms.form import Form, Rows, amplitude, irreducible
from harness.laws.surfaces import FLOPS_PER_PARAM_TOKEN, Floats

K = 5

SHARPNESS = (0.4, 0.8)
"""k of the starts."""


@dataclass(frozen=True)
class Joined:
    """ln S = k ln(X^(1/k) + Y^(1/k)), with the share of each term in that sum and the logarithms of the
    shares; all [K, n]. `entropy` is that of the shares, the derivative of ln S by k."""

    log_sum: Floats
    shares: tuple[Floats, Floats]
    log_shares: tuple[Floats, Floats]

    @property
    def entropy(self) -> Floats:
        (size, data), (log_size, log_data) = self.shares, self.log_shares
        return np.asarray(-(size * log_size + data * log_data))


def join(size: Floats, data: Floats, k: Floats) -> Joined:
    """Of ln X and ln Y."""
    log_sum = k * np.logaddexp(size / k, data / k)
    logs = (size - log_sum) / k, (data - log_sum) / k
    return Joined(log_sum, (np.exp(logs[0]), np.exp(logs[1])), logs)


@dataclass(frozen=True)
class CesSurface(Centred):
    """ln L with its exact derivatives."""

    power: float

    def response(self, theta: Floats) -> Floats:
        joined = join(*self.terms(theta), theta[:, K, None])
        return np.asarray(self.power * np.logaddexp(joined.log_sum, theta[:, LOG_E, None] / self.power))

    def gradient(self, theta: Floats) -> tuple[Floats, Floats]:
        response, reducible, inner, _ = self._parts(theta)
        gradient = self.power * reducible[..., None] * inner
        gradient[..., LOG_E] = 1 - reducible
        return response, gradient

    def expand(self, theta: Floats, target: Target) -> Expansion:
        return expand_curved(self, theta, target)

    def curvature(self, theta: Floats, scores: Floats) -> Floats:
        """The score-weighted sum over rows of the second derivatives of ln L, [K, p, p]."""
        _, reducible, inner, joined = self._parts(theta)
        bent = scores * reducible * (1 - reducible)
        total = weighted_outer(inner, self.power * bent)
        total[:, LOG_E, LOG_E] = bent.sum(axis=1) / self.power
        mixed = -np.einsum("kn,knp->kp", bent, inner)
        total[:, LOG_E, :] += mixed
        total[:, :, LOG_E] += mixed
        return total + self._inner_curvature(theta[:, K, None], joined, self.power * scores * reducible)

    def _parts(self, theta: Floats) -> tuple[Floats, Floats, Floats, Joined]:
        """ln L, the reducible share of its root, and the gradient of ln S."""
        joined = join(*self.terms(theta), theta[:, K, None])
        root = np.logaddexp(joined.log_sum, theta[:, LOG_E, None] / self.power)
        size, data = joined.shares
        zero = np.zeros_like(size)
        inner = np.stack([size, data, zero, -self.u * size, -self.v * data, joined.entropy], axis=-1)
        return self.power * root, np.exp(joined.log_sum - root), inner, joined

    def _inner_curvature(self, k: Floats, joined: Joined, scores: Floats) -> Floats:
        """The score-weighted second derivatives of ln S."""
        entropy = joined.entropy
        (size, data), (log_size, log_data) = joined.shares, joined.log_shares
        zero = np.zeros_like(size)
        apart = np.stack([zero + 1, zero - 1, zero, zero - self.u, zero + self.v, zero], axis=-1)
        total = weighted_outer(apart, scores * size * data / k)
        for share, log_share, columns, x in (
            (size, log_size, (LOG_A, ALPHA), self.u),
            (data, log_data, (LOG_B, BETA), self.v),
        ):
            weighted = -scores * share * (log_share + entropy) / k
            for column, cross in zip(columns, (weighted.sum(axis=1), -(weighted @ x)), strict=True):
                total[:, column, K] += cross
                total[:, K, column] += cross
        variance = size * log_size**2 + data * log_data**2 - entropy**2
        total[:, K, K] += (scores * variance / k).sum(axis=1)
        return total


def evaluate(values: Floats, rows: Rows, power: float) -> tuple[Floats, list[Floats]]:
    a, b, e, alpha, beta, k = values
    u, v = np.log(rows["params"]), np.log(rows["tokens"])
    joined = join(np.log(a) - alpha * u, np.log(b) - beta * v, k)
    floor, reducible = e ** (1 / power), np.exp(joined.log_sum)
    root = floor + reducible
    slope = power * root ** (power - 1)
    size, data = (slope * reducible * share for share in joined.shares)
    by_k = slope * reducible * joined.entropy
    return root**power, [size / a, data / b, slope * floor / (power * e), -u * size, -v * data, by_k]


def starts(rows: Rows, loss: Floats, power: float) -> Floats:
    """Those of Chinchilla for the root of the loss; with equal terms the sum is 2^(1-k) times as large."""
    base = chinchilla.starts(rows, loss ** (1 / power))
    base[:, LOG_E] **= power
    found = []
    for k in SHARPNESS:
        lifted = np.column_stack([base, np.full(len(base), k)])
        lifted[:, :LOG_E] *= 2 ** (1 - k)
        found.append(lifted)
    return np.concatenate(found)


def allocation(values: Floats, flops: float) -> Floats:
    """Where alpha X^(1/k) = beta Y^(1/k) under C = 6 N D."""
    a, b, _, alpha, beta, k = values
    log_g = k * np.log(alpha / beta) + np.log(a) - np.log(b)
    return np.asarray((log_g + beta * math.log(flops / FLOPS_PER_PARAM_TOKEN)) / (alpha + beta))


def rates(params: Mapping[str, float], power: float) -> Mapping[str, float]:
    """Without a floor a term alone falls with its exponent times p."""
    return {name: power * params[name] for name in ("alpha", "beta")}


def ces(name: str, power: float, exponents: tuple[float, float]) -> Form:
    """`exponents` is the mean and the standard deviation of the weak prior on alpha and beta."""

    def surface(rows: Rows) -> CesSurface:
        return CesSurface(*centred(rows), form, power)

    form = Form(
        name=name,
        parameters=(
            *(amplitude("A"), amplitude("B"), irreducible()),
            *(plain("alpha", 0.005, 1.5), plain("beta", 0.005, 1.5), plain("k", 0.05, 2.0)),
        ),
        columns=("params", "tokens"),
        evaluate=partial(evaluate, power=power),
        starts=partial(starts, power=power),
        allocation=allocation,
        surface=surface,
        rates=partial(rates, power=power),
        weak_prior={"alpha": exponents, "beta": exponents, "k": (0.6, 0.25)},
        raced=8,
    )
    return form


# The exponents are the plain law's .33 seen through each root; over 8x splits of public tables the errors
# change little when any centre is moved by a tenth or any width by half.
CES = ces("ces", 1.0, (0.33, 0.05))
CES_SQUARE_ROOT = ces("ces_square_root", 2.0, (0.2, 0.05))
CES_FOURTH_ROOT = ces("ces_fourth_root", 4.0, (0.15, 0.05))
