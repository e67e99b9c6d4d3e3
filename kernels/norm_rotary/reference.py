"""The specification: RMSNorm (arXiv 1910.07467) of each head, then RoPE (arXiv 2104.09864)."""

from __future__ import annotations

import torch
from torch import Tensor


def reference_norm_rotary(
    x_BTHD: Tensor, gain_D: Tensor, cos_Td: Tensor, sin_Td: Tensor, eps: float
) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * gain, its pairs (i, i + D / 2) turned by the angle of the position; d is
    D / 2. In float32 at least, rounded once, at the end, to the precision of x."""
    wide_BTHD = x_BTHD.to(torch.promote_types(x_BTHD.dtype, torch.float32))
    scale_BTH1 = torch.rsqrt(wide_BTHD.square().mean(-1, keepdim=True) + eps)
    first, second = (wide_BTHD * scale_BTH1 * gain_D).chunk(2, dim=-1)
    cos, sin = cos_Td.unsqueeze(1), sin_Td.unsqueeze(1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x_BTHD.dtype)
