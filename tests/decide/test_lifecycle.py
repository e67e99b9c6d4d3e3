"""Published figures of the lifetime of a model, and the identities behind them."""

from __future__ import annotations

import pytest

from harness.decide.lifecycle import (
    Life,
    LossLaw,
    compute_optimal,
    implied_ratio,
    lifetime_optimal,
    overtraining,
    planned,
    regret,
    saving,
    shrink,
    use_of,
)
from harness.errors import CannotAnswer, WrongInput

SARDANA = LossLaw(406.4, 410.7, 1.69, 0.336, 0.283)
"""The constants of Sardana et al. 2401.00448: Hoffmann's with exponents to three digits."""
ROUNDED = LossLaw(406.4, 410.7, 1.69, 0.34, 0.28)
EPOCH = LossLaw(482.01, 2085.43, 1.8172, 0.3478, 0.3658)


def quality(params: float) -> float:
    """The loss of the compute-optimal model of that size."""
    return SARDANA.loss(params, SARDANA.optimal_tokens(params))


def test_seven_billion_instead_of_thirteen():
    """13B quality and 2e12 tokens of inference: 17.45 % of the FLOPs less; the paper says 17 %."""
    loss = quality(13e9)
    assert loss == pytest.approx(2.04528, abs=5e-6)
    assert SARDANA.optimal_tokens(13e9) == pytest.approx(5.765e11, rel=1e-4)
    seven = Life(7e9, SARDANA.tokens_for(loss, 7e9), use_of(2e12))
    assert saving(SARDANA, loss, seven) == pytest.approx(0.1745, abs=5e-5)
    spared = compute_optimal(SARDANA, loss, use_of(2e12)).flops - seven.flops
    assert spared == pytest.approx(1.692e22, rel=3e-4)


@pytest.mark.parametrize(
    "size, inference, params, tokens, saved",
    [
        (13e9, 2e12, 6.969e9, 1.248e12, 0.1745),
        (1e9, 5e10, 6.325e8, 4.676e10, 0.0901),
        (70e9, 1e13, 4.155e10, 7.923e12, 0.1195),
    ],
)
def test_lifetime_optimum(size, inference, params, tokens, saved):
    loss = quality(size)
    best = lifetime_optimal(SARDANA, loss, use_of(inference))
    assert best.params == pytest.approx(params, rel=2e-4)
    assert best.tokens == pytest.approx(tokens, rel=2e-4)
    assert saving(SARDANA, loss, best) == pytest.approx(saved, abs=5e-5)
    assert SARDANA.loss(best.params, best.tokens) == pytest.approx(loss, rel=1e-12)
    for factor in (0.999, 1.001):
        near = best.params * factor
        assert Life(near, SARDANA.tokens_for(loss, near), use_of(inference)).flops > best.flops


def test_without_use_the_lifetime_optimum_is_the_compute_optimum():
    loss = quality(1e9)
    assert lifetime_optimal(SARDANA, loss, 0.0).params == pytest.approx(1e9, rel=1e-12)
    assert lifetime_optimal(SARDANA, loss, 1.0).params == pytest.approx(1e9, rel=1e-6)


@pytest.mark.parametrize(
    "size_factor, data_factor, overhead",
    [
        (0.75, 1.3713, 0.0285),
        (0.5, 2.4156, 0.2078),
        (0.4, None, 0.437),
        (0.3, 6.8522, 1.056),
        (0.25, None, 1.889),
    ],
)
def test_de_vries_overhead(size_factor, data_factor, overhead):
    found = shrink(SARDANA, size_factor)
    if data_factor:
        assert found.data_factor == pytest.approx(data_factor, abs=5e-5)
    assert found.compute == pytest.approx(overhead, abs=5e-4 if overhead > 0.3 else 5e-5)


def test_de_vries_formula_with_its_amplitudes():
    """k_D = (1 - (k_N^-a - 1) (A/B) G^(-a-b))^(-1/b): the amplitudes cancel."""
    law = SARDANA
    g = (law.alpha * law.A / (law.beta * law.B)) ** (1 / (law.alpha + law.beta))
    inner = (0.5**-law.alpha - 1) * law.A / law.B * g ** (-law.alpha - law.beta)
    assert shrink(law, 0.5).data_factor == pytest.approx((1 - inner) ** (-1 / law.beta), rel=1e-12)


def test_a_shrunk_model_reaches_the_same_loss():
    loss, found = quality(1e9), shrink(SARDANA, 0.5)
    tokens = SARDANA.optimal_tokens(1e9) * found.data_factor
    assert SARDANA.loss(0.5e9, tokens) == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize(
    "law, twice, thrice, digit, hundredfold",
    [(EPOCH, 6.65, 20.15, 0.01, 5.39), (ROUNDED, 11.9, 50.6, 0.1, 3.63)],
)
def test_overtraining_by_lifetime_ratio(law, twice, thrice, digit, hundredfold):
    assert overtraining(law, 2) == pytest.approx(twice, abs=digit / 2)
    assert overtraining(law, 3) == pytest.approx(thrice, abs=digit / 2)
    assert implied_ratio(law, 100) == pytest.approx(hundredfold, abs=5e-3)


@pytest.mark.parametrize("size", [1e8, 1e11])
def test_overtraining_is_that_of_the_lifetime_optimum(size):
    """The closed form against the numeric optimum, at two sizes."""
    loss = quality(size)
    best = lifetime_optimal(SARDANA, loss, use_of(10 * SARDANA.optimal_tokens(size)))
    factor = best.tokens / SARDANA.optimal_tokens(best.params)
    assert factor == pytest.approx(overtraining(SARDANA, best.ratio), rel=1e-9)


def test_regret_of_equal_thirds():
    """Zero where the plan is right, positive where use is rarer or more frequent than planned."""
    loss = quality(1e10)
    plan = planned(SARDANA, loss, 3.0, 0.0)
    right = 2 * plan.training_flops / plan.params
    assert regret(SARDANA, loss, 3.0, right) == pytest.approx(0, abs=1e-9)
    assert regret(SARDANA, loss, 3.0, right / 20) > 0.05
    assert regret(SARDANA, loss, 3.0, right * 20) > 0.05
    assert regret(SARDANA, loss, 1.0, 0.0) == pytest.approx(0, abs=1e-12)


def test_what_cannot_be_reached():
    with pytest.raises(CannotAnswer, match="below the irreducible"):
        lifetime_optimal(SARDANA, 1.6, 1.0)
    with pytest.raises(CannotAnswer, match="do not reach a loss"):
        SARDANA.tokens_for(1.8, 1e6)
    with pytest.raises(CannotAnswer, match="never reaches"):
        shrink(SARDANA, 0.01)
    with pytest.raises(WrongInput, match="positive A, B, E, alpha, beta"):
        LossLaw.of({"A": 1.0})
    with pytest.raises(WrongInput, match="at least that of pre-training"):
        overtraining(SARDANA, 0.5)
