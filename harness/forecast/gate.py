"""Whether a sweep supports a bet. Every reason is a measured check with its number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum

import numpy as np

from harness.forecast.collapse import check_collapse
from harness.forecast.engine import Engine, Prediction, Target, columns_of, run_noise
from harness.forecast.inflight.trajectory import Trajectory
from harness.forecast.repetition import NEW_EPOCHS
from harness.forecast.tuning import check_repeats, check_tuning
from harness.laws.alternatives import SAME_BUDGET
from harness.laws.approaches.slices import SliceFault, find_slices
from harness.laws.checks import Check, Grade, grade
from harness.laws.fit import Fit
from harness.laws.identify import FASTEST_EXPONENT, check_curvature
from harness.laws.observations import Observations, levels
from harness.laws.surfaces import Floats

ENOUGH_LEVELS = 4
"""Three sizes or token counts determine the law with nothing left to contradict it."""

HOPELESS_WIDTH, WIDE_WIDTH = 1.0, 0.5
"""Half-width of the interval over the predicted gain on the best run of the sweep: at 1 the interval
reaches back to what is already in hand and the forecast says nothing."""

FEWEST_BUDGETS = 2
"""A trend in compute needs two budgets; with two, nothing is left to contradict it."""

SMALLEST_FLOOR = 0.1
"""Of the smallest loss. On public tables of language models E is .5 to .9 of it; on tables planted with no
floor the fit finds at most .1."""

MOST_EDGES = 0.25
"""Share of isoFLOP slices whose minimum may lie at an edge."""

RATES = ("alpha", "beta")
ERRORS_BEYOND = 2.0
"""Standard errors within which an exponent may lie beyond what a learning curve can do."""

SHOWN = 3

WORTHLESS = 1e6
"""The ratio where no gain is predicted at all; finite, for JSON."""


class Verdict(Enum):
    supported = "supported"
    weak = "weak"
    refused = "refused"


def judge(
    engine: Engine,
    target: Target,
    prediction: Prediction,
    curves: Sequence[Trajectory] = (),
    more: Sequence[Check] = (),
) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict and the reasons for anything less than `supported`, the gravest first. `curves` are the
    loss curves of the runs, as far as they were logged; `more` are checks of the target itself."""
    checks = [*more, *measured(engine, target, prediction, curves)]
    # Of the plain law on all rows and on those near the best, which may be the same.
    failed, weak = (
        list(dict.fromkeys(check.reason for check in checks if check.grade is found))
        for found in (Grade.failed, Grade.weak)
    )
    if failed:
        low, high = prediction.interval
        number = f"{prediction.loss:.4f} [{low:.4f}, {high:.4f}]"
        for_the_record = f"for the record, the fits would say {number}; do not bet on it"
        return Verdict.refused, (*failed, *weak, for_the_record)
    return (Verdict.weak if weak else Verdict.supported), tuple(weak)


def measured(
    engine: Engine, target: Target, prediction: Prediction, curves: Sequence[Trajectory] = ()
) -> list[Check]:
    """Every check, whether it passed or not."""
    observations = engine.observations
    return [
        *check_laws(engine),
        check_floor(engine.fit),
        check_floor(engine.core),
        *check_open_floor(engine, target, prediction),
        *(() if engine.ladder else check_levels(observations)),
        *check_slices(observations),
        *check_tuning(observations),
        *check_repeats(observations),
        *check_collapse(observations, curves, engine.core.params["E"], run_noise(engine.core)),
        *check_epochs(observations),
        *check_reach(engine, target, prediction),
        check_width(engine.core, prediction),
        check_agreement(prediction),
    ]


def check_laws(engine: Engine) -> list[Check]:
    """What speaks against a law of these rows: of the plain law on the rows the members see, and where it
    can say no more of a bend or of an exponent than that they are odd, what the members say."""
    core = [check for check in engine.core.checks if check.name != "floor" or check.grade is Grade.failed]
    return [soften(check, engine) for check in core]


