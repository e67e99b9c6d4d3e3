"""The final loss of a run from its beginning: shape from finished runs of the sweep, level from its own."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from harness.forecast.inflight.gaussian import end_given, wander
from harness.forecast.inflight.lenders import FIRST, SMALLEST_NOISE, Lenders
from harness.forecast.inflight.mixture import Mixture
from harness.forecast.inflight.shapes import basis
from harness.forecast.inflight.shares import EqualShares
from harness.forecast.inflight.trajectory import Trajectory, row_noise

ROWS = 32


TRIED = 8
"""Finished runs that are predicted from the others, to see how good such predictions are here."""

BEFOREHAND = 4
"""Predictions that the public record counts as, by which an interval is right as it is."""

TRIED_SHARES = (0.1, 0.25, 0.5)


class LossPredictor:
    """By the law where schedules are known, at equal shares where they are not."""

    def __init__(self, finished: Sequence[Trajectory]) -> None:
        self.lenders = Lenders([run for run in finished if run.schedule is not None])
        self.shares = EqualShares([run for run in finished if run.schedule is None])
        self.widths = widths(self.lenders)

    def predict(self, run: Trajectory) -> Mixture | str:
        """The distribution of the result, or why there is none."""
        if not len(self.lenders if run.schedule is not None else self.shares):
            return "no finished run of this sweep to borrow a shape from"
        if run.schedule is None:
            found = self.shares.predict(run)
        else:
            found = by_law(run, self.lenders)
            if found is not None:
                width = float(np.interp(run.share, TRIED_SHARES, self.widths))
                found = found.widened(width)
        return "nothing logged after its warm-up" if found is None else found


def widths(lenders: Lenders) -> list[float]:
    """By how much intervals must be widened (below 1: narrowed) at each of `TRIED_SHARES`, from finished
    runs that are predicted from the others."""
    runs = [lender.run for lender in lenders.by_id.values()]
    tried = (
        [runs[i] for i in np.unique(np.linspace(0, len(runs) - 1, TRIED).round().astype(int))] if runs else []
    )
    found = []
    for share in TRIED_SHARES:
        misses = [miss for run in tried if (miss := missed(run.until(share), run, lenders)) is not None]
        squares = sum(min(abs(miss), 6.0) ** 2 for miss in misses)
        found.append(float(np.sqrt((BEFOREHAND + squares) / (BEFOREHAND + len(misses)))))
    return found


def missed(begun: Trajectory, run: Trajectory, lenders: Lenders) -> float | None:
    """The error of a finished run's prediction from runs of other cells, in standard deviations."""
    others = {name for name, lender in lenders.by_id.items() if lender.run.cell != run.cell or not run.cell}
    others -= {run.run_id}
    mixture = by_law(begun, lenders, others) if others else None
    if mixture is None or run.final is None:
        return None
    mean = float(mixture.weights @ mixture.means)
    variance = float(mixture.weights @ (mixture.variances + (mixture.means - mean) ** 2))
    return (run.final - mean) / variance**0.5


def by_law(run: Trajectory, lenders: Lenders, among: Collection[str] | None = None) -> Mixture | None:
    """Every shape's amplitudes from the lenders, corrected by the rows that there are."""
    at = run.rows(ROWS, min(FIRST, 0.2 * run.share))
    if not len(at) or run.schedule is None:
        return None
    borrowed = lenders.lend(run, among)
    steps = np.append(run.steps[at], run.end)
    power, fall = basis(borrowed.shapes, run.schedule, steps)
    a, b = borrowed.amplitudes.T
    noise = row_noise(run.values[at]) + SMALLEST_NOISE * borrowed.fall
    end, variance = end_given(
        run.values[at],
        a[:, None] * power + b[:, None] * fall,
        [(power, borrowed.deviations[:, 0]), (fall, borrowed.deviations[:, 1])],
        wander(run.schedule.area(steps), borrowed.stray * borrowed.fall),
        noise,
        borrowed.fall,
    )
    return Mixture(
        end + borrowed.gap, variance + borrowed.gap_deviation**2, borrowed.weights, borrowed.lenders
    )
