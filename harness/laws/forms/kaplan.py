"""L = [(N_c/N)^(alpha_N/alpha_D) + D_c/D]^alpha_D, equation 1.5 of Kaplan et al. 2001.08361.

N is without embeddings in the paper. There is no irreducible loss.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from harness.laws.forms.form import Form, Rows, amplitude, exponent
from harness.laws.forms.starts import projected
from harness.laws.surfaces import FLOPS_PER_PARAM_TOKEN, Floats

EXPONENTS = (0.03, 0.06, 0.1, 0.15, 0.25, 0.4)


def evaluate(values: Floats, rows: Rows) -> tuple[Floats, list[Floats]]:
    n_c, d_c, alpha_n, alpha_d = values
    log_size = np.log(n_c) - np.log(rows["params"])
    size = alpha_n / alpha_d * log_size
    data = np.log(d_c) - np.log(rows["tokens"])
    inner = np.logaddexp(size, data)
    share = np.exp(size - inner)
    loss = np.exp(alpha_d * inner)
    by_alpha_d = loss * (inner - share * size)
    return loss, [
        loss * share * alpha_n / n_c,
        loss * (1 - share) * alpha_d / d_c,
        loss * share * log_size,
        by_alpha_d,
    ]


def starts(rows: Rows, loss: Floats) -> Floats:
    """L^(1/alpha_D) is linear in N_c^(alpha_N/alpha_D) and D_c."""
    found = []
    for alpha_n, alpha_d in itertools.product(EXPONENTS, EXPONENTS):
        ratio = alpha_n / alpha_d
        design = [rows["params"] ** -ratio, 1 / rows["tokens"]]
        ((power, d_c), _), *_ = projected([()], lambda design=design: design, loss ** (1 / alpha_d))
        found.append([power ** (1 / ratio), d_c, alpha_n, alpha_d])
    return np.array(found)


def allocation(values: Floats, flops: float) -> Floats:
    """N* = (r N_c^r C / 6 D_c)^(1/(1+r)) with r = alpha_N/alpha_D."""
    n_c, d_c, alpha_n, alpha_d = values
    ratio, budget = alpha_n / alpha_d, flops / FLOPS_PER_PARAM_TOKEN
    return np.asarray((np.log(ratio * budget) - np.log(d_c) + ratio * np.log(n_c)) / (1 + ratio))


def rates(params: Mapping[str, float]) -> Mapping[str, float]:
    return {name: params[name] for name in ("alpha_N", "alpha_D")}


KAPLAN = Form(
    name="kaplan",
    parameters=(amplitude("N_c"), amplitude("D_c"), exponent("alpha_N"), exponent("alpha_D")),
    columns=("params", "tokens"),
    evaluate=evaluate,
    starts=starts,
    allocation=allocation,
    rates=rates,
)
