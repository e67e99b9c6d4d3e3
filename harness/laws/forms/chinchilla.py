"""L = E + A/N^alpha + B/D^beta: Hoffmann et al. 2203.15556, approach 3.

Theta is ln A, ln B (both at the centre of the rows, where the terms are of the order of the loss and A
says little of alpha), ln E, alpha, beta.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from harness.laws.expansion import Expansion, Target, Term, expand_sum
from harness.laws.forms.form import Form, Parameter, Rows, amplitude, irreducible
from harness.laws.forms.starts import projected, stacked
from harness.laws.surfaces import FLOPS_PER_PARAM_TOKEN, Floats

LOG_A, LOG_B, LOG_E, ALPHA, BETA = range(5)
"""Columns of theta; skaling has one more."""

EXPONENTS = np.geomspace(0.05, 1.6, 11)
"""Published exponents lie between .08 (Kaplan) and .7; the grid of starts reaches well past both ends."""

REWEIGHTINGS = 5

CENTRED_AMPLITUDE = 20.0
"""Bound of |ln A| and |ln B| at the centre of the rows."""


@dataclass(frozen=True)
class Centred:
    """Rows u = ln N - centre[0], v = ln D - centre[1], and the coordinates shared with skaling."""

    u: Floats
    v: Floats
    centre: tuple[float, float]
    form: Form

    def to_values(self, theta: Floats) -> Floats:
        values = theta.copy()
        values[:, LOG_A] += theta[:, ALPHA] * self.centre[0]
        values[:, LOG_B] += theta[:, BETA] * self.centre[1]
        values[:, :ALPHA] = np.exp(values[:, :ALPHA])
        return values

    def to_theta(self, values: Floats) -> Floats:
        theta = values.copy()
        theta[:, :ALPHA] = np.log(values[:, :ALPHA])
        theta[:, LOG_A] -= values[:, ALPHA] * self.centre[0]
        theta[:, LOG_B] -= values[:, BETA] * self.centre[1]
        return theta

    def bounds(self, smallest: float) -> tuple[Floats, Floats]:
        """As the form says, but for the amplitudes, which are bounded where they are centred."""
        low, high = np.array([(parameter.low, parameter.high) for parameter in self.form.parameters]).T
        for bound, sign in ((low, -1.0), (high, 1.0)):
            bound[:LOG_E] = sign * CENTRED_AMPLITUDE
            bound[LOG_E] = math.log(bound[LOG_E] * smallest)
        return low, high

    def terms(self, theta: Floats) -> tuple[Floats, Floats]:
        """ln(A/N^alpha) and ln(B/D^beta), each [K, n]."""
        t = theta[:, :, None]
        return t[:, LOG_A] - t[:, ALPHA] * self.u, t[:, LOG_B] - t[:, BETA] * self.v


def centred(rows: Rows) -> tuple[Floats, Floats, tuple[float, float]]:
    u, v = np.log(rows["params"]), np.log(rows["tokens"])
    centre = float(u.mean()), float(v.mean())
    return u - centre[0], v - centre[1], centre


@dataclass(frozen=True)
class ChinchillaSurface(Centred):
    """ln L with its exact derivatives."""

    def response(self, theta: Floats) -> Floats:
        size, data = self.terms(theta)
        return np.log(np.exp(size) + np.exp(data) + np.exp(theta[:, LOG_E, None]))

    def gradient(self, theta: Floats) -> tuple[Floats, Floats]:
        size, data = (np.exp(term) for term in self.terms(theta))
        floor = np.broadcast_to(np.exp(theta[:, LOG_E, None]), size.shape)
        loss = size + data + floor
        parts = np.stack([size, data, floor, -self.u * size, -self.v * data], axis=-1)
        return np.log(loss), parts / loss[..., None]

    def expand(self, theta: Floats, target: Target) -> Expansion:
        one = np.ones_like(self.u)
        terms = (
            Term((LOG_A, ALPHA), np.stack([one, -self.u])),
            Term((LOG_B, BETA), np.stack([one, -self.v])),
            Term((LOG_E,), one[None]),
        )
        return expand_sum(terms, theta, target)


def surface(rows: Rows) -> ChinchillaSurface:
    return ChinchillaSurface(*centred(rows), CHINCHILLA)


def evaluate(values: Floats, rows: Rows) -> tuple[Floats, list[Floats]]:
    a, b, e, alpha, beta = values
    u, v = np.log(rows["params"]), np.log(rows["tokens"])
    size, data = np.exp(-alpha * u), np.exp(-beta * v)
    return e + a * size + b * data, [size, data, np.ones_like(e), -a * u * size, -b * v * data]


def starts(rows: Rows, loss: Floats) -> Floats:
    def design(alpha: float, beta: float) -> list[Floats]:
        return [rows["params"] ** -alpha, rows["tokens"] ** -beta, np.ones(1)]

    grid = itertools.product(EXPONENTS.tolist(), EXPONENTS.tolist())
    return stacked(projected(grid, design, loss, REWEIGHTINGS))


def allocation(values: Floats, flops: float) -> Floats:
    """Equation 4: N* = G (C/6)^(beta/(alpha+beta)), G = (alpha A / beta B)^(1/(alpha+beta))."""
    a, b, _, alpha, beta = values[:5]
    log_g = (np.log(alpha / beta) + np.log(a) - np.log(b)) / (alpha + beta)
    return np.asarray(log_g + math.log(flops / FLOPS_PER_PARAM_TOKEN) * beta / (alpha + beta))


def rates(params: Mapping[str, float]) -> Mapping[str, float]:
    return {"alpha": params["alpha"], "beta": params["beta"]}


def plain(name: str, low: float, high: float) -> Parameter:
    return Parameter(name, low, high, log=False)


CHINCHILLA = Form(
    name="chinchilla",
    parameters=(
        *(amplitude("A"), amplitude("B"), irreducible()),
        *(plain("alpha", 0.01, 3.0), plain("beta", 0.01, 3.0)),
    ),
    columns=("params", "tokens"),
    evaluate=evaluate,
    starts=starts,
    allocation=allocation,
    surface=surface,
    rates=rates,
    # Chosen over 59 splits of public tables at 8x; published exponents are .34/.28, .35/.37 and .45/.45.
    weak_prior={"alpha": (0.33, 0.06), "beta": (0.33, 0.06)},
    raced=8,
)
