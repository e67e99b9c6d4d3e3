"""Whether the loss curves of several sizes are one curve, as where settings scale with the size.

Of runs at one ratio of tokens to parameters under one schedule, the loss above the floor over its end,

    l(x) = (L(x) - E) / (L(1) - E),    x the share of the run that is done,

is the same function at every size where learning rate, batch, warm-up and initialisation scale as they should
("supercollapse", arXiv:2507.02119): it then spreads over sizes no more than over seeds. A rung whose
learning rate is off stands out long before its final loss does.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from harness.forecast.inflight.trajectory import Trajectory
from harness.laws.checks import Check, grade
from harness.laws.observations import SAME_SIZE, Observations, levels
from harness.laws.surfaces import Floats

SHARES = np.linspace(0.1, 0.95, 9)
"""Edges between which a curve is averaged, as shares of the run: past its warm-up and before its end."""

SAME_RATIO = 1.25
"""Tokens per parameter within this factor count as one. Over a factor of ten the curves of the OLMo ladder
(arXiv:2412.04403) move by a tenth."""

TOLERATED = 0.01
"""A spread that ratios within `SAME_RATIO` alone may leave. The four sizes of that ladder spread by .2 %,
3.8 times what its seeds do."""

FEWEST_SIZES = 3
SEED_FACTOR = 3.0
FEWEST_REPEATS = 2
"""Fewer say too little of how far seeds spread a curve; the noise of the final losses then stands for it."""

Shape = Floats
"""ln l between `SHARES`, [bins]."""


def check_collapse(
    observations: Observations, curves: Sequence[Trajectory], floor: float, noise: float
) -> list[Check]:
    """One weak or passed check, on the ladder whose curves lie furthest apart for their seeds; none where no
    three sizes share tokens per parameter and schedule. `floor` is E, `noise` the standard deviation of one
    run's ln L."""
    at = {name: i for i, name in enumerate(observations.run_ids)}
    known = [curve for curve in curves if curve.run_id in at]
    rows = np.array([at[curve.run_id] for curve in known], dtype=int)
    params, ratios = observations.params[rows], (observations.tokens / observations.params)[rows]
    shapes = [shape(curve, floor) for curve in known]
    usable = [i for i, one in enumerate(shapes) if one is not None]
    found = []
    for ladder in ladders(usable, ratios, known):
        if levels(params[ladder]) < FEWEST_SIZES:
            continue
        drawn = np.array([shapes[i] for i in ladder])
        sizes = size_numbers(params[ladder])
        spread, furthest = spread_over(drawn, sizes)
        final = float(np.median(observations.loss[rows[ladder]]))
        seeds = seed_spread(drawn, sizes, [known[i].cell for i in ladder]) or own_spread(noise, final, floor)
        worst, ratio = float(params[ladder][sizes == furthest].mean()), float(np.median(ratios[ladder]))
        found.append((spread / seeds, spread, seeds, int(sizes.max()) + 1, ratio, worst))
    return [verdict(*max(found))] if found else []


def verdict(factor: float, spread: float, seeds: float, sizes: int, ratio: float, worst: float) -> Check:
    reason = (
        f"the loss curves of {sizes} sizes at {ratio:.3g} tokens per parameter do not collapse: above the "
        f"floor they spread by {spread:.1%}, {factor:.2g} times what seeds do ({seeds:.1%}), furthest off at "
        f"{worst:.3g} parameters; a learning rate, batch or warm-up that does not scale shows so"
    )
    apart = factor > SEED_FACTOR and spread > TOLERATED
    return Check("collapse", grade(False, apart), factor, SEED_FACTOR, reason)


def shape(curve: Trajectory, floor: float) -> Shape | None:
    """None where a part of the run was not logged or the loss comes down to the floor."""
    share = curve.steps / curve.end
    seen = np.isfinite(curve.values)
    parts = [seen & (share >= low) & (share < high) for low, high in itertools.pairwise(SHARES)]
    parts.append(seen & (share >= SHARES[-1]))
    if not all(part.any() for part in parts):
        return None
    above = np.array([curve.values[part].mean() for part in parts]) - floor
    return np.asarray(np.log(above[:-1] / above[-1])) if (above > 0).all() else None


def ladders(usable: Sequence[int], ratios: Floats, curves: Sequence[Trajectory]) -> Iterator[list[int]]:
    """Curves of one schedule and nearly one ratio of tokens to parameters, from the smallest ratio up."""
    left = sorted(usable, key=lambda i: (float(ratios[i]), curves[i].run_id))
    while left:
        first = left[0]
        mine = [
            i for i in left if ratios[i] <= SAME_RATIO * ratios[first] and alike(curves[i], curves[first])
        ]
        left = [i for i in left if i not in mine]
        yield mine


def alike(one: Trajectory, other: Trajectory) -> bool:
    """Runs that log no learning rate are taken at the word of their sweep."""
    if one.schedule is None or other.schedule is None:
        return one.schedule is other.schedule
    return one.schedule.like(other.schedule)


def size_numbers(params: Floats) -> Floats:
    """Which size each run has, from 0, [n]; sizes apart by rounding are one."""
    order = np.argsort(params, kind="stable")
    steps = np.concatenate([[0.0], np.diff(np.log(params[order])) > math.log(SAME_SIZE)])
    numbers = np.empty(len(params))
    numbers[order] = np.cumsum(steps)
    return numbers


def spread_over(shapes: Floats, sizes: Floats) -> tuple[float, float]:
    """Standard deviation over sizes of the mean shape of each, root mean square over the run, and the size
    furthest from their median."""
    means = np.array([shapes[sizes == size].mean(axis=0) for size in np.unique(sizes)])
    away = np.abs(means - np.median(means, axis=0)).mean(axis=1)
    return float(np.sqrt(means.var(axis=0, ddof=1).mean())), float(away.argmax())


def seed_spread(shapes: Floats, sizes: Floats, cells: Sequence[str]) -> float:
    """The same over repeats of a cell; 0 where there are too few."""
    total, freedom = 0.0, 0
    for cell, size in {*zip(cells, sizes.tolist(), strict=True)}:
        mine = shapes[[(c, s) == (cell, size) for c, s in zip(cells, sizes.tolist(), strict=True)]]
        total += float(((mine - mine.mean(axis=0)) ** 2).sum(axis=0).mean())
        freedom += len(mine) - 1
    return math.sqrt(total / freedom) if freedom >= FEWEST_REPEATS else 0.0


def own_spread(noise: float, loss: float, floor: float) -> float:
    """Of ln l, from the noise of ln L: two losses of independent noise, above the floor."""
    return math.sqrt(2) * noise * loss / max(loss - floor, 1e-12)
