"""What the numbers of a fit count: FLOPs of its budgets, one N in terms of another, the unit of the loss.

Two curves in N carry one convention into another: training FLOPs per token F(N), and one count of
parameters against the other. Both come from the rows themselves, and both are refused when the rows do
not lie on one curve.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from harness.errors import CannotAnswer, WrongInput
from harness.laws.config import FlopsKind, LossUnit
from harness.laws.observations import FLOPS_6ND, SAME_SIZE, Observations
from harness.laws.surfaces import FLOPS_PER_PARAM_TOKEN, Floats

ONE_CURVE = 1.05
"""Rows of one size may differ by this factor in FLOPs per token (a longer context, another depth)."""

NEGLIGIBLE = 1e-6
"""A curve this near to its limit is its limit: FLOPs that were computed as 6 N D and printed."""

SIZES = (1e3, 1e16)
"""Parameter counts between which a numeric optimum is sought."""


@dataclass(frozen=True)
class Curve:
    """y = x (limit + sign excess(x)): excess is interpolated in logarithms between the points, and beyond
    their ends continued as the power of x that fits them all, never a growing one.

    Embeddings, heads and attention scores weigh less and less as models grow, so y/x tends to `limit`
    (Pearce & Song 2406.12907: N_total - N_body goes as N_body^(1/3)). An empty curve is y = limit x.
    """

    limit: float
    sign: float = 1.0
    log_x: tuple[float, ...] = ()
    log_excess: tuple[float, ...] = ()
    slope: float = 0.0

    @property
    def is_limit(self) -> bool:
        return not self.log_x

    def __call__(self, x: Floats) -> Floats:
        if self.is_limit:
            return self.limit * x
        u = np.log(x)
        inside = np.clip(u, self.log_x[0], self.log_x[-1])
        beyond = u - inside
        if self.sign < 0:  # going down, what is taken off the limit must not outgrow it
            beyond = np.maximum(beyond, 0.0)
        log_excess = through_points(self.log_x, self.log_excess)(inside) + self.slope * beyond
        return np.asarray(x * (self.limit + self.sign * np.exp(log_excess)))


@lru_cache(maxsize=16)
def through_points(x: tuple[float, ...], y: tuple[float, ...]) -> Callable[[Floats], Floats]:
    """Interpolates without a kink at the points, to which an optimum would be drawn. Kept, because making
    it took three quarters of the search for an optimum."""
    if len(x) == 1:
        return lambda u: np.full_like(u, y[0])
    from scipy.interpolate import PchipInterpolator

    found: Callable[[Floats], Floats] = PchipInterpolator(x, y)
    return found


def curve_through(x: Floats, y: Floats, limit: float) -> Curve:
    """The curve through points whose y/x should tend to `limit`.

    Raises CannotAnswer when points of one size differ by more than `ONE_CURVE`, or y falls with x.
    """
    log_x, ratio = by_size(x, y / x)
    if np.abs(ratio / limit - 1).max() < NEGLIGIBLE:
        return Curve(limit)
    if (np.diff(log_x + np.log(ratio)) <= 0).any():
        raise CannotAnswer("it does not always grow with N")
    excess = ratio - limit
    sign = float(np.sign(excess[0]))
    if not (sign * excess > 0).all():  # on both sides of the limit: no power law, so hold the ends
        return Curve(0.0, 1.0, tuple(log_x.tolist()), tuple(np.log(ratio).tolist()))
    logs = np.log(sign * excess)
    slope = min(float(np.polyfit(log_x, logs, 1)[0]), 0.0) if len(log_x) > 1 else 0.0
    return Curve(limit, sign, tuple(log_x.tolist()), tuple(logs.tolist()), slope)


def by_size(x: Floats, ratio: Floats) -> tuple[Floats, Floats]:
    """ln x and the ratio of each distinct size, as geometric means. Raises CannotAnswer when runs of one
    size differ."""
    order = np.argsort(x, kind="stable")
    groups: list[list[tuple[float, float]]] = []
    for u, r in zip(np.log(x[order]).tolist(), np.log(ratio[order]).tolist(), strict=True):
        if not groups or u > groups[-1][0][0] + math.log(SAME_SIZE):
            groups.append([])
        groups[-1].append((u, r))
    spread = max(float(np.ptp([r for _, r in group])) for group in groups)
    if spread > math.log(ONE_CURVE):
        raise CannotAnswer(f"runs of one size differ by {math.expm1(spread):.0%}")
    means = np.array([np.mean(group, axis=0) for group in groups])
    return means[:, 0], np.exp(means[:, 1])


@dataclass(frozen=True)
class TokenCost:
    """Training FLOPs of one token, F(N), in the N of the rows. `label` names the convention in every
    output; `note` says why it is not the runs' own where that was asked for first."""

    label: str
    curve: Curve
    note: str = ""

    @property
    def is_6nd(self) -> bool:
        """Whether the closed-form optimum holds."""
        return self.curve.is_limit

    def per_token(self, params: Floats) -> Floats:
        return self.curve(params)

    def largest(self, observations: Observations) -> float:
        """FLOPs of the dearest row, in this convention; its own where its size is not known."""
        if not observations.sized:
            return float(observations.flops.max())
        return float((self.curve(observations.params) * observations.tokens).max())


