"""Attention as PyTorch operators: autograd, torch.compile(fullgraph=True), FLOP counters.

The backward is an operator of its own, so that a compiled graph sees two opaque calls and no launch.
Gradients of gradients are refused. Importing this module registers `kernels::attention` and
`kernels::attention_backward`; it needs triton.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from kernels.attention.backward import launch_backward, launch_delta
from kernels.attention.forward import launch_forward
from kernels.attention.problem import Documents, Options, strides_fit, visible_pairs
from kernels.attention.tuning import Tiles, interpreted


@torch.library.custom_op("kernels::attention", mutates_args=())
def attention_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    starts: Tensor | None,
    ends: Tensor | None,
    sink: Tensor | None,
    causal: bool,
    window: int | None,
    scale: float,
    softcap: float | None,
    tiles: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """out (B, H, T_q, D), lse (B, H, T_q) of inputs that `kernels.attention` has checked. `tiles`: those of
    `Tiles.flat` in place of the shipped ones."""
    _refuse_cpu(q)
    options = Options(causal=causal, window=window, scale=scale, softcap=softcap)
    with torch.cuda.device_of(q):
        tile = None if tiles is None else Tiles.of_flat(tiles).forward
        return launch_forward(q, k, v, options, _documents(starts, ends), sink, tile)


@attention_op.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), q.new_empty(q.shape[:3], dtype=torch.float32)


@torch.library.custom_op("kernels::attention_backward", mutates_args=())
def attention_backward_op(
    dout: Tensor,
    dlse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    starts: Tensor | None,
    ends: Tensor | None,
    causal: bool,
    window: int | None,
    scale: float,
    softcap: float | None,
    tiles: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dq, dk, dv and delta (B, H, T_q) = sum_d out dout - dlse."""
    _refuse_cpu(q)
    options = Options(causal=causal, window=window, scale=scale, softcap=softcap)
    with torch.cuda.device_of(q):
        chosen = () if tiles is None else (Tiles.of_flat(tiles).keys_values, Tiles.of_flat(tiles).queries)
        delta = launch_delta(out, dout, dlse)
        documents = _documents(starts, ends)
        return *launch_backward(dout, q, k, v, lse, delta, options, documents, *chosen), delta


@attention_backward_op.register_fake
def _(
    dout: Tensor, dlse: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), torch.empty_like(lse)


def _refuse_cpu(q: Tensor) -> None:
    if q.device.type != "cuda" and not interpreted():
        raise ValueError(
            f"this operator launches on a GPU, and q is on {q.device}; kernels.attention answers there"
        )


def _documents(starts: Tensor | None, ends: Tensor | None) -> Documents | None:
    return None if starts is None or ends is None else Documents(starts, ends)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, starts, ends, sink, *ctx.settings = inputs
    ctx.save_for_backward(q, k, v, *output, starts, ends, sink)


def _backward(ctx: Any, dout: Tensor, dlse: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, out, lse, starts, ends, sink = ctx.saved_tensors
    dout = dout if strides_fit(dout) else dout.contiguous()
    dq, dk, dv, delta = attention_backward_op(dout, dlse, q, k, v, out, lse, starts, ends, *ctx.settings)
    dsink = None
    if sink is not None:
        sink_1H1 = sink.float().view(1, -1, 1)
        taken_BHT = torch.exp(sink_1H1 - lse).masked_fill(sink_1H1 == -torch.inf, 0)
        dsink = -(taken_BHT * delta).sum(dim=(0, 2)).to(sink.dtype)
    return dq, dk, dv, None, None, dsink, None, None, None, None, None


attention_op.register_autograd(_backward, setup_context=_remember)


def _no_second_derivative(*_: Any) -> None:
    raise TypeError(
        "kernels.attention has no gradient of its gradient; use scaled_dot_product_attention for that"
    )


attention_backward_op.register_autograd(_no_second_derivative)


@register_flop_formula(torch.ops.kernels.attention)
def _forward_flops(
    q: Sequence[int], k: Sequence[int], v: Sequence[int], starts: Any, ends: Any, sink: Any, causal: bool,
    window: int | None, *_: Any, **__: Any,
) -> int:  # fmt: skip
    """Two products over the pairs that the causal mask and the window let through; documents not deducted."""
    return 2 * _product_flops(q, k, causal, window)


@register_flop_formula(torch.ops.kernels.attention_backward)
def _backward_flops(
    dout: Any, dlse: Any, q: Sequence[int], k: Sequence[int], v: Any, out: Any, lse: Any, starts: Any,
    ends: Any, causal: bool, window: int | None, *_: Any, **__: Any,
) -> int:  # fmt: skip
    """Four products, as a model's FLOPs count them: the recomputed scores are not counted."""
    return 4 * _product_flops(q, k, causal, window)


def _product_flops(q: Sequence[int], k: Sequence[int], causal: bool, window: int | None) -> int:
    B, H, T_q, D = q
    return 2 * B * H * D * visible_pairs(T_q, k[2], causal, window)
