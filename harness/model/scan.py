"""A linear recurrence with a matrix for a state, step by step and in chunks.

h_t = exp(decay_t) h_(t-1) + write_t v_t^T,    out_t = read_t h_t

This is the state-space duality of Dao and Gu 2024, arXiv:2405.21060: one scalar decay for each head and
position, `write` and `read` shared by the heads. Both forms compute in float32 and give float32.

B batch, T positions, H heads, d head dimension, n state size, C chunks, Q positions of a chunk,
I = H d.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.model.settings import CHUNK


def stepwise(v_BTHd: Tensor, write_BTn: Tensor, read_BTn: Tensor, decay_BTH: Tensor) -> Tensor:
    """The specification, one position after another: [B, T, H, d]."""
    batch, length, heads, head_dim = v_BTHd.shape
    state_BHnd = v_BTHd.new_zeros(batch, heads, write_BTn.shape[-1], head_dim, dtype=torch.float32)
    out = []
    for t in range(length):
        written = write_BTn[:, t, None, :, None].float() @ v_BTHd[:, t, :, None, :].float()
        state_BHnd = decay_BTH[:, t, :, None, None].float().exp() * state_BHnd + written
        out.append((read_BTn[:, t, None, None, :].float() @ state_BHnd).squeeze(2))
    return torch.stack(out, dim=1)


def chunked(
    v_BTHd: Tensor, write_BTn: Tensor, read_BTn: Tensor, decay_BTH: Tensor, chunk: int = CHUNK
) -> Tensor:
    """The same as `stepwise`, in matrix products within and between chunks (section 6 of the paper).

    Decays only ever appear as exp of a sum over a range of positions, at most one, so nothing overflows
    whatever the length.
    """
    length = v_BTHd.shape[1]
    chunk = min(chunk, length)
    with torch.autocast(v_BTHd.device.type, enabled=False):
        v_BCQHd, write_BCQn, read_BCQn, decay_BCQH = (
            split(x.float(), chunk) for x in (v_BTHd, write_BTn, read_BTn, decay_BTH)
        )
        until_BCQH = running_sum(decay_BCQH, dim=2)  # the chunk's decay up to and including a position
        until_BCHQ = until_BCQH.transpose(2, 3)
        scores_BCQQ = read_BCQn @ write_BCQn.transpose(-1, -2)
        weights_BCHQQ = scores_BCQQ[:, :, None] * falling(until_BCHQ, until_BCHQ, diagonal=0)
        out_BCQHd = (weights_BCHQQ @ v_BCQHd.transpose(2, 3)).transpose(2, 3)
        if length > chunk:
            after_BCQH = (until_BCQH[:, :, -1:] - until_BCQH).exp()
            written_BCnI = write_BCQn.transpose(-1, -2) @ (after_BCQH[..., None] * v_BCQHd).flatten(3)
            state_BCnI = carry(written_BCnI, until_BCQH[:, :, -1])
            read_BCQHd = (read_BCQn @ state_BCnI).unflatten(3, v_BCQHd.shape[3:])
            out_BCQHd = out_BCQHd + until_BCQH.exp()[..., None] * read_BCQHd
    return out_BCQHd.flatten(1, 2)[:, :length]


def carry(written_BCnI: Tensor, decay_BCH: Tensor) -> Tensor:
    """The states at the start of each chunk, [B, C, n, I], from what every chunk before it wrote."""
    until_BHC = running_sum(decay_BCH, dim=1).transpose(1, 2)
    before_BHC = until_BHC - decay_BCH.transpose(1, 2)
    weights_BHCC = falling(before_BHC, until_BHC, diagonal=-1)
    written_BHCs = written_BCnI.unflatten(3, (decay_BCH.shape[2], -1)).permute(0, 3, 1, 2, 4).flatten(3)
    state_BHCnd = (weights_BHCC @ written_BHCs).unflatten(3, (written_BCnI.shape[2], -1))
    return state_BHCnd.permute(0, 2, 3, 1, 4).flatten(3)


def running_sum(x: Tensor, dim: int) -> Tensor:
    """cumsum; on a GPU as a product with ones below the diagonal: some releases of PyTorch refuse cumsum
    there once algorithms are to be deterministic."""
    return x.cumsum(dim) if x.device.type != "cuda" else multiplied_out(x, dim)


def multiplied_out(x: Tensor, dim: int) -> Tensor:
    below_QQ = torch.ones(x.shape[dim], x.shape[dim], dtype=x.dtype, device=x.device).tril()
    return (below_QQ @ x.movedim(dim, -2)).movedim(-2, dim)


def falling(later: Tensor, earlier: Tensor, diagonal: int) -> Tensor:
    """exp(later_i - earlier_j) on and below a diagonal, zero above: [..., Q] twice -> [..., Q, Q]."""
    difference = later[..., :, None] - earlier[..., None, :]
    above = torch.ones(difference.shape[-2:], dtype=torch.bool, device=later.device).triu(diagonal + 1)
    return difference.masked_fill(above, -torch.inf).exp()


def split(x_BT: Tensor, chunk: int) -> Tensor:
    """[B, T, ...] into [B, C, Q, ...], with zeros after the end: they write nothing and decay nothing."""
    missing = -x_BT.shape[1] % chunk
    if missing:
        x_BT = F.pad(x_BT, (0, 0) * (x_BT.ndim - 2) + (0, missing))
    return x_BT.unflatten(1, (-1, chunk))
