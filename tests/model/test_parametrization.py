"""The rules of arXiv:2505.01618, table 1, and that the model is built and run by them."""

from dataclasses import replace

import pytest
import torch

from harness.model.attention import sdpa
from harness.model.init import build_model
from harness.model.parametrization import Multipliers, WeightKind, parametrize, weight_kind
from harness.model.settings import InitConfig, ParametrizationConfig, ParametrizationKind
from harness.shape import ModelConfig, build_shape

BASE = ModelConfig(name="base", width=64, depth=2, n_heads=4, n_kv_heads=2, head_dim=16, mlp_hidden=176)
LARGE = replace(BASE, width=256, depth=6, n_heads=16, n_kv_heads=8, mlp_hidden=704)
M_D, M_L = 4, 3


def rules_of(kind: str, model: ModelConfig = LARGE, alpha: float = 1.0):
    config = ParametrizationConfig(kind=ParametrizationKind(kind), depth_exponent=alpha)
    return parametrize(config, build_shape(model, 300, 16))


def build(kind: str, model: ModelConfig = LARGE, **changes: object):
    config = ParametrizationConfig(kind=ParametrizationKind(kind))
    shape = build_shape(replace(model, **changes), 300, 16)
    return build_model(shape, sdpa, InitConfig(), config, seed=0)


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_complete_p_is_table_1(alpha):
    rules = rules_of("complete_p", alpha=alpha)
    assert (rules.width_multiplier, rules.depth_multiplier) == (M_D, M_L)
    assert rules.residual == pytest.approx(M_L**-alpha)
    assert rules.readout == pytest.approx(1 / M_D)
    assert rules.attention == 1 / 16
    depth, eps = M_L ** (alpha - 1), M_L**-alpha / M_D
    expected = {
        WeightKind.hidden: (depth / M_D, M_D, eps),
        WeightKind.block_norm: (depth, 1, eps),
        WeightKind.final_norm: (1, 1, eps),
        WeightKind.embedding: (1, 1, eps),
        WeightKind.readout: (1, 1, eps),
    }
    for kind, (lr, decay, epsilon) in expected.items():
        found = rules.multipliers(kind)
        assert (found.lr, found.weight_decay, found.eps) == pytest.approx((lr, decay, epsilon)), kind


def test_mup_is_complete_p_without_the_depth():
    mup, shallow = rules_of("mup"), rules_of("complete_p", replace(LARGE, depth=2))
    assert mup.residual == shallow.residual == 1
    assert (mup.readout, mup.attention) == (shallow.readout, shallow.attention)
    for kind in WeightKind:
        assert mup.multipliers(kind) == shallow.multipliers(kind)


def test_standard_multiplies_nothing():
    rules = rules_of("standard")
    assert (rules.residual, rules.readout, rules.attention) == (1, 1, 1 / 4)
    assert {rules.multipliers(kind) for kind in WeightKind} == {Multipliers(1, 1, 1)}


@pytest.mark.parametrize("kind", ["mup", "complete_p"])
def test_at_the_base_shape_only_the_scale_of_attention_differs(kind):
    standard, other = (build(k, BASE, tied_embeddings=False) for k in ("standard", kind))
    for (name, expected), found in zip(standard.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(expected, found), name
    assert replace(other.rules, attention=standard.rules.attention) == standard.rules
    assert other.rules.attention == standard.rules.attention / 4


INIT_STD = {  # width 256, depth 6, gains of one; the base has width 64 and depth 2
    "standard": {"embedding": 1 / 16, "head": 1 / 16, "qkv": 1 / 16, "out": 1 / 16 / 12**0.5},
    "mup": {"embedding": 1 / 8, "head": 1 / 8, "qkv": 1 / 8 / M_D**0.5, "out": 1 / 16 / 12**0.5},
    "complete_p": {"embedding": 1 / 8, "head": 1 / 8, "qkv": 1 / 8 / M_D**0.5, "out": 1 / 8 / M_D**0.5 / 2},
}


@pytest.mark.parametrize("kind", INIT_STD)
def test_weights_start_as_the_rules_say(kind):
    model = build(kind, tied_embeddings=False)
    attention, mlp = model.blocks[3].attention, model.blocks[3].mlp
    expected = INIT_STD[kind]
    ratio = (256 / 704) ** 0.5  # of the fan-ins of `out` and `down`
    for weight, std in (
        (model.embedding.weight, expected["embedding"]),
        (model.head.weight, expected["head"]),
        (attention.qkv.weight, expected["qkv"]),
        (mlp.gate_up.weight, expected["qkv"]),
        (attention.out.weight, expected["out"]),
        (mlp.down.weight, expected["out"] * ratio),
    ):
        assert weight.std().item() == pytest.approx(std, rel=0.02)


def test_every_weight_has_a_kind_and_a_strange_one_is_refused():
    model = build("complete_p", tied_embeddings=False)
    kinds = {name: weight_kind(name, is_matrix=w.ndim > 1) for name, w in model.named_parameters()}
    assert kinds["embedding.weight"] is WeightKind.embedding
    assert kinds["head.weight"] is WeightKind.readout
    assert kinds["norm.weight"] is WeightKind.final_norm
    in_blocks = [name for name in kinds if name.startswith("blocks.")]
    assert len(in_blocks) == len(kinds) - 3
    for name in in_blocks:
        assert kinds[name] is (WeightKind.block_norm if "norm" in name else WeightKind.hidden)
    assert "head.weight" not in dict(build("complete_p").named_parameters())  # tied: one weight, one kind
    with pytest.raises(ValueError, match=r"position\.weight"):
        weight_kind("position.weight", is_matrix=True)


def test_the_model_scales_attention_branches_and_logits():
    tokens = torch.randint(300, (2, 16))
    seen: list[float] = []

    def attend(q, k, v, scale, window):
        seen.append(scale)
        return sdpa(q, k, v, scale, window)

    shape = build_shape(replace(LARGE, depth=1), 300, 16)
    rules = ParametrizationConfig(kind=ParametrizationKind.complete_p, base_depth=3)
    model = build_model(shape, attend, InitConfig(), rules, seed=0)
    block, start = model.blocks[0], model.embedding(tokens)
    torch.nn.init.zeros_(block.mlp.down.weight)
    rotary = (model.cos_Td, model.sin_Td)
    branch = block.attention(block.attention_norm(start), rotary)
    torch.testing.assert_close(block(start, rotary), start + 3 * branch)  # depth 1 of a base of 3
    torch.testing.assert_close(model(tokens), model.norm(start + 3 * branch) @ model.head.weight.T / M_D)
    assert set(seen) == {1 / 16}


def test_compiled_without_a_break_it_gives_the_same_loss_and_gradients():
    model = build("complete_p", replace(BASE, width=32, n_heads=2, n_kv_heads=1, depth=3))
    tokens = torch.randint(300, (2, 17))
    compiled = torch.compile(model.loss, backend="aot_eager", fullgraph=True, dynamic=False)
    losses = [loss(tokens[:, :-1], tokens[:, 1:]) for loss in (model.loss, compiled)]
    torch.testing.assert_close(losses[1], losses[0])
    gradients = [torch.autograd.grad(loss, list(model.parameters())) for loss in losses]
    for found, expected in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(found, expected)
