"""Intervals by profile and by bootstrap: coverage, boundaries, noise of one run, weights."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from harness.errors import CannotAnswer, WrongInput
from harness.laws.bootstrap import interval, resample
from harness.laws.config import FitConfig, IntervalMethod, LawConfig, LawName, LossFunction, Resampling
from harness.laws.figures import allocation_exponent, loss_at, optimum_figures, parameter
from harness.laws.fit import FitStatus, fit_form, fit_law, solve
from harness.laws.forms.catalogue import FORMS
from harness.laws.forms.chinchilla import CHINCHILLA
from harness.laws.forms.form import predict
from harness.laws.forms.optimum import optimum
from harness.laws.intervals import fit_json, strayed, unconverged
from harness.laws.observations import Observations
from harness.laws.profile import Profile, profile
from harness.laws.tables import observations_from_table

from ..public_data import planted_sweep, public_table

TRUTH = np.array([[60.0, 300.0, 1.6, 0.35, 0.36]])
BUDGET = 1e15
LEAST_SQUARES = LawConfig(loss=LossFunction.least_squares)


def holds(found: tuple[float | None, float | None], truth: float) -> bool:
    low, high = found
    return (low is None or low < truth) and (high is None or truth < high)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """64 cells with .3 % normal noise, 90 % intervals of E and of the size optimal at 30 times the largest
    run. On 40 tables the binomial error is .05; each count may be three of them off."""
    figures = (parameter(CHINCHILLA, 2), optimum_figures(CHINCHILLA, BUDGET)[0])
    held = np.zeros((2, 2))
    for seed in range(40):
        solution = solve(planted_sweep(seed, 0.003, sizes=8, horizons=8), LEAST_SQUARES)
        draws = resample(solution, 200, Resampling.residuals, seed)
        for i, figure in enumerate(figures):
            truth = float(figure.of(TRUTH)[0])
            held[0, i] += holds(profile(solution, figure, 0.9).interval, truth)
            held[1, i] += holds(interval(figure.of(draws.values), 0.9), truth)
    assert (np.abs(held / 40 - 0.9) < 3 * math.sqrt(0.9 * 0.1 / 40)).all(), held


def constrained(solution, at: float) -> float:
    """The rise of the objective when E is held at `at`, by another route: held, not pulled."""
    form = solution.form
    held = fit_form(form, solution.rows, solution.loss, replace(solution.how, fixed={"E": at}), level=0.9)
    return held.objective - solution.objective


def test_a_profile_is_that_of_fits_with_the_parameter_held():
    solution = solve(planted_sweep(1, 0.003, sizes=6, horizons=6), LEAST_SQUARES)
    found = profile(solution, parameter(CHINCHILLA, 2), 0.9)
    scale = float((solution.residual**2).sum()) / (36 - 5)
    inside = [i for i, s in enumerate(found.statistic) if 0.1 < s < 3 * found.threshold]
    assert len(inside) > 6
    for i in inside[::3]:
        assert 2 * constrained(solution, found.values[i]) / scale == pytest.approx(
            found.statistic[i], rel=1e-4
        )
    low, high = found.interval
    for end in (low, high):
        assert 2 * constrained(solution, end) / scale == pytest.approx(found.threshold, rel=0.01)


@pytest.mark.parametrize("name", ["skaling", "chinchilla_tied", "kaplan", "overtrain"])
def test_profile_of_an_optimum_holds_the_estimate_for_every_form(name):
    """A derived figure of any form; a linear law of ln would give the standard error times t."""
    rows = planted_sweep(2, 0.0, sizes=8, horizons=8)
    law = {
        "skaling": (900.0, 3e4, 1.2, 0.5, 0.5, 0.6),
        "chinchilla_tied": (60.0, 300.0, 1.6, 0.35),
        "kaplan": (1e9, 1e10, 0.1, 0.12),
        "overtrain": (60.0, 300.0, 1.6, 0.35),
    }[name]
    form = FORMS[name]
    truth = dict(zip(form.names, law, strict=True))
    loss = predict(form, truth, rows.columns) * np.exp(0.002 * np.random.default_rng(0).standard_normal(64))
    fit = fit_form(form, rows.columns, loss)
    for figure in (*optimum_figures(form, BUDGET), allocation_exponent(form, BUDGET)):
        low, high = profile(fit.solution, figure, 0.9).interval
        best = float(figure.of(fit.solution.values[None])[0])
        assert low <= best <= high


def test_a_repetition_optimum_has_intervals_from_a_search():
    """No closed form: replicates are searched in one batch and agree with one search at a time."""
    form, given = FORMS["repetition"], {"unique_tokens": 5e7}
    base = np.array([60.0, 300.0, 1.6, 0.35, 0.36, 15.0, 5.0])
    values = base * np.exp(0.02 * np.random.default_rng(0).standard_normal((300, 7)))
    params, tokens, _, loss = (f.of(values) for f in optimum_figures(form, 1e15, given=given))
    for i in (0, 150, 299):
        n, d = optimum(form, form.named(values[i]), 1e15, given=given)
        assert (params[i], tokens[i]) == pytest.approx((n, d), rel=1e-9)
        at = {"params": n, "tokens": d, **given}
        assert loss[i] == pytest.approx(predict(form, form.named(values[i]), at)[0], rel=1e-12)
    assert np.isfinite(params).all()


def shows(found: Profile, parameter: str, open_end: int) -> bool:
    """Whether the profile is of that parameter, has points, and never crosses on that side."""
    points = len(found.values) == len(found.statistic) > 5
    return points and found.parameter == parameter and found.interval[open_end] is None


def test_a_floor_at_zero_is_shown_by_its_profile():
    sweep = observations_from_table(public_table("careless_sweep.csv"), ["group=sweep"])
    for name in (LawName.chinchilla, LawName.chinchilla_tied, LawName.skaling, LawName.overtrain):
        fit = fit_law(sweep, LawConfig(name=name))
        assert fit.status is FitStatus.not_identified
        assert shows(fit.profile, "E", 0), name
        value = fit.to_json()["profile"]
        assert {"parameter", "values", "statistic", "threshold"} <= value.keys()
        json.dumps(value, allow_nan=False)


def test_an_exponent_at_its_bound_is_shown_by_its_profile():
    """Where tokens hardly matter, beta runs away."""
    rows = planted_sweep(3, 0.002, sizes=6, horizons=6, law=(60.0, 1e-6, 1.6, 0.35, 0.36))
    fit = fit_law(rows, LawConfig())
    assert fit.status is FitStatus.not_identified
    assert fit.profile.parameter in ("B", "beta")
    assert None in fit.profile.interval


def with_seeds(noise: float) -> Observations:
    """Every cell of a sweep three times, with normal noise between seeds."""
    once = planted_sweep(0, 0.0, sizes=6, horizons=6)
    rng = np.random.default_rng(4)
    seeds = tuple(str(i // 36) for i in range(108))
    columns = {n: np.tile(getattr(once, n), 3) for n in ("params", "tokens", "flops", "loss")}
    columns["loss"] = columns["loss"] * np.exp(noise * rng.standard_normal(108))
    names = {n: getattr(once, n) * 3 for n in ("run_ids", "groups", "corpus_hashes", "tokenizer_hashes")}
    return Observations(**{**vars(once), **columns, **names, "seeds": seeds})


def test_one_run_is_less_certain_than_the_law():
    """72 degrees of freedom: the interval of one run is the seed noise times t, and the fit's own."""
    rows = with_seeds(0.004)
    config = FitConfig(bootstraps=200)
    found = fit_json(rows, fit_law(rows, config.law), config, at=[[1e5, 1e8]])
    assert found["seed_noise"]["degrees_of_freedom"] == 72
    assert found["seed_noise"]["std"] == pytest.approx(0.004, rel=0.2)
    (point,) = found["predictions"]
    (low, high), (lowest, highest) = point["interval"]["loss"], point["interval"]["loss_one_run"]
    width = 1.666 * found["seed_noise"]["std"]
    above, wider = math.log(high / point["loss"]), math.log(highest / point["loss"])
    assert wider == pytest.approx(math.hypot(above, width), rel=1e-3)
    assert lowest < low < point["loss"] < high < highest
    assert found["optimum"][0]["interval"]["loss_one_run"][1] > found["optimum"][0]["interval"]["loss"][1]
    alone = planted_sweep(0, 0.004)
    json_alone = fit_json(alone, fit_law(alone, config.law), config)
    assert json_alone["seed_noise"] is None
    assert json_alone["optimum"][0]["interval"]["loss_one_run"] is None


