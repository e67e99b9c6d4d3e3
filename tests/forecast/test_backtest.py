"""The backtest learns nothing from what it holds out, and refuses where there is nothing to hold out."""

from __future__ import annotations

import json
import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from harness.forecast.allocation import best_allocation, regret, runner_up
from harness.forecast.backtest import backtest
from harness.forecast.config import ForecastConfig
from harness.forecast.engine import Target, build_engine
from harness.forecast.ensemble import MEMBERS, excess, fit_ensemble, near_best
from harness.forecast.gate import Verdict
from harness.forecast.predict import predict
from harness.forecast.rolling import Case, Rolling
from harness.laws.collect import collect
from harness.laws.config import LossUnit, ParamsKind
from harness.laws.conventions import SIX_ND
from harness.laws.observations import FLOPS_EXACT, Observations, Row
from harness.laws.tables import observations_from_table

from ..public_data import planted_sweep, public_table

CONFIG = ForecastConfig(bootstraps=50)


def sharp_sweep(k: float) -> Observations:
    """IsoFLOP slices, five sizes a budget over four decades, of a law whose slices are sharper the smaller k
    is; with k = 1 it is the plain law."""
    budgets, offsets = np.geomspace(1e15, 1e19, 9), np.linspace(-0.8, 0.8, 5)
    flops = np.repeat(budgets, len(offsets))
    n = np.sqrt(flops / 120) * np.exp(np.tile(offsets, len(budgets)))
    d = flops / 6 / n
    size, data = 60 / n**0.28, 140 / d**0.28
    rng = np.random.default_rng(5)
    loss = (1.5 + (size ** (1 / k) + data ** (1 / k)) ** k) * np.exp(0.001 * rng.standard_normal(len(n)))
    rows = [
        Row(name=f"run{i}", params=n[i], tokens=d[i], flops=flops[i], loss=loss[i]) for i in range(len(n))
    ]
    return collect(rows, ParamsKind.total, LossUnit.nats_per_token, FLOPS_EXACT)


def test_slices_sharper_than_the_plain_law_can_draw_do_not_spoil_the_bet():
    """The plain law bends its frontier to follow the slices; a law with a sharpness of its own does not."""
    sharp = backtest(sharp_sweep(0.2), 8.0, CONFIG)
    assert sharp.baseline.error_median > 0.01
    assert sharp.ensemble.error_median < sharp.baseline.error_median / 4
    plain = backtest(sharp_sweep(1.0), 8.0, CONFIG)
    assert plain.ensemble.error_median < 0.006


def test_losses_held_out_change_the_errors_and_nothing_else():
    sweep = planted_sweep(3, 0.003)
    before = backtest(sweep, 8.0, CONFIG).to_json()
    held = sweep.flops >= sweep.flops.max() / 2
    spoiled = replace(sweep, loss=np.where(held, 1.3 * sweep.loss, sweep.loss))
    after = backtest(spoiled, 8.0, CONFIG).to_json()
    for name in ("weights", "rolling", "verdict", "reasons", "n_train", "n_test"):
        assert after[name] == before[name]
    for one, other in zip(before["points"], after["points"], strict=True):
        assert one["predicted"] == other["predicted"] and one["interval"] == other["interval"]
        assert other["error"] == pytest.approx((1 + one["error"]) / 1.3 - 1)
    json.dumps(before, allow_nan=False)


def test_a_planted_law_is_predicted_within_its_noise():
    found = backtest(planted_sweep(3, 0.003, sizes=4), 8.0, CONFIG)
    assert found.ensemble.error_median < 0.012
    assert set(found.weights) == {case.law for case in found.cases}
    assert sum(found.weights.values()) == pytest.approx(1)


PORIAN = "porian_isoflop.csv", "group=rw|base|warmup_short|decay_chinchilla|count_standard|val"

# Table, filter, rows fitted and held out, median |error| at 8x: of the plain law, of the bet.
RECORD = [
    ("chinchilla_epoch.csv", "excluded_by_epoch=0", 224, 1, 0.0288, 0.0125),
    ("gadre_overtrain.csv", "group=rpj", 33, 2, 0.0118, 0.0045),
    ("gadre_overtrain.csv", "group=rw_original", 32, 2, 0.0144, 0.0031),
    (*PORIAN, 62, 11, 0.0427, 0.0037),
]


@pytest.mark.parametrize(("file", "where", "n_train", "n_test", "plain", "bet"), RECORD)
def test_the_record_at_eight_times_the_compute(file, where, n_train, n_test, plain, bet):
    """Rows of 2404.10102, 2403.08540 and 2406.19146."""
    found = backtest(observations_from_table(public_table(file), [where]), 8.0, CONFIG)
    assert (found.n_train, found.n_test) == (n_train, n_test)
    assert found.baseline.error_median == pytest.approx(plain, abs=1e-4)
    assert found.ensemble.error_median == pytest.approx(bet, abs=3e-4)
    assert found.ensemble.coverage90 == 1
    assert found.verdict is Verdict.supported


