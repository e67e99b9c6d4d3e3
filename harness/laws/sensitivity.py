"""How far the answer moves with choices that are seldom defended: what N and C count, the loss function,
which rows are left out, the form of the law.

Every choice is changed alone, from the user's own setting, and the law refitted (a one-at-a-time
sensitivity analysis). It matters: by the rows kept, the same Chinchilla runs give a = .51 or .56
(Besiroglu et al. 2404.10102), and by what N counts the same law gives .51 or .78 (Pearce & Song 2406.12907).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.errors import CannotAnswer, HarnessError
from harness.laws.alternatives import Alternative, Rows, alternatives
from harness.laws.config import FitConfig
from harness.laws.conventions import SIZES, in_flops, size_conversion, stated, token_cost
from harness.laws.fit import FitStatus, fit_law
from harness.laws.forms.optimum import exponent_a
from harness.laws.intervals import fresh
from harness.laws.observations import Observations

TARGET_RATIO = 10.0
"""The default target, in units of the largest run's FLOPs."""

AT_END = 1.01
"""An optimum this near to an end of the sizes searched was pushed there."""

FIGURES = ("exponent_a", "params", "tokens", "tokens_per_param", "loss")
NOT_FITTED = "not_fitted"

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, kw_only=True)
class Refit:
    """The answer under one choice. `params` and `tokens_per_param` count N as the user's own fit does, so
    that they compare; `exponent_a` is of the refit's own N and FLOPs around the target, `loss` in its own
    `loss_unit`. Figures are
    None, with a reason, where there is no fit. `in_range` when it is identified and a defensible choice.
    """

    choice: str
    alternative: str
    status: str
    reason: str = ""
    n: int = 0
    exponent_a: float | None = None
    params: float | None = None
    tokens: float | None = None
    tokens_per_param: float | None = None
    loss: float | None = None
    loss_unit: str = ""
    own_params_convention: str = ""
    flops_convention: str = ""
    in_range: bool = False

    def swing(self, base: Refit) -> float | None:
        """D*/N* over that of the base."""
        mine, own = self.tokens_per_param, base.tokens_per_param
        return None if mine is None or own is None else mine / own

    def to_json(self, base: Refit) -> dict[str, Any]:
        return {**vars(self), "swing": self.swing(base)}


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """`refits` in order of their swing, the widest first; those without a number come last."""

    flops: float
    conventions: dict[str, str]
    base: Refit
    refits: tuple[Refit, ...]

    def range(self) -> dict[str, Any]:
        """The least and the greatest of each figure over the base and every refit that is `in_range`."""
        inside = [refit for refit in (self.base, *self.refits) if refit.in_range]
        unidentified = sum(r.status == FitStatus.not_identified.value for r in (self.base, *self.refits))
        return {
            **{name: self.extent(name, inside) for name in FIGURES},
            "fits": len(inside),
            "not_identified": unidentified,
            "not_fitted": sum(refit.status == NOT_FITTED for refit in self.refits),
        }

    def extent(self, figure: str, inside: list[Refit]) -> list[float] | None:
        """Losses compare in one unit alone."""
        same = [r for r in inside if figure != "loss" or r.loss_unit == self.base.loss_unit]
        found = [getattr(refit, figure) for refit in same]
        return [min(found), max(found)] if found else None

    def to_json(self) -> dict[str, Any]:
        return {
            "target": {"flops": self.flops, "convention": self.base.flops_convention},
            "conventions": self.conventions,
            "base": self.base.to_json(self.base),
            "rows": [refit.to_json(self.base) for refit in self.refits],
            "range": self.range(),
        }


def sensitivity(
    observations: Observations,
    config: FitConfig,
    flops: float | None = None,
    counted: Rows | None = None,
    progress: Progress = lambda *_: None,
) -> Sensitivity:
    """Refit under every alternative; N*, D* and the loss at `flops` (by default 10 times the largest run).

    `counted` gives the same runs in another N or loss unit, or raises with the reason why it cannot.
    Raises CannotAnswer when the user's own setting has no fit or no optimum at the target.
    """
    rows = in_flops(observations, config.flops)
    fitted = fit_law(rows, config.law)
    cost = token_cost(rows, config.flops)
    target = flops or TARGET_RATIO * cost.largest(rows)
    own = Alternative(
        choice="own setting", label=config.law.label, fit=lambda _: fitted, flops=config.flops, rows=rows
    )
    base = answer(own, rows, rows, target)
    found = list(alternatives(rows, config, fitted, counted))
    refits = []
    for at, alternative in enumerate(found):
        progress("refits under other choices", at, len(found))
        refits.append(refit(alternative, rows, target))
    progress("refits under other choices", len(found), len(found))
    return Sensitivity(
        flops=target,
        conventions={**stated(rows, cost), "flops_of_exponent_a": cost.label},
        base=base,
        refits=tuple(sorted(refits, key=lambda r: -distance(r.swing(base)))),
    )


def distance(swing: float | None) -> float:
    """How far a ratio is from one, either way; no ratio at all comes last."""
    return -1.0 if swing is None else abs(math.log(swing))


def refit(alternative: Alternative, base_rows: Observations, target: float) -> Refit:
    """One row of the table; a refusal becomes its reason."""
    rows = alternative.rows
    try:
        if rows is None:
            raise CannotAnswer(alternative.reason)
        return answer(alternative, rows, base_rows, target)
    except HarnessError as error:
        return Refit(
            choice=alternative.choice,
            alternative=alternative.label,
            status=NOT_FITTED,
            reason=str(error),
            n=0 if rows is None else len(rows),
        )


def answer(alternative: Alternative, rows: Observations, base_rows: Observations, target: float) -> Refit:
    """The figures of one choice at the target. Raises CannotAnswer when it has none."""
    cost = token_cost(rows, alternative.flops)
    fitted = alternative.fit(rows)
    given = fresh(rows, fitted)
    best = fitted.optimum(target, cost, given)
    params = in_base_params(best.params, rows, base_rows)
    exponent = exponent_a(fitted.form, fitted.form.values(fitted.params)[None], target, cost, given)
    figures = (float(exponent[0]), params, best.tokens, best.loss)
    inside = SIZES[0] * AT_END < best.params < SIZES[1] / AT_END
    if not (inside and all(math.isfinite(x) for x in figures)):
        raise CannotAnswer(f"no compute-optimal size at {target:.3g} FLOPs")
    return Refit(
        choice=alternative.choice,
        alternative=alternative.label,
        status=fitted.status.value,
        reason="; ".join(fitted.reasons),
        n=fitted.n,
        exponent_a=figures[0],
        params=params,
        tokens=best.tokens,
        tokens_per_param=best.tokens / params,
        loss=best.loss,
        loss_unit=rows.loss_unit.value,
        own_params_convention=rows.params_kind.value,
        flops_convention=cost.label,
        in_range=alternative.counts and fitted.status is FitStatus.identified,
    )


def in_base_params(params: float, rows: Observations, base_rows: Observations) -> float:
    """N counted as in the user's own fit. Raises CannotAnswer when the rows do not tell."""
    if rows.params_kind is base_rows.params_kind:
        return params
    return float(size_conversion(rows, base_rows)(np.array([params]))[0])
