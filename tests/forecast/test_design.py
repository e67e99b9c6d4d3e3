"""Which runs next: the greedy design on covariances with a known answer, and on fitted laws."""

import itertools
import math

import numpy as np
import pytest

from harness.errors import CannotAnswer
from harness.forecast.design import derivatives, design, extrapolation, joint_covariance, useful
from harness.forecast.ensemble import fit_ensemble
from harness.laws.collect import collect
from harness.laws.config import LossUnit, ParamsKind
from harness.laws.forms.chinchilla import CHINCHILLA
from harness.laws.observations import FLOPS_EXACT, Row

NOISE = 0.01


def priced(prices):
    """Each candidate once, at its own price."""
    return lambda i, chosen: math.inf if i in chosen else float(prices[i])


def left_over(covariance, noise, measured):
    """The bet's standard deviation after measuring candidates, by the textbook formula, all at once."""
    at = list(measured)
    cross = covariance[-1, at]
    among = covariance[np.ix_(at, at)] + noise**2 * np.eye(len(at))
    return math.sqrt(covariance[-1, -1] - cross @ np.linalg.solve(among, cross))


@pytest.fixture
def covariance():
    rng = np.random.default_rng(3)
    root = rng.normal(size=(7, 4)) * 0.05
    return root @ root.T + 1e-6 * np.eye(7)


def test_what_is_left_is_what_conditioning_on_all_at_once_leaves(covariance):
    found = design(covariance, NOISE, priced(np.ones(6)), 3, 10.0)
    chosen = [one.candidate for one in found.chosen]
    assert found.std_after == pytest.approx(left_over(covariance, NOISE, chosen), rel=1e-9)
    assert found.std_before == pytest.approx(math.sqrt(covariance[-1, -1]))
    stds = [one.std_after for one in found.chosen]
    assert stds == sorted(stds, reverse=True)


def test_several_bets_are_served_together(covariance):
    """Each of two bets has a candidate of its own; a third tells of both, and is taken first."""
    both = np.eye(5) * 1e-2
    for one, bet, shared in ((0, 3, 0.8), (1, 4, 0.8), (2, 3, 0.7), (2, 4, 0.7)):
        both[one, bet] = both[bet, one] = shared * 1e-2
    found = design(both, 1e-3, priced(np.ones(3)), 1, 1.0, bets=2)
    assert found.chosen[0].candidate == 2
    assert found.std_before == pytest.approx(0.1)
    alone = design(covariance, NOISE, priced(np.ones(6)), 3, 10.0)
    assert alone == design(covariance, NOISE, priced(np.ones(6)), 3, 10.0, bets=1)


def test_it_comes_near_the_best_of_all_designs(covariance):
    found = design(covariance, NOISE, priced(np.ones(6)), 3, 10.0)
    best = min(left_over(covariance, NOISE, three) for three in itertools.combinations(range(6), 3))
    assert found.std_after < 1.15 * best


def test_a_budget_is_kept_and_cheap_runs_do_not_crowd_out_a_telling_one():
    """A dear run that settles the bet beside ten cheap ones that say nearly nothing for little."""
    bet = np.eye(12) * 1e-8
    bet[-1, -1] = bet[0, 0] = 1.0
    bet[0, -1] = bet[-1, 0] = 0.99
    for i in range(1, 11):
        bet[i, i] = 1.0
        bet[i, -1] = bet[-1, i] = 0.1
    prices = [10.0] + [0.01] * 10
    found = design(bet, NOISE, priced(prices), 5, 10.0)
    assert 0 in [one.candidate for one in found.chosen]
    assert found.flops <= 10.0
    poor = design(bet, NOISE, priced(prices), 5, 1.0)
    assert 0 not in [one.candidate for one in poor.chosen]
    with pytest.raises(CannotAnswer, match=r"cheapest candidate takes 0\.01 FLOPs"):
        design(bet, NOISE, priced(prices), 5, 0.001)


