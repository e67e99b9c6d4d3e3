"""L = (A/N^alpha + B/D^beta)^k + E: Skaling, 2608.07222. With k = 1 it is Chinchilla; the optimum at a
budget is the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from harness.laws.expansion import Expansion, Target, expand_curved, weighted_outer
from harness.laws.forms import chinchilla
from harness.laws.forms.chinchilla import ALPHA, BETA, LOG_A, LOG_B, LOG_E, Centred, centred, plain
from harness.laws.forms.form import Form, Rows, amplitude, irreducible
from harness.laws.surfaces import Floats

POWER = 5

POWERS = (0.4, 0.6, 1.0)
"""k of the starts: .31 to .49 published, and 1, where it is Chinchilla."""


@dataclass(frozen=True)
class SkalingSurface(Centred):
    """ln L with its exact derivatives; ln L = ln(exp(h) + E), h = k ln(A/N^alpha + B/D^beta)."""

    def response(self, theta: Floats) -> Floats:
        inner = np.logaddexp(*self.terms(theta))
        return np.logaddexp(theta[:, POWER, None] * inner, theta[:, LOG_E, None])

    def gradient(self, theta: Floats) -> tuple[Floats, Floats]:
        log_loss, reducible, outer, _ = self._parts(theta)
        gradient = reducible[..., None] * outer
        gradient[..., LOG_E] = 1 - reducible
        return log_loss, gradient

    def expand(self, theta: Floats, target: Target) -> Expansion:
        return expand_curved(self, theta, target)

    def curvature(self, theta: Floats, scores: Floats) -> Floats:
        """The score-weighted sum over rows of the second derivatives of ln L, [K, p, p]."""
        _, reducible, outer, inner = self._parts(theta)
        k, floor = theta[:, POWER, None, None], 1 - reducible
        total = weighted_outer(outer, scores * reducible * floor)
        total[:, LOG_E, LOG_E] = (scores * reducible * floor).sum(axis=1)
        mixed = -np.einsum("kn,knp->kp", scores * reducible * floor, outer)
        total[:, LOG_E, :] += mixed
        total[:, :, LOG_E] += mixed
        total += k * self._inner_curvature(inner, scores * reducible)
        cross = np.einsum("kn,knp->kp", scores * reducible, inner)
        total[:, POWER, :] += cross
        total[:, :, POWER] += cross
        return total

    def _parts(self, theta: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """ln L, the reducible share of L, and the gradients of h and of ln(inner)."""
        size, data = self.terms(theta)
        log_inner = np.logaddexp(size, data)
        power = theta[:, POWER, None] * log_inner
        log_loss = np.logaddexp(power, theta[:, LOG_E, None])
        share = np.exp(size - log_inner)
        zero = np.zeros_like(share)
        inner = np.stack([share, 1 - share, zero, -self.u * share, -self.v * (1 - share), zero], axis=-1)
        outer = theta[:, POWER, None, None] * inner
        outer[..., POWER] = log_inner
        return log_loss, np.exp(power - log_loss), outer, inner

    def _inner_curvature(self, inner: Floats, scores: Floats) -> Floats:
        """The score-weighted second derivatives of ln(A/N^alpha + B/D^beta), given its gradient."""
        total = -weighted_outer(inner, scores)
        for share, one, slope, x in (
            (inner[..., LOG_A], LOG_A, ALPHA, self.u),
            (inner[..., LOG_B], LOG_B, BETA, self.v),
        ):
            weighted = scores * share
            total[:, one, one] += weighted.sum(axis=1)
            cross = weighted @ x
            total[:, one, slope] -= cross
            total[:, slope, one] -= cross
            total[:, slope, slope] += weighted @ x**2
        return total


def surface(rows: Rows) -> SkalingSurface:
    return SkalingSurface(*centred(rows), SKALING)


def evaluate(values: Floats, rows: Rows) -> tuple[Floats, list[Floats]]:
    a, b, e, alpha, beta, k = values
    u, v = np.log(rows["params"]), np.log(rows["tokens"])
    size, data = np.log(a) - alpha * u, np.log(b) - beta * v
    inner = np.logaddexp(size, data)
    reducible = np.exp(k * inner)
    by_size, by_data = k * reducible * np.exp(size - inner), k * reducible * np.exp(data - inner)
    return e + reducible, [
        *(by_size / a, by_data / b, np.ones_like(e)),
        *(-u * by_size, -v * by_data, reducible * inner),
    ]


def starts(rows: Rows, loss: Floats) -> Floats:
    """Those of Chinchilla, each term in the place of its own k-th power."""
    base = chinchilla.starts(rows, loss)
    found = []
    for k in POWERS:
        lifted = base.copy()
        lifted[:, :LOG_E] **= 1 / k
        lifted[:, ALPHA:] /= k
        found.append(np.column_stack([lifted, np.full(len(base), k)]))
    return np.concatenate(found)


def rates(params: Mapping[str, float]) -> Mapping[str, float]:
    """A term alone falls with its exponent times k."""
    return {name: params[name] * params["k"] for name in ("alpha", "beta")}


SKALING = Form(
    name="skaling",
    parameters=(
        *(amplitude("A"), amplitude("B"), irreducible()),
        *(plain("alpha", 0.01, 3.0), plain("beta", 0.01, 3.0), plain("k", 0.05, 3.0)),
    ),
    columns=("params", "tokens"),
    evaluate=evaluate,
    starts=starts,
    allocation=chinchilla.allocation,
    surface=surface,
    rates=rates,
    weak_prior={"alpha": (0.38, 0.08), "beta": (0.38, 0.08), "k": (0.55, 0.2)},  # source as in chinchilla
    raced=8,
)
