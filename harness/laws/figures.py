"""Figures that follow from a fitted law, each one number of its natural parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from harness.laws.conventions import SIX_ND, TokenCost
from harness.laws.forms.form import Form
from harness.laws.forms.optimum import allocate, exponent_a
from harness.laws.surfaces import Floats


@dataclass(frozen=True)
class Figure:
    """`of` maps values [K, p] to the figure [K]; NaN where a law has none. A `log` figure is positive and
    profiled in its logarithm."""

    name: str
    of: Callable[[Floats], Floats]
    log: bool = True


def parameter(form: Form, at: int) -> Figure:
    return Figure(form.names[at], lambda values: values[:, at], form.parameters[at].log)


def allocation_exponent(
    form: Form, flops: float, cost: TokenCost = SIX_ND, given: Mapping[str, float] | None = None
) -> Figure:
    """a in N* proportional to C^a, near `flops`."""
    return Figure("exponent_a", lambda values: exponent_a(form, values, flops, cost, given), log=False)


def loss_at(form: Form, columns: Mapping[str, object]) -> Figure:
    """The loss on one row."""
    rows = form.rows(columns)
    return Figure("loss", lambda values: form.losses(values, rows)[:, 0])


def optimum_figures(
    form: Form, flops: float, cost: TokenCost = SIX_ND, given: Mapping[str, float] | None = None
) -> tuple[Figure, ...]:
    """N*, D*, D*/N* and the loss there, under C = F(N) D. A value that overflows is infinite."""

    def sizes(values: Floats) -> tuple[Floats, Floats]:
        return allocate(form, values, flops, cost, given)

    def ratio(values: Floats) -> Floats:
        log_n, log_d = sizes(values)
        return exp(log_d - log_n)

    def loss(values: Floats) -> Floats:
        n, d = (exp(x)[:, None] for x in sizes(values))
        with np.errstate(all="ignore"):
            rows = {**{name: np.array([[x]]) for name, x in (given or {}).items()}, "params": n, "tokens": d}
            return form.losses(values, rows)[:, 0]

    return (
        Figure("params", lambda values: exp(sizes(values)[0])),
        Figure("tokens", lambda values: exp(sizes(values)[1])),
        Figure("tokens_per_param", ratio),
        Figure("loss", loss),
    )


def exp(log: Floats) -> Floats:
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(np.exp(log))
