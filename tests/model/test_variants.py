"""Every kind of model: causal, trained in every weight, compiled in one piece, and it learns."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from harness.model.attention import reference, sdpa
from harness.model.init import build_model
from harness.model.parametrization import WeightKind, weight_kind
from harness.model.scan import chunked, stepwise
from harness.model.settings import InitConfig, ParametrizationConfig, ParametrizationKind
from harness.model.transformer import Recurrent, convolve
from harness.shape import Mixer, ModelConfig, build_shape
from harness.training.optim import build_optimizer, clip_gradients
from harness.training.settings import OptimConfig, OptimizerKind
from tests.variants import VARIANTS

PLAIN = ModelConfig(name="t", width=32, depth=4, n_heads=4, head_dim=8, mlp_hidden=48)
CONTEXT = 24
SHORT_CHUNKS = partial(chunked, chunk=8)
each_variant = pytest.mark.parametrize("variant", VARIANTS)


def build(variant: str, kind: str = "standard", attend=sdpa, scan=SHORT_CHUNKS, **changes: object):
    shape = build_shape(replace(PLAIN, **VARIANTS.get(variant, {}), **changes), 50, CONTEXT)
    config = ParametrizationConfig(kind=ParametrizationKind(kind), base_width=16)
    model = build_model(shape, attend, InitConfig(), config, seed=0)
    for layer in model.modules():
        if isinstance(layer, Recurrent):
            layer.scan = scan
    return model


@each_variant
def test_a_position_sees_only_its_past(variant):
    model = build(variant, "complete_p")
    tokens = torch.randint(50, (2, CONTEXT))
    before = model(tokens)[:, :11]
    tokens[:, 11:] = (tokens[:, 11:] + 1) % 50
    torch.testing.assert_close(model(tokens)[:, :11], before)


@pytest.mark.parametrize(
    ("variant", "reach"), [("window", 4), ("recurrent", CONTEXT), ("looped", CONTEXT), ("hybrid", CONTEXT)]
)
def test_a_layer_reaches_as_far_as_it_should(variant, reach):
    changes = {"depth": 2 if variant == "hybrid" else 1}
    model = build(variant, **changes)
    tokens = torch.randint(50, (1, CONTEXT))
    other = tokens.clone()
    other[:, 3] = (other[:, 3] + 1) % 50
    moved = (model(tokens) - model(other)).abs().amax(-1)[0] > 1e-7
    assert moved.nonzero().squeeze(1).tolist() == list(range(3, min(3 + reach + 1, CONTEXT)))


@each_variant
def test_the_fast_paths_compute_the_specification(variant):
    tokens = torch.randint(50, (2, CONTEXT))
    fast, plain = build(variant), build(variant, attend=reference, scan=stepwise)
    torch.testing.assert_close(fast(tokens), plain(tokens), rtol=1e-4, atol=1e-4)


@each_variant
@pytest.mark.parametrize("kind", ["standard", "complete_p"])
def test_every_weight_has_a_kind_and_a_gradient(variant, kind):
    model = build(variant, kind)
    tokens = torch.randint(50, (2, CONTEXT))
    model.loss(tokens, tokens.roll(-1)).backward()
    for name, weight in model.named_parameters():
        assert weight.grad.isfinite().all(), name
        assert weight.grad.abs().sum() > 0, name
        expected = WeightKind.hidden if name.endswith(".weight") else WeightKind.channel
        if name.startswith("blocks.") and "norm" not in name:
            assert weight_kind(name, is_matrix=weight.ndim > 1) is expected, name


@each_variant
def test_computed_again_on_the_way_back_it_gives_the_same_bits(variant):
    tokens = torch.randint(50, (2, CONTEXT))
    found = []
    for checkpointing in (False, True):
        model = build(variant)
        model.activation_checkpointing = checkpointing
        loss = model.loss(tokens, tokens)
        loss.backward()
        found.append([loss.detach(), *(weight.grad for weight in model.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_looped_core_is_the_same_blocks_in_turn():
    model = build("looped_core")
    first, second, third, last = model.blocks
    assert model.unrolled() == [first, second, third, second, third, last]
    assert model.rules.depth_multiplier == 1
    assert build("looped_core", "complete_p").rules.depth_multiplier == 3  # six passes over two


def test_a_recurrence_of_one_is_the_plain_model():
    tokens = torch.randint(50, (2, CONTEXT))
    assert torch.equal(build("plain")(tokens), build("plain", recurrence=1, prelude=1, coda=1)(tokens))


def test_the_recurrent_layer_starts_as_it_says():
    layer = Recurrent(build_shape(replace(PLAIN, mixer=Mixer.recurrent), 50, CONTEXT))
    steps = torch.nn.functional.softplus(layer.step_bias)
    torch.testing.assert_close(steps, torch.logspace(-3, -1, 4))
    reach = 1 / (steps * layer.log_decay.exp())
    assert reach[0].item() == pytest.approx(1000, rel=1e-3)
    assert reach[-1].item() == pytest.approx(1 / 1.6, rel=1e-3)
    x = torch.randn(2, 9, len(layer.taps))
    torch.testing.assert_close(convolve(x, layer.taps), x)
    shift = torch.zeros(len(layer.taps), 4)
    shift[:, -2] = 1
    torch.testing.assert_close(convolve(x, shift)[:, 1:], x[:, :-1])


def test_compiled_without_a_break_it_gives_the_same_loss_and_gradients():
    model = build("hybrid", "complete_p", depth=2, recurrence=2)
    tokens = torch.randint(50, (2, CONTEXT + 1))
    compiled = torch.compile(model.loss, backend="aot_eager", fullgraph=True, dynamic=False)
    losses = [loss(tokens[:, :-1], tokens[:, 1:]) for loss in (model.loss, compiled)]
    gradients = [torch.autograd.grad(loss, list(model.parameters())) for loss in losses]
    torch.testing.assert_close(losses[1], losses[0])
    for found, expected in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("variant", "kind", "optimizer"),
    [
        ("grouped", "standard", "muon"),
        ("window_and_full", "mup", "adamw"),
        ("recurrent", "standard", "adamw"),
        ("hybrid", "complete_p", "muon"),
        ("looped_core", "complete_p", "adamw"),
    ],
)
def test_a_hundred_steps_lower_the_loss(variant, kind, optimizer):
    """Where every token has one successor."""
    model = build(variant, kind)
    optim = build_optimizer(model, OptimConfig(kind=OptimizerKind(optimizer), lr=0.01), 0.01)
    torch.manual_seed(0)
    successor, losses = torch.randperm(50), []
    for _ in range(100):
        tokens = torch.randint(50, (4, 1))
        while tokens.shape[1] <= CONTEXT:
            tokens = torch.cat((tokens, successor[tokens[:, -1:]]), dim=1)
        loss = model.loss(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        clip_gradients(model.parameters(), 1.0)
        optim.step()
        optim.zero_grad()
        losses.append(loss.item())
    assert losses[0] > 3.8
    assert max(losses[-5:]) < losses[0] / 2
