"""L = (E^(1/p) + A/N^alpha + B/D^beta)^p: the plain law of the p-th root of the loss, for p = 2 and 4.

A power transformation of the response (Box and Cox 1964) that lets the local exponent of the loss fall more
slowly towards the floor than the plain law has it; with p = 1 it is Chinchilla. The optimum at a budget is
the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from harness.laws.expansion import Expansion, Target, Term, expand_sum
from harness.laws.forms import chinchilla
from harness.laws.forms.chinchilla import ALPHA, BETA, LOG_A, LOG_B, LOG_E, Centred, centred, plain
from harness.laws.forms.form import Form, Rows, amplitude, irreducible
from harness.laws.surfaces import Floats


@dataclass(frozen=True)
class RootedSurface(Centred):
    """ln L = p ln(sum of three terms) with its exact derivatives."""

    power: float

    def response(self, theta: Floats) -> Floats:
        size, data = self.terms(theta)
        floor = theta[:, LOG_E, None] / self.power
        return np.asarray(self.power * np.log(np.exp(size) + np.exp(data) + np.exp(floor)))

    def gradient(self, theta: Floats) -> tuple[Floats, Floats]:
        size, data = (np.exp(term) for term in self.terms(theta))
        floor = np.broadcast_to(np.exp(theta[:, LOG_E, None] / self.power), size.shape)
        root = size + data + floor
        parts = np.stack([size, data, floor / self.power, -self.u * size, -self.v * data], axis=-1)
        return self.power * np.log(root), self.power * parts / root[..., None]

    def expand(self, theta: Floats, target: Target) -> Expansion:
        """The Huber loss of p times a residual is p^2 times that of the residual with delta / p."""
        one = np.ones_like(self.u)
        terms = (
            Term((LOG_A, ALPHA), np.stack([one, -self.u])),
            Term((LOG_B, BETA), np.stack([one, -self.v])),
            Term((LOG_E,), one[None] / self.power),
        )
        p = self.power
        return expand_sum(terms, theta, Target(target.y / p, target.weights * p * p, target.delta / p))


def evaluate(values: Floats, rows: Rows, power: float) -> tuple[Floats, list[Floats]]:
    a, b, e, alpha, beta = values
    u, v = np.log(rows["params"]), np.log(rows["tokens"])
    size, data, floor = np.exp(-alpha * u), np.exp(-beta * v), e ** (1 / power)
    root = floor + a * size + b * data
    slope = power * root ** (power - 1)
    by_floor = slope * floor / (power * e)
    return root**power, [slope * size, slope * data, by_floor, -slope * a * u * size, -slope * b * v * data]


def starts(rows: Rows, loss: Floats, power: float) -> Floats:
    """Those of Chinchilla for the root of the loss."""
    found = chinchilla.starts(rows, loss ** (1 / power))
    found[:, LOG_E] **= power
    return found


def rates(params: Mapping[str, float], power: float) -> Mapping[str, float]:
    """Without a floor a term alone falls with its exponent times p."""
    return {name: power * params[name] for name in ("alpha", "beta")}


def rooted(name: str, power: float, exponents: tuple[float, float]) -> Form:
    """`exponents` is the mean and the standard deviation of the weak prior on alpha and beta."""

    def surface(rows: Rows) -> RootedSurface:
        return RootedSurface(*centred(rows), form, power)

    form = Form(
        name=name,
        parameters=(
            *(amplitude("A"), amplitude("B"), irreducible()),
            *(plain("alpha", 0.005, 1.5), plain("beta", 0.005, 1.5)),
        ),
        columns=("params", "tokens"),
        evaluate=partial(evaluate, power=power),
        starts=partial(starts, power=power),
        allocation=chinchilla.allocation,
        surface=surface,
        rates=partial(rates, power=power),
        weak_prior={"alpha": exponents, "beta": exponents},
        raced=8,
    )
    return form


# The plain law's .33 +- .06 seen through the root; centres chosen over 8x splits of public tables.
SQUARE_ROOT = rooted("square_root", 2.0, (0.2, 0.05))
FOURTH_ROOT = rooted("fourth_root", 4.0, (0.15, 0.05))
