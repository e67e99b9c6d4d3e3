"""Runs on one line of (N, D), such as a ladder of sizes at 20 tokens a parameter.

Along the line the loss is a law of compute, and a bet on it needs no more; what lies beside it, the best size
for a budget among it, such runs do not say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.laws.alternatives import SAME_BUDGET
from harness.laws.checks import Check, grade
from harness.laws.forms.form import Form
from harness.laws.forms.ladder import LADDER, LADDER_FOURTH_ROOT, LADDER_SQUARE_ROOT
from harness.laws.identify import FLATTEST_DESIGN
from harness.laws.observations import Observations, levels
from harness.laws.surfaces import Floats

FEWEST_RUNGS = 5
"""Three determine a law of compute, a fourth may contradict it, and a fifth is held out to test it."""

OFF_THE_LINE = 1.25
"""In tokens per parameter: the loss of the same compute then differs by a few tenths of a percent."""

AGAINST = -0.02
"""Slopes of ln N and ln D by ln C below this: more compute with less of one is no ladder."""


@dataclass(frozen=True)
class Ladder:
    """ln N and ln D as (intercept, slope) in ln C, and how many budgets of compute there are."""

    params: tuple[float, float]
    tokens: tuple[float, float]
    rungs: int

    @property
    def members(self) -> tuple[Form, ...]:
        """The laws along the line; their weak prior is that of the faster of N and D."""
        faster = 2 * max(self.params[1], self.tokens[1])
        return tuple(with_prior(one, faster) for one in (LADDER, LADDER_SQUARE_ROOT, LADDER_FOURTH_ROOT))

    def at(self, flops: float) -> tuple[float, float]:
        """Parameters and tokens of the line at a budget."""
        log_c = math.log(flops)
        (a, n), (b, d) = self.params, self.tokens
        return math.exp(a + n * log_c), math.exp(b + d * log_c)

    def flops_of(self, params: float, tokens: float) -> float:
        """The budget at which the line has this N D, in the FLOPs of the runs."""
        (a, n), (b, d) = self.params, self.tokens
        return math.exp((math.log(params * tokens) - a - b) / (n + d))

    def check(self, params: float, tokens: float) -> Check:
        """Whether a target lies on the line."""
        there = self.at(self.flops_of(params, tokens))
        wanted, usual = tokens / params, there[1] / there[0]
        off = max(wanted / usual, usual / wanted)
        reason = (
            f"the runs lie on one line of (N, D), which has {usual:.3g} tokens per parameter there, and the "
            f"target {wanted:.3g}: a law along the line says nothing of what lies beside it"
        )
        return Check("line", grade(off > OFF_THE_LINE), off, OFF_THE_LINE, reason)

    def to_json(self) -> dict[str, Any]:
        return {"rungs": self.rungs, "params_exponent": self.params[1], "tokens_exponent": self.tokens[1]}


def with_prior(form: Form, faster: float) -> Form:
    mean, deviation = form.weak_prior["g"]
    return replace(form, weak_prior={"g": (faster * mean, faster * deviation)})


def find_ladder(observations: Observations) -> Ladder | None:
    """None where N and D vary apart, where there are too few budgets, or one falls as compute grows."""
    if not observations.sized or levels(observations.flops, SAME_BUDGET) < FEWEST_RUNGS:
        return None
    u, v, w = (np.log(x) for x in (observations.params, observations.tokens, observations.flops))
    spread = np.linalg.svd(np.stack([u - u.mean(), v - v.mean()]), compute_uv=False)
    params, tokens = line(w, u), line(w, v)
    if spread[1] >= FLATTEST_DESIGN * spread[0] or min(params[1], tokens[1]) < AGAINST:
        return None
    return Ladder(params, tokens, levels(observations.flops, SAME_BUDGET))


def line(x: Floats, y: Floats) -> tuple[float, float]:
    """Intercept and slope of least squares."""
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    return float(y.mean() - slope * x.mean()), slope
