"""How much of the batch fits at once."""

from __future__ import annotations

from functools import cache

from harness.model.settings import CHUNK, CHUNK_LOGITS_BYTES, LossKind
from harness.shape import Layer, Mixer, ModelShape
from harness.training.optimizer_cost import FLOAT, state_bytes
from harness.training.settings import OptimizerKind


def activation_bytes_per_sequence(shape: ModelShape, loss: LossKind = LossKind.full) -> int:
    """What one sequence keeps for the backward pass, counted in float32 tensors of the model's own code.

    Every pass of a layer keeps its own: 5 tensors of the MLP's hidden size and those of its mixer. The head
    keeps the logits three times (logits, log-softmax, their gradient), or when chunked its input's gradient.
    """
    layers = sum(layer.passes * (5 * shape.mlp_hidden + mixer_floats(shape, layer)) for layer in shape.layers)
    head = 3 * shape.vocab_size if loss is LossKind.full else shape.width
    return FLOAT * (layers + head + 4 * shape.width) * shape.context


def mixer_floats(shape: ModelShape, layer: Layer) -> int:
    """What a layer keeps of a token beside its MLP's hidden units: about 14 tensors of the width (norms,
    residual sums, q, k, v before and after rotation, the attention output). A recurrent layer also keeps two
    tensors of a chunk's square for each head and, where there are several chunks, their states."""
    if layer.mixer is Mixer.attention:
        return 14 * shape.width
    chunk = min(CHUNK, shape.context)
    single = 14 * shape.width + 8 * shape.state_size + 2 * (shape.n_heads + 1) * chunk
    if shape.context <= chunk:
        return single
    return single + 3 * shape.inner + 4 * shape.state_size + 2 * shape.state_size * shape.inner // chunk


def mask_bytes(shape: ModelShape) -> int:
    """SDPA's mask of every pass of a layer with a window, shared by a micro-batch."""
    bounded = (layer for layer in shape.layers if layer.window is not None and layer.window < shape.context)
    return FLOAT * shape.context**2 * sum(layer.passes for layer in bounded)


@cache
def training_bytes(
    shape: ModelShape,
    batch_sequences: int,
    activation_gib: float,
    optimizer: OptimizerKind = OptimizerKind.adamw,
    loss: LossKind = LossKind.full,
) -> int:
    """Weights, gradients, moments and the activations of one micro-batch, in float32 whatever the precision.

    Without what Python, PyTorch and CUDA take themselves, some hundred MiB."""
    micro_batch = micro_batch_sequences(shape, batch_sequences, activation_gib, loss)
    activations = micro_batch * activation_bytes_per_sequence(shape, loss) + mask_bytes(shape)
    return state_bytes(shape, optimizer) + activations + chunk_bytes(shape, loss)


def chunk_bytes(shape: ModelShape, loss: LossKind) -> int:
    """Of a chunked loss, whatever the batch: a block of logits and a copy, and the head's gradient, kept from
    the forward pass, a block's share of it, and its product with the gradient of the loss."""
    if loss is LossKind.full:
        return 0
    return 2 * max(CHUNK_LOGITS_BYTES, FLOAT * shape.vocab_size) + 3 * FLOAT * shape.vocab_size * shape.width


def micro_batch_sequences(
    shape: ModelShape, batch_sequences: int, activation_gib: float, loss: LossKind = LossKind.full
) -> int:
    """The largest divisor of the batch whose activations fit; never less than one sequence."""
    fits = int(activation_gib * 2**30 // activation_bytes_per_sequence(shape, loss))
    return max(n for n in range(1, batch_sequences + 1) if batch_sequences % n == 0 and n <= max(1, fits))
