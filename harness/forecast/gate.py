"""Whether a sweep supports a bet. Every reason is a measured check with its number."""

from __future__ import annotations

import math
from enum import Enum

import numpy as np

from harness.forecast.engine import Engine, Prediction, Target
from harness.forecast.tuning import check_tuning
from harness.laws.fit import Fit, FitStatus
from harness.laws.identify import Check, Grade, grade
from harness.laws.observations import Observations, levels
from harness.laws.surfaces import Floats

ENOUGH_LEVELS = 4
"""Three sizes or token counts determine the law with nothing left to contradict it."""

HOPELESS_WIDTH, WIDE_WIDTH = 1.0, 0.5
"""Half-width of the interval over the predicted gain on the best run of the sweep: at 1 the interval
reaches back to what is already in hand and the forecast says nothing."""

WORTHLESS = 1e6
"""The ratio where no gain is predicted at all; finite, for JSON."""


class Verdict(Enum):
    supported = "supported"
    weak = "weak"
    refused = "refused"


def judge(engine: Engine, target: Target, prediction: Prediction) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict and the reasons for anything less than `supported`, the gravest first.

    E being weakly determined is no reason: what counts is the width of the interval at the target.
    """
    observations, fit = engine.observations, engine.fit
    checks = [
        *(check for check in fit.checks if check.name != "floor" or check.grade is Grade.failed),
        *check_levels(observations),
        *check_tuning(observations),
        *check_reach(observations, target, prediction, engine.rolling.largest_ratio),
        check_width(fit, prediction),
    ]
    failed = [check.reason for check in checks if check.grade is Grade.failed]
    weak = [check.reason for check in checks if check.grade is Grade.weak]
    if failed or fit.status is FitStatus.not_identified:
        low, high = prediction.interval
        number = f"{prediction.loss:.4f} [{low:.4f}, {high:.4f}]"
        for_the_record = f"for the record, the fits would say {number}; do not bet on it"
        return Verdict.refused, (*failed, *weak, for_the_record)
    return (Verdict.weak if weak else Verdict.supported), tuple(weak)


def check_levels(observations: Observations) -> list[Check]:
    checks = []
    for label, values in (("sizes", observations.params), ("token counts", observations.tokens)):
        count = levels(values)
        reason = f"only {count} distinct {label}: they fit the law with nothing left to contradict it"
        checks.append(
            Check(f"few {label}", grade(False, count < ENOUGH_LEVELS), count, ENOUGH_LEVELS, reason)
        )
    return checks


def check_reach(
    observations: Observations, target: Target, prediction: Prediction, covered: float
) -> list[Check]:
    """How far the bet lies beyond the sweep: along each axis of the law, in compute, and in the backtest.

    The law is a function of N and D, so a step along either that is longer than the sweep itself is a
    refusal; in compute it is a warning, since isoFLOP slices are narrow in C and wide in N and D.
    """
    axes = (
        ("parameters", observations.params, target.params),
        ("tokens", observations.tokens, target.tokens),
        ("FLOPs", observations.flops, target.budget),
    )
    far = f"the target has {prediction.ratio:.3g} times the compute of the largest run"
    tested = f"{far}; inside the sweep extrapolation could be tested up to {covered:.3g} times"
    beyond = prediction.ratio > covered
    return [
        *(check_span(name, values, aim) for name, values, aim in axes),
        Check("backtest", grade(False, beyond), prediction.ratio, covered, tested),
    ]


def check_span(name: str, values: Floats, aim: float) -> Check:
    low, high = float(values.min()), float(values.max())
    ratio, span = max(aim / high, low / aim), high / low
    reason = (
        f"the target lies {ratio:.3g} times beyond the sweep in {name}, further than the sweep spans "
        f"itself ({span:.3g} times)"
    )
    far = ratio > span
    return Check(f"span of {name}", grade(far and name != "FLOPs", far), ratio, span, reason)


def check_width(fit: Fit, prediction: Prediction) -> Check:
    """The interval against the gain it is meant to predict, from the law's own best run of the sweep.

    The law's, not the observed one: a misfit there would pass for a gain or hide one.
    """
    fitted = np.log(fit.solution.loss) + fit.solution.residual
    gain = float(fitted.min()) - math.log(prediction.loss)
    width = prediction.half_width / gain if gain > 0 else WORTHLESS
    reason = (
        f"the interval is +-{prediction.half_width:.1%} of the loss, "
        f"the predicted gain on the sweep's best run is {gain:.1%}"
    )
    beyond = prediction.ratio > 1  # inside the sweep there is no gain to predict
    failed, weak = beyond and width >= HOPELESS_WIDTH, beyond and width >= WIDE_WIDTH
    return Check("width", grade(failed, weak), width, WIDE_WIDTH, reason)
