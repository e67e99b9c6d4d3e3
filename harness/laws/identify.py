"""Can these rows determine this law? Every check states the number it measured and its limit.

Limits were set on planted laws and public tables: on honest sweeps of 12 to 16 cells over a tenfold range
of sizes with .3 to 1 % noise the robust residual stays below 1.5 %; Chinchilla (240 rows), Gadre rpj and
the OLMo ladder have .5, .6 and .3 %; a sweep across a phase change (careless_sweep) has 4 %.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from harness.laws.bounds import Boundary, check_boundary, check_floor
from harness.laws.checks import Check, Grade, grade
from harness.laws.forms.form import Rows
from harness.laws.objective import FormSurface, Response
from harness.laws.observations import levels
from harness.laws.profile import Profile
from harness.laws.seeds import TRUSTED, SeedNoise
from harness.laws.solve import Solution
from harness.laws.surfaces import Floats

FEWEST_LEVELS = 3
"""Two sizes give one difference for the amplitude and the exponent of a term: one number for two."""

FLATTEST_DESIGN = 0.05
"""Ratio of the smaller to the larger spread of (ln N, ln D); below it the rows lie on one line."""

DEGENERATE = 1e-6
"""Ratio of the smallest to the largest singular value of the Jacobian, columns scaled to unit length."""

FASTEST_EXPONENT = 1.0
"""1/D is the rate at which even a parametric estimator learns; a faster term is an artefact."""

SLOWEST_EXPONENT = 0.02
LARGEST_RESIDUAL = 0.02
SEED_FACTOR = 3.0
"""A residual this many times the seed noise is a misfit; a weakness, not a refusal, because a misfit of
1 % can still predict (datablations, one epoch: 1.8 % residual, .3 % seeds, 1.7 % off at 8x)."""

ROBUST_TURN = 1.345
"""Huber's turning point in standard deviations, 95 % efficient for normal noise."""

CURVATURE_LEVEL = 1e-3
CURVATURE_SHARE = 0.5
CURVATURE_RESIDUAL = 0.01
"""Missing curvature condemns the law when it is certain (p), explains half of the residual's variance
and the residual exceeds 1 %; with hundreds of rows a harmless one is certain too."""

REACHES = ("params", "tokens", "unique_tokens", "flops")
"""Columns whose share in the loss is checked."""


def check_design(rows: Rows) -> list[Check]:
    """Enough sizes, token counts and budgets, and not all on one line."""
    checks = []
    for label, values in (("sizes", rows["params"]), ("token counts", rows["tokens"])):
        count = levels(values)
        reason = (
            f"{count} distinct {label}; {FEWEST_LEVELS} are needed to tell an exponent from its amplitude"
        )
        checks.append(Check(label, grade(count < FEWEST_LEVELS), count, FEWEST_LEVELS, reason))
    u, v = np.log(rows["params"]), np.log(rows["tokens"])
    spread = np.linalg.svd(np.stack([u - u.mean(), v - v.mean()]), compute_uv=False)
    flatness = float(spread[1] / spread[0]) if spread[0] > 0 else 0.0
    reason = (
        f"ln N and ln D spread across their main line only {flatness:.3f} as far as along it "
        "(one size, one budget or one tokens-per-parameter ratio); vary size and tokens independently"
    )
    checks.append(Check("design", grade(flatness < FLATTEST_DESIGN), flatness, FLATTEST_DESIGN, reason))
    return checks


def check_rates(solution: Solution) -> list[Check]:
    """Effective exponents within what a learning curve can do."""
    form = solution.form
    if form.rates is None:
        return []
    checks = []
    for label, value in form.rates(form.named(solution.values)).items():
        fast, slow = value >= FASTEST_EXPONENT, value <= SLOWEST_EXPONENT
        limit = SLOWEST_EXPONENT if slow else FASTEST_EXPONENT
        reason = f"{label} is {value:.3f}; it must lie between {SLOWEST_EXPONENT} and {FASTEST_EXPONENT}"
        checks.append(Check(label, grade(fast or slow), value, limit, reason))
    return checks


def check_reach(solution: Solution) -> list[Check]:
    """Each column must move the loss across the sweep by more than the residual."""
    form, rows, scale, checks = solution.form, solution.rows, solution.scale, []
    for name in REACHES:
        if name not in rows:
            continue
        ends = [{**rows, name: np.full_like(rows[name], end(rows[name]))} for end in (np.min, np.max)]
        low, high = (form.losses(solution.values[None], row)[0] for row in ends)
        move = abs(float(np.median(np.log(low) - np.log(high))))
        reason = f"{name} moves the loss by {move:.2%} across the sweep, the residual is {scale:.2%}"
        checks.append(Check(f"reach of {name}", grade(move < scale), move, scale, reason))
    return checks


def check_residual(solution: Solution) -> Check:
    """The law must describe its own rows."""
    scale = misfit(solution)
    reason = (
        f"the residual is {scale:.2%} of the loss, the limit {LARGEST_RESIDUAL:.0%}; "
        "sweeps that follow a law have .2 to 1.5 %"
    )
    return Check("residual", grade(scale > LARGEST_RESIDUAL), scale, LARGEST_RESIDUAL, reason)


