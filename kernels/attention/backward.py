"""Attention backward: delta, then one program per tile of keys (dK, dV), then one per tile of queries (dQ).

No atomics: every number of a gradient is summed by one program in one order, so that two runs agree to the
bit. dK and dV of a key/value head sum over its group of query heads inside the program.

Verified in the interpreter and by compilation alone: nothing here has run on a GPU.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.attention.forward import is_featured, logit_factors, mask_arguments, mask_flags
from kernels.attention.primitives import (
    LOG2E,
    inside,
    keys_seen,
    load_row,
    load_tile,
    part_of,
    products,
    seen_by,
    slopes,
    start_of,
    store_tile,
    visits,
)
from kernels.attention.problem import Documents, Options
from kernels.attention.tuning import Pass, Tile, choose_tile, launch_options, padded_width, precision_of


@triton.jit(do_not_specialize=["T_q"])
def delta_kernel(
    out, dout, dlse, delta, stride_ob, stride_oh, stride_ot, stride_od, stride_gb, stride_gh, stride_gt,
    stride_gd, H, T_q, D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, LSE: tl.constexpr,
):  # fmt: skip
    """delta = sum_d out dout - dlse, (B, H, T_q) float32. Grid: (tiles of queries * B * H,)."""
    tiles = tl.cdiv(T_q, ROWS)
    bh = tl.program_id(0) // tiles
    begin = tl.program_id(0) % tiles * ROWS
    out_base = out + (bh // H).to(tl.int64) * stride_ob + (bh % H).to(tl.int64) * stride_oh
    dout_base = dout + (bh // H).to(tl.int64) * stride_gb + (bh % H).to(tl.int64) * stride_gh
    out_tile = load_tile(out_base, begin, T_q, stride_ot, stride_od, ROWS, WIDTH, D, True)
    dout_tile = load_tile(dout_base, begin, T_q, stride_gt, stride_gd, ROWS, WIDTH, D, True)
    row = begin + tl.arange(0, ROWS)
    at = bh.to(tl.int64) * T_q + row
    sums = tl.sum(out_tile.to(tl.float32) * dout_tile.to(tl.float32), 1)
    if LSE:
        sums -= tl.load(dlse + at, mask=row < T_q, other=0.0)
    tl.store(delta + at, sums, mask=row < T_q)


@triton.jit
def sweep_queries(
    dk, dv, k, v, q_base, dout_base, lse_base, delta_base, first, whole, partial, last, lo, hi, T_q,
    stride_qt, stride_qd, stride_gt, stride_gd, factor, inner, D: tl.constexpr, COLS: tl.constexpr,
    WIDTH: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr, HOIST: tl.constexpr,
    BOTH: tl.constexpr, PARTIAL: tl.constexpr,
):  # fmt: skip
    """The inner loop of dK and dV [ROWS, WIDTH] over one part of the queries; rows are keys.

    A key may miss the last queries only if BOTH: those from T_q on add nothing, as dout and delta read zero.
    """
    begin, end = part_of(first, whole, partial, last, PARTIAL, True)
    for at in tl.range(begin, end, COLS, disable_licm=not HOIST):
        start = start_of(at, whole, partial, PARTIAL, True)
        q = load_tile(q_base, start, T_q, stride_qt, stride_qd, COLS, WIDTH, D, PARTIAL)
        lse = load_row(lse_base, start, T_q, COLS, PARTIAL)
        x = products(k, q, inner, SOFTCAP, PRECISION)
        p = tl.exp2(x * factor - (lse * LOG2E)[None, :])
        if PARTIAL:
            p = tl.where(inside(lo, hi, start, COLS, True, BOTH), p, 0.0)
        slope = slopes(x, p, SOFTCAP)
        dout = load_tile(dout_base, start, T_q, stride_gt, stride_gd, COLS, WIDTH, D, PARTIAL)
        dv = tl.dot(p.to(dout.dtype), dout, dv, input_precision=PRECISION)
        delta = load_row(delta_base, start, T_q, COLS, PARTIAL)
        dp = tl.dot(v, tl.trans(dout), input_precision=PRECISION)
        ds = slope * (dp - delta[None, :])
        dk = tl.dot(ds.to(q.dtype), q, dk, input_precision=PRECISION)
    return dk, dv


@triton.jit
def sweep_keys(
    dq, q, dout, lse, delta, k_base, v_base, first, whole, partial, last, lo, hi, T_k, stride_kt, stride_kd,
    stride_vt, stride_vd, factor, inner, D: tl.constexpr, COLS: tl.constexpr, WIDTH: tl.constexpr,
    SOFTCAP: tl.constexpr, PRECISION: tl.constexpr, HOIST: tl.constexpr, BOTH: tl.constexpr,
    PARTIAL: tl.constexpr,
):  # fmt: skip
    """The inner loop of dQ [ROWS, WIDTH] over one part of the keys; rows are queries, which may miss the
    first keys only if BOTH."""
    begin, end = part_of(first, whole, partial, last, PARTIAL, BOTH)
    for at in tl.range(begin, end, COLS, disable_licm=not HOIST):
        start = start_of(at, whole, partial, PARTIAL, BOTH)
        k = load_tile(k_base, start, T_k, stride_kt, stride_kd, COLS, WIDTH, D, PARTIAL)
        x = products(q, k, inner, SOFTCAP, PRECISION)
        p = tl.exp2(x * factor - (lse * LOG2E)[:, None])
        if PARTIAL:
            p = tl.where(inside(lo, hi, start, COLS, BOTH, True), p, 0.0)
        slope = slopes(x, p, SOFTCAP)
        v = load_tile(v_base, start, T_k, stride_vt, stride_vd, COLS, WIDTH, D, PARTIAL)
        dp = tl.dot(dout, tl.trans(v), input_precision=PRECISION)
        ds = slope * (dp - delta[:, None])
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision=PRECISION)
    return dq


@triton.jit(do_not_specialize=["T_q", "T_k", "window"])
def keys_values_kernel(
    q, k, v, dout, lse, delta, dk, dv, starts, ends,
    stride_qb, stride_qh, stride_qt, stride_qd, stride_kb, stride_kh, stride_kt, stride_kd,
    stride_vb, stride_vh, stride_vt, stride_vd, stride_gb, stride_gh, stride_gt, stride_gd,
    stride_dkb, stride_dkh, stride_dkt, stride_dkd, stride_dvb, stride_dvh, stride_dvt, stride_dvd,
    H, GROUP, T_q, T_k, window, factor, inner, scale,
    D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, CAUSAL: tl.constexpr,
    WINDOW: tl.constexpr, DOCUMENTS: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
    HOIST: tl.constexpr,
):  # fmt: skip
    """dK, dV. Grid: (tiles of keys * B * K,), the tiles of a head together, the first and longest first."""
    tiles = tl.cdiv(T_k, ROWS)
    kv_heads = H // GROUP
    b = tl.program_id(0) // tiles // kv_heads
    kv_head = tl.program_id(0) // tiles % kv_heads
    begin = tl.program_id(0) % tiles * ROWS
    k_base = k + b.to(tl.int64) * stride_kb + kv_head.to(tl.int64) * stride_kh
    v_base = v + b.to(tl.int64) * stride_vb + kv_head.to(tl.int64) * stride_vh
    dk_base = dk + b.to(tl.int64) * stride_dkb + kv_head.to(tl.int64) * stride_dkh
    dv_base = dv + b.to(tl.int64) * stride_dvb + kv_head.to(tl.int64) * stride_dvh

    BOTH: tl.constexpr = WINDOW or DOCUMENTS
    row = begin + tl.arange(0, ROWS)
    lo, hi = seen_by(row, b, T_q, T_k, window, starts, ends, CAUSAL, WINDOW, DOCUMENTS)
    first, whole, partial, last = visits(lo, hi, COLS)
    k_tile = load_tile(k_base, begin, T_k, stride_kt, stride_kd, ROWS, WIDTH, D, True)
    v_tile = load_tile(v_base, begin, T_k, stride_vt, stride_vd, ROWS, WIDTH, D, True)
    dk_tile = tl.zeros([ROWS, WIDTH], tl.float32)
    dv_tile = tl.zeros([ROWS, WIDTH], tl.float32)
    for h in range(kv_head * GROUP, kv_head * GROUP + GROUP):
        q_base = q + b.to(tl.int64) * stride_qb + tl.cast(h, tl.int64) * stride_qh
        dout_base = dout + b.to(tl.int64) * stride_gb + tl.cast(h, tl.int64) * stride_gh
        lse_base = lse + tl.cast(b * H + h, tl.int64) * T_q
        delta_base = delta + tl.cast(b * H + h, tl.int64) * T_q
        for PARTIAL in tl.static_range(2):
            dk_tile, dv_tile = sweep_queries(
                dk_tile, dv_tile, k_tile, v_tile, q_base, dout_base, lse_base, delta_base, first, whole,
                partial, last, lo, hi, T_q, stride_qt, stride_qd, stride_gt, stride_gd, factor, inner, D,
                COLS, WIDTH, SOFTCAP, PRECISION, HOIST, BOTH, PARTIAL,
            )  # fmt: skip
    store_tile(dk_base, dk_tile * scale, begin, T_k, stride_dkt, stride_dkd, ROWS, WIDTH, D)
    store_tile(dv_base, dv_tile, begin, T_k, stride_dvt, stride_dvd, ROWS, WIDTH, D)


@triton.jit(do_not_specialize=["T_q", "T_k", "window"])
def queries_kernel(
    q, k, v, dout, lse, delta, dq, starts, ends,
    stride_qb, stride_qh, stride_qt, stride_qd, stride_kb, stride_kh, stride_kt, stride_kd,
    stride_vb, stride_vh, stride_vt, stride_vd, stride_gb, stride_gh, stride_gt, stride_gd,
    stride_dqb, stride_dqh, stride_dqt, stride_dqd, H, GROUP, T_q, T_k, window, factor, inner, scale,
    D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, CAUSAL: tl.constexpr,
    WINDOW: tl.constexpr, DOCUMENTS: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
    HOIST: tl.constexpr,
):  # fmt: skip
    """dQ. Grid: (tiles of queries * B * H,), the tiles of a head together, the last and longest first."""
    tiles = tl.cdiv(T_q, ROWS)
    bh = tl.program_id(0) // tiles
    b = bh // H
    h = bh % H
    begin = (tiles - 1 - tl.program_id(0) % tiles) * ROWS
    q_base = q + b.to(tl.int64) * stride_qb + h.to(tl.int64) * stride_qh
    dout_base = dout + b.to(tl.int64) * stride_gb + h.to(tl.int64) * stride_gh
    k_base = k + b.to(tl.int64) * stride_kb + (h // GROUP).to(tl.int64) * stride_kh
    v_base = v + b.to(tl.int64) * stride_vb + (h // GROUP).to(tl.int64) * stride_vh
    dq_base = dq + b.to(tl.int64) * stride_dqb + h.to(tl.int64) * stride_dqh

    BOTH: tl.constexpr = WINDOW or DOCUMENTS
    row = begin + tl.arange(0, ROWS)
    lo, hi = keys_seen(row, b, T_q, T_k, window, starts, ends, CAUSAL, WINDOW, DOCUMENTS)
    first, whole, partial, last = visits(lo, hi, COLS)
    q_tile = load_tile(q_base, begin, T_q, stride_qt, stride_qd, ROWS, WIDTH, D, True)
    dout_tile = load_tile(dout_base, begin, T_q, stride_gt, stride_gd, ROWS, WIDTH, D, True)
    lse_row = load_row(lse + bh.to(tl.int64) * T_q, begin, T_q, ROWS, True)
    delta_row = load_row(delta + bh.to(tl.int64) * T_q, begin, T_q, ROWS, True)
    dq_tile = tl.zeros([ROWS, WIDTH], tl.float32)
    for PARTIAL in tl.static_range(2):
        dq_tile = sweep_keys(
            dq_tile, q_tile, dout_tile, lse_row, delta_row, k_base, v_base, first, whole, partial, last, lo,
            hi, T_k, stride_kt, stride_kd, stride_vt, stride_vd, factor, inner, D, COLS, WIDTH, SOFTCAP,
            PRECISION, HOIST, BOTH, PARTIAL,
        )  # fmt: skip
    store_tile(dq_base, dq_tile * scale, begin, T_q, stride_dqt, stride_dqd, ROWS, WIDTH, D)


def launch_delta(out_BHTD: Tensor, dout_BHTD: Tensor, dlse_BHT: Tensor | None = None) -> Tensor:
    """delta (B, H, T_q) float32: sum over d of out dout, less the gradient of the log-sum-exp."""
    B, H, T_q, D = out_BHTD.shape
    delta_BHT = torch.empty(B, H, T_q, dtype=torch.float32, device=out_BHTD.device)
    rows = 32
    delta_kernel[(triton.cdiv(T_q, rows) * B * H,)](
        out_BHTD, dout_BHTD, None if dlse_BHT is None else dlse_BHT.contiguous(), delta_BHT,
        *out_BHTD.stride(), *dout_BHTD.stride(), H, T_q,
        D=D, WIDTH=padded_width(D), ROWS=rows, LSE=dlse_BHT is not None, num_warps=4, enable_fp_fusion=True,
    )  # fmt: skip
    return delta_BHT


def launch_backward(
    dout_BHTD: Tensor,
    q_BHTD: Tensor,
    k_BKTD: Tensor,
    v_BKTD: Tensor,
    lse_BHT: Tensor,
    delta_BHT: Tensor,
    options: Options,
    documents: Documents | None = None,
    keys_tile: Tile | None = None,
    queries_tile: Tile | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk, dv with the layouts of q, k, v. The inputs must be valid."""
    B, H, T_q, D = q_BHTD.shape
    K, T_k = k_BKTD.shape[1:3]
    featured = is_featured(options, documents)
    keys_tile = keys_tile or choose_tile(Pass.keys_values, D, q_BHTD.dtype, featured)
    queries_tile = queries_tile or choose_tile(Pass.queries, D, q_BHTD.dtype, featured)
    dq, dk, dv = torch.empty_like(q_BHTD), torch.empty_like(k_BKTD), torch.empty_like(v_BKTD)
    inputs = (q_BHTD, k_BKTD, v_BKTD, dout_BHTD)
    strides = [stride for tensor in inputs for stride in tensor.stride()]
    numbers = (H, H // K, T_q, T_k, options.window or 0, *logit_factors(options), options.scale)
    constants = dict(
        D=D, WIDTH=padded_width(D), PRECISION=precision_of(q_BHTD.dtype), **mask_flags(options, documents)
    )
    keys_values_kernel[(triton.cdiv(T_k, keys_tile.rows) * B * K,)](
        *inputs, lse_BHT, delta_BHT, dk, dv, *mask_arguments(documents), *strides, *dk.stride(), *dv.stride(),
        *numbers, ROWS=keys_tile.rows, COLS=keys_tile.columns, HOIST=keys_tile.hoist, **constants,
        **launch_options(keys_tile),
    )  # fmt: skip
    queries_kernel[(triton.cdiv(T_q, queries_tile.rows) * B * H,)](
        *inputs, lse_BHT, delta_BHT, dq, *mask_arguments(documents), *strides, *dq.stride(),
        *numbers, ROWS=queries_tile.rows, COLS=queries_tile.columns, HOIST=queries_tile.hoist, **constants,
        **launch_options(queries_tile),
    )  # fmt: skip
    return dq, dk, dv
