"""Approach 2 of Hoffmann et al. 2203.15556: a parabola per isoFLOP slice, a power law through the vertices.

The valley of E + A/N^alpha + B/D^beta along a budget is lopsided unless alpha = beta, and a parabola over a
wide slice then has its vertex beside the optimum: for the published Chinchilla constants sampled to
16 times D* on both sides, D* comes out 5.1 % low at every budget, noise or none. The bias depends on the
exponents and on the sampled widths alone, so it is measured on a surface fitted to the same rows, by what
the same parabolas return there, and taken off.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import numpy.typing as npt

from harness.errors import CannotAnswer
from harness.laws.allocation import FEWEST_BUDGETS, SPAN, Allocation, fit_line
from harness.laws.config import FitConfig
from harness.laws.forms.resample import interval
from harness.laws.identify import LARGEST_RESIDUAL
from harness.laws.noise import Surface, fit_surface
from harness.laws.observations import SAME_SIZE, Observations, levels
from harness.laws.surfaces import ALPHA, BETA, LOG_A, LOG_B, Floats, Law

SLICE_WIDTH = 1.1
"""Budgets within this factor make one slice: rounding to steps and digitised plots stay within it, and
budgets of a design lie further apart."""

FEWEST_POINTS = 4
"""Distinct sizes a slice needs: three lie on a parabola whatever they are."""

REACH = 4.0
"""Rows whose size is further than this factor from the best of their slice stay out of its parabola. The
slices of Porian et al. 2406.19146 reach 30 times past the optimum, where no surface holds: over all rows
the exponents of their ten RefinedWeb settings miss those of the optima by .17 (root mean square), within
this reach by .02."""

FEWEST_IN_REACH = 5
"""Rows that stay whatever the reach, the nearest to the best: a coarse design has its bias taken off."""

LARGEST_BIAS = 0.5
"""A correction of D* that may be larger than this share is no correction."""

RowNumbers = npt.NDArray[np.intp]


class SliceFault(Enum):
    """Why the parabola of a slice is not used."""

    none = ""
    few = f"fewer than {FEWEST_POINTS} sizes"
    edge_small = "the lowest loss is at the smallest size"
    edge_large = "the lowest loss is at the largest size"
    not_convex = "the parabola has no minimum"
    outside = "the vertex lies outside the sampled sizes"


@dataclass(frozen=True)
class Slice:
    """Rows of one budget, which is their geometric mean in FLOPs."""

    flops: float
    rows: RowNumbers
    fault: SliceFault = SliceFault.none


@dataclass(frozen=True)
class IsoFlop:
    """`raw` are the parabolas as they are, `corrected` without the vertex bias: the answer.

    `vertices` [usable slices] is the corrected ln D*, `bias` what was taken off, both natural logarithms;
    `bias_bound` is the largest absolute bias of any slice, at the far end of its interval, as a share of
    D*. `reasons` say why there is no answer, or none to trust.
    """

    slices: tuple[Slice, ...]
    reasons: tuple[str, ...]
    raw: Allocation | None = None
    corrected: Allocation | None = None
    vertices: Floats | None = None
    bias: Floats | None = None
    bias_bound: float | None = None
    sigma: float | None = None

    @property
    def usable(self) -> tuple[Slice, ...]:
        return tuple(s for s in self.slices if s.fault is SliceFault.none)


# Slices -------------------------------------------------------------------------------------------------


def find_slices(observations: Observations, reach: float = REACH) -> tuple[Slice, ...]:
    """Isolated budgets that at least two rows share, densest first to claim their rows, in order of FLOPs.

    Rows within `SLICE_WIDTH` of a slice that has been found belong to no other, so that the fringe of a
    jittered budget does not pass for a second one.
    """
    logs = np.log(observations.flops)
    width, free, found = math.log(SLICE_WIDTH) + 1e-9, np.ones(len(logs), dtype=bool), []
    while free.any():
        values = np.sort(logs[free])
        counts = np.searchsorted(values, values + width, side="right") - np.arange(len(values))
        if counts.max() < 2:
            break
        low = values[int(counts.argmax())]
        inside = free & (logs >= low) & (logs <= low + width)
        free &= (logs < low - width) | (logs > low + 2 * width)
        found.append(judged(observations, np.flatnonzero(inside), reach))
    return tuple(sorted(found, key=lambda s: s.flops))


def judged(observations: Observations, rows: RowNumbers, reach: float) -> Slice:
    """A slice with what speaks against its parabola, cut to its `reach`."""
    flops = math.exp(float(np.log(observations.flops[rows]).mean()))
    if fault := fault_of_minimum(observations.params[rows], observations.loss[rows]):
        return Slice(flops, rows, fault)
    kept = Slice(flops, within_reach(observations, rows, reach))
    sampled = sample(observations, kept)
    vertex = float(sampled.vertex(observations.loss[kept.rows][None])[0])
    if math.isnan(vertex):
        return replace(kept, fault=SliceFault.not_convex)
    inside = sampled.x.min() < vertex < sampled.x.max()
    return kept if inside else replace(kept, fault=SliceFault.outside)


def fault_of_minimum(sizes: Floats, loss: Floats) -> SliceFault | None:
    """Whether the lowest loss has sizes on both sides. Rows of one size count as one."""
    if levels(sizes) < FEWEST_POINTS:
        return SliceFault.few
    best = sizes[loss.argmin()]
    if best <= sizes.min() * SAME_SIZE:
        return SliceFault.edge_small
    return SliceFault.edge_large if best >= sizes.max() / SAME_SIZE else None


def within_reach(observations: Observations, rows: RowNumbers, reach: float) -> RowNumbers:
    """The rows no further in size from the lowest loss than `reach`, and at least the nearest few."""
    logs = np.log(observations.params[rows])
    away = np.abs(logs - logs[observations.loss[rows].argmin()])
    nearest = np.sort(away)[min(FEWEST_IN_REACH, len(rows)) - 1]
    return rows[away <= max(math.log(reach), nearest) + 1e-9]


# Parabolas ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sampled:
    """One slice as a parabola sees it: x = ln D moved to the slice's budget, ln N = start - slope x."""

    rows: RowNumbers
    x: Floats
    start: float
    slope: float

    def log_n(self, x: Floats) -> Floats:
        return self.start - self.slope * x

    def vertex(self, loss: Floats) -> Floats:
        """x of the vertex for losses [K, n]; NaN where the parabola has no minimum."""
        _, slope, bend = np.linalg.lstsq(self.basis, loss.T, rcond=None)[0]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(bend > 0, self.x.mean() - slope / (2 * bend), np.nan)

    @property
    def basis(self) -> Floats:
        x = self.x - self.x.mean()
        return np.column_stack([np.ones_like(x), x, x**2])

    def vertex_variance(self, loss: Floats) -> float:
        """Of the vertex of `loss` [n] under noise of unit variance in ln L, to first order."""
        _, slope, bend = np.linalg.lstsq(self.basis, loss, rcond=None)[0]
        sensitivity = np.array([0.0, -1 / (2 * bend), slope / (2 * bend**2)]) @ np.linalg.pinv(self.basis)
        return float(((sensitivity * loss) ** 2).sum())

    def optimum(self, theta: Floats) -> Floats:
        """x of the true minimum of surfaces theta [K, 5] along the slice, in closed form.

        d/dx of A exp(-alpha (start - slope x)) + B exp(-beta x) vanishes there; with C = 6 N D the slope
        is 1 and this is equation 4 of Hoffmann et al.
        """
        alpha, beta = theta[:, ALPHA] * self.slope, theta[:, BETA]
        log_a = theta[:, LOG_A] - theta[:, ALPHA] * self.start
        return (theta[:, LOG_B] - log_a + np.log(beta / alpha)) / (alpha + beta)

    def losses(self, law: Law, theta: Floats) -> Floats:
        """Of surfaces theta at the sampled points, [K, n]."""
        return np.exp(law.log_loss(theta, self.log_n(self.x), self.x))

    def bias(self, law: Law, theta: Floats) -> Floats:
        """How far in ln D the parabola over these samples of surfaces theta misses their minimum, [K]."""
        return self.vertex(self.losses(law, theta)) - self.optimum(theta)


