"""A finished run of a sweep, described by every shape of the law: amplitudes, how well the shape fits, and
how far real curves stray from it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np

from harness.forecast.inflight.gaussian import end_given, wander
from harness.forecast.inflight.shapes import basis, drawn
from harness.forecast.inflight.trajectory import Positions, Trajectory, row_noise
from harness.laws.surfaces import Floats

REMEMBERED = 256
"""Finished runs whose descriptions are kept, .4 MB each: a replay asks for the same ones again and again."""

ROWS, FEWEST_ROWS, FIRST = 40, 5, 0.02
"""Of a finished run: how many are used, at least, and the share of it before which no law holds."""

STRAY = (0.05, 0.1, 0.2, 0.4)
"""Of the fall over the last e-folds: standard deviation of the walk over its last e-fold, to choose from."""

SLOWING = (0.0, 0.25, 0.5, 0.75)
"""Powers of the progress with which the walk slows, to choose from: a curve strays less as it flattens, and a
power of .5 or so is how it flattens."""

SMALLEST_NOISE = 1e-3

TRIED_SHARES = (0.1, 0.25, 0.5)
"""Of finished runs, from which they are predicted from each other."""

DECAY_WORTH = 0.2
"""Of the fall of a finished run over its last nine tenths: prior of what a full decay of the rate is worth,
mean and standard deviation; .25 to .35 on the curves of 2509.19189, .2 to .45 on those of 2507.02119."""


@dataclass(frozen=True)
class Walk:
    """How real curves stray from the law: by `stray` of their fall over the last e-fold, and more before.
    `shared`: those of runs alike stray together."""

    stray: float
    slowing: float
    shared: bool = False

    def covariance(self, progress: Floats, fall: float) -> Floats:
        return wander(progress, self.stray * fall, self.slowing)


WALKS = tuple(
    Walk(stray, slowing, shared) for shared in (True, False) for stray in STRAY for slowing in SLOWING
)


@dataclass(frozen=True, eq=False)
class Lender:
    """A finished run, described by every shape of the law. `fall` is the unit of all that is relative."""

    run: Trajectory
    fall: float
    known: dict[Walk, Description] = field(default_factory=dict)

    @cached_property
    def rows(self) -> Positions:
        return self.run.rows(ROWS, FIRST)

    @cached_property
    def progress(self) -> Floats:
        """[n + 1], the end of the run last."""
        assert self.run.schedule is not None
        return self.run.schedule.area(np.append(self.run.steps[self.rows], self.run.end))

    @cached_property
    def bases(self) -> tuple[Floats, Floats]:
        assert self.run.schedule is not None
        return basis(drawn(), self.run.schedule, np.append(self.run.steps[self.rows], self.run.end))

    @cached_property
    def noise(self) -> float:
        return row_noise(self.run.values[self.rows]) + SMALLEST_NOISE * self.fall

    def described(self, walk: Walk) -> Description:
        alone = replace(walk, shared=False)
        if alone not in self.known:
            self.known[alone] = self.describe(alone)
        return self.known[alone]

    def describe(self, walk: Walk) -> Description:
        """Generalised least squares for every shape, with weak priors on the amplitudes."""
        n, values = len(self.rows), self.run.values[self.rows]
        power, fall = (part[:, :n] for part in self.bases)
        errors = walk.covariance(self.progress, self.fall)[:n, :n] + self.noise**2 * np.eye(n)
        whiten = np.linalg.inv(np.linalg.cholesky(errors))
        early = power[:, np.searchsorted(self.run.steps[self.rows], 0.1 * self.run.end)]
        guess = np.stack(
            [np.zeros(len(early)), self.fall / early, np.full(len(early), DECAY_WORTH * self.fall)], axis=1
        )
        loose = np.array([1e4 * self.fall, 3.0, 1.0])
        precision = 1 / (loose * np.where(guess, guess, 1.0)) ** 2  # [k, 3]
        x = whiten @ np.stack([np.ones_like(power), power, fall], axis=2)  # [k, n, 3]
        y = whiten @ (values - values[-1])
        normal = x.transpose(0, 2, 1) @ x + precision[:, :, None] * np.eye(3)
        right = x.transpose(0, 2, 1) @ y + precision * guess
        found = np.linalg.solve(normal, right[:, :, None])[:, :, 0]
        missed = ((y - (x @ found[:, :, None])[:, :, 0]) ** 2).sum(axis=1)
        missed += (precision * (found - guess) ** 2).sum(axis=1)
        sizes = np.linalg.slogdet(normal)[1] - np.log(precision).sum(axis=1)
        evidence = -0.5 * (missed + sizes) + np.log(np.diag(whiten)).sum()
        deviations = np.sqrt(np.diagonal(np.linalg.inv(normal), axis1=1, axis2=2))
        gap = self.gap(walk, int(np.argmax(evidence)), found[np.argmax(evidence), 1:])
        return Description(self, found[:, 1:], deviations[:, 1:], evidence, gap)

    def gap(self, walk: Walk, shape: int, amplitudes: Floats) -> float:
        """The result less the end of the curve that led to it: validation is not training."""
        mean = amplitudes @ np.stack([part[shape] for part in self.bases])
        covariance = walk.covariance(self.progress, self.fall)
        end, _ = end_given(self.run.values[self.rows], mean[None], (), covariance, self.noise, self.fall)
        return self.run.result - float(end[0])


@lru_cache(REMEMBERED)
def lender_of(run: Trajectory) -> Lender | None:
    """None for a run without a schedule, or with too few rows, or one that did not fall."""
    at = run.rows(ROWS, FIRST)
    if run.schedule is None or run.final is None or len(at) < FEWEST_ROWS:
        return None
    fall = float(np.interp(0.1 * run.end, run.steps[at], run.values[at])) - run.final
    return Lender(run, fall) if fall > 0 else None


@dataclass(frozen=True)
class Description:
    """Of one lender by every shape: amplitudes (a, b) [k, 2], their standard errors, log evidence [k]; and
    the gap between its curve and its result."""

    lender: Lender
    amplitudes: Floats
    deviations: Floats
    evidence: Floats
    gap: float
