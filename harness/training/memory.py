"""How much of the batch fits at once."""

from __future__ import annotations

from functools import cache

from harness.shape import ModelShape

FLOAT = 4
STATE_TENSORS = 4
"""Of the size of the weights: the weights, their gradients and AdamW's two moments."""


def activation_bytes_per_sequence(shape: ModelShape) -> int:
    """What one sequence keeps for the backward pass, counted in float32 tensors of the model's own code.

    A block keeps about 14 tensors of the width (norms, residual sums, q, k, v before and after rotation,
    the attention output) and 5 of the MLP's hidden size; the head keeps the logits three times (logits,
    log-softmax, their gradient).
    """
    per_token = (
        shape.depth * (14 * shape.width + 5 * shape.mlp_hidden) + 3 * shape.vocab_size + 4 * shape.width
    )
    return FLOAT * per_token * shape.context


@cache
def training_bytes(shape: ModelShape, batch_sequences: int, activation_gib: float) -> int:
    """Weights, gradients, moments and the activations of one micro-batch, in float32 whatever the precision.

    Without what Python, PyTorch and CUDA take themselves, some hundred MiB."""
    micro_batch = micro_batch_sequences(shape, batch_sequences, activation_gib)
    state = STATE_TENSORS * FLOAT * shape.params.total
    return state + micro_batch * activation_bytes_per_sequence(shape)


def micro_batch_sequences(shape: ModelShape, batch_sequences: int, activation_gib: float) -> int:
    """The largest divisor of the batch whose activations fit; never less than one sequence."""
    fits = int(activation_gib * 2**30 // activation_bytes_per_sequence(shape))
    return max(n for n in range(1, batch_sequences + 1) if batch_sequences % n == 0 and n <= max(1, fits))