def test_one_budget_holds_nothing_out():
    sweep = planted_sweep(1, 0.005)
    one = replace(sweep, flops=np.full(len(sweep), 1e15))
    found = backtest(one, 8.0, CONFIG)
    assert found.verdict is Verdict.refused
    assert found.ensemble is None
    assert "8 times less compute" in found.reasons[0]


def test_weights_follow_the_errors_at_the_ratio_of_the_bet_and_shrink_to_equal():
    def at(ratio: float, good: float, bad: float, origin: float) -> Case:
        return Case(origin, 9, "r", ratio, 0.0, {"good": good, "bad": bad})

    assert Rolling(()).weights(("good", "bad"), 8.0) == {"good": 0.5, "bad": 0.5}
    few = Rolling((at(8.0, 0.001, 0.02, 1.0),)).weights(("good", "bad"), 8.0)
    many = Rolling(tuple(at(8.0, 0.001, 0.02, float(i)) for i in range(40))).weights(("good", "bad"), 8.0)
    assert 0.5 < few["good"] < 0.65 < many["good"] < 1
    far = Rolling(tuple(at(1.5, 0.02, 0.001, float(i)) for i in range(40)))
    near = Rolling((*far.cases, *(at(8.0, 0.001, 0.02, float(i)) for i in range(40))))
    assert near.weights(("good", "bad"), 8.0)["good"] > near.weights(("good", "bad"), 1.5)["good"]


def gate_reasons(sweep, target) -> tuple[Verdict, str]:
    found = predict(sweep, target, CONFIG)
    return found.verdict, "; ".join(found.reasons)


def test_a_floor_of_zero_is_refused_with_its_number_in_the_reason():
    sweep = planted_sweep(0, 0.002, sizes=6, law=(20.0, 40.0, 0.0, 0.2, 0.2))
    verdict, reasons = gate_reasons(sweep, Target(params=4e5, tokens=3e8))
    assert verdict is Verdict.refused
    assert "zero" in reasons and "do not bet on it" in reasons


def test_a_single_budget_is_refused():
    sweep = planted_sweep(1, 0.004)
    tokens = 1e14 / 6 / sweep.params
    loss = 1.6 + 60 / sweep.params**0.35 + 300 / tokens**0.36
    one = replace(sweep, tokens=tokens, flops=np.full(len(sweep), 1e14), loss=loss)
    verdict, reasons = gate_reasons(one, Target(params=4e5, tokens=3e8))
    assert verdict is Verdict.refused and "only 1 distinct budget of compute" in reasons


def test_runs_that_repeat_their_data_are_named():
    sweep = planted_sweep(1, 0.004)
    target = Target(params=4e5, tokens=3e8)
    assert "pass over their data" not in gate_reasons(sweep, target)[1]
    twice = replace(sweep, unique_tokens=sweep.tokens / 2)
    few = gate_reasons(twice, target)[1]
    assert "up to 2 times" in few and "leave them out" not in few
    worn = replace(sweep, unique_tokens=np.minimum(sweep.tokens, sweep.tokens.max() / 8))
    verdict, reasons = gate_reasons(worn, target)
    assert verdict is not Verdict.supported and "more than 4 times, up to 8 times" in reasons


def test_one_law_alone_has_no_spread_and_a_finite_interval():
    sweep, target = planted_sweep(1, 0.004), Target(params=4e5, tokens=3e8)
    found = build_engine(sweep, CONFIG, MEMBERS[:1]).predict([target])[0]
    assert found.spread == 0 and found.interval[0] < found.loss < found.interval[1]


def test_the_members_see_the_rows_near_the_best_of_their_budget():
    flops = np.array([1e18, 1.1e18, 1e19, 1.1e19])
    loss = np.array([3.0, 3.3, 2.5, 2.51])
    assert excess(flops, loss) == pytest.approx([0, math.log(1.1), 0, math.log(2.51 / 2.5)])
    sweep = planted_sweep(0, 0.0)
    assert near_best(sweep, 1e-6).sum() >= 9  # widened until a law can be fitted


def test_ten_thousand_rows_are_not_compared_all_at_once():
    many = np.geomspace(1e18, 1e22, 10_000)
    tracemalloc.start()
    excess(many, many**-0.05)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_the_wrong_size_costs_what_the_right_law_says_and_no_budget_is_left_unspent():
    ensemble = fit_ensemble(planted_sweep(2, 0.003), 1e-3)
    best = best_allocation(ensemble, 1e15, SIX_ND)
    assert 6 * best.params * best.tokens == pytest.approx(1e15)
    nearby = best.params * np.array([0.9, 1.1])
    assert (ensemble.log_loss({"params": nearby, "tokens": 1e15 / 6 / nearby}) > math.log(best.loss)).all()
    lost = regret(ensemble, 1e15, SIX_ND)
    assert lost.loss >= 0 and 0 <= lost.compute_share < 1
    first, second = runner_up(ensemble)
    assert lost.true == ensemble.names[first] and lost.chosen == ensemble.names[second]
    alone = replace(ensemble, members=ensemble.members[:1], solutions=ensemble.solutions[:1])
    assert regret(alone, 1e15, SIX_ND) is None
