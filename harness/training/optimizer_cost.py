"""What an optimizer takes beside the model's own passes. No torch."""

from __future__ import annotations

from harness.shape import ModelShape
from harness.training.settings import OptimizerKind

FLOAT = 4
ADAMW_TENSORS = 4
"""Of the size of a weight: itself, its gradient and two moments."""
NEWTON_SCHULZ_STEPS = 5


def state_bytes(shape: ModelShape, optimizer: OptimizerKind) -> int:
    """Weights, gradients and moments in float32. Muon keeps one moment of a hidden matrix, not two."""
    hidden = sum(rows * columns for rows, columns in shape.hidden_matrices)
    spared = hidden if optimizer is OptimizerKind.muon else 0
    return FLOAT * (ADAMW_TENSORS * shape.params.total - spared)


def step_flops(shape: ModelShape, optimizer: OptimizerKind) -> float:
    """FLOPs of the matrix products of one step: none in AdamW; in Muon those of the Newton-Schulz iteration,
    whose every step multiplies a gram matrix with itself and makes and applies it (Jordan et al. 2024)."""
    if optimizer is OptimizerKind.adamw:
        return 0.0
    sides = [(min(matrix), max(matrix)) for matrix in shape.hidden_matrices]
    return float(NEWTON_SCHULZ_STEPS * sum(2 * (2 * m * m * n + m**3) for m, n in sides))
