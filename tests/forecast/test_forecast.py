"""A forecast of planted and public sweeps: right, honest about its width, refused where it must be."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from harness.errors import CannotAnswer, WrongInput
from harness.forecast.config import ForecastConfig
from harness.forecast.engine import PUBLIC_GROWTH, Target, growth
from harness.forecast.ensemble import MEMBERS
from harness.forecast.gate import Verdict
from harness.forecast.predict import Forecast, predict
from harness.forecast.rolling import FEWER_ROWS, Case, Rolling, budgets, origins, rolling_origin
from harness.laws.collect import collect
from harness.laws.config import LossUnit, ParamsKind
from harness.laws.observations import FLOPS_EXACT, Observations, Row
from harness.laws.tables import observations_from_table

from ..public_data import planted_sweep, public_table

CONFIG = ForecastConfig(bootstraps=60)
TARGET = Target(params=6.3e5, tokens=4.7e8)
TRUTH = 1.6 + 60 / 6.3e5**0.35 + 300 / 4.7e8**0.36


@pytest.fixture(scope="module")
def honest() -> Forecast:
    return predict(planted_sweep(1, 0.005), TARGET, CONFIG)


def test_an_honest_sweep_is_forecast(honest):
    assert honest.verdict is not Verdict.refused
    assert honest.interval[0] < TRUTH < honest.interval[1]
    assert honest.loss == pytest.approx(TRUTH, rel=0.03)
    assert honest.prediction.ratio == pytest.approx(6.3e5 * 4.7e8 / (2e5 * 1.5e8))


def test_the_interval_is_its_components_in_quadrature(honest):
    p = honest.prediction
    for end in p.interval:
        assert abs(math.log(end / p.loss)) == pytest.approx(math.hypot(*p.components().values()))


def test_the_json_is_finite_and_repeats(honest):
    again = predict(planted_sweep(1, 0.005), TARGET, CONFIG)
    text = json.dumps(honest.to_json(), allow_nan=False, sort_keys=True)
    assert text == json.dumps(again.to_json(), allow_nan=False, sort_keys=True)


def test_the_careless_sweep_is_refused_and_its_number_stands_only_in_the_reason():
    sweep = observations_from_table(public_table("careless_sweep.csv"), ["group=sweep"])
    forecast = predict(sweep, Target(params=844928, tokens=6397952, flops=36203604738048), CONFIG)
    assert forecast.verdict is Verdict.refused
    assert forecast.loss is None
    value = forecast.to_json()
    assert value["loss"] is None and value["interval"] is None and value["members"] is None
    number = f"{forecast.prediction.loss:.4f}"
    assert any(number in reason for reason in value["reasons"])
    assert any("E ran to zero" in reason for reason in value["reasons"])


def test_further_than_the_sweep_spans_is_refused():
    forecast = predict(planted_sweep(1, 0.005), Target(params=2e7, tokens=1e10), CONFIG)
    assert forecast.verdict is Verdict.refused
    assert any("further than the sweep spans" in reason for reason in forecast.reasons)


def test_olmo_has_no_total_parameters_but_others():
    sweep = observations_from_table(
        public_table("olmo_ladder.csv"), ["repo_role=train"], ParamsKind.non_embedding
    )
    assert len(sweep) == 16


def test_the_backtest_never_looks_ahead():
    table = planted_sweep(2, 0.004)
    backtest = rolling_origin(table, 1e-3, MEMBERS[:1])
    assert backtest.origins >= 2
    spoiled = table.loss.copy()
    spoiled[table.flops == table.flops.max()] *= 1.5
    changed = rolling_origin(Observations(**{**vars(table), "loss": spoiled}), 1e-3, MEMBERS[:1])
    for before, after in zip(backtest.cases, changed.cases, strict=True):
        shift = math.log(1.5) if table.run_ids.index(before.run_id) == len(table) - 1 else 0.0
        assert after.log_error == pytest.approx(before.log_error - shift, abs=1e-9)


def test_the_growth_is_a_median_rate_at_the_ratio_shrunk_to_the_public_record():
    assert growth(Rolling(()), 8.0, 9) == PUBLIC_GROWTH
    at_e = tuple(Case(float(i), 9, f"r{i}", math.e, 0.05, {}) for i in range(1000))
    assert growth(Rolling(at_e), math.e, 9) == pytest.approx(0.05 * 1.4826, rel=0.02)
    assert growth(Rolling(at_e[:4]), math.e, 9) == pytest.approx(math.sqrt(PUBLIC_GROWTH * 0.05 * 1.4826))
    far = tuple(replace(case, ratio=math.e**3, log_error=0.003) for case in at_e)
    both = Rolling((*at_e, *far))
    assert growth(both, math.e**3, 9) < 0.1 * growth(both, math.e, 9)


def test_origins_of_fewer_rows_than_the_sweep_err_more_than_it_will():
    few = tuple(Case(float(i), 9, f"r{i}", math.e, 0.05, {}) for i in range(1000))
    half = tuple(replace(case, n_train=18, log_error=0.05 / 2**FEWER_ROWS) for case in few)
    assert growth(Rolling(few), math.e, 36) == pytest.approx(growth(Rolling(half), math.e, 36))
    assert growth(Rolling(half), math.e, 36) < 0.7 * growth(Rolling(half), math.e, 18)


def test_the_other_convention_of_n_widens_the_interval_and_leaves_the_point(honest):
    table = planted_sweep(1, 0.005)
    body = Observations(
        **{**vars(table), "params": table.params**1.3, "params_kind": ParamsKind.non_embedding}
    )
    other = (body, Target(params=TARGET.params**1.2, tokens=TARGET.tokens))
    forecast = predict(table, TARGET, CONFIG, other)
    assert forecast.prediction.loss == honest.prediction.loss
    assert forecast.prediction.spread > honest.prediction.spread
    assert any("N non_embedding" in name for name in forecast.prediction.members)


def test_wrong_questions():
    with pytest.raises(WrongInput, match=r"target\.tokens must be a positive number"):
        Target(params=1e6, tokens=-1)
    with pytest.raises(CannotAnswer, match="usable rows cannot determine"):
        predict(planted_sweep(0, 0.0).subset(np.arange(20) < 5), TARGET, CONFIG)
    hashed = planted_sweep(0, 0.01)
    hashed = Observations(**{**vars(hashed), "corpus_hashes": ("c" * 64,) * 20})
    with pytest.raises(WrongInput, match="a law does not carry over"):
        predict(hashed, Target(params=1e6, tokens=1e8, corpus_hash="d" * 64), CONFIG)
    with pytest.raises(ValueError, match=r"forecast\.bootstraps"):
        ForecastConfig(bootstraps=3)


def test_a_backtest_starts_from_whole_budgets_and_never_from_one():
    """Cells of an isoFLOP slice differ by rounding; one slice alone cannot tell N from D."""
    flops = np.array([c * (1 + 1e-4 * i) for c in (4e11, 8e11, 1.6e12) for i in range(4)])
    assert budgets(flops) == [flops[3], flops[7], flops[11]]
    n = np.tile([2.7e4, 5.6e4, 1e5, 1.6e5], 3)
    tokens = flops / (6 * n)
    loss = 2.9 + 700 / n**0.65 + 2000 / tokens**0.6
    assert origins(observed(n, tokens, loss, flops)) == [flops[7]]


def observed(n, tokens, loss, flops) -> Observations:
    rows = [
        Row(name=f"r{i}", params=n[i], tokens=tokens[i], flops=flops[i], loss=loss[i]) for i in range(len(n))
    ]
    return collect(rows, ParamsKind.total, LossUnit.nats_per_token, FLOPS_EXACT, [])
