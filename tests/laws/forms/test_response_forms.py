"""Forms of other responses than the loss: gradients, published values, planted laws found again."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.laws.fit import FitStatus
from harness.laws.forms.accuracy import ACCURACY, ERROR
from harness.laws.forms.coverage import COVERAGE
from harness.laws.forms.form import gradient, predict
from harness.laws.forms.progress import PROGRESS, doubling_months
from harness.laws.forms.reward import REWARD
from harness.laws.forms.step_law import BATCH_SIZE, LEARNING_RATE
from harness.laws.objective import Objective, Response
from harness.laws.responses.step import fit_step

PLANTED = {
    ACCURACY: (-0.7, 5.0, 0.6, 0.97),
    ERROR: (0.86, 0.9, 0.71),
    COVERAGE: (-1.8, -0.35),
    REWARD: (0.2, 0.61, 3000.0, 1.97),
    LEARNING_RATE: (1.8, -0.71, 0.31),
    BATCH_SIZE: (0.58, 0.57),
    PROGRESS: (3.0, 9.0, 0.068, 0.1, 0.004, 0.036),
}
BY_NAME = {form.name: form for form in PLANTED}


def rows() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        "loss": np.linspace(0.5, 2.5, 40),
        "samples": np.geomspace(1, 1024, 40),
        "compute": np.geomspace(200, 20_000, 40),
        "params": np.exp(rng.uniform(np.log(1e7), np.log(1e10), 40)),
        "tokens": np.exp(rng.uniform(np.log(1e9), np.log(1e12), 40)),
        "year": rng.uniform(2012, 2024, 40),
    }


@pytest.mark.parametrize("name", BY_NAME)
def test_gradient_matches_finite_differences(name):
    form = BY_NAME[name]
    values = np.array([PLANTED[form]])
    _, jacobian = gradient(form, values, rows())
    for i in range(values.shape[1]):
        step = np.zeros_like(values)
        step[0, i] = 1e-6 * abs(values[0, i])
        rise = gradient(form, values + step, rows())[0] - gradient(form, values - step, rows())[0]
        slope = rise[0] / 2 / step[0, i]
        assert jacobian[0, :, i] == pytest.approx(slope, rel=1e-5, abs=1e-7 * np.abs(slope).max())


@pytest.mark.parametrize("name", BY_NAME)
def test_noise_free_law_is_found_again(name):
    form = BY_NAME[name]
    planted = dict(zip(form.names, PLANTED[form], strict=True))
    how = Objective(response=Response.loss if form in (ACCURACY, ERROR, COVERAGE, REWARD) else Response.log)
    step = fit_step(form, rows(), predict(form, planted, rows()), how)
    assert step.status is FitStatus.identified, step.reasons
    assert step.params == pytest.approx(planted, rel=1e-5)


def test_reward_at_the_midpoint_and_a_decade_around_it():
    """ScaleRL, 2510.13786, with R0 = 0, A = .61 and B = 1.97."""
    law = {"R0": 0.0, "A": 0.61, "C_mid": 1.0, "B": 1.97}
    found = predict(REWARD, law, {"compute": [1.0, 10.0, 0.1]})
    assert found == pytest.approx([0.305, 0.60353, 0.006467], abs=5e-6)
    lifted = predict(REWARD, {**law, "R0": 0.1}, {"compute": [1.0]})
    assert lifted[0] == pytest.approx((0.1 + 0.61) / 2)


def test_step_law_at_published_points():
    """2503.04715; a formula test: no constant of theirs is used by the harness."""
    lr = {"c": math.exp(0.586308), "a": -0.712922, "b": 0.307491}
    batch = {"d": math.exp(-0.543542), "e": 0.570944}
    at = {"params": [1e9, 7e9], "tokens": [1e11, 1.4e12]}
    assert predict(LEARNING_RATE, lr, at) == pytest.approx([1.6624e-3, 9.347e-4], rel=5e-5)
    assert predict(BATCH_SIZE, batch, at) == pytest.approx([1_107_457, 4_996_911], rel=5e-6)


def test_progress_of_language_models():
    """Model 7 of Ho et al. 2403.05812. Its point estimates double effective compute every 8.69 months; the
    paper's 8.44 is the median over bootstraps of all estimates, and the interval [4.52, 14.27] holds both."""
    law = {"alpha_param": 0.06798, "beta_data": 0.03959, "alpha_year": 0.00394, "beta_year": 0.03562}
    months = doubling_months(law)
    assert months == pytest.approx(8.69, abs=5e-3)
    assert months == pytest.approx(8.44, rel=0.03)
    assert doubling_months({**law, "alpha_year": 0.0, "beta_year": 0.0}) == math.inf


def test_a_year_is_worth_its_growth_of_size_and_data():
    """Effective compute by definition: a year later the same loss needs e^(-alpha_year/alpha_param) of the
    parameters and e^(-beta_year/beta_data) of the tokens."""
    law = dict(zip(PROGRESS.names, PLANTED[PROGRESS], strict=True))
    shrink = math.exp(-law["alpha_year"] / law["alpha_param"]), math.exp(-law["beta_year"] / law["beta_data"])
    now, later = predict(
        PROGRESS,
        law,
        {"params": [1e9, 1e9 * shrink[0]], "tokens": [1e10, 1e10 * shrink[1]], "year": [2020.0, 2021.0]},
    )
    assert later == pytest.approx(now, rel=1e-12)
    assert 12 * math.log(2) / doubling_months(law) == pytest.approx(-math.log(shrink[0] * shrink[1]))
