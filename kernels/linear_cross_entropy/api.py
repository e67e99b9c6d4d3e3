"""The public call: check everything, then dispatch as attention does."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.attention.api import DTYPES, Implementation, implementation_for
from kernels.derivatives import refuse_other_derivatives
from kernels.linear_cross_entropy.op import linear_cross_entropy_op

IGNORED = -100
"""A target of this value counts nothing, as in PyTorch."""


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    z_loss: float = 0.0,
    ignore_index: int = IGNORED,
    implementation: Implementation | None = None,
) -> Tensor:
    """Mean over the targets of -log softmax(hidden weight^T)[target] + z_loss lse^2, in nats and float32.

    hidden (..., W) and weight (V, W), floats; targets (...,) int64, those equal to `ignore_index` left out;
    NaN if that is all of them, with gradients of zero, as in PyTorch. `z_loss` keeps the log-sum-exp near
    zero (PaLM, arXiv 2204.02311, section 5). Under autocast the products run in its precision; softmax and
    sums are float32, and so is the gradient of the weight until the end. Any strides. Differentiable once, in
    hidden and weight, by backward() or torch.autograd.grad; other derivatives are refused.

    `implementation`: the Triton kernel or PyTorch's operations, a block of tokens at a time either way; as
    `implementation_for` says when not given, and never the kernel for float64.

    Raises ValueError or TypeError for shapes and types that do not fit, before any launch. A target outside
    the vocabulary gives NaN from the kernel, and an error from PyTorch's operations on a CPU.
    """
    _check(hidden, weight, targets, z_loss)
    refuse_other_derivatives("linear_cross_entropy", hidden, weight)
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        hidden = hidden.to(torch.get_autocast_dtype(device))
    chosen = implementation or implementation_for(hidden)
    fused = chosen is Implementation.triton and hidden.dtype in DTYPES
    total, _, _ = linear_cross_entropy_op(
        hidden.flatten(0, -2), weight, targets.flatten(), z_loss, ignore_index, torch.is_grad_enabled(), fused
    )
    kept = (targets != ignore_index).sum()
    return torch.where(kept > 0, total / kept.clamp(min=1), torch.nan)


def _check(hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float) -> None:
    if hidden.dim() < 2 or weight.dim() != 2 or hidden.shape[-1] != weight.shape[1] or not weight.shape[0]:
        raise ValueError(f"hidden {tuple(hidden.shape)} and weight {tuple(weight.shape)} do not multiply")
    if targets.shape != hidden.shape[:-1] or targets.dtype != torch.int64:
        raise ValueError(
            f"targets are {targets.dtype} {tuple(targets.shape)}; want int64 {tuple(hidden.shape[:-1])}"
        )
    if not (hidden.is_floating_point() and weight.is_floating_point()):
        raise TypeError(f"hidden is {hidden.dtype}, weight {weight.dtype}; want floats")
    if weight.device != hidden.device or targets.device != hidden.device:
        raise ValueError("hidden, weight and targets must be on one device")
    if z_loss < 0:
        raise ValueError(f"z_loss={z_loss} must not be negative")