SIX_ND = TokenCost(FLOPS_6ND, Curve(FLOPS_PER_PARAM_TOKEN))


def token_cost(observations: Observations, kind: FlopsKind) -> TokenCost:
    """What a token costs under `kind`; `auto` falls back to 6ND where the rows allow nothing else. Rows of
    unknown size have no budget to divide: their convention is that of their FLOPs.

    Raises CannotAnswer for `as_given` when the rows have no FLOPs of their own or no one curve.
    """
    if not observations.sized:
        return TokenCost(observations.flops_kind, SIX_ND.curve)
    if kind is FlopsKind["6nd"] or (kind is FlopsKind.auto and observations.flops_kind == FLOPS_6ND):
        return SIX_ND
    try:
        if observations.flops_kind == FLOPS_6ND:
            raise CannotAnswer("not every run has FLOPs of its own")
        per_token = observations.flops / observations.tokens
        curve = curve_through(observations.params, per_token, FLOPS_PER_PARAM_TOKEN)
    except CannotAnswer as error:
        reason = f"the runs' own FLOPs per token give no one curve in N: {error}"
        if kind is FlopsKind.as_given:
            raise CannotAnswer(f"{reason}; use fit.flops=6nd") from error
        return replace(SIX_ND, note=f"{reason}; budgets are in 6ND")
    how = "equal to 6ND" if curve.is_limit else "interpolated in N"
    return TokenCost(f"{observations.flops_kind}, {how}", curve)


def stated(observations: Observations, cost: TokenCost) -> dict[str, str]:
    """What every output says its numbers count. The exponent a is always that of N* under C = 6 N D, where
    a law has one a."""
    return {**observations.conventions, "flops_of_optimum": cost.label, "flops_of_exponent_a": FLOPS_6ND}


def in_flops(observations: Observations, kind: FlopsKind) -> Observations:
    """The rows with their FLOPs counted as `kind` says, for laws of compute and default budgets."""
    if kind is not FlopsKind["6nd"] or observations.flops_kind == FLOPS_6ND:
        return observations
    if not observations.sized:
        raise WrongInput("fit.flops=6nd needs the columns of params and tokens, which these rows lack")
    flops = FLOPS_PER_PARAM_TOKEN * observations.params * observations.tokens
    return replace(observations, flops=flops, flops_kind=FLOPS_6ND)


def size_conversion(source: Observations, target: Observations) -> Curve:
    """N as `target` counts it, from N as `source` does; rows are matched by group and name.

    Raises CannotAnswer when no row is in both, or they do not lie on one curve.
    """
    known = sizes_by_run(target)
    pairs = [(n, known[run]) for run, n in sizes_by_run(source).items() if run in known]
    kinds = f"{source.params_kind.value} and {target.params_kind.value} parameters"
    if not pairs:
        raise CannotAnswer(f"no run has both {kinds}")
    x, y = np.array(pairs).T
    try:
        return curve_through(x, y, 1.0)
    except CannotAnswer as error:
        raise CannotAnswer(f"{kinds} give no one curve: {error}") from error


def sizes_by_run(observations: Observations) -> dict[tuple[str, str], float]:
    names = zip(observations.groups, observations.run_ids, strict=True)
    return dict(zip(names, observations.params.tolist(), strict=True))


def require_unit(observations: Observations, unit: LossUnit | None) -> Observations:
    """The rows as they are. Raises WrongInput when their loss is in another unit than was asked for."""
    if unit is not None and observations.loss_unit is not unit:
        raise WrongInput(
            f"fit.unit={unit.name}, but the losses are in {observations.loss_unit.value}; "
            "give a column bits_per_byte, or map one with columns="
        )
    return observations
