import math

import pytest
import torch

from harness.model.attention import sdpa
from harness.model.init import build_model
from harness.model.settings import InitConfig, ParametrizationConfig
from harness.model.transformer import rotary_tables, rotate
from harness.shape import ModelConfig, build_shape

SHAPE = build_shape(
    ModelConfig(name="t", width=32, depth=2, n_heads=4, n_kv_heads=2, head_dim=8, mlp_hidden=48), 50, 16
)
STANDARD = ParametrizationConfig()


def test_a_position_sees_only_its_past():
    model = build_model(SHAPE, sdpa, InitConfig(), STANDARD, seed=0)
    tokens = torch.randint(50, (1, 16))
    before = model(tokens)[:, :7]
    tokens[:, 7:] = (tokens[:, 7:] + 1) % 50
    torch.testing.assert_close(model(tokens)[:, :7], before)


def test_the_first_loss_is_near_uniform():
    model = build_model(SHAPE, sdpa, InitConfig(embedding_gain=0.1), STANDARD, seed=0)
    tokens = torch.randint(50, (8, 17))
    assert model.loss(tokens[:, :-1], tokens[:, 1:]).item() == pytest.approx(math.log(50), abs=0.1)


def test_equal_seeds_give_equal_weights():
    one, two, other = (build_model(SHAPE, sdpa, InitConfig(), STANDARD, seed) for seed in (0, 0, 1))
    assert torch.equal(one.blocks[0].attention.qkv.weight, two.blocks[0].attention.qkv.weight)
    assert not torch.equal(one.blocks[0].attention.qkv.weight, other.blocks[0].attention.qkv.weight)


def test_a_sequence_longer_than_the_context_is_refused():
    with pytest.raises(ValueError, match="longer than the context of 16"):
        build_model(SHAPE, sdpa, InitConfig(), STANDARD, seed=0)(torch.zeros(1, 17, dtype=torch.long))


def test_rotary_products_depend_on_distance_alone():
    cos, sin = rotary_tables(32, 8, 10000.0)
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    turned_q, turned_k = (rotate(x.expand(1, 1, 32, 8), cos, sin)[0, 0] for x in (q, k))
    products = turned_q @ turned_k.T
    for distance in (0, 3, 11):
        diagonal = products.diagonal(-distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-4, atol=1e-4)
