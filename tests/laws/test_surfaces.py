"""Closed forms against published figures, derivatives against finite differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.laws.config import LawName
from harness.laws.newton import Problem, expand, objective
from harness.laws.surfaces import (
    Chinchilla,
    Law,
    build_law,
    exponent_a,
    optimum_6nd,
    optimum_exact,
    shifted,
    to_params,
    to_theta,
)

EPOCH = {"A": 482.01, "B": 2085.43, "E": 1.8172, "alpha": 0.3478, "beta": 0.3658}
UNROUNDED = {
    "A": np.exp(6.0073404),
    "B": np.exp(6.0179186),
    "E": np.exp(0.5267228),
    "alpha": 0.33917084,
    "beta": 0.2849083,
}
ROUNDED = {"A": 406.4, "B": 410.7, "E": 1.69, "alpha": 0.34, "beta": 0.28}

# Goldens 2.2, recomputed there in closed form: budget, constants, N*, D*, D*/N*, L*.
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
    law = Chinchilla()
    theta = to_theta(law, params)[None]
    log_n, log_d = optimum_6nd(theta, flops)
    assert np.exp(log_n[0]) == pytest.approx(n, rel=6e-5)
    assert np.exp(log_d[0]) == pytest.approx(d, rel=6e-5)
    assert np.exp(log_d - log_n)[0] == pytest.approx(ratio, abs=6e-3)
    assert np.exp(law.log_loss(theta, log_n, log_d))[0, 0] == pytest.approx(loss, abs=6e-6)


def test_numeric_optimum_agrees_with_the_closed_form_and_moves_with_the_cost():
    law = Chinchilla()
    theta = np.stack([to_theta(law, EPOCH), to_theta(law, ROUNDED)])
    exact = optimum_exact(law, theta, 1e20, lambda n: 6 * n, (1e7, 1e11))
    assert np.allclose(exact, optimum_6nd(theta, 1e20), atol=1e-4)
    overhead = optimum_exact(law, theta, 1e20, lambda n: 6 * n + 1e9, (1e7, 1e11))
    assert (np.exp(overhead[1]) < np.exp(exact[1])).all()


def law_cases() -> list[tuple[Law, np.ndarray]]:
    base = np.array([[0.1, -0.3, 0.4, 0.3, 0.4], [-0.5, 0.2, -0.8, 0.5, 0.25]])
    return [
        (build_law(LawName.chinchilla), base),
        (build_law(LawName.skaling), np.column_stack([base, [0.6, 1.3]])),
    ]


@pytest.mark.parametrize(("law", "theta"), law_cases(), ids=["chinchilla", "skaling"])
@pytest.mark.parametrize("delta", [0.05, np.inf])
def test_gradient_and_hessian_against_finite_differences(law, theta, delta):
    rng = np.random.default_rng(3)
    u, v, y = rng.normal(size=(3, 20))
    p = theta.shape[1]
    problem = Problem(
        law=law,
        u=u,
        v=v,
        y=0.3 * y[None],
        weights=rng.uniform(0.5, 2, (1, 20)),
        delta=delta,
        lower=np.full(p, -9.0),
        upper=np.full(p, 9.0),
        prior_mean=np.full(p, 0.2),
        prior_precision=np.full(p, 0.7),
    )
    here = expand(problem, theta)
    assert np.allclose(here.value, objective(problem, theta), rtol=1e-13)
    for j, step in enumerate(1e-6 * np.eye(p)):
        slope = (objective(problem, theta + step) - objective(problem, theta - step)) / 2e-6
        assert np.allclose(slope, here.gradient[:, j], rtol=1e-6, atol=1e-8)
        bend = (expand(problem, theta + step).gradient - expand(problem, theta - step).gradient) / 2e-6
        assert np.allclose(bend, here.hessian[:, :, j], rtol=1e-5, atol=1e-6)


def test_skaling_with_k_of_one_is_chinchilla():
    (chinchilla, theta), (skaling, _) = law_cases()
    u, v = np.linspace(-1, 1, 7), np.linspace(2, -1, 7)
    lifted = np.column_stack([theta, np.ones(2)])
    assert np.allclose(skaling.log_loss(lifted, u, v), chinchilla.log_loss(theta, u, v))


@pytest.mark.parametrize(("law", "theta"), law_cases(), ids=["chinchilla", "skaling"])
def test_centring_does_not_move_the_surface(law, theta):
    u, v = np.linspace(-1, 1, 7), np.linspace(2, -1, 7)
    assert np.allclose(law.log_loss(shifted(theta, 3.0, 5.0), u + 3, v + 5), law.log_loss(theta, u, v))


def test_natural_parameters_survive_the_round_trip():
    law = Chinchilla()
    assert to_params(law, to_theta(law, EPOCH)) == pytest.approx(EPOCH)


def test_exponent_a_of_the_rounded_constants():
    assert exponent_a(to_theta(Chinchilla(), ROUNDED)[None])[0] == pytest.approx(0.28 / 0.62)


def test_a_held_parameter_stays_put():
    law, theta = law_cases()[0]
    held = np.full(5, 0.3)
    problem = Problem(
        law=law,
        u=np.ones(4),
        v=np.ones(4),
        y=np.ones((1, 4)),
        weights=np.ones((1, 4)),
        delta=1.0,
        lower=held,
        upper=held,
        prior_mean=np.zeros(5),
        prior_precision=np.zeros(5),
    )
    from harness.laws.newton import minimise

    assert np.array_equal(minimise(replace(problem, delta=0.1), theta).theta, np.full((2, 5), 0.3))
