"""Over-training law of Gadre et al. 2403.08540: L = E + a N^-eta + b 6^(-eta/2) D^-eta.

Its authors' code writes it in N and M = D/N with c = -eta: L(N, M) = E + a N^c + b 6^(c/2) (M N)^c; the eta
of the paper, an exponent of C, is half of this one. Their fit is plain least squares of the loss (not of its
logarithm) on five runs.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.laws.forms import chinchilla_tied
from harness.laws.forms.form import Form, Rows, amplitude, exponent, irreducible
from harness.laws.surfaces import FLOPS_PER_PARAM_TOKEN, Floats


def evaluate(values: Floats, rows: Rows) -> tuple[Floats, list[Floats]]:
    a, b, e, eta = values
    u, v = np.log(rows["params"]), np.log(rows["tokens"]) + 0.5 * np.log(FLOPS_PER_PARAM_TOKEN)
    size, data = np.exp(-eta * u), np.exp(-eta * v)
    return e + a * size + b * data, [size, data, np.ones_like(e), -a * u * size - b * v * data]


def starts(rows: Rows, loss: Floats) -> Floats:
    found = chinchilla_tied.starts(rows, loss)
    found[:, 1] *= FLOPS_PER_PARAM_TOKEN ** (found[:, 3] / 2)
    return found


def allocation(values: Floats, flops: float) -> Floats:
    """That of the tied law with B = b 6^(-eta/2)."""
    a, b, e, eta = values
    tied = np.array([a, b * FLOPS_PER_PARAM_TOKEN ** (-eta / 2), e, eta])
    return chinchilla_tied.allocation(tied, flops)


def rates(params: Mapping[str, float]) -> Mapping[str, float]:
    return {"eta": params["eta"]}


OVERTRAIN = Form(
    name="overtrain",
    parameters=(amplitude("a"), amplitude("b"), irreducible(), exponent("eta")),
    columns=("params", "tokens"),
    evaluate=evaluate,
    starts=starts,
    allocation=allocation,
    rates=rates,
)
