"""L = (E^(1/p) + K/C^g)^p along one line of (N, D), such as a ladder of sizes at 20 tokens a parameter.

Runs on one line determine the loss along it and nothing beside it: there the law of N and D is a law of
compute (Kaplan et al. 2001.08361, with an irreducible loss). With p > 1 the local exponent falls more slowly
towards the floor, as in `ces`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from harness.laws.forms.form import Form, Parameter, Rows, amplitude, irreducible
from harness.laws.forms.starts import projected, stacked
from harness.laws.surfaces import Floats

EXPONENTS = np.linspace(0.02, 0.6, 15)
K, E = 0, 1


def evaluate(values: Floats, rows: Rows, power: float) -> tuple[Floats, list[Floats]]:
    k, e, g = values
    w = np.log(rows["flops"])
    falling, floor = np.exp(-g * w), e ** (1 / power)
    root = floor + k * falling
    slope = power * root ** (power - 1)
    return root**power, [slope * falling, slope * floor / (power * e), -slope * k * falling * w]


def starts(rows: Rows, loss: Floats, power: float) -> Floats:
    """Linear in K and the root of E for a given exponent."""

    def design(g: float) -> list[Floats]:
        return [rows["flops"] ** -g, np.ones(1)]

    found = stacked(projected([(float(x),) for x in EXPONENTS], design, loss ** (1 / power)))
    found[:, E] **= power
    return found


def rates(params: Mapping[str, float], power: float) -> Mapping[str, float]:
    """Without a floor the loss falls with p times the exponent."""
    return {"g": power * params["g"]}


def ladder(name: str, power: float, prior: tuple[float, float]) -> Form:
    """`prior` is the mean and the standard deviation of the weak prior on g."""
    return Form(
        name=name,
        parameters=(amplitude("K"), irreducible(), Parameter("g", 0.005, 1.5, log=False)),
        columns=("flops",),
        evaluate=partial(evaluate, power=power),
        starts=partial(starts, power=power),
        rates=partial(rates, power=power),
        weak_prior={"g": prior},
    )


# Half the exponents of `ces`: along a line on which N and D both go as C^.5, a term in N^-a goes as C^(-a/2).
LADDER = ladder("ladder", 1.0, (0.165, 0.025))
LADDER_SQUARE_ROOT = ladder("ladder_square_root", 2.0, (0.1, 0.025))
LADDER_FOURTH_ROOT = ladder("ladder_fourth_root", 4.0, (0.075, 0.025))
