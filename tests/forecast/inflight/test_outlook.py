"""The probability of divergence, the rule, and the pieces that predictions are made of."""

from dataclasses import replace

import numpy as np
import pytest

from harness.errors import WrongInput
from harness.forecast.inflight.loss import LossPredictor
from harness.forecast.inflight.mixture import Mixture
from harness.forecast.inflight.outlook import Rivals, Rule, Verdict, look_ahead
from harness.forecast.inflight.rise import base_rate, diverges
from harness.forecast.inflight.shapes import SHAPES, Shapes, basis, drawn
from harness.forecast.inflight.trajectory import Metric, Schedule, Trajectory, row_noise
from harness.laws.curves import predict_multi_power

from .planted import constant, loss_run, wsd


def curve(values: np.ndarray, end: float = 200.0) -> Trajectory:
    return Trajectory(run_id="r", steps=np.arange(1.0, len(values) + 1), values=values, end=end, budget=1.0)


def falling(rows: int = 100) -> np.ndarray:
    rng = np.random.default_rng(0)
    return 3 + 5 * np.arange(1.0, rows + 1) ** -0.5 + 0.02 * rng.standard_normal(rows)


def test_a_healthy_curve_and_one_with_a_spike_behind_it_do_not_diverge():
    values = falling()
    spiked = values.copy()
    spiked[60:63] += 3.0
    assert diverges(curve(values), 0.05) < 0.06
    assert diverges(curve(spiked), 0.05) < 0.06
    assert diverges(curve(values[:5]), 0.05) == pytest.approx(0.05 * (1 - 5 / 200))


def test_a_curve_that_rises_and_stays_up_diverges():
    values = falling()
    risen = values + np.where(np.arange(100) >= 85, 2.0, 0.0)
    lifted = values + np.linspace(0, 0.05, 100)
    assert diverges(curve(risen), 0.02) > 0.95
    assert diverges(curve(lifted), 0.02) < 0.5
    assert diverges(curve(np.append(values, np.nan)), 0.02) == 1.0


