"""The minimiser where second derivatives leave the finite."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.laws.expansion import Expansion, Target
from harness.laws.forms.catalogue import FORMS
from harness.laws.newton import Problem, minimise, solve_damped
from harness.laws.objective import FormSurface, Response


@dataclass(frozen=True)
class Edge:
    """(theta - 1)^2 / 2 for each of two parameters, whose curvature overflows below `edge`."""

    edge: float

    def expand(self, theta: np.ndarray, target: Target) -> Expansion:
        away = theta - 1
        hessian = np.tile(np.eye(2), (len(theta), 1, 1))
        hessian[theta.min(axis=1) < self.edge] = np.nan
        return Expansion(theta, 0.5 * (away**2).sum(axis=1), away, hessian, np.ones_like(theta))


def found(edge: float, start: list[list[float]]):
    zeros, wide = np.zeros(2), np.full(2, 10.0)
    problem = Problem(
        surface=Edge(edge),
        y=np.zeros((1, 3)),
        weights=np.ones((1, 3)),
        delta=0.03,
        lower=-wide,
        upper=wide,
        prior_mean=zeros,
        prior_precision=zeros,
    )
    return minimise(problem, np.array(start))


def test_a_replicate_without_curvature_has_not_converged_and_harms_no_other():
    result = found(-1.0, [[3.0, 2.0], [-2.0, 0.0], [0.0, 5.0]])
    assert result.converged.tolist() == [True, False, True]
    assert np.allclose(result.theta[[0, 2]], 1.0)
    assert result.theta[1].tolist() == [-2.0, 0.0]


def test_a_step_to_where_curvature_ends_is_not_taken():
    """The minimum lies beyond the edge: every accepted point stays on this side."""
    result = found(1.5, [[3.0, 3.0]])
    assert (result.theta >= 1.5).all()
    assert result.objective[0] < 2 * 0.5 * 2.0**2


def test_a_matrix_that_is_not_finite_has_no_solution():
    bad = np.full((2, 2), np.nan)
    solved = solve_damped(np.array([bad, -np.eye(2)]), np.ones((2, 2)), np.zeros(2))
    assert np.isnan(solved[0]).all()
    assert np.allclose(solved[1], 1.0)


def test_second_differences_in_blocks_are_those_of_one_replicate_and_one_parameter_at_a_time():
    """600 replicates of 9 parameters on 25 rows fill many blocks."""
    form = FORMS["bnsl_two"]
    rng = np.random.default_rng(0)
    surface = FormSurface(form, {"flops": np.geomspace(1e15, 1e21, 25)}, Response.log)
    values = np.array([[0.2, 90.0, 0.1, 0.3, 1e17, 0.2, -0.1, 1e19, 0.3]])
    theta = surface.to_theta(values) + 1e-3 * rng.standard_normal((600, 9))
    scores = rng.standard_normal((600, 25))
    found = surface.curvature(theta, scores)
    for k in (0, 7, 599):
        alone = np.zeros((9, 9))
        for i in range(9):
            step = 1e-4 * max(1.0, abs(theta[k, i])) * np.eye(9)[i]
            ahead, behind = (surface.gradient(theta[[k]] + sign * step)[1][0] for sign in (1, -1))
            alone[i] = scores[k] @ (ahead - behind) / 2 / step[i]
        assert np.allclose(found[k], (alone + alone.T) / 2, rtol=1e-6, atol=1e-6)
