"""Approach 2 of Hoffmann et al. 2203.15556: a parabola per isoFLOP slice, a power law through the vertices.

The valley of E + A/N^alpha + B/D^beta along a budget is lopsided unless alpha = beta, and a parabola over a
wide slice then has its vertex beside the optimum: for the published Chinchilla constants sampled to
16 times D* on both sides, D* comes out 5.1 % low at every budget, noise or none. The bias depends on the
exponents and on the sampled widths alone, so it is measured on a surface fitted to the same rows, by what
the same parabolas return there, and taken off.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from harness.errors import CannotAnswer
from harness.laws.approaches.allocation import FEWEST_BUDGETS, SPAN, Allocation, fit_line
from harness.laws.approaches.noise import Surface, fit_surface
from harness.laws.approaches.slices import REACH, SLICE_WIDTH, Sampled, Slice, SliceFault, find_slices, sample
from harness.laws.bootstrap import interval
from harness.laws.config import FitConfig
from harness.laws.forms.chinchilla import CHINCHILLA
from harness.laws.identify import LARGEST_RESIDUAL
from harness.laws.observations import Observations
from harness.laws.surfaces import Floats

LARGEST_BIAS = 0.5
"""A correction of D* that may be larger than this share is no correction."""


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


def fit_isoflop(observations: Observations, config: FitConfig, reach: float = REACH) -> IsoFlop:
    """Approach 2 on the isoFLOP slices of the rows; `config` says how many noise replicates.

    Rows that cannot support it come back with reasons, not as an error.

    Of 100 to 200 planted sweeps each of 14 designs, 90 % intervals held the exponent in 85 to 93 %,
    the least with three budgets.
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
    values = surface.refit(log_loss)
    found, biases, weights, samples = [], [], [], []
    for slice_ in usable:
        sampled, at = sample(observations, slice_), np.searchsorted(order, slice_.rows)
        rows = {name: getattr(observations, name)[slice_.rows] for name in ("params", "tokens")}
        model = sampled.losses(surface.values)[0]
        # Along the surface to the slice's own budget: nothing where all rows have it.
        moved = np.log(model) - np.log(CHINCHILLA.losses(surface.values, rows)[0])
        found.append(sampled.vertex(np.exp(log_loss[:, at] + moved)))
        biases.append(sampled.bias(values))
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
