"""A bet along one line of (N, D): planted and public ladders, and what such runs do not say."""

from __future__ import annotations

import json

import numpy as np
import pytest

from harness.errors import CannotAnswer
from harness.forecast.backtest import backtest
from harness.forecast.config import ForecastConfig
from harness.forecast.engine import Target, build_engine
from harness.forecast.gate import Verdict
from harness.forecast.ladder import find_ladder
from harness.forecast.predict import bet_on
from harness.laws.collect import collect
from harness.laws.config import LossUnit, ParamsKind
from harness.laws.forms.ladder import LADDER, LADDER_FOURTH_ROOT, LADDER_SQUARE_ROOT
from harness.laws.observations import FLOPS_EXACT, Observations, Row
from harness.laws.tables import observations_from_table

from ..public_data import planted_sweep, public_table

CONFIG = ForecastConfig(bootstraps=50)
EXTRA = 1.15
"""FLOPs of the planted runs over 6ND, as where attention is counted."""


def chinchilla(n: float, d: float, floor: float = 1.82) -> float:
    return floor + 482 / n**0.348 + 2085 / d**0.366  # Besiroglu et al. 2404.10102


def rungs(count: int, tokens_per_param: float = 20.0, floor: float = 1.82, noise: float = 0.001) -> list[Row]:
    rng = np.random.default_rng(count)
    found = []
    for i, n in enumerate(np.geomspace(1.5e7, 4e8, count)):
        d = tokens_per_param * n
        loss = chinchilla(n, d, floor) * float(np.exp(noise * rng.standard_normal()))
        found.append(Row(name=f"rung{i}", params=n, tokens=d, flops=EXTRA * 6 * n * d, loss=loss))
    return found


def collected(rows: list[Row]) -> Observations:
    return collect(rows, ParamsKind.total, LossUnit.nats_per_token, FLOPS_EXACT)


def bet(engine, params: float, tokens: float):
    flops = engine.ladder.flops_of(params, tokens)
    return bet_on(engine, Target(params=params, tokens=tokens, flops=flops))


@pytest.mark.parametrize("tokens_per_param", [20.0, 400.0])
def test_a_target_on_the_line_is_forecast_and_one_beside_it_refused(tokens_per_param):
    engine = build_engine(collected(rungs(8, tokens_per_param)), CONFIG)
    assert engine.ladder.rungs == 8
    params, tokens = 1.2e9, tokens_per_param * 1.2e9
    found = bet(engine, params, tokens)
    assert found.target.budget == pytest.approx(EXTRA * 6 * params * tokens, rel=1e-9)
    assert found.verdict is Verdict.supported
    actual = chinchilla(params, tokens)
    assert found.loss == pytest.approx(actual, rel=0.01)
    assert found.interval[0] < actual < found.interval[1]
    said = found.to_json()
    assert said["optimum"] is None and said["regret"] is None and said["ladder"]["rungs"] == 8
    assert all(law["params"] is None for law in said["laws"])
    json.dumps(said, allow_nan=False)
    beside = bet(engine, params / 2, 2 * tokens)
    assert beside.verdict is Verdict.refused
    assert "says nothing of what lies beside it" in "; ".join(beside.reasons)


def test_the_line_itself():
    ladder = find_ladder(collected(rungs(6)))
    params, tokens = ladder.at(EXTRA * 6 * 20 * 1e9**2)
    assert params == pytest.approx(1e9) and tokens == pytest.approx(2e10)
    assert ladder.params[1] == pytest.approx(0.5) and ladder.tokens[1] == pytest.approx(0.5)
    one_size = [
        Row(name=f"{d:g}", params=1e8, tokens=d, flops=6e8 * d, loss=chinchilla(1e8, d))
        for d in np.geomspace(1e9, 1e11, 7)
    ]
    line = find_ladder(collected(one_size))
    assert line.tokens[1] == pytest.approx(1) and line.members[0].weak_prior["g"] == pytest.approx(
        (0.33, 0.05)
    )