def sample(observations: Observations, slice_: Slice) -> Sampled:
    rows = slice_.rows
    x = np.log(observations.tokens[rows]) + math.log(slice_.flops) - np.log(observations.flops[rows])
    slope, start = np.polyfit(x, np.log(observations.params[rows]), 1)
    return Sampled(rows, x, float(start), -float(slope))


# The approach -------------------------------------------------------------------------------------------


def fit_isoflop(observations: Observations, config: FitConfig, reach: float = REACH) -> IsoFlop:
    """Approach 2 on the isoFLOP slices of the rows; `config` says how many noise replicates.

    Rows that cannot support it come back with reasons, not as an error.

    Of 100 to 200 planted sweeps each of 14 designs, 90 % intervals held the exponent in 85 to 93 %; the low
    end is three budgets of five rows in reach, since which rows those are is not drawn anew.
    """
    slices = find_slices(observations, reach)
    usable = [s for s in slices if s.fault is SliceFault.none]
    if len(usable) < FEWEST_BUDGETS or usable[-1].flops < SPAN * usable[0].flops:
        return IsoFlop(slices, (why_not(slices),))
    kept = np.sort(np.concatenate([s.rows for s in usable]))
    try:
        surface = fit_surface(observations.subset(np.isin(np.arange(len(observations)), kept)))
    except CannotAnswer as error:
        return IsoFlop(slices, (str(error),))
    return through_vertices(observations, slices, surface, config)


