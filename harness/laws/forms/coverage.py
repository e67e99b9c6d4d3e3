"""Coverage c = exp(a k^b) of k samples, Brown et al. 2407.21787: the share of problems that at least one
sample solves. a and b are negative where more samples solve more."""

from __future__ import annotations

import numpy as np

from harness.laws.forms.form import Form, Parameter, Rows
from harness.laws.surfaces import Floats

ALMOST_ALL = 1 - 1e-9
"""The logarithm of full coverage has no logarithm of its own."""


def evaluate(values: Floats, rows: Rows) -> tuple[Floats, list[Floats]]:
    a, b = values
    log_k = np.log(rows["samples"])
    power = np.exp(b * log_k)
    share = np.exp(a * power)
    return share, [share * power, share * a * power * log_k]


def starts(rows: Rows, coverage: Floats) -> Floats:
    """ln(-ln c) = ln(-a) + b ln k."""
    log_k, target = np.log(rows["samples"]), np.log(-np.log(np.minimum(coverage, ALMOST_ALL)))
    (b, log_a), *_ = np.linalg.lstsq(np.column_stack([log_k, np.ones_like(log_k)]), target, rcond=None)
    return np.array([[-np.exp(log_a), b], [-2.0, -0.3], [-5.0, -0.6]])


COVERAGE = Form(
    name="coverage",
    parameters=(Parameter("a", -60.0, 60.0, log=False), Parameter("b", -5.0, 5.0, log=False)),
    columns=("samples",),
    evaluate=evaluate,
    starts=starts,
    second_derivatives=False,
)
