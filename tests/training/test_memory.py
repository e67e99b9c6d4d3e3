import pytest
import torch

from harness.commands.train import Settings
from harness.config import compose_all
from harness.errors import WrongInput
from harness.model.attention import sdpa
from harness.model.init import build_model
from harness.model.loss import LossOf
from harness.model.loss import chunked as chunked_loss
from harness.model.loss import full as full_loss
from harness.model.settings import (
    CHUNK_LOGITS_BYTES,
    GPU_CHUNK_LOGITS_BYTES,
    InitConfig,
    LossKind,
    ParametrizationConfig,
)
from harness.shape import ModelConfig, build_shape
from harness.training.cell import read_cell
from harness.training.fitting import memory_of
from harness.training.memory import (
    Place,
    activation_bytes_per_sequence,
    chunk_bytes,
    fit_micro_batch,
    mask_bytes,
    micro_batch_sequences,
    training_memory,
)
from harness.training.settings import OptimizerKind
from kernels.linear_cross_entropy.sweep import BLOCK_BYTES, GPU_BLOCK_BYTES
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


def test_on_a_gpu_a_chunk_of_logits_is_no_larger_than_the_batch():
    of_head = 3 * 4 * SHAPE.vocab_size * SHAPE.width
    few, many = (chunk_bytes(SHAPE, LossKind.chunked, sequences) for sequences in (2, 10**6))
    assert few == 2 * 4 * 2 * SHAPE.context * SHAPE.vocab_size + of_head
    assert many == 2 * GPU_CHUNK_LOGITS_BYTES + of_head


def test_a_chunked_loss_keeps_the_gradient_of_the_head_and_no_logits():
    kept = saved_bytes(SHAPE, sequences=2, loss=chunked_loss)
    head_gradient = 4 * SHAPE.vocab_size * SHAPE.width
    estimated = 2 * activation_bytes_per_sequence(SHAPE, LossKind.chunked)
    assert kept - head_gradient == pytest.approx(estimated, rel=0.15)
    full, chunked = (
        micro_batch_sequences(SHAPE, 64, 0.04, kind) for kind in (LossKind.full, LossKind.chunked)
    )
    assert full < chunked
    assert (CHUNK_LOGITS_BYTES, GPU_CHUNK_LOGITS_BYTES) == (BLOCK_BYTES, GPU_BLOCK_BYTES)


def saved_bytes(shape, sequences: int, loss: LossOf = full_loss) -> int:
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


def test_a_weight_takes_sixteen_bytes_and_the_share_of_a_shard_less():
    memory = training_memory(SHAPE, 1)
    assert memory.weights + memory.gradients + memory.moments == 16 * SHAPE.params.total
    shard = training_memory(SHAPE, 1, place=Place(sharded=True, processes=4))
    assert shard.moments == memory.moments // 4
    assert shard.activations == memory.activations
    assert memory.total == sum(vars(memory).values())


def test_layers_that_are_computed_again_keep_less():
    plain = activation_bytes_per_sequence(SHAPE)
    again = activation_bytes_per_sequence(SHAPE, checkpointing=True)
    assert 1e6 < again < plain
    place = Place(checkpointing=True)
    assert training_memory(SHAPE, 16, place=place).total < training_memory(SHAPE, 16).total
    assert micro_batch_sequences(SHAPE, 64, 0.1, checkpointing=True) > micro_batch_sequences(SHAPE, 64, 0.1)


def test_the_micro_batch_is_fitted_to_the_memory_there_is():
    def fit(gib: float) -> int:
        return fit_micro_batch(SHAPE, 48, gib, OptimizerKind.adamw, LossKind.full, Place())

    assert fit(64.0) == 48
    for gib in (0.6, 0.8, 1.0):
        count = fit(gib)
        assert training_memory(SHAPE, count, 48 // count).needed <= gib * 2**30
        larger = min(n for n in (*range(count + 1, 49), 48) if 48 % n == 0)
        assert count == 48 or training_memory(SHAPE, larger, 48 // larger).needed > gib * 2**30
    with pytest.raises(WrongInput, match=r"one sequence of 256 tokens takes about 0\.5"):
        fit(0.1)


def test_the_demo_takes_its_batches_whole():
    for model in ("27k", "160k"):
        one = [f"model={model}", "experiment=demo", "horizon.tokens=1_000_000", "sweep=none"]
        settings = compose_all("train", Settings, [[*one, "horizon.flops=null"]])[0]
        shape = build_shape(settings.model, 1024, settings.context)
        assert micro_batch_sequences(shape, 16, settings.hardware.activation_gib) == 16


def test_the_estimate_is_within_15_percent_of_a_fresh_process(harness, planned_run, tmp_path):
    run = planned_run("model=160k", "horizon.tokens=16_384", "context=256", "horizon.batch_tokens=8192")
    done = harness("train", f"cell='{run.path}'", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    memory = memory_of(read_cell(run))
    assert memory.total == pytest.approx(run.record().peak_memory_bytes, rel=0.15)
    assert memory.total - memory.process > 0.15 * memory.total  # so that the model's part is seen
