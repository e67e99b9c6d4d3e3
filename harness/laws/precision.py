"""Do the rows pin down what the law is used for: its parameters and the allocation it recommends?"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from harness.laws.bootstrap import finite
from harness.laws.checks import Check, grade
from harness.laws.figures import Figure, allocation_exponent, optimum_figures
from harness.laws.profile import standard_error
from harness.laws.solve import Solution
from harness.laws.surfaces import FLOPS_PER_PARAM_TOKEN

UNDETERMINED = 23.0
"""Standard error of a logarithm: a factor of ten thousand million."""

LARGEST_SHARE = 0.5
"""Of the free parameters that the rows may leave open. A term or two that does not show is common (farseer
on the 240 Chinchilla runs: 2 of 9); with most of them open the rows follow a simpler law, and replicates
wander along a ridge (farseer on 35 Gadre runs: 6 of 9, a fifth of the replicates never converge)."""

LARGEST_EXPONENT_ERROR = 0.25
"""Of a in N* proportional to C^a: a 90 % interval then covers .8 of what lies between a = 0 and 1. Sweeps
that support their law have at most .12."""

LARGEST_SIZE_ERROR = math.log(10)
"""Of ln N* at the largest run's own FLOPs: a factor of ten, as wide as a whole sweep of sizes."""


def check_parameters(solution: Solution, errors: Mapping[str, float]) -> Check:
    """`errors` are standard errors of ln p for logarithmic parameters, of p otherwise, of the free ones."""
    values = solution.form.named(solution.values)
    limits = {
        one.name: UNDETERMINED if one.log else abs(values[one.name]) for one in solution.form.parameters
    }
    unknown = [name for name, error in errors.items() if not error <= limits[name]]
    share = len(unknown) / max(len(errors), 1)
    reason = (
        f"{len(unknown)} of {len(errors)} parameters ({', '.join(unknown)}) cannot be told from zero: "
        "these rows support a law with fewer"
    )
    return Check("parameters", grade(share > LARGEST_SHARE), share, LARGEST_SHARE, reason)


def check_allocation(solution: Solution) -> list[Check]:
    """The optimum at the largest run's 6 N D: that there is one, and how far its exponent and size are known.

    Other columns that the law reads are at their largest.
    """
    form, rows = solution.form, solution.rows
    if not form.allocates or solution.how.fixed:
        return []
    flops = float((FLOPS_PER_PARAM_TOKEN * rows["params"] * rows["tokens"]).max())
    given = {name: float(rows[name].max()) for name in form.columns if name not in ("params", "tokens")}
    size = optimum_figures(form, flops, given=given)[0]
    if not np.isfinite(size.of(solution.values[None])[0]):
        reason = f"the law has no compute-optimal size at {flops:.3g} FLOPs, those of the largest run"
        return [Check("optimum", grade(True), None, LARGEST_SIZE_ERROR, reason)]
    exponent = allocation_exponent(form, flops, given=given)
    return [
        known(solution, exponent, LARGEST_EXPONENT_ERROR, "the exponent a of N*"),
        known(solution, size, LARGEST_SIZE_ERROR, f"ln N* at the {flops:.3g} FLOPs of the largest run"),
    ]


def known(solution: Solution, figure: Figure, limit: float, label: str) -> Check:
    error = standard_error(solution, figure)
    reason = f"{label} has a standard error of {error:.3g}, the limit is {limit:.3g}"
    return Check(f"optimal {figure.name}", grade(not error <= limit), finite(error), limit, reason)
