"""One sweep over blocks of tokens: logits of the whole vocabulary, their loss and gradient, two products.

Blocks are of tokens rather than of vocabulary since the gradient of the head needs the finished log-sum-exp
of its tokens: a sweep over parts of the vocabulary would have to compute every logit twice, four matrix
products in place of three. N tokens, n of them in a block, V vocabulary, W width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Block = Callable[[Tensor, int, Tensor, Tensor, float, int, bool], None]
"""Rows (n, P), P >= V, whose first V columns are logits; V; targets (n,), losses (n,) to be filled, z_loss,
ignore_index, whether the logits are to become the gradient of the sum of the losses."""

BLOCK_BYTES = 16 << 20
"""Of the float32 logits held at once; at least one token's. On a CPU (width 128, vocabularies of
4k and 50k) it takes .63 to .70 of the processor time of whole logits, and so do 8 to 64 MiB; a sweep over
parts of the vocabulary takes .98."""
GPU_BLOCK_BYTES = 256 << 20
"""On a GPU, of logits in their own precision. The gradient of the head is read and written once a block,
8 bytes for the 6 n FLOPs of each weight: from n = 2,500 (50k tokens in bfloat16) a sixth of the time of the
products by an H100's data sheet. Not measured."""
ADDS_INTO_WIDER = torch.__version__ >= "2.10"
"""Versions, not text, are compared. Before, `addmm` of 16-bit operands refuses to add to float32
(pytorch/pytorch#167931)."""
ROW_BYTES = 128
"""Rows of logits begin at multiples of this, whatever the vocabulary: matrix products and kernels then read
and write whole lines."""


def sweep(
    hidden_NW: Tensor,
    weight_VW: Tensor,
    targets_N: Tensor,
    z_loss: float,
    ignore_index: int,
    gradients: bool,
    block: Block,
    tokens: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The sum of the losses, and its gradients by hidden and weight, or two empty tensors without.

    `tokens` to a block. Losses and the gradient of the weight are summed in float32 at least, in one order.
    """
    wide = torch.promote_types(hidden_NW.dtype, torch.float32)
    (N, W), V = hidden_NW.shape, len(weight_VW)
    head_VW, targets_N = weight_VW.to(hidden_NW.dtype), targets_N.contiguous()
    losses_N = hidden_NW.new_empty(N, dtype=wide)
    dhidden_NW = hidden_NW.new_empty(N if gradients else 0, W)
    dweight_VW = hidden_NW.new_zeros(V if gradients else 0, W, dtype=wide)
    buffer = hidden_NW.new_empty(min(tokens, N), padded_row(V, hidden_NW.element_size()))
    for start in range(0, N, tokens):
        here = slice(start, min(start + tokens, N))
        rows_nP = buffer[: here.stop - start]
        logits_nV = rows_nP[:, :V]
        torch.mm(hidden_NW[here], head_VW.t(), out=logits_nV)
        block(rows_nP, V, targets_N[here], losses_N[here], z_loss, ignore_index, gradients)
        if gradients:
            torch.mm(logits_nV, head_VW, out=dhidden_NW[here])
            accumulate(dweight_VW, logits_nV, hidden_NW[here])
    return losses_N.sum(), dhidden_NW, dweight_VW


def accumulate(sum_VW: Tensor, slopes_nV: Tensor, hidden_nW: Tensor) -> None:
    """sum += slopes^T hidden. CUDA multiplies 16-bit operands into float32; elsewhere a block's share is
    rounded to bfloat16 before it is added, and float16, which it might overflow, multiplied in float32."""
    if slopes_nV.dtype == sum_VW.dtype:
        sum_VW.addmm_(slopes_nV.t(), hidden_nW)
    elif slopes_nV.is_cuda and torch.version.hip is None and ADDS_INTO_WIDER:
        torch.addmm(sum_VW, slopes_nV.t(), hidden_nW, out_dtype=sum_VW.dtype, out=sum_VW)
    elif slopes_nV.is_cuda and torch.version.hip is None:
        sum_VW += torch.mm(slopes_nV.t(), hidden_nW, out_dtype=sum_VW.dtype)
    elif slopes_nV.dtype == torch.bfloat16:
        sum_VW += slopes_nV.t() @ hidden_nW
    else:
        sum_VW.addmm_(slopes_nV.t().to(sum_VW.dtype), hidden_nW.to(sum_VW.dtype))


def padded_row(vocabulary: int, element_bytes: int) -> int:
    unit = ROW_BYTES // element_bytes
    return -(-vocabulary // unit) * unit


def block_tokens(vocabulary: int, device: str, element_bytes: int) -> int:
    """On a GPU a multiple of 128, the rows of a matrix product's tile, where there are so many."""
    if device == "cpu":
        return max(1, BLOCK_BYTES // (4 * vocabulary))
    fit = GPU_BLOCK_BYTES // (element_bytes * vocabulary)
    return fit // 128 * 128 or max(1, fit)


def torch_block(
    rows_nP: Tensor,
    V: int,
    targets_n: Tensor,
    losses_n: Tensor,
    z_loss: float,
    ignore_index: int,
    gradients: bool,
) -> None:
    """A `Block` of PyTorch's operations, on every device."""
    logits_nV = rows_nP[:, :V]
    wide_nV = logits_nV.to(losses_n.dtype)
    kept = targets_n != ignore_index
    at_n1 = targets_n.masked_fill(~kept, 0).unsqueeze(1)
    peak_n1 = wide_nV.amax(1, keepdim=True)
    hit_n1 = wide_nV.gather(1, at_n1) - peak_n1
    weights_nV = wide_nV.sub_(peak_n1).exp_()
    total_n1 = weights_nV.sum(1, keepdim=True)
    lse_n1 = peak_n1 + total_n1.log()
    loss_n = (total_n1.log() - hit_n1 + z_loss * lse_n1.square()).squeeze(1)
    losses_n.copy_(torch.where(kept, loss_n, 0))
    if not gradients:
        return
    weights_nV.mul_((1 + 2 * z_loss * lse_n1) / total_n1)
    weights_nV.scatter_add_(1, at_n1, torch.full_like(total_n1, -1))
    weights_nV.masked_fill_(~kept.unsqueeze(1), 0)
    if weights_nV is not logits_nV:
        logits_nV.copy_(weights_nV)
