"""Norm and rotation as PyTorch operators: autograd, torch.compile(fullgraph=True). Needs triton.

Importing this module registers `kernels::norm_rotary` and `kernels::norm_rotary_backward`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.attention.problem import MAX_STRIDE
from kernels.norm_rotary.kernel import launch_backward, launch_forward


@torch.library.custom_op("kernels::norm_rotary", mutates_args=())
def norm_rotary_op(x: Tensor, gain: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """y (B, T, H, D) of inputs that `kernels.norm_rotary.api` has checked."""
    with torch.cuda.device_of(x):
        return launch_forward(x, gain, cos, sin, eps)


@norm_rotary_op.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("kernels::norm_rotary_backward", mutates_args=())
def norm_rotary_backward_op(
    dy: Tensor, x: Tensor, gain: Tensor, cos: Tensor, sin: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """dx, and the gradient of the gain in float32."""
    with torch.cuda.device_of(x):
        return launch_backward(dy, x, gain, cos, sin, eps)


@norm_rotary_backward_op.register_fake
def _(dy: Tensor, x: Tensor, gain: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), gain.new_empty(gain.shape, dtype=torch.float32)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, gain, cos, sin, ctx.eps = inputs
    ctx.save_for_backward(x, gain, cos, sin)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, gain, cos, sin = ctx.saved_tensors
    dy = dy if dy.stride(3) < MAX_STRIDE else dy.contiguous()
    dx, dgain = norm_rotary_backward_op(dy, x, gain, cos, sin, ctx.eps)
    return dx, dgain.to(gain.dtype), None, None, None


norm_rotary_op.register_autograd(_backward, setup_context=_remember)
