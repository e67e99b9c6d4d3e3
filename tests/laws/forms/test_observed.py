"""Forms on a project's observations: intervals, JSON, and laws that allocate nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from harness.errors import CannotAnswer, WrongInput
from harness.laws.bootstrap import interval, resample
from harness.laws.config import FitConfig, LawConfig, LossFunction, ParamsKind, Resampling
from harness.laws.fit import FitStatus, fit_form, fit_observed, resample_form, solve
from harness.laws.forms.catalogue import FORMS
from harness.laws.forms.form import predict
from harness.laws.forms.optimum import exponent_a
from harness.laws.intervals import fit_json
from harness.laws.objective import Objective
from harness.laws.tables import observations_from_table

from ...public_data import planted_sweep, public_table

TIED = (60.0, 300.0, 1.6, 0.35, 0.35)


def test_tied_chinchilla_rows():
    """One exponent costs little: .0010222 against .0010183 with two (Besiroglu et al. 2404.10102)."""
    observations = observations_from_table(public_table("chinchilla_epoch.csv"), ["excluded_by_epoch=0"])
    fit = fit_observed(observations, FORMS["chinchilla_tied"], LawConfig())
    assert fit.status is FitStatus.identified
    assert fit.n == 240
    assert 0.00101827403 < fit.objective < 0.00102218
    assert exponent_a(fit.form, fit.solution.values[None], 1e22)[0] == pytest.approx(0.5, abs=1e-9)


def test_kaplan_misses_the_bend_of_the_chinchilla_rows():
    """Without a floor the form over-promises: 1.63 at 5.76e23 FLOPs, against 1.97 for the laws that fit."""
    observations = observations_from_table(public_table("chinchilla_epoch.csv"), ["excluded_by_epoch=0"])
    fit = fit_observed(observations, FORMS["kaplan"], LawConfig())
    assert fit.status is FitStatus.not_identified
    assert "the rows bend where the law does not" in fit.reasons[0]
    assert fit.optimum(5.76e23).loss == pytest.approx(1.632, abs=5e-4)


def test_a_phase_change_is_refused():
    bent = [planted_sweep(seed=seed, noise=0.004, law=TIED, kink=0.15) for seed in range(5)]
    fits = [fit_observed(rows, FORMS["chinchilla_tied"], LawConfig()) for rows in bent]
    assert all(fit.status is FitStatus.not_identified for fit in fits)


def test_json_of_an_allocating_form():
    observations = planted_sweep(seed=0, noise=0.003, law=TIED)
    config = FitConfig(bootstraps=200)
    fit = fit_observed(observations, FORMS["chinchilla_tied"], config.law)
    found = fit_json(observations, fit, config)
    json.dumps(found, allow_nan=False)
    assert found["data_hash"] == observations.data_hash()
    assert found["conventions"]["params"] == ParamsKind.total.value
    assert [o["flops"] / observations.flops.max() for o in found["optimum"]] == pytest.approx([1, 10, 100])
    assert found["bootstrap"]["count"] == 200
    for optimum in found["optimum"]:
        for name in ("params", "tokens", "tokens_per_param", "loss"):
            low, high = optimum["interval"][name]
            assert low < optimum[name] < high


def test_json_of_a_law_of_compute():
    observations = planted_sweep(seed=0, noise=0.0, sizes=8, horizons=8)
    config = FitConfig(bootstraps=20)
    fit = fit_observed(observations, FORMS["frontier"], config.law)
    found = fit_json(observations, fit, config, (1e16,))
    json.dumps(found, allow_nan=False)
    assert found["optimum"] == [] and found["exponent_a"] is None
    assert found["n"] + found["left_out"] == 64
    low, high = found["frontier"][0]["interval"]["loss"]
    assert low <= found["frontier"][0]["loss"] <= high


def test_repetition_needs_unique_tokens():
    with pytest.raises(WrongInput, match="needs the column unique_tokens"):
        fit_observed(planted_sweep(seed=0, noise=0.0), FORMS["repetition"], LawConfig())


@pytest.mark.parametrize("resampling", Resampling)
def test_every_resampling(resampling):
    observations = planted_sweep(seed=1, noise=0.004, sizes=8, horizons=8, law=TIED)
    fit = fit_observed(observations, FORMS["chinchilla_tied"], LawConfig())
    low, high = resample_form(fit, 100, 0, resampling).param_intervals(0.9)["alpha"]
    assert low < 0.35 < high
    assert high - low < 0.1


def test_sizes_that_cannot_be_resampled():
    few = planted_sweep(seed=1, noise=0.004, sizes=3, law=TIED)
    with pytest.raises(CannotAnswer, match="at least 4 of them, here are 3"):
        resample_form(fit_observed(few, FORMS["chinchilla_tied"], LawConfig()), 5, 0, Resampling.sizes)
    rows = planted_sweep(seed=1, noise=0.0, sizes=8, horizons=8)
    with pytest.raises(CannotAnswer, match="does not see params"):
        resample_form(fit_observed(rows, FORMS["frontier"], LawConfig()), 5, 0, Resampling.sizes)


def test_bootstrap_repeats_and_agrees_with_the_standard_errors():
    observations = planted_sweep(seed=1, noise=0.004, sizes=8, horizons=8, law=TIED)
    fit = fit_observed(observations, FORMS["chinchilla_tied"], LawConfig(loss=LossFunction.least_squares))
    one, two = (resample_form(fit, 300, seed=4) for _ in range(2))
    assert np.array_equal(one.values, two.values)
    assert one.not_converged == 0
    spread = np.log(one.values).std(axis=0)
    for i, name in enumerate(fit.form.names):
        assert spread[i] == pytest.approx(fit.standard_errors[name], rel=0.5)


def test_held_parameters_are_held_in_every_replicate():
    observations = planted_sweep(seed=1, noise=0.004, law=TIED)
    columns = {"params": observations.params, "tokens": observations.tokens}
    fit = fit_form(FORMS["chinchilla_tied"], columns, observations.loss, Objective(fixed={"E": 1.6}))
    replicates = resample_form(fit, 50)
    assert replicates.values[:, 2] == pytest.approx(1.6, rel=1e-12)
    assert replicates.at_bound == 0


def test_intervals_cover_the_planted_loss():
    """Of 40 noisy sweeps, the 80 % interval at 10x the budget should cover the truth in about 32."""
    form = FORMS["chinchilla_tied"]
    truth = dict(zip(form.names, TIED[:4], strict=True))
    row = {"params": 1e6, "tokens": 1e9}
    covered = 0
    for seed in range(40):
        observations = planted_sweep(seed=seed, noise=0.004, law=TIED)
        draws = resample(solve(observations, LawConfig(), form), 100, Resampling.cases, 0)
        low, high = draws.loss_interval(row, 0.8)
        covered += low < predict(form, truth, row)[0] < high
    assert 22 <= covered <= 39


def test_missing_replicates_open_the_interval():
    values = np.array([np.nan] * 2 + list(np.linspace(0, 1, 8)))
    assert interval(values, 0.9) == (None, None)
    assert interval(values[2:], 0.9) == (0.0, 1.0)
