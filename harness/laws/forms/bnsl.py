"""Broken neural scaling law of Caballero et al. 2210.14891, with one or two breaks.

y = a + b x^-c0 prod_i (1 + (x/d_i)^(1/f_i))^(-c_i f_i): a power law whose exponent changes by c_i around
x = d_i, the more sharply the smaller f_i. x is one scale: FLOPs, tokens or parameters.
"""

from __future__ import annotations

import itertools

import numpy as np

from harness.laws.forms.form import Form, Parameter, amplitude
from harness.laws.forms.starts import projected
from harness.laws.surfaces import Floats

FIRST_SLOPES, TURNS, SHARPNESS = (0.02, 0.1, 0.3), (-0.2, 0.5, 2.0, 6.0), (0.05, 0.3)
PLACES = (0.15, 0.35, 0.5, 0.65, 0.85)
"""Start grid: c0, c_i, f_i, and d_i as quantiles of ln x."""

PLATEAU = Parameter("a", 1e-4, 1.1, floor=True)
"""Rows may have reached it, and noise then puts some of them below."""


def breaking(x: Floats, c: Floats, d: Floats, f: Floats) -> tuple[Floats, list[Floats]]:
    """ln of one break's factor and its derivatives by c, d and f."""
    ratio = np.log(x) - np.log(d)
    bend = np.logaddexp(0.0, ratio / f)
    share = np.exp(ratio / f - bend)
    return -c * f * bend, [-f * bend, c * share / d, -c * bend + c * share * ratio / f]


def evaluate(values: Floats, x: Floats) -> tuple[Floats, list[Floats]]:
    a, b, c0, *shape = values
    breaks = [breaking(x, *shape[i : i + 3]) for i in range(0, len(shape), 3)]
    power = np.exp(-c0 * np.log(x) + sum(log_factor for log_factor, _ in breaks))
    turned = [b * power * part for _, parts in breaks for part in parts]
    return a + b * power, [np.ones_like(a), power, -b * np.log(x) * power, *turned]


def starts(x: Floats, loss: Floats, breaks: int) -> Floats:
    places = np.exp(np.quantile(np.log(x), PLACES))
    one = list(itertools.product(TURNS, places, SHARPNESS))
    several = [s for s in itertools.combinations(one, breaks) if len({d for _, d, _ in s}) == breaks]
    shapes = [(c0, *itertools.chain(*sorted(s, key=lambda t: t[1]))) for c0 in FIRST_SLOPES for s in several]

    def design(*shape: float) -> list[Floats]:
        full = np.array([0.0, 1.0, *shape])[:, None, None]
        return [np.ones(1), evaluate(full, x)[0][0]]

    return np.array([[*amplitudes, *shape] for amplitudes, shape in projected(shapes, design, loss)])


def bnsl(name: str, breaks: int, column: str) -> Form:
    """`breaks` breaks along `column`."""
    turns = [
        parameter
        for i in range(1, breaks + 1)
        for parameter in (
            Parameter(f"c{i}", -20.0, 20.0, log=False),
            amplitude(f"d{i}"),
            Parameter(f"f{i}", 1e-3, 10.0),
        )
    ]
    return Form(
        name=name,
        parameters=(PLATEAU, amplitude("b"), Parameter("c0", -3.0, 3.0, log=False), *turns),
        columns=(column,),
        evaluate=lambda values, rows: evaluate(values, rows[column]),
        starts=lambda rows, loss: starts(rows[column], loss, breaks),
    )


BNSL = bnsl("bnsl", 1, "flops")
BNSL_TWO = bnsl("bnsl_two", 2, "flops")
