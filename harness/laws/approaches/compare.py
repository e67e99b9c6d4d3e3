"""The three approaches of Hoffmann et al. 2203.15556 on the same runs, side by side.

Approach 1 follows the runs' lower envelope, approach 2 fits a parabola to each isoFLOP slice, approach 3 is
the parametric law. Where they disagree by more than their intervals, the rows do not say what is optimal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from harness.laws.approaches.allocation import Allocation
from harness.laws.approaches.envelope import BudgetOptimum, Envelope, fit_envelope
from harness.laws.approaches.isoflop import IsoFlop, fit_isoflop
from harness.laws.approaches.slices import SLICE_WIDTH
from harness.laws.bootstrap import Interval, finite
from harness.laws.config import FitConfig
from harness.laws.fit import FitStatus
from harness.laws.intervals import MULTIPLES
from harness.laws.observations import Observations


class Approach(Enum):
    """By the number Hoffmann et al. gave it."""

    envelope = 1
    isoflop = 2
    parametric = 3


@dataclass(frozen=True)
class Answer:
    """What one approach says. `interval` is of the exponent a; `optimum` one entry a budget, with
    intervals; both may be missing when `status` is `not_identified`, for `reasons`."""

    approach: Approach
    reasons: tuple[str, ...]
    exponent_a: float | None
    interval: Interval | None
    optimum: tuple[dict[str, Any], ...]
    details: dict[str, Any]

    @property
    def status(self) -> FitStatus:
        return FitStatus.not_identified if self.reasons else FitStatus.identified

    def to_json(self) -> dict[str, Any]:
        return {
            "approach": self.approach.value,
            "name": self.approach.name,
            "status": self.status.value,
            "reasons": list(self.reasons),
            "exponent_a": self.exponent_a,
            "interval": self.interval,
            "optimum": list(self.optimum),
            "details": self.details,
        }


def comparison_budgets(observations: Observations, targets: Sequence[float] = ()) -> tuple[float, ...]:
    """1, 10 and 100 times the largest run, and the targets, in order."""
    largest = float(observations.flops.max())
    return tuple(sorted({*targets, *(multiple * largest for multiple in MULTIPLES)}))


def compare(
    observations: Observations, parametric: dict[str, Any], config: FitConfig, budgets: Sequence[float]
) -> tuple[Answer, Answer, Answer]:
    """`parametric` is the JSON of the parametric fit (`fit_json`) at the same budgets.

    An approach that these rows cannot support says so in its reasons.
    """
    return (
        envelope_answer(fit_envelope(observations, config), config, budgets),
        isoflop_answer(fit_isoflop(observations, config), config, budgets),
        parametric_answer(parametric),
    )


def unanswered(answers: Sequence[Answer]) -> str:
    """One line naming the approaches that cannot answer, and why; empty when all can."""
    return "; ".join(
        f"approach {a.approach.value} ({a.approach.name}) cannot answer: {', '.join(a.reasons)}"
        for a in answers
        if a.reasons
    )


def answer(
    approach: Approach,
    allocation: Allocation | None,
    reasons: tuple[str, ...],
    details: dict[str, Any],
    config: FitConfig,
    budgets: Sequence[float],
) -> Answer:
    if allocation is None:
        return Answer(approach, reasons, None, None, (), details)
    ends = allocation.exponent_interval(config.level)
    if ends is not None and None in ends:
        reasons = (*reasons, "the interval of the exponent is open")
    optima = tuple(allocation.optimum(flops, config.level) for flops in budgets)
    return Answer(approach, reasons, allocation.exponent_a, ends, optima, details)


def envelope_answer(found: Envelope, config: FitConfig, budgets: Sequence[float]) -> Answer:
    details = {"residual": found.sigma, "budgets": [budget_json(o) for o in found.optima]}
    return answer(Approach.envelope, found.allocation, found.reasons, details, config, budgets)


def budget_json(optimum: BudgetOptimum) -> dict[str, Any]:
    log_n, log_d = float(optimum.log_n[0]), float(optimum.log_d[0])
    return {
        "flops": optimum.flops,
        "sizes": optimum.sizes,
        "usable": optimum.usable,
        "params": finite(math.exp(log_n)),
        "tokens": finite(math.exp(log_d)),
    }


def isoflop_answer(found: IsoFlop, config: FitConfig, budgets: Sequence[float]) -> Answer:
    """`details` hold the parabolas' own exponent and the bias that was taken off every slice."""
    raw = found.raw
    details = {
        "residual": found.sigma,
        "raw_exponent_a": raw and raw.exponent_a,
        "raw_interval": raw and raw.exponent_interval(config.level),
        "bias_bound": found.bias_bound,
        "budget_tolerance": SLICE_WIDTH - 1,
        "slices": slices_json(found),
    }
    return answer(Approach.isoflop, found.corrected, found.reasons, details, config, budgets)


def slices_json(found: IsoFlop) -> list[dict[str, Any]]:
    """D* of every slice as corrected, and its bias as a share of D*; faults of those not used."""
    slices: list[dict[str, Any]] = [
        {"flops": s.flops, "runs": len(s.rows), "fault": s.fault.value} for s in found.slices
    ]
    if found.vertices is None or found.bias is None:
        return slices
    used = [s for s in slices if not s["fault"]]
    for entry, log_d, bias in zip(used, found.vertices, found.bias, strict=True):
        entry.update(tokens=math.exp(log_d), tokens_raw=math.exp(log_d + bias), bias=math.expm1(bias))
    return slices


def parametric_answer(fit: dict[str, Any]) -> Answer:
    reasons = tuple(fit["reasons"])
    if not fit["optimum"]:
        reasons = (*reasons, f"{fit['law']} allocates no budget")
    return Answer(
        approach=Approach.parametric,
        reasons=reasons,
        exponent_a=fit["exponent_a"],
        interval=fit["intervals"].get("exponent_a"),
        optimum=tuple(fit["optimum"]),
        details={"law": fit["law"], "residual": fit["residual_rms"]},
    )
