"""Data-constrained law of Muennighoff et al. 2305.16264: repeated tokens are worth ever less.

With U unique tokens and R_D = D/U - 1 repetitions, D' = U + U R_D* (1 - exp(-R_D/R_D*)) replaces D; with
U_N = min(N, N of the budget whose optimal D is U) and R_N = N/U_N - 1, N' likewise replaces N.
U_N uses C = 6 N D: (U G)^(beta/alpha) G, G = (alpha A / beta B)^(1/(alpha+beta)).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from harness.laws.forms.form import Form, Parameter, Rows, amplitude, exponent, irreducible
from harness.laws.forms.starts import projected
from harness.laws.surfaces import Floats

HALF_LIVES, EXPONENTS = (2.0, 6.0, 20.0, 60.0), (0.25, 0.35, 0.45)


def matched_size(values: Floats, unique: Floats) -> tuple[Floats, Floats]:
    """ln G, and ln of the params of the budget whose optimal tokens are the `unique` ones."""
    a, b, _, alpha, beta = values[:5]
    log_g = (np.log(alpha / beta) + np.log(a) - np.log(b)) / (alpha + beta)
    return log_g, beta / alpha * (np.log(unique) + log_g) + log_g


def saturate(unique: Floats, total: Floats, star: Floats) -> tuple[Floats, Floats, Floats]:
    """What `total` is worth, and its derivatives by `unique` and by `star`."""
    repeats = total / unique - 1
    left = np.exp(-repeats / star)
    worth = unique * (1 + star * (1 - left))
    return worth, 1 + star * (1 - left) - left * total / unique, unique * (1 - left * (1 + repeats / star))


def evaluate(values: Floats, rows: Rows) -> tuple[Floats, list[Floats]]:
    a, b, e, alpha, beta, star_d, star_n = values
    n, d = rows["params"], rows["tokens"]
    u = np.minimum(rows["unique_tokens"], d)
    both = alpha + beta
    log_g, log_matched = matched_size(values, u)
    matched = np.minimum(np.exp(log_matched), n)
    worth_n, by_matched, by_star_n = saturate(matched, n, star_n)
    worth_d, _, by_star_d = saturate(u, d, star_d)
    size, data = a * worth_n**-alpha, b * worth_d**-beta

    by_worth = -alpha * size / worth_n
    through = np.where(log_matched < np.log(n), by_worth * by_matched * matched, 0.0)
    by_g = through * (beta / alpha + 1)
    by_alpha = by_g * (1 / alpha - log_g) / both - through * beta / alpha**2 * (np.log(u) + log_g)
    by_beta = by_g * (-1 / beta - log_g) / both + through / alpha * (np.log(u) + log_g)
    return e + size + data, [
        size / a + by_g / both / a,
        data / b - by_g / both / b,
        np.ones_like(e),
        -np.log(worth_n) * size + by_alpha,
        -np.log(worth_d) * data + by_beta,
        -beta * data / worth_d * by_star_d,
        by_worth * by_star_n,
    ]


def worth(params: Mapping[str, float], n: Floats, d: Floats, unique: Floats) -> tuple[Floats, Floats]:
    """N' and D' of the law with `params`, each [n]: what N parameters and D tokens, of which `unique` are
    distinct, are worth without repetition."""
    values, u = REPETITION.values(params), np.minimum(unique, d)
    matched = np.minimum(np.exp(matched_size(values, u)[1]), n)
    return saturate(matched, n, values[6])[0], saturate(u, d, values[5])[0]


def rates(params: Mapping[str, float]) -> Mapping[str, float]:
    return {name: params[name] for name in ("alpha", "beta")}


def starts(rows: Rows, loss: Floats) -> Floats:
    """Amplitudes as if no token were repeated, crossed with what a repetition may be worth."""

    def design(alpha: float, beta: float) -> list[Floats]:
        return [rows["params"] ** -alpha, rows["tokens"] ** -beta, np.ones(1)]

    plain = projected(itertools.product(EXPONENTS, EXPONENTS), design, loss)
    stars = list(itertools.product(HALF_LIVES, HALF_LIVES))
    return np.array([[*amplitudes, *shape, *star] for amplitudes, shape in plain for star in stars])


REPETITION = Form(
    name="repetition",
    parameters=(
        *(amplitude("A"), amplitude("B"), irreducible(), exponent("alpha"), exponent("beta")),
        *(Parameter("R_D*", 1e-2, 1e3), Parameter("R_N*", 1e-2, 1e3)),
    ),
    columns=("params", "tokens", "unique_tokens"),
    evaluate=evaluate,
    starts=starts,
    rates=rates,
)
