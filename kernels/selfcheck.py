"""Whether attention is right on the card that is here: it is compared with PyTorch's SDPA, the norm and
rotation before it with plain operations. `kernels.verdicts` says when, and keeps what was found.

The comparison runs wherever the kernels do, the interpreter included; it has not run on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.attention.api import attention
from kernels.attention.problem import Options
from kernels.attention.reference import reference_attention
from kernels.norm_rotary.api import norm_rotary
from kernels.norm_rotary.reference import reference_norm_rotary


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is to be proved: the kernels that a model of this head dimension would launch on `device`, with
    the shipped tiles or those of `Tiles.flat`."""

    head_dim: int
    dtype: str
    windowed: bool
    device: str
    tiles: tuple[int, ...] | None = None

    @property
    def torch_dtype(self) -> torch.dtype:
        found = getattr(torch, self.dtype)
        assert isinstance(found, torch.dtype)
        return found

    def shortfall(self) -> str | None:
        return shortfall(self, shipped if self.tiles is None else with_tiles(self.tiles))


Size = tuple[int, int, int]
"""Tokens, query heads, key heads."""
Attend = Callable[[Tensor, Tensor, Tensor, int | None], Tensor]
"""q (B, H, T, D), k and v (B, K, T, D), window -> out, causal, scale 1 / sqrt(D)."""


def shipped(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    return attention(q, k, v, causal=True, window=window)


def with_tiles(tiles: Sequence[int]) -> Attend:
    def attend(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        return attention(q, k, v, causal=True, window=window, tiles=tiles)

    return attend


def sdpa(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    tokens = q.shape[2]
    seen = torch.ones(tokens, tokens, dtype=torch.bool, device=q.device).tril()
    mask = None if window is None else seen.triu(1 - window)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=window is None, enable_gqa=q.shape[1] != k.shape[1]
    )


def eager(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """PyTorch's plain operations, each rounded to the precision of the inputs."""
    options = Options(causal=True, window=window, scale=q.shape[3] ** -0.5, softcap=None)
    return reference_attention(q, k, v, options)[0]


SIZES: tuple[Size, ...] = ((1, 1, 1), (200, 4, 4), (257, 4, 2))


def shortfall(subject: Subject, attend: Attend = shipped, sizes: Sequence[Size] = SIZES) -> str | None:
    """What is wrong: the first output or gradient that is further from float64 SDPA than twice the error of
    PyTorch in the same precision (SDPA's or its plain operations', the larger), or that differs between two
    runs. None where nothing is."""
    if said := norm_shortfall(subject):
        return said
    windows = (None, 1, 23) if subject.windowed else (None,)
    for size, window in product(sizes, windows):
        found = compare(subject, attend, size, window)
        if said := found.wrong or found.unsteady:
            return f"{said}: of {size[0]} tokens, {size[1]} heads on {size[2]}, window {window}"
    return None


def norm_shortfall(subject: Subject) -> str | None:
    """The same of the norm and rotation, with a tile and a half of rows of queries cut from a projection."""
    dtype, D, device = subject.torch_dtype, subject.head_dim, subject.device
    random = torch.Generator().manual_seed(0)
    projected = torch.randn(2, 97, 5 * D, generator=random).to(device, dtype)
    x, dy = (projected[..., a * D : (a + 2) * D].unflatten(-1, (2, D)) for a in (0, 3))
    gain = (1 + torch.randn(D, generator=random) / 2).to(device)
    angle = torch.randn(97, D // 2, generator=random).to(device)
    tables = angle.cos(), angle.sin()

    def run(by: Callable[..., Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
        inputs = x.detach().to(dtype).requires_grad_(), gain.detach().to(wide_of(dtype)).requires_grad_()
        out = by(*inputs, *tables, eps=1e-6)
        return out.detach(), *torch.autograd.grad(out, inputs, dy.to(dtype))

    truth = run(reference_norm_rotary, torch.float64)
    once, again = run(norm_rotary, dtype), run(norm_rotary, dtype)
    for name, true, found, repeated in zip(("out", "dx", "dgain"), truth, once, again, strict=True):
        error, budget = largest_error(found, true), noise_floor(true, found.dtype)
        if not error <= budget:
            return f"{name} of norm and rotation is off by {error:.2g}, more than {budget:.2g}"
        if not torch.equal(found, repeated):
            return f"{name} of norm and rotation differs between two runs"
    return None


def wide_of(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


NAMES = ("out", "dq", "dk", "dv")


@dataclass(frozen=True)
class Finding:
    """The first output or gradient that is too far from the truth, and the first that differs between two
    runs; empty where none is."""

    wrong: str
    unsteady: str


def compare(subject: Subject, attend: Attend, size: Size, window: int | None) -> Finding:
    tokens, heads, key_heads = size
    random = torch.Generator().manual_seed(tokens)
    # tokens before heads in memory, as a model's projection leaves them
    shapes = [(2, tokens, n, subject.head_dim) for n in (heads, key_heads, key_heads, heads)]
    q, k, v, dout = (
        torch.randn(shape, generator=random).to(subject.device, subject.torch_dtype).transpose(1, 2)
        for shape in shapes
    )

    def run(by: Attend, dtype: torch.dtype) -> tuple[Tensor, ...]:
        inputs = a, b, c = tuple(x.detach().to(dtype).requires_grad_() for x in (q, k, v))
        out = by(a, b, c, window)
        return out.detach(), *torch.autograd.grad(out, inputs, dout.to(dtype))

    truth = run(sdpa, torch.float64)
    theirs = [run(by, subject.torch_dtype) for by in (sdpa, eager)]
    once, again = run(attend, subject.torch_dtype), run(attend, subject.torch_dtype)
    wrong = ""
    for name, true, found, *rough in zip(NAMES, truth, once, *theirs, strict=True):
        error, allowed = largest_error(found, true), 2 * max(largest_error(each, true) for each in rough)
        budget = max(allowed, noise_floor(true, found.dtype, terms=tokens * heads // key_heads))
        if not (wrong or error <= budget):
            wrong = f"{name} is off by {error:.2g}, more than {budget:.2g}"
    return Finding(wrong, unsteady(NAMES, once, again))


def unsteady(names: Sequence[str], once: Sequence[Tensor], again: Sequence[Tensor]) -> str:
    pairs = zip(names, once, again, strict=True)
    return next((f"{name} differs between two runs" for name, a, b in pairs if not torch.equal(a, b)), "")


def largest_error(found: Tensor, true: Tensor) -> float:
    """A NaN is infinitely wrong."""
    return float((found.double() - true).abs().nan_to_num(torch.inf).max())


def noise_floor(true: Tensor, dtype: torch.dtype, terms: int = 0) -> float:
    """One unit in the last place of the largest number; 32 of float32, whose sums round too, and what tensor
    cores lose of a sum of so many products."""
    units = 32 + lost_units(terms) if dtype == torch.float32 else 1
    return units * torch.finfo(dtype).eps * max(1.0, float(true.abs().max()))


def lost_units(terms: int) -> float:
    """By how many units in its last place a float32 sum of products may drift on tensor cores. Each product
    is three of tf32, four are added at once, and what has been summed is then cut, not rounded, which loses
    half a unit on average (Fasi et al. 2021, doi:10.7717/peerj-cs.330)."""
    return 3 * terms / 4 / 2
