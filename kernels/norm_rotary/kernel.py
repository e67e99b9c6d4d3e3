"""Norm and rotation, forward and backward: one read of x (and of dy), one write.

A row is one head of one token. Its two halves are loaded apart, since the rotation pairs element i with
i + D / 2. The backward recomputes the norm from x; each program sums the gradient of the gain over its own
rows in one order, without atomics, and the programs' sums are added afterwards.

Verified in the interpreter and by compilation alone: nothing here has run on a GPU.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

PROGRAMS = 1024
"""At most: they bound the memory of the partial sums, and are enough to fill a card."""
ELEMENTS = 2048
"""Of a tile: eight a thread of four warps, twice."""


@triton.jit
def places(row, column, T, H, stride_b, stride_t, stride_h, stride_d):
    """[ROWS, WIDTH] offsets of the first half of each row; row = (b T + t) H + h."""
    token = row // H
    start = (
        (token // T).to(tl.int64) * stride_b
        + (token % T).to(tl.int64) * stride_t
        + (row % H).to(tl.int64) * stride_h
    )
    return start[:, None] + column[None, :] * stride_d


@triton.jit
def load_halves(base, at, step, mask):
    first = tl.load(base + at, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(base + at + step, mask=mask, other=0.0).to(tl.float32)
    return first, second


@triton.jit
def store_halves(base, at, step, first, second, mask):
    tl.store(base + at, first.to(base.dtype.element_ty), mask=mask)
    tl.store(base + at + step, second.to(base.dtype.element_ty), mask=mask)


@triton.jit
def load_gain(gain, column, HALF: tl.constexpr):
    first = tl.load(gain + column, mask=column < HALF, other=0.0).to(tl.float32)
    second = tl.load(gain + HALF + column, mask=column < HALF, other=0.0).to(tl.float32)
    return first[None, :], second[None, :]


@triton.jit
def load_angles(cos, sin, row, column, T, H, mask, HALF: tl.constexpr):
    """[ROWS, WIDTH] cosines and sines of the positions of the rows, from contiguous (T, HALF) tables."""
    at = (row // H % T)[:, None] * HALF + column[None, :]
    return tl.load(cos + at, mask=mask, other=0.0), tl.load(sin + at, mask=mask, other=0.0)


@triton.jit
def root_scale(first, second, eps, HALF: tl.constexpr):
    """[ROWS, 1]: 1 / sqrt(mean(x^2) + eps)."""
    squares = tl.sum(first * first, 1) + tl.sum(second * second, 1)
    return tl.rsqrt(squares / (2 * HALF) + eps)[:, None]


@triton.jit(do_not_specialize=["T", "rows"])
def forward_kernel(
    x, y, gain, cos, sin, stride_xb, stride_xt, stride_xh, stride_xd, stride_yb, stride_yt, stride_yh,
    stride_yd, T, H, rows, eps, HALF: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Grid: (tiles of rows,)."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    mask = (row < rows)[:, None] & (column < HALF)[None, :]
    first, second = load_halves(
        x, places(row, column, T, H, stride_xb, stride_xt, stride_xh, stride_xd), HALF * stride_xd, mask
    )
    scale = root_scale(first, second, eps, HALF)
    gain_1, gain_2 = load_gain(gain, column, HALF)
    c, s = load_angles(cos, sin, row, column, T, H, mask, HALF)
    a, b = first * scale * gain_1, second * scale * gain_2
    at = places(row, column, T, H, stride_yb, stride_yt, stride_yh, stride_yd)
    store_halves(y, at, HALF * stride_yd, a * c - b * s, b * c + a * s, mask)


@triton.jit(do_not_specialize=["T", "rows"])
def backward_kernel(
    dy, x, dx, dgain, gain, cos, sin, stride_gb, stride_gt, stride_gh, stride_gd, stride_xb, stride_xt,
    stride_xh, stride_xd, stride_db, stride_dt, stride_dh, stride_dd, T, H, rows, eps,
    HALF: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """dx, and the gain's gradient of this program's tiles: row program_id of dgain (programs, 2 HALF)."""
    column = tl.arange(0, WIDTH)
    gain_1, gain_2 = load_gain(gain, column, HALF)
    sum_1 = tl.zeros([WIDTH], tl.float32)
    sum_2 = tl.zeros([WIDTH], tl.float32)
    for begin in range(tl.program_id(0) * ROWS, rows, tl.num_programs(0) * ROWS):
        row = begin + tl.arange(0, ROWS)
        mask = (row < rows)[:, None] & (column < HALF)[None, :]
        x_1, x_2 = load_halves(
            x, places(row, column, T, H, stride_xb, stride_xt, stride_xh, stride_xd), HALF * stride_xd, mask
        )
        dy_1, dy_2 = load_halves(
            dy, places(row, column, T, H, stride_gb, stride_gt, stride_gh, stride_gd), HALF * stride_gd, mask
        )
        c, s = load_angles(cos, sin, row, column, T, H, mask, HALF)
        scale = root_scale(x_1, x_2, eps, HALF)
        da, db = dy_1 * c + dy_2 * s, dy_2 * c - dy_1 * s
        sum_1 += tl.sum(da * x_1 * scale, 0)
        sum_2 += tl.sum(db * x_2 * scale, 0)
        da, db = da * gain_1, db * gain_2
        along = (tl.sum(da * x_1, 1) + tl.sum(db * x_2, 1))[:, None] * scale * scale / (2 * HALF)
        at = places(row, column, T, H, stride_db, stride_dt, stride_dh, stride_dd)
        store_halves(dx, at, HALF * stride_dd, scale * (da - x_1 * along), scale * (db - x_2 * along), mask)
    sums = dgain + tl.program_id(0) * 2 * HALF + column
    store_halves(sums, 0, HALF, sum_1, sum_2, column < HALF)


def launch_forward(x_BTHD: Tensor, gain_D: Tensor, cos_Td: Tensor, sin_Td: Tensor, eps: float) -> Tensor:
    """y (B, T, H, D), contiguous. The inputs must be valid, gain and tables contiguous."""
    B, T, H, D = x_BTHD.shape
    y_BTHD = torch.empty(x_BTHD.shape, dtype=x_BTHD.dtype, device=x_BTHD.device)
    half, width, rows = tile_of(D)
    forward_kernel[(triton.cdiv(B * T * H, rows),)](
        x_BTHD, y_BTHD, gain_D, cos_Td, sin_Td, *x_BTHD.stride(), *y_BTHD.stride(), T, H, B * T * H, eps,
        HALF=half, WIDTH=width, ROWS=rows, num_warps=4,
        enable_fp_fusion=True,
    )  # fmt: skip
    return y_BTHD


def launch_backward(
    dy_BTHD: Tensor, x_BTHD: Tensor, gain_D: Tensor, cos_Td: Tensor, sin_Td: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """dx (B, T, H, D), contiguous, and the gradient of the gain (D,) in float32."""
    B, T, H, D = x_BTHD.shape
    half, width, rows = tile_of(D)
    programs = min(triton.cdiv(B * T * H, rows), PROGRAMS)
    dx_BTHD = torch.empty(x_BTHD.shape, dtype=x_BTHD.dtype, device=x_BTHD.device)
    parts = torch.empty(programs, D, dtype=torch.float32, device=x_BTHD.device)
    backward_kernel[(programs,)](
        dy_BTHD, x_BTHD, dx_BTHD, parts, gain_D, cos_Td, sin_Td, *dy_BTHD.stride(), *x_BTHD.stride(),
        *dx_BTHD.stride(), T, H, B * T * H, eps, HALF=half, WIDTH=width, ROWS=rows, num_warps=4,
        enable_fp_fusion=True,
    )  # fmt: skip
    return dx_BTHD, parts.sum(0)


def tile_of(head_dim: int) -> tuple[int, int, int]:
    """Half the head dimension, that rounded up to a power of two, and the rows of a tile."""
    width = triton.next_power_of_2(head_dim // 2)
    return head_dim // 2, width, max(1, ELEMENTS // (2 * width))
