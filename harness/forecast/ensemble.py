"""The laws whose weighted mean is the forecast, the rows each is fitted on, and how they are asked.

Members differ in how fast the local exponent of the loss falls towards the floor, which is what an
extrapolation turns on and what rows of one sweep determine least. All have a sharpness of the isoFLOP slices
of their own (see `laws.forms.ces`), so that runs beside the optimum of a budget do not bend the line through
the optima. They see the runs near the best of their budget: of a badly shaped or badly tuned run a law of N
and D knows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.errors import CannotAnswer
from harness.laws.forms.ces import CES, CES_FOURTH_ROOT, CES_SQUARE_ROOT
from harness.laws.forms.form import FLOOR, Form
from harness.laws.objective import Objective
from harness.laws.observations import Observations, levels
from harness.laws.solve import Solution, solve_form
from harness.laws.surfaces import Flags, Floats

NEAR = 0.05
"""In log loss above the best run of a similar budget. Over public tables the median error at 8x of every law
is smaller with .05 than with .03, .1 or all rows."""

QUIETEST = 0.008
"""No law of N and D is trusted to be nearer the runs than this in log loss, however well it fits a few."""

TOWARDS_THE_TOP = 0.3
"""A run's weight grows as its compute to this power: what is nearest the bet tells most of it."""

SIMILAR_BUDGET = 2.0
WIDEN = 1.3
"""Until there are enough rows, a larger distance from the best run is allowed."""

FEWEST_NEAR, FEWEST_LEVELS = 9, 3


MEMBERS = (CES, CES_SQUARE_ROOT, CES_FOURTH_ROOT)


def excess(flops: Floats, loss: Floats) -> Floats:
    """Log loss of each row above the best row of a similar budget, [n]."""
    log_c, log_loss, near = np.log(flops), np.log(loss), np.log(SIMILAR_BUDGET)
    # Row by row: all pairs of ten thousand rows would take a gigabyte.
    return log_loss - np.array([log_loss[np.abs(log_c - at) <= near].min() for at in log_c])


def near_best(observations: Observations, near: float) -> Flags:
    """The rows within `near`, or within as little more as leaves enough of them."""
    above = excess(observations.flops, observations.loss)
    keep = above <= near
    while not keep.all() and not enough(observations, keep):
        near *= WIDEN
        keep = above <= near
    return np.asarray(keep)


def enough(observations: Observations, keep: Flags) -> bool:
    columns = (observations.params, observations.tokens)
    varied = all(levels(x[keep]) >= min(FEWEST_LEVELS, levels(x)) for x in columns)
    return int(keep.sum()) >= FEWEST_NEAR and varied


def seen(observations: Observations, members: Sequence[Form]) -> Observations:
    """The rows that these laws are fitted on. A law of compute has no shape to be off, and takes all."""
    if of_compute(members):
        return observations
    return observations.subset(near_best(observations, NEAR))


def of_compute(members: Sequence[Form]) -> bool:
    """Whether the laws know compute alone, and so the runs lie on one line of (N, D)."""
    return all(not member.allocates for member in members)


def fit_member(
    rows: Observations, form: Form, delta: float, fixed: Mapping[str, float] | None = None
) -> Solution:
    """`fixed` holds parameters at these values. Raises CannotAnswer when the rows do not determine the
    law."""
    weights = (rows.flops / rows.flops.max()) ** TOWARDS_THE_TOP
    weights = weights if rows.weights is None else weights * rows.weights
    how = Objective(delta=delta, weak_prior=True, quietest=QUIETEST, fixed=fixed or {})
    return solve_form(form, rows.columns, rows.loss, how, weights / weights.mean())


@dataclass(frozen=True)
class Ensemble:
    """Members solved on one set of rows, and what each weighs, [members]."""

    members: tuple[Form, ...]
    solutions: tuple[Solution, ...]
    weights: Floats

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(member.name for member in self.members)

    def member_log_loss(self, columns: Mapping[str, object]) -> Floats:
        """ln L of every member at every point, [members, points]."""
        return np.array(
            [np.log(s.form.losses(s.values[None], s.form.rows(columns))[0]) for s in self.solutions]
        )

    def log_loss(self, columns: Mapping[str, object]) -> Floats:
        """The weighted mean over members, [points]."""
        return np.asarray(self.weights @ self.member_log_loss(columns))

    def without_floor(self, observations: Observations, delta: float) -> Ensemble:
        """The same laws fitted to the same rows with an irreducible loss next to nothing."""
        rows = seen(observations, self.members)
        nothing = {"E": FLOOR[0] * float(rows.loss.min())}
        return replace(self, solutions=tuple(fit_member(rows, one, delta, nothing) for one in self.members))

    def weighted(self, weights: Mapping[str, float]) -> Ensemble:
        """With other weights, made to sum to one."""
        found = np.array([weights[name] for name in self.names])
        return replace(self, weights=found / found.sum())


def fit_ensemble(observations: Observations, delta: float, members: Sequence[Form] = MEMBERS) -> Ensemble:
    """With equal weights. Raises CannotAnswer when the rows determine no member."""
    rows = seen(observations, members)
    found: list[tuple[Form, Solution]] = []
    reason = "no law was asked for"
    for member in members:
        try:
            found.append((member, fit_member(rows, member, delta)))
        except CannotAnswer as error:
            reason = str(error)
    if not found:
        raise CannotAnswer(reason)
    able, solutions = zip(*found, strict=True)
    return Ensemble(able, solutions, np.full(len(able), 1 / len(able)))