def test_a_weight_is_a_repetition_of_its_row():
    """A row of weight 2 counts as two equal rows, for any form and loss."""
    rows = planted_sweep(5, 0.01, sizes=6, horizons=6)
    weights = np.where(np.arange(36) % 3 == 0, 2.0, 1.0)
    twice = np.concatenate([np.arange(36), np.flatnonzero(weights == 2)])
    for name in ("chinchilla", "kaplan"):
        form = FORMS[name]
        weighed = fit_form(form, rows.columns, rows.loss, weights=weights)
        columns = {n: c[twice] for n, c in rows.columns.items() if c is not None}
        doubled = fit_form(form, columns, rows.loss[twice])
        assert weighed.objective == pytest.approx(doubled.objective, rel=1e-9)
        assert weighed.params == pytest.approx(doubled.params, rel=1e-4)
    assert weighed.conventions["weights"] == "multiply the loss of the row"


def test_rows_of_one_run_are_drawn_together():
    rows = replace(
        planted_sweep(6, 0.003, sizes=6, horizons=4), clusters=tuple(f"t{i // 4}" for i in range(24))
    )
    solution = solve(rows, LawConfig())
    draws = resample(solution, 30, Resampling.runs, 0)
    assert np.isfinite(draws.values).all()
    few = replace(rows, clusters=tuple(f"t{i // 8}" for i in range(24)))
    with pytest.raises(CannotAnswer, match="resampling runs needs at least 4 of them, here are 3"):
        resample(solve(few, LawConfig()), 30, Resampling.runs, 0)