def check_seeds(solution: Solution, noise: SeedNoise | None) -> list[Check]:
    """The residual against seed noise."""
    if noise is None or noise.degrees_of_freedom < TRUSTED or noise.std == 0:
        return []
    scale = misfit(solution)
    factor = scale / noise.std
    reason = (
        f"the residual {scale:.2%} is {factor:.1f} times the seed noise {noise.std:.2%} "
        f"({noise.degrees_of_freedom} repeats)"
    )
    return [Check("seed noise", grade(False, factor > SEED_FACTOR), factor, SEED_FACTOR, reason)]


def misfit(solution: Solution) -> float:
    """The smaller of the robust and the root mean square residual.

    On a dozen rows the robust estimate alone refuses 5 % of sweeps with 1 % noise; with outliers the root
    mean square alone condemns tables whose other rows follow the law.
    """
    squares = float((solution.relative_weights * solution.residual**2).sum())
    return min(solution.scale, math.sqrt(squares / (len(solution.residual) - solution.count)))


def check_curvature(solution: Solution) -> list[Check]:
    """An F test of squares and products of the columns' logarithms added to the law's own gradient.

    Rows far off the law are weighted down as by a Huber loss, so that outliers do not pass for a bend.
    """
    from scipy import special

    extra = products(solution)
    freedom = len(solution.residual) - solution.count - len(extra)
    if freedom < 2 or not extra:
        return []
    reach = ROBUST_TURN * solution.scale / np.maximum(np.abs(solution.residual), 1e-300)
    root = np.sqrt(np.minimum(1.0, reach) * solution.relative_weights)
    own = log_jacobian(solution) * root[:, None]
    residual = solution.residual * root
    plain = rest(own, residual)
    curved = rest(np.column_stack([own, *(column * root for column in extra)]), residual)
    if plain < 1e-20:
        return []
    share = 1 - curved / plain
    statistic = (plain - curved) / len(extra) / (curved / freedom)
    chance = float(special.fdtrc(len(extra), freedom, statistic))
    level = math.sqrt(plain / (freedom + len(extra)))
    certain = chance < CURVATURE_LEVEL and share > CURVATURE_SHARE
    reason = (
        f"curvature that the law lacks explains {share:.0%} of the residual variance (p = {chance:.1g}), "
        f"residual {level:.2%}: the rows bend where the law does not"
    )
    failed = certain and level > CURVATURE_RESIDUAL
    return [Check("curvature", grade(failed, certain), share, CURVATURE_SHARE, reason)]


def products(solution: Solution) -> list[Floats]:
    """Squares and products of the logarithms of the positive columns that vary, each [n]."""
    names = [name for name in solution.form.columns if name not in solution.form.signed]
    logs = [np.log(solution.rows[name]) for name in names]
    centred = [log - log.mean() for log in logs if np.ptp(log) > 0]
    return [one * other for one, other in itertools.combinations_with_replacement(centred, 2)]


def log_jacobian(solution: Solution) -> Floats:
    """Derivatives of ln L by the free parameters of theta, [n, free], whatever the response."""
    surface, theta = solution.problem.surface, solution.theta[None]
    if solution.how.response is not Response.log:
        surface = FormSurface(solution.form, solution.rows, Response.log)
    return np.asarray(surface.gradient(theta)[1][0][:, solution.problem.free])


def rest(design: Floats, residual: Floats) -> float:
    """Residual sum of squares after a linear fit of `design`, columns scaled to unit length."""
    columns = design / np.maximum(np.linalg.norm(design, axis=0), 1e-300)
    solved = np.linalg.lstsq(columns, residual, rcond=1e-10)[0]
    return float(((residual - columns @ solved) ** 2).sum())


def degeneracy(solution: Solution) -> float:
    """The smallest over the largest singular value of the Jacobian of the response, columns scaled to unit
    length; 1 when every parameter is held."""
    problem = solution.problem
    jacobian = problem.surface.gradient(solution.theta[None])[1][0][:, problem.free]
    values = np.linalg.svd(jacobian / np.maximum(np.linalg.norm(jacobian, axis=0), 1e-300), compute_uv=False)
    return float(values[-1] / values[0]) if len(values) else 1.0


def check_rank(solution: Solution) -> Check:
    ratio = degeneracy(solution)
    reason = (
        f"the smallest singular value of the Jacobian is {ratio:.1e} of the largest: the parameters cannot "
        "be told apart"
    )
    return Check("rank", grade(ratio < DEGENERATE), ratio, DEGENERATE, reason)


def check_converged(solution: Solution) -> list[Check]:
    if solution.converged:
        return []
    return [Check("converged", Grade.failed, None, 0.0, "the minimiser did not converge")]


def identify(
    solution: Solution, found: Sequence[Boundary], profile: Profile | None, noise: SeedNoise | None
) -> tuple[Check, ...]:
    """All checks, in the order a reader should see them. `profile` is that of the first boundary, else of
    the floor."""
    ends = [check_boundary(solution, b, None if i else profile) for i, b in enumerate(found)]
    floor = [check_floor(solution, profile)] if profile is not None and not found else []
    whole = solution.form.allocates and not solution.how.fixed
    return (
        *(check_design(solution.rows) if whole else ()),
        *ends,
        *floor,
        *check_rates(solution),
        *check_reach(solution),
        check_residual(solution),
        *check_seeds(solution, noise),
        *check_curvature(solution),
        check_rank(solution),
        *check_converged(solution),
    )
