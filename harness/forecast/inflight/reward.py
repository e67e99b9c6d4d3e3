"""The final reward of a run from its beginning: a saturating sigmoid in progress, every one that the rows
so far allow.

R = R0 + (A - R0) / (1 + (x_mid / x)^B), Khatri et al. 2510.13786, x the share of the run. (x_mid, B) lie on
a grid; R0 and A are normal given those, and kept within the bounds of the reward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from harness.errors import WrongInput
from harness.forecast.inflight.gaussian import wander
from harness.forecast.inflight.mixture import Mixture
from harness.forecast.inflight.trajectory import Trajectory, row_noise
from harness.laws.surfaces import Floats

BINS = 48
FEWEST_ROWS = 12
SMALLEST_NOISE = 1e-3

MIDDLES, STEEPNESS = (0.003, 30.0, 36), (0.5, 6.0, 12)
"""x_mid as a share of the run, and B: evenly in the logarithm. ScaleRL's fits have B of about 2."""

STRAY = (0.0, 0.02, 0.06)
"""Of the reward's range: standard deviation of the walk over one e-fold, equally likely."""

OPEN = 0.25
"""Weight of shapes that no finished run had."""

RISEN = 3.0
"""Standard errors above which a rise is no noise: before that only finished runs know where a reward is
heading."""

SETTLED = 0.05
"""The last share of a run, over which its result is the mean."""


