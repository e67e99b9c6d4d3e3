"""The backtest learns nothing from what it holds out, and refuses where there is nothing to hold out."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from harness.forecast.backtest import backtest, split
from harness.forecast.config import ForecastConfig
from harness.forecast.gate import Verdict
from harness.forecast.rolling import Case, Rolling
from harness.laws.tables import observations_from_table

from ..public_data import planted_sweep, public_table

CONFIG = ForecastConfig(bootstraps=50)


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
    found = backtest(planted_sweep(3, 0.003), 8.0, CONFIG)
    assert found.ensemble.error_median < 0.012
    assert set(found.weights) == {case.law for case in found.cases}
    assert sum(found.weights.values()) == pytest.approx(1)


def test_the_split_is_that_of_the_record():
    """Gadre et al. 2403.08540, RedPajama: the plain law misses by a median 1.18 % at 8x."""
    table = observations_from_table(public_table("gadre_overtrain.csv"), ["group=rpj"])
    train, held = split(table, 8.0)
    assert (len(train), len(held)) == (33, 2)
    found = backtest(table, 8.0, CONFIG)
    assert found.baseline.error_median == pytest.approx(0.0118, abs=2e-4)
    assert found.ensemble.error_median < 0.006


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
