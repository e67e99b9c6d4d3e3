"""Reward of reinforcement learning in compute: R = R0 + (A - R0) / (1 + (C_mid/C)^B), Khatri et al.
2510.13786 (ScaleRL). At C_mid half of the rise to the plateau A is done."""

from __future__ import annotations

import itertools

import numpy as np

from harness.laws.forms.form import Form, Parameter, Rows
from harness.laws.surfaces import Floats

PLACES, STEEPNESS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.1), (0.5, 1.0, 2.0, 4.0)
"""Start grid: C_mid as a share of the range of ln C, and B."""

REWARD_RANGE = (-1e9, 1e9)


def evaluate(values: Floats, rows: Rows) -> tuple[Floats, list[Floats]]:
    from scipy.special import expit

    start, plateau, midpoint, steepness = values
    away = np.log(rows["compute"]) - np.log(midpoint)
    share = expit(steepness * away)
    slope = (plateau - start) * share * (1 - share)
    reward = start + (plateau - start) * share
    return reward, [1 - share, share, -slope * steepness / midpoint, slope * away]


def starts(rows: Rows, reward: Floats) -> Floats:
    from scipy.special import expit

    log_c = np.log(rows["compute"])
    found = []
    for place, steepness in itertools.product(PLACES, STEEPNESS):
        middle = log_c.min() + place * np.ptp(log_c)
        share = expit(steepness * (log_c - middle))
        (start, plateau), *_ = np.linalg.lstsq(np.column_stack([1 - share, share]), reward, rcond=None)
        found.append([start, plateau, np.exp(middle), steepness])
    return np.array(found)


REWARD = Form(
    name="reward",
    parameters=(
        *(Parameter("R0", *REWARD_RANGE, log=False), Parameter("A", *REWARD_RANGE, log=False)),
        *(Parameter("C_mid", 1e-60, 1e60), Parameter("B", 1e-2, 20.0)),
    ),
    columns=("compute",),
    evaluate=evaluate,
    starts=starts,
    second_derivatives=False,
    signed_response=True,
)