def why_not(slices: tuple[Slice, ...]) -> str:
    """How many budgets there are, and what is wrong with those that do not count."""
    usable = sum(s.fault is SliceFault.none for s in slices)
    counts = Counter(s.fault.value for s in slices if s.fault is not SliceFault.none)
    faults = "".join(f"; {fault} in {count}" for fault, count in counts.items())
    wanted = f"{FEWEST_BUDGETS} budgets over a factor of {SPAN:g} are needed"
    if not slices:
        return f"no two runs share a budget to {SLICE_WIDTH - 1:.0%}: there are no isoFLOP slices; {wanted}"
    return f"{usable} of {len(slices)} isoFLOP slices have a usable minimum, {wanted}{faults}"


def through_vertices(
    observations: Observations, slices: tuple[Slice, ...], surface: Surface, config: FitConfig
) -> IsoFlop:
    """`surface` is that of the rows of the usable slices, in the order of the observations."""
    usable = [s for s in slices if s.fault is SliceFault.none]
    order = np.sort(np.concatenate([s.rows for s in usable]))
    log_loss = np.log(observations.loss[order])[None]
    noise = surface.draws((config.bootstraps, len(order)), config.seed)
    log_loss = np.concatenate([log_loss, log_loss + noise])
    theta = surface.refit(log_loss)
    law, found, biases, weights, samples = surface.solution.law, [], [], [], []
    for slice_ in usable:
        sampled, at = sample(observations, slice_), np.searchsorted(order, slice_.rows)
        u, v = np.log(observations.params[slice_.rows]), np.log(observations.tokens[slice_.rows])
        model = sampled.losses(law, surface.theta)[0]
        # Along the surface to the slice's own budget: nothing where all rows have it.
        moved = np.log(model) - law.log_loss(surface.theta, u, v)[0]
        found.append(sampled.vertex(np.exp(log_loss[:, at] + moved)))
        biases.append(sampled.bias(law, theta))
        weights.append(1 / sampled.vertex_variance(model))
        samples.append(sampled)
    raw, bias = np.column_stack(found), np.column_stack(biases)
    log_c = np.log([s.flops for s in usable])
    bound = bias_bound(bias, config.level)
    return IsoFlop(
        slices=slices,
        reasons=doubts(surface, bound),
        raw=allocate(log_c, raw, samples, np.array(weights)),
        corrected=allocate(log_c, raw - bias, samples, np.array(weights)),
        vertices=(raw - bias)[0],
        bias=bias[0],
        bias_bound=bound,
        sigma=surface.sigma,
    )


def allocate(log_c: Floats, log_d: Floats, samples: list[Sampled], weights: Floats) -> Allocation:
    log_n = np.column_stack([s.log_n(x) for s, x in zip(samples, log_d.T, strict=True)])
    return Allocation(fit_line(log_c, log_n, weights), fit_line(log_c, log_d, weights))


def bias_bound(bias: Floats, level: float) -> float | None:
    """The largest share of D* by which any slice's parabola [1 + K, slices] is off; None when unbounded."""
    ends = [end for column in bias.T for end in interval(column, level)]
    if any(end is None for end in ends):
        return None
    return float(np.abs(np.expm1(np.concatenate([np.array(ends, dtype=float), bias[0]]))).max())


def doubts(surface: Surface, bound: float | None) -> tuple[str, ...]:
    """Why the bias that was taken off cannot be believed; empty when it can."""
    if surface.at_bound:
        return ("the vertex bias is unknown: an exponent of the surface ran to its bound",)
    if surface.sigma > LARGEST_RESIDUAL:
        missed = f"the surface misses its rows by {surface.sigma:.2%}, the limit is {LARGEST_RESIDUAL:.0%}"
        return (f"the vertex bias is unknown: {missed}",)
    if bound is None or bound > LARGEST_BIAS:
        shown = "has no bound" if bound is None else f"may be {bound:.0%} of D*"
        return (f"the vertex bias {shown}, the limit is {LARGEST_BIAS:.0%}; sample closer to the minimum",)
    return ()
