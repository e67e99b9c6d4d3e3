"""The specification of attention: the plainest code that computes it, on any device and in any precision.

In float64 it is the oracle of the kernels. In the precision of the inputs it is what PyTorch's eager
operations would give, whose error sets the budget of the kernels, and it is what a CPU runs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.attention.problem import Documents, Options


def visible(
    T_q: int, T_k: int, options: Options, documents: Documents | None, device: torch.device
) -> Tensor:
    """(1 or B, 1, T_q, T_k) bool: which keys a query sees."""
    p = torch.arange(T_q, device=device).unsqueeze(1) + (T_k - T_q)
    j = torch.arange(T_k, device=device).unsqueeze(0)
    seen = torch.ones(T_q, T_k, dtype=torch.bool, device=device)
    if options.causal:
        seen = seen & (j <= p)
    if options.window is not None:
        seen = seen & ((p - j).abs() < options.window)
    if documents is None:
        return seen[None, None]
    same = documents.starts.unsqueeze(2) == documents.starts.unsqueeze(1)
    return (seen & same).unsqueeze(1)


def reference_attention(
    q_BHTD: Tensor,
    k_BKTD: Tensor,
    v_BKTD: Tensor,
    options: Options,
    documents: Documents | None = None,
    sink_H: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """softmax over the visible keys, and its log-sum-exp: out (B, H, T_q, D), lse (B, H, T_q).

    Matrix products run in the precision of q; the softmax in float32 at least. A query that sees no key
    gives zeros and lse = -inf (with a sink: lse = sink). The sink is one more logit per head that takes
    weight and carries no value (arXiv 2309.17453).
    """
    group = q_BHTD.shape[1] // k_BKTD.shape[1]
    k_BHTD = k_BKTD.repeat_interleave(group, dim=1)
    v_BHTD = v_BKTD.repeat_interleave(group, dim=1)
    wide = torch.promote_types(q_BHTD.dtype, torch.float32)
    s_BHTT = (q_BHTD @ k_BHTD.transpose(-1, -2)).to(wide) * options.scale
    if options.softcap is not None:
        s_BHTT = options.softcap * torch.tanh(s_BHTT / options.softcap)
    seen = visible(q_BHTD.shape[2], k_BKTD.shape[2], options, documents, q_BHTD.device)
    s_BHTT = s_BHTT.masked_fill(~seen, -torch.inf)
    weights, lse_BHT = _softmax(s_BHTT, None if sink_H is None else sink_H.to(wide).view(1, -1, 1, 1))
    return weights.to(v_BHTD.dtype) @ v_BHTD, lse_BHT


def _softmax(s_BHTT: Tensor, sink: Tensor | None) -> tuple[Tensor, Tensor]:
    """Weights and log-sum-exp; rows of -inf alone have weights and gradients of zero, never NaN."""
    top = s_BHTT.detach().amax(dim=-1, keepdim=True)
    if sink is not None:
        top = torch.maximum(top, sink.detach())
    top = top.masked_fill(top == -torch.inf, 0)
    e_BHTT = torch.exp(s_BHTT - top)
    total = e_BHTT.sum(dim=-1, keepdim=True)
    if sink is not None:
        total = total + torch.exp(sink - top)
    empty = total == 0
    total = total.masked_fill(empty, 1)
    lse = (top + total.log()).masked_fill(empty, -torch.inf)
    return e_BHTT / total, lse.squeeze(-1)
