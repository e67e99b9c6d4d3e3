"""L = exp(s N^q + S) + exp(B N^b + Q) D^-exp(A N^a + E), Farseer, 2506.10972.

For each N a power law in D whose floor, amplitude and exponent each change smoothly with N.
"""

from __future__ import annotations

import itertools

import numpy as np

from harness.laws.forms.form import Form, Parameter, Rows
from harness.laws.forms.starts import projected
from harness.laws.surfaces import Floats

DATA_EXPONENTS = np.linspace(0.1, 1.2, 12)
POWERS = list(itertools.product((0.1, 0.2), (-0.2, -0.1), (0.05, 0.15)))
"""q, b and a of the starts; the paper's are .13, -.1729 and .0459."""


def evaluate(values: Floats, rows: Rows) -> tuple[Floats, list[Floats]]:
    s, q, big_s, big_b, b, big_q, big_a, a, e = values
    u, v = np.log(rows["params"]), np.log(rows["tokens"])
    n_q, n_b, n_a = np.exp(q * u), np.exp(b * u), np.exp(a * u)
    floor = np.exp(s * n_q + big_s)
    exponent = np.exp(big_a * n_a + e)
    data = np.exp(big_b * n_b + big_q - exponent * v)
    slope = -data * exponent * v
    by_floor = [floor * n_q, floor * s * n_q * u, floor]
    by_data = [data * n_b, data * big_b * n_b * u, data]
    return floor + data, [*by_floor, *by_data, slope * n_a, slope * big_a * n_a * u, slope]


def starts(rows: Rows, loss: Floats) -> Floats:
    """A power law in D at each N, then each of its three numbers on a power of N."""
    n, d = rows["params"], rows["tokens"]
    often = [size for size in np.unique(n) if (n == size).sum() >= 4]
    if len(often) < 3:
        return np.zeros((0, 9))
    sizes = np.array(often)
    floors, amplitudes, exponents = np.array([power_law(d[n == size], loss[n == size]) for size in often]).T

    def on_power(y: Floats, power: float) -> list[float]:
        slope, intercept = np.polyfit(sizes**power, np.log(y), 1)
        return [float(slope), power, float(intercept)]

    return np.array(
        [[*on_power(floors, q), *on_power(amplitudes, b), *on_power(exponents, a)] for q, b, a in POWERS]
    )


def power_law(d: Floats, loss: Floats) -> tuple[float, float, float]:
    """Floor, amplitude and exponent of the best of a grid of exponents."""

    def miss(solved: Floats, beta: float) -> float:
        return float((((solved[0] + solved[1] * d**-beta) / loss - 1) ** 2).sum())

    shapes = [(float(x),) for x in DATA_EXPONENTS]
    tries = projected(shapes, lambda beta: [np.ones(1), d**-beta], loss)
    solved, (beta,) = min(tries, key=lambda t: miss(t[0], t[1][0]))
    return float(solved[0]), float(solved[1]), beta


def free(name: str, reach: float) -> Parameter:
    return Parameter(name, -reach, reach, log=False)


FARSEER = Form(
    name="farseer",
    parameters=(
        *(free("s", 1e3), free("q", 1.0), free("S", 1e3)),
        *(free("B", 1e5), free("b", 1.0), free("Q", 1e3)),
        *(free("A", 1e3), free("a", 1.0), free("E", 1e3)),
    ),
    columns=("params", "tokens"),
    evaluate=evaluate,
    starts=starts,
)
