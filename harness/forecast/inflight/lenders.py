"""What finished runs of a sweep lend to one that still runs: shapes of the law, amplitudes for each, grown
with the size, and what the law misses."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from harness.forecast.inflight.lender import Description, Walk, lender_of
from harness.forecast.inflight.shapes import Shapes, drawn
from harness.forecast.inflight.trajectory import Positions, Trajectory, nearest
from harness.laws.surfaces import Floats

MOST, NEAREST = 64, 6
"""Finished runs looked at, evenly spread over sizes, and those that lend to one running cell."""

GROWTH_ERROR = 0.1
"""Amplitudes grow as a power of N at equal schedules: its standard deviation, about 0, before the finished
runs of a sweep are asked. Between 25M and 100M of 2503.12811 that of the decay comes out at .24, then at
.09; on the OLMo ladder, whose peak rate falls with the size, at -.1 to -.2. That of the power is about 0."""

PAIR_ERROR = 0.1
"""Standard deviation of the growth that one pair of sizes shows, as far as it holds for the next."""

ALIKE = 1.3
"""Runs of two sizes are compared when their lengths differ by less than this factor, their sizes by more."""

MOST_GROWN = 10.0
"""An amplitude next to nothing in one of the two says nothing of growth."""

MISFIT = 0.1
"""Of an amplitude: standard deviation between runs that differ in nothing the law knows."""

TEMPER = 0.2
"""Power of the evidence: neighbouring rows of a curve are not as independent as the walk says."""

KEPT = 12
"""Shapes, the best by their evidence, that predict a running cell."""


@dataclass(frozen=True)
class Borrowed:
    """What one running cell starts from: shapes [k] with weights, amplitudes (a, b) [k, 2] with standard
    deviations; the unit `fall`, the noise of one row, the walk, and the gap between curve and result. `alike`
    are the lenders of other sizes that it strays with, each with its own amplitudes."""

    shapes: Shapes
    weights: Floats
    amplitudes: Floats
    deviations: Floats
    fall: float
    noise: float
    walk: Walk
    gap: float
    gap_deviation: float
    alike: tuple[tuple[Trajectory, Floats], ...]
    lenders: tuple[str, ...]


class Lenders:
    """The finished runs of one sweep, as they stray from the law by one walk."""

    def __init__(self, finished: Sequence[Trajectory], walk: Walk) -> None:
        usable = [lender for run in spread(finished) if (lender := lender_of(run)) is not None]
        self.walk = walk
        self.by_id = {lender.run.run_id: lender for lender in usable}
        self.descriptions = {name: lender.described(walk) for name, lender in self.by_id.items()}
        self.pairs = pairs_of(list(self.descriptions.values()))

    def __len__(self) -> int:
        return len(self.by_id)

    @property
    def evidence(self) -> float:
        """Log evidence of the walk: how well the law describes each of them alone."""
        return sum(float(np.logaddexp.reduce(d.evidence)) for d in self.descriptions.values())

    def repeats(self, run: Trajectory, among: Collection[str] | None = None) -> list[Trajectory]:
        """Finished runs of the same cell under the same schedule."""
        named = [name for name in self.by_id if name != run.run_id and (among is None or name in among)]
        same = [self.by_id[name].run for name in named if self.by_id[name].run.cell == run.cell != ""]
        return [one for one in same if one.schedule and run.schedule and one.schedule.repeats(run.schedule)]

    def stray_together(self, run: Trajectory, other: Trajectory) -> bool:
        return self.walk.shared and comparable(run, other)

    def lend(self, run: Trajectory, among: Collection[str] | None = None) -> Borrowed:
        """To a run with a schedule, from its nearest finished neighbours (`among` these run ids); there must
        be some."""
        usable = [lender.run for name, lender in self.by_id.items() if among is None or name in among]
        near = nearest(run, usable, NEAREST)
        mine = [self.descriptions[one.run_id] for one in near]
        evidence = TEMPER * sum((d.evidence for d in mine), np.zeros(len(mine[0].evidence)))
        best = np.argsort(-evidence)[:KEPT]
        weights = np.exp(evidence[best] - evidence[best[0]])
        folds = np.array(
            [math.log(run.params / one.params) if run.params and one.params else 0.0 for one in near]
        )
        closeness = np.exp(-np.abs(folds) / math.log(4))
        closeness /= closeness.sum()
        lent = [pair for pair in self.pairs if among is None or all(name in among for name in pair.names)]
        growth, growth_error = growth_of(lent, best, weights / weights.sum())
        grown = np.exp(growth * folds[:, None])[:, None, :]  # [lenders, 1, 2]
        each = grown * np.stack([d.amplitudes[best] for d in mine])  # [lenders, k, 2]
        errors = grown * np.stack([d.deviations[best] for d in mine])
        # a run that never decayed says nothing of what a decay is worth
        trust = closeness[:, None, None] / (errors**2 + (MISFIT * each) ** 2)
        trust /= trust.sum(axis=0)
        mean = (trust * each).sum(axis=0)
        variance = (trust * (errors**2 + (each - mean) ** 2)).sum(axis=0)
        relative = math.hypot(MISFIT, growth_error * float(np.abs(folds).min()))
        gaps = [d.gap for d in mine]
        noise = max(d.lender.noise for d in mine)
        return Borrowed(
            shapes=drawn().take(best),
            weights=weights / weights.sum(),
            amplitudes=mean,
            deviations=np.sqrt(variance + (relative * mean) ** 2),
            fall=float(closeness @ [d.lender.fall for d in mine]),
            noise=noise,
            walk=self.walk,
            gap=float(np.mean(gaps)),
            gap_deviation=math.hypot(float(np.std(gaps)), noise / math.sqrt(len(gaps))),
            alike=tuple(
                (d.lender.run, d.amplitudes[best]) for d in mine if self.stray_together(run, d.lender.run)
            ),
            lenders=tuple(one.run_id for one in near),
        )


@dataclass(frozen=True, eq=False)
class Pair:
    """Two finished runs of neighbouring `sizes` that differ in nothing else: by which power of N the
    amplitudes (a, b) of each shape grew, [k, 2]."""

    names: tuple[str, str]
    sizes: tuple[float, float]
    grown: Floats


def pairs_of(found: Sequence[Description]) -> list[Pair]:
    sizes = sorted({d.lender.run.params for d in found if d.lender.run.params})
    pairs = []
    for low, high in itertools.pairwise(sizes):
        if high / low < ALIKE:
            continue
        those = [[d for d in found if d.lender.run.params == size] for size in (low, high)]
        for small, large in itertools.product(*those):
            if comparable(small.lender.run, large.lender.run):
                ratio = large.amplitudes / np.maximum(small.amplitudes, 1e-12 * small.lender.fall)
                grown = np.log(np.clip(ratio, 1 / MOST_GROWN, MOST_GROWN)) / math.log(high / low)
                names = (small.lender.run.run_id, large.lender.run.run_id)
                pairs.append(Pair(names, (low, high), grown))
    return pairs


def growth_of(pairs: Sequence[Pair], best: Positions, weights: Floats) -> tuple[Floats, float]:
    """Growth per e-fold of size of the amplitudes (a, b), [2], and its standard error: the median over the
    pairs of two sizes, each two sizes one observation, shrunk towards none. `best` are the shapes [k] whose
    amplitudes are compared, with `weights` [k]."""
    between: dict[tuple[float, float], list[Floats]] = {}
    for pair in pairs:
        between.setdefault(pair.sizes, []).append(weights @ pair.grown[best])
    medians = [np.median(one, axis=0) for one in between.values()]
    precision = GROWTH_ERROR**-2 + len(medians) * PAIR_ERROR**-2
    return sum(medians, np.zeros(2)) * PAIR_ERROR**-2 / precision, precision**-0.5


def comparable(small: Trajectory, large: Trajectory) -> bool:
    """Whether they have one schedule, about equally long."""
    if small.schedule is None or large.schedule is None or not small.schedule.like(large.schedule):
        return False
    return abs(math.log(small.end / large.end)) < math.log(ALIKE)


def spread(finished: Sequence[Trajectory]) -> list[Trajectory]:
    """At most `MOST`, evenly over sizes and lengths."""
    ordered = sorted(finished, key=lambda run: (run.params or 0.0, run.end, run.run_id))
    if len(ordered) <= MOST:
        return ordered
    at = np.unique(np.linspace(0, len(ordered) - 1, MOST).round().astype(int))
    return [ordered[i] for i in at]
