"""The other choices an analyst could have made for one fit: conventions, loss functions, rows, laws."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from harness.errors import CannotAnswer, HarnessError
from harness.laws.config import (
    WITH_PRIOR,
    FitConfig,
    FlopsKind,
    LawConfig,
    LawName,
    LossFunction,
    LossUnit,
    ParamsKind,
)
from harness.laws.conventions import token_cost
from harness.laws.fit import Fit, fit_law
from harness.laws.observations import FLOPS_6ND, SAME_SIZE, Observations, best_of_cell, cells
from harness.laws.solve import robust_scale
from harness.laws.surfaces import Floats

FitRows = Callable[[Observations], Fit]
Rows = Callable[[ParamsKind, LossUnit], Observations]
"""The same runs counted another way; raises HarnessError with the reason when they cannot be."""

DELTAS = (1e-4, 1e-3, 1e-2)
LAWS = (LawName.chinchilla, LawName.chinchilla_tied, LawName.skaling)

HIGHEST_SHARE = 0.02
"""Of the rows, those of the highest losses: the 5 of 245 that Besiroglu et al. 2404.10102 leave out."""

SAME_BUDGET = 1.5
"""Rows within this factor in FLOPs are of one budget; isoFLOP budgets lie two or three times apart."""

UNDERTRAINED = (1.0, 5.0)
"""Tokens per parameter. Fewer than one is the filter of public refits of the Chinchilla runs."""

OUTLIER = 3.0
"""In robust standard deviations of the residual of ln L."""


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """One changed choice. `rows` is None when the runs do not allow it, for `reason`; `counts` tells
    whether a careful analyst could have made it, so that it belongs to the range."""

    choice: str
    label: str
    fit: FitRows
    flops: FlopsKind
    rows: Observations | None = None
    reason: str = ""
    counts: bool = True


def alternatives(
    rows: Observations, config: FitConfig, fitted: Fit, counted: Rows | None
) -> Iterator[Alternative]:
    """Every alternative to `config` on `rows`, whose own fit is `fitted`."""
    yield from other_counts(rows, config, counted)
    yield from other_flops(rows, config, fitted)
    yield from other_losses(rows, config)
    yield from other_laws(rows, config)
    yield from other_rows(rows, config, fitted)
    yield rounded_constants(rows, config, fitted)


def other_counts(rows: Observations, config: FitConfig, counted: Rows | None) -> Iterator[Alternative]:
    """Another N, another unit of the loss."""
    asked: list[tuple[str, str, ParamsKind, LossUnit]] = [
        ("which N", kind.value, kind, rows.loss_unit) for kind in ParamsKind if kind is not rows.params_kind
    ]
    asked += [
        ("unit of the loss", unit.value, rows.params_kind, unit)
        for unit in LossUnit
        if unit is not rows.loss_unit
    ]
    for choice, label, kind, unit in asked:
        found, reason = None, "only this one was given"
        if counted is not None:
            try:
                found, reason = counted(kind, unit), ""
            except HarnessError as error:
                reason = str(error)
        yield Alternative(
            choice=choice,
            label=label,
            fit=lambda r: fit_law(r, config.law),
            flops=config.flops,
            rows=found,
            reason=reason,
        )


def other_flops(rows: Observations, config: FitConfig, fitted: Fit) -> Iterator[Alternative]:
    """The same fit, its budget counted the other way; `auto` is one of the two already."""
    own = token_cost(rows, config.flops).label != FLOPS_6ND
    kind = FlopsKind["6nd"] if own else FlopsKind.as_given
    yield Alternative(choice="which FLOPs", label=kind.value, fit=lambda _: fitted, flops=kind, rows=rows)


def other_losses(rows: Observations, config: FitConfig) -> Iterator[Alternative]:
    law = config.law
    others = [replace(law, loss=LossFunction.huber, delta=delta) for delta in DELTAS]
    squares = (LossFunction.least_squares, LossFunction.least_squares_loss)
    others += [replace(law, loss=loss) for loss in squares]
    for other in others:
        if other.loss_label != law.loss_label:
            yield refitted("loss function", loss_label(other), other, rows, config)


def loss_label(law: LawConfig) -> str:
    return "least squares of ln L" if law.loss is LossFunction.least_squares else law.loss_label


def other_laws(rows: Observations, config: FitConfig) -> Iterator[Alternative]:
    law = config.law
    for name in LAWS:
        if name is not law.name:
            other = replace(law, name=name, weak_prior=law.weak_prior and name in WITH_PRIOR)
            yield refitted("law", name.value, other, rows, config)
    if law.name in WITH_PRIOR:
        label = "none" if law.weak_prior else "weak"
        yield refitted("prior on exponents", label, replace(law, weak_prior=not law.weak_prior), rows, config)


def refitted(choice: str, label: str, law: LawConfig, rows: Observations, config: FitConfig) -> Alternative:
    return Alternative(
        choice=choice, label=label, fit=lambda r: fit_law(r, law), flops=config.flops, rows=rows
    )


Keep = npt.NDArray[np.bool_]


def other_rows(rows: Observations, config: FitConfig, fitted: Fit) -> Iterator[Alternative]:
    """The rules by which rows are usually left out; one that leaves out none says so."""
    for label, keep in drop_rules(rows, residuals(rows, fitted)):
        left_out = int((~keep).sum())
        yield Alternative(
            choice="rows left out",
            label=label if not left_out else f"{label} ({left_out})",
            fit=lambda r: fit_law(r, config.law),
            flops=config.flops,
            rows=rows.subset(keep) if 0 < left_out < len(rows) else None,
            reason="it leaves out every row" if left_out else "it leaves out no row",
        )
    best = best_of_cell(rows)
    left_out = len(rows) - len(best)
    yield Alternative(
        choice="rows left out",
        label=f"all but the best of each cell ({left_out})" if left_out else "all but the best of each cell",
        fit=lambda r: fit_law(r, config.law),
        flops=config.flops,
        rows=best if left_out else None,
        reason="no cell has two runs" if len(cells(rows)) == len(rows) else "",
    )


def residuals(rows: Observations, fitted: Fit) -> Floats:
    """Of ln L, predicted less observed, [n]."""
    return np.asarray(np.log(fitted.predict(rows.columns)) - np.log(rows.loss))


def drop_rules(rows: Observations, residual: Floats) -> Iterator[tuple[str, Keep]]:
    """Each rule by name, with the rows it keeps."""
    highest = max(1, round(HIGHEST_SHARE * len(rows)))
    rank = np.argsort(np.argsort(-rows.loss, kind="stable"), kind="stable")
    yield "the highest losses", rank >= highest
    yield "the smallest size", rows.params > rows.params.min() * SAME_SIZE
    yield "the largest size", rows.params < rows.params.max() / SAME_SIZE
    yield "the smallest budget", rows.flops > rows.flops.min() * SAME_BUDGET
    yield "the largest budget", rows.flops < rows.flops.max() / SAME_BUDGET
    log_c = np.log(rows.flops)
    third = log_c.min() + (log_c.max() - log_c.min()) / 3
    yield f"FLOPs below {math.exp(third):.2g}, the lowest third", log_c >= third
    for ratio in UNDERTRAINED:
        yield f"tokens/param below {ratio:g}", rows.tokens >= ratio * rows.params
    scale = robust_scale(residual, len(residual) - int((residual != 0).sum()))
    yield f"outliers beyond {OUTLIER:g} sigma", np.abs(residual) <= OUTLIER * scale


def rounded_constants(rows: Observations, config: FitConfig, fitted: Fit) -> Alternative:
    """The same law evaluated from constants as papers print them; no analyst's choice, but a common slip."""
    params = {name: printed(name, value) for name, value in fitted.params.items()}
    shown = ", ".join(f"{value:g}" for value in params.values())
    return Alternative(
        choice="constants",
        label=f"rounded to {shown}",
        fit=lambda _: with_params(fitted, params),
        flops=config.flops,
        rows=rows,
        counts=False,
    )


def printed(name: str, value: float) -> float:
    """As in Hoffmann et al. 2203.15556: 406.4, 410.7, 1.69, .34, .28."""
    return float(f"{value:.4g}") if name in ("A", "B") else round(value, 2)


def with_params(fitted: Fit, params: dict[str, float]) -> Fit:
    """The same fit with other constants. Raises CannotAnswer when one of them is zero."""
    if zero := [name for name, value in params.items() if value == 0]:
        raise CannotAnswer(f"{zero[0]} rounds to zero")
    return replace(fitted, params=params)