@dataclass(frozen=True)
class Bounds:
    """Between what the reward must lie."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise WrongInput(f"bounds=[{self.low:g},{self.high:g}] must be two numbers, the lower first")

    @property
    def width(self) -> float:
        return self.high - self.low

    def hold(self, runs: Sequence[Trajectory]) -> None:
        """Raises WrongInput when a reward lies outside."""
        for run in runs:
            if ((run.values < self.low) | (run.values > self.high)).any():
                low, high = np.nanmin(run.values), np.nanmax(run.values)
                said = f"bounds=[{self.low:g},{self.high:g}]"
                raise WrongInput(f"{said}: the rewards of {run.run_id!r} lie in [{low:g}, {high:g}]")

    @classmethod
    def of(cls, runs: Sequence[Trajectory]) -> Bounds:
        """[0, 1] for a rate; else some way beyond what was seen, further up than down."""
        seen = np.concatenate([run.values[np.isfinite(run.values)] for run in runs])
        low, high = float(seen.min()), float(seen.max())
        if low >= 0 and high <= 1:
            return cls(0.0, 1.0)
        span = max(high - low, 1e-12)
        return cls(low - span, high + 4 * span)


@dataclass(frozen=True)
class Level:
    """What is believed of the plateau A before a run begins: normal."""

    mean: float
    deviation: float


@cache
def grid() -> tuple[Floats, Floats]:
    """x_mid and B, each [k]."""
    middle, steep = np.meshgrid(np.geomspace(*MIDDLES), np.geomspace(*STEEPNESS), indexing="ij")
    return middle.ravel(), steep.ravel()


def settled(steps: Floats, values: Floats, end: float) -> float:
    """The result of a finished run: a single row is mostly noise."""
    late = np.isfinite(values) & (steps >= (1 - SETTLED) * end)
    return float(values[late].mean()) if late.any() else float(values[np.isfinite(values)][-1])


class RewardPredictor:
    """Shapes and plateaus of finished runs, where there are some, beside all others."""

    def __init__(self, finished: Sequence[Trajectory], bounds: Bounds) -> None:
        self.bounds = bounds
        even = np.full(len(grid()[0]), 1 / len(grid()[0]))
        self.level = Level((bounds.low + bounds.high) / 2, bounds.width / math.sqrt(12))
        self.prior = even
        fits = [fit for run in finished if (fit := posterior(run, even, self.level, bounds)) is not None]
        if fits:
            shapes = np.mean([fit.by_shape() for fit in fits], axis=0)
            self.prior = OPEN * even + (1 - OPEN) * shapes
            plateaus = [float(fit.weights @ fit.plateaus) for fit in fits]
            deviation = math.hypot(float(np.std(plateaus)), 0.15 * bounds.width)
            self.level = Level(float(np.mean(plateaus)), deviation)
        self.lenders = tuple(run.run_id for run in finished)

    def predict(self, run: Trajectory) -> Mixture | str:
        found = posterior(run, self.prior, self.level, self.bounds)
        if found is None:
            return f"fewer than {FEWEST_ROWS} rows"
        if not self.lenders and not has_risen(run):
            return "it has not risen above its noise, and no finished run says when it will"
        within = (self.bounds.low, self.bounds.high)
        return Mixture(found.ends, found.variances, found.weights, self.lenders, within)


def has_risen(run: Trajectory) -> bool:
    """Whether the last quarter of the rows lies above the first, or above the first twelfth: some rise at
    once."""
    _, values, noise = binned(run)
    late = values[-(len(values) // 4) :]
    for early in (values[: len(values) // 4], values[: len(values) // 12]):
        error = noise * math.sqrt(1 / len(early) + 1 / len(late))
        if late.mean() - early.mean() > RISEN * error:
            return True
    return False


@dataclass(frozen=True)
class Posterior:
    """Of one run, by shape and walk, each [walks * k]: weight, plateau A, mean and variance of the end."""

    weights: Floats
    plateaus: Floats
    ends: Floats
    variances: Floats

    def by_shape(self) -> Floats:
        return self.weights.reshape(len(STRAY), -1).sum(axis=0)


def posterior(run: Trajectory, prior: Floats, level: Level, bounds: Bounds) -> Posterior | None:
    """None for too few rows."""
    shares, values, noise = binned(run)
    if not len(values):
        return None
    noise += SMALLEST_NOISE * bounds.width
    middle, steep = grid()
    with np.errstate(over="ignore"):
        risen = 1 / (1 + (middle[:, None] / np.append(shares, 1.0)) ** steep[:, None])  # [k, n + 1]
    walks = [wander(np.append(shares, 1.0), stray * bounds.width) for stray in STRAY]
    parts = [given_walk(risen, values, noise, walk, level, bounds) for walk in walks]
    evidence, plateaus, ends, variances = (np.concatenate(column) for column in zip(*parts, strict=True))
    score = evidence + np.log(np.tile(prior, len(STRAY)))
    weights = np.exp(score - score.max())
    return Posterior(weights / weights.sum(), plateaus, ends, variances + noise**2)


def binned(run: Trajectory) -> tuple[Floats, Floats, float]:
    """At most `BINS` means of neighbouring rows at their shares of the run, and the noise of one mean."""
    seen = np.isfinite(run.values) & (run.steps > 0)
    steps, values = run.steps[seen], run.values[seen]
    if len(values) < FEWEST_ROWS:
        return np.zeros(0), np.zeros(0), 0.0
    cuts = np.array_split(np.arange(len(values)), min(BINS, len(values)))
    means = np.array([values[cut].mean() for cut in cuts])
    shares = np.array([steps[cut].mean() for cut in cuts]) / run.end
    alone = row_noise(values) / math.sqrt(len(values) / len(cuts))
    return shares, means, max(alone, row_noise(means))


def given_walk(
    risen: Floats, values: Floats, noise: float, walk: Floats, level: Level, bounds: Bounds
) -> tuple[Floats, Floats, Floats, Floats]:
    """Log evidence, A, mean and variance of the end, each [k], for one covariance of the walk [n + 1, n + 1].
    `risen` [k, n + 1] is the share of the rise that is done."""
    n = len(values)
    errors = walk[:n, :n] + noise**2 * np.eye(n)
    whiten = np.linalg.inv(np.linalg.cholesky(errors))
    gain = np.linalg.solve(errors, walk[:n, n])
    start = Level(float(values[: max(1, n // 12)].mean()), 0.25 * bounds.width)
    guess = np.array([start.mean, level.mean])
    precision = np.diag([start.deviation**-2.0, level.deviation**-2.0])
    design = np.stack([1 - risen, risen], axis=2)  # [k, n + 1, 2]
    x, y = whiten @ design[:, :n], whiten @ values
    normal = x.transpose(0, 2, 1) @ x + precision
    covariance = np.linalg.inv(normal)
    found = (covariance @ (x.transpose(0, 2, 1) @ y + precision @ guess)[:, :, None])[:, :, 0]
    missed = ((y - (x @ found[:, :, None])[:, :, 0]) ** 2).sum(axis=1)
    missed += ((found - guess) @ precision * (found - guess)).sum(axis=1)
    evidence = -0.5 * (missed + np.linalg.slogdet(normal)[1]) + np.log(np.diag(whiten)).sum()
    ahead = design[:, n] - (gain @ design[:, :n])  # [k, 2]
    ends = (ahead * found).sum(axis=1) + gain @ values
    left = walk[n, n] - gain @ walk[:n, n]
    variances = left + np.einsum("ki,kij,kj->k", ahead, covariance, ahead)
    evidence = evidence + log_mass(found, covariance, bounds)
    return evidence, found[:, 1], ends, np.maximum(variances, 1e-18)


def log_mass(found: Floats, covariance: Floats, bounds: Bounds) -> Floats:
    """Log probability [k] that A lies within the bounds and above R0."""
    from scipy.special import ndtr

    deviation = np.sqrt(covariance[:, 1, 1])
    inside = ndtr((bounds.high - found[:, 1]) / deviation) - ndtr((bounds.low - found[:, 1]) / deviation)
    apart = np.sqrt(np.maximum(covariance[:, 0, 0] + covariance[:, 1, 1] - 2 * covariance[:, 0, 1], 1e-300))
    rising = ndtr((found[:, 1] - found[:, 0]) / apart)
    return np.log(np.maximum(inside * rising, 1e-300))
