"""L = E + A/N^alpha + B/D^beta (Hoffmann et al. 2203.15556) as a form, for residuals of L itself.

`harness fit law=chinchilla` uses the engine's own surface, which sees ln L alone and is faster; this one
is for asking what another residual would have said.
"""

from __future__ import annotations

import itertools

import numpy as np

from harness.laws.forms.form import Form, Rows, amplitude, exponent, irreducible
from harness.laws.forms.starts import projected, stacked
from harness.laws.surfaces import FLOPS_PER_PARAM_TOKEN, Floats

EXPONENTS = list(itertools.product(np.linspace(0.1, 1.0, 8), repeat=2))


def evaluate(values: Floats, rows: Rows) -> tuple[Floats, list[Floats]]:
    a, b, e, alpha, beta = values
    u, v = np.log(rows["params"]), np.log(rows["tokens"])
    size, data = np.exp(-alpha * u), np.exp(-beta * v)
    return e + a * size + b * data, [size, data, np.ones_like(e), -a * u * size, -b * v * data]


def starts(rows: Rows, loss: Floats) -> Floats:
    def design(alpha: float, beta: float) -> list[Floats]:
        return [rows["params"] ** -alpha, rows["tokens"] ** -beta, np.ones(1)]

    return stacked(projected(EXPONENTS, design, loss))


def allocation(values: Floats, flops: float) -> tuple[float, float]:
    """N* = G (C/6)^(beta/(alpha+beta)), G = (alpha A / beta B)^(1/(alpha+beta)); Hoffmann et al., eq. 4."""
    a, b, _, alpha, beta = (float(x) for x in values)
    product = flops / FLOPS_PER_PARAM_TOKEN
    n = ((alpha * a) / (beta * b)) ** (1 / (alpha + beta)) * product ** (beta / (alpha + beta))
    return n, product / n


CHINCHILLA = Form(
    name="chinchilla",
    parameters=(amplitude("A"), amplitude("B"), irreducible(), exponent("alpha"), exponent("beta")),
    columns=("params", "tokens"),
    evaluate=evaluate,
    starts=starts,
    allocation=allocation,
)
