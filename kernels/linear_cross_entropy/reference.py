"""The specification: the whole logits at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def reference_linear_cross_entropy(
    hidden_NW: Tensor, weight_VW: Tensor, targets_N: Tensor, z_loss: float, ignore_index: int
) -> Tensor:
    """Mean over the kept targets of -log softmax(hidden weight^T)[target] + z_loss lse^2, the softmax in
    float32 at least; NaN where none is kept."""
    logits_NV = hidden_NW @ weight_VW.t()
    logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    loss = F.cross_entropy(logits_NV, targets_N, ignore_index=ignore_index)
    if not z_loss:
        return loss
    lse_n = logits_NV[targets_N != ignore_index].logsumexp(1)
    return loss + z_loss * lse_n.square().mean()
