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

Attend = Callable[[Tensor, Tensor, Tensor, float, int | None], Tensor]
"""q_BHTd, k_BKTd, v_BKTd, scale of the scores, window -> out_BHTd: causal. A query sees the last `window`
positions, its own included; all of them for None."""


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


def visible(length: int, window: int | None, device: torch.device) -> Tensor:
    """Which keys (columns) each query (row) sees."""
    seen_TT = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return seen_TT if window is None else seen_TT.triu(1 - window)


def reference(
    q_BHTd: Tensor, k_BKTd: Tensor, v_BKTd: Tensor, scale: float, window: int | None = None
) -> Tensor:
    """The specification: softmax(scale * q k^T) v over the keys that a query sees."""
    heads_per_key = q_BHTd.shape[1] // k_BKTd.shape[1]
    k_BHTd = k_BKTd.repeat_interleave(heads_per_key, dim=1)
    v_BHTd = v_BKTd.repeat_interleave(heads_per_key, dim=1)
    scores_BHTT = scale * (q_BHTd @ k_BHTd.transpose(-1, -2))
    seen_TT = visible(q_BHTd.shape[2], window, q_BHTd.device)
    return scores_BHTT.masked_fill(~seen_TT, -torch.inf).softmax(dim=-1) @ v_BHTd


def sdpa(q_BHTd: Tensor, k_BKTd: Tensor, v_BKTd: Tensor, scale: float, window: int | None = None) -> Tensor:
    grouped, length = q_BHTd.shape[1] != k_BKTd.shape[1], q_BHTd.shape[2]
    bounded = window is not None and window < length
    return F.scaled_dot_product_attention(
        q_BHTd,
        k_BKTd,
        v_BKTd,
        attn_mask=visible(length, window, q_BHTd.device) if bounded else None,
        is_causal=not bounded,
        scale=scale,
        enable_gqa=grouped,
    )
