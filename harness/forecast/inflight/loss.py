"""The final loss of a run from its beginning: shape from finished runs of the sweep, level from its own."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.forecast.inflight.gaussian import end_given
from harness.forecast.inflight.lender import FIRST, SMALLEST_NOISE, TRIED_SHARES, WALKS
from harness.forecast.inflight.lenders import Lenders
from harness.forecast.inflight.mixture import Mixture
from harness.forecast.inflight.shapes import Shapes, basis
from harness.forecast.inflight.shares import EqualShares, smooth
from harness.forecast.inflight.trajectory import Trajectory, row_noise
from harness.laws.surfaces import Floats

ROWS = 32


TRIED = 8
"""Finished runs that are predicted from the others, to see how good such predictions are here."""

BEFOREHAND = 2
"""Predictions that the public record counts as, by which an interval is right as it is."""

REPEATS_STRAY = 0.1
"""Of the fall, over one e-fold: how far repeats of a cell stray from each other, at most."""

WORST = 6.0
"""Standard deviations that a miss counts for at most."""


class LossPredictor:
    """By the law where schedules are known, at equal shares where they are not."""

    def __init__(self, finished: Sequence[Trajectory]) -> None:
        self.lenders = trained([run for run in finished if run.schedule is not None])
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


def trained(finished: Sequence[Trajectory]) -> Lenders:
    """With the walk under which they are best predicted from each other; with the one that describes each of
    them best where there are none to predict."""
    candidates = [Lenders(finished, walk) for walk in WALKS]
    return min(candidates, key=lambda lenders: (error(lenders), -lenders.evidence))


def error(lenders: Lenders) -> float:
    """Of finished runs predicted from other cells: mean over shares of the mean |error|, of the fall."""
    found = []
    for share in TRIED_SHARES:
        if some := tried(lenders, False, share):
            misses = [abs(one.run.result - one.mean) / lenders.by_id[one.run.run_id].fall for one in some]
            found.append(float(np.mean(misses)))
    return round(float(np.mean(found)), 9) if found else 0.0


def widths(lenders: Lenders, repeated: bool) -> list[float]:
    """By how much intervals must be widened (below 1: narrowed) at each of `TRIED_SHARES`, from finished
    runs that are predicted from others: from repeats of their cells too, or from other cells alone."""
    found = []
    for share in TRIED_SHARES:
        misses = [(one.run.result - one.mean) / one.deviation for one in tried(lenders, repeated, share)]
        squares = sum(min(abs(miss), WORST) ** 2 for miss in misses)
        found.append(((BEFOREHAND + squares) / (BEFOREHAND + len(misses))) ** 0.5)
    return found


@dataclass(frozen=True)
class Tried:
    """A finished run, and what its beginning and the others say of its result."""

    run: Trajectory
    mean: float
    deviation: float


def tried(lenders: Lenders, repeated: bool, share: float) -> list[Tried]:
    """Some of the finished runs as they stood at this share: of all, or of those with repeats."""
    runs = [lender.run for lender in lenders.by_id.values()]
    if repeated:
        runs = [run for run in runs if lenders.repeats(run)]
    some = (
        [runs[at] for at in np.unique(np.linspace(0, len(runs) - 1, TRIED).round().astype(int))]
        if runs
        else []
    )
    found = []
    for run in some:
        among = others(run, lenders, repeated)
        mixture = by_law(run.until(share), lenders, among) if among else None
        if mixture is not None:
            found.append(Tried(run, mixture.mean, mixture.deviation))
    return found


def others(run: Trajectory, lenders: Lenders, repeated: bool) -> set[str]:
    """The lenders but the run itself and, unless `repeated`, those of its own cell."""
    own = [name for name, one in lenders.by_id.items() if run.cell and one.run.cell == run.cell]
    return set(lenders.by_id) - ({run.run_id} if repeated else {run.run_id, *own})


def by_law(run: Trajectory, lenders: Lenders, among: Collection[str] | None = None) -> Mixture | None:
    """Every shape's amplitudes from the lenders, corrected by the rows that there are. Where repeats of the
    same cell have finished, their own curve stands for what the law says; where other sizes have under the
    same schedule, what the law misses of those is added."""
    at = run.rows(ROWS, min(FIRST, 0.2 * run.share))
    if not len(at) or run.schedule is None:
        return None
    borrowed = lenders.lend(run, among)
    steps = np.append(run.steps[at], run.end)
    power, fall = basis(borrowed.shapes, run.schedule, steps)
    a, b = borrowed.amplitudes.T
    noise = (row_noise(run.values[at]) or borrowed.noise) + SMALLEST_NOISE * borrowed.fall
    mean, walk, gap = a[:, None] * power + b[:, None] * fall, borrowed.walk, borrowed.gap
    if repeats := lenders.repeats(run, among):
        ahead = np.mean([smooth(one, steps / run.end) - one.result for one in repeats], axis=0)
        mean, gap = np.tile(ahead, (len(a), 1)), 0.0
        walk = replace(walk, stray=min(walk.stray, REPEATS_STRAY))
    elif borrowed.alike:
        missing = [missed(one, own, borrowed.shapes, steps / run.end) for one, own in borrowed.alike]
        mean, gap = mean + np.mean(missing, axis=0), 0.0
    end, variance = end_given(
        run.values[at],
        mean,
        [(power, borrowed.deviations[:, 0]), (fall, borrowed.deviations[:, 1])],
        walk.covariance(run.schedule.area(steps), borrowed.fall),
        noise,
        borrowed.fall,
    )
    return Mixture(end + gap, variance + borrowed.gap_deviation**2, borrowed.weights, borrowed.lenders)


def missed(run: Trajectory, amplitudes: Floats, shapes: Shapes, shares: Floats) -> Floats:
    """What every shape with these amplitudes [k, 2] leaves of a finished run's way to its result, [k, n], at
    `shares` [n] of it, the last being its end."""
    assert run.schedule is not None
    power, fall = basis(shapes, run.schedule, shares * run.end)
    return smooth(run, shares) - run.result - amplitudes[:, :1] * power - amplitudes[:, 1:] * fall
