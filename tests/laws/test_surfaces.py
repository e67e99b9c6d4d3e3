"""Closed forms against published figures, derivatives against finite differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.laws.conventions import Curve, TokenCost
from harness.laws.forms.ces import CES, CES_FOURTH_ROOT, CES_SQUARE_ROOT
from harness.laws.forms.chinchilla import CHINCHILLA
from harness.laws.forms.form import Form, predict
from harness.laws.forms.optimum import allocate, exponent_a, optimum
from harness.laws.forms.skaling import SKALING
from harness.laws.newton import Problem, Pull, expand, minimise
from harness.laws.objective import FormSurface, Response

EPOCH = {"A": 482.01, "B": 2085.43, "E": 1.8172, "alpha": 0.3478, "beta": 0.3658}
UNROUNDED = {
    "A": np.exp(6.0073404),
    "B": np.exp(6.0179186),
    "E": np.exp(0.5267228),
    "alpha": 0.33917084,
    "beta": 0.2849083,
}
ROUNDED = {"A": 406.4, "B": 410.7, "E": 1.69, "alpha": 0.34, "beta": 0.28}

# Hoffmann et al. and Besiroglu et al. in closed form: budget, constants, N*, D*, D*/N*, L*.
PUBLISHED = [
    (1e18, EPOCH, 8.0532e7, 2.0696e9, 25.70, 3.49049),
    (1e20, EPOCH, 8.5348e8, 1.9528e10, 22.88, 2.55340),
    (5.76e23, EPOCH, 7.2249e10, 1.3287e12, 18.39, 1.97444),
    (1e25, EPOCH, 3.1207e11, 5.3407e12, 17.11, 1.91173),
    (1e26, EPOCH, 1.0159e12, 1.6405e13, 16.15, 1.87990),
    (5.76e23, UNROUNDED, 4.0361e10, 2.3785e12, 58.93, 1.91841),
    (5.76e23, ROUNDED, 3.2190e10, 2.9823e12, 92.65, 1.93075),
    (1e20, UNROUNDED, 7.7487e8, 2.1509e10, 27.76, 2.55342),
    (1e20, ROUNDED, 6.4486e8, 2.5846e10, 40.08, 2.59985),
    (2.21e19, ROUNDED, 3.2612e8, 1.1294e10, 34.63, 2.83719),
]


@pytest.mark.parametrize(("flops", "params", "n", "d", "ratio", "loss"), PUBLISHED)
def test_optimum_reproduces_published_allocations(flops, params, n, d, ratio, loss):
    found = optimum(CHINCHILLA, params, flops)
    assert found == pytest.approx((n, d), rel=6e-5)
    assert found[1] / found[0] == pytest.approx(ratio, abs=6e-3)
    at = {"params": found[0], "tokens": found[1]}
    assert predict(CHINCHILLA, params, at)[0] == pytest.approx(loss, abs=6e-6)


def test_searched_optimum_agrees_with_the_closed_form_and_moves_with_the_cost():
    values = np.stack([CHINCHILLA.values(EPOCH), CHINCHILLA.values(ROUNDED)])
    closed = allocate(CHINCHILLA, values, 1e20)
    searched = allocate(replace(CHINCHILLA, allocation=None), values, 1e20)
    assert np.allclose(searched, closed, atol=1e-6)
    # Half as dear again at 1e8 parameters as 6 N, and less so above.
    dearer = TokenCost("dearer", Curve(6.0, 1.0, (np.log(1e8),), (np.log(3.0),), -0.5))
    assert (allocate(CHINCHILLA, values, 1e20, cost=dearer)[1] < closed[1]).all()


CASES = [
    (CHINCHILLA, np.array([[60.0, 300.0, 1.6, 0.35, 0.36], [9e3, 20.0, 0.9, 0.6, 0.2]])),
    (SKALING, np.array([[900.0, 3e4, 1.6, 0.55, 0.5, 0.6], [60.0, 300.0, 0.9, 0.3, 0.36, 1.3]])),
    (CES, np.array([[60.0, 300.0, 1.6, 0.35, 0.36, 0.5], [9e3, 20.0, 0.9, 0.6, 0.2, 1.2]])),
    (CES_SQUARE_ROOT, np.array([[9.0, 20.0, 1.6, 0.25, 0.2, 0.7], [90.0, 5.0, 0.9, 0.4, 0.12, 0.3]])),
    (CES_FOURTH_ROOT, np.array([[3.0, 5.0, 1.6, 0.15, 0.14, 0.4], [9.0, 2.0, 0.9, 0.2, 0.1, 1.0]])),
]
NAMES = [form.name for form, _ in CASES]


def rows_of(count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {"params": np.exp(rng.normal(14, 1, count)), "tokens": np.exp(rng.normal(18, 1, count))}


@pytest.mark.parametrize(("form", "values"), CASES, ids=NAMES)
@pytest.mark.parametrize("delta", [0.05, np.inf])
def test_gradient_and_hessian_against_finite_differences(form: Form, values, delta):
    rows, rng = rows_of(20), np.random.default_rng(3)
    surface, p = form.surface(rows), len(form.parameters)
    theta = surface.to_theta(values)
    pull = Pull(
        value=lambda t: t @ np.arange(p),
        slope=lambda t: np.tile(np.arange(p, dtype=float), (len(t), 1)),
        target=np.array([0.5, 2.0]),
        strength=np.array([3.0, 0.2]),
    )
    problem = Problem(
        surface=surface,
        y=0.3 * rng.normal(size=(1, 20)),
        weights=rng.uniform(0.5, 2, (1, 20)),
        delta=delta,
        lower=np.full(p, -90.0),
        upper=np.full(p, 90.0),
        prior_mean=np.full(p, 0.2),
        prior_precision=np.full(p, 0.7),
        pull=pull,
    )
    here = expand(problem, theta)
    for j, step in enumerate(1e-6 * np.eye(p)):
        ahead, behind = expand(problem, theta + step), expand(problem, theta - step)
        slope = (ahead.value - behind.value) / 2e-6
        assert np.allclose(slope, here.gradient[:, j], rtol=1e-6, atol=1e-6)
        bend = (ahead.gradient - behind.gradient) / 2e-6
        assert np.allclose(bend, here.hessian[:, :, j], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("form", "values"), CASES, ids=NAMES)
def test_centred_surface_is_the_form(form: Form, values):
    """The exact surface in centred coordinates and the plain form agree, there and back."""
    rows = rows_of(7)
    centred, plain = form.surface(rows), FormSurface(form, rows, Response.log)
    assert np.allclose(centred.to_values(centred.to_theta(values)), values, rtol=1e-12)
    responses = [surface.response(surface.to_theta(values)) for surface in (centred, plain)]
    assert np.allclose(*responses, rtol=1e-12)
    for surface in (centred, plain):
        low, high = surface.bounds(2.0)
        assert (low < surface.to_theta(values)).all() and (surface.to_theta(values) < high).all()


def test_skaling_with_k_of_one_is_chinchilla():
    rows, values = rows_of(7), CASES[0][1]
    lifted = np.column_stack([values, np.ones(2)])
    assert np.allclose(SKALING.losses(lifted, rows), CHINCHILLA.losses(values, rows))


def test_exponent_a_of_the_rounded_constants():
    values = CHINCHILLA.values(ROUNDED)[None]
    assert exponent_a(CHINCHILLA, values, 1e20)[0] == pytest.approx(0.28 / 0.62, rel=1e-12)


def test_a_held_parameter_stays_put():
    held = np.full(5, 0.3)
    problem = Problem(
        surface=CHINCHILLA.surface(rows_of(4)),
        y=np.ones((1, 4)),
        weights=np.ones((1, 4)),
        delta=0.1,
        lower=held,
        upper=held,
        prior_mean=np.zeros(5),
        prior_precision=np.zeros(5),
    )
    assert np.array_equal(minimise(problem, np.ones((2, 5))).theta, np.full((2, 5), 0.3))
