"""The public call: check everything, then dispatch as attention does."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.attention.api import DTYPES, HAS_TRITON, Implementation, implementation_for
from kernels.attention.problem import MAX_STRIDE
from kernels.derivatives import refuse_other_derivatives
from kernels.norm_rotary.reference import reference_norm_rotary

if HAS_TRITON:
    from kernels.norm_rotary.op import norm_rotary_op

MAX_HEAD_DIM = 512


def norm_rotary(x: Tensor, gain: Tensor, cos: Tensor, sin: Tensor, *, eps: float) -> Tensor:
    """RMSNorm of each head of x (B, T, H, D) with gain (D,), its pairs (i, i + D / 2) then turned by the
    angles of (T, D / 2) tables. Differentiable in x and gain; any strides of x. Returns (B, T, H, D),
    contiguous, in the precision of x, computed in float32. The kernel has one derivative, that of backward()
    and torch.autograd.grad.

    Raises TypeError or ValueError before any launch for everything else.
    """
    _check(x, gain, cos, sin)
    if implementation_for(x) is Implementation.reference:
        return reference_norm_rotary(x, gain, cos, sin, eps).contiguous()
    refuse_other_derivatives("the kernel of norm and rotation", x, gain, cos, sin)
    x = x if x.stride(3) < MAX_STRIDE else x.contiguous()
    return norm_rotary_op(x, gain.contiguous(), cos.contiguous(), sin.contiguous(), eps)


def _check(x: Tensor, gain: Tensor, cos: Tensor, sin: Tensor) -> None:
    if x.dim() != 4 or min(x.shape) < 1 or x.shape[3] % 2 or x.shape[3] > MAX_HEAD_DIM:
        raise ValueError(
            f"x is {tuple(x.shape)}; want (batch, tokens, heads, head_dim), head_dim even and at most "
            f"{MAX_HEAD_DIM}"
        )
    if x.dtype not in DTYPES or not gain.is_floating_point():
        raise TypeError(f"norm_rotary of {x.dtype} with a gain of {gain.dtype} is not supported")
    if cos.dtype != torch.float32 or sin.dtype != torch.float32:
        raise TypeError(f"the tables are {cos.dtype} and {sin.dtype}; want float32")
    table = (x.shape[1], x.shape[3] // 2)
    if cos.shape != table or sin.shape != table or gain.shape != x.shape[3:]:
        shapes = ", ".join(str(tuple(each.shape)) for each in (gain, cos, sin))
        raise ValueError(f"gain, cos, sin have shapes {shapes}; want {tuple(x.shape[3:])} and twice {table}")
    if any(each.device != x.device for each in (gain, cos, sin)):
        raise ValueError("x, gain, cos and sin must be on one device")
    if x.numel() >= 2**31:
        raise ValueError("x must have fewer than 2**31 elements; split the batch")