def test_profile_intervals_in_the_json():
    rows = planted_sweep(1, 0.003, sizes=6, horizons=6)
    config = FitConfig(intervals=IntervalMethod.profile)
    fit = fit_law(rows, config.law)
    found = fit_json(rows, fit, config, budgets=[1e14], at=[[1e5, 1e8]])
    json.dumps(found, allow_nan=False)
    assert found["interval_method"] == "profile" and found["bootstrap"] is None
    for name in (*fit.params, "exponent_a"):
        low, high = found["intervals"][name]
        assert low < {**fit.params, "exponent_a": found["exponent_a"]}[name] < high
    low, high = found["predictions"][0]["interval"]["loss"]
    figure = loss_at(CHINCHILLA, {"params": 1e5, "tokens": 1e8})
    assert low < float(figure.of(fit.solution.values[None])[0]) < high


def test_questions_that_cannot_be_answered():
    rows = planted_sweep(1, 0.003, sizes=6, horizons=6)
    config = FitConfig(bootstraps=0)
    with pytest.raises(WrongInput, match="is not \\[params, tokens\\]"):
        fit_json(rows, fit_law(rows, config.law), config, at=[[1e9]])
    frontier = fit_law(rows, LawConfig(name=LawName.frontier))
    with pytest.raises(WrongInput, match="frontier is a law of flops"):
        fit_json(rows, frontier, config, at=[[1e9, 1e10]])
    for few in (1, 19):
        with pytest.raises(ValueError, match=r"fit\.bootstraps must be at least 20, or 0"):
            FitConfig(bootstraps=few)