def test_noise_is_worth_a_second_seed_only_where_there_is_some():
    one = np.array([[1.0, 0.9], [0.9, 1.0]])
    twice = design(one, 1.0, lambda i, chosen: 1.0, 2, 2.0)
    assert [c.candidate for c in twice.chosen] == [0, 0]
    assert twice.chosen[0].std_after == pytest.approx(math.sqrt(1 - 0.81 / 2))
    assert twice.chosen[1].std_after == pytest.approx(math.sqrt(1 - 0.81 / 1.5))


def planted(sizes, horizons):
    cells = itertools.product(sizes, horizons)
    rows = []
    for i, (n, d) in enumerate(cells):
        loss = 1.8 + 480 / n**0.35 + 2100 / d**0.37
        rows.append(
            Row(name=str(i), params=n, tokens=d, flops=6 * n * d, loss=loss * (1 + 0.002 * (-1) ** i))
        )
    return collect(rows, ParamsKind.total, LossUnit.nats_per_token, FLOPS_EXACT)


def test_derivatives_are_those_of_the_log_loss():
    ensemble = fit_ensemble(planted([1e7, 3e7, 1e8], [1e9, 3e9, 1e10]), 1e-3, [CHINCHILLA])
    [solution] = ensemble.solutions
    at = {"params": np.array([1e9]), "tokens": np.array([1e11])}
    found = derivatives(solution, at)[0]
    logs = np.array([one.log for one in solution.form.parameters])
    for i in range(len(found)):
        moved = np.repeat(solution.values[None], 2, axis=0)
        step = 1e-5
        for row, sign in enumerate((1, -1)):
            moved[row, i] = moved[row, i] * math.exp(sign * step) if logs[i] else moved[row, i] + sign * step
        ahead, behind = np.log(solution.form.losses(moved, at)[:, 0])
        assert found[i] == pytest.approx((ahead - behind) / 2 / step, rel=1e-4)


def test_a_bet_far_out_asks_for_what_lies_towards_it():
    """From small runs, a bet on many tokens at a small size asks for tokens, not for size."""
    ensemble = fit_ensemble(planted([1e7, 3e7, 1e8], [1e9, 3e9, 1e10]), 1e-3)
    rows = {"params": np.array([1e7, 1e9, 1e7]), "tokens": np.array([1e11, 1e9, 1e12])}
    covariance = joint_covariance(ensemble, rows)
    assert np.allclose(covariance, covariance.T) and np.linalg.eigvalsh(covariance).min() > -1e-12
    found = design(covariance, 0.002, priced([1.0, 1.0]), 1, 1.0)
    assert found.chosen[0].candidate == 0


def test_a_run_on_the_way_to_the_bet_takes_its_share_off_what_all_laws_get_wrong():
    found = extrapolation(np.array([1e17, 1e19, 1e20]), 1e18, 0.01)
    assert math.sqrt(found[-1, -1]) == pytest.approx(0.01 * math.log(100))
    assert not found[0].any()  # it lies inside the sweep
    assert left_over(found, 0.0, [1]) == pytest.approx(math.sqrt(found[-1, -1] / 2))
    assert np.linalg.eigvalsh(found).min() > -1e-15


def test_a_cell_far_off_the_best_of_its_budget_is_not_worth_training():
    rows = planted([1e7, 3e7, 1e8], [1e9, 3e9, 1e10])
    ensemble = fit_ensemble(rows, 1e-3)
    at = {"params": np.array([1e8, 1e6]), "tokens": np.array([2e10, 2e12])}
    flops = 6 * at["params"] * at["tokens"]
    assert useful(ensemble, at, flops, (rows.flops, rows.loss)).tolist() == [True, False]
    worse = {name: column[1:] for name, column in at.items()}
    assert useful(ensemble, worse, flops[1:], (rows.flops, rows.loss)).tolist() == [True]
