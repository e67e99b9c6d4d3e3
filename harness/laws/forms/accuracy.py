"""Task accuracy, or error, as a function of the loss: the second step of a downstream prediction."""

from __future__ import annotations

import itertools

import numpy as np

from harness.laws.forms.form import Form, Parameter, Rows, amplitude
from harness.laws.surfaces import Floats

STEEPNESS, MIDPOINTS = (1.5, 3.0, 6.0, 12.0, 24.0), (0.4, 0.6, 0.8, 1.0, 1.2)
RATES = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Start grid: k and gamma per unit of loss, L0 as a multiple of the median loss."""


def evaluate_sigmoid(values: Floats, rows: Rows) -> tuple[Floats, list[Floats]]:
    from scipy.special import expit

    a, k, midpoint, b = values
    away = rows["loss"] - midpoint
    share = expit(k * away)
    slope = a * share * (1 - share)
    return a * share + b, [share, slope * away, -slope * k, np.ones_like(share)]


def sigmoid_starts(rows: Rows, accuracy: Floats) -> Floats:
    """a and b enter linearly."""
    from scipy.special import expit

    middle = float(np.median(rows["loss"]))
    found = []
    for k, times in itertools.product(STEEPNESS, MIDPOINTS):
        share = expit(k * (rows["loss"] - times * middle))
        (a, b), *_ = np.linalg.lstsq(np.column_stack([share, np.ones_like(share)]), accuracy, rcond=None)
        found.append([min(a, -0.02), k, times * middle, b])
    return np.array(found)


ACCURACY = Form(
    name="accuracy",
    parameters=(
        *(Parameter("a", -1.0, 0.0, log=False), Parameter("k", 1e-2, 1e3)),
        *(Parameter("L0", 1e-3, 1e3), Parameter("b", 0.0, 1.0, log=False)),
    ),
    columns=("loss",),
    signed=("loss",),
    signed_response=True,
    second_derivatives=False,
    evaluate=evaluate_sigmoid,
    starts=sigmoid_starts,
)
"""accuracy = a / (1 + exp(-k (L - L0))) + b with a < 0: b is the ceiling, a + b the floor (Bhagia et al.
2412.04403). A loss of zero is allowed: the authors add the point where everything is answered."""


def evaluate_exponential(values: Floats, rows: Rows) -> tuple[Floats, list[Floats]]:
    epsilon, k, gamma = values
    gain = np.exp(-gamma * rows["loss"])
    return epsilon - k * gain, [np.ones_like(gain), -gain, k * rows["loss"] * gain]


def exponential_starts(rows: Rows, error: Floats) -> Floats:
    found = []
    for gamma in RATES:
        gain = np.exp(-gamma * rows["loss"])
        (epsilon, k), *_ = np.linalg.lstsq(np.column_stack([np.ones_like(gain), -gain]), error, rcond=None)
        found.append([min(max(epsilon, 0.01), 0.99), max(k, 1e-3), gamma])
    return np.array(found)


ERROR = Form(
    name="error",
    parameters=(Parameter("epsilon", 1e-3, 1.0), amplitude("k"), Parameter("gamma", 1e-2, 1e2)),
    columns=("loss",),
    signed_response=True,
    second_derivatives=False,
    evaluate=evaluate_exponential,
    starts=exponential_starts,
)
"""error = epsilon - k exp(-gamma L), Gadre et al. 2403.08540."""
