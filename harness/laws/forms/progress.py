"""Loss that falls with the year at equal size and data, Ho et al. 2403.05812.

L = A e^(-alpha_year t) N^-alpha_param + B e^(-beta_year t) D^-beta_data, t the years since 2012: better
algorithms make parameters and tokens go further. Their seventh model; it has no irreducible loss, and their
constants per benchmark are left out here, so fit one benchmark at a time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np

from harness.laws.forms.form import Form, Parameter, Rows, amplitude
from harness.laws.forms.starts import projected
from harness.laws.surfaces import Floats

FIRST_YEAR = 2012.0
"""Of the models in the paper; only A and B depend on it."""

EXPONENTS, RATES = (0.03, 0.07, 0.15, 0.3), (0.0, 0.03, 0.1)


def evaluate(values: Floats, rows: Rows) -> tuple[Floats, list[Floats]]:
    a, b, alpha, beta, alpha_year, beta_year = values
    u, v, t = np.log(rows["params"]), np.log(rows["tokens"]), rows["year"] - FIRST_YEAR
    size, data = np.exp(-alpha * u - alpha_year * t), np.exp(-beta * v - beta_year * t)
    return a * size + b * data, [
        *(size, data, -a * u * size, -b * v * data),
        *(-a * t * size, -b * t * data),
    ]


def starts(rows: Rows, loss: Floats) -> Floats:
    t = rows["year"] - FIRST_YEAR

    def design(alpha: float, beta: float, alpha_year: float, beta_year: float) -> list[Floats]:
        size = rows["params"] ** -alpha * np.exp(-alpha_year * t)
        return [size, rows["tokens"] ** -beta * np.exp(-beta_year * t)]

    shapes = itertools.product(EXPONENTS, EXPONENTS, RATES, RATES)
    return np.array([[*amplitudes, *shape] for amplitudes, shape in projected(shapes, design, loss)])


PROGRESS = Form(
    name="progress",
    parameters=(
        *(amplitude("A"), amplitude("B")),
        *(Parameter("alpha_param", 1e-3, 3.0), Parameter("beta_data", 1e-3, 3.0)),
        *(Parameter("alpha_year", -2.0, 2.0, log=False), Parameter("beta_year", -2.0, 2.0, log=False)),
    ),
    columns=("params", "tokens", "year"),
    evaluate=evaluate,
    starts=starts,
)


def effective_growth(params: Mapping[str, float]) -> float:
    """d ln(effective compute)/d year: a year is worth alpha_year/alpha_param in ln N and
    beta_year/beta_data in ln D, and C = 6 N D."""
    return params["alpha_year"] / params["alpha_param"] + params["beta_year"] / params["beta_data"]


def doubling_months(params: Mapping[str, float]) -> float:
    """Months in which algorithms alone double effective compute; infinite where they do not."""
    growth = effective_growth(params)
    return 12 * math.log(2) / growth if growth > 0 else math.inf
