import pytest

from harness.budget import HorizonConfig, build_horizon
from harness.errors import WrongInput
from harness.shape import ModelConfig, build_shape

SHAPE = build_shape(ModelConfig(name="t", width=32, depth=2, n_heads=2, head_dim=16, mlp_hidden=96), 1024, 32)


def test_tokens_round_to_whole_steps():
    horizon = build_horizon(HorizonConfig(batch_tokens=512, tokens=100_000), SHAPE)
    assert (horizon.steps, horizon.tokens, horizon.batch_sequences) == (195, 99_840, 16)


def test_an_isoflop_slice_spends_the_budget():
    horizon = build_horizon(HorizonConfig(batch_tokens=512, flops=1e12), SHAPE)
    assert SHAPE.training_flops(horizon.tokens) == pytest.approx(1e12, rel=512 / horizon.tokens)


def test_tokens_per_param_counts_non_embedding():
    horizon = build_horizon(HorizonConfig(batch_tokens=512, tokens_per_param=20), SHAPE)
    assert horizon.tokens == pytest.approx(20 * SHAPE.params.non_embedding, abs=256)


def test_two_horizons_are_refused():
    with pytest.raises(ValueError, match="one of tokens, flops"):
        HorizonConfig(batch_tokens=512, tokens=1, flops=1.0)


def test_no_horizon_is_refused():
    with pytest.raises(WrongInput, match=r"horizon\.tokens"):
        build_horizon(HorizonConfig(batch_tokens=512), SHAPE)


def test_less_than_half_a_step_is_refused():
    assert build_horizon(HorizonConfig(batch_tokens=512, tokens=300), SHAPE).steps == 1
    with pytest.raises(WrongInput, match="horizon is 12 tokens, less than half a step"):
        build_horizon(HorizonConfig(batch_tokens=512, flops=12.0 * SHAPE.flops_per_token.training), SHAPE)


def test_a_batch_of_broken_sequences_is_refused():
    with pytest.raises(WrongInput, match="multiple of the context"):
        build_horizon(HorizonConfig(batch_tokens=500, tokens=10_000), SHAPE)


def test_a_horizon_that_can_only_be_a_slip_is_refused():
    for horizon in ({"tokens": 10**17}, {"flops": 1e300}, {"tokens_per_param": 1e308}):
        with pytest.raises(WrongInput, match="100,000,000 are the most"):
            build_horizon(HorizonConfig(batch_tokens=512, **horizon), SHAPE)