def soften(check: Check, engine: Engine) -> Check:
    """A bend that a law of the bet follows, and an exponent that its standard error does not put outside what
    a learning curve can do, are weaknesses. Of the plain law alone they would refuse the tuned runs of Porian
    et al. (arXiv:2406.19146), forecast within 2.5 % at 8x, where the laws of the bet show no bend."""
    if check.grade is not Grade.failed:
        return check
    if check.name == "curvature":
        pairs = zip(engine.ensemble.names, engine.ensemble.solutions, strict=True)
        fits = [name for name, law in pairs if all(c.grade is Grade.ok for c in check_curvature(law))]
        reason = f"{check.reason}; not missed by {', '.join(fits)}"
        return replace(check, grade=Grade.weak, reason=reason) if fits else check
    error = engine.core.standard_errors.get(check.name, math.inf)
    too_fast = check.name in RATES and check.limit == FASTEST_EXPONENT
    beyond = (check.value or math.inf) - check.limit
    if too_fast and math.isfinite(error) and beyond <= ERRORS_BEYOND * error:
        return replace(check, grade=Grade.weak, reason=f"{check.reason} (standard error {error:.2g})")
    return check


def check_floor(fit: Fit) -> Check:
    """An irreducible loss that is next to nothing: the local exponent then falls nowhere in the sweep, and
    how it falls beyond is anyone's guess."""
    share = fit.params["E"] / float(fit.solution.loss.min())
    reason = (
        f"E runs to zero: it is {share:.1%} of the smallest loss (the limit is {SMALLEST_FLOOR:.0%}), "
        f"{fit.n} rows"
    )
    return Check("floor above zero", grade(share < SMALLEST_FLOOR), share, SMALLEST_FLOOR, reason)


def check_open_floor(engine: Engine, target: Target, prediction: Prediction) -> list[Check]:
    """An irreducible loss that the rows cannot tell from zero: none at all is then as good an answer, and a
    bet whose interval does not hold that answer too says more than it knows. The value is how far off it
    lies, in half-widths."""
    fit = engine.fit
    open_below = fit.profile is not None and fit.profile.parameter == "E" and fit.profile.interval[0] is None
    if not open_below:
        return []
    bare = engine.ensemble.without_floor(engine.observations, engine.config.delta)
    loss = float(np.exp(bare.weighted(prediction.weights).log_loss(columns_of([target]))[0]))
    low, high = prediction.interval
    away = abs(math.log(loss) - math.log(low * high) / 2) / prediction.half_width
    share = fit.params["E"] / float(fit.solution.loss.min())
    reason = (
        f"E cannot be told from zero, its profile is open below (at best it is {share:.1%} of the smallest "
        f"loss, {fit.n} rows): with none the laws say {loss:.4f}, {away:.2g} half-widths from the middle of "
        "the interval"
    )
    return [Check("open floor", grade(away > 1, True), away, 1.0, reason)]


def check_levels(observations: Observations) -> list[Check]:
    checks = []
    for label, values in (("sizes", observations.params), ("token counts", observations.tokens)):
        count = levels(values)
        reason = f"only {count} distinct {label}: they fit the law with nothing left to contradict it"
        checks.append(
            Check(f"few {label}", grade(False, count < ENOUGH_LEVELS), count, ENOUGH_LEVELS, reason)
        )
    count = levels(observations.flops, SAME_BUDGET)
    reason = f"only {count} distinct budget{'' if count == 1 else 's'} of compute: no trend to extrapolate"
    few = Check(
        "budgets", grade(count < FEWEST_BUDGETS, count == FEWEST_BUDGETS), count, FEWEST_BUDGETS, reason
    )
    return [*checks, few]


def check_slices(observations: Observations) -> list[Check]:
    """isoFLOP slices of enough sizes whose best run is the smallest or the largest: the optimum lies outside
    what was trained, and the frontier that the laws are fitted near to is not the frontier."""
    slices = [s for s in find_slices(observations) if s.fault is not SliceFault.few]
    edges = [s for s in slices if s.fault in (SliceFault.edge_small, SliceFault.edge_large)]
    if not slices:
        return []
    share = len(edges) / len(slices)
    shown = "; ".join(f"{s.flops:.3g} FLOPs: {s.fault.value}" for s in edges[-SHOWN:])
    reason = f"{len(edges)} of {len(slices)} isoFLOP slices have their minimum at an edge ({shown})"
    return [Check("isoFLOP minimum", grade(False, share > MOST_EDGES), share, MOST_EDGES, reason)]


