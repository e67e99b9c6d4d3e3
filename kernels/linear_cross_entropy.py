"""The head and the cross-entropy in one: a block of logits at a time, never all of them.

The loss and its gradients come from one sweep. For a block of tokens the logits of the whole vocabulary are
computed, turned into the gradient of the logits in place, and multiplied into the gradients of the hidden
states and of the head. Blocks are of tokens rather than of vocabulary since the gradient of the head needs
the finished log-sum-exp of its tokens: a sweep over parts of the vocabulary would have to compute every
logit twice, four matrix products in place of three.

Plain PyTorch on every device; on a GPU it has not run yet. Importing this module registers the operator
`kernels::linear_cross_entropy`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

BLOCK_BYTES = 16 << 20
"""Of the float32 logits held at once; at least one token's. On a CPU (width 128, vocabularies of
4k and 50k) it takes .63 to .70 of the processor time of whole logits, and so do 8 to 64 MiB; a sweep over
parts of the vocabulary takes .98."""
IGNORED = -100
"""A target of this value counts nothing, as in PyTorch."""


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, z_loss: float = 0.0, ignore_index: int = IGNORED
) -> Tensor:
    """Mean over the targets of -log softmax(hidden weight^T)[target] + z_loss lse^2, in nats and float32.

    hidden (..., W) and weight (V, W), floats; targets (...,) int64, those equal to `ignore_index` left out;
    NaN if that is all of them, as in PyTorch. `z_loss` keeps the log-sum-exp near zero (PaLM, arXiv
    2204.02311, section 5). Under autocast the products run in its precision; softmax and sums are float32.
    Differentiable in hidden and weight. Raises ValueError or TypeError for shapes and types that do not fit.
    """
    _check(hidden, weight, targets, z_loss)
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        hidden = hidden.to(torch.get_autocast_dtype(device))
    loss, _, _ = linear_cross_entropy_op(
        hidden.flatten(0, -2), weight, targets.flatten(), z_loss, ignore_index, torch.is_grad_enabled()
    )
    return loss


def _check(hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float) -> None:
    if hidden.dim() < 2 or weight.dim() != 2 or hidden.shape[-1] != weight.shape[1] or not weight.shape[0]:
        raise ValueError(f"hidden {tuple(hidden.shape)} and weight {tuple(weight.shape)} do not multiply")
    if targets.shape != hidden.shape[:-1] or targets.dtype != torch.int64:
        raise ValueError(
            f"targets are {targets.dtype} {tuple(targets.shape)}; want int64 {tuple(hidden.shape[:-1])}"
        )
    if not (hidden.is_floating_point() and weight.is_floating_point()):
        raise TypeError(f"hidden is {hidden.dtype}, weight {weight.dtype}; want floats")
    if z_loss < 0:
        raise ValueError(f"z_loss={z_loss} must not be negative")


@torch.library.custom_op("kernels::linear_cross_entropy", mutates_args=())
def linear_cross_entropy_op(
    hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float, ignore_index: int, gradients: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of hidden (N, W), and the gradients of hidden and weight, or two empty tensors without."""
    wide = torch.promote_types(hidden.dtype, torch.float32)
    head = weight.to(hidden.dtype)
    total = torch.zeros((), dtype=wide, device=hidden.device)
    dhidden = torch.empty_like(hidden if gradients else hidden[:0])
    dweight = torch.zeros_like(weight if gradients else weight[:0])
    step = block_tokens(weight.shape[0])
    for start in range(0, len(hidden), step):
        block = slice(start, start + step)
        logits = (hidden[block] @ head.t()).to(wide)
        losses, slopes = _block(logits, targets[block], z_loss, ignore_index)
        total += losses.sum()
        if gradients:
            slopes = slopes.to(hidden.dtype)
            dhidden[block] = slopes @ head
            dweight += slopes.t() @ hidden[block]
    share = 1 / (targets != ignore_index).sum()
    return total * share, dhidden.mul_(share), dweight.mul_(share)


def _block(logits: Tensor, targets: Tensor, z_loss: float, ignore_index: int) -> tuple[Tensor, Tensor]:
    """The loss of each token, and its gradient in the place of the logits (n, V)."""
    kept = targets != ignore_index
    at = targets.masked_fill(~kept, 0).unsqueeze(1)
    hit = logits.gather(1, at).squeeze(1)
    top = logits.amax(1, keepdim=True)
    weights = logits.sub_(top).exp_()
    total = weights.sum(1, keepdim=True)
    lse = (top + total.log()).squeeze(1)
    losses = torch.where(kept, lse - hit + z_loss * lse.square(), 0)
    weights.mul_((kept * (1 + 2 * z_loss * lse)).unsqueeze(1) / total)
    slopes = weights.scatter_add_(1, at, -kept.to(weights.dtype).unsqueeze(1))
    return losses, slopes


def block_tokens(vocabulary: int) -> int:
    return max(1, BLOCK_BYTES // (4 * vocabulary))


@linear_cross_entropy_op.register_fake
def _(
    hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float, ignore_index: int, gradients: bool
) -> Any:
    wide = torch.promote_types(hidden.dtype, torch.float32)
    kept = (hidden, weight) if gradients else (hidden[:0], weight[:0])
    return hidden.new_empty((), dtype=wide), *(torch.empty_like(each) for each in kept)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*output[1:])


def _backward(ctx: Any, dloss: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    dhidden, dweight = ctx.saved_tensors
    return (
        dhidden * dloss.to(dhidden.dtype),
        dweight * dloss.to(dweight.dtype),
        None,
        None,
        None,
        None,
    )


linear_cross_entropy_op.register_autograd(_backward, setup_context=_remember)


@register_flop_formula(torch.ops.kernels.linear_cross_entropy)
def _flops(
    hidden: Any, weight: Any, targets: Any, z_loss: Any, ignore_index: Any, gradients: bool, **_: Any
) -> int:
    """One product, and with the gradients two more."""
    return (3 if gradients else 1) * 2 * hidden[0] * hidden[1] * weight[0]
