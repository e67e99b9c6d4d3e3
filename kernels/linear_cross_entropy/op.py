"""The loss as a PyTorch operator: autograd, torch.compile(fullgraph=True), FLOP counters.

Loss and gradients come from one sweep, so that the forward computes all and the backward only scales.
Importing this module registers `kernels::linear_cross_entropy`; it needs no triton.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from kernels.linear_cross_entropy.sweep import block_tokens, sweep, torch_block

if find_spec("triton") is not None:
    from kernels.linear_cross_entropy.kernel import launch_block


@torch.library.custom_op("kernels::linear_cross_entropy", mutates_args=())
def linear_cross_entropy_op(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    z_loss: float,
    ignore_index: int,
    gradients: bool,
    fused: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The summed loss of hidden (N, W), and its gradients by hidden and weight, or two empty tensors
    without. `fused`: by the Triton kernel."""
    tokens = block_tokens(len(weight), hidden.device.type, hidden.element_size())
    block = launch_block if fused else torch_block
    return sweep(hidden, weight, targets, z_loss, ignore_index, gradients, block, tokens)


@linear_cross_entropy_op.register_fake
def _(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    z_loss: float,
    ignore_index: int,
    gradients: bool,
    *_: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    wide = torch.promote_types(hidden.dtype, torch.float32)
    (N, W), V = hidden.shape, weight.shape[0]
    dhidden = hidden.new_empty(N if gradients else 0, W)
    return hidden.new_empty((), dtype=wide), dhidden, hidden.new_empty(V if gradients else 0, W, dtype=wide)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[1:])
    ctx.dtype = inputs[1].dtype


def _backward(ctx: Any, dloss: Tensor | None, *second: Tensor | None) -> tuple[Tensor | None, ...]:
    """Scaled in the precision of the loss: a share of 1 / N is no number of 16 bits."""
    if any(each is not None for each in second):  # of the gradients, which are outputs too
        raise TypeError(
            "linear_cross_entropy has no gradient of its gradient; use cross_entropy of the logits for that"
        )
    if dloss is None:
        return (None,) * 7
    dhidden, dweight = ctx.saved_tensors
    scaled = (dhidden.to(dloss.dtype) * dloss).to(dhidden.dtype), (dweight * dloss).to(ctx.dtype)
    return *scaled, None, None, None, None, None


linear_cross_entropy_op.register_autograd(_backward, setup_context=_remember)


@register_flop_formula(torch.ops.kernels.linear_cross_entropy)
def _flops(
    hidden: Sequence[int], weight: Sequence[int], targets: Any, z_loss: Any, ignore_index: Any,
    gradients: bool, *_: Any, **__: Any,
) -> int:  # fmt: skip
    """One product, and with the gradients two more."""
    return (3 if gradients else 1) * 2 * hidden[0] * hidden[1] * weight[0]