def test_a_flat_noisy_curve_does_not_diverge():
    """Nor one that wanders: of many medians the lowest is lucky."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        wander = np.zeros(80)
        for at in range(1, 80):
            wander[at] = 0.9 * wander[at - 1] + 0.004 * rng.standard_normal()
        assert diverges(curve(0.8 + wander + 0.03 * rng.standard_normal(80)), 0.5) < 0.95, seed


def test_a_rise_that_lasts_says_more_than_a_spike():
    values = falling()
    spike, lasting = (values + np.where(np.arange(100) >= since, 0.8, 0.0) for since in (95, 75))
    assert diverges(curve(spike), 0.02) < diverges(curve(lasting), 0.02)
    assert diverges(curve(lasting), 0.02) > 0.99


def test_the_base_rate_counts_runs_that_ended_badly():
    good = curve(falling())
    bad = replace(good, diverged=True)
    assert base_rate([]) == 0.05
    assert base_rate([good] * 90) == pytest.approx(0.005)
    assert base_rate([good, bad, bad]) == pytest.approx(2.5 / 13)


def test_none_of_many_equals_is_killed():
    """Each is the best of forty with probability 1/40, which is no reason to kill thirty-nine."""
    lent = [loss_run(f"s{seed}", 1e6, wsd(2000), seed) for seed in range(3)]
    equals = [loss_run(f"e{seed}", 3e6, wsd(2000), 100 + seed).until(0.5) for seed in range(40)]
    found = look_ahead(equals, lent, Metric.loss, Rule())
    assert {one.verdict for one in found} == {Verdict.keep}


def test_rivals_of_the_same_cell_alone():
    """A small model at a budget that a larger one uses better lives when only repeats are its rivals."""
    lent = [loss_run(f"s{seed}", 1e6, wsd(2000), seed) for seed in range(2)]
    best = loss_run("best", 4e6, wsd(4000), 7, worse=-0.8)
    run = loss_run("run", 2e6, wsd(8000), 8).until(0.5)
    budget, cell = (
        look_ahead([run], [*lent, best], Metric.loss, Rule(rivals=rivals))[0] for rivals in Rivals
    )
    assert (budget.verdict, budget.best_run_id) == (Verdict.kill, "best")
    assert (cell.verdict, cell.beats_best) == (Verdict.keep, None)


def test_nothing_is_killed_for_being_slow_too_early():
    lent = [loss_run(f"s{seed}", 1e6, wsd(2000), seed) for seed in range(2)]
    rule = Rule(earliest=0.6)
    best = loss_run("best", 3e6, wsd(2000), 7, worse=-0.8)
    (found,) = look_ahead([loss_run("run", 3e6, wsd(2000), 8).until(0.5)], [*lent, best], Metric.loss, rule)
    assert found.verdict is Verdict.keep
    assert "too early" in found.reason


@pytest.mark.parametrize("unit", [2.0**-60, 2.0**60])
def test_a_loss_in_another_unit_ends_where_the_same_run_does(unit):
    """The likelihood of forty rows is a product of forty precisions, which leaves the range of a float."""

    def ends(unit: float) -> Mixture:
        lent, run = [
            [replace(one, values=unit * one.values, final=unit * one.result) for one in runs]
            for runs in (
                [loss_run(f"s{n}", n * 1e6, wsd(steps), n) for n, steps in ((1, 400), (2, 400), (4, 800))],
                [loss_run("run", 8e6, wsd(800), 9)],
            )
        ]
        return LossPredictor(lent).predict(run[0].until(0.3))

    usual, scaled = ends(1.0), ends(unit)
    assert scaled.mean / unit == pytest.approx(usual.mean, rel=1e-9)
    assert scaled.deviation / unit == pytest.approx(usual.deviation, rel=1e-9)


def test_shapes_are_those_of_the_multi_power_law():
    """Against the law of harness.laws, whose constants are per learning rate rather than per peak; the knots
    of a schedule cost some accuracy."""
    steps, peak = 4000, 3e-4
    schedule = wsd(steps)
    at = np.arange(steps + 1.0)
    lr = peak * np.interp(at, schedule.steps, schedule.rate)
    looked = np.array([400.0, 1500.0, 2900.0, 3500.0, 3999.0])
    alpha, b, c, beta, gamma = 0.45, 437.9, 2.13, 0.598, 0.655  # 2503.12811, 100M
    law = {"L0": 2.65, "A": 0.6, "alpha": alpha, "B": b, "C": c, "beta": beta, "gamma": gamma}
    expected = predict_multi_power(law, lr, looked.astype(int))
    delay = 1 / (c * peak ** (1 - gamma))
    shape = Shapes(*(np.array([value]) for value in (alpha, delay, beta, gamma)))
    power, fall = basis(shape, schedule, looked)
    found = 0.6 * peak**-alpha * power[0] + b * peak * fall[0]
    assert found == pytest.approx(expected - expected[-1], abs=4e-3)


def test_shapes_are_the_same_every_time_and_fill_their_box():
    shapes = drawn()
    assert len(shapes.alpha) == SHAPES
    assert shapes is drawn()
    assert 0.2 < shapes.alpha.min() < 0.21 and 1.19 < shapes.alpha.max() < 1.2


def test_schedules_keep_their_corners():
    at = np.arange(10_001.0)
    lr = np.where(at < 5000, 1.0, 0.3)
    stepped = Schedule.of(at, lr)
    assert len(stepped.steps) <= 200
    assert stepped.area(at[-1:])[0] == pytest.approx(lr.sum(), rel=1e-3)
    assert np.interp([4990, 5010], stepped.steps, stepped.rate) == pytest.approx([1.0, 0.3])
    assert constant(1000).rate[-1] == pytest.approx(1.0)
    assert Schedule.of(np.array([100.0, 200.0]), np.array([2.0, 2.0])).area(np.array([200.0]))[0] == 150.0
    for bad in ([0.0, 0.0], [1.0, -1.0], [1.0, np.nan]):
        with pytest.raises(WrongInput, match="lr must not"):
            Schedule.of(np.array([1.0, 2.0]), np.array(bad))


def test_the_noise_of_a_row_is_that_of_its_rows():
    rng = np.random.default_rng(1)
    values = np.linspace(3, 2, 400) + 0.05 * rng.standard_normal(400)
    assert row_noise(values) == pytest.approx(0.05, rel=0.15)
    assert row_noise(values[:3]) == 0.0
