"""Every form: gradients against finite differences, planted laws found again, optima, refusals."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from harness.errors import CannotAnswer, WrongInput
from harness.laws.fit import FitStatus, fit_form
from harness.laws.forms.catalogue import FORMS
from harness.laws.forms.form import gradient, predict
from harness.laws.forms.frontier import envelope
from harness.laws.forms.optimum import optimum, searched
from harness.laws.objective import FormSurface, Objective, Response

PLANTED = {
    "chinchilla": (480.0, 2100.0, 1.8, 0.35, 0.37),
    "skaling": (480.0, 2100.0, 0.3, 0.39, 0.42, 0.49),
    "chinchilla_tied": (400.0, 1500.0, 1.8, 0.35),
    "kaplan": (6.4e13, 1.8e13, 0.076, 0.103),
    "farseer": (-0.0625, 0.13, 0.1285, 230.73, -0.1729, -1.544, -1.6656, 0.0459, 3.1333),
    "overtrain": (166.0, 366.0, 1.8, 0.27),
    "repetition": (521.0, 1488.0, 1.87, 0.35, 0.33, 15.4, 5.3),
    "frontier": (50.0, 1.7, 0.15),
    "bnsl": (0.41, 2.28, 0.055, 5.66, 612.0, 0.06),
    "bnsl_two": (0.41, 2.28, 0.055, 1.0, 300.0, 0.1, 2.0, 3000.0, 0.3),
    "ces": (480.0, 2100.0, 1.8, 0.35, 0.37, 0.6),
    "ces_square_root": (20.0, 40.0, 1.5, 0.22, 0.2, 0.5),
    "ces_fourth_root": (4.0, 6.0, 1.2, 0.16, 0.14, 0.7),
}


def sweep() -> dict[str, np.ndarray]:
    """A 10 x 8 grid; `flops` is a bare scale that crosses the planted breaks."""
    n, d = (x.ravel() for x in np.meshgrid(np.geomspace(2e8, 6e9, 10), np.geomspace(2e9, 2e11, 8)))
    epochs = np.exp(np.random.default_rng(1).uniform(0, 4, 80))
    return {"params": n, "tokens": d, "unique_tokens": d / epochs, "flops": np.geomspace(60, 9000, 80)}


def planted(name: str) -> dict[str, float]:
    return dict(zip(FORMS[name].names, PLANTED[name], strict=True))


def test_every_form_is_planted():
    assert set(PLANTED) == set(FORMS)


@pytest.mark.parametrize("name", FORMS)
def test_gradient_matches_finite_differences(name):
    form, rows = FORMS[name], sweep()
    values = np.array([PLANTED[name]])
    loss, jacobian = gradient(form, values, rows)
    assert jacobian.shape == (*loss.shape, len(form.names))
    for i in range(values.shape[1]):
        step = np.zeros_like(values)
        step[0, i] = 1e-6 * abs(values[0, i])
        rise = gradient(form, values + step, rows)[0] - gradient(form, values - step, rows)[0]
        slope = rise[0] / 2 / step[0, i]
        assert jacobian[0, :, i] == pytest.approx(slope, rel=1e-6, abs=1e-7 * np.abs(slope).max())


@pytest.mark.parametrize("response", Response)
def test_surface_curvature_matches_finite_differences(response):
    form = FORMS["repetition"]
    surface = FormSurface(form, sweep(), response)
    theta = surface.to_theta(np.array([PLANTED["repetition"]]))
    scores = np.random.default_rng(0).normal(size=(1, 80))
    hessian = surface.curvature(theta, scores)[0]
    step = 1e-3
    for i in range(7):
        shift = np.eye(7)[i] * step
        ahead, here, behind = (surface.response(theta + s) for s in (shift, 0 * shift, -shift))
        second = float((scores * (ahead - 2 * here + behind)).sum()) / step**2
        assert hessian[i, i] == pytest.approx(second, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("name", FORMS)
def test_noise_free_law_is_found_again(name):
    form, rows = FORMS[name], sweep()
    fit = fit_form(form, rows, predict(form, planted(name), rows))
    assert fit.status is FitStatus.identified, fit.reasons
    assert fit.params == pytest.approx(planted(name), rel=1e-6)
    assert fit.n + fit.left_out == 80
    json.dumps(fit.to_json(), allow_nan=False)


@pytest.mark.parametrize("name", ["chinchilla_tied", "kaplan", "overtrain", "repetition"])
def test_standard_errors_cover_the_planted_values(name):
    form, rows = FORMS[name], sweep()
    noise = np.exp(0.002 * np.random.default_rng(5).standard_normal(80))
    fit = fit_form(form, rows, predict(form, planted(name), rows) * noise)
    assert fit.status is FitStatus.identified
    assert 0.001 < fit.residual_rms < 0.003
    for label, value in planted(name).items():
        assert abs(np.log(fit.params[label] / value)) < 4 * fit.standard_errors[label]


@pytest.mark.parametrize(
    "name", ["chinchilla", "skaling", "chinchilla_tied", "kaplan", "overtrain", "ces", "ces_square_root"]
)
def test_closed_form_optimum_is_the_numeric_one(name):
    form = FORMS[name]
    n, d = optimum(form, planted(name), 1e22)
    assert 6 * n * d == pytest.approx(1e22, rel=1e-12)
    values = form.values(planted(name))[None]
    assert n == pytest.approx(np.exp(searched(form, values, 1e22)[0]), rel=1e-6)


def test_farseer_optimum_is_a_minimum():
    form, at = FORMS["farseer"], planted("farseer")
    n, _ = optimum(form, at, 1e22)
    near = n * np.array([0.99, 1.0, 1.01])
    losses = predict(form, at, {"params": near, "tokens": 1e22 / 6 / near})
    assert losses[1] < min(losses[0], losses[2])


def test_a_law_of_compute_allocates_nothing():
    with pytest.raises(CannotAnswer, match="law of flops"):
        optimum(FORMS["frontier"], planted("frontier"), 1e22)


def test_a_law_that_only_wants_size_has_no_optimum():
    greedy = {"A": 1e9, "B": 1e-9, "E": 1.0, "alpha": 0.3}
    with pytest.raises(CannotAnswer, match="no compute-optimal size"):
        optimum(replace(FORMS["chinchilla_tied"], allocation=None), greedy, 1e22)


def test_envelope_keeps_the_runs_no_cheaper_run_beats():
    rows = {"flops": np.array([1e18, 1e18, 2e18, 4e18, 8e18])}
    assert envelope(rows, np.array([3.0, 2.9, 2.95, 2.8, 2.8])).tolist() == [1, 3]


def test_frontier_ignores_runs_above_the_envelope():
    flops = np.geomspace(1e18, 1e22, 12)
    best = predict(FORMS["frontier"], {"K": 900.0, "E": 1.7, "g": 0.15}, {"flops": flops})
    rows = {"flops": np.concatenate([flops, flops * 1.5])}
    fit = fit_form(FORMS["frontier"], rows, np.concatenate([best, best * 1.02]))
    assert (fit.n, fit.left_out) == (12, 12)
    assert fit.params == pytest.approx({"K": 900.0, "E": 1.7, "g": 0.15}, rel=1e-6)


def test_held_parameters_stay():
    form, rows = FORMS["chinchilla_tied"], sweep()
    loss = predict(form, planted("chinchilla_tied"), rows)
    fit = fit_form(form, rows, loss, Objective(fixed={"alpha": 0.3}))
    assert fit.params["alpha"] == pytest.approx(0.3, rel=1e-12)
    assert "alpha" not in fit.standard_errors
    assert fit.conventions["held"] == "alpha=0.3"


def test_too_few_rows():
    with pytest.raises(CannotAnswer, match="4 usable rows cannot determine the 4 free parameters"):
        fit_form(FORMS["kaplan"], {"params": [1e6] * 4, "tokens": [1e9] * 4}, [3.0, 3.1, 3.2, 3.3])


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_rows_that_are_not_positive_numbers(bad):
    rows = sweep()
    loss = predict(FORMS["overtrain"], planted("overtrain"), rows)
    loss[3] = bad
    with pytest.raises(CannotAnswer, match="not a positive number on 1 of 80 rows"):
        fit_form(FORMS["overtrain"], rows, loss)


def test_missing_column_and_unknown_parameter():
    rows = sweep()
    loss = np.linspace(3, 2, 80)
    with pytest.raises(WrongInput, match="needs the column unique_tokens"):
        fit_form(FORMS["repetition"], {k: rows[k] for k in ("params", "tokens")}, loss)
    with pytest.raises(WrongInput, match="no parameter beta"):
        fit_form(FORMS["kaplan"], rows, loss, Objective(fixed={"beta": 0.3}))


def test_one_size_is_not_identified():
    d = np.geomspace(1e9, 1e11, 12)
    loss = 1.8 + 300 / 1e8**0.35 + 1500 / d**0.35
    fit = fit_form(FORMS["chinchilla_tied"], {"params": np.full(12, 1e8), "tokens": d}, loss)
    assert fit.status is FitStatus.not_identified
    assert fit.reasons


def test_pure_power_law_has_no_floor():
    flops = np.geomspace(1e18, 1e22, 12)
    fit = fit_form(FORMS["frontier"], {"flops": flops}, 20 * flops**-0.05)
    assert fit.status is FitStatus.not_identified
    assert any("E ran to zero" in reason for reason in fit.reasons)


def test_farseer_needs_token_counts_at_each_size():
    n = np.geomspace(1e8, 1e9, 12)
    with pytest.raises(CannotAnswer, match="no starting point"):
        fit_form(FORMS["farseer"], {"params": n, "tokens": 20 * n}, np.linspace(3, 2, 12))


def test_farseer_moves_in_coordinates_that_are_the_same_law():
    """Its surface is the plain form there and back, with the gradient of finite differences."""
    form, rows = FORMS["farseer"], sweep()
    values = np.array([PLANTED["farseer"]])
    surface, plain = form.surface(rows), FormSurface(form, rows, Response.log)
    theta = surface.to_theta(values)
    assert surface.to_values(theta) == pytest.approx(values, rel=1e-9)
    response, jacobian = surface.gradient(theta)
    assert response == pytest.approx(plain.response(plain.to_theta(values)), rel=1e-12)
    for i, step in enumerate(1e-6 * np.eye(9)):
        slope = (surface.response(theta + step) - surface.response(theta - step)) / 2e-6
        assert jacobian[0, :, i] == pytest.approx(slope[0], rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("sizes, horizons, noise", [(21, 20, 0.0028), (6, 5, 0.01)])
def test_farseer_fits_noise(sizes, horizons, noise):
    """The published grid has 404 rows and misses them by .2263 % on average, the mean of |normal| noise of
    .28 %; and a table of 30 rows. The nine constants trade against each other; the surface does not. The
    small table does not give the exponent of the optimum (.26 off by its standard error), and says so."""
    n, d = (
        x.ravel()[:404]
        for x in np.meshgrid(np.geomspace(2e8, 6.4e9, sizes), np.geomspace(2e9, 2e11, horizons))
    )
    rows, form = {"params": n, "tokens": d}, FORMS["farseer"]
    truth = predict(form, planted("farseer"), rows)
    loss = truth * np.exp(noise * np.random.default_rng(1).standard_normal(len(n)))
    fit = fit_form(form, rows, loss)
    assert (fit.status is FitStatus.identified) == (len(n) == 404), fit.reasons
    assert all("the exponent a of N*" in reason for reason in fit.reasons)
    assert np.abs(fit.predict(rows) / loss - 1).mean() < np.abs(truth / loss - 1).mean()
    assert np.abs(fit.predict(rows) / truth - 1).mean() < 0.7 * noise
