"""The final loss of a run from its beginning: shape from finished runs of the sweep, level from its own."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from harness.forecast.inflight.gaussian import end_given, wander
from harness.forecast.inflight.lenders import FIRST, SMALLEST_NOISE, Lenders
from harness.forecast.inflight.mixture import Mixture
from harness.forecast.inflight.shapes import basis
from harness.forecast.inflight.shares import EqualShares, smooth
from harness.forecast.inflight.trajectory import Trajectory, row_noise

ROWS = 32


TRIED = 8
"""Finished runs that are predicted from the others, to see how good such predictions are here."""

BEFOREHAND = 4
"""Predictions that the public record counts as, by which an interval is right as it is."""

REPEATS_STRAY = 0.1
"""Of the fall, over one e-fold: how far repeats of a cell stray from each other, at most."""

WORST = 6.0
"""Standard deviations that a miss counts for at most."""

TRIED_SHARES = (0.1, 0.25, 0.5)


class LossPredictor:
    """By the law where schedules are known, at equal shares where they are not."""

    def __init__(self, finished: Sequence[Trajectory]) -> None:
        self.lenders = Lenders([run for run in finished if run.schedule is not None])
        self.shares = EqualShares([run for run in finished if run.schedule is None])
        self.widths = {repeated: widths(self.lenders, repeated) for repeated in (False, True)}

    def predict(self, run: Trajectory) -> Mixture | str:
        """The distribution of the result, or why there is none."""
        if not len(self.lenders if run.schedule is not None else self.shares):
            return "no finished run of this sweep to borrow a shape from"
        if run.schedule is None:
            found = self.shares.predict(run)
        else:
            found = by_law(run, self.lenders)
            if found is not None:
                scale = self.widths[bool(self.lenders.repeats(run))]
                found = found.widened(float(np.interp(run.share, TRIED_SHARES, scale)))
        return "nothing logged after its warm-up" if found is None else found


def widths(lenders: Lenders, repeated: bool) -> list[float]:
    """By how much intervals must be widened (below 1: narrowed) at each of `TRIED_SHARES`, from finished
    runs that are predicted from others: from repeats of their cells too, or from other cells alone."""
    runs = [lender.run for lender in lenders.by_id.values()]
    if repeated:
        runs = [run for run in runs if lenders.repeats(run)]
    if not runs:
        return [1.0] * len(TRIED_SHARES)
    at = np.unique(np.linspace(0, len(runs) - 1, TRIED).round().astype(int))
    tried = [(runs[i], others(runs[i], lenders, repeated)) for i in at]
    found = []
    for share in TRIED_SHARES:
        misses = [missed(run.until(share), run, lenders, among) for run, among in tried if among]
        squares = [min(abs(miss), WORST) ** 2 for miss in misses if miss is not None]
        found.append(float(np.sqrt((BEFOREHAND + sum(squares)) / (BEFOREHAND + len(squares)))))
    return found


def others(run: Trajectory, lenders: Lenders, repeated: bool) -> set[str]:
    """The lenders but the run itself and, unless `repeated`, those of its own cell."""
    own = [name for name, one in lenders.by_id.items() if run.cell and one.run.cell == run.cell]
    return set(lenders.by_id) - ({run.run_id} if repeated else {run.run_id, *own})


def missed(begun: Trajectory, run: Trajectory, lenders: Lenders, among: Collection[str]) -> float | None:
    """The error of a finished run's prediction from these others, in standard deviations."""
    mixture = by_law(begun, lenders, among)
    if mixture is None:
        return None
    mean = float(mixture.weights @ mixture.means)
    variance = float(mixture.weights @ (mixture.variances + (mixture.means - mean) ** 2))
    return (run.result - mean) / variance**0.5


def by_law(run: Trajectory, lenders: Lenders, among: Collection[str] | None = None) -> Mixture | None:
    """Every shape's amplitudes from the lenders, corrected by the rows that there are. Where repeats of the
    same cell have finished, their own curve stands for what the law says."""
    at = run.rows(ROWS, min(FIRST, 0.2 * run.share))
    if not len(at) or run.schedule is None:
        return None
    borrowed = lenders.lend(run, among)
    steps = np.append(run.steps[at], run.end)
    power, fall = basis(borrowed.shapes, run.schedule, steps)
    a, b = borrowed.amplitudes.T
    noise = row_noise(run.values[at]) + SMALLEST_NOISE * borrowed.fall
    mean, stray, gap = a[:, None] * power + b[:, None] * fall, borrowed.stray, borrowed.gap
    if repeats := lenders.repeats(run, among):
        ahead = np.mean([smooth(one, steps / run.end) - one.result for one in repeats], axis=0)
        mean, stray, gap = np.tile(ahead, (len(a), 1)), min(stray, REPEATS_STRAY), 0.0
    end, variance = end_given(
        run.values[at],
        mean,
        [(power, borrowed.deviations[:, 0]), (fall, borrowed.deviations[:, 1])],
        wander(run.schedule.area(steps), stray * borrowed.fall),
        noise,
        borrowed.fall,
    )
    return Mixture(end + gap, variance + borrowed.gap_deviation**2, borrowed.weights, borrowed.lenders)
