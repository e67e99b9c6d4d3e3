"""Attention forward: one program per tile of queries of one head (arXiv 2205.14135, 2307.08691).

Verified in the interpreter and by compilation alone: nothing here has run on a GPU.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.attention.primitives import (
    LN2,
    LOG2E,
    inside,
    keys_seen,
    load_tile,
    part_of,
    products,
    start_of,
    store_tile,
    visits,
)
from kernels.attention.problem import Documents, Options
from kernels.attention.tuning import Pass, Tile, choose_tile, launch_options, padded_width, precision_of


@triton.jit
def attend(
    acc, top, total, q, k_base, v_base, first, whole, partial, last, lo, hi, T_k, stride_kt, stride_kd,
    stride_vt, stride_vd, factor, inner, D: tl.constexpr, COLS: tl.constexpr, WIDTH: tl.constexpr,
    SOFTCAP: tl.constexpr, PRECISION: tl.constexpr, HOIST: tl.constexpr, BOTH: tl.constexpr,
    PARTIAL: tl.constexpr,
):  # fmt: skip
    """The inner loop over one part of the keys. acc [ROWS, WIDTH], top (of x) and total [ROWS].

    A query may miss the first keys only if BOTH.
    """
    begin, end = part_of(first, whole, partial, last, PARTIAL, BOTH)
    for at in tl.range(begin, end, COLS, disable_licm=not HOIST):
        start = start_of(at, whole, partial, PARTIAL, BOTH)
        k = load_tile(k_base, start, T_k, stride_kt, stride_kd, COLS, WIDTH, D, PARTIAL)
        x = products(q, k, inner, SOFTCAP, PRECISION)
        if PARTIAL:
            x = tl.where(inside(lo, hi, start, COLS, BOTH, True), x, float("-inf"))
        new_top = tl.maximum(top, tl.max(x, 1))
        shift = new_top * factor
        if PARTIAL:  # a row that has seen no key yet: exp2(-inf - 0) = 0, where -inf - -inf is NaN
            shift = tl.where(new_top == float("-inf"), 0.0, shift)
        p = tl.exp2(x * factor - shift[:, None])
        decay = tl.exp2(top * factor - shift)
        total = total * decay + tl.sum(p, 1)
        v = load_tile(v_base, start, T_k, stride_vt, stride_vd, COLS, WIDTH, D, PARTIAL)
        acc = tl.dot(p.to(v.dtype), v, acc * decay[:, None], input_precision=PRECISION)
        top = new_top
    return acc, top, total


@triton.jit
def finish(acc, top, total, sink, factor, SINK: tl.constexpr):
    """out [ROWS, WIDTH] and lse [ROWS] of finished rows: zeros and -inf (or the sink) where none was seen."""
    peak = tl.where(top == float("-inf"), float("-inf"), top * factor)
    if SINK:
        new_peak = tl.maximum(peak, sink * LOG2E)
        shift = tl.where(new_peak == float("-inf"), 0.0, new_peak)  # no key was seen, and no weight is sunk
        decay = tl.exp2(peak - shift)
        total = total * decay + tl.exp2(sink * LOG2E - shift)
        acc = acc * decay[:, None]
        peak = new_peak
    unseen = total == 0.0  # not total <= 0: a row with a NaN has a NaN for its total, and for its lse
    divisor = tl.where(unseen, 1.0, total)
    lse = tl.where(unseen, float("-inf"), (peak + tl.log2(divisor)) * LN2)
    return acc / divisor[:, None], lse


@triton.jit(do_not_specialize=["T_q", "T_k", "window"])
def forward_kernel(
    q, k, v, out, lse, starts, ends, sink,
    stride_qb, stride_qh, stride_qt, stride_qd, stride_kb, stride_kh, stride_kt, stride_kd,
    stride_vb, stride_vh, stride_vt, stride_vd, stride_ob, stride_oh, stride_ot, stride_od,
    H, GROUP, T_q, T_k, window, factor, inner,
    D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, DOCUMENTS: tl.constexpr, SOFTCAP: tl.constexpr,
    SINK: tl.constexpr, PRECISION: tl.constexpr, HOIST: tl.constexpr,
):  # fmt: skip
    """Grid: (tiles of queries * B * H,), the tiles of a head together, the last and longest first."""
    tiles = tl.cdiv(T_q, ROWS)
    bh = tl.program_id(0) // tiles
    b = bh // H
    h = bh % H
    begin = (tiles - 1 - tl.program_id(0) % tiles) * ROWS
    q_base = q + b.to(tl.int64) * stride_qb + h.to(tl.int64) * stride_qh
    k_base = k + b.to(tl.int64) * stride_kb + (h // GROUP).to(tl.int64) * stride_kh
    v_base = v + b.to(tl.int64) * stride_vb + (h // GROUP).to(tl.int64) * stride_vh
    out_base = out + b.to(tl.int64) * stride_ob + h.to(tl.int64) * stride_oh

    BOTH: tl.constexpr = WINDOW or DOCUMENTS
    row = begin + tl.arange(0, ROWS)
    lo, hi = keys_seen(row, b, T_q, T_k, window, starts, ends, CAUSAL, WINDOW, DOCUMENTS)
    first, whole, partial, last = visits(lo, hi, COLS)
    q_tile = load_tile(q_base, begin, T_q, stride_qt, stride_qd, ROWS, WIDTH, D, True)
    acc = tl.zeros([ROWS, WIDTH], tl.float32)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    for PARTIAL in tl.static_range(2):
        acc, top, total = attend(
            acc, top, total, q_tile, k_base, v_base, first, whole, partial, last, lo, hi, T_k, stride_kt,
            stride_kd, stride_vt, stride_vd, factor, inner, D, COLS, WIDTH, SOFTCAP, PRECISION, HOIST, BOTH,
            PARTIAL,
        )  # fmt: skip
    sink_logit = 0.0
    if SINK:
        sink_logit = tl.load(sink + h)
    out_tile, lse_row = finish(acc, top, total, sink_logit, factor, SINK)
    store_tile(out_base, out_tile, begin, T_q, stride_ot, stride_od, ROWS, WIDTH, D)
    tl.store(lse + bh.to(tl.int64) * T_q + row, lse_row, mask=row < T_q)


def launch_forward(
    q_BHTD: Tensor,
    k_BKTD: Tensor,
    v_BKTD: Tensor,
    options: Options,
    documents: Documents | None = None,
    sink_H: Tensor | None = None,
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor]:
    """out (B, H, T_q, D) with the layout of q, and lse (B, H, T_q) float32. The inputs must be valid."""
    B, H, T_q, D = q_BHTD.shape
    T_k = k_BKTD.shape[2]
    tile = tile or choose_tile(Pass.forward, D, q_BHTD.dtype, is_featured(options, documents))
    out_BHTD = torch.empty_like(q_BHTD)
    lse_BHT = torch.empty(B, H, T_q, dtype=torch.float32, device=q_BHTD.device)
    grid = (triton.cdiv(T_q, tile.rows) * B * H,)
    forward_kernel[grid](
        q_BHTD, k_BKTD, v_BKTD, out_BHTD, lse_BHT, *mask_arguments(documents), sink_H,
        *q_BHTD.stride(), *k_BKTD.stride(), *v_BKTD.stride(), *out_BHTD.stride(),
        H, H // k_BKTD.shape[1], T_q, T_k, options.window or 0, *logit_factors(options),
        D=D, WIDTH=padded_width(D), ROWS=tile.rows, COLS=tile.columns, **mask_flags(options, documents),
        SINK=sink_H is not None, PRECISION=precision_of(q_BHTD.dtype), HOIST=tile.hoist,
        **launch_options(tile),
    )  # fmt: skip
    return out_BHTD, lse_BHT


def mask_arguments(documents: Documents | None) -> tuple[Tensor | None, Tensor | None]:
    return (None, None) if documents is None else (documents.starts, documents.ends)


def mask_flags(options: Options, documents: Documents | None) -> dict[str, bool]:
    return {
        "CAUSAL": options.causal,
        "WINDOW": options.window is not None,
        "DOCUMENTS": documents is not None,
        "SOFTCAP": options.softcap is not None,
    }


def is_featured(options: Options, documents: Documents | None) -> bool:
    return documents is not None or options.window is not None or options.softcap is not None


def logit_factors(options: Options) -> tuple[float, float]:
    """factor, inner: the logit in units of log2 is x * factor, x = q.k or tanh(q.k * inner)."""
    if options.softcap is None:
        return options.scale * LOG2E.value, 1.0
    return options.softcap * LOG2E.value, options.scale / options.softcap