def check_epochs(observations: Observations) -> list[Check]:
    """Runs that repeat their data for long: the laws of a forecast count every token as new."""
    epochs = observations.epochs
    if epochs is None:
        return []
    worn, most = int((epochs > NEW_EPOCHS).sum()), float(epochs.max())
    reason = (
        f"{worn} of {len(epochs)} runs pass over their data more than {NEW_EPOCHS:g} times, up to {most:.3g} "
        "times, and the laws count every token as new; leave them out with where="
    )
    return [Check("repeated data", grade(False, worn > 0), most, NEW_EPOCHS, reason)]


def check_reach(engine: Engine, target: Target, prediction: Prediction) -> list[Check]:
    """How far the bet lies beyond the sweep: along each axis of the law, in compute, and in the backtest.

    The law is a function of N and D, so a step along either that is longer than the sweep itself is a
    refusal; in compute it is a warning, since isoFLOP slices are narrow in C and wide in N and D. Along one
    line compute is the axis, the target must lie on it, and the backtest must cover half of the way.
    """
    observations, ladder, covered = engine.observations, engine.ladder, engine.rolling.largest_ratio
    if ladder is None:
        axes = [
            check_span("parameters", observations.params, target.params),
            check_span("tokens", observations.tokens, target.tokens),
            check_span("FLOPs", observations.flops, target.budget, Grade.weak),
        ]
    else:
        budgets = check_span("FLOPs", observations.flops, target.budget)
        axes = [ladder.check(target.params, target.tokens), budgets]
    far = f"the target has {prediction.ratio:.3g} times the compute of the largest run"
    tested = f"{far}; inside the sweep extrapolation could be tested up to {covered:.3g} times"
    untested = ladder is not None and prediction.ratio > covered**2
    return [
        *axes,
        Check("backtest", grade(untested, prediction.ratio > covered), prediction.ratio, covered, tested),
    ]


def check_span(name: str, values: Floats, aim: float, beyond: Grade = Grade.failed) -> Check:
    low, high = float(values.min()), float(values.max())
    ratio, span = max(aim / high, low / aim), high / low
    reason = (
        f"the target lies {ratio:.3g} times beyond the sweep in {name}, further than the sweep spans "
        f"itself ({span:.3g} times)"
    )
    return Check(f"span of {name}", beyond if ratio > span else Grade.ok, ratio, span, reason)


def check_width(fit: Fit, prediction: Prediction) -> Check:
    """The interval against the gain it is meant to predict, from the law's own best run of the sweep.

    The law's, not the observed one: a misfit there would pass for a gain or hide one.
    """
    fitted = np.log(fit.solution.loss) + fit.solution.residual
    gain = float(fitted.min()) - math.log(prediction.loss)
    width = prediction.half_width / gain if gain > 0 else WORTHLESS
    reason = (
        f"the interval is +-{prediction.half_width:.1%} of the loss, "
        f"the predicted gain on the sweep's best run is {gain:.1%}"
    )
    beyond = prediction.ratio > 1  # inside the sweep there is no gain to predict
    failed, weak = beyond and width >= HOPELESS_WIDTH, beyond and width >= WIDE_WIDTH
    return Check("width", grade(failed, weak), width, WIDE_WIDTH, reason)


def check_agreement(prediction: Prediction) -> Check:
    """Laws that the interval does not hold: how far the furthest lies beyond its end, in half-widths."""
    half = prediction.half_width
    middle = math.log(prediction.interval[0]) + half
    away = {name: abs(math.log(prediction.members[name]) - middle) / half for name in prediction.weights}
    name, furthest = max(away.items(), key=lambda item: item[1])
    reason = (
        f"the laws disagree beyond the interval: {name} says {prediction.members[name]:.4f}, "
        f"{furthest:.2g} half-widths from its middle"
    )
    return Check("agreement", grade(False, furthest > 1), furthest, 1.0, reason)
