import pytest
import torch

from harness.model.attention import sdpa
from harness.model.init import build_model
from harness.model.settings import CHUNK_LOGITS_BYTES, InitConfig, LossKind, ParametrizationConfig
from harness.shape import ModelConfig, build_shape
from harness.training.memory import activation_bytes_per_sequence, mask_bytes, micro_batch_sequences
from kernels.linear_cross_entropy import BLOCK_BYTES
from tests.variants import VARIANTS

SHAPE = build_shape(
    ModelConfig(name="t", width=64, depth=2, n_heads=4, head_dim=16, mlp_hidden=176), 1024, 256
)


def test_the_micro_batch_divides_the_batch_and_fits():
    one = activation_bytes_per_sequence(SHAPE)
    for batch in (1, 7, 12, 64):
        micro = micro_batch_sequences(SHAPE, batch, activation_gib=5 * one / 2**30)
        assert batch % micro == 0
        assert micro <= 5


def test_everything_fits_in_plenty_and_one_sequence_always_runs():
    assert micro_batch_sequences(SHAPE, 48, activation_gib=100.0) == 48
    assert micro_batch_sequences(SHAPE, 48, activation_gib=1e-9) == 1


@pytest.mark.parametrize("context", [32, 160])
@pytest.mark.parametrize("variant", ["window", "recurrent", "looped_hybrid"])
def test_activations_are_estimated_within_15_percent(variant, context):
    changes = {"depth": 4, "width": 64, "n_heads": 4, "head_dim": 16, "mlp_hidden": 176}
    shape = build_shape(ModelConfig(name="t", **{**changes, **VARIANTS[variant]}), 256, context)
    estimated = 2 * activation_bytes_per_sequence(shape) + mask_bytes(shape)
    assert estimated == pytest.approx(saved_bytes(shape, sequences=2), rel=0.15)


def test_a_chunked_loss_keeps_the_gradient_of_the_head_and_no_logits():
    kept = saved_bytes(SHAPE, sequences=2, loss=LossKind.chunked)
    head_gradient = 4 * SHAPE.vocab_size * SHAPE.width
    estimated = 2 * activation_bytes_per_sequence(SHAPE, LossKind.chunked)
    assert kept - head_gradient == pytest.approx(estimated, rel=0.15)
    full, chunked = (micro_batch_sequences(SHAPE, 64, 0.04, kind) for kind in LossKind)
    assert full < chunked
    assert CHUNK_LOGITS_BYTES == BLOCK_BYTES


def saved_bytes(shape, sequences: int, loss: LossKind = LossKind.full) -> int:
    """Of every tensor that autograd keeps for the backward pass, weights left out."""
    model = build_model(shape, sdpa, InitConfig(), ParametrizationConfig(), seed=0, loss=loss)
    weights = {weight.data_ptr() for weight in model.parameters()}
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    tokens = torch.randint(shape.vocab_size, (sequences, shape.context))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.loss(tokens, tokens)
    return sum(storage.nbytes() for pointer, storage in kept.items() if pointer not in weights)
