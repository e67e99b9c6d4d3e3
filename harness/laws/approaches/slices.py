"""Runs of one compute budget as a parabola sees them: which rows, against which axis, and what is wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import numpy.typing as npt

from harness.laws.forms.chinchilla import CHINCHILLA
from harness.laws.observations import SAME_SIZE, Observations, levels
from harness.laws.surfaces import Floats

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
"""Sizes that stay whatever the reach, the nearest to the best: a coarse design has its bias taken off."""

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
    best = logs[observations.loss[rows].argmin()]
    nearest = np.sort(np.abs(np.unique(logs.round(2)) - best))
    enough = nearest[min(FEWEST_IN_REACH, len(nearest)) - 1] + 0.01  # sizes are told apart to 1 %
    return rows[np.abs(logs - best) <= max(math.log(reach), enough) + 1e-9]


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

    def optimum(self, values: Floats) -> Floats:
        """x of the true minimum of surfaces A, B, E, alpha, beta [K, 5] along the slice, in closed form.

        d/dx of A exp(-alpha (start - slope x)) + B exp(-beta x) vanishes there; with C = 6 N D the slope
        is 1 and this is equation 4 of Hoffmann et al.
        """
        a, b, _, size_exponent, beta = values.T
        alpha, log_a = size_exponent * self.slope, np.log(a) - size_exponent * self.start
        return np.asarray((np.log(b) - log_a + np.log(beta / alpha)) / (alpha + beta))

    def losses(self, values: Floats) -> Floats:
        """Of surfaces at the sampled points, [K, n]."""
        return CHINCHILLA.losses(values, {"params": np.exp(self.log_n(self.x)), "tokens": np.exp(self.x)})

    def bias(self, values: Floats) -> Floats:
        """How far in ln D the parabola over these samples of surfaces misses their minimum, [K]."""
        return self.vertex(self.losses(values)) - self.optimum(values)


def sample(observations: Observations, slice_: Slice) -> Sampled:
    rows = slice_.rows
    x = np.log(observations.tokens[rows]) + math.log(slice_.flops) - np.log(observations.flops[rows])
    slope, start = np.polyfit(x, np.log(observations.params[rows]), 1)
    return Sampled(rows, x, float(start), -float(slope))
