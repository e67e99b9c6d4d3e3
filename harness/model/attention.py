"""The one door to attention: the model calls `attend`, and only this module knows who answers.

B batch, T tokens, H query heads, K key/value heads (K divides H), d head dimension.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.errors import WrongInput
from harness.model.settings import AttentionKind

Attend = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""q_BHTd, k_BKTd, v_BKTd, scale of the scores -> out_BHTd: causal."""


def build_attention(kind: AttentionKind) -> tuple[Attend, str]:
    """The causal attention to use, and its name for the record.

    `auto` takes SDPA: no Triton kernel is part of this version. Raises WrongInput for `triton`.
    """
    match kind:
        case AttentionKind.reference:
            return reference, "reference"
        case AttentionKind.sdpa | AttentionKind.auto:
            return sdpa, "sdpa"
        case AttentionKind.triton:
            raise WrongInput(
                "attention=triton: this version has no Triton kernels; use attention=auto, sdpa or reference"
            )


def reference(q_BHTd: Tensor, k_BKTd: Tensor, v_BKTd: Tensor, scale: float) -> Tensor:
    """The specification: softmax(scale * q k^T) v over keys no later than the query."""
    heads_per_key = q_BHTd.shape[1] // k_BKTd.shape[1]
    k_BHTd = k_BKTd.repeat_interleave(heads_per_key, dim=1)
    v_BHTd = v_BKTd.repeat_interleave(heads_per_key, dim=1)
    scores_BHTT = scale * (q_BHTd @ k_BHTd.transpose(-1, -2))
    later = torch.ones(scores_BHTT.shape[-2:], dtype=torch.bool, device=q_BHTd.device).triu(1)
    return scores_BHTT.masked_fill(later, -torch.inf).softmax(dim=-1) @ v_BHTd


def sdpa(q_BHTd: Tensor, k_BKTd: Tensor, v_BKTd: Tensor, scale: float) -> Tensor:
    grouped = q_BHTd.shape[1] != k_BKTd.shape[1]
    return F.scaled_dot_product_attention(
        q_BHTd, k_BKTd, v_BKTd, is_causal=True, scale=scale, enable_gqa=grouped
    )
