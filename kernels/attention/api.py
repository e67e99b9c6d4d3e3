"""The public call: check everything, then dispatch.

On a GPU, and in Triton's interpreter (TRITON_INTERPRET=1), the Triton kernels answer. On a CPU without the
interpreter, or where triton is not installed, the reference answers: the same numbers, with memory and
time quadratic in the number of tokens. `implementation_for` says which.

These kernels have not run on a GPU yet. They are verified in the interpreter and by compilation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from importlib.util import find_spec
from typing import Literal, overload

import torch
from torch import Tensor

from kernels.attention.problem import (
    MAX_STRIDE,
    Documents,
    Options,
    documents_of_ids,
    ids_of_lengths,
    strides_fit,
)
from kernels.attention.reference import reference_attention
from kernels.derivatives import refuse_other_derivatives

HAS_TRITON = find_spec("triton") is not None
if HAS_TRITON:
    from kernels.attention.op import attention_op
    from kernels.attention.tuning import interpreted

HEAD_DIMS = (16, 32, 48, 64, 96, 128, 192, 256)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
INTEGERS = (torch.int32, torch.int64)
MAX_TOKENS = 2**24
OLDEST = (8, 0)
"""Compute capability of the oldest NVIDIA card with a tile."""
WIDEST_FLOAT32 = 128
"""Head dimension; of 16 bits all of `HEAD_DIMS` have tiles."""


class Implementation(Enum):
    triton = "triton"
    reference = "reference"


@overload
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool,
    window: int | None = ...,
    document_ids: Tensor | None = ...,
    cu_seqlens: Tensor | None = ...,
    scale: float | None = ...,
    softcap: float | None = ...,
    sink: Tensor | None = ...,
    deterministic: bool = ...,
    tiles: Sequence[int] | None = ...,
    return_lse: Literal[False] = ...,
) -> Tensor: ...


@overload
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool,
    window: int | None = ...,
    document_ids: Tensor | None = ...,
    cu_seqlens: Tensor | None = ...,
    scale: float | None = ...,
    softcap: float | None = ...,
    sink: Tensor | None = ...,
    deterministic: bool = ...,
    tiles: Sequence[int] | None = ...,
    return_lse: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool,
    window: int | None = None,
    document_ids: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sink: Tensor | None = None,
    deterministic: bool = True,
    tiles: Sequence[int] | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """softmax(scale q k^T) v, differentiable in q, k, v, the sink and through the log-sum-exp.

    q (B, H, T_q, D), k and v (B, K, T_k, D) with K dividing H: query head h reads key head h // (H / K).
    Any strides. Returns out (B, H, T_q, D), with the layout of q, and with `return_lse` also the natural
    log-sum-exp of the visible logits (B, H, T_q) in float32.

    `causal` and `window`: see `Options`; the last query stands at the last key when T_q != T_k.
    `document_ids` (B, T) or `cu_seqlens` (n + 1, for B = 1): packed documents see themselves only; a
    document is a run of equal neighbouring ids, tokens past the last length are one more; T_q = T_k.
    `scale`: 1 / sqrt(D) when not given. `softcap`: see `Options`. `sink` (H,): a logit per head that takes
    weight and carries no value.

    A query that sees no key gives zeros, lse = -inf and no gradient. The gradients agree to the bit from
    run to run whether or not `deterministic` is asked for: False only leaves room for a faster backward.
    `tiles` (`Tiles.flat`) in place of the shipped ones sum in another order (`kernels.attention.autotune`).

    Under autocast q, k and v are cast to its type first, as for `scaled_dot_product_attention`. The kernels
    have one derivative, that of backward() and torch.autograd.grad: second derivatives, forward mode and the
    gradients of torch.func are refused. Under torch.func.vmap they run once a slice.

    Raises TypeError or ValueError before any launch for everything else. Lengths on a GPU are not waited for:
    wrong ones raise there as a device-side assertion.
    """
    q, k, v = (_autocast(tensor) for tensor in (q, k, v))
    _check_tensors(q, k, v)
    options = _options(q, causal, window, scale, softcap)
    _check_sink(q, sink)
    documents = _documents(q, k, document_ids, cu_seqlens)
    if implementation_for(q) is Implementation.reference:
        out, lse = reference_attention(q, k, v, options, documents, sink)
    else:
        if not torch.compiler.is_compiling():
            if why := without_tile(q.device, q.shape[3], q.dtype):
                raise ValueError(f"{why}; use scaled_dot_product_attention")
            refuse_other_derivatives("the attention kernel", q, k, v, *([] if sink is None else [sink]))
        starts, ends = (None, None) if documents is None else (documents.starts, documents.ends)
        sink = None if sink is None else sink.float().contiguous()
        out, lse = attention_op(
            q, k, v, starts, ends, sink, causal, window, options.scale, options.softcap,
            None if tiles is None else list(tiles),
        )  # fmt: skip
    return (out, lse) if return_lse else out


def implementation_for(q: Tensor) -> Implementation:
    """Who answers a call with this tensor: the kernels on a GPU or interpreted, else the reference."""
    runs_triton = HAS_TRITON and (q.device.type == "cuda" or interpreted())
    return Implementation.triton if runs_triton else Implementation.reference


def without_tile(device: torch.device, head_dim: int, dtype: torch.dtype) -> str:
    """Why no tile passes the static gate on the card of `device`; empty where one does.

    Rows of float32 wider than `WIDEST_FLOAT32` do not fit the registers: the smallest tiles spill hundreds of
    times in every loop. Before sm_80 Triton multiplies without tensor cores, and they spill by the thousand.
    """
    if device.type == "cuda" and dtype == torch.float32 and head_dim > WIDEST_FLOAT32:
        return (
            f"no tile of the attention kernels passes in float32 with head_dim {head_dim}, only up to "
            f"{WIDEST_FLOAT32}"
        )
    if device.type != "cuda" or torch.version.hip or not torch.cuda.is_available():
        return ""
    major, minor = torch.cuda.get_device_capability(device)
    if (major, minor) >= OLDEST:
        return ""
    return (
        f"no tile of the attention kernels passes on sm_{major}{minor}, only from sm_{OLDEST[0]}{OLDEST[1]}"
    )


def _autocast(tensor: Tensor) -> Tensor:
    kind = tensor.device.type
    available = torch.amp.is_autocast_available(kind)  # not on the meta device, which has no such state
    if tensor.dtype not in DTYPES or not (available and torch.is_autocast_enabled(kind)):
        return tensor
    return tensor.to(torch.get_autocast_dtype(kind))


def _check_tensors(q: Tensor, k: Tensor, v: Tensor) -> None:
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor.dim() != 4 or min(tensor.shape) < 1 or tensor.shape[2] > MAX_TOKENS:
            raise ValueError(
                f"{name} is {_said(tensor)}; want (batch, heads, tokens, head_dim), each at least 1, "
                f"and at most {MAX_TOKENS} tokens"
            )
        if tensor.dtype != q.dtype or tensor.device != q.device:
            raise TypeError(f"{name} is {_said(tensor)}, q {_said(q)}; want one type on one device")
        if not strides_fit(tensor):
            raise ValueError(
                f"{name} has strides {tensor.stride()}; the last two must be below {MAX_STRIDE}: "
                "call .contiguous()"
            )
    if q.dtype not in DTYPES:
        raise TypeError(f"attention in {q.dtype} is not supported; use float32, bfloat16 or float16")
    if q.shape[3] not in HEAD_DIMS:
        raise ValueError(f"head_dim {q.shape[3]} is not supported; use one of {HEAD_DIMS}")
    _check_sizes(q, k, v)


def _check_sizes(q: Tensor, k: Tensor, v: Tensor) -> None:
    if k.shape != v.shape or (k.shape[0], k.shape[3]) != (q.shape[0], q.shape[3]):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (q, k, v))
        raise ValueError(f"q, k, v have shapes {shapes}; want the same batch and head_dim, and k like v")
    if q.shape[1] % k.shape[1]:
        raise ValueError(
            f"{q.shape[1]} query heads on {k.shape[1]} key heads; the second must divide the first"
        )
    if q.shape[0] * q.shape[1] * max(q.shape[2], k.shape[2]) >= 2**31:
        raise ValueError("batch * heads * tokens must be below 2**31; split the batch")


def _said(tensor: Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"


def _options(
    q: Tensor, causal: bool, window: int | None, scale: float | None, softcap: float | None
) -> Options:
    scale = q.shape[3] ** -0.5 if scale is None else float(scale)
    if not 0 < scale < math.inf:
        raise ValueError(f"scale={scale} must be positive and finite")
    if softcap is not None and not 0 < softcap < math.inf:
        raise ValueError(f"softcap={softcap} must be positive and finite; None for no cap")
    if window is not None and (not isinstance(window, int) or isinstance(window, bool)):
        raise TypeError(f"window={window!r} must be an integer; None for no window")
    if window is not None and not 1 <= window <= MAX_TOKENS:
        raise ValueError(f"window={window} must be within 1 and {MAX_TOKENS}; None for no window")
    return Options(causal=causal, window=window, scale=scale, softcap=softcap)


def _check_sink(q: Tensor, sink: Tensor | None) -> None:
    if sink is None:
        return
    if sink.shape != q.shape[1:2] or sink.device != q.device or not sink.is_floating_point():
        raise ValueError(f"sink is {_said(sink)}; want a float for each of {q.shape[1]} heads on {q.device}")


def _documents(
    q: Tensor, k: Tensor, document_ids: Tensor | None, cu_seqlens: Tensor | None
) -> Documents | None:
    if document_ids is None and cu_seqlens is None:
        return None
    if document_ids is not None and cu_seqlens is not None:
        raise ValueError("give document_ids or cu_seqlens, not both")
    if q.shape[2] != k.shape[2]:
        raise ValueError(f"documents need as many keys as queries, not {k.shape[2]} and {q.shape[2]}")
    if cu_seqlens is not None:
        return documents_of_ids(_ids_of_lengths(q, cu_seqlens))
    assert document_ids is not None
    wanted = (q.shape[0], q.shape[2])
    if document_ids.shape != wanted or document_ids.device != q.device or document_ids.is_floating_point():
        raise ValueError(
            f"document_ids is {_said(document_ids)}; want integers (batch, tokens) = {wanted} on {q.device}"
        )
    return documents_of_ids(document_ids)


def _ids_of_lengths(q: Tensor, cu_seqlens: Tensor) -> Tensor:
    if q.shape[0] != 1:
        raise ValueError(
            f"cu_seqlens packs one row of tokens, and the batch is {q.shape[0]}; use document_ids"
        )
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] < 2 or cu_seqlens.dtype not in INTEGERS:
        raise ValueError(f"cu_seqlens is {_said(cu_seqlens)}; want n + 1 int32 or int64: 0, ..., tokens")
    if cu_seqlens.device != q.device:
        raise ValueError(f"cu_seqlens is on {cu_seqlens.device}, q on {q.device}; want one device")
    _check_lengths(cu_seqlens, q.shape[2])
    return ids_of_lengths(cu_seqlens, q.shape[2])


def _check_lengths(cu_seqlens: Tensor, tokens: int) -> None:
    said = f"cu_seqlens must begin with 0, never fall, and not pass the {tokens} tokens"
    fine = (cu_seqlens[0] == 0) & (cu_seqlens[1:] >= cu_seqlens[:-1]).all() & (cu_seqlens[-1] <= tokens)
    if torch.compiler.is_compiling() or cu_seqlens.device.type != "cpu":
        torch._assert_async(fine, said)
    elif not fine:
        raise ValueError(f"{said}; it is {cu_seqlens.tolist()}")
