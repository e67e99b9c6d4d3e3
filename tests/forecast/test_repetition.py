"""A bet on more tokens than there are says so, and is asked of the laws at what its passes are worth."""

from dataclasses import replace

import numpy as np
import pytest

from harness.forecast.config import ForecastConfig
from harness.forecast.engine import Target, build_engine
from harness.forecast.gate import Verdict
from harness.forecast.predict import bet_on
from harness.forecast.repetition import PUBLISHED, Constants, repetition
from harness.laws.forms.form import predict as loss_of
from harness.laws.forms.repetition import REPETITION, worth

from ..public_data import planted_sweep

LAW = {"A": 60.0, "B": 300.0, "E": 1.6, "alpha": 0.35, "beta": 0.36, **PUBLISHED}
TARGET = Target(params=4e5, tokens=3e8)
CONFIG = ForecastConfig(bootstraps=50)


def test_what_tokens_are_worth_is_what_the_law_says():
    """The loss of the law without repetition at (N', D') is that of the law with it at (N, D)."""
    n, d, u = np.array([1e5, 3e6, 1e6]), np.array([1e9, 1e9, 4e8]), np.array([5e8, 2e7, 4e8])
    as_new_n, as_new_d = worth(LAW, n, d, u)
    plain = LAW["E"] + LAW["A"] / as_new_n ** LAW["alpha"] + LAW["B"] / as_new_d ** LAW["beta"]
    repeated = loss_of(REPETITION, LAW, {"params": n, "tokens": d, "unique_tokens": u})
    assert plain == pytest.approx(repeated, rel=1e-12)
    assert as_new_d[0] < d[0] and as_new_d[2] == d[2]


@pytest.fixture(scope="module")
def engine():
    return build_engine(planted_sweep(1, 0.002, sizes=6), CONFIG)


def test_enough_unique_tokens_change_nothing(engine):
    plain, enough = bet_on(engine, TARGET), bet_on(engine, TARGET, unique_tokens=3e8)
    assert enough.to_json() == plain.to_json() and plain.repetition is None


def test_passes_are_weak_and_cost(engine):
    plain = bet_on(engine, TARGET)
    twice = bet_on(engine, TARGET, unique_tokens=1.5e8)
    assert twice.verdict is Verdict.weak and twice.loss > plain.loss
    assert any("passes 2 times over 1.5e+08 unique tokens" in reason for reason in twice.reasons)
    assert twice.target == TARGET and twice.to_json()["repetition"]["epochs"] == 2
    ten = bet_on(engine, TARGET, unique_tokens=3e7)
    assert ten.verdict is not Verdict.supported and "passes 10 times" in " ".join(ten.reasons)
    assert ten.prediction.loss > twice.loss


def test_runs_that_repeat_and_do_not_say_what_it_costs_count_tokens_as_new():
    sweep = planted_sweep(1, 0.002, sizes=6)
    twice = replace(sweep, unique_tokens=np.minimum(sweep.tokens, np.median(sweep.tokens)))
    engine = build_engine(twice, CONFIG)
    found = bet_on(engine, TARGET, unique_tokens=1e8)
    if found.repetition.constants is Constants.none:
        assert found.prediction.loss == bet_on(engine, TARGET).prediction.loss
    assert any("passes 3 times" in reason for reason in found.reasons)


def test_runs_that_determine_the_worth_of_a_pass_are_believed():
    sweep = planted_sweep(2, 0.0, sizes=6)
    unique = np.where(np.arange(len(sweep)) % 2, sweep.tokens, sweep.tokens / 12)
    loss = loss_of(REPETITION, {**LAW, "R_D*": 4.0}, {**sweep.columns, "unique_tokens": unique})
    noise = 1 + 0.002 * np.random.default_rng(0).standard_normal(len(sweep))
    worn = replace(sweep, unique_tokens=unique, loss=loss * noise)
    engine = build_engine(worn, CONFIG)
    found = bet_on(engine, TARGET, unique_tokens=5e7)
    assert found.repetition is not None and found.repetition.constants is Constants.fitted
    exact = repetition(TARGET, 5e7, ({**LAW, "R_D*": 4.0}, Constants.fitted))
    assert found.repetition.tokens_worth == pytest.approx(exact.tokens_worth, rel=0.1)
    assert any("by constants of these runs" in reason for reason in found.reasons)
    unsaid = bet_on(engine, TARGET)
    assert any("give unique_tokens=" in reason for reason in unsaid.reasons)
