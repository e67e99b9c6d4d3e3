"""One run as far as it got: what was logged, what was planned, and, once it has ended, how."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import numpy.typing as npt

from harness.errors import WrongInput
from harness.laws.surfaces import Floats

Positions = npt.NDArray[np.intp]

KNOTS = 128
"""Of a schedule; half at equal distances, half where the rate moves."""

SAME_SCHEDULE = 0.01
"""Of the peak, on average: rounding to whole steps, and to knots, moves a corner a little."""

SAME_BUDGET = 1.05
"""Cells of one budget differ by rounding to whole steps."""


class Metric(Enum):
    loss = "loss"
    reward = "reward"

    @property
    def sign(self) -> float:
        """What makes lower better."""
        return 1.0 if self is Metric.loss else -1.0


@dataclass(frozen=True)
class Schedule:
    """The planned learning rate in units of its `peak`, linear between `steps` [m]."""

    steps: Floats
    rate: Floats
    peak: float = 1.0

    @classmethod
    def of(cls, steps: Floats, lr: Floats) -> Schedule:
        """From the rate at some steps, increasing. Raises WrongInput when it is negative or always zero."""
        if not (np.isfinite(lr).all() and (lr >= -1e-6 * np.abs(lr).max()).all() and lr.max() > 0):
            raise WrongInput(f"lr must not be negative, nor always zero; it lies in [{lr.min()}, {lr.max()}]")
        if steps[0] > 0:  # it warmed up until the first logged step
            steps, lr = np.concatenate([[0.0], steps]), np.concatenate([[0.0], lr])
        if len(steps) > KNOTS:
            moved = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(lr)))])
            even = np.linspace(0, len(lr) - 1, KNOTS // 2).round().astype(int)
            marks = np.linspace(0, moved[-1], KNOTS // 2)
            after = np.searchsorted(moved, marks)
            at = np.unique([*even, *after, *np.maximum(after - 1, 0)])
            steps, lr = steps[at], lr[at]
        return cls(steps.astype(float), np.maximum(lr, 0.0) / lr.max(), float(lr.max()))

    @property
    def areas(self) -> Floats:
        """Sum of the rate until each of `steps`: in steps at the peak."""
        spans = np.diff(self.steps) * (self.rate[1:] + self.rate[:-1]) / 2
        return np.concatenate([[0.0], np.cumsum(spans)])

    def area(self, steps: Floats) -> Floats:
        return np.interp(steps, self.steps, self.areas)

    def like(self, other: Schedule) -> bool:
        """Whether the two are one schedule, stretched."""
        shares = np.linspace(0, 1, KNOTS)
        mine, its = (np.interp(shares * one.steps[-1], one.steps, one.rate) for one in (self, other))
        return float(np.abs(mine - its).mean()) < SAME_SCHEDULE

    def repeats(self, other: Schedule) -> bool:
        """Whether the two are one schedule of one peak."""
        return self.like(other) and abs(math.log(self.peak / other.peak)) < SAME_SCHEDULE

    @property
    def warmed(self) -> float:
        """The step at which the peak is reached."""
        return float(self.steps[np.argmax(self.rate >= 0.98)])


@dataclass(frozen=True, kw_only=True, eq=False)
class Trajectory:
    """`steps` [n] and `values` [n] as logged, in optimizer steps or any other measure of progress; `end` is
    where the run is planned to end, `final` its result once it has ended. `budget` orders runs by cost
    (FLOPs where known); `cell` names what repeats of one cell share."""

    run_id: str
    steps: Floats
    values: Floats
    end: float
    budget: float
    params: float | None = None
    schedule: Schedule | None = None
    final: float | None = None
    diverged: bool = False
    sweep: str = ""
    cell: str = ""

    @property
    def share(self) -> float:
        """How much of the run is done."""
        return float(self.steps[-1] / self.end) if len(self.steps) else 0.0

    @property
    def result(self) -> float:
        """Of a run that has ended."""
        if self.final is None:
            raise ValueError(f"{self.run_id} has not ended")
        return self.final

    def until(self, share: float) -> Trajectory:
        """The run as it stood then: what came later is gone, and its plan stays."""
        seen = self.steps <= share * self.end * (1 + 1e-9)
        return replace(self, steps=self.steps[seen], values=self.values[seen], final=None, diverged=False)

    def rows(self, most: int, first: float) -> Positions:
        """Of at most `most` finite rows past the warm-up and the share `first`, evenly spread."""
        begun = max(first * self.end, self.schedule.warmed if self.schedule else 0.0, 1e-12)
        at = np.flatnonzero(np.isfinite(self.values) & (self.steps >= begun))
        if len(at) <= most:
            return at
        return at[np.unique(np.linspace(0, len(at) - 1, most).round().astype(int))]


def distance(one: Trajectory, other: Trajectory) -> float:
    """How unlike two runs are, in e-folds of size and, less, of length and peak rate."""
    size = math.log(one.params / other.params) if one.params and other.params else 0.0
    rate = math.log(one.schedule.peak / other.schedule.peak) if one.schedule and other.schedule else 0.0
    return abs(size) + 0.25 * abs(math.log(one.end / other.end)) + 0.25 * abs(rate)


def nearest(run: Trajectory, others: Sequence[Trajectory], most: int) -> list[Trajectory]:
    return sorted(others, key=lambda other: (distance(run, other), other.run_id))[:most]


def row_noise(values: Floats) -> float:
    """Standard deviation of the noise of one row, robust, from second differences."""
    if len(values) < 5:
        return 0.0
    bends = np.diff(values, 2)
    return float(1.4826 * np.median(np.abs(bends - np.median(bends))) / math.sqrt(6))