def test_a_grid_a_single_budget_and_four_rungs_are_no_ladder():
    assert find_ladder(planted_sweep(1, 0.004)) is None
    sizes = np.geomspace(1e7, 1e9, 9)
    one_budget = [
        Row(name=f"{n:g}", params=n, tokens=1e18 / 6 / n, flops=1e18, loss=chinchilla(n, 1e18 / 6 / n))
        for n in sizes
    ]
    assert find_ladder(collected(one_budget)) is None
    fewer_tokens = [
        Row(name=f"{n:g}", params=n, tokens=1e11 / n**0.2, flops=6e11 * n**0.8, loss=3 / n**0.01)
        for n in sizes
    ]
    assert find_ladder(collected(fewer_tokens)) is None
    assert find_ladder(collected(rungs(4))) is None
    with pytest.raises(CannotAnswer, match="4 usable rows"):
        build_engine(collected(rungs(4)), CONFIG)


def test_a_ladder_whose_floor_is_zero_is_refused():
    rows = [
        Row(name=f"{n:g}", params=n, tokens=20 * n, flops=120 * n**2, loss=9 / n**0.1)
        for n in np.geomspace(1e7, 1e9, 8)
    ]
    engine = build_engine(collected(rows), CONFIG)
    found = bet(engine, 3e9, 6e10)
    assert found.verdict is Verdict.refused and "E runs to zero" in "; ".join(found.reasons)


@pytest.mark.parametrize("corpus", ["rpj", "rw_original"])
def test_five_public_rungs_say_what_a_run_of_23_times_their_compute_reaches(corpus):
    """From 10M to 1.4B parameters at 20 tokens a parameter; 6.9B (Gadre et al. 2403.08540, whose own law of N
    and D misses it by .73 % on RedPajama)."""
    rows = observations_from_table(public_table("gadre_overtrain.csv"), [f"group={corpus}"])
    line = rows.subset(np.abs(rows.tokens / rows.params / 20 - 1) < 0.1)
    found = backtest(line, 8.0, CONFIG)
    assert (found.n_train, found.n_test) == (5, 1)
    assert abs(found.ensemble.error_top) < 0.0073 and found.ensemble.coverage90 == 1
    assert found.baseline.law == "ladder" and found.verdict is Verdict.weak


def test_a_bet_far_beyond_what_the_rungs_could_test_is_refused():
    """Five sizes of an MLP (Qiu et al. 2507.02119), 17 times their compute: missed by 4 %."""
    rows = observations_from_table(public_table("supercollapse.csv"), ["group=mlp"])
    found = backtest(rows, 8.0, CONFIG)
    assert found.verdict is Verdict.refused and "could be tested up to 2.58 times" in found.reasons[0]


def test_flops_alone_are_spent_along_the_line(harness, tmp_path):
    lines = ["params_total,tokens,flops,loss"]
    lines += [f"{r.params},{r.tokens},{r.flops},{r.loss}" for r in rungs(8)]
    (tmp_path / "runs.csv").write_text("\n".join(lines))
    words = ["forecast", "runs=runs.csv", "forecast.bootstraps=50"]
    flops = EXTRA * 120 * 1.2e9**2
    asked = harness(*words, f"flops={flops}", "format=json", cwd=tmp_path)
    found = json.loads(asked.stdout)
    assert found["verdict"] == "supported" and found["optimum"] is None
    assert found["target"]["tokens"] / found["target"]["params"] == pytest.approx(20)
    said = harness(*words, "params=1.2e9", "tokens=2.4e10", "figure=f.svg", cwd=tmp_path).stdout
    assert f"loss {found['loss']:.4f}" in said and f"{flops:.3g} FLOPs" in said
    assert "which size spends its compute best they do not say" in said
    assert "<svg" in (tmp_path / "f.svg").read_text()


@pytest.mark.parametrize("form", [LADDER, LADDER_SQUARE_ROOT, LADDER_FOURTH_ROOT], ids=lambda form: form.name)
def test_derivatives_are_those_of_the_loss(form):
    values = np.array([300.0, 1.7, 0.12])
    rows = {"flops": np.array([1e17, 1e19, 1e21])}
    loss, slopes = form.evaluate(values[:, None, None], rows)
    for i, slope in enumerate(slopes):
        step = 1e-6 * values * (np.arange(3) == i)
        ahead, behind = (form.losses((values + sign * step)[None], rows)[0] for sign in (1, -1))
        assert np.broadcast_to(slope, loss.shape)[0] == pytest.approx(
            (ahead - behind) / 2 / step[i], rel=1e-5
        )
