"""Laws of the best learning rate and batch size, log-linear as in Li et al. 2503.04715 (Step Law).

Their constants are of their own sweep, and other sweeps disagree even on the sign of the exponent of D; so
these are fitted, never assumed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.laws.forms.form import Form, Parameter, Rows, amplitude
from harness.laws.surfaces import Floats


def power_product(name: str, scale: str, exponents: Sequence[tuple[str, str]]) -> Form:
    """scale * product of column^exponent over `exponents`, pairs of (parameter, column)."""
    columns = [column for _, column in exponents]

    def evaluate(values: Floats, rows: Rows) -> tuple[Floats, list[Floats]]:
        logs = [np.log(rows[column]) for column in columns]
        power = np.exp(sum(a * log for a, log in zip(values[1:], logs, strict=True)))
        value = values[0] * power
        return value, [power, *(value * log for log in logs)]

    def starts(rows: Rows, response: Floats) -> Floats:
        logs = np.column_stack([np.ones(len(response)), *(np.log(rows[column]) for column in columns)])
        (log_scale, *powers), *_ = np.linalg.lstsq(logs, np.log(response), rcond=None)
        return np.array([[np.exp(log_scale), *powers]])

    return Form(
        name=name,
        parameters=(amplitude(scale), *(Parameter(p, -5.0, 5.0, log=False) for p, _ in exponents)),
        columns=tuple(columns),
        evaluate=evaluate,
        starts=starts,
    )


LEARNING_RATE = power_product("learning_rate", "c", (("a", "params"), ("b", "tokens")))
"""eta = c N^a D^b."""

BATCH_SIZE = power_product("batch_size", "d", (("e", "tokens"),))
"""B = d D^e, in tokens."""
