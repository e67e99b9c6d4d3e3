"""What an attention call computes, as plain values: shared by the reference, the launchers and the op.

B batch, H query heads, K key/value heads (K divides H), T_q and T_k tokens, D head dimension.

The position of query i among the keys is p = i + T_k - T_q: the last query stands at the last key, so
that the same call serves training (T_q = T_k) and decoding (T_q < T_k). This is not the top-left
alignment of `scaled_dot_product_attention(is_causal=True)`; the two agree when T_q = T_k.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MAX_STRIDE = 2**22
"""Of the last two dimensions, in elements: offsets inside a tile are 32-bit."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The numbers of a call that are not tensors.

    `causal`: query i sees keys j <= p. `window` W: it sees keys with p - j < W and, when not causal, also
    j - p < W; W = 1 is the token itself. `scale` > 0 multiplies the scores; `softcap` c > 0 then replaces
    a score s by c tanh(s / c) (Gemma 2, arXiv 2408.00118).
    """

    causal: bool
    window: int | None
    scale: float
    softcap: float | None


@dataclass(frozen=True)
class Documents:
    """Packed documents: [starts[b, t], ends[b, t]) is the document of token t. Both (B, T) int32.

    A document is a run of equal neighbouring ids. It sees itself only.
    """

    starts: Tensor
    ends: Tensor


def documents_of_ids(ids_BT: Tensor) -> Documents:
    """The runs of equal neighbouring ids, found on the device of the ids without waiting for it."""
    tokens = ids_BT.shape[1]
    at = torch.arange(tokens, device=ids_BT.device).expand_as(ids_BT)
    fresh = torch.ones_like(ids_BT, dtype=torch.bool)
    fresh[:, 1:] = ids_BT[:, 1:] != ids_BT[:, :-1]
    starts = torch.where(fresh, at, 0).cummax(dim=1).values
    last = torch.ones_like(fresh)
    last[:, :-1] = fresh[:, 1:]
    ends = torch.where(last, at + 1, tokens).flip(1).cummin(dim=1).values.flip(1)
    return Documents(starts.to(torch.int32).contiguous(), ends.to(torch.int32).contiguous())


def ids_of_lengths(cu_seqlens: Tensor, tokens: int) -> Tensor:
    """(1, T) document ids from the n + 1 cumulative lengths 0, ..., T of n packed documents."""
    at = torch.arange(tokens, device=cu_seqlens.device)
    return torch.searchsorted(cu_seqlens[1:].to(at.dtype), at, right=True).unsqueeze(0)


def strides_fit(tensor: Tensor) -> bool:
    """Whether the offsets inside a tile of a (B, H, T, D) tensor fit 32 bits."""
    return all(
        stride < MAX_STRIDE
        for size, stride in zip(tensor.shape[2:], tensor.stride()[2:], strict=True)
        if size > 1
    )


def visible_pairs(T_q: int, T_k: int, causal: bool, window: int | None) -> int:
    """How many (query, key) pairs causality and the window let through: what a count of FLOPs needs."""
    back = T_k if window is None else window - 1
    ahead = 0 if causal else T_k if window is None else window - 1
    positions = range(T_k - T_q, T_k)
    return sum(max(0, min(T_k - 1, p + ahead) - max(0, p - back) + 1) for p in positions)
