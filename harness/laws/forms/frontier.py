"""L = E + K/C^g through the lower envelope of the runs: what the best run of each budget reaches.

The envelope is approach 1 of Hoffmann et al. 2203.15556 without smoothing: a run counts when no run of
equal or smaller budget is better. With E = 0 it is L(C) of Kaplan et al. 2001.08361.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.laws.forms.form import Form, RowNumbers, Rows, amplitude, exponent, irreducible
from harness.laws.forms.starts import projected, stacked
from harness.laws.surfaces import Floats

EXPONENTS = np.linspace(0.02, 0.6, 15)


def evaluate(values: Floats, rows: Rows) -> tuple[Floats, list[Floats]]:
    k, e, g = values
    w = np.log(rows["flops"])
    power = np.exp(-g * w)
    return e + k * power, [power, np.ones_like(e), -k * w * power]


def starts(rows: Rows, loss: Floats) -> Floats:
    def design(g: float) -> list[Floats]:
        return [rows["flops"] ** -g, np.ones(1)]

    return stacked(projected([(float(x),) for x in EXPONENTS], design, loss))


def rates(params: Mapping[str, float]) -> Mapping[str, float]:
    return {"g": params["g"]}


def envelope(rows: Rows, loss: Floats) -> RowNumbers:
    """The runs that beat every run of equal or smaller budget, by row number."""
    order = np.lexsort((loss, rows["flops"]))
    best_before = np.concatenate([[np.inf], np.minimum.accumulate(loss[order])[:-1]])
    return np.sort(order[loss[order] < best_before])


FRONTIER = Form(
    name="frontier",
    parameters=(amplitude("K"), irreducible(), exponent("g")),
    columns=("flops",),
    evaluate=evaluate,
    starts=starts,
    rates=rates,
    keep=envelope,
)
