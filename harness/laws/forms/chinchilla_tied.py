"""L = E + A/N^alpha + B/D^alpha: Hoffmann et al. 2203.15556 with one exponent for size and data.

The tie is Muennighoff et al. 2305.16264 and Gadre et al. 2403.08540: tokens per parameter are then the
same at every budget.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from harness.laws.forms.form import Form, Rows, amplitude, exponent, irreducible
from harness.laws.forms.starts import projected, stacked
from harness.laws.surfaces import FLOPS_PER_PARAM_TOKEN, Floats

EXPONENTS = np.linspace(0.1, 1.0, 10)


def evaluate(values: Floats, rows: Rows) -> tuple[Floats, list[Floats]]:
    a, b, e, alpha = values
    u, v = np.log(rows["params"]), np.log(rows["tokens"])
    size, data = np.exp(-alpha * u), np.exp(-alpha * v)
    return e + a * size + b * data, [size, data, np.ones_like(e), -a * u * size - b * v * data]


def starts(rows: Rows, loss: Floats) -> Floats:
    def design(alpha: float) -> list[Floats]:
        return [rows["params"] ** -alpha, rows["tokens"] ** -alpha, np.ones(1)]

    return stacked(projected([(float(x),) for x in EXPONENTS], design, loss))


def allocation(values: Floats, flops: float) -> Floats:
    """N* = sqrt(C/6) (A/B)^(1/2 alpha), D* = sqrt(C/6) (B/A)^(1/2 alpha)."""
    a, b, _, alpha = values
    return np.asarray(0.5 * (math.log(flops / FLOPS_PER_PARAM_TOKEN) + (np.log(a) - np.log(b)) / alpha))


def rates(params: Mapping[str, float]) -> Mapping[str, float]:
    return {"alpha": params["alpha"]}


CHINCHILLA_TIED = Form(
    name="chinchilla_tied",
    parameters=(amplitude("A"), amplitude("B"), irreducible(), exponent("alpha")),
    columns=("params", "tokens"),
    evaluate=evaluate,
    starts=starts,
    allocation=allocation,
    rates=rates,
)
