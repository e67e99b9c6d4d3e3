"""Parameters that ended on a bound, and the irreducible loss that its profile does not pin."""

from __future__ import annotations

from dataclasses import dataclass

from harness.laws.checks import Check, Grade, grade
from harness.laws.profile import Profile
from harness.laws.solve import Solution

FLOOR_AT_ZERO = 0.01
"""E below this share of the smallest loss."""

AT_BOUND = 0.01
"""A parameter this near to its bound (in its logarithm, or as a share of the range) is on it."""

ACTIVE = 1e-6
"""A floor this near (in its logarithm) to its upper bound is held by it. Converged curves end within a few
tenths of a percent of a floor that their profile pins (supercollapse, c5m): near is not at."""


@dataclass(frozen=True)
class Boundary:
    """The parameter numbered `at` ended on a bound, which `reason` names. `value` and `limit` are in the
    coordinates of the fit, for a negligible floor shares of the smallest loss."""

    at: int
    value: float
    limit: float
    reason: str


def boundaries(solution: Solution) -> list[Boundary]:
    """Free parameters that ended on a bound; a floor also when it is negligible.

    A floor near its upper bound is left to its profile (`check_floor`), unless the bound holds it.
    """
    problem, found = solution.problem, []
    bounds = zip(solution.theta, problem.lower, problem.upper, strict=True)
    for at, (parameter, (theta, low, high)) in enumerate(zip(solution.form.parameters, bounds, strict=True)):
        if low == high:
            continue
        value = float(solution.values[at])
        if parameter.floor:
            share = value / float(solution.loss.min())
            if share < FLOOR_AT_ZERO:
                reason = f"{parameter.name} ran to zero ({share:.1e} of the smallest loss)"
                found.append(Boundary(at, share, FLOOR_AT_ZERO, reason))
                continue
        reach = AT_BOUND if parameter.log else AT_BOUND * (high - low)
        above = ACTIVE if parameter.floor else reach
        if theta - low < reach or high - theta < above:
            side, bound = ("lower", low) if theta - low < high - theta else ("upper", high)
            reason = f"{parameter.name} ran to its {side} bound ({value:g})"
            found.append(Boundary(at, float(theta), float(bound), reason))
    return found


def check_floor(solution: Solution, profile: Profile) -> Check:
    """An irreducible loss that its profile does not pin on both sides is weakly determined, and not at all
    when it lies next to its upper bound and the profile is open there."""
    at = solution.form.floor or 0
    share = float(solution.values[at] / solution.loss.min())
    low, high = profile.interval
    near = float(solution.problem.upper[at] - solution.theta[at]) < AT_BOUND
    reason = f"{profile.parameter} is {share:.3f} of the smallest loss; {shown(profile)}"
    weak = low is None or high is None
    return Check("floor", grade(near and high is None, weak), share, FLOOR_AT_ZERO, reason)


def check_boundary(solution: Solution, boundary: Boundary, profile: Profile | None) -> Check:
    parameter = solution.form.parameters[boundary.at]
    name = "floor" if parameter.floor else parameter.name
    reason = boundary.reason + (f"; {shown(profile)}" if profile else "")
    return Check(name, Grade.failed, boundary.value, boundary.limit, reason)


def shown(profile: Profile) -> str:
    low, high = ("open" if end is None else f"{end:.4g}" for end in profile.interval)
    return f"its {profile.level:.0%} profile interval is [{low}, {high}]"