def test_a_law_with_more_parameters_than_the_rows_show_is_refused_without_intervals():
    """Gadre's 35 runs follow five constants; of farseer's nine they leave six open."""
    rows = observations_from_table(public_table("gadre_overtrain.csv"), ["group=rpj"])
    for method in IntervalMethod:
        config = FitConfig(law=LawConfig(name=LawName.farseer), intervals=method)
        found = fit_json(rows, fit_law(rows, config.law), config)
        assert found["status"] == "not_identified"
        assert any("parameters (s, q, S" in reason for reason in found["reasons"])
        assert found["bootstrap"] is None and found["intervals"] == {}
        assert found["optimum"][0]["interval"] is None
        assert "no intervals: the law is not identified" in found["notes"]


@pytest.mark.parametrize(
    "seed, reason", [(1, "the exponent a of N* has a standard error"), (2, "no compute-optimal size")]
)
def test_a_law_whose_optimum_the_rows_do_not_give_is_refused(seed, reason):
    """20 rows with 1 % noise: farseer describes them, and allocates nothing."""
    fit = fit_law(planted_sweep(seed, 0.01), LawConfig(name=LawName.farseer))
    assert fit.status is FitStatus.not_identified
    assert any(reason in found for found in fit.reasons)


def test_rows_that_support_every_parameter_stay_identified():
    rows = observations_from_table(public_table("chinchilla_epoch.csv"), ["excluded_by_epoch=0"])
    for name in (LawName.chinchilla, LawName.skaling, LawName.farseer):
        fit = fit_law(rows, LawConfig(name=name))
        assert fit.status is FitStatus.identified, fit.reasons
        error = next(check.value for check in fit.checks if check.name == "optimal exponent_a")
        assert 0.001 < error < 0.03


def test_a_floor_next_to_the_smallest_loss_is_no_refusal_when_its_profile_is_closed():
    """A converged curve ends within half a percent of its floor; 8 points at .01 % pin it."""
    rows = observations_from_table(public_table("supercollapse.csv"), ["group=c5m"])
    fit = fit_law(rows, LawConfig(name=LawName.frontier))
    assert fit.status is FitStatus.identified, fit.reasons
    assert fit.params["E"] == pytest.approx(3.12611, abs=1e-4)
    assert fit.params["E"] > 0.99 * fit.solution.loss.min()
    low, high = fit.profile.interval
    assert low < fit.params["E"] < high


def test_a_floor_next_to_the_smallest_loss_is_refused_when_its_profile_is_open():
    """A step at one point and noise: the floor may be anything up to the smallest loss."""
    flops = np.geomspace(1e15, 1e18, 12)
    loss = 3.0 + np.where(flops < 2e15, 0.5, 0.0) - 1e-4 * np.arange(12)
    fit = fit_form(FORMS["frontier"], {"flops": flops}, loss)
    assert fit.status is FitStatus.not_identified
    assert fit.profile.parameter == "E" and fit.profile.interval[1] is None
    assert any(reason.startswith("E is 1.000 of the smallest loss") for reason in fit.reasons)


def test_an_estimate_outside_its_own_bootstrap_interval_is_said():
    fit = fit_law(planted_sweep(1, 0.003, sizes=6, horizons=6), LawConfig())
    figures = [parameter(CHINCHILLA, i) for i in range(5)]
    draws = resample(fit.solution, 60, Resampling.cases, 0)
    assert strayed(fit, draws, figures, 0.9) == []
    away = replace(draws, values=draws.values * [1, 1, 1.5, 1, 1])
    (note,) = strayed(fit, away, figures, 0.9)
    assert "the estimate of E lies outside its own 90% bootstrap interval" in note


def test_many_replicates_that_did_not_converge_are_said():
    rows = planted_sweep(1, 0.003, sizes=6, horizons=6)
    config = FitConfig(bootstraps=40)
    fit = fit_law(rows, config.law)
    draws = resample(fit.solution, 40, Resampling.cases, 0)
    for failed, said in ((4, 0), (5, 1)):
        assert len(unconverged(replace(draws, not_converged=failed))) == said
    assert not any("converge" in note for note in fit_json(rows, fit, config)["notes"])
