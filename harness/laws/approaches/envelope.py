"""Approach 1 of Hoffmann et al. 2203.15556: the best size at every budget, along the runs' lower envelope.

Each size's loss is interpolated over compute, the sizes' losses at one budget over size, and the minimum is
sought between them, after Porian et al. 2406.19146: Akima in log-log, the least value on a grid, the median
over noise replicates, least squares weighted by their spread. Hoffmann et al. take the best of the trained
sizes instead, which moves in steps.

Rows are final losses or points of whole curves; a point of a curve stands for a run that ends there only
when the schedule does not know the end (constant rate), which is for the caller to know.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.errors import CannotAnswer
from harness.laws.approaches.allocation import FEWEST_BUDGETS, SPAN, Allocation, fit_line
from harness.laws.approaches.noise import fit_surface
from harness.laws.approaches.slices import FEWEST_POINTS, SLICE_WIDTH, RowNumbers, SliceFault, find_slices
from harness.laws.config import FitConfig
from harness.laws.observations import SAME_SIZE, Observations, levels
from harness.laws.surfaces import Floats

GRID_PER_GAP = 25
"""Grid points from one size to the next, as in Porian et al."""

SPREAD_FLOOR = 0.33
"""The spread of an optimum counts as at least this share of the distance between sizes (Porian et al.)."""

BUDGETS = 24
"""Log-spaced budgets where the runs themselves do not share any; fewer where they would be one budget."""

SAME_POINT = 1.01
"""Points of one size whose compute lies within this factor are repeats and are averaged."""


@dataclass(frozen=True)
class Curve:
    """One size: knots in ln C, the row numbers behind each of them, ln N and ln(C / ND).

    It reaches a share of `SLICE_WIDTH` beyond its ends, where its loss stays that of the end.
    """

    log_c: Floats
    rows: tuple[RowNumbers, ...]
    log_n: float
    log_cost: float

    def reaches(self, log_c: float) -> bool:
        slack = math.log(SLICE_WIDTH)
        return bool(self.log_c[0] - slack <= log_c <= self.log_c[-1] + slack)

    def log_loss(self, rows: Floats, log_c: float) -> Floats:
        """ln L [K] at one budget from ln L of all rows [K, n]: monotone between the knots."""
        from scipy.interpolate import PchipInterpolator

        first = max(0, int(np.searchsorted(self.log_c, log_c)) - 3)
        near = slice(first, first + 6)  # all that a monotone cubic looks at
        x, y = self.log_c[near], np.column_stack([rows[:, at].mean(axis=1) for at in self.rows[near]])
        if len(x) == 1:
            return y[:, 0]
        return PchipInterpolator(x, y, axis=1)(np.clip(log_c, x[0], x[-1]))


@dataclass(frozen=True)
class BudgetOptimum:
    """The optimum at one budget: ln N*, ln D* [1 + K], NaN in replicates whose minimum is at an end.

    Row 0 is the median of the replicates. `edge` is -1 or 1 when the smallest or largest size is best;
    then, and when half the replicates end there, the budget is not `usable`.
    """

    flops: float
    sizes: int
    log_n: Floats
    log_d: Floats
    spread: float
    edge: int

    @property
    def usable(self) -> bool:
        return self.edge == 0 and not math.isnan(float(self.log_n[0]))


@dataclass(frozen=True)
class Envelope:
    """`allocation` is missing when there is no answer; `reasons` say why."""

    optima: tuple[BudgetOptimum, ...]
    reasons: tuple[str, ...]
    allocation: Allocation | None = None
    sigma: float | None = None

    @property
    def usable(self) -> tuple[BudgetOptimum, ...]:
        return tuple(o for o in self.optima if o.usable)


def fit_envelope(
    observations: Observations, config: FitConfig, budgets: Sequence[float] = (), noise: Floats | None = None
) -> Envelope:
    """Approach 1. `budgets` are those of the isoFLOP slices, or `BUDGETS` over the span of the runs.

    `noise` [K, n] is added to ln L; without it, independent noise as large as the scatter of the rows
    around a surface (for points of curves, whose noise goes together, give it). Rows that cannot support
    the approach come back with reasons, not as an error.

    Intervals err on the wide side, because noise is added to rows that carry it already: of 360 planted
    sweeps, 90 % intervals held the exponent in 97 %.
    """
    sigma = None
    if noise is None:
        try:
            surface = fit_surface(near_minimum(observations))
        except CannotAnswer as error:
            return Envelope((), (str(error),))
        sigma, noise = surface.sigma, surface.draws((config.bootstraps, len(observations)), config.seed)
    log_loss = np.log(observations.loss)
    rows = np.concatenate([log_loss[None], log_loss + noise])
    curves = size_curves(observations)
    found = [budget_optimum(curves, rows, c) for c in budgets or default_budgets(observations)]
    optima = tuple(o for o in found if o is not None)
    usable = [o for o in optima if o.usable]
    if len(usable) < FEWEST_BUDGETS or usable[-1].flops < SPAN * usable[0].flops:
        return Envelope(optima, (why_not(optima, len(usable)),), sigma=sigma)
    allocation = allocate(usable)
    lost = float(np.isnan(allocation.params.slope).mean())
    reasons = (f"{lost:.0%} of the noise replicates have no envelope",) if lost > 1 - config.level else ()
    return Envelope(optima, reasons, allocation, sigma)


def near_minimum(observations: Observations) -> Observations:
    """The rows of usable isoFLOP slices where there are some: far off the optimum a surface may not hold."""
    slices = [s for s in find_slices(observations) if s.fault is SliceFault.none]
    if len(slices) < FEWEST_BUDGETS:
        return observations
    kept = np.concatenate([s.rows for s in slices])
    return observations.subset(np.isin(np.arange(len(observations)), kept))


def allocate(usable: Sequence[BudgetOptimum]) -> Allocation:
    log_c = np.log([o.flops for o in usable])
    weights = np.array([o.spread for o in usable]) ** -2
    log_n, log_d = (np.column_stack([getattr(o, name) for o in usable]) for name in ("log_n", "log_d"))
    return Allocation(fit_line(log_c, log_n, weights), fit_line(log_c, log_d, weights))


def why_not(optima: Sequence[BudgetOptimum], usable: int) -> str:
    wanted = f"{FEWEST_BUDGETS} budgets over a factor of {SPAN:g} are needed"
    if not optima:
        return f"no budget is reached by {FEWEST_POINTS} sizes; {wanted}"
    parts = [f"the envelope has an interior minimum at {usable} of {len(optima)} budgets, {wanted}"]
    for edge, size in ((-1, "smallest"), (1, "largest")):
        if count := sum(o.edge == edge for o in optima):
            parts.append(f"the {size} size is best at {count}")
    return "; ".join(parts)


def size_curves(observations: Observations) -> list[Curve]:
    """One per size, in order of size; sizes within `SAME_SIZE` are one."""
    logs, log_c = np.log(observations.params), np.log(observations.flops)
    cost = log_c - logs - np.log(observations.tokens)
    return [
        curve_of(at, log_c, float(logs[at].mean()), float(cost[at].mean()))
        for at in clusters(logs, math.log(SAME_SIZE))
    ]


def curve_of(rows: RowNumbers, log_c: Floats, log_n: float, log_cost: float) -> Curve:
    knots = [rows[at] for at in clusters(log_c[rows], math.log(SAME_POINT))]
    return Curve(np.array([log_c[at].mean() for at in knots]), tuple(knots), log_n, log_cost)


def clusters(values: Floats, width: float) -> list[RowNumbers]:
    """Positions of `values` in ascending groups; within a group all lie within `width` of the first."""
    groups: list[list[int]] = []
    for at in np.argsort(values, kind="stable").tolist():
        if groups and values[at] <= values[groups[-1][0]] + width:
            groups[-1].append(at)
        else:
            groups.append([at])
    return [np.array(group, dtype=np.intp) for group in groups]


def default_budgets(observations: Observations) -> list[float]:
    """Where the runs share budgets, those; otherwise evenly in the logarithm between their ends."""
    shared = [
        s.flops for s in find_slices(observations) if levels(observations.params[s.rows]) >= FEWEST_POINTS
    ]
    if len(shared) >= FEWEST_BUDGETS:
        return shared
    low, high = float(observations.flops.min()), float(observations.flops.max())
    apart = 1 + int(math.log(high / low) / math.log(SLICE_WIDTH))
    return np.geomspace(low, high, min(BUDGETS, apart)).tolist()


def budget_optimum(curves: Sequence[Curve], rows: Floats, flops: float) -> BudgetOptimum | None:
    """None where fewer than `FEWEST_POINTS` sizes reach the budget. `rows` are ln L, [1 + K, n]."""
    from scipy.interpolate import Akima1DInterpolator

    log_c = math.log(flops)
    reaching = [curve for curve in curves if curve.reaches(log_c)]
    if len(reaching) < FEWEST_POINTS:
        return None
    log_n = np.array([curve.log_n for curve in reaching])
    losses = np.stack([curve.log_loss(rows, log_c) for curve in reaching])
    grid = np.linspace(log_n[0], log_n[-1], (len(log_n) - 1) * GRID_PER_GAP)
    best = Akima1DInterpolator(log_n, losses)(grid).argmin(axis=0)
    inside = (best > 0) & (best < len(grid) - 1)
    edge = 0 if inside[0] else (-1 if best[0] == 0 else 1)
    found = np.where(inside, grid[best], np.nan)
    drawn = found[1:] if len(found) > 1 else found
    share = float(np.isfinite(drawn).mean())
    found[0] = np.nanmedian(drawn) if share >= 0.5 else np.nan
    floor = SPREAD_FLOOR * GRID_PER_GAP * (grid[1] - grid[0])
    spread = max(float(np.nanstd(drawn)), floor) / share if share else math.inf
    cost = np.interp(found, log_n, [curve.log_cost for curve in reaching])
    return BudgetOptimum(flops, len(reaching), found, log_c - cost - found, spread, edge)
