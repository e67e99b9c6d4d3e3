"""The loss of a block of tokens from its logits, which become their own gradient: one launch.

A program takes one token. It goes over the row twice: once for the largest logit and the sum of the
exponentials relative to it, once to write the gradient in the place of the logits. No other program touches
the row, and nothing is added up across programs, so the result does not depend on their order.

Verified in the interpreter and by compilation alone: nothing here has run on a GPU.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

COLUMNS = 4096
"""Of a row, held at once: sixteen a thread of eight warps."""


@triton.jit
def load_columns(row, at, width, V):
    """Minus infinity past the vocabulary. Read up to the width of the row, a multiple of 16, so that a
    vocabulary which is none is read in whole vectors too."""
    x = tl.load(row + at, mask=at < width, other=0.0).to(tl.float32)
    return tl.where(at < V, x, float("-inf"))


@triton.jit
def peak_and_total(row, width, V, COLS: tl.constexpr):
    """The largest logit of a row, and the sum of exp(logit - largest) (arXiv 1805.02867, algorithm 3)."""
    peak = tl.full([], float("-inf"), tl.float32)
    total = tl.full([], 0.0, tl.float32)
    for start in range(0, V, COLS):
        x = load_columns(row, start + tl.arange(0, COLS), width, V)
        higher = tl.maximum(peak, tl.max(x, 0))
        shift = tl.where(higher == float("-inf"), 0.0, higher)
        total = total * tl.exp(peak - shift) + tl.sum(tl.exp(x - shift), 0)
        peak = higher
    return peak, total


@triton.jit(do_not_specialize=["ignored", "z_loss"], do_not_specialize_on_alignment=["targets", "losses"])
def block_kernel(
    logits, targets, losses, width, V, ignored, z_loss, COLS: tl.constexpr, GRADIENTS: tl.constexpr
):
    """Grid: (tokens,). A target that is neither ignored nor of the vocabulary makes loss and gradient NaN."""
    n = tl.program_id(0)
    row = logits + n.to(tl.int64) * width
    target = tl.load(targets + n)
    if target != ignored:
        known = (target >= 0) & (target < V)
        hit = tl.load(row + target, mask=known, other=float("nan")).to(tl.float32)
        peak, total = peak_and_total(row, width, V, COLS)
        lse = peak + tl.log(total)
        tl.store(losses + n, tl.log(total) - (hit - peak) + z_loss * lse * lse)
        if GRADIENTS:
            tl.debug_barrier()  # every thread has read `hit` before one overwrites it
            scale = tl.where(known, 1.0 + 2.0 * z_loss * lse, float("nan")) / total
            for start in range(0, V, COLS):
                at = start + tl.arange(0, COLS)
                slope = tl.exp(load_columns(row, at, width, V) - peak) * scale
                slope = tl.where(at == target, slope - 1.0, slope)
                tl.store(row + at, slope.to(row.dtype.element_ty), mask=at < width)
    else:
        tl.store(losses + n, 0.0)
        if GRADIENTS:
            for start in range(0, V, COLS):
                at = start + tl.arange(0, COLS)
                tl.store(row + at, tl.zeros([COLS], row.dtype.element_ty), mask=at < width)


def launch_block(
    rows_nP: Tensor,
    V: int,
    targets_n: Tensor,
    losses_n: Tensor,
    z_loss: float,
    ignore_index: int,
    gradients: bool,
    columns: int = COLUMNS,
) -> None:
    """Fill losses (n,) in float32, and with `gradients` replace the logits, the first V columns of the rows,
    by the gradient of the sum of losses; what is past them is undefined before and after. All contiguous."""
    columns = min(columns, triton.next_power_of_2(V))
    with torch.cuda.device_of(rows_nP):
        block_kernel[(len(rows_nP),)](
            rows_nP, targets_n, losses_n, rows_nP.shape[1], V, ignore_index, float(z_loss),
            COLS=columns, GRADIENTS=gradients, num_warps=warps_of(columns), enable_fp_fusion=True,
        )  # fmt: skip


def warps_of(columns: int) -> int:
    return max(1, min(8, columns // 512))
